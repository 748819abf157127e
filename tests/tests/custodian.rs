//! A custodian follows a ledger: it holds and serves what the ledger signed, resumes wherever it
//! was stopped or killed, and signs nothing for a ledger that lies.

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use access_ledger_client::{
    audit::{AuditOptions, audit},
    evidence::{Evidence, Verdict},
    pull::{Patience, Puller},
    view::View,
};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    note::VerifierKey,
    position::{Size, memory_len},
    witness::origin_hex,
};
use access_ledger_server::{
    check,
    custodian::alarms::{AlarmKind, AlarmRecord},
    demo::tamper::Seized,
    folder::{Folder, real_disk},
    health::Unready,
    storage,
};
use access_ledger_tests::{
    adversary::gone_on,
    custodian::{Keeper, Setup, until},
    hostile::{Hostile, Server, options},
    node::{Clients, Node, ORIGIN},
    operator::{BATCHES, Crime, SIZE, own_key, reseal},
    pages,
    pki::put,
    process::Process,
    signed::SignedLog,
    source::Source,
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;

/// Verifies everything that a stopped custodian has on disk; how much that is.
fn check_folder(folder: &Path) -> anyhow::Result<Size> {
    let (disk, data) = (real_disk(), Folder::new(folder));
    let ledger = data.ledger_key(&*disk)?.context("no custodian there")?;
    let note = fs::read(folder.join("witness").join(origin_hex(ledger.name()))).ok();
    let cosigned = note.map(|note| VerifiedCheckpoint::open(&note, &ledger, &[])).transpose()?;
    let cosigned = cosigned.map(|cosigned| (cosigned.size(), cosigned.root()));
    let options = storage::Options::new(folder, ledger.name());
    let report = check::check(&disk, &options, &ledger, cosigned, &|_| {})?;
    ensure!(report.problem.is_none(), "{:?}", report.problem);
    ensure!(report.size >= cosigned.map_or(Size::ZERO, |(size, _)| size), "cosigned too much");
    Ok(report.size)
}

/// An audit of a server against a view, which moves with it.
async fn audits(puller: &Puller, view: &mut View, full: bool) -> anyhow::Result<Size> {
    let options = AuditOptions { full, ..options() };
    Ok(audit(puller, view, &options, Arc::new(|_, _| ())).await?.checkpoint.size())
}

async fn record(clients: &Clients, source: &mut Source, batches: usize) -> anyhow::Result<u64> {
    let mut size = 0;
    for _ in 0..batches {
        let sealed = source.record(3)?;
        size = clients.record(&sealed).await?.first_index + 3;
    }
    Ok(size)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_holds_serves_and_cosigns_what_the_ledger_signed() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, mirror) = (folder.path().join("ledger"), folder.path().join("custodian"));
    let node = Node::start(&data).await?;
    let clients = node.clients();
    let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
    let size = record(&clients, &mut source, 20).await?;

    let keeper = Keeper::start(&mirror, &node.vkey, node.address).await?;
    keeper.holds(size).await.context("catches up")?;
    let size = record(&clients, &mut source, 30).await?;
    let late = clients.enrolled("support", 2, &node.vkey).await?;
    let size = size.max(record(&clients, &mut source, 1).await?);
    let cosigned = keeper.cosigns(size).await.context("follows")?;
    ensure!(cosigned.cosignatures().iter().any(|by| by.key == keeper.vkeys[1]), "no mirror");

    // Whoever was pinned to the ledger goes on with the custodian, and the other way round.
    let mut view = View::open(&folder.path().join("view"), &node.vkey)?;
    let ledger = Puller::new(clients.channel.clone());
    ensure!(audits(&ledger, &mut view, true).await? == Size(size));
    ensure!(audits(&keeper.puller()?, &mut view, true).await? == Size(size));
    ensure!(audits(&ledger, &mut view, false).await? == Size(size));
    let told = keeper.puller()?.sources("").await?.sources;
    let payments = told.iter().find(|told| told.name == "payments").context("payments")?;
    ensure!(payments.last_seq == 51 * 3, "{payments:?}");
    ensure!(told.iter().any(|told| told.name == late.name()), "{told:?}");
    ensure!(keeper.alarms.all().is_empty(), "{:?}", keeper.alarms.all());

    keeper.stop().await?;
    ensure!(check_folder(&mirror)? == Size(size));
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_where_it_stopped_and_serves_without_the_ledger() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, mirror) = (folder.path().join("ledger"), folder.path().join("custodian"));
    let node = Node::start(&data).await?;
    let (clients, vkey) = (node.clients(), node.vkey.clone());
    let mut source = clients.enrolled("payments", 1, &vkey).await?;
    let size = record(&clients, &mut source, 10).await?;
    let keeper = Keeper::start(&mirror, &vkey, node.address).await?;
    let keys = keeper.vkeys.clone();
    keeper.cosigns(size).await?;
    keeper.stop().await?;

    let grown = record(&clients, &mut source, 10).await?;
    let address = node.address;
    drop(clients);
    node.stop().await?;
    let keeper = Keeper::start(&mirror, &vkey, address).await?;
    ensure!(keeper.vkeys == keys, "it keeps its keys");
    let held = keeper.cosigns(size).await.context("serves what it cosigned")?;
    ensure!(held.size() == Size(size), "nobody has more");

    let node = Node::start(&data).await?;
    keeper.stop().await?;
    let keeper = Keeper::start(&mirror, &vkey, node.address).await?;
    keeper.cosigns(grown).await?;
    keeper.stop().await?;
    ensure!(check_folder(&mirror)? >= Size(grown));
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_restarts_is_found_again() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("ledger");
    let process = Process::serve(&data, &[])?;
    let (vkey, address) = (process.vkey.clone(), process.address);
    let clients = Clients::connect(address).await?;
    let mut source = clients.enrolled("payments", 1, &vkey).await?;
    let size = record(&clients, &mut source, 5).await?;
    let keeper = Keeper::start(&folder.path().join("custodian"), &vkey, address).await?;
    keeper.holds(size).await?;
    process.kill()?;
    let process = Process::serve(&data, &["--listen", &address.to_string()])?;
    let clients = Clients::connect(process.address).await?;
    let size = record(&clients, &mut source, 5).await?;
    keeper.cosigns(size).await?;
    ensure!(keeper.alarms.all().is_empty(), "{:?}", keeper.alarms.all());
    keeper.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_custodian_has_everything_that_it_cosigned() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, mirror) = (folder.path().join("ledger"), folder.path().join("custodian"));
    let node = Node::start(&data).await?;
    let (clients, vkey) = (node.clients(), node.vkey.clone());
    let mut source = clients.enrolled("payments", 1, &vkey).await?;
    let mut size = record(&clients, &mut source, 200).await?;
    let mut held = Size::ZERO;
    for kill in 0..12 {
        let process = Process::custodian(&mirror, node.address, &vkey, &["--segment-mib", "1"])?;
        // Kills hit the catch-up, the watching, and what is cosigned on the way.
        for _ in 0..kill {
            size = record(&clients, &mut source, 1).await?;
        }
        process.kill()?;
        let found = check_folder(&mirror).with_context(|| format!("kill {kill}"))?;
        ensure!(found >= held, "kill {kill}: {held} entries were there, {found} are left");
        held = found;
    }
    let keeper = Keeper::start(&mirror, &vkey, node.address).await?;
    keeper.cosigns(size).await?;
    keeper.stop().await?;
    ensure!(check_folder(&mirror)? == Size(size));
    node.stop().await
}

/// What a custodian that holds the honest log makes of what a liar serves, and of the honest log
/// afterwards.
async fn lie(
    crime: &Crime,
    liar: &Seized,
    kind: AlarmKind,
    hook: impl FnOnce(Hostile) -> Hostile,
) -> anyhow::Result<AlarmRecord> {
    let folder = tempfile::tempdir()?;
    let mut setup = Setup::new(folder.path(), &crime.vkey);
    // The patrol would find things as well.
    setup.options.patrol.round = Duration::from_secs(3_600);
    let honest = Server::start(Hostile::new(crime.honest.serve()?)).await?;
    let keeper = setup.start(honest.address).await?;
    let before = keeper.cosigns(SIZE).await?;
    keeper.stop().await?;

    let server = Server::start(hook(Hostile::new(liar.serve()?))).await?;
    let keeper = setup.start(server.address).await?;
    let alarm = keeper.raises(kind).await?;
    let is_halted = async || {
        let hindrances = keeper.health.hindrances();
        Ok((hindrances.contains(&Unready::Halted) == kind.halts()).then_some(()))
    };
    until(is_halted).await.with_context(|| format!("{:?}", keeper.health.hindrances()))?;
    let after = keeper.cosigns(SIZE).await?;
    ensure!(after.note() == before.note(), "it serves and vouches for what it held, no more");
    keeper.stop().await?;
    ensure!(check_folder(folder.path())? == Size(SIZE));

    let keeper = setup.start(server.address).await?;
    ensure!(keeper.cosigns(SIZE).await?.note() == before.note(), "not after a restart either");
    keeper.stop().await?;
    ensure!(folder.path().join("halted").exists() == kind.halts(), "{kind}");
    Ok(alarm)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_ledger_that_forks_or_goes_back_is_cosigned() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let mut fork = crime.honest.clone();
    fork.alter(SIZE - 1, |entry| entry.recorded_at += 1)?;
    fork.rechain()?;
    let alarm = lie(&crime, &fork, AlarmKind::Fork, |hostile| hostile).await?;
    ensure!(alarm.size == SIZE && alarm.evidence.is_some(), "{alarm:?}");

    let mut fork = gone_on(&mut crime, 0)?;
    fork.alter(SIZE - 1, |entry| entry.recorded_at -= 1)?;
    fork.rechain()?;
    let alarm = lie(&crime, &fork, AlarmKind::Fork, |hostile| hostile).await?;
    ensure!(alarm.size == SIZE + 3, "{alarm:?}");

    let mut backup = crime.honest.clone();
    backup.records.truncate(memory_len(BATCHES[4].0).context("a short log")?);
    let alarm = lie(&crime, &backup, AlarmKind::Rollback, |hostile| hostile).await?;
    ensure!(alarm.size == BATCHES[4].0, "{alarm:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_log_that_breaks_a_rule_is_stored_or_cosigned() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let mut forged = gone_on(&mut crime, 0)?;
    let last = forged.records.len() - 1;
    forged.records.truncate(last - 1);
    reseal(&mut forged, SIZE, &own_key("payments")?)?;
    forged.rechain()?;
    let alarm = lie(&crime, &forged, AlarmKind::LogInvalid, |hostile| hostile).await?;
    ensure!(alarm.index == Some(SIZE), "{alarm:?}");

    let unsigned = crime.honest.clone();
    let garbage = |hostile: Hostile| hostile.checkpoint(|_, _| Ok(Bytes::from_static(b"garbage")));
    let alarm = lie(&crime, &unsigned, AlarmKind::CheckpointInvalid, garbage).await?;
    ensure!(alarm.index.is_none(), "{alarm:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_honest_twin_of_a_liar_is_followed() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let folder = tempfile::tempdir()?;
    let setup = Setup::new(folder.path(), &crime.vkey);
    let honest = Server::start(Hostile::new(crime.honest.serve()?)).await?;
    let keeper = setup.start(honest.address).await?;
    keeper.cosigns(SIZE).await?;
    keeper.stop().await?;
    let twin = Server::start(Hostile::new(gone_on(&mut crime, 0)?.serve()?)).await?;
    let keeper = setup.start(twin.address).await?;
    keeper.cosigns(SIZE + 3).await?;
    ensure!(keeper.alarms.all().is_empty(), "{:?}", keeper.alarms.all());
    keeper.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_log_is_witnessed_beside_and_its_fork_halts_nothing() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mirror = folder.path().join("custodian");
    let node = Node::start(&folder.path().join("ledger")).await?;
    let clients = node.clients();
    let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
    let other = SignedLog::new("other.example/log", 20)?;
    let mut setup = Setup::new(&mirror, &node.vkey);
    setup.options.witness_logs = vec![other.vkey().clone()];
    let keeper = setup.start(node.address).await?;
    let size = record(&clients, &mut source, 2).await?;
    keeper.cosigns(size).await?;

    let add = async |body: Vec<u8>| pages::post(keeper.address, "/add-checkpoint", &body).await;
    let stranger = add(SignedLog::new("stranger.example/log", 8)?.add(0, 8)?).await?;
    ensure!(stranger.status == 404, "{}", stranger.text());
    witnesses(keeper.address, &keeper.vkeys, &other, (0, 8)).await?;

    let fork = other.fork(3);
    for _ in 0..2 {
        let refused = add(fork.add(8, 8)?).await?;
        ensure!(refused.status == 422, "{}: {}", refused.status, refused.text());
    }
    let record_of = keeper.raises(AlarmKind::Fork).await?;
    ensure!(keeper.alarms.all() == [record_of.clone()], "{:?}", keeper.alarms.all());
    ensure!((record_of.origin.as_str(), record_of.size) == (other.vkey().name(), 8));
    let evidence = keeper.alarms.evidence(&record_of).context("no evidence")?;
    let evidence = Evidence::parse(&fs::read(evidence)?)?;
    let Verdict::Proven(convicted) = evidence.judge(&[])? else { anyhow::bail!("not proven") };
    ensure!(convicted.iter().all(|by| by.key == *other.vkey()), "{convicted:?}");

    // It signs on: one history of the other log, and the ledger that it follows.
    witnesses(keeper.address, &keeper.vkeys, &other, (8, 12)).await?;
    let size = record(&clients, &mut source, 2).await?;
    keeper.cosigns(size).await?;
    ensure!(!keeper.health.hindrances().contains(&Unready::Halted));
    let keys = keeper.vkeys.clone();
    keeper.stop().await?;
    ensure!(!mirror.join("halted").exists());
    // Named in a file, it goes on where it was.
    let logs = folder.path().join("logs");
    put(&logs, format!("# besides\nlog {} https://other.example\n", other.vkey()).as_bytes())?;
    let flags = ["--witness-logs", logs.to_str().context("no text")?];
    let process = Process::custodian(&mirror, node.address, &node.vkey, &flags)?;
    witnesses(process.address, &keys, &other, (12, 20)).await?;
    process.kill()?;
    node.stop().await
}

/// That a custodian cosigns a checkpoint of a log that it does not follow.
async fn witnesses(
    custodian: SocketAddr,
    keys: &[VerifierKey; 2],
    log: &SignedLog,
    (old, new): (usize, usize),
) -> anyhow::Result<()> {
    let answer = pages::post(custodian, "/add-checkpoint", &log.add(old, new)?).await?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    let note = log.note(new)? + &answer.text();
    let checkpoint = VerifiedCheckpoint::open(note.as_bytes(), log.vkey(), keys)?;
    let by: Vec<_> = checkpoint.cosignatures().iter().map(|by| by.key.clone()).collect();
    // It holds nothing of that log, so the mirror's key has no say.
    let [witness, _] = keys;
    ensure!(by == [witness.clone()], "{by:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn before_it_holds_anything_it_says_so() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let key = own_key(ORIGIN)?;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = nobody.local_addr()?;
    drop(nobody);
    let keeper = Keeper::start(folder.path(), key.verifier(), address).await?;
    let path = format!("/{}/checkpoint", origin_hex(ORIGIN));
    let status = until(async || Ok(status_of(keeper.address, &path).await.ok())).await?;
    ensure!(status == 404, "{status}: nothing was cosigned");
    ensure!(status_of(keeper.address, "/checkpoint").await? == 503);
    let impatient =
        Patience { answer: Duration::from_millis(500), repeat: Duration::from_millis(1) };
    let asked = keeper.puller()?.with_patience(impatient).checkpoint().await;
    ensure!(asked.is_err(), "{asked:?}");
    keeper.stop().await
}

/// The status of an HTTP answer.
async fn status_of(address: SocketAddr, path: &str) -> anyhow::Result<u16> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split(' ').nth(1).context("no status")?.parse()?)
}
