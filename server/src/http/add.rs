//! The witness calls: `add-checkpoint`, with each status of FORMATS.md, section 8.

use std::time::Duration;

use access_ledger_proto::witness::{AddCheckpoint, SIZE_TYPE, size_body};
use axum::{
    body::Body,
    http::{
        Response, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use thiserror::Error;
use tracing::warn;

use super::answer::{TEXT, refuse, response};
use crate::witness::{AddRefusal, Witness};

/// Why a body was not read to its end.
#[derive(Debug, Error)]
pub(super) enum BodyError {
    #[error("the body takes too long")]
    Slow,
    #[error("the body has more than {max} bytes", max = AddCheckpoint::LEN_MAX)]
    Long,
    #[error("the body broke off: {0}")]
    Broken(#[from] axum::Error),
}

impl BodyError {
    /// The answer to it.
    pub(super) fn refusal(&self) -> Response<Body> {
        let status = match self {
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Long => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        };
        refuse(status, &self.to_string())
    }
}

/// Reads a body of bounded length in bounded time.
pub(super) async fn read_body(body: Body, time: Duration) -> Result<Bytes, BodyError> {
    tokio::time::timeout(time, gather(body)).await.unwrap_or(Err(BodyError::Slow))
}

async fn gather(body: Body) -> Result<Bytes, BodyError> {
    let mut stream = body.into_data_stream();
    let mut gathered = BytesMut::new();
    while let Some(part) = stream.next().await {
        let part = part?;
        if gathered.len() + part.len() > AddCheckpoint::LEN_MAX {
            return Err(BodyError::Long);
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
            response(StatusCode::CONFLICT, &headers, size_body(size).into())
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
