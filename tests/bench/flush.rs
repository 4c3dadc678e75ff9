//! Times a flush of the spool, for `make bench`: puts messages into a spool of its own,
//! then sends them all over one session, and prints the seconds that took, by how many KiB
//! the process's memory grew, and how often accepting a message waited for the disk.
//!
//!     flush-bench PORT COUNT OCTETS [CA-FILE]
//!
//! With CA-FILE it speaks TLS from the start, and logs in as "user".
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rs_smtpmail::bridge::{Event, Kind};
use rs_smtpmail::credentials::AuthSource;
use rs_smtpmail::engine::{Engine, Settings};
use rs_smtpmail::mail::{Path, Port, Raw, Server, StreamType, Timestamp};
use rs_smtpmail::spool::fs::{Call, Fs};
use rs_smtpmail::spool::{Entry, EntryId, Spool, Wishes};

const LINE: &[u8] = b"a line of seventy octets, as mail has it: forty-two make three kilobytes\n";

/// Makes the system forget how much memory this process has had, where it can.
fn forget_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The most memory this process has had since, in KiB, where the system tells.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (port, count, octets) = (&arguments[0], &arguments[1], &arguments[2]);
    let count: usize = count.parse().unwrap();
    let octets: usize = octets.parse().unwrap();
    let certificate = arguments.get(3).map(PathBuf::from);
    let directory = tempfile::tempdir().unwrap();
    let stream_type = match certificate {
        Some(_) => StreamType::Ssl,
        None => StreamType::Plain,
    };
    let server = Server::new(
        "localhost".to_owned(),
        Port::parse(port).unwrap(),
        stream_type,
        None,
        "client.example".to_owned(),
        false,
    );
    let server = server.unwrap();
    let spool = directory.path().join("spool");
    let flushes = fill(&spool, &server, count, octets);
    let authinfo = directory.path().join("authinfo");
    std::fs::write(
        &authinfo,
        "machine localhost login user password \"pass word\"\n",
    )
    .unwrap();
    let mut settings = Settings {
        max_connections: 1,
        ..Settings::default()
    };
    if let Some(certificate) = certificate {
        settings.net.tls.trust_files = vec![certificate];
        settings.credentials.auth_sources = vec![AuthSource::Netrc(authinfo)];
    }
    let (mut wake, writer) = std::io::pipe().unwrap();
    let engine = Engine::new(spool, settings, Box::new(writer)).unwrap();
    // The trusted roots are read once; their memory is not the message's.
    forget_peak_memory();
    let memory = peak_memory();
    let begun = Instant::now();
    engine.flush().unwrap();
    let mut sent = 0;
    while sent < count {
        wake.read_exact(&mut [0]).unwrap();
        for event in engine.drain() {
            match event {
                Event::Outcome {
                    kind: Kind::Sent, ..
                } => sent += 1,
                Event::Progress { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let grown = peak_memory().saturating_sub(memory);
    println!("{seconds:.3} {grown} {flushes}");
    engine.stop(Duration::from_secs(5));
}

/// Puts the messages into the spool, as `rs-smtp-send` does, but tells nobody; returns how
/// often that waited for the disk, per message.
fn fill(directory: &std::path::Path, server: &Server, count: usize, octets: usize) -> usize {
    let flushes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&flushes);
    let hook = move |call: Call, _: &std::path::Path| {
        let is_flush = matches!(call, Call::SyncFile | Call::SyncDirectory);
        counted.fetch_add(usize::from(is_flush), Ordering::Relaxed);
        Ok(())
    };
    let spool = Spool::open(directory.to_owned(), Fs::with_hook(Arc::new(hook))).unwrap();
    flushes.store(0, Ordering::Relaxed);
    let body = LINE.repeat(octets / LINE.len());
    let message = Raw::from([b"Subject: bench\n\n".as_slice(), &body].concat());
    for _ in 0..count {
        let mut entry = Entry::new(
            EntryId::new(),
            Path::parse("me@example.org", "sender").unwrap(),
            vec![Path::parse("you@example.org", "recipient").unwrap()],
            server.clone(),
            Wishes::default(),
            Timestamp::now(),
        );
        spool.commit(&mut entry, &message).unwrap();
    }
    flushes.load(Ordering::Relaxed).div_ceil(count)
}
