//! The command line of the server as a process of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::certs::{Authority, Leaf, TlsVersions};
use super::options::{Extension, Options, Support, Tls};
use super::parse_script;

/// What `--help` prints.
pub const USAGE: &str = "\
Usage: smtp-sink [OPTION]...
       smtp-sink relay --to PORT [--port PORT] [--rtt-ms N] [--stats FILE] [--no-stdin]

An SMTP server on 127.0.0.1 that keeps what it gets. Prints \"listening on 127.0.0.1:PORT\" when it
is ready. Ends with its standard input, from which it reads the lines
  release GATE     lets sessions go on that a rule holds
  script FILE      replaces the fault script
  cut              closes every connection

  --port PORT          listen there (0, the default: on a free port)
  --unix FILE          listen on a Unix socket too
  --tls WHEN           starttls, implicit or none (default)
  --tls-version N      1.2 or 1.3 only
  --cert KIND          good (default), expired, self-signed or wrong-host
  --ask-client-cert    ask clients for a certificate of the authority
  --ca FILE            write the authority to trust there; if FILE and FILE.key exist, use them
  --dir DIR            store messages there as NNNN.eml and NNNN.json
  --discard            count octets instead of storing them
  --stats FILE         keep statistics there (default: DIR/stats.json)
  --auth USER:PASS     the credentials (default: user:pass word)
  --token TOKEN        the token for XOAUTH2 and OAUTHBEARER (default: token)
  --mech NAME          announce this mechanism (default: PLAIN and LOGIN); may be repeated
  --refuse-mech NAME   announce this mechanism and refuse it
  --require-auth       refuse mail without AUTH
  --require-tls        refuse mail without TLS
  --auth-before-tls    offer AUTH before STARTTLS too
  --ext NAME           announce BINARYMIME, REQUIRETLS or LIMITS too
  --no-ext NAME        do not announce this extension; ALL for none at all
  --refuse-ext NAME    announce this extension and refuse it
  --size N             SIZE's limit (default: 52428800; 0 for none)
  --limits WORDS       announce LIMITS with these words, such as RCPTMAX=10
  --no-ehlo            know HELO only
  --lmtp               speak LMTP
  --script FILE        a fault script, see script_file.rs
  --rtt-ms N           add a round-trip time
  --no-stdin           run until killed
";

/// What to run.
#[derive(Debug)]
pub enum Command {
    /// Print [`USAGE`].
    Help,
    /// The server.
    Serve {
        /// The server to start.
        options: Box<Options>,
        /// Whether it ends with its standard input.
        stdin: bool,
    },
    /// The relay alone.
    Relay {
        /// Where to listen.
        port: u16,
        /// The port of the server behind it.
        to: u16,
        /// What to add.
        round_trip: Duration,
        /// Where to keep the turns.
        statistics: Option<PathBuf>,
        /// Whether it ends with its standard input.
        stdin: bool,
    },
}

/// Reads the arguments after the program's name.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut arguments = arguments.into_iter().peekable();
    if arguments.next_if(|word| word == "relay").is_some() {
        return parse_relay(&mut arguments);
    }
    let mut options = Options::default();
    let mut stdin = true;
    let mut mechanisms = Vec::new();
    while let Some(option) = arguments.next() {
        let mut value = || {
            let value = arguments.next();
            value.ok_or_else(|| format!("{option} needs a value"))
        };
        match option.as_str() {
            "--help" | "-h" => return Ok(Command::Help),
            "--port" => options.port = number(&value()?)?,
            "--unix" => options.unix_socket = Some(value()?.into()),
            "--tls" => {
                options.tls = match value()?.as_str() {
                    "none" => Tls::None,
                    "starttls" => Tls::StartTls,
                    "implicit" => Tls::Implicit,
                    other => return Err(format!("--tls {other}?")),
                }
            }
            "--tls-version" => {
                options.tls_versions = match value()?.as_str() {
                    "1.2" => TlsVersions::Only12,
                    "1.3" => TlsVersions::Only13,
                    other => return Err(format!("--tls-version {other}?")),
                }
            }
            "--cert" => {
                options.leaf = match value()?.as_str() {
                    "good" => Leaf::Good,
                    "expired" => Leaf::Expired,
                    "self-signed" => Leaf::SelfSigned,
                    "wrong-host" => Leaf::WrongHost,
                    other => return Err(format!("--cert {other}?")),
                }
            }
            "--ask-client-cert" => options.ask_client_certificate = true,
            "--ca" => {
                let file = value()?;
                let authority = Authority::at(Path::new(&file));
                let authority = authority.map_err(|error| format!("--ca {file}: {error}"))?;
                options.authority = Some(Arc::new(authority));
            }
            "--dir" => options.directory = Some(value()?.into()),
            "--discard" => options.store = false,
            "--stats" => options.statistics = Some(value()?.into()),
            "--auth" => {
                let value = value()?;
                let (user, password) = value
                    .split_once(':')
                    .ok_or_else(|| format!("--auth {value}: no colon"))?;
                options = options.credentials(user, password);
            }
            "--token" => options.token = value()?,
            "--mech" => mechanisms.push(value()?),
            "--refuse-mech" => options.refused_mechanisms.push(value()?),
            "--require-auth" => options.require_auth = true,
            "--require-tls" => options.require_tls = true,
            "--auth-before-tls" => options.auth_before_tls = true,
            "--ext" => {
                let extension = value()?.parse()?;
                options.extensions.insert(extension, Support::Works);
            }
            "--no-ext" => match value()?.as_str() {
                "ALL" => options.extensions.clear(),
                name => {
                    options.extensions.remove(&name.parse()?);
                }
            },
            "--refuse-ext" => {
                let extension = value()?.parse()?;
                options.extensions.insert(extension, Support::Refused);
            }
            "--size" => options.size = number(&value()?)?,
            "--limits" => {
                options.limits = value()?;
                options.extensions.insert(Extension::Limits, Support::Works);
            }
            "--no-ehlo" => options.ehlo = false,
            "--lmtp" => options.lmtp = true,
            "--script" => {
                let file = value()?;
                let text = fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
                options.rules = parse_script(&text)?;
            }
            "--rtt-ms" => options.round_trip = Some(milliseconds(&value()?)?),
            "--no-stdin" => stdin = false,
            _ => return Err(format!("unknown option {option}")),
        }
    }
    if !mechanisms.is_empty() {
        options.mechanisms = mechanisms;
    }
    if let (None, Some(directory)) = (&options.statistics, &options.directory) {
        options.statistics = Some(directory.join("stats.json"));
    }
    Ok(Command::Serve {
        options: Box::new(options),
        stdin,
    })
}

fn parse_relay(arguments: &mut dyn Iterator<Item = String>) -> Result<Command, String> {
    let mut port = 0;
    let mut to = None;
    let mut round_trip = Duration::ZERO;
    let mut statistics = None;
    let mut stdin = true;
    while let Some(option) = arguments.next() {
        let mut value = || {
            let value = arguments.next();
            value.ok_or_else(|| format!("{option} needs a value"))
        };
        match option.as_str() {
            "--help" | "-h" => return Ok(Command::Help),
            "--port" => port = number(&value()?)?,
            "--to" => to = Some(number(&value()?)?),
            "--rtt-ms" => round_trip = milliseconds(&value()?)?,
            "--stats" => statistics = Some(value()?.into()),
            "--no-stdin" => stdin = false,
            _ => return Err(format!("unknown option {option}")),
        }
    }
    Ok(Command::Relay {
        port,
        to: to.ok_or("relay needs --to PORT")?,
        round_trip,
        statistics,
        stdin,
    })
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    let milliseconds: f64 = number(text)?;
    Duration::try_from_secs_f64(milliseconds / 1000.0).map_err(|error| error.to_string())
}
