//! The audit of a copy of a data folder: what a ledger signed binds it there too, and what a copy
//! lacks accuses nobody.

use std::{fs, io::Write as _, path::Path, sync::Arc};

use access_ledger_client::{
    audit::{AuditError, Audited, Observer, Progress, audit_copy},
    evidence::Caught,
    folder::Folder,
    verify::Record,
    view::View,
};
use access_ledger_proto::{
    checkpoint::Checkpoint,
    hash::{leaf_hash, sha256},
    note::{KeyType, Signer},
    position::{Index, Size},
    quorum::Quorum,
    tree::root_of,
};
use access_ledger_server::{os::RealDisk, storage};
use access_ledger_tests::story::{ORIGIN, Story};
use tempfile::TempDir;

/// Counts what it is given, in order and without gaps.
#[derive(Default)]
struct Counted(u64);

impl Observer for Counted {
    fn take(&mut self, first: Index, records: &[Record]) {
        assert_eq!(first.0, self.0);
        self.0 += records.len() as u64;
    }
}

fn ledger_key() -> anyhow::Result<Signer> {
    Ok(Signer::new(ORIGIN, KeyType::Ed25519, *sha256(ORIGIN.as_bytes()).as_bytes())?)
}

/// A copy of the first records of a story, under a checkpoint.
fn copy(story: &Story, size: usize) -> anyhow::Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let options = storage::Options::new(folder.path(), ORIGIN);
    let mut opened = storage::open(Arc::new(RealDisk), &options, None)?;
    let mut group = opened.log.group();
    let mut leaves = Vec::new();
    for record in story.records()?.iter().take(size) {
        leaves.push(leaf_hash(&record.entry));
        match &record.event {
            Some(event) => group.push(&record.entry, event),
            None => group.push_erased(&record.entry),
        }
    }
    let _durable = opened.log.commit(group)?;
    let checkpoint = Checkpoint::new(ORIGIN, Size(size as u64), root_of(&leaves))?;
    let note = checkpoint.sign(&ledger_key()?)?;
    fs::File::create(folder.path().join("checkpoint"))?.write_all(note.as_bytes())?;
    Ok(folder)
}

fn audit(copy: &TempDir, view: &Path) -> anyhow::Result<Result<(Audited, Counted), AuditError>> {
    let ledger = ledger_key()?.verifier().clone();
    let mut view = View::open(view, &ledger)?;
    let progress: Progress = Arc::new(|_, _| {});
    let folder = Folder::new(copy.path(), &ledger);
    Ok(audit_copy(&folder, &mut view, &Quorum::default(), &progress, Counted::default()))
}

fn story(accesses: usize) -> anyhow::Result<Story> {
    let mut story = Story::open()?;
    for _ in 0..accesses {
        story.access(|_, _| {})?;
    }
    Ok(story)
}

#[test]
fn a_newer_copy_continues_the_view_and_an_older_one_is_no_offence() -> anyhow::Result<()> {
    let story = story(30)?;
    let (desk, whole) = (tempfile::tempdir()?, story.lines().len());
    let view = desk.path().join("view.json");
    for size in [1, 9, 9, whole - 1, whole] {
        let (audited, counted) = audit(&copy(&story, size)?, &view)??;
        assert_eq!((audited.checkpoint.size().0, counted.0), (size as u64, size as u64));
    }
    let older = audit(&copy(&story, 9)?, &view)?;
    assert!(matches!(older, Err(AuditError::OldCopy { found: Size(9), .. })), "{:?}", older.err());
    Ok(())
}

#[test]
fn a_copy_of_another_history_convicts_the_ledger_that_signed_both() -> anyhow::Result<()> {
    let (one, other) = (story(10)?, {
        let mut other = Story::open()?;
        other.wait(1);
        (0..20).try_for_each(|_| other.access(|_, access| access.records = 2).map(drop))?;
        other
    });
    let desk = tempfile::tempdir()?;
    let view = desk.path().join("view.json");
    audit(&copy(&one, one.lines().len())?, &view)??;
    let pinned = fs::read(&view)?;
    let forked = audit(&copy(&other, other.lines().len())?, &view)?;
    let Err(AuditError::Caught(caught)) = forked else { panic!("{:?}", forked.err()) };
    assert!(matches!(*caught, Caught::Unproven { .. }), "{caught}");
    let same_size = audit(&copy(&other, one.lines().len())?, &view)?;
    let Err(AuditError::Caught(caught)) = same_size else { panic!("{:?}", same_size.err()) };
    assert!(matches!(*caught, Caught::Fork { .. }), "{caught}");
    assert_eq!(fs::read(&view)?, pinned);
    Ok(())
}

#[test]
fn an_event_that_the_copy_lacks_is_named_and_accuses_nobody() -> anyhow::Result<()> {
    let mut story = story(10)?;
    let gone = Index(story.lines().len() as u64 - 3);
    story.erase(gone);
    let desk = tempfile::tempdir()?;
    let audited = audit(&copy(&story, story.lines().len())?, &desk.path().join("view.json"))?;
    let Err(AuditError::Unaccounted { index }) = audited else { panic!("{:?}", audited.err()) };
    assert_eq!(index, gone);
    Ok(())
}
