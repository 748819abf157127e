//! The retention: both parties say once how old events get; the ledger erases what has become old
//! enough, records each run, and leaves all else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use access_ledger_client::{
    audit::audit_observed, fold::FindingsList, pull::Puller, verify::Scope, view::View,
};
use access_ledger_proto::{
    entry::Entry,
    position::{Index, Size},
    quorum::Quorum,
    wire::{self, ControlKind, Event, FindingRecord, event::Body},
};
use access_ledger_server::{custodian::alarms::AlarmKind, os::Clock};
use access_ledger_tests::{
    custodian::{self, Keeper},
    node::{Clients, Node, Setup},
    parties::{Governance, access, approve, request},
    personal::redaction,
    source::{Sealed, Source},
};
use anyhow::{Context as _, ensure};
use prost::Message as _;

/// Nanoseconds.
const DAY: u64 = 86_400_000_000_000;

/// 2026-03-02.
const BEGIN: u64 = 1_772_409_600_000_000_000;

/// A clock that the test owns.
struct OwnClock(AtomicU64);

impl Clock for OwnClock {
    fn now_nanos(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl OwnClock {
    fn pass(&self, nanos: u64) {
        self.0.fetch_add(nanos, Ordering::SeqCst);
    }
}

/// One entry with its decoded event.
struct Line {
    source: String,
    recorded_at: u64,
    event: Option<Event>,
}

async fn lines(node: &Node) -> anyhow::Result<Vec<Line>> {
    let size = node.clients().size(&node.vkey).await?;
    lines_of(&Puller::new(node.clients().channel), size).await
}

async fn lines_of(puller: &Puller, size: u64) -> anyhow::Result<Vec<Line>> {
    let mut records = puller.records(Index(0), Size(size), Scope::Events);
    let mut lines = Vec::new();
    while let Some(run) = records.next().await {
        for record in run?.1 {
            let entry = Entry::parse(&record.entry)?;
            let event = record.event.clone().map(Event::decode).transpose()?;
            let source = entry.source.as_str().to_owned();
            lines.push(Line { source, recorded_at: entry.recorded_at, event });
        }
    }
    Ok(lines)
}

/// Waits until the log is as wanted.
async fn until(node: &Node, is_wanted: impl Fn(&[Line]) -> bool) -> anyhow::Result<Vec<Line>> {
    let wait = async {
        loop {
            let lines = lines(node).await?;
            if is_wanted(&lines) {
                return Ok(lines);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.context("never came to be so")?
}

/// What a fresh auditor finds, who never saw what was erased.
async fn findings(node: &Node) -> anyhow::Result<Vec<FindingRecord>> {
    let folder = tempfile::tempdir()?;
    let mut view = View::open(&folder.path().join("view.json"), &node.vkey)?;
    let puller = Puller::new(node.clients().channel);
    let progress = Arc::new(|_, _| ());
    let list = FindingsList::default();
    let quorum = Quorum::default();
    let (_, list) = audit_observed(&puller, &mut view, quorum, progress, list).await?;
    Ok(list.conclude()?)
}

fn retention(days: i64) -> Vec<u8> {
    let max_age = Some(prost_types::Duration { seconds: days * 86_400, nanos: 0 });
    wire::Retention { max_age, legal_basis: "storage limitation".to_owned() }.encode_to_vec()
}

async fn govern(
    clients: &Clients,
    governance: &mut Governance,
    change: wire::ControlChange,
) -> anyhow::Result<u64> {
    let event = governance.company.event(Body::ControlChange(change));
    let sealed = governance.company.seal(vec![event])?;
    Ok(clients.record(&sealed).await?.first_index)
}

fn runs(lines: &[Line]) -> Vec<(usize, wire::Redaction)> {
    let run = |(index, line): (usize, &Line)| match line.event.as_ref()?.body.as_ref()? {
        Body::Redaction(redaction) => Some((index, redaction.clone())),
        _ => None,
    };
    lines.iter().enumerate().filter_map(run).collect()
}

fn gone(lines: &[Line]) -> usize {
    lines.iter().filter(|line| line.event.is_none()).count()
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "the life of one ledger, told in order")]
async fn what_has_become_old_is_erased_by_runs_that_the_ledger_records() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let clock = Arc::new(OwnClock(AtomicU64::new(BEGIN)));
    let setup = Setup { clock: clock.clone(), ..Setup::new(folder.path()) };
    let node = setup.start().await?;
    let clients = node.clients();
    let mut governance = Governance::of(folder.path(), &node.vkey)?;
    let mut approver = Source::new("security/ann", 1, &node.vkey)?;
    governance.register_approver(&clients, &approver).await?;
    let mut gateway = clients.enrolled("gateway", 2, &node.vkey).await?;

    // Old: accesses, a request and its approval, and what an approver records.
    let old = accesses(&mut gateway, &["a", "b"])?;
    clients.record(&old).await?;
    let asked = gateway.event(request("g-1", "users"));
    clients.record(&gateway.seal(vec![asked])?).await?;
    let approved = approver.event(approve("g-1", 0));
    clients.record(&approver.seal(vec![approved])?).await?;
    clock.pass(20 * DAY);
    let young = accesses(&mut gateway, &["c"])?;
    clients.record(&young).await?;

    let change = governance.change(ControlKind::Retention, "", 1, retention(30));
    let in_force = govern(&clients, &mut governance, change).await?;
    let before = lines(&node).await?;
    assert_eq!((gone(&before), runs(&before).len()), (0, 0), "nothing is old enough");

    clock.pass(11 * DAY);
    let after = until(&node, |lines| gone(lines) == 2).await?;
    let [(at, run)] = &runs(&after)[..] else { anyhow::bail!("{:?}", runs(&after)) };
    assert_eq!((run.retention_index, &*run.legal_basis), (in_force, "storage limitation"));
    assert_eq!(after[*at].source, "ledger");
    let erased: Vec<_> = (0_u64..).zip(&after).filter(|(_, line)| line.event.is_none()).collect();
    assert!(erased.iter().all(|(index, line)| {
        line.source == "gateway"
            && (run.first_index..=run.last_index).contains(index)
            && line.recorded_at + 30 * DAY <= after[*at].recorded_at
    }));

    // The next ones are erased in their turn, by a run of their own.
    clock.pass(20 * DAY);
    let after = until(&node, |lines| gone(lines) == 3).await?;
    assert_eq!(runs(&after).len(), 2);
    assert!(after.iter().all(|line| {
        let body = line.event.as_ref().and_then(|event| event.body.as_ref());
        line.event.is_none() || !matches!(body, Some(Body::Access(_)))
    }));
    let rules: Vec<_> = findings(&node).await?.into_iter().map(|finding| finding.rule).collect();
    ensure!(
        !rules.iter().any(|rule| {
            ["ERASED_WITHOUT_RECORD", "CONTROL_INVALID", "GRANT_UNKNOWN"].contains(&&**rule)
        }),
        "{rules:?}"
    );

    // A restart changes nothing, and goes on.
    node.stop().await?;
    let node = setup.start().await?;
    let clients = node.clients();
    let sealed = accesses(&mut gateway, &["d"])?;
    clients.record(&sealed).await?;
    clock.pass(40 * DAY);
    let after = until(&node, |lines| gone(lines) == 4).await?;
    assert_eq!(runs(&after).len(), 3);

    // Ended: nothing expires any more.
    let change = governance.change(
        ControlKind::Retention,
        "",
        2,
        wire::Retention { max_age: None, legal_basis: "order to preserve".to_owned() }
            .encode_to_vec(),
    );
    govern(&clients, &mut governance, change).await?;
    let sealed = accesses(&mut gateway, &["e"])?;
    clients.record(&sealed).await?;
    clock.pass(400 * DAY);
    // A redaction by both parties shows that the eraser has come by since.
    let last = clients.size(&node.vkey).await? - 1;
    let redaction = redaction(&governance, last, last);
    let event = governance.company.event(Body::Redaction(redaction));
    clients.record(&governance.company.seal(vec![event])?).await?;
    let after = until(&node, |lines| gone(lines) == 5).await?;
    assert_eq!(runs(&after).len(), 4);
    node.stop().await
}

/// A batch of one access to each of these datasets.
fn accesses(gateway: &mut Source, datasets: &[&str]) -> anyhow::Result<Sealed> {
    let mut events = Vec::new();
    for dataset in datasets {
        let body = access(dataset, "", wire::Outcome::Allowed).body.context("no body")?;
        events.push(gateway.event(body));
    }
    gateway.seal(events)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_both_parties_set_the_retention() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut governance = Governance::of(folder.path(), &node.vkey)?;
    let mut alone = governance.change(ControlKind::Retention, "", 1, retention(30));
    alone.approvals.clear();
    let event = governance.company.event(Body::ControlChange(alone));
    let sealed = governance.company.seal_at(1, vec![event])?;
    let refused = clients.refused(sealed.batch).await?;
    assert_eq!(refused.kind(), (tonic::Code::PermissionDenied, "CONTROL_CHANGED_ALONE"));
    // Nor does anybody but the ledger record a run.
    let change = governance.change(ControlKind::Retention, "", 1, retention(30));
    let retention_index = govern(&clients, &mut governance, change).await?;
    let mut run = wire::Redaction {
        first_index: 1,
        last_index: 1,
        legal_basis: "storage limitation".to_owned(),
        retention_index,
        ..Default::default()
    };
    governance.sign(&mut run);
    let event = governance.company.event(Body::Redaction(run));
    let sealed = governance.company.seal_at(governance.company.next_seq, vec![event])?;
    let refused = clients.refused(sealed.batch).await?;
    assert_eq!(refused.kind(), (tonic::Code::InvalidArgument, "REDACTION_INVALID"));
    Ok(())
}

/// The ledger dates its entries. What is old by its word alone, a custodian keeps until that is so
/// by its own clock, and carries out all else meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_dates_ahead_does_not_make_a_custodian_forget() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, copy) = (folder.path().join("ledger"), folder.path().join("keeper"));
    let clock = Arc::new(OwnClock(AtomicU64::new(BEGIN)));
    let node = Setup { clock: clock.clone(), ..Setup::new(&data) }.start().await?;
    let right = Arc::new(OwnClock(AtomicU64::new(BEGIN)));
    let keeping =
        custodian::Setup { clock: right.clone(), ..custodian::Setup::new(&copy, &node.vkey) };
    let keeper = keeping.start(node.address).await?;
    let clients = node.clients();
    let mut governance = Governance::of(&data, &node.vkey)?;
    let mut gateway = clients.enrolled("gateway", 1, &node.vkey).await?;
    clients.record(&accesses(&mut gateway, &["a", "b"])?).await?;
    let change = governance.change(ControlKind::Retention, "", 1, retention(30));
    govern(&clients, &mut governance, change).await?;

    clock.pass(31 * DAY);
    until(&node, |lines| gone(lines) == 2).await?;
    let place = clients.record(&accesses(&mut gateway, &["c"])?).await?.first_index;
    let redaction = redaction(&governance, place, place);
    let event = governance.company.event(Body::Redaction(redaction));
    let size = clients.record(&governance.company.seal(vec![event])?).await?.first_index + 1;
    until(&node, |lines| gone(lines) == 3).await?;
    keeper.holds(size).await?;
    let erased = async |keeper: &Keeper, wanted: usize| {
        let puller = keeper.puller()?;
        custodian::until(async || {
            let lines = lines_of(&puller, size).await?;
            Ok((gone(&lines) >= wanted).then_some(gone(&lines)))
        })
        .await
    };
    ensure!(erased(&keeper, 1).await? == 1, "only what both parties redacted");
    keeper.raises(AlarmKind::FutureDated).await?;

    // Nor does it forget to erase what has become old.
    keeper.stop().await?;
    let keeper = keeping.start(node.address).await?;
    keeper.holds(size).await?;
    ensure!(gone(&lines_of(&keeper.puller()?, size).await?) == 1);
    right.pass(31 * DAY);
    ensure!(erased(&keeper, 3).await? == 3);
    keeper.stop().await?;
    node.stop().await
}
