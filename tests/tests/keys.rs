//! Keys change by both parties' word: a source's, and the ledger's own. What was signed before
//! holds; who has the old key alone is caught.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use access_ledger_client::{
    audit::{AuditError, AuditOptions, Audited, audit},
    evidence::{Caught, Evidence, Verdict},
    pull::Puller,
    verify::{Fault, Scope},
    view::View,
};
use access_ledger_proto::{
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    error::SourceError,
    hash::sha256,
    note::{KeyType, Signer, VerifierKey},
    position::{Size, memory_len},
    quorum::Quorum,
    wire::{self, ControlKind, event::Body},
    witness::AddCheckpoint,
};
use access_ledger_server::{
    custodian::alarms::AlarmKind,
    demo::tamper::Seized,
    folder::{Folder, LEDGER_SOURCE, Purpose, real_disk},
    os::replace,
};
use access_ledger_tests::{
    custodian::{Keeper, until},
    hostile::{Hostile, Server, whole},
    node::{Clients, Node},
    operator::{Crime, append},
    pages,
    parties::{Governance, ledger_key, source_key},
    source::{Refused, Source},
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tonic::Code;

fn signer(name: &str, seed: u8) -> anyhow::Result<Signer> {
    Ok(Signer::new(name, KeyType::Ed25519, [seed; 32])?)
}

/// Audits a log that an operator serves, signed with the key of `log`.
async fn audited(log: &Seized, view: &mut View) -> anyhow::Result<Result<Audited, AuditError>> {
    let server = Server::start(Hostile::new(log.serve()?)).await?;
    Ok(server.audit(view).await)
}

/// The fault that an operator is caught at, and its index.
async fn fault(log: &Seized, view: &mut View) -> anyhow::Result<(u64, Fault)> {
    match audited(log, view).await? {
        Err(AuditError::Caught(caught)) => match *caught {
            Caught::Log { violation, .. } => Ok((violation.index.0, violation.what)),
            other => anyhow::bail!("caught at something else: {other}"),
        },
        other => anyhow::bail!("not caught: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_given_up_seals_nothing_behind_the_change() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let [old, _] = &crime.sources;
    let mut old = Source::with_key(old.key().clone(), &crime.vkey)?;
    let mut new = Source::with_key(signer(old.name(), 77)?, &crime.vkey)?;
    let rekey = (ControlKind::Key, source_key(new.key(), &crime.vkey));
    let revoke = (ControlKind::Key, Vec::new());
    for (turn, (kind, content)) in [rekey, revoke].into_iter().enumerate() {
        let mut log = crime.honest.clone();
        let governance = &mut crime.governance;
        let change = governance.change(kind, old.name(), 1, content);
        let event = governance.company.event(Body::ControlChange(change));
        let since = append(&mut log, &governance.company, vec![event])?;

        // The honest twin: the new key goes on where the old one ended.
        let mut twin = log.clone();
        if turn == 0 {
            let events = new.events(2);
            append(&mut twin, &new, events)?;
        }
        audited(&twin, &mut crime.fresh(&format!("twin-{turn}"))?).await??;

        let events = old.events(2);
        let first = append(&mut log, &old, events)?;
        let server = Server::start(Hostile::new(log.serve()?)).await?;
        let copy = crime.folder().join(format!("custodian-{turn}"));
        let keeper = Keeper::start(&copy, &crime.vkey, server.address).await?;
        keeper.raises(AlarmKind::LogInvalid).await?;
        keeper.stop().await?;
        let (index, what) = fault(&log, &mut crime.fresh(&format!("crime-{turn}"))?).await?;
        ensure!(index == first + 1, "{index}: {what}");
        match what {
            Fault::Source(SourceError::KeyReplaced { since: at, .. }) if turn == 0 => {
                assert_eq!(at.0, since);
            }
            Fault::Source(SourceError::Revoked { since: at, .. }) => assert_eq!(at.0, since),
            other => anyhow::bail!("{other}"),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_one_party_changed_seals_nothing() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let name = crime.sources[0].name().to_owned();
    let mut new = Source::with_key(signer(&name, 77)?, &crime.vkey)?;
    let governance = &mut crime.governance;
    let mut change =
        governance.change(ControlKind::Key, &name, 1, source_key(new.key(), &crime.vkey));
    change.approvals.clear();
    let mut log = crime.honest.clone();
    let event = governance.company.event(Body::ControlChange(change));
    append(&mut log, &governance.company, vec![event])?;
    // That it is recorded is a finding; it has no effect.
    audited(&log, &mut crime.fresh("twin")?).await??;
    let events = new.events(1);
    let first = append(&mut log, &new, events)?;
    let (index, what) = fault(&log, &mut crime.fresh("crime")?).await?;
    assert_eq!(index, first);
    ensure!(matches!(what, Fault::Source(SourceError::Key { .. })), "{what}");
    Ok(())
}

/// Has the company record a change that both parties want.
async fn govern(
    clients: &Clients,
    governance: &mut Governance,
    (kind, target, revision): (ControlKind, &str, u64),
    content: Vec<u8>,
) -> anyhow::Result<()> {
    let change = governance.change(kind, target, revision, content);
    let event = governance.company.event(Body::ControlChange(change));
    let sealed = governance.company.seal(vec![event])?;
    clients.record(&sealed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_goes_on_with_its_new_key() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(folder.path()).await?;
    let vkey = node.vkey.clone();
    let mut governance = Governance::of(folder.path(), &vkey)?;
    let mut old = node.clients().enrolled("payments", 1, &vkey).await?;
    let mut new = Source::with_key(signer("payments", 77)?, &vkey)?;
    let before = old.record(2)?;
    let place = node.clients().record(&before).await?;
    let rekey = source_key(new.key(), &vkey);
    govern(&node.clients(), &mut governance, (ControlKind::Key, "payments", 1), rekey).await?;
    new.next_seq = old.next_seq;
    for restarted in [false, true] {
        if restarted {
            node.stop().await?;
            node = Node::start(folder.path()).await?;
        }
        let clients = node.clients();
        // Already under way when the key changed.
        let events = old.events(1);
        let late = old.seal_at(new.next_seq, events)?;
        let refused = Refused::of(&clients.append(&late).await.unwrap_err());
        assert_eq!(refused.kind(), (Code::PermissionDenied, "KEY_REPLACED"));
        // What was recorded before keeps its place and its receipt.
        let again = clients.record(&before).await?;
        assert_eq!(again.first_index, place.first_index);
        clients.record(&new.record(2)?).await?;
    }
    let clients = node.clients();
    let request = wire::GetSourceRequest { source: "payments".to_owned() };
    let source = clients.auditor.clone().get_source(request).await?.into_inner().source;
    let source = source.context("no source")?;
    assert_eq!(source.public_key, new.public_key());
    assert!(source.key_index > 0);

    govern(&clients, &mut governance, (ControlKind::Key, "payments", 2), Vec::new()).await?;
    let refused = Refused::of(&clients.append(&new.record(1)?).await.unwrap_err());
    assert_eq!(refused.kind(), (Code::PermissionDenied, "KEY_REVOKED"));
    let puller = Puller::new(clients.channel.clone());
    let mut view = View::open(&folder.path().join("view.json"), &vkey)?;
    let audited = audit(&puller, &mut view, &options(), Arc::new(|_, _| ())).await?;
    assert!(audited.verifier.totals().seals_checked > 5);
    // A view that stands behind the changes goes on from there.
    let again = audit(&puller, &mut view, &options(), Arc::new(|_, _| ())).await?;
    assert_eq!(again.known, again.checkpoint.size());
    Ok(())
}

fn options() -> AuditOptions {
    AuditOptions { scope: Scope::Events, full: false, quorum: Quorum::default() }
}

async fn note(clients: &Clients) -> anyhow::Result<Vec<u8>> {
    let request = wire::GetCheckpointRequest::default();
    let answer = clients.auditor.clone().get_checkpoint(request).await?;
    Ok(answer.into_inner().checkpoint.to_vec())
}

fn is_by(note: &[u8], key: &VerifierKey) -> bool {
    VerifiedCheckpoint::open(note, key, &[]).is_ok()
}

/// Makes the ledger's next key and has it put in the place of the one before.
async fn rotate(
    data: &Path,
    clients: &Clients,
    governance: &mut Governance,
    revision: u64,
) -> anyhow::Result<Signer> {
    let next = Folder::new(data).next_key(&*real_disk(), Purpose::Ledger)?;
    let content = ledger_key(&next);
    govern(clients, governance, (ControlKind::LedgerKey, "", revision), content).await?;
    Ok(next)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_changes_its_key_and_nobody_is_lost() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, copy) = (folder.path().join("ledger"), folder.path().join("custodian"));
    let mut node = Node::start(&data).await?;
    let old = node.vkey.clone();
    let mut governance = Governance::of(&data, &old)?;
    let keeper = Keeper::start(&copy, &old, node.address).await?;
    let mut source = node.clients().enrolled("payments", 1, &old).await?;
    let receipt = source.record(1)?;
    node.clients().record(&receipt).await?;
    let before = note(&node.clients()).await?;
    let view = |name: &str| folder.path().join(name);
    let pull = |node: &Node| Puller::new(node.clients().channel);
    let quiet = || Arc::new(|_, _| ());
    let mut pinned = View::open(&view("pinned"), &old)?;
    audit(&pull(&node), &mut pinned, &options(), quiet()).await?;

    let next = rotate(&data, &node.clients(), &mut governance, 1).await?;
    let new = next.verifier().clone();
    // From the checkpoint on that covers the change: both keys, across a restart too.
    for restarted in [false, true] {
        if restarted {
            keeper.holds(node.clients().size(&old).await?).await?;
            node.stop().await?;
            node = Node::start(&data).await?;
            assert_eq!(node.vkey, new, "the log decides which key is told");
        }
        let now = note(&node.clients()).await?;
        assert!(is_by(&now, &old) && is_by(&now, &new));
        node.clients().record(&source.record(1)?).await?;
        audit(&pull(&node), &mut pinned, &options(), quiet()).await?;
    }
    assert!(is_by(&before, &old), "what was signed before still verifies");
    assert!(!data.join("keys/ledger.next.key").exists());

    // A pin on either key holds; the view that saw the change goes by both names.
    drop(pinned);
    for (name, key) in [("pinned", &new), ("pinned", &old), ("fresh", &new)] {
        let mut view = View::open(&view(name), key)?;
        audit(&pull(&node), &mut view, &options(), quiet()).await?;
    }
    let stranger = signer(old.name(), 5)?;
    let mut strange = View::open(&view("pinned"), stranger.verifier())?;
    assert!(audit(&pull(&node), &mut strange, &options(), quiet()).await.is_err());

    // The custodian went along, from its own address too, and starts again under the new key.
    keeper.stop().await?;
    let keeper = Keeper::start(&copy, &new, node.address).await?;
    let size = node.clients().size(&new).await?;
    let cosigned = keeper.cosigns(size).await?;
    assert!(is_by(cosigned.note().as_bytes(), &old) && is_by(cosigned.note().as_bytes(), &new));
    let mut at_custodian = View::open(&view("at-custodian"), &new)?;
    audit(&keeper.puller()?, &mut at_custodian, &options(), quiet()).await?;

    // The old key is given up for good.
    node.stop().await?;
    fs::remove_file(data.join("keys/ledger.key"))?;
    node = Node::start(&data).await?;
    [&mut source, &mut governance.company].into_iter().for_each(|party| party.trust(&new));
    node.clients().record(&source.record(1)?).await?;
    let now = note(&node.clients()).await?;
    assert!(!is_by(&now, &old) && is_by(&now, &new));
    let mut pinned = View::open(&view("pinned"), &new)?;
    audit(&pull(&node), &mut pinned, &options(), quiet()).await?;
    rotate(&data, &node.clients(), &mut governance, 2).await?;
    audit(&pull(&node), &mut pinned, &options(), quiet()).await?;
    keeper.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_under_the_new_key_alone_halts_a_custodian_that_pins_the_old() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("ledger");
    let node = Node::start(&data).await?;
    let old = node.vkey.clone();
    let keeper = Keeper::start(&folder.path().join("custodian"), &old, node.address).await?;
    let mut governance = Governance::of(&data, &old)?;
    let next = rotate(&data, &node.clients(), &mut governance, 1).await?;
    let size = keeper.cosigns(node.clients().size(&old).await?).await?.size();

    let another = Checkpoint::new(old.name(), size, sha256(b"another history"))?.sign(&next)?;
    let body = AddCheckpoint { old: size, proof: Vec::new(), note: another.as_bytes() };
    let answer = pages::post(keeper.address, "/add-checkpoint", &body.to_bytes()).await?;
    ensure!(answer.status == 422, "{} {}", answer.status, answer.text());
    let fork = keeper.raises(AlarmKind::Fork).await?;
    let evidence = fs::read(keeper.alarms.evidence(&fork).context("evidence")?)?;
    let verdict = Evidence::parse(&evidence)?.judge(&[])?;
    ensure!(matches!(verdict, Verdict::Proven(_)), "{verdict:?}");
    keeper.stop().await?;
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_old_ledger_key_alone_is_caught() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("ledger");
    let node = Node::start(&data).await?;
    let old = node.vkey.clone();
    let mut governance = Governance::of(&data, &old)?;
    let next = rotate(&data, &node.clients(), &mut governance, 1).await?;
    let since = node.clients().size(&old).await? - 1;
    let mut source = node.clients().enrolled("payments", 1, &old).await?;
    node.clients().record(&source.record(1)?).await?;
    node.stop().await?;

    // What a thief makes of it: the whole log, in order, under the key that was replaced.
    let log = Seized::read(&data)?;
    assert_eq!(log.key.verifier(), &old);
    let view = |name: &str, key: &VerifierKey| View::open(&folder.path().join(name), key);
    let (index, what) = fault(&log, &mut view("thief", &old)?).await?;
    assert_eq!(index, since + 2);
    match what {
        Fault::LedgerKey { since: at, key } => {
            assert_eq!((at.0, key), (since, next.verifier().to_string()));
        }
        other => anyhow::bail!("{other}"),
    }
    let server = Server::start(Hostile::new(log.serve()?)).await?;
    let keeper = Keeper::start(&folder.path().join("custodian"), &old, server.address).await?;
    let alarm = keeper.raises(AlarmKind::LogInvalid).await?;
    ensure!(alarm.message.contains("not signed by the ledger's key since"), "{}", alarm.message);
    keeper.stop().await?;
    // The honest twin.
    let twin = Seized { key: next.clone(), ..log.clone() };
    audited(&twin, &mut view("twin", next.verifier())?).await??;

    // A key that the log never named, however it signs.
    let swapped = Seized { key: signer(old.name(), 9)?, ..log.clone() };
    let (index, what) = fault(&swapped, &mut view("swap", swapped.key.verifier())?).await?;
    ensure!(index == 0 && matches!(what, Fault::ForeignGenesis { .. }), "{index}: {what}");
    let caught = audited(&swapped, &mut view("swap-old", &old)?).await?.unwrap_err();
    let is_checkpoint = |caught: &Caught| matches!(caught, Caught::Checkpoint { .. });
    ensure!(matches!(&caught, AuditError::Caught(caught) if is_checkpoint(caught)), "{caught}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_ledger_key_convicts_nobody() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("ledger");
    let node = Node::start(&data).await?;
    let old = node.vkey.clone();
    let mut governance = Governance::of(&data, &old)?;
    let former = note(&node.clients()).await?;
    rotate(&data, &node.clients(), &mut governance, 1).await?;
    let newest = Bytes::from(note(&node.clients()).await?);
    let size = VerifiedCheckpoint::open(&newest, &old, &[])?.size();
    node.stop().await?;

    // Whoever sits on the link signs with the old key, or shows what it had signed.
    let mut log = Seized::read(&data)?;
    log.records.truncate(memory_len(size.0).context("a small log")?);
    let forked = |size| -> anyhow::Result<_> {
        Ok(Checkpoint::new(old.name(), size, sha256(b"another"))?.sign(&log.key)?.into_bytes())
    };
    for lie in [former, forked(size)?, forked(Size(1))?] {
        let (newest, lies) = (newest.clone(), Arc::new(AtomicBool::new(false)));
        let (told, altered) = (lies.clone(), lies.clone());
        let note = move |_, _| match told.load(Ordering::SeqCst) {
            true => Ok(Bytes::copy_from_slice(&lie)),
            false => Ok(newest.clone()),
        };
        // The patrol has reason to ask as well.
        let hostile = Hostile::new(log.serve()?).checkpoint(note).read(move |_, _, mut runs| {
            let run = runs.first_mut().filter(|_| altered.load(Ordering::SeqCst));
            run.into_iter().for_each(|run| run.events[0] = Bytes::from_static(b"another"));
            whole(runs)
        });
        let server = Server::start(hostile).await?;
        let folder = tempfile::tempdir()?;
        let keeper = Keeper::start(&folder.path().join("custodian"), &old, server.address).await?;
        keeper.cosigns(size.0).await?;
        let mut view = View::open(&folder.path().join("view"), &old)?;
        server.audit(&mut view).await?;

        lies.store(true, Ordering::SeqCst);
        let caught = server.caught(&mut view).await?;
        ensure!(matches!(caught, Caught::Checkpoint { .. }), "{caught}");
        keeper.raises(AlarmKind::CheckpointInvalid).await?;
        keeper.raises(AlarmKind::Damaged).await?;
        lies.store(false, Ordering::SeqCst);
        until(async || Ok(keeper.alarms.lasting().is_empty().then_some(()))).await?;
        ensure!(keeper.alarms.all().len() == 2, "{:?}", keeper.alarms.all());
        keeper.cosigns(size.0).await?;
        keeper.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_key_takes_both_parties_and_the_ledger_itself() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut governance = Governance::of(folder.path(), &node.vkey)?;
    let refused = async |governance: &mut Governance, change| {
        let event = governance.company.event(Body::ControlChange(change));
        let sealed = governance.company.seal_at(governance.company.next_seq, vec![event])?;
        clients.refused(sealed.batch).await
    };
    // A key that the ledger does not hold would end it.
    let foreign = ledger_key(&signer(node.vkey.name(), 9)?);
    let change = governance.change(ControlKind::LedgerKey, "", 1, foreign);
    let told = refused(&mut governance, change).await?;
    assert_eq!(told.kind().0, Code::InvalidArgument);
    let next = Folder::new(folder.path()).next_key(&*real_disk(), Purpose::Ledger)?;
    let mut alone = governance.change(ControlKind::LedgerKey, "", 1, ledger_key(&next));
    alone.approvals.clear();
    let told = refused(&mut governance, alone).await?;
    assert_eq!(told.kind(), (Code::PermissionDenied, "CONTROL_CHANGED_ALONE"));
    assert!(!is_by(&note(&clients).await?, next.verifier()));
    rotate(folder.path(), &clients, &mut governance, 1).await?;
    assert!(is_by(&note(&clients).await?, next.verifier()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledgers_own_source_goes_on_with_its_new_key() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, keys) = (folder.path().join("ledger"), folder.path().join("ledger/keys"));
    let mut node = Node::start(&data).await?;
    let vkey = node.vkey.clone();
    let mut governance = Governance::of(&data, &vkey)?;
    let change = (ControlKind::Key, LEDGER_SOURCE, 1);
    // A key that the ledger does not hold, and none at all, would end it.
    for content in [source_key(&signer(LEDGER_SOURCE, 9)?, &vkey), Vec::new()] {
        let change = governance.change(change.0, change.1, change.2, content);
        let event = governance.company.event(Body::ControlChange(change));
        let sealed = governance.company.seal_at(governance.company.next_seq, vec![event])?;
        assert_eq!(node.clients().refused(sealed.batch).await?.kind().0, Code::InvalidArgument);
    }
    let former = fs::read(keys.join("source.key"))?;
    let next = Folder::new(&data).next_key(&*real_disk(), Purpose::Source)?;
    govern(&node.clients(), &mut governance, change, source_key(&next, &vkey)).await?;
    let since = node.clients().size(&vkey).await? - 1;
    // What the ledger itself records is sealed with it, across restarts and without the old one.
    for (seed, name) in [(1, "payments"), (2, "support"), (3, "search")] {
        node.clients().enrolled(name, seed, &vkey).await?;
        node.stop().await?;
        if name == "support" {
            assert!(!keys.join("source.next.key").exists());
            fs::remove_file(keys.join("source.key"))?;
        }
        node = Node::start(&data).await?;
    }
    let mut view = View::open(&folder.path().join("view"), &vkey)?;
    let puller = Puller::new(node.clients().channel);
    audit(&puller, &mut view, &options(), Arc::new(|_, _| ())).await?;
    node.stop().await?;

    // Who has the old one alone is caught; a ledger without the new one does not start.
    replace(&*real_disk(), &keys.join("source.key"), &former)?;
    let mut log = Seized::read(&data)?;
    let mut former = Source::with_key(log.own.clone(), &vkey)?;
    let phase = wire::SourcePhase::Heartbeat.into();
    let source = LEDGER_SOURCE.to_owned();
    let status = wire::SourceStatus { phase, source, ..Default::default() };
    let heartbeat = former.event(Body::SourceStatus(status));
    let index = append(&mut log, &former, vec![heartbeat])?;
    let mut view = View::open(&folder.path().join("thief"), &vkey)?;
    match fault(&log, &mut view).await? {
        (at, Fault::Source(SourceError::KeyReplaced { since: changed, .. })) => {
            assert_eq!((at, changed.0), (index, since));
        }
        (at, other) => anyhow::bail!("{at}: {other}"),
    }
    fs::remove_file(keys.join(format!("source-{}.key", next.verifier().id())))?;
    let Err(refused) = Node::start(&data).await else { anyhow::bail!("started") };
    ensure!(format!("{refused:#}").contains("no file of the key of source ledger"), "{refused:#}");
    Ok(())
}
