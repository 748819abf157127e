//! A copy that is made while the ledger takes appends is whole, verified, and a ledger again when
//! it is put in place.

use std::path::Path;

use access_ledger_client::{folder::Folder as Copy, verify::LogVerifier};
use access_ledger_proto::{checkpoint::VerifiedCheckpoint, note::VerifierKey, position::Size};
use access_ledger_server::{
    backup::{BackupError, BackupOptions, backup},
    check,
    error::StorageError,
    folder::real_disk,
    os::{self, Access},
};
use access_ledger_tests::{
    model::{Acknowledged, Audit},
    node::{Node, Setup},
    process::{Process, run_server},
};
use anyhow::{Context as _, Result, ensure};

fn options(from: &Path, to: &Path, with_keys: bool) -> BackupOptions {
    BackupOptions { from: from.to_owned(), to: to.to_owned(), with_keys }
}

/// Reads a copy as an auditor who has nothing but it and the key; its size.
fn audited(copy: &Path, vkey: &VerifierKey) -> Result<Size> {
    let folder = Copy::new(copy, vkey);
    let checkpoint = VerifiedCheckpoint::open(&folder.checkpoint()?, vkey, &[])?;
    let mut records = folder.records(checkpoint.size())?;
    let mut verifier = LogVerifier::new(vkey, access_ledger_client::verify::Scope::Events);
    while let Some(run) = records.next_run()? {
        verifier.advance(vec![run])?;
    }
    verifier.finish(&checkpoint)?;
    Ok(checkpoint.size())
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_a_running_ledger_hold_what_their_checkpoint_covers() -> Result<()> {
    let (folder, copies) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut setup = Setup::new(folder.path());
    setup.options.segment_bytes = 64 << 10;
    let node = setup.start().await?;
    let (clients, vkey) = (node.clients(), node.vkey.clone());
    let mut source = clients.enrolled("payments", 1, &vkey).await?;
    clients.record(&source.record(100)?).await?;
    // The checkpoint's file follows at its own pace; the first copy needs it.
    let (from, to) = (folder.path().to_owned(), copies.path().to_owned());
    let copying = tokio::task::spawn_blocking(move || -> Result<Vec<Size>> {
        let mut sizes = Vec::new();
        for number in 0..8 {
            let to = to.join(number.to_string());
            let report = backup(&real_disk(), &options(&from, &to, number % 2 == 0))?;
            ensure!(report.problem.is_none() && !report.has_torn_tail, "{report:?}");
            sizes.push(report.size);
        }
        Ok(sizes)
    });
    let mut acknowledged = Acknowledged::default();
    let mut copying = std::pin::pin!(copying);
    let sizes = loop {
        let sealed = source.record(30)?;
        let done = tokio::select! {
            biased;
            done = &mut copying => Some(done??),
            recorded = clients.record(&sealed) => {
                acknowledged.note(&sealed, recorded?)?;
                None
            }
        };
        if let Some(sizes) = done {
            break sizes;
        }
    };
    assert!(sizes.is_sorted(), "{sizes:?}");
    drop(clients);
    node.stop().await?;
    for (number, size) in sizes.iter().enumerate() {
        let copy = copies.path().join(number.to_string());
        assert_eq!(audited(&copy, &vkey)?, *size);
        assert_eq!(copy.join("keys").exists(), number % 2 == 0);
        let code = tokio::task::spawn_blocking(move || check::run(&real_disk(), &copy)).await??;
        assert_eq!(code, std::process::ExitCode::SUCCESS);
    }

    // The newest copy with keys is the ledger again, and goes on.
    let restored = copies.path().join("6");
    let node = Node::start(&restored).await?;
    assert_eq!(node.vkey, vkey);
    let mut audit = Audit::new(&vkey);
    audit.pull(&node.clients()).await?;
    let mut source = node.clients().enrolled("invoices", 2, &vkey).await?;
    node.clients().record(&source.record(3)?).await?;
    audit.pull(&node.clients()).await?;
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_nowhere_else_and_damage_is_no_copy() -> Result<()> {
    let (folder, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let node = Node::start(folder.path()).await?;
    let mut source = node.clients().enrolled("payments", 1, &node.vkey).await?;
    node.clients().record(&source.record(20)?).await?;
    node.stop().await?;
    let disk = real_disk();
    let to = other.path().join("copy");
    let nothing = backup(&disk, &options(other.path(), &to, false));
    ensure!(matches!(nothing, Err(BackupError::Folder(_))), "{nothing:?}");
    os::replace(&*disk, &other.path().join("something"), b"here")?;
    let taken = backup(&disk, &options(folder.path(), other.path(), false));
    ensure!(matches!(taken, Err(BackupError::NotEmpty { .. })), "{taken:?}");

    let segment = folder.path().join("log/00000000000000000000.seg");
    let file = disk.open(&segment, Access::Write)?;
    let mut byte = [0];
    file.read_at(&mut byte, 500)?;
    file.write_at(&[byte[0] ^ 1], 500)?;
    let damaged = backup(&disk, &options(folder.path(), &to, false));
    let is_told = matches!(damaged, Err(BackupError::Storage(StorageError::Damage { .. })));
    ensure!(is_told, "{damaged:?}");
    ensure!(!to.join("meta.toml").exists(), "a copy that does not hold passes for a ledger");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_copies_a_served_ledger() -> Result<()> {
    let (folder, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let process = Process::serve(folder.path(), &[])?;
    let clients = access_ledger_tests::node::Clients::connect(process.address).await?;
    let mut source = clients.enrolled("payments", 1, &process.vkey).await?;
    clients.record(&source.record(5)?).await?;
    let to = other.path().join("copy");
    let told = run_server(&["backup", "--to", to.to_str().context("path")?], folder.path())?;
    let said = String::from_utf8_lossy(&told.stdout);
    ensure!(told.status.success() && said.contains("verified"), "{told:?}");
    let size = audited(&to, &process.vkey)?;
    ensure!(size > Size::ZERO, "{said}");
    Ok(())
}
