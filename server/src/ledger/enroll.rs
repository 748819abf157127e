//! `Enroll`: registers a source by its own key, upon its own signature and, below a parent, upon
//! the parent's. The ledger records the registration under its own name, together with those
//! signatures.

use access_ledger_proto::{
    facts::sources::Roles,
    note::Signer,
    position::Index,
    source::{Name, SourceName},
    wire::{self, SourcePhase, SourceRole, event::Body as EventBody},
};
use prost::Message as _;
use tokio::sync::Mutex;

use super::{Shared, StoredBatch, append::Admitted, seal_own, unreadable};
use crate::{folder::own_event, refusal::Refusal};

/// The ledger's own source: one sequence, so one caller at a time.
pub(crate) struct OwnSource {
    key: Mutex<Signer>,
}

impl OwnSource {
    pub(crate) fn new(key: Signer) -> Self {
        Self { key: Mutex::new(key) }
    }
}

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
        // Held until the registration is durable: the next one needs the next number.
        let key = self.own.key.lock().await;
        if let Some(found) = self.registered(name.as_name(), &request)? {
            return Ok(found);
        }
        let own = Name::parse(key.name().as_bytes()).map_err(unreadable)?;
        let seq = self.durable_last(own).saturating_add(1);
        let now = self.clock.now_nanos();
        let event =
            own_event(now, EventBody::SourceStatus(registration(request))).map_err(unreadable)?;
        let admitted = {
            let sources = self.sources();
            let batch = seal_own(event.clone(), seq, self.vkey.name(), &key).map_err(unreadable)?;
            let admitted = Admitted::judge(batch, &sources, now)?;
            // A registration that the writer would refuse must not be given a number.
            let sealer = sources.sealer(own, admitted.seal().key_id)?;
            for (body, alone) in admitted.control_bodies() {
                let _judged =
                    sources.judge(sealer, self.published().size.next_index(), body, alone)?;
            }
            admitted
        };
        let receipt = self.queue.push(admitted)?.receipt().await?;
        let index = Index(receipt.first_index);
        let entry = self.reader.read_entries(index, 1, 1).map_err(unreadable)?.pop();
        Ok(wire::EnrollResponse {
            index: index.0,
            event: event.into(),
            entry: entry.unwrap_or_default(),
            receipt: Some(receipt),
        })
    }

    /// The registration that the same call made before: of this name with this key, these roles and
    /// these signatures. Another one is not an answer to this call.
    fn registered(
        &self,
        name: Name<'_>,
        request: &wire::EnrollRequest,
    ) -> Result<Option<wire::EnrollResponse>, Refusal> {
        let index = match self.sources().get(name) {
            Some(source) if source.public_key.as_bytes()[..] == request.public_key[..] => {
                source.registered_at
            }
            _ => return Ok(None),
        };
        let published = self.published();
        if !published.size.contains(index) {
            return Ok(None);
        }
        let record = self.reader.read(index, 1, 1).map_err(unreadable)?.pop();
        let (entry, event) = record.map(|record| (record.entry, record.event)).unzip();
        let stored = StoredBatch::around(&self.reader, index)?;
        if stored.source.as_str() != self.sources().ledger_source() {
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
            receipt: Some(stored.receipt(&self.tree, &published)?),
        }))
    }
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
