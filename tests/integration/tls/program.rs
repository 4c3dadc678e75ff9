//! A TLS server that is a program of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A running program that listens; ended on drop.
pub struct Program {
    process: Child,
    pub port: u16,
}

impl Program {
    /// Runs `command`, which announces a port of 127.0.0.1 by a line in which `announcement`
    /// stands before it.
    pub fn start(mut command: Command, announcement: &str) -> Self {
        let (output, writer) = std::io::pipe().unwrap();
        let mut process = command
            // Some end at the end of their input.
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .unwrap();
        // It has our ends of the pipe.
        drop(command);
        let mut output = BufReader::new(output);
        let mut seen = String::new();
        let port = loop {
            let start = seen.len();
            if output.read_line(&mut seen).unwrap() == 0 {
                panic!("{:?}: {seen}", process.wait());
            }
            if let Some((_, port)) = seen[start..].split_once(announcement) {
                break port.trim().parse().unwrap();
            }
        };
        // It must not block on what it says.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        Program { process, port }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
