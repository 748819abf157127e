//! The custodian: an auditor that stores and signs.
//!
//! ```text
//! follow (client::pull) -> copy (verify, then store) -> desk -> book -> AuditService, HTTP
//!     \-> alarms -> webhook                               \-> cosign (witness)
//! ```
//!
//! It believes the ledger nothing, serves only what it holds, and signs only what it serves: a
//! checkpoint is laid out when all that it covers was verified and is durable here. Whatever the
//! ledger is caught at is raised as an alarm with what proves it; what shows two histories, or
//! entries that break a rule, ends the signing until a human has cleared it.
//!
//! Its folder is described in [`crate::folder`].

mod accounts;
pub mod alarms;
pub mod clear;
pub mod copy;
mod cosign;
mod court;
mod desk;
pub mod error;
mod follow;
pub mod halt;
mod lag;
pub mod memory;
pub mod patrol;
mod reads;
mod ready;
pub(crate) mod rot;
mod serve;
pub mod silence;
pub mod suspension;
pub mod timing;
pub mod vigil;
pub mod webhook;

use std::{path::PathBuf, sync::Arc, time::Duration};

use access_ledger_client::connect::Credentials;
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    note::{Signer, VerifierKey},
};
use tracing::warn;

use self::{
    alarms::Alarms, copy::Copy, court::Court, desk::Desk, error::CustodianError, halt::Halt,
    memory::Memory, patrol::PatrolOptions, timing::TimeLimits,
};
use crate::{
    error::LedgerError,
    folder::Folder,
    os::{self, Clock, Disk, Lock},
    scrub::ScrubOptions,
    storage::Options,
    witness::{Holding, Witness, WitnessedLog},
};

/// How a custodian is opened.
#[derive(Clone, Debug)]
pub struct CustodianOptions {
    /// The data folder.
    pub folder: PathBuf,
    /// Key of the ledger that is followed; its name is the origin.
    pub ledger: VerifierKey,
    /// The custodian's name, in its keys; `None`: the one that it has, or a new one.
    pub name: Option<String>,
    /// Keys of logs that are witnessed besides.
    pub witness_logs: Vec<VerifierKey>,
    /// Length of a segment in bytes.
    pub segment_bytes: u64,
    /// How long the copy may be behind before that is an alarm.
    pub behind_after: Duration,
    /// What the own clock is to notice.
    pub times: TimeLimits,
    /// How what the ledger serves is read again.
    pub patrol: PatrolOptions,
    /// How the own copy is read again.
    pub scrub: ScrubOptions,
    /// Where alarms are sent; `None`: nowhere.
    pub webhook: Option<String>,
    /// Key of the source at the ledger that records who reads here; `None`: that is not recorded.
    pub reads_key: Option<Signer>,
    /// How long a checkpoint waits for somebody to ask for its cosignature.
    pub cosign_idle: Duration,
}

impl CustodianOptions {
    /// The defaults for a folder and a ledger.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, ledger: VerifierKey) -> Self {
        Self {
            folder: folder.into(),
            ledger,
            name: None,
            witness_logs: Vec::new(),
            segment_bytes: Options::SEGMENT_BYTES,
            behind_after: BEHIND_AFTER,
            times: TimeLimits::default(),
            patrol: PatrolOptions::default(),
            scrub: ScrubOptions::default(),
            webhook: None,
            reads_key: None,
            cosign_idle: COSIGN_IDLE,
        }
    }
}

/// An open custodian: it holds its folder, and follows nothing yet.
pub struct Custodian {
    options: CustodianOptions,
    disk: Arc<dyn Disk>,
    ledger: VerifierKey,
    copy: Copy,
    memory: Memory,
    clock: Arc<dyn Clock>,
    desk: Arc<Desk>,
    witness: Arc<Witness>,
    alarms: Arc<Alarms>,
    court: Arc<Court>,
    halt: Option<Halt>,
    /// Shown to the ledger, and to whom alarms are sent.
    credentials: Credentials,
    /// Given back last: only then may another process open the folder.
    lock: Option<Lock>,
}

impl Custodian {
    /// Opens the custodian in a folder, and makes it first, with new keys, in an empty one. It
    /// keeps `lock`, which its owner took on the folder, until nothing of it runs any more.
    ///
    /// What was stored since the memory was last written is verified again: after a catch-up that
    /// was cut off, that is everything. Blocks, and works on all cores.
    ///
    /// # Errors
    ///
    /// [`CustodianError::Folder`] for a folder of a ledger, of the custodian of another one, or of
    /// another name; [`CustodianError::Memory`] and [`CustodianError::Witness`] for damaged files;
    /// [`CustodianError::Copy`] for a damaged log.
    pub fn open(
        options: CustodianOptions,
        disk: &Arc<dyn Disk>,
        clock: &Arc<dyn Clock>,
        lock: Option<Lock>,
    ) -> Result<Self, CustodianError> {
        let (folder, ledger) = (Folder::new(&options.folder), options.ledger.clone());
        folder.clear_mending(&**disk)?;
        let mut memory = Memory::read(&**disk, folder.root(), &ledger)?;
        let keys = folder.open_custodian(&**disk, &ledger, options.name.as_deref())?;
        let known_keys = folder.known_keys(&**disk, Some(&ledger))?;
        memory.former = memory.former.or_else(|| known_keys.last().cloned());
        memory.former.take_if(|former| *former == ledger);
        let pinned = memory.pinned.as_ref();
        let alarms = Alarms::open(disk.clone(), clock.clone(), &folder.alarms())?;
        let halt = Halt::read(&**disk, folder.root())?;

        let known = pinned.map(|pinned| pinned.checkpoint.clone()).into_iter();
        // All of these were written when the entries were durable. Of two that are of one size the
        // last: that with the cosignatures.
        let known = known.chain(folder.newest_known(&**disk, &known_keys));
        let known = known.max_by_key(VerifiedCheckpoint::size);
        let segment_bytes = options.segment_bytes;
        let storage = Options { segment_bytes, ..Options::new(folder.root(), ledger.name()) };
        let mut copy = Copy::open(disk, &storage, &ledger, pinned, known.as_ref())?;

        let desk = Desk::new(disk.clone(), clock.clone(), &options);
        let desk = Arc::new(desk);
        if let Some(known) = known {
            desk.lay_out(known, &mut copy)?;
        }
        copy.holding().damaged(rot::is_damaged(&alarms, ledger.name()));
        let holding = Some(copy.holding().clone());
        let sources = copy.verifier().sources().into_iter();
        let told = sources.flat_map(|sources| sources.ledger_keys().values().cloned()).collect();
        let mut logs = vec![WitnessedLog { key: ledger.clone(), told, holding }];
        let others = options.witness_logs.iter().filter(|key| key.name() != ledger.name());
        logs.extend(others.cloned().map(WitnessedLog::other));
        let alarms = Arc::new(alarms);
        let court = Court {
            ledger: ledger.clone(),
            logs: options.witness_logs.clone(),
            disk: disk.clone(),
            data: options.folder.clone(),
            desk: desk.clone(),
            alarms: alarms.clone(),
        };
        let witness = Witness::open(disk.clone(), clock.clone(), &folder.witness(), keys, logs)?;
        let court = Arc::new(court);
        let judge = Arc::clone(&court);
        let witness = Arc::new(witness.on_contradiction(move |found| judge.judge(&found)));
        if let Some(Halt { alarm, message, .. }) = &halt {
            warn!(alarm, message, "halted: follows nothing and signs nothing");
            witness.halt(ledger.name());
        }
        if suspension::is_suspended(&**disk, &folder)? {
            warn!("suspended: a copy with keys signs nothing before `custodian resume`");
            let others = options.witness_logs.iter().map(VerifierKey::name);
            others.chain([ledger.name()]).for_each(|origin| witness.halt(origin));
        }
        let (disk, clock) = (disk.clone(), clock.clone());
        Ok(Self {
            options,
            disk,
            ledger,
            copy,
            memory,
            clock,
            desk,
            witness,
            alarms,
            court,
            halt,
            credentials: Credentials::default(),
            lock,
        })
    }

    /// Shows these to the ledger.
    #[must_use]
    pub fn showing(self, credentials: Credentials) -> Self {
        Self { credentials, ..self }
    }

    /// The public halves of the keys: witness, mirror.
    #[must_use]
    pub fn vkeys(&self) -> [&VerifierKey; 2] {
        self.witness.vkeys()
    }

    /// What it holds, verified and durable.
    #[must_use]
    pub const fn holding(&self) -> &Arc<Holding> {
        self.copy.holding()
    }

    /// What it raised.
    #[must_use]
    pub const fn alarms(&self) -> &Arc<Alarms> {
        &self.alarms
    }

    /// Why it signs nothing of the ledger it follows, if so.
    #[must_use]
    pub const fn halt(&self) -> Option<&Halt> {
        self.halt.as_ref()
    }

    /// A policy file (C2SP tlog-policy) that wants this custodian's cosignatures, as a witness and
    /// as a mirror; `url` is where ledgers reach it.
    #[must_use]
    pub fn quorum_policy(&self, url: &str) -> String {
        let [witness, mirror] = self.vkeys();
        format!(
            "# Wants each checkpoint of {origin} cosigned by {name}: that it is\n\
             # consistent with all before (witness), and that every entry is held (mirror).\n\
             # For `serve --witnesses` and `--receipts-policy`, and for `--quorum` of clients.\n\
             log {ledger}\n\
             witness custodian {witness} {url}\n\
             witness custodian-mirror {mirror} {url}\n\
             group custodian-both all custodian custodian-mirror\n\
             quorum custodian-both\n",
            origin = self.ledger.name(),
            name = witness.name(),
            ledger = self.ledger,
        )
    }

    /// Writes [`Custodian::quorum_policy`] into the folder; the file.
    ///
    /// # Errors
    ///
    /// [`CustodianError::Folder`] when the disk refuses.
    pub fn write_quorum_policy(&self, url: &str) -> Result<PathBuf, CustodianError> {
        let path = Folder::new(&self.options.folder).quorum_policy();
        os::replace(&*self.disk, &path, self.quorum_policy(url).as_bytes())
            .map_err(|source| LedgerError::io(&path, source))?;
        Ok(path)
    }
}

/// Long enough for a restart of the ledger or a burst, short enough to be told within minutes.
const BEHIND_AFTER: Duration = Duration::from_secs(60);

/// A ledger that asks does so within milliseconds.
const COSIGN_IDLE: Duration = Duration::from_secs(1);
