//! `backup`: a consistent copy of a ledger's folder, made while the ledger runs.
//!
//! What a checkpoint covers never changes, but for events that are erased. So the copy needs
//! neither lock nor pause: it takes the newest checkpoint first, and then exactly the entries that
//! this covers. It is verified as `check` verifies a folder; a segment that was copied while an
//! erasure went through it is copied again, and a copy that lacks an event without the record of
//! that, which lies behind the checkpoint, is brought up to a newer one. `meta.toml` comes last, so
//! a copy that was cut off is no ledger.
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
    thread,
    time::Duration,
};

use access_ledger_client::verify;
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
    custodian::{error::CustodianError, memory::Memory, suspension},
    error::{Fault, LedgerError, StorageError},
    folder::{Folder, Role},
    os::{self, Access, DRAFT_SUFFIX, Disk},
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
    /// The folder is nobody's, or a file of it or of the copy cannot be used.
    #[error(transparent)]
    Folder(#[from] LedgerError),
    /// The log cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What a custodian remembers cannot be read.
    #[error(transparent)]
    Custodian(#[from] CustodianError),
    /// Nothing is covered by a checkpoint.
    #[error("{}: no checkpoint of this ledger, serve it once", .path.display())]
    NoCheckpoint {
        /// The checkpoint's file.
        path: PathBuf,
    },
    /// There is something where the copy should go.
    #[error("{} is not empty, expected a folder for this copy alone", .folder.display())]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
}

/// What `backup` is to do.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// The data folder of a ledger or custodian, running or stopped.
    pub from: PathBuf,
    /// Where the copy goes: a new or empty folder.
    pub to: PathBuf,
    /// Whether the own keys are copied too. Governance keys never are.
    pub with_keys: bool,
}

/// Copies the folder of a ledger or custodian and verifies the copy; what the verification found.
///
/// The keys of a custodian's copy sign nothing before somebody has said what they signed last
/// ([`suspension`]); without keys, what they signed is not copied either: the copy becomes a
/// custodian of its own.
///
/// # Errors
///
/// Any [`BackupError`]; then the copy is nobody's folder yet.
pub fn backup(disk: &Arc<dyn Disk>, options: &BackupOptions) -> Result<CheckReport, BackupError> {
    let (from, to) = (Folder::new(&options.from), Folder::new(&options.to));
    let uninitialised = || from.uninitialised();
    let role = from.role(&**disk)?.ok_or_else(uninitialised)?;
    let vkey = from.ledger_key(&**disk)?.ok_or_else(uninitialised)?;
    let copy = Copying { disk: &**disk, from: &from, to: &to, vkey: &vkey };
    copy.check_empty()?;
    let noted = match role {
        Role::Ledger => None,
        Role::Custodian => copy.notes(options.with_keys)?,
    };
    // All of these cover what was durable before; read in this order, the largest covers the notes.
    let checkpoint = (copy.newest()?.into_iter().chain(noted))
        .max_by_key(VerifiedCheckpoint::size)
        .ok_or_else(|| BackupError::NoCheckpoint { path: from.checkpoint() })?;
    copy.extend(Size::ZERO, &checkpoint)?;
    copy.folder(&from.evidence(), &to.evidence())?;
    if options.with_keys {
        let keys = match role {
            Role::Ledger => from.own_keys(&**disk)?,
            Role::Custodian => from.cosigning_keys().to_vec(),
        };
        for source in keys {
            let Ok(inside) = source.strip_prefix(from.root()) else { continue };
            let target = to.root().join(inside);
            copy.folder_of(&target)?;
            copy.file(&source, &target, u64::MAX)?;
        }
    }
    let report = copy.verify(disk, checkpoint)?;
    if report.problem.is_none() {
        match role {
            Role::Ledger => to.write_meta_of(&**disk, &vkey)?,
            Role::Custodian => to.write_custodian_meta(&**disk, &vkey)?,
        }
    }
    Ok(report)
}

/// One backup.
struct Copying<'a> {
    disk: &'a dyn Disk,
    from: &'a Folder,
    to: &'a Folder,
    /// The ledger's.
    vkey: &'a VerifierKey,
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

    /// Copies what a custodian knows besides the log; the checkpoint up to which that goes.
    fn notes(&self, with_keys: bool) -> Result<Option<VerifiedCheckpoint>, BackupError> {
        let root = self.to.root();
        self.disk.create_dir(root).map_err(|source| LedgerError::io(root, source))?;
        for (source, target) in self.from.notes().iter().zip(self.to.notes()) {
            match self.file(source, &target, u64::MAX) {
                Err(BackupError::Folder(LedgerError::Io { source, .. }))
                    if source.kind() == io::ErrorKind::NotFound => {}
                copied => copied?,
            }
        }
        self.folder(&self.from.alarms(), &self.to.alarms())?;
        if with_keys {
            suspension::suspend(self.disk, self.to)?;
            self.folder(&self.from.witness(), &self.to.witness())?;
        }
        let memory = Memory::read(self.disk, root, self.vkey)?;
        Ok(memory.pinned.map(|pinned| pinned.checkpoint))
    }

    /// The newest checkpoint in the folder.
    fn newest(&self) -> Result<Option<VerifiedCheckpoint>, BackupError> {
        let keys = self.from.known_keys(self.disk, None)?;
        Ok(self.from.newest_known(self.disk, &keys))
    }

    /// Copies what a checkpoint covers, and the checkpoint, over a copy of the first `copied`
    /// entries.
    fn extend(&self, copied: Size, checkpoint: &VerifiedCheckpoint) -> Result<(), BackupError> {
        let size = checkpoint.size();
        let firsts = self.segments(size)?;
        let whole = firsts.partition_point(|first| copied.contains(*first)).saturating_sub(1);
        for first in firsts.iter().skip(whole) {
            self.segment(*first, size)?;
        }
        self.tree(size)?;
        let (path, note) = (self.to.checkpoint(), checkpoint.note().as_bytes());
        let replaced = os::replace(self.disk, &path, note);
        Ok(replaced.map_err(|source| LedgerError::io(&path, source))?)
    }

    /// The segments with entries below `size`.
    fn segments(&self, size: Size) -> Result<Vec<Index>, BackupError> {
        let mut firsts = list_segments(self.disk, &segment::folder(self.from.root()))?;
        firsts.retain(|first| size.contains(*first));
        self.disk
            .create_dir(&segment::folder(self.to.root()))
            .map_err(|source| LedgerError::io(self.to.root(), source))?;
        Ok(firsts)
    }

    /// Copies a segment: all of it, with its footer, if more follow below `size`; else up to there.
    fn segment(&self, first: Index, size: Size) -> Result<(), BackupError> {
        let folder = segment::folder(self.from.root());
        // More segments may be there than at first, but never fewer.
        let firsts = list_segments(self.disk, &folder)?;
        let next = firsts.get(firsts.partition_point(|other| *other <= first));
        let is_last = next.is_none_or(|next| !size.contains(*next));
        let length = if is_last { self.end_of(&folder, (first, size))? } else { u64::MAX };
        let target = segment::path(&segment::folder(self.to.root()), first);
        self.file(&segment::path(&folder, first), &target, length)
    }

    /// Where the frames below `size` end in a segment.
    fn end_of(&self, folder: &Path, (first, size): (Index, Size)) -> Result<u64, BackupError> {
        let origin = sha256(self.vkey.name().as_bytes());
        let segment = Segment::open(self.disk, folder, (first, origin), Access::Read)?;
        let mut walk = Walk::new(&segment, segment.file.length()?);
        while size.contains(walk.index()) {
            if walk.next()?.is_none() {
                break;
            }
        }
        Ok(walk.offset())
    }

    /// Copies the tree over the first `size` entries: it is derived, but `check` compares it.
    fn tree(&self, size: Size) -> Result<(), BackupError> {
        let [from, to] = [self.from, self.to].map(|folder| folder.root().join("tree"));
        self.disk.create_dir(&to).map_err(|source| LedgerError::io(&to, source))?;
        for level in 0..LEVELS {
            let name = level.to_string();
            let length = Stored::count_in(level, size) * 32;
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
            if name.to_str().is_some_and(|name| name.ends_with(DRAFT_SUFFIX)) {
                continue;
            }
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

    /// Verifies the copy under its checkpoint. It may have been made in the middle of an erasure:
    /// then segments that do not hold are copied again, and what is behind the checkpoint, too.
    fn verify(
        &self,
        disk: &Arc<dyn Disk>,
        mut checkpoint: VerifiedCheckpoint,
    ) -> Result<CheckReport, BackupError> {
        let options = Options::new(self.to.root(), self.vkey.name());
        let (mut attempts, mut extensions) = (0, 0);
        loop {
            let signed = Some((checkpoint.size(), checkpoint.root()));
            let report = check(disk, &options, self.vkey, signed, &|_| {})?;
            match &report.problem {
                Some(StorageError::Damage {
                    fault: Fault::Log(verify::Fault::ErasedWithoutRecord),
                    ..
                }) if extensions < ATTEMPTS_MAX => {
                    let Some(newer) = self.newer(checkpoint.size())? else { return Ok(report) };
                    warn!(size = newer.size().0, "copies on, up to the record of an erasure");
                    self.extend(checkpoint.size(), &newer)?;
                    checkpoint = newer;
                    extensions += 1;
                }
                Some(StorageError::Damage { segment, .. }) if attempts + 1 < ATTEMPTS_MAX => {
                    warn!(segment = segment.0, "copies a segment again");
                    self.segment(*segment, checkpoint.size())?;
                    attempts += 1;
                }
                _ => return Ok(report),
            }
        }
    }

    /// A checkpoint that covers more than `size` entries. An erasure follows what is signed, and
    /// the file with the checkpoint may come a moment later.
    fn newer(&self, size: Size) -> Result<Option<VerifiedCheckpoint>, BackupError> {
        for _ in 0..NEWER_POLLS {
            let newest = self.newest()?.filter(|newest| newest.size() > size);
            if newest.is_some() {
                return Ok(newest);
            }
            thread::sleep(NEWER_POLL);
        }
        Ok(None)
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
        writeln!(out, "keys     not copied: keep them elsewhere")?;
    } else if suspension::is_suspended(&**disk, &Folder::new(&options.to))? {
        writeln!(out, "keys     sign nothing before `access-ledger-server custodian resume`")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Bytes copied at once.
const CHUNK_LEN: usize = 1 << 20;

/// How often a copy is verified, and how often brought up to a newer checkpoint: an erasure passes
/// through a segment in well under a second, and what is copied on are a few segments.
const ATTEMPTS_MAX: u32 = 3;

/// How often, and how long after each other, a newer checkpoint is looked for.
const NEWER_POLLS: u32 = 20;

/// As often as a running ledger replaces its file.
const NEWER_POLL: Duration = Duration::from_millis(50);
