//! The ledger asks its witnesses: cosignatures arrive in the newest note and its file, and whatever
//! a witness does, commits go on as if it were not there.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use access_ledger_client::{
    audit::{AuditOptions, audit},
    pull::Puller,
    verify::Scope,
    view::View,
};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    note::VerifierKey,
    position::Size,
    quorum::Quorum,
    wire::{self, SourcePhase, event::Body},
};
use access_ledger_server::{error::LedgerError, folder::Folder, ledger::Cosigning};
use access_ledger_tests::{
    double::{Double, Manner, cosigner, until},
    node::{Clients, Node, Setup},
    process::binaries,
};
use anyhow::{Context as _, ensure};
use prost::Message as _;

/// A stopped ledger with a source, and what it is started with.
struct Ground {
    folder: tempfile::TempDir,
    vkey: VerifierKey,
}

impl Ground {
    async fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let node = Node::start(folder.path()).await?;
        let vkey = node.vkey.clone();
        node.clients().enrolled("shop", 1, &vkey).await?;
        node.stop().await?;
        Ok(Self { folder, vkey })
    }

    fn setup(&self, witnesses: &str) -> anyhow::Result<Setup> {
        let mut setup = Setup::new(self.folder.path());
        let witnesses = Some(Quorum::parse(witnesses)?);
        let backoff_max = Duration::from_millis(50);
        setup.options.cosigning = Cosigning { witnesses, backoff_max, ..Cosigning::default() };
        Ok(setup)
    }
}

/// A custodian's two keys at one address.
async fn custodian(ledger: &VerifierKey) -> anyhow::Result<Double> {
    let keys = vec![cosigner("custodian", 1)?, cosigner("custodian/mirror", 2)?];
    Double::start(ledger, keys).await
}

/// The policy that both keys of a custodian must have signed.
fn both(double: &Double) -> String {
    format!("{}group c all c1 c2\nquorum c\n", double.policy_lines("c"))
}

async fn served(
    clients: &Clients,
    vkey: &VerifierKey,
    policy: &Quorum,
    cosigned: bool,
) -> anyhow::Result<VerifiedCheckpoint> {
    let request = wire::GetCheckpointRequest { cosigned };
    let note = clients.auditor.clone().get_checkpoint(request).await?.into_inner().checkpoint;
    Ok(VerifiedCheckpoint::open(&note, vkey, &policy.keys())?)
}

fn in_file(folder: &Path, vkey: &VerifierKey, policy: &Quorum) -> anyhow::Result<bool> {
    let note = std::fs::read(Folder::new(folder).checkpoint())?;
    let checkpoint = VerifiedCheckpoint::open(&note, vkey, &policy.keys())?;
    Ok(policy.is_met(checkpoint.cosignatures()))
}

#[tokio::test(flavor = "multi_thread")]
async fn cosignatures_arrive_in_the_note_and_its_file_and_outlive_a_restart() -> anyhow::Result<()>
{
    let ground = Ground::new().await?;
    let (vkey, folder) = (&ground.vkey, ground.folder.path());
    let double = custodian(vkey).await?;
    let policy = Quorum::parse(both(&double))?;
    let setup = ground.setup(&both(&double))?;
    let node = setup.start().await?;
    let clients = node.clients();
    let size = Size(clients.size(vkey).await?);
    until("cosignatures in the newest note", async || {
        let newest = served(&clients, vkey, &policy, false).await?;
        Ok(newest.size() == size && policy.is_met(newest.cosignatures()))
    })
    .await?;
    until("cosignatures in the file", async || in_file(folder, vkey, &policy)).await?;
    // One question for both keys, but for the size that the witness did not hold.
    assert_eq!(double.calls(), 1);
    node.stop().await?;
    assert!(in_file(folder, vkey, &policy)?, "the last note has them too");

    double.set(Manner::Mute);
    let node = setup.start().await?;
    let newest = served(&node.clients(), vkey, &policy, true).await?;
    assert!(newest.size() == size && policy.is_met(newest.cosignatures()));
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_witness_does_appends_go_on_and_nothing_false_is_kept() -> anyhow::Result<()> {
    let ground = Ground::new().await?;
    let vkey = &ground.vkey;
    let double = custodian(vkey).await?;
    let policy = Quorum::parse(both(&double))?;
    double.set(Manner::Mute);
    let node = ground.setup(&both(&double))?.start().await?;
    let clients = node.clients();
    let mut source = clients.enrolled("visitor", 2, vkey).await?;
    for manner in [
        Manner::Mute,
        Manner::Refusing(404),
        Manner::Refusing(422),
        Manner::Refusing(500),
        Manner::Garbage,
        Manner::Endless,
        Manner::Forging,
        Manner::Misplacing,
        Manner::Unknown,
        Manner::Conflicting,
    ] {
        double.set(manner);
        let asked = double.calls();
        clients.record(&source.record(2)?).await?;
        if manner != Manner::Mute {
            until("the witness is asked", async || Ok(double.calls() > asked)).await?;
        }
        let newest = served(&clients, vkey, &policy, false).await?;
        assert!(newest.cosignatures().is_empty(), "{manner:?}");
        assert_eq!(newest.note().lines().count(), 5, "{manner:?}: {}", newest.note());
    }
    // Once it behaves, it is asked again and counts.
    double.set(Manner::Honest);
    let size = Size(clients.size(vkey).await?);
    double.reaches(size).await?;
    until("the quorum", async || {
        Ok(policy.is_met(served(&clients, vkey, &policy, false).await?.cosignatures()))
    })
    .await?;
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_knows_another_size_is_caught_up_with() -> anyhow::Result<()> {
    let ground = Ground::new().await?;
    let vkey = &ground.vkey;
    let double = custodian(vkey).await?;
    let policy = Quorum::parse(both(&double))?;
    // It holds a smaller size, of which the ledger that starts does not know.
    let old = std::fs::read(Folder::new(ground.folder.path()).checkpoint())?;
    let node = Node::start(ground.folder.path()).await?;
    let mut source = node.clients().enrolled("visitor", 2, vkey).await?;
    for _ in 0..5 {
        node.clients().record(&source.record(3)?).await?;
    }
    node.stop().await?;
    double.cosign(&old)?;
    let node = ground.setup(&both(&double))?.start().await?;
    let clients = node.clients();
    let size = Size(clients.size(vkey).await?);
    double.reaches(size).await?;
    assert_eq!(double.calls(), 2, "asked from nothing, and then from the size that it told");
    // It cosigns by itself, before it is asked: what it has is taken.
    double.set(Manner::Mute);
    clients.record(&source.record(3)?).await?;
    let size = Size(clients.size(vkey).await?);
    let newest = served(&clients, vkey, &policy, false).await?;
    double.cosign(newest.note().as_bytes())?;
    double.set(Manner::Honest);
    until("its own cosignature", async || {
        let newest = served(&clients, vkey, &policy, true).await?;
        Ok(newest.size() == size && policy.is_met(newest.cosignatures()))
    })
    .await?;
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_witnesses_sign_the_same_checkpoints_of_a_busy_ledger() -> anyhow::Result<()> {
    let ground = Ground::new().await?;
    let vkey = &ground.vkey;
    let one = Double::start(vkey, vec![cosigner("one", 1)?]).await?;
    let two = Double::start(vkey, vec![cosigner("two", 2)?]).await?;
    let policy = format!(
        "{}{}group all all a1 b1\nquorum all\n",
        one.policy_lines("a"),
        two.policy_lines("b")
    );
    let mut setup = ground.setup(&policy)?;
    // As where receipts wait: asked without a pause.
    setup.options.cosigning.receipts = Some(Quorum::parse(&policy)?);
    let policy = Quorum::parse(policy)?;
    let node = setup.start().await?;
    let clients = node.clients();
    let done = Arc::new(AtomicBool::new(false));
    let appending = {
        let (clients, done) = (clients.clone(), done.clone());
        let mut source = clients.enrolled("visitor", 2, vkey).await?;
        tokio::spawn(async move {
            let mut batches = 0;
            while !done.load(Ordering::Relaxed) {
                clients.record(&source.record(1)?).await?;
                batches += 1;
            }
            anyhow::Ok(batches)
        })
    };
    let mut quorums = std::collections::BTreeSet::new();
    until("checkpoints with both cosignatures", async || {
        Ok(policy.is_met(served(&clients, vkey, &policy, true).await?.cosignatures()))
    })
    .await?;
    while quorums.len() < 20 {
        let cosigned = served(&clients, vkey, &policy, true).await?;
        ensure!(policy.is_met(cosigned.cosignatures()), "{}", cosigned.note());
        quorums.insert(cosigned.size().0);
        ensure!(!appending.is_finished(), "appending ended");
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::Relaxed);
    assert!(appending.await?? >= 10);
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_do_not_fit_are_told_before_anything_is_written() -> anyhow::Result<()> {
    let ground = Ground::new().await?;
    let witness = cosigner("one", 1)?;
    let other = access_ledger_proto::note::Signer::new(
        "ledger.example/other",
        access_ledger_proto::note::KeyType::Ed25519,
        [3; 32],
    )?;
    let setup = ground.setup(&format!("log {}\nquorum none\n", other.verifier()))?;
    assert!(matches!(setup.open(), Err(LedgerError::OtherLog { .. })));
    // Nobody would ever ask the witness that receipts wait for.
    let policy = format!("witness w {}\nquorum w\n", witness.verifier());
    let mut setup = ground.setup(&policy)?;
    setup.options.cosigning.receipts = Some(Quorum::parse(policy)?);
    let refused = setup.open().err().context("it opened")?;
    assert!(matches!(&refused, LedgerError::Unasked { names } if names == &["w"]), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_ledger_with_witnesses_records_its_heartbeat() -> anyhow::Result<()> {
    let ground = Ground::new().await?;
    let vkey = &ground.vkey;
    let double = custodian(vkey).await?;
    let mut setup = ground.setup(&both(&double))?;
    setup.options.cosigning.heartbeat = Duration::from_millis(20);
    let node = setup.start().await?;
    let clients = node.clients();
    let size = clients.size(vkey).await?;
    until("two heartbeats", async || Ok(clients.size(vkey).await? >= size + 2)).await?;
    let request =
        wire::ReadEntriesRequest { first_index: size, end_index: size + 2, with_events: true };
    let mut runs = clients.auditor.clone().read_entries(request).await?.into_inner();
    let run = runs.message().await?.and_then(|message| message.run).context("no entries")?;
    for event in run.events {
        let Some(Body::SourceStatus(status)) = wire::Event::decode(event)?.body else {
            anyhow::bail!("another event than a status");
        };
        assert_eq!((status.phase(), &*status.source), (SourcePhase::Heartbeat, "ledger"));
    }
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_names_a_witness_is_given_the_newest_checkpoint_that_it_has_cosigned()
-> anyhow::Result<()> {
    let ground = Ground::new().await?;
    let vkey = &ground.vkey;
    let double = custodian(vkey).await?;
    let policy = Quorum::parse(both(&double))?;
    // Nothing waits for the witness: no policy of receipts.
    let node = ground.setup(&both(&double))?.start().await?;
    let clients = node.clients();
    let old = Size(clients.size(vkey).await?);
    until("the quorum", async || {
        let cosigned = served(&clients, vkey, &policy, true).await?;
        Ok(cosigned.size() == old && policy.is_met(cosigned.cosignatures()))
    })
    .await?;
    double.set(Manner::Mute);
    let mut source = clients.enrolled("visitor", 2, vkey).await?;
    clients.record(&source.record(3)?).await?;
    let newest = Size(clients.size(vkey).await?);
    ensure!(newest > old);
    ensure!(served(&clients, vkey, &policy, false).await?.cosignatures().is_empty());
    ensure!(served(&clients, vkey, &policy, true).await?.size() == old);

    let (puller, folder) = (Puller::new(clients.channel.clone()), tempfile::tempdir()?);
    let look = async |name: &str, witnesses: Vec<VerifierKey>| {
        let mut view = View::open(&folder.path().join(name), vkey)?;
        let quorum = Quorum::of_known(witnesses);
        let options = AuditOptions { scope: Scope::Events, full: false, quorum };
        let audited = audit(&puller, &mut view, &options, Arc::new(|_, _| ())).await?;
        anyhow::Ok((audited.checkpoint, audited.newest))
    };
    let (checkpoint, told) = look("known.json", policy.keys()).await?;
    ensure!((checkpoint.size(), told) == (old, newest) && checkpoint.cosignatures().len() == 2);
    let (checkpoint, told) = look("unknown.json", Vec::new()).await?;
    ensure!((checkpoint.size(), told) == (newest, newest));
    let stranger = cosigner("stranger", 7)?.verifier().clone();
    let (checkpoint, _) = look("stranger.json", vec![stranger]).await?;
    ensure!(checkpoint.size() == newest, "it has cosigned nothing: nobody waits for it");
    // Whoever has verified more does not go back.
    let (checkpoint, _) = look("unknown.json", policy.keys()).await?;
    ensure!(checkpoint.size() == newest && checkpoint.cosignatures().is_empty());

    let program = binaries()?.join("access-ledger");
    let url = format!("http://{}", node.address);
    let key = policy.keys().first().context("a key")?.to_string();
    let mut verify = tokio::process::Command::new(program);
    verify.args(["verify", "--ledger", &vkey.to_string(), "--witness", &key, "--server", &url]);
    let said = verify.current_dir(folder.path()).output().await?;
    let text = String::from_utf8(said.stdout)?;
    ensure!(text.contains("cosigned  by custodian at "), "{text}");
    ensure!(text.contains(&format!("newest    {newest} entries, NOT verified")), "{text}");
    node.stop().await
}
