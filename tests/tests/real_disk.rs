//! The real binary on real disks that fail: full, too small, unable to write or to read, read-only.
//! Each gets the promised answer, and nothing that was acknowledged is lost.
//!
//! Small file systems are mounted, which takes a privileged user: without, a test says that it did
//! nothing. One whose medium fails lies, by way of a loop device, on a disk that is too small for
//! it: then the kernel reports real errors of the medium, when it writes back and when it reads.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use access_ledger_proto::wire;
use access_ledger_tests::{
    model::{Acknowledged, Audit},
    node::Clients,
    process::{Process, run_server},
    source::{Refused, Sealed, Source},
};
use anyhow::{Context as _, Result, ensure};
use tonic::Code;

/// A file system of its own; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where this machine does not allow to mount.
    fn mount(what: &Path, options: &str, folder: &Path) -> Result<Option<Self>> {
        std::fs::create_dir_all(folder)?;
        let kind: &[&str] = if what.is_file() { &[] } else { &["-t", "tmpfs"] };
        let mount =
            Command::new("mount").args(kind).args(["-o", options]).args([what, folder]).output();
        Ok(mount.is_ok_and(|mount| mount.status.success()).then(|| Self(folder.to_owned())))
    }

    /// In memory, so large.
    fn small(mib: u32, folder: &Path) -> Result<Option<Self>> {
        Self::mount(Path::new("tmpfs"), &format!("size={mib}m"), folder)
    }

    /// Changes how it is mounted.
    fn remount(&self, options: &str) -> Result<()> {
        let options = format!("remount,{options}");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.0).status()?;
        ensure!(done.success(), "cannot remount");
        Ok(())
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: the process on it may have just ended.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// Records batches of about half a megabyte until the ledger refuses one.
async fn fill(
    clients: &Clients,
    source: &mut Source,
    acknowledged: &mut Acknowledged,
) -> Result<(Sealed, Refused)> {
    for _ in 0..500 {
        let sealed = source.record(2_000)?;
        match clients.append(&sealed).await {
            Ok(answer) => acknowledged.note(&sealed, sealed.place(&answer)?)?,
            Err(status) => return Ok((sealed, Refused::of(&status))),
        }
    }
    anyhow::bail!("a small disk took 500 large batches")
}

async fn audit_of(process: &Process, acknowledged: &Acknowledged) -> Result<Clients> {
    let clients = Clients::connect(process.address).await?;
    let mut audit = Audit::new(&process.vkey);
    audit.pull(&clients).await?;
    acknowledged.check(&audit)?;
    Ok(clients)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_disk_that_runs_full_loses_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(disk) = Mounted::small(48, folder.path())? else { return say_skipped() };
    let data = disk.path().join("data");
    // Up to the reserve: refused before the disk is full, and again taken once there is space.
    let ballast = disk.path().join("ballast");
    Command::new("dd")
        .args(["if=/dev/zero", "bs=1M", "count=8", "status=none"])
        .arg(format!("of={}", ballast.display()))
        .status()?;
    let flags = ["--reserve-mib", "16", "--segment-mib", "4"];
    let process = Process::serve(&data, &flags)?;
    let clients = Clients::connect(process.address).await?;
    let mut source = clients.enrolled("payments", 1, &process.vkey).await?;
    let mut acknowledged = Acknowledged::default();
    let (waiting, refused) = fill(&clients, &mut source, &mut acknowledged).await?;
    assert_eq!(refused.kind(), (Code::Unavailable, "DISK_FULL"));
    audit_of(&process, &acknowledged).await?;
    std::fs::remove_file(&ballast)?;
    acknowledged.note(&waiting, clients.record(&waiting).await?)?;
    drop(clients);
    process.terminate()?;
    ensure!(process.wait()?.success(), "did not stop in order");

    // Without a reserve: a write fails, and from then on nothing is taken.
    let flags = ["--reserve-mib", "0", "--segment-mib", "4"];
    let process = Process::serve(&data, &flags)?;
    let clients = audit_of(&process, &acknowledged).await?;
    let (waiting, refused) = fill(&clients, &mut source, &mut acknowledged).await?;
    assert_eq!(refused.kind(), (Code::Unavailable, "STORAGE_FAILED"));
    audit_of(&process, &acknowledged).await?;
    drop(clients);
    process.kill()?;

    // More space and a restart: all is there, and what was refused is recorded.
    disk.remount("size=96m")?;
    goes_on(&data, &waiting, &mut acknowledged).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_write_that_is_refused_ends_appends_and_loses_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let process = Process::serve_within(folder.path(), 8 << 10, &[])?;
    let clients = Clients::connect(process.address).await?;
    let mut source = clients.enrolled("payments", 1, &process.vkey).await?;
    let mut acknowledged = Acknowledged::default();
    let (waiting, refused) = fill(&clients, &mut source, &mut acknowledged).await?;
    assert_eq!(refused.kind(), (Code::Unavailable, "STORAGE_FAILED"));
    let again = Refused::of(&clients.append(&waiting).await.err().context("was taken")?);
    assert_eq!(again.kind(), (Code::Unavailable, "STORAGE_FAILED"));
    drop(audit_of(&process, &acknowledged).await?);
    drop(clients);
    process.kill()?;
    goes_on(folder.path(), &waiting, &mut acknowledged).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_medium_that_fails_to_write_and_to_read_is_told_and_loses_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(store) = Mounted::small(24, &folder.path().join("store"))? else {
        return say_skipped();
    };
    let image = store.path().join("image");
    std::fs::File::create(&image)?.set_len(256 << 20)?;
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).status();
    if !made.is_ok_and(|made| made.success()) {
        return say_skipped();
    }
    // Errors are to reach the process, and not to end the file system.
    let options = "loop,errors=continue";
    let Some(disk) = Mounted::mount(&image, options, &folder.path().join("disk"))? else {
        return say_skipped();
    };
    let data = disk.path().join("data");
    let flags = ["--reserve-mib", "0", "--segment-mib", "4"];
    let process = Process::serve(&data, &flags)?;
    let clients = Clients::connect(process.address).await?;
    let mut source = clients.enrolled("payments", 1, &process.vkey).await?;
    let mut acknowledged = Acknowledged::default();
    // The file system believes that there is space, and its medium does not take it: EIO.
    let (waiting, refused) = fill(&clients, &mut source, &mut acknowledged).await?;
    assert_eq!(refused.kind(), (Code::Unavailable, "STORAGE_FAILED"));
    drop(audit_of(&process, &acknowledged).await?);
    drop(clients);
    process.kill()?;
    // A larger medium, and a restart of the machine.
    drop(disk);
    store.remount("size=256m")?;
    let Some(_disk) = Mounted::mount(&image, options, &folder.path().join("disk"))? else {
        anyhow::bail!("cannot mount it again");
    };
    goes_on(&data, &waiting, &mut acknowledged).await?;

    // A medium that has lost what it was given: the entries are told as damaged, and no others.
    let process = Process::serve(&data, &flags)?;
    let clients = audit_of(&process, &acknowledged).await?;
    std::fs::File::options().write(true).open(&image)?.set_len(1 << 20)?;
    drop_caches(&data)?;
    let read = wire::ReadEntriesRequest { end_index: 5, with_events: true, ..Default::default() };
    let status = match clients.auditor.clone().read_entries(read).await {
        Ok(stream) => stream.into_inner().message().await.err().context("was read")?,
        Err(status) => status,
    };
    assert_eq!(Refused::of(&status).kind(), (Code::DataLoss, "STORAGE_DAMAGED"));
    process.kill()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_read_only_is_told_at_the_start_and_serves_when_it_is_not() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(disk) = Mounted::small(48, folder.path())? else { return say_skipped() };
    let data = disk.path().join("data");
    let process = Process::serve(&data, &["--reserve-mib", "0"])?;
    let clients = Clients::connect(process.address).await?;
    let mut source = clients.enrolled("payments", 1, &process.vkey).await?;
    let mut acknowledged = Acknowledged::default();
    let sealed = source.record(20)?;
    acknowledged.note(&sealed, clients.record(&sealed).await?)?;
    drop(clients);
    process.terminate()?;
    ensure!(process.wait()?.success(), "did not stop in order");
    disk.remount("ro")?;
    let told = run_server(&["serve", "--listen", "127.0.0.1:0"], &data)?;
    let said = String::from_utf8_lossy(&told.stderr);
    ensure!(told.status.code() == Some(2) && said.contains("Read-only"), "{told:?}");
    disk.remount("rw")?;
    goes_on(&data, &source.record(3)?, &mut acknowledged).await
}

/// Serves again: all is there, and what was refused is recorded.
async fn goes_on(data: &Path, waiting: &Sealed, acknowledged: &mut Acknowledged) -> Result<()> {
    let process = Process::serve(data, &["--segment-mib", "4", "--reserve-mib", "0"])?;
    let clients = audit_of(&process, acknowledged).await?;
    acknowledged.note(waiting, clients.record(waiting).await?)?;
    drop(audit_of(&process, acknowledged).await?);
    drop(clients);
    process.terminate()?;
    ensure!(process.wait()?.success(), "did not stop in order");
    Ok(())
}

/// Has what is read next come from the medium.
fn drop_caches(data: &Path) -> Result<()> {
    for file in std::fs::read_dir(data.join("log"))? {
        let file = std::fs::File::open(file?.path())?;
        rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a test that does nothing says so")]
#[expect(clippy::unnecessary_wraps, reason = "ends a test")]
fn say_skipped() -> Result<()> {
    eprintln!("skipped: this machine does not allow to mount a small file system");
    Ok(())
}
