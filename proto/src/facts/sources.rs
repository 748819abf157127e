//! Who may record: the sources, their keys and roles, as the log itself registers them.
//!
//! Entry 0 is the genesis: it names the ledger's key, the ledger's own source and the governance
//! sources. From there on a source is registered by an event that governance sealed, that a parent
//! with the role ENROL sealed, or that the ledger sealed upon signatures which the event carries
//! (`enrolment.rs`). The same rules refuse a change at the server and convict the operator at the
//! auditor.
//!
//! An event that changes the rules stands alone in its batch, so that a batch is refused or taken
//! as a whole.
//!
//! No party gains power alone: a registration never gives the role GOVERN, only governance gives
//! the role APPROVE, and a source of the genesis leaves service by its own word only, the ledger's
//! own source not at all.

mod roles;

use std::collections::BTreeMap;

use ed25519_dalek::VerifyingKey;
use prost::Message as _;

pub use self::roles::Roles;
use super::control::{PARTIES_MIN, parties, registration_message};
use crate::{
    enrolment::EnrolmentClaim,
    error::SourceError,
    event::{self, Body},
    note::{KeyId, KeyType, VerifierKey, parse_public_key},
    position::Index,
    seal::source_key_id,
    source::{Name, SourceName},
    wire::{self, ControlKind, SourcePhase, SourceRole},
};

/// A registered source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: SourceName,
    /// Its Ed25519 key.
    pub public_key: VerifyingKey,
    /// What it may do.
    pub roles: Roles,
    /// Nanoseconds of silence that it allows itself; 0: it sends no heartbeats.
    pub heartbeat_nanos: u64,
    /// The entry that registered it.
    pub registered_at: Index,
    /// Nobody vouched for it.
    pub self_enrolled: bool,
    /// Of an approver: id of the person whose key it is; empty: the source's name stands for it.
    pub principal: String,
    /// The entry that took it out of service.
    pub decommissioned_at: Option<Index>,
}

impl Source {
    /// The id of its key under its name.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        source_key_id(self.name.as_name(), &self.public_key)
    }
}

/// All sources that a stretch of the log, from entry 0 on, has registered. Memory grows with their
/// number, not with the log.
#[derive(Clone, Debug)]
pub struct Sources {
    genesis: wire::Genesis,
    by_name: BTreeMap<SourceName, Source>,
}

/// A change of the registered sources that was found lawful; [`Sources::apply`] carries it out.
#[derive(Clone, Debug)]
#[must_use]
pub struct SourceChange(Change);

#[derive(Clone, Debug)]
enum Change {
    Nothing,
    Register(Box<Source>),
    Decommission(SourceName, Index),
}

impl Sources {
    /// Reads the genesis: the event of entry 0.
    ///
    /// # Errors
    ///
    /// [`SourceError::Genesis`] when the event is not a `ControlChange` of kind GENESIS whose
    /// content keeps its rules, when the ledger's key is no Ed25519 key named like the origin, or
    /// when two of the sources have the same name or key: whoever holds both would count as two.
    pub fn from_genesis(event: &[u8]) -> Result<Self, SourceError> {
        let body = event::body(event).ok_or(SourceError::Genesis)?;
        event::validate_body(body).map_err(|_| SourceError::Genesis)?;
        let change = control_change(body).ok_or(SourceError::Genesis)?;
        if change.kind() != ControlKind::Genesis {
            return Err(SourceError::Genesis);
        }
        event::validate_genesis(&change.content).map_err(|_| SourceError::Genesis)?;
        let genesis = wire::Genesis::decode(change.content).map_err(|_| SourceError::Genesis)?;
        let key = VerifierKey::parse(&genesis.ledger_vkey).map_err(|_| SourceError::Genesis)?;
        if key.name() != genesis.origin || key.key_type() != KeyType::Ed25519 {
            return Err(SourceError::Genesis);
        }
        let mut sources = Self { genesis: genesis.clone(), by_name: BTreeMap::new() };
        let ledger = genesis.ledger_source.iter().map(|source| (source, Roles::LEDGER));
        let governance = genesis.governance.iter().map(|source| (source, Roles::GOVERNANCE));
        for (initial, roles) in ledger.chain(governance) {
            let source = Source {
                name: SourceName::parse(&initial.name).map_err(|_| SourceError::Genesis)?,
                public_key: parse_public_key(&initial.public_key)
                    .map_err(|_| SourceError::Genesis)?,
                roles,
                heartbeat_nanos: 0,
                registered_at: Index::GENESIS,
                self_enrolled: false,
                principal: String::new(),
                decommissioned_at: None,
            };
            let has_key = |other: &Source| other.public_key == source.public_key;
            if sources.iter().any(has_key)
                || sources.by_name.insert(source.name.clone(), source).is_some()
            {
                return Err(SourceError::Genesis);
            }
        }
        Ok(sources)
    }

    /// Puts back what [`Sources::iter`] gave, over the genesis that it came from.
    pub fn restore(&mut self, sources: impl IntoIterator<Item = Source>) {
        self.by_name.extend(sources.into_iter().map(|source| (source.name.clone(), source)));
    }

    /// The sources as they stood right before an entry: those that were registered by then, and
    /// what took one out of service later did not yet.
    #[must_use]
    pub fn before(&self, index: Index) -> Self {
        let stood = self.by_name.iter().filter(|(_, source)| {
            source.registered_at < index || source.registered_at == Index::GENESIS
        });
        let by_name = stood.map(|(name, source)| {
            let decommissioned_at = source.decommissioned_at.filter(|&since| since < index);
            (name.clone(), Source { decommissioned_at, ..source.clone() })
        });
        Self { genesis: self.genesis.clone(), by_name: by_name.collect() }
    }

    /// The content of entry 0.
    #[must_use]
    pub const fn genesis(&self) -> &wire::Genesis {
        &self.genesis
    }

    /// The name of the ledger's own source.
    #[must_use]
    pub fn ledger_source(&self) -> &str {
        self.genesis.ledger_source.as_ref().map_or("", |source| &source.name)
    }

    /// All sources in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.by_name.values()
    }

    /// All sources whose name comes after `name`, in the order of their names.
    pub fn iter_after(&self, name: &str) -> impl Iterator<Item = &Source> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.by_name.range::<str, _>((Excluded(name), Unbounded)).map(|(_, source)| source)
    }

    /// A source by its name.
    #[must_use]
    pub fn get(&self, name: Name<'_>) -> Option<&Source> {
        self.by_name.get(name.as_str())
    }

    /// The source that may seal a batch under this name with this key.
    ///
    /// # Errors
    ///
    /// [`SourceError::Unknown`]; [`SourceError::Key`] for another key than the registered one;
    /// [`SourceError::Inactive`] after its decommissioning.
    pub fn sealer(&self, name: Name<'_>, key_id: KeyId) -> Result<&Source, SourceError> {
        self.active(name)?;
        self.holder(name, key_id)
    }

    /// The source of this name, whose key this is, in service or not: who sealed what it recorded
    /// while it was.
    ///
    /// # Errors
    ///
    /// [`SourceError::Unknown`], [`SourceError::Key`] for another key than the registered one.
    pub fn holder(&self, name: Name<'_>, key_id: KeyId) -> Result<&Source, SourceError> {
        let source =
            self.get(name).ok_or_else(|| SourceError::Unknown { name: name.to_owned() })?;
        if source.key_id() != key_id {
            return Err(SourceError::Key { name: name.to_owned() });
        }
        Ok(source)
    }

    /// Judges an event of a batch that `sealer` sealed; `index` is its place.
    ///
    /// What changes no rule is lawful from any source that may record; of it, only the number of
    /// the body counts. `alone` tells whether the batch holds nothing else.
    ///
    /// # Errors
    ///
    /// [`SourceError::Body`] for an event that only the ledger's own source records, or that it
    /// does not; [`SourceError::Undecodable`] for a status or a change that breaks the rules of
    /// `event.proto`; [`SourceError::Alone`] for a change of the rules beside other events;
    /// [`SourceError::Role`] when the sealer lacks the role; [`SourceError::Foreign`] for another
    /// source's status; [`SourceError::Exists`], [`SourceError::Name`], [`SourceError::PublicKey`],
    /// [`SourceError::NoRole`], [`SourceError::UnknownRole`], [`SourceError::Governance`],
    /// [`SourceError::Enrolment`], [`SourceError::NotBelow`], [`SourceError::Ancestor`],
    /// [`SourceError::SelfEnrolment`], [`SourceError::SelfEnrolmentRoles`],
    /// [`SourceError::Parties`] for what is wrong with a
    /// registration; [`SourceError::Unknown`], [`SourceError::Inactive`], [`SourceError::Founding`]
    /// with a decommissioning; [`SourceError::Genesis`] for a genesis that is not entry 0 or not
    /// the ledger's.
    pub fn judge(
        &self,
        sealer: &Source,
        index: Index,
        body: Body<'_>,
        alone: bool,
    ) -> Result<SourceChange, SourceError> {
        if matches!(body.number, Body::SOURCE_STATUS | Body::CONTROL_CHANGE | Body::REDACTION) {
            // An auditor has not validated it, and it must have one reading.
            event::validate_body(body).map_err(|_| SourceError::Undecodable)?;
        }
        match body.number {
            Body::SOURCE_STATUS => {
                let status =
                    wire::SourceStatus::decode(body.bytes).map_err(|_| SourceError::Undecodable)?;
                self.judge_status(sealer, index, &status, alone)
            }
            Body::CONTROL_CHANGE => {
                let change = control_change(body).ok_or(SourceError::Undecodable)?;
                if !alone {
                    return Err(SourceError::Alone);
                }
                match (change.kind(), index) {
                    (ControlKind::Genesis, Index::GENESIS)
                        if sealer.name.as_str() == self.ledger_source() =>
                    {
                        Ok(SourceChange(Change::Nothing))
                    }
                    (ControlKind::Genesis, _) => Err(SourceError::Genesis),
                    _ => sealer.require(SourceRole::Govern).map(|()| SourceChange(Change::Nothing)),
                }
            }
            // Whether it is lawful takes more than who sealed it: `redactions.rs`.
            Body::REDACTION if !alone => Err(SourceError::Alone),
            Body::REDACTION if sealer.name.as_str() == self.ledger_source() => {
                Ok(SourceChange(Change::Nothing))
            }
            Body::REDACTION => {
                sealer.require(SourceRole::Govern).map(|()| SourceChange(Change::Nothing))
            }
            // Whoever serves the readers tells who read; that each tells only of its own readers is
            // in the name of the source.
            Body::LEDGER_READ if sealer.name.as_str() == self.ledger_source() => {
                Ok(SourceChange(Change::Nothing))
            }
            number
                if (number == Body::AUTHORIZATION)
                    != (sealer.name.as_str() == self.ledger_source()) =>
            {
                Err(SourceError::Body { name: sealer.name.clone(), number })
            }
            // An ENROL-only source exists to register children.
            _ if sealer.roles.iter().all(|role| role == SourceRole::Enrol) => {
                Err(SourceError::Role { name: sealer.name.clone(), role: SourceRole::Record })
            }
            _ => Ok(SourceChange(Change::Nothing)),
        }
    }

    /// Carries out the status of a source, from a log in which all were found lawful.
    pub(super) fn take(&mut self, sealer: Name<'_>, index: Index, status: &wire::SourceStatus) {
        let judged = self.get(sealer).map(|sealer| self.judge_status(sealer, index, status, true));
        if let Some(Ok(change)) = judged {
            self.apply(change);
        }
    }

    /// Carries out a change that was judged lawful on these sources.
    pub fn apply(&mut self, change: SourceChange) {
        match change.0 {
            Change::Nothing => {}
            Change::Register(source) => {
                self.by_name.insert(source.name.clone(), *source);
            }
            Change::Decommission(name, index) => {
                if let Some(source) = self.by_name.get_mut(&name) {
                    source.decommissioned_at = Some(index);
                }
            }
        }
    }

    fn active(&self, name: Name<'_>) -> Result<&Source, SourceError> {
        let source =
            self.get(name).ok_or_else(|| SourceError::Unknown { name: name.to_owned() })?;
        if let Some(since) = source.decommissioned_at {
            return Err(SourceError::Inactive { name: name.to_owned(), since });
        }
        Ok(source)
    }

    fn judge_status(
        &self,
        sealer: &Source,
        index: Index,
        status: &wire::SourceStatus,
        alone: bool,
    ) -> Result<SourceChange, SourceError> {
        let target = Name::parse(status.source.as_bytes())?;
        match status.phase() {
            SourcePhase::Registered => {}
            SourcePhase::Decommissioned => {
                if !alone {
                    return Err(SourceError::Alone);
                }
                let own_or_child = target == sealer.name.as_name()
                    || sealer.roles.contains(SourceRole::Enrol)
                        && target.is_below(sealer.name.as_name());
                if !own_or_child {
                    sealer.require(SourceRole::Govern)?;
                }
                self.judge_end(sealer, self.active(target)?)?;
                return Ok(SourceChange(Change::Decommission(target.to_owned(), index)));
            }
            // The others tell of the source that seals them.
            _ if target == sealer.name.as_name() => return Ok(SourceChange(Change::Nothing)),
            _ => return Err(SourceError::Foreign { name: target.to_owned() }),
        }
        if !alone {
            return Err(SourceError::Alone);
        }
        if self.get(target).is_some() {
            return Err(SourceError::Exists { name: target.to_owned() });
        }
        let public_key =
            parse_public_key(&status.public_key).map_err(|_| SourceError::PublicKey)?;
        let roles = Roles::parse(&status.roles)?;
        let heartbeat_nanos = heartbeat_nanos(status.heartbeat_interval.as_ref());
        let claim =
            EnrolmentClaim { source: target, public_key: &public_key, roles, heartbeat_nanos };
        let self_enrolled = self.judge_registration(sealer, &claim, status.enrolment.as_ref())?;
        let approves = roles.contains(SourceRole::Approve);
        if approves {
            self.judge_parties(sealer, &claim, status)?;
        }
        let principal = if approves { status.principal.clone() } else { String::new() };
        Ok(SourceChange(Change::Register(Box::new(Source {
            name: target.to_owned(),
            public_key,
            roles,
            heartbeat_nanos,
            registered_at: index,
            self_enrolled,
            principal,
            decommissioned_at: None,
        }))))
    }

    /// Who approves requests is for both parties of the governance to say.
    fn judge_parties(
        &self,
        sealer: &Source,
        claim: &EnrolmentClaim<'_>,
        status: &wire::SourceStatus,
    ) -> Result<(), SourceError> {
        let message = registration_message(&self.genesis.origin, claim, &status.principal);
        let found = parties(self, sealer.name.as_name(), &message, &status.approvals).len();
        if found < PARTIES_MIN {
            return Err(SourceError::Parties { found });
        }
        Ok(())
    }

    /// One governance party must not end another, nor anybody the source that seals what the ledger
    /// itself records.
    fn judge_end(&self, sealer: &Source, target: &Source) -> Result<(), SourceError> {
        let founding = target.registered_at == Index::GENESIS;
        let by_itself = target.name == sealer.name && target.name.as_str() != self.ledger_source();
        if founding && !by_itself {
            return Err(SourceError::Founding { name: target.name.clone() });
        }
        Ok(())
    }

    /// Whether the registration is lawful, and whether nobody vouched for it.
    fn judge_registration(
        &self,
        sealer: &Source,
        claim: &EnrolmentClaim<'_>,
        enrolment: Option<&wire::Enrolment>,
    ) -> Result<bool, SourceError> {
        if claim.roles.contains(SourceRole::Govern) {
            return Err(SourceError::Governance);
        }
        let Some(enrolment) = enrolment else {
            if !sealer.roles.contains(SourceRole::Govern) {
                Self::judge_parent(sealer, claim)?;
            }
            return Ok(false);
        };
        // Others vouch by their seal; signatures that nobody checks would only look like proof.
        if sealer.name.as_str() != self.ledger_source() {
            return Err(SourceError::Enrolment);
        }
        let origin = &self.genesis.origin;
        claim.verify(origin, &enrolment.possession, claim.public_key)?;
        if enrolment.parent.is_empty() {
            return self.judge_self_enrolment(claim).map(|()| true);
        }
        let parent = self.active(Name::parse(enrolment.parent.as_bytes())?)?;
        Self::judge_parent(parent, claim)?;
        claim.verify(origin, &enrolment.parent_signature, &parent.public_key)?;
        Ok(false)
    }

    /// A parent registers children below its own name, with no role that it lacks itself, and none
    /// that counts heads: an approver could otherwise multiply itself.
    fn judge_parent(parent: &Source, claim: &EnrolmentClaim<'_>) -> Result<(), SourceError> {
        parent.require(SourceRole::Enrol)?;
        if !claim.source.is_below(parent.name.as_name()) {
            return Err(SourceError::NotBelow { parent: parent.name.clone() });
        }
        claim.roles.iter().try_for_each(|role| match role {
            SourceRole::Record | SourceRole::Enrol => parent.require(role),
            _ => parent.require(SourceRole::Govern),
        })
    }

    /// Where the genesis allows it, a source may register itself: only to record, and not below a
    /// name that is somebody's.
    fn judge_self_enrolment(&self, claim: &EnrolmentClaim<'_>) -> Result<(), SourceError> {
        if !self.genesis.self_enrolment {
            return Err(SourceError::SelfEnrolment);
        }
        if claim.roles != Roles::RECORDER {
            return Err(SourceError::SelfEnrolmentRoles);
        }
        match claim.source.ancestors().find_map(|ancestor| self.get(ancestor)) {
            Some(ancestor) => Err(SourceError::Ancestor { ancestor: ancestor.name.clone() }),
            None => Ok(()),
        }
    }
}

impl Source {
    fn require(&self, role: SourceRole) -> Result<(), SourceError> {
        if self.roles.contains(role) {
            return Ok(());
        }
        Err(SourceError::Role { name: self.name.clone(), role })
    }
}

fn control_change(body: Body<'_>) -> Option<wire::ControlChange> {
    (body.number == Body::CONTROL_CHANGE)
        .then(|| wire::ControlChange::decode(body.bytes).ok())
        .flatten()
}

/// A heartbeat interval in nanoseconds; 0 for none. Saturates.
#[must_use]
pub fn heartbeat_nanos(interval: Option<&prost_types::Duration>) -> u64 {
    interval.map_or(0, event::nanos_in)
}

#[cfg(test)]
mod tests;
