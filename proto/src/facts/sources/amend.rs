//! How governance changes the sources that are registered: another key or none, other roles; and
//! the ledger's own key, which signs its checkpoints.
//!
//! Such a change is a `ControlChange` of kind KEY, ROLE or LEDGER_KEY, which both parties sign like
//! any other. It counts from the entry behind it on: what was sealed before stays sealed, and what
//! stands behind is sealed with the new key. A key that was replaced or revoked is nobody's ever
//! again. Who holds a new key shows it by its signature over
//!
//! ```text
//! access-ledger/key/v1\n
//! <origin>\n
//! <name of the source; of the ledger's key: the origin once more>\n
//! <base64 of the new public key>\n
//! ```
//!
//! The sources of the genesis, those that govern and the ledger's own, may get other keys, too, but
//! are never left without one; their roles do not change, and nobody else gets the role GOVERN.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::VerifyingKey;
use prost::Message as _;

use super::{Change, Roles, Source, SourceChange, Sources};
use crate::{
    error::{ControlError, SourceError},
    event,
    facts::control::check_signed,
    note::{KeyType, VerifierKey, parse_public_key, verifies},
    position::Index,
    seal::source_key_id,
    source::{Name, SourceName},
    wire::{self, ControlKind, SourceRole},
};

/// The text that a new key signs: `name` is the source's, or the origin for the ledger's own key.
#[must_use]
pub fn possession_message(origin: &str, name: &str, public_key: &VerifyingKey) -> String {
    let public_key = STANDARD.encode(public_key.as_bytes());
    format!("access-ledger/key/v1\n{origin}\n{name}\n{public_key}\n")
}

/// Whether changes of this kind are about the registered sources, or the ledger's key.
#[must_use]
pub const fn is_amendment(kind: ControlKind) -> bool {
    matches!(kind, ControlKind::Key | ControlKind::Role | ControlKind::LedgerKey)
}

/// Another key of a source, or none; other roles; another key of the ledger.
#[derive(Clone, Debug)]
pub(super) enum Amendment {
    Key(SourceName, Option<VerifyingKey>),
    Roles(SourceName, Roles, String),
    Ledger(Box<VerifierKey>),
}

impl Sources {
    /// The revision in force of an amendment of this kind; 0: none.
    pub(in crate::facts) fn revision(&self, kind: ControlKind, target: &str) -> u64 {
        let source = Name::parse(target.as_bytes()).ok().and_then(|name| self.get(name));
        match kind {
            ControlKind::LedgerKey => self.ledger_keys.revision(),
            ControlKind::Key => source.map_or(0, |source| source.keys.revision()),
            ControlKind::Role => source.map_or(0, |source| source.roles.revision()),
            _ => 0,
        }
    }

    /// Judges a change of kind KEY, ROLE or LEDGER_KEY that `sealer` sealed, at `index`.
    ///
    /// # Errors
    ///
    /// [`ControlError`]: what is wrong with it, the first that applies.
    pub(in crate::facts) fn judge_amendment(
        &self,
        sealer: Name<'_>,
        index: Index,
        change: &wire::ControlChange,
    ) -> Result<SourceChange, ControlError> {
        check_signed(self, self.revision(change.kind(), &change.target), sealer, change)?;
        self.read_amendment(change).map(|what| SourceChange(Change::Amend(index, what)))
    }

    /// Carries out changes of the ledger's key that were found lawful before, in their order.
    pub(in crate::facts) fn restore_ledger_key(&mut self, index: Index, content: &[u8]) {
        let key = wire::LedgerKey::decode(content).ok();
        if let Some(key) = key.and_then(|key| VerifierKey::parse(&key.ledger_vkey).ok()) {
            self.ledger_keys.change(index, key);
        }
    }

    fn read_amendment(&self, change: &wire::ControlChange) -> Result<Amendment, ControlError> {
        let (content, target) = (change.content.clone(), &change.target);
        let malformed = |_| ControlError::Content;
        event::validate_control(change.kind(), &content).map_err(|_| ControlError::Content)?;
        match change.kind() {
            ControlKind::LedgerKey if !target.is_empty() => Err(ControlError::Content),
            ControlKind::LedgerKey => {
                let content = wire::LedgerKey::decode(content).map_err(malformed)?;
                self.read_ledger_key(&content)
            }
            ControlKind::Key => {
                let content = wire::SourceKey::decode(content).map_err(malformed)?;
                self.read_key(self.amended(target)?, &content)
            }
            ControlKind::Role => {
                let content = wire::SourceRoles::decode(content).map_err(malformed)?;
                self.read_roles(self.amended(target)?, &content)
            }
            _ => Err(ControlError::Kind),
        }
    }

    /// The source that a change is about: in service.
    fn amended(&self, target: &str) -> Result<&Source, ControlError> {
        let name = Name::parse(target.as_bytes()).map_err(|_| ControlError::Content)?;
        Ok(self.active(name)?)
    }

    fn read_key(
        &self,
        source: &Source,
        content: &wire::SourceKey,
    ) -> Result<Amendment, ControlError> {
        let name = source.name.clone();
        if content.public_key.is_empty() {
            // Without them nothing could be put right any more.
            if source.registered_at == Index::GENESIS {
                return Err(SourceError::Founding { name }.into());
            }
            if source.key().is_none() {
                let since = source.keys.changed_at().unwrap_or_default();
                return Err(SourceError::Revoked { name, since }.into());
            }
            return Ok(Amendment::Key(name, None));
        }
        let key = parse_public_key(&content.public_key).map_err(|_| SourceError::PublicKey)?;
        let id = source_key_id(name.as_name(), &key);
        if self.is_used(&key) || source.key_of(id).is_some() {
            return Err(SourceError::KeyReused.into());
        }
        self.check_possession(name.as_str(), &key, &content.possession)?;
        Ok(Amendment::Key(name, Some(key)))
    }

    fn read_roles(
        &self,
        source: &Source,
        content: &wire::SourceRoles,
    ) -> Result<Amendment, ControlError> {
        let name = source.name.clone();
        if source.registered_at == Index::GENESIS {
            return Err(SourceError::Founding { name }.into());
        }
        let roles = Roles::parse(&content.roles)?;
        if roles.contains(SourceRole::Govern) {
            return Err(SourceError::Governance.into());
        }
        let approves = roles.contains(SourceRole::Approve);
        let principal = if approves { content.principal.clone() } else { String::new() };
        Ok(Amendment::Roles(name, roles, principal))
    }

    fn read_ledger_key(&self, content: &wire::LedgerKey) -> Result<Amendment, ControlError> {
        let key = VerifierKey::parse(&content.ledger_vkey).map_err(|_| ControlError::Content)?;
        if key.name() != self.genesis.origin || key.key_type() != KeyType::Ed25519 {
            return Err(ControlError::Content);
        }
        let known = self.ledger_keys.values();
        let alike =
            |known: &VerifierKey| known.public_key() == key.public_key() || known.id() == key.id();
        if self.is_used(key.public_key()) || known.into_iter().any(alike) {
            return Err(SourceError::KeyReused.into());
        }
        self.check_possession(key.name(), key.public_key(), &content.possession)?;
        Ok(Amendment::Ledger(Box::new(key)))
    }

    fn check_possession(
        &self,
        name: &str,
        key: &VerifyingKey,
        signature: &[u8],
    ) -> Result<(), ControlError> {
        let signature = signature.try_into().map_err(|_| ControlError::Possession)?;
        let message = possession_message(&self.genesis.origin, name, key);
        if verifies(key, message.as_bytes(), signature) {
            Ok(())
        } else {
            Err(ControlError::Possession)
        }
    }

    /// Whether a source has this key or had it, or the ledger has it.
    fn is_used(&self, key: &VerifyingKey) -> bool {
        let had = |source: &Source| source.keys.values().flatten().any(|known| known == key);
        self.is_retired(key)
            || self.ledger_keys.values().any(|known| known.public_key() == key)
            || self.iter().any(had)
    }

    pub(super) fn amend(&mut self, index: Index, amendment: Amendment) {
        match amendment {
            Amendment::Key(name, key) => {
                let Some(source) = self.by_name.get_mut(&name) else { return };
                self.retired.extend(source.key().map(|key| *key.as_bytes()));
                source.keys.change(index, key);
            }
            Amendment::Roles(name, roles, principal) => {
                let Some(source) = self.by_name.get_mut(&name) else { return };
                source.roles.change(index, roles);
                source.principal = principal;
            }
            Amendment::Ledger(key) => self.ledger_keys.change(index, *key),
        }
    }
}

#[cfg(test)]
mod tests;
