//! A service that records with a spool is killed again and again, and so is the ledger: what the
//! recorder accepted is in the log at the end, once, in order, and nothing else is.

use std::{
    io::{BufRead as _, BufReader, Lines},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use access_ledger_client::{connect, pull::Puller, verify::Scope};
use access_ledger_proto::{
    entry::Entry,
    note::{KeyType, Signer},
    position::Index,
    wire::{Event, SourceRole, event::Body},
};
use access_ledger_tests::{
    node::Clients,
    process::{Process, binaries},
};
use anyhow::{Context as _, ensure};
use prost::Message as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const SEED: u64 = 20_260_801;

const KILLS: u64 = 60;

/// The events of a life are numbered from here on.
const fn first_of(life: u64) -> u64 {
    life * 1_000_000 + 1
}

/// One life of the service: a process that records until it is killed.
struct Service {
    child: Child,
    accepted: Lines<BufReader<ChildStdout>>,
    /// The last number that it said was accepted.
    last: u64,
}

struct Setting {
    data: PathBuf,
    spool: PathBuf,
    key: Signer,
}

impl Setting {
    fn serve(&self) -> anyhow::Result<Process> {
        Process::serve(&self.data, &[])
    }

    /// A life of the service; `flags` beyond what every life has.
    fn command(&self, ledger: &Process, life: u64, batch_events: usize) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spool-recorder"));
        command.args(["--server", &format!("http://{}", ledger.address)]);
        command.args(["--ledger", &ledger.vkey.to_string(), "--key", &self.key.secret_text()]);
        command.arg("--spool").arg(&self.spool);
        command.args(["--first", &first_of(life).to_string()]);
        command.args(["--batch-events", &batch_events.to_string()]);
        command
    }

    /// Everything that the service recorded, in the order of the log.
    async fn recorded(&self, ledger: &Process) -> anyhow::Result<Vec<u64>> {
        let clients = Clients::connect(ledger.address).await?;
        let size = clients.size(&ledger.vkey).await?;
        let puller = Puller::new(clients.channel);
        let end = Index(size - 1).size_through();
        let mut records = puller.records(Index::GENESIS, end, Scope::Events);
        let mut numbers = Vec::new();
        while let Some(run) = records.next().await {
            for record in run?.1 {
                let entry = Entry::parse(&record.entry)?;
                if entry.source.as_str() == self.key.name() {
                    numbers.push(number(&record.event.unwrap_or_default())?);
                    let seq = entry.source_seq;
                    ensure!(seq == u64::try_from(numbers.len())?, "the log has number {seq} there");
                }
            }
        }
        Ok(numbers)
    }
}

/// The number in an event of the service.
fn number(event: &[u8]) -> anyhow::Result<u64> {
    let Some(Body::Access(access)) = Event::decode(event)?.body else {
        anyhow::bail!("an event that the service did not record: a gap was declared")
    };
    let dataset = access.data.first().map_or("", |data| &data.dataset);
    Ok(dataset.strip_prefix("dataset-").context("another dataset")?.parse()?)
}

impl Service {
    fn start(mut command: Command, life: u64) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        Ok(Self { child, accepted: BufReader::new(stdout).lines(), last: first_of(life) - 1 })
    }

    /// Waits until so many more events were accepted.
    fn accept(&mut self, count: u64) -> anyhow::Result<()> {
        for _ in 0..count {
            ensure!(self.next()?, "the service ended by itself behind event {}", self.last);
        }
        Ok(())
    }

    fn next(&mut self) -> anyhow::Result<bool> {
        let Some(line) = self.accepted.next() else { return Ok(false) };
        let number = line?.parse()?;
        ensure!(number == self.last + 1, "{number} was accepted behind {}", self.last);
        self.last = number;
        Ok(true)
    }

    /// Kills it; the last event that it said was accepted before.
    fn kill(mut self) -> anyhow::Result<u64> {
        self.child.kill()?;
        self.child.wait()?;
        while self.next()? {}
        Ok(self.last)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It is dead already, unless the test failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Checks what is in the log against what each life said: all of it, and at most the one event more
/// that was on its way when the kill came.
fn expect_recorded(recorded: &[u64], accepted: &[u64]) -> anyhow::Result<()> {
    let mut rest = recorded;
    for (life, &last) in (0..).zip(accepted) {
        let own = rest.iter().take_while(|&&number| number < first_of(life + 1)).count();
        let (numbers, others) = rest.split_at(own);
        let wanted = first_of(life)..first_of(life) + u64::try_from(own)?;
        ensure!(numbers.iter().copied().eq(wanted), "life {life}: {numbers:?}");
        let found = first_of(life) + u64::try_from(own)? - 1;
        ensure!((last..=last + 1).contains(&found), "life {life}: {last} accepted, {found} there");
        rest = others;
    }
    ensure!(rest.is_empty(), "nobody recorded {rest:?}");
    Ok(())
}

/// `verify --full` of the real binary.
fn verify(ledger: &Process, folder: &Path) -> anyhow::Result<()> {
    let output = Command::new(binaries()?.join("access-ledger"))
        .args(["verify", "--full", "--server", &format!("http://{}", ledger.address)])
        .args(["--ledger", &ledger.vkey.to_string()])
        .current_dir(folder)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_kills_of_a_service_lose_and_double_nothing() -> anyhow::Result<()> {
    trial().await.with_context(|| format!("seed {SEED}"))
}

async fn trial() -> anyhow::Result<()> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let folder = tempfile::tempdir()?;
    let key = Signer::new("payments", KeyType::Ed25519, [7; 32])?;
    let (data, spool) = (folder.path().join("data"), folder.path().join("spool"));
    let setting = Setting { data, spool, key };
    let mut ledger = setting.serve()?;
    let channel = Clients::connect(ledger.address).await?.channel;
    let roles = [SourceRole::Record].into_iter().collect();
    let registered =
        connect::enroll(channel, &ledger.vkey, &setting.key, roles, None, Duration::ZERO);
    registered.await?;

    let mut accepted = Vec::new();
    for life in 0..KILLS {
        let batch_events = random.random_range(1..40);
        let mut service = Service::start(setting.command(&ledger, life, batch_events), life)?;
        // Some die before they have begun.
        let count = random.random_range(0..120_u64).saturating_sub(10);
        service.accept(count / 2)?;
        // An outage of the ledger, of both kinds: the service goes on without it. A life that
        // begins without a spool needs the ledger, but it has it before.
        let outage = (count / 2 > 0).then_some(life % 8);
        match outage {
            Some(2) => ledger.kill()?,
            Some(5) => {
                ledger.terminate()?;
                ensure!(ledger.wait()?.success());
            }
            _ => {
                service.accept(count - count / 2)?;
                accepted.push(service.kill()?);
                continue;
            }
        }
        service.accept(count - count / 2)?;
        accepted.push(service.kill()?);
        ledger = setting.serve().with_context(|| format!("in life {life}"))?;
    }
    // The last life ends in order: nothing may be left in the spool.
    let last = first_of(KILLS) + 9;
    let mut ending = setting.command(&ledger, KILLS, 256);
    let output = ending.args(["--last", &last.to_string()]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    accepted.push(last);

    let recorded = setting.recorded(&ledger).await?;
    expect_recorded(&recorded, &accepted)?;
    verify(&ledger, folder.path())
}

#[test]
fn a_lost_a_doubled_and_a_strange_event_are_seen() {
    let ok = [1, 2, 1_000_001];
    assert!(expect_recorded(&ok, &[2, 1_000_001]).is_ok());
    assert!(expect_recorded(&ok, &[1, 1_000_001]).is_ok());
    for (recorded, accepted) in [
        (&[1, 1_000_001][..], [2, 1_000_001]),
        (&[1, 2, 2, 1_000_001], [2, 1_000_001]),
        (&[2, 1, 1_000_001], [2, 1_000_001]),
        (&[1, 2, 3, 1_000_001], [1, 1_000_001]),
        (&[1, 2, 1_000_001, 2_000_001], [2, 1_000_001]),
    ] {
        assert!(expect_recorded(recorded, &accepted).is_err(), "{recorded:?}");
    }
}
