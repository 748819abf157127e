//! Where a part of the log has rotted, what is redacted elsewhere is erased all the same, from the
//! log and from what the index answers, and the rest follows once the log is mended.

use std::{fs, path::Path};

use access_ledger_proto::{position::Index, wire::event::Body};
use access_ledger_server::os::{Access, Disk as _, RealDisk};
use access_ledger_tests::{
    custodian::{Keeper, until},
    node::{Clients, Node, Setup},
    parties::Governance,
    personal::{PERSONAL, checked, personal, redaction, until_gone},
    source::Source,
};
use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;

/// A served ledger of short segments, and its parties.
struct Scene {
    folder: tempfile::TempDir,
    node: Node,
    clients: Clients,
    governance: Governance,
    source: Source,
}

impl Scene {
    async fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut setup = Setup::new(folder.path());
        setup.options.segment_bytes = 4 << 10;
        setup.options.scrub = None;
        let node = setup.start().await?;
        let clients = node.clients();
        let governance = Governance::of(folder.path(), &node.vkey)?;
        let source = clients.enrolled("payments", 1, &node.vkey).await?;
        Ok(Self { folder, node, clients, governance, source })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Records events about persons; the first index, and the bytes of each.
    async fn tell(&mut self, count: usize) -> Result<(u64, Vec<Bytes>)> {
        let events: Vec<_> = (0..count).map(|_| personal(&mut self.source)).collect();
        let place = self.clients.record(&self.source.seal(events.clone())?).await?;
        // What follows is in another segment.
        self.clients.record(&self.source.record(20)?).await?;
        Ok((place.first_index, events))
    }

    async fn size(&self) -> Result<u64> {
        self.clients.size(&self.node.vkey).await
    }

    async fn redact(&mut self, first: u64, last: u64) -> Result<()> {
        let body = Body::Redaction(redaction(&self.governance, first, last));
        let company = &mut self.governance.company;
        let event = company.event(body);
        self.clients.record(&company.seal(vec![event])?).await?;
        Ok(())
    }
}

/// Flips a bit of the log, so many bytes before the place of an event.
fn flip(folder: &Path, event: &[u8], before: usize) -> Result<()> {
    for file in fs::read_dir(folder.join("log"))? {
        let path = file?.path();
        let bytes = fs::read(&path)?;
        let found = bytes.windows(event.len()).position(|some| some == event);
        let Some(at) = found.and_then(|at| at.checked_sub(before)) else { continue };
        let flipped = bytes.get(at).context("beyond the end")? ^ 1;
        RealDisk.open(&path, Access::Write)?.write_at(&[flipped], u64::try_from(at)?)?;
        return Ok(());
    }
    bail!("not in the log")
}

/// How many events about persons the log still holds.
fn told(folder: &Path) -> Result<usize> {
    let [actor, ..] = PERSONAL;
    let mut count = 0;
    for file in fs::read_dir(folder.join("log"))? {
        let bytes = fs::read(file?.path())?;
        count += bytes.windows(actor.len()).filter(|some| *some == actor).count();
    }
    Ok(count)
}

/// What is noted of the erasures, if anything.
fn note(folder: &Path) -> Result<toml::Table> {
    Ok(fs::read_to_string(folder.join("erased.toml")).unwrap_or_default().parse()?)
}

/// Waits until all is carried out that was redacted below an index.
async fn carried_out(folder: &Path, index: Index) -> Result<()> {
    until(async || {
        let note = note(folder)?;
        let size = note.get("size").and_then(toml::Value::as_integer).unwrap_or_default();
        let is_done = u64::try_from(size)? >= index.0 && !note.contains_key("under_way");
        Ok(is_done.then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_rotted_keeps_no_redaction_from_log_and_index() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (rotten, events) = scene.tell(1).await?;
    flip(scene.path(), events.first().context("no event")?, 0)?;
    for _ in 0..2 {
        let (first, _) = scene.tell(2).await?;
        scene.redact(first, first + 1).await?;
        carried_out(scene.path(), Index(scene.size().await?)).await?;
        ensure!(told(scene.path())? == 1, "but for the rotten event");
    }
    // Not even the index needs to be there.
    let Scene { folder, node, clients, .. } = scene;
    drop(clients);
    node.stop().await?;
    fs::remove_dir_all(folder.path().join("index"))?;
    let node = Node::start(folder.path()).await?;
    ensure!(node.clients().last_seq("payments").await? == 65, "of event {rotten}");
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_rotted_in_a_copy_keeps_its_own_event_waiting_and_no_other() -> Result<()> {
    let (mut scene, copy) = (Scene::new().await?, tempfile::tempdir()?);
    let keeper = Keeper::start(copy.path(), &scene.node.vkey, scene.node.address).await?;
    let (first, events) = scene.tell(5).await?;
    let rotten = events.get(2).context("no event")?.clone();
    let (other, _) = scene.tell(2).await?;
    // Whoever follows the log comes past all this before any of it rots.
    let (before, _) = scene.tell(1).await?;
    scene.redact(before, before).await?;
    keeper.holds(scene.size().await?).await?;
    carried_out(copy.path(), Index(scene.size().await?)).await?;
    flip(copy.path(), &rotten, 1)?;
    scene.redact(first, first + 4).await?;
    scene.redact(other, other + 1).await?;
    keeper.holds(scene.size().await?).await?;
    until(async || Ok((told(copy.path())? == 1).then_some(()))).await?;
    ensure!(note(copy.path())?.contains_key("under_way"), "the event is forgotten");

    // So is what is redacted later.
    let (later, _) = scene.tell(2).await?;
    keeper.holds(scene.size().await?).await?;
    ensure!(told(copy.path())? == 3);
    scene.redact(later, later + 1).await?;
    until(async || Ok((told(copy.path())? == 1).then_some(()))).await?;

    // Once the copy is mended it is erased like the others.
    keeper.stop().await?;
    flip(copy.path(), &rotten, 1)?;
    let keeper = Keeper::start(copy.path(), &scene.node.vkey, scene.node.address).await?;
    until_gone(copy.path()).await?;
    carried_out(copy.path(), Index(scene.size().await?)).await?;
    keeper.stop().await?;
    let Scene { node, clients, .. } = scene;
    let vkey = node.vkey.clone();
    drop(clients);
    node.stop().await?;
    ensure!(checked(copy.path(), &vkey)? == 10, "what was redacted");
    Ok(())
}
