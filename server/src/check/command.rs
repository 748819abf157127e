//! The subcommand: checks a stopped ledger's folder, with a progress bar, and prints what was
//! found.

use std::{io, path::Path, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use super::{CheckProgress, CheckReport, check};
use crate::{folder::Folder, os::Disk, storage::Options};

/// Verifies the ledger in `folder`; the caller holds its lock. Exit code 1 when something does not
/// hold.
///
/// # Errors
///
/// When the folder holds no ledger, or the disk refuses.
pub fn run(disk: &Arc<dyn Disk>, folder: &Path) -> anyhow::Result<ExitCode> {
    let data = Folder::new(folder);
    let ledger = data
        .ledger_key(&**disk)?
        .with_context(|| format!("folder {} holds no ledger", folder.display()))?;
    let signed = data.read_checkpoint(&**disk, &data.known_keys(&**disk, None)?);
    let signed = signed.map(|checkpoint| (checkpoint.size(), checkpoint.root()));

    let bar = ProgressBar::new(0).with_style(style());
    let options = Options::new(folder, ledger.name());
    let report = check(disk, &options, &ledger, signed, &|progress| {
        let CheckProgress { done_bytes, total_bytes } = progress;
        bar.set_length(total_bytes);
        bar.set_position(done_bytes);
    })?;
    bar.finish_and_clear();
    print(&mut io::stdout().lock(), ledger.name(), &report)?;
    Ok(if report.problem.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(out: &mut impl io::Write, origin: &str, report: &CheckReport) -> io::Result<()> {
    writeln!(out, "ledger   {origin}")?;
    if let Some(problem) = &report.problem {
        writeln!(out, "DAMAGED  {problem}")?;
        return writeln!(out, "before   {} entries hold", report.size);
    }
    writeln!(out, "entries  {} in {} sealed batches", report.size, report.batches)?;
    writeln!(out, "bytes    {}", report.bytes)?;
    if report.erased_events > 0 {
        writeln!(out, "erased   {} events", report.erased_events)?;
    }
    if report.has_torn_tail {
        writeln!(out, "tail     torn, of a group that was never acknowledged; opening cuts it")?;
    }
    writeln!(out, "verified")
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
