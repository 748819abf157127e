//! An audit: pull, verify, compare with the view, pin.
//!
//! The order matters. The checkpoint's signature and its consistency with the pin come first, for
//! they are cheap and convict at once; then every entry is verified; only then is the pin moved. A
//! ledger that refuses what it signed for is caught like one that serves something else.

use std::{sync::Arc, time::Duration};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    hash::leaf_hash,
    note::VerifierKey,
    position::{Index, Size},
    proof::verify_inclusion,
    quorum::Quorum,
    receipt::TlogProof,
    wire,
};
use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;
use tokio::time::{Instant, sleep};

pub use self::copy::audit_copy;
use crate::{
    evidence::Caught,
    folder::FolderError,
    pull::{PullError, Puller, RUNS_AHEAD, Records, Run, is_missing},
    verify::{Fault, LogVerifier, Record, Scope, StateError, Violation},
    view::{View, ViewError, check_consistency, compare},
};

mod copy;

/// An audit came to no good end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The ledger is caught: keep the evidence.
    #[error(transparent)]
    Caught(Box<Caught>),
    /// The ledger could not be asked.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The view cannot be used.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The state in the view does not fit its checkpoint. A full audit does without it.
    #[error(transparent)]
    State(#[from] StateError),
    /// The copy cannot be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The copy is older than what was verified before: take a newer one.
    #[error("copy holds {found} entries, of this ledger {known} were verified before")]
    OldCopy {
        /// Size of the copy.
        found: Size,
        /// Size of the pinned checkpoint.
        known: Size,
    },
    /// An event is gone, and the copy ends before the record of its erasure, if there is one: take
    /// a newer one.
    #[error("event {index} is gone, and the copy holds no record of its erasure")]
    Unaccounted {
        /// The first such event.
        index: Index,
    },
    /// The ledger shows no checkpoint that its witnesses have cosigned as the policy wants: they
    /// may be down, or refuse. Nothing is proven, and nothing is believed.
    #[error(
        "no checkpoint of size {wanted} or more has its quorum: newest is size {found}{}",
        lacking_told(.lacking)
    )]
    Quorum {
        /// Size of the newest checkpoint that was served.
        found: Size,
        /// The least size that would do: what was seen before.
        wanted: Size,
        /// Names of witnesses that are missing on it.
        lacking: Vec<String>,
    },
    /// The runtime is shutting down: nothing is known about the ledger.
    #[error("audit was cut off")]
    CutOff,
}

impl From<Caught> for AuditError {
    fn from(caught: Caught) -> Self {
        Self::Caught(Box::new(caught))
    }
}

/// How to audit.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// What to pull and check.
    pub scope: Scope,
    /// Begin at entry 0, although there is a pin.
    pub full: bool,
    /// Known witnesses, whose cosignatures on the checkpoint are verified, and which of them must
    /// have cosigned what is believed. It must accept the ledger.
    pub quorum: Quorum,
}

/// Told after each step: entries verified, and how many there are to be.
pub type Progress = Arc<dyn Fn(Size, Size) + Send + Sync>;

/// Computes something from the records of a log on the way of its audit.
///
/// The audit gives it back only when it has concluded, so nothing is believed that was computed
/// from records of a ledger that was caught. `()` computes nothing.
pub trait Observer: Send + 'static {
    /// Takes up consecutive records, from entry 0 on; `first` is the index of the first of them.
    ///
    /// They keep the rules of the log. Their seals and the checkpoint's root are verified behind
    /// them, before the audit concludes.
    fn take(&mut self, first: Index, records: &[Record]);
}

impl Observer for () {
    fn take(&mut self, _first: Index, _records: &[Record]) {}
}

/// A ledger that was found in order, as far as its checkpoint reaches.
#[derive(Debug)]
pub struct Audited {
    /// What the view is pinned to.
    pub checkpoint: VerifiedCheckpoint,
    /// Size of the newest checkpoint that was served: larger than that of `checkpoint` where the
    /// last entries are not cosigned yet, which are left for the next audit then.
    pub newest: Size,
    /// How many entries were known before and not read again.
    pub known: Size,
    /// The verifier as it concluded.
    pub verifier: LogVerifier,
}

/// Audits a ledger against a view and pins what was verified.
///
/// Streams: pulling, digesting and checking seals overlap, and memory does not grow with the
/// ledger. A state of another scope is not continued: such an audit begins at entry 0.
///
/// # Errors
///
/// Any [`AuditError`]; the view is unchanged then.
pub async fn audit(
    puller: &Puller,
    view: &mut View,
    options: &AuditOptions,
    progress: Progress,
) -> Result<Audited, AuditError> {
    let look = Look { puller, ledger: view.ledger(), options, progress };
    let looked = Box::pin(look.run(view, ())).await;
    pin(puller, view, looked).await.map(|(audited, ())| audited)
}

/// Audits a ledger with all its events from entry 0 on, hands them to `observer` on the way, and
/// pins what was verified.
///
/// # Errors
///
/// As [`audit`]; what the observer has computed is lost then.
pub async fn audit_observed<O: Observer>(
    puller: &Puller,
    view: &mut View,
    quorum: Quorum,
    progress: Progress,
    observer: O,
) -> Result<(Audited, O), AuditError> {
    let options = &AuditOptions { scope: Scope::Events, full: true, quorum };
    let look = Look { puller, ledger: view.ledger(), options, progress };
    // On the heap: with what an observer computes it is large, and whoever awaits it would be too.
    let looked = Box::pin(look.run(view, observer)).await;
    Box::pin(pin(puller, view, looked)).await
}

/// Pins what an audit has found in order; proves what it has not.
async fn pin<O>(
    puller: &Puller,
    view: &mut View,
    looked: Result<(Audited, O), AuditError>,
) -> Result<(Audited, O), AuditError> {
    match looked {
        Ok((audited, observer)) => {
            view.pin(audited.checkpoint.clone(), audited.verifier.save())?;
            Ok((audited, observer))
        }
        Err(AuditError::Caught(caught)) => Err(prove(puller, *caught).await.into()),
        Err(error) => Err(error),
    }
}

/// Everything of an audit but the pin.
struct Look<'a> {
    puller: &'a Puller,
    ledger: &'a VerifierKey,
    options: &'a AuditOptions,
    progress: Progress,
}

impl Look<'_> {
    async fn run<O: Observer>(&self, view: &View, observer: O) -> Result<(Audited, O), AuditError> {
        let Self { puller, ledger, options, .. } = *self;
        view.check_scope(options.scope)?;
        let (mut checkpoint, mut newest) = next_checkpoint(puller, view, None, options).await?;
        let usable =
            view.pinned().filter(|pin| !options.full && pin.state.scope() == options.scope);
        let verifier = match usable {
            Some(pin) => LogVerifier::restore(ledger, &pin.checkpoint, &pin.state)?,
            None => LogVerifier::new(ledger, options.scope),
        };
        let known = verifier.size();
        let mut fold = Fold { verifier, observer, unobserved: Vec::new() };
        fold = self.advance(fold, &checkpoint).await?;
        if fold.verifier.unaccounted().is_some() {
            // The event may have been erased, and the record of that made, after the checkpoint.
            let next = next_checkpoint(puller, view, Some(&checkpoint), options).await?;
            (checkpoint, newest) = next;
            fold = self.advance(fold, &checkpoint).await?;
        }
        let (verifier, checkpoint) = conclude(fold.verifier, checkpoint).await?;
        Ok((Audited { checkpoint, newest, known, verifier }, fold.observer))
    }

    /// Verifies all entries up to the checkpoint.
    async fn advance<O: Observer>(
        &self,
        mut fold: Fold<O>,
        checkpoint: &VerifiedCheckpoint,
    ) -> Result<Fold<O>, AuditError> {
        let (first, end) = (fold.verifier.size().next_index(), checkpoint.size());
        let mut records = self.puller.records(first, end, fold.verifier.scope());
        let (served, progress) = (checkpoint.clone(), Arc::clone(&self.progress));
        blocking(move || fold.take_all(&mut records, &served, &progress).map(|()| fold)).await?
    }
}

/// The newest checkpoint: signed by the ledger, and consistent with the pin and with one that was
/// seen meanwhile. Also the size of the newest one that was served.
async fn next_checkpoint(
    puller: &Puller,
    view: &View,
    seen: Option<&VerifiedCheckpoint>,
    options: &AuditOptions,
) -> Result<(VerifiedCheckpoint, Size), AuditError> {
    let pinned = view.pinned().map(|pinned| &pinned.checkpoint);
    let least = pinned.into_iter().chain(seen).map(VerifiedCheckpoint::size).max();
    let least = least.unwrap_or_default();
    let (served, newest) = if options.quorum.wants_any() {
        let served = cosigned_checkpoint(puller, view, least, &options.quorum).await?;
        let newest = served.size();
        (served, newest)
    } else {
        let newest = open(puller.checkpoint().await?, view, &options.quorum)?;
        let size = newest.size();
        (witnessed(puller, view, least, (newest, &options.quorum)).await?, size)
    };
    check_key(view, &served)?;
    for older in pinned.into_iter().chain(seen) {
        if let Some((old, new)) = compare(older, &served)? {
            let path = puller.consistency_path(old, new).await;
            let path = path.map_err(|error| unproven(error, older, &served))?;
            check_consistency(older, &served, path)?;
        }
    }
    Ok((served, newest))
}

/// The newest checkpoint that a known witness has cosigned, if there is one of at least this size.
/// Nothing is wanted of the witnesses, so without one the newest of all does. That of a ledger with
/// much to do often is too new to be cosigned.
async fn witnessed(
    puller: &Puller,
    view: &View,
    least: Size,
    (newest, quorum): (VerifiedCheckpoint, &Quorum),
) -> Result<VerifiedCheckpoint, AuditError> {
    if quorum.witnesses().is_empty() || !newest.cosignatures().is_empty() {
        return Ok(newest);
    }
    let cosigned = open(puller.cosigned_checkpoint().await?, view, quorum)?;
    let is_witnessed = !cosigned.cosignatures().is_empty() && cosigned.size() >= least;
    Ok(if is_witnessed { cosigned } else { newest })
}

/// The newest checkpoint of at least this size that has its quorum. Waits a while for one: the
/// cosignatures come behind the entries.
async fn cosigned_checkpoint(
    puller: &Puller,
    view: &View,
    least: Size,
    quorum: &Quorum,
) -> Result<VerifiedCheckpoint, AuditError> {
    let until = Instant::now() + puller.patience().repeat;
    loop {
        let served = open(puller.cosigned_checkpoint().await?, view, quorum)?;
        let is_met = quorum.is_met(served.cosignatures());
        if is_met && served.size() >= least {
            return Ok(served);
        }
        if Instant::now() >= until {
            // The newest with its quorum may be old; one that the ledger went back behind is not.
            let newest = open(puller.checkpoint().await?, view, quorum)?;
            check_key(view, &newest)?;
            if let Some(pinned) = view.pinned() {
                compare(&pinned.checkpoint, &newest)?;
            }
            return Err(below_quorum(&served, least, quorum));
        }
        sleep(QUORUM_POLL).await;
    }
}

/// A note as a checkpoint of the ledger, with the cosignatures of known witnesses.
fn open(note: Bytes, view: &View, quorum: &Quorum) -> Result<VerifiedCheckpoint, Caught> {
    VerifiedCheckpoint::open(&note, view.ledger(), &quorum.keys())
        .map_err(|error| Caught::Checkpoint { error, note })
}

/// That the newest key that the view has seen in the log signed this, too.
fn check_key(view: &View, served: &VerifiedCheckpoint) -> Result<(), Caught> {
    let told = view.pinned().map(|pinned| pinned.state.ledger_keys()).unwrap_or_default();
    let signed = served.check_newest_key(view.ledger(), &told);
    let note = || Bytes::copy_from_slice(served.note().as_bytes());
    signed.map_err(|error| Caught::Checkpoint { error, note: note() })
}

fn below_quorum(served: &VerifiedCheckpoint, wanted: Size, quorum: &Quorum) -> AuditError {
    let lacking = quorum.lacking(served.cosignatures()).into_iter().map(str::to_owned);
    AuditError::Quorum { found: served.size(), wanted, lacking: lacking.collect() }
}

fn lacking_told(names: &[String]) -> String {
    match names.is_empty() {
        true => String::new(),
        false => format!(", without the cosignatures of {}", names.join(", ")),
    }
}

/// The last seals, the root, and what must not be left open.
async fn conclude(
    mut verifier: LogVerifier,
    checkpoint: VerifiedCheckpoint,
) -> Result<(LogVerifier, VerifiedCheckpoint), AuditError> {
    blocking(move || match verifier.finish(&checkpoint) {
        Ok(()) => Ok((verifier, checkpoint)),
        Err(violation) => Err(log_caught(violation, &checkpoint).into()),
    })
    .await?
}

/// The log on its way through verifier and observer.
struct Fold<O> {
    verifier: LogVerifier,
    observer: O,
    /// Runs that the verifier has taken and the observer has not.
    unobserved: Vec<Run>,
}

impl<O: Observer> Fold<O> {
    /// Takes what is pulled until there is nothing more.
    fn take_all(
        &mut self,
        records: &mut Records,
        served: &VerifiedCheckpoint,
        progress: &Progress,
    ) -> Result<(), AuditError> {
        let total = served.size();
        loop {
            progress(self.verifier.size(), total);
            let (mut runs, mut broken) = (Vec::new(), None);
            for run in records.next_blocking(RUNS_AHEAD) {
                match run {
                    Ok(run) => runs.push(run),
                    Err(error) => broken = Some(error),
                }
            }
            let ended = runs.is_empty();
            let taken = self.advance(runs);
            // Before the stream's own end is told, what was taken must hold.
            let taken = match broken {
                Some(_) => taken.and_then(|()| self.verifier.settle()),
                None => taken,
            };
            taken.map_err(|violation| log_caught(violation, served))?;
            match broken {
                Some(PullError::Withheld { index, problem, .. }) => {
                    let served = Box::new(served.clone());
                    return Err(Caught::Withheld { index, problem, served }.into());
                }
                Some(error) => return Err(error.into()),
                None if ended && self.verifier.size() != total => return Err(AuditError::CutOff),
                None if ended => return Ok(()),
                None => {}
            }
        }
    }

    /// Verifies runs while the observer looks at those before. No runs: it has seen all.
    fn advance(&mut self, runs: Vec<Run>) -> Result<(), Violation> {
        // Records share their bytes.
        let taken = std::mem::replace(&mut self.unobserved, runs.clone());
        let Self { verifier, observer, .. } = self;
        let observe = || taken.iter().for_each(|(first, records)| observer.take(*first, records));
        rayon::join(|| verifier.advance(runs), observe).0
    }
}

fn log_caught(violation: Violation, served: &VerifiedCheckpoint) -> Caught {
    let violation = Box::new(violation);
    Caught::Log { violation, served: Box::new(served.clone()), proofs: Vec::new() }
}

/// What it means that a consistency proof cannot be had: the ledger signed both sizes, so it can
/// neither have lost one nor answer with something else. Anything but that is the network's fault.
#[must_use]
pub fn unproven(
    error: PullError,
    pinned: &VerifiedCheckpoint,
    served: &VerifiedCheckpoint,
) -> AuditError {
    let problem = match &error {
        PullError::Refused(status) if is_missing(status.code()) => error.to_string(),
        PullError::Answer { .. } => error.to_string(),
        _ => return error.into(),
    };
    let (pinned, served) = (Box::new(pinned.clone()), Box::new(served.clone()));
    Caught::Unproven { pinned, served, problem }.into()
}

/// Binds the entries of a violation to the checkpoint, where the ledger still gives proofs that
/// hold. Anything else that a ledger is caught at comes back as it is.
pub async fn prove(puller: &Puller, mut caught: Caught) -> Caught {
    if let Caught::Log { violation, served, proofs } = &mut caught {
        let mut run = wire::EntryRun::decode(violation.evidence.as_slice()).unwrap_or_default();
        if let (Fault::Unsealed { .. }, Some(last)) = (&violation.what, served.size().last_index())
        {
            // That it carries no seal is the whole offence.
            let mut records = puller.records(last, served.size(), Scope::EntriesOnly);
            if let Some(Ok((first, records))) = records.next().await {
                let entries = records.into_iter().map(|record| record.entry).collect();
                run = wire::EntryRun { first_index: first.0, entries, events: Vec::new() };
            }
        }
        for (index, entry) in (run.first_index..).map(Index).zip(run.entries) {
            let Ok(path) = puller.inclusion_path(index, served.size()).await else {
                break;
            };
            let (size, leaf) = (served.size(), leaf_hash(&entry));
            if verify_inclusion(index, size, leaf, &path, served.root()).is_ok() {
                let (entry, checkpoint) = (entry.to_vec(), served.note().to_owned());
                proofs.push(TlogProof { entry, index, path, checkpoint });
            }
        }
    }
    caught
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AuditError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| AuditError::CutOff)
}

/// Between two looks for a cosigned checkpoint.
const QUORUM_POLL: Duration = Duration::from_millis(200);
