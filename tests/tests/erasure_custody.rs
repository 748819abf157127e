//! What both parties redact is gone from every file of the custodian, too, wherever it is stopped;
//! whatever both served before still proves what it proved, and the custodian signs on.

use std::{path::Path, sync::Arc, time::Duration};

use access_ledger_client::{
    audit::audit_observed,
    pull::{Puller, digests},
    query::{ErasedBy, Hit, SelectError, Selection, note_redactions, proven_hits},
    verify::Scope,
    view::View,
};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    note::VerifierKey,
    position::{Index, Size},
    quorum::Quorum,
    receipt::TlogProof,
    terms::Criteria,
    wire::{self, event::Body},
};
use access_ledger_tests::{
    custodian::{Keeper, Setup, until},
    hostile::Server,
    node::Node,
    operator::{Crime, append},
    parties::Governance,
    personal::{checked, found, holding, personal, redaction, until_gone},
    stopping::StoppingDisk,
};
use anyhow::{Context as _, ensure};

/// The proof of an entry by a server, under its newest checkpoint.
async fn proof(puller: &Puller, index: u64) -> anyhow::Result<TlogProof> {
    let answer = puller.receipt(Index(index)).await?;
    let checkpoint = answer.receipt.context("a receipt")?.checkpoint;
    let checkpoint = String::from_utf8(checkpoint.to_vec())?;
    let path = digests(&answer.inclusion_path)?;
    Ok(TlogProof { entry: answer.entry.to_vec(), index: Index(index), path, checkpoint })
}

/// Whether a server serves the event of an entry.
async fn serves(puller: &Puller, index: u64) -> anyhow::Result<bool> {
    let mut records = puller.records(Index(index), Size(index + 1), Scope::Events);
    let (_, run) = records.next().await.context("no answer")??;
    Ok(run.first().context("no record")?.event.is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_redacted_is_gone_from_ledger_and_custodian_and_every_proof_holds()
-> anyhow::Result<()> {
    for is_redacted in [true, false] {
        let folder = tempfile::tempdir()?;
        let (data, copy) = (folder.path().join("ledger"), folder.path().join("keeper"));
        let node = Node::start(&data).await?;
        let keeper = Keeper::start(&copy, &node.vkey, node.address).await?;
        let clients = node.clients();
        let mut governance = Governance::of(&data, &node.vkey)?;
        let mut payments = clients.enrolled("payments", 1, &node.vkey).await?;
        let events = vec![personal(&mut payments), personal(&mut payments)];
        let secret = payments.seal(events)?;
        let place = clients.record(&secret).await?;
        let first = place.first_index;
        keeper.cosigns(first + 2).await?;
        let both = [Puller::new(clients.channel.clone()), keeper.puller()?];
        let mut kept = Vec::new();
        for puller in &both {
            kept.push(proof(puller, first + 1).await?);
            ensure!(serves(puller, first).await?);
        }
        ensure!(!holding(&data)?.is_empty() && !holding(&copy)?.is_empty());

        if is_redacted {
            let wanted = redaction(&governance, first, first + 1);
            let event = governance.company.event(Body::Redaction(wanted));
            let at = clients.record(&governance.company.seal(vec![event])?).await?.first_index;
            until_gone(&data).await?;
            until_gone(&copy).await?;
            for puller in &both {
                told(puller, &node.vkey, (first, at)).await?;
            }
        }
        // It signs on over what is recorded behind that.
        let size = clients.record(&payments.record(3)?).await?.first_index + 3;
        let signed = keeper.cosigns(size).await?;
        ensure!(signed.cosignatures().len() == 2);
        for (puller, kept) in both.iter().zip(&kept) {
            ensure!(serves(puller, first).await? != is_redacted);
            ensure!(serves(puller, first + 2).await?);
            // What was proven before is proven still, and again.
            kept.verify(&node.vkey, &[])?;
            proof(puller, first + 1).await?.verify(&node.vkey, &keeper.vkeys)?;
            let rules = found(puller, &node.vkey).await?;
            ensure!(!rules.contains(&"ERASED_WITHOUT_RECORD".to_owned()), "{rules:?}");
        }
        ensure!(clients.record(&secret).await? == place, "the receipt comes back");
        ensure!(keeper.alarms.all().is_empty(), "{:?}", keeper.alarms.all());
        keeper.stop().await?;
        node.stop().await?;
        for folder in [&data, &copy] {
            let erased = if is_redacted { 2 } else { 0 };
            ensure!(checked(folder, payments.ledger())? == erased);
            ensure!(holding(folder)?.is_empty() == is_redacted, "the honest twin keeps all");
        }
    }
    Ok(())
}

/// A query says which redaction erased an event, and why: on the server's word, proven, and told
/// from the verified log. A server that names another entry is convicted.
async fn told(
    puller: &Puller,
    ledger: &VerifierKey,
    (erased, redaction): (u64, u64),
) -> anyhow::Result<()> {
    let filter = wire::Filter { sources: vec!["payments".to_owned()], ..Default::default() };
    let request = wire::QueryRequest {
        filter: Some(filter.clone()),
        with_events: true,
        with_proofs: true,
        ..Default::default()
    };
    let page = puller.query(&request).await?;
    let criteria = Criteria::parse(&filter)?;
    let checkpoint = VerifiedCheckpoint::open(&page.checkpoint, ledger, &[])?;
    let wanted = Some(ErasedBy {
        index: Index(redaction),
        legal_basis: "request of a data subject".to_owned(),
    });
    let by = |hits: &[Hit]| -> Vec<Option<ErasedBy>> {
        let is_it = |hit: &&Hit| (erased..erased + 2).contains(&hit.index.0);
        hits.iter().filter(is_it).map(|hit| hit.erased_by.clone()).collect()
    };
    for proven in [None, Some((&checkpoint, ledger))] {
        let mut hits = proven_hits(&page, &criteria, ledger)?;
        note_redactions(&mut hits, &page, puller, proven).await?;
        ensure!(by(&hits) == [wanted.clone(), wanted.clone()], "{hits:?}");
        ensure!(hits.iter().all(|hit| hit.erased_by.is_none() == hit.record.event.is_some()));
        let mut lie = page.clone();
        lie.hits.iter_mut().for_each(|hit| hit.redaction_index = redaction.min(1));
        let mut hits = proven_hits(&lie, &criteria, ledger)?;
        let noted = note_redactions(&mut hits, &lie, puller, proven).await;
        match proven {
            Some(_) => ensure!(matches!(noted, Err(SelectError::Caught(_))), "{noted:?}"),
            None => ensure!(noted.is_ok() && by(&hits) == [None, None], "nothing is made up"),
        }
    }
    let folder = tempfile::tempdir()?;
    let mut view = View::open(&folder.path().join("view.json"), ledger)?;
    let selection = Selection::new(criteria, false, usize::MAX);
    let (quorum, progress) = (Quorum::default(), Arc::new(|_, _| ()));
    let (audited, selection) =
        audit_observed(puller, &mut view, quorum, progress, selection).await?;
    let selected = selection.conclude(puller, &audited, ledger).await?;
    ensure!(by(&selected.hits) == [wanted.clone(), wanted], "{selected:?}");
    Ok(())
}

/// A server of a log that ends with a redaction of a batch of personal data, and of the two entries
/// behind it; how many entries there are.
async fn redacted() -> anyhow::Result<(VerifierKey, Server, u64)> {
    let mut crime = Crime::scene().await?;
    let [source, other] = &mut crime.sources;
    let events = (0..3).map(|_| personal(source)).collect();
    let first = append(&mut crime.honest, source, events)?;
    let events = other.events(2);
    append(&mut crime.honest, other, events)?;
    let wanted = redaction(&crime.governance, first, first + 2);
    let company = &mut crime.governance.company;
    let event = company.event(Body::Redaction(wanted));
    append(&mut crime.honest, company, vec![event])?;
    let server = Server::start(access_ledger_tests::adversary::signed(&crime.honest)?).await?;
    Ok((crime.vkey.clone(), server, crime.size()))
}

/// What the custodian in a folder signed last.
fn signed(folder: &Path, ledger: &VerifierKey) -> Option<VerifiedCheckpoint> {
    let name = access_ledger_proto::witness::origin_hex(ledger.name());
    let note = std::fs::read(folder.join("witness").join(name)).ok()?;
    VerifiedCheckpoint::open(&note, ledger, &[]).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custodian_that_is_stopped_anywhere_in_an_erasure_finishes_it_at_its_next_start()
-> anyhow::Result<()> {
    let (vkey, server, size) = redacted().await?;
    for at in 0.. {
        let folder = tempfile::tempdir()?;
        let disk = StoppingDisk::since("erased.toml", at);
        let mut setup = Setup::new(folder.path(), &vkey);
        // The server does not erase; that is for another test to notice.
        setup.options.patrol.erasure_grace = Duration::from_secs(3_600);
        setup.disk = Arc::new(disk.clone());
        let mut is_done = false;
        let keeper = setup.start(server.address).await?;
        until(async || {
            is_done = signed(folder.path(), &vkey)
                .is_some_and(|newest| newest.size() == Size(size))
                && holding(folder.path()).is_ok_and(|found| found.is_empty());
            Ok((is_done || disk.has_stopped()).then_some(()))
        })
        .await
        .with_context(|| format!("operation {at}"))?;
        let before = signed(folder.path(), &vkey);
        // Of a disk that refuses, the end is an error.
        drop(keeper.stop().await);

        setup.disk = Arc::new(access_ledger_server::os::RealDisk);
        let keeper = setup.start(server.address).await?;
        until_gone(folder.path()).await.with_context(|| format!("operation {at}"))?;
        let newest = keeper.cosigns(size).await.with_context(|| format!("operation {at}"))?;
        let is_kept = before
            .is_none_or(|before| before.size() < newest.size() || before.root() == newest.root());
        ensure!(is_kept, "operation {at}: what was signed is held");
        found(&keeper.puller()?, &vkey).await.with_context(|| format!("operation {at}"))?;
        ensure!(keeper.alarms.all().is_empty(), "operation {at}: {:?}", keeper.alarms.all());
        keeper.stop().await?;
        ensure!(checked(folder.path(), &vkey)? == 3, "operation {at}");
        if is_done && !disk.has_stopped() {
            ensure!(at > 10, "done after {at} operations");
            return Ok(());
        }
    }
    Ok(())
}
