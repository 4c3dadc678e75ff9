//! tests/isolated, by which all tests, the demo and the benchmark run.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

/// What a shell in isolation is to do, with a home that it must not get at.
fn isolated(home: &TempDir, script: &str) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/isolated"));
    command
        .args(["sh", "-c", script])
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .env_remove("CARGO_HOME");
    command
}

/// Runs it; its status, what it printed and its complaints.
fn run(script: &str) -> (Option<i32>, String, String) {
    let home = tempfile::tempdir().unwrap();
    let output = isolated(&home, script).output().unwrap();
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn is_running(process: &str) -> bool {
    // Nobody may have waited for it yet.
    fs::read(Path::new("/proc").join(process).join("cmdline")).is_ok_and(|words| !words.is_empty())
}

#[test]
fn home_and_temporary_directory_are_gone_afterwards() {
    let script = r#"touch "$HOME/mine" && echo "$HOME" && echo "$TMPDIR" && ls -A "$TMPDIR" &&
        cd "${XDG_CONFIG_HOME-/}" && pwd"#;
    let (status, output, complaints) = run(script);
    assert_eq!((status, complaints.as_str()), (Some(0), ""));
    let lines: Vec<_> = output.lines().collect();
    let [home, temporary, "/"] = lines[..] else {
        panic!("{output}");
    };
    // Names of sockets must fit in.
    assert!(temporary.len() < 24, "{temporary}");
    assert!(!Path::new(home).exists() && !Path::new(temporary).exists());
    assert!(!Path::new(home).parent().unwrap().exists());
}

#[test]
fn the_toolchain_is_where_it_was() {
    let home = tempfile::tempdir().unwrap();
    let output = isolated(&home, "echo $CARGO_HOME").output().unwrap();
    let expected = format!("{}/.cargo\n", home.path().display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn a_failure_is_passed_on() {
    let (status, _, complaints) = run(r#"touch "$TMPDIR/left"; exit 7"#);
    assert_eq!((status, complaints.as_str()), (Some(7), ""));
}

#[test]
fn what_is_left_is_a_failure() {
    let (status, _, complaints) = run(r#"mkdir "$TMPDIR/left""#);
    assert_eq!(status, Some(1));
    assert!(complaints.contains("/left\n"), "{complaints}");
}

#[test]
fn a_process_that_is_left_is_a_failure_and_ended() {
    let home = tempfile::tempdir().unwrap();
    let output = isolated(&home, "sleep 1000 > /dev/null 2>&1 & echo $!")
        // It is waited for in vain.
        .env("RS_SMTPMAIL_TEST_TIMEOUT_SCALE", "0.1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let complaints = String::from_utf8(output.stderr).unwrap();
    assert!(complaints.contains("sleep 1000"), "{complaints}");
    assert!(!is_running(
        String::from_utf8(output.stdout).unwrap().trim()
    ));
}

#[test]
fn a_signal_ends_all() {
    for signal in ["HUP", "INT", "TERM"] {
        let home = tempfile::tempdir().unwrap();
        let mut shell = isolated(&home, r#"echo "$TMPDIR"; sleep 1000 & echo $!; wait"#)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(shell.stdout.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            line.trim().to_owned()
        };
        let (temporary, process) = (PathBuf::from(line()), line());
        assert!(temporary.exists());
        // While it becomes another program it has no command line.
        let end = Instant::now() + server::deadline();
        while !is_running(&process) {
            assert!(Instant::now() < end, "{process} does not run");
            std::thread::yield_now();
        }
        let kill = format!("kill -{signal} {}", shell.id());
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
        assert!(!shell.wait().unwrap().success());
        assert!(!temporary.exists() && !is_running(&process));
        // And nobody holds the output open.
        output.read_to_end(&mut Vec::new()).unwrap();
    }
}

#[test]
fn standard_input_is_the_commands() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("input");
    fs::write(&file, "hello").unwrap();
    let output = isolated(&home, "cat")
        .stdin(fs::File::open(file).unwrap())
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"hello");
}
