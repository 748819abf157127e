//! What a verifier knows, in a form that a view file keeps.

use std::collections::BTreeMap;

use access_ledger_proto::{
    chain::Link,
    checkpoint::VerifiedCheckpoint,
    facts::{
        redactions::Retention,
        sources::{History, Roles, Source, Sources},
    },
    hash::Digest,
    note::{VerifierKey, parse_public_key},
    position::{Index, Size},
    source::SourceName,
    tree::Frontier,
};
use bytes::Bytes;
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use super::{LogVerifier, Scope, Totals, error::StateError, registry::Registry};

/// A verifier that concluded at a checkpoint: all it takes to go on from there. Digests, keys and
/// the genesis are in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedState {
    size: u64,
    last_leaf: String,
    recorded_at: u64,
    /// Roots of the complete subtrees, largest first.
    roots: Vec<String>,
    /// The last number of every source.
    sequences: BTreeMap<String, u64>,
    /// Absent when entries alone were verified.
    registry: Option<SavedRegistry>,
    totals: Totals,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedRegistry {
    genesis: String,
    sources: Vec<SavedSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retention: Option<SavedRetention>,
    /// Keys of the ledger after that of the genesis.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ledger_keys: Vec<Changed<String>>,
}

/// What took the place of something, and the entry that brought it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed<T> {
    index: u64,
    value: T,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedRetention {
    index: u64,
    revision: u64,
    max_age_nanos: u64,
    legal_basis: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedSource {
    name: String,
    public_key: String,
    roles: Vec<i32>,
    heartbeat_nanos: u64,
    registered_at: u64,
    self_enrolled: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    principal: String,
    decommissioned_at: Option<u64>,
    /// Keys after the first; empty: revoked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    later_keys: Vec<Changed<String>>,
    /// Roles after the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    later_roles: Vec<Changed<Vec<i32>>>,
}

impl SavedState {
    /// How many entries the state stands behind.
    #[must_use]
    pub const fn size(&self) -> Size {
        Size(self.size)
    }

    /// The ledger's keys, as the log told them up to there; none when entries alone were verified.
    #[must_use]
    pub fn ledger_keys(&self) -> Vec<VerifierKey> {
        let founded = self.registry.as_ref().and_then(|registry| registry.founded().ok());
        let sources = founded.iter().map(|(_, sources)| sources);
        sources.flat_map(|sources| sources.ledger_keys().values().cloned()).collect()
    }

    /// What was verified.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        if self.registry.is_some() { Scope::Events } else { Scope::EntriesOnly }
    }
}

impl LogVerifier {
    /// The state to save, right after [`LogVerifier::finish`].
    #[must_use]
    pub fn save(&self) -> SavedState {
        SavedState {
            size: self.link.size.0,
            last_leaf: self.link.last_leaf.to_string(),
            recorded_at: self.link.recorded_at,
            roots: self.frontier.roots().iter().map(ToString::to_string).collect(),
            sequences: self
                .sequences
                .iter()
                .map(|(name, last)| (name.as_str().to_owned(), last))
                .collect(),
            registry: self.registry.as_ref().map(|registry| SavedRegistry {
                genesis: hex(&registry.genesis),
                sources: registry.sources.iter().map(SavedSource::of).collect(),
                retention: registry.retention.clone().map(SavedRetention::of),
                ledger_keys: changes(registry.sources.ledger_keys(), ToString::to_string),
            }),
            totals: self.totals,
        }
    }

    /// The verifier as it was saved, behind the checkpoint that it concluded at. That `ledger` is a
    /// key of this log, it tells where it concludes: the log may name it behind that checkpoint.
    ///
    /// # Errors
    ///
    /// [`StateError::Field`] for what cannot be read; [`StateError::Root`] unless the state's tree
    /// is the one of the checkpoint.
    pub fn restore(
        ledger: &VerifierKey,
        checkpoint: &VerifiedCheckpoint,
        saved: &SavedState,
    ) -> Result<Self, StateError> {
        let mut verifier = Self::new(ledger, saved.scope());
        let size = Size(saved.size);
        let last_leaf = digest(&saved.last_leaf, "last_leaf")?;
        verifier.link = Link { size, last_leaf, recorded_at: saved.recorded_at };
        let roots = saved.roots.iter().map(|root| digest(root, "roots"));
        let roots = roots.collect::<Result<Vec<_>, _>>()?;
        verifier.frontier = Frontier::from_roots(size, &roots).ok_or(field("roots"))?;
        for (name, &last) in &saved.sequences {
            let name = SourceName::parse(name).map_err(|_| field("sequences"))?;
            verifier.sequences.restore(name.as_name(), last);
        }
        if let Some(registry) = &saved.registry {
            verifier.registry = Some(registry.restore(ledger)?);
        }
        verifier.totals = saved.totals;
        let found = verifier.root();
        if (size, found) != (checkpoint.size(), checkpoint.root()) {
            let (wanted, wanted_size) = (checkpoint.root(), checkpoint.size());
            return Err(StateError::Root { size, found, wanted, wanted_size });
        }
        Ok(verifier)
    }
}

impl SavedRegistry {
    /// The genesis, and the sources as it has them, with all keys of the ledger.
    fn founded(&self) -> Result<(Bytes, Sources), StateError> {
        let genesis = Bytes::from(unhex(&self.genesis).ok_or(field("genesis"))?);
        let mut sources = Sources::from_genesis(&genesis).map_err(|_| field("genesis"))?;
        let mut keys = sources.ledger_keys().clone();
        restore_changes(&mut keys, &self.ledger_keys, |key| VerifierKey::parse(key).ok())
            .ok_or(field("ledger_keys"))?;
        sources.restore_ledger_keys(keys);
        Ok((genesis, sources))
    }

    fn restore(&self, ledger: &VerifierKey) -> Result<Registry, StateError> {
        let (genesis, mut sources) = self.founded()?;
        if sources.genesis().origin != ledger.name() {
            return Err(field("genesis"));
        }
        let saved = self.sources.iter().map(SavedSource::restore);
        sources.restore(saved.collect::<Result<Vec<_>, _>>()?);
        let retention = self.retention.clone().map(SavedRetention::restore);
        Ok(Registry { genesis, sources, retention })
    }
}

impl SavedRetention {
    fn of(retention: Retention) -> Self {
        let Retention { index, revision, max_age_nanos, legal_basis } = retention;
        Self { index: index.0, revision, max_age_nanos, legal_basis }
    }

    fn restore(self) -> Retention {
        let Self { index, revision, max_age_nanos, legal_basis } = self;
        Retention { index: Index(index), revision, max_age_nanos, legal_basis }
    }
}

impl SavedSource {
    fn of(source: &Source) -> Self {
        Self {
            name: source.name.as_str().to_owned(),
            public_key: key_text(source.keys.first()),
            roles: source.roles.first().values(),
            heartbeat_nanos: source.heartbeat_nanos,
            registered_at: source.registered_at.0,
            self_enrolled: source.self_enrolled,
            principal: source.principal.clone(),
            decommissioned_at: source.decommissioned_at.map(|index| index.0),
            later_keys: changes(&source.keys, key_text),
            later_roles: changes(&source.roles, |roles| roles.values()),
        }
    }

    fn restore(&self) -> Result<Source, StateError> {
        let name = SourceName::parse(&self.name).map_err(|_| field("name"))?;
        let public_key = key_of(&self.public_key).flatten().ok_or(field("public_key"))?;
        let roles = Roles::parse(&self.roles).map_err(|_| field("roles"))?;
        let mut source = Source::new(name, public_key, roles, Index(self.registered_at));
        restore_changes(&mut source.keys, &self.later_keys, |key| key_of(key))
            .ok_or(field("later_keys"))?;
        restore_changes(&mut source.roles, &self.later_roles, |roles| Roles::parse(roles).ok())
            .ok_or(field("later_roles"))?;
        Ok(Source {
            heartbeat_nanos: self.heartbeat_nanos,
            self_enrolled: self.self_enrolled,
            principal: self.principal.clone(),
            decommissioned_at: self.decommissioned_at.map(Index),
            ..source
        })
    }
}

fn changes<T, S>(history: &History<T>, save: impl Fn(&T) -> S) -> Vec<Changed<S>> {
    let changes = history.changes();
    changes.map(|(index, value)| Changed { index: index.0, value: save(value) }).collect()
}

/// `None` for what cannot be read, or does not stand in order.
fn restore_changes<T, S>(
    history: &mut History<T>,
    saved: &[Changed<S>],
    restore: impl Fn(&S) -> Option<T>,
) -> Option<()> {
    for Changed { index, value } in saved {
        let index = Index(*index);
        if history.changed_at().is_some_and(|last| last >= index) {
            return None;
        }
        history.change(index, restore(value)?);
    }
    Some(())
}

/// A source's key in hexadecimal; empty when it has none.
fn key_text(key: &Option<VerifyingKey>) -> String {
    key.as_ref().map_or_else(String::new, |key| hex(key.as_bytes()))
}

fn key_of(text: &str) -> Option<Option<VerifyingKey>> {
    if text.is_empty() {
        return Some(None);
    }
    parse_public_key(&unhex(text)?).ok().map(Some)
}

const fn field(field: &'static str) -> StateError {
    StateError::Field { field }
}

fn digest(text: &str, name: &'static str) -> Result<Digest, StateError> {
    unhex(text).and_then(|bytes| Digest::from_slice(&bytes)).ok_or_else(|| field(name))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads hexadecimal digits, two a byte.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = (0..text.len()).step_by(2).map(|at| text.get(at..at + 2));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}
