//! Every way in which an operator may change its own log, with every key and disk in its hands, is told
//! with the rule that is broken and the index: to an auditor who comes for the first time, and to one
//! who has seen the honest log. The honest twin is found in order by both.
//!
//! Some changes leave a log that is in order in itself. Then only memory convicts: an auditor's pin or a
//! proof that somebody kept. Those tests say so.

use access_ledger_client::{
    audit::{AuditError, AuditOptions},
    evidence::Caught,
    verify::Fault,
    view::{check_consistency, compare},
};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    entry::Entry,
    error::{ProofError, SealError, SourceError},
    event::{self, Body},
    hash::sha256,
    note::{KeyType, Signer},
    position::{Index, Size, memory_len},
    receipt::TlogProof,
    wire,
};
use access_ledger_server::{demo::tamper::Seized, storage::Record};
use access_ledger_tests::{
    node::ORIGIN,
    operator::{
        BATCHES, Crime, Hostile, SIZE, Server, forged_registration, options, sealed_records,
    },
    source::access,
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use prost::Message as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

/// What an audit must say.
enum Says {
    /// This fault at this index.
    Log(u64, fn(&Fault) -> bool),
    /// Smaller than the pin.
    Rollback,
    /// As large as the pin, with another root.
    Fork,
    /// Larger than the pin, and no continuation of it.
    Inconsistent,
    /// Nothing: the log is in order in itself.
    InOrder,
}

impl Says {
    fn judge(&self, audited: Result<(), AuditError>) -> anyhow::Result<()> {
        let caught = match audited {
            Ok(()) => {
                ensure!(matches!(self, Self::InOrder), "nothing was noticed");
                return Ok(());
            }
            Err(AuditError::Caught(caught)) => caught,
            Err(error) => return Err(error.into()),
        };
        let holds = match (self, &*caught) {
            (Self::Log(index, is), Caught::Log { violation, .. }) => {
                violation.index == Index(*index) && is(&violation.what)
            }
            (Self::Rollback, Caught::Rollback { .. }) | (Self::Fork, Caught::Fork { .. }) => true,
            // The ledger's own path leads to its new root, and so convicts it of another past.
            (Self::Inconsistent, Caught::Inconsistent { error, .. }) => {
                matches!(error, ProofError::Root { size: Size(SIZE), .. })
            }
            _ => false,
        };
        ensure!(holds, "{caught}");
        Ok(())
    }
}

/// Tampers with a copy of the honest log and lets both auditors look at it, and then at the honest one.
async fn act(
    crime: &mut Crime,
    [first_time, pinned]: [Says; 2],
    tamper: impl FnOnce(&mut Seized, &mut Crime) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for view in ["fresh.json", "pinned.json"] {
        drop(std::fs::remove_file(crime.folder().join(view)));
    }
    let mut copy = crime.honest.clone();
    tamper(&mut copy, crime)?;
    let server = Server::start(Hostile::new(copy.serve()?.with_run_entries(5))).await?;
    let honest = Server::start(Hostile::new(crime.honest.serve()?)).await?;

    let mut fresh = crime.fresh("fresh.json")?;
    let said = first_time.judge(server.audit(&mut fresh).await.map(drop));
    said.context("an auditor who comes for the first time")?;
    if !matches!(first_time, Says::InOrder) {
        ensure!(fresh.pinned().is_none() && !fresh.path().exists(), "a failed audit pins nothing");
        honest.audit(&mut fresh).await.context("the honest twin")?;
    }

    let mut view = crime.pinned("pinned.json").await?;
    let before = std::fs::read(view.path())?;
    let full = AuditOptions { full: true, ..options() };
    for options in [options(), full] {
        let said = pinned.judge(server.audit_with(&mut view, &options).await.map(drop));
        said.with_context(|| format!("an auditor with a pin, full: {}", options.full))?;
        if !matches!(pinned, Says::InOrder) {
            ensure!(std::fs::read(view.path())? == before, "a failed audit moves no pin");
        }
        honest.audit_with(&mut view, &options).await.context("the honest twin")?;
    }
    Ok(())
}

const fn at(index: u64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "the log has 29 entries")]
    let at = index as usize;
    at
}

fn entry<T>(record: &Record, read: impl FnOnce(&Entry<'_>) -> T) -> anyhow::Result<T> {
    Ok(read(&Entry::parse(&record.entry)?))
}

/// Another event for the entry at an index, whose digest is made good.
fn replace_event(copy: &mut Seized, index: u64, event: Bytes) -> anyhow::Result<()> {
    let digest = sha256(&event);
    copy.alter(index, |entry| entry.event_digest = digest)?;
    copy.records[at(index)].event = Some(event);
    Ok(())
}

/// Seals a batch of one with a key that the operator has.
fn reseal(copy: &mut Seized, index: u64, key: &Signer) -> anyhow::Result<()> {
    let old = copy.records[at(index)].clone();
    let (seq, time) = entry(&old, |entry| (entry.source_seq, entry.recorded_at))?;
    let event = old.event.context("an event")?;
    let records = sealed_records(ORIGIN, key, seq, time, vec![event])?;
    copy.records[at(index)] = records.into_iter().next().context("one record")?;
    Ok(())
}

/// An access that no source recorded.
fn invented() -> Bytes {
    access(&mut ChaCha8Rng::seed_from_u64(7))
}

/// A key of the operator's, for whatever name.
fn own_key(name: &str) -> anyhow::Result<Signer> {
    Ok(Signer::new(name, KeyType::Ed25519, [9; 32])?)
}

fn newest_time(copy: &Seized) -> anyhow::Result<u64> {
    entry(copy.records.last().context("a log")?, |entry| entry.recorded_at)
}

#[tokio::test]
async fn flip_a_byte_of_an_event() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let mut copy = crime.honest.clone();
    let mut event = copy.records[9].event.clone().context("an event")?.to_vec();
    event[20] ^= 1;
    copy.records[9].event = Some(event.into());
    let server = Server::start(Hostile::new(copy.serve()?)).await?;
    let says = Says::Log(9, |fault| matches!(fault, Fault::EventDigest { .. }));
    says.judge(server.audit(&mut crime.fresh("fresh.json")?).await.map(drop))?;
    // The tree is the same. A pin spares reading what was verified before; a full audit reads it.
    let mut view = crime.pinned("pinned.json").await?;
    ensure!(server.audit(&mut view).await?.known == Size(SIZE));
    let full = AuditOptions { full: true, ..options() };
    says.judge(server.audit_with(&mut view, &full).await.map(drop))?;
    act(&mut crime, [Says::InOrder, Says::InOrder], |_, _| Ok(())).await
}

#[tokio::test]
async fn flip_any_byte_of_an_entry() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let mut view = crime.pinned("pinned.json").await?;
    for flipped in 0..crime.honest.records[9].entry.len() {
        let mut copy = crime.honest.clone();
        let mut entry = copy.records[9].entry.to_vec();
        entry[flipped] ^= 1;
        copy.records[9].entry = entry.into();
        // Served under the honest checkpoint, and under one that was signed over the changed entry.
        let honest = crime.honest.serve()?.checkpoint().clone();
        let unsigned = Hostile::new(copy.serve()?).checkpoint(move |_, _| Ok(honest.clone()));
        for hostile in [unsigned, Hostile::new(copy.serve()?)] {
            let server = Server::start(hostile).await?;
            let caught = server.caught(&mut crime.fresh("fresh.json")?).await?;
            let Caught::Log { violation, .. } = caught else {
                anyhow::bail!("byte {flipped}: {caught}");
            };
            // What the entry does not say of itself, the next one says: 10 links to another leaf.
            let index = violation.index.0;
            let is_time_or_seal = index == 10 && matches!(violation.what, Fault::Link { .. });
            ensure!(index == 9 || is_time_or_seal, "byte {flipped}: {violation}");
        }
        let signed = Server::start(Hostile::new(copy.serve()?)).await?;
        Says::Fork.judge(signed.audit(&mut view).await.map(drop))?;
    }
    Ok(())
}

#[tokio::test]
async fn delete_the_last_entry() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let mut copy = crime.honest.clone();
    copy.records.pop();
    let honest = crime.honest.serve()?.checkpoint().clone();
    let hostile = Hostile::new(copy.serve()?).checkpoint(move |_, _| Ok(honest.clone()));
    let server = Server::start(hostile).await?;
    let caught = server.caught(&mut crime.fresh("fresh.json")?).await?;
    ensure!(matches!(caught, Caught::Withheld { index: Index(28), .. }), "{caught}");
    let mut view = crime.pinned("pinned.json").await?;
    let full = AuditOptions { full: true, ..options() };
    let caught = server.audit_with(&mut view, &full).await;
    let Err(AuditError::Caught(caught)) = caught else { anyhow::bail!("{caught:?}") };
    ensure!(matches!(*caught, Caught::Withheld { index: Index(28), .. }), "{caught}");
    Ok(())
}

#[tokio::test]
async fn delete_the_last_entry_and_sign_again() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let unsealed = Says::Log(25, |fault| matches!(fault, Fault::Unsealed { size: Size(28) }));
    act(&mut crime, [unsealed, Says::Rollback], |copy, _| {
        copy.records.pop();
        Ok(())
    })
    .await
}

#[tokio::test]
async fn delete_one_in_the_middle_and_chain_and_sign_again() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let gap =
        |fault: &Fault| matches!(fault, Fault::Sequence(gap) if gap.found == gap.expected + 1);
    act(&mut crime, [Says::Log(10, gap), Says::Rollback], |copy, _| {
        copy.records.remove(10);
        copy.rechain()
    })
    .await?;
    // The one with the seal: the batch is still open when another source begins.
    let interrupted = Says::Log(12, |fault| matches!(fault, Fault::Interrupted { .. }));
    act(&mut crime, [interrupted, Says::Rollback], |copy, _| {
        copy.records.remove(12);
        copy.rechain()
    })
    .await
}

#[tokio::test]
async fn delete_a_batch_and_chain_and_sign_again() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let (first, count) = BATCHES[2];
    // The source's next batch, moved up.
    let next = BATCHES[4].0 - count;
    let gap =
        |fault: &Fault| matches!(fault, Fault::Sequence(gap) if gap.found == gap.expected + 5);
    act(&mut crime, [Says::Log(next, gap), Says::Rollback], |copy, _| {
        copy.records.drain(at(first)..at(first + count));
        copy.rechain()
    })
    .await
}

#[tokio::test]
async fn swap_two() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let index = Says::Log(9, |fault| matches!(fault, Fault::Index { found: Index(10) }));
    act(&mut crime, [index, Says::Fork], |copy, _| {
        copy.records.swap(9, 10);
        Ok(())
    })
    .await?;
    let gap = Says::Log(9, |fault| matches!(fault, Fault::Sequence(gap) if gap.found == 7));
    act(&mut crime, [gap, Says::Fork], |copy, _| {
        copy.records.swap(9, 10);
        copy.rechain()
    })
    .await
}

#[tokio::test]
async fn insert_one() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let again = Says::Log(10, |fault| matches!(fault, Fault::Sequence(gap) if gap.found == 6));
    act(&mut crime, [again, Says::Inconsistent], |copy, _| {
        let record = copy.records[9].clone();
        copy.records.insert(10, record);
        copy.rechain()
    })
    .await?;
    // With numbers made good up to the seal, which says how many it covers.
    let covers =
        |fault: &Fault| matches!(fault, Fault::Seal(SealError::Covers { found: 5, wanted: 6 }));
    act(&mut crime, [Says::Log(13, covers), Says::Inconsistent], |copy, _| {
        let record = copy.records[9].clone();
        copy.records.insert(10, record);
        replace_event(copy, 10, invented())?;
        for index in 10..14 {
            copy.alter(index, |entry| entry.source_seq = index - 3)?;
        }
        copy.rechain()
    })
    .await
}

#[tokio::test]
async fn change_recorded_at() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    // Within its neighbours' times nothing in the log says otherwise: only who saw it before knows.
    act(&mut crime, [Says::InOrder, Says::Fork], |copy, _| {
        let later = newest_time(copy)? + 1;
        copy.alter(SIZE - 1, |entry| entry.recorded_at = later)?;
        copy.rechain()
    })
    .await?;
    // Not chained again, the next entry tells.
    let link = Says::Log(10, |fault| matches!(fault, Fault::Link { .. }));
    act(&mut crime, [link, Says::Fork], |copy, _| copy.alter(9, |entry| entry.recorded_at += 1))
        .await
}

#[tokio::test]
async fn backdate_a_batch() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let time = Says::Log(13, |fault| matches!(fault, Fault::Time { .. }));
    act(&mut crime, [time, Says::Fork], |copy, _| {
        let early = entry(&copy.records[8], |entry| entry.recorded_at)? - 1;
        for index in 13..16 {
            copy.alter(index, |entry| entry.recorded_at = early)?;
        }
        copy.rechain()
    })
    .await
}

#[tokio::test]
async fn drop_one_event_of_a_batch() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let mut copy = crime.honest.clone();
    copy.records[9].event = None;
    let server = Server::start(Hostile::new(copy.serve()?)).await?;
    let says = Says::Log(9, |fault| matches!(fault, Fault::ErasedWithoutRecord));
    says.judge(server.audit(&mut crime.fresh("fresh.json")?).await.map(drop))?;
    let mut view = crime.pinned("pinned.json").await?;
    let full = AuditOptions { full: true, ..options() };
    says.judge(server.audit_with(&mut view, &full).await.map(drop))
}

#[tokio::test]
async fn replace_an_event_of_a_source() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let seal = |fault: &Fault| matches!(fault, Fault::Seal(SealError::Signature));
    act(&mut crime, [Says::Log(12, seal), Says::Fork], |copy, _| {
        replace_event(copy, 9, invented())?;
        copy.rechain()
    })
    .await?;
    // With a seal of the operator's own making, under the source's name.
    let key = |fault: &Fault| matches!(fault, Fault::Source(SourceError::Key { .. }));
    act(&mut crime, [Says::Log(24, key), Says::Fork], |copy, crime| {
        replace_event(copy, 24, invented())?;
        reseal(copy, 24, &own_key(crime.sources[0].name())?)?;
        copy.rechain()
    })
    .await
}

#[tokio::test]
async fn forge_a_source() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    // Nobody signed for it, or somebody signed something else.
    let role = |fault: &Fault| matches!(fault, Fault::Source(SourceError::Role { .. }));
    let enrolment = |fault: &Fault| matches!(fault, Fault::Source(SourceError::Enrolment));
    let faults: [(_, fn(&Fault) -> bool); 2] =
        [(None, role), (Some(crime.sources[0].enrolment().enrolment), enrolment)];
    for (signatures, fault) in faults {
        let says = || Says::Log(SIZE, fault);
        act(&mut crime, [says(), says()], |copy, crime| {
            let ghost = own_key("ghost")?;
            let mut status = forged_registration("ghost", &ghost);
            status.enrolment = signatures.flatten();
            let event = crime.sources[0].status(status);
            let (time, own) = (newest_time(copy)?, copy.own.clone());
            copy.records.extend(sealed_records(ORIGIN, &own, 4, time, vec![event])?);
            copy.rechain()
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn record_as_somebody_who_is_not_registered() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let unknown = |fault: &Fault| matches!(fault, Fault::Source(SourceError::Unknown { .. }));
    let says = || Says::Log(SIZE, unknown);
    act(&mut crime, [says(), says()], |copy, _| {
        let time = newest_time(copy)?;
        let records = sealed_records(ORIGIN, &own_key("ghost")?, 1, time, vec![invented()])?;
        copy.records.extend(records);
        copy.rechain()
    })
    .await
}

#[tokio::test]
async fn replay_a_batch() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let replay = |copy: &mut Seized, first_seq: Option<u64>| -> anyhow::Result<()> {
        let (time, size) = (newest_time(copy)?, copy.records.len());
        let batch = copy.records[8..13].to_vec();
        copy.records.extend(batch);
        for (index, number) in (SIZE..).take(copy.records.len() - size).zip(0..) {
            copy.alter(index, |entry| {
                entry.recorded_at = time;
                entry.source_seq = first_seq.map_or(entry.source_seq, |first| first + number);
            })?;
        }
        copy.rechain()
    };
    let again = |fault: &Fault| matches!(fault, Fault::Sequence(gap) if gap.found == 5);
    let says = || Says::Log(SIZE, again);
    act(&mut crime, [says(), says()], |copy, _| replay(copy, None)).await?;
    let seal = |fault: &Fault| matches!(fault, Fault::Seal(SealError::Signature));
    let says = || Says::Log(SIZE + 4, seal);
    act(&mut crime, [says(), says()], |copy, _| replay(copy, Some(13))).await
}

#[tokio::test]
async fn restore_an_old_backup() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    act(&mut crime, [Says::InOrder, Says::Rollback], |copy, _| {
        copy.records.truncate(18);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn restore_an_old_backup_and_record_on() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    act(&mut crime, [Says::InOrder, Says::Inconsistent], |copy, crime| {
        copy.records.truncate(18);
        let events = crime.sources[1].events(20);
        let (time, key) = (newest_time(copy)?, crime.sources[1].key().clone());
        copy.records.extend(sealed_records(ORIGIN, &key, 5, time, events)?);
        copy.rechain()
    })
    .await
}

/// The genesis with other content, sealed by the ledger's own source.
fn change_genesis(copy: &mut Seized, change: fn(&mut wire::Genesis)) -> anyhow::Result<()> {
    let old = copy.records[0].event.clone().context("the genesis")?;
    let mut event = wire::Event::decode(old)?;
    let Some(wire::event::Body::ControlChange(control)) = &mut event.body else {
        anyhow::bail!("no genesis");
    };
    let mut genesis = wire::Genesis::decode(control.content.clone())?;
    change(&mut genesis);
    control.content = genesis.encode_to_vec().into();
    replace_event(copy, 0, event.encode_to_vec().into())
}

#[tokio::test]
async fn change_the_genesis() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let seal = |fault: &Fault| matches!(fault, Fault::Seal(SealError::Signature));
    act(&mut crime, [Says::Log(0, seal), Says::Fork], |copy, _| {
        change_genesis(copy, |genesis| genesis.self_enrolment = false)?;
        copy.rechain()
    })
    .await?;
    let foreign = |fault: &Fault| matches!(fault, Fault::ForeignGenesis { .. });
    act(&mut crime, [Says::Log(0, foreign), Says::Fork], |copy, _| {
        change_genesis(copy, |genesis| genesis.origin = "ledger.example/other".to_owned())?;
        let own = copy.own.clone();
        reseal(copy, 0, &own)?;
        copy.rechain()
    })
    .await?;
    // With self-enrolment forbidden from the start, the first registration is unlawful.
    let self_enrolment = |fault: &Fault| matches!(fault, Fault::Source(SourceError::SelfEnrolment));
    act(&mut crime, [Says::Log(1, self_enrolment), Says::Fork], |copy, _| {
        change_genesis(copy, |genesis| genesis.self_enrolment = false)?;
        let own = copy.own.clone();
        reseal(copy, 0, &own)?;
        copy.rechain()
    })
    .await
}

#[tokio::test]
async fn swap_the_ledger_key() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let mut copy = crime.honest.clone();
    copy.key = own_key(ORIGIN)?;
    let server = Server::start(Hostile::new(copy.serve()?)).await?;
    for mut view in [crime.fresh("fresh.json")?, crime.pinned("pinned.json").await?] {
        let caught = server.caught(&mut view).await?;
        ensure!(matches!(caught, Caught::Checkpoint { .. }), "{caught}");
    }
    Ok(())
}

#[tokio::test]
async fn swap_a_source_key() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let enrolment = |fault: &Fault| matches!(fault, Fault::Source(SourceError::Enrolment));
    act(&mut crime, [Says::Log(1, enrolment), Says::Fork], |copy, crime| {
        let event = copy.records[1].event.clone().context("a registration")?;
        ensure!(event::body(&event).is_some_and(|body| body.number == Body::SOURCE_STATUS));
        let mut event = wire::Event::decode(event)?;
        let key = own_key(crime.sources[0].name())?;
        if let Some(wire::event::Body::SourceStatus(status)) = &mut event.body {
            status.public_key = Bytes::copy_from_slice(key.verifier().public_key().as_bytes());
        }
        replace_event(copy, 1, event.encode_to_vec().into())?;
        let own = copy.own.clone();
        reseal(copy, 1, &own)?;
        copy.rechain()
    })
    .await
}

#[tokio::test]
async fn give_a_receipt_and_then_not_include_it() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let honest = crime.honest.serve()?;
    let last = SIZE - 1;
    let path = honest.inclusion_path(last, SIZE)?;
    let path = access_ledger_client::pull::digests(&path)?;
    let kept = TlogProof {
        entry: crime.honest.records[at(last)].entry.to_vec(),
        index: Index(last),
        path,
        checkpoint: String::from_utf8(honest.checkpoint().to_vec())?,
    };
    // The operator drops the batch and goes on with another source, past the size of the receipt.
    let mut copy = crime.honest.clone();
    copy.records.truncate(at(BATCHES[7].0));
    let (time, events) = (newest_time(&copy)?, crime.sources[0].events(8));
    let key = crime.sources[0].key().clone();
    copy.records.extend(sealed_records(ORIGIN, &key, 13, time, events)?);
    copy.rechain()?;
    let liar = copy.serve()?;
    // In itself that log is in order, and the kept file still verifies: the ledger did sign it.
    let server = Server::start(Hostile::new(liar.clone())).await?;
    let mut fresh = crime.fresh("fresh.json")?;
    let served = server.audit(&mut fresh).await?.checkpoint;
    let promised = TlogProof::parse(kept.encode().as_bytes())?.verify(&crime.vkey, &[])?;
    // Together they convict: no proof can lead from one to the other.
    let (old, new) = compare(&promised, &served)?.context("sizes that need a proof")?;
    let path = access_ledger_client::pull::digests(&liar.consistency_path(old.0, new.0)?)?;
    let caught = check_consistency(&promised, &served, path);
    ensure!(matches!(caught, Err(Caught::Inconsistent { .. })), "{caught:?}");
    // The honest twin: the same file, a ledger that went on as it should.
    let mut twin = crime.honest.clone();
    let (time, events) = (newest_time(&twin)?, crime.sources[0].events(8));
    twin.records.extend(sealed_records(ORIGIN, &key, 13, time, events)?);
    twin.rechain()?;
    let liar = twin.serve()?;
    let served = VerifiedCheckpoint::open(liar.checkpoint(), &crime.vkey, &[])?;
    let path = access_ledger_client::pull::digests(&liar.consistency_path(SIZE, served.size().0)?)?;
    check_consistency(&promised, &served, path)?;
    ensure!(memory_len(served.size().0) == Some(twin.records.len()));
    Ok(())
}
