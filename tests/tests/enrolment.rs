//! Who may become a source, and who may not.

use std::{path::Path, sync::Arc, time::Duration};

use access_ledger_client::connect;
use access_ledger_proto::{
    facts::sources::Roles,
    note::Signer,
    wire::{self, SourcePhase, SourceRole, event::Body},
};
use access_ledger_tests::{
    gate::{GatedDisk, Mode},
    model::Audit,
    node::{Clients, Node, Setup},
    parties::Governance,
    source::{Refused, Source},
};
use anyhow::Context as _;
use prost::Message as _;
use tonic::Code;

/// The governance source of a ledger that this process made.
fn governance(folder: &Path, node: &Node) -> anyhow::Result<Source> {
    let text = std::fs::read_to_string(folder.join("keys/company.key"))?;
    Source::with_key(Signer::parse(text.trim_end())?, &node.vkey)
}

async fn enroll(
    clients: &Clients,
    request: wire::EnrollRequest,
) -> Result<wire::EnrollResponse, Refused> {
    let answer = clients.recorder.clone().enroll(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| Refused::of(&status))
}

async fn source(clients: &Clients, name: &str) -> anyhow::Result<wire::Source> {
    let request = wire::GetSourceRequest { source: name.to_owned() };
    let answer = clients.auditor.clone().get_source(request).await?.into_inner();
    answer.source.context("an answer without a source")
}

/// Governance registers a source.
async fn register(
    clients: &Clients,
    governance: &mut Source,
    child: &Source,
    roles: &[SourceRole],
) -> anyhow::Result<()> {
    let event = governance.status(child.registration(roles));
    clients.record(&governance.seal(vec![event])?).await?;
    Ok(())
}

fn decommissioned(name: &str) -> wire::SourceStatus {
    let phase = SourcePhase::Decommissioned.into();
    wire::SourceStatus { phase, source: name.to_owned(), ..Default::default() }
}

const ENROL: [SourceRole; 2] = [SourceRole::Record, SourceRole::Enrol];

const RECORD: [SourceRole; 1] = [SourceRole::Record];

#[tokio::test(flavor = "multi_thread")]
async fn a_source_enrols_itself_once_and_is_marked_in_the_log() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(folder.path()).await?;
    let mut payments = Source::new("payments", 1, &node.vkey)?;
    let first = enroll(&node.clients(), payments.enrolment()).await.unwrap();
    for restart in [false, true] {
        if restart {
            node.stop().await?;
            node = Node::start(folder.path()).await?;
        }
        let again = enroll(&node.clients(), payments.enrolment()).await.unwrap();
        assert_eq!(
            (again.index, &again.event, &again.entry),
            (first.index, &first.event, &first.entry)
        );
        let (again, first) = (again.receipt.unwrap(), first.receipt.clone().unwrap());
        assert_eq!((again.first_index, again.prev), (first.first_index, first.prev));
    }
    let clients = node.clients();
    assert_eq!(clients.size(&node.vkey).await?, 2);
    let listed = source(&clients, "payments").await?;
    assert!(listed.self_enrolled && !listed.decommissioned);
    assert_eq!((listed.registered_index, listed.last_seq), (first.index, 0));
    assert_eq!(listed.public_key, payments.public_key());
    clients.record(&payments.record(2)?).await?;
    Audit::new(&node.vkey).pull(&clients).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_enrol_at_once_all_succeed() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..40 {
        // Each name twice: a service and its impatient twin with the same key.
        let source = Source::new(&format!("service-{}", number / 2), 1, &node.vkey)?;
        let clients = node.clients();
        callers.spawn(async move { enroll(&clients, source.enrolment()).await });
    }
    while let Some(called) = callers.join_next().await {
        called?.unwrap();
    }
    let clients = node.clients();
    assert_eq!(clients.size(&node.vkey).await?, 1 + 20);
    Audit::new(&node.vkey).pull(&clients).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_while_it_enrols_harms_nobody() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = GatedDisk::default();
    let _opener = disk.opener();
    let setup = Setup { disk: Arc::new(disk.clone()), ..Setup::new(folder.path()) };
    let node = setup.start().await?;
    let clients = node.clients();
    disk.set(Mode::HeldSyncs);
    let impatient = Source::new("impatient", 1, &node.vkey)?;
    let call = tokio::spawn({
        let (clients, request) = (clients.clone(), impatient.enrolment());
        async move { enroll(&clients, request).await }
    });
    let held = disk.clone();
    tokio::task::spawn_blocking(move || held.wait_until_held()).await?;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    let patient = Source::new("patient", 2, &node.vkey)?;
    let call = tokio::spawn({
        let (clients, request) = (clients.clone(), patient.enrolment());
        async move { enroll(&clients, request).await }
    });
    // The ledger has read both calls once it answers a later one on the same connection.
    clients.size(&node.vkey).await?;
    disk.set(Mode::Open);
    call.await?.unwrap();
    enroll(&clients, impatient.enrolment()).await.unwrap();
    assert_eq!(clients.size(&node.vkey).await?, 3);
    assert!(!folder.path().join("evidence").exists(), "the ledger accused itself");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_that_somebody_else_could_have_made_is_refused() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let payments = clients.enrolled("payments", 1, &node.vkey).await?;
    let size = clients.size(&node.vkey).await?;

    let twin = Source::new("payments", 2, &node.vkey)?;
    let below = Source::new("payments/pod", 3, &node.vkey)?;
    let fresh = Source::new("fresh", 4, &node.vkey)?;
    let mut stolen = fresh.enrolment();
    stolen.public_key = payments.public_key();
    let mut renamed = fresh.enrolment();
    renamed.source = "other".to_owned();
    let mut unsigned = fresh.enrolment();
    unsigned.enrolment = None;
    let denied = (Code::PermissionDenied, "ENROLMENT_REFUSED");
    let cases = [
        (twin.enrolment(), (Code::AlreadyExists, "SOURCE_EXISTS")),
        (Source::new("ledger", 5, &node.vkey)?.enrolment(), (Code::AlreadyExists, "SOURCE_EXISTS")),
        (below.enrolment(), denied),
        (stolen, denied),
        (renamed, denied),
        (fresh.enrolment_for(&ENROL), denied),
        (fresh.enrolment_for(&[SourceRole::Govern]), denied),
        (fresh.enrolment_for(&[SourceRole::Record, SourceRole::Approve]), denied),
        // Who enrolled itself has no role to vouch for others with.
        (below.enrolment_below(&payments, &RECORD), (Code::PermissionDenied, "ROLE_MISSING")),
    ];
    for (request, kind) in cases {
        let name = request.source.clone();
        assert_eq!(enroll(&clients, request).await.unwrap_err().kind(), kind, "{name}");
    }
    let malformed = [
        unsigned,
        wire::EnrollRequest { source: "No Name".into(), ..fresh.enrolment() },
        wire::EnrollRequest { public_key: vec![1; 31].into(), ..fresh.enrolment() },
        wire::EnrollRequest { roles: vec![99], ..fresh.enrolment() },
        wire::EnrollRequest {
            heartbeat_interval: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
            ..fresh.enrolment()
        },
    ];
    for request in malformed {
        let refused = enroll(&clients, request).await.unwrap_err();
        assert_eq!(refused.code, Code::InvalidArgument, "{refused:?}");
    }
    assert_eq!(clients.size(&node.vkey).await?, size);
    enroll(&clients, fresh.enrolment()).await.unwrap();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_governance_opens_a_ledger_that_lets_nobody_in_by_itself() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let setup = Setup { self_enrolment: false, ..Setup::new(folder.path()) };
    let node = setup.start().await?;
    let clients = node.clients();
    let mut governance = governance(folder.path(), &node)?;
    let mut gateway = Source::new("gateway", 1, &node.vkey)?;
    let refused = enroll(&clients, gateway.enrolment()).await.unwrap_err();
    assert_eq!(refused.kind(), (Code::PermissionDenied, "ENROLMENT_REFUSED"));

    register(&clients, &mut governance, &gateway, &ENROL).await?;
    clients.record(&gateway.record(1)?).await?;
    let listed = source(&clients, "gateway").await?;
    assert!(!listed.self_enrolled);
    assert_eq!(listed.roles, ENROL.map(i32::from));

    // A child below its parent; not beside it, not with more roles, not upon a stranger's
    // signature.
    let mut child = Source::new("gateway/pod-1", 2, &node.vkey)?;
    let beside = Source::new("gateway-2", 3, &node.vkey)?;
    let stranger = Source::new("gateway", 4, &node.vkey)?;
    let cases = [
        (beside.enrolment_below(&gateway, &RECORD), "ENROLMENT_REFUSED"),
        (child.enrolment_below(&gateway, &[SourceRole::Approve]), "ROLE_MISSING"),
        (child.enrolment_below(&stranger, &RECORD), "ENROLMENT_REFUSED"),
        (child.enrolment(), "ENROLMENT_REFUSED"),
    ];
    for (request, reason) in cases {
        let refused = enroll(&clients, request).await.unwrap_err();
        assert_eq!(refused.kind(), (Code::PermissionDenied, reason));
    }
    enroll(&clients, child.enrolment_below(&gateway, &RECORD)).await.unwrap();
    clients.record(&child.record(1)?).await?;

    // A parent can seal the registration itself, too.
    let mut second = Source::new("gateway/pod-2", 5, &node.vkey)?;
    register(&clients, &mut gateway, &second, &RECORD).await?;
    clients.record(&second.record(1)?).await?;
    Audit::new(&node.vkey).pull(&clients).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decommissioned_source_records_no_more_and_its_last_words_keep_their_receipt()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(folder.path()).await?;
    let mut governance = governance(folder.path(), &node)?;
    let mut old = node.clients().enrolled("old", 1, &node.vkey).await?;
    let mut fired = node.clients().enrolled("fired", 2, &node.vkey).await?;
    let clients = node.clients();
    let first = fired.record(2)?;
    let place = clients.record(&first).await?;

    let event = old.status(decommissioned("fired"));
    let foreign = old.seal_at(1, vec![event])?;
    let refused = clients.refused(foreign.batch).await?;
    assert_eq!(refused.kind(), (Code::PermissionDenied, "ROLE_MISSING"));

    let event = governance.status(decommissioned("fired"));
    clients.record(&governance.seal(vec![event])?).await?;
    let event = old.status(decommissioned("old"));
    let last_words = old.seal(vec![event])?;
    let last_place = clients.record(&last_words).await?;
    let after = [fired.record(1)?, old.record(1)?];
    for restart in [false, true] {
        if restart {
            node.stop().await?;
            node = Node::start(folder.path()).await?;
        }
        let clients = node.clients();
        for sealed in &after {
            let refused = clients.refused(sealed.batch.clone()).await?;
            assert_eq!(refused.kind(), (Code::PermissionDenied, "SOURCE_INACTIVE"));
        }
        assert!(source(&clients, "fired").await?.decommissioned);
        // Repeating a call is always safe: what was recorded before the end has its place for ever.
        assert_eq!(clients.record(&first).await?, place);
        assert_eq!(clients.record(&last_words).await?, last_place);
        let again = Source::new("old", 3, &node.vkey)?;
        let refused = enroll(&clients, again.enrolment()).await.unwrap_err();
        assert_eq!(refused.kind(), (Code::AlreadyExists, "SOURCE_EXISTS"));
    }
    Audit::new(&node.vkey).pull(&node.clients()).await?;
    Ok(())
}

#[tokio::test]
async fn a_source_is_told_how_often_it_promised_to_be_heard() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path()).await.unwrap();
    let clients = node.clients();
    for (name, seconds) in [("beating", 60), ("silent", 0)] {
        let source = Source::new(name, 1, &node.vkey).unwrap();
        let heartbeat = Duration::from_secs(seconds);
        let (channel, key) = (clients.channel.clone(), source.key());
        let enrolled =
            connect::enroll(channel, &node.vkey, key, Roles::RECORDER, None, heartbeat).await;
        enrolled.unwrap();
        let request = wire::GetSourceStateRequest { source: name.to_owned() };
        let state = clients.recorder.clone().get_source_state(request).await.unwrap().into_inner();
        let told = state.heartbeat_interval.map(|interval| interval.seconds);
        assert_eq!(told, (seconds > 0).then_some(60));
    }
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_judged_by_the_roles_that_it_finds() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = GatedDisk::default();
    let setup = Setup { disk: Arc::new(disk.clone()), ..Setup::new(folder.path()) };
    let _opener = disk.opener();
    let node = setup.start().await?;
    let clients = node.clients();
    let mut governance = Governance::of(folder.path(), &node.vkey)?;
    let mut payments = clients.enrolled("payments", 1, &node.vkey).await?;
    let mut other = clients.enrolled("other", 2, &node.vkey).await?;
    let roles = wire::SourceRoles { roles: vec![SourceRole::Enrol.into()], ..Default::default() };
    let content = roles.encode_to_vec();
    let change = governance.change(wire::ControlKind::Role, "payments", 1, content);
    let event = governance.company.event(Body::ControlChange(change));
    let change = governance.company.seal(vec![event])?;
    // Behind a sync that is held up, the change is admitted first; the batch is still lawful then.
    disk.set(Mode::HeldSyncs);
    let held = other.record(1)?;
    let late = payments.record(1)?;
    let (sender, requests) = tokio::sync::mpsc::channel(2);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut recorder = clients.recorder.clone();
    let answers = tokio::spawn(async move { recorder.append_stream(requests).await });
    sender.send(held.request()).await?;
    let gate = disk.clone();
    tokio::task::spawn_blocking(move || gate.wait_until_held()).await?;
    for sealed in [&change, &late] {
        sender.send(sealed.request()).await?;
    }
    let mut answers = answers.await??.into_inner();
    // Nothing tells when the last one is admitted; if it is not, this proves less.
    tokio::time::sleep(Duration::from_millis(200)).await;
    disk.set(Mode::Open);
    answers.message().await?.context("no receipt")?;
    answers.message().await?.context("no receipt")?;
    let refused = Refused::of(&answers.message().await.err().context("recorded")?);
    assert_eq!(refused.kind(), (Code::PermissionDenied, "ROLE_MISSING"));
    let mut log = Audit::new(&node.vkey);
    log.pull(&clients).await?;
    node.stop().await
}
