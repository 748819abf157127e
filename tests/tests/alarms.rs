//! What a custodian raises: each cause is one alarm, the honest twin of the same run is none, and
//! somebody hears of it.

#![expect(clippy::indexing_slicing, reason = "a test that misses its entry fails")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use access_ledger_client::evidence::{Evidence, Exhibit, Verdict};
use access_ledger_proto::{
    checkpoint::Checkpoint,
    hash::sha256,
    position::{Index, Size, memory_len},
    wire::{self, SourcePhase},
};
use access_ledger_server::{
    custodian::{
        alarms::{AlarmKind, AlarmRecord, Alarms},
        patrol::PatrolOptions,
        timing::TimeLimits,
    },
    os::{Clock as _, SystemClock},
};
use access_ledger_tests::{
    clock::SetClock,
    custodian::{Keeper, Setup, until},
    hostile::{Asked, Hostile, Server, broken, whole},
    node::{self, ORIGIN},
    operator::{Crime, SIZE},
    process::{binaries, server_binary},
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::Instant,
};
use tonic::Status;

/// An entry inside a batch of the scene's log, which carries no seal.
const TARGET: u64 = 9;

/// What a server does with [`TARGET`] when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    OtherEvent,
    OtherEntry,
    NoEvent,
    Nothing,
}

/// A switch that is off at first.
type Switch<T> = Arc<Mutex<Option<T>>>;

fn get<T: Clone>(switch: &Switch<T>) -> Option<T> {
    switch.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn set<T>(switch: &Switch<T>, to: Option<T>) {
    *switch.lock().unwrap_or_else(PoisonError::into_inner) = to;
}

/// Serves the scene's log, and lies about [`TARGET`] while it is told to.
async fn liar(crime: &Crime) -> anyhow::Result<(Server, Switch<Lie>)> {
    let switch = Switch::<Lie>::default();
    let told = switch.clone();
    let hostile = Hostile::new(crime.honest.serve()?).read(move |_, request, mut runs| {
        let asked = (request.first_index..request.end_index).contains(&TARGET);
        let Some(lie) = get(&told).filter(|_| asked) else {
            return whole(runs);
        };
        for run in &mut runs {
            let at = TARGET.checked_sub(run.first_index).and_then(memory_len);
            let Some(at) = at.filter(|&at| at < run.entries.len()) else { continue };
            match lie {
                Lie::OtherEvent => run.events[at] = flipped(&run.events[at]),
                Lie::OtherEntry => run.entries[at] = flipped(&run.entries[at]),
                Lie::NoEvent => run.events[at] = Bytes::new(),
                Lie::Nothing => return broken(Vec::new(), Status::data_loss("gone")),
            }
        }
        whole(runs)
    });
    Ok((Server::start(hostile).await?, switch))
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes.into()
}

/// A custodian without any grace.
fn strict(folder: &Path, crime: &Crime) -> Setup {
    let mut setup = Setup::new(folder, &crime.vkey);
    let round = Duration::from_millis(20);
    let none = Duration::ZERO;
    setup.options.patrol =
        PatrolOptions { round, erasure_grace: none, record_grace: none, ..Default::default() };
    setup
}

/// Waits until the patrol has read the whole log three times more.
async fn rounds(asked: &Asked) -> anyhow::Result<()> {
    let begun = asked.reads().len();
    let from_the_start =
        || asked.reads().iter().skip(begun).filter(|&&(first, _)| first == 0).count();
    until(async || Ok((from_the_start() >= 4).then_some(()))).await
}

fn kinds(alarms: &Alarms) -> Vec<(AlarmKind, Option<u64>)> {
    alarms.all().iter().map(|record| (record.kind, record.index)).collect()
}

async fn ended(alarms: &Alarms) -> anyhow::Result<()> {
    until(async || Ok(alarms.lasting().is_empty().then_some(()))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_lie_about_what_was_served_is_one_alarm_that_ends_with_it() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    for (lie, kind) in [
        (Lie::OtherEvent, AlarmKind::Damaged),
        (Lie::OtherEntry, AlarmKind::Damaged),
        (Lie::NoEvent, AlarmKind::Withheld),
        (Lie::Nothing, AlarmKind::Withheld),
    ] {
        let folder = tempfile::tempdir()?;
        let (server, switch) = liar(&crime).await?;
        let keeper = strict(folder.path(), &crime).start(server.address).await?;
        keeper.cosigns(SIZE).await?;
        rounds(&server.asked).await?;
        ensure!(kinds(&keeper.alarms).is_empty(), "{lie:?}: {:?}", kinds(&keeper.alarms));

        set(&switch, Some(lie));
        let record = keeper.raises(kind).await?;
        rounds(&server.asked).await?;
        ensure!(kinds(&keeper.alarms) == [(kind, Some(TARGET))], "{lie:?}: {:?}", record.message);
        if kind == AlarmKind::Damaged {
            both_are_kept(&crime, &keeper, &record, lie)?;
        }
        set(&switch, None);
        ended(&keeper.alarms).await?;
        keeper.stop().await?;
    }
    Ok(())
}

/// What was served before and what is served now, and a proof of what was signed.
fn both_are_kept(
    crime: &Crime,
    keeper: &Keeper,
    record: &AlarmRecord,
    lie: Lie,
) -> anyhow::Result<()> {
    let path = keeper.alarms.evidence(record).context("evidence")?;
    let evidence = Evidence::parse(&fs::read(path)?)?;
    ensure!(evidence.judge(&[])? == Verdict::NotProven, "nobody signed what was served");
    let [Exhibit::Checkpoint(_), Exhibit::EntryProof(proof), held, served] = &evidence.exhibits[..]
    else {
        anyhow::bail!("{:?}", evidence.exhibits);
    };
    let honest = &crime.honest.records[memory_len(TARGET).context("a place")?];
    ensure!(proof.entry == honest.entry && proof.index == Index(TARGET));
    let (Exhibit::Entries(held), Exhibit::Entries(served)) = (held, served) else {
        anyhow::bail!("{held:?} {served:?}");
    };
    let event = honest.event.clone().context("an event")?;
    ensure!(held.entries == [honest.entry.clone()] && held.events == [event.clone()]);
    let wanted = match lie {
        Lie::OtherEvent => (honest.entry.clone(), flipped(&event)),
        _ => (flipped(&honest.entry), event),
    };
    ensure!(served.entries == [wanted.0] && served.events == [wanted.1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_own_clock_tells_is_told_once() -> anyhow::Result<()> {
    let start = SystemClock.now_nanos() / 1_000_000_000;
    for is_honest in [true, false] {
        let folder = tempfile::tempdir()?;
        let [theirs, own] = [(); 2].map(|()| Arc::new(SetClock::at_s(start)));
        let ledger = node::Setup {
            clock: theirs.clone(),
            ..node::Setup::new(&folder.path().join("ledger"))
        };
        let node = ledger.start().await?;
        let mut source = node.clients().enrolled("payments", 1, &node.vkey).await?;
        let mut setup = Setup::new(&folder.path().join("keeper"), &node.vkey);
        setup.clock = own.clone();
        let stale_after = Duration::from_secs(3_600);
        setup.options.times = TimeLimits { stale_after, ..TimeLimits::default() };
        let keeper = setup.start(node.address).await?;
        let place = node.clients().record(&source.record(2)?).await?;
        keeper.cosigns(place.first_index + 2).await?;

        // Half an hour passes, in which the ledger is asked and has nothing new.
        let now = asked(&folder.path().join("keeper"), start + 1_800, &own).await?;
        if is_honest {
            theirs.set_s(now);
        }
        let gap = wire::SourceStatus {
            phase: SourcePhase::GapDeclared.into(),
            source: "payments".into(),
            dropped: 3,
            ..Default::default()
        };
        let events = if is_honest { source.events(1) } else { vec![source.status(gap)] };
        let sealed = source.seal(events)?;
        let place = node.clients().record(&sealed).await?;
        keeper.cosigns(place.first_index + 1).await?;
        let index = Some(place.first_index);
        let wanted = match is_honest {
            true => vec![],
            false => vec![(AlarmKind::Backdated, index), (AlarmKind::SourceGap, index)],
        };
        ensure!(kinds(&keeper.alarms) == wanted, "{:?}", keeper.alarms.all());
        // Nothing new for more than an hour.
        own.set_s(if is_honest { now + 100 } else { now + 4_000 });
        if !is_honest {
            keeper.raises(AlarmKind::Stale).await?;
        }
        ensure!(kinds(&keeper.alarms).len() == if is_honest { 0 } else { 3 });
        keeper.stop().await?;
        node.stop().await?;
    }
    Ok(())
}

/// Lets the own clock run from `second` on, until the custodian in `folder` has kept that it asked
/// the ledger since; what the clock says then.
async fn asked(folder: &Path, second: u64, clock: &SetClock) -> anyhow::Result<u64> {
    let begun = Instant::now();
    until(async || {
        // A quarter of a minute every second: it keeps that now and then, by this clock.
        let now = second + 15 * begun.elapsed().as_secs();
        clock.set_s(now);
        let kept = fs::read(folder.join("sightings.json")).unwrap_or_default();
        let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap_or_default();
        let asked = kept.as_array().and_then(|kept| kept.last()?.get("last")?.as_u64());
        Ok(asked.filter(|&asked| asked >= second * 1_000_000_000).map(|_| now))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_fails_twice_is_told_until_it_has_heard() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let folder = tempfile::tempdir()?;
    let (server, switch) = liar(&crime).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut setup = strict(folder.path(), &crime);
    setup.options.webhook = Some(format!("http://{}/alarm", listener.local_addr()?));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::new(AtomicU64::new(0));
    tokio::spawn(hook(listener, calls.clone(), heard.clone()));
    let keeper = setup.start(server.address).await?;
    keeper.cosigns(SIZE).await?;
    set(&switch, Some(Lie::Nothing));
    let record = keeper.raises(AlarmKind::Withheld).await?;
    let body =
        until(async || Ok(heard.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()));
    let body: Vec<u8> = body.await?;
    ensure!(calls.load(Ordering::SeqCst) == 3, "twice in vain");
    let alarms = folder.path().join("alarms");
    ensure!(body == fs::read(alarms.join(format!("{}.json", record.id)))?);
    let told: AlarmRecord = serde_json::from_slice(&body)?;
    ensure!(told == record);
    let sent = alarms.join(format!("{}.sent", record.id));
    until(async || Ok(sent.exists().then_some(()))).await?;
    keeper.stop().await
}

/// Answers 500 twice, and takes what comes then.
async fn hook(listener: TcpListener, calls: Arc<AtomicU64>, heard: Arc<Mutex<Vec<Vec<u8>>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (calls, heard) = (calls.clone(), heard.clone());
        tokio::spawn(async move {
            let mut request = Vec::new();
            let body = loop {
                if stream.read_buf(&mut request).await.unwrap_or_default() == 0 {
                    return;
                }
                if let Some(body) = body_of(&request) {
                    break body;
                }
            };
            let status = match calls.fetch_add(1, Ordering::SeqCst) {
                0 | 1 => "500 Internal Server Error",
                _ => {
                    heard.lock().unwrap_or_else(PoisonError::into_inner).push(body);
                    "204 No Content"
                }
            };
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            drop(stream.write_all(answer.as_bytes()).await);
        });
    }
}

/// The body of a request, once it is whole.
fn body_of(request: &[u8]) -> Option<Vec<u8>> {
    let end = request.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    assert!(head.starts_with("post /alarm ") && head.contains("application/json"), "{head}");
    let length = head.split("content-length: ").nth(1)?.split("\r\n").next()?;
    let body = &request[end..];
    (body.len().to_string() == length).then(|| body.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_halts_until_a_human_clears_it_with_its_own_evidence() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("keeper");
    let other = Checkpoint::new(ORIGIN, Size(SIZE - 1), sha256(b"other"))?;
    let other = Bytes::from(other.sign(&crime.honest.key)?);
    let switch = Switch::<Bytes>::default();
    let forked = switch.clone();
    let honest = Hostile::new(crime.honest.serve()?)
        .checkpoint(move |_, note| Ok(get(&forked).unwrap_or(note)));
    let server = Server::start(honest).await?;
    let setup = strict(&data, &crime);
    let keeper = setup.start(server.address).await?;
    keeper.cosigns(SIZE).await?;
    set(&switch, Some(other));
    let record = keeper.raises(AlarmKind::Fork).await?;
    let evidence = keeper.alarms.evidence(&record).context("evidence")?;
    until(async || Ok(data.join("halted").exists().then_some(()))).await?;
    ensure!(kinds(&keeper.alarms) == [(AlarmKind::Fork, None)], "{:?}", keeper.alarms.all());
    keeper.stop().await?;
    set(&switch, None);

    let checked = check(&[&evidence.to_string_lossy(), "--ledger", &crime.vkey.to_string()])?;
    let told = String::from_utf8(checked.stdout)?;
    ensure!(checked.status.code() == Some(1) && told.contains("\nPROVEN "), "{told}");

    // Halted for good, whatever the ledger serves meanwhile.
    let keeper = setup.start(server.address).await?;
    ensure!(keeper.alarms.lasting().len() == 1);
    ensure!(clear(&data, &evidence)?.status.code() == Some(2), "it is in use");
    keeper.stop().await?;
    let wrong = folder.path().join("wrong");
    let text = fs::read_to_string(&evidence)?;
    put(&wrong, &text.replace("finding: ", "finding:  "))?;
    ensure!(clear(&data, &wrong)?.status.code() == Some(2));
    ensure!(data.join("halted").exists());
    let cleared = clear(&data, &evidence)?;
    ensure!(cleared.status.success(), "{cleared:?}");
    ensure!(!data.join("halted").exists());

    let keeper = setup.start(server.address).await?;
    keeper.cosigns(SIZE).await?;
    ensure!(keeper.alarms.lasting().is_empty() && keeper.alarms.all().len() == 1);
    keeper.stop().await
}

fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    Ok(fs::File::create(path)?.write_all(text.as_bytes())?)
}

fn check(arguments: &[&str]) -> anyhow::Result<Output> {
    let program = binaries()?.join("access-ledger");
    Ok(Command::new(program).arg("check-evidence").args(arguments).output()?)
}

fn clear(data: &Path, evidence: &Path) -> anyhow::Result<Output> {
    let mut clear = Command::new(server_binary()?);
    clear.args(["custodian", "clear", "--data"]).arg(data).arg("--evidence").arg(evidence);
    Ok(clear.env("ACCESS_LEDGER_SERVER", "http://127.0.0.1:1").output()?)
}
