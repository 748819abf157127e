//! The driver: the task that sends batches over one stream, judges the answers in order, and sets
//! things right when the stream breaks.
//!
//! An unanswered batch is repeated as it is, so that the ledger can tell it from another one. Only
//! when the ledger says that it stands elsewhere are events cut anew: after those that it already
//! holds were found in it, and proven to be ours.

use std::{collections::VecDeque, fmt, future::pending, mem, pin::Pin, sync::Arc, time::Duration};

use access_ledger_proto::{
    position::memory_len,
    wire::{
        self, audit_service_client::AuditServiceClient, get_receipt_request::Entry,
        recorder_service_client::RecorderServiceClient,
    },
};
use bytes::Bytes;
use futures_util::stream;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::{Code, Response, Status, Streaming};
use tonic_types::StatusExt as _;

use super::{
    batch::{Batch, Notary, Place, evidence},
    shared::{Cut, Shared},
};
use crate::{
    authorize::intent_id,
    backoff::{Backoff, asked_delay, is_transient},
    connect::Link,
    error::{EvidenceFault, RecorderError},
    spool::Numbered,
};

/// How the driver deals with time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) batch_delay: Duration,
    pub(super) in_flight_max: usize,
    pub(super) backoff_min: Duration,
    pub(super) backoff_max: Duration,
    pub(super) deadline: Duration,
}

impl Pace {
    pub(super) const fn backoff(&self) -> Backoff {
        Backoff::new(self.backoff_min, self.backoff_max)
    }
}

/// What to do instead of ending, when an answer of the ledger would end the recorder.
#[derive(Clone)]
pub(super) struct Persistence {
    /// Ask again after that long.
    pub(super) delay: Duration,
    /// Whom to tell what the ledger answered, and `Ok` when it takes events (again).
    pub(super) told: Arc<Told>,
}

type Told = dyn Fn(Result<(), &RecorderError>) + Send + Sync;

impl fmt::Debug for Persistence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Persistence").field("delay", &self.delay).finish_non_exhaustive()
    }
}

impl Persistence {
    /// Whether there is hope in spite of this error: the ledger may answer something else later.
    /// Tells of it then.
    pub(super) fn outlasts(&self, error: &RecorderError) -> bool {
        let is_answer = matches!(
            error,
            RecorderError::Origin { .. }
                | RecorderError::Key { .. }
                | RecorderError::Refused(_)
                | RecorderError::Evidence { .. }
                | RecorderError::Lost { .. }
                | RecorderError::Reused { .. }
        );
        if is_answer {
            (self.told)(Err(error));
        }
        is_answer
    }
}

/// Two calls of the ledger, each with a deadline.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    pub(super) recorder: RecorderServiceClient<Link>,
    pub(super) audit: AuditServiceClient<Link>,
    pub(super) deadline: Duration,
}

#[derive(Debug)]
pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) ledger: Ledger,
    pub(super) notary: Notary,
    pub(super) pace: Pace,
    /// Ask where the source stands before anything is sent.
    pub(super) resync: bool,
    pub(super) backoff: Backoff,
    /// Sent and not answered, oldest first.
    pub(super) in_flight: VecDeque<Batch>,
    /// None: such an answer ends the recorder.
    pub(super) persistence: Option<Persistence>,
    /// Nobody was told yet that the ledger takes events (again).
    pub(super) is_untold: bool,
}

/// Why sending stopped.
#[derive(Debug)]
pub(super) enum Interrupt {
    /// Repeat the same, after this delay if the ledger asked for one.
    Retry(Option<Duration>),
    /// Ask where the source stands.
    Resync,
    /// Repeating would not help.
    Fatal(RecorderError),
}

impl Driver {
    /// Runs until the recorder fails or is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let interrupt = match self.attempt().await {
                Ok(()) => continue,
                Err(interrupt) => interrupt,
            };
            let asked = match interrupt {
                Interrupt::Fatal(error) => {
                    if let Some(persistence) = &self.persistence
                        && persistence.outlasts(&error)
                    {
                        (self.resync, self.is_untold) = (true, true);
                        sleep(persistence.delay).await;
                        continue;
                    }
                    tracing::error!(%error, "recorder failed");
                    self.shared.fail(error);
                    return;
                }
                Interrupt::Resync => {
                    self.resync = true;
                    None
                }
                Interrupt::Retry(asked) => asked,
            };
            let delay = self.backoff.next(asked);
            tracing::debug!(?delay, in_flight = self.in_flight.len(), "sending was interrupted");
            sleep(delay).await;
        }
    }

    async fn attempt(&mut self) -> Result<(), Interrupt> {
        if self.resync {
            self.resynchronise().await?;
            self.resync = false;
            return Ok(());
        }
        while self.in_flight.is_empty() && !self.shared.has_ready() {
            self.shared.wait_ready().await;
        }
        self.send().await
    }

    /// Opens a stream, repeats what was not answered, and goes on from there.
    async fn send(&mut self) -> Result<(), Interrupt> {
        let (requests, waiting) = mpsc::channel(self.pace.in_flight_max);
        let mut answers = Answers::open(self.ledger.recorder.clone(), waiting);
        for batch in &self.in_flight {
            enqueue(&requests, batch.request(&self.notary.source))?;
        }
        let mut answered = Instant::now();
        let mut gathered = None;
        loop {
            if self.in_flight.is_empty() {
                answered = Instant::now();
            }
            self.fill(&requests, &mut gathered)?;
            let overdue = (!self.in_flight.is_empty()).then(|| answered + self.pace.deadline);
            let wake = [gathered, overdue].into_iter().flatten().min();
            tokio::select! {
                answer = answers.next() => {
                    self.accept(&answer.map_err(classify)?)?;
                    answered = Instant::now();
                }
                () = self.shared.wait_ready() => {}
                () = sleep_maybe(wake) => {
                    if overdue.is_some_and(|overdue| overdue <= Instant::now()) {
                        tracing::warn!(waited = ?self.pace.deadline, "ledger did not answer");
                        return Err(Interrupt::Retry(None));
                    }
                }
            }
        }
    }

    /// Sends what is due, and says in `gathered` when what is not will be.
    ///
    /// While nothing is in flight, everything is due: waiting would gain nothing.
    fn fill(
        &mut self,
        requests: &mpsc::Sender<wire::AppendRequest>,
        gathered: &mut Option<Instant>,
    ) -> Result<(), Interrupt> {
        while self.in_flight.len() < self.pace.in_flight_max {
            let waited = gathered.is_some_and(|at| at <= Instant::now());
            let events = match self.shared.cut(waited || self.in_flight.is_empty()) {
                Cut::Events(events) => events,
                Cut::Gather => {
                    gathered.get_or_insert_with(|| Instant::now() + self.pace.batch_delay);
                    return Ok(());
                }
                Cut::Nothing => break,
            };
            *gathered = None;
            let batch = self.notary.seal(events).map_err(RecorderError::from)?;
            let request = batch.request(&self.notary.source);
            self.in_flight.push_back(batch);
            enqueue(requests, request)?;
        }
        *gathered = None;
        Ok(())
    }

    /// Judges the answer to the oldest batch in flight.
    fn accept(&mut self, answer: &wire::AppendResponse) -> Result<(), Interrupt> {
        let Some(batch) = self.in_flight.front() else {
            return Err(evidence(0, EvidenceFault::Unasked, answer).into());
        };
        let mut place = self.notary.judge(batch, answer.receipt.as_ref())?;
        if let Some(own) = self.shared.own_source.get() {
            Notary::judge_verdicts(batch, &mut place, own, answer)?;
        }
        let events = self.in_flight.pop_front().map_or_else(Vec::new, |batch| batch.events);
        self.settle(place, &events);
        Ok(())
    }

    fn settle(&mut self, place: Place, events: &[Numbered]) {
        self.shared.settle(place, events);
        self.backoff.reset();
        if let Some(persistence) = &self.persistence
            && mem::take(&mut self.is_untold)
        {
            (persistence.told)(Ok(()));
        }
    }

    /// Finds the events that the ledger already holds, proves that they are ours, and leaves the
    /// others to be cut anew.
    async fn resynchronise(&mut self) -> Result<(), Interrupt> {
        let unanswered = mem::take(&mut self.in_flight);
        self.shared.uncut(unanswered.into_iter().flat_map(|batch| batch.events).collect());
        let state = self.ledger.source_state(&self.notary).await?;
        self.shared.rhythm.learn(&state);
        let (given, settled) = self.shared.numbers();
        if state.last_seq < settled {
            let (found, wanted) = (state.last_seq, settled);
            return Err(RecorderError::Lost { found, wanted }.into());
        }
        if state.last_seq > given {
            return Err(RecorderError::Reused { seq: given + 1, index: None }.into());
        }
        while self.shared.unsettled() > 0 {
            let Some(first) = self.shared.front(1).into_iter().next() else {
                // The keeper has still to read it.
                self.shared.wait_ready().await;
                continue;
            };
            if first.seq > state.last_seq {
                break;
            }
            let found = self.ledger.receipt(&self.notary, first.seq).await?;
            let mut place = self.notary.judge_found(&first, &found)?;
            // Where all of the batch is ours to see, its receipt proves all of it at once.
            let count = memory_len(u64::from(found.count)).unwrap_or_default();
            let events = self.shared.front(count);
            if found.first_seq == first.seq && count > 0 && events.len() == count {
                place = self.judge_whole(events, &found).await?;
            }
            let events = self.shared.take_front(place.last_seq);
            self.settle(place, &events);
        }
        Ok(())
    }
}

impl Driver {
    /// Judges what the ledger holds as a batch of these events, with the verdicts on its intents.
    async fn judge_whole(
        &mut self,
        events: Vec<Numbered>,
        found: &wire::GetReceiptResponse,
    ) -> Result<Place, Interrupt> {
        let has_intent = events.iter().any(|numbered| intent_id(&numbered.event).is_some());
        let batch = self.notary.seal(events).map_err(RecorderError::from)?;
        let own = self.shared.own_source.get().filter(|_| has_intent);
        let Some(own) = own else {
            return self.notary.judge(&batch, found.receipt.as_ref());
        };
        // Verdicts come with the answer to the batch, however often it is sent.
        let answer = self.ledger.append(batch.request(&self.notary.source)).await?;
        let mut place = self.notary.judge(&batch, answer.receipt.as_ref())?;
        Notary::judge_verdicts(&batch, &mut place, own, &answer)?;
        Ok(place)
    }
}

impl Ledger {
    async fn append(
        &self,
        request: wire::AppendRequest,
    ) -> Result<wire::AppendResponse, Interrupt> {
        let mut client = self.recorder.clone();
        let call = client.append(request);
        self.answer(call).await?.map_err(classify)
    }

    /// Where the source stands, from the ledger and for the key that are meant.
    pub(super) async fn source_state(
        &self,
        notary: &Notary,
    ) -> Result<wire::GetSourceStateResponse, Interrupt> {
        let mut client = self.recorder.clone();
        let source = notary.source.as_str().to_owned();
        let call = client.get_source_state(wire::GetSourceStateRequest { source });
        let state = self.answer(call).await?.map_err(classify)?;
        if state.origin != notary.receipts.ledger().name() {
            let wanted = notary.receipts.ledger().name().to_owned();
            return Err(RecorderError::Origin { found: state.origin, wanted }.into());
        }
        let wanted = notary.key.verifier().id();
        if *state.key_id != wanted.0 {
            return Err(RecorderError::Key { found: state.key_id, wanted }.into());
        }
        Ok(state)
    }

    async fn receipt(
        &self,
        notary: &Notary,
        seq: u64,
    ) -> Result<wire::GetReceiptResponse, Interrupt> {
        let source = notary.source.as_str().to_owned();
        self.found(Entry::Position(wire::SourcePosition { source, seq })).await
    }

    /// Entry 0 with its proof, and its event; nobody has verified them. Repeats the calls until
    /// they are answered.
    pub(super) async fn genesis(
        &self,
        mut backoff: Backoff,
    ) -> Result<(wire::GetReceiptResponse, Bytes), RecorderError> {
        loop {
            let asked = match self.try_genesis().await {
                Ok(genesis) => return Ok(genesis),
                Err(Interrupt::Fatal(error)) => return Err(error),
                Err(Interrupt::Retry(asked)) => asked,
                Err(Interrupt::Resync) => None,
            };
            sleep(backoff.next(asked)).await;
        }
    }

    async fn try_genesis(&self) -> Result<(wire::GetReceiptResponse, Bytes), Interrupt> {
        let proof = self.found(Entry::Index(0)).await?;
        let request = wire::ReadEntriesRequest { first_index: 0, end_index: 1, with_events: true };
        let mut client = self.audit.clone();
        let mut runs = self.answer(client.read_entries(request)).await?.map_err(classify)?;
        let run = timeout(self.deadline, runs.message()).await;
        let run = run.map_err(|_| Interrupt::Retry(None))?.map_err(classify)?;
        let events = run.and_then(|answer| answer.run).unwrap_or_default().events;
        Ok((proof, events.into_iter().next().unwrap_or_default()))
    }

    async fn found(&self, entry: Entry) -> Result<wire::GetReceiptResponse, Interrupt> {
        let mut client = self.audit.clone();
        let call = client.get_receipt(wire::GetReceiptRequest { entry: Some(entry) });
        self.answer(call).await?.map_err(|status| match status.code() {
            // The ledger has told of this entry; what reads it may lag behind.
            Code::NotFound | Code::OutOfRange => Interrupt::Retry(None),
            _ => classify(status),
        })
    }

    async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Result<T, Status>, Interrupt> {
        let answer = timeout(self.deadline, call).await.map_err(|_| Interrupt::Retry(None))?;
        Ok(answer.map(Response::into_inner))
    }
}

impl From<RecorderError> for Interrupt {
    fn from(error: RecorderError) -> Self {
        Self::Fatal(error)
    }
}

/// The answers of a stream that may still be opening. Dropping [`Answers::next`] loses nothing.
enum Answers {
    Opening(Pin<Box<dyn Future<Output = Opened> + Send>>),
    Open(Box<Streaming<wire::AppendResponse>>),
}

type Opened = Result<Response<Streaming<wire::AppendResponse>>, Status>;

impl Answers {
    fn open(
        mut client: RecorderServiceClient<Link>,
        mut requests: mpsc::Receiver<wire::AppendRequest>,
    ) -> Self {
        let requests = stream::poll_fn(move |context| requests.poll_recv(context));
        Self::Opening(Box::pin(async move { client.append_stream(requests).await }))
    }

    async fn next(&mut self) -> Result<wire::AppendResponse, Status> {
        if let Self::Opening(opening) = self {
            let opened = opening.await?;
            *self = Self::Open(Box::new(opened.into_inner()));
        }
        match self {
            Self::Open(answers) => {
                let answer = answers.message().await?;
                answer.ok_or_else(|| Status::unavailable("stream ended"))
            }
            Self::Opening(_) => pending().await,
        }
    }
}

/// Puts a request on its way. The channel holds as many as may be in flight, so only a broken
/// stream refuses one; its answer says why, and the batch is repeated.
fn enqueue(
    requests: &mpsc::Sender<wire::AppendRequest>,
    request: wire::AppendRequest,
) -> Result<(), Interrupt> {
    match requests.try_send(request) {
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        Err(mpsc::error::TrySendError::Full(_)) => Err(Interrupt::Retry(None)),
    }
}

/// What an error of the ledger asks for (`recorder.proto`).
pub(super) fn classify(status: Status) -> Interrupt {
    match status.code() {
        code if is_transient(code) => Interrupt::Retry(asked_delay(&status)),
        Code::FailedPrecondition
            if status
                .get_details_error_info()
                .is_some_and(|info| RESYNC_REASONS.contains(&info.reason.as_str())) =>
        {
            Interrupt::Resync
        }
        _ => Interrupt::Fatal(RecorderError::Refused(Arc::new(status))),
    }
}

async fn sleep_maybe(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => pending().await,
    }
}

/// The ledger stands elsewhere, or holds the events in other batches.
const RESYNC_REASONS: [&str; 2] = ["SEQUENCE_GAP", "BATCH_RECUT"];
