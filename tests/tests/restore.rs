//! A ledger whose backup was put back is completed from its custodian: same root, same chain,
//! nothing lost; and a log that contradicts what was cosigned is left as it is.

use std::{fs, path::Path, sync::Arc};

use access_ledger_client::evidence::{Evidence, Verdict};
use access_ledger_proto::{
    hash::Digest,
    position::{Index, Size},
};
use access_ledger_server::{
    check,
    folder::{Folder, real_disk},
    restore::{RestoreError, Restored, restore},
    storage,
};
use access_ledger_tests::{
    custodian::Keeper,
    folders,
    model::{Acknowledged, Audit},
    node::{Clients, Node},
    process::run_server,
    source::{Sealed, Source},
};
use anyhow::{Context as _, ensure};

/// A ledger with a backup that it outgrew, and a custodian that holds all of it.
struct Scene {
    folder: tempfile::TempDir,
    keeper: Keeper,
    source: Source,
    acknowledged: Acknowledged,
    audit: Audit,
    /// Recorded behind the backup.
    late: Vec<Sealed>,
    size: u64,
}

impl Scene {
    async fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (data, backup) = (folder.path().join("ledger"), folder.path().join("backup"));
        let node = Node::start(&data).await?;
        let vkey = node.vkey.clone();
        let mut source = node.clients().enrolled("payments", 1, &vkey).await?;
        let (mut acknowledged, mut audit) = (Acknowledged::default(), Audit::new(&vkey));
        for _ in 0..10 {
            let sealed = source.record(4)?;
            acknowledged.note(&sealed, node.clients().record(&sealed).await?)?;
        }
        node.stop().await?;
        folders::copy(&data, &backup)?;

        let node = Node::start(&data).await?;
        let (clients, mut late) = (node.clients(), Vec::new());
        for _ in 0..10 {
            let sealed = source.record(4)?;
            acknowledged.note(&sealed, clients.record(&sealed).await?)?;
            late.push(sealed);
        }
        let size = clients.size(&vkey).await?;
        audit.pull(&clients).await?;
        let mirror = folder.path().join("custodian");
        let keeper = Keeper::start(&mirror, &vkey, node.address).await?;
        keeper.cosigns(size).await?;
        drop(clients);
        node.stop().await?;
        fs::remove_dir_all(&data)?;
        folders::copy(&backup, &data)?;
        Ok(Self { folder, keeper, source, acknowledged, audit, late, size })
    }

    async fn restore(&self) -> Result<Restored, RestoreError> {
        let puller = self.keeper.puller().map_err(|_| RestoreError::CutOff)?;
        let data = self.folder.path().join("ledger");
        restore(&real_disk(), &data, &puller, (None, &self.keeper.vkeys), |_, _| {}).await
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("ledger")
    }
}

/// Verifies everything that the stopped ledger has on disk: size and root under its checkpoint.
fn check_folder(data: &Path) -> anyhow::Result<(Size, Digest)> {
    let disk: Arc<_> = real_disk();
    let folder = Folder::new(data);
    let ledger = folder.ledger_key(&*disk)?.context("a ledger")?;
    let note = fs::read(data.join("checkpoint"))?;
    let signed = access_ledger_proto::checkpoint::VerifiedCheckpoint::open(&note, &ledger, &[])?;
    let known = (signed.size(), signed.root());
    let options = storage::Options::new(data, ledger.name());
    let report = check::check(&disk, &options, &ledger, Some(known), &|_| {})?;
    ensure!(report.problem.is_none() && report.size == known.0, "{report:?}");
    Ok(known)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_completed_to_the_same_root_and_the_chain_goes_on() -> anyhow::Result<()> {
    let mut scene = Scene::new().await?;
    let data = scene.data();
    let (old, _) = check_folder(&data)?;
    let restored = scene.restore().await?;
    let root = scene.audit.root_at(Size(scene.size))?;
    ensure!(restored.local == old && restored.size == Size(scene.size), "{restored:?}");
    ensure!(restored.root == root, "another root");
    ensure!(check_folder(&data)? == (Size(scene.size), root));
    ensure!(scene.restore().await?.local == Size(scene.size), "again: nothing is missing");

    let node = Node::start(&data).await?;
    let clients = node.clients();
    ensure!(clients.size(&node.vkey).await? == scene.size);
    for sealed in &scene.late {
        scene.acknowledged.note(sealed, clients.record(sealed).await?).context("the same place")?;
    }
    let sealed = scene.source.record(4)?;
    scene.acknowledged.note(&sealed, clients.record(&sealed).await?)?;
    // The audit saw the log before: it goes on with the same chain.
    scene.audit.pull(&clients).await?;
    scene.acknowledged.check(&scene.audit)?;

    let Scene { folder, keeper, size, .. } = scene;
    keeper.stop().await?;
    let keeper = Keeper::start(&folder.path().join("custodian"), &node.vkey, node.address).await?;
    keeper.cosigns(size + 4).await?;
    ensure!(keeper.alarms.all().is_empty(), "{:?}", keeper.alarms.all());
    keeper.stop().await?;
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_went_on_from_the_backup_is_refused_and_left_as_it_is() -> anyhow::Result<()> {
    let mut scene = Scene::new().await?;
    let data = scene.data();
    // The guard was switched off: the ledger signs a second history.
    let node = Node::start(&data).await?;
    let clients: Clients = node.clients();
    let mut other = clients.enrolled("other", 7, &node.vkey).await?;
    let vkey = node.vkey.clone();
    for batches in [2, 30] {
        for _ in 0..batches {
            clients.record(&other.record(2)?).await?;
        }
        let size = clients.size(&vkey).await?;
        let copy = scene.folder.path().join(format!("copy-{batches}"));
        access_ledger_tests::custodian::until(async || {
            let note = fs::read(data.join("checkpoint"))?;
            Ok(String::from_utf8_lossy(&note).contains(&format!("\n{size}\n")).then_some(()))
        })
        .await?;
        folders::copy(&data, &copy)?;
        let puller = scene.keeper.puller()?;
        let disk = real_disk();
        let before = fs::read(copy.join("log/00000000000000000000.seg"))?;
        let refused = restore(&disk, &copy, &puller, (None, &[]), |_, _| {}).await;
        let Err(RestoreError::Contradiction { local, cosigned, evidence, .. }) = refused else {
            anyhow::bail!("{refused:?}");
        };
        ensure!((local, cosigned) == (Size(size), Size(scene.size)), "{local} {cosigned}");
        let after = fs::read(copy.join("log/00000000000000000000.seg"))?;
        ensure!(after == before, "the log was changed");
        let text = fs::read_to_string(evidence.context("the ledger signed both")?)?;
        let verdict = Evidence::parse(text.as_bytes())?.judge(&[])?;
        ensure!(matches!(verdict, Verdict::Proven(_)), "{verdict:?}");
    }
    drop(clients);
    node.stop().await?;
    scene.source.record(1)?;
    scene.keeper.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_named_custodian_cosigned_is_restored() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let data = scene.data();
    let stranger = access_ledger_proto::note::Signer::new(
        "stranger",
        access_ledger_proto::note::KeyType::CosignatureV1,
        [7; 32],
    )?;
    let puller = scene.keeper.puller()?;
    let keys = [stranger.verifier().clone()];
    let before = check_folder(&data)?;
    let refused = restore(&real_disk(), &data, &puller, (None, &keys), |_, _| {}).await;
    ensure!(matches!(refused, Err(RestoreError::NotCosigned { .. })), "{refused:?}");
    ensure!(check_folder(&data)? == before, "nothing was restored");

    // A local log that is damaged is mended before more is put behind it.
    let segment = data.join("log/00000000000000000000.seg");
    let mut bytes = fs::read(&segment)?;
    let at = 600;
    *bytes.get_mut(at).context("a segment")? ^= 1;
    overwrite(&segment, &bytes)?;
    let restored = scene.restore().await?;
    ensure!(restored.mended.segments == [Index(0)], "{restored:?}");
    let kept = fs::read(data.join("evidence/00000000000000000000.seg.damaged"))?;
    ensure!(kept == bytes, "what was left is not kept");
    let root = scene.audit.root_at(Size(scene.size))?;
    ensure!(check_folder(&data)? == (Size(scene.size), root));
    scene.keeper.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_what_it_restored() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let (data, address) = (scene.data(), scene.keeper.address);
    let [witness, mirror] = scene.keeper.vkeys.clone().map(|key| key.to_string());
    let output = tokio::task::spawn_blocking(move || {
        let from = format!("http://{address}");
        let flags = ["--custodian", &witness, "--custodian", &mirror, "--from", &from];
        let arguments = [&["--log", "error", "restore"][..], &flags].concat();
        run_server(&arguments, &data)
    })
    .await??;
    let told = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(told.contains("restored    40 entries"), "{told}");
    ensure!(told.contains(&scene.audit.root_at(Size(scene.size))?.to_string()), "{told}");
    scene.keeper.stop().await
}

#[expect(clippy::disallowed_methods, reason = "damage need not be durable")]
fn overwrite(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    Ok(fs::write(path, bytes)?)
}
