//! The pulse of a source: entries that say nothing but that it lives, so that its silence means
//! something.
//!
//! A source that was registered with a heartbeat interval is found silent
//! (`SOURCE_SILENT`) where the log goes on for longer than that without an entry of it. So a
//! recorder whose source has one records STARTED when it starts, a HEARTBEAT whenever nothing was
//! accepted for half the interval, and STOPPED when it is closed; one that is killed says nothing,
//! and is found.
//!
//! What is promised holds while the ledger records within half an interval. At most one heartbeat
//! waits for its receipt, so that an outage of the ledger fills neither memory nor spool with them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use access_ledger_proto::{
    facts::sources::heartbeat_nanos,
    hash::{Digest, sha256},
    source::SourceName,
    wire::{self, SourcePhase},
};
use bytes::Bytes;
use prost::Message as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Ticket, complete,
    shared::{Shared, Urgency},
};
use crate::error::RecorderError;

/// How often the source must be heard, and when it was.
#[derive(Debug)]
pub(super) struct Rhythm {
    /// Silence that the source allows itself; zero: as long as it likes. `None` until the ledger
    /// tells.
    interval: watch::Sender<Option<Duration>>,
    /// SHA-256 of the build that runs, for STARTED.
    build: Option<Digest>,
    began: Instant,
    /// When the last event was accepted: nanoseconds since `began`.
    heard: AtomicU64,
}

impl Rhythm {
    pub(super) fn new(interval: Option<Duration>, build: Option<Digest>) -> Self {
        Self {
            interval: watch::Sender::new(interval),
            build,
            began: Instant::now(),
            heard: AtomicU64::new(0),
        }
    }

    /// The interval that the ledger says the source was registered with; one that is known stays.
    pub(super) fn learn(&self, state: &wire::GetSourceStateResponse) {
        let told = Duration::from_nanos(heartbeat_nanos(state.heartbeat_interval.as_ref()));
        self.interval.send_if_modified(|interval| {
            let learns = interval.is_none();
            interval.get_or_insert(told);
            learns
        });
    }

    /// An event was accepted.
    pub(super) fn hear(&self) {
        let nanos = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.heard.fetch_max(nanos, Ordering::Relaxed);
    }

    /// Whether the source tells when it starts and stops; not before the ledger has told how often
    /// it must be heard.
    pub(super) fn tells(&self) -> bool {
        self.build.is_some() || self.interval.borrow().is_some_and(|interval| !interval.is_zero())
    }

    /// Half an interval after the last event was accepted.
    fn due(&self, interval: Duration) -> Instant {
        let heard = Duration::from_nanos(self.heard.load(Ordering::Relaxed));
        self.began + heard + interval / 2
    }

    /// How often the source must be heard; `None` when it need not be.
    async fn interval(&self) -> Option<Duration> {
        let mut interval = self.interval.subscribe();
        let known = *interval.wait_for(Option::is_some).await.ok()?;
        known.filter(|interval| !interval.is_zero()).map(|interval| interval.max(INTERVAL_MIN))
    }
}

/// Keeps the source heard until the recorder ends. `told` says whether STARTED was recorded.
pub(super) async fn beat(shared: Arc<Shared>, source: SourceName, told: bool) {
    let Some(interval) = shared.rhythm.interval().await else { return };
    let mut phase = if told { SourcePhase::Heartbeat } else { SourcePhase::Started };
    let failure = loop {
        if phase == SourcePhase::Heartbeat {
            sleep_until(shared.rhythm.due(interval)).await;
            if shared.rhythm.due(interval) > Instant::now() {
                continue;
            }
        }
        match try_say(&shared, &source, phase) {
            // What fills the recorder will be heard.
            Err(RecorderError::Full { .. }) => sleep(interval / 4).await,
            Err(failure) => break failure,
            Ok(ticket) => match shared.wait(|progress| progress.settled >= ticket.seq()).await {
                Ok(()) => phase = SourcePhase::Heartbeat,
                Err(failure) => break failure,
            },
        }
    };
    tracing::debug!(%failure, source = source.as_str(), "heartbeats ended");
}

/// What the source says of itself.
pub(super) fn status(rhythm: &Rhythm, source: &SourceName, phase: SourcePhase) -> wire::Event {
    let build = rhythm.build.filter(|_| phase == SourcePhase::Started);
    let status = wire::SourceStatus {
        phase: phase.into(),
        source: source.as_str().to_owned(),
        build_digest: build.map_or_else(Bytes::new, |build| Bytes::copy_from_slice(build.as_ref())),
        ..wire::SourceStatus::default()
    };
    wire::Event { body: Some(wire::event::Body::SourceStatus(status)), ..wire::Event::default() }
}

/// Says that the source stops, as the last event of a recorder that takes no others any more.
pub(super) async fn stop(shared: &Shared, source: &SourceName) -> Result<(), RecorderError> {
    let event = complete(status(&shared.rhythm, source, SourcePhase::Stopped))?;
    let event = Bytes::from(event.encode_to_vec());
    shared.reserve(&event).await?;
    let digest = sha256(&event);
    shared.push(event, digest, Urgency::Last).map(drop)
}

fn try_say(
    shared: &Shared,
    source: &SourceName,
    phase: SourcePhase,
) -> Result<Ticket, RecorderError> {
    let event = complete(status(&shared.rhythm, source, phase))?;
    let event = Bytes::from(event.encode_to_vec());
    let digest = sha256(&event);
    shared.try_reserve(&event)?;
    shared.push(event, digest, Urgency::Gathers)
}

/// A shorter interval would be lost in the time that recording takes.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
