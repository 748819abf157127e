//! The patrol: reads again, all the time, what the ledger serves of the entries that the copy
//! holds, and compares it byte by byte with the copy.
//!
//! Following reads every entry once; what a ledger loses or alters afterwards only shows to who
//! reads again. The patrol goes from entry 0 to the newest checkpoint that the copy holds, at a
//! bounded rate, and begins again. A round over a small ledger takes less than a second.
//!
//! | served | alarm |
//! |---|---|
//! | another entry or event than the copy has | DAMAGED, with both as evidence |
//! | nothing, although the ledger signed for it | WITHHELD |
//! | no event, where the copy has one for longer than [`PatrolOptions::record_grace`] | WITHHELD |
//! | an event that the copy has erased longer ago than [`PatrolOptions::erasure_grace`] | NOT_ERASED, without the event |
//!
//! | nothing for longer than [`PatrolOptions::answer_grace`], though it answers other questions | WITHHELD |
//!
//! The copy erases what a lawful redaction in the log covers, and nothing else; so an event that is
//! erased on one side alone was either erased without a record or not erased in spite of one. But
//! the copy may be behind with that, as after a restart: nothing counts as missing before all that
//! the ledger had signed when it was found so is held and carried out here, and everything is
//! looked at again before it is told (again.rs).
//!
//! A ledger that shows another history serves other bytes everywhere. That is for the follower to
//! tell, once: before a round raises anything, the ledger is asked whether it stands by the
//! checkpoint. Where it does not, and the follower has not been shown that, the patrol tells.
//!
//! What a round finds in order again ends the alarm. A ledger that cannot be reached is no matter
//! of the patrol: the vigil tells of that.

mod again;
mod compare;
mod pace;
mod waiting;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use access_ledger_client::{
    evidence::{Caught, compare_held},
    pull::{PullError, Puller, Run},
    verify::{Record, Scope},
    view::{check_consistency, compare},
};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    error::CheckpointError,
    note::VerifierKey,
    position::{Index, Size, count_of},
};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{Instrument as _, debug, debug_span, error};

pub use self::pace::{PACE_BYTES, PACE_ENTRIES};
use self::{
    again::Overdue,
    compare::{Compared, Comparison},
    pace::Pace,
    waiting::Waiting,
};
use super::{
    alarms::{Alarm, AlarmKind, Alarms, Place},
    timing::nanos,
};
use crate::{
    os::Clock,
    storage::{LogReader, TreeFiles},
};

/// How the patrol goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatrolOptions {
    /// Bytes of entries and events that are read a second, at most.
    pub bytes_per_second: u32,
    /// From the beginning of a round to that of the next, at least.
    pub round: Duration,
    /// How long an event that the copy has erased may still be served.
    pub erasure_grace: Duration,
    /// How long an event may be missing that the copy has not erased: its redaction may be on its
    /// way here.
    pub record_grace: Duration,
    /// How long the ledger may keep the next [`PACE_ENTRIES`] entries waiting, or the next
    /// [`PACE_BYTES`] bytes of them, time for nothing else counted.
    pub answer_grace: Duration,
}

impl Default for PatrolOptions {
    fn default() -> Self {
        Self {
            bytes_per_second: 4 << 20,
            round: Duration::from_millis(300),
            erasure_grace: Duration::from_secs(600),
            record_grace: Duration::from_secs(60),
            answer_grace: Duration::from_secs(60),
        }
    }
}

/// What the patrol needs of the custodian.
pub struct Beat {
    /// Asks the ledger.
    pub puller: Puller,
    /// The ledger's key.
    pub ledger: VerifierKey,
    /// The copy.
    pub reader: LogReader,
    /// The tree over it.
    pub tree: TreeFiles,
    /// The newest checkpoint that the copy holds.
    pub signed: watch::Receiver<Option<Arc<VerifiedCheckpoint>>>,
    /// Where to tell.
    pub alarms: Arc<Alarms>,
    /// The own clock.
    pub clock: Arc<dyn Clock>,
    /// Up to when, by that clock in nanoseconds, all that the ledger had signed is held in the
    /// copy, and erased where it asks for that. Blocks.
    pub accounted: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Opens a checkpoint of the ledger, as who follows it does.
    pub open: Arc<Open>,
    /// Whom to tell of another history that the ledger shows.
    pub convict: Arc<dyn Fn(Caught) + Send + Sync>,
}

/// Opens a checkpoint: its note, or what is wrong with it.
pub type Open = dyn Fn(&[u8]) -> Result<VerifiedCheckpoint, CheckpointError> + Send + Sync;

/// Goes round after round, for ever.
pub async fn patrol(beat: Beat, options: PatrolOptions) {
    let (missing, served) = (Waiting::default(), Waiting::default());
    let mut patrol = Patrol { beat, options, missing, served, accounted: 0 };
    loop {
        let next = Instant::now() + options.round;
        let signed = match patrol.beat.signed.wait_for(Option::is_some).await {
            Ok(signed) => signed.clone(),
            // Nobody follows any more.
            Err(_) => return,
        };
        if let Some(signed) = signed {
            let span = debug_span!("patrol", size = signed.size().0);
            patrol.round(&signed).instrument(span).await;
        }
        sleep_until(next).await;
    }
}

struct Patrol {
    beat: Beat,
    options: PatrolOptions,
    /// Events that the ledger does not serve and the copy has.
    missing: Waiting,
    /// Events that the ledger serves and the copy has erased.
    served: Waiting,
    /// As told last by [`Beat::accounted`].
    accounted: u64,
}

/// The entries that a round found something about, by kind of alarm.
#[derive(Default)]
struct Found {
    places: BTreeSet<(AlarmKind, Index)>,
    /// More than the round remembers: nothing can be said about what is in order again.
    is_full: bool,
    /// The ledger was asked, and does not contradict the checkpoint.
    stands: bool,
    pace: Pace,
    /// Part of the own copy could not be read.
    own_fails: bool,
}

impl Patrol {
    /// Compares everything under one checkpoint.
    async fn round(&mut self, signed: &Arc<VerifiedCheckpoint>) {
        let (mut next, end) = (Index::GENESIS, signed.size());
        let mut found = Found::default();
        while end.contains(next) {
            match self.walk(next, signed, &mut found).await {
                Ok(()) => break,
                Err(Stop::At { index, again_at }) => {
                    debug!(%index, "patrol goes on");
                    next = again_at;
                    if again_at == index {
                        sleep(AGAIN_DELAY).await;
                        found.pace.waited(AGAIN_DELAY);
                    }
                }
                Err(Stop::Another(caught)) => {
                    // The follower asks every few seconds, and knows best.
                    sleep(FOLLOWER_TIME).await;
                    let convict = Arc::clone(&self.beat.convict);
                    if spawn_blocking(move || convict(*caught)).await.is_err() {
                        error!("telling of another history panicked");
                    }
                    return;
                }
            }
        }
        if found.own_fails {
            sleep(AGAIN_DELAY).await;
        }
        self.tell_overdue(signed, &mut found).await;
        self.settle(signed.size(), &found).await;
        self.missing.end_round();
        self.served.end_round();
    }

    /// Compares from `first` on, up to the end or to what stops it.
    async fn walk(
        &mut self,
        first: Index,
        signed: &Arc<VerifiedCheckpoint>,
        found: &mut Found,
    ) -> Result<(), Stop> {
        let mut records = self.beat.puller.records(first, signed.size(), Scope::Events);
        let mut next = first;
        loop {
            let asked = Instant::now();
            let left = found.pace.left(self.options.answer_grace);
            let run = timeout(left, records.next()).await;
            let begun = Instant::now();
            found.pace.waited(begun - asked);
            let Ok(run) = run else { return self.kept_waiting(next, signed, found).await };
            let Some(run) = run else { return Ok(()) };
            let run = match run {
                Ok(run) => run,
                Err(PullError::Withheld { index, problem, .. }) => {
                    self.expect_stands(signed, found).await?;
                    self.withheld(index, problem, signed, found).await;
                    return Err(Stop::At { index, again_at: index.next() });
                }
                // Its answer fits no question: as good as none.
                Err(PullError::Answer { problem }) => {
                    self.expect_stands(signed, found).await?;
                    self.withheld(next, problem, signed, found).await;
                    return Err(Stop::At { index: next, again_at: next.next() });
                }
                Err(problem) => {
                    debug!(%problem, index = next.0, "patrol could not ask the ledger");
                    if !self.answers().await {
                        found.pace.begin();
                    }
                    return Err(Stop::At { index: next, again_at: next });
                }
            };
            next = run.0.plus(count_of(run.1.len()));
            let bytes = length(&run.1);
            found.pace.got(run.1.len(), bytes);
            let spent = budget(bytes, self.options.bytes_per_second);
            self.compare(run, signed, found).await?;
            sleep_until(begun + spent).await;
        }
    }

    /// Whether the ledger answers another question.
    async fn answers(&self) -> bool {
        let (runtime, puller) = (Handle::current(), self.beat.puller.clone());
        let ask = move || runtime.block_on(puller.checkpoint()).is_ok();
        spawn_blocking(ask).await.unwrap_or_default()
    }

    /// The next entries were waited for too long: they are withheld, if the ledger answers at all.
    async fn kept_waiting(
        &self,
        index: Index,
        signed: &Arc<VerifiedCheckpoint>,
        found: &mut Found,
    ) -> Result<(), Stop> {
        found.pace.begin();
        if !self.answers().await {
            return Err(Stop::At { index, again_at: index });
        }
        self.expect_stands(signed, found).await?;
        let problem = format!("no answer for {:?}", self.options.answer_grace);
        self.withheld(index, problem, signed, found).await;
        Err(Stop::At { index, again_at: index.next() })
    }

    /// What there is to say about a run; `None` when the own copy cannot be read.
    async fn compared(
        &mut self,
        run: Run,
        signed: &Arc<VerifiedCheckpoint>,
        found: &mut Found,
    ) -> Option<Compared> {
        let comparison = Comparison {
            reader: self.beat.reader.clone(),
            tree: self.beat.tree.clone(),
            signed: Arc::clone(signed),
        };
        let accounted = Arc::clone(&self.beat.accounted);
        let compare = move || (comparison.of(run), accounted());
        let failed = match spawn_blocking(compare).await {
            Ok((Ok(compared), accounted)) => {
                self.accounted = accounted;
                return Some(compared);
            }
            Ok((Err(problem), _)) => Some(problem),
            Err(_) => None,
        };
        // What else is served is compared all the same.
        if let (Some(problem), false) = (failed, found.own_fails) {
            error!(%problem, "patrol could not read its own copy");
        }
        (found.own_fails, found.is_full) = (true, true);
        None
    }

    async fn compare(
        &mut self,
        run: Run,
        signed: &Arc<VerifiedCheckpoint>,
        found: &mut Found,
    ) -> Result<(), Stop> {
        let Some(compared) = self.compared(run, signed, found).await else { return Ok(()) };
        let now = self.beat.clock.now_nanos();
        let Compared { altered, missing, served, erased } = compared;
        if !altered.is_empty() {
            self.expect_stands(signed, found).await?;
        }
        for caught in altered {
            self.raise(Alarm::of_caught(&caught, &self.beat.ledger), found).await;
        }
        missing.into_iter().for_each(|index| self.missing.note(index, now));
        served.into_iter().for_each(|index| self.served.note(index, now));
        for range in erased {
            let alarms = self.beat.alarms.clone();
            on_disk(move || alarms.forget_evidence(*range.start(), *range.end())).await;
        }
        Ok(())
    }

    /// That the ledger does not contradict the checkpoint, as far as it tells: once a round.
    async fn expect_stands(
        &self,
        signed: &VerifiedCheckpoint,
        found: &mut Found,
    ) -> Result<(), Stop> {
        if !found.stands {
            let (puller, open) = (self.beat.puller.clone(), self.beat.open.clone());
            let (runtime, signed) = (Handle::current(), signed.clone());
            let tree = self.beat.tree.clone();
            let ask = move || another_history(&runtime, &puller, &*open, &signed, &tree);
            if let Some(caught) = spawn_blocking(ask).await.unwrap_or_default() {
                return Err(Stop::Another(Box::new(caught)));
            }
        }
        found.stands = true;
        Ok(())
    }

    /// Raises the alarms about what is so for too long, and is so still.
    async fn tell_overdue(&mut self, signed: &Arc<VerifiedCheckpoint>, found: &mut Found) {
        let now = self.beat.clock.now_nanos();
        let before = |grace| now.saturating_sub(nanos(grace));
        let PatrolOptions { record_grace, erasure_grace, .. } = self.options;
        let missing = self.missing.due(before(record_grace).min(self.accounted));
        let overdue = Overdue { missing, served: self.served.due(before(erasure_grace)) };
        let Overdue { missing, served } = self.look_again(overdue, signed, found).await;
        for index in missing {
            let message =
                format!("event {index} is not served, and no redaction in force accounts for it");
            self.raise(self.alarm(AlarmKind::Withheld, index, signed, message), found).await;
        }
        for index in served {
            let message = format!("event {index} was redacted, and its bytes are still served");
            self.raise(self.alarm(AlarmKind::NotErased, index, signed, message), found).await;
        }
    }

    async fn withheld(
        &self,
        index: Index,
        problem: String,
        signed: &Arc<VerifiedCheckpoint>,
        found: &mut Found,
    ) {
        let served = Box::new((**signed).clone());
        let caught = Caught::Withheld { index, problem, served };
        self.raise(Alarm::of_caught(&caught, &self.beat.ledger), found).await;
    }

    fn alarm(
        &self,
        kind: AlarmKind,
        index: Index,
        signed: &VerifiedCheckpoint,
        message: String,
    ) -> Alarm {
        Alarm::new(kind, self.beat.ledger.name(), signed.size(), message).at(index)
    }

    async fn raise(&self, alarm: Alarm, found: &mut Found) {
        if let Some(index) = alarm.index {
            found.note(alarm.kind, index);
        }
        let alarms = self.beat.alarms.clone();
        // New, or known.
        on_disk(move || drop(alarms.raise(alarm))).await;
    }

    /// Ends the alarms about what this round found in order again. What lies at `end` or beyond, it
    /// has not looked at: the follower tells of that.
    async fn settle(&self, end: Size, found: &Found) {
        if found.is_full {
            return;
        }
        let origin = self.beat.ledger.name();
        for kind in [AlarmKind::Damaged, AlarmKind::Withheld, AlarmKind::NotErased] {
            for place in self.beat.alarms.places(kind, origin) {
                let Place::Index(index) = place else { continue };
                let waits = match kind {
                    AlarmKind::Withheld => self.missing.holds(index),
                    AlarmKind::NotErased => self.served.holds(index),
                    _ => false,
                };
                if end.contains(index) && !waits && !found.places.contains(&(kind, index)) {
                    let (alarms, origin) = (self.beat.alarms.clone(), origin.to_owned());
                    let by = "the ledger serves what it should again";
                    on_disk(move || {
                        let _lasted = alarms.end(kind, &origin, place, by);
                    })
                    .await;
                }
            }
        }
    }
}

/// Has files written and synced, which a thread that serves must not wait for.
async fn on_disk(work: impl FnOnce() + Send + 'static) {
    spawn_blocking(work).await.unwrap_or_else(|error| error!(%error, "an alarm was not kept"));
}

/// What convicts the ledger of another history than the copy's, if it signs that and shows it.
/// Without such an answer nothing does, and what is found is raised. Blocks.
fn another_history(
    runtime: &Handle,
    puller: &Puller,
    open: &Open,
    signed: &VerifiedCheckpoint,
    tree: &TreeFiles,
) -> Option<Caught> {
    let note = runtime.block_on(puller.checkpoint()).ok()?;
    let served = open(&note).ok()?;
    match compare(signed, &served) {
        // As the follower says it.
        Err(caught) => Some(compare_held(signed, &served, tree).ok().flatten().unwrap_or(caught)),
        Ok(None) => None,
        Ok(Some((old, new))) => {
            let path = runtime.block_on(puller.consistency_path(old, new)).ok()?;
            check_consistency(signed, &served, path).err().filter(Caught::leads_elsewhere)
        }
    }
}

/// Why a walk ended before its end.
enum Stop {
    /// Something about an entry: where to go on.
    At { index: Index, again_at: Index },
    /// The ledger shows another history.
    Another(Box<Caught>),
}

impl Found {
    fn note(&mut self, kind: AlarmKind, index: Index) {
        if self.places.len() < FOUND_MAX {
            self.places.insert((kind, index));
        } else {
            self.is_full = true;
        }
    }
}

/// Bytes of entries and events.
fn length(records: &[Record]) -> usize {
    let event = |record: &Record| record.event.as_ref().map_or(0, bytes::Bytes::len);
    records.iter().map(|record| record.entry.len() + event(record)).sum()
}

/// How long so many bytes must take.
fn budget(bytes: usize, bytes_per_second: u32) -> Duration {
    let nanos = count_of(bytes).saturating_mul(1_000_000_000) / u64::from(bytes_per_second.max(1));
    Duration::from_nanos(nanos)
}

/// Before the same is asked again.
const AGAIN_DELAY: Duration = Duration::from_secs(1);

/// Within which the follower has asked the ledger, too.
const FOLLOWER_TIME: Duration = Duration::from_secs(5);

/// Places that a round remembers.
const FOUND_MAX: usize = 10_000;
