//! stunnel, which speaks any TLS that OpenSSL can, before a server that speaks none.

use std::path::Path;
use std::process::Command;

use super::{Leaf, Program};

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

/// Runs it before the server on port `behind`, showing `leaf`, with further `options`.
pub fn stunnel(directory: &Path, leaf: &Leaf, behind: u16, options: &str) -> Program {
    let configuration = directory.join(format!("stunnel-{}.conf", leaf.serial));
    let text = format!(
        "foreground = yes\nsyslog = no\npid =\ndebug = 6\n[mail]\naccept = 127.0.0.1:0\n\
         connect = 127.0.0.1:{behind}\ncert = {}\nkey = {}\n{options}\n",
        leaf.certificate.display(),
        leaf.key.display(),
    );
    std::fs::write(&configuration, text).unwrap();
    let mut command = Command::new(program().unwrap());
    command.arg(&configuration);
    Program::start(command, "bound to 127.0.0.1:")
}
