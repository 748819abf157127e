//! A copy that is made while the ledger takes appends is whole, verified, and a ledger again when
//! it is put in place.

use std::{
    fs,
    path::{Path, PathBuf},
    slice,
    sync::Arc,
};

use access_ledger_client::{folder::Folder as Copy, pull::Puller, verify::LogVerifier};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    note::{KeyType, Signer, VerifierKey},
    position::Size,
    wire::{self, event::Body},
    witness::{AddCheckpoint, origin_hex},
};
use access_ledger_server::{
    backup::{BackupError, BackupOptions, backup},
    check,
    custodian::suspension::{self, ResumeError},
    error::StorageError,
    folder::real_disk,
    os::{self, Access},
    restore::restore,
};
use access_ledger_tests::{
    custodian::{Keeper, until},
    folders,
    gate::{GatedDisk, Mode},
    model::{Acknowledged, Audit},
    node::{Node, Setup},
    pages,
    parties::Governance,
    personal::{personal, redaction, until_gone},
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

#[tokio::test(flavor = "multi_thread")]
async fn a_custodian_that_was_put_back_signs_nothing_before_it_knows_what_it_signed() -> Result<()>
{
    let (folder, disk) = (tempfile::tempdir()?, real_disk());
    let [ledger, custodian, copy, bare] =
        ["ledger", "custodian", "copy", "bare"].map(|name| folder.path().join(name));
    let node = Node::start(&ledger).await?;
    let (clients, vkey) = (node.clients(), node.vkey.clone());
    let mut source = clients.enrolled("payments", 1, &vkey).await?;
    clients.record(&source.record(20)?).await?;
    let keeper = Keeper::start(&custodian, &vkey, node.address).await?;
    let before = keeper.cosigns(clients.size(&vkey).await?).await?;
    for (to, with_keys) in [(&copy, true), (&bare, false)] {
        let options = options(&custodian, to, with_keys);
        let report = tokio::task::spawn_blocking(move || backup(&real_disk(), &options)).await??;
        ensure!(report.problem.is_none() && report.size >= before.size(), "{report:?}");
        assert!(audited(to, &vkey)? >= before.size());
    }
    clients.record(&source.record(20)?).await?;
    let newest = keeper.cosigns(before.size().0 + 20).await?;
    let vkeys = keeper.vkeys.clone();
    keeper.stop().await?;

    // With its keys it follows and serves, and signs nothing.
    let second = folder.path().join("second");
    folders::copy(&copy, &second)?;
    let keeper = Keeper::start(&copy, &vkey, node.address).await?;
    assert_eq!(keeper.vkeys, vkeys);
    let held = keeper.holds(newest.size().0).await?;
    let body = AddCheckpoint { old: Size::ZERO, proof: Vec::new(), note: newest.note().as_bytes() };
    let answer = pages::post(keeper.address, "/add-checkpoint", &body.to_bytes()).await?;
    ensure!(answer.status == 403 && held.cosignatures().is_empty(), "{answer:?}, {held:?}");
    keeper.stop().await?;

    // What it is told must be its own, and no older than what it remembers.
    let file = |name: &str, text: &str| -> Result<PathBuf> {
        let path = folder.path().join(name);
        os::replace(&*disk, &path, text.as_bytes())?;
        Ok(path)
    };
    let mut auditor = clients.auditor.clone();
    let signed = auditor.get_checkpoint(wire::GetCheckpointRequest::default()).await?;
    let signed = String::from_utf8(signed.into_inner().checkpoint.to_vec())?;
    let (uncosigned, old, new) =
        (file("uncosigned", &signed)?, file("old", before.note())?, file("new", newest.note())?);
    let resume =
        |data: &Path, note: &Path| suspension::resume(&*disk, data, (&[note.to_owned()], &[]), &[]);
    let refused = resume(&copy, &uncosigned);
    ensure!(matches!(refused, Err(ResumeError::NotCosigned { .. })), "{refused:?}");
    // Nor is anything unsaid that it remembers, whatever a human says of it.
    for never in [vec![], vec![vkey.name().to_owned()]] {
        let refused = suspension::resume(&*disk, &copy, (&[], &never), &[]);
        ensure!(matches!(refused, Err(ResumeError::Missing { .. })), "{refused:?}");
    }
    resume(&copy, &new)?;
    let refused = resume(&copy, &old);
    ensure!(matches!(refused, Err(ResumeError::NotSuspended { .. })), "{refused:?}");
    let keeper = Keeper::start(&copy, &vkey, node.address).await?;
    clients.record(&source.record(1)?).await?;
    keeper.cosigns(newest.size().0 + 1).await?;
    keeper.stop().await?;

    // A copy that holds less than it is told is brought up to it first.
    resume(&second, &new)?;
    let early = Keeper::start(&second, &vkey, node.address).await.map(drop);
    ensure!(early.is_err(), "went on with less than it has signed for");
    let puller = Puller::new(clients.channel.clone());
    restore(&disk, &second, &puller, (None, &[]), |_, _| {}).await?;
    let keeper = Keeper::start(&second, &vkey, node.address).await?;
    keeper.cosigns(newest.size().0 + 1).await?;
    keeper.stop().await?;

    // Without keys it is another custodian, with all that was copied.
    let keeper = Keeper::start(&bare, &vkey, node.address).await?;
    keeper.cosigns(newest.size().0 + 1).await?;
    ensure!(keeper.vkeys[0] != vkeys[0] && keeper.alarms.all().is_empty());
    keeper.stop().await?;
    drop(clients);
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_on_to_the_record_of_what_was_erased_while_it_was_made() -> Result<()> {
    let (folder, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut setup = Setup::new(folder.path());
    setup.options.segment_bytes = 4 << 10;
    let node = setup.start().await?;
    let (clients, vkey) = (node.clients(), node.vkey.clone());
    let mut governance = Governance::of(folder.path(), &vkey)?;
    let mut source = clients.enrolled("payments", 1, &vkey).await?;
    for _ in 0..4 {
        clients.record(&source.record(20)?).await?;
    }
    let events = vec![personal(&mut source)];
    let first = clients.record(&source.seal(events)?).await?.first_index;
    until(async || {
        let note = Copy::new(folder.path(), &vkey).checkpoint()?;
        let size = VerifiedCheckpoint::open(&note, &vkey, &[])?.size();
        Ok((size > Size(first)).then_some(()))
    })
    .await?;

    // Behind its first segment the copy waits until an event of a later one is gone.
    let (disk, to) = (GatedDisk::default(), other.path().join("copy"));
    let _opener = disk.opener();
    disk.set(Mode::HeldSyncs);
    let (gated, options) = (disk.clone(), options(folder.path(), &to, false));
    let copying = tokio::task::spawn_blocking(move || backup(&(Arc::new(gated) as _), &options));
    let gated = disk.clone();
    tokio::task::spawn_blocking(move || gated.wait_until_held()).await?;
    let body = Body::Redaction(redaction(&governance, first, first));
    let event = governance.company.event(body);
    let record = clients.record(&governance.company.seal(vec![event])?).await?;
    until_gone(folder.path()).await?;
    disk.set(Mode::Open);
    let report = copying.await??;
    ensure!(report.problem.is_none() && report.erased_events == 1, "{report:?}");
    let size = audited(&to, &vkey)?;
    ensure!(size > Size(record.first_index) && size == report.size, "{size}");
    drop(clients);
    node.stop().await
}

/// A log may have been cosigned for the first time after the copy was made, so that the copy has no
/// file of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_the_copy_has_never_heard_of_is_asked_for_all_the_same() -> Result<()> {
    let (folder, disk) = (tempfile::tempdir()?, real_disk());
    let [ledger, custodian, copy] =
        ["ledger", "custodian", "copy"].map(|name| folder.path().join(name));
    let node = Node::start(&ledger).await?;
    let vkey = node.vkey.clone();
    let mut source = node.clients().enrolled("payments", 1, &vkey).await?;
    node.clients().record(&source.record(5)?).await?;
    let keeper = Keeper::start(&custodian, &vkey, node.address).await?;
    let signed = keeper.cosigns(node.clients().size(&vkey).await?).await?;
    let options = options(&custodian, &copy, true);
    let report = tokio::task::spawn_blocking(move || backup(&real_disk(), &options)).await??;
    ensure!(report.problem.is_none(), "{report:?}");
    keeper.stop().await?;
    let (note, other) =
        (folder.path().join("note"), Signer::new("other.example", KeyType::Ed25519, [5; 32])?);
    os::replace(&*disk, &note, signed.note().as_bytes())?;

    let (known, others) = (vkey.name(), [other.verifier().clone()]);
    let (notes, nobody) = ([note], other.verifier().name().to_owned());
    let asks_for = |told: (&[PathBuf], &[String]), wanted: &str| -> Result<()> {
        match suspension::resume(&*disk, &copy, told, &others) {
            Err(ResumeError::Unanswered { origin }) if origin == wanted => Ok(()),
            other => anyhow::bail!("{other:?}, wanted a note of {wanted}"),
        }
    };
    asks_for((&notes, &[]), &nobody)?;
    // A copy from before the first cosignature of the followed log.
    let file = copy.join("witness").join(origin_hex(known));
    fs::remove_file(&file)?;
    asks_for((&[], slice::from_ref(&nobody)), known)?;
    let resumed = suspension::resume(&*disk, &copy, (&notes, &[nobody]), &others)?;
    ensure!(resumed == [(known.to_owned(), signed.size())] && file.exists(), "{resumed:?}");
    node.stop().await
}
