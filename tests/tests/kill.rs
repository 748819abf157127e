//! The real binary is killed under load, again and again: what it acknowledged stays where it was,
//! nothing is doubled, nothing is missing.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use access_ledger_tests::{
    model::{Acknowledged, Audit},
    node::Clients,
    process::{Process, run_server},
    source::{Place, Sealed, Source},
};
use anyhow::{Context as _, ensure};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;

const SEED: u64 = 20_260_731;

const KILLS: u32 = 50;

const SOURCES: u64 = 4;

/// Small segments, so that kills hit rotations too.
const FLAGS: [&str; 2] = ["--segment-mib", "1"];

/// A service: its source, and what it has not had a receipt for.
struct Service {
    source: Source,
    random: ChaCha8Rng,
    waiting: Vec<Sealed>,
    acknowledged: Vec<(Sealed, Place)>,
}

/// Counts acknowledgements of all services, and says when there were enough.
struct Trigger {
    left: AtomicUsize,
    reached: Notify,
}

impl Trigger {
    fn count(&self) {
        // Wraps after zero, and never comes back to it.
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.reached.notify_one();
        }
    }
}

impl Service {
    /// Repeats what waits and sends more, pipelined, until the connection breaks.
    async fn run(mut self, clients: Clients, trigger: Arc<Trigger>) -> anyhow::Result<Self> {
        while self.waiting.len() < 120 {
            let count = self.random.random_range(1..20);
            let sealed = self.source.record(count)?;
            self.waiting.push(sealed);
        }
        let requests: Vec<_> = self.waiting.iter().map(Sealed::request).collect();
        // The stream stays open when all is sent: only the kill ends it.
        let requests =
            tokio_stream::StreamExt::chain(tokio_stream::iter(requests), tokio_stream::pending());
        let Ok(answers) = clients.recorder.clone().append_stream(requests).await else {
            return Ok(self);
        };
        let mut answers = answers.into_inner();
        let mut done = 0;
        for sealed in &self.waiting {
            match answers.message().await {
                Ok(Some(answer)) => {
                    let place = sealed.place(&answer)?;
                    self.acknowledged.push((sealed.clone(), place));
                    done += 1;
                    trigger.count();
                }
                Ok(None) => anyhow::bail!("the stream ended although the server ran"),
                Err(status) => {
                    ensure!(killed(&status), "{status:?}");
                    break;
                }
            }
        }
        self.waiting.drain(..done);
        Ok(self)
    }
}

/// Whether the connection broke, rather than the ledger refused.
fn killed(status: &tonic::Status) -> bool {
    use tonic::Code::{Cancelled, Internal, Unavailable, Unknown};
    let refused = access_ledger_tests::source::Refused::of(status);
    refused.reason.is_empty()
        && matches!(status.code(), Cancelled | Internal | Unavailable | Unknown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_under_load_lose_and_double_nothing() -> anyhow::Result<()> {
    println!("seed {SEED}");
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let mut process = Process::serve(&data, &FLAGS)?;
    let mut audit = Audit::new(&process.vkey);
    let mut acknowledged = Acknowledged::default();
    let mut services = Vec::new();
    let clients = Clients::connect(process.address).await?;
    for number in 0..SOURCES {
        let source = clients.enrolled(&format!("service-{number}"), number, &process.vkey).await?;
        let random = ChaCha8Rng::seed_from_u64(SEED + number);
        services.push(Service { source, random, waiting: Vec::new(), acknowledged: Vec::new() });
    }
    let mut history: Vec<Sealed> = Vec::new();
    for kill in 1..=KILLS {
        let left = AtomicUsize::new(random.random_range(1..150));
        let trigger = Arc::new(Trigger { left, reached: Notify::new() });
        let clients = Clients::connect(process.address).await?;
        let running: Vec<_> = services
            .drain(..)
            .map(|service| tokio::spawn(service.run(clients.clone(), trigger.clone())))
            .collect();
        trigger.reached.notified().await;
        process.kill()?;
        for service in running {
            let mut service = service.await??;
            for (sealed, place) in service.acknowledged.drain(..) {
                acknowledged.note(&sealed, place)?;
                history.push(sealed);
            }
            services.push(service);
        }

        process = Process::serve(&data, &FLAGS).with_context(|| format!("after kill {kill}"))?;
        let clients = Clients::connect(process.address).await?;
        audit.pull(&clients).await.with_context(|| format!("after kill {kill}"))?;
        acknowledged.check(&audit).with_context(|| format!("after kill {kill}"))?;
        for service in &services {
            // Whole batches of what waited may be there too, but nothing else.
            let name = service.source.name();
            let last_seq = clients.last_seq(name).await?;
            assert_eq!(last_seq, audit.last_seq(name));
            let first = service.waiting.first().map_or(1, Sealed::first_seq);
            let is_cut = last_seq + 1 == first
                || service.waiting.iter().any(|sealed| sealed.last_seq() == last_seq);
            assert!(is_cut, "{name} stands at {last_seq} after kill {kill}");
        }
        for _ in 0..3 {
            let sealed = &history[random.random_range(0..history.len())];
            acknowledged.note(sealed, clients.record(sealed).await?)?;
        }
    }
    // What still waits is recorded once the ledger runs again, and only once.
    let clients = Clients::connect(process.address).await?;
    for service in &services {
        for sealed in &service.waiting {
            acknowledged.note(sealed, clients.record(sealed).await?)?;
        }
    }
    audit.pull(&clients).await?;
    acknowledged.check(&audit)?;
    process.kill()?;

    let checked = run_server(&["check"], &data)?;
    let report = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success() && report.contains("verified"), "{report}");
    let segments = std::fs::read_dir(data.join("log"))?.count();
    assert!(segments > 5, "{segments} segments: no rotation was hit");
    println!(
        "{} batches, {} entries, {segments} segments",
        acknowledged.len(),
        audit.entries.len()
    );
    Ok(())
}
