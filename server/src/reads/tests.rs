//! What is recorded of what was read, with a register that fails when a test wants it to.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use access_ledger_proto::event::nanos_of;
use proptest::prelude::*;
use tokio::time::{advance, sleep};

use super::*;

/// Keeps what is recorded, while it is not told to fail.
#[derive(Default)]
struct Fake {
    recorded: Mutex<Vec<wire::LedgerRead>>,
    attempts: AtomicU64,
    fails: AtomicBool,
}

/// Counts its own looks: a nanosecond each.
struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn now_nanos(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

#[tonic::async_trait]
impl Register for Fake {
    async fn record(&self, read: wire::LedgerRead) -> Result<(), String> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        // As long as a sync takes: others read meanwhile.
        sleep(Duration::from_millis(1)).await;
        if self.fails.load(Ordering::Relaxed) {
            return Err("disk is full".to_owned());
        }
        self.recorded.lock().unwrap().push(read);
        Ok(())
    }
}

impl Fake {
    fn start() -> (Arc<Self>, Reads, Keeper) {
        let fake = Arc::new(Self::default());
        let clock = Arc::new(Ticks(AtomicU64::new(1)));
        let (reads, keeper) = Reads::start(fake.clone(), clock, WINDOW);
        (fake, reads, keeper)
    }

    fn recorded(&self) -> Vec<wire::LedgerRead> {
        self.recorded.lock().unwrap().clone()
    }

    fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }

    /// Calls and rows of all records of a reader and kind.
    fn sums(&self, reader: &str, kind: ReadKind) -> (u64, u64) {
        let recorded = self.recorded();
        let own = recorded.iter().filter(|read| read.reader == reader && read.kind() == kind);
        own.fold((0, 0), |(calls, rows), read| (calls + read.calls, rows + read.rows))
    }
}

fn auditor() -> Caller {
    Caller::with_roles("auditor", &["audit"])
}

fn run(body: wire::event::Body) -> wire::EntryRun {
    let event = wire::Event { body: Some(body), ..wire::Event::default() };
    let events = vec![event.encode_to_vec().into()];
    wire::EntryRun { first_index: 0, entries: vec![Bytes::new()], events }
}

#[tokio::test(start_paused = true)]
async fn a_tail_of_many_entries_gives_one_record_a_window() {
    let (fake, reads, keeper) = Fake::start();
    let reader = reads.reader(&auditor());
    reader.began(ReadKind::Events);
    for run in 0..60_000 {
        reader.streamed(ReadKind::Events, Sent::run(run * 10, 10), true);
        sleep(Duration::from_millis(1)).await;
    }
    keeper.close().await;
    assert_eq!(fake.sums("auditor", ReadKind::Events), (1, 600_000));
    let recorded = fake.recorded();
    assert!((6..=7).contains(&recorded.len()), "{} records of a minute", recorded.len());
    // What is in one record follows what is in the one before.
    for pair in recorded.windows(2) {
        assert_eq!(pair[0].end_index, pair[1].first_index);
        assert!(nanos_of(&pair[0].last_at.unwrap()) < nanos_of(&pair[1].first_at.unwrap()));
    }
    assert_eq!((recorded[0].first_index, recorded[recorded.len() - 1].end_index), (0, 600_000));
}

#[tokio::test(start_paused = true)]
async fn a_tail_that_is_sent_its_own_records_comes_to_rest() {
    let (fake, reads, keeper) = Fake::start();
    let reader = reads.reader(&auditor());
    reader.began(ReadKind::Events);
    // As a ledger that nobody else uses: each record is the next entry that the tail is sent.
    let (mut sent, mut index) = (0, 0);
    for _second in 0..86_400 {
        sleep(Duration::from_secs(1)).await;
        let recorded = fake.recorded();
        for read in recorded.iter().skip(sent) {
            let told = run(wire::event::Body::LedgerRead(read.clone()));
            let is_news = is_news(&told, "ledger");
            reader.streamed(ReadKind::Events, Sent::run(index, 1), is_news);
            index += 1;
        }
        sent = recorded.len();
    }
    assert!((24..=25).contains(&sent), "{sent} records in a day");
    keeper.close().await;
    assert_eq!(fake.sums("auditor", ReadKind::Events), (1, index));
}

#[test]
fn only_reads_and_what_the_ledger_adds_by_itself_are_no_news() {
    assert!(!is_news(&run(wire::event::Body::LedgerRead(wire::LedgerRead::default())), "ledger"));
    assert!(is_news(&run(wire::event::Body::Finding(wire::Finding::default())), "ledger"));
    // An event that was erased may have been anything.
    let erased = wire::EntryRun { events: vec![Bytes::new()], ..wire::EntryRun::default() };
    assert!(is_news(&erased, "ledger"));
}

#[tokio::test(start_paused = true)]
async fn custodians_are_recorded_once_a_day_and_sources_never() {
    let (fake, reads, keeper) = Fake::start();
    let custodian = reads.reader(&Caller::with_roles("custodian", &["custody"]));
    let both = reads.reader(&Caller::with_roles("both", &["custody", "audit"]));
    let source = reads.reader(&Caller::with_roles("payments", &["record", "authorize"]));
    for minute in 0..24 * 60 {
        for reader in [&custodian, &both, &source] {
            reader.answered(ReadKind::Entries, Sent::run(minute, 1));
        }
        sleep(Duration::from_secs(60)).await;
    }
    sleep(WINDOW).await;
    let recorded = fake.recorded();
    let of = |name: &str| recorded.iter().filter(|read| read.reader == name).count();
    assert_eq!((of("custodian"), of("both"), of("payments")), (1, 24 * 60, 0));
    keeper.close().await;
    assert_eq!(fake.sums("custodian", ReadKind::Entries), (24 * 60, 24 * 60));
}

#[tokio::test(start_paused = true)]
async fn a_search_is_answered_only_when_it_is_recorded() {
    let (fake, reads, keeper) = Fake::start();
    let reader = reads.reader(&auditor());
    let request = wire::QueryRequest {
        filter: Some(wire::Filter {
            subject_tokens: vec![Bytes::from_static(b"ab"), Bytes::from_static(b"ab")],
            ..wire::Filter::default()
        }),
        ..wire::QueryRequest::default()
    };
    let answer = wire::QueryResponse { indexed_size: 9, ..wire::QueryResponse::default() };
    let hits = || Sent::hits([7, 3, 5].into_iter());
    fake.fail(true);
    let refused = reader.searched(Question::of_query(&request), &answer, hits()).await;
    assert!(matches!(refused, Err(Refusal::ReadUnrecorded { .. })), "{refused:?}");
    fake.fail(false);
    reader.searched(Question::of_query(&request), &answer, hits()).await.unwrap();
    assert_eq!(
        fake.recorded(),
        [wire::LedgerRead {
            reader: "auditor".to_owned(),
            query: "subject_tokens 6162".to_owned(),
            rows: 3,
            result_digest: sha256(&answer.encode_to_vec()).as_bytes().to_vec().into(),
            kind: ReadKind::Query.into(),
            calls: 1,
            first_index: 3,
            end_index: 8,
            subject_tokens: vec![Bytes::from_static(b"ab")],
            ..wire::LedgerRead::default()
        }]
    );
    keeper.close().await;
    assert_eq!(fake.recorded().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_recorded_waits_in_bounded_memory_and_is_told_once() {
    let (fake, reads, keeper) = Fake::start();
    let reader = reads.reader(&auditor());
    fake.fail(true);
    for index in 0..100_000 {
        reader.answered(ReadKind::Receipt, Sent::run(index, 1));
        reader.answered(ReadKind::Proof, Sent::default());
        advance(Duration::from_millis(7)).await;
    }
    // About ten minutes: a window between attempts, for two sums.
    sleep(WINDOW).await;
    let (journal, attempts) = (reads.0.clone().unwrap(), fake.attempts.load(Ordering::Relaxed));
    assert_eq!(journal.lock().len(), 2, "a sum for each kind of read");
    assert!(attempts <= 2 * 72, "{attempts} attempts");
    assert!(fake.recorded().is_empty() && journal.unrecorded() > 0);
    fake.fail(false);
    sleep(WINDOW * 2).await;
    assert_eq!(fake.recorded().len(), 2);
    assert_eq!(fake.sums("auditor", ReadKind::Receipt), (100_000, 100_000));
    assert_eq!(fake.sums("auditor", ReadKind::Proof), (100_000, 0));
    keeper.close().await;
    assert_eq!((fake.recorded().len(), journal.unrecorded()), (2, 0));
}

/// What happens to a register.
#[derive(Clone, Debug)]
enum Step {
    Answered(usize, u64),
    Streamed(usize, u64, bool),
    Passes(u64),
    Fails(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..2_usize, 0..50_u64).prop_map(|(who, rows)| Step::Answered(who, rows)),
        (0..2_usize, 0..50_u64, any::<bool>())
            .prop_map(|(who, rows, is_news)| Step::Streamed(who, rows, is_news)),
        (0..20_000_u64).prop_map(Step::Passes),
        any::<bool>().prop_map(Step::Fails),
    ]
}

proptest! {
    #[test]
    fn the_records_add_up_to_what_was_sent(steps in prop::collection::vec(step(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (fake, reads, keeper) = Fake::start();
            let callers = ["a", "b"].map(|name| Caller::with_roles(name, &["audit"]));
            let readers = [0, 1].map(|who: usize| reads.reader(&callers[who]));
            let mut wanted = [(0, 0); 2];
            for step in steps {
                match step {
                    Step::Answered(who, rows) => {
                        readers[who].answered(ReadKind::Sources, Sent::rows(rows));
                        wanted[who] = (wanted[who].0 + 1, wanted[who].1 + rows);
                    }
                    Step::Streamed(who, rows, is_news) => {
                        readers[who].streamed(ReadKind::Sources, Sent::rows(rows), is_news);
                        wanted[who].1 += rows;
                    }
                    Step::Passes(millis) => sleep(Duration::from_millis(millis)).await,
                    Step::Fails(fails) => fake.fail(fails),
                }
            }
            fake.fail(false);
            keeper.close().await;
            for (name, wanted) in ["a", "b"].into_iter().zip(wanted) {
                assert_eq!(fake.sums(name, ReadKind::Sources), wanted);
            }
        });
    }
}
