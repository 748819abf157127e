//! Verifying everything, on disk and over the network, beside hashing the same bytes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

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
    child::ORIGIN,
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

    let (mut hashed, mut checked) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        hashed.push(log.hash()?);
        checked.push(check(folder.path())?);
    }
    let (hashed, checked) = (median(hashed), median(checked));
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
        rows: vec![row("openssl dgst -sha256, one thread", hashed), row("check", checked)],
        ratios: vec![Ratio::new(
            format!("check : {cores} x openssl"),
            hash_all / checked,
            Wanted::AtLeast(0.35),
        )],
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
fn check(folder: &Path) -> anyhow::Result<f64> {
    let disk: Arc<dyn Disk> = real_disk();
    let keys = Folder::new(folder).open_keys(&*disk)?;
    let (options, ledger) = (Options::new(folder, ORIGIN), keys.ledger.verifier());
    let begun = Instant::now();
    let report = check::check(&disk, &options, ledger, None, &|_| {})?;
    ensure!(report.problem.is_none(), "{:?}", report.problem);
    Ok(begun.elapsed().as_secs_f64())
}
