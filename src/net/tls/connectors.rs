//! Makes the [`Tls`] of each server, and keeps it while nothing that went into it has
//! changed, so that sessions can be resumed.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::connector::Tls;
use super::error::TlsError;
use super::identity::IdentityFiles;
use super::options::TlsOptions;
use super::pins::Fingerprint;
use super::policy::Policy;
use super::roots::{Dated, Roots, dated};
use crate::mail::{Endpoint, Server};

/// All that a server's TLS depends on.
#[derive(Clone, PartialEq, Eq)]
struct Basis {
    trust_files: Dated,
    crl_files: Dated,
    priority: Option<String>,
    pinned: Vec<Fingerprint>,
    identity: Option<IdentityFiles>,
    identity_dates: Dated,
}

/// Trust files and revocation lists.
type RootFiles = (Dated, Dated);

/// What is known of servers' TLS in this process.
#[derive(Default)]
pub struct Connectors {
    /// The last ones, and the files they were read from.
    roots: RefCell<Option<(RootFiles, Arc<Roots>)>>,
    kept: RefCell<HashMap<Endpoint, (Basis, Tls)>>,
    /// Keys the user trusts for this session.
    trusted: RefCell<HashMap<Endpoint, Vec<Fingerprint>>>,
    /// Client certificates, where a server has asked for one.
    identities: RefCell<HashMap<Endpoint, IdentityFiles>>,
    /// Priority strings that there is something to say about, and whether it was said.
    warned: RefCell<HashSet<String>>,
}

impl Connectors {
    /// TLS for `server` as the options are now, and a warning that is new.
    pub async fn tls_for(
        &self,
        server: &Server,
        options: &TlsOptions,
    ) -> Result<(Tls, Option<String>), TlsError> {
        let endpoint = Endpoint::of(server);
        let policy = Policy::of(options.priority.as_deref())
            .map_err(|error| TlsError::Settings(error.to_string()))?;
        let warning = policy
            .warning()
            .filter(|text| self.warned.borrow_mut().insert(text.clone()));
        let identity = self.identities.borrow().get(&endpoint).cloned();
        let identity_files: Vec<_> = identity
            .iter()
            .flat_map(|files| [files.key.clone(), files.certificate.clone()])
            .collect();
        let crl_files: &[_] = match policy.without_crls {
            true => &[],
            false => &options.crl_files,
        };
        let basis = Basis {
            trust_files: dated(&options.trust_files),
            crl_files: dated(crl_files),
            priority: options.priority.clone(),
            pinned: self.pinned(&endpoint, options),
            identity,
            identity_dates: dated(&identity_files),
        };
        if let Some((made_for, tls)) = self.kept.borrow().get(&endpoint)
            && *made_for == basis
        {
            return Ok((tls.clone(), warning));
        }
        let roots = self.roots(&basis).await?;
        let pinned = basis.pinned.clone();
        let tls = Tls::new(server, roots, policy, pinned, basis.identity.as_ref())?;
        self.kept
            .borrow_mut()
            .insert(endpoint, (basis, tls.clone()));
        Ok((tls, warning))
    }

    /// Read where the network thread does not wait for the disk.
    async fn roots(&self, basis: &Basis) -> Result<Arc<Roots>, TlsError> {
        let files = (basis.trust_files.clone(), basis.crl_files.clone());
        if let Some((made_of, roots)) = &*self.roots.borrow()
            && *made_of == files
        {
            return Ok(Arc::clone(roots));
        }
        let paths =
            |files: &Dated| -> Vec<_> { files.iter().map(|(path, _)| path.clone()).collect() };
        let (trust_files, crl_files) = (paths(&files.0), paths(&files.1));
        let load = move || Roots::load(&trust_files, &crl_files);
        let loaded = tokio::task::spawn_blocking(load).await;
        let roots = loaded.unwrap_or_else(|panic| Err(TlsError::Settings(panic.to_string())))?;
        let roots = Arc::new(roots);
        *self.roots.borrow_mut() = Some((files, Arc::clone(&roots)));
        Ok(roots)
    }

    fn pinned(&self, endpoint: &Endpoint, options: &TlsOptions) -> Vec<Fingerprint> {
        let trusted = self.trusted.borrow();
        let pins = options.pins.iter();
        pins.filter(|pin| pin.endpoint == *endpoint)
            .flat_map(|pin| &pin.keys)
            .chain(trusted.get(endpoint).into_iter().flatten())
            .copied()
            .collect()
    }

    /// Trusts a server's key until Emacs ends.
    pub fn trust(&self, endpoint: Endpoint, key: Fingerprint) {
        let mut trusted = self.trusted.borrow_mut();
        let keys = trusted.entry(endpoint).or_default();
        if !keys.contains(&key) {
            keys.push(key);
        }
    }

    /// Remembers the client certificate for a server that asks for one.
    pub fn set_identity(&self, endpoint: Endpoint, files: IdentityFiles) {
        self.identities.borrow_mut().insert(endpoint, files);
    }

    /// Forgets a client certificate that did not help: the next one may.
    pub fn forget_identity(&self, endpoint: &Endpoint) {
        self.identities.borrow_mut().remove(endpoint);
    }

    /// Forgets all that was learnt of a server in this process.
    pub fn forget(&self, endpoint: &Endpoint) {
        self.trusted.borrow_mut().remove(endpoint);
        self.kept.borrow_mut().remove(endpoint);
        self.forget_identity(endpoint);
    }
}
