//! Events that both parties want erased are gone from every file of the ledger, however it is
//! stopped; everything else still verifies, and what may not be erased is refused by name.

use std::{path::Path, sync::Arc, time::Duration};

use access_ledger_client::{
    audit::Observer as _,
    pull::Puller,
    reports::{Day, Options, Period, Recomputed, Report},
    verify::{Record, Scope},
};
use access_ledger_proto::{
    chain::Link,
    position::{Index, Size},
    wire::{self, event::Body},
};
use access_ledger_server::{
    os::RealDisk,
    storage::{self, Attempt},
};
use access_ledger_tests::{
    folders,
    node::{Clients, Node, ORIGIN, Setup},
    parties::Governance,
    personal::{PERSONAL, checked, found, holding, personal, redaction, until_gone},
    source::{Refused, Sealed, Source},
    stopping::StoppingDisk,
    stored::Stored,
    story::{self, PARTIES, Story},
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tonic::Code;

async fn redact(
    clients: &Clients,
    sealer: &mut Source,
    redaction: wire::Redaction,
) -> anyhow::Result<Result<u64, Refused>> {
    let event = sealer.event(Body::Redaction(redaction));
    let sealed = sealer.seal_at(sealer.next_seq, vec![event])?;
    match clients.append(&sealed).await {
        Ok(answer) => {
            sealer.next_seq += 1;
            Ok(Ok(sealed.place(&answer)?.first_index))
        }
        Err(status) => Ok(Err(Refused::of(&status))),
    }
}

async fn record_at(clients: &Clients, index: u64) -> anyhow::Result<Record> {
    let puller = Puller::new(clients.channel.clone());
    let mut records = puller.records(Index(index), Size(index + 1), Scope::Events);
    let run = records.next().await.transpose()?.context("no records")?;
    run.1.into_iter().next().context("no record")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_both_parties_redact_is_gone_from_every_file_and_all_else_verifies()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut governance = Governance::of(folder.path(), &node.vkey)?;
    let mut payments = clients.enrolled("payments", 1, &node.vkey).await?;
    clients.record(&payments.record(3)?).await?;
    let events = vec![personal(&mut payments), personal(&mut payments)];
    let secret = payments.seal(events)?;
    let place = clients.record(&secret).await?;
    clients.record(&payments.record(2)?).await?;
    assert!(!holding(folder.path())?.is_empty());

    let first = place.first_index;
    let wanted = redaction(&governance, first, first + 1);
    let at = redact(&clients, &mut governance.company, wanted.clone()).await?.unwrap();
    until_gone(folder.path()).await?;
    for index in [first, first + 1] {
        assert_eq!(record_at(&clients, index).await?.event, None);
    }
    assert!(record_at(&clients, at).await?.event.is_some());
    // The receipt holds, and comes back for the same batch.
    assert_eq!(clients.record(&secret).await?, place);
    let rules = found(&Puller::new(node.clients().channel), &node.vkey).await?;
    assert!(!rules.contains(&"ERASED_WITHOUT_RECORD".to_owned()), "{rules:?}");

    let refused = redact(&clients, &mut governance.company, wanted).await?.unwrap_err();
    assert_eq!(refused.kind(), (Code::FailedPrecondition, "ERASED_ALREADY"));
    assert_eq!(redacted(&clients).await?, 2, "what reports say of it");
    node.stop().await?;
    assert_eq!(checked(folder.path(), payments.ledger())?, 2);
    assert!(holding(folder.path())?.is_empty());
    let node = Node::start(folder.path()).await?;
    found(&Puller::new(node.clients().channel), &node.vkey).await?;
    assert_eq!(node.clients().record(&secret).await?, place);
    node.stop().await
}

/// Events erased, as a footer tells.
async fn redacted(clients: &Clients) -> anyhow::Result<u64> {
    let request = wire::GetReportRequest {
        name: "sources".to_owned(),
        from: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
        to: Some(prost_types::Timestamp { seconds: 4_102_444_800, nanos: 0 }),
        ..Default::default()
    };
    for _ in 0..3_000 {
        // The files are new before the answers are: the exchange follows at once.
        let answer = clients.auditor.clone().get_report(request.clone()).await?.into_inner();
        let footer = answer.footer.context("no footer")?;
        if footer.redacted > 0 {
            return Ok(footer.redacted);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_erased_is_refused_by_name_and_index() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut governance = Governance::of(folder.path(), &node.vkey)?;
    let mut payments = clients.enrolled("payments", 1, &node.vkey).await?;
    let first = clients.record(&payments.record(3)?).await?.first_index;
    let size = clients.size(&node.vkey).await?;
    let company = |wanted| (wanted, (Code::FailedPrecondition, "NOT_ERASABLE"));
    for ((first, last), (code, reason)) in [
        company((0, 0)),
        company((first - 1, first)),
        ((size, size), (Code::OutOfRange, "REDACTION_INVALID")),
        ((first, size), (Code::OutOfRange, "REDACTION_INVALID")),
        ((first + 1, first), (Code::InvalidArgument, "REDACTION_INVALID")),
        ((first, u64::MAX - 1), (Code::InvalidArgument, "REQUEST_INVALID")),
        ((first, u64::MAX), (Code::OutOfRange, "REDACTION_INVALID")),
    ] {
        let wanted = redaction(&governance, first, last);
        let refused = redact(&clients, &mut governance.company, wanted).await?.unwrap_err();
        assert_eq!(refused.kind(), (code, reason), "{first} to {last}");
        if reason == "NOT_ERASABLE" {
            assert_eq!(refused.metadata["index"], first.to_string());
        }
    }
    let mut alone = redaction(&governance, first, first);
    alone.approvals.clear();
    let refused = redact(&clients, &mut governance.company, alone).await?.unwrap_err();
    assert_eq!(refused.kind(), (Code::PermissionDenied, "CONTROL_CHANGED_ALONE"));
    let mut other = redaction(&governance, first, first);
    other.legal_basis = "another".to_owned();
    let refused = redact(&clients, &mut governance.company, other).await?.unwrap_err();
    assert_eq!(refused.kind(), (Code::PermissionDenied, "CONTROL_CHANGED_ALONE"));
    let both = redaction(&governance, first, first);
    let refused = redact(&clients, &mut payments, both.clone()).await?.unwrap_err();
    assert_eq!(refused.kind(), (Code::PermissionDenied, "ROLE_MISSING"));
    // Who has no say is told nothing of what is there.
    let mut kept = redaction(&governance, 0, 0);
    let refused = redact(&clients, &mut payments, kept.clone()).await?.unwrap_err();
    assert_eq!(refused.kind(), (Code::PermissionDenied, "ROLE_MISSING"));
    kept.approvals.clear();
    let refused = redact(&clients, &mut governance.company, kept).await?.unwrap_err();
    assert_eq!(refused.kind(), (Code::PermissionDenied, "CONTROL_CHANGED_ALONE"));
    let event = governance.company.event(Body::Redaction(both.clone()));
    let pair = governance.company.seal_at(1, vec![event.clone(), event])?;
    let refused = clients.refused(pair.batch).await?;
    assert_eq!(refused.kind(), (Code::InvalidArgument, "BATCH_INVALID"));
    assert_eq!(clients.size(&node.vkey).await?, size, "nothing of it was recorded");

    let at = redact(&clients, &mut governance.company, both).await?.unwrap();
    let wanted = redaction(&governance, first + 1, at);
    let refused = redact(&clients, &mut governance.company, wanted).await?.unwrap_err();
    assert_eq!(refused.kind(), (Code::FailedPrecondition, "NOT_ERASABLE"));
    assert_eq!(refused.metadata["index"], at.to_string());
    node.stop().await
}

/// A stopped ledger whose newest entry is a redaction that nobody has carried out.
async fn pending(folder: &Path) -> anyhow::Result<Sealed> {
    let node = Node::start(folder).await?;
    let clients = node.clients();
    let mut governance = Governance::of(folder, &node.vkey)?;
    let mut payments = clients.enrolled("payments", 1, &node.vkey).await?;
    let events = (0..3).map(|_| personal(&mut payments)).collect();
    let secret = payments.seal(events)?;
    let first = clients.record(&secret).await?.first_index;
    clients.record(&payments.record(1)?).await?;
    node.stop().await?;
    let event = governance.company.event(Body::Redaction(redaction(&governance, first, first + 2)));
    let sealed = governance.company.seal(vec![event.clone()])?;
    let options = storage::Options::new(folder, ORIGIN);
    let mut opened = storage::open(Arc::new(RealDisk), &options, None)?;
    let link: &mut Link = &mut opened.link;
    let mut group = opened.log.group();
    let recorded_at = link.recorded_at;
    sealed.extend(link, recorded_at, |entry| group.push(entry, &event))?;
    let _durable = opened.log.commit(group)?;
    Ok(secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_is_stopped_at_any_operation_is_finished_at_the_next_start()
-> anyhow::Result<()> {
    let template = tempfile::tempdir()?;
    let secret = pending(template.path()).await?;
    for at in 0.. {
        let folder = tempfile::tempdir()?;
        folders::copy(template.path(), folder.path())?;
        let disk = StoppingDisk::after(at);
        let setup = Setup { disk: Arc::new(disk.clone()), ..Setup::new(folder.path()) };
        let opened = tokio::task::spawn_blocking(move || setup.open()).await?;
        let mut is_done = false;
        if let Ok(ledger) = opened {
            while !disk.has_stopped() && !is_done {
                is_done = holding(folder.path()).is_ok_and(|found| found.is_empty());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::task::spawn_blocking(move || ledger.close()).await?;
        }
        let node = Node::start(folder.path()).await.with_context(|| format!("operation {at}"))?;
        until_gone(folder.path()).await.with_context(|| format!("operation {at}"))?;
        found(&Puller::new(node.clients().channel), &node.vkey)
            .await
            .with_context(|| format!("operation {at}"))?;
        node.clients().record(&secret).await?;
        let vkey = node.vkey.clone();
        node.stop().await?;
        assert_eq!(checked(folder.path(), &vkey)?, 3);
        if is_done {
            ensure!(at > 10, "done after {at} operations");
            return Ok(());
        }
    }
    Ok(())
}

/// A story with accesses that tell [`PERSONAL`], and their places.
fn told() -> anyhow::Result<(Story, Vec<Index>)> {
    let mut story = Story::open()?;
    let mut places = Vec::new();
    for number in 0..60 {
        let is_personal = number % 3 == 0;
        let index = story.access(|event, access| {
            if is_personal {
                access.justification = String::from_utf8_lossy(PERSONAL[2]).into_owned();
                // Abroad, so that it is found.
                if let Some(actor) = &mut event.actor {
                    actor.id = String::from_utf8_lossy(PERSONAL[0]).into_owned();
                    actor.physical_country = "SG".to_owned();
                }
                for data in &mut access.data {
                    data.subject_tokens = vec![Bytes::from_static(PERSONAL[1])];
                }
            }
        })?;
        places.extend(is_personal.then_some(index));
        story.wait(story::DAY / 3);
    }
    Ok((story, places))
}

#[test]
fn the_index_forgets_what_erased_events_had_said_and_answers_as_if_it_had_never_known()
-> anyhow::Result<()> {
    for block_entries in [7, 16, 65_536] {
        let (mut story, places) = told()?;
        let mut stored = Stored::new()?;
        stored.append(&story.records()?)?;
        let (index, mut indexer) = stored.index(block_entries)?;
        assert!(!holding(stored.folder())?.is_empty());
        let ranges: Vec<_> = places.iter().map(|place| place.0..=place.0).collect();
        for place in &places {
            let range = *place..place.next();
            stored.reader.erase(&range, Attempt::First, |_, _| true)?;
            story.erase(*place);
        }
        assert!(index.forget(&stored.reader, &ranges, &|| false)?);
        assert!(holding(stored.folder())?.is_empty(), "{:?}", holding(stored.folder())?);
        indexer.settle()?;
        assert!(holding(stored.folder())?.is_empty(), "{:?}", holding(stored.folder())?);
        compare(&stored, &index, &story)?;

        // It goes on from there, and comes back so.
        story.access(|_, _| {})?;
        let records = story.records()?;
        stored.append(records.get(records.len() - 1..).unwrap_or_default())?;
        indexer.settle()?;
        compare(&stored, &index, &story)?;
        drop((index, indexer));
        let (index, _indexer) = stored.index(block_entries)?;
        compare(&stored, &index, &story)?;
    }
    Ok(())
}

/// Compares all reports and findings with what whoever never saw the events computes.
fn compare(
    stored: &Stored,
    index: &access_ledger_server::index::Index,
    story: &Story,
) -> anyhow::Result<()> {
    let records = story.records()?;
    let first = Day::of(story.lines().first().context("no lines")?.recorded_at).0;
    let period = Period::new(Day(first - 2), Day(first + 60))?;
    let subject = Some(PERSONAL[1].to_vec());
    let options = Options { period, subject, with_staff: true };
    for report in Report::ALL {
        let (table, footer) = index.report(&stored.reader, report, &options)?;
        let mut recomputed = Recomputed::new(report, options.clone());
        recomputed.take(Index::GENESIS, &records);
        assert_eq!(table, recomputed.table()?, "{report}");
        let erased = story.lines().iter().filter(|line| line.event.is_none()).count();
        assert_eq!(footer.redacted, u64::try_from(erased)?);
    }
    Ok(())
}

#[test]
fn a_redaction_by_one_party_is_found_and_accounts_for_nothing() -> anyhow::Result<()> {
    let mut story = Story::open()?;
    let index = story.access(|_, _| {})?;
    let mut alone = story.redaction(index, index)?;
    alone.approvals.clear();
    let at = story.tell(PARTIES[0], Body::Redaction(alone))?;
    story.erase(index);
    let found: Vec<_> = story::fold::findings(story.lines())?
        .into_iter()
        .map(|finding| (finding.rule, Index(finding.index)))
        .collect();
    assert_eq!(
        found,
        [("CONTROL_CHANGED_ALONE".to_owned(), at), ("ERASED_WITHOUT_RECORD".to_owned(), index)]
    );
    let lawful = story.redaction(index, index)?;
    story.tell(PARTIES[0], Body::Redaction(lawful))?;
    let rules: Vec<_> =
        story::fold::findings(story.lines())?.into_iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, ["CONTROL_CHANGED_ALONE"]);
    Ok(())
}
