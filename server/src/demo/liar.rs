//! A ledger's operator who serves whatever it likes, with proofs and signatures made to fit.

use std::{pin::Pin, sync::Arc};

use access_ledger_proto::{
    checkpoint::Checkpoint,
    hash::{Digest, leaf_hash},
    note::Signer,
    position::{Index, Size, count_of, memory_len},
    proof::{NodeSource, consistency_path, inclusion_path},
    tree::{Node, root_of},
    wire::{
        self,
        audit_service_server::{AuditService, AuditServiceServer},
    },
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, service::Routes};

use crate::{identity::Door, storage::Record, transport::Transport};

/// Serves these records as a log, under the ledger's real key. Cloning is cheap.
#[derive(Clone)]
pub struct Liar {
    records: Arc<Vec<Record>>,
    leaves: Arc<Leaves>,
    checkpoint: Bytes,
    run_entries: usize,
}

/// A tree in memory.
struct Leaves(Vec<Digest>);

/// A node beyond the leaves.
#[derive(Debug)]
struct Beyond;

impl NodeSource for Leaves {
    type Error = Beyond;

    fn node(&self, node: Node) -> Result<Digest, Beyond> {
        let place = |index: u64| index.checked_shl(node.level.into()).and_then(memory_len);
        let range = (place(node.index).zip(place(node.index + 1))).map(|(from, to)| from..to);
        range.and_then(|range| self.0.get(range)).map(root_of).ok_or(Beyond)
    }
}

impl Liar {
    /// Signs the tree of these records with the ledger's key.
    ///
    /// # Errors
    ///
    /// When the key's name cannot be an origin.
    pub fn new(records: Vec<Record>, key: &Signer) -> anyhow::Result<Self> {
        let leaves: Vec<_> = records.iter().map(|record| leaf_hash(&record.entry)).collect();
        let size = Size(count_of(leaves.len()));
        let checkpoint = Checkpoint::new(key.name(), size, root_of(&leaves))?.sign(key)?.into();
        let (records, leaves) = (Arc::new(records), Arc::new(Leaves(leaves)));
        Ok(Self { records, leaves, checkpoint, run_entries: RUN_ENTRIES })
    }

    /// Sends so many entries in one message.
    #[must_use]
    pub fn with_run_entries(mut self, entries: usize) -> Self {
        self.run_entries = entries.max(1);
        self
    }

    /// How many records there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        count_of(self.records.len())
    }

    /// The note over all records.
    #[must_use]
    pub const fn checkpoint(&self) -> &Bytes {
        &self.checkpoint
    }

    /// The runs that answer a request, as far as there are records.
    pub fn runs(
        &self,
        request: &wire::ReadEntriesRequest,
    ) -> impl Iterator<Item = wire::EntryRun> + Send + use<> {
        let end = match request.end_index {
            0 => self.records.len(),
            end => memory_len(end).unwrap_or(usize::MAX).min(self.records.len()),
        };
        let first = memory_len(request.first_index).unwrap_or(usize::MAX).min(end);
        let (liar, with_events) = (self.clone(), request.with_events);
        (first..end).step_by(self.run_entries).map(move |from| {
            let to = end.min(from.saturating_add(liar.run_entries));
            let run = liar.records.get(from..to).unwrap_or_default();
            let event = |record: &Record| record.event.clone().unwrap_or_default();
            let events = run.iter().filter(|_| with_events).map(event);
            wire::EntryRun {
                first_index: count_of(from),
                entries: run.iter().map(|record| record.entry.clone()).collect(),
                events: events.collect(),
            }
        })
    }

    /// That one size of this tree continues another.
    ///
    /// # Errors
    ///
    /// `OUT_OF_RANGE` beyond the tree.
    pub fn consistency_path(&self, old: u64, new: u64) -> Result<Vec<Bytes>, Status> {
        let path = consistency_path(&*self.leaves, Size(old), Size(new));
        path.map(hashes).map_err(|_| beyond())
    }

    /// That an entry lies in the tree of a size.
    ///
    /// # Errors
    ///
    /// `OUT_OF_RANGE` beyond the tree.
    pub fn inclusion_path(&self, index: u64, size: u64) -> Result<Vec<Bytes>, Status> {
        let path = inclusion_path(&*self.leaves, Index(index), Size(size));
        path.map(hashes).map_err(|_| beyond())
    }

    /// Serves until dropped.
    pub async fn serve(self, listener: TcpListener) {
        let service = Routes::new(AuditServiceServer::new(self)).prepare();
        Transport::new(listener, &Door::for_everybody())
            .serve(service, std::future::pending())
            .await;
    }
}

fn hashes(path: Vec<Digest>) -> Vec<Bytes> {
    path.iter().map(|hash| Bytes::copy_from_slice(hash.as_bytes())).collect()
}

fn beyond() -> Status {
    Status::out_of_range("beyond the tree")
}

type Runs = Pin<Box<dyn Stream<Item = Result<wire::ReadEntriesResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AuditService for Liar {
    async fn get_checkpoint(
        &self,
        _: Request<wire::GetCheckpointRequest>,
    ) -> Result<Response<wire::GetCheckpointResponse>, Status> {
        let checkpoint = self.checkpoint.clone();
        Ok(Response::new(wire::GetCheckpointResponse { checkpoint }))
    }

    async fn read_entries(
        &self,
        request: Request<wire::ReadEntriesRequest>,
    ) -> Result<Response<Runs>, Status> {
        let runs = self.runs(&request.into_inner());
        let runs = runs.map(|run| Ok(wire::ReadEntriesResponse { run: Some(run) }));
        Ok(Response::new(Box::pin(stream::iter(runs))))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<wire::GetConsistencyProofRequest>,
    ) -> Result<Response<wire::GetConsistencyProofResponse>, Status> {
        let wire::GetConsistencyProofRequest { old_size, new_size } = request.into_inner();
        let path = self.consistency_path(old_size, new_size)?;
        Ok(Response::new(wire::GetConsistencyProofResponse { path, new_size }))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<wire::GetInclusionProofRequest>,
    ) -> Result<Response<wire::GetInclusionProofResponse>, Status> {
        let wire::GetInclusionProofRequest { index, tree_size } = request.into_inner();
        let path = self.inclusion_path(index, tree_size)?;
        Ok(Response::new(wire::GetInclusionProofResponse { path, tree_size }))
    }

    async fn get_receipt(
        &self,
        _: Request<wire::GetReceiptRequest>,
    ) -> Result<Response<wire::GetReceiptResponse>, Status> {
        Err(silent())
    }

    async fn watch(
        &self,
        _: Request<wire::WatchRequest>,
    ) -> Result<Response<tonic::codegen::BoxStream<wire::WatchResponse>>, Status> {
        Err(silent())
    }

    async fn get_source(
        &self,
        _: Request<wire::GetSourceRequest>,
    ) -> Result<Response<wire::GetSourceResponse>, Status> {
        Err(silent())
    }

    async fn list_sources(
        &self,
        _: Request<wire::ListSourcesRequest>,
    ) -> Result<Response<wire::ListSourcesResponse>, Status> {
        Err(silent())
    }
}

/// What an audit does not ask for.
fn silent() -> Status {
    Status::unimplemented("not part of the demonstration")
}

/// As many as an honest server sends at once.
const RUN_ENTRIES: usize = 1_024;
