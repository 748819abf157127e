//! Receipts with a quorum: what is acknowledged is already in outside hands, nothing waits that need
//! not, and nobody who asks for a quorum is content with less.

use std::{fs, path::Path, process::Command, sync::Arc, time::Duration};

use access_ledger_client::{
    audit::{AuditError, AuditOptions, Audited, audit},
    authorize::Denied,
    error::RecorderError,
    pull::{Patience, Puller},
    recorder::{Builder, Recorder},
    verify::Scope,
    view::View,
};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    note::VerifierKey,
    position::Size,
    quorum::Quorum,
    receipt::VerifiedReceipt,
    wire::{self, Outcome},
};
use access_ledger_server::ledger::Cosigning;
use access_ledger_tests::{
    double::{Double, Manner, cosigner, until},
    node::{Clients, Node, Setup},
    parties::access,
    process::binaries,
    source::{Refused, Sealed, Source},
};
use anyhow::{Context as _, bail, ensure};
use tokio::task::JoinSet;
use tonic::Code;

/// A stopped ledger with sources, and a custodian with two keys.
struct Ground {
    folder: tempfile::TempDir,
    vkey: VerifierKey,
    sources: Vec<Source>,
    double: Double,
    policy: String,
}

impl Ground {
    async fn new(sources: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let node = Node::start(folder.path()).await?;
        let vkey = node.vkey.clone();
        let mut enrolled = Vec::new();
        for seed in 0..sources {
            enrolled.push(node.clients().enrolled(&format!("shop-{seed}"), seed, &vkey).await?);
        }
        node.stop().await?;
        let keys = vec![cosigner("custodian", 1)?, cosigner("custodian/mirror", 2)?];
        let double = Double::start(&vkey, keys).await?;
        let policy = format!("{}group c all c1 c2\nquorum c\n", double.policy_lines("c"));
        Ok(Self { folder, vkey, sources: enrolled, double, policy })
    }

    fn quorum(&self) -> anyhow::Result<Quorum> {
        Ok(Quorum::parse(&self.policy)?)
    }

    /// Receipts wait for the custodian, for so long.
    fn waiting(&self, receipts_wait: Duration) -> anyhow::Result<Setup> {
        self.setup(Cosigning {
            receipts: Some(self.quorum()?),
            receipts_wait,
            ..Cosigning::default()
        })
    }

    /// The custodian is asked, and nothing waits.
    fn asking(&self) -> anyhow::Result<Setup> {
        self.setup(Cosigning { witnesses: Some(self.quorum()?), ..Cosigning::default() })
    }

    fn setup(&self, cosigning: Cosigning) -> anyhow::Result<Setup> {
        let mut setup = Setup::new(self.folder.path());
        let backoff_max = Duration::from_millis(50);
        setup.options.cosigning = Cosigning { backoff_max, ..cosigning };
        Ok(setup)
    }

    /// Verifies a receipt, which must have its quorum.
    fn verify(
        &self,
        sealed: &Sealed,
        answer: &wire::AppendResponse,
    ) -> anyhow::Result<VerifiedReceipt> {
        let receipt = answer.receipt.as_ref().context("no receipt")?;
        let quorum = self.quorum()?;
        let verified = sealed.verify_with(receipt, &quorum.keys())?;
        ensure!(quorum.is_met(verified.checkpoint().cosignatures()), "below the quorum");
        Ok(verified)
    }

    fn recorder(&self, clients: &Clients, source: usize) -> anyhow::Result<Builder> {
        let source = self.sources.get(source).context("no such source")?;
        let (key, ledger) = (source.key().clone(), self.vkey.clone());
        let (min, max) = (Duration::from_millis(1), Duration::from_millis(20));
        let builder = Recorder::builder(clients.channel.clone(), key, ledger);
        Ok(builder.backoff(min, max).quorum(self.quorum()?))
    }
}

/// That a call was told to ask again; the index that it was told.
fn pending(refused: &Refused) -> anyhow::Result<u64> {
    ensure!(refused.kind() == (Code::Unavailable, "QUORUM_PENDING"), "{refused:?}");
    ensure!(refused.retry_after.is_some(), "{refused:?}");
    Ok(refused.metadata.get("index").context("no index")?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_below_the_quorum_keeps_its_place_and_waits_again() -> anyhow::Result<()> {
    let mut ground = Ground::new(1).await?;
    ground.double.set(Manner::Mute);
    let setup = ground.waiting(Duration::from_millis(200))?;
    let node = setup.start().await?;
    let clients = node.clients();
    let size = clients.size(&ground.vkey).await?;
    let sealed = ground.sources[0].record(3)?;
    let told = pending(&clients.refused(sealed.batch.clone()).await?)?;
    assert_eq!(told, size + 2, "the batch's last index");
    // It is recorded all the same, in its place, however often it is asked for.
    assert_eq!(clients.size(&ground.vkey).await?, size + 3);
    assert_eq!(pending(&clients.refused(sealed.batch.clone()).await?)?, told);
    assert_eq!(clients.size(&ground.vkey).await?, size + 3);
    // Its proof waits too.
    let entry = Some(wire::get_receipt_request::Entry::Index(told));
    let request = wire::GetReceiptRequest { entry };
    let proof = clients.auditor.clone().get_receipt(request).await;
    assert_eq!(pending(&Refused::of(&proof.err().context("a proof")?))?, told);
    node.stop().await?;

    // Over a restart, too.
    let node = setup.start().await?;
    let clients = node.clients();
    assert_eq!(pending(&clients.refused(sealed.batch.clone()).await?)?, told);
    ground.double.set(Manner::Honest);
    let mut answer = clients.append(&sealed).await;
    while let Err(status) = &answer {
        pending(&Refused::of(status))?;
        answer = clients.append(&sealed).await;
    }
    let verified = ground.verify(&sealed, &answer?)?;
    assert_eq!((verified.first_index().0, verified.last_index().0), (size, told));
    // Whoever is new waits only as long as the custodian takes.
    let next = ground.sources[0].record(1)?;
    ground.verify(&next, &clients.append(&next).await?)?;
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_never_wait_and_one_cosignature_releases_many_groups() -> anyhow::Result<()> {
    let mut ground = Ground::new(8).await?;
    ground.double.set(Manner::Mute);
    let node = ground.waiting(Duration::from_secs(60))?.start().await?;
    let clients = node.clients();
    let before = clients.size(&ground.vkey).await?;
    let mut appends = JoinSet::new();
    for (source, count) in ground.sources.iter_mut().zip(1_u64..) {
        let sealed = source.record(usize::try_from(count)?)?;
        let sent = clients.clone();
        appends.spawn(async move { sent.append(&sealed).await.map(|answer| (sealed, answer)) });
        // Each in a group of its own: it is durable before the next is sent.
        let grown = before + count * (count + 1) / 2;
        until("the next group", async || Ok(clients.size(&ground.vkey).await? == grown)).await?;
    }
    let size = Size(clients.size(&ground.vkey).await?);
    assert!(appends.try_join_next().is_none(), "a receipt without its quorum");
    ground.double.set(Manner::Honest);
    let (mut checkpoints, mut places) = (Vec::new(), Vec::new());
    while let Some(answer) = appends.join_next().await {
        let (sealed, answer) = answer??;
        let verified = ground.verify(&sealed, &answer)?;
        checkpoints.push(verified.checkpoint().size());
        places.push(verified.first_index());
    }
    // Asked about the first group when it came, and about all others at once.
    checkpoints.sort_unstable();
    assert_eq!((checkpoints.len(), checkpoints.last()), (8, Some(&size)));
    checkpoints.dedup();
    assert!(checkpoints.len() <= 2, "{checkpoints:?}");
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 8);
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorder_and_a_gateway_wait_for_the_quorum() -> anyhow::Result<()> {
    let ground = Ground::new(2).await?;
    ground.double.set(Manner::Mute);
    let node = ground.waiting(Duration::from_millis(50))?.start().await?;
    let clients = node.clients();
    let recorder = ground.recorder(&clients, 0)?.start().await?;
    let ticket = recorder.record(access("users", "", Outcome::Allowed)).await?;
    let gateway = ground.recorder(&clients, 1)?.deadline(Duration::from_millis(300));
    let gateway = gateway.start().await?;
    let denied = gateway.authorize(access("users", "", Outcome::Requested)).await.err();
    let is_late = matches!(denied, Some(Denied::Failed(RecorderError::Deadline { .. })));
    assert!(is_late && recorder.unsent() == 1, "{denied:?}");
    drop(gateway);

    ground.double.set(Manner::Honest);
    let recorded = ticket.receipt().await?;
    let quorum = ground.quorum()?;
    ensure!(quorum.is_met(recorded.checkpoint().cosignatures()), "below the quorum");
    let gateway = ground.recorder(&clients, 1)?.start().await?;
    match gateway.authorize(access("users", "", Outcome::Requested)).await {
        Err(Denied::Verdict(denial)) => {
            let proven = denial.verdict().proof().verify(&ground.vkey, &quorum.keys())?;
            ensure!(quorum.is_met(proven.cosignatures()), "verdict below the quorum");
        }
        other => bail!("no verdict: {other:?}"),
    }
    recorder.close().await?;
    gateway.close().await?;
    node.stop().await?;
    proof_files(&ground, &recorded.proof().encode())
}

/// The command line takes a proof file for what its quorum makes of it.
fn proof_files(ground: &Ground, proof: &str) -> anyhow::Result<()> {
    let folder = ground.folder.path();
    let (at, quorum) = (folder.join("x.tlog-proof"), folder.join("quorum"));
    let more = folder.join("more");
    fs::write(&quorum, &ground.policy)?;
    let stranger = cosigner("stranger", 9)?;
    let policy =
        ground.policy.replace("group c", &format!("witness s {}\ngroup c", stranger.verifier()));
    fs::write(&more, policy.replace("all c1 c2", "all c1 c2 s"))?;
    fs::write(folder.join("bad"), "quorum\n")?;
    let check = |policy: &Path| -> anyhow::Result<(Option<i32>, String)> {
        let output = Command::new(binaries()?.join("access-ledger"))
            .args(["check-proof", "--ledger", &ground.vkey.to_string()])
            .args([Path::new("--quorum"), policy, &at])
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8(said)?))
    };
    fs::write(&at, proof)?;
    let (code, said) = check(&quorum)?;
    assert!(code == Some(0) && said.contains("cosigned  by custodian/mirror"), "{said}");
    let (code, said) = check(&more)?;
    assert!(code == Some(1) && said.contains("without the cosignatures of s"), "{said}");
    let (code, said) = check(&folder.join("bad"))?;
    assert!(code == Some(2) && said.contains("line 1: line of another form"), "{said}");
    // Without its last cosignature.
    let end = proof.trim_end().rfind('\n').context("one line")?;
    fs::write(&at, proof.get(..=end).context("no proof")?)?;
    let (code, said) = check(&quorum)?;
    assert!(code == Some(1) && said.contains("without the cosignatures of c2"), "{said}");
    Ok(())
}

async fn audited(
    clients: &Clients,
    view: &mut View,
    quorum: Quorum,
) -> Result<Audited, AuditError> {
    let patience = Patience { repeat: Duration::from_millis(500), ..Patience::default() };
    let puller = Puller::new(clients.channel.clone()).with_patience(patience);
    let options = AuditOptions { scope: Scope::Events, full: false, quorum };
    audit(&puller, view, &options, Arc::new(|_, _| {})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_with_a_quorum_believes_what_was_cosigned_and_accuses_nobody() -> anyhow::Result<()>
{
    let mut ground = Ground::new(1).await?;
    let quorum = ground.quorum()?;
    let node = ground.asking()?.start().await?;
    let clients = node.clients();
    let size = Size(clients.size(&ground.vkey).await?);
    ground.double.reaches(size).await?;
    let mut view = View::open(&ground.folder.path().join("view.json"), &ground.vkey)?;
    let first = audited(&clients, &mut view, quorum.clone()).await?;
    assert!(first.checkpoint.size() == size && quorum.is_met(first.checkpoint.cosignatures()));

    // What is newer and not cosigned is not believed; what is older still is.
    ground.double.set(Manner::Mute);
    clients.record(&ground.sources[0].record(2)?).await?;
    let again = audited(&clients, &mut view, quorum.clone()).await?;
    assert_eq!(again.checkpoint.size(), size);
    // Whoever has believed more than was cosigned is told so: the ledger did not go back.
    let more = audited(&clients, &mut view, Quorum::default()).await?.checkpoint.size();
    assert!(more > size);
    let below = audited(&clients, &mut view, quorum.clone()).await;
    let is_told = matches!(&below, Err(AuditError::Quorum { found, wanted, .. })
        if (*found, *wanted) == (size, more));
    assert!(is_told, "{below:?}");
    ground.double.set(Manner::Honest);
    until("the audit of all", async || {
        let request = wire::GetCheckpointRequest { cosigned: true };
        let note = clients.auditor.clone().get_checkpoint(request).await?.into_inner().checkpoint;
        Ok(VerifiedCheckpoint::open(&note, &ground.vkey, &[])?.size() >= more)
    })
    .await?;
    assert_eq!(audited(&clients, &mut view, quorum).await?.checkpoint.size(), more);
    node.stop().await
}
