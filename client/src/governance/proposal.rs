//! Proposals: changes of the rules, and redactions, on their way from one governance party to the
//! other.
//!
//! A change takes the signatures of both parties. One writes the proposal into a file and signs it,
//! the other reads the file, signs what it says, and whoever has both records it. The file is TOML
//! that a person reads as it is signed: nothing in it is encoded but keys, digests and signatures.
//! What is signed is made anew from what the file says, so a file that was edited after somebody
//! signed it no longer carries that signature.

use std::fmt;

use access_ledger_proto::{
    enrolment::EnrolmentClaim,
    error::EventError,
    event::{self, validate_control},
    facts::{
        control::{self, control_message, registration_message},
        redactions::redaction_message,
        sources::{Roles, Sources, heartbeat_nanos},
    },
    hash::{Digest, sha256},
    note::{Signer, parse_public_key},
    source::Name,
    wire::{self, ControlKind, SourcePhase, SourceRole, event::Body},
};
use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;

use super::GovernanceError;
use crate::recorder::{Recorded, Recorder};

mod file;

/// A change of the rules or a redaction, with the signatures that it has so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    origin: String,
    change: Change,
    /// What the parties sign.
    message: String,
}

/// What changes. Approvals are the proposal's.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one of them at a time")]
pub enum Change {
    /// The policy, the retention, how a dataset, a tool, a site or a custodian is registered, a
    /// key, or the roles of a source.
    Control(wire::ControlChange),
    /// A source is registered.
    Source(wire::SourceStatus),
    /// Events are erased.
    Redaction(wire::Redaction),
}

/// Why a proposal cannot be made, read or signed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProposalError {
    /// A file that is no proposal: its author must correct it.
    #[error("{line}:{column}: {problem}")]
    File {
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// What was found, and what was expected.
        problem: String,
    },
    /// A change that breaks the rules of `control.proto` and `event.proto`.
    #[error("{field}: {problem}")]
    Change {
        /// The field's name; empty for the change as a whole.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The proposal is for another ledger.
    #[error("proposal is for the ledger {found}, this is {wanted}")]
    Foreign {
        /// The ledger that it names.
        found: String,
        /// The ledger at hand.
        wanted: String,
    },
    /// The key is none of the ledger's governance keys.
    #[error("key {name} is no governance key of {origin}, which are {}", .known.join(", "))]
    NotGovernance {
        /// Name of the key.
        name: String,
        /// The ledger.
        origin: String,
        /// Names of those that are.
        known: Vec<String>,
    },
}

/// A change that is in the ledger.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Its verified receipt.
    pub recorded: Recorded,
}

impl Proposal {
    /// A change of a rule of the ledger `origin`, which nobody has signed yet.
    ///
    /// # Errors
    ///
    /// [`ProposalError::Change`] for a change that no ledger would take, or that a file cannot say.
    pub fn new(origin: &str, mut change: Change) -> Result<Self, ProposalError> {
        change.approvals_mut().clear();
        let proposal = Self::checked(origin.to_owned(), change)?;
        // What is signed is made from the file, so the file must say all that it was made from.
        let read = file::write(&proposal).and_then(|text| file::parse(&text).ok());
        if read.as_ref() != Some(&proposal) {
            let problem = "says more than the file of a proposal can".to_owned();
            return Err(ProposalError::Change { field: "change".to_owned(), problem });
        }
        Ok(proposal)
    }

    /// A proposal whose change keeps all rules, with the signatures that it carries.
    fn checked(origin: String, change: Change) -> Result<Self, ProposalError> {
        let message = match &change {
            Change::Control(change) => {
                check_control(change)?;
                control_message(&origin, change)
            }
            Change::Source(status) => source_message(&origin, status)?,
            Change::Redaction(redaction) => {
                check_redaction(redaction)?;
                redaction_message(&origin, redaction)
            }
        };
        Ok(Self { origin, change, message })
    }

    /// Reads the file that [`Proposal::to_text`] wrote, or a person.
    ///
    /// # Errors
    ///
    /// [`ProposalError::File`] with the place of what is wrong.
    pub fn parse(text: &str) -> Result<Self, ProposalError> {
        file::parse(text)
    }

    /// The file: TOML, which [`Proposal::parse`] reads as the same proposal.
    #[must_use]
    pub fn to_text(&self) -> String {
        // That it can be written was seen when it was made.
        file::write(self).unwrap_or_default()
    }

    /// What is signed, for people: the table of the file that says what changes.
    #[must_use]
    pub fn change_text(&self) -> String {
        file::write_change(&self.change).unwrap_or_default()
    }

    /// The ledger that it is for.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What changes.
    #[must_use]
    pub const fn change(&self) -> &Change {
        &self.change
    }

    /// The signatures so far, which nobody has verified.
    #[must_use]
    pub fn approvals(&self) -> &[wire::Approval] {
        match &self.change {
            Change::Control(change) => &change.approvals,
            Change::Source(status) => &status.approvals,
            Change::Redaction(redaction) => &redaction.approvals,
        }
    }

    /// SHA-256 of the content, which the signatures cover. Of a source and a redaction: of the
    /// signed text.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match &self.change {
            Change::Control(change) => sha256(&change.content),
            Change::Source(_) | Change::Redaction(_) => sha256(self.message.as_bytes()),
        }
    }

    /// The text that the parties sign.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Signs it for a governance party of the ledger whose sources these are. A signature that the
    /// party gave before is replaced.
    ///
    /// # Errors
    ///
    /// [`ProposalError::Foreign`], [`ProposalError::NotGovernance`].
    pub fn sign(&mut self, key: &Signer, sources: &Sources) -> Result<(), ProposalError> {
        let origin = &sources.genesis().origin;
        if *origin != self.origin {
            let (found, wanted) = (self.origin.clone(), origin.clone());
            return Err(ProposalError::Foreign { found, wanted });
        }
        let verifier = key.verifier();
        let governs = Name::parse(key.name().as_bytes())
            .ok()
            .and_then(|name| sources.holder(name, verifier.id()).ok())
            .is_some_and(|(source, known)| {
                source.key() == Some(known) && source.roles.now().contains(SourceRole::Govern)
            });
        if !governs {
            let governance =
                sources.iter().filter(|one| one.roles.now().contains(SourceRole::Govern));
            return Err(ProposalError::NotGovernance {
                name: key.name().to_owned(),
                origin: self.origin.clone(),
                known: governance.map(|source| source.name.as_str().to_owned()).collect(),
            });
        }
        let approval = wire::Approval {
            source: key.name().to_owned(),
            key_id: Bytes::copy_from_slice(&verifier.id().0),
            signature: Bytes::copy_from_slice(&key.sign(self.message.as_bytes())),
        };
        let approvals = self.change.approvals_mut();
        approvals.retain(|given| given.source != approval.source);
        approvals.push(approval);
        Ok(())
    }

    /// Records the change with the signatures that it has, through the recorder of a governance
    /// party, which counts as having signed. The recorder must put one event into a batch
    /// ([`Builder::batch_events_max`](crate::recorder::Builder::batch_events_max)).
    ///
    /// # Errors
    ///
    /// [`GovernanceError::Recorder`]; the ledger refuses a change that lacks a party.
    pub async fn apply(&self, recorder: &Recorder) -> Result<Applied, GovernanceError> {
        let recorded = super::record(recorder, self.event()).await?;
        Ok(Applied { recorded })
    }

    /// The event that carries it out.
    #[must_use]
    pub fn event(&self) -> wire::Event {
        let body = match self.change.clone() {
            Change::Control(change) => Body::ControlChange(change),
            Change::Source(status) => Body::SourceStatus(status),
            Change::Redaction(redaction) => Body::Redaction(redaction),
        };
        wire::Event { body: Some(body), ..Default::default() }
    }
}

impl Change {
    fn approvals_mut(&mut self) -> &mut Vec<wire::Approval> {
        match self {
            Self::Control(change) => &mut change.approvals,
            Self::Source(status) => &mut status.approvals,
            Self::Redaction(redaction) => &mut redaction.approvals,
        }
    }
}

/// That it is one of the changes that can be carried out, and keeps the rules of its content.
fn check_control(change: &wire::ControlChange) -> Result<(), ProposalError> {
    match change.kind() {
        ControlKind::Policy => match std::str::from_utf8(&change.content) {
            Ok(_) if !change.target.is_empty() => fault("target", "the policy has none"),
            Ok(_) => Ok(()),
            Err(error) => fault("text", error),
        },
        kind @ (ControlKind::Unspecified | ControlKind::Genesis) => {
            fault("kind", format_args!("{} cannot be proposed", kind.as_str_name()))
        }
        ControlKind::Retention | ControlKind::LedgerKey if !change.target.is_empty() => {
            fault("target", "the retention and the ledger's key have none")
        }
        ControlKind::Retention | ControlKind::LedgerKey => check_content(change),
        _ if change.target.is_empty() => fault("target", "missing, it names what is changed"),
        _ => check_content(change),
    }
}

/// The rules of its fields, and what they leave open.
fn check_content(change: &wire::ControlChange) -> Result<(), ProposalError> {
    let (kind, content) = (change.kind(), &change.content);
    validate_control(kind, content).or_else(|error| fault_of(&error))?;
    match control::content_fault(kind, content) {
        Some((field, problem)) => fault(field, problem),
        None => Ok(()),
    }
}

/// That a redaction can be lawful, as far as it says itself.
fn check_redaction(redaction: &wire::Redaction) -> Result<(), ProposalError> {
    if redaction.first_index > redaction.last_index {
        return fault("last_index", format_args!("before the first, {}", redaction.first_index));
    }
    if redaction.retention_index != 0 {
        return fault("retention_index", "only the ledger records runs of the retention");
    }
    let event = wire::Event {
        event_id: Bytes::from_static(&[1; 16]),
        occurred_at: Some(prost_types::Timestamp::default()),
        body: Some(Body::Redaction(wire::Redaction { approvals: Vec::new(), ..redaction.clone() })),
        ..Default::default()
    };
    let event = event.encode_to_vec();
    event::validate(&event, 0).map(drop).or_else(|error| {
        let path = error.path.strip_prefix("redaction.").unwrap_or(&error.path).to_owned();
        fault(&path, error.fault)
    })
}

fn fault_of(error: &EventError) -> Result<(), ProposalError> {
    let field = error.path.split(['[', '.']).next().unwrap_or_default();
    fault(field, error.fault)
}

/// The text that is signed for the registration of a source.
fn source_message(origin: &str, status: &wire::SourceStatus) -> Result<String, ProposalError> {
    if status.phase() != SourcePhase::Registered {
        let phase = status.phase().as_str_name();
        return fault("phase", format_args!("{phase} cannot be proposed"));
    }
    let source = Name::parse(status.source.as_bytes()).or_else(|error| fault("key", error))?;
    let public_key = parse_public_key(&status.public_key).or_else(|error| fault("key", error))?;
    let roles = Roles::parse(&status.roles).or_else(|error| fault("roles", error))?;
    let heartbeat_nanos = heartbeat_nanos(status.heartbeat_interval.as_ref());
    let claim = EnrolmentClaim { source, public_key: &public_key, roles, heartbeat_nanos };
    Ok(registration_message(origin, &claim, &status.principal))
}

fn fault<T>(field: &str, problem: impl fmt::Display) -> Result<T, ProposalError> {
    let (field, problem) = (field.to_owned(), problem.to_string());
    Err(ProposalError::Change { field, problem })
}

#[cfg(test)]
mod tests;
