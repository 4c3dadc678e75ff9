//! The server as tests hold it.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::certs::Authority;
use super::log::{Connection, Log, Received, SharedLog, Turns, Violation};
use super::options::{Options, Tls};
use super::relay::{self, RelayLog};
use super::scram::Hash;
use super::script::{Rule, Script};
use super::session::{Session, Site};
use super::store::{self, Store};
use super::wire::{Socket, Wire};

/// A server on a thread of its own. Dropping it cuts every connection and frees the port.
#[derive(Debug)]
pub struct Server {
    port: u16,
    site: Arc<Site>,
    authority: Arc<Authority>,
    /// Holds the authority's PEM file; made when it is asked for. The server as a process, which
    /// may be killed, has none.
    directory: OnceLock<TempDir>,
    sessions: Arc<Sessions>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What ends the sessions from outside.
#[derive(Debug, Default)]
struct Sessions(Mutex<Vec<AbortHandle>>);

/// What listens.
struct Doors {
    tcp: TcpListener,
    unix: Option<UnixListener>,
    /// Stands before `tcp` and is what clients see.
    relay: Option<TcpListener>,
}

impl Server {
    /// Starts the server; it listens when this returns. Panics if it can't.
    pub fn start(options: Options) -> Self {
        Self::try_start(options).unwrap()
    }

    /// Starts the server; it listens when this returns.
    pub fn try_start(mut options: Options) -> io::Result<Self> {
        let authority = match &options.authority {
            Some(authority) => authority.clone(),
            None => Arc::new(Authority::new()),
        };
        let (tls, end_point) = if options.tls == Tls::None {
            (None, None)
        } else {
            let (config, leaf) = authority.server_config(&options);
            (Some(Arc::new(config)), Some(Hash::Sha256.digest(&leaf)))
        };
        let store = match &options.directory {
            Some(directory) => Some(Store::open(directory)?),
            None => None,
        };
        let script = Script::new(std::mem::take(&mut options.rules));
        let runtime = super::runtime();
        let doors = runtime.block_on(Doors::open(&options))?;
        let port = doors.port()?;
        let site = Arc::new(Site {
            options,
            log: SharedLog::default(),
            script,
            tls,
            end_point,
            store,
        });
        let sessions = Arc::<Sessions>::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let work = serve(doors, site.clone(), sessions.clone());
        let log = site.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = work => {}
                    () = keep_statistics(&log, port) => {}
                    _ = stopped => {}
                }
            });
            // Cuts the connections.
            drop(runtime);
            log.log.update(|log| log.stopped = true);
            write_statistics(&log, port);
        });
        Ok(Self {
            port,
            site,
            authority,
            directory: OnceLock::new(),
            sessions,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The port on 127.0.0.1 (the relay's, with a round-trip time).
    pub fn port(&self) -> u16 {
        self.port
    }

    /// 127.0.0.1 and the port.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The PEM file of the authority to trust.
    pub fn ca_file(&self) -> PathBuf {
        self.directory().join("ca.pem")
    }

    /// Who signed the certificate.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// A directory that lives as long as the server.
    pub fn directory(&self) -> &Path {
        let directory = self.directory.get_or_init(|| {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("ca.pem"), self.authority.pem()).unwrap();
            directory
        });
        directory.path()
    }

    /// Looks at everything seen so far.
    pub fn with_log<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.site.log.read())
    }

    /// The messages taken in, confirmed or not.
    pub fn messages(&self) -> Vec<Received> {
        self.with_log(|log| log.messages.clone())
    }

    /// The connections, open or not.
    pub fn connections(&self) -> Vec<Connection> {
        self.with_log(|log| log.connections.clone())
    }

    /// What clients did that they must not do.
    pub fn violations(&self) -> Vec<Violation> {
        self.with_log(|log| log.violations.clone())
    }

    /// The turns of all connections.
    pub fn turns(&self) -> usize {
        self.with_log(Log::turns)
    }

    /// Blocks until `condition` holds; panics with the log after the deadline.
    pub fn wait_for(&self, what: &str, condition: impl FnMut(&Log) -> bool) {
        if !self.site.log.wait_for(condition) {
            let log = self.with_log(Log::clone);
            panic!("waited in vain for {what}: {log:#?}");
        }
    }

    /// Blocks until that many messages are here; returns all that are.
    pub fn wait_for_messages(&self, number: usize) -> Vec<Received> {
        self.wait_for("messages", |log| log.messages.len() >= number);
        self.messages()
    }

    /// Replaces the fault script.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        self.site.script.set(rules);
    }

    /// Adds a rule at the end of the fault script.
    pub fn add_rule(&self, rule: Rule) {
        self.site.script.add(rule);
    }

    /// Releases the gates of that name that the script's rules have; false if there are none.
    pub fn release(&self, gate: &str) -> bool {
        self.site.script.release(gate)
    }

    /// Closes every connection without a word; new ones are accepted as before.
    pub fn cut_connections(&self) {
        let sessions = std::mem::take(&mut *self.sessions.0.lock().unwrap());
        for session in sessions {
            session.abort();
        }
        self.wait_for("the connections' end", |log| {
            log.connections.iter().all(|one| !one.open)
        });
    }

    /// Cuts the connections and frees the port; what was seen stays to be read.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Doors {
    async fn open(options: &Options) -> io::Result<Self> {
        let outer = relay::listen(options.port).await?;
        let (tcp, relay) = match options.round_trip {
            Some(_) => (relay::listen(0).await?, Some(outer)),
            None => (outer, None),
        };
        let unix = match &options.unix_socket {
            Some(path) => Some(UnixListener::bind(path)?),
            None => None,
        };
        Ok(Self { tcp, unix, relay })
    }

    fn port(&self) -> io::Result<u16> {
        let outer = self.relay.as_ref().unwrap_or(&self.tcp);
        Ok(outer.local_addr()?.port())
    }
}

async fn serve(doors: Doors, site: Arc<Site>, sessions: Arc<Sessions>) {
    let Doors { tcp, unix, relay } = doors;
    let counters = Arc::<RelayLog>::default();
    let relaying = relay.is_some();
    if let (Some(listener), Some(round_trip)) = (relay, site.options.round_trip)
        && let Ok(address) = tcp.local_addr()
    {
        let log = counters.clone();
        tokio::spawn(relay::serve(listener, address.port(), round_trip, log));
    }
    loop {
        let (socket, turns) = tokio::select! {
            Ok((stream, peer)) = tcp.accept() => {
                let own = Turns::default();
                // Nagle's algorithm would delay replies.
                let _ = stream.set_nodelay(true);
                let turns = if relaying { counters.of_port(peer.port()) } else { None };
                (Socket::tcp(stream, own.clone()), turns.unwrap_or(own))
            }
            Ok((stream, _)) = accept_unix(unix.as_ref()) => {
                let turns = Turns::default();
                (Socket::unix(stream, turns.clone()), turns)
            }
            else => return,
        };
        let number = site.log.open(turns.clone());
        let session = Session::new(site.clone(), Wire::new(socket), number, turns);
        let task = tokio::spawn(session.run());
        let mut all = sessions.0.lock().unwrap();
        all.retain(|session| !session.is_finished());
        all.push(task.abort_handle());
    }
}

async fn accept_unix(
    listener: Option<&UnixListener>,
) -> io::Result<(tokio::net::UnixStream, tokio::net::unix::SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Writes the statistics whenever something has changed.
async fn keep_statistics(site: &Site, port: u16) {
    if site.options.statistics.is_none() {
        std::future::pending::<()>().await;
    }
    loop {
        write_statistics(site, port);
        site.log.touched.notified().await;
        // One file for what comes in a burst.
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

fn write_statistics(site: &Site, port: u16) {
    if let Some(file) = &site.options.statistics {
        let statistics = site.log.read().statistics(port);
        let text = format!("{statistics:#}\n");
        store::replace(file, text.as_bytes()).unwrap();
    }
}
