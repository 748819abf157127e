//! Opening a ledger, what it then holds in memory, and what it takes on disk.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use access_ledger_server::{
    demo::half_year::ACCESS_LEN,
    folder::real_disk,
    ledger::{Ledger, LedgerOptions},
    os::{Clock, SystemClock},
};
use tokio::time::Instant;

use super::{
    args::{FolderArgs, Plan},
    child::{self, Child},
    fill::Filler,
    report::{Ratio, Row, Section, Wanted, median},
};

/// Opening reads the last segment and the last block of the index, so it depends on how full those
/// are. A ledger is opened at so many sizes, so far apart, that they cover a whole segment and two
/// blocks.
const STEPS: u64 = 8;
const STEP_ENTRIES: u64 = 16_384;

/// Measures (d) and (e): opening at growing sizes, and bytes on disk.
pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Section>> {
    let folder = tempfile::tempdir_in(&plan.dir)?;
    let mut filler = Filler::begin(plan, folder.path())?;
    let mut rows = Vec::new();
    let mut opened = Vec::new();
    let mut usage = Vec::new();
    for &entries in &plan.open_entries {
        let measured = open_around(plan, folder.path(), &mut filler, entries)?;
        let name = format!("{} entries", filler.size());
        rows.push(Row { name: name.clone(), values: vec![measured.ms, measured.mb] });
        opened.push(measured);
        let (values, ratio) = on_disk(folder.path(), &filler, &name)?;
        usage.push((Row { name, values }, ratio));
    }
    let mut ratios = Vec::new();
    for (pair, entries) in opened.windows(2).zip(plan.open_entries.windows(2)) {
        let ([small, large], [few, many]) = (pair, entries) else { continue };
        let grown = |what: &str, ratio| {
            Ratio::new(format!("{what}, {many} : {few}"), ratio, Wanted::AtMost(1.2))
        };
        ratios.push(grown("time", large.ms / small.ms));
        ratios.push(grown("memory", large.mb / small.mb));
    }
    let opening = Section {
        id: "open",
        title: format!("(d) opening, median over {STEPS} sizes that cover a segment"),
        columns: vec!["ms", "RSS MB"],
        rows,
        ratios,
    };
    let (rows, ratios) = usage.into_iter().unzip();
    let disk = Section {
        id: "disk",
        title: format!("(e) bytes on disk an event of {ACCESS_LEN} B"),
        columns: vec!["log", "tree", "index", "all"],
        rows,
        ratios,
    };
    Ok(vec![opening, disk])
}

struct Opening {
    ms: f64,
    mb: f64,
}

fn open_around(
    plan: &Plan,
    folder: &Path,
    filler: &mut Filler,
    entries: u64,
) -> anyhow::Result<Opening> {
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for step in 0..STEPS {
        filler.grow(entries + step * STEP_ENTRIES)?;
        // The first one brings the index up to the log, which is the follower's work, not opening.
        let _indexed = Child::open(plan, folder)?;
        for _ in 0..plan.rounds.min(3) {
            let child = Child::open(plan, folder)?;
            times.push(child.said(0)?.parse()?);
            memory.push(child.said(1)?.parse()?);
        }
    }
    Ok(Opening { ms: median(times), mb: median(memory) })
}

/// Opens the ledger, and says how many milliseconds that took and how many megabytes it holds.
pub(super) fn probe(args: &FolderArgs) -> anyhow::Result<()> {
    let (disk, clock): (_, Arc<dyn Clock>) = (real_disk(), Arc::new(SystemClock));
    let begun = Instant::now();
    let ledger = Ledger::open(&LedgerOptions::new(&args.data), &disk, &clock, None)?;
    let ms = 1_000.0 * begun.elapsed().as_secs_f64();
    child::say(&format!("{ms} {}", child::resident_mb("self")?))?;
    ledger.close();
    Ok(())
}

fn on_disk(folder: &Path, filler: &Filler, name: &str) -> anyhow::Result<(Vec<f64>, Ratio)> {
    let entries = filler.size().0 as f64;
    let parts = ["log", "tree", "index"].map(|part| disk_bytes(&folder.join(part)));
    let mut values = Vec::new();
    for part in parts {
        values.push(part? as f64 / entries);
    }
    let all: f64 = values.iter().sum();
    values.push(all);
    let beyond = all - filler.event_bytes() as f64 / entries;
    let name = format!("beyond the event, {name}");
    Ok((values, Ratio::new(name, beyond, Wanted::AtMost(260.0))))
}

/// What a folder takes on the disk, blocks that are not full included.
fn disk_bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for item in fs::read_dir(folder)? {
        let item = item?;
        let metadata = item.metadata()?;
        bytes +=
            if metadata.is_dir() { disk_bytes(&item.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
