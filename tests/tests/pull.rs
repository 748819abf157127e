//! Whatever a server or the network does, what was pulled is the log: nothing twice, nothing
//! skipped; or else an error that says what happened, in time and in bounded memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use access_ledger_client::{
    pull::{PullError, Puller, Run},
    verify::{Record, Scope},
};
use access_ledger_proto::{
    position::{Index, Size, count_of},
    wire::EntryRun,
};
use access_ledger_tests::{
    hostile::{Hostile, PATIENCE, Runs, Server, broken, paced, silent, whole},
    operator::{Crime, SIZE},
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tonic::{Code, Status};

/// The honest log, three entries a message.
async fn scene() -> anyhow::Result<(Crime, Vec<Record>)> {
    let crime = Crime::scene().await?;
    let record = |record: &access_ledger_server::storage::Record| Record {
        entry: record.entry.clone(),
        event: record.event.clone(),
    };
    let records = crime.honest.records.iter().map(record).collect();
    Ok((crime, records))
}

fn hostile(crime: &Crime) -> anyhow::Result<Hostile> {
    Ok(Hostile::new(crime.honest.serve()?.with_run_entries(3)))
}

/// Everything that comes, and how it ended.
async fn pull(puller: &Puller, first: u64, scope: Scope) -> (Vec<Record>, Option<PullError>) {
    let mut records = puller.records(Index(first), Size(SIZE), scope);
    let mut pulled = Vec::new();
    while let Some(run) = records.next().await {
        match run {
            Ok((index, run)) => {
                assert_eq!(index.0, first + count_of(pulled.len()), "a run is not the next one");
                pulled.extend(run);
            }
            Err(error) => return (pulled, Some(error)),
        }
    }
    (pulled, None)
}

#[tokio::test]
async fn a_stream_that_breaks_anywhere_is_resumed_from_the_first_missing_entry()
-> anyhow::Result<()> {
    let (crime, honest) = scene().await?;
    for runs_before in 0..10 {
        let hostile = hostile(&crime)?.read(move |call, _, mut runs| {
            if call > 0 {
                return whole(runs);
            }
            runs.truncate(runs_before);
            broken(runs, Status::unavailable("restarting"))
        });
        let server = Server::start(hostile).await?;
        let (pulled, error) = pull(&server.puller()?, 0, Scope::Events).await;
        ensure!(error.is_none() && pulled == honest, "{runs_before} runs before: {error:?}");
        let resumed = (count_of(runs_before) * 3, SIZE);
        ensure!(server.asked.reads() == [(0, SIZE), resumed], "{:?}", server.asked.reads());
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_that_breaks_after_any_number_of_bytes_loses_and_doubles_nothing()
-> anyhow::Result<()> {
    let (crime, honest) = scene().await?;
    let hostile = hostile(&crime)?.read(|_, _, runs| paced(runs)).watch(|_, _, runs| paced(runs));
    let server = Server::start(hostile).await?;
    // The genesis alone, with the policy that it brings, takes some 7,000.
    for bytes in (12_000..24_000).step_by(997) {
        let relay = server.behind_cuts(bytes).await?;
        let (pulled, error) = pull(&relay.puller()?, 0, Scope::Events).await;
        ensure!(
            error.is_none() && pulled == honest,
            "cut after {bytes} bytes, {} pulled, asked {:?}: {error:?}",
            pulled.len(),
            server.asked.reads()
        );
    }
    let relay = server.behind_cuts(100).await?;
    let (pulled, error) = pull(&relay.puller()?, 0, Scope::Events).await;
    ensure!(pulled.is_empty(), "100 bytes hold no run");
    ensure!(matches!(error, Some(PullError::Refused(_))), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_ends_every_stream_early_is_asked_again_until_all_is_there()
-> anyhow::Result<()> {
    let (crime, honest) = scene().await?;
    let hostile = hostile(&crime)?.read(|_, _, mut runs| {
        runs.truncate(1);
        whole(runs)
    });
    let server = Server::start(hostile).await?;
    let (pulled, error) = pull(&server.puller()?, 0, Scope::Events).await;
    ensure!(error.is_none() && pulled == honest, "{error:?}");
    Ok(())
}

type Spoil = fn(&mut Vec<EntryRun>);

/// Every way in which a run may not fit the question.
#[expect(clippy::indexing_slicing, reason = "the log is ten runs of two entries or more")]
fn misfits() -> Vec<(&'static str, Spoil)> {
    vec![
        ("out of order", |runs| runs.swap(0, 1)),
        ("twice", |runs| {
            let again = runs[0].clone();
            runs.insert(1, again);
        }),
        ("skipped", |runs| {
            runs.remove(1);
        }),
        ("empty", |runs| runs.insert(1, EntryRun { first_index: 3, ..EntryRun::default() })),
        ("more than asked for", |runs| {
            let more = runs[9].entries[0].clone();
            runs[9].entries.push(more.clone());
            runs[9].events.push(more);
        }),
        ("no events", |runs| runs[1].events.clear()),
        ("an event too few", |runs| {
            runs[1].events.pop();
        }),
        ("an event too many", |runs| runs[1].events.push(Bytes::from_static(b"x"))),
        ("from another index", |runs| runs[1].first_index += 1),
        ("from the end of all indexes", |runs| runs[1].first_index = u64::MAX),
        ("more empty entries than a message holds", |runs| {
            // Below the limit in bytes, but not in memory.
            runs[0].entries = vec![Bytes::new(); 100_000];
            runs[0].events = vec![Bytes::new(); 100_000];
        }),
    ]
}

#[tokio::test]
async fn runs_that_do_not_fit_the_question_are_an_error_and_none_of_them_is_passed_on()
-> anyhow::Result<()> {
    let (crime, honest) = scene().await?;
    for (what, spoil) in misfits() {
        let hostile = hostile(&crime)?.read(move |_, _, mut runs| {
            spoil(&mut runs);
            whole(runs)
        });
        let server = Server::start(hostile).await?;
        let (pulled, error) = pull(&server.puller()?, 0, Scope::Events).await;
        ensure!(matches!(error, Some(PullError::Answer { .. })), "{what}: {error:?}");
        ensure!(honest.starts_with(&pulled) && pulled.len() < honest.len(), "{what}");
        ensure!(server.asked.reads().len() == 1, "{what} is not the network's fault");
    }
    Ok(())
}

#[tokio::test]
async fn events_that_were_not_asked_for_are_refused() -> anyhow::Result<()> {
    let (crime, honest) = scene().await?;
    let server = Server::start(hostile(&crime)?).await?;
    let (pulled, error) = pull(&server.puller()?, 5, Scope::EntriesOnly).await;
    let entries = |records: &[Record]| -> Vec<Bytes> {
        records.iter().map(|record| record.entry.clone()).collect()
    };
    ensure!(error.is_none() && entries(&pulled) == entries(&honest[5..]));
    ensure!(pulled.iter().all(|record| record.event.is_none()));

    let hostile = hostile(&crime)?.read(|_, _, mut runs| {
        runs[0].events = runs[0].entries.clone();
        whole(runs)
    });
    let server = Server::start(hostile).await?;
    let (_, error) = pull(&server.puller()?, 0, Scope::EntriesOnly).await;
    ensure!(matches!(error, Some(PullError::Answer { .. })), "{error:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_runs_without_end_do_not_keep_an_auditor_busy() -> anyhow::Result<()> {
    let (crime, _) = scene().await?;
    let hostile = hostile(&crime)?
        .read(|_, _, _| Box::pin(stream::repeat_with(|| Ok(EntryRun::default()))))
        .watch(|_, _, _| Box::pin(stream::repeat_with(|| Ok(EntryRun::default()))));
    let server = Server::start(hostile).await?;
    let (pulled, error) = pull(&server.puller()?, 0, Scope::Events).await;
    ensure!(pulled.is_empty() && matches!(error, Some(PullError::Answer { .. })), "{error:?}");
    let watched = server.puller()?.watch(Index(0)).next().await;
    ensure!(matches!(watched, Err(PullError::Answer { .. })), "{watched:?}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() -> anyhow::Result<()> {
    let (crime, honest) = scene().await?;
    for runs_before in [0, 2] {
        let hostile = hostile(&crime)?.read(move |call, _, mut runs| {
            runs.truncate(if call == 0 { runs_before } else { 0 });
            silent(runs)
        });
        let server = Server::start(hostile).await?;
        let (pulled, error) = pull(&server.puller()?, 0, Scope::Events).await;
        ensure!(pulled == honest[..runs_before * 3]);
        ensure!(
            matches!(error, Some(PullError::Deadline { waited }) if waited == PATIENCE.answer),
            "{error:?}"
        );
    }
    // Accepts connections, and says nothing at all.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let server = Server::start(hostile(&crime)?).await?;
    let puller = Puller::new(access_ledger_client::connect::channel(&format!(
        "http://{}",
        mute.local_addr()?
    ))?)
    .with_patience(PATIENCE);
    let error = puller.checkpoint().await;
    ensure!(matches!(error, Err(PullError::Deadline { .. })), "{error:?}");
    drop(server);
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_away_for_a_while_is_waited_for_and_no_longer() -> anyhow::Result<()> {
    let (crime, honest) = scene().await?;
    for code in [Code::Unavailable, Code::ResourceExhausted, Code::Unknown] {
        let hostile = hostile(&crime)?
            .read(move |call, _, runs| match call {
                0..=1 => broken(Vec::new(), Status::new(code, "away")),
                _ => whole(runs),
            })
            .checkpoint(move |call, note| match call {
                0..=1 => Err(Status::new(code, "away")),
                _ => Ok(note),
            });
        let server = Server::start(hostile).await?;
        let puller = server.puller()?;
        ensure!(puller.checkpoint().await? == *crime.honest.serve()?.checkpoint());
        let (pulled, error) = pull(&puller, 0, Scope::Events).await;
        ensure!(error.is_none() && pulled == honest, "{code:?}: {error:?}");

        let away = move |_, _: &_, _| broken(Vec::new(), Status::new(code, "away"));
        let server = Server::start(self::hostile(&crime)?.read(away)).await?;
        let (pulled, error) = pull(&server.puller()?, 0, Scope::Events).await;
        let refused = matches!(&error, Some(PullError::Refused(status)) if status.code() == code);
        ensure!(pulled.is_empty() && refused, "{error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_refusal_for_good_is_not_repeated() -> anyhow::Result<()> {
    let (crime, _) = scene().await?;
    for code in [Code::PermissionDenied, Code::Unimplemented, Code::InvalidArgument] {
        let no = move |_, _: &_, _| broken(Vec::new(), Status::new(code, "no"));
        let server = Server::start(hostile(&crime)?.read(no)).await?;
        let (_, error) = pull(&server.puller()?, 0, Scope::Events).await;
        ensure!(matches!(&error, Some(PullError::Refused(status)) if status.code() == code));
        ensure!(server.asked.reads().len() == 1);
    }
    Ok(())
}

/// Refuses every stream that comes to `lost`, with the runs before it.
fn without(
    lost: u64,
    status: fn() -> Status,
) -> impl Fn(usize, &access_ledger_proto::wire::ReadEntriesRequest, Vec<EntryRun>) -> Runs {
    move |_, _, mut runs| {
        let holds = |run: &EntryRun| {
            (run.first_index..run.first_index + count_of(run.entries.len())).contains(&lost)
        };
        match runs.iter().position(holds) {
            Some(at) => {
                runs.truncate(at);
                broken(runs, status())
            }
            None => whole(runs),
        }
    }
}

#[tokio::test]
async fn an_entry_that_is_not_served_is_named_exactly_wherever_it_lies() -> anyhow::Result<()> {
    let (crime, honest) = scene().await?;
    let statuses: [fn() -> Status; 3] = [
        || Status::data_loss("damaged"),
        || Status::out_of_range("beyond the tree"),
        || Status::not_found("gone"),
    ];
    for lost in 0..SIZE {
        let status = statuses[usize::try_from(lost)? % statuses.len()];
        let server = Server::start(hostile(&crime)?.read(without(lost, status))).await?;
        let (pulled, error) = pull(&server.puller()?, 0, Scope::Events).await;
        let Some(PullError::Withheld { index, end, problem }) = error else {
            anyhow::bail!("entry {lost} is lost, told was {error:?}");
        };
        ensure!((index, end) == (Index(lost), Size(SIZE)));
        ensure!(problem == status().message());
        ensure!(
            pulled == honest[..usize::try_from(lost)?],
            "everything before {lost} is passed on"
        );
    }
    Ok(())
}

#[tokio::test]
async fn after_a_search_that_found_everything_streams_are_long_again() -> anyhow::Result<()> {
    let (crime, honest) = scene().await?;
    // The first calls fail until one entry is asked for; then nothing does.
    let hostile = hostile(&crime)?.read(|call, _, runs| match call {
        0..4 => broken(Vec::new(), Status::data_loss("for a moment")),
        _ => whole(runs),
    });
    let server = Server::start(hostile).await?;
    let (pulled, error) = pull(&server.puller()?, 0, Scope::Events).await;
    ensure!(error.is_none() && pulled == honest, "{error:?}");
    let reads = server.asked.reads().len();
    ensure!(reads <= 4 + 6, "{reads} calls for {SIZE} entries");
    Ok(())
}

#[tokio::test]
async fn a_message_over_the_limit_is_no_entry() -> anyhow::Result<()> {
    let (crime, honest) = scene().await?;
    let hostile = hostile(&crime)?.read(|_, _, mut runs| {
        for run in &mut runs {
            if run.first_index <= 7 && 7 < run.first_index + count_of(run.entries.len()) {
                run.events[0] = vec![0; 3 << 20].into();
            }
        }
        whole(runs)
    });
    let server = Server::start(hostile).await?;
    let (pulled, error) = pull(&server.puller()?, 0, Scope::Events).await;
    ensure!(matches!(error, Some(PullError::Withheld { index: Index(7), .. })), "{error:?}");
    ensure!(pulled == honest[..7]);
    Ok(())
}

#[tokio::test]
async fn a_server_runs_ahead_only_as_far_as_memory_is_bounded() -> anyhow::Result<()> {
    let (crime, _) = scene().await?;
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    // A log without end, of runs of about a megabyte.
    let hostile = hostile(&crime)?.read(move |_, request, runs| {
        let (first, counted) = (request.first_index, Arc::clone(&counted));
        let entry = runs[0].entries[0].clone();
        let run = move |at: u64| {
            counted.fetch_add(1, Ordering::Relaxed);
            let event = Bytes::from(vec![7; 1 << 20]);
            Ok(EntryRun { first_index: at, entries: vec![entry.clone()], events: vec![event] })
        };
        Box::pin(stream::iter(first..).map(run))
    });
    let server = Server::start(hostile).await?;
    let puller = server.puller()?;
    let mut records = puller.records(Index(0), Size(u64::MAX), Scope::Events);
    ensure!(records.next().await.context("a run")?.is_ok());
    // Nobody takes more: in the end nothing moves.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = sent.load(Ordering::Relaxed);
        if now == before {
            break;
        }
        before = now;
    }
    let most = access_ledger_client::pull::RUNS_AHEAD + 8;
    ensure!(before <= most, "{before} runs were sent to somebody who took one");
    Ok(())
}

async fn watched(puller: &Puller, first: u64, count: usize) -> anyhow::Result<Vec<Record>> {
    let mut watch = puller.watch(Index(first));
    let mut records = Vec::new();
    while records.len() < count {
        let (index, run): Run = watch.next().await?.run;
        ensure!(index.0 == first + count_of(records.len()), "a run is not the next one");
        records.extend(run);
    }
    Ok(records)
}

#[tokio::test]
async fn a_watch_that_breaks_anywhere_goes_on_with_the_first_missing_entry() -> anyhow::Result<()> {
    let (crime, honest) = scene().await?;
    for end in [
        (|runs| broken(runs, Status::unavailable("restarting"))) as fn(Vec<EntryRun>) -> Runs,
        whole,
    ] {
        let hostile = hostile(&crime)?.watch(move |_, _, mut runs| {
            runs.truncate(2);
            end(runs)
        });
        let server = Server::start(hostile).await?;
        ensure!(watched(&server.puller()?, 0, honest.len()).await? == honest);
        ensure!(server.asked.watches() == 5);
        ensure!(watched(&server.puller()?, 4, 10).await?[..10] == honest[4..14]);
    }
    let hostile = hostile(&crime)?.read(|_, _, runs| paced(runs)).watch(|_, _, runs| paced(runs));
    let server = Server::start(hostile).await?;
    for bytes in (12_000..24_000).step_by(1_999) {
        let relay = server.behind_cuts(bytes).await?;
        ensure!(watched(&relay.puller()?, 0, honest.len()).await? == honest, "cut at {bytes}");
    }
    Ok(())
}

#[tokio::test]
async fn a_watch_notices_what_is_skipped_and_gives_up_on_a_server_that_stays_away()
-> anyhow::Result<()> {
    let (crime, _) = scene().await?;
    for (what, spoil) in misfits() {
        if what == "more than asked for" {
            continue;
        }
        let hostile = hostile(&crime)?.watch(move |_, _, mut runs| {
            spoil(&mut runs);
            silent(runs)
        });
        let server = Server::start(hostile).await?;
        let error = watched(&server.puller()?, 0, usize::try_from(SIZE)?).await;
        let error = error.err().context(what)?.downcast::<PullError>()?;
        ensure!(matches!(error, PullError::Answer { .. }), "{what}: {error}");
    }
    let away = |_, _: &_, _| broken(Vec::new(), Status::unavailable("away"));
    let server = Server::start(hostile(&crime)?.watch(away)).await?;
    let error = server.puller()?.watch(Index(0)).next().await;
    ensure!(matches!(error, Err(PullError::Refused(_))), "{error:?}");
    ensure!(server.asked.watches() > 2);
    Ok(())
}

#[tokio::test]
async fn a_quiet_watch_waits_longer_than_any_answer_may_take() -> anyhow::Result<()> {
    let (crime, honest) = scene().await?;
    let is_late = Arc::new(AtomicBool::new(false));
    let late = Arc::clone(&is_late);
    let hostile = hostile(&crime)?.watch(move |_, _, runs| {
        let late = Arc::clone(&late);
        let wait = async move {
            tokio::time::sleep(PATIENCE.answer + PATIENCE.repeat).await;
            late.store(true, Ordering::Relaxed);
        };
        Box::pin(stream::once(wait).flat_map(move |()| whole(runs.clone())))
    });
    let server = Server::start(hostile).await?;
    ensure!(watched(&server.puller()?, 0, honest.len()).await? == honest);
    ensure!(is_late.load(Ordering::Relaxed) && server.asked.watches() == 1);
    Ok(())
}
