//! Reports on records of other kinds: transparency, erasure, custody, sources, readers.

use access_ledger_client::reports::{Day, Options, Period, Report};
use access_ledger_proto::wire::{
    self, Erasure, ErasurePhase, Holding, LedgerRead, LegalProcess, LegalRequest,
    LegalRequestOutcome, LegalRequestPhase, ReadKind, SourcePhase, SourceRole, SourceStatus,
    event::Body,
};
use access_ledger_tests::story::{
    DATASET, DAY, LEDGER, RECORDER, SECOND, Story,
    parts::{data, timestamp},
};
use bytes::Bytes;

use super::{days, options, rows, rows_of};

const HOUR: u64 = 3_600 * SECOND;

/// Requests of the US that arrived in a half-year: how many of them, by kind, the accounts that
/// they named in all, and how many had data produced.
fn receive(
    story: &mut Story,
    day: &str,
    (legal, emergencies): (u64, u64),
    accounts: u64,
    produced: u64,
) -> anyhow::Result<()> {
    let received_at = day.parse::<Day>()?.start();
    let total = legal + emergencies;
    for number in 0..total {
        let is_emergency = number >= legal;
        let is_warrant = number % 3 == 0;
        let process = match (is_emergency, is_warrant) {
            (true, _) => LegalProcess::Emergency,
            (_, true) => LegalProcess::SearchWarrant,
            _ => LegalProcess::Subpoena,
        };
        // The last one names all accounts that are left.
        let named = if number + 1 == total { accounts - number } else { 1 };
        let request = LegalRequest {
            legal_request_id: format!("{day}/{number}"),
            phase: LegalRequestPhase::Received.into(),
            process: process.into(),
            emergency: is_emergency,
            country: "US".to_owned(),
            agency: "court".to_owned(),
            accounts_specified: named,
            received_at: Some(timestamp(received_at + number * HOUR)),
            ..LegalRequest::default()
        };
        story.tell(RECORDER, Body::LegalRequest(request.clone()))?;
        let outcome = match number {
            _ if number >= produced => LegalRequestOutcome::NoData,
            _ if is_warrant => LegalRequestOutcome::Full,
            _ => LegalRequestOutcome::Partial,
        };
        let answered = LegalRequest {
            phase: LegalRequestPhase::Produced.into(),
            outcome: outcome.into(),
            accounts_affected: u64::from(number < produced),
            user_notified: number < 2,
            ..request
        };
        story.tell(RECORDER, Body::LegalRequest(answered))?;
    }
    Ok(())
}

#[test]
fn transparency_reproduces_the_published_figures() -> anyhow::Result<()> {
    let mut story = Story::open()?;
    receive(&mut story, "2019-02-01", (68, 11), 255, 68)?;
    receive(&mut story, "2019-08-01", (90, 10), 107, 82)?;
    let year = Period::new("2019-01-01".parse()?, "2020-01-01".parse()?)?;
    assert_eq!(
        rows_of(&story, Report::Transparency, &options(year))?,
        [
            "2019 H1 | US | 68 | 11 | 79 | 255 | 86 | SUBPOENA 45, SEARCH_WARRANT 23, EMERGENCY 11 | 68 | 2",
            "2019 H2 | US | 90 | 10 | 100 | 107 | 82 | SUBPOENA 60, SEARCH_WARRANT 30, EMERGENCY 10 | 82 | 2",
        ]
    );
    let half = Period::new("2019-07-01".parse()?, "2020-01-01".parse()?)?;
    assert_eq!(rows_of(&story, Report::Transparency, &options(half))?.len(), 1);
    Ok(())
}

#[test]
fn erasure_tells_of_accesses_to_what_should_be_gone() -> anyhow::Result<()> {
    use ErasurePhase::{Certified, Completed, Scheduled, Started, Verified};
    let mut story = Story::open()?;
    for (phase, source) in [
        (Scheduled, RECORDER),
        (Started, RECORDER),
        (Completed, RECORDER),
        (Verified, "security/bo"),
        (Certified, "security/bo"),
    ] {
        let erasure = Erasure {
            job_id: "job-1".to_owned(),
            phase: phase.into(),
            site: "ie-1".to_owned(),
            dataset: DATASET.to_owned(),
            method: "crypto-shredding".to_owned(),
            objects: 12,
            ..Erasure::default()
        };
        story.tell(source, Body::Erasure(erasure))?;
        story.wait(HOUR);
    }
    story.access(|_, _| {})?;
    let wanted = [
        "job-1 | ie-1 | users.profile | 12 | crypto-shredding | 2026-03-02T08:00:00Z | 2026-03-02T10:00:00Z | security/bo | 1",
    ];
    assert_eq!(rows(&story, Report::Erasure, 1)?, wanted);
    // Long over, but what was reached afterwards stays to be told.
    assert_eq!(rows_of(&story, Report::Erasure, &options(days(5, 6)?))?, wanted);
    Ok(())
}

#[test]
fn custody_tells_where_a_dataset_moves() -> anyhow::Result<()> {
    let mut story = Story::open()?;
    let hold = |story: &mut Story, site: &str, operator: &str, records| {
        let holding = Holding {
            dataset: DATASET.to_owned(),
            site: site.to_owned(),
            site_operator: operator.to_owned(),
            records,
            as_of: Some(timestamp(story.now())),
            ..Holding::default()
        };
        story.tell(RECORDER, Body::Holding(holding))
    };
    hold(&mut story, "ie-1", "custodian", 100)?;
    hold(&mut story, "sg-1", "company", 900)?;
    story.wait(DAY);
    hold(&mut story, "ie-1", "custodian", 700)?;
    hold(&mut story, "sg-1", "company", 300)?;
    assert_eq!(
        rows(&story, Report::Custody, 2)?,
        [
            "users.profile | ie-1 | custodian | 70.0 | 2026-03-03T08:00:00Z | 600.0",
            "users.profile | sg-1 | company | 30.0 | 2026-03-03T08:00:00Z | -66.7",
        ]
    );
    assert_eq!(
        rows(&story, Report::Custody, 1)?,
        [
            "users.profile | ie-1 | custodian | 10.0 | 2026-03-02T08:00:00Z | ",
            "users.profile | sg-1 | company | 90.0 | 2026-03-02T08:00:00Z | ",
        ]
    );
    Ok(())
}

#[test]
fn sources_tell_how_completely_they_recorded() -> anyhow::Result<()> {
    const POD: &str = "pod";
    let mut story = Story::bare()?;
    story.register(POD, &[SourceRole::Record], HOUR, "")?;
    let say = |story: &mut Story, phase: SourcePhase, build: u8, dropped: u64| {
        let status = SourceStatus {
            phase: phase.into(),
            source: POD.to_owned(),
            build_digest: if build == 0 { Bytes::new() } else { Bytes::from(vec![build; 32]) },
            dropped,
            ..SourceStatus::default()
        };
        story.tell(POD, Body::SourceStatus(status))
    };
    // The first day, from 8:00 on: started, and 16 heartbeats to midnight.
    say(&mut story, SourcePhase::Started, 1, 0)?;
    for _ in 0..15 {
        story.wait(HOUR);
        say(&mut story, SourcePhase::Heartbeat, 0, 0)?;
    }
    // The second: another build at 1:00, a loss, silence from 2:00 to 7:30, erased at 8:00, the
    // end.
    story.wait(2 * HOUR);
    say(&mut story, SourcePhase::Started, 2, 0)?;
    story.wait(HOUR);
    say(&mut story, SourcePhase::GapDeclared, 0, 17)?;
    story.wait(5 * HOUR + HOUR / 2);
    say(&mut story, SourcePhase::Heartbeat, 0, 0)?;
    story.wait(HOUR / 2);
    let gone = say(&mut story, SourcePhase::Heartbeat, 0, 0)?;
    story.erase(gone);
    story.wait(HOUR / 2);
    say(&mut story, SourcePhase::Stopped, 0, 0)?;
    story.wait(20 * DAY);
    story.register("late", &[SourceRole::Record, SourceRole::Enrol], HOUR, "")?;
    story.wait(2 * DAY);
    story.register("later", &[SourceRole::Record], 0, "")?;
    let second = rows_of(&story, Report::Sources, &options(days(1, 2)?))?;
    assert_eq!(
        second,
        [
            "governance/company | RECORD, GOVERN |  |  | 0 | 0 | 0 | 0 | 24:00:00 | 0",
            "governance/custodian | RECORD, GOVERN |  |  | 0 | 0 | 0 | 0 | 24:00:00 | 0",
            "ledger | RECORD |  |  | 0 | 0 | 0 | 0 | 24:00:00 | 0",
            "pod | RECORD | 17 | 21 | 1 | 17 | 8 | 1 | 5:30:00 | 1",
        ]
    );
    // Registered at 8:30, and never heard of.
    let silent = rows_of(&story, Report::Sources, &options(days(21, 22)?))?;
    assert_eq!(silent[2], "late | RECORD, ENROL |  |  | 0 | 0 | 15 | 0 | 15:30:00 | 0");
    let first = rows(&story, Report::Sources, 1)?;
    assert_eq!(first[3], "pod | RECORD | 1 | 16 | 0 | 0 | 15 | 15 | 1:00:00 | 0");
    Ok(())
}

#[test]
fn readers_tell_who_read_the_ledger() -> anyhow::Result<()> {
    let mut story = Story::open()?;
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let search = |token: &'static [u8]| LedgerRead {
        reader: "auditor".to_owned(),
        query: "actors \"p-1\"".to_owned(),
        rows: 7,
        kind: ReadKind::Query.into(),
        calls: 1,
        first_index: 4,
        end_index: 19,
        subject_tokens: vec![Bytes::from_static(token), Bytes::from_static(b"t")],
        ..LedgerRead::default()
    };
    let sum = |calls, rows, (first_index, end_index), (first, last)| LedgerRead {
        reader: "auditor".to_owned(),
        rows,
        kind: ReadKind::Events.into(),
        calls,
        first_index,
        end_index,
        first_at: at(first),
        last_at: at(last),
        ..LedgerRead::default()
    };
    for read in [
        search(b"one"),
        sum(1, 100, (0, 100), (1_772_000_000, 1_772_000_009)),
        search(b"other"),
        // A stream that goes on, and nothing that lies anywhere.
        sum(0, 50, (100, 150), (1_772_000_010, 1_772_000_011)),
        sum(1, 0, (0, 0), (1_772_000_030, 1_772_000_030)),
        LedgerRead { kind: 99, calls: 3, ..search(b"t") },
        // As the first version recorded it.
        LedgerRead { reader: "a".to_owned(), rows: 2, ..LedgerRead::default() },
    ] {
        story.tell(LEDGER, Body::LedgerRead(read))?;
    }
    story.wait(DAY);
    story.tell(RECORDER, Body::LedgerRead(sum(1, 1, (1, 2), (0, 0))))?;
    assert_eq!(
        rows(&story, Report::Readers, 1)?,
        [
            "a | ledger |  |  | 1 | 2 |  |  | 0 | 2026-03-02T08:00:00Z | 2026-03-02T08:00:00Z",
            "auditor | ledger | EVENTS |  | 2 | 150 | 0 | 149 | 0 | 2026-02-25T06:13:20Z | \
             2026-02-25T06:13:50Z",
            "auditor | ledger | QUERY | actors \"p-1\" | 2 | 14 | 4 | 18 | 3 | \
             2026-03-02T08:00:00Z | 2026-03-02T08:00:00Z",
            "auditor | ledger | 99 | actors \"p-1\" | 3 | 7 | 4 | 18 | 1 | \
             2026-03-02T08:00:00Z | 2026-03-02T08:00:00Z",
        ]
    );
    Ok(())
}

#[test]
fn values_of_a_newer_version_are_told_by_their_number() -> anyhow::Result<()> {
    let mut story = Story::open()?;
    story.access(|_, access| {
        access.purpose = 99;
        access.data = vec![wire::Data {
            categories: vec![98],
            subject_tokens: vec![Bytes::from_static(b"t")],
            ..data(DATASET)
        }];
    })?;
    let options = Options { subject: Some(b"t".to_vec()), ..options(days(0, 1)?) };
    let told = rows_of(&story, Report::Subject, &options)?;
    assert_eq!(
        told,
        ["2026-03-02T08:00:00Z | 99 | 98 | READ | STAFF | IE | grant g-1 | example-ie"]
    );
    Ok(())
}
