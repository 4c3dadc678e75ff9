//! Decryption by the user's GnuPG, through GPGME.
//!
//! Keys, agent and pinentry are as the user has set them. Only where the caller gives a
//! way to ask for passphrases is no pinentry used: GnuPG then asks through us (its
//! "loopback" mode). Signatures are not looked at; Emacs doesn't either.

use std::ffi::CStr;
use std::fmt;
use std::io::Write;
use std::panic::UnwindSafe;
use std::path::{Path, PathBuf};

use gpgme::{Context, Data, Error, PassphraseProvider, PassphraseRequest, PinentryMode, Protocol};
use zeroize::Zeroizing;

use super::passphrase::Ask;
use super::wiped::Wiped;
use crate::platform::with_signals;

/// The text of `encrypted`, which comes from the file `path`. Blocks until GnuPG, and
/// perhaps the user, is done.
pub fn decrypt(
    path: &Path,
    encrypted: &[u8],
    ask: Option<Ask<'_>>,
) -> Result<Zeroizing<Vec<u8>>, GpgError> {
    let asking = ask.is_some();
    let mut text = Wiped::default();
    let mut refused = None;
    let asker = ask.map(|ask| Asker {
        ask,
        path,
        refused: &mut refused,
    });
    let result = with_signals(|| run(encrypted, &mut text, asker));
    match (result, refused) {
        (Ok(()), _) => Ok(text.into_bytes()),
        (Err(_), Some(reason)) => Err(GpgError {
            path: path.to_owned(),
            kind: GpgErrorKind::Cancelled,
            detail: reason,
        }),
        (Err(error), None) => Err(GpgError {
            path: path.to_owned(),
            kind: GpgErrorKind::of(error, asking),
            detail: error.description().into_owned(),
        }),
    }
}

fn run(encrypted: &[u8], text: &mut Wiped, asker: Option<Asker>) -> gpgme::Result<()> {
    let mut context = Context::from_protocol(Protocol::OpenPgp)?;
    context.set_flag("full-status", "1")?;
    if asker.is_some() {
        context.set_pinentry_mode(PinentryMode::Loopback)?;
    }
    let output = Data::from_writer(text).map_err(|error| error.error())?;
    let mut reported = None;
    let decrypted = context.with_status_handler(StatusErrors(&mut reported), |context| {
        let decrypt = |context: &mut Context| context.decrypt(encrypted, output).map(drop);
        match asker {
            Some(asker) => context.with_passphrase_provider(asker, decrypt),
            None => decrypt(context),
        }
    });
    // "Cancelled" is also what GPGME makes of any trouble in asking for the passphrase
    // of a symmetric key.
    decrypted.map_err(|error| match reported {
        Some(reported) if error.code() == Error::CANCELED.code() => reported,
        _ => error,
    })
}

/// Hands GnuPG's questions on to the caller.
struct Asker<'a> {
    ask: Ask<'a>,
    path: &'a Path,
    /// Why the caller gave no passphrase.
    refused: &'a mut Option<String>,
}

/// After a panic of `ask` nothing of this is used: gpgme lets it go on unwinding.
impl UnwindSafe for Asker<'_> {}

impl PassphraseProvider for Asker<'_> {
    fn get_passphrase(
        &mut self,
        request: PassphraseRequest<'_>,
        reply: &mut dyn Write,
    ) -> gpgme::Result<()> {
        // The hint is the key's id and owner; there is none for a symmetric key.
        let hint = match request.user_id_hint() {
            Ok(hint) if !hint.is_empty() => hint.to_owned(),
            _ => self.path.display().to_string(),
        };
        match (self.ask)(&hint) {
            Ok(passphrase) => Ok(reply.write_all(passphrase.as_bytes())?),
            Err(reason) => {
                *self.refused = Some(reason);
                Err(Error::CANCELED)
            }
        }
    }
}

/// Keeps the last error of GnuPG's status lines: `ERROR <location> <code>`.
struct StatusErrors<'a>(&'a mut Option<Error>);

/// There is nothing in it that could be half-done.
impl UnwindSafe for StatusErrors<'_> {}

impl gpgme::StatusHandler for StatusErrors<'_> {
    fn handle(&mut self, keyword: Option<&CStr>, args: Option<&CStr>) -> gpgme::Result<()> {
        // gpgme 0.11 gives them the wrong way round.
        let args = match [keyword, args] {
            [Some(word), args] | [args, Some(word)] if word == c"ERROR" => args,
            _ => return Ok(()),
        };
        let mut words = args
            .and_then(|args| args.to_str().ok())
            .unwrap_or("")
            .split(' ');
        if let (Some(location), Some(Ok(code))) = (words.next(), words.next().map(str::parse)) {
            let error = Error::new(code);
            let sourceless = error == Error::new(error.code());
            *self.0 = Some(match location {
                "get_passphrase" if sourceless => error.with_source(Error::SOURCE_PINENTRY),
                _ => error,
            });
        }
        Ok(())
    }
}

/// Why a file could not be decrypted: one readable text that names the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpgError {
    path: PathBuf,
    kind: GpgErrorKind,
    detail: String,
}

/// What kept a file from being decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpgErrorKind {
    /// The file is not an encrypted OpenPGP message, or not all of one.
    NotOpenPgp,
    /// It is encrypted to keys of which the user has none.
    NoSecretKey,
    /// The user gave no passphrase.
    Cancelled,
    /// The passphrase was wrong.
    BadPassphrase,
    /// The key is on a card that is not there, or no card can be read.
    NoCard,
    /// The card takes no PIN any more, after too many wrong ones.
    CardLocked,
    /// The key must not be used any more.
    KeyExpired,
    /// gpg-agent cannot be reached or started.
    NoAgent,
    /// The agent has no pinentry, or not one that works here.
    NoPinentry,
    /// The agent is set not to take passphrases from us.
    NoLoopback,
    /// GnuPG is not installed.
    NoGnuPg,
    /// Anything else.
    Other,
}

impl GpgErrorKind {
    /// The kind of `error`; `asking`: passphrases were to be asked for by us.
    fn of(error: Error, asking: bool) -> Self {
        let from_pinentry = error == error.with_source(Error::SOURCE_PINENTRY);
        match Error::new(error.code()) {
            // This is what GPGME makes of a gpg that has gone, too.
            Error::NO_DATA if !gpg_is_there() => GpgErrorKind::NoGnuPg,
            Error::NO_DATA => GpgErrorKind::NotOpenPgp,
            // This is what GnuPG says for want of an agent, too.
            Error::NO_SECKEY if !agent_answers() => GpgErrorKind::NoAgent,
            Error::NO_SECKEY => GpgErrorKind::NoSecretKey,
            Error::CANCELED | Error::FULLY_CANCELED | Error::TIMEOUT => GpgErrorKind::Cancelled,
            Error::BAD_PASSPHRASE | Error::BAD_KEY | Error::BAD_PIN => GpgErrorKind::BadPassphrase,
            Error::CARD_NOT_PRESENT
            | Error::CARD_REMOVED
            | Error::NO_SCDAEMON
            | Error::SCDAEMON
            | Error::ENODEV => GpgErrorKind::NoCard,
            Error::PIN_BLOCKED => GpgErrorKind::CardLocked,
            Error::KEY_EXPIRED | Error::CERT_EXPIRED => GpgErrorKind::KeyExpired,
            Error::NO_AGENT => GpgErrorKind::NoAgent,
            Error::NO_PIN_ENTRY => GpgErrorKind::NoPinentry,
            Error::NOT_SUPPORTED if asking => GpgErrorKind::NoLoopback,
            Error::INV_ENGINE => GpgErrorKind::NoGnuPg,
            _ if from_pinentry => GpgErrorKind::NoPinentry,
            _ => GpgErrorKind::Other,
        }
    }
}

/// Whether the program that GPGME means to run exists.
fn gpg_is_there() -> bool {
    let Ok(context) = Context::from_protocol(Protocol::OpenPgp) else {
        return false;
    };
    let path = context.engine_info().path().map(PathBuf::from);
    path.is_ok_and(|path| path.exists())
}

/// Whether gpg-agent runs. GnuPG starts it on demand, if it can and may.
#[cfg(unix)]
fn agent_answers() -> bool {
    let socket = gpgme::init().get_dir_info("agent-socket");
    socket.is_ok_and(|socket| std::os::unix::net::UnixStream::connect(socket).is_ok())
}

/// Not known; then the secret key is what is missed.
#[cfg(not(unix))]
fn agent_answers() -> bool {
    true
}

impl GpgError {
    /// What kind of trouble it is.
    pub fn kind(&self) -> GpgErrorKind {
        self.kind
    }
}

impl fmt::Display for GpgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GpgError { path, kind, detail } = self;
        let what = match kind {
            GpgErrorKind::NotOpenPgp => "it is not a file encrypted with OpenPGP, or cut short",
            GpgErrorKind::NoSecretKey => {
                "it is encrypted to a key whose secret part you don't have"
            }
            GpgErrorKind::Cancelled => "no passphrase was given",
            GpgErrorKind::BadPassphrase => "the passphrase (or PIN) was wrong",
            GpgErrorKind::NoCard => {
                "its key is on a smart card that is not there or cannot be read"
            }
            GpgErrorKind::CardLocked => {
                "its key is on a smart card that is locked, after too many wrong PINs"
            }
            GpgErrorKind::KeyExpired => "it is encrypted to a key that has expired",
            GpgErrorKind::NoAgent => "gpg-agent is not running and could not be started",
            GpgErrorKind::NoPinentry => {
                "gpg-agent could not ask for the passphrase with its pinentry"
            }
            GpgErrorKind::NoLoopback => {
                "gpg-agent is set not to let Emacs ask for the passphrase (allow-loopback-pinentry)"
            }
            GpgErrorKind::NoGnuPg => "GnuPG (gpg) is not installed",
            GpgErrorKind::Other => "GnuPG failed",
        };
        write!(f, "cannot decrypt {}: {what} ({detail})", path.display())
    }
}

impl std::error::Error for GpgError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of what takes a card, a pinentry or another GnuPG to happen, too.
    #[test]
    fn troubles_have_their_own_texts() {
        for (error, kind, words) in [
            (Error::NO_DATA, GpgErrorKind::NotOpenPgp, "not a file"),
            (Error::CANCELED, GpgErrorKind::Cancelled, "no passphrase"),
            (
                Error::FULLY_CANCELED,
                GpgErrorKind::Cancelled,
                "no passphrase",
            ),
            (Error::TIMEOUT, GpgErrorKind::Cancelled, "no passphrase"),
            (
                Error::BAD_PASSPHRASE,
                GpgErrorKind::BadPassphrase,
                "was wrong",
            ),
            (Error::BAD_PIN, GpgErrorKind::BadPassphrase, "PIN"),
            (Error::CARD_NOT_PRESENT, GpgErrorKind::NoCard, "smart card"),
            (Error::CARD_REMOVED, GpgErrorKind::NoCard, "not there"),
            (Error::NO_SCDAEMON, GpgErrorKind::NoCard, "cannot be read"),
            (Error::PIN_BLOCKED, GpgErrorKind::CardLocked, "locked"),
            (Error::KEY_EXPIRED, GpgErrorKind::KeyExpired, "expired"),
            (Error::NO_AGENT, GpgErrorKind::NoAgent, "gpg-agent"),
            (Error::NO_PIN_ENTRY, GpgErrorKind::NoPinentry, "pinentry"),
            (
                Error::NOT_SUPPORTED,
                GpgErrorKind::NoLoopback,
                "allow-loopback-pinentry",
            ),
            (Error::INV_ENGINE, GpgErrorKind::NoGnuPg, "not installed"),
            (Error::GENERAL, GpgErrorKind::Other, "GnuPG failed"),
        ] {
            assert_eq!(GpgErrorKind::of(error, true), kind, "{error}");
            let text = GpgError {
                path: PathBuf::from("/a/authinfo.gpg"),
                kind,
                detail: error.description().into_owned(),
            };
            let text = text.to_string();
            assert!(
                text.starts_with("cannot decrypt /a/authinfo.gpg: "),
                "{text}"
            );
            assert!(text.contains(words), "{text}");
        }
        let bare = GpgErrorKind::of(Error::NOT_SUPPORTED, false);
        assert_eq!(bare, GpgErrorKind::Other);
    }
}
