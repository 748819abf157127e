//! The parties around a ledger: who governs it, who answers requests, and what they say.

use std::{fs, path::Path};

use access_ledger_proto::{
    enrolment::EnrolmentClaim,
    facts::{
        control::{control_message, registration_message},
        redactions::redaction_message,
        sources::{Roles, possession_message},
    },
    note::{Signer, VerifierKey},
    source::Name,
    wire::{self, Outcome, SourceRole, event::Body},
};
use bytes::Bytes;
use prost::Message as _;

use crate::{node::Clients, source::Source};

/// The two parties of the governance, whose keys the ledger made in its folder.
#[derive(Debug)]
pub struct Governance {
    /// Seals what both want.
    pub company: Source,
    /// Signs it.
    pub custodian: Source,
}

impl Governance {
    /// Those of the ledger in a folder.
    ///
    /// # Errors
    ///
    /// When the keys are not there.
    pub fn of(folder: &Path, ledger: &VerifierKey) -> anyhow::Result<Self> {
        let source = |name: &str| {
            let key = fs::read_to_string(folder.join(format!("keys/{name}.key")))?;
            Source::with_key(Signer::parse(key.trim_end())?, ledger)
        };
        Ok(Self { company: source("company")?, custodian: source("custodian")? })
    }

    /// What both parties want of a rule, for the company to seal.
    #[must_use]
    pub fn change(
        &self,
        kind: wire::ControlKind,
        target: &str,
        revision: u64,
        content: impl Into<Bytes>,
    ) -> wire::ControlChange {
        let mut change = wire::ControlChange {
            kind: kind.into(),
            target: target.to_owned(),
            content: content.into(),
            revision,
            ..Default::default()
        };
        let message = control_message(self.company.ledger().name(), &change);
        change.approvals.push(approval(&self.custodian, &message));
        change
    }

    /// Adds the custodian's signature to a redaction, for the company to seal.
    pub fn sign(&self, redaction: &mut wire::Redaction) {
        let message = redaction_message(self.company.ledger().name(), redaction);
        redaction.approvals.push(approval(&self.custodian, &message));
    }

    /// Registers a source that answers requests, with the word of both parties.
    ///
    /// # Errors
    ///
    /// When the ledger refuses it.
    pub async fn register_approver(
        &mut self,
        clients: &Clients,
        approver: &Source,
    ) -> anyhow::Result<()> {
        let roles = [SourceRole::Approve];
        let claim = EnrolmentClaim {
            source: Name::parse(approver.name().as_bytes())?,
            public_key: approver.key().verifier().public_key(),
            roles: Roles::from_iter(roles),
            heartbeat_nanos: 0,
        };
        let message = registration_message(self.company.ledger().name(), &claim, "");
        let mut status = approver.registration(&roles);
        status.approvals.push(approval(&self.custodian, &message));
        let event = self.company.status(status);
        clients.record(&self.company.seal(vec![event])?).await?;
        Ok(())
    }
}

/// A party's signature over a message.
#[must_use]
pub fn approval(party: &Source, message: &str) -> wire::Approval {
    wire::Approval {
        source: party.name().to_owned(),
        key_id: Bytes::copy_from_slice(&party.key().verifier().id().0),
        signature: Bytes::copy_from_slice(&party.key().sign(message.as_bytes())),
    }
}

/// A request by anybody for a dataset.
#[must_use]
pub fn request(id: &str, dataset: &str) -> Body {
    Body::AccessRequest(wire::AccessRequest {
        request_id: id.to_owned(),
        scope: Some(wire::Scope { datasets: vec![dataset.to_owned()], ..Default::default() }),
        justification: "ticket 4711: a customer cannot see their own orders".to_owned(),
        purpose: wire::Purpose::CustomerSupport.into(),
        ..Default::default()
    })
}

/// The approval of a request; the grant has its id. 0 uses: no limit.
#[must_use]
pub fn approve(id: &str, max_uses: u64) -> Body {
    Body::Decision(wire::Decision {
        request_id: id.to_owned(),
        verdict: wire::Verdict::Approve.into(),
        reason: "the ticket needs it".to_owned(),
        max_uses,
        ..Default::default()
    })
}

/// A service that reads one record of a dataset on a grant, or is about to.
#[must_use]
pub fn access(dataset: &str, grant_id: &str, outcome: Outcome) -> wire::Event {
    let access = wire::Access {
        action: wire::Action::Read.into(),
        data: vec![wire::Data { dataset: dataset.to_owned(), records: 1, ..Default::default() }],
        purpose: wire::Purpose::CustomerSupport.into(),
        grant_id: grant_id.to_owned(),
        outcome: outcome.into(),
        ..Default::default()
    };
    let actor = wire::Principal {
        id: "svc-1".to_owned(),
        kind: wire::PrincipalKind::Service.into(),
        ..Default::default()
    };
    wire::Event { actor: Some(actor), body: Some(Body::Access(access)), ..Default::default() }
}

/// What a `ControlChange` of kind KEY says that gives a source this key.
#[must_use]
pub fn source_key(key: &Signer, ledger: &VerifierKey) -> Vec<u8> {
    let content = wire::SourceKey {
        public_key: Bytes::copy_from_slice(key.verifier().public_key().as_bytes()),
        possession: possession(key, ledger.name()),
        ..Default::default()
    };
    content.encode_to_vec()
}

/// What a `ControlChange` of kind LEDGER_KEY says that gives the ledger this key.
#[must_use]
pub fn ledger_key(key: &Signer) -> Vec<u8> {
    let ledger_vkey = key.verifier().to_string();
    let possession = possession(key, key.name());
    wire::LedgerKey { ledger_vkey, possession, ..Default::default() }.encode_to_vec()
}

fn possession(key: &Signer, origin: &str) -> Bytes {
    let message = possession_message(origin, key.name(), key.verifier().public_key());
    Bytes::copy_from_slice(&key.sign(message.as_bytes()))
}
