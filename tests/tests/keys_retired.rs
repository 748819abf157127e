//! The ledger's former key is given up for good: backups, custodians and views from before that go
//! on with the new one, as the log itself tells; with a key that the log never named nobody does.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use access_ledger_client::{
    audit::{AuditError, AuditOptions, Audited, audit},
    evidence::Caught,
    pull::Puller,
    verify::{Fault, Scope},
    view::{View, ViewError},
};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    note::{KeyType, Signer, VerifierKey},
    quorum::Quorum,
    wire::{ControlKind, event::Body},
};
use access_ledger_server::{
    backup::{BackupOptions, backup},
    check::check,
    custodian::alarms::AlarmKind,
    demo::tamper::Seized,
    folder::{Folder, Purpose, real_disk},
    restore::{RestoreError, restore},
    storage::Options,
};
use access_ledger_tests::{
    custodian::{Keeper, until},
    folders,
    hostile::{Hostile, Server},
    node::Node,
    parties::{Governance, ledger_key},
};
use anyhow::{Context as _, Result, ensure};

/// A ledger with a custodian that followed it for a while.
struct Scene {
    folder: tempfile::TempDir,
    node: Node,
    old: VerifierKey,
    governance: Governance,
}

impl Scene {
    async fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let node = Node::start(&folder.path().join("ledger")).await?;
        let old = node.vkey.clone();
        let governance = Governance::of(&folder.path().join("ledger"), &old)?;
        let scene = Self { folder, node, old, governance };
        scene.record("payments", 1).await?;
        let keeper =
            Keeper::start(&scene.path("custodian"), &scene.old, scene.node.address).await?;
        keeper.cosigns(scene.node.clients().size(&scene.old).await?).await?;
        keeper.stop().await?;
        Ok(scene)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn record(&self, name: &str, seed: u64) -> Result<()> {
        let clients = self.node.clients();
        let mut source = clients.enrolled(name, seed, &self.node.vkey).await?;
        clients.record(&source.record(5)?).await?;
        Ok(())
    }

    /// Has another key take the place of the ledger's, and the file of the old one removed.
    async fn retire(mut self) -> Result<(Self, VerifierKey)> {
        let data = self.path("ledger");
        let next = Folder::new(&data).next_key(&*real_disk(), Purpose::Ledger)?;
        let content = ledger_key(&next);
        let change = self.governance.change(ControlKind::LedgerKey, "", 1, content);
        let event = self.governance.company.event(Body::ControlChange(change));
        let sealed = self.governance.company.seal(vec![event])?;
        self.node.clients().record(&sealed).await?;
        self.node.stop().await?;
        fs::remove_file(data.join("keys/ledger.key"))?;
        self.node = Node::start(&data).await?;
        let new = next.verifier().clone();
        assert_eq!(self.node.vkey, new);
        self.record("support", 2).await?;
        Ok((self, new))
    }

    fn puller(&self) -> Puller {
        Puller::new(self.node.clients().channel)
    }

    /// A key of the ledger's name that its log does not name.
    fn stranger(&self) -> Result<Signer> {
        Ok(Signer::new(self.old.name(), KeyType::Ed25519, [5; 32])?)
    }

    /// The ledger's log, signed with another key.
    async fn signed_by(&self, key: Signer) -> Result<Server> {
        let copy = self.path("seized");
        folders::copy(&self.path("ledger"), &copy)?;
        let name = |name: &str| copy.join("keys").join(name);
        let log = match name("ledger.key").exists() {
            true => Seized::read(&copy)?,
            false => {
                let file = format!("ledger-{}.key", self.node.vkey.id());
                fs::copy(name(&file), name("ledger.key"))?;
                Seized::read(&copy)?
            }
        };
        Server::start(Hostile::new(Seized { key, ..log }.serve()?)).await
    }

    async fn audit(&self, view: &mut View) -> Result<Audited, AuditError> {
        audit(&self.puller(), view, &options(Scope::Events), Arc::new(|_, _| ())).await
    }
}

fn options(scope: Scope) -> AuditOptions {
    AuditOptions { scope, full: false, quorum: Quorum::default() }
}

/// Starts a custodian whose folder is that of a former key, and waits until the log has told it
/// that this one took its place.
async fn moved(data: &Path, new: &VerifierKey, ledger: SocketAddr) -> Result<Keeper> {
    let keeper = Keeper::start(data, new, ledger).await?;
    let moved = async || {
        let followed = Folder::new(data).followed(&*real_disk())?;
        Ok(followed.filter(|followed| followed == new))
    };
    until(moved).await.with_context(|| format!("{:?}", keeper.alarms.all()))?;
    Ok(keeper)
}

async fn copied(from: &Path, to: &Path) -> Result<()> {
    let options = BackupOptions { from: from.to_owned(), to: to.to_owned(), with_keys: false };
    let report = tokio::task::spawn_blocking(move || backup(&real_disk(), &options)).await??;
    ensure!(report.problem.is_none(), "{report:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_from_before_is_restored_with_the_new_key_and_serves_again() -> Result<()> {
    let scene = Scene::new().await?;
    let (data, backup) = (scene.path("ledger"), scene.path("backup"));
    copied(&data, &backup).await?;
    let (bare, disk) = (scene.path("bare"), real_disk());
    folders::copy(&backup, &bare)?;
    let (scene, new) = scene.retire().await?;
    let keeper = moved(&scene.path("custodian"), &new, scene.node.address).await?;
    let size = keeper.cosigns(scene.node.clients().size(&new).await?).await?.size();
    scene.node.stop().await?;

    // What is kept of the keys are those that are in use.
    fs::create_dir_all(backup.join("keys"))?;
    for name in [format!("ledger-{}.key", new.id()), "source.key".to_owned()] {
        let (from, to) = (data.join("keys").join(&name), backup.join("keys").join(&name));
        fs::copy(from, to)?;
    }
    let puller = keeper.puller()?;
    let restored = restore(&disk, &backup, &puller, (None, &keeper.vkeys), |_, _| {}).await?;
    ensure!(restored.local < size && restored.size == size, "{restored:?}");
    // Without any, the key has to be told.
    let refused = restore(&disk, &bare, &puller, (None, &[]), |_, _| {}).await;
    ensure!(matches!(refused, Err(RestoreError::Checkpoint(_))), "{refused:?}");
    let other = Signer::new("another.example", KeyType::Ed25519, [5; 32])?;
    let refused = restore(&disk, &bare, &puller, (Some(other.verifier()), &[]), |_, _| {}).await;
    ensure!(matches!(refused, Err(RestoreError::Folder(_))), "{refused:?}");
    restore(&disk, &bare, &puller, (Some(&new), &[]), |_, _| {}).await?;
    for folder in [&backup, &bare] {
        // Who reads it finds the key that has signed it.
        let found = Folder::new(folder).ledger_key(&*disk)?.context("a ledger")?;
        assert_eq!(found, new);
        let note = fs::read(folder.join("checkpoint"))?;
        let signed = VerifiedCheckpoint::open(&note, &found, &[])?;
        let known = Some((signed.size(), signed.root()));
        let options = Options::new(folder, new.name());
        let report = check(&disk, &options, &found, known, &|_| {})?;
        ensure!(report.problem.is_none() && report.size == size, "{report:?}");
    }

    let node = Node::start(&backup).await?;
    ensure!(node.clients().size(&new).await? == size.0);
    let mut source = node.clients().enrolled("search", 3, &new).await?;
    node.clients().record(&source.record(2)?).await?;
    // And can be copied again.
    copied(&backup, &scene.folder.path().join("again")).await?;
    node.stop().await?;
    keeper.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custodian_that_was_down_meanwhile_goes_on_with_the_new_key() -> Result<()> {
    let scene = Scene::new().await?;
    let custodian = scene.path("custodian");
    let copy = scene.path("copy");
    copied(&custodian, &copy).await?;
    let (scene, new) = scene.retire().await?;
    let size = scene.node.clients().size(&new).await?;
    let followed = |data: &Path| Folder::new(data).followed(&*real_disk());

    // A key that the log never named: it is not followed, and nothing is forgotten.
    let stranger = scene.stranger()?;
    let keeper = Keeper::start(&custodian, stranger.verifier(), scene.node.address).await?;
    keeper.raises(AlarmKind::CheckpointInvalid).await?;
    keeper.stop().await?;
    assert_eq!(followed(&custodian)?, Some(scene.old.clone()));
    // Not even where the whole log is signed with it.
    let lied_to = scene.path("lied-to");
    folders::copy(&custodian, &lied_to)?;
    let server = scene.signed_by(scene.stranger()?).await?;
    let keeper = Keeper::start(&lied_to, stranger.verifier(), server.address).await?;
    let alarm = keeper.raises(AlarmKind::LogInvalid).await?;
    ensure!(alarm.message.contains("with the key"), "{}", alarm.message);
    keeper.stop().await?;
    assert_eq!(followed(&lied_to)?, Some(scene.old.clone()));

    // One that was down, and one that was put back.
    for data in [&custodian, &copy] {
        let keeper = moved(data, &new, scene.node.address).await?;
        keeper.cosigns(size).await?;
        let halting = [AlarmKind::Fork, AlarmKind::Rollback, AlarmKind::LogInvalid];
        ensure!(!keeper.alarms.all().iter().any(|alarm| halting.contains(&alarm.kind)));
        keeper.stop().await?;
    }
    // Again, from what it remembers.
    let keeper = Keeper::start(&custodian, &new, scene.node.address).await?;
    scene.record("search", 3).await?;
    keeper.cosigns(size + 5).await?;
    keeper.stop().await?;
    scene.node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_from_before_goes_on_with_the_new_key_and_with_no_other() -> Result<()> {
    let scene = Scene::new().await?;
    let path = scene.path("view");
    let pinned = scene.audit(&mut View::open(&path, &scene.old)?).await?.checkpoint.size();
    let (scene, new) = scene.retire().await?;
    let before = fs::read(&path)?;

    let stranger = scene.stranger()?;
    let server = scene.signed_by(scene.stranger()?).await?;
    let mut view = View::open(&path, stranger.verifier())?;
    match server.audit(&mut view).await {
        Err(AuditError::Caught(caught)) => match *caught {
            Caught::Log { violation, .. } => {
                let what = violation.what;
                ensure!(matches!(what, Fault::ForeignGenesis { .. }), "{what}");
            }
            other => anyhow::bail!("{other}"),
        },
        other => anyhow::bail!("{other:?}"),
    }
    // Entries alone do not tell whose key it is.
    let entries_only = options(Scope::EntriesOnly);
    let mut view = View::open(&path, &new)?;
    let refused = audit(&scene.puller(), &mut view, &entries_only, Arc::new(|_, _| ())).await;
    let is_other = matches!(refused, Err(AuditError::View(ViewError::OtherLedger { .. })));
    ensure!(is_other, "{refused:?}");
    ensure!(fs::read(&path)? == before, "moved the pin");

    let audited = scene.audit(&mut view).await?;
    assert_eq!(audited.known, pinned);
    let again = scene.audit(&mut View::open(&path, &new)?).await?;
    assert_eq!(again.known, audited.checkpoint.size());
    scene.node.stop().await
}
