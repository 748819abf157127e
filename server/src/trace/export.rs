//! Export of spans to a collector of OpenTelemetry (OTLP over HTTP, protobuf).
//!
//! The collector may be down, slow, or hostile: spans that ended wait in a bounded queue for a
//! thread of their own, which makes the calls; what finds the queue full is dropped. Nothing else
//! waits for any of it, and the end of the process only for a moment.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use access_ledger_client::connect::Credentials;
use bytes::Bytes;
use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider},
};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tracing::{Level, Metadata, info, level_filters::LevelFilter, warn};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::{Layer, Registry, filter::FilterFn};

use super::ONE_IN;
use crate::outbound::{Answer, Outbound, OutboundError};

/// Where traces go.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The collector, as in `http://127.0.0.1:4318`.
    pub url: String,
    /// Of so many batches without a caller's trace one is traced. At least 1.
    pub one_in: u32,
    /// What the traces are of (`service.name`), unless the environment says something else
    /// (`OTEL_SERVICE_NAME`).
    pub service: &'static str,
    /// What the collector is shown, but for the token.
    pub credentials: Credentials,
}

/// Why nothing can be exported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// No calls can be made.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// The address is none.
    #[error("collector of traces: {0}")]
    Collector(#[from] ExporterBuildError),
    /// The system refuses.
    #[error("collector of traces: {0}")]
    Runtime(#[from] io::Error),
}

/// A part of what takes logs and spans.
pub type LogLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Exports spans. [`Exporter::finish`] sends the last ones.
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Starts the thread that calls the collector, and gives the layer that feeds it. Once a
    /// process, outside of a runtime.
    ///
    /// # Errors
    ///
    /// [`ExportError`]. A collector that is not there is no error.
    pub fn start(options: &ExportOptions) -> Result<(LogLayer, Self), ExportError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Post::new(&options.credentials)?)
            .with_endpoint(format!("{}/v1/traces", options.url.trim_end_matches('/')))
            .with_timeout(EXPORT_TIME)
            .build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_SPANS_MAX)
            .with_max_export_batch_size(EXPORT_SPANS_MAX)
            .with_scheduled_delay(EXPORT_INTERVAL)
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name(options.service);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            // What is not to be traced gets no span in the first place.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource.with_attribute(version).build())
            .build();
        let layer = OpenTelemetryLayer::new(provider.tracer("access-ledger"))
            .with_context_activation(false)
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(FilterFn::new(is_ours).with_max_level_hint(LevelFilter::DEBUG));
        ONE_IN.store(options.one_in.max(1), Ordering::Relaxed);
        Ok((Box::new(layer), Self(provider)))
    }

    /// Sends what waits, if the collector takes it at once.
    pub fn finish(self) {
        if let Err(problem) = self.0.shutdown_with_timeout(FINISH_TIME) {
            warn!(%problem, "left traces behind");
        }
    }
}

/// The spans of this crate; log lines stay in the log.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    let is_ours = metadata.target().starts_with(env!("CARGO_CRATE_NAME"));
    metadata.is_span() && *metadata.level() <= Level::DEBUG && is_ours
}

/// Makes the calls, on the thread of the exporter, which does nothing else.
#[derive(Debug)]
struct Post {
    outbound: Outbound,
    runtime: Runtime,
    /// Whether the last call failed: that is told once.
    is_failing: AtomicBool,
}

impl Post {
    fn new(credentials: &Credentials) -> Result<Self, ExportError> {
        let outbound = Outbound::new(credentials)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { outbound, runtime, is_failing: AtomicBool::new(false) })
    }

    fn tell(&self, sent: &Result<Answer, OutboundError>) {
        let problem = match sent {
            Ok(Answer { status: 200..300, .. }) => None,
            Ok(Answer { status, .. }) => Some(format!("status {status}")),
            Err(error) => Some(error.to_string()),
        };
        let has_failed = self.is_failing.swap(problem.is_some(), Ordering::Relaxed);
        match problem {
            None if has_failed => info!("exports traces again"),
            None => {}
            Some(problem) => {
                metrics::counter!("access_ledger_trace_exports_failed_total").increment(1);
                if !has_failed {
                    warn!(problem, "could not export traces");
                }
            }
        }
    }
}

#[tonic::async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = self.runtime.block_on(self.outbound.send(request));
        self.tell(&sent);
        let Answer { status, body } = sent?;
        Ok(Response::builder().status(status).body(body)?)
    }
}

/// Spans that wait, each about a kilobyte: what a collector misses in a second is made up for.
const QUEUE_SPANS_MAX: usize = 8_192;

/// Spans of one call.
const EXPORT_SPANS_MAX: usize = 512;

/// Between two calls, while there are fewer spans than that.
const EXPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How long one export may be tried.
const EXPORT_TIME: Duration = Duration::from_secs(10);

/// How long the end of the process waits for the collector.
const FINISH_TIME: Duration = Duration::from_secs(2);
