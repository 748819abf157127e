//! A ledger in this process, served over gRPC on a free port of loopback.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use access_ledger_client::connect::{Credentials, Link};
use access_ledger_proto::{
    note::VerifierKey,
    wire::{
        self, audit_service_client::AuditServiceClient,
        recorder_service_client::RecorderServiceClient,
    },
};
use access_ledger_server::{
    error::LedgerError,
    folder::{Folder, Genesis},
    health::Health,
    identity::Door,
    ledger::{Ledger, LedgerOptions},
    os::{Clock, Disk, Lock, RealDisk, SystemClock},
    serve::Serving,
};
use anyhow::Context as _;
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::{Status, transport::Channel};

use crate::source::{Place, Sealed, Source};

/// How to start a ledger.
#[derive(Clone)]
pub struct Setup {
    /// Folder and limits.
    pub options: LedgerOptions,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Whether sources may enrol themselves, when the ledger is new.
    pub self_enrolment: bool,
    /// Who may call.
    pub door: Arc<Door>,
    /// What the node's own clients show.
    pub credentials: Credentials,
    /// How long reads are added up: as a rule, longer than a test takes.
    pub reads_window: Duration,
}

/// A ledger that runs.
pub struct Node {
    /// Where it listens.
    pub address: SocketAddr,
    /// The same as clients write it.
    pub url: String,
    /// Its verifier key.
    pub vkey: VerifierKey,
    /// How it does.
    pub health: Arc<Health>,
    clients: Clients,
    stop: oneshot::Sender<()>,
    run: JoinHandle<anyhow::Result<()>>,
}

/// Both services of a ledger, over one connection.
#[derive(Clone, Debug)]
pub struct Clients {
    /// `RecorderService`.
    pub recorder: RecorderServiceClient<Link>,
    /// `AuditService`.
    pub auditor: AuditServiceClient<Link>,
    /// The connection, for other services.
    pub channel: Link,
}

impl Setup {
    /// A new ledger on the real disk, where sources may enrol themselves.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            options: LedgerOptions::new(folder),
            disk: Arc::new(RealDisk),
            clock: Arc::new(SystemClock),
            self_enrolment: true,
            door: Door::for_everybody(),
            credentials: Credentials::default(),
            reads_window: Duration::from_secs(600),
        }
    }

    /// Opens the ledger, and makes it first if there is none.
    ///
    /// # Errors
    ///
    /// As [`Ledger::init`] and [`Ledger::open`].
    pub fn open(&self) -> Result<Ledger, LedgerError> {
        let folder = Folder::new(&self.options.folder);
        RealDisk
            .create_dir(folder.root())
            .map_err(|source| LedgerError::Io { path: folder.root().to_owned(), source })?;
        let lock = Lock::acquire(&folder.lock())
            .map_err(|_| LedgerError::Locked { folder: folder.root().to_owned() })?;
        if folder.origin(&*self.disk)?.is_none() {
            let self_enrolment = self.self_enrolment;
            let genesis = Genesis { self_enrolment, ..Genesis::new(ORIGIN) };
            Ledger::init(&self.options, &self.disk, &self.clock, &genesis)?;
        }
        Ledger::open(&self.options, &self.disk, &self.clock, Some(lock))
    }

    /// Opens the ledger and serves it.
    ///
    /// # Errors
    ///
    /// As [`Setup::open`], and when no port can be bound.
    pub async fn start(&self) -> anyhow::Result<Node> {
        let setup = self.clone();
        let ledger = tokio::task::spawn_blocking(move || setup.open()).await??;
        let serving = Serving::bind(ledger, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let serving = serving.behind(self.door.clone()).adding_up_reads(self.reads_window);
        let scheme = if self.door.is_encrypted() { "https" } else { "http" };
        let url = format!("{scheme}://{}", serving.address());
        let (address, vkey) = (serving.address(), serving.ledger().vkey().clone());
        let health = serving.health().clone();
        let (stop, stopped) = oneshot::channel();
        let run = tokio::spawn(async move {
            // Dropping the sender stops as well.
            let stop = async move { drop(stopped.await) };
            Ok(serving.run(stop).await?)
        });
        let clients = Clients::over(self.credentials.reach(&url).await?);
        Ok(Node { address, url, vkey, health, clients, stop, run })
    }
}

impl Node {
    /// Starts a new ledger in a folder, or the one that is there.
    ///
    /// # Errors
    ///
    /// As [`Setup::start`].
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        Setup::new(folder).start().await
    }

    /// Clients of this ledger.
    #[must_use]
    pub fn clients(&self) -> Clients {
        self.clients.clone()
    }

    /// Stops in order, and waits until the folder is free again.
    ///
    /// # Errors
    ///
    /// When serving failed.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Self { clients, stop, run, .. } = self;
        drop((clients, stop));
        run.await?
    }

    /// Tells the ledger to stop; [`Stopping::finish`] waits for it.
    #[must_use]
    pub fn begin_stop(self) -> Stopping {
        drop(self.stop);
        Stopping { run: self.run }
    }
}

/// A ledger that was told to stop.
pub struct Stopping {
    run: JoinHandle<anyhow::Result<()>>,
}

impl Stopping {
    /// Waits until it stopped.
    ///
    /// # Errors
    ///
    /// When serving failed.
    pub async fn finish(self) -> anyhow::Result<()> {
        self.run.await?
    }
}

impl Clients {
    /// Connects to a ledger.
    ///
    /// # Errors
    ///
    /// When nobody listens there.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let endpoint = Channel::from_shared(format!("http://{address}"))?;
        let channel = endpoint.connect().await.with_context(|| format!("connect to {address}"))?;
        Ok(Self::over(channel))
    }

    /// Clients over a connection.
    #[must_use]
    pub fn over(channel: impl Into<Link>) -> Self {
        let channel = channel.into();
        Self {
            recorder: RecorderServiceClient::new(channel.clone()),
            auditor: AuditServiceClient::new(channel.clone()),
            channel,
        }
    }

    /// Sends a batch.
    ///
    /// # Errors
    ///
    /// The ledger's refusal.
    pub async fn append(&self, sealed: &Sealed) -> Result<wire::AppendResponse, Status> {
        let answer = self.recorder.clone().append(sealed.request()).await;
        answer.map(tonic::Response::into_inner)
    }

    /// Sends a batch that must be recorded; gives the place that its receipt proves.
    ///
    /// # Errors
    ///
    /// When the ledger refuses it, or the receipt does not hold.
    pub async fn record(&self, sealed: &Sealed) -> anyhow::Result<Place> {
        sealed.place(&self.append(sealed).await?)
    }

    /// Sends a batch that must be refused.
    ///
    /// # Errors
    ///
    /// When the ledger takes it.
    pub async fn refused(
        &self,
        batch: wire::SealedBatch,
    ) -> anyhow::Result<crate::source::Refused> {
        let request = wire::AppendRequest { batch: Some(batch) };
        let answer = self.recorder.clone().append(request).await;
        let status = answer.err().context("the ledger took what it must refuse")?;
        Ok(crate::source::Refused::of(&status))
    }

    /// A new source that enrolled itself.
    ///
    /// # Errors
    ///
    /// When the ledger refuses it.
    pub async fn enrolled(
        &self,
        name: &str,
        seed: u64,
        vkey: &VerifierKey,
    ) -> anyhow::Result<Source> {
        let source = Source::new(name, seed, vkey)?;
        self.recorder.clone().enroll(source.enrolment()).await?;
        Ok(source)
    }

    /// The size under the newest checkpoint, as the ledger says.
    ///
    /// # Errors
    ///
    /// When the checkpoint is not this ledger's.
    pub async fn size(&self, vkey: &VerifierKey) -> anyhow::Result<u64> {
        use access_ledger_proto::checkpoint::VerifiedCheckpoint;
        let answer =
            self.auditor.clone().get_checkpoint(wire::GetCheckpointRequest::default()).await?;
        let note = answer.into_inner().checkpoint;
        Ok(VerifiedCheckpoint::open(&note, vkey, &[])?.size().0)
    }

    /// Waits until the ledger has answered a call, so that what was sent before on this connection
    /// has most likely been read. Tests get sharper by it; none depends on it.
    pub async fn settled(&self) {
        let call = self.auditor.clone().get_checkpoint(wire::GetCheckpointRequest::default()).await;
        drop(call);
    }

    /// The last number of a source, as the ledger says.
    ///
    /// # Errors
    ///
    /// When there is no such source.
    pub async fn last_seq(&self, source: &str) -> anyhow::Result<u64> {
        let request = wire::GetSourceStateRequest { source: source.to_owned() };
        Ok(self.recorder.clone().get_source_state(request).await?.into_inner().last_seq)
    }
}

/// The name of the ledgers of the tests.
pub const ORIGIN: &str = "ledger.example/tests";
