//! Where errors, and panics, become Lisp signals.

use std::panic::{AssertUnwindSafe, catch_unwind};

use emacs::Env;

use crate::engine::{ConfigError, EngineError};
use crate::mail::{AddressError, ServerError};
use crate::spool::SpoolError;

/// Why a call from Lisp failed.
pub enum Failure {
    /// A signal or throw from Lisp, or a value of the wrong type: passed on as it is.
    Lisp(emacs::Error),
    /// An address that cannot be parsed.
    Address(AddressError),
    /// An option that cannot be used.
    Config(ConfigError),
    /// The engine could not do it.
    Engine(EngineError),
    /// Anything else.
    Text(String),
}

impl From<emacs::Error> for Failure {
    fn from(error: emacs::Error) -> Self {
        Failure::Lisp(error)
    }
}

impl From<AddressError> for Failure {
    fn from(error: AddressError) -> Self {
        Failure::Address(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::Config(error)
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        Failure::Config(error.into())
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Failure::Engine(error)
    }
}

/// Runs the body of a function; makes its failure, or its panic, a Lisp signal.
pub fn boundary<T>(env: &Env, body: impl FnOnce() -> Result<T, Failure>) -> emacs::Result<T> {
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::Text(format!(
            "internal error (please report it): {}",
            panic_text(panic.as_ref())
        )),
    };
    let (symbol, text) = match failure {
        Failure::Lisp(error) => return Err(error),
        Failure::Address(error) => ("rs-smtp-address-error", error.to_string()),
        Failure::Config(error) | Failure::Engine(EngineError::Config(error)) => {
            ("rs-smtp-config-error", error.to_string())
        }
        Failure::Engine(EngineError::Spool(error @ SpoolError::NoSuchEntry(_))) => {
            ("rs-smtp-no-such-entry", error.to_string())
        }
        Failure::Engine(EngineError::Spool(error)) => ("rs-smtp-spool-error", error.to_string()),
        Failure::Engine(error) => ("rs-smtp-error", error.to_string()),
        Failure::Text(text) => ("rs-smtp-error", text),
    };
    env.signal(symbol, (text,))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown cause")
}
