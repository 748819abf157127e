//! Attacks on the bytes of the disk: what the log's own parts say to that, and the offline check.

use std::{fs, path::Path};

use access_ledger_client::{
    audit::{AuditError, audit_copy},
    evidence::Caught,
    folder::{Folder, FolderError},
    verify::Fault,
};
use access_ledger_proto::{
    position::{Index, Size},
    quorum::Quorum,
};
use access_ledger_server::{
    check::check,
    error::{LedgerError, StorageError},
    folder::real_disk,
    os::{Access, Disk as _, RealDisk},
    storage::Options,
};
use access_ledger_tests::{
    adversary::{Says, damage::flip, signed, unsigned},
    hostile::Server,
    node::{ORIGIN, Setup},
    operator::{Crime, SIZE},
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;

/// What the offline check of the seized folder says first.
fn checked(crime: &Crime) -> anyhow::Result<Option<StorageError>> {
    let (disk, options) = (real_disk(), Options::new(crime.data(), ORIGIN));
    Ok(check(&disk, &options, &crime.vkey, None, &|_| ())?.problem)
}

/// Flips a byte of a file, and back again on the second call.
pub(super) fn flip_on_disk(path: &Path, at: u64) -> anyhow::Result<()> {
    let byte = *fs::read(path)?.get(usize::try_from(at)?).context("a byte")?;
    RealDisk.open(path, Access::Write)?.write_at(&[byte ^ 1], at)?;
    Ok(())
}

fn segment(crime: &Crime) -> std::path::PathBuf {
    crime.data().join("log/00000000000000000000.seg")
}

#[tokio::test]
async fn flip_a_byte_of_a_tree_file() -> anyhow::Result<()> {
    // In many segments; the newest one is read when the ledger opens, and mends its part.
    let crime = Crime::scene_in_segments(4 << 10).await?;
    let file = crime.data().join("tree/0");
    for position in 0..9 {
        flip_on_disk(&file, position * 32 + 5)?;
        let problem = checked(&crime)?;
        let is_named = matches!(
            problem,
            Some(StorageError::TreeDamage { level: 0, position: found, .. }) if found == position
        );
        ensure!(is_named, "{position}: {problem:?}");
        // The ledger itself starts from what it signed last, and sees that this is not it.
        let refused = Setup::new(&crime.data()).open().err().context("it must not start")?;
        let is_root = matches!(
            &refused,
            LedgerError::Storage(StorageError::Root { size, .. }) if size.0 == SIZE
        );
        ensure!(is_root, "{position}: {refused}");
        flip_on_disk(&file, position * 32 + 5)?;
    }
    let last = SIZE - 1;
    flip_on_disk(&file, last * 32 + 5)?;
    ensure!(checked(&crime)?.is_some());
    drop(Setup::new(&crime.data()).open()?);
    ensure!(checked(&crime)?.is_none(), "mended, and the honest twin");
    Ok(())
}

#[tokio::test]
async fn flip_a_byte_of_a_segment_header() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    for at in 0..HEADER_LEN {
        flip_on_disk(&segment(&crime), at)?;
        let problem = checked(&crime)?;
        let named = matches!(
            problem,
            Some(StorageError::Damage { segment: Index(0), offset: 0, index: Index(0), .. })
        );
        ensure!(named, "byte {at}: {problem:?}");
        let refused = Setup::new(&crime.data()).open().err().context("it must not start")?;
        let is_damage = matches!(
            refused,
            LedgerError::Storage(StorageError::Damage { segment: Index(0), offset: 0, .. })
        );
        ensure!(is_damage, "byte {at}: {refused}");
        flip_on_disk(&segment(&crime), at)?;
    }
    ensure!(checked(&crime)?.is_none(), "the honest twin");
    Ok(())
}

#[tokio::test]
async fn flip_any_byte_of_an_entry() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let mut view = crime.pinned("pinned.json").await?;
    for at in 0..crime.honest.records[9].entry.len() {
        let mut copy = crime.honest.clone();
        flip(&mut copy.record(9)?.entry, at)?;
        // Served under the honest checkpoint, and under one that was signed over the changed entry.
        for hostile in [unsigned(&crime, &copy)?, signed(&copy)?] {
            let server = Server::start(hostile).await?;
            let caught = server.caught(&mut crime.fresh("fresh.json")?).await?;
            let Caught::Log { violation, .. } = caught else {
                anyhow::bail!("byte {at}: {caught}");
            };
            // What the entry does not say of itself, the next one says: 10 links to another leaf.
            let index = violation.index.0;
            let is_time_or_seal = index == 10 && matches!(violation.what, Fault::Link { .. });
            ensure!(index == 9 || is_time_or_seal, "byte {at}: {violation}");
        }
        let signed = Server::start(signed(&copy)?).await?;
        Says::Fork.judge(Size(SIZE), signed.audit(&mut view).await.map(drop))?;
    }
    Ok(())
}

/// An export is a copy of the data folder. What it lacks may be its maker's doing: it is told, and
/// accuses nobody.
#[tokio::test]
async fn truncate_an_export() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let export = |name: &str| Folder::new(crime.data().join(name), &crime.vkey);
    let audit = |view: &str| -> anyhow::Result<Result<Size, AuditError>> {
        let (mut view, progress) = (crime.fresh(view)?, std::sync::Arc::new(|_, _| ()) as _);
        let audited = audit_copy(&export(""), &mut view, &Quorum::default(), &progress, ());
        Ok(audited.map(|(audited, ())| audited.checkpoint.size()))
    };
    ensure!(audit("twin.json")?? == Size(SIZE), "the honest twin");
    let whole = fs::read(segment(&crime))?;
    let entry = &crime.honest.records[20].entry;
    let at = whole.windows(entry.len()).position(|window| window == entry).context("the entry")?;
    let file = RealDisk.open(&segment(&crime), Access::Write)?;
    for (cut, found) in [(at - FRAME_HEAD_LEN, 20), (at + 3, 20), (at + entry.len() + 5, 20)] {
        file.set_length(cut as u64)?;
        for view in ["first.json", "twin.json"] {
            let audited = audit(view)?;
            let is_named = match &audited {
                Err(AuditError::Folder(FolderError::Short { found: size, wanted })) => {
                    (size.0, wanted.0) == (found, SIZE)
                }
                Err(AuditError::Folder(FolderError::Damaged { index, .. })) => index.0 == found,
                _ => false,
            };
            ensure!(is_named, "cut at {cut}, {view}: {audited:?}");
        }
    }
    // Under an older note of the ledger's it is a smaller export; who knows more says so.
    let mut older = crime.honest.clone();
    older.records.truncate(18);
    let note: Bytes = older.serve()?.checkpoint().clone();
    fs::File::create(crime.data().join("checkpoint"))?;
    RealDisk.open(&crime.data().join("checkpoint"), Access::Write)?.write_at(&note, 0)?;
    ensure!(audit("first.json")?? == Size(18));
    let old = audit("twin.json")?;
    ensure!(
        matches!(old, Err(AuditError::OldCopy { found: Size(18), known: Size(SIZE) })),
        "{old:?}"
    );
    Ok(())
}

/// Of a segment.
const HEADER_LEN: u64 = 64;

/// Of a frame, before its entry.
const FRAME_HEAD_LEN: usize = 17;
