//! `openssl s_server`, which has nothing to say but its handshake.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::Leaf;

/// A running s_server; ended on drop.
pub struct SServer {
    process: Child,
    pub port: u16,
}

impl SServer {
    /// Showing `leaf`, with further `options`.
    pub fn start(leaf: &Leaf, options: &[&str]) -> Self {
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-cert"])
            .arg(&leaf.certificate)
            .arg("-key")
            .arg(&leaf.key)
            .args(options)
            // At the end of its input it would end.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        let port = loop {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "it has ended");
            if let Some(port) = line.strip_prefix("ACCEPT 127.0.0.1:") {
                break port.trim().parse().unwrap();
            }
        };
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        SServer { process, port }
    }
}

impl Drop for SServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
