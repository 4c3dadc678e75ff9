//! From a host name to an open connection, as RFC 8305 (Happy Eyeballs) says: addresses
//! of both families in turn, a new attempt a quarter of a second after the last one,
//! the first to connect wins. Or through a SOCKS5 proxy, or to a Unix socket.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_socks::tcp::Socks5Stream;

use super::options::NetOptions;
use super::transport::Transport;
use crate::mail::{Server, ServerError};

const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server's port is not known.
    #[error(transparent)]
    Port(#[from] ServerError),
    /// This platform has no such connections.
    #[error("this platform has no Unix sockets")]
    NoSockets,
    /// The host's name leads nowhere.
    #[error("{0}")]
    Lookup(String),
    /// Nobody answers there.
    #[error("{0}")]
    Connect(String),
}

impl ConnectError {
    /// Whether it may pass by itself.
    pub fn is_transient(&self) -> bool {
        matches!(self, ConnectError::Lookup(_) | ConnectError::Connect(_))
    }
}

/// An open connection.
pub struct Connection {
    /// To speak over.
    pub transport: Box<dyn Transport>,
    /// Whether the other end is on this machine: nobody can listen in.
    pub is_local: bool,
    /// What it is connected to, for the user.
    pub peer: String,
}

/// Connects within the connection time-out, name lookup included.
pub async fn connect(server: &Server, options: &NetOptions) -> Result<Connection, ConnectError> {
    in_time(options, connect_any(server, options)).await
}

/// As [`connect`], to a port of a host.
pub async fn connect_to(
    host: &str,
    port: u16,
    options: &NetOptions,
) -> Result<Connection, ConnectError> {
    in_time(options, connect_host(host, port, options)).await
}

async fn in_time(
    options: &NetOptions,
    connection: impl Future<Output = Result<Connection, ConnectError>>,
) -> Result<Connection, ConnectError> {
    let limit = options.connect_timeout;
    match timeout(limit, connection).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Connect(format!(
            "no connection within {} s",
            limit.as_secs_f32()
        ))),
    }
}

async fn connect_any(server: &Server, options: &NetOptions) -> Result<Connection, ConnectError> {
    if let Some(path) = server.socket() {
        return connect_socket(path).await;
    }
    let port = server.port.number()?;
    connect_host(&server.host, port, options).await
}

async fn connect_host(
    host: &str,
    port: u16,
    options: &NetOptions,
) -> Result<Connection, ConnectError> {
    if let Some(proxy) = &options.proxy {
        let bare = host.trim_matches(['[', ']']);
        let stream = Socks5Stream::connect(proxy.as_str(), (bare, port))
            .await
            .map_err(|error| ConnectError::Connect(format!("proxy {proxy}: {error}")))?;
        return Ok(Connection {
            transport: Box::new(stream),
            is_local: false,
            peer: format!("{host}:{port} through the proxy {proxy}"),
        });
    }
    let stream = look_up_and_connect(host, port).await?;
    let peer = stream.peer_addr();
    Ok(Connection {
        is_local: peer
            .as_ref()
            .is_ok_and(|peer| peer.ip().to_canonical().is_loopback()),
        peer: peer.map_or_else(|_| format!("{host}:{port}"), |peer| peer.to_string()),
        transport: Box::new(stream),
    })
}

#[cfg(unix)]
async fn connect_socket(path: &str) -> Result<Connection, ConnectError> {
    let stream = tokio::net::UnixStream::connect(path)
        .await
        .map_err(|error| ConnectError::Connect(error.to_string()))?;
    Ok(Connection {
        transport: Box::new(stream),
        is_local: true,
        peer: path.to_owned(),
    })
}

#[cfg(not(unix))]
async fn connect_socket(_path: &str) -> Result<Connection, ConnectError> {
    Err(ConnectError::NoSockets)
}

async fn look_up_and_connect(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let not_found = ConnectError::Lookup;
    let bare = host.trim_matches(['[', ']']);
    let ascii = match bare.parse::<IpAddr>() {
        Ok(_) => bare.to_owned(),
        Err(_) => idna::domain_to_ascii(bare)
            .map_err(|_| not_found(format!("{host:?} is no possible host name")))?,
    };
    let found = tokio::net::lookup_host((ascii.as_str(), port))
        .await
        .map_err(|error| not_found(format!("unknown host ({error})")))?;
    let addresses = interleave(found.collect());
    if addresses.is_empty() {
        return Err(not_found("the host has no address".to_owned()));
    }
    race(addresses)
        .await
        .map_err(|errors| ConnectError::Connect(errors.join("; ")))
}

/// Alternates between the families, beginning with the first address's.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().copied() else {
        return addresses;
    };
    let (mut preferred, mut other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv4() == first.is_ipv4());
    preferred.reverse();
    other.reverse();
    let mut ordered = Vec::with_capacity(preferred.len() + other.len());
    while !(preferred.is_empty() && other.is_empty()) {
        ordered.extend(preferred.pop());
        ordered.extend(other.pop());
    }
    ordered
}

/// The first connection to come about, or each address's error.
async fn race(addresses: Vec<SocketAddr>) -> Result<TcpStream, Vec<String>> {
    let mut attempts = JoinSet::new();
    let mut errors = Vec::new();
    let mut remaining = addresses.into_iter();
    loop {
        let next = remaining.next();
        let is_last = next.is_none();
        if let Some(address) = next {
            attempts.spawn(async move {
                TcpStream::connect(address)
                    .await
                    .map_err(|error| format!("{}: {error}", address.ip()))
            });
        }
        tokio::select! {
            finished = attempts.join_next() => match finished {
                Some(Ok(Ok(stream))) => {
                    // Commands are gathered before they are written: Nagle only delays.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Some(Ok(Err(error))) => errors.push(error),
                Some(Err(panic)) => errors.push(panic.to_string()),
                None => return Err(errors),
            },
            () = sleep(ATTEMPT_DELAY), if !is_last => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn families_take_turns() {
        let addresses: Vec<SocketAddr> = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let order: Vec<String> = interleave(addresses)
            .iter()
            .map(|address| address.ip().to_string())
            .collect();
        assert_eq!(order, ["::1", "1.1.1.1", "::2", "::3"]);
    }

    #[tokio::test]
    async fn a_dead_address_does_not_stop_the_next() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = listener.local_addr().unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dead = closed.local_addr().unwrap();
        drop(closed);
        assert!(race(vec![dead, alive]).await.is_ok());
        let errors = race(vec![dead]).await.unwrap_err();
        assert!(errors[0].starts_with("127.0.0.1: "), "{errors:?}");
    }
}
