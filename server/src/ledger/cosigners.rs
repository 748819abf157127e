//! Cosigners: the witnesses and custodians that the ledger asks to sign its checkpoints.
//!
//! ```text
//! publish -> Rounds (which checkpoint) -> Asker, one task an address -> Cosigners (verify, gather)
//!                                                      -> book (note, file) -> release (receipts)
//! ```
//!
//! Nothing here is ever waited for by a commit. A witness that is down, slow, or answers anything
//! but its cosignature costs a warning, a metric and its own patience; what does not verify is
//! dropped. A cosignature counts for the checkpoint that it is on and for no other, so witnesses
//! are asked in rounds: all of them for one checkpoint, and only when that has its quorum, or
//! nobody is left who is being asked for it, for the newest. Otherwise, on a busy ledger, two of
//! them might never sign the same one.

mod ask;
mod rounds;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use access_ledger_client::connect::Credentials;
use access_ledger_proto::{
    checkpoint::{Cosignature, VerifiedCheckpoint},
    error::CheckpointError,
    facts::sources::History,
    hash::Digest,
    note::{Note, VerifierKey},
    position::{Index, Size},
    proof::root_at,
    quorum::Quorum,
};
use bytes::Bytes;
use thiserror::Error;
use tokio::task::JoinSet;
use tracing::warn;

use self::{ask::Asker, rounds::Rounds};
use super::release::Release;
use crate::{
    book::{Book, Published},
    error::LedgerError,
    outbound::{Outbound, OutboundError},
    storage::TreeFiles,
};

/// Whom a ledger asks to cosign, and what its receipts wait for.
#[derive(Clone, Debug)]
pub struct Cosigning {
    /// Witnesses to ask.
    pub witnesses: Option<Quorum>,
    /// Witnesses to ask too. Receipts wait until its quorum is met.
    pub receipts: Option<Quorum>,
    /// How long a receipt waits.
    pub receipts_wait: Duration,
    /// The longest pause before a witness that failed is asked again.
    pub backoff_max: Duration,
    /// After so long without an entry, the ledger records a heartbeat of its own, if there are
    /// witnesses.
    pub heartbeat: Duration,
    /// What witnesses are shown, but for the token.
    pub credentials: Credentials,
}

impl Default for Cosigning {
    /// Nobody is asked, nothing waits.
    fn default() -> Self {
        Self {
            witnesses: None,
            receipts: None,
            receipts_wait: Duration::from_secs(5),
            backoff_max: Duration::from_secs(10),
            heartbeat: Duration::from_secs(60),
            credentials: Credentials::default(),
        }
    }
}

/// An address to ask, and whose cosignatures come from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Prefix of `/add-checkpoint`, without a slash at its end.
    pub(crate) url: String,
    /// At least one: a custodian's two keys are at one address.
    pub(crate) keys: Vec<VerifierKey>,
}

impl Cosigning {
    /// Whether anybody is named.
    pub(crate) const fn is_empty(&self) -> bool {
        self.witnesses.is_none() && self.receipts.is_none()
    }

    /// The addresses to ask, each once, in the order of the files.
    pub(crate) fn places(&self) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        for witness in self.policies().flat_map(Quorum::witnesses) {
            let Some(url) = &witness.url else { continue };
            let url = url.trim_end_matches('/');
            match places.iter_mut().find(|place| place.url == url) {
                Some(place) if place.keys.contains(&witness.key) => {}
                Some(place) => place.keys.push(witness.key.clone()),
                None => places.push(Place { url: url.to_owned(), keys: vec![witness.key.clone()] }),
            }
        }
        places
    }

    /// The quorum of the ledger: what its receipts wait for, or else what it asks for.
    fn quorum(&self) -> Quorum {
        self.policies().last().cloned().unwrap_or_default()
    }

    /// The keys of all witnesses, with or without an address.
    fn keys(&self) -> Vec<VerifierKey> {
        let mut keys: Vec<VerifierKey> = Vec::new();
        for key in self.policies().flat_map(Quorum::keys) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// That the policies are for this ledger, and that receipts do not wait for ever.
    ///
    /// # Errors
    ///
    /// [`LedgerError::OtherLog`], [`LedgerError::Unasked`].
    pub(crate) fn check(&self, ledger: &[&VerifierKey]) -> Result<(), LedgerError> {
        let accepts = |policy: &Quorum| ledger.iter().any(|key| policy.accepts_log(key));
        if self.policies().any(|policy| !accepts(policy)) {
            let origin = ledger.first().map_or("", |key| key.name()).to_owned();
            return Err(LedgerError::OtherLog { origin });
        }
        let Some(receipts) = &self.receipts else {
            return Ok(());
        };
        let asked: Vec<_> = self.places().into_iter().flat_map(|place| place.keys).collect();
        // A custodian answers with its mirror key too, whether or not the file says where that is.
        let is_asked = |key: &VerifierKey| {
            let custodian = key.name().strip_suffix(MIRROR_SUFFIX);
            asked.iter().any(|asked| asked == key || Some(asked.name()) == custodian)
        };
        let asked = receipts.keys().into_iter().filter(is_asked);
        let asked: Vec<_> = asked.map(|key| Cosignature { key, timestamp_s: 0 }).collect();
        let names: Vec<_> = receipts.lacking(&asked).into_iter().map(str::to_owned).collect();
        if names.is_empty() { Ok(()) } else { Err(LedgerError::Unasked { names }) }
    }

    fn policies(&self) -> impl Iterator<Item = &Quorum> {
        self.witnesses.iter().chain(&self.receipts)
    }
}

/// A note that is not taken from a witness.
#[derive(Debug, Error)]
pub(crate) enum NoteRefused {
    /// Not a checkpoint that this ledger signed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The ledger signed more than it holds. For the operator: it was rolled back.
    #[error("checkpoint of size {found}, the ledger holds {local} entries")]
    Ahead {
        /// Size of the checkpoint.
        found: Size,
        /// Size of the newest checkpoint here.
        local: Size,
    },
    /// The ledger signed another history than it holds. For the operator.
    #[error("checkpoint of size {size} has root {found}, the ledger's is {wanted}")]
    OtherRoot {
        /// Its size.
        size: Size,
        /// Its root.
        found: Digest,
        /// Root of the local tree at this size.
        wanted: Digest,
    },
    /// The local tree cannot be read.
    #[error("local tree: {problem}")]
    Tree {
        /// What the storage said.
        problem: String,
    },
}

/// Gathers cosignatures.
pub(crate) struct Cosigners {
    book: Arc<Book>,
    places: Vec<Place>,
    /// Whose cosignatures are kept.
    keys: Vec<VerifierKey>,
    quorum: Quorum,
    release: Option<Arc<Release>>,
    credentials: Credentials,
    backoff_max: Duration,
    /// Checkpoints on which cosignatures have arrived, the newest few.
    gathered: Mutex<BTreeMap<Size, Gathered>>,
}

/// A checkpoint and the cosignatures on it.
struct Gathered {
    root: Digest,
    /// The note with the ledger's signature alone.
    note: String,
    /// One of each key, with its line.
    cosignatures: Vec<Cosignature>,
    lines: Vec<String>,
}

impl Cosigners {
    /// For the ledger of this book.
    pub(crate) fn new(
        book: Arc<Book>,
        cosigning: &Cosigning,
        release: Option<Arc<Release>>,
    ) -> Self {
        let (places, keys) = (cosigning.places(), cosigning.keys());
        let (quorum, backoff_max) = (cosigning.quorum(), cosigning.backoff_max);
        let (credentials, gathered) = (cosigning.credentials.clone(), Mutex::default());
        Self { book, places, keys, quorum, release, credentials, backoff_max, gathered }
    }

    /// Asks for as long as the returned tasks are kept.
    ///
    /// # Errors
    ///
    /// As [`Outbound::new`].
    pub(crate) fn spawn(self: &Arc<Self>) -> Result<JoinSet<()>, OutboundError> {
        let outbound = Outbound::new(&self.credentials)?;
        let interval = self.book.unawaited_interval();
        let rounds = Arc::new(Rounds::new(self.book.clone(), self.places.len()));
        let mut tasks = JoinSet::new();
        for (place, seat) in self.places.iter().zip(0..) {
            let (cosigners, rounds) = (self.clone(), rounds.clone());
            let asker = Asker::new(cosigners, rounds, outbound.clone(), place.clone(), seat);
            tasks.spawn(asker.run(interval));
        }
        tasks.spawn(rounds.run(interval));
        Ok(tasks)
    }

    /// Takes up the note of a checkpoint that this ledger signed, with the cosignatures on it that
    /// are of known witnesses and verify; its size. Reads the tree.
    ///
    /// # Errors
    ///
    /// [`NoteRefused`]; nothing is taken then.
    pub(crate) fn take_note(&self, note: &[u8]) -> Result<Size, NoteRefused> {
        let checkpoint = self.open(note)?;
        let root = local_root(&self.book.tree, checkpoint.size())?;
        self.take_checkpoint(&checkpoint, root)
    }

    /// Opens a note of this ledger that covers no more than there is here.
    fn open(&self, note: &[u8]) -> Result<VerifiedCheckpoint, NoteRefused> {
        let checkpoint = VerifiedCheckpoint::open(note, &self.book.vkey, &[])?;
        // A witness that knows only a former key may have left the others' signatures out.
        let keys = self.book.sources().ledger_keys().clone();
        if !checkpoint.is_signed_by(keys.at(Index(checkpoint.size().0))) {
            let origin = self.book.vkey.name().to_owned();
            return Err(CheckpointError::NotByLedger { origin }.into());
        }
        let (found, local) = (checkpoint.size(), self.book.published().size);
        if found > local { Err(NoteRefused::Ahead { found, local }) } else { Ok(checkpoint) }
    }

    /// Takes up the cosignatures on a checkpoint, if the local tree has this root at its size.
    fn take_checkpoint(
        &self,
        checkpoint: &VerifiedCheckpoint,
        wanted: Digest,
    ) -> Result<Size, NoteRefused> {
        let (size, found) = (checkpoint.size(), checkpoint.root());
        if found != wanted {
            return Err(NoteRefused::OtherRoot { size, found, wanted });
        }
        // Behind the text and the empty line.
        let behind = checkpoint.checkpoint().text().len() + 1;
        let lines = checkpoint.note().as_bytes().get(behind..).unwrap_or_default();
        self.take_lines(checkpoint, lines)?;
        Ok(size)
    }

    /// Takes up what a witness answered to a checkpoint of this ledger: the keys whose
    /// cosignatures verify. Others are dropped, those of known keys with a warning.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Note`] when the lines are none of a note.
    pub(crate) fn take_lines(
        &self,
        checkpoint: &VerifiedCheckpoint,
        lines: &[u8],
    ) -> Result<Vec<VerifierKey>, CheckpointError> {
        let found = checkpoint.checkpoint().cosigned(lines, &self.keys)?;
        for error in &found.bad {
            let size = checkpoint.size().0;
            warn!(%error, size, "dropped a cosignature that does not verify");
            metrics::counter!("access_ledger_cosignatures_dropped_total").increment(1);
        }
        let keys = found.good.iter().map(|(cosignature, _)| cosignature.key.clone()).collect();
        if !found.good.is_empty() {
            self.gather(checkpoint, found.good);
        }
        Ok(keys)
    }

    fn gather(&self, checkpoint: &VerifiedCheckpoint, found: Vec<(Cosignature, String)>) {
        let size = checkpoint.size();
        let mut all = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let gathered = all
            .entry(size)
            .or_insert_with(|| Gathered::new(checkpoint, self.book.sources().ledger_keys()));
        for (cosignature, line) in found {
            gathered.put(cosignature, line);
        }
        let is_met = self.quorum.is_met(&gathered.cosignatures);
        // Under the lock, so that no note with fewer cosignatures comes behind one with more.
        self.book.cosign(&gathered.published(size), is_met);
        while all.len() > GATHERED_MAX {
            all.pop_first();
        }
        drop(all);
        if is_met && let Some(release) = &self.release {
            release.look();
        }
    }
}

impl Gathered {
    fn new(checkpoint: &VerifiedCheckpoint, keys: &History<VerifierKey>) -> Self {
        let note = by_ledger(checkpoint, keys);
        let root = checkpoint.root();
        Self { root, note, cosignatures: Vec::new(), lines: Vec::new() }
    }

    /// Keeps a cosignature in the place of an older one of the same key.
    fn put(&mut self, cosignature: Cosignature, line: String) {
        let place = self.cosignatures.iter().position(|known| known.key == cosignature.key);
        let known =
            place.and_then(|at| Some((self.cosignatures.get_mut(at)?, self.lines.get_mut(at)?)));
        match known {
            Some((known, _)) if known.timestamp_s > cosignature.timestamp_s => {}
            Some((known, known_line)) => (*known, *known_line) = (cosignature, line),
            None => {
                self.cosignatures.push(cosignature);
                self.lines.push(line);
            }
        }
    }

    fn published(&self, size: Size) -> Arc<Published> {
        let note = Bytes::from(format!("{}{}", self.note, self.lines.concat()));
        Arc::new(Published { size, root: self.root, note })
    }
}

/// The root of the local tree at this size.
fn local_root(tree: &TreeFiles, size: Size) -> Result<Digest, NoteRefused> {
    root_at(tree, size).map_err(|error| NoteRefused::Tree { problem: error.to_string() })
}

/// The note of a checkpoint with the signatures of the ledger's keys alone.
fn by_ledger(checkpoint: &VerifiedCheckpoint, keys: &History<VerifierKey>) -> String {
    let signed = Note::parse(checkpoint.note().as_bytes());
    let line = |key: &VerifierKey| {
        let mut lines = signed.iter().flat_map(Note::signatures);
        let by_key = lines.find(|line| (line.name, line.key_id) == (key.name(), key.id()));
        by_key.map(|line| line.line())
    };
    let lines: String = keys.values().rev().filter_map(line).collect();
    format!("{}\n{lines}", checkpoint.checkpoint().text())
}

/// What a custodian's mirror key is called behind the name of its witness key (FORMATS.md,
/// section 8).
const MIRROR_SUFFIX: &str = "/mirror";

/// Rounds that are under way, and a few that late witnesses still answer.
const GATHERED_MAX: usize = 16;

#[cfg(test)]
mod tests;
