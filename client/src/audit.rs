//! An audit: pull, verify, compare with the view, pin.
//!
//! The order matters. The checkpoint's signature and its consistency with the pin come first, for they
//! are cheap and convict at once; then every entry is verified; only then is the pin moved. A ledger
//! that refuses what it signed for is caught like one that serves something else.

use std::sync::Arc;

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    hash::leaf_hash,
    note::VerifierKey,
    position::{Index, Size},
    proof::verify_inclusion,
    receipt::TlogProof,
    wire,
};
use prost::Message as _;
use thiserror::Error;

use crate::{
    evidence::Caught,
    pull::{PullError, Puller, RUNS_AHEAD, Records, is_missing},
    verify::{LogVerifier, Scope, StateError, Violation},
    view::{View, ViewError, check_consistency, compare},
};

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
    /// Known cosigners, whose signatures on the checkpoint are verified.
    pub witnesses: Vec<VerifierKey>,
}

/// Told after each step: entries verified, and how many there are to be.
pub type Progress = Arc<dyn Fn(Size, Size) + Send + Sync>;

/// A ledger that was found in order, as far as its checkpoint reaches.
#[derive(Debug)]
pub struct Audited {
    /// What the view is pinned to.
    pub checkpoint: VerifiedCheckpoint,
    /// How many entries were known before and not read again.
    pub known: Size,
    /// The verifier as it concluded.
    pub verifier: LogVerifier,
}

/// Audits a ledger against a view and pins what was verified.
///
/// Streams: pulling, digesting and checking seals overlap, and memory does not grow with the ledger. A
/// state of another scope is not continued: such an audit begins at entry 0.
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
    match look(puller, view, options, &progress).await {
        Ok((verifier, checkpoint, known)) => {
            view.pin(checkpoint.clone(), verifier.save())?;
            Ok(Audited { checkpoint, known, verifier })
        }
        Err(AuditError::Caught(caught)) => Err(with_proofs(puller, *caught).await.into()),
        Err(error) => Err(error),
    }
}

/// Everything but the pin: the verifier as it concluded, where, and from where it went on.
async fn look(
    puller: &Puller,
    view: &View,
    options: &AuditOptions,
    progress: &Progress,
) -> Result<(LogVerifier, VerifiedCheckpoint, Size), AuditError> {
    let ledger = view.ledger().clone();
    let mut checkpoint = next_checkpoint(puller, view, None, options).await?;
    let usable = view.pinned().filter(|pin| !options.full && pin.state.scope() == options.scope);
    let mut verifier = match usable {
        Some(pin) => LogVerifier::restore(&ledger, &pin.checkpoint, &pin.state)?,
        None => LogVerifier::new(&ledger, options.scope),
    };
    let known = verifier.size();
    verifier = advance(puller, verifier, &checkpoint, progress).await?;
    if verifier.unaccounted().is_some() {
        // The event may have been erased, and the record of that made, after the checkpoint.
        checkpoint = next_checkpoint(puller, view, Some(&checkpoint), options).await?;
        verifier = advance(puller, verifier, &checkpoint, progress).await?;
    }
    let (verifier, checkpoint) = conclude(verifier, checkpoint).await?;
    Ok((verifier, checkpoint, known))
}

/// The newest checkpoint: signed by the ledger, and consistent with the pin and with one that was seen
/// meanwhile.
async fn next_checkpoint(
    puller: &Puller,
    view: &View,
    seen: Option<&VerifiedCheckpoint>,
    options: &AuditOptions,
) -> Result<VerifiedCheckpoint, AuditError> {
    let note = puller.checkpoint().await?;
    let served = VerifiedCheckpoint::open(&note, view.ledger(), &options.witnesses)
        .map_err(|error| Caught::Checkpoint { error, note })?;
    let pinned = view.pinned().map(|pinned| &pinned.checkpoint);
    for older in pinned.into_iter().chain(seen) {
        if let Some((old, new)) = compare(older, &served)? {
            let path = puller.consistency_path(old, new).await;
            let path = path.map_err(|error| unproven(error, older, &served))?;
            check_consistency(older, &served, path)?;
        }
    }
    Ok(served)
}

/// Verifies all entries up to the checkpoint.
async fn advance(
    puller: &Puller,
    mut verifier: LogVerifier,
    checkpoint: &VerifiedCheckpoint,
    progress: &Progress,
) -> Result<LogVerifier, AuditError> {
    let (first, end) = (verifier.size().next_index(), checkpoint.size());
    let mut records = puller.records(first, end, verifier.scope());
    let (served, progress) = (checkpoint.clone(), Arc::clone(progress));
    blocking(move || {
        let done = take_all(&mut verifier, &mut records, &served, &progress);
        done.map(|()| verifier)
    })
    .await?
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

/// Takes what is pulled until there is nothing more.
fn take_all(
    verifier: &mut LogVerifier,
    records: &mut Records,
    served: &VerifiedCheckpoint,
    progress: &Progress,
) -> Result<(), AuditError> {
    let total = served.size();
    loop {
        progress(verifier.size(), total);
        let (mut runs, mut broken) = (Vec::new(), None);
        for run in records.next_blocking(RUNS_AHEAD) {
            match run {
                Ok(run) => runs.push(run),
                Err(error) => broken = Some(error),
            }
        }
        let ended = runs.is_empty();
        let taken = verifier.advance(runs);
        // Before the stream's own end is told, what was taken must hold.
        let taken = if broken.is_some() { taken.and_then(|()| verifier.settle()) } else { taken };
        taken.map_err(|violation| log_caught(violation, served))?;
        match broken {
            Some(PullError::Withheld { index, problem, .. }) => {
                let served = Box::new(served.clone());
                return Err(Caught::Withheld { index, problem, served }.into());
            }
            Some(error) => return Err(error.into()),
            None if ended && verifier.size() != total => return Err(AuditError::CutOff),
            None if ended => return Ok(()),
            None => {}
        }
    }
}

fn log_caught(violation: Violation, served: &VerifiedCheckpoint) -> Caught {
    let violation = Box::new(violation);
    Caught::Log { violation, served: Box::new(served.clone()), proofs: Vec::new() }
}

/// What it means that a consistency proof cannot be had: the ledger signed both sizes, so it can neither
/// have lost one nor answer with something else. Anything but that is the network's fault.
fn unproven(
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

/// Binds the entries of a violation to the checkpoint, where the ledger still gives proofs that hold.
async fn with_proofs(puller: &Puller, mut caught: Caught) -> Caught {
    if let Caught::Log { violation, served, proofs } = &mut caught {
        let run = wire::EntryRun::decode(violation.evidence.as_slice()).unwrap_or_default();
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
