//! The door of a listener: certificates and principals as the files have them, read again whenever
//! they change.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use access_ledger_proto::hash::{Digest, sha256};
use rustls::ServerConfig;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::MissedTickBehavior,
};
use tracing::{error, info};
use zeroize::Zeroizing;

use super::{
    limits::Places,
    principals::{Principal, Principals},
    tls,
};
use crate::{
    error::{IdentityError, ServeError},
    os::{self, Disk},
};

/// Where certificates and principals lie.
#[derive(Clone, Debug, Default)]
pub struct DoorFiles {
    /// Without: nothing is encrypted.
    pub tls: Option<TlsFiles>,
    /// Without: everybody holds all roles.
    pub principals: Option<PathBuf>,
}

/// What TLS needs, as PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate chain, its own first.
    pub certificate: PathBuf,
    /// The private key to it, which only its owner may read.
    pub key: PathBuf,
    /// The authorities whose client certificates are believed; none: clients show tokens.
    pub client_ca: Option<PathBuf>,
}

/// What stands before a listener. Shared by all its connections.
pub struct Door {
    disk: Arc<dyn Disk>,
    files: DoorFiles,
    state: watch::Sender<Arc<State>>,
    /// What the files held when they were last looked at, whether it could be used or not.
    seen: Mutex<Digest>,
    /// Places for calls that hold much.
    pub(super) places: Places,
}

/// What is in force.
pub(super) struct State {
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) admission: Admission,
}

/// Who is let in.
pub(super) enum Admission {
    /// Everybody, as this principal.
    Everybody(Arc<Principal>),
    /// Who is known.
    Known(Principals),
}

/// The files' contents.
struct Contents {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
    principals: Option<Vec<u8>>,
}

impl Door {
    /// A door that is open: nothing is encrypted, and everybody holds all roles.
    #[must_use]
    pub fn for_everybody() -> Arc<Self> {
        let admission = Admission::Everybody(Arc::new(Principal::anybody()));
        Arc::new(Self {
            disk: Arc::new(os::RealDisk),
            files: DoorFiles::default(),
            state: watch::Sender::new(Arc::new(State { tls: None, admission })),
            seen: Mutex::new(sha256(b"")),
            places: Places::of_all(),
        })
    }

    /// A door by these files.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] for a file that cannot be used.
    pub fn open(disk: &Arc<dyn Disk>, files: DoorFiles) -> Result<Arc<Self>, IdentityError> {
        let contents = Contents::read(&**disk, &files)?;
        let state = contents.understand(&files, &Principals::default())?;
        Ok(Arc::new(Self {
            disk: disk.clone(),
            files,
            state: watch::Sender::new(Arc::new(state)),
            seen: Mutex::new(contents.digest()),
            places: Places::of_all(),
        }))
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.files.tls.is_some()
    }

    /// Whether it is known who calls.
    pub(crate) const fn has_principals(&self) -> bool {
        self.files.principals.is_some()
    }

    /// Looks at the files again. What changed is in force for new connections (certificates) and
    /// for calls (principals), on connections that are open too; streams that a principal may no
    /// longer make end.
    ///
    /// Whether anything changed.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] for a file that cannot be used; all stays as it was. Told once for each
    /// content.
    pub fn reload(&self) -> Result<bool, IdentityError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = Contents::read(&*self.disk, &self.files);
        let digest = contents
            .as_ref()
            .map_or_else(|error| sha256(error.to_string().as_bytes()), Contents::digest);
        if digest == *seen {
            return Ok(false);
        }
        *seen = digest;
        let before = self.state();
        let none = Principals::default();
        let before = match &before.admission {
            Admission::Known(principals) => principals,
            Admission::Everybody(_) => &none,
        };
        let state = contents?.understand(&self.files, before)?;
        self.state.send_replace(Arc::new(state));
        Ok(true)
    }

    /// What is in force.
    pub(super) fn state(&self) -> Arc<State> {
        self.state.borrow().clone()
    }

    /// What is in force, and what will be.
    pub(super) fn states(&self) -> watch::Receiver<Arc<State>> {
        self.state.subscribe()
    }

    /// Looks at the files every few seconds, and on SIGHUP, for as long as the door stands.
    ///
    /// # Errors
    ///
    /// [`ServeError::Signal`] when the system refuses a handler.
    pub fn keep_fresh(self: &Arc<Self>) -> Result<(), ServeError> {
        if self.files.tls.is_none() && self.files.principals.is_none() {
            return Ok(());
        }
        let mut hangup =
            signal(SignalKind::hangup()).map_err(|source| ServeError::Signal { source })?;
        let door: Weak<Self> = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(LOOK_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = hangup.recv() => {}
                }
                let Some(door) = door.upgrade() else { return };
                let looked = tokio::task::spawn_blocking(move || door.reload());
                tell(looked.await.unwrap_or(Ok(false)));
            }
        });
        Ok(())
    }
}

fn tell(reloaded: Result<bool, IdentityError>) {
    let stale = metrics::gauge!("access_ledger_identity_stale");
    match reloaded {
        Ok(false) => {}
        Ok(true) => {
            stale.set(0.0);
            info!("took over changed certificates or principals");
        }
        Err(problem) => {
            stale.set(1.0);
            error!(%problem, "kept the certificates and principals in force");
        }
    }
}

impl Contents {
    fn read(disk: &dyn Disk, files: &DoorFiles) -> Result<Self, IdentityError> {
        let read = |path: &Path| {
            os::read(disk, path, FILE_BYTES_MAX)
                .map_err(|source| IdentityError::Io { path: path.to_owned(), source })
        };
        let mut contents = Self {
            certificate: Vec::new(),
            key: Zeroizing::default(),
            client_ca: None,
            principals: files.principals.as_deref().map(read).transpose()?,
        };
        if let Some(tls) = &files.tls {
            contents.certificate = read(&tls.certificate)?;
            let key = os::read_secret(disk, &tls.key, FILE_BYTES_MAX);
            contents.key =
                key.map_err(|source| IdentityError::Io { path: tls.key.clone(), source })?;
            contents.client_ca = tls.client_ca.as_deref().map(read).transpose()?;
        }
        Ok(contents)
    }

    fn understand(&self, files: &DoorFiles, before: &Principals) -> Result<State, IdentityError> {
        let tls = match &files.tls {
            None => None,
            Some(TlsFiles { certificate: path, .. }) => {
                let malformed = |problem| IdentityError::Tls { path: path.clone(), problem };
                let client_ca = self.client_ca.as_deref();
                let tls = tls::configuration(&self.certificate, &self.key, client_ca);
                Some(Arc::new(tls.map_err(malformed)?))
            }
        };
        let admission = match (&files.principals, &self.principals) {
            (Some(path), Some(text)) => {
                let malformed = |line, problem| {
                    let path = path.clone();
                    IdentityError::Principals { path, line, problem }
                };
                let text = std::str::from_utf8(text)
                    .map_err(|error| malformed(1, format!("no UTF-8 text: {error}")))?;
                let principals = Principals::parse(text, before);
                Admission::Known(principals.map_err(|error| malformed(error.line, error.problem))?)
            }
            _ => Admission::Everybody(Arc::new(Principal::anybody())),
        };
        Ok(State { tls, admission })
    }

    /// Tells these contents from others.
    fn digest(&self) -> Digest {
        let client_ca = self.client_ca.as_deref().unwrap_or_default();
        let principals = self.principals.as_deref().unwrap_or_default();
        let parts = [&self.certificate[..], &self.key[..], client_ca, principals];
        sha256(&parts.map(|part| *sha256(part).as_bytes()).concat())
    }
}

/// Soon enough for who rotates certificates or takes an access away, and next to no work.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Chains and principals are some kilobytes.
const FILE_BYTES_MAX: usize = 4 << 20;
