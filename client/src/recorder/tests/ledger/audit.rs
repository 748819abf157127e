//! What a recorder asks the auditors' service for: where an event is.

use access_ledger_proto::wire::{self, audit_service_server::AuditService};
use tonic::{Request, Response, Status};

use super::{Appended, FakeLedger};

#[tonic::async_trait]
impl AuditService for FakeLedger {
    async fn get_receipt(
        &self,
        request: Request<wire::GetReceiptRequest>,
    ) -> Result<Response<wire::GetReceiptResponse>, Status> {
        let log = self.lock_up()?;
        let index = match request.into_inner().entry {
            Some(wire::get_receipt_request::Entry::Index(index)) => index,
            Some(wire::get_receipt_request::Entry::Position(at)) => {
                let batches = &log.sources[&at.source].batches;
                let lies = |batch: &&Appended| {
                    (batch.first_seq..batch.first_seq + batch.count as u64).contains(&at.seq)
                };
                let batch = batches.iter().find(lies);
                let batch = batch.ok_or_else(|| Status::not_found("no such number"))?;
                batch.first_index + at.seq - batch.first_seq
            }
            None => return Err(Status::invalid_argument("no entry")),
        };
        log.found(index).map(Response::new)
    }

    async fn get_checkpoint(
        &self,
        _: Request<wire::GetCheckpointRequest>,
    ) -> Result<Response<wire::GetCheckpointResponse>, Status> {
        Err(unused())
    }

    async fn read_entries(
        &self,
        request: Request<wire::ReadEntriesRequest>,
    ) -> Result<Response<tonic::codegen::BoxStream<wire::ReadEntriesResponse>>, Status> {
        let wire::ReadEntriesRequest { first_index, end_index, .. } = request.into_inner();
        assert_eq!((first_index, end_index), (0, 1), "no recorder reads anything but the genesis");
        let log = self.lock_up()?;
        let run = wire::EntryRun {
            first_index,
            entries: vec![log.entries[0].clone().into()],
            events: vec![log.sources[log.own.name()].events[0].clone()],
        };
        let answer = wire::ReadEntriesResponse { run: Some(run) };
        Ok(Response::new(Box::pin(futures_util::stream::iter([Ok(answer)]))))
    }

    async fn get_inclusion_proof(
        &self,
        _: Request<wire::GetInclusionProofRequest>,
    ) -> Result<Response<wire::GetInclusionProofResponse>, Status> {
        Err(unused())
    }

    async fn get_consistency_proof(
        &self,
        _: Request<wire::GetConsistencyProofRequest>,
    ) -> Result<Response<wire::GetConsistencyProofResponse>, Status> {
        Err(unused())
    }

    async fn watch(
        &self,
        _: Request<wire::WatchRequest>,
    ) -> Result<Response<tonic::codegen::BoxStream<wire::WatchResponse>>, Status> {
        Err(unused())
    }

    async fn get_source(
        &self,
        _: Request<wire::GetSourceRequest>,
    ) -> Result<Response<wire::GetSourceResponse>, Status> {
        Err(unused())
    }

    async fn list_sources(
        &self,
        _: Request<wire::ListSourcesRequest>,
    ) -> Result<Response<wire::ListSourcesResponse>, Status> {
        Err(unused())
    }
}

fn unused() -> Status {
    Status::unimplemented("no recorder asks for this")
}
