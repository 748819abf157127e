//! What the ledger promised to somebody and did not keep: receipts that people hold.

use access_ledger_client::{
    evidence::Caught,
    pull::digests,
    view::{check_consistency, compare},
};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    position::{Index, Size},
    receipt::TlogProof,
};
use access_ledger_server::demo::{liar::Liar, tamper::Seized};
use access_ledger_tests::{
    adversary::{custody::Watching, gone_on, history::other_history, signed},
    hostile::{Hostile, Server},
    operator::{BATCHES, Crime, SECOND, SIZE, append},
};
use anyhow::{Context as _, ensure};

/// The `.tlog-proof` file that a service keeps of the last entry of a log.
pub(super) fn kept(log: &Seized) -> anyhow::Result<String> {
    let (liar, last) = (log.serve()?, log.records.len() - 1);
    let record = log.records.last().context("an empty log")?;
    let proof = TlogProof {
        entry: record.entry.to_vec(),
        index: Index(last as u64),
        path: digests(&liar.inclusion_path(last as u64, liar.size())?)?,
        checkpoint: String::from_utf8(liar.checkpoint().to_vec())?,
    };
    Ok(proof.encode())
}

/// What the checkpoint of a kept file and the one that is served say of each other.
fn judge(
    promised: &VerifiedCheckpoint,
    served: &VerifiedCheckpoint,
    liar: &Liar,
) -> anyhow::Result<Result<(), Caught>> {
    let sizes = match compare(promised, served) {
        Err(caught) => return Ok(Err(caught)),
        Ok(None) => return Ok(Ok(())),
        Ok(Some(sizes)) => sizes,
    };
    let path = digests(&liar.consistency_path(sizes.0.0, sizes.1.0)?)?;
    Ok(check_consistency(promised, served, path))
}

#[tokio::test]
async fn give_a_receipt_and_then_not_include_it() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let kept = kept(&crime.honest)?;
    // The operator drops the batch and goes on with another source, past the size of the receipt.
    let mut copy = crime.honest.clone();
    copy.records.truncate(usize::try_from(BATCHES[7].0)?);
    let [source, _] = &mut crime.sources;
    let events = source.events(8);
    append(&mut copy, source, events)?;
    let liar = copy.serve()?;
    // In itself that log is in order, and the kept file still verifies: the ledger did sign it.
    let server = Server::start(Hostile::new(liar.clone())).await?;
    let served = server.audit(&mut crime.fresh("fresh.json")?).await?.checkpoint;
    let promised = TlogProof::parse(kept.as_bytes())?.verify(&crime.vkey, &[])?;
    // Together they convict: no proof can lead from one to the other.
    let caught = judge(&promised, &served, &liar)?;
    ensure!(matches!(caught, Err(Caught::Inconsistent { .. })), "{caught:?}");
    // The honest twin: the same file, a ledger that went on as it should.
    let twin = gone_on(&mut crime, SECOND)?.serve()?;
    let served = VerifiedCheckpoint::open(twin.checkpoint(), &crime.vkey, &[])?;
    ensure!(served.size() > Size(SIZE));
    judge(&promised, &served, &twin)?.context("the honest twin")
}

#[tokio::test]
async fn serve_an_old_checkpoint_to_a_service_that_holds_a_receipt() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let (old, new) = (crime.honest.serve()?, gone_on(&mut crime, SECOND)?);
    let promised = TlogProof::parse(kept(&new)?.as_bytes())?.verify(&crime.vkey, &[])?;
    let served = VerifiedCheckpoint::open(old.checkpoint(), &crime.vkey, &[])?;
    let caught = judge(&promised, &served, &old)?;
    ensure!(matches!(caught, Err(Caught::Rollback { .. })), "{caught:?}");
    let twin = new.serve()?;
    let served = VerifiedCheckpoint::open(twin.checkpoint(), &crime.vkey, &[])?;
    judge(&promised, &served, &twin)?.context("the honest twin")
}

/// Each custodian sees one history that is in order. Their cosigned checkpoints beside each other
/// convict the ledger.
#[tokio::test]
async fn show_two_custodians_two_trees() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let other = other_history(&crime)?;
    let mut signed_notes = Vec::new();
    for log in [crime.honest.clone(), crime.honest.clone(), other] {
        crime.honest = log;
        let server = Server::start(signed(&crime.honest)?).await?;
        let watching = Watching::begin(&crime, &server).await?;
        let newest = watching.newest().context("a checkpoint")?;
        ensure!(newest.cosignatures().len() == 2 && watching.raised().is_empty());
        signed_notes.push(newest);
        watching.end().await?;
    }
    let [one, twin, other] = &signed_notes[..] else { anyhow::bail!("three custodians") };
    let caught = compare(one, other);
    ensure!(matches!(caught, Err(Caught::Fork { .. })), "{caught:?}");
    ensure!(matches!(compare(one, twin), Ok(None)), "the honest twin");
    Ok(())
}
