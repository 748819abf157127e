//! A copy of a data folder reads back without a server: every record, cut at the checkpoint, with
//! damage named.

use std::{fs, path::Path, sync::Arc};

use access_ledger_client::{
    folder::{Folder, FolderError},
    verify::Record,
};
use access_ledger_proto::position::{Index, Size};
use access_ledger_server::{
    os::RealDisk,
    storage::{self, Options},
};
use access_ledger_tests::history::{History, ORIGIN, ledger_key};
use anyhow::{Result, ensure};

/// Writes `history` into `folder`, a batch a group, in segments of 6 KiB.
fn store(folder: &Path, history: &History) -> Result<()> {
    let options = Options { segment_bytes: 6 << 10, ..Options::new(folder, ORIGIN) };
    let mut opened = storage::open(Arc::new(RealDisk), &options, None)?;
    while history.commit(&mut opened, 1)? < history.size() {}
    Ok(())
}

/// All records below `end`, with the check that runs follow each other.
fn read(folder: &Path, end: Size) -> Result<Vec<Record>> {
    let mut records = Folder::new(folder, &ledger_key()?).records(end)?;
    let mut read = Vec::new();
    while let Some((first, run)) = records.next_run()? {
        ensure!(first == Index(read.len() as u64), "a run begins at {first}");
        read.extend(run);
    }
    Ok(read)
}

#[test]
fn a_copy_reads_back_up_to_the_checkpoint() -> Result<()> {
    let (folder, history) = (tempfile::tempdir()?, History::new(1, 40, 1_500)?);
    store(folder.path(), &history)?;
    for end in [history.size(), Size(history.size().0 - 3), Size(1), Size(0)] {
        let records = read(folder.path(), end)?;
        let wanted = history.records_between(Size(0), end);
        ensure!(records.len() == wanted.len());
        for (record, (entry, event)) in records.iter().zip(wanted) {
            ensure!(record.entry[..] == entry[..]);
            ensure!(record.event.as_deref() == Some(&event[..]));
        }
    }
    let beyond = read(folder.path(), Size(history.size().0 + 1)).err();
    ensure!(matches!(
        beyond.as_ref().and_then(|error| error.downcast_ref()),
        Some(FolderError::Short { found, .. }) if *found == history.size()
    ));
    Ok(())
}

#[test]
fn a_copy_larger_than_the_buffer_reads_back() -> Result<()> {
    let (folder, history) = (tempfile::tempdir()?, History::uniform(60, 16, 1_200)?);
    let options = Options::new(folder.path(), ORIGIN);
    let mut opened = storage::open(Arc::new(RealDisk), &options, None)?;
    let mut group = opened.log.group();
    for (entry, event) in history.records_between(Size(0), history.size()) {
        group.push(entry, event);
    }
    let _range = opened.log.commit(group)?;
    ensure!(read(folder.path(), history.size())?.len() as u64 == history.size().0);
    Ok(())
}

#[test]
fn any_flipped_byte_of_a_frame_is_named_or_is_no_longer_this_log() -> Result<()> {
    let (folder, history) = (tempfile::tempdir()?, History::new(2, 12, 300)?);
    store(folder.path(), &history)?;
    let mut paths: Vec<_> =
        fs::read_dir(folder.path().join("log"))?.collect::<Result<Vec<_>, _>>()?;
    paths.sort_by_key(fs::DirEntry::path);
    ensure!(paths.len() >= 2, "one segment only");
    let path = paths.first().map(fs::DirEntry::path).unwrap_or_default();
    let sound = fs::read(&path)?;
    // The footer, which a reader from the front has no use for, lies behind the frames.
    let frames = history.records_between(Size(0), Size(4));
    let end =
        64 + frames.iter().map(|(entry, event)| 17 + entry.len() + event.len()).sum::<usize>();
    for at in 0..end {
        let mut bytes = sound.clone();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 0x04;
        }
        #[expect(clippy::disallowed_methods, reason = "the file is this test's own")]
        fs::write(&path, &bytes)?;
        ensure!(read(folder.path(), history.size()).is_err(), "byte {at}");
    }
    Ok(())
}

#[test]
fn missing_segments_and_foreign_folders_are_named() -> Result<()> {
    let (folder, history) = (tempfile::tempdir()?, History::new(3, 40, 1_500)?);
    let empty = read(folder.path(), Size(1)).err();
    ensure!(matches!(
        empty.as_ref().and_then(|error| error.downcast_ref()),
        Some(FolderError::Io { .. })
    ));
    store(folder.path(), &history)?;
    let mut names: Vec<_> =
        fs::read_dir(folder.path().join("log"))?.collect::<Result<Vec<_>, _>>()?;
    names.sort_by_key(fs::DirEntry::path);
    ensure!(names.len() >= 3, "{} segments", names.len());
    if let Some(second) = names.get(1) {
        fs::remove_file(second.path())?;
    }
    // The first segment ends, and the next file does not go on where it does.
    let gap = read(folder.path(), history.size()).err();
    ensure!(matches!(
        gap.as_ref().and_then(|error| error.downcast_ref()),
        Some(FolderError::Gap { .. } | FolderError::Damaged { .. })
    ));
    Ok(())
}
