//! Postfix, by tests/peers/postfix.sh.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rs_smtpmail::credentials::AuthSource;
use rs_smtpmail::engine::Settings;
use rs_smtpmail::mail::{Server, StreamType};

use crate::common;

/// A Postfix of the test's own; stopped on drop.
pub struct Postfix {
    directory: tempfile::TempDir,
    facts: HashMap<String, String>,
}

impl Postfix {
    /// With further `services` as tests/peers/postfix.sh takes them. `None` where it can't
    /// run, which CI does not take for an answer.
    pub fn start(services: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        if !services.is_empty() {
            std::fs::write(directory.path().join("services"), services).unwrap();
        }
        let output = script(directory.path(), "start");
        if output.status.code() == Some(3) && std::env::var_os("CI").is_none() {
            eprintln!("not run: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        assert!(output.status.success(), "{output:?}");
        let text = std::fs::read_to_string(directory.path().join("env")).unwrap();
        let facts = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.trim_matches(['\'', '"']).to_owned()))
            .collect();
        Some(Postfix { directory, facts })
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn fact(&self, key: &str) -> &str {
        self.facts
            .get(key)
            .unwrap_or_else(|| panic!("no {key} in {:?}", self.facts))
    }

    pub fn target(&self, key: &str, stream_type: StreamType) -> Server {
        let mut server = common::target(self.fact(key).parse().unwrap(), stream_type);
        server.host = "localhost".to_owned();
        server
    }

    pub fn settings(&self) -> Settings {
        let authinfo = self.directory.path().join("authinfo");
        let (user, password) = (self.fact("USER"), self.fact("PASSWORD"));
        let line = format!("machine localhost login {user} password \"{password}\"\n");
        std::fs::write(&authinfo, line).unwrap();
        let mut settings = Settings::default();
        settings.net.tls.trust_files = vec![PathBuf::from(self.fact("CA_FILE"))];
        settings.credentials.auth_sources = vec![AuthSource::Netrc(authinfo)];
        settings
    }

    /// The messages in the mailbox, once there are `number`.
    pub fn mailbox(&self, number: usize) -> Vec<Vec<u8>> {
        let end = Instant::now() + server::deadline();
        loop {
            let new = Path::new(self.fact("MAILDIR")).join("new");
            let files: Vec<_> = std::fs::read_dir(new)
                .map(|files| files.map(|file| file.unwrap().path()).collect())
                .unwrap_or_default();
            if files.len() >= number {
                return files
                    .iter()
                    .map(|file| std::fs::read(file).unwrap())
                    .collect();
            }
            assert!(Instant::now() < end, "{} of {number} messages", files.len());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        script(self.directory.path(), "stop");
    }
}

fn script(directory: &Path, action: &str) -> std::process::Output {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/postfix.sh"))
        .arg(directory)
        .arg(action)
        .output()
        .unwrap()
}
