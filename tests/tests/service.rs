//! What every gRPC server is expected to have besides its own services.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use access_ledger_tests::{
    custodian::until,
    hostile::{Hostile, Server, broken, whole},
    node::{Clients, Node},
    operator::{Crime, SIZE},
    pages,
    process::Process,
};
use anyhow::{Context as _, ensure};
use tonic::Status;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

const SERVICES: [&str; 2] = ["access_ledger.v1.AuditService", "access_ledger.v1.RecorderService"];

#[tokio::test(flavor = "multi_thread")]
async fn health_is_serving_for_the_server_and_for_each_service() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let mut health = HealthClient::new(node.clients().channel);
    for service in ["", SERVICES[0], SERVICES[1]] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await?.into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let request = HealthCheckRequest { service: "other".to_owned() };
    assert_eq!(health.check(request).await.unwrap_err().code(), tonic::Code::NotFound);
    // Anybody may ask, so nobody has the server hold much for that.
    let request = HealthCheckRequest { service: "x".repeat(1 << 10) };
    assert_eq!(health.check(request).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_services_in_both_versions() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let listed: Vec<String> = {
        use v1::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest::ListServices,
            server_reflection_response::MessageResponse::ListServicesResponse,
        };
        let message_request = Some(ListServices(String::new()));
        let request = ServerReflectionRequest { host: String::new(), message_request };
        let mut client = ServerReflectionClient::new(node.clients().channel);
        let answers = client.server_reflection_info(tokio_stream::iter([request])).await?;
        match answers.into_inner().message().await?.and_then(|answer| answer.message_response) {
            Some(ListServicesResponse(list)) => {
                list.service.into_iter().map(|service| service.name).collect()
            }
            other => anyhow::bail!("{other:?}"),
        }
    };
    let listed_alpha: Vec<String> = {
        use v1alpha::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest::ListServices,
            server_reflection_response::MessageResponse::ListServicesResponse,
        };
        let message_request = Some(ListServices(String::new()));
        let request = ServerReflectionRequest { host: String::new(), message_request };
        let mut client = ServerReflectionClient::new(node.clients().channel);
        let answers = client.server_reflection_info(tokio_stream::iter([request])).await?;
        match answers.into_inner().message().await?.and_then(|answer| answer.message_response) {
            Some(ListServicesResponse(list)) => {
                list.service.into_iter().map(|service| service.name).collect()
            }
            other => anyhow::bail!("{other:?}"),
        }
    };
    for listed in [listed, listed_alpha] {
        for service in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
            assert!(listed.iter().any(|name| name == service), "{service} is not in {listed:?}");
        }
    }
    Ok(())
}

/// The metrics of a process at one time.
struct Metrics(String);

impl Metrics {
    async fn of(process: &Process) -> anyhow::Result<Self> {
        let answer = pages::get(process.metrics_address, "/metrics", &[]).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        Ok(Self(answer.text()))
    }

    /// The value of a metric, by its name and labels.
    fn value(&self, metric: &str) -> anyhow::Result<f64> {
        let value = |line: &str| line.strip_prefix(metric)?.strip_prefix(' ').map(str::to_owned);
        let value = self.0.lines().find_map(value);
        Ok(value.with_context(|| format!("no {metric} in {}", self.0))?.parse()?)
    }

    fn names(&self) -> BTreeSet<&str> {
        let types = self.0.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.filter_map(|line| line.split(' ').next()).collect()
    }
}

/// What a ledger shows only when there is something to show, or never.
const NOT_AT_FIRST: [&str; 18] = [
    // Of custodians.
    "access_ledger_alarms_total",
    "access_ledger_cosigned_total",
    "access_ledger_custodian_behind_entries",
    "access_ledger_custodian_behind_seconds",
    // With witnesses.
    "access_ledger_cosign_seconds",
    "access_ledger_cosignatures_dropped_total",
    "access_ledger_cosigned_entries",
    "access_ledger_waiting_receipts",
    "access_ledger_witness_entries",
    "access_ledger_witness_failures_total",
    // With principals, certificates, a collector of traces.
    "access_ledger_handshakes_failed_total",
    "access_ledger_identity_stale",
    "access_ledger_recorded_reads_total",
    "access_ledger_trace_exports_failed_total",
    "access_ledger_unrecorded_reads",
    // With intents and erasures.
    "access_ledger_erased_events_total",
    "access_ledger_eraser_poisoned",
    "access_ledger_verdicts_total",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_described_metric_is_there_and_counts() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let process = Process::serve(&folder.path().join("data"), &[])?;
    let clients = Clients::connect(process.address).await?;
    let mut source = clients.enrolled("payments", 1, &process.vkey).await?;
    let sealed = source.record(5)?;
    clients.record(&sealed).await?;
    let gap = source.seal_at(99, sealed.batch.events.clone())?;
    clients.refused(gap.batch).await?;
    // Only the index answers a repeated batch, so then it has seen all entries.
    clients.record(&sealed).await?;
    ensure!(pages::get(process.address, "/checkpoint", &[]).await?.status == 200);

    // The scrub has its own pace.
    let told = shown(&process, &[("access_ledger_scrub_damaged_segments", 0.0)]).await?;
    for (metric, wanted) in [
        ("access_ledger_appended_entries_total", 6.0),
        ("access_ledger_refused_total{reason=\"SEQUENCE_GAP\"}", 1.0),
        ("access_ledger_http_requests_total{status=\"200\"}", 1.0),
        ("access_ledger_commit_seconds_count", 2.0),
        ("access_ledger_group_batches_count", 2.0),
        ("access_ledger_size_entries", 7.0),
        ("access_ledger_indexed_entries", 7.0),
        ("access_ledger_queue_bytes", 0.0),
        ("access_ledger_writer_poisoned", 0.0),
    ] {
        assert_eq!(told.value(metric)?, wanted, "{metric}");
    }
    let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("../server");
    let text = fs::read_to_string(server.join("src/metrics.rs"))?;
    let described = text.split('"').filter(|text| text.starts_with("access_ledger_"));
    let described: BTreeSet<_> = described.collect();
    let strangers: Vec<_> = told.names().difference(&described).copied().collect();
    ensure!(strangers.is_empty(), "not described: {strangers:?}");
    let mut missing: Vec<_> = described.difference(&told.names()).copied().collect();
    missing.retain(|name| !NOT_AT_FIRST.contains(name));
    ensure!(missing.is_empty(), "not there: {missing:?}");
    ensure!(NOT_AT_FIRST.iter().all(|name| described.contains(name)), "{described:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custodian_counts_its_alarms_and_says_how_far_it_is_behind() -> anyhow::Result<()> {
    const ALARMS: &str = "access_ledger_alarms_total{kind=\"BEHIND\"}";
    const ENTRIES: &str = "access_ledger_custodian_behind_entries";
    const SECONDS: &str = "access_ledger_custodian_behind_seconds";
    let crime = Crime::scene().await?;
    let (folder, withholds) = (tempfile::tempdir()?, Arc::new(AtomicBool::new(true)));
    let lies = withholds.clone();
    let hostile = Hostile::new(crime.honest.serve()?).read(move |_, _, runs| {
        match lies.load(Ordering::SeqCst) {
            true => broken(Vec::new(), Status::unavailable("in a moment")),
            false => whole(runs),
        }
    });
    let server = Server::start(hostile).await?;
    let start = || {
        let flags = ["--behind-after", "1"];
        Process::custodian(folder.path(), server.address, &crime.vkey, &flags)
    };
    let keeper = tokio::task::block_in_place(start)?;
    let behind = shown(&keeper, &[(ALARMS, 1.0), (ENTRIES, SIZE as f64)]).await?;
    ensure!(behind.value(SECONDS)? >= 1.0, "{}", behind.0);
    ensure!(behind.value("access_ledger_cosigned_total").is_err(), "{}", behind.0);
    withholds.store(false, Ordering::SeqCst);
    let level = [
        (ALARMS, 1.0),
        (ENTRIES, 0.0),
        (SECONDS, 0.0),
        ("access_ledger_cosigned_total", 1.0),
        ("access_ledger_size_entries", SIZE as f64),
        ("access_ledger_indexed_entries", SIZE as f64),
    ];
    let level = shown(&keeper, &level).await?;
    ensure!(level.0.matches("\naccess_ledger_alarms_total{").count() == 1, "{}", level.0);
    Ok(())
}

/// The metrics of a process, once these have these values.
async fn shown(process: &Process, wanted: &[(&str, f64)]) -> anyhow::Result<Metrics> {
    let mut last = Metrics(String::new());
    let looked = until(async || {
        last = Metrics::of(process).await?;
        let is_so = |&(metric, wanted): &(&str, f64)| last.value(metric).ok() == Some(wanted);
        Ok(wanted.iter().all(is_so).then_some(()))
    });
    looked.await.with_context(|| format!("wanted {wanted:?} in {}", last.0))?;
    Ok(last)
}
