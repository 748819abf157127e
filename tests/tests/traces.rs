//! Traces as a collector gets them (OTLP): a batch continues its caller's trace, step by step;
//! nothing of an event is in them; and no collector keeps the ledger waiting.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use access_ledger_proto::wire;
use access_ledger_server::folder::Folder;
use access_ledger_tests::{
    custodian::until,
    node::Clients,
    process::Process,
    source::{Refused, Sealed},
};
use anyhow::{Context as _, ensure};
use axum::{Router, body::Bytes, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message as _;
use tonic::Request;

/// A collector in this process.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    services: Arc<Mutex<BTreeSet<String>>>,
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

impl Collector {
    async fn start() -> anyhow::Result<(Self, String)> {
        let collector = Self::default();
        let taking = collector.clone();
        let take = async move |body: Bytes| taking.take(&body);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let app = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok((collector, url))
    }

    fn take(&self, body: &[u8]) {
        let request = ExportTraceServiceRequest::decode(body).unwrap_or_default();
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in request.resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            services.extend(text(&attributes, "service.name"));
            for scope in resource.scope_spans {
                spans.extend(scope.spans);
            }
        }
    }

    fn all(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The span of a batch that began with this number, with all spans of its trace.
    async fn batch(&self, first_seq: u64) -> anyhow::Result<(Span, Vec<Span>)> {
        let wanted = Some(first_seq.to_string());
        let is_it =
            |span: &Span| span.name == "append" && text(&span.attributes, "first_seq") == wanted;
        let look = async || Ok(self.all().into_iter().find(is_it));
        let batch = until(look).await.with_context(|| format!("no batch {first_seq}"))?;
        let of_trace = |span: &Span| span.trace_id == batch.trace_id;
        let trace = self.all().into_iter().filter(of_trace).collect();
        Ok((batch, trace))
    }
}

/// The call of a service that is traced itself.
fn call(
    sealed: &Sealed,
    traceparent: &'static str,
) -> anyhow::Result<Request<wire::AppendRequest>> {
    let mut request = Request::new(sealed.request());
    request.metadata_mut().insert("traceparent", traceparent.parse()?);
    Ok(request)
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const KEPT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const LEFT: &str = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-00";

/// All that spans may hold.
const ATTRIBUTES: [&str; 10] = [
    "source",
    "first_seq",
    "events",
    "first_index",
    "refused",
    "witness",
    "size",
    "first",
    "end",
    "groups",
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_continues_the_trace_of_its_caller_step_by_step() -> anyhow::Result<()> {
    let (collector, url) = Collector::start().await?;
    let folder = tempfile::tempdir()?;
    let flags = ["--otlp", &*url, "--otlp-one-in", "1"];
    let ledger = Process::serve(&folder.path().join("data"), &flags)?;
    let clients = Clients::connect(ledger.address).await?;
    let mut source = clients.enrolled("payments", 1, &ledger.vkey).await?;
    let mut recorder = clients.recorder.clone();
    let (left, kept, own) = (source.record(1)?, source.record(3)?, source.record(1)?);
    recorder.append(call(&left, LEFT)?).await?;
    recorder.append(call(&kept, KEPT)?).await?;
    recorder.append(call(&own, "00-nonsense-01")?).await?;
    let gap = source.seal_at(99, own.batch.events.clone())?;
    let refused = recorder.append(call(&gap, KEPT)?).await.err().context("took a gap")?;
    ensure!(Refused::of(&refused).reason == "SEQUENCE_GAP");

    let (batch, _) = collector.batch(99).await?;
    ensure!(text(&batch.attributes, "refused").as_deref() == Some("SEQUENCE_GAP"));
    let (batch, trace) = collector.batch(kept.first_seq()).await?;
    ensure!((hex(&batch.trace_id), hex(&batch.parent_span_id)) == (TRACE.into(), CALLER.into()));
    let told: BTreeMap<_, _> = batch
        .attributes
        .iter()
        .filter_map(|attribute| Some((&*attribute.key, text(&batch.attributes, &attribute.key)?)))
        .collect();
    let wanted =
        [("events", "3"), ("first_index", "3"), ("first_seq", "2"), ("source", "payments")];
    assert_eq!(told, wanted.map(|(key, value)| (key, value.to_owned())).into());
    let mut steps: Vec<_> =
        trace.iter().filter(|span| span.parent_span_id == batch.span_id).collect();
    steps.sort_by_key(|step| step.start_time_unix_nano);
    let names: Vec<_> = steps.iter().map(|step| &*step.name).collect();
    assert_eq!(names, ["judge", "queue", "place", "write", "sync", "publish", "receipt"]);
    let mut at = batch.start_time_unix_nano;
    for step in steps {
        assert!(at <= step.start_time_unix_nano, "{} begins before the one before", step.name);
        assert!(step.end_time_unix_nano <= batch.end_time_unix_nano, "{}", step.name);
        at = step.start_time_unix_nano;
    }
    // A caller that keeps no trace of its own keeps none here; one that says nothing begins one.
    let (own, _) = collector.batch(own.first_seq()).await?;
    assert!(own.parent_span_id.is_empty() && hex(&own.trace_id) != TRACE);
    for span in collector.all() {
        assert_ne!(hex(&span.trace_id), "a".repeat(32), "{span:?}");
        for attribute in &span.attributes {
            assert!(ATTRIBUTES.contains(&&*attribute.key), "{attribute:?} of {}", span.name);
        }
    }
    let services = collector.services.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(services, ["access-ledger".to_owned()].into());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_of_a_custodian_and_questions_to_it_are_traced() -> anyhow::Result<()> {
    let (collector, url) = Collector::start().await?;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let first = Process::serve(&data, &[])?;
    let (address, vkey) = (first.address, first.vkey.clone());
    let copy = folder.path().join("custodian");
    let custodian = Process::custodian(&copy, address, &vkey, &["--otlp", &url])?;
    let names = || collector.all().into_iter().map(|span| span.name).collect::<BTreeSet<_>>();
    let has = |wanted: &[&str]| {
        let found = names();
        wanted.iter().all(|name| found.contains(*name)).then_some(())
    };
    let rounds = until(async || Ok(has(&["catch_up", "poll", "patrol", "cosign"]))).await;
    rounds.with_context(|| format!("{:?}", names()))?;
    first.kill()?;
    // Started again where the custodian finds it, and asking it.
    let policy = Folder::new(&copy).quorum_policy().display().to_string();
    let (listen, flags) = (address.to_string(), ["--otlp", &*url, "--witnesses", &*policy]);
    let flags = [&["--listen", &listen], &flags[..]].concat();
    let second = Process::serve(&data, &flags)?;
    let clients = Clients::connect(second.address).await?;
    let mut source = clients.enrolled("payments", 1, &vkey).await?;
    // What is recorded before it follows again is caught up with.
    let rounds = until(async || {
        clients.record(&source.record(1)?).await?;
        Ok(has(&["ask_witness", "take_groups"]))
    });
    rounds.await.with_context(|| format!("{:?}", names()))?;
    drop(custodian);
    Ok(())
}

/// A ledger whose collector is at this address records more than waits for a collector, and stops.
async fn is_not_kept_waiting(collector: SocketAddr) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let url = format!("http://{collector}");
    let flags = ["--otlp", &*url, "--otlp-one-in", "1"];
    let ledger = Process::serve(&folder.path().join("data"), &flags)?;
    let clients = Clients::connect(ledger.address).await?;
    let mut source = clients.enrolled("payments", 1, &ledger.vkey).await?;
    let batches: Vec<_> = (0..BATCHES).map(|_| source.record(1)).collect::<Result<_, _>>()?;
    let requests = tokio_stream::iter(batches.iter().map(Sealed::request).collect::<Vec<_>>());
    let begun = tokio::time::Instant::now();
    let mut answers = clients.recorder.clone().append_stream(requests).await?.into_inner();
    for sealed in &batches {
        sealed.place(&answers.message().await?.context("no answer")?)?;
    }
    // One call to such a collector takes longer.
    ensure!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    drop((answers, clients));
    let begun = tokio::time::Instant::now();
    ledger.terminate()?;
    let status = tokio::task::spawn_blocking(|| ledger.wait()).await??;
    ensure!(status.success() && begun.elapsed() < PATIENCE, "{status} {:?}", begun.elapsed());
    Ok(())
}

/// With eight spans each, more than twice what waits for a collector.
const BATCHES: usize = 2_200;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_down_or_hangs_keeps_nobody_waiting() -> anyhow::Result<()> {
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    is_not_kept_waiting(nobody).await?;
    // Connections come into its queue, and nobody takes them out.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    is_not_kept_waiting(silent.local_addr()?).await
}
