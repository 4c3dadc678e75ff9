//! `openssl s_server`, which has nothing to say but its handshake.

use std::process::Command;

use super::{Leaf, Program};

/// Runs it, showing `leaf`, with further `options`.
pub fn s_server(leaf: &Leaf, options: &[&str]) -> Program {
    let mut command = Command::new("openssl");
    command
        .args(["s_server", "-accept", "127.0.0.1:0", "-cert"])
        .arg(&leaf.certificate)
        .arg("-key")
        .arg(&leaf.key)
        .args(options);
    Program::start(command, "ACCEPT 127.0.0.1:")
}
