//! A ledger's operator who serves whatever it likes, with proofs and signatures made to fit.

use std::{pin::Pin, sync::Arc};

use access_ledger_proto::{
    checkpoint::Checkpoint,
    hash::{Digest, leaf_hash},
    note::Signer,
    position::{Size, count_of, memory_len},
    proof::{NodeSource, consistency_path},
    tree::{Node, root_of},
    wire::{
        self,
        audit_service_server::{AuditService, AuditServiceServer},
    },
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use crate::{
    serve::{incoming, transport},
    storage::Record,
};

/// Serves these records as a log, under the ledger's real key.
#[derive(Clone)]
pub(crate) struct Liar {
    records: Arc<Vec<Record>>,
    leaves: Arc<Leaves>,
    checkpoint: Bytes,
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
    pub(crate) fn new(records: Vec<Record>, key: &Signer) -> anyhow::Result<Self> {
        let leaves: Vec<_> = records.iter().map(|record| leaf_hash(&record.entry)).collect();
        let size = Size(count_of(leaves.len()));
        let checkpoint = Checkpoint::new(key.name(), size, root_of(&leaves))?.sign(key)?.into();
        Ok(Self { records: Arc::new(records), leaves: Arc::new(Leaves(leaves)), checkpoint })
    }

    /// Serves until dropped.
    pub(crate) async fn serve(self, listener: TcpListener) -> Result<(), tonic::transport::Error> {
        let service = AuditServiceServer::new(self);
        transport().add_service(service).serve_with_incoming(incoming(listener)).await
    }
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

    type ReadEntriesStream = Runs;

    async fn read_entries(
        &self,
        request: Request<wire::ReadEntriesRequest>,
    ) -> Result<Response<Runs>, Status> {
        let request = request.into_inner();
        let end = match request.end_index {
            0 => self.records.len(),
            end => memory_len(end).unwrap_or(usize::MAX).min(self.records.len()),
        };
        let first = memory_len(request.first_index).unwrap_or(usize::MAX).min(end);
        let records = self.records.clone();
        let runs = (first..end).step_by(RUN_ENTRIES).map(move |from| {
            let run = records.get(from..end.min(from + RUN_ENTRIES)).unwrap_or_default();
            let run = wire::EntryRun {
                first_index: count_of(from),
                entries: run.iter().map(|record| record.entry.clone()).collect(),
                events: run.iter().map(|record| record.event.clone().unwrap_or_default()).collect(),
            };
            Ok(wire::ReadEntriesResponse { run: Some(run) })
        });
        Ok(Response::new(Box::pin(stream::iter(runs))))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<wire::GetConsistencyProofRequest>,
    ) -> Result<Response<wire::GetConsistencyProofResponse>, Status> {
        let request = request.into_inner();
        let new = Size(request.new_size);
        let path = consistency_path(&*self.leaves, Size(request.old_size), new)
            .map_err(|_| Status::out_of_range("beyond the tree"))?;
        let path = path.iter().map(|hash| Bytes::copy_from_slice(hash.as_bytes())).collect();
        Ok(Response::new(wire::GetConsistencyProofResponse { path, new_size: new.0 }))
    }

    async fn get_inclusion_proof(
        &self,
        _: Request<wire::GetInclusionProofRequest>,
    ) -> Result<Response<wire::GetInclusionProofResponse>, Status> {
        Err(silent())
    }

    async fn get_receipt(
        &self,
        _: Request<wire::GetReceiptRequest>,
    ) -> Result<Response<wire::GetReceiptResponse>, Status> {
        Err(silent())
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<wire::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
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
