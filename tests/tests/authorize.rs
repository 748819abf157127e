//! Log before access: an intended access is answered with a verdict that is in the log like the
//! intent, before the answer leaves.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use access_ledger_client::{
    authorize::{Denied, Permit},
    error::RecorderError,
    recorder::Recorder,
};
use access_ledger_proto::{
    entry::Entry,
    hash::{Digest, leaf_hash, sha256},
    note::{KeyType, Signer},
    position::Index,
    proof::verify_inclusion,
    wire::{self, AuthorizationDecision, Outcome, event::Body},
};
use access_ledger_tests::{
    gate::{GatedDisk, Mode},
    model::Audit,
    node::{Clients, Node, Setup},
    parties::{Governance, access, approve, request},
    process::Process,
    source::{Refused, Sealed, Source},
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use prost::Message as _;
use tokio::task::JoinSet;
use tonic::Code;

const DATASET: &str = "users.profile";

/// A ledger with an approver and a gateway.
struct Office {
    approver: Source,
    gateway: Source,
}

impl Office {
    async fn open(folder: &Path, clients: &Clients, vkey: &Vkey) -> anyhow::Result<Self> {
        let mut governance = Governance::of(folder, vkey)?;
        let approver = Source::new("security/ann", 1, vkey)?;
        governance.register_approver(clients, &approver).await?;
        let gateway = clients.enrolled("gateway", 2, vkey).await?;
        Ok(Self { approver, gateway })
    }

    /// Somebody asks for the dataset, and gets a grant of this id.
    async fn grant(&mut self, clients: &Clients, id: &str, max_uses: u64) -> anyhow::Result<()> {
        let event = self.gateway.now(request_of(id));
        clients.record(&self.gateway.seal(vec![event])?).await?;
        let event = self.approver.event(approve(id, max_uses));
        clients.record(&self.approver.seal(vec![event])?).await?;
        Ok(())
    }

    /// Intended accesses that name these grants.
    fn intents(&mut self, grants: &[&str]) -> anyhow::Result<Sealed> {
        let intents = grants.iter().map(|grant| access(DATASET, grant, Outcome::Requested));
        let events = intents.map(|intent| self.gateway.now(intent)).collect();
        self.gateway.seal(events)
    }
}

type Vkey = access_ledger_proto::note::VerifierKey;

fn request_of(id: &str) -> wire::Event {
    let actor = wire::Principal { id: "emp-1".to_owned(), ..Default::default() };
    wire::Event { actor: Some(actor), body: Some(request(id, DATASET)), ..Default::default() }
}

/// What stays the same of a verdict however often it is told.
type Told = (u64, Bytes, Bytes);

/// The verdicts of an answer, each proven under the receipt's checkpoint to be on the intent in the
/// same place.
fn verdicts(
    sealed: &Sealed,
    answer: &wire::AppendResponse,
) -> anyhow::Result<Vec<(Told, wire::Authorization)>> {
    let receipt = answer.receipt.as_ref().context("no receipt")?;
    let verified = sealed.verify(receipt)?;
    ensure!(answer.verdicts.len() == sealed.batch.events.len(), "{answer:?}");
    let mut told = Vec::new();
    for (place, verdict) in answer.verdicts.iter().enumerate() {
        let entry = Entry::parse(&verdict.entry)?;
        ensure!(entry.source.as_str() == "ledger" && entry.index.0 == verdict.index);
        ensure!(entry.event_digest == sha256(&verdict.event), "another event");
        let path = verdict.inclusion_path.iter().filter_map(|hash| Digest::from_slice(hash));
        let path: Vec<_> = path.collect();
        let checkpoint = verified.checkpoint();
        let (size, root) = (checkpoint.size(), checkpoint.root());
        verify_inclusion(Index(verdict.index), size, leaf_hash(&verdict.entry), &path, root)?;
        let body = wire::Event::decode(verdict.event.clone())?.body;
        let Some(Body::Authorization(authorization)) = body else {
            anyhow::bail!("no authorization: {body:?}");
        };
        let intent = authorization.intent.clone().unwrap_or_default();
        let asked = sealed.batch.events.get(place).cloned().unwrap_or_default();
        let event = wire::Event::decode(asked)?;
        ensure!(intent.event_id == event.event_id, "another intent");
        ensure!(intent.index == Some(receipt.first_index + place as u64), "another index");
        told.push(((verdict.index, verdict.event.clone(), verdict.entry.clone()), authorization));
    }
    Ok(told)
}

async fn authorize(clients: &Clients, sealed: &Sealed) -> anyhow::Result<wire::AppendResponse> {
    let request = wire::AuthorizeRequest { batch: Some(sealed.batch.clone()) };
    let answer = clients.recorder.clone().authorize(request).await?.into_inner();
    Ok(wire::AppendResponse { receipt: answer.receipt, verdicts: answer.verdicts })
}

/// A recorder for a source of this name that enrols itself.
async fn recorder(node: &Node, name: &str) -> anyhow::Result<Recorder> {
    let source = node.clients().enrolled(name, 7, &node.vkey).await?;
    start(&node.clients(), source.key(), &node.vkey).await
}

async fn start(clients: &Clients, key: &Signer, vkey: &Vkey) -> anyhow::Result<Recorder> {
    let builder = Recorder::builder(clients.channel.clone(), key.clone(), vkey.clone());
    let (min, max) = (Duration::from_millis(1), Duration::from_millis(20));
    Ok(builder.backoff(min, max).start().await?)
}

fn is_allow(verdict: &wire::Authorization) -> bool {
    verdict.decision() == AuthorizationDecision::Allow
}

#[tokio::test(flavor = "multi_thread")]
async fn intents_and_their_verdicts_lie_in_one_group_and_are_proven() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut office = Office::open(folder.path(), &clients, &node.vkey).await?;
    office.grant(&clients, "R-1", 0).await?;

    let sealed = office.intents(&["R-1", "R-2", "", "R-1"])?;
    let before = clients.size(&node.vkey).await?;
    let answer = authorize(&clients, &sealed).await?;
    let told = verdicts(&sealed, &answer)?;
    let allowed: Vec<_> = told.iter().map(|(_, verdict)| is_allow(verdict)).collect();
    assert_eq!(allowed, [true, false, false, true]);
    assert_eq!(told[0].1.rules, [""; 0]);
    assert_eq!(told[0].1.grant_id, "R-1");
    assert_eq!(told[1].1.rules, ["GRANT_UNKNOWN"]);
    assert_eq!(told[2].1.rules, ["NO_GRANT"]);
    assert!(told[0].1.policy_version.starts_with("1-"), "{:?}", told[0].1);
    // One group: four intents, four verdicts right behind, one checkpoint over all.
    let indexes: Vec<_> = told.iter().map(|((index, ..), _)| *index).collect();
    assert_eq!(indexes, [before + 4, before + 5, before + 6, before + 7]);
    assert_eq!(clients.size(&node.vkey).await?, before + 8);

    // A plain append answers them as well, among other events.
    let intent = office.gateway.now(access(DATASET, "R-1", Outcome::Requested));
    let mut events = office.gateway.events(2);
    events.insert(1, intent);
    let mixed = office.gateway.seal(events)?;
    let answer = clients.append(&mixed).await?;
    mixed.place(&answer)?;
    assert_eq!(answer.verdicts.len(), 1);
    Audit::new(&node.vkey).pull(&clients).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_batch_gets_the_same_verdicts_by_every_call_and_after_restart()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut office = Office::open(folder.path(), &clients, &node.vkey).await?;
    office.grant(&clients, "R-1", 3).await?;
    // More verdicts than one read of the log brings, of which three are allowed.
    let sealed = office.intents(&["R-1"; 600])?;
    let first = verdicts(&sealed, &authorize(&clients, &sealed).await?)?;
    assert_eq!(first.iter().filter(|(_, verdict)| is_allow(verdict)).count(), 3);
    assert!(first[3..].iter().all(|(_, verdict)| verdict.rules == ["GRANT_EXHAUSTED"]));
    let size = clients.size(&node.vkey).await?;
    for _ in 0..2 {
        let clients = node.clients();
        let other = clients.append(&sealed).await?;
        assert_eq!(verdicts(&sealed, &other)?, first);
        assert_eq!(verdicts(&sealed, &authorize(&clients, &sealed).await?)?, first);
        let requests = tokio_stream::iter([sealed.request(), sealed.request()]);
        let mut answers = clients.recorder.clone().append_stream(requests).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            assert_eq!(verdicts(&sealed, &answer)?, first);
        }
        assert_eq!(clients.size(&node.vkey).await?, size);
        node.stop().await?;
        node = Node::start(folder.path()).await?;
    }
    // The grant's uses are known after the restart too.
    let another = office.intents(&["R-1"])?;
    let told = verdicts(&another, &authorize(&node.clients(), &another).await?)?;
    assert_eq!(told[0].1.rules, ["GRANT_EXHAUSTED"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn authorize_takes_nothing_but_intents() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut office = Office::open(folder.path(), &clients, &node.vkey).await?;
    let mut events = office.gateway.events(1);
    events.push(office.gateway.now(access(DATASET, "", Outcome::Requested)));
    let mixed = office.gateway.seal_at(1, events)?;
    let request = wire::AuthorizeRequest { batch: Some(mixed.batch) };
    let refused = clients.recorder.clone().authorize(request).await.unwrap_err();
    let refused = Refused::of(&refused);
    assert_eq!(refused.kind(), (Code::InvalidArgument, "BATCH_INVALID"));
    assert_eq!(refused.field.as_deref(), Some("batch.events"));
    assert_eq!(clients.last_seq("gateway").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_for_one_use_is_used_once_by_a_hundred_callers() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut office = Office::open(folder.path(), &clients, &node.vkey).await?;
    office.grant(&clients, "R-1", 1).await?;
    let mut recorders = Vec::new();
    for number in 0..4 {
        recorders.push(Arc::new(recorder(&node, &format!("gateway-{number}")).await?));
    }
    let mut callers = JoinSet::new();
    for caller in 0..100 {
        let recorder = recorders[caller % recorders.len()].clone();
        let intent = access(DATASET, "R-1", Outcome::Unspecified);
        callers.spawn(async move { recorder.authorize(intent).await });
    }
    let mut permits: Vec<Permit> = Vec::new();
    while let Some(answer) = callers.join_next().await {
        match answer? {
            Ok(permit) => permits.push(permit),
            Err(Denied::Verdict(denial)) => {
                assert_eq!(denial.verdict().rules(), ["GRANT_EXHAUSTED"]);
            }
            Err(failed) => return Err(failed.into()),
        }
    }
    let permit = permits.pop().context("nobody was allowed")?;
    assert!(permits.is_empty(), "{} more were allowed", permits.len());

    // What was done names the intent and the grant by itself.
    let intent = permit.reference();
    let recorded = permit.access(access(DATASET, "", Outcome::Allowed)).await?.receipt().await?;
    let run = read(&clients, recorded.index().0, recorded.index().0 + 1).await?;
    let Some(Body::Access(access)) = &run[0].1.body else { anyhow::bail!("{run:?}") };
    assert_eq!((access.intent.clone(), access.grant_id.as_str()), (Some(intent), "R-1"));
    Audit::new(&node.vkey).pull(&clients).await?;
    Ok(())
}

/// The entries of a range: source and event.
async fn read(
    clients: &Clients,
    first: u64,
    end: u64,
) -> anyhow::Result<Vec<(String, wire::Event)>> {
    let request =
        wire::ReadEntriesRequest { first_index: first, end_index: end, with_events: true };
    let mut runs = clients.auditor.clone().read_entries(request).await?.into_inner();
    let mut found = Vec::new();
    while let Some(answer) = runs.message().await? {
        let run = answer.run.unwrap_or_default();
        for (entry, event) in run.entries.iter().zip(run.events) {
            let source = Entry::parse(entry)?.source.as_str().to_owned();
            found.push((source, wire::Event::decode(event)?));
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_that_takes_the_id_of_an_open_one_is_denied() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut office = Office::open(folder.path(), &clients, &node.vkey).await?;
    office.grant(&clients, "R-1", 1).await?;
    let intent = office.gateway.now(access(DATASET, "R-1", Outcome::Requested));
    let sealed = office.gateway.seal(vec![intent.clone(), intent])?;
    let told = verdicts(&sealed, &authorize(&clients, &sealed).await?)?;
    assert!(is_allow(&told[0].1));
    assert!(told[1].1.rules.contains(&"BEYOND_VERDICT".to_owned()), "{told:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_denied() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = GatedDisk::default();
    let setup = Setup { disk: Arc::new(disk.clone()), ..Setup::new(folder.path()) };
    let node = setup.start().await?;
    let clients = node.clients();
    let mut office = Office::open(folder.path(), &clients, &node.vkey).await?;
    office.grant(&clients, "R-1", 0).await?;
    let source = clients.enrolled("desk", 9, &node.vkey).await?;
    let builder =
        Recorder::builder(clients.channel.clone(), source.key().clone(), node.vkey.clone());
    let recorder = builder.deadline(Duration::from_millis(500)).start().await?;
    let intent = || access(DATASET, "R-1", Outcome::Requested);
    assert!(recorder.authorize(intent()).await?.verdict().is_allowed());

    let denied = recorder.authorize(access(DATASET, "R-1", Outcome::Allowed)).await.unwrap_err();
    assert!(matches!(denied, Denied::Failed(RecorderError::Kind { .. })), "{denied:?}");
    disk.set(Mode::FailedSyncs);
    let denied = recorder.authorize(intent()).await.unwrap_err();
    assert!(matches!(denied, Denied::Failed(RecorderError::Deadline { .. })), "{denied:?}");
    disk.set(Mode::Open);
    let denied = recorder.authorize(intent()).await.unwrap_err();
    assert!(matches!(denied, Denied::Failed(_)), "{denied:?}");
    Ok(())
}

/// A policy says what a verdict names, so how long it is. A batch whose verdicts might not fit into
/// a group is refused before it is written, and batches that wait together are written apart.
#[tokio::test(flavor = "multi_thread")]
async fn verdicts_that_may_not_fit_are_refused_and_the_ledger_goes_on() -> anyhow::Result<()> {
    const LONG_RULES: usize = 40;
    let folder = tempfile::tempdir()?;
    let disk = GatedDisk::default();
    let _opened_at_the_end = disk.opener();
    let setup = Setup { disk: Arc::new(disk.clone()), ..Setup::new(folder.path()) };
    let node = setup.start().await?;
    let clients = node.clients();
    let mut governance = Governance::of(folder.path(), &node.vkey)?;
    let rule = |number| format!("@id(\"{number:064}\") forbid (principal, action, resource);\n");
    let policy: String = (0..LONG_RULES).map(rule).collect();
    let change = governance.change(wire::ControlKind::Policy, "", 2, policy.into_bytes());
    let event = governance.company.event(Body::ControlChange(change));
    clients.record(&governance.company.seal(vec![event])?).await?;

    let mut asked = Vec::new();
    for number in 0..6 {
        let name = format!("gateway-{number}");
        asked.push(clients.enrolled(&name, 2 + number, &node.vkey).await?);
    }
    let intents = |source: &mut Source, count: usize| -> anyhow::Result<Sealed> {
        let intent = || access(DATASET, "", Outcome::Requested);
        let events = (0..count).map(|_| source.now(intent())).collect();
        source.seal_at(1, events)
    };
    let all = intents(&mut asked[0], 4_096)?;
    let refused = authorize(&clients, &all).await.unwrap_err();
    ensure!(refused.to_string().contains("send fewer"), "{refused}");

    let mut going = JoinSet::new();
    disk.set(Mode::HeldSyncs);
    for mut source in asked {
        let (clients, sealed) = (node.clients(), intents(&mut source, 1_024)?);
        going.spawn(async move {
            let answer = authorize(&clients, &sealed).await?;
            verdicts(&sealed, &answer)
        });
    }
    disk.wait_until_held();
    tokio::time::sleep(Duration::from_millis(300)).await;
    disk.set(Mode::Open);
    while let Some(told) = going.join_next().await {
        let told = told??;
        ensure!(told.len() == 1_024 && told.iter().all(|(_, said)| said.rules.len() >= LONG_RULES));
    }
    node.stop().await
}

/// What the ledger records itself is numbered behind the verdicts that come before it, or it would
/// seal two events under one number.
#[tokio::test(flavor = "multi_thread")]
async fn who_enrols_while_intents_wait_is_registered_behind_their_verdicts() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = GatedDisk::default();
    let _opened_at_the_end = disk.opener();
    let setup = Setup { disk: Arc::new(disk.clone()), ..Setup::new(folder.path()) };
    let node = setup.start().await?;
    let clients = node.clients();
    let mut office = Office::open(folder.path(), &clients, &node.vkey).await?;
    disk.set(Mode::HeldSyncs);
    let before = office.gateway.record(1)?;
    let first = tokio::spawn({
        let (clients, before) = (node.clients(), before.clone());
        async move { clients.record(&before).await }
    });
    disk.wait_until_held();
    // These wait for the sync together.
    let intents = office.intents(&["", ""])?;
    let (asking, enrolling) = (node.clients(), node.clients());
    let asked = tokio::spawn(async move {
        let answer = authorize(&asking, &intents).await?;
        verdicts(&intents, &answer)
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let vkey = node.vkey.clone();
    let enrolled = tokio::spawn(async move { enrolling.enrolled("shop", 9, &vkey).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    disk.set(Mode::Open);
    first.await??;
    ensure!(asked.await??.len() == 2);
    clients.record(&enrolled.await??.record(1)?).await?;
    node.stop().await?;
    let evidence = folder.path().join("evidence");
    ensure!(!evidence.exists() || evidence.read_dir()?.next().is_none(), "it contradicts itself");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_source_and_a_ledger_that_is_gone_are_denials() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let recorder = {
        let source = node.clients().enrolled("desk", 9, &node.vkey).await?;
        let (channel, key) = (node.clients().channel, source.key().clone());
        let builder = Recorder::builder(channel, key, node.vkey.clone());
        builder.deadline(Duration::from_millis(300)).start().await?
    };
    node.stop().await?;
    let denied = recorder.authorize(access(DATASET, "", Outcome::Requested)).await.unwrap_err();
    assert!(matches!(denied, Denied::Failed(_)), "{denied:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_intent_has_one_verdict_however_often_the_server_is_killed() -> anyhow::Result<()> {
    const KILLS: usize = 8;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let mut process = Process::serve(&data, &[])?;
    let vkey = process.vkey.clone();
    let clients = Clients::connect(process.address).await?;
    let mut office = Office::open(&data, &clients, &vkey).await?;
    office.grant(&clients, "R-1", 20).await?;
    let key = Signer::new("desk", KeyType::Ed25519, [9; 32])?;
    let desk = Source::with_key(key, &vkey)?;
    clients.recorder.clone().enroll(desk.enrolment()).await?;

    let (mut sent, mut known) = (Vec::new(), Vec::new());
    let mut desk = desk;
    for round in 0..KILLS {
        let clients = Clients::connect(process.address).await?;
        // What had no answer before the kill is repeated, then more is sent.
        for _ in 0..12 {
            let intents = (0..3).map(|_| access(DATASET, "R-1", Outcome::Requested));
            let events: Vec<_> = intents.map(|intent| desk.now(intent)).collect();
            sent.push(desk.seal(events)?);
        }
        let unanswered = sent[known.len()..].to_vec();
        let requests: Vec<_> = unanswered.iter().map(Sealed::request).collect();
        let requests =
            tokio_stream::StreamExt::chain(tokio_stream::iter(requests), tokio_stream::pending());
        let mut answers = clients.recorder.clone().append_stream(requests).await?.into_inner();
        // The last round is seen through; the others are killed in the middle.
        let enough = if round + 1 == KILLS { unanswered.len() } else { 1 + round };
        for sealed in unanswered.iter().take(enough) {
            let answer = answers.message().await?.context("the stream ended")?;
            known.push(verdicts(sealed, &answer)?);
        }
        if round + 1 < KILLS {
            process.kill()?;
            process = Process::serve(&data, &[])?;
        }
    }

    // In the log: for each intent one verdict, the one that was told; 20 in all are allowed.
    let clients = Clients::connect(process.address).await?;
    let size = clients.size(&vkey).await?;
    let log = read(&clients, 0, size).await?;
    let mut judged = BTreeSet::new();
    let mut allowed = 0;
    for (source, event) in &log {
        if let Some(Body::Authorization(verdict)) = &event.body {
            assert_eq!(source, "ledger");
            let intent = verdict.intent.as_ref().and_then(|intent| intent.index);
            assert!(judged.insert(intent.context("no index")?), "judged twice");
            allowed += usize::from(is_allow(verdict));
        }
    }
    let intents = log.iter().filter(|(_, event)| {
        matches!(&event.body, Some(Body::Access(access)) if access.outcome() == Outcome::Requested)
    });
    assert_eq!(judged.len(), intents.count());
    assert_eq!(allowed, 20);
    assert_eq!(known.len(), sent.len());
    let told = known.iter().flatten().filter(|(_, verdict)| is_allow(verdict)).count();
    assert_eq!(told, 20);
    for (sealed, first) in sent.iter().zip(&known) {
        assert_eq!(verdicts(sealed, &clients.append(sealed).await?)?, *first);
    }
    Audit::new(&vkey).pull(&clients).await?;
    Ok(())
}
