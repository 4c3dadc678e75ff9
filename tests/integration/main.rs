//! The module's parts put together, against the test server and real ones.
//!
//! What needs a process of its own runs this program again, with the name of one test.

mod common;
mod postfix;
mod tls;

mod cuts;
mod delivery;
mod extensions;
#[cfg(all(unix, feature = "gpg"))]
mod gpg_decrypt;
#[cfg(target_os = "linux")]
mod isolation;
mod lifecycle;
mod locks;
mod logins;
mod netrc_differential;
mod oauth2;
mod promises;
mod real_servers;
mod refusals;
mod security;
mod sessions;
mod spool_faults;
mod tls_situations;
mod tls_trust;
mod turns;
mod waiting;
mod wings;
