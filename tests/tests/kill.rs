//! The real binary is killed under load, again and again: what it acknowledged stays where it was,
//! nothing is doubled, nothing is missing.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
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

/// The ledger under test, who records there, and what must be in it.
struct Trial {
    data: PathBuf,
    process: Process,
    random: ChaCha8Rng,
    services: Vec<Service>,
    /// Batches that were acknowledged, to be sent again.
    history: Vec<Sealed>,
    acknowledged: Acknowledged,
    audit: Audit,
}

impl Trial {
    async fn begin(folder: &Path) -> anyhow::Result<Self> {
        let data = folder.join("data");
        let process = Process::serve(&data, &FLAGS)?;
        let clients = Clients::connect(process.address).await?;
        let mut services = Vec::new();
        for number in 0..SOURCES {
            let name = format!("service-{number}");
            let source = clients.enrolled(&name, number, &process.vkey).await?;
            let random = ChaCha8Rng::seed_from_u64(SEED + number);
            let (waiting, acknowledged) = (Vec::new(), Vec::new());
            services.push(Service { source, random, waiting, acknowledged });
        }
        Ok(Self {
            data,
            random: ChaCha8Rng::seed_from_u64(SEED),
            services,
            history: Vec::new(),
            acknowledged: Acknowledged::default(),
            audit: Audit::new(&process.vkey),
            process,
        })
    }

    /// Lets all services record at once, kills the ledger in the middle of it, and starts it again.
    async fn kill(mut self) -> anyhow::Result<Self> {
        let left = AtomicUsize::new(self.random.random_range(1..150));
        let trigger = Arc::new(Trigger { left, reached: Notify::new() });
        let clients = Clients::connect(self.process.address).await?;
        let running: Vec<_> = self
            .services
            .drain(..)
            .map(|service| tokio::spawn(service.run(clients.clone(), trigger.clone())))
            .collect();
        trigger.reached.notified().await;
        self.process.kill()?;
        for service in running {
            let mut service = service.await??;
            for (sealed, place) in service.acknowledged.drain(..) {
                self.acknowledged.note(&sealed, place)?;
                self.history.push(sealed);
            }
            self.services.push(service);
        }
        self.process = Process::serve(&self.data, &FLAGS)?;
        Ok(self)
    }

    /// Verifies what is new in the log, and that all that was acknowledged is in it, at its place.
    async fn check(&mut self) -> anyhow::Result<()> {
        let clients = Clients::connect(self.process.address).await?;
        self.audit.pull(&clients).await?;
        self.acknowledged.check(&self.audit)?;
        for service in &self.services {
            // Whole batches of what waited may be there too, but nothing else.
            let name = service.source.name();
            let last_seq = clients.last_seq(name).await?;
            ensure!(last_seq == self.audit.last_seq(name), "{name}: {last_seq} is not in the log");
            let first = service.waiting.first().map_or(service.source.next_seq, Sealed::first_seq);
            let is_cut = last_seq + 1 == first
                || service.waiting.iter().any(|sealed| sealed.last_seq() == last_seq);
            ensure!(is_cut, "{name} stands at {last_seq}, inside a batch");
        }
        for _ in 0..3 {
            let sealed = self.random.random_range(0..self.history.len());
            let sealed = self.history.get(sealed).context("nothing was acknowledged")?;
            self.acknowledged.note(sealed, clients.record(sealed).await?)?;
        }
        Ok(())
    }

    /// Records what still waits, and has the stopped ledger checked.
    async fn end(mut self) -> anyhow::Result<()> {
        let clients = Clients::connect(self.process.address).await?;
        for sealed in self.services.iter().flat_map(|service| &service.waiting) {
            self.acknowledged.note(sealed, clients.record(sealed).await?)?;
        }
        self.audit.pull(&clients).await?;
        self.acknowledged.check(&self.audit)?;
        for Service { source, .. } in &self.services {
            let (last_seq, wanted) = (self.audit.last_seq(source.name()), source.next_seq - 1);
            ensure!(last_seq == wanted, "{} ends at {last_seq}, not {wanted}", source.name());
        }
        self.process.kill()?;
        let checked = run_server(&["check"], &self.data)?;
        let report = String::from_utf8_lossy(&checked.stdout).into_owned();
        ensure!(checked.status.success() && report.contains("verified"), "{report}");
        let segments = std::fs::read_dir(self.data.join("log"))?.count();
        ensure!(segments > 5, "{segments} segments: hardly a rotation was hit");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_under_load_lose_and_double_nothing() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut trial = Trial::begin(folder.path()).await?;
    for kill in 1..=KILLS {
        let place = || format!("kill {kill} of seed {SEED}");
        trial = trial.kill().await.with_context(place)?;
        trial.check().await.with_context(place)?;
    }
    trial.end().await.with_context(|| format!("seed {SEED}"))
}
