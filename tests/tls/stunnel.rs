//! stunnel, which speaks any TLS that OpenSSL can, before a server that speaks none.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::Leaf;

/// A running stunnel; ended on drop.
pub struct Stunnel {
    process: Child,
    pub port: u16,
}

fn program() -> Option<&'static str> {
    let runs = |name: &&str| {
        Command::new(name)
            .arg("-version")
            .output()
            .is_ok_and(|output| output.status.success())
    };
    ["stunnel4", "stunnel"].into_iter().find(|name| runs(name))
}

/// Whether it can't run here, which CI does not take for an answer.
pub fn is_missing() -> bool {
    let is_missing = program().is_none();
    assert!(
        !is_missing || std::env::var_os("CI").is_none(),
        "stunnel is missing"
    );
    if is_missing {
        eprintln!("not run: stunnel is missing");
    }
    is_missing
}

impl Stunnel {
    /// Before the server on port `behind`, showing `leaf`, with further `options`.
    pub fn start(directory: &Path, leaf: &Leaf, behind: u16, options: &str) -> Self {
        let configuration = directory.join(format!("stunnel-{}.conf", leaf.serial));
        let text = format!(
            "foreground = yes\nsyslog = no\npid =\ndebug = 6\n[mail]\naccept = 127.0.0.1:0\n\
             connect = 127.0.0.1:{behind}\ncert = {}\nkey = {}\n{options}\n",
            leaf.certificate.display(),
            leaf.key.display(),
        );
        std::fs::write(&configuration, text).unwrap();
        let mut process = Command::new(program().unwrap())
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut seen = String::new();
        let port = loop {
            let start = seen.len();
            assert!(log.read_line(&mut seen).unwrap() > 0, "{seen}");
            if let Some((_, port)) = seen[start..].split_once("bound to 127.0.0.1:") {
                break port.trim().parse().unwrap();
            }
        };
        // It must not block on its log.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Stunnel { process, port }
    }
}

impl Drop for Stunnel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
