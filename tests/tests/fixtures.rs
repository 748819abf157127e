//! Folders of every format version that was released open, verify and go on; a newer one is
//! refused by its version, untouched.
//!
//! `FIXTURE_TO=<folder>` writes the folders of the current version, a ledger's and that of its
//! custodian, to be checked in when the format changes:
//! `cargo test --workspace --test fixtures writes`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use access_ledger_client::{
    folder::Folder as Copy,
    verify::{LogVerifier, Scope},
};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    note::VerifierKey,
    position::Size,
    wire::{self, event::Body},
    witness::origin_hex,
};
use access_ledger_server::{
    backup::{BackupOptions, backup},
    check,
    custodian::suspension,
    error::LedgerError,
    folder::{Folder, real_disk},
    os::{self, Access},
};
use access_ledger_tests::{
    custodian::Keeper,
    folders,
    model::Audit,
    node::{Node, Setup},
    parties::{Governance, access, approve, request},
    source::Source,
};
use anyhow::{Context as _, Result, ensure};

/// The folders, by format version.
fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// A copy of this folder that a test may change.
fn copied(name: &str) -> Result<tempfile::TempDir> {
    let copy = tempfile::tempdir()?;
    folders::copy(&fixtures().join(name), copy.path())?;
    // git keeps no modes, and keys are for their owner alone.
    use std::os::unix::fs::PermissionsExt as _;
    for key in fs::read_dir(copy.path().join("keys"))? {
        fs::set_permissions(key?.path(), fs::Permissions::from_mode(0o600))?;
    }
    Ok(copy)
}

/// Verifies a folder as its owner and as an auditor; how many entries it holds.
async fn verified(folder: &Path) -> Result<u64> {
    let owned = folder.to_owned();
    let code = tokio::task::spawn_blocking(move || check::run(&real_disk(), &owned)).await??;
    ensure!(code == ExitCode::SUCCESS, "check");
    let vkey = Folder::new(folder).ledger_key(&*real_disk())?.context("no ledger")?;
    let copy = Copy::new(folder, &vkey);
    let checkpoint = VerifiedCheckpoint::open(&copy.checkpoint()?, &vkey, &[])?;
    let mut records = copy.records(checkpoint.size())?;
    let mut verifier = LogVerifier::new(&vkey, Scope::Events);
    while let Some(run) = records.next_run()? {
        verifier.advance(vec![run])?;
    }
    verifier.finish(&checkpoint)?;
    Ok(checkpoint.size().0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_version_1_opens_verifies_and_goes_on() -> Result<()> {
    let folder = copied("format-1")?;
    let before = verified(folder.path()).await?;
    ensure!(before == FIXTURE_ENTRIES, "{before} entries");
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut audit = Audit::new(&node.vkey);
    audit.pull(&clients).await?;
    assert_eq!(audit.last_seq("payments"), 12);
    // The source goes on where it stood: its key and its numbers are in the fixture.
    let mut source = Source::new("payments", 1, &node.vkey)?;
    source.next_seq = 13;
    clients.record(&source.record(3)?).await?;
    audit.pull(&clients).await?;
    assert_eq!(audit.last_seq("payments"), 15);
    drop(clients);
    node.stop().await?;
    ensure!(verified(folder.path()).await? > before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custodians_folder_of_version_1_opens_and_remembers_what_it_signed() -> Result<()> {
    let folder = copied("format-1-custodian")?;
    let held = verified(folder.path()).await?;
    ensure!(held == FIXTURE_ENTRIES, "{held} entries");
    let (disk, data) = (real_disk(), folder.path().to_owned());
    let vkey = Folder::new(&data).followed(&*disk)?.context("follows nobody")?;
    // As always, a copy with keys signs nothing before it is told what it signed last.
    let signed = data.join("signed");
    fs::copy(data.join("witness").join(origin_hex(vkey.name())), &signed)?;
    let resumed = suspension::resume(&*disk, &data, (&[signed], &[]), &[])?;
    assert_eq!(resumed, [(vkey.name().to_owned(), Size(FIXTURE_ENTRIES))]);
    let ledger = copied("format-1")?;
    let node = Node::start(ledger.path()).await?;
    let keeper = Keeper::start(&data, &vkey, node.address).await?;
    let mut source = Source::new("payments", 1, &vkey)?;
    source.next_seq = 13;
    node.clients().record(&source.record(3)?).await?;
    keeper.cosigns(FIXTURE_ENTRIES + 3).await?;
    ensure!(keeper.alarms.all().is_empty(), "{:?}", keeper.alarms.all());
    keeper.stop().await?;
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_folder_is_refused_by_its_version_and_left_as_it_is() -> Result<()> {
    let folder = copied("format-1")?;
    let meta = folder.path().join("meta.toml");
    let newer = "format_version = 2\norigin = \"x\"\n\n[what-nobody-knows]\nyet = true\n";
    os::replace(&*real_disk(), &meta, newer.as_bytes())?;
    let refused = Setup::new(folder.path()).open().map(drop);
    let Err(error @ LedgerError::FormatVersion { found: 2, known: 1, .. }) = refused else {
        anyhow::bail!("{refused:?}");
    };
    let told = error.to_string();
    ensure!(told.contains("meta.toml") && told.contains("version 2"), "{told}");
    assert_eq!(fs::read_to_string(&meta)?, newer);

    let folder = copied("format-1")?;
    let segment = folder.path().join("log/00000000000000000000.seg");
    let file = real_disk().open(&segment, Access::Write)?;
    let mut header = [0; 64];
    file.read_at(&mut header, 0)?;
    header[11] = 2;
    let crc = crc32c::crc32c(&header[..60]).to_be_bytes();
    header[60..].copy_from_slice(&crc);
    file.write_at(&header, 0)?;
    let refused = Setup::new(folder.path()).open().map(drop);
    let told = refused.err().context("opened")?.to_string();
    ensure!(told.contains("segment format 2, known is 1"), "{told}");
    Ok(())
}

/// Entries of `format-1`.
const FIXTURE_ENTRIES: u64 = 16;

#[tokio::test(flavor = "multi_thread")]
async fn writes_the_folder_of_this_version_when_asked() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut setup = Setup::new(folder.path());
    setup.options.segment_bytes = 4 << 10;
    let node = setup.start().await?;
    let vkey = node.vkey.clone();
    tell(&node, folder.path(), &vkey).await?;
    let custodian = tempfile::tempdir()?;
    let keeper = Keeper::start(custodian.path(), &vkey, node.address).await?;
    keeper.cosigns(FIXTURE_ENTRIES).await?;
    keeper.stop().await?;
    node.stop().await?;
    let temporary = tempfile::tempdir()?;
    let to = std::env::var_os("FIXTURE_TO").map(PathBuf::from);
    let to = to.unwrap_or_else(|| temporary.path().to_owned());
    for (from, name) in [(folder.path(), "format-1"), (custodian.path(), "format-1-custodian")] {
        let to = to.join(name);
        let options = BackupOptions { from: from.to_owned(), to: to.clone(), with_keys: true };
        let report = tokio::task::spawn_blocking(move || backup(&real_disk(), &options)).await??;
        ensure!(report.problem.is_none(), "{report:?}");
        assert_eq!(verified(&to).await?, FIXTURE_ENTRIES);
    }
    Ok(())
}

/// What the fixture holds: the founding, sources, a dataset, a grant, accesses under it.
async fn tell(node: &Node, folder: &Path, vkey: &VerifierKey) -> Result<()> {
    let clients = node.clients();
    let mut source = clients.enrolled("payments", 1, vkey).await?;
    let mut governance = Governance::of(folder, vkey)?;
    let mut approver = Source::new("security/lead", 2, vkey)?;
    governance.register_approver(&clients, &approver).await?;
    let asked = source.event(request("R-1", "accounts"));
    let requested = source.seal(vec![asked])?;
    clients.record(&requested).await?;
    let answer = approver.event(approve("R-1", 5));
    let approved = approver.seal(vec![answer])?;
    clients.record(&approved).await?;
    let reads = (0..3).map(|_| source.now(access("accounts", "R-1", wire::Outcome::Allowed)));
    let reads = reads.collect();
    let sealed = source.seal(reads)?;
    clients.record(&sealed).await?;
    let heartbeat = wire::SourceStatus {
        phase: wire::SourcePhase::Heartbeat.into(),
        source: "payments".to_owned(),
        ..Default::default()
    };
    let alive = source.event(Body::SourceStatus(heartbeat));
    clients.record(&source.seal(vec![alive])?).await?;
    clients.record(&source.record(7)?).await?;
    Ok(())
}
