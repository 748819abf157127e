//! Mends damage in the middle of a stored log, from what somebody else holds of it.
//!
//! ```text
//! survey -> for each damaged segment: pull, join with what is left, write beside the log
//!        -> verify the log as it would be, all of it, under every checkpoint known
//!        -> keep the damaged files in evidence/, put the new ones in their place
//! ```
//!
//! Nothing is believed that was pulled: the mended log must have the root of the checkpoint that is
//! restored, and that of the one that lies here, before a file of the log is touched. Each file is
//! exchanged in one step; a stop in between leaves some mended, and all of it may be repeated.
//! Events that were erased here stay so, and redactions are looked at once more, in case that the
//! other side had not carried one out yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use access_ledger_client::{
    pull::{PullError, Puller, RUNS_AHEAD, Run},
    verify::{LogVerifier, Record, Scope},
};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    hash::{Digest, sha256},
    note::VerifierKey,
    position::{Index, Size},
    proof::verify_consistency,
    segment::{Salt, SegmentHeader},
};
use bytes::Bytes;
use tracing::info;

use super::{
    RestoreError, blocking,
    draft::{Draft, Written},
    salvage::{Salvage, copy_left},
    survey::{Stretch, Survey},
};
use crate::{
    custodian::error::CopyError,
    erase::Progress,
    error::{LedgerError, StorageError},
    folder::Folder,
    index,
    os::{Access, Disk},
    storage::{
        Options, TreeFiles,
        segment::{self, Segment},
        walk::Walk,
    },
};

/// What was mended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// First indexes of the segments that were damaged. What was left of each is in `evidence/`.
    pub segments: Vec<Index>,
    /// Whether the files of the tree are computed again.
    pub rebuilds_tree: bool,
}

/// A log to be mended, and who has it whole.
pub(super) struct Mending<'a> {
    pub(super) disk: &'a Arc<dyn Disk>,
    pub(super) data: &'a Folder,
    pub(super) ledger: &'a VerifierKey,
    pub(super) puller: &'a Puller,
    /// Of the other side, with the cosignatures that are asked for.
    pub(super) cosigned: &'a VerifiedCheckpoint,
    /// The newest that lies here.
    pub(super) signed: Option<&'a VerifiedCheckpoint>,
}

/// New segments for a stretch.
type Drafted = (Stretch, Vec<Written>);

impl Mending<'_> {
    /// Mends the log, if there is anything to mend.
    ///
    /// # Errors
    ///
    /// [`RestoreError::Lost`], [`RestoreError::Beyond`], [`RestoreError::Gone`] when not all of it
    /// is to be had; [`RestoreError::Contradiction`] and [`RestoreError::Copy`] when the log would
    /// not be what the ledger signed: nothing was changed in these cases. Else as
    /// [`restore`](super::restore()).
    pub(super) async fn mend(&self) -> Result<Mended, RestoreError> {
        let mended = self.mend_segments().await;
        // What is not in the log by now holds events that no redaction would reach.
        let cleared = self.data.clear_mending(&**self.disk);
        let mended = mended?;
        cleared?;
        Ok(mended)
    }

    async fn mend_segments(&self) -> Result<Mended, RestoreError> {
        let (disk, options) = (self.disk.clone(), self.options());
        let survey = blocking(move || Ok(Survey::read(&*disk, &options)?)).await?;
        if let Some(local) = survey.size() {
            self.check_left(local)?;
        }
        let mut drafted = Vec::new();
        if !survey.is_whole() {
            let folder = self.data.mending();
            self.disk.create_dir(&folder).map_err(|source| LedgerError::io(&folder, source))?;
            self.data.clear_mending(&**self.disk)?;
            for &stretch in survey.stretches.iter().filter(|stretch| stretch.sound.is_none()) {
                drafted.push((stretch, self.draft(stretch, survey.salt).await?));
            }
            self.verify(&survey, &drafted).await?;
        }
        let mended = Mended {
            segments: drafted.iter().map(|(stretch, _)| stretch.first).collect(),
            rebuilds_tree: !survey.is_whole() || !survey.tree_holds,
        };
        let (disk, data, told) = (self.disk.clone(), self.data.clone(), mended.clone());
        blocking(move || exchange(&disk, &data, &mended, &drafted)).await?;
        Ok(told)
    }

    fn options(&self) -> Options {
        Options::new(self.data.root(), self.ledger.name())
    }

    /// Nothing that this ledger has signed for is left out for good.
    fn check_left(&self, local: Size) -> Result<(), RestoreError> {
        let left = local.max(self.cosigned.size());
        match self.signed.map(VerifiedCheckpoint::size) {
            Some(signed) if signed > left => Err(RestoreError::Lost { signed, left }),
            _ => Ok(()),
        }
    }

    /// Writes the segments that take the place of a damaged one.
    async fn draft(
        &self,
        stretch: Stretch,
        salt: Option<Salt>,
    ) -> Result<Vec<Written>, RestoreError> {
        let (disk, options) = (self.disk.clone(), self.options());
        let (folder, end) = (self.data.mending(), self.cosigned.size());
        let wanted = stretch.first..stretch.next.unwrap_or(Index(u64::MAX));
        let pulled = Size(wanted.end.0.min(end.0));
        let (range, origin) = (wanted.clone(), sha256(options.origin.as_bytes()));
        let mut draft = blocking(move || {
            let log = segment::folder(&options.folder);
            let left = Salvage::search(&*disk, &log, &range, salt);
            let random = || disk.random().map(Salt);
            let salt = salt.map_or_else(random, Ok);
            let salt = salt.map_err(|source| LedgerError::io(&folder, source))?;
            let header = SegmentHeader { origin, first: range.start, salt };
            Ok(Draft::begin(disk, folder, (header, options.segment_bytes), left))
        })
        .await?;
        let mut records = self.puller.records(wanted.start, pulled, Scope::Events);
        while draft.next() < pulled.next_index() {
            let runs = records.next_some(RUNS_AHEAD).await;
            if runs.is_empty() {
                return Err(RestoreError::CutOff);
            }
            let runs: Vec<Run> = runs.into_iter().collect::<Result<_, PullError>>()?;
            draft = blocking(move || {
                runs.into_iter().try_for_each(|run| draft.take(run))?;
                Ok(draft)
            })
            .await?;
        }
        let (written, reached) = blocking(move || {
            draft.take_left(draft.next()..wanted.end)?;
            Ok(draft.finish(stretch.next.is_none())?)
        })
        .await?;
        match stretch.next {
            // What it lacks behind its end, the caller pulls.
            None => self.check_left(Size(reached.0))?,
            Some(next) if reached == next => {}
            Some(_) => return Err(RestoreError::Beyond { index: reached, cosigned: end }),
        }
        Ok(written)
    }

    /// That the log would be what the ledger signed.
    async fn verify(&self, survey: &Survey, drafted: &[Drafted]) -> Result<(), RestoreError> {
        let cosigned = self.cosigned;
        let known: Vec<_> = self.signed.into_iter().chain([cosigned]).cloned().collect();
        let sizes: BTreeSet<Size> = known.iter().map(VerifiedCheckpoint::size).collect();
        let (disk, options) = (self.disk.clone(), self.options());
        let log = segment::folder(self.data.root());
        let merged = Merged::new(survey, drafted, &log, &self.data.mending());
        let damaged: Vec<_> = drafted.iter().map(|(stretch, _)| *stretch).collect();
        let ledger = self.ledger.clone();
        let roots = blocking(move || {
            let roots = merged.verify(&*disk, &options, (&ledger, &sizes))?;
            match roots.unaccounted {
                Some(index) if damaged.iter().any(|stretch| stretch.contains(index)) => {
                    Err(RestoreError::Gone { index })
                }
                _ => Ok(roots),
            }
        })
        .await?;
        let contradiction = |problem| {
            let (local, cosigned) = (roots.size, cosigned.size());
            Err(RestoreError::Contradiction { local, cosigned, problem, evidence: None })
        };
        for checkpoint in &known {
            let (size, signed) = (checkpoint.size(), checkpoint.root());
            if let Some(found) = roots.at.get(&size).filter(|found| **found != signed) {
                return contradiction(format!(
                    "root at size {size} is {found}, signed is {signed}"
                ));
            }
        }
        let (size, end) = (roots.size, cosigned.size());
        if Size::ZERO < size && size < end {
            let path = self.puller.consistency_path(size, end).await?;
            let proven = verify_consistency(size, end, roots.root, cosigned.root(), &path);
            if let Err(error) = proven {
                return contradiction(error.to_string());
            }
        }
        Ok(())
    }
}

impl Stretch {
    fn contains(&self, index: Index) -> bool {
        self.first <= index && self.next.is_none_or(|next| index < next)
    }
}

/// The log as it would be: its segments in order.
struct Merged {
    parts: Vec<(PathBuf, Written)>,
}

/// What the log would be.
struct Roots {
    size: Size,
    root: Digest,
    /// At the sizes asked for.
    at: BTreeMap<Size, Digest>,
    /// The first event that is gone without a record of its erasure.
    unaccounted: Option<Index>,
}

impl Merged {
    fn new(survey: &Survey, drafted: &[Drafted], log: &Path, drafts: &Path) -> Self {
        let mut parts = Vec::new();
        let mut drafted = drafted.iter();
        for stretch in &survey.stretches {
            match stretch.sound {
                Some(sound) => {
                    let (first, frames_end) = (stretch.first, sound.frames_end);
                    parts.push((log.to_owned(), Written { first, frames_end }));
                }
                None => {
                    let written = drafted.next().map(|(_, written)| written.iter());
                    let written = written.into_iter().flatten();
                    parts.extend(written.map(|&written| (drafts.to_owned(), written)));
                }
            }
        }
        Self { parts }
    }

    /// Reads everything from the disk and verifies it; the roots at these sizes, as far as it goes.
    fn verify(
        &self,
        disk: &dyn Disk,
        options: &Options,
        (ledger, sizes): (&VerifierKey, &BTreeSet<Size>),
    ) -> Result<Roots, CopyError> {
        let origin = sha256(options.origin.as_bytes());
        let mut verifier = LogVerifier::new(ledger, Scope::Events);
        let (mut window, mut at) = (Vec::new(), BTreeMap::new());
        for (folder, written) in &self.parts {
            let segment = Segment::open(disk, folder, (written.first, origin), Access::Read)?;
            segment.file.forget();
            let mut walk = Walk::new(&segment, written.frames_end);
            loop {
                let run = next_run(&mut walk, sizes)?;
                let is_end = run.1.is_empty();
                if !is_end {
                    window.push(run);
                }
                let is_asked_for = sizes.contains(&Size(walk.index().0));
                if is_end || is_asked_for || window.len() >= WINDOW_RUNS {
                    verifier.advance(std::mem::take(&mut window))?;
                }
                if is_asked_for {
                    at.insert(verifier.size(), verifier.root());
                }
                if is_end {
                    break;
                }
            }
        }
        verifier.settle()?;
        let (size, root) = (verifier.size(), verifier.root());
        Ok(Roots { size, root, at, unaccounted: verifier.unaccounted() })
    }
}

/// The next records of a segment, up to one of these sizes; none at its end.
fn next_run(walk: &mut Walk<'_>, sizes: &BTreeSet<Size>) -> Result<Run, StorageError> {
    let (first, mut records) = (walk.index(), Vec::new());
    while records.len() < RUN_ENTRIES {
        let Some(placed) = walk.next()? else { break };
        let size = placed.index.size_through();
        records.push(Record {
            entry: Bytes::copy_from_slice(placed.frame.entry),
            event: placed.frame.event().map(Bytes::copy_from_slice),
        });
        if sizes.contains(&size) {
            break;
        }
    }
    Ok((first, records))
}

/// Puts the new segments in place, and has what follows from the log made again.
fn exchange(
    disk: &Arc<dyn Disk>,
    data: &Folder,
    mended: &Mended,
    drafted: &[Drafted],
) -> Result<(), RestoreError> {
    // First, so that a stop in the middle does not leave a mended log with the tree of another.
    if !drafted.is_empty() {
        look_again(&**disk, data)?;
        index::start_over(&**disk, data.root())?;
    }
    if mended.rebuilds_tree {
        TreeFiles::open(&**disk, data.root(), Access::Write)?.start_rebuilding(&**disk)?;
    }
    for (stretch, written) in drafted {
        set_aside(&**disk, data, stretch.first)?;
        let (log, drafts) = (segment::folder(data.root()), data.mending());
        let io = |source| LedgerError::io(&log, source);
        // The first one takes the place of the damaged segment, so it comes last: until then what
        // only this folder has is in the old file, and from then on in the new ones.
        for (at, Written { first, .. }) in written.iter().enumerate().rev() {
            if at == 0 && written.len() > 1 {
                disk.sync_dir(&log).map_err(io)?;
            }
            let from = segment::path(&drafts, *first);
            disk.rename(&from, &segment::path(&log, *first)).map_err(io)?;
        }
        disk.sync_dir(&log).and_then(|()| disk.sync_dir(&drafts)).map_err(io)?;
        info!(segment = stretch.first.0, "mended a segment");
    }
    Ok(())
}

/// Has the redactions carried out once more: events that were erased here may come back.
pub(super) fn look_again(disk: &dyn Disk, data: &Folder) -> Result<(), StorageError> {
    match Progress::load(disk, data.root())? {
        Some(progress) => progress.again().save(disk, data.root()),
        None => Ok(()),
    }
}

/// Keeps what is left of a damaged segment, for whoever wants to know what happened to it.
fn set_aside(disk: &dyn Disk, data: &Folder, first: Index) -> Result<(), RestoreError> {
    let damaged = segment::path(&segment::folder(data.root()), first);
    if disk.open(&damaged, Access::Read).is_err() {
        return Ok(());
    }
    let folder = data.evidence();
    let io = |source| LedgerError::io(&folder, source);
    disk.create_dir(&folder).map_err(io)?;
    let mut kept = segment::path(&folder, first).into_os_string();
    kept.push(".damaged");
    copy_left(disk, &damaged, kept.as_ref())?;
    Ok(disk.sync_dir(&folder).map_err(io)?)
}

/// Records of a run, some hundred kilobytes.
const RUN_ENTRIES: usize = 1_024;

/// Runs that are verified together, on all cores.
const WINDOW_RUNS: usize = 16;

#[cfg(test)]
mod tests;
