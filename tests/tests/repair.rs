//! Damage anywhere in a stored log is mended from who else holds it: the same bytes under the same
//! root, what was erased stays erased, and whoever lies, or holds too little, changes nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use access_ledger_client::{
    connect,
    pull::{Patience, Puller},
    verify::Scope,
};
use access_ledger_proto::{
    hash::Digest,
    note::VerifierKey,
    position::{Index, Size},
    wire::{self, event::Body},
};
use access_ledger_server::{
    check,
    os::{Disk, RealDisk},
    restore::{RestoreError, Restored, restore},
    storage::Options,
};
use access_ledger_tests::{
    custodian::{self, Keeper, until},
    disk::{Failure, Restart, SimulatedDisk},
    node::{Node, ORIGIN, Setup},
    parties::Governance,
};
use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const SEED: u64 = 11;

const DATA: &str = "data";

/// A stopped ledger of several segments, of which two events were erased, and its custodian.
struct Scene {
    folder: tempfile::TempDir,
    setup: Setup,
    custodian: custodian::Setup,
    keeper: Keeper,
    vkey: VerifierKey,
    size: Size,
    root: Digest,
}

impl Scene {
    async fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("ledger");
        let mut setup = Setup::new(&data);
        setup.options.segment_bytes = 4 << 10;
        let node = setup.start().await?;
        let (vkey, clients) = (node.vkey.clone(), node.clients());
        let mut source = clients.enrolled("payments", 1, &vkey).await?;
        let mut custodian = custodian::Setup::new(&folder.path().join("custodian"), &vkey);
        custodian.options.segment_bytes = 4 << 10;
        let keeper = custodian.start(node.address).await?;
        // What it is given at once is in one segment: so little by little.
        for _ in 0..4 {
            for _ in 0..3 {
                clients.record(&source.record(4)?).await?;
            }
            keeper.holds(clients.size(&vkey).await?).await?;
        }
        let mut governance = Governance::of(&data, &vkey)?;
        let legal_basis = "request of a data subject".to_owned();
        let (first_index, last_index) = (ERASED.0, ERASED.0 + 1);
        let mut redaction =
            wire::Redaction { first_index, last_index, legal_basis, ..Default::default() };
        governance.sign(&mut redaction);
        let event = governance.company.event(Body::Redaction(redaction));
        let redaction = clients.record(&governance.company.seal(vec![event])?).await?;
        clients.record(&source.record(3)?).await?;

        let size = clients.size(&vkey).await?;
        let root = keeper.cosigns(size).await?.root();
        for puller in [Puller::new(clients.channel.clone()), keeper.puller()?] {
            until(async || {
                let mut records = puller.records(ERASED, Size(ERASED.0 + 2), Scope::Events);
                let run = records.next().await.context("no records")??;
                Ok(run.1.iter().all(|record| record.event.is_none()).then_some(()))
            })
            .await?;
        }
        // Its note of that is as new.
        until(async || {
            let noted = fs::read_to_string(data.join("erased.toml"))?;
            let noted: toml::Table = noted.parse()?;
            let done = noted.get("size").and_then(toml::Value::as_integer).unwrap_or_default();
            let is_done = u64::try_from(done)? > redaction.first_index;
            Ok((is_done && !noted.contains_key("under_way")).then_some(()))
        })
        .await?;
        drop(clients);
        node.stop().await?;
        Ok(Self { folder, setup, custodian, keeper, vkey, size: Size(size), root })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    /// The ledger's folder on a simulated disk.
    fn loaded(&self) -> Result<SimulatedDisk> {
        let disk = SimulatedDisk::new(SEED);
        let root = self.data();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for file in fs::read_dir(&folder)? {
                let path = file?.path();
                match path.is_dir() {
                    true if path.ends_with("index") => {}
                    true => folders.push(path),
                    false => {
                        let target = Path::new(DATA).join(path.strip_prefix(&root)?);
                        disk.create(&target)?.write_at(&fs::read(&path)?, 0)?;
                    }
                }
            }
        }
        Ok(disk.copy(SEED))
    }

    async fn restore(&self, disk: &SimulatedDisk) -> Result<Restored, RestoreError> {
        let puller = self.keeper.puller().map_err(|_| RestoreError::CutOff)?;
        self.restore_from(disk, &puller).await
    }

    async fn restore_from(
        &self,
        disk: &SimulatedDisk,
        puller: &Puller,
    ) -> Result<Restored, RestoreError> {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        restore(&disk, Path::new(DATA), puller, (None, &[]), |_, _| {}).await
    }

    /// That all is there, verified, and nothing that was erased; and nothing beside it.
    fn check(&self, disk: &SimulatedDisk) -> Result<()> {
        ensure!(drafts(disk).is_empty(), "{:?}", drafts(disk));
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let known = Some((self.size, self.root));
        let report = check::check(&disk, &Options::new(DATA, ORIGIN), &self.vkey, known, &|_| {})?;
        ensure!(report.problem.is_none() && report.size == self.size, "{report:?}");
        ensure!(report.erased_events == 2, "{report:?}");
        Ok(())
    }
}

/// The first of two events that were erased.
const ERASED: Index = Index(9);

fn segments(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let paths = disk.paths().into_iter();
    paths.filter(|path| path.starts_with("data/log")).collect()
}

fn drafts(disk: &SimulatedDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.starts_with("data/mending")).collect()
}

/// What happens to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// One bit, so many bytes from the start, or from the end where that is negative.
    Flip(i64),
    /// Zeros from here on, as long as a sector.
    Sector(usize),
    Shortened,
    Unreadable,
    Gone,
}

impl Damage {
    fn inflict(self, disk: &SimulatedDisk, path: &Path) -> Result<()> {
        let mut bytes = disk.bytes(path).context("no file")?;
        match self {
            Self::Flip(at) => {
                let length = i64::try_from(bytes.len())?;
                let at = usize::try_from(at.rem_euclid(length))?;
                *bytes.get_mut(at).context("beyond the end")? ^= 4;
            }
            Self::Sector(at) => {
                let end = (at + 512).min(bytes.len());
                bytes.get_mut(at.min(end)..end).context("beyond the end")?.fill(0);
            }
            Self::Shortened => bytes.truncate(bytes.len() / 2),
            Self::Unreadable => disk.set_unreadable(path, true),
            Self::Gone => {
                disk.remove(path)?;
                disk.sync_dir(path.parent().context("no folder")?)?;
                return Ok(());
            }
        }
        disk.tamper(path, bytes);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_is_damaged_anyhow_is_mended_and_what_was_left_of_it_is_kept() -> Result<()>
{
    let scene = Scene::new().await?;
    let base = scene.loaded()?;
    scene.check(&base)?;
    ensure!(scene.restore(&base).await?.mended.segments.is_empty(), "mended a sound log");
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let all = segments(&base);
    ensure!(all.len() > 3, "{} segments", all.len());
    let (last, full) = all.split_last().context("no segment")?;
    for path in full {
        let length = base.bytes(path).context("no file")?.len();
        let mut kinds = vec![Damage::Flip(13), Damage::Flip(50), Damage::Flip(-3)];
        kinds.extend([Damage::Shortened, Damage::Unreadable, Damage::Gone]);
        for _ in 0..3 {
            kinds.push(Damage::Flip(random.random_range(64..i64::try_from(length)?)));
            kinds.push(Damage::Sector(random.random_range(0..length)));
        }
        for damage in kinds {
            let disk = base.copy(SEED);
            damage.inflict(&disk, path)?;
            let told = || format!("{damage:?} of {}", path.display());
            ensure!(scene.check(&disk).is_err(), "{}: not damaged", told());
            let rotten = disk.bytes(path);
            let restored = scene.restore(&disk).await.with_context(told)?;
            ensure!(restored.mended.segments.len() == 1, "{}: {restored:?}", told());
            ensure!((restored.size, restored.root) == (scene.size, scene.root), "{restored:?}");
            scene.check(&disk).with_context(told)?;
            let name = path.file_name().context("no name")?.to_string_lossy().into_owned();
            let kept = disk.bytes(&Path::new("data/evidence").join(name + ".damaged"));
            ensure!(kept.as_ref().map(Vec::len) == rotten.as_ref().map(Vec::len), "{}", told());
            if !matches!(damage, Damage::Unreadable) {
                ensure!(kept == rotten, "{}", told());
            }
            let again = scene.restore(&disk).await?;
            ensure!(again.mended.segments.is_empty() && !again.mended.rebuilds_tree, "{again:?}");
        }
    }
    // The last one may also end too early: that is pulled as always.
    for damage in [Damage::Flip(13), Damage::Flip(200), Damage::Shortened, Damage::Gone] {
        let disk = base.copy(SEED);
        damage.inflict(&disk, last)?;
        scene.restore(&disk).await.with_context(|| format!("{damage:?} of the last"))?;
        scene.check(&disk)?;
    }
    scene.keeper.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn any_part_of_the_log_is_mended_at_once_and_so_is_the_tree() -> Result<()> {
    let scene = Scene::new().await?;
    let base = scene.loaded()?;
    let all = segments(&base);
    // Every other one, all, and all with the tree.
    for (step, is_tree_damaged) in [(2, false), (1, false), (1, true)] {
        let disk = base.copy(SEED);
        let damaged: Vec<_> = all.iter().step_by(step).collect();
        for path in &damaged {
            Damage::Flip(100).inflict(&disk, path)?;
        }
        if is_tree_damaged {
            Damage::Flip(40).inflict(&disk, Path::new("data/tree/0"))?;
        }
        let restored = scene.restore(&disk).await?;
        ensure!(restored.mended.segments.len() == damaged.len(), "{restored:?}");
        scene.check(&disk)?;
    }
    for damage in [Damage::Flip(3), Damage::Flip(700), Damage::Shortened, Damage::Gone] {
        let disk = base.copy(SEED);
        damage.inflict(&disk, Path::new("data/tree/0"))?;
        let restored = scene.restore(&disk).await?;
        ensure!(restored.mended.segments.is_empty(), "{restored:?}");
        ensure!(restored.mended.rebuilds_tree, "{damage:?}: {restored:?}");
        scene.check(&disk)?;
    }
    scene.keeper.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_erased_is_looked_at_once_more_when_its_frames_came_from_elsewhere() -> Result<()>
{
    let scene = Scene::new().await?;
    let disk = scene.loaded()?;
    let path = Path::new("data/erased.toml");
    let text = |disk: &SimulatedDisk| -> Result<String> {
        Ok(String::from_utf8(disk.bytes(path).context("no note")?)?)
    };
    ensure!(!text(&disk)?.contains("size = 0\n"), "{}", text(&disk)?);
    let current = Path::new("data/index/current");
    disk.create(current)?.write_at(b"4\n", 0)?;
    Damage::Gone.inflict(&disk, segments(&disk).first().context("no segment")?)?;
    scene.restore(&disk).await?;
    ensure!(text(&disk)?.contains("size = 0\n"), "{}", text(&disk)?);
    ensure!(disk.bytes(current) == Some(b"5\n".to_vec()), "the index stands as it was");
    scene.check(&disk)?;
    // And when they were pulled behind the end.
    let disk = scene.loaded()?;
    Damage::Gone.inflict(&disk, segments(&disk).last().context("no segment")?)?;
    ensure!(scene.restore(&disk).await?.local < scene.size);
    ensure!(text(&disk)?.contains("size = 0\n"), "{}", text(&disk)?);
    scene.check(&disk)?;
    // Where an erased event was, zeros that rot say nothing, but are no zeros.
    let disk = scene.loaded()?;
    let zeros = |path: &PathBuf| -> Option<i64> {
        let bytes = disk.bytes(path)?;
        let at = bytes.windows(40).position(|some| some.iter().all(|&byte| byte == 0))?;
        i64::try_from(at).ok()
    };
    let all = segments(&disk);
    let (segment, at) =
        all.iter().find_map(|path| Some((path, zeros(path)?))).context("nothing erased")?;
    Damage::Flip(at + 20).inflict(&disk, segment)?;
    ensure!(scene.check(&disk).is_err(), "not damaged");
    scene.restore(&disk).await?;
    scene.check(&disk)?;
    scene.keeper.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_at_any_operation_leaves_a_log_that_the_next_attempt_mends() -> Result<()> {
    let scene = Scene::new().await?;
    let base = scene.loaded()?;
    for path in segments(&base).iter().skip(1).take(2) {
        Damage::Flip(300).inflict(&base, path)?;
    }
    Damage::Flip(70).inflict(&base, Path::new("data/tree/0"))?;
    let disk = base.copy(SEED);
    scene.restore(&disk).await?;
    let operations = disk.operations();
    ensure!(operations > 20, "{operations} operations");
    for at in 0..operations {
        for restart in [Restart::Killed, Restart::PowerLost] {
            let disk = base.copy(SEED ^ at << 8);
            disk.set_failure(Failure::StopAt(at));
            let stopped = scene.restore(&disk).await;
            ensure!(stopped.is_err() || !disk.is_stopped(), "{stopped:?}");
            disk.restart(restart);
            let told = || format!("seed {SEED}, operation {at}, {restart:?}");
            scene.restore(&disk).await.with_context(told)?;
            scene.check(&disk).with_context(told)?;
        }
    }
    for at in 0..operations {
        let disk = base.copy(SEED ^ at << 8);
        disk.set_failure(Failure::FullAt(at));
        let full = scene.restore(&disk).await;
        disk.set_failure(Failure::Never);
        scene.restore(&disk).await.with_context(|| format!("full at {at}: {full:?}"))?;
        scene.check(&disk)?;
    }
    scene.keeper.stop().await
}

/// All files of the log and the tree.
fn stored(disk: &SimulatedDisk) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let paths = disk.paths().into_iter();
    let paths = paths.filter(|path| path.starts_with("data/log") || path.starts_with("data/tree"));
    paths.map(|path| (path.clone(), disk.bytes(&path))).collect()
}

fn puller(node: &Node) -> Result<Puller> {
    let patience = Patience::default();
    Ok(Puller::new(connect::channel(&format!("http://{}", node.address))?).with_patience(patience))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_too_little_or_another_history_changes_nothing() -> Result<()> {
    let scene = Scene::new().await?;
    // Two ledgers from one backup: one stands still, the other one goes on as another history.
    let (old, other) = (scene.folder.path().join("old"), scene.folder.path().join("other"));
    let (mut behind, mut forked) = (scene.setup.clone(), scene.setup.clone());
    (behind.options.folder, forked.options.folder) = (old.clone(), other.clone());
    for copy in [&old, &other] {
        copy_beginning(&scene, copy)?;
    }
    let (behind, forked) = (behind.start().await?, forked.start().await?);
    let mut source = forked.clients().enrolled("another", 5, &scene.vkey).await?;
    forked.clients().record(&source.record(300)?).await?;

    let all = segments(&scene.loaded()?);
    let disk = scene.loaded()?;
    Damage::Flip(100).inflict(&disk, all.get(all.len() - 2).context("few segments")?)?;
    let before = stored(&disk);
    let refused = scene.restore_from(&disk, &puller(&behind)?).await;
    ensure!(matches!(refused, Err(RestoreError::Beyond { .. })), "{refused:?}");
    ensure!(drafts(&disk).is_empty(), "events are left where no redaction reaches them");
    ensure!(stored(&disk) == before, "changed what cannot be mended");

    // A footer is mended from what is left, whoever holds however little.
    let disk = scene.loaded()?;
    Damage::Flip(-3).inflict(&disk, all.get(all.len() - 2).context("few segments")?)?;
    scene.restore_from(&disk, &puller(&behind)?).await?;
    scene.check(&disk)?;

    // Without its end the ledger would go on as another one.
    let disk = scene.loaded()?;
    Damage::Gone.inflict(&disk, all.last().context("no segment")?)?;
    let before = stored(&disk);
    let refused = scene.restore_from(&disk, &puller(&behind)?).await;
    ensure!(matches!(refused, Err(RestoreError::Lost { .. })), "{refused:?}");
    ensure!(stored(&disk) == before, "cut what cannot be restored");

    let disk = scene.loaded()?;
    Damage::Flip(100).inflict(&disk, all.first().context("no segment")?)?;
    let before = stored(&disk);
    let refused = scene.restore_from(&disk, &puller(&forked)?).await;
    let Err(RestoreError::Contradiction { evidence: Some(evidence), .. }) = refused else {
        anyhow::bail!("{refused:?}");
    };
    ensure!(disk.bytes(&evidence).is_some(), "no evidence");
    ensure!(stored(&disk) == before, "took another history");
    // The same without a checkpoint to compare with: the whole log convicts.
    disk.remove(Path::new("data/checkpoint"))?;
    let refused = scene.restore_from(&disk, &puller(&forked)?).await;
    ensure!(
        matches!(refused, Err(RestoreError::Contradiction { .. } | RestoreError::Copy(_))),
        "{refused:?}"
    );
    ensure!(stored(&disk) == before, "took another history");
    behind.stop().await?;
    forked.stop().await?;
    scene.keeper.stop().await
}

/// A backup of the first half of the ledger: its first segments, and no checkpoint.
fn copy_beginning(scene: &Scene, to: &Path) -> Result<()> {
    let data = scene.data();
    let mut logs: Vec<_> =
        fs::read_dir(data.join("log"))?.map(|file| Ok(file?.file_name())).collect::<Result<_>>()?;
    logs.sort();
    let mut files: Vec<_> =
        logs.iter().take(logs.len() / 2).map(|name| Path::new("log").join(name)).collect();
    files.push("meta.toml".into());
    files.extend(
        ["ledger", "source", "company", "custodian"]
            .map(|key| Path::new("keys").join(format!("{key}.key"))),
    );
    for file in files {
        let target = to.join(&file);
        RealDisk.create_dir(target.parent().context("no folder")?)?;
        fs::copy(data.join(&file), &target)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custodian_mends_its_copy_from_the_ledger_and_cosigns_on() -> Result<()> {
    let scene = Scene::new().await?;
    let Scene { folder, setup, custodian, keeper, vkey, size, root } = scene;
    let data = folder.path().join("custodian");
    keeper.stop().await?;
    let mut names: Vec<_> = fs::read_dir(data.join("log"))?
        .map(|file| Ok(file?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    let name = names.get(names.len() / 2).context("few segments")?;
    let segment = data.join("log").join(name);
    let mut bytes = fs::read(&segment)?;
    // Of an entry: without one of its events it starts, and its scrub tells.
    *bytes.get_mut(100).context("a short segment")? ^= 1;
    access_ledger_server::os::replace(&RealDisk, &segment, &bytes)?;
    let left = |data: &Path| data.join("mending/00000000000000000000.seg");
    for data in [setup.options.folder.as_path(), &data] {
        RealDisk.create_dir(&data.join("mending"))?;
        RealDisk.create(&left(data))?.write_at(b"events of a restore that was stopped", 0)?;
    }
    let node = setup.start().await?;
    ensure!(custodian.start(node.address).await.is_err(), "took a damaged copy");
    ensure!(!left(&setup.options.folder).exists() && !left(&data).exists());
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let restored = restore(&disk, &data, &puller(&node)?, (None, &[]), |_, _| {}).await?;
    let damaged = name.trim_end_matches(".seg").parse()?;
    ensure!(restored.mended.segments == [Index(damaged)], "{restored:?}");
    ensure!((restored.size, restored.root) == (size, root), "{restored:?}");
    let mut source = node.clients().enrolled("late", 9, &vkey).await?;
    node.clients().record(&source.record(2)?).await?;
    let keeper = custodian.start(node.address).await?;
    keeper.cosigns(size.0 + 2).await?;
    ensure!(keeper.alarms.all().is_empty(), "{:?}", keeper.alarms.all());
    keeper.stop().await?;
    node.stop().await
}
