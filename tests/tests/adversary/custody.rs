//! What the custodian says when bytes are flipped on a disk: that of a ledger that runs, and its
//! own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use access_ledger_client::{
    audit::{AuditError, audit},
    evidence::Caught,
    pull::Puller,
    verify::Scope,
    view::View,
};
use access_ledger_proto::position::Index;
use access_ledger_server::{
    check::check,
    custodian::{alarms::AlarmKind, patrol::PatrolOptions},
    error::StorageError,
    folder::real_disk,
    os::{Clock as _, SystemClock},
    storage::Options,
};
use access_ledger_tests::{
    clock::RunningClock,
    custodian::{Keeper, Setup, until},
    hostile::options,
    node::{self, Node, ORIGIN},
    operator::SECOND,
    source::Source,
};
use anyhow::{Context as _, ensure};

use super::disk::flip_on_disk;

/// A ledger that runs, and a custodian without any grace that holds what it recorded.
struct Scene {
    folder: tempfile::TempDir,
    node: Node,
    source: Source,
    clock: Arc<RunningClock>,
    keeper: Keeper,
    /// Entries so far.
    size: u64,
}

impl Scene {
    async fn open() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let node = Node::start(&folder.path().join("ledger")).await?;
        let mut source = node.clients().enrolled("payments", 1, &node.vkey).await?;
        let place = node.clients().record(&source.record(8)?).await?;
        let clock = Arc::new(RunningClock::default());
        let keeper = Self::setup(&folder, &node, &clock).start(node.address).await?;
        let size = place.first_index + 8;
        keeper.cosigns(size).await?;
        ensure!(keeper.alarms.all().is_empty(), "{:?}", keeper.alarms.all());
        Ok(Self { folder, node, source, clock, keeper, size })
    }

    fn setup(folder: &tempfile::TempDir, node: &Node, clock: &Arc<RunningClock>) -> Setup {
        let mut setup = Setup::new(&folder.path().join("keeper"), &node.vkey);
        let round = Duration::from_millis(20);
        setup.options.patrol = PatrolOptions { round, ..PatrolOptions::default() };
        setup.clock = clock.clone();
        setup
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    /// The ledger records on, and the custodian signs that.
    async fn goes_on(&mut self) -> anyhow::Result<()> {
        let place = self.node.clients().record(&self.source.record(3)?).await?;
        self.size = place.first_index + 3;
        self.keeper.cosigns(self.size).await?;
        Ok(())
    }

    fn kinds(&self) -> Vec<(AlarmKind, Option<u64>)> {
        self.keeper.alarms.all().iter().map(|record| (record.kind, record.index)).collect()
    }
}

/// Where these bytes lie in the oldest segment of a folder.
fn find(data: &Path, bytes: &[u8]) -> anyhow::Result<u64> {
    let segment = fs::read(segment(data))?;
    let at = segment.windows(bytes.len()).position(|window| window == bytes);
    Ok(at.context("not in the segment")? as u64)
}

fn segment(data: &Path) -> PathBuf {
    data.join("log/00000000000000000000.seg")
}

/// Flips a byte of what a record on the ledger's disk holds, and back again.
async fn flipped(what: impl Fn(Vec<u8>, Vec<u8>) -> Vec<u8>) -> anyhow::Result<()> {
    let mut scene = Scene::open().await?;
    let target = scene.size - 2;
    let reader = scene.keeper.puller()?;
    let end = Index(target).size_through();
    let run =
        reader.records(Index(target), end, Scope::Events).next().await.context("no run")??;
    let record = run.1.into_iter().next().context("no record")?;
    let event = record.event.context("an event")?.to_vec();
    let needle = what(record.entry.to_vec(), event);
    let at = find(&scene.data(), &needle)? + needle.len() as u64 / 2;

    flip_on_disk(&segment(&scene.data()), at)?;
    scene.keeper.raises(AlarmKind::Withheld).await?;
    ensure!(scene.kinds() == [(AlarmKind::Withheld, Some(target))], "{:?}", scene.kinds());
    // What it holds is unharmed, and so is what it signs.
    scene.goes_on().await?;
    flip_on_disk(&segment(&scene.data()), at)?;
    let alarms = scene.keeper.alarms.clone();
    until(async || Ok(alarms.lasting().is_empty().then_some(()))).await?;
    ensure!(scene.kinds().len() == 1, "the honest twin: {:?}", scene.kinds());
    scene.keeper.stop().await?;
    scene.node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flip_a_byte_of_an_event_on_the_ledgers_disk() -> anyhow::Result<()> {
    flipped(|_, event| event).await
}

#[tokio::test(flavor = "multi_thread")]
async fn flip_a_byte_of_an_entry_on_the_ledgers_disk() -> anyhow::Result<()> {
    flipped(|entry, _| entry).await
}

/// The custodian has a tree of its own: it signs on. Auditors who have a pin are shown what no
/// honest tree gives.
#[tokio::test(flavor = "multi_thread")]
async fn flip_a_byte_of_a_tree_file_under_a_running_ledger() -> anyhow::Result<()> {
    let mut scene = Scene::open().await?;
    let mut view = View::open(&scene.folder.path().join("view.json"), &scene.node.vkey)?;
    let puller = Puller::new(scene.node.clients().channel);
    let look = async |view: &mut View| audit(&puller, view, &options(), Arc::new(|_, _| ())).await;
    look(&mut view).await?;
    flip_on_disk(&scene.data().join("tree/0"), 2 * 32 + 5)?;
    scene.goes_on().await?;
    let audited = look(&mut view).await.map(|audited| audited.checkpoint.size());
    let is_caught = match &audited {
        Err(AuditError::Caught(caught)) => {
            matches!(**caught, Caught::Inconsistent { .. } | Caught::Unproven { .. })
        }
        _ => false,
    };
    ensure!(is_caught, "{audited:?}");
    ensure!(scene.kinds().is_empty(), "{:?}", scene.kinds());
    flip_on_disk(&scene.data().join("tree/0"), 2 * 32 + 5)?;
    look(&mut view).await.context("the honest twin")?;
    scene.keeper.stop().await?;
    scene.node.stop().await
}

/// A ledger with such a segment does not start again, and that is what the custodian sees.
#[tokio::test(flavor = "multi_thread")]
async fn flip_a_byte_of_a_segment_header_and_never_come_back() -> anyhow::Result<()> {
    let scene = Scene::open().await?;
    let data = scene.data();
    scene.node.stop().await?;
    flip_on_disk(&segment(&data), 20)?;
    ensure!(node::Setup::new(&data).open().is_err(), "it must not start");
    scene.clock.set(SystemClock.now_nanos() + 200 * SECOND);
    ensure!(scene.keeper.alarms.all().is_empty(), "nobody is accused of a restart");
    scene.clock.set(SystemClock.now_nanos() + 400 * SECOND);
    let raised = scene.keeper.raises(AlarmKind::Stale).await?;
    ensure!(raised.size == scene.size && scene.keeper.alarms.all().len() == 1);
    scene.keeper.stop().await?;
    flip_on_disk(&segment(&data), 20)?;
    drop(node::Setup::new(&data).open().context("the honest twin")?);
    Ok(())
}

/// What is flipped on the custodian's own disk is named by its check; where it reads that when it
/// opens, it does not start.
#[tokio::test(flavor = "multi_thread")]
async fn flip_bytes_on_the_custodians_own_disk() -> anyhow::Result<()> {
    let mut scene = Scene::open().await?;
    let (copy, ledger) = (scene.folder.path().join("keeper"), scene.node.vkey.clone());
    let setup = Scene::setup(&scene.folder, &scene.node, &scene.clock);
    let events = scene.source.events(1);
    let event = events.first().context("an event")?.clone();
    let place = scene.node.clients().record(&scene.source.seal(events)?).await?;
    let target = Index(place.first_index);
    // What follows says that it is no torn tail.
    let place = scene.node.clients().record(&scene.source.record(2)?).await?;
    let size = scene.keeper.cosigns(place.first_index + 2).await?.size();
    scene.keeper.stop().await?;
    let checked = || -> anyhow::Result<Option<StorageError>> {
        let options = Options::new(&copy, ORIGIN);
        Ok(check(&real_disk(), &options, &ledger, None, &|_| ())?.problem)
    };
    ensure!(checked()?.is_none(), "the honest twin");
    let middle = find(&copy, &event)? + event.len() as u64 / 2;
    for (path, at, is_named) in [
        (segment(&copy), 20, "header"),
        (segment(&copy), middle, "frame"),
        (copy.join("tree/0"), 2 * 32 + 5, "tree"),
    ] {
        flip_on_disk(&path, at)?;
        let problem = checked()?;
        let holds = match is_named {
            "tree" => {
                matches!(problem, Some(StorageError::TreeDamage { level: 0, position: 2, .. }))
            }
            "header" => matches!(problem, Some(StorageError::Damage { offset: 0, .. })),
            _ => matches!(problem, Some(StorageError::Damage { index, .. }) if index == target),
        };
        ensure!(holds, "{is_named}: {problem:?}");
        flip_on_disk(&path, at)?;
    }
    let keeper = setup.start(scene.node.address).await?;
    keeper.cosigns(size.0).await?;
    ensure!(keeper.alarms.all().is_empty());
    keeper.stop().await?;
    scene.node.stop().await
}
