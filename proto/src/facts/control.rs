//! What governance registers and changes: datasets, tools, sites, custodians, the retention and the
//! policy; and what its two parties sign for it. Keys and roles: `sources/amend.rs`.
//!
//! Both parties of the governance must have signed a change: the source that seals it counts as
//! one, the other signs the message that is built here. The same goes for the registration of a
//! source that approves requests.
//!
//! ```text
//! access-ledger/control/v1\n          access-ledger/source/v1\n
//! <origin>\n                          <origin>\n
//! <kind: enum value, decimal>\n       <name of the new source>\n
//! <target>\n                          <base64 of its public key>\n
//! <revision, decimal>\n               <roles, as in the enrolment message>\n
//! <base64 of SHA-256 of content>\n    <heartbeat interval in nanoseconds, decimal; 0: none>\n
//!                                     <id of the person whose key it is; empty: none>\n
//! ```

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost::Message as _;

use super::{
    Facts, Noted, Objection, PolicyFacts,
    redactions::{RETENTION_NANOS_MIN, Retention},
    sources::{Source, SourceChange, Sources, is_amendment},
};
use crate::{
    enrolment::EnrolmentClaim,
    error::ControlError,
    event,
    hash::sha256,
    note::{KeyType, VerifierKey, parse_public_key, verifies},
    position::Index,
    seal::source_key_id,
    source::Name,
    wire::{self, ControlKind, SourceRole},
};

/// How many parties of the governance must have signed a change: the company and the custodian.
pub const PARTIES_MIN: usize = 2;

/// The text that both parties sign for a change, in the ledger of this origin.
#[must_use]
pub fn control_message(origin: &str, change: &wire::ControlChange) -> String {
    let kind = change.kind;
    let digest = STANDARD.encode(sha256(&change.content).as_bytes());
    let (target, revision) = (&change.target, change.revision);
    format!("access-ledger/control/v1\n{origin}\n{kind}\n{target}\n{revision}\n{digest}\n")
}

/// The text that both parties sign for the registration of a source with the role APPROVE;
/// `principal` is the id of the person whose key it is.
#[must_use]
pub fn registration_message(origin: &str, claim: &EnrolmentClaim<'_>, principal: &str) -> String {
    format!(
        "access-ledger/source/v1\n{origin}\n{}\n{}\n{}\n{}\n{principal}\n",
        claim.source,
        STANDARD.encode(claim.public_key.as_bytes()),
        claim.roles_text(),
        claim.heartbeat_nanos,
    )
}

/// The parties of the governance, in service, that signed `message`: the sealer and those whose
/// signature among `approvals` verifies. Each once, in the order of their names.
#[must_use]
pub fn parties<'a>(
    sources: &'a Sources,
    sealer: Name<'_>,
    message: &str,
    approvals: &[wire::Approval],
) -> Vec<&'a Source> {
    let in_office = |name: &str| {
        let source = sources.get(Name::parse(name.as_bytes()).ok()?)?;
        let governs = source.roles.now().contains(SourceRole::Govern);
        (governs && source.decommissioned_at.is_none()).then_some(source)
    };
    let mut signed = BTreeMap::new();
    if let Some(sealer) = in_office(sealer.as_str()) {
        signed.insert(sealer.name.clone(), sealer);
    }
    for approval in approvals {
        let Some(source) = in_office(&approval.source) else { continue };
        let Ok(signature) = approval.signature.as_ref().try_into() else { continue };
        if !signed.contains_key(&source.name)
            && let Some(key) = source.key()
            && source_key_id(source.name.as_name(), key).0 == approval.key_id.as_ref()
            && verifies(key, message.as_bytes(), signature)
        {
            signed.insert(source.name.clone(), source);
        }
    }
    signed.into_values().collect()
}

/// The registered datasets, tools, sites and custodians, by their names.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    datasets: BTreeMap<String, Arc<wire::Dataset>>,
    tools: BTreeMap<String, Arc<wire::RegisteredTool>>,
    sites: BTreeMap<String, Arc<wire::Site>>,
    custodians: BTreeMap<String, Arc<wire::Custodian>>,
}

impl Catalogue {
    /// A registered dataset.
    #[must_use]
    pub fn dataset(&self, name: &str) -> Option<&Arc<wire::Dataset>> {
        self.datasets.get(name)
    }

    /// A registered tool.
    #[must_use]
    pub fn tool(&self, id: &str) -> Option<&Arc<wire::RegisteredTool>> {
        self.tools.get(id)
    }

    /// A registered site.
    #[must_use]
    pub fn site(&self, name: &str) -> Option<&Arc<wire::Site>> {
        self.sites.get(name)
    }

    /// A registered custodian; its keys keep the form of verifier keys.
    #[must_use]
    pub fn custodian(&self, name: &str) -> Option<&Arc<wire::Custodian>> {
        self.custodians.get(name)
    }

    /// All custodians that were ever registered, withdrawn ones too, in the order of their names.
    pub fn custodians(&self) -> impl Iterator<Item = (&str, &wire::Custodian)> {
        self.custodians.iter().map(|(name, custodian)| (name.as_str(), &**custodian))
    }

    fn register(&mut self, target: &str, content: Content) {
        let name = target.to_owned();
        match content {
            Content::Dataset(dataset) => drop(self.datasets.insert(name, Arc::new(dataset))),
            Content::Tool(tool) => drop(self.tools.insert(name, Arc::new(tool))),
            Content::Site(site) => drop(self.sites.insert(name, Arc::new(site))),
            Content::Custodian(custodian) => {
                drop(self.custodians.insert(name, Arc::new(custodian)));
            }
            Content::Policy(_) | Content::Retention(_) | Content::Sources(_) => {}
        }
    }
}

const fn is_supported(kind: ControlKind) -> bool {
    matches!(
        kind,
        ControlKind::Policy
            | ControlKind::Dataset
            | ControlKind::Tool
            | ControlKind::Site
            | ControlKind::Retention
            | ControlKind::Custodian
    )
}

/// What a change brings.
enum Content {
    Policy(Arc<str>),
    Dataset(wire::Dataset),
    Tool(wire::RegisteredTool),
    Site(wire::Site),
    Retention(wire::Retention),
    Custodian(wire::Custodian),
    Sources(SourceChange),
}

impl Content {
    /// `None` for what breaks the rules of `control.proto`, or has a target or none where it
    /// should not.
    fn parse(kind: ControlKind, target: &str, content: &[u8]) -> Option<Self> {
        event::validate_control(kind, content).ok()?;
        match kind {
            ControlKind::Policy if target.is_empty() => {
                str::from_utf8(content).ok().map(|text| Self::Policy(text.into()))
            }
            ControlKind::Retention if target.is_empty() => {
                let retention = wire::Retention::decode(content).ok()?;
                is_long_enough(&retention).then_some(Self::Retention(retention))
            }
            _ if target.is_empty() => None,
            ControlKind::Dataset => wire::Dataset::decode(content).ok().map(Self::Dataset),
            ControlKind::Tool => wire::RegisteredTool::decode(content).ok().map(Self::Tool),
            ControlKind::Site => wire::Site::decode(content).ok().map(Self::Site),
            ControlKind::Custodian => {
                let custodian = wire::Custodian::decode(content).ok()?;
                has_cosigner_keys(&custodian).then_some(Self::Custodian(custodian))
            }
            _ => None,
        }
    }
}

/// What is wrong with a content that keeps the rules of its fields: the field, and what was wanted
/// of it.
#[must_use]
pub fn content_fault(kind: ControlKind, content: &[u8]) -> Option<(&'static str, &'static str)> {
    match kind {
        ControlKind::Retention => {
            let retention = wire::Retention::decode(content).ok()?;
            let is_sound = is_long_enough(&retention);
            (!is_sound).then_some(("max_age", "shorter than a day, in which an intent is open"))
        }
        ControlKind::Custodian => {
            let custodian = wire::Custodian::decode(content).ok()?;
            let is_sound = is_cosigners(&custodian.witness_vkey);
            let field = if is_sound { "mirror_vkey" } else { "witness_vkey" };
            (!has_cosigner_keys(&custodian)).then_some((field, "no verifier key of a cosigner"))
        }
        ControlKind::Key => {
            let key = wire::SourceKey::decode(content).ok()?;
            let is_sound = key.public_key.is_empty() || parse_public_key(&key.public_key).is_ok();
            (!is_sound).then_some(("new_key", "no usable Ed25519 key"))
        }
        ControlKind::LedgerKey => {
            let key = VerifierKey::parse(&wire::LedgerKey::decode(content).ok()?.ledger_vkey);
            let is_sound = key.is_ok_and(|key| key.key_type() == KeyType::Ed25519);
            (!is_sound).then_some(("new_key", "no verifier key of a ledger"))
        }
        _ => None,
    }
}

/// Nothing expires, or nothing that is younger than what may still rest on it.
fn is_long_enough(retention: &wire::Retention) -> bool {
    let max_age = max_age_nanos(retention);
    max_age == 0 || max_age >= RETENTION_NANOS_MIN
}

fn max_age_nanos(retention: &wire::Retention) -> u64 {
    retention.max_age.as_ref().map_or(0, event::nanos_in)
}

/// Whether it is a verifier key of the kind that cosigns.
fn is_cosigners(text: &str) -> bool {
    VerifierKey::parse(text).is_ok_and(|key| key.key_type() == KeyType::CosignatureV1)
}

fn has_cosigner_keys(custodian: &wire::Custodian) -> bool {
    is_cosigners(&custodian.witness_vkey)
        && (custodian.mirror_vkey.is_empty() || is_cosigners(&custodian.mirror_vkey))
}

/// Reads a change that `sealer` sealed, where `in_force` is the revision in force of its kind and
/// target.
fn read_change(
    sources: &Sources,
    in_force: u64,
    sealer: Name<'_>,
    change: &wire::ControlChange,
) -> Result<Content, ControlError> {
    if !is_supported(change.kind()) {
        return Err(ControlError::Kind);
    }
    check_signed(sources, in_force, sealer, change)?;
    Content::parse(change.kind(), &change.target, &change.content).ok_or(ControlError::Content)
}

/// That both parties have signed a change, and that it follows the revision in force.
pub(super) fn check_signed(
    sources: &Sources,
    in_force: u64,
    sealer: Name<'_>,
    change: &wire::ControlChange,
) -> Result<(), ControlError> {
    let message = control_message(&sources.genesis().origin, change);
    let found = parties(sources, sealer, &message, &change.approvals).len();
    if found < PARTIES_MIN {
        return Err(ControlError::Alone { found });
    }
    let expected = in_force.saturating_add(1);
    if change.revision != expected {
        return Err(ControlError::Revision { found: change.revision, expected });
    }
    Ok(())
}

/// The retention that a change at `index` brings into force in place of another one; `None` when it
/// is about something else, or of no effect. For whoever follows the retention without the other
/// facts.
#[must_use]
pub fn retention_after(
    sources: &Sources,
    in_force: Option<&Retention>,
    (sealer, index): (Name<'_>, Index),
    change: &wire::ControlChange,
) -> Option<Retention> {
    if change.kind() != ControlKind::Retention {
        return None;
    }
    let revision = in_force.map_or(0, |retention| retention.revision);
    match read_change(sources, revision, sealer, change) {
        Ok(Content::Retention(content)) => Some(Retention::of(index, change.revision, content)),
        _ => None,
    }
}

impl Retention {
    /// What a change at `index` says that was found lawful before; `None` when it is about
    /// something else.
    #[must_use]
    pub fn read(index: Index, change: &wire::ControlChange) -> Option<Self> {
        match Content::parse(change.kind(), &change.target, &change.content) {
            Some(Content::Retention(content)) => Some(Self::of(index, change.revision, content)),
            _ => None,
        }
    }

    fn of(index: Index, revision: u64, content: wire::Retention) -> Self {
        let max_age_nanos = max_age_nanos(&content);
        Self { index, revision, max_age_nanos, legal_basis: content.legal_basis }
    }
}

impl Facts {
    /// Judges a change that `sealer` sealed; the policy's text itself is for `policy.rs` to read.
    ///
    /// # Errors
    ///
    /// [`ControlError`]: what is wrong with it, the first that applies in the order of the enum's
    /// variants.
    pub fn judge_control(
        &self,
        sealer: Name<'_>,
        change: &wire::ControlChange,
    ) -> Result<(), ControlError> {
        self.read_control(sealer, Index::GENESIS, change).map(drop)
    }

    /// `index` is where what it changes counts from; whether it is lawful does not depend on it.
    fn read_control(
        &self,
        sealer: Name<'_>,
        index: Index,
        change: &wire::ControlChange,
    ) -> Result<Content, ControlError> {
        if is_amendment(change.kind()) {
            return self.sources.judge_amendment(sealer, index, change).map(Content::Sources);
        }
        let in_force = self.revision(change.kind, &change.target);
        read_change(&self.sources, in_force, sealer, change)
    }

    /// The revision in force of a kind of rule and its target; 0: none.
    #[must_use]
    pub fn revision(&self, kind: i32, target: &str) -> u64 {
        if kind == i32::from(ControlKind::Policy) {
            return self.policy.revision;
        }
        if let Ok(kind) = ControlKind::try_from(kind)
            && is_amendment(kind)
        {
            return self.sources.revision(kind, target);
        }
        self.controls.get(&control_key(kind, target)).map_or(0, |row| row.revision)
    }

    pub(super) fn take_control(
        &mut self,
        noted: &Noted<'_>,
        change: &wire::ControlChange,
    ) -> Vec<Objection> {
        if change.kind() == ControlKind::Genesis {
            return Vec::new();
        }
        let content = match self.read_control(noted.source, noted.index, change) {
            Ok(content) => content,
            Err(fault) => return vec![fault.objection(change)],
        };
        let row = wire::ControlFacts {
            kind: change.kind,
            target: change.target.clone(),
            revision: change.revision,
            index: noted.index.0,
            content: change.content.clone(),
        };
        self.enforce(&row, content);
        // The ledger's former keys stay known.
        let key = match change.kind() {
            ControlKind::LedgerKey => control_key(change.kind, &change.revision.to_string()),
            _ => control_key(change.kind, &change.target),
        };
        self.controls.insert(&key, noted.index, row);
        Vec::new()
    }

    /// Brings the saved rules back into force.
    pub(super) fn enforce_saved(&mut self) {
        let mut rows = Vec::new();
        self.controls.each(|_, row| rows.push(row.clone()));
        rows.sort_unstable_by_key(|row| row.index);
        for row in rows {
            if row.kind() == ControlKind::LedgerKey {
                self.sources.restore_ledger_key(Index(row.index), &row.content);
            } else if let Some(content) = Content::parse(row.kind(), &row.target, &row.content) {
                self.enforce(&row, content);
            }
        }
    }

    fn enforce(&mut self, row: &wire::ControlFacts, content: Content) {
        match content {
            Content::Policy(text) => {
                let index = Index(row.index);
                self.policy = PolicyFacts { text, revision: row.revision, index };
            }
            Content::Retention(content) => {
                self.retention = Some(Retention::of(Index(row.index), row.revision, content));
            }
            Content::Sources(change) => self.sources.apply(change),
            other => self.catalogue.register(&row.target, other),
        }
    }
}

impl ControlError {
    /// What findings say of a change that is in the log all the same.
    #[must_use]
    pub fn objection(&self, change: &wire::ControlChange) -> Objection {
        let mut facts = vec![
            ("kind", change.kind().as_str_name().to_owned()),
            ("target", change.target.clone()),
        ];
        let rule = match *self {
            Self::Alone { found } => {
                facts.push(("parties", found.to_string()));
                "CONTROL_CHANGED_ALONE"
            }
            Self::Revision { found, expected } => {
                facts.push(("revision", found.to_string()));
                facts.push(("expected", expected.to_string()));
                "CONTROL_INVALID"
            }
            Self::Possession | Self::Source(_) => {
                facts.push(("problem", self.to_string()));
                "CONTROL_INVALID"
            }
            Self::Content | Self::Kind => "CONTROL_INVALID",
        };
        Objection { rule, related: Vec::new(), facts }
    }
}

fn control_key(kind: i32, target: &str) -> String {
    format!("{kind}\n{target}")
}

#[cfg(test)]
mod tests;
