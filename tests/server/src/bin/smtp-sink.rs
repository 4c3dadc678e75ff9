//! The test server as a process of its own: `smtp-sink --help` says how.

use std::io::{BufRead as _, Write as _};
use std::process::ExitCode;

use smtp_test_server::command_line::{Command, USAGE, parse};
use smtp_test_server::{Relay, Server, parse_script};

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(Command::Help) => print!("{USAGE}"),
        Ok(Command::Serve { options, stdin }) => match Server::try_start(*options) {
            Ok(server) => {
                announce(server.port());
                wait(stdin, |line| order(&server, line));
            }
            Err(error) => return fail(&error.to_string()),
        },
        Ok(Command::Relay {
            port,
            to,
            round_trip,
            statistics,
            stdin,
        }) => match Relay::try_start(port, to, round_trip, statistics) {
            Ok(relay) => {
                announce(relay.port());
                wait(stdin, |_| {});
            }
            Err(error) => return fail(&error.to_string()),
        },
        Err(text) => return fail(&format!("{text}\n{USAGE}")),
    }
    ExitCode::SUCCESS
}

fn fail(text: &str) -> ExitCode {
    eprintln!("smtp-sink: {text}");
    ExitCode::FAILURE
}

fn announce(port: u16) {
    println!("listening on 127.0.0.1:{port}");
    // Nobody may be reading any more; then standard input is at its end too.
    let _ = std::io::stdout().flush();
}

/// Returns at the end of standard input.
fn wait(stdin: bool, mut order: impl FnMut(&str)) {
    if stdin {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            order(&line);
        }
    } else {
        loop {
            std::thread::park();
        }
    }
}

fn order(server: &Server, line: &str) {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "release" if server.release(rest) => {}
        "release" => eprintln!("smtp-sink: there is no gate {rest:?}"),
        "cut" => server.cut_connections(),
        "script" => {
            let text = std::fs::read_to_string(rest).map_err(|error| error.to_string());
            match text.and_then(|text| parse_script(&text)) {
                Ok(rules) => server.set_rules(rules),
                Err(error) => eprintln!("smtp-sink: {rest}: {error}"),
            }
        }
        _ => eprintln!("smtp-sink: unknown order {line:?}"),
    }
}
