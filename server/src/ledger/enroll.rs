//! `Enroll`: registers a source by its own key, upon its own signature and, below a parent, upon
//! the parent's. The ledger records the registration under its own name, together with those
//! signatures.

use access_ledger_proto::{
    error::SourceError,
    facts::sources::Roles,
    position::Index,
    source::{Name, SourceName},
    wire::{self, SourcePhase, SourceRole, event::Body as EventBody},
};
use ed25519_dalek::VerifyingKey;
use prost::Message as _;

use super::Shared;
use crate::{
    book::{StoredBatch, unreadable},
    refusal::Refusal,
};

impl Shared {
    /// Registers a source, or finds the registration that the same call made before.
    ///
    /// # Errors
    ///
    /// [`Refusal::Source`] with what forbids it; [`Refusal::Request`] for malformed fields; as
    /// appending.
    pub(crate) async fn enroll(
        &self,
        request: wire::EnrollRequest,
    ) -> Result<wire::EnrollResponse, Refusal> {
        let name = SourceName::parse(&request.source)
            .map_err(|error| Refusal::Request { field: "source", problem: error.to_string() })?;
        if let Some(found) = self.registered(name.as_name(), &request).await? {
            return Ok(found);
        }
        let body = EventBody::SourceStatus(registration(request.clone()));
        let recorded = match self.record_own(body) {
            Ok((event, ticket)) => ticket.answer().await.map(|answer| (event, answer)),
            Err(refusal) => Err(refusal),
        };
        let (event, receipt) = match recorded {
            Ok((event, answer)) => (event, answer.receipt.unwrap_or_default()),
            // The same call may have been made twice at once.
            Err(Refusal::Source(error @ SourceError::Exists { .. })) => {
                let found = self.registered(name.as_name(), &request).await?;
                return found.ok_or(Refusal::Source(error));
            }
            Err(refusal) => return Err(refusal),
        };
        let index = Index(receipt.first_index);
        let entry = self.book.reader.read_entries(index, 1, 1).map_err(unreadable)?.pop();
        Ok(wire::EnrollResponse {
            index: index.0,
            event,
            entry: entry.unwrap_or_default(),
            receipt: Some(receipt),
        })
    }

    /// The registration that the same call made before: of this name with this key, these roles and
    /// these signatures. Another one is not an answer to this call.
    async fn registered(
        &self,
        name: Name<'_>,
        request: &wire::EnrollRequest,
    ) -> Result<Option<wire::EnrollResponse>, Refusal> {
        let index = match self.book.sources().get(name) {
            // As it was registered: governance may have given it another one since.
            Some(source) if is_key(source.keys.first().as_ref(), &request.public_key) => {
                source.registered_at
            }
            _ => return Ok(None),
        };
        self.book.covers(index).await?;
        let record = self.book.reader.read(index, 1, 1).map_err(unreadable)?.pop();
        let (entry, event) = record.map(|record| (record.entry, record.event)).unzip();
        let stored = StoredBatch::around(&self.book.reader, index)?;
        if stored.source.as_str() != self.book.sources().ledger_source() {
            // Governance or a parent registered it, in a batch of their own.
            return Ok(None);
        }
        let event = event.flatten().unwrap_or_default();
        let stands = wire::Event::decode(event.clone()).map_err(unreadable)?.body;
        if stands != Some(EventBody::SourceStatus(registration(request.clone()))) {
            return Ok(None);
        }
        Ok(Some(wire::EnrollResponse {
            index: index.0,
            event,
            entry: entry.unwrap_or_default(),
            receipt: Some(stored.receipt(&self.book.tree, &*self.book.proves(stored.last())?)?),
        }))
    }
}

fn is_key(key: Option<&VerifyingKey>, bytes: &[u8]) -> bool {
    key.is_some_and(|key| key.as_bytes()[..] == *bytes)
}

fn registration(request: wire::EnrollRequest) -> wire::SourceStatus {
    let roles = if request.roles.is_empty() {
        Roles::from_iter([SourceRole::Record]).values()
    } else {
        request.roles
    };
    wire::SourceStatus {
        phase: SourcePhase::Registered.into(),
        source: request.source,
        public_key: request.public_key,
        roles,
        heartbeat_interval: request.heartbeat_interval,
        enrolment: Some(request.enrolment.unwrap_or_default()),
        ..Default::default()
    }
}
