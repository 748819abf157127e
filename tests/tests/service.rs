//! What every gRPC server is expected to have besides its own services.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use access_ledger_tests::{
    node::{Clients, Node},
    process::Process,
};
use anyhow::Context as _;
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

    let mut connection = TcpStream::connect(process.metrics_address)?;
    write!(connection, "GET /metrics HTTP/1.1\r\nHost: ledger\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let value = |metric: &str| -> anyhow::Result<f64> {
        let line = answer.lines().find(|line| line.starts_with(metric));
        let line = line.with_context(|| format!("no {metric} in {answer}"))?;
        Ok(line.rsplit(' ').next().context("no value")?.parse()?)
    };
    assert_eq!(value("access_ledger_appended_entries_total ")?, 6.0);
    assert_eq!(value("access_ledger_refused_total{reason=\"SEQUENCE_GAP\"}")?, 1.0);
    assert_eq!(value("access_ledger_commit_seconds_count ")?, 2.0);
    assert_eq!(value("access_ledger_group_batches_count ")?, 2.0);
    assert_eq!(value("access_ledger_size_entries ")?, 7.0);
    assert_eq!(value("access_ledger_indexed_entries ")?, 7.0);
    assert_eq!(value("access_ledger_queue_bytes ")?, 0.0);
    assert_eq!(value("access_ledger_writer_poisoned ")?, 0.0);
    let types = answer.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: BTreeSet<_> = types.filter_map(|line| line.split(' ').next()).collect();
    assert!(names.iter().all(|name| name.starts_with("access_ledger_")), "{names:?}");
    Ok(())
}
