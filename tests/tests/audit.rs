//! What an audit makes of checkpoints and proofs that contradict the view, what it leaves in the
//! view's file, and that its evidence convinces somebody who has nothing but the file.

use std::{fs, io::Write as _, path::Path};

use access_ledger_client::{
    audit::{AuditError, AuditOptions},
    evidence::{self, Caught, Exhibit},
    pull::PullError,
    verify::Scope,
    view::{View, ViewError},
};
use access_ledger_proto::{
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    entry::Entry,
    error::ProofError,
    hash::{Digest, leaf_hash, sha256},
    note::{KeyType, Signer, VerifierKey},
    position::{Index, Size},
    proof::verify_consistency,
    receipt::TlogProof,
    wire,
};
use access_ledger_tests::{
    adversary::gone_on,
    hostile::{Hostile, Server, broken, options, whole},
    node::ORIGIN,
    operator::{BATCHES, Crime, SIZE},
};
use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use prost::Message as _;
use tonic::{Code, Status};

fn full() -> AuditOptions {
    AuditOptions { full: true, ..options() }
}

fn entries_only() -> AuditOptions {
    AuditOptions { scope: Scope::EntriesOnly, ..options() }
}

/// Another history of the same sources, as long as the longer one.
fn forked(crime: &mut Crime) -> anyhow::Result<access_ledger_server::demo::tamper::Seized> {
    let mut copy = gone_on(crime, 0)?;
    copy.alter(SIZE - 1, |entry| entry.recorded_at -= 1)?;
    copy.rechain()?;
    Ok(copy)
}

#[tokio::test]
async fn a_checkpoint_that_the_ledger_did_not_sign_is_evidence() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let honest = crime.honest.serve()?.checkpoint().clone();
    let by = |origin: &str, seed: u8| -> anyhow::Result<Bytes> {
        let key = Signer::new(origin, KeyType::Ed25519, [seed; 32])?;
        let root = sha256(b"any");
        Ok(Checkpoint::new(origin, Size(SIZE), root)?.sign(&key)?.into())
    };
    let mut flipped = honest.to_vec();
    flipped[ORIGIN.len() + 1] ^= 1;
    let mut notes = vec![
        ("another key", by(ORIGIN, 9)?),
        ("another origin", by("ledger.example/other", 9)?),
        ("nothing", Bytes::new()),
        ("garbage", Bytes::from_static(&[0xff; 300])),
        ("a flipped bit", flipped.into()),
        ("no signature", honest.slice(..honest.len() - 120)),
    ];
    notes.extend((0..honest.len()).step_by(13).map(|len| ("cut", honest.slice(..len))));
    for (what, note) in notes {
        let served = note.clone();
        let hostile =
            Hostile::new(crime.honest.serve()?).checkpoint(move |_, _| Ok(served.clone()));
        let server = Server::start(hostile).await?;
        let caught = server.caught(&mut crime.fresh("fresh.json")?).await?;
        ensure!(matches!(caught, Caught::Checkpoint { .. }), "{what}: {caught}");
        let evidence = Evidence::of(&caught, &crime.vkey);
        let kept = STANDARD.decode(evidence.section("note as served")?)?;
        ensure!(kept == note, "{what}: the note is kept byte by byte");
        ensure!(VerifiedCheckpoint::open(&kept, &crime.vkey, &[]).is_err(), "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn a_checkpoint_that_shrinks_between_two_audits_or_within_one_is_a_rollback()
-> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let mut backup = crime.honest.clone();
    backup.records.truncate(usize::try_from(BATCHES[4].0)?);
    let small = backup.serve()?.checkpoint().clone();
    // Within one: an event is missing, so a newer checkpoint is asked for, and it is an older one.
    let mut erased = crime.honest.clone();
    erased.records[9].event = None;
    let within = small.clone();
    let hostile = Hostile::new(erased.serve()?).checkpoint(move |call, note| match call {
        0 => Ok(note),
        _ => Ok(within.clone()),
    });
    let mut fresh = crime.fresh("fresh.json")?;
    let caught = Server::start(hostile).await?.caught(&mut fresh).await?;
    ensure!(matches!(caught, Caught::Rollback { .. }), "{caught}");

    let mut view = crime.pinned("pinned.json").await?;
    let hostile = Hostile::new(crime.honest.serve()?).checkpoint(move |_, _| Ok(small.clone()));
    let caught = Server::start(hostile).await?.caught(&mut view).await?;
    let [old, new] = Evidence::of(&caught, &crime.vkey).checkpoints(&crime.vkey)?;
    ensure!(old.size() == Size(SIZE) && new.size().0 == BATCHES[4].0, "{caught}");
    Ok(())
}

#[tokio::test]
async fn a_fork_at_the_same_size_convicts_by_the_two_notes_alone() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let mut copy = forked(&mut crime)?;
    copy.records.truncate(usize::try_from(SIZE)?);
    let mut view = crime.pinned("pinned.json").await?;
    let caught = Server::start(Hostile::new(copy.serve()?)).await?.caught(&mut view).await?;
    ensure!(matches!(caught, Caught::Fork { .. }), "{caught}");
    let [old, new] = Evidence::of(&caught, &crime.vkey).checkpoints(&crime.vkey)?;
    ensure!(old.size() == new.size() && old.root() != new.root());
    Ok(())
}

#[tokio::test]
async fn a_fork_at_a_larger_size_convicts_by_the_ledgers_own_path() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let copy = forked(&mut crime)?;
    let mut view = crime.pinned("pinned.json").await?;
    let caught = Server::start(Hostile::new(copy.serve()?)).await?.caught(&mut view).await?;
    ensure!(matches!(caught, Caught::Inconsistent { .. }), "{caught}");
    let evidence = Evidence::of(&caught, &crime.vkey);
    let [old, new] = evidence.checkpoints(&crime.vkey)?;
    let path = evidence.digests("consistency proof as served")?;
    let verify = |root| verify_consistency(old.size(), new.size(), root, new.root(), &path);
    let Err(ProofError::Root { size, found, wanted }) = verify(old.root()) else {
        anyhow::bail!("the path leads from the old root to the new one");
    };
    ensure!(size == old.size() && wanted == old.root());
    // The path fits the new root, so this is what the new tree holds in the old one's place.
    ensure!(verify(found).is_ok() && found != old.root());
    Ok(())
}

#[tokio::test]
async fn a_ledger_that_cannot_show_that_it_only_grew_is_caught() -> anyhow::Result<()> {
    type Change = fn(Result<Vec<Bytes>, Status>) -> Result<Vec<Bytes>, Status>;
    let mut crime = Crime::scene().await?;
    let copy = gone_on(&mut crime, 0)?;
    let mut view = crime.pinned("pinned.json").await?;
    let before = fs::read(view.path())?;
    let spoil: [(&str, Change, bool); 6] = [
        ("cut", |path| path.map(|path| path[1..].to_vec()), true),
        ("empty", |_| Ok(Vec::new()), true),
        ("other", |path| path.map(|path| vec![Bytes::from_static(&[7; 32]); path.len()]), true),
        ("short hashes", |path| path.map(|path| vec![Bytes::from_static(b"x"); path.len()]), false),
        ("refused", |_| Err(Status::out_of_range("beyond the tree")), false),
        ("lost", |_| Err(Status::data_loss("damaged")), false),
    ];
    for (what, change, has_path) in spoil {
        let server = Server::start(Hostile::new(copy.serve()?).consistency(change)).await?;
        let caught = server.caught(&mut view).await?;
        let fits = match &caught {
            Caught::Inconsistent { .. } => has_path,
            Caught::Unproven { .. } => !has_path,
            _ => false,
        };
        ensure!(fits, "{what}: {caught}");
        let [old, new] = Evidence::of(&caught, &crime.vkey).checkpoints(&crime.vkey)?;
        ensure!((old.size(), new.size()) == (Size(SIZE), Size(SIZE + 3)));
        ensure!(fs::read(view.path())? == before);
    }
    let audited = Server::start(Hostile::new(copy.serve()?)).await?.audit(&mut view).await?;
    ensure!((audited.known, audited.checkpoint.size()) == (Size(SIZE), Size(SIZE + 3)));
    Ok(())
}

#[tokio::test]
async fn a_network_that_fails_accuses_nobody() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let copy = gone_on(&mut crime, 0)?;
    let mut view = crime.pinned("pinned.json").await?;
    let before = fs::read(view.path())?;
    let away = || Status::unavailable("away");
    let hostile = [
        Hostile::new(copy.serve()?).checkpoint(move |_, _| Err(away())),
        Hostile::new(copy.serve()?).consistency(move |_| Err(away())),
        Hostile::new(copy.serve()?).read(move |_, _, mut runs| {
            runs.clear();
            broken(runs, away())
        }),
    ];
    for hostile in hostile {
        let error = Server::start(hostile).await?.audit(&mut view).await.map(drop);
        let Err(AuditError::Pull(PullError::Refused(status))) = error else {
            anyhow::bail!("{error:?}");
        };
        ensure!(status.code() == Code::Unavailable);
        ensure!(fs::read(view.path())? == before);
    }
    Ok(())
}

#[tokio::test]
async fn entries_that_break_a_rule_convict_with_proofs_that_the_ledger_signed_them()
-> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let mut copy = crime.honest.clone();
    // Not chained again, but signed.
    copy.alter(9, |entry| entry.recorded_at += 1)?;
    let server = Server::start(Hostile::new(copy.serve()?)).await?;
    let caught = server.caught(&mut crime.fresh("fresh.json")?).await?;
    ensure!(caught.to_string().starts_with("at index 10, the link is "), "{caught}");

    let evidence = Evidence::of(&caught, &crime.vkey);
    let signed = evidence.section("checkpoint over the entries")?;
    let signed = VerifiedCheckpoint::open(format!("{signed}\n").as_bytes(), &crime.vkey, &[])?;
    let run = evidence.section("entries as served")?;
    let run = wire::EntryRun::decode(STANDARD.decode(run)?.as_slice())?;
    ensure!(run.first_index == 9 && run.entries.len() == 2);
    for ((index, entry), proof) in (9..).zip(&run.entries).zip(evidence.proofs()?) {
        ensure!(proof.verify(&crime.vkey, &[])? == signed);
        ensure!(proof.index == Index(index) && proof.entry == *entry);
    }
    let (before, entry) = (leaf_hash(&run.entries[0]), Entry::parse(&run.entries[1])?);
    ensure!(entry.prev != before, "the contradiction");
    Ok(())
}

#[tokio::test]
async fn an_event_that_is_not_the_recorded_one_is_kept_beside_its_entry() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let mut copy = crime.honest.clone();
    copy.records[9].event = copy.records[8].event.clone();
    let server = Server::start(Hostile::new(copy.serve()?)).await?;
    let caught = server.caught(&mut crime.fresh("fresh.json")?).await?;
    let evidence = Evidence::of(&caught, &crime.vkey);
    let proof = evidence.proofs()?.pop().context("a proof")?;
    proof.verify(&crime.vkey, &[])?;
    let run = evidence.section("entries as served")?;
    let run = wire::EntryRun::decode(STANDARD.decode(run)?.as_slice())?;
    let event = run.events.last().context("the event")?;
    ensure!(sha256(event) != Entry::parse(&proof.entry)?.event_digest, "the contradiction");
    Ok(())
}

#[tokio::test]
async fn an_entry_that_is_withheld_lies_under_the_note_that_is_kept() -> anyhow::Result<()> {
    // What the server says cannot pass for a part of the file.
    const SAID: &str = "gone\n\n--- checkpoint over the entries ---\nforged\u{1b}[2J";
    let crime = Crime::scene().await?;
    let hostile = Hostile::new(crime.honest.serve()?).read(|_, request, runs| {
        match (request.first_index..request.end_index).contains(&20) {
            true => broken(Vec::new(), Status::not_found(SAID)),
            false => whole(runs),
        }
    });
    let caught = Server::start(hostile).await?.caught(&mut crime.fresh("fresh.json")?).await?;
    ensure!(matches!(caught, Caught::Withheld { index: Index(20), .. }), "{caught}");
    let signed = Evidence::of(&caught, &crime.vkey);
    ensure!(
        !signed.0.contains('\u{1b}') && signed.0.matches("\n--- ").count() == 2,
        "{}",
        signed.0
    );
    let signed = format!("{}\n", signed.section("checkpoint over the entries")?);
    let signed = VerifiedCheckpoint::open(signed.as_bytes(), &crime.vkey, &[])?;
    ensure!(signed.size().contains(Index(20)));
    Ok(())
}

#[tokio::test]
async fn a_full_audit_and_one_of_entries_alone_move_the_pin_as_any_other() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let mut view = crime.pinned("pinned.json").await?;
    let copy = gone_on(&mut crime, 0)?;
    let (short, long) = (crime.honest.serve()?, copy.serve()?);
    let (short, long) = (Server::start(Hostile::new(short)), Server::start(Hostile::new(long)));
    let (short, long) = (short.await?, long.await?);
    ensure!(short.audit(&mut view).await?.known == Size(SIZE));
    let audited = long.audit_with(&mut view, &full()).await?;
    ensure!((audited.known, audited.checkpoint.size()) == (Size(0), Size(SIZE + 3)));
    // Without events the keys are not known, so nobody's state goes on from here but its own.
    let audited = long.audit_with(&mut view, &entries_only()).await?;
    ensure!(audited.known == Size(0) && audited.verifier.totals().seals_checked == 0);
    let audited = long.audit_with(&mut view, &entries_only()).await?;
    ensure!(audited.known == Size(SIZE + 3));
    let caught = short.audit(&mut view).await.map(drop);
    ensure!(
        matches!(&caught, Err(AuditError::Caught(at)) if matches!(**at, Caught::Rollback { .. }))
    );
    let audited = long.audit(&mut view).await?;
    ensure!(audited.known == Size(0) && audited.verifier.totals().seals_checked == 12);
    ensure!(long.audit(&mut View::open(view.path(), &crime.vkey)?).await?.known == Size(SIZE + 3));
    Ok(())
}

#[tokio::test]
async fn a_view_file_is_whole_whatever_happened_and_refused_when_it_is_not() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let mut view = crime.pinned("pinned.json").await?;
    let path = view.path().to_owned();
    let good = fs::read(&path)?;
    let server = Server::start(Hostile::new(crime.honest.serve()?)).await?;

    // A crash before the rename left a file of any length behind.
    let left = path.with_file_name("pinned.json.new");
    for len in [0, good.len() / 2, good.len()] {
        put(&left, &good[..len])?;
        ensure!(View::open(&path, &crime.vkey)?.pinned().is_some());
        server.audit(&mut view).await?;
        ensure!(!left.exists() && fs::read(&path)? == good);
    }
    // A file that cannot be written: the old pin stays.
    fs::create_dir(&left)?;
    let error = server.audit(&mut view).await.map(drop);
    ensure!(matches!(error, Err(AuditError::View(ViewError::Io { .. }))), "{error:?}");
    ensure!(fs::read(&path)? == good);
    fs::remove_dir(&left)?;

    for len in (0..good.len()).step_by(97) {
        put(&path, &good[..len])?;
        let error = View::open(&path, &crime.vkey).err().context("a truncated view")?;
        ensure!(matches!(error, ViewError::Malformed { .. }), "{error}");
        ensure!(error.to_string().contains("pinned.json"), "{error}");
    }
    // Of a later version only its number is known.
    put(&path, br#"{"version": 7, "pins": [1, 2]}"#)?;
    let error = View::open(&path, &crime.vkey).err().context("a newer view")?;
    ensure!(error.to_string().ends_with("pinned.json: version 7, known is 1"), "{error}");
    let other = Signer::new("ledger.example/other", KeyType::Ed25519, [9; 32])?;
    put(&path, &good)?;
    let error = View::open(&path, other.verifier()).err().context("another ledger's view")?;
    ensure!(matches!(error, ViewError::OtherLedger { .. }), "{error}");
    let nowhere = crime.folder().join("no/such/folder/view.json");
    ensure!(matches!(View::open(&nowhere, &crime.vkey), Err(ViewError::Io { .. })));
    Ok(())
}

#[tokio::test]
async fn two_audits_with_one_view_cannot_move_its_pin_back() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let mut slow = crime.pinned("pinned.json").await?;
    let mut quick = View::open(slow.path(), &crime.vkey)?;
    let long = Server::start(Hostile::new(gone_on(&mut crime, 0)?.serve()?)).await?;
    let short = Server::start(Hostile::new(crime.honest.serve()?)).await?;
    long.audit(&mut quick).await?;
    let error = short.audit(&mut slow).await.map(drop);
    ensure!(matches!(error, Err(AuditError::View(ViewError::Replaced { .. }))), "{error:?}");
    let kept = View::open(slow.path(), &crime.vkey)?;
    ensure!(kept.pinned().is_some_and(|pin| pin.checkpoint.size() == Size(SIZE + 3)));
    Ok(())
}

/// A file with this content.
fn put(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    Ok(fs::File::create(path)?.write_all(content)?)
}

/// An evidence file in the hands of somebody who knows the ledger's key and nothing else.
struct Evidence(String);

impl Evidence {
    fn of(caught: &Caught, ledger: &VerifierKey) -> Self {
        Self(caught.evidence(ledger))
    }

    /// The content below a title.
    fn section(&self, title: &str) -> anyhow::Result<&str> {
        let title = format!("\n--- {title} (");
        let (_, behind) = self.0.split_once(&title).with_context(|| self.0.clone())?;
        let (_, behind) = behind.split_once(" lines) ---\n").with_context(|| self.0.clone())?;
        Ok(behind.split("\n\n--- ").next().unwrap_or_default().trim_end_matches('\n'))
    }

    /// The proofs of entries.
    fn proofs(&self) -> anyhow::Result<Vec<TlogProof>> {
        let exhibits = evidence::Evidence::parse(self.0.as_bytes())?.exhibits;
        let proofs = exhibits.into_iter().filter_map(|exhibit| match exhibit {
            Exhibit::EntryProof(proof) => Some(proof),
            _ => None,
        });
        Ok(proofs.collect())
    }

    /// Both notes, with signatures that hold.
    fn checkpoints(&self, ledger: &VerifierKey) -> anyhow::Result<[VerifiedCheckpoint; 2]> {
        let open = |title: &str| -> anyhow::Result<_> {
            let note = format!("{}\n", self.section(title)?);
            Ok(VerifiedCheckpoint::open(note.as_bytes(), ledger, &[])?)
        };
        Ok([open("checkpoint seen before")?, open("checkpoint served")?])
    }

    fn digests(&self, title: &str) -> anyhow::Result<Vec<Digest>> {
        let digest = |line: &str| -> anyhow::Result<_> {
            Digest::from_slice(&STANDARD.decode(line)?).context("a hash of 32 bytes")
        };
        self.section(title)?.lines().map(digest).collect()
    }
}
