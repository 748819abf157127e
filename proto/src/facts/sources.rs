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
//! own source not at all. Keys and roles change by both parties' word (`amend.rs`).

mod amend;
mod history;
mod registration;
mod roles;

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::VerifyingKey;
use prost::Message as _;

use self::amend::Amendment;
pub use self::{
    amend::{is_amendment, possession_message},
    history::History,
    roles::Roles,
};
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
    /// Its Ed25519 key; `None` when governance has revoked it.
    pub keys: History<Option<VerifyingKey>>,
    /// What it may do.
    pub roles: History<Roles>,
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
    /// A source that was registered at this index: in service, without heartbeats, and not for a
    /// person.
    #[must_use]
    pub const fn new(
        name: SourceName,
        public_key: VerifyingKey,
        roles: Roles,
        registered_at: Index,
    ) -> Self {
        Self {
            name,
            keys: History::new(Some(public_key)),
            roles: History::new(roles),
            heartbeat_nanos: 0,
            registered_at,
            self_enrolled: false,
            principal: String::new(),
            decommissioned_at: None,
        }
    }

    /// The key that it seals with; `None` when governance has revoked it.
    #[must_use]
    pub fn key(&self) -> Option<&VerifyingKey> {
        self.keys.now().as_ref()
    }

    /// The id of its key under its name.
    #[must_use]
    pub fn key_id(&self) -> Option<KeyId> {
        self.key().map(|key| source_key_id(self.name.as_name(), key))
    }

    /// The key of this id that it has or had.
    #[must_use]
    pub fn key_of(&self, id: KeyId) -> Option<&VerifyingKey> {
        let keys = self.keys.values().rev().flatten();
        keys.into_iter().find(|key| source_key_id(self.name.as_name(), key) == id)
    }
}

/// All sources that a stretch of the log, from entry 0 on, has registered. Memory grows with their
/// number, not with the log.
#[derive(Clone, Debug)]
pub struct Sources {
    genesis: wire::Genesis,
    by_name: BTreeMap<SourceName, Source>,
    /// The key that signs the ledger's checkpoints.
    ledger_keys: History<VerifierKey>,
    /// Keys of sources that were replaced or revoked.
    retired: BTreeSet<[u8; 32]>,
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
    Amend(Index, Amendment),
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
        let mut sources = Self {
            genesis: genesis.clone(),
            by_name: BTreeMap::new(),
            ledger_keys: History::new(key),
            retired: BTreeSet::new(),
        };
        let ledger = genesis.ledger_source.iter().map(|source| (source, Roles::LEDGER));
        let governance = genesis.governance.iter().map(|source| (source, Roles::GOVERNANCE));
        for (initial, roles) in ledger.chain(governance) {
            let name = SourceName::parse(&initial.name).map_err(|_| SourceError::Genesis)?;
            let key = parse_public_key(&initial.public_key).map_err(|_| SourceError::Genesis)?;
            if sources.iter().any(|other| other.key() == Some(&key)) {
                return Err(SourceError::Genesis);
            }
            let source = Source::new(name, key, roles, Index::GENESIS);
            if sources.by_name.insert(source.name.clone(), source).is_some() {
                return Err(SourceError::Genesis);
            }
        }
        Ok(sources)
    }

    /// Puts back what [`Sources::iter`] gave, over the genesis that it came from.
    pub fn restore(&mut self, sources: impl IntoIterator<Item = Source>) {
        for source in sources {
            let keys = source.keys.values().flatten();
            let former = keys.filter(|&key| source.key() != Some(key)).map(|key| *key.as_bytes());
            self.retired.extend(former);
            self.by_name.insert(source.name.clone(), source);
        }
    }

    /// Puts back what [`Sources::ledger_keys`] gave.
    pub fn restore_ledger_keys(&mut self, keys: History<VerifierKey>) {
        self.ledger_keys = keys;
    }

    /// The sources as they stood right before an entry: those that were registered by then, with
    /// the keys and roles of then, and what took one out of service later did not yet.
    #[must_use]
    pub fn before(&self, index: Index) -> Self {
        let stood = self.by_name.iter().filter(|(_, source)| {
            source.registered_at < index || source.registered_at == Index::GENESIS
        });
        let by_name = stood.map(|(name, source)| {
            let decommissioned_at = source.decommissioned_at.filter(|&since| since < index);
            let (keys, roles) = (source.keys.before(index), source.roles.before(index));
            (name.clone(), Source { decommissioned_at, keys, roles, ..source.clone() })
        });
        Self {
            genesis: self.genesis.clone(),
            by_name: by_name.collect(),
            ledger_keys: self.ledger_keys.before(index),
            retired: self.retired.clone(),
        }
    }

    /// The keys that sign the ledger's checkpoints: the first as the genesis names it, each further
    /// one for checkpoints that cover the change that brought it.
    #[must_use]
    pub const fn ledger_keys(&self) -> &History<VerifierKey> {
        &self.ledger_keys
    }

    fn is_retired(&self, key: &VerifyingKey) -> bool {
        self.retired.contains(key.as_bytes())
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

    /// The source that may seal a batch under this name with this key, and the key.
    ///
    /// # Errors
    ///
    /// [`SourceError::Unknown`]; [`SourceError::Inactive`] after its decommissioning;
    /// [`SourceError::Key`] for another key than the registered one; [`SourceError::KeyReplaced`],
    /// [`SourceError::Revoked`] for one that it had.
    pub fn sealer(
        &self,
        name: Name<'_>,
        key_id: KeyId,
    ) -> Result<(&Source, &VerifyingKey), SourceError> {
        self.active(name)?;
        let (source, key) = self.holder(name, key_id)?;
        if source.key() == Some(key) {
            return Ok((source, key));
        }
        let since = source.keys.changed_at().unwrap_or_default();
        Err(match source.key() {
            Some(_) => SourceError::KeyReplaced { name: name.to_owned(), since },
            None => SourceError::Revoked { name: name.to_owned(), since },
        })
    }

    /// The source of this name, whose key this is or was, in service or not, and the key: who
    /// sealed what it recorded while it had it.
    ///
    /// # Errors
    ///
    /// [`SourceError::Unknown`], [`SourceError::Key`] for a key that it never registered.
    pub fn holder(
        &self,
        name: Name<'_>,
        key_id: KeyId,
    ) -> Result<(&Source, &VerifyingKey), SourceError> {
        let source =
            self.get(name).ok_or_else(|| SourceError::Unknown { name: name.to_owned() })?;
        let key =
            source.key_of(key_id).ok_or_else(|| SourceError::Key { name: name.to_owned() })?;
        Ok((source, key))
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
    /// [`SourceError::KeyReused`],
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
                    _ => {
                        sealer.require(SourceRole::Govern)?;
                        Ok(self.amendment(sealer, index, &change))
                    }
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
            _ if sealer.roles.now().iter().all(|role| role == SourceRole::Enrol) => {
                Err(SourceError::Role { name: sealer.name.clone(), role: SourceRole::Record })
            }
            _ => Ok(SourceChange(Change::Nothing)),
        }
    }

    /// What a change of the rules changes of the sources: nothing, if it is not lawful.
    fn amendment(
        &self,
        sealer: &Source,
        index: Index,
        change: &wire::ControlChange,
    ) -> SourceChange {
        let nothing = SourceChange(Change::Nothing);
        if !is_amendment(change.kind()) {
            return nothing;
        }
        self.judge_amendment(sealer.name.as_name(), index, change).unwrap_or(nothing)
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
            Change::Amend(index, amendment) => self.amend(index, amendment),
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
                    || sealer.roles.now().contains(SourceRole::Enrol)
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
        if self.is_retired(&public_key) {
            return Err(SourceError::KeyReused);
        }
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
        let source = Source::new(target.to_owned(), public_key, roles, index);
        let source = Source { heartbeat_nanos, self_enrolled, principal, ..source };
        Ok(SourceChange(Change::Register(Box::new(source))))
    }
}

impl Source {
    fn require(&self, role: SourceRole) -> Result<(), SourceError> {
        if self.roles.now().contains(role) {
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
