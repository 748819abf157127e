//! Catching up from nothing, beside checking the same log on disk.

use std::{sync::Arc, time::Duration};

use access_ledger_proto::position::Size;
use access_ledger_server::{
    custodian::{Custodian, CustodianOptions},
    folder::real_disk,
    os::{Clock, SystemClock},
    serve::{self, Serving},
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

    let ledger = Child::ledger(plan, folder.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        ledger.rest().await?;
        ledger.idle().await
    })?;
    let (mut checked, mut caught_up) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let before = cpu_seconds("self")?;
        let seconds = check(folder.path())?;
        checked.push([seconds, cpu_seconds("self")? - before]);
        caught_up.push(catch_up(plan, &ledger, filler.size().0)?);
    }
    let [checked, check_cpu] = medians(&checked);
    let [caught_up, own_cpu, ledger_cpu] = medians(&caught_up);
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
            row("processor time of check", check_cpu),
            row("processor time of the custodian", own_cpu),
            row("processor time of the ledger meanwhile", ledger_cpu),
        ],
        ratios: vec![
            Ratio::new("catch-up : check", checked / caught_up, Wanted::AtLeast(0.6)),
            Ratio::new(
                "catch-up : check, by processor time of the custodian",
                check_cpu / own_cpu,
                Wanted::Nothing,
            ),
            Ratio::new(
                "catch-up : check, by processor time of custodian and ledger",
                check_cpu / (own_cpu + ledger_cpu),
                Wanted::Nothing,
            ),
        ],
    }])
}

/// The median of each number.
fn medians<const N: usize>(rounds: &[[f64; N]]) -> [f64; N] {
    std::array::from_fn(|at| median(rounds.iter().filter_map(|round| round.get(at)).copied()))
}

/// Seconds until a new custodian, in this process, holds so many entries; of its processor time;
/// and of the ledger's.
fn catch_up(plan: &Plan, ledger: &Child, size: u64) -> anyhow::Result<[f64; 3]> {
    let copy = tempfile::tempdir_in(&plan.dir)?;
    let (disk, clock): (_, Arc<dyn Clock>) = (real_disk(), Arc::new(SystemClock));
    let options = CustodianOptions::new(copy.path(), ledger.vkey()?);
    let custodian = Custodian::open(options, &disk, &clock, None)?;
    let holding = custodian.holding().clone();
    let url = format!("http://{}", ledger.said(0)?);
    // As it runs by itself.
    serve::runtime(plan.server_threads)?.block_on(async {
        let serving = Serving::bind(custodian, any_port()).await?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (begun, before, served) =
            (Instant::now(), cpu_seconds("self")?, ledger.own_cpu_seconds()?);
        let run =
            tokio::spawn(
                async move { serving.run(&url, async move { drop(stopped.await) }).await },
            );
        while holding.size() < Size(size) {
            ensure!(!run.is_finished(), "it stopped at {} entries", holding.size());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let (cpu, served) = (cpu_seconds("self")? - before, ledger.own_cpu_seconds()? - served);
        drop(stop);
        run.await??;
        Ok([seconds, cpu, served])
    })
}
