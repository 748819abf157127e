//! Traces: the steps that a batch goes through, and how long each takes.
//!
//! ```text
//! append            a batch: source, first_seq, events; then first_index, or refused
//!   judge           limits, rules, seal
//!   queue           until the writer takes it
//!   place           its place in the chain, beside the others of its group
//!   write, sync     the group's bytes, and until they are on the disk
//!   publish         the tree and the checkpoint
//!   receipt         until it is answered: with a receipts policy, until enough have cosigned
//! ```
//!
//! A batch that was sent before goes from `place` to `repeat`. Rounds of a custodian and questions
//! to witnesses have spans of their own, beside their code.
//!
//! All are at the level `debug`: unless the log shows that, or traces are exported (`export.rs`), a
//! batch costs one look at a global level and no allocation. Spans hold names of sources, numbers,
//! sizes, addresses of witnesses and reasons of refusals; nothing that an event says.

mod export;

use std::sync::atomic::{AtomicU32, Ordering};

use access_ledger_proto::{source::Name, wire};
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{SpanContext, TraceContextExt as _},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::{KeyRef, MetadataMap};
use tracing::{Level, Span, debug_span, field, span_enabled};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

pub use self::export::{ExportError, ExportOptions, Exporter, LogLayer};
use crate::refusal::Refusal;

/// Whether anybody wants spans.
fn is_on() -> bool {
    span_enabled!(Level::DEBUG)
}

/// The trace of a caller that a call belongs to (W3C Trace Context), if it says so.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller(Option<SpanContext>);

impl Caller {
    /// What the metadata of a call say. Whatever is malformed says nothing.
    pub(crate) fn of(metadata: &MetadataMap) -> Self {
        if !is_on() {
            return Self(None);
        }
        let context =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(metadata));
        let span = context.span().span_context().clone();
        Self(span.is_valid().then_some(span))
    }
}

struct Headers<'a>(&'a MetadataMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        let text = |key| match key {
            KeyRef::Ascii(key) => Some(key.as_str()),
            KeyRef::Binary(_) => None,
        };
        self.0.keys().filter_map(text).collect()
    }
}

/// What a batch is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Judge,
    Queue,
    Place,
    Repeat,
    Write,
    Sync,
    Publish,
    Receipt,
}

/// The spans of a batch; nothing, for one that is not traced. Ends when dropped.
#[derive(Default)]
pub(crate) struct BatchTrace(Option<Box<Spans>>);

struct Spans {
    batch: Span,
    /// A child of it.
    step: Span,
}

impl BatchTrace {
    /// Begins with [`Step::Judge`]. A caller's trace is continued if the caller keeps it; without
    /// one, every so many batches are traced.
    pub(crate) fn begin(caller: &Caller, batch: &wire::SealedBatch) -> Self {
        if !is_on() {
            return Self(None);
        }
        let is_wanted = match &caller.0 {
            Some(context) => context.is_sampled(),
            None => {
                COUNT.fetch_add(1, Ordering::Relaxed).is_multiple_of(ONE_IN.load(Ordering::Relaxed))
            }
        };
        if !is_wanted {
            return Self(None);
        }
        let span = debug_span!(
            parent: None,
            "append",
            source = field::Empty,
            first_seq = batch.first_seq,
            events = batch.events.len(),
            first_index = field::Empty,
            refused = field::Empty,
        );
        if let Some(context) = caller.0.clone() {
            // Without an exporter nobody can continue it.
            drop(span.set_parent(Context::new().with_remote_span_context(context)));
        }
        let step = child(&span, Step::Judge);
        Self(Some(Box::new(Spans { batch: span, step })))
    }

    /// Ends the step before, and begins this one.
    pub(crate) fn step(&mut self, step: Step) {
        if let Some(spans) = &mut self.0 {
            drop(std::mem::replace(&mut spans.step, child(&spans.batch, step)));
        }
    }

    /// Notes whose batch it is, once it is known to be of a registered source: before that the name
    /// is any text.
    pub(crate) fn is_of(&self, source: Name<'_>) {
        if let Some(spans) = &self.0 {
            spans.batch.record("source", source.as_str());
        }
    }

    /// Notes what the batch is answered.
    pub(crate) fn answered(&self, answer: &Result<wire::AppendResponse, Refusal>) {
        let Some(spans) = &self.0 else { return };
        match answer {
            Ok(response) => {
                let receipt = response.receipt.as_ref();
                spans.batch.record("first_index", receipt.map(|receipt| receipt.first_index));
            }
            Err(refusal) => self.refused(refusal),
        }
    }

    /// Notes why the batch is refused.
    pub(crate) fn refused(&self, refusal: &Refusal) {
        if let Some(spans) = &self.0 {
            spans.batch.record("refused", refusal.reason());
        }
    }
}

fn child(parent: &Span, step: Step) -> Span {
    match step {
        Step::Judge => debug_span!(parent: parent, "judge"),
        Step::Queue => debug_span!(parent: parent, "queue"),
        Step::Place => debug_span!(parent: parent, "place"),
        Step::Repeat => debug_span!(parent: parent, "repeat"),
        Step::Write => debug_span!(parent: parent, "write"),
        Step::Sync => debug_span!(parent: parent, "sync"),
        Step::Publish => debug_span!(parent: parent, "publish"),
        Step::Receipt => debug_span!(parent: parent, "receipt"),
    }
}

/// Batches that were begun without a caller's trace.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Of so many batches without a caller's trace one is traced. At least 1.
static ONE_IN: AtomicU32 = AtomicU32::new(1);

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceId};
    use tracing::subscriber::with_default;
    use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt as _, registry};

    use super::*;

    fn caller(traceparent: &'static str) -> Caller {
        let mut metadata = MetadataMap::new();
        metadata.insert("traceparent", traceparent.parse().unwrap());
        Caller::of(&metadata)
    }

    fn begin(caller: &Caller) -> BatchTrace {
        BatchTrace::begin(caller, &wire::SealedBatch::default())
    }

    const KEPT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const LEFT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    #[test]
    fn a_batch_that_nobody_traces_carries_an_empty_pointer_and_nothing_is_read() {
        assert_eq!(size_of::<BatchTrace>(), size_of::<usize>());
        with_default(registry().with(LevelFilter::INFO), || {
            assert!(caller(KEPT).0.is_none());
            let mut trace = begin(&caller(KEPT));
            trace.step(Step::Queue);
            assert!(trace.0.is_none());
        });
    }

    #[test]
    fn a_caller_decides_whether_its_trace_goes_on() {
        with_default(registry().with(LevelFilter::DEBUG), || {
            let context = caller(KEPT).0.unwrap();
            let wanted = (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7);
            let wanted = (TraceId::from(wanted.0), SpanId::from(wanted.1));
            assert_eq!((context.trace_id(), context.span_id()), wanted);
            assert!(begin(&caller(KEPT)).0.is_some());
            assert!(begin(&caller(LEFT)).0.is_none());
            for malformed in ["", "00-nonsense-2-01", "00-00000000000000000000000000000000-0-01"] {
                assert!(caller(malformed).0.is_none(), "{malformed}");
            }
        });
    }
}
