//! The audit of a copy of a data folder: nobody answers, but everything is there to be verified.
//!
//! A copy proves less than a ledger that answers: what it lacks may be its maker's doing, and is
//! told without accusing the ledger. What the ledger signed still binds it. Instead of a
//! consistency proof, the tree over the copy's own entries is compared at the size of the pin.

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    position::{Size, count_of},
    quorum::Quorum,
};

use super::{AuditError, Audited, Fold, Observer, Progress, below_quorum, log_caught, open};
use crate::{
    evidence::Caught,
    folder::{Folder, FolderRecords},
    pull::{RUNS_AHEAD, Run},
    verify::{LogVerifier, Scope},
    view::{View, compare},
};

/// Verifies a copy of a ledger with all its events from entry 0 on, hands them to `observer` on the
/// way, and pins what was verified. Blocks, and works on all cores.
///
/// # Errors
///
/// Any [`AuditError`] but those of a network; the view is unchanged then.
pub fn audit_copy<O: Observer>(
    folder: &Folder,
    view: &mut View,
    quorum: &Quorum,
    progress: &Progress,
    observer: O,
) -> Result<(Audited, O), AuditError> {
    let ledger = view.ledger().clone();
    let note = folder.checkpoint()?;
    let checkpoint = open(note, view, quorum)?;
    if !quorum.is_met(checkpoint.cosignatures()) {
        return Err(below_quorum(&checkpoint, checkpoint.size(), quorum));
    }
    let pin = view.pinned().map(|pinned| &pinned.checkpoint);
    if let Some(pin) = pin {
        let (found, known) = (checkpoint.size(), pin.size());
        if found < known {
            return Err(AuditError::OldCopy { found, known });
        }
        compare(pin, &checkpoint)?;
    }
    let verifier = LogVerifier::new(&ledger, Scope::Events);
    let mut fold = Fold { verifier, observer, unobserved: Vec::new() };
    let mut records = folder.records(checkpoint.size())?;
    take_all(&mut fold, &mut records, pin, &checkpoint, progress)?;
    if let Some(index) = fold.verifier.unaccounted() {
        return Err(AuditError::Unaccounted { index });
    }
    fold.verifier.finish(&checkpoint).map_err(|violation| log_caught(violation, &checkpoint))?;
    view.pin(checkpoint.clone(), fold.verifier.save())?;
    // Everything was read again.
    let known = Size::ZERO;
    let newest = checkpoint.size();
    Ok((Audited { checkpoint, newest, known, verifier: fold.verifier }, fold.observer))
}

/// Takes all records of the copy, and compares with the pin on the way.
fn take_all<O: Observer>(
    fold: &mut Fold<O>,
    records: &mut FolderRecords,
    pin: Option<&VerifiedCheckpoint>,
    served: &VerifiedCheckpoint,
    progress: &Progress,
) -> Result<(), AuditError> {
    // What lies behind the pin of the run that it cuts.
    let mut rest: Option<Run> = None;
    loop {
        progress(fold.verifier.size(), served.size());
        let mut runs: Vec<Run> = rest.take().into_iter().collect();
        while runs.len() < RUNS_AHEAD {
            let Some(run) = records.next_run()? else { break };
            let before = pin.map_or(0, |pin| pin.size().0.saturating_sub(run.0.0));
            let (run, behind) = cut(run, before);
            let is_at_pin = count_of(run.1.len()) == before;
            runs.push(run);
            rest = behind;
            if is_at_pin {
                break;
            }
        }
        let is_over = runs.is_empty();
        fold.advance(runs).map_err(|violation| log_caught(violation, served))?;
        if let Some(pin) = pin.filter(|pin| pin.size() == fold.verifier.size())
            && pin.root() != fold.verifier.root()
        {
            let problem = "the entries of the copy make another tree of that size".to_owned();
            let (pinned, served) = (Box::new(pin.clone()), Box::new(served.clone()));
            return Err(Caught::Unproven { pinned, served, problem }.into());
        }
        if is_over {
            return Ok(());
        }
    }
}

/// The first records of a run, and what lies behind them, if anything does. 0 of them are all.
fn cut((first, mut records): Run, count: u64) -> (Run, Option<Run>) {
    let at = usize::try_from(count).unwrap_or(usize::MAX);
    if at == 0 || at >= records.len() {
        return ((first, records), None);
    }
    let behind = records.split_off(at);
    ((first, records), Some((first.plus(count), behind)))
}
