//! The running server: listeners, services, health, and an orderly stop.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use access_ledger_proto::wire::{
    FILE_DESCRIPTOR_SET, audit_service_server::AuditServiceServer,
    recorder_service_server::RecorderServiceServer,
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::watch,
};
use tonic::{Code, Status, body::Body, codegen::http, service::Routes};
use tonic_health::server::HealthReporter;
use tower::{Layer as _, util::MapResponseLayer};
use tracing::{info, warn};

use crate::{
    audit::Auditor,
    book::Book,
    error::ServeError,
    health::{self, Health, Unready},
    http::{Split, pages},
    identity::Door,
    ledger::{Ledger, Recorder, Shared, message_too_large},
    reads::{self, Reads},
    transport::Transport,
    witness::Witness,
    works::{GRPC_WORKS_MAX, Works},
};

/// The runtime that serves: `threads` threads for the network, by default half the processors, for
/// the writer and the disk need the rest. One thread takes no part in balancing work, which is
/// worth half as many unary calls again.
///
/// # Errors
///
/// When the system gives no threads.
pub fn runtime(threads: Option<usize>) -> io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.unwrap_or(processors / 2).max(1);
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads).enable_all().build()
}

/// A ledger or a custodian with its listener bound, ready to run.
pub struct Serving<T> {
    pub(crate) served: T,
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
    pub(crate) door: Arc<Door>,
    pub(crate) health: Arc<Health>,
    pub(crate) reads_window: Duration,
}

impl<T> Serving<T> {
    /// Binds the listener. Callers are accepted from here on and served once it runs: everybody, in
    /// the clear, unless [`Serving::behind`] puts a door before it.
    ///
    /// # Errors
    ///
    /// [`ServeError::Bind`] when the address is taken or not of this machine.
    pub async fn bind(served: T, address: SocketAddr) -> Result<Self, ServeError> {
        let bind = |source| ServeError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let (door, health) = (Door::for_everybody(), Health::new());
        Ok(Self { served, listener, address, door, health, reads_window: reads::WINDOW })
    }

    /// Lets callers in by this door alone.
    #[must_use]
    pub fn behind(self, door: Arc<Door>) -> Self {
        Self { door, ..self }
    }

    /// Tells there how what is served does.
    #[must_use]
    pub fn telling(self, health: Arc<Health>) -> Self {
        Self { health, ..self }
    }

    /// How what is served does.
    #[must_use]
    pub const fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Adds up reads for so long before they are recorded; 10 s by default.
    #[must_use]
    pub fn adding_up_reads(self, reads_window: Duration) -> Self {
        Self { reads_window, ..self }
    }

    /// The address that was bound.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether callers have to speak TLS.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.door.is_encrypted()
    }
}

impl Serving<Ledger> {
    /// The ledger that is served.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.served
    }

    /// Serves until `stop` resolves, then stops in order: no new calls, streams end, what waits is
    /// written and answered, the index is saved.
    ///
    /// # Errors
    ///
    /// [`ServeError::Reflection`] and [`ServeError::Signal`] when the services cannot be started.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        let shared = self.served.shared();
        let book = shared.book.clone();
        self.health.judge_by(health::of_book(&book));
        let (reads, keeper) = if self.door.has_principals() {
            let (reads, keeper) =
                Reads::start(shared.clone(), book.clock.clone(), self.reads_window);
            (reads, Some(keeper))
        } else {
            (Reads::off(), None)
        };
        let (recorder, health) = (Some(shared.clone()), self.health);
        let offer = Offer { book, recorder, witness: None, health, reads };
        let asking = self.served.ask_cosigners()?;
        let served = serve(self.listener, &self.door, offer, stop).await;
        // Behind the last answer.
        if let Some(keeper) = keeper {
            keeper.close().await;
        }
        served?;
        // Behind the last receipt, and before the folder is given up.
        if let Some(mut asking) = asking {
            asking.shutdown().await;
        }
        let ledger = self.served;
        // Joining threads blocks; the runtime's other tasks are over.
        if tokio::task::spawn_blocking(move || ledger.close()).await.is_err() {
            warn!("closing the ledger panicked");
        }
        info!("stopped");
        Ok(())
    }
}

/// What is served on one port.
pub(crate) struct Offer {
    /// For auditors, over gRPC and HTTP.
    pub(crate) book: Arc<Book>,
    /// What takes appends; a custodian takes none.
    pub(crate) recorder: Option<Arc<Shared>>,
    /// What cosigns; a ledger does not.
    pub(crate) witness: Option<Arc<Witness>>,
    /// How all of it does.
    pub(crate) health: Arc<Health>,
    /// What notes who reads.
    pub(crate) reads: Reads,
}

/// Serves until `stop` resolves, then lets the calls that are under way end.
///
/// # Errors
///
/// As [`Serving::run`].
pub(crate) async fn serve(
    listener: TcpListener,
    door: &Arc<Door>,
    offer: Offer,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    // It is open to anybody: nobody has to hold long messages for that.
    let health_service = health_service.max_decoding_message_size(HEALTH_BYTES_MAX);
    let (stopping, is_stopping) = watch::channel(false);
    let Offer { book, recorder, witness, health, reads } = offer;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let auditor = Auditor {
        book: book.clone(),
        stopping: is_stopping.clone(),
        reads: reads.clone(),
        works: Works::new(GRPC_WORKS_MAX),
    };
    let mut services = Routes::new(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(AuditServiceServer::new(auditor));
    let mut told = vec![OVERALL, AUDITOR, STORAGE];
    if let Some(shared) = recorder {
        let recorder =
            Recorder { shared, stopping: is_stopping, works: Works::new(GRPC_WORKS_MAX) };
        let recorder = RecorderServiceServer::new(recorder);
        services = services.add_service(recorder.max_decoding_message_size(MESSAGE_BYTES_MAX));
        told.push(RECORDER);
    }
    set_health(&reporter, &told, true).await;
    let report = Report { health, reporter, services: told, failed: book.failed() };
    tokio::spawn(report_damage(book.damaged(), report.reporter.clone()));

    let address = listener.local_addr().ok();
    let encrypted = door.is_encrypted();
    info!(?address, encrypted, origin = book.vkey.name(), "serving");
    let split = Split::new(services, pages(book, witness, reads));
    serve_until((split, listener, door), stop, (stopping, report)).await;
    Ok(())
}

async fn serve_until(
    (split, listener, door): (Split, TcpListener, &Arc<Door>),
    stop: impl Future<Output = ()> + Send,
    (stopping, report): (watch::Sender<bool>, Report),
) {
    let shutdown = async {
        let reporter = report.reporter.clone();
        let (health, services) = (report.health.clone(), report.services.clone());
        tokio::select! {
            () = stop => {}
            () = report.run() => {}
        }
        info!("stopping");
        health.stop();
        set_health(&reporter, &services, false).await;
        // Streams see it and end; unary calls that arrive meanwhile are still answered.
        stopping.send_replace(true);
        // Whoever watches the health has heard it; its stream would keep the server otherwise.
        forget_health(&reporter, &services).await;
    };
    let explained = MapResponseLayer::new(explain_large_message as ExplainResponse).layer(split);
    Transport::new(listener, door).serve(explained, shutdown).await;
}

/// Tells the health service of gRPC what `/readyz` tells: of the server as a whole, and of the
/// recorder. A ledger that takes no more appends still serves its auditors.
struct Report {
    health: Arc<Health>,
    reporter: HealthReporter,
    /// What is told of.
    services: Vec<&'static str>,
    failed: watch::Receiver<bool>,
}

impl Report {
    /// Tells every change, within a second; a failure at once. Never ends.
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        let mut told = [true; 2];
        loop {
            let is_watched = !*self.failed.borrow_and_update();
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = self.failed.changed(), if is_watched => {}
            }
            let hindrances = self.health.look().await;
            let can_record = !hindrances.iter().any(Unready::hinders_recording);
            let found = [hindrances.is_empty(), can_record];
            for ((service, is), was) in [OVERALL, RECORDER].into_iter().zip(found).zip(told) {
                if is != was && self.services.contains(&service) {
                    set_health(&self.reporter, &[service], is).await;
                }
            }
            if found[0] != told[0] {
                let reasons: Vec<_> = hindrances.iter().map(Unready::reason).collect();
                info!(?reasons, is_ready = found[0], "readiness changed");
            }
            told = found;
        }
    }
}

/// What is damaged on the disk is still served as long as it can be read; the operator must know.
async fn report_damage(mut damaged: watch::Receiver<Option<bool>>, health: HealthReporter) {
    while damaged.changed().await.is_ok() {
        let is_damaged = *damaged.borrow_and_update() == Some(true);
        set_health(&health, &[STORAGE], !is_damaged).await;
    }
}

type ExplainResponse = fn(http::Response<Body>) -> http::Response<Body>;

/// tonic refuses a message over the limit before any service sees it, and calls that OUT_OF_RANGE
/// without details. Callers are told what is wrong with it, as with every other bad input.
fn explain_large_message(response: http::Response<Body>) -> http::Response<Body> {
    let from_tonic = Status::from_header_map(response.headers())
        .is_some_and(|status| status.code() == Code::OutOfRange && status.details().is_empty());
    if from_tonic { Status::from(message_too_large()).into_http() } else { response }
}

async fn set_health(health: &HealthReporter, services: &[&str], is_serving: bool) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    let status = if is_serving { Serving } else { NotServing };
    for service in services {
        health.set_service_status(service, status).await;
    }
}

async fn forget_health(health: &HealthReporter, services: &[&str]) {
    let mut health = health.clone();
    for service in services {
        health.clear_service_status(service).await;
    }
}

/// Resolves on SIGTERM or SIGINT.
///
/// # Errors
///
/// [`ServeError::Signal`] when the system refuses a handler.
pub fn stop_signal() -> Result<impl Future<Output = ()> + Send, ServeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let signal = |kind| signal(kind).map_err(|source| ServeError::Signal { source });
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// What gRPC health calls the server as a whole.
const OVERALL: &str = "";

/// How often the health is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

const RECORDER: &str = "access_ledger.v1.RecorderService";

const AUDITOR: &str = "access_ledger.v1.AuditService";

/// No service: what is stored, as far as the scrub has read it.
const STORAGE: &str = "access_ledger.v1.Storage";

/// The name of a service, and room for what is around it.
const HEALTH_BYTES_MAX: usize = 1 << 10;

/// A batch's events, and room for what is around them. Larger messages are refused by tonic.
pub const MESSAGE_BYTES_MAX: usize = 6 << 20;
