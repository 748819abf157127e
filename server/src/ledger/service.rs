//! `RecorderService` over gRPC.

use std::{sync::Arc, time::Duration};

use access_ledger_proto::{
    event::{self, Body},
    facts::redactions,
    position::Index,
    source::Name,
    wire::{self, recorder_service_server::RecorderService},
};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{mpsc, watch};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Shared, append::Admitted, queue::Ticket, writer::ToWrite};
use crate::{
    erase,
    identity::Caller,
    refusal::Refusal,
    trace::{self, BatchTrace},
    works::Works,
};

/// The service. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) shared: Arc<Shared>,
    /// Turns true when the server is about to stop: streams end then.
    pub(crate) stopping: watch::Receiver<bool>,
    /// Where large batches are judged.
    pub(crate) works: Works,
}

/// What a batch may hold.
#[derive(Clone, Copy, Debug)]
enum MayHold {
    Anything,
    Intents,
}

impl Recorder {
    async fn admit(
        &self,
        (caller, trace): (&Caller, &trace::Caller),
        batch: Option<wire::SealedBatch>,
        may_hold: MayHold,
    ) -> Result<Ticket, Refusal> {
        let missing = || Refusal::Request { field: "batch", problem: "missing".to_owned() };
        let batch = batch.ok_or_else(missing)?;
        caller.expect_source(&batch.source)?;
        let bytes: usize = batch.events.iter().map(|event| event.len()).sum();
        let is_redaction = batch.events.iter().any(is_redaction);
        let shared = self.shared.clone();
        let mut trace = BatchTrace::begin(trace, &batch);
        let judge = move || {
            let judged = shared.judge(batch, may_hold).and_then(|admitted| {
                trace.is_of(admitted.sealed().source);
                shared.queue.push_traced(ToWrite::Batch(admitted), &mut trace)
            });
            // Else it went along.
            judged.inspect_err(|refusal| trace.refused(refusal))
        };
        // What a redaction covers is read before it is taken.
        if bytes <= INLINE_BYTES_MAX && !is_redaction {
            return judge();
        }
        self.works.run(judge).await
    }

    /// Admits what the stream brings, in order, until it ends or a batch is refused.
    async fn pump(
        self,
        (caller, trace): (Caller, trace::Caller),
        mut requests: Streaming<wire::AppendRequest>,
        tickets: mpsc::Sender<Result<Ticket, Status>>,
    ) {
        let mut stopping = self.stopping.clone();
        loop {
            let request = tokio::select! {
                request = requests.message() => request,
                _ = stopping.wait_for(|&stopping| stopping) => Err(Refusal::Stopping.into()),
                () = tickets.closed() => return,
            };
            let ticket = match request {
                Ok(None) => return,
                Ok(Some(request)) => self
                    .admit((&caller, &trace), request.batch, MayHold::Anything)
                    .await
                    .map_err(Status::from),
                Err(status) if status.code() == Code::OutOfRange => Err(message_too_large().into()),
                Err(status) => Err(status),
            };
            let is_refused = ticket.is_err();
            // The window: a full channel stops reading, which stops the client by flow control.
            if tickets.send(ticket).await.is_err() || is_refused {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl RecorderService for Recorder {
    async fn append(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::AppendResponse>, Status> {
        let (caller, trace) = (Caller::of(&request)?, trace::Caller::of(request.metadata()));
        let batch = request.into_inner().batch;
        let ticket = self.admit((&caller, &trace), batch, MayHold::Anything).await?;
        Ok(Response::new(ticket.answer().await?))
    }

    async fn authorize(
        &self,
        request: Request<wire::AuthorizeRequest>,
    ) -> Result<Response<wire::AuthorizeResponse>, Status> {
        let (caller, trace) = (Caller::of(&request)?, trace::Caller::of(request.metadata()));
        let batch = request.into_inner().batch;
        let ticket = self.admit((&caller, &trace), batch, MayHold::Intents).await?;
        let wire::AppendResponse { receipt, verdicts } = ticket.answer().await?;
        Ok(Response::new(wire::AuthorizeResponse { receipt, verdicts }))
    }

    async fn append_stream(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<tonic::codegen::BoxStream<wire::AppendResponse>>, Status> {
        let (sender, tickets) = mpsc::channel(STREAM_BATCHES_MAX);
        let caller = (Caller::of(&request)?, trace::Caller::of(request.metadata()));
        tokio::spawn(self.clone().pump(caller, request.into_inner(), sender));
        let answers = stream::unfold(Some(tickets), |tickets| async {
            let mut tickets = tickets?;
            let answer = match tickets.recv().await? {
                Ok(ticket) => ticket.answer().await.map_err(Status::from),
                Err(status) => Err(status),
            };
            // After the first failure nothing more is answered; dropping the tickets ends the pump.
            let rest = answer.is_ok().then_some(tickets);
            Some((answer, rest))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn enroll(
        &self,
        request: Request<wire::EnrollRequest>,
    ) -> Result<Response<wire::EnrollResponse>, Status> {
        Caller::of(&request)?.expect_source(&request.get_ref().source)?;
        Ok(Response::new(self.shared.enroll(request.into_inner()).await?))
    }

    async fn get_source_state(
        &self,
        request: Request<wire::GetSourceStateRequest>,
    ) -> Result<Response<wire::GetSourceStateResponse>, Status> {
        Caller::of(&request)?.expect_source(&request.get_ref().source)?;
        let source = request.into_inner().source;
        let unknown = || Refusal::NoSource { name: source.clone() };
        let name = Name::parse(source.as_bytes()).map_err(|_| unknown())?;
        let (key_id, heartbeat_nanos) = {
            let sources = self.shared.book.sources();
            let source = sources.get(name).ok_or_else(unknown)?;
            (source.key_id(), source.heartbeat_nanos)
        };
        let heartbeat = Duration::from_nanos(heartbeat_nanos);
        Ok(Response::new(wire::GetSourceStateResponse {
            last_seq: self.shared.book.durable_last(name),
            key_id: key_id.map(|id| id.0.to_vec().into()).unwrap_or_default(),
            origin: self.shared.book.vkey.name().to_owned(),
            ledger_vkey: self.shared.book.vkey.to_string(),
            heartbeat_interval: prost_types::Duration::try_from(heartbeat)
                .ok()
                .filter(|_| heartbeat_nanos > 0),
        }))
    }
}

impl Shared {
    /// Judges a batch on its own: what does not depend on the order.
    fn judge(&self, batch: wire::SealedBatch, may_hold: MayHold) -> Result<Admitted, Refusal> {
        let now = self.book.clock.now_nanos();
        let admitted = Admitted::judge(batch, &self.book.sources(), now)?;
        let admitted = match may_hold {
            MayHold::Anything => admitted,
            MayHold::Intents => admitted.expect_intents()?,
        };
        for redaction in admitted.redactions().filter(|one| self.may_redact(&admitted, one)) {
            erase::check(&self.book, redaction)?;
        }
        Ok(admitted)
    }

    /// Whether what a redaction covers may be read, and be told of, before the writer judges it,
    /// who refuses all others: not for whoever has no say in it.
    fn may_redact(&self, batch: &Admitted, redaction: &wire::Redaction) -> bool {
        let next = self.book.published().size.next_index();
        // Whether the range lies before it depends on the order.
        let (place, sealer) = ((Index(u64::MAX), 0), batch.sealed().source);
        self.judge_sources(batch, next).is_ok()
            && redactions::judge(&self.book.sources(), None, place, sealer, redaction).is_ok()
    }
}

fn is_redaction(event: &Bytes) -> bool {
    event::body(event).is_some_and(|body| body.number == Body::REDACTION)
}

/// What tonic answers with its own OUT_OF_RANGE: a message that no lawful batch needs.
pub(crate) fn message_too_large() -> Refusal {
    let problem = "message of more bytes than a batch may have".to_owned();
    Refusal::Request { field: "batch", problem }
}

/// Larger batches are judged off the network's threads: 64 KiB take about 0.1 ms.
const INLINE_BYTES_MAX: usize = 128 << 10;

/// Batches of one stream that wait for their receipts, before reading from it stops.
const STREAM_BATCHES_MAX: usize = 256;
