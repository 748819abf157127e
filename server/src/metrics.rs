//! The port for whoever operates a server, behind the same door as all else: Prometheus metrics,
//! and how the server does.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::{
    error::ServeError,
    health::{self, Health},
    identity::Door,
    transport::Transport,
};

/// Makes all metrics of this process visible at `http://<address>/metrics`, to who has the role
/// `operate`, and at `/healthz` and `/readyz`, to anybody, how its server does; gives the address
/// that was bound. The endpoint lives as long as the runtime. Once a process.
///
/// # Errors
///
/// [`ServeError::Bind`] when the address is taken; [`ServeError::Metrics`] when metrics are
/// collected already.
pub async fn expose(
    address: SocketAddr,
    door: &Arc<Door>,
    health: &Arc<Health>,
) -> Result<SocketAddr, ServeError> {
    let bind = |source| ServeError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(bind)?;
    let bound = listener.local_addr().map_err(bind)?;
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Suffix("_batches".into()), &COUNTS)
        })
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| ServeError::Metrics { problem: error.to_string() })?;
    describe();
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            upkeep.run_upkeep();
        }
    });
    let metrics = get(async move || handle.render());
    let app = health::pages(health.clone()).route("/metrics", metrics);
    let pages = Routes::from(app).prepare();
    let transport = Transport::new(listener, door).at_most(LINKS_MAX);
    tokio::spawn(transport.serve(pages, std::future::pending()));
    Ok(bound)
}

fn describe() {
    use metrics::{
        describe_counter as counter, describe_gauge as gauge, describe_histogram as histogram,
    };
    counter!("access_ledger_appended_entries_total", "entries that became durable");
    counter!("access_ledger_refused_total", "calls that were refused, by reason");
    counter!("access_ledger_handshakes_failed_total", "connections without a valid TLS handshake");
    counter!("access_ledger_cosigned_total", "checkpoints that the witness signed");
    counter!("access_ledger_http_requests_total", "calls over plain HTTP, by status");
    histogram!("access_ledger_commit_seconds", "one write and data sync");
    histogram!("access_ledger_group_batches", "batches that shared one sync");
    gauge!(
        "access_ledger_identity_stale",
        "1 while changed certificates or principals are unusable"
    );
    gauge!("access_ledger_queue_bytes", "bytes that wait to be written");
    gauge!("access_ledger_repeat_bytes", "bytes of repeated batches that wait for their place");
    gauge!("access_ledger_size_entries", "entries under the newest checkpoint");
    gauge!("access_ledger_indexed_entries", "entries that the index covers");
    gauge!("access_ledger_disk_free_bytes", "free on the disk at the last group, with a reserve");
    counter!("access_ledger_scrubbed_bytes_total", "bytes of the log that were read again");
    counter!("access_ledger_scrub_passes_total", "times that the whole log was read again");
    gauge!("access_ledger_scrub_damaged_segments", "damaged segments that the last pass found");
    gauge!("access_ledger_cosigned_entries", "entries under the newest checkpoint with its quorum");
    gauge!("access_ledger_witness_entries", "entries that a witness has cosigned");
    gauge!("access_ledger_waiting_receipts", "batches whose receipts wait for cosignatures");
    histogram!("access_ledger_cosign_seconds", "one cosignature, from question to answer");
    counter!(
        "access_ledger_witness_failures_total",
        "questions to witnesses without a cosignature"
    );
    counter!("access_ledger_cosignatures_dropped_total", "cosignatures that do not verify");
    counter!("access_ledger_recorded_reads_total", "records of who read");
    gauge!(
        "access_ledger_unrecorded_reads",
        "answers that are not recorded yet though they are due"
    );
    counter!("access_ledger_alarms_total", "alarms that a custodian raised, by kind");
    counter!("access_ledger_verdicts_total", "verdicts on intended accesses, by decision");
    counter!("access_ledger_erased_events_total", "events whose bytes were overwritten");
    gauge!("access_ledger_custodian_behind_entries", "entries that a custodian does not hold yet");
    gauge!("access_ledger_custodian_behind_seconds", "for how long a custodian has been behind");
    gauge!("access_ledger_eraser_poisoned", "1 after a failed write of an erasure");
    counter!("access_ledger_trace_exports_failed_total", "exports of traces that failed");
    gauge!("access_ledger_writer_poisoned", "1 after a failed write or sync");
}

/// From a sync on a fast disk to one that hangs.
const SECONDS: [f64; 12] =
    [0.000_1, 0.000_2, 0.000_4, 0.000_8, 0.001_6, 0.003_2, 0.006_4, 0.012_8, 0.05, 0.2, 1.0, 5.0];

const COUNTS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 512.0, 2_048.0];

/// Connections of those who look at metrics.
const LINKS_MAX: usize = 256;

/// Histograms gather samples until someone folds them.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
