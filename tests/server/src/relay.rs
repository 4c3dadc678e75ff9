//! A TCP relay that makes the way longer: each byte comes through half a round trip later than it
//! came in, in both directions, and however many are under way.
//!
//! It counts the client's turns. Bytes start a turn if the client has seen bytes of the server
//! since it spoke last, and nothing older of the client is still on its way: a client that
//! streams on while replies come in is not waiting for them.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::log::Turns;
use super::store;

/// Read at a time.
const CHUNK: usize = 64 * 1024;
/// Chunks under way in one direction; then the sender has to wait.
const UNDER_WAY: usize = 256;

/// A relay on a thread of its own, until dropped.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    log: Arc<RelayLog>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// A relay on an ephemeral port of 127.0.0.1 to the port `to` there. Panics if it can't listen.
    pub fn start(to: u16, round_trip: Duration) -> Self {
        Self::try_start(0, to, round_trip, None).unwrap()
    }

    /// A relay from a port (0 for an ephemeral one) of 127.0.0.1 to another, which keeps its turns
    /// in a JSON file.
    pub fn try_start(
        port: u16,
        to: u16,
        round_trip: Duration,
        statistics: Option<PathBuf>,
    ) -> io::Result<Self> {
        let runtime = super::runtime();
        let listener = runtime.block_on(listen(port))?;
        let port = listener.local_addr()?.port();
        let log = Arc::<RelayLog>::default();
        let (stop, stopped) = oneshot::channel();
        let entries = log.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, to, round_trip, entries.clone()) => {}
                    () = keep_statistics(&entries, statistics.as_deref()) => {}
                    _ = stopped => {}
                }
            });
            drop(runtime);
            entries.write(statistics.as_deref());
        });
        Ok(Self {
            port,
            log,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The turns of each connection, in the order of their start.
    pub fn turns(&self) -> Vec<usize> {
        self.log.turns()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The counters of a relay's connections.
#[derive(Debug, Default)]
pub(super) struct RelayLog {
    all: Mutex<Vec<Turns>>,
    /// By the port that the relay calls the server from.
    by_port: Mutex<HashMap<u16, Turns>>,
}

impl RelayLog {
    pub(super) fn turns(&self) -> Vec<usize> {
        self.all.lock().unwrap().iter().map(Turns::get).collect()
    }

    /// Writes `{"turns": N, "connections": [{"turns": N}, …]}`.
    fn write(&self, file: Option<&Path>) {
        if let Some(file) = file {
            let turns = self.turns();
            let all: Vec<_> = turns.iter().map(|turns| json!({"turns": turns})).collect();
            let sum: usize = turns.iter().sum();
            let text = format!("{:#}\n", json!({"turns": sum, "connections": all}));
            store::replace(file, text.as_bytes()).unwrap();
        }
    }

    /// The counter of the connection that comes from that port.
    pub(super) fn of_port(&self, port: u16) -> Option<Turns> {
        self.by_port.lock().unwrap().get(&port).cloned()
    }
}

/// Writes the turns whenever they have changed.
async fn keep_statistics(log: &RelayLog, file: Option<&Path>) {
    if file.is_none() {
        std::future::pending::<()>().await;
    }
    let mut written = None;
    loop {
        let turns = log.turns();
        if written.as_ref() != Some(&turns) {
            log.write(file);
            written = Some(turns);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

/// Relays until dropped.
pub(super) async fn serve(
    listener: TcpListener,
    to: u16,
    round_trip: Duration,
    log: Arc<RelayLog>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        let turns = Turns::default();
        log.all.lock().unwrap().push(turns.clone());
        let log = log.clone();
        tokio::spawn(async move {
            // A connection's end is no news to anybody here.
            let _ = connection(client, to, round_trip / 2, turns, log).await;
        });
    }
}

async fn connection(
    client: TcpStream,
    to: u16,
    delay: Duration,
    turns: Turns,
    log: Arc<RelayLog>,
) -> io::Result<()> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    // Before the server can see the connection.
    let port = socket.local_addr()?.port();
    log.by_port.lock().unwrap().insert(port, turns.clone());
    let server = match socket.connect((Ipv4Addr::LOCALHOST, to).into()).await {
        Ok(server) => server,
        Err(error) => {
            client.set_zero_linger()?;
            return Err(error);
        }
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let under_way = AtomicUsize::new(0);
    let up = direction(
        client_in,
        server_out,
        delay,
        || turns.client_speaks(under_way.fetch_add(1, Ordering::SeqCst) > 0),
        || {
            under_way.fetch_sub(1, Ordering::SeqCst);
        },
    );
    let down = direction(server_in, client_out, delay, || {}, || turns.server_spoke());
    tokio::try_join!(up, down).map(drop)
}

enum Parcel {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

/// Relays one way; an error means that the connection was reset.
async fn direction(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    came: impl Fn(),
    delivered: impl Fn(),
) -> io::Result<()> {
    let (parcels, mut due) = mpsc::unbounded_channel();
    let room = Semaphore::new(UNDER_WAY);
    let read = async {
        loop {
            // Never closed.
            let Ok(permit) = room.acquire().await else {
                return Ok(());
            };
            permit.forget();
            let mut bytes = Vec::with_capacity(CHUNK);
            let parcel = match from.read_buf(&mut bytes).await {
                Ok(0) => Parcel::Fin,
                Ok(_) => {
                    came();
                    Parcel::Bytes(bytes)
                }
                Err(_) => Parcel::Reset,
            };
            let last = !matches!(parcel, Parcel::Bytes(_));
            // The receiver lives as long as this future.
            let _ = parcels.send((Instant::now() + delay, parcel));
            if last {
                return Ok(());
            }
        }
    };
    let write = async {
        while let Some((at, parcel)) = due.recv().await {
            sleep_exactly(at).await;
            match parcel {
                Parcel::Bytes(bytes) => {
                    to.write_all(&bytes).await?;
                    delivered();
                    room.add_permits(1);
                }
                Parcel::Fin => {
                    to.shutdown().await?;
                    break;
                }
                Parcel::Reset => {
                    to.as_ref().set_zero_linger()?;
                    // Dropping it would send FIN first.
                    to.forget();
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
            }
        }
        Ok::<(), io::Error>(())
    };
    tokio::try_join!(read, write).map(drop)
}

/// The runtime's timers are up to two milliseconds late, which would add up over many turns.
async fn sleep_exactly(at: Instant) {
    let early = at - Duration::from_millis(2);
    if Instant::now() < early {
        sleep_until(early).await;
    }
    while Instant::now() < at {
        tokio::task::yield_now().await;
    }
}
