//! The witness: signs what is consistent with all that it signed before (C2SP tlog-witness;
//! FORMATS.md, section 8), and nothing else, whoever asks, however many at once, and wherever the
//! machine stops.
//!
//! ```text
//! witness/<hex SHA-256 of the origin>      the newest note that was cosigned, of each log
//! ```
//!
//! For each log there is one lock and one file. Under the lock a checkpoint is compared with the
//! newest one, signed, and put into the file, durably; only then does the signature leave. So the
//! file is never behind what anybody was given, and what is in it after a stop, whole by
//! [`os::replace`], is what the next checkpoint is compared with. A file that cannot be read is an
//! error at the start, not an empty past.
//!
//! Of the log that a custodian follows it signs as a mirror too, and only with a [`Held`]: then the
//! custodian's own tree, and not the sender's proof, says what is consistent.

mod error;
mod holding;
mod logs;
mod record;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use access_ledger_proto::{
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    error::CheckpointError,
    facts::sources::Sources,
    hash::Digest,
    note::{KeyType, Note, Signer, VerifierKey},
    position::Size,
    witness::{AddCheckpoint, origin_hex},
};
use tokio::sync::watch;
use tracing::debug;

use self::record::Record;
pub use self::{
    error::{AddRefusal, WitnessError},
    holding::{Held, HoldError, Holding},
    logs::{LogsError, LogsProblem, parse_logs},
};
use crate::os::{self, Clock, Disk};

/// The keys of a custodian; their names differ.
#[derive(Debug)]
pub struct Keys {
    /// Says: consistent with all that I saw.
    pub witness: Signer,
    /// Says: I hold every entry up to this size, durably, and checked each one.
    pub mirror: Signer,
}

/// A log that is witnessed.
#[derive(Debug)]
pub struct WitnessedLog {
    /// Its key; the name is the origin.
    pub key: VerifierKey,
    /// All of its keys as the log itself tells them, the newest last; none: only `key` is known.
    pub told: Vec<VerifierKey>,
    /// What is held of it, when it is the one that the custodian follows.
    pub holding: Option<Arc<Holding>>,
}

impl WitnessedLog {
    /// One that is not followed.
    #[must_use]
    pub const fn other(key: VerifierKey) -> Self {
        Self { key, told: Vec::new(), holding: None }
    }
}

/// Two statements of one log that cannot both be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// A checkpoint that the log signed, verbatim.
    pub offered: String,
    /// A size that `offered` says something about: its own, or a smaller one.
    pub size: Size,
    /// The root at this size by `offered`, where it is of this size.
    pub found: Option<Digest>,
    /// The root at this size that is held, or was cosigned.
    pub wanted: Digest,
    /// The newest note that was cosigned, if any.
    pub cosigned: Option<Arc<str>>,
}

/// Cosigns the checkpoints of the logs that it knows. Everything blocks.
pub struct Witness {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    keys: Keys,
    /// By [`origin_hex`].
    logs: BTreeMap<String, Log>,
    tell: Box<dyn Fn(Contradiction) + Send + Sync>,
}

struct Log {
    key: VerifierKey,
    /// As in [`WitnessedLog`].
    told: RwLock<Vec<VerifierKey>>,
    holding: Option<Arc<Holding>>,
    path: PathBuf,
    record: Mutex<Record>,
    /// The size of the newest checkpoint that was signed.
    signed: watch::Sender<Size>,
}

impl Witness {
    /// Reads what was signed before from `folder`, which is made if need be. The keys' names must
    /// never have been those of other keys, nor `folder` another witness's.
    ///
    /// # Errors
    ///
    /// [`WitnessError::Key`] for keys of another type or of one name;
    /// [`WitnessError::OriginTwice`]; [`WitnessError::Damaged`] when a stored note is not one that
    /// these keys signed; [`WitnessError::Io`].
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        folder: &Path,
        keys: Keys,
        logs: Vec<WitnessedLog>,
    ) -> Result<Self, WitnessError> {
        check_keys(&keys)?;
        disk.create_dir(folder).map_err(|source| WitnessError::io(folder, source))?;
        let own = [keys.witness.verifier().clone(), keys.mirror.verifier().clone()];
        let mut known = BTreeMap::new();
        for WitnessedLog { key, told, holding } in logs {
            let hex = origin_hex(key.name());
            let path = folder.join(&hex);
            let record = Record::read(&*disk, &path, &key, &told, &own)?;
            let signed = watch::Sender::new(record.size());
            let record = Mutex::new(record);
            let origin = key.name().to_owned();
            let log = Log { key, told: RwLock::new(told), holding, path, record, signed };
            if known.insert(hex, log).is_some() {
                return Err(WitnessError::OriginTwice { origin });
            }
        }
        Ok(Self { disk, clock, keys, logs: known, tell: Box::new(drop) })
    }

    /// Whom to tell of checkpoints that contradict what is held or was cosigned. It is called by
    /// whoever finds one, without a lock. The followed log is halted by then.
    #[must_use]
    pub fn on_contradiction(self, tell: impl Fn(Contradiction) + Send + Sync + 'static) -> Self {
        Self { tell: Box::new(tell), ..self }
    }

    /// Answers an `add-checkpoint` call with this body: the signature lines.
    ///
    /// Of the log that is followed, waits up to [`HOLD_WAIT`] until enough of it is held.
    ///
    /// # Errors
    ///
    /// Any [`AddRefusal`]; nothing was signed then.
    pub fn add_checkpoint(&self, body: &[u8]) -> Result<Vec<u8>, AddRefusal> {
        let malformed = |problem: String| AddRefusal::Malformed { problem };
        let add = AddCheckpoint::parse(body).map_err(|error| malformed(error.to_string()))?;
        let (log, checkpoint) = self.open_checkpoint(add.note)?;
        let added = self.add(log, &add, &checkpoint);
        if let Err(AddRefusal::Contradicts(contradiction)) = &added {
            (self.tell)(Contradiction::clone(contradiction));
        }
        added
    }

    /// Cosigns a checkpoint of the followed log with both keys, because the custodian holds what it
    /// covers. Gives the newest note with its cosignatures: one of a larger size, where that was
    /// cosigned already.
    ///
    /// # Errors
    ///
    /// [`WitnessError::UnknownOrigin`]; [`WitnessError::Halted`]; [`WitnessError::Contradicts`]
    /// when what is held does not continue what was cosigned (whoever listens was told);
    /// [`WitnessError::Io`] and [`WitnessError::Storage`], after which the call may be repeated;
    /// [`WitnessError::Checkpoint`] for a clock beyond all years.
    pub fn cosign_held(
        &self,
        checkpoint: &VerifiedCheckpoint,
        held: &Held,
    ) -> Result<Arc<str>, WitnessError> {
        let log = self.log(checkpoint.origin())?;
        let mut record = log.lock();
        record.check_running()?;
        if let Some(newest) = record.newest_above(checkpoint.size()) {
            return Ok(newest);
        }
        let signed = self.sign(log, &mut record, checkpoint, Some(held));
        let newest = record.newest();
        drop(record);
        if let Err(WitnessError::Contradicts(contradiction)) = &signed {
            (self.tell)(Contradiction::clone(contradiction));
        }
        signed?;
        Ok(newest.unwrap_or_default())
    }

    /// The newest note that was cosigned of the log with this [`origin_hex`]; `None` for a log that
    /// is not known, or never sent a checkpoint.
    #[must_use]
    pub fn newest(&self, origin_hex: &str) -> Option<Arc<str>> {
        self.logs.get(origin_hex)?.lock().newest()
    }

    /// The size of the newest checkpoint that was cosigned of the log with this [`origin_hex`],
    /// and every later one; `None` for a log that is not known.
    #[must_use]
    pub fn sizes(&self, origin_hex: &str) -> Option<watch::Receiver<Size>> {
        self.logs.get(origin_hex).map(|log| log.signed.subscribe())
    }

    /// Has checkpoints of the followed log signed by the key that its sources tell: governance may
    /// have put it in the place of the one that it was opened with.
    pub fn learn_key(&self, sources: &Sources) {
        if let Ok(log) = self.log(&sources.genesis().origin) {
            let told = sources.ledger_keys().values().cloned().collect();
            *log.told.write().unwrap_or_else(PoisonError::into_inner) = told;
        }
    }

    /// Signs nothing more of a log until [`Witness::resume`] or the next start.
    pub fn halt(&self, origin: &str) {
        self.set_halted(origin, true);
    }

    /// Whether nothing more of a log is signed.
    #[must_use]
    pub fn is_halted(&self, origin: &str) -> bool {
        self.log(origin).is_ok_and(|log| log.lock().is_halted)
    }

    /// Takes back [`Witness::halt`].
    pub fn resume(&self, origin: &str) {
        self.set_halted(origin, false);
    }

    /// The public halves of both keys: witness, mirror.
    #[must_use]
    pub fn vkeys(&self) -> [&VerifierKey; 2] {
        [self.keys.witness.verifier(), self.keys.mirror.verifier()]
    }

    fn set_halted(&self, origin: &str, is_halted: bool) {
        if let Ok(log) = self.log(origin) {
            log.lock().is_halted = is_halted;
        }
    }

    fn log(&self, origin: &str) -> Result<&Log, WitnessError> {
        self.logs
            .get(&origin_hex(origin))
            .ok_or_else(|| WitnessError::UnknownOrigin { origin: origin.to_owned() })
    }

    /// The log that a checkpoint is of, and that it signed it.
    fn open_checkpoint(&self, note: &[u8]) -> Result<(&Log, VerifiedCheckpoint), AddRefusal> {
        let malformed = |error: CheckpointError| AddRefusal::Malformed {
            problem: format!("checkpoint: {error}"),
        };
        let text = Note::parse(note).map_err(|error| malformed(error.into()))?;
        let checkpoint = Checkpoint::parse(text.text()).map_err(malformed)?;
        let log = self
            .log(checkpoint.origin())
            .map_err(|_| AddRefusal::UnknownOrigin { origin: checkpoint.origin().to_owned() })?;
        // What only a former key has signed is as good as unsigned.
        let verified = VerifiedCheckpoint::open(note, &log.newest_key(), &[]);
        let verified =
            verified.map_err(|error| AddRefusal::Untrusted { problem: error.to_string() });
        Ok((log, verified?))
    }

    fn add(
        &self,
        log: &Log,
        add: &AddCheckpoint<'_>,
        checkpoint: &VerifiedCheckpoint,
    ) -> Result<Vec<u8>, AddRefusal> {
        let held = match &log.holding {
            Some(holding) => Some(log.hold(holding, add, checkpoint)?),
            None => None,
        };
        let mut record = log.lock();
        record.admit(add.old, checkpoint)?;
        let verified = record.verify(&add.proof, checkpoint);
        if matches!(verified, Err(AddRefusal::Contradicts(_))) && held.is_some() {
            record.is_halted = true;
        }
        verified?;
        Ok(self.sign(log, &mut record, checkpoint, held.as_ref())?)
    }

    /// Signs a checkpoint that was found consistent with the newest one, and makes it the newest,
    /// durably, before anybody is given the signature lines.
    fn sign(
        &self,
        log: &Log,
        record: &mut Record,
        checkpoint: &VerifiedCheckpoint,
        held: Option<&Held>,
    ) -> Result<Vec<u8>, WitnessError> {
        if let Some(held) = held {
            assert!(held.is_of(checkpoint), "what is held was compared with another checkpoint");
            if let Err(contradiction) = record.continues_in(held, checkpoint)? {
                record.is_halted = true;
                return Err(WitnessError::Contradicts(Box::new(contradiction)));
            }
        }
        let timestamp_s = record.time_after(self.clock.now_nanos() / NANOS_PER_S);
        let signers: &[&Signer] = match held {
            Some(_) => &[&self.keys.witness, &self.keys.mirror],
            None => &[&self.keys.witness],
        };
        if let Some(lines) = record.lines_of(checkpoint, timestamp_s, signers.len()) {
            return Ok(lines);
        }
        let mut lines = String::new();
        for signer in signers {
            lines.push_str(&checkpoint.cosign(signer, timestamp_s)?);
        }
        let told = log.told.read().unwrap_or_else(PoisonError::into_inner).clone();
        let keys: Vec<_> = told.iter().chain([&log.key]).collect();
        let cosigned = record::Cosigned::new(checkpoint, &keys, lines, timestamp_s);
        os::replace(&*self.disk, &log.path, cosigned.note.as_bytes())
            .map_err(|source| WitnessError::io(&log.path, source))?;
        metrics::counter!("access_ledger_cosigned_total").increment(1);
        debug!(origin = log.key.name(), size = checkpoint.size().0, "cosigned checkpoint");
        let lines = record.set(cosigned);
        log.signed.send_replace(checkpoint.size());
        Ok(lines)
    }
}

impl Log {
    fn newest_key(&self) -> VerifierKey {
        let told = self.told.read().unwrap_or_else(PoisonError::into_inner);
        told.last().unwrap_or(&self.key).clone()
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until what the checkpoint covers is held, and compares the roots. A checkpoint that
    /// contradicts what is held convicts whatever else is wrong with the call.
    fn hold(
        &self,
        holding: &Holding,
        add: &AddCheckpoint<'_>,
        checkpoint: &VerifiedCheckpoint,
    ) -> Result<Held, AddRefusal> {
        let held = match holding.hold(checkpoint, Duration::ZERO) {
            // Nobody waits for what would be refused anyway.
            Err(HoldError::Behind { .. }) => {
                self.lock().admit(add.old, checkpoint)?;
                holding.hold(checkpoint, HOLD_WAIT)
            }
            held => held,
        };
        held.map_err(|error| match error {
            HoldError::Differs { size, found, held } => {
                let mut record = self.lock();
                record.is_halted = true;
                AddRefusal::Contradicts(Box::new(Contradiction {
                    offered: checkpoint.note().to_owned(),
                    size,
                    found: Some(found),
                    wanted: held,
                    cosigned: record.newest(),
                }))
            }
            HoldError::Unsealed { size } => AddRefusal::Unsealed { size },
            error => AddRefusal::Unavailable { problem: error.to_string() },
        })
    }
}

/// That each key can do what it is for, and that nobody mistakes one for the other.
fn check_keys(keys: &Keys) -> Result<(), WitnessError> {
    let [witness, mirror] = [&keys.witness, &keys.mirror].map(Signer::verifier);
    let refused = |key: &VerifierKey, problem| {
        let name = key.name().to_owned();
        Err(WitnessError::Key { name, problem })
    };
    for key in [witness, mirror] {
        if key.key_type() != KeyType::CosignatureV1 {
            return refused(key, "not a key that cosigns");
        }
    }
    if witness.name() == mirror.name() || witness.public_key() == mirror.public_key() {
        return refused(mirror, "witness and mirror with one name or one key");
    }
    Ok(())
}

/// How long a caller waits until a checkpoint of the followed log is held: a copy that keeps up is
/// behind by less than a second.
pub const HOLD_WAIT: Duration = Duration::from_secs(10);

const NANOS_PER_S: u64 = 1_000_000_000;
