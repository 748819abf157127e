//! The service that the ledger is compared with: the same messages, the same transport, every event
//! decoded, and nothing done.

use std::future::Future;

use access_ledger_proto::wire::{
    self,
    recorder_service_server::{RecorderService, RecorderServiceServer},
};
use access_ledger_server::{identity::Door, serve, transport::Transport};
use futures_util::StreamExt as _;
use prost::Message as _;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, Streaming, service::Routes};

/// Serves until `stop` resolves.
pub(super) async fn serve(listener: TcpListener, stop: impl Future<Output = ()>) {
    let service =
        RecorderServiceServer::new(Echo).max_decoding_message_size(serve::MESSAGE_BYTES_MAX);
    let transport = Transport::new(listener, &Door::for_everybody());
    transport.serve(Routes::new(service).prepare(), stop).await;
}

struct Echo;

fn answer(request: &wire::AppendRequest) -> Result<wire::AppendResponse, Status> {
    for event in request.batch.iter().flat_map(|batch| &batch.events) {
        let event = wire::Event::decode(event.clone());
        let event = event.map_err(|error| Status::invalid_argument(error.to_string()))?;
        // Or else the compiler may find that nobody looks at it.
        std::hint::black_box(event);
    }
    Ok(wire::AppendResponse::default())
}

#[tonic::async_trait]
impl RecorderService for Echo {
    async fn append(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::AppendResponse>, Status> {
        answer(request.get_ref()).map(Response::new)
    }

    async fn append_stream(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<tonic::codegen::BoxStream<wire::AppendResponse>>, Status> {
        let answers = request.into_inner().map(|request| answer(&request?));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn enroll(
        &self,
        _: Request<wire::EnrollRequest>,
    ) -> Result<Response<wire::EnrollResponse>, Status> {
        Err(Status::unimplemented("an echo enrolls nobody"))
    }

    async fn get_source_state(
        &self,
        _: Request<wire::GetSourceStateRequest>,
    ) -> Result<Response<wire::GetSourceStateResponse>, Status> {
        Err(Status::unimplemented("an echo knows nobody"))
    }
}
