//! TLS: whom to trust, what to speak, who we are, and errors in plain words.
//!
//! - `roots`, `pins`, `verifier`: whether a server's certificate is accepted
//! - `certificate`: what it says and what is wrong with it
//! - `priority`, `policy`: GnuTLS priority strings, versions and cipher suites
//! - `identity`: client certificates
//! - `connector`: the handshake with one server
//! - `explain`, `legacy_probe`: why there is no TLS
//! - `connectors`: the connector of each server, kept for resumption

mod certificate;
mod connector;
mod connectors;
mod error;
mod explain;
mod identity;
mod legacy_probe;
mod options;
mod pins;
mod policy;
mod priority;
mod roots;
mod verifier;

pub use certificate::{Certificate, Problem, Rejected};
pub use connector::{Channel, Tls};
pub use connectors::Connectors;
pub use error::TlsError;
pub use identity::IdentityFiles;
pub use legacy_probe::Old;
pub use options::TlsOptions;
pub use pins::{Fingerprint, Pin, PinError};
pub use policy::{Policy, PolicyError};
