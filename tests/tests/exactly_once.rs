//! A batch is recorded exactly once, however often, however late and by however many it is sent.

use std::collections::{BTreeMap, BTreeSet};

use access_ledger_proto::wire;
use access_ledger_tests::{
    model::{Acknowledged, Audit},
    node::{Clients, Node},
    source::{Place, Refused, Sealed, Source},
};
use anyhow::{Context as _, ensure};
use prost::Message as _;
use tonic::Code;

/// Sends batches over one stream; gives their places.
async fn stream(clients: &Clients, batches: &[Sealed]) -> anyhow::Result<Vec<Place>> {
    let requests: Vec<_> = batches.iter().map(Sealed::request).collect();
    let answers = clients.recorder.clone().append_stream(tokio_stream::iter(requests)).await?;
    let mut answers = answers.into_inner();
    let mut places = Vec::new();
    for sealed in batches {
        let answer = answers.message().await?.context("the stream ended early")?;
        places.push(sealed.place(&answer)?);
    }
    ensure!(answers.message().await?.is_none(), "more answers than batches");
    Ok(places)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_sent_by_many_at_once_is_recorded_once() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
    let before = clients.size(&node.vkey).await?;
    let batches: Vec<_> = (1..=30).map(|count| source.record(count)).collect::<Result<_, _>>()?;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (clients, batches) = (clients.clone(), batches.clone());
        callers.spawn(async move { stream(&clients, &batches).await });
    }
    let mut places = Vec::new();
    while let Some(streamed) = callers.join_next().await {
        places.push(streamed??);
    }
    assert_eq!(places.len(), 8);
    assert!(places.iter().all(|other| *other == places[0]));
    assert_eq!(clients.size(&node.vkey).await?, before + source.next_seq - 1);

    let mut acknowledged = Acknowledged::default();
    for (sealed, place) in batches.iter().zip(&places[0]) {
        acknowledged.note(sealed, place.clone())?;
    }
    let mut audit = Audit::new(&node.vkey);
    audit.pull(&clients).await?;
    acknowledged.check(&audit)
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_race_for_one_source_neither_double_nor_lose() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
    let batches: Vec<_> = (0..60).map(|_| source.record(3)).collect::<Result<_, _>>()?;
    // Each caller repeats its batch until the gap before it is closed by the others.
    let mut callers = tokio::task::JoinSet::new();
    for sealed in batches.iter().rev().cloned() {
        let clients = clients.clone();
        callers.spawn(async move {
            loop {
                match clients.append(&sealed).await {
                    Ok(answer) => return anyhow::Ok((sealed.place(&answer)?, sealed)),
                    Err(status) => {
                        let refused = Refused::of(&status);
                        ensure!(refused.reason == "SEQUENCE_GAP", "{refused:?}");
                        let expected: u64 = refused.metadata["expected_seq"].parse()?;
                        ensure!(expected < sealed.first_seq(), "expects {expected}");
                    }
                }
            }
        });
    }
    let mut acknowledged = Acknowledged::default();
    while let Some(called) = callers.join_next().await {
        let (place, sealed) = called??;
        acknowledged.note(&sealed, place)?;
    }
    let mut audit = Audit::new(&node.vkey);
    audit.pull(&clients).await?;
    assert_eq!(audit.last_seq("payments"), source.next_seq - 1);
    acknowledged.check(&audit)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_in_the_order_of_requests_while_streams_interleave() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut streams = tokio::task::JoinSet::new();
    for number in 0..6 {
        let (clients, vkey) = (clients.clone(), node.vkey.clone());
        streams.spawn(async move {
            let name = format!("service-{number}");
            let mut source = clients.enrolled(&name, number, &vkey).await?;
            let batches: Vec<_> =
                (0..40).map(|count| source.record(1 + count % 7)).collect::<Result<_, _>>()?;
            let places = stream(&clients, &batches).await?;
            ensure!(places.is_sorted_by_key(|place| place.first_index), "out of order");
            anyhow::Ok((batches, places))
        });
    }
    let mut acknowledged = Acknowledged::default();
    while let Some(streamed) = streams.join_next().await {
        let (batches, places) = streamed??;
        for (sealed, place) in batches.iter().zip(places) {
            acknowledged.note(sealed, place)?;
        }
    }
    assert_eq!(acknowledged.len(), 240);
    let mut audit = Audit::new(&node.vkey);
    audit.pull(&clients).await?;
    acknowledged.check(&audit)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_any_age_gets_its_place_again_after_restart_and_without_the_index()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(folder.path()).await?;
    let mut acknowledged = Acknowledged::default();
    let mut sent = Vec::new();
    let mut sources = Vec::new();
    for number in 0..5 {
        let name = format!("service-{number}");
        sources.push(node.clients().enrolled(&name, number, &node.vkey).await?);
    }
    // More entries than one posting block holds would take long; the index's own tests have those.
    for round in 0..400 {
        let source = &mut sources[round % 5];
        sent.push(source.record(1 + round % 13)?);
    }
    for batches in sent.chunks(100) {
        let places = stream(&node.clients(), batches).await?;
        for (sealed, place) in batches.iter().zip(places) {
            acknowledged.note(sealed, place)?;
        }
    }
    for damage in ["nothing", "restart", "index", "index/state", "index/blocks"] {
        if damage != "nothing" {
            node.stop().await?;
            if damage != "restart" {
                std::fs::remove_dir_all(folder.path().join(damage))?;
            }
            node = Node::start(folder.path()).await?;
        }
        let clients = node.clients();
        let size = clients.size(&node.vkey).await?;
        for sealed in sent.iter().step_by(17).chain(&sent[sent.len() - 3..]) {
            let place = clients.record(sealed).await.with_context(|| damage.to_owned())?;
            acknowledged.note(sealed, place)?;
        }
        assert_eq!(clients.size(&node.vkey).await?, size, "{damage}");
        for source in &sources {
            assert_eq!(clients.last_seq(source.name()).await?, source.next_seq - 1, "{damage}");
        }
    }
    let mut audit = Audit::new(&node.vkey);
    audit.pull(&node.clients()).await?;
    acknowledged.check(&audit)
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_events_in_another_cut_are_refused_with_the_number_to_go_on_with()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
    let events = source.events(10);
    clients.record(&source.seal(events[..4].to_vec())?).await?;
    clients.record(&source.seal(events[4..8].to_vec())?).await?;
    let size = clients.size(&node.vkey).await?;
    // From (0-based) first up to last: inside one batch, over two, and beyond what is recorded.
    for (first, end) in [(0, 3), (0, 5), (0, 8), (1, 4), (2, 6), (7, 8), (4, 10), (0, 10), (7, 9)] {
        let recut = source.seal_at(first as u64 + 1, events[first..end].to_vec())?;
        let refused = clients.refused(recut.batch).await?;
        assert_eq!(refused.kind(), (Code::FailedPrecondition, "BATCH_RECUT"), "{first}..{end}");
        assert_eq!(refused.metadata["expected_seq"], "9");
    }
    assert_eq!(clients.size(&node.vkey).await?, size);
    assert!(!folder.path().join("evidence").exists(), "an innocent source was recorded as guilty");
    clients.record(&source.seal(events[8..].to_vec())?).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn other_events_under_used_numbers_are_refused_and_kept_as_evidence() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
    let first = source.record(3)?;
    let place = clients.record(&first).await?;
    let second = source.record(3)?;
    clients.record(&second).await?;
    let size = clients.size(&node.vkey).await?;
    // All different; only the last one different; the second batch's last, in one batch over both
    // and more.
    let mut last = first.batch.events.clone();
    last[2] = source.events(1).remove(0);
    let mut both = [&first.batch.events[..], &second.batch.events].concat();
    both.push(source.events(1).remove(0));
    both[5] = source.events(1).remove(0);
    let other = source.events(3);
    let mut contradictions = BTreeSet::new();
    for (events, seq) in [(other, 1), (last, 3), (both, 6)] {
        let sealed = source.seal_at(1, events)?;
        contradictions.insert(sealed.batch.encode_to_vec());
        for _ in 0..2 {
            let refused = clients.refused(sealed.batch.clone()).await?;
            assert_eq!(refused.kind(), (Code::Aborted, "SEQUENCE_REUSED"));
            assert_eq!(refused.metadata["seq"], seq.to_string());
            let index = place.first_index + seq - 1;
            assert_eq!(refused.metadata["index"], index.to_string());
        }
    }
    assert_eq!(clients.size(&node.vkey).await?, size);
    let mut kept = BTreeSet::new();
    for file in std::fs::read_dir(folder.path().join("evidence"))? {
        let bytes = std::fs::read(file?.path())?;
        // What is kept convicts the source without the ledger: its own seal holds over it.
        let batch = wire::SealedBatch::decode(&bytes[..])?;
        let again = source.seal_at(batch.first_seq, batch.events.clone())?;
        assert_eq!(again.batch.signature, batch.signature);
        kept.insert(bytes);
    }
    assert_eq!(kept, contradictions);
    clients.record(&source.record(1)?).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_source_takes_the_place_of_the_evidence_against_another() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut noisy = clients.enrolled("noisy", 1, &node.vkey).await?;
    let mut quiet = clients.enrolled("quiet", 2, &node.vkey).await?;
    for source in [&mut noisy, &mut quiet] {
        clients.record(&source.record(1)?).await?;
    }
    let contradict = async |source: &mut Source| {
        let events = source.events(1);
        clients.refused(source.seal_at(1, events)?.batch).await
    };
    for _ in 0..40 {
        contradict(&mut noisy).await?;
    }
    contradict(&mut quiet).await?;
    let mut kept = BTreeMap::<String, usize>::new();
    for file in std::fs::read_dir(folder.path().join("evidence"))? {
        let batch = wire::SealedBatch::decode(&std::fs::read(file?.path())?[..])?;
        *kept.entry(batch.source).or_default() += 1;
    }
    assert_eq!(kept, BTreeMap::from([("noisy".to_owned(), 16), ("quiet".to_owned(), 1)]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_refused_with_the_number_that_is_missing() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
    for recorded in [0, 5] {
        let events = source.events(2);
        for skipped in [1, 1_000_000] {
            let sealed = source.seal_at(recorded + 1 + skipped, events.clone())?;
            let refused = clients.refused(sealed.batch).await?;
            assert_eq!(refused.kind(), (Code::FailedPrecondition, "SEQUENCE_GAP"));
            assert_eq!(refused.metadata["expected_seq"], (recorded + 1).to_string());
        }
        clients.record(&source.record(5)?).await?;
    }
    Ok(())
}
