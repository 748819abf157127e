//! A server that answers as a test says, and a network that breaks where a test says.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use access_ledger_client::{
    audit::{AuditError, AuditOptions, Audited, audit},
    connect,
    evidence::Caught,
    pull::{Patience, Puller},
    verify::Scope,
    view::View,
};
use access_ledger_proto::{
    position::{count_of, memory_len},
    quorum::Quorum,
    wire::{
        self,
        audit_service_server::{AuditService, AuditServiceServer},
    },
};
use access_ledger_server::demo::liar::Liar;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Runs on their way to an auditor.
pub type Runs = Pin<Box<dyn Stream<Item = Result<wire::EntryRun, Status>> + Send>>;

type OnRuns<Q> = Box<dyn Fn(usize, &Q, Vec<wire::EntryRun>) -> Runs + Send + Sync>;
type OnCheckpoint = Box<dyn Fn(usize, Bytes) -> Result<Bytes, Status> + Send + Sync>;
type OnPath = Box<dyn Fn(Path) -> Path + Send + Sync>;

/// The hashes of a proof, or a refusal.
pub type Path = Result<Vec<Bytes>, Status>;

/// A server that answers as a test says: each hook is given the number of the call, from 0 on, and
/// what an honest server of these records would answer.
pub struct Hostile {
    liar: Liar,
    on_checkpoint: OnCheckpoint,
    on_read: OnRuns<wire::ReadEntriesRequest>,
    on_watch: OnRuns<wire::WatchRequest>,
    on_consistency: OnPath,
    asked: Arc<Asked>,
}

/// What was asked for.
#[derive(Default)]
pub struct Asked {
    checkpoints: AtomicUsize,
    watches: AtomicUsize,
    reads: Mutex<Vec<(u64, u64)>>,
}

impl Asked {
    /// First index and end of every call of `ReadEntries`.
    #[must_use]
    pub fn reads(&self) -> Vec<(u64, u64)> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often `GetCheckpoint` was called.
    #[must_use]
    pub fn checkpoints(&self) -> usize {
        self.checkpoints.load(Ordering::Relaxed)
    }

    /// How often `Watch` was called.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.watches.load(Ordering::Relaxed)
    }
}

/// All runs, and the end.
#[must_use]
pub fn whole(runs: Vec<wire::EntryRun>) -> Runs {
    Box::pin(stream::iter(runs.into_iter().map(Ok)))
}

/// The same, each in a frame of its own, so that a connection may break between any two.
#[must_use]
pub fn paced(runs: Vec<wire::EntryRun>) -> Runs {
    Box::pin(whole(runs).then(async |run| {
        tokio::task::yield_now().await;
        run
    }))
}

/// All runs, and a status instead of the end.
#[must_use]
pub fn broken(runs: Vec<wire::EntryRun>, status: Status) -> Runs {
    Box::pin(whole(runs).chain(stream::iter([Err(status)])))
}

/// All runs, and then nothing, for ever.
#[must_use]
pub fn silent(runs: Vec<wire::EntryRun>) -> Runs {
    Box::pin(whole(runs).chain(stream::pending()))
}

impl Hostile {
    /// Answers everything as it is.
    #[must_use]
    pub fn new(liar: Liar) -> Self {
        Self {
            liar,
            on_checkpoint: Box::new(|_, note| Ok(note)),
            on_read: Box::new(|_, _, runs| whole(runs)),
            on_watch: Box::new(|_, _, runs| silent(runs)),
            on_consistency: Box::new(|path| path),
            asked: Arc::default(),
        }
    }

    /// Changes the notes that `GetCheckpoint` answers and that `Watch` brings; for those of `Watch`
    /// the number is `usize::MAX`.
    #[must_use]
    pub fn checkpoint(
        mut self,
        hook: impl Fn(usize, Bytes) -> Result<Bytes, Status> + Send + Sync + 'static,
    ) -> Self {
        self.on_checkpoint = Box::new(hook);
        self
    }

    /// Changes the answers of `ReadEntries`.
    #[must_use]
    pub fn read(
        mut self,
        hook: impl Fn(usize, &wire::ReadEntriesRequest, Vec<wire::EntryRun>) -> Runs
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.on_read = Box::new(hook);
        self
    }

    /// Changes the answers of `Watch`.
    #[must_use]
    pub fn watch<H>(mut self, hook: H) -> Self
    where
        H: Fn(usize, &wire::WatchRequest, Vec<wire::EntryRun>) -> Runs + Send + Sync + 'static,
    {
        self.on_watch = Box::new(hook);
        self
    }

    /// Changes the answers of `GetConsistencyProof`.
    #[must_use]
    pub fn consistency(mut self, hook: impl Fn(Path) -> Path + Send + Sync + 'static) -> Self {
        self.on_consistency = Box::new(hook);
        self
    }
}

/// A server that runs until it is dropped.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it was asked for.
    pub asked: Arc<Asked>,
    run: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.run.abort();
    }
}

impl Server {
    /// Starts it on a free port of loopback.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn start(hostile: impl Into<Arc<Hostile>>) -> anyhow::Result<Self> {
        let hostile = hostile.into();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, asked) = (listener.local_addr()?, Arc::clone(&hostile.asked));
        let service = AuditServiceServer::from_arc(hostile);
        let run = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(service);
            // The test sees that nobody answers.
            drop(server.serve_with_incoming(incoming).await);
        });
        Ok(Self { address, asked, run })
    }

    /// A relay before it that cuts each connection after so many bytes of answers.
    ///
    /// # Errors
    ///
    /// When no port is free.
    pub async fn behind_cuts(&self, bytes: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, behind) = (listener.local_addr()?, self.address);
        let run = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(relay(near, behind, bytes));
            }
        });
        Ok(Self { address, asked: Arc::clone(&self.asked), run })
    }

    /// Pulls from it with little patience.
    ///
    /// # Errors
    ///
    /// Never for an address of this kind.
    pub fn puller(&self) -> anyhow::Result<Puller> {
        let channel = connect::channel(&format!("http://{}", self.address))?;
        Ok(Puller::new(channel).with_patience(PATIENCE))
    }

    /// Audits it against a view.
    ///
    /// # Errors
    ///
    /// As [`audit`].
    pub async fn audit(&self, view: &mut View) -> Result<Audited, AuditError> {
        self.audit_with(view, &options()).await
    }

    /// The same in another way.
    ///
    /// # Errors
    ///
    /// As [`audit`].
    pub async fn audit_with(
        &self,
        view: &mut View,
        options: &AuditOptions,
    ) -> Result<Audited, AuditError> {
        let channel = connect::channel(&format!("http://{}", self.address));
        // An address always makes a channel.
        let channel = channel.map_err(|_| AuditError::CutOff)?;
        let puller = Puller::new(channel).with_patience(PATIENCE);
        audit(&puller, view, options, Arc::new(|_, _| ())).await
    }

    /// What an audit must catch it at.
    ///
    /// # Errors
    ///
    /// When it is found in order, or cannot be audited.
    pub async fn caught(&self, view: &mut View) -> anyhow::Result<Caught> {
        match self.audit(view).await {
            Ok(audited) => anyhow::bail!("found in order at size {}", audited.checkpoint.size()),
            Err(AuditError::Caught(caught)) => Ok(*caught),
            Err(error) => Err(error.into()),
        }
    }
}

/// A cable with its far end in the operator's hands: whoever is connected is cut off when it is
/// plugged elsewhere.
pub struct Cable {
    /// Where the near end listens.
    pub address: SocketAddr,
    far: watch::Sender<SocketAddr>,
    run: JoinHandle<()>,
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.run.abort();
    }
}

impl Cable {
    /// A cable to a server.
    ///
    /// # Errors
    ///
    /// When no port is free.
    pub async fn to(server: &Server) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, far) = (listener.local_addr()?, watch::Sender::new(server.address));
        let plugged = far.subscribe();
        let run = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut plugged = plugged.clone();
                let address = *plugged.borrow_and_update();
                tokio::spawn(async move {
                    let copy = async {
                        let mut far = TcpStream::connect(address).await?;
                        tokio::io::copy_bidirectional(&mut near, &mut far).await
                    };
                    // Whoever is cut off sees that; there is nobody else to tell.
                    tokio::select! {
                        _ = copy => {}
                        _ = plugged.changed() => {}
                    }
                });
            }
        });
        Ok(Self { address, far, run })
    }

    /// Plugs the far end into a server, the same one too.
    pub fn plug(&self, server: &Server) {
        self.far.send_replace(server.address);
    }
}

/// From the pin on, events and all.
#[must_use]
pub fn options() -> AuditOptions {
    AuditOptions { scope: Scope::Events, full: false, quorum: Quorum::default() }
}

/// Copies both ways, and drops both sides after so many bytes from behind.
async fn relay(mut near: TcpStream, behind: SocketAddr, bytes: u64) {
    let Ok(mut far) = TcpStream::connect(behind).await else { return };
    let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.split(), far.split());
    let answers = async {
        let mut left = bytes;
        let mut buffer = [0; 512];
        while left > 0 {
            let most = memory_len(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let Some(room) = buffer.get_mut(..most) else { return };
            let Ok(read @ 1..) = from_far.read(room).await else { return };
            let Some(answer) = buffer.get(..read) else { return };
            if to_near.write_all(answer).await.is_err() {
                return;
            }
            left -= count_of(read);
        }
    };
    let questions = tokio::io::copy(&mut from_near, &mut to_far);
    tokio::select! {
        () = answers => {}
        _ = questions => {}
    }
    // What was sent arrives; a reset would take it back.
    if to_near.shutdown().await.is_ok() {
        drop(tokio::io::copy(&mut from_near, &mut tokio::io::sink()).await);
    }
}

#[tonic::async_trait]
impl AuditService for Hostile {
    async fn get_checkpoint(
        &self,
        _: Request<wire::GetCheckpointRequest>,
    ) -> Result<Response<wire::GetCheckpointResponse>, Status> {
        let call = self.asked.checkpoints.fetch_add(1, Ordering::Relaxed);
        let checkpoint = (self.on_checkpoint)(call, self.liar.checkpoint().clone())?;
        Ok(Response::new(wire::GetCheckpointResponse { checkpoint }))
    }

    async fn read_entries(
        &self,
        request: Request<wire::ReadEntriesRequest>,
    ) -> Result<Response<tonic::codegen::BoxStream<wire::ReadEntriesResponse>>, Status> {
        let request = request.into_inner();
        let call = {
            let mut reads = self.asked.reads.lock().unwrap_or_else(PoisonError::into_inner);
            reads.push((request.first_index, request.end_index));
            reads.len() - 1
        };
        let runs = (self.on_read)(call, &request, self.liar.runs(&request).collect());
        let runs = runs.map(|run| Ok(wire::ReadEntriesResponse { run: Some(run?) }));
        Ok(Response::new(Box::pin(runs)))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<wire::GetInclusionProofRequest>,
    ) -> Result<Response<wire::GetInclusionProofResponse>, Status> {
        let wire::GetInclusionProofRequest { index, tree_size } = request.into_inner();
        let path = self.liar.inclusion_path(index, tree_size)?;
        Ok(Response::new(wire::GetInclusionProofResponse { path, tree_size }))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<wire::GetConsistencyProofRequest>,
    ) -> Result<Response<wire::GetConsistencyProofResponse>, Status> {
        let wire::GetConsistencyProofRequest { old_size, new_size } = request.into_inner();
        let path = (self.on_consistency)(self.liar.consistency_path(old_size, new_size))?;
        Ok(Response::new(wire::GetConsistencyProofResponse { path, new_size }))
    }

    async fn get_receipt(
        &self,
        _: Request<wire::GetReceiptRequest>,
    ) -> Result<Response<wire::GetReceiptResponse>, Status> {
        Err(Status::unimplemented("no audit asks for it"))
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<tonic::codegen::BoxStream<wire::WatchResponse>>, Status> {
        let request = request.into_inner();
        let call = self.asked.watches.fetch_add(1, Ordering::Relaxed);
        let wire::WatchRequest { first_index, with_events } = request;
        let read = wire::ReadEntriesRequest { first_index, end_index: 0, with_events };
        let runs = (self.on_watch)(call, &request, self.liar.runs(&read).collect());
        let (size, checkpoint) = (self.liar.size(), self.liar.checkpoint().clone());
        let checkpoint = (self.on_checkpoint)(usize::MAX, checkpoint).unwrap_or_default();
        // The last run of all comes with the note that covers them.
        let note = move |run: wire::EntryRun| {
            let end = run.first_index.saturating_add(count_of(run.entries.len()));
            let checkpoint = if end == size { checkpoint.clone() } else { Bytes::new() };
            wire::WatchResponse { run: Some(run), checkpoint }
        };
        Ok(Response::new(Box::pin(runs.map(move |run| run.map(&note)))))
    }

    async fn get_source(
        &self,
        _: Request<wire::GetSourceRequest>,
    ) -> Result<Response<wire::GetSourceResponse>, Status> {
        Err(Status::unimplemented("no audit asks for it"))
    }

    async fn list_sources(
        &self,
        _: Request<wire::ListSourcesRequest>,
    ) -> Result<Response<wire::ListSourcesResponse>, Status> {
        Err(Status::unimplemented("no audit asks for it"))
    }
}

/// Tests wait for no restart.
pub const PATIENCE: Patience =
    Patience { answer: Duration::from_millis(1_500), repeat: Duration::from_millis(600) };
