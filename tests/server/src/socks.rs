//! A SOCKS5 proxy (RFC 1928, RFC 1929) that takes every call to one port of 127.0.0.1.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A proxy on a thread of its own, until dropped.
#[derive(Debug)]
pub struct SocksProxy {
    port: u16,
    calls: Arc<Mutex<Vec<(String, u16)>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How the proxy treats its callers.
#[derive(Clone, Debug, Default)]
struct Manners {
    to: u16,
    credentials: Option<(String, String)>,
    refuse: bool,
}

impl SocksProxy {
    /// Whatever host and port a client asks for, it gets to the port `to` of 127.0.0.1.
    pub fn start(to: u16) -> Self {
        Self::run(Manners {
            to,
            ..Manners::default()
        })
    }

    /// As `start`, and asks for a user name and password.
    pub fn with_credentials(to: u16, user: &str, password: &str) -> Self {
        let credentials = Some((user.to_owned(), password.to_owned()));
        Self::run(Manners {
            to,
            credentials,
            refuse: false,
        })
    }

    /// Says of every host that it is unreachable.
    pub fn refusing() -> Self {
        Self::run(Manners {
            refuse: true,
            ..Manners::default()
        })
    }

    fn run(manners: Manners) -> Self {
        let runtime = super::runtime();
        let listener = runtime.block_on(super::relay::listen(0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let calls = Arc::<Mutex<Vec<_>>>::default();
        let (stop, stopped) = oneshot::channel();
        let log = calls.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, manners, log) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            port,
            calls,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The hosts and ports asked for, in order.
    pub fn calls(&self) -> Vec<(String, u16)> {
        self.calls.lock().unwrap().clone()
    }
}

impl Drop for SocksProxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, manners: Manners, calls: Arc<Mutex<Vec<(String, u16)>>>) {
    while let Ok((client, _)) = listener.accept().await {
        let (manners, calls) = (manners.clone(), calls.clone());
        tokio::spawn(async move {
            // A connection's end is no news to anybody here.
            let _ = connection(client, &manners, &calls).await;
        });
    }
}

async fn connection(
    mut client: TcpStream,
    manners: &Manners,
    calls: &Mutex<Vec<(String, u16)>>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    expect(client.read_u8().await?, 5)?;
    let methods = counted(&mut client).await?;
    let method = if manners.credentials.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        return client.write_all(&[5, 0xff]).await;
    }
    client.write_all(&[5, method]).await?;
    if let Some((user, password)) = &manners.credentials {
        expect(client.read_u8().await?, 1)?;
        let right = (counted(&mut client).await?, counted(&mut client).await?)
            == (user.clone().into_bytes(), password.clone().into_bytes());
        client.write_all(&[1, u8::from(!right)]).await?;
        if !right {
            return Ok(());
        }
    }
    expect(client.read_u8().await?, 5)?;
    expect(client.read_u8().await?, 1)?;
    expect(client.read_u8().await?, 0)?;
    let host = match client.read_u8().await? {
        1 => Ipv4Addr::from_bits(client.read_u32().await?).to_string(),
        3 => String::from_utf8_lossy(&counted(&mut client).await?).into_owned(),
        4 => std::net::Ipv6Addr::from_bits(client.read_u128().await?).to_string(),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let port = client.read_u16().await?;
    calls.lock().unwrap().push((host, port));
    let server = match TcpStream::connect((Ipv4Addr::LOCALHOST, manners.to)).await {
        Ok(server) if !manners.refuse => Some(server),
        _ => None,
    };
    // Succeeded, or host unreachable; the address that the proxy calls from is of no interest.
    let status = if server.is_some() { 0 } else { 4 };
    client
        .write_all(&[5, status, 0, 1, 0, 0, 0, 0, 0, 0])
        .await?;
    if let Some(mut server) = server {
        server.set_nodelay(true)?;
        copy_bidirectional(&mut client, &mut server).await?;
    }
    Ok(())
}

fn expect(found: u8, right: u8) -> io::Result<()> {
    if found == right {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Octets with their number before them.
async fn counted(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut octets = vec![0; client.read_u8().await?.into()];
    client.read_exact(&mut octets).await?;
    Ok(octets)
}
