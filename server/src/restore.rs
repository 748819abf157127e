//! `restore`: brings the folder of a ledger that lost entries back to what a custodian holds.
//!
//! A ledger whose disk died, or whose backup was put back, is behind what it signed; if it went on
//! from there it would sign a second history. So it refuses to start while a custodian has cosigned
//! more, and this pulls what is missing: the local log is verified from entry 0 on, then every
//! entry and event behind it that the custodian holds, and the result is what the ledger itself had
//! signed. The chain continues with the same root; sources that repeat a batch get the receipt of
//! what is there.
//!
//! Damage in the middle is mended first (mend.rs): segments that do not hold are written anew from
//! what the custodian holds, and a tree that is not that of the entries is computed again. For a
//! custodian's own folder the other side is the ledger.
//!
//! A local log that contradicts the custodian's is left as it is: what shows the contradiction is
//! written to `evidence/`.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use access_ledger_client::{
    connect::Credentials,
    error::ConnectError,
    evidence::{Caught, compare_held},
    pull::{PullError, Puller, RUNS_AHEAD},
    verify::Scope,
    view::check_consistency,
};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    error::{CheckpointError, ProofError},
    hash::Digest,
    note::VerifierKey,
    position::{Index, Size},
    proof::{root_at, verify_consistency},
};
use indicatif::{ProgressBar, ProgressStyle};
use thiserror::Error;
use tokio::time::Instant;

mod draft;
mod mend;
mod salvage;
mod survey;

pub use self::mend::Mended;
use self::mend::{Mending, look_again};
use crate::{
    custodian::{copy::Copy, error::CopyError},
    error::{LedgerError, StorageError},
    folder::Folder,
    os::{self, Disk},
    serve,
    storage::Options,
};

/// Nothing was restored, or not all.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The folder holds no ledger, or cannot be used.
    #[error(transparent)]
    Folder(#[from] LedgerError),
    /// The address is none.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The local files cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The custodian could not be asked. What was restored so far stays, and is gone on from.
    #[error("custodian: {0}")]
    Pull(#[from] PullError),
    /// The ledger's own key did not sign what the custodian has as its checkpoint.
    #[error("checkpoint of the custodian: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint lacks a cosignature that was asked for.
    #[error("checkpoint of size {size} is not cosigned by {key}")]
    NotCosigned {
        /// The checkpoint's size.
        size: Size,
        /// Whose cosignature is missing.
        key: Box<VerifierKey>,
    },
    /// The local log, or what the custodian sends, breaks a rule or cannot be stored.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The local log is no beginning of what was cosigned: one of both is not this ledger's
    /// history. Nothing was changed.
    #[error(
        "the {local} local entries contradict the cosigned checkpoint of size {cosigned}: {problem}"
    )]
    Contradiction {
        /// Entries of the local log.
        local: Size,
        /// Size of the custodian's checkpoint.
        cosigned: Size,
        /// How.
        problem: String,
        /// File that shows two signed statements of the ledger that cannot both be true, where the
        /// local checkpoint is one of them.
        evidence: Option<PathBuf>,
    },
    /// The ledger has signed for entries that are neither here nor there. If it went on without
    /// them it would sign a second history. Nothing was changed.
    #[error(
        "the ledger has signed for {signed} entries, {left} are to be had: ask who holds the others; \
         whoever goes on without them, by removing the file `checkpoint`, starts a second history"
    )]
    Lost {
        /// Size of the checkpoint that lies here.
        signed: Size,
        /// Entries here, or under the checkpoint of the custodian.
        left: Size,
    },
    /// A damaged entry that the custodian does not hold yet. Nothing was changed.
    #[error("entry {index} is damaged, and the custodian holds {cosigned} entries")]
    Beyond {
        /// The entry.
        index: Index,
        /// Size of the custodian's checkpoint.
        cosigned: Size,
    },
    /// A damaged event that is gone at the custodian, without a record of its erasure. Nothing was
    /// changed.
    #[error("event {index} is damaged, and at the custodian it is gone without a record of that")]
    Gone {
        /// The entry.
        index: Index,
    },
    /// The runtime is shutting down.
    #[error("restoring was cut off")]
    CutOff,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What was damaged.
    pub mended: Mended,
    /// Entries that were there.
    pub local: Size,
    /// What the log ends with: the checkpoint that was restored, unless there was more.
    pub size: Size,
    /// Root of the tree over the checkpoint's entries, as the ledger signed it.
    pub root: Digest,
    /// The checkpoint's size.
    pub cosigned: Size,
}

/// Restores the ledger in `folder`, whose lock the caller holds, from the custodian at `url`; shows
/// a progress bar and prints what was done. Exit code 1 when the local log contradicts it.
///
/// # Errors
///
/// Any other [`RestoreError`].
pub fn run(
    disk: &Arc<dyn Disk>,
    folder: &Path,
    (url, credentials): (&str, &Credentials),
    trusted: (Option<&VerifierKey>, &[VerifierKey]),
) -> anyhow::Result<ExitCode> {
    let bar = ProgressBar::new(0).with_style(style());
    let told = bar.clone();
    let progress = move |done: Size, total: Size| {
        told.set_length(total.0);
        told.set_position(done.0);
    };
    let restored = serve::runtime(None)?.block_on(async {
        let puller = Puller::new(credentials.link(url)?);
        restore(disk, folder, &puller, trusted, progress).await
    });
    bar.finish_and_clear();
    let mut out = io::stdout().lock();
    match restored {
        Ok(Restored { mended, local, size, root, cosigned }) => {
            for first in &mended.segments {
                writeln!(out, "mended      segment {first}, what was left of it is in evidence/")?;
            }
            if mended.rebuilds_tree {
                writeln!(out, "mended      the tree, computed again")?;
            }
            writeln!(out, "local       {local} entries, verified")?;
            writeln!(out, "restored    {} entries", size.0.saturating_sub(local.0))?;
            writeln!(out, "size        {size}, of which {cosigned} are under the checkpoint")?;
            writeln!(out, "root        {root}")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(refused @ RestoreError::Contradiction { .. }) => {
            writeln!(out, "REFUSED     {refused}")?;
            if let RestoreError::Contradiction { evidence: Some(path), .. } = &refused {
                writeln!(out, "evidence    {}", path.display())?;
            }
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}

/// Restores the ledger in `folder`, whose lock the caller holds, up to the newest checkpoint of a
/// custodian that all of `custodians` have cosigned. `progress` is told how many entries are there,
/// and how many there will be.
///
/// The checkpoint is signed by `ledger`, or by one of the keys that the folder knows; the log up to
/// there tells that this key is its own.
///
/// May be cut off at any point and repeated.
///
/// # Errors
///
/// Any [`RestoreError`].
pub async fn restore(
    disk: &Arc<dyn Disk>,
    folder: &Path,
    puller: &Puller,
    (ledger, custodians): (Option<&VerifierKey>, &[VerifierKey]),
    progress: impl Fn(Size, Size) + Send,
) -> Result<Restored, RestoreError> {
    let data = Folder::new(folder);
    let known = data.known_keys(&**disk, ledger)?;
    let signers = ledger.map_or(&known[..], std::slice::from_ref);
    let (ledger, cosigned) = cosigned(puller, signers, custodians).await?;
    let signed = data.newest_known(&**disk, &known);
    if let Some(signed) = &signed {
        check_signed(disk, (&data, &ledger), puller, (signed, &cosigned)).await?;
    }
    let mending = Mending {
        disk,
        data: &data,
        ledger: &ledger,
        puller,
        cosigned: &cosigned,
        signed: signed.as_ref(),
    };
    let mended = mending.mend().await?;
    let local = Local::open(disk, data, (&ledger, &known)).await?;
    let (size, end) = (local.size(), cosigned.size());
    local.compare(puller, &cosigned).await?;
    if size < end {
        // The other side may be late with a redaction that was carried out here.
        look_again(&**disk, &local.data)?;
    }
    let (mut copy, mut records) =
        (local.copy, puller.records(size.next_index(), end, Scope::Events));
    while copy.next_index() < end.next_index() {
        progress(Size(copy.next_index().0), end);
        let runs = records.next_some(RUNS_AHEAD).await;
        if runs.is_empty() {
            return Err(RestoreError::CutOff);
        }
        let (runs, mut broken): (Vec<_>, Vec<_>) = runs.into_iter().partition(Result::is_ok);
        let runs = runs.into_iter().flatten().collect();
        copy = blocking(move || {
            copy.take(runs)?;
            Ok(copy)
        })
        .await?;
        if let Some(Err(error)) = broken.pop() {
            return Err(error.into());
        }
    }
    let root = cosigned.root();
    let restored = Restored { mended, local: size, size: size.max(end), root, cosigned: end };
    let (disk, data) = (disk.clone(), local.data);
    blocking(move || {
        if size < end {
            copy.conclude(&cosigned)?;
            copy.sync()?;
        }
        // As the ledger would have: it tells the next start what must be there.
        if signed.is_none_or(|signed| signed.size() < end) {
            let (path, note) = (data.checkpoint(), cosigned.note().as_bytes());
            os::replace(&*disk, &path, note).map_err(|source| LedgerError::io(&path, source))?;
        }
        let sources = copy.verifier().sources();
        if sources.is_some_and(|sources| sources.ledger_keys().values().any(|key| *key == ledger)) {
            data.name_key(&*disk, Some(&ledger))?;
        }
        Ok(restored)
    })
    .await
}

/// The newest checkpoint of the custodian with the cosignatures that are asked for, and which of
/// these keys has signed it. Right after a checkpoint was stored they may be on their way.
async fn cosigned(
    puller: &Puller,
    signers: &[VerifierKey],
    custodians: &[VerifierKey],
) -> Result<(VerifierKey, VerifiedCheckpoint), RestoreError> {
    let begun = Instant::now();
    loop {
        let note = puller.checkpoint().await?;
        let open = |key| Ok((key, VerifiedCheckpoint::open(&note, key, custodians)?));
        let opened = signers.iter().map(open);
        let opened = opened.reduce(|first, next| first.or_else(|error| next.or(Err(error))));
        let (ledger, checkpoint) = opened.unwrap_or(Err(CheckpointError::Lines))?;
        let has = |key: &&VerifierKey| checkpoint.cosignatures().iter().all(|by| by.key != **key);
        let Some(key) = custodians.iter().find(has) else {
            return Ok((ledger.clone(), checkpoint));
        };
        if begun.elapsed() >= COSIGN_WAIT {
            let (size, key) = (checkpoint.size(), Box::new(key.clone()));
            return Err(RestoreError::NotCosigned { size, key });
        }
        tokio::time::sleep(COSIGN_POLL).await;
    }
}

/// That the newest checkpoint that lies here and the custodian's are of one history, as far as the
/// custodian can show it. This convicts whatever is left of the log.
async fn check_signed(
    disk: &Arc<dyn Disk>,
    (data, ledger): (&Folder, &VerifierKey),
    puller: &Puller,
    (signed, cosigned): (&VerifiedCheckpoint, &VerifiedCheckpoint),
) -> Result<(), RestoreError> {
    let (local, end) = (signed.size(), cosigned.size());
    if local == Size::ZERO || local > end {
        return Ok(());
    }
    let path = match local == end {
        true => Vec::new(),
        false => puller.consistency_path(local, end).await?,
    };
    let verified = verify_consistency(local, end, signed.root(), cosigned.root(), &path);
    let Err(error) = verified else { return Ok(()) };
    if !matches!(error, ProofError::Root { .. }) {
        // No path at all: this says nothing about the local log.
        return Err(PullError::Answer { problem: error.to_string() }.into());
    }
    let caught = check_consistency(signed, cosigned, path).err();
    let kept = caught.map(|caught| keep(&**disk, data, (&caught, ledger, end))).transpose();
    let problem = error.to_string();
    Err(RestoreError::Contradiction { local, cosigned: end, problem, evidence: kept? })
}

/// Keeps what shows that the ledger has signed two histories; where.
fn keep(
    disk: &dyn Disk,
    data: &Folder,
    (caught, ledger, cosigned): (&Caught, &VerifierKey, Size),
) -> Result<PathBuf, LedgerError> {
    let folder = data.evidence();
    let path = folder.join(format!("restore-{cosigned}.txt"));
    let text = caught.evidence(ledger);
    disk.create_dir(&folder)
        .and_then(|()| os::replace(disk, &path, text.as_bytes()))
        .map_err(|source| LedgerError::io(&path, source))?;
    Ok(path)
}

/// What is there of the ledger.
struct Local {
    disk: Arc<dyn Disk>,
    data: Folder,
    ledger: VerifierKey,
    /// Verified from entry 0 on.
    copy: Copy,
    /// What the ledger last signed, as far as its file tells.
    signed: Option<VerifiedCheckpoint>,
}

impl Local {
    async fn open(
        disk: &Arc<dyn Disk>,
        data: Folder,
        (ledger, known): (&VerifierKey, &[VerifierKey]),
    ) -> Result<Self, RestoreError> {
        let (disk, ledger, known) = (disk.clone(), ledger.clone(), known.to_vec());
        blocking(move || {
            let signed = data.read_checkpoint(&*disk, &known);
            let options = Options::new(data.root(), ledger.name());
            // The checkpoint may cover what was lost.
            let copy = Copy::open(&disk, &options, &ledger, None, None)?;
            Ok(Self { disk, data, ledger, copy, signed })
        })
        .await
    }

    fn size(&self) -> Size {
        Size(self.copy.next_index().0)
    }

    /// That one of both logs, the local one and the custodian's, begins with the other.
    async fn compare(
        &self,
        puller: &Puller,
        cosigned: &VerifiedCheckpoint,
    ) -> Result<(), RestoreError> {
        let (local, end) = (self.size(), cosigned.size());
        if local >= end {
            let found = self.root_at(end)?;
            if found == cosigned.root() {
                return Ok(());
            }
            let held = self.signed.as_ref().filter(|signed| (end..=local).contains(&signed.size()));
            let caught = held.and_then(|held| compare_held(held, cosigned, self.copy.tree()).ok());
            let problem = format!("root at size {end} is {found}, signed is {}", cosigned.root());
            return Err(self.refuse(cosigned, problem, caught.flatten()));
        }
        if local == Size::ZERO {
            return Ok(());
        }
        let path = puller.consistency_path(local, end).await?;
        let root = self.root_at(local)?;
        let verified = verify_consistency(local, end, root, cosigned.root(), &path);
        let Err(error) = verified else { return Ok(()) };
        if !matches!(error, ProofError::Root { .. }) {
            // No path at all: this says nothing about the local log.
            return Err(PullError::Answer { problem: error.to_string() }.into());
        }
        // What the ledger has signed here was compared before.
        Err(self.refuse(cosigned, error.to_string(), None))
    }

    fn root_at(&self, size: Size) -> Result<Digest, RestoreError> {
        let tree = self.copy.tree();
        root_at(tree, size).map_err(|_| {
            let (found, wanted) = (tree.size(), size);
            CopyError::from(StorageError::TreeBehind { found, wanted }).into()
        })
    }

    /// Refuses to restore, and keeps what shows why.
    fn refuse(
        &self,
        cosigned: &VerifiedCheckpoint,
        problem: String,
        caught: Option<Caught>,
    ) -> RestoreError {
        let (local, cosigned) = (self.size(), cosigned.size());
        let evidence =
            caught.map(|caught| keep(&*self.disk, &self.data, (&caught, &self.ledger, cosigned)));
        match evidence.transpose() {
            Ok(evidence) => RestoreError::Contradiction { local, cosigned, problem, evidence },
            Err(error) => error.into(),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RestoreError> + Send + 'static,
) -> Result<T, RestoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| RestoreError::CutOff)?
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {pos}/{len} entries {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A custodian that nobody asks cosigns a second after it has stored.
const COSIGN_WAIT: Duration = Duration::from_secs(10);

const COSIGN_POLL: Duration = Duration::from_millis(200);
