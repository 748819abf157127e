//! Catching up from nothing, beside checking the same log on disk.

use std::{path::Path, sync::Arc, time::Duration};

use access_ledger_proto::position::Size;
use access_ledger_server::{
    custodian::{Custodian, CustodianOptions, Serving},
    folder::real_disk,
    os::{Clock, SystemClock},
};
use anyhow::ensure;
use tokio::{sync::oneshot, time::Instant};

use super::{
    args::Plan,
    child::{Child, any_port, cpu_seconds},
    fill::Filler,
    offline::check,
    report::{Ratio, Row, Section, Wanted, median},
};

/// Measures (j): what a custodian takes from its first connection until it holds the whole log,
/// verified and durable, against `check` of the ledger's folder.
pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Section>> {
    let folder = tempfile::tempdir_in(&plan.dir)?;
    let mut filler = Filler::begin(plan, folder.path())?;
    filler.grow(plan.check_entries)?;
    let entries = filler.size().0 as f64;

    let (mut checked, mut caught_up, mut processor) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        checked.push(check(folder.path())?);
        let (seconds, cpu) = catch_up(plan, folder.path(), filler.size().0)?;
        caught_up.push(seconds);
        processor.push(cpu);
    }
    let (checked, caught_up) = (median(checked), median(caught_up));
    let row = |name: &str, seconds: f64| Row {
        name: name.to_owned(),
        values: vec![entries / seconds, seconds],
    };
    Ok(vec![Section {
        id: "custodian",
        title: format!("(j) a custodian catches up with {entries} entries"),
        columns: vec!["entries/s", "seconds"],
        rows: vec![
            row("check of the ledger's folder", checked),
            row("catch-up, ledger on the same processors", caught_up),
            row("of which processor time of the custodian", median(processor)),
        ],
        ratios: vec![Ratio::new(
            "catch-up : check".to_owned(),
            checked / caught_up,
            Wanted::AtLeast(0.6),
        )],
    }])
}

/// Seconds until a new custodian, in this process, holds so many entries; and of processor time.
fn catch_up(plan: &Plan, folder: &Path, size: u64) -> anyhow::Result<(f64, f64)> {
    let (server, copy) = (Child::ledger(plan, folder)?, tempfile::tempdir_in(&plan.dir)?);
    let (disk, clock): (_, Arc<dyn Clock>) = (real_disk(), Arc::new(SystemClock));
    let options = CustodianOptions::new(copy.path(), server.vkey()?);
    let custodian = Custodian::open(options, &disk, &clock, None)?;
    let holding = custodian.holding().clone();
    let url = format!("http://{}", server.said(0)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let serving = Serving::bind(custodian, any_port()).await?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (begun, before) = (Instant::now(), cpu_seconds("self")?);
        let run =
            tokio::spawn(
                async move { serving.run(&url, async move { drop(stopped.await) }).await },
            );
        while holding.size() < Size(size) {
            ensure!(!run.is_finished(), "it stopped at {} entries", holding.size());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let cpu = cpu_seconds("self")? - before;
        drop(stop);
        run.await??;
        Ok((seconds, cpu))
    })
}
