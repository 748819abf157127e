//! Bit rot is found wherever it is, named, and told; a sound log gives no alarm.

use std::{path::Path, sync::Arc, time::Duration};

use access_ledger_proto::position::Size;
use access_ledger_server::{
    error::StorageError,
    scrub::{Pass, ScrubOptions, Scrubber},
    storage::{self, Opened, Options},
};
use access_ledger_tests::{
    disk::{Failure, SimulatedDisk},
    history::{History, ORIGIN},
    node::Setup,
};
use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

const SEED: u64 = 7;

fn options() -> Options {
    Options { segment_bytes: 8 << 10, ..Options::new("data", ORIGIN) }
}

/// A stored history over several segments.
struct Bench {
    disk: SimulatedDisk,
    history: History,
    opened: Opened,
}

impl Bench {
    fn new(batches: usize) -> Result<Self> {
        let disk = SimulatedDisk::new(SEED);
        let opened = storage::open(Arc::new(disk.clone()), &options(), None)?;
        let history = History::new(SEED, 60, 6_000)?;
        let mut bench = Self { disk, history, opened };
        for _ in 0..batches {
            bench.commit()?;
        }
        Ok(bench)
    }

    /// Commits the next batch; false behind the last.
    fn commit(&mut self) -> Result<bool> {
        let size = self.opened.reader.size();
        Ok(self.history.commit(&mut self.opened, 1)? > size)
    }

    fn scrubber(&self) -> Scrubber {
        Scrubber::new(Arc::new(self.disk.clone()), options(), self.opened.tree.clone())
    }

    fn pass(&self) -> Pass {
        self.scrubber().pass(&mut |_| true)
    }

    /// Segments, and where the frames of the last one end in it.
    fn segments(&self) -> Vec<std::path::PathBuf> {
        let paths = self.disk.paths().into_iter();
        paths.filter(|path| path.starts_with("data/log")).collect()
    }
}

#[test]
fn a_pass_reads_all_of_a_sound_log_and_finds_nothing() -> Result<()> {
    for batches in [0, 1, 60] {
        let bench = Bench::new(batches)?;
        let pass = bench.pass();
        ensure!(pass.damage.is_empty() && !pass.is_partial, "{pass:?}");
        ensure!(pass.segments == bench.segments().len() as u64, "{pass:?}");
        let size = bench.opened.reader.size();
        let records = bench.history.records_between(Size::ZERO, size);
        let frame = |(entry, event): &(Vec<u8>, Vec<u8>)| 17 + entry.len() + event.len();
        ensure!(pass.bytes == records.iter().map(frame).sum::<usize>() as u64, "{pass:?}");
    }
    Ok(())
}

#[test]
fn a_log_that_grows_while_it_is_read_gives_no_alarm() -> Result<()> {
    let mut bench = Bench::new(10)?;
    let scrubber = bench.scrubber();
    let mut failed = None;
    let pass = scrubber.pass(&mut |_| match bench.commit() {
        Ok(_) => true,
        Err(error) => {
            failed = Some(error);
            false
        }
    });
    ensure!(failed.is_none(), "{failed:?}");
    ensure!(pass.damage.is_empty() && !pass.is_partial, "{pass:?}");
    ensure!(bench.pass().damage.is_empty());
    Ok(())
}

#[test]
fn a_flipped_bit_is_found_in_its_segment_and_nowhere_else() -> Result<()> {
    let bench = Bench::new(60)?;
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let segments = bench.segments();
    ensure!(segments.len() > 4, "{} segments", segments.len());
    for path in &segments {
        let sound = bench.disk.bytes(path).context("no segment")?;
        for _ in 0..25 {
            let mut rotten = sound.clone();
            let at = random.random_range(0..rotten.len());
            let byte = rotten.get_mut(at).context("beyond the end")?;
            *byte ^= 1 << random.random_range(0..8);
            bench.disk.tamper(path, rotten);
            let pass = bench.pass();
            let [StorageError::Damage { segment, offset, .. }] = &pass.damage[..] else {
                anyhow::bail!("{} byte {at}: {pass:?}", path.display());
            };
            ensure!(path.ends_with(format!("{:020}.seg", segment.0)), "{pass:?}");
            ensure!(*offset <= at as u64, "{pass:?}");
            ensure!(pass.segments == segments.len() as u64, "the others are read all the same");
        }
        bench.disk.tamper(path, sound);
    }
    ensure!(bench.pass().damage.is_empty());
    Ok(())
}

#[test]
fn a_flipped_bit_of_the_tree_is_found() -> Result<()> {
    let bench = Bench::new(60)?;
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let path = Path::new("data/tree/0");
    let sound = bench.disk.bytes(path).context("no tree")?;
    for _ in 0..100 {
        let mut rotten = sound.clone();
        let at = random.random_range(0..rotten.len());
        *rotten.get_mut(at).context("beyond the end")? ^= 1;
        bench.disk.tamper(path, rotten);
        let pass = bench.pass();
        let is_named = |problem: &StorageError| {
            matches!(problem, StorageError::TreeDamage { level: 0, position, .. }
                if *position == at as u64 / 32)
        };
        ensure!(pass.damage.iter().any(is_named), "byte {at}: {pass:?}");
    }
    Ok(())
}

#[test]
fn what_the_medium_does_not_give_back_is_damage_and_a_single_failed_read_is_none() -> Result<()> {
    let bench = Bench::new(60)?;
    let segments = bench.segments();
    let path = segments.get(1).context("one segment")?;
    bench.disk.set_unreadable(path, true);
    let pass = bench.pass();
    let told = matches!(&pass.damage[..], [StorageError::Io { path: found, .. }] if found == path);
    ensure!(told, "{pass:?}");
    bench.disk.set_unreadable(path, false);
    bench.disk.set_failure(Failure::Never);
    ensure!(bench.pass().damage.is_empty());
    for at in 0..bench.disk.reads() {
        bench.disk.set_failure(Failure::ReadErrorAt(at));
        let pass = bench.pass();
        ensure!(pass.damage.is_empty(), "read {at}: {pass:?}");
    }
    Ok(())
}

#[test]
fn a_pass_ends_when_it_is_told_to() -> Result<()> {
    let bench = Bench::new(60)?;
    let pass = bench.scrubber().pass(&mut |_| false);
    ensure!(pass.is_partial && pass.segments == 0 && pass.damage.is_empty(), "{pass:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_tells_its_health_of_rot_until_the_bytes_are_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut setup = Setup::new(folder.path());
    let rest = Duration::from_millis(1);
    setup.options.scrub = Some(ScrubOptions { bytes_per_second: u64::MAX, rest });
    let node = setup.start().await?;
    let clients = node.clients();
    let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
    clients.record(&source.record(40)?).await?;

    let watched = HealthCheckRequest { service: "access_ledger.v1.Storage".to_owned() };
    let watch = HealthClient::new(clients.channel.clone()).watch(watched).await?;
    let mut watch = watch.into_inner();
    let mut until = async |wanted: ServingStatus| {
        tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                let answer = watch.message().await?.context("the watch ended")?;
                if answer.status() == wanted {
                    return Ok::<_, anyhow::Error>(());
                }
            }
        })
        .await?
    };
    until(ServingStatus::Serving).await?;
    let path = folder.path().join("log/00000000000000000000.seg");
    let file = setup.disk.open(&path, access_ledger_server::os::Access::Write)?;
    let mut byte = [0];
    file.read_at(&mut byte, 300)?;
    file.write_at(&[byte[0] ^ 4], 300)?;
    until(ServingStatus::NotServing).await?;
    // It serves on, and takes appends.
    clients.record(&source.record(2)?).await?;
    file.write_at(&byte, 300)?;
    until(ServingStatus::Serving).await?;
    node.stop().await
}
