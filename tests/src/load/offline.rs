//! Verifying everything, on disk and over the network, beside hashing the same bytes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use access_ledger_client::{
    audit::{AuditOptions, audit},
    pull::Puller,
    verify::Scope,
    view::View,
};
use access_ledger_proto::quorum::Quorum;
use access_ledger_server::{
    check,
    folder::{Folder, real_disk},
    os::Disk,
    storage::Options,
};
use anyhow::ensure;
use tokio::time::Instant;

use super::{
    args::Plan,
    child::{Child, ORIGIN},
    fill::Filler,
    report::{Ratio, Row, Section, Wanted, median},
};

/// Measures (c): what verifying takes, against `openssl dgst -sha256` of the log.
pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Section>> {
    let folder = tempfile::tempdir_in(&plan.dir)?;
    let mut filler = Filler::begin(plan, folder.path())?;
    filler.grow(plan.check_entries)?;
    let log = Log::of(folder.path())?;
    let entries = filler.size().0 as f64;

    let (mut hashed, mut checked, mut audited) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        hashed.push(log.hash()?);
        checked.push(check(folder.path())?);
        audited.push(audit_all(plan, folder.path())?);
    }
    let (hashed, checked, audited) = (median(hashed), median(checked), median(audited));
    let row = |name: &str, seconds: f64| Row {
        name: name.to_owned(),
        values: vec![entries / seconds, log.bytes / seconds / 1e6],
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let hash_all = hashed / cores as f64;
    Ok(vec![Section {
        id: "check",
        title: format!("(c) verifying {entries} entries, {:.0} MB of log", log.bytes / 1e6),
        columns: vec!["entries/s", "MB/s"],
        rows: vec![
            row("openssl dgst -sha256, one thread", hashed),
            row("check", checked),
            row("verify --full, over the network", audited),
        ],
        ratios: vec![
            Ratio::new(
                format!("check : {cores} x openssl"),
                hash_all / checked,
                Wanted::AtLeast(0.35),
            ),
            Ratio::new(
                format!("verify --full : {cores} x openssl"),
                hash_all / audited,
                Wanted::AtLeast(0.175),
            ),
        ],
    }])
}

/// The segments.
struct Log {
    files: Vec<PathBuf>,
    bytes: f64,
}

impl Log {
    fn of(folder: &Path) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        let mut bytes = 0;
        for file in fs::read_dir(folder.join("log"))? {
            let file = file?;
            bytes += file.metadata()?.len();
            files.push(file.path());
        }
        Ok(Self { files, bytes: bytes as f64 })
    }

    /// Seconds that openssl takes for all of it, in one thread.
    fn hash(&self) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let mut openssl = Command::new("openssl");
        let status =
            openssl.args(["dgst", "-sha256"]).args(&self.files).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "openssl: {status}");
        Ok(begun.elapsed().as_secs_f64())
    }
}

/// Seconds that `check` takes.
pub(super) fn check(folder: &Path) -> anyhow::Result<f64> {
    let disk: Arc<dyn Disk> = real_disk();
    let keys = Folder::new(folder).open_keys(&*disk)?;
    let (options, ledger) = (Options::new(folder, ORIGIN), keys.ledger.verifier());
    let begun = Instant::now();
    let report = check::check(&disk, &options, ledger, None, &|_| {})?;
    ensure!(report.problem.is_none(), "{:?}", report.problem);
    Ok(begun.elapsed().as_secs_f64())
}

/// Seconds that an audit of everything takes, with a server of its own: what `verify --full` runs.
fn audit_all(plan: &Plan, folder: &Path) -> anyhow::Result<f64> {
    let (server, pinned) = (Child::ledger(plan, folder)?, tempfile::tempdir_in(&plan.dir)?);
    let mut view = View::open(&pinned.path().join("view"), &server.vkey()?)?;
    let options = AuditOptions { scope: Scope::Events, full: true, quorum: Quorum::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let puller = Puller::new(server.connect().await?);
        let begun = Instant::now();
        let _audited = audit(&puller, &mut view, &options, Arc::new(|_, _| {})).await?;
        Ok(begun.elapsed().as_secs_f64())
    })
}
