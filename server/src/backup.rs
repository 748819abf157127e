//! `backup`: a consistent copy of a ledger's folder, made while the ledger runs.
//!
//! What a checkpoint covers never changes, but for events that are erased. So the copy needs
//! neither lock nor pause: it takes the newest checkpoint first, and then exactly the entries that
//! this covers. It is verified as `check` verifies a folder; a segment that was copied while an
//! erasure went through it is copied again. `meta.toml` comes last, so a copy that was cut off is
//! no ledger.
//!
//! Keys stay behind unless they are asked for: a copy with the ledger's keys can sign a second
//! history. To restore, put the copy in the data folder's place, with the keys from where they are
//! kept; if a custodian has cosigned more by then, `restore` pulls the rest from it. The index is
//! not copied, the first start builds it again.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    hash::sha256,
    note::VerifierKey,
    position::{Index, Size},
    tree::Stored,
};
use thiserror::Error;
use tracing::warn;

use crate::{
    check::{CheckReport, check},
    error::{LedgerError, StorageError},
    folder::Folder,
    os::{self, Access, Disk},
    storage::{
        Options,
        recover::list_segments,
        segment::{self, Segment},
        tree::LEVELS,
        walk::Walk,
    },
};

/// No backup was made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The folder holds no ledger, or a file of it or of the copy cannot be used.
    #[error(transparent)]
    Folder(#[from] LedgerError),
    /// The log cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Nothing is covered by a checkpoint.
    #[error("{}: no checkpoint of this ledger, serve it once", .path.display())]
    NoCheckpoint {
        /// The checkpoint's file.
        path: PathBuf,
    },
    /// There is something where the copy should go.
    #[error("{} is not empty, wanted is a folder for this copy alone", .folder.display())]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
}

/// What `backup` is to do.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// The data folder of a ledger, running or stopped.
    pub from: PathBuf,
    /// Where the copy goes: a new or empty folder.
    pub to: PathBuf,
    /// Whether the ledger's own keys are copied too. Governance keys never are.
    pub with_keys: bool,
}

/// Copies a ledger's folder and verifies the copy; what the verification found.
///
/// # Errors
///
/// Any [`BackupError`]; then the copy is no ledger's folder yet.
pub fn backup(disk: &Arc<dyn Disk>, options: &BackupOptions) -> Result<CheckReport, BackupError> {
    let (from, to) = (Folder::new(&options.from), Folder::new(&options.to));
    let Some(origin) = from.origin(&**disk)? else {
        return Err(LedgerError::Uninitialised { folder: options.from.clone() }.into());
    };
    let uninitialised = || LedgerError::Uninitialised { folder: options.from.clone() };
    let vkey = from.ledger_key(&**disk)?.ok_or_else(uninitialised)?;
    let checkpoint = from
        .read_checkpoint(&**disk, &vkey)
        .ok_or_else(|| BackupError::NoCheckpoint { path: from.checkpoint() })?;
    let copy = Copying { disk: &**disk, from: &from, to: &to, size: checkpoint.size(), origin };
    copy.check_empty()?;
    let segments = copy.segments()?;
    for &segment in &segments {
        copy.segment(segment)?;
    }
    copy.tree()?;
    copy.folder(&from.evidence(), &to.evidence())?;
    if options.with_keys {
        for source in from.own_keys(&**disk)? {
            let Ok(inside) = source.strip_prefix(from.root()) else { continue };
            let target = to.root().join(inside);
            copy.folder_of(&target)?;
            copy.file(&source, &target, u64::MAX)?;
        }
    }
    let note = checkpoint.note().as_bytes();
    let path = to.checkpoint();
    os::replace(&**disk, &path, note).map_err(|source| LedgerError::io(&path, source))?;
    let report = copy.verify(disk, &vkey, &checkpoint)?;
    if report.problem.is_none() {
        to.write_meta_of(&**disk, &vkey)?;
    }
    Ok(report)
}

/// One backup.
struct Copying<'a> {
    disk: &'a dyn Disk,
    from: &'a Folder,
    to: &'a Folder,
    size: Size,
    origin: String,
}

impl Copying<'_> {
    fn check_empty(&self) -> Result<(), BackupError> {
        let folder = self.to.root();
        match self.disk.list(folder) {
            Ok(names) if names.is_empty() => Ok(()),
            Ok(_) => Err(BackupError::NotEmpty { folder: folder.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(LedgerError::io(folder, source).into()),
        }
    }

    /// The segments with entries that the checkpoint covers.
    fn segments(&self) -> Result<Vec<Index>, BackupError> {
        let mut firsts = list_segments(self.disk, &segment::folder(self.from.root()))?;
        firsts.retain(|first| self.size.contains(*first));
        self.disk
            .create_dir(&segment::folder(self.to.root()))
            .map_err(|source| LedgerError::io(self.to.root(), source))?;
        Ok(firsts)
    }

    /// Copies a segment: all of it, with its footer, if more follow; the last one up to the
    /// checkpoint.
    fn segment(&self, first: Index) -> Result<(), BackupError> {
        let folder = segment::folder(self.from.root());
        // More segments may be there than at first, but never fewer.
        let firsts = list_segments(self.disk, &folder)?;
        let next = firsts.get(firsts.partition_point(|other| *other <= first));
        let is_last = next.is_none_or(|next| !self.size.contains(*next));
        let length = if is_last { self.end_of(&folder, first)? } else { u64::MAX };
        let target = segment::path(&segment::folder(self.to.root()), first);
        self.file(&segment::path(&folder, first), &target, length)
    }

    /// Where the frames end in a segment that the checkpoint covers.
    fn end_of(&self, folder: &Path, first: Index) -> Result<u64, BackupError> {
        let origin = sha256(self.origin.as_bytes());
        let segment = Segment::open(self.disk, folder, (first, origin), Access::Read)?;
        let mut walk = Walk::new(&segment, segment.file.length()?);
        while self.size.contains(walk.index()) {
            if walk.next()?.is_none() {
                break;
            }
        }
        Ok(walk.offset())
    }

    /// Copies the tree over the entries: what is derived, but `check` compares it.
    fn tree(&self) -> Result<(), BackupError> {
        let [from, to] = [self.from, self.to].map(|folder| folder.root().join("tree"));
        self.disk.create_dir(&to).map_err(|source| LedgerError::io(&to, source))?;
        for level in 0..LEVELS {
            let name = level.to_string();
            let length = Stored::count_in(level, self.size) * 32;
            self.file(&from.join(&name), &to.join(&name), length)?;
        }
        Ok(())
    }

    /// Copies the files of a folder, if there is one.
    fn folder(&self, from: &Path, to: &Path) -> Result<(), BackupError> {
        let names = match self.disk.list(from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            listed => listed.map_err(|source| LedgerError::io(from, source))?,
        };
        self.disk.create_dir(to).map_err(|source| LedgerError::io(to, source))?;
        for name in names {
            self.file(&from.join(&name), &to.join(&name), u64::MAX)?;
        }
        Ok(())
    }

    fn folder_of(&self, path: &Path) -> Result<(), BackupError> {
        let folder = path.parent().unwrap_or(path);
        Ok(self.disk.create_dir(folder).map_err(|source| LedgerError::io(folder, source))?)
    }

    /// Copies the first `length` bytes of a file, or all of it, durably.
    fn file(&self, from: &Path, to: &Path, length: u64) -> Result<(), BackupError> {
        let copy = || {
            let (source, target) = (self.disk.open(from, Access::Read)?, self.disk.create(to)?);
            let (mut buffer, mut done) = (vec![0; CHUNK_LEN], 0);
            while done < length {
                let wanted = usize::try_from(length - done).unwrap_or(usize::MAX).min(CHUNK_LEN);
                let space = buffer.get_mut(..wanted).unwrap_or_default();
                let filled = source.read_at(space, done)?;
                if filled == 0 {
                    break;
                }
                target.write_at(space.get(..filled).unwrap_or_default(), done)?;
                done += filled as u64;
            }
            target.sync_data()?;
            self.disk.sync_dir(to.parent().unwrap_or(to))
        };
        Ok(copy().map_err(|source| LedgerError::io(from, source))?)
    }

    /// Verifies the copy; copies segments again that do not hold, for they may have been copied in
    /// the middle of an erasure.
    fn verify(
        &self,
        disk: &Arc<dyn Disk>,
        vkey: &VerifierKey,
        checkpoint: &VerifiedCheckpoint,
    ) -> Result<CheckReport, BackupError> {
        let options = Options::new(self.to.root(), &self.origin);
        let signed = Some((checkpoint.size(), checkpoint.root()));
        let mut attempts = 0;
        loop {
            let report = check(disk, &options, vkey, signed, &|_| {})?;
            attempts += 1;
            match &report.problem {
                Some(StorageError::Damage { segment, .. }) if attempts < ATTEMPTS_MAX => {
                    warn!(segment = segment.0, "copies a segment again");
                    self.segment(*segment)?;
                }
                _ => return Ok(report),
            }
        }
    }
}

/// The subcommand: makes a backup, and prints what was copied. Exit code 1 when it does not hold.
///
/// # Errors
///
/// As [`backup`], and when nothing can be printed.
pub fn run(disk: &Arc<dyn Disk>, options: &BackupOptions) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let report = match backup(disk, options) {
        Ok(report) => report,
        Err(BackupError::Storage(problem @ StorageError::Damage { .. })) => {
            CheckReport { problem: Some(problem), ..CheckReport::default() }
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(problem) = &report.problem {
        writeln!(out, "DAMAGED  {problem}")?;
        return Ok(ExitCode::FAILURE);
    }
    writeln!(out, "entries  {} in {} sealed batches", report.size, report.batches)?;
    writeln!(out, "bytes    {}", report.bytes)?;
    writeln!(out, "verified {}", options.to.display())?;
    if !options.with_keys {
        writeln!(out, "keys     not copied: keep ledger.key and source.key elsewhere")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Bytes copied at once.
const CHUNK_LEN: usize = 1 << 20;

/// How often a copy is verified: an erasure passes through a segment in well under a second.
const ATTEMPTS_MAX: u32 = 3;
