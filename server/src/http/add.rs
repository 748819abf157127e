//! The witness calls: `add-checkpoint`, with each status of formats.md, section 8.

use std::time::Duration;

use access_ledger_proto::witness::{AddCheckpoint, SIZE_TYPE};
use axum::{
    body::Body,
    http::{
        Response, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tracing::warn;

use super::answer::{TEXT, refuse, response};
use crate::witness::{AddRefusal, Witness};

/// Reads a body of bounded length in bounded time; the response is the refusal.
pub(super) async fn read_body(body: Body, time: Duration) -> Result<Bytes, Response<Body>> {
    tokio::time::timeout(time, gather(body))
        .await
        .unwrap_or_else(|_| Err(refuse(StatusCode::REQUEST_TIMEOUT, "the body takes too long")))
}

async fn gather(body: Body) -> Result<Bytes, Response<Body>> {
    let mut stream = body.into_data_stream();
    let mut gathered = BytesMut::new();
    while let Some(part) = stream.next().await {
        let part = part.map_err(|error| refuse(StatusCode::BAD_REQUEST, &error.to_string()))?;
        if gathered.len() + part.len() > AddCheckpoint::LEN_MAX {
            let problem = format!("body of more than {} bytes", AddCheckpoint::LEN_MAX);
            return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, &problem));
        }
        gathered.extend_from_slice(&part);
    }
    Ok(gathered.freeze())
}

/// Asks the witness; blocks.
pub(super) fn add_checkpoint(witness: &Witness, body: &[u8]) -> Response<Body> {
    match witness.add_checkpoint(body) {
        Ok(lines) => {
            let headers = [(CACHE_CONTROL, "no-cache"), (CONTENT_TYPE, TEXT)];
            response(StatusCode::OK, &headers, lines.into())
        }
        Err(AddRefusal::Conflict { size }) => {
            let headers = [(CACHE_CONTROL, "no-cache"), (CONTENT_TYPE, SIZE_TYPE)];
            response(StatusCode::CONFLICT, &headers, format!("{size}\n").into())
        }
        Err(refusal) => {
            match &refusal {
                AddRefusal::Contradicts(contradiction) => {
                    warn!(size = contradiction.size.0, "refused what contradicts");
                }
                AddRefusal::Unavailable { problem } => warn!(problem, "could not cosign"),
                _ => {}
            }
            refuse(status(&refusal), &refusal.to_string())
        }
    }
}

const fn status(refusal: &AddRefusal) -> StatusCode {
    match refusal {
        AddRefusal::Malformed { .. } | AddRefusal::OldBeyond { .. } => StatusCode::BAD_REQUEST,
        AddRefusal::Untrusted { .. } | AddRefusal::Halted => StatusCode::FORBIDDEN,
        AddRefusal::UnknownOrigin { .. } => StatusCode::NOT_FOUND,
        AddRefusal::Conflict { .. } => StatusCode::CONFLICT,
        AddRefusal::Proof(_)
        | AddRefusal::ProofFromNothing { .. }
        | AddRefusal::Unsealed { .. }
        | AddRefusal::Contradicts(_) => StatusCode::UNPROCESSABLE_ENTITY,
        AddRefusal::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// How long a body of [`AddCheckpoint::LEN_MAX`] may take.
pub(super) const BODY_TIME: Duration = Duration::from_secs(10);
