//! What a custodian answers where the ledger keeps something back, and what convicts a custodian
//! that lies itself.

use std::{fs, path::Path, sync::Arc};

use access_ledger_client::{
    audit::{AuditError, AuditOptions, audit, audit_copy},
    evidence::{Caught, Conviction, Evidence, Misdeed, Verdict},
    folder::{Folder, FolderError},
    pull::Puller,
    query::proven_hits,
};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    note::{KeyType, Signer},
    position::{Size, count_of},
    quorum::Quorum,
    receipt::TlogProof,
    terms::Criteria,
    wire::{self, Filter},
    witness::AddCheckpoint,
};
use access_ledger_server::{
    custodian::alarms::AlarmKind,
    demo::tamper::Seized,
    os::{Access, Disk as _, RealDisk},
};
use access_ledger_tests::{
    adversary::{custody::Watching, gone_on, history::other_history, signed},
    custodian::Keeper,
    hostile::{Hostile, Server, options},
    operator::{BATCHES, Crime, SECOND, SIZE, append, entry},
    pages,
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;

use super::promises::kept;

/// Each hit of the ledger's answer is proven; that one is missing shows beside the custodian's.
#[tokio::test(flavor = "multi_thread")]
async fn answer_a_query_with_one_result_left_out() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let server = Server::start(signed(&crime.honest)?).await?;
    let folder = tempfile::tempdir()?;
    let keeper = Keeper::start(folder.path(), &crime.vkey, server.address).await?;
    keeper.cosigns(SIZE).await?;
    let filter = Filter { sources: vec!["payments".to_owned()], ..Default::default() };
    let request = wire::QueryRequest {
        filter: Some(filter.clone()),
        with_events: true,
        with_proofs: true,
        page_size: 1_000,
        ..Default::default()
    };
    let whole = keeper.puller()?.query(&request).await?;
    let mut wanted = Vec::new();
    for (index, record) in (0..).zip(&crime.honest.records) {
        let is_its = entry(record, |entry| entry.source.as_str() == "payments")?;
        wanted.extend(is_its.then_some(index));
    }
    let indexes = |page: &wire::QueryResponse| -> anyhow::Result<Vec<u64>> {
        let criteria = Criteria::parse(&filter)?;
        let hits = proven_hits(page, &criteria, &crime.vkey)?;
        Ok(hits.iter().map(|hit| hit.index.0).collect())
    };
    ensure!(indexes(&whole)? == wanted && whole.indexed_size == SIZE, "the custodian's answer");
    let mut cut = whole.clone();
    let left_out = cut.hits.remove(wanted.len() / 2).index;
    let told = indexes(&cut).context("what is there is proven")?;
    let missing = |told: &[u64]| wanted.iter().copied().filter(|at| !told.contains(at)).collect();
    let missing: [Vec<u64>; 2] = [missing(&told), missing(&wanted)];
    ensure!(missing == [vec![left_out], vec![]], "{missing:?}, and the honest twin");
    keeper.stop().await
}

/// The custodian follows a history from which a batch was dropped after its receipt was given.
/// Whoever holds the receipt shows it what the ledger signed.
#[tokio::test(flavor = "multi_thread")]
async fn show_the_custodian_a_receipt_that_was_not_included() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let receipt = TlogProof::parse(kept(&crime.honest)?.as_bytes())?;
    let mut copy = crime.honest.clone();
    copy.records.truncate(usize::try_from(BATCHES[7].0)?);
    let [source, _] = &mut crime.sources;
    let events = source.events(8);
    append(&mut copy, source, events)?;
    let twin = gone_on(&mut crime, SECOND)?;
    for (log, is_honest) in [(twin, true), (copy, false)] {
        crime.honest = log;
        let server = Server::start(signed(&crime.honest)?).await?;
        let watching = Watching::begin(&crime, &server).await?;
        let note = receipt.checkpoint.as_bytes();
        let body = AddCheckpoint { old: Size(crime.size()), proof: Vec::new(), note };
        let answer = pages::post(watching.address, "/add-checkpoint", &body.to_bytes()).await?;
        let raised: Vec<_> =
            watching.raised().iter().map(|record| (record.kind, Size(record.size))).collect();
        if is_honest {
            // Older than what it signed last, and nothing against it.
            ensure!(answer.status == 400 && raised.is_empty(), "{}: {raised:?}", answer.status);
            ensure!(watching.halted()?.is_none());
        } else {
            ensure!(answer.status == 422, "{}", answer.status);
            ensure!(raised == [(AlarmKind::Fork, Size(SIZE))], "{raised:?}");
            ensure!(watching.halted()?.is_some());
            let record = watching.raised().into_iter().next().context("an alarm")?;
            let evidence = watching.alarms.evidence(&record).context("evidence")?;
            let verdict = Evidence::parse(&fs::read(evidence)?)?.judge(&[])?;
            ensure!(matches!(verdict, Verdict::Proven(_)), "{verdict:?}");
        }
        watching.end().await?;
    }
    Ok(())
}

/// A custodian hand in hand with the operator: its signatures stand under both histories.
#[tokio::test(flavor = "multi_thread")]
async fn cosign_two_histories() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let liar = Signer::new("custodian.example", KeyType::CosignatureV1, [5; 32])?;
    let cosigned = |log: &Seized, second: u64| -> anyhow::Result<Bytes> {
        let note = log.serve()?.checkpoint().clone();
        let line = VerifiedCheckpoint::open(&note, &crime.vkey, &[])?.cosign(&liar, second)?;
        Ok([&note[..], line.as_bytes()].concat().into())
    };
    let quorum = Quorum::of_known(vec![liar.verifier().clone()]);
    let options = AuditOptions { quorum, ..options() };
    for (log, is_honest) in [(crime.honest.clone(), true), (other_history(&crime)?, false)] {
        let mut view = crime.fresh(if is_honest { "twin.json" } else { "view.json" })?;
        for (log, second) in [(&crime.honest, 1_800_000_000), (&log, 1_800_000_060)] {
            let note = cosigned(log, second)?;
            let served = Hostile::new(log.serve()?).checkpoint(move |_, _| Ok(note.clone()));
            let server = Server::start(served).await?;
            match server.audit_with(&mut view, &options).await {
                Ok(_) => ensure!(is_honest || second == 1_800_000_000, "nothing was noticed"),
                Err(AuditError::Caught(caught)) => {
                    ensure!(!is_honest && matches!(*caught, Caught::Fork { .. }), "{caught}");
                    let text = caught.evidence(&crime.vkey);
                    let Verdict::Proven(found) = Evidence::parse(text.as_bytes())?.judge(&[])?
                    else {
                        anyhow::bail!("its own signatures prove it");
                    };
                    let is_it = |Conviction { key, misdeed }: &Conviction| {
                        let is_two = |size: Size| size == Size(SIZE);
                        let two =
                            matches!(misdeed, Misdeed::TwoRoots { size, .. } if is_two(*size));
                        two && key == liar.verifier()
                    };
                    ensure!(found.len() == 2 && found.iter().any(is_it), "{found:?}");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// An export of the custodian's is worth what one of the ledger's is; and who knows what it signed
/// takes no smaller one.
#[tokio::test(flavor = "multi_thread")]
async fn truncate_an_export_of_the_custodians() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let server = Server::start(signed(&crime.honest)?).await?;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("keeper");
    let keeper = Keeper::start(&data, &crime.vkey, server.address).await?;
    keeper.cosigns(SIZE).await?;
    let mut view = crime.fresh("view.json")?;
    let puller: Puller = keeper.puller()?;
    let audited = audit(&puller, &mut view, &options(), Arc::new(|_, _| ())).await?;
    ensure!(audited.checkpoint.size() == Size(SIZE));
    keeper.stop().await?;

    let mut look = |data: &Path| {
        let export = Folder::new(data, &crime.vkey);
        let progress = Arc::new(|_, _| ()) as _;
        let audited = audit_copy(&export, &mut view, &Quorum::default(), &progress, ());
        audited.map(|(audited, ())| audited.checkpoint.size())
    };
    ensure!(look(&data)? == Size(SIZE), "the honest twin");
    let older = {
        let mut older = crime.honest.clone();
        older.records.truncate(usize::try_from(BATCHES[4].0)?);
        older
    };
    let (older_size, older_note) = (count_of(older.records.len()), older.serve()?);
    fs::File::create(data.join("checkpoint"))?;
    let file = RealDisk.open(&data.join("checkpoint"), Access::Write)?;
    file.write_at(older_note.checkpoint(), 0)?;
    let old = look(&data);
    let is_old = matches!(
        old,
        Err(AuditError::OldCopy { found, known: Size(SIZE) }) if found == Size(older_size)
    );
    ensure!(is_old, "{old:?}");
    let whole = crime.honest.serve()?;
    fs::File::create(data.join("checkpoint"))?;
    RealDisk.open(&data.join("checkpoint"), Access::Write)?.write_at(whole.checkpoint(), 0)?;
    let segment = data.join("log/00000000000000000000.seg");
    let bytes = fs::read(&segment)?;
    let target = &crime.honest.records[20].entry;
    let at = bytes.windows(target.len()).position(|window| window == target).context("entry 20")?;
    RealDisk.open(&segment, Access::Write)?.set_length(at as u64 + 3)?;
    let cut = look(&data);
    let is_named = match &cut {
        Err(AuditError::Folder(FolderError::Short { found, .. })) => found.0 == 20,
        Err(AuditError::Folder(FolderError::Damaged { index, .. })) => index.0 == 20,
        _ => false,
    };
    ensure!(is_named, "{cut:?}");
    Ok(())
}
