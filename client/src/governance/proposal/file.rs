//! The file of a proposal: TOML, with one table for the change and one for each signature.

use std::marker::PhantomData;

use access_ledger_proto::{
    note::{KeyType, VerifierKey},
    wire::{self, ControlKind, SourcePhase},
};
use bytes::Bytes;
use prost::Message as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::{Change, Proposal, ProposalError};
use crate::verify::state::unhex;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The origin.
    ledger: String,
    /// Dataset, tool, site, custodian, or the source whose key or roles change. Of anything else:
    /// none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    target: String,
    /// Of a source and a redaction: none.
    #[serde(default, skip_serializing_if = "is_default")]
    revision: u64,
    change: Table,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    approvals: Vec<Signature>,
}

/// The change, under the name of its kind.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Table {
    Policy {
        text: String,
    },
    Dataset(#[serde(with = "Dataset")] wire::Dataset),
    Tool(#[serde(with = "Tool")] wire::RegisteredTool),
    Site(#[serde(with = "Site")] wire::Site),
    Retention(Retention),
    Custodian(#[serde(with = "Custodian")] wire::Custodian),
    Key(SourceKey),
    Role(#[serde(with = "SourceRoles")] wire::SourceRoles),
    #[serde(rename = "ledger-key")]
    LedgerKey(#[serde(with = "LedgerKey")] wire::LedgerKey),
    Source(Source),
    Redaction(Redaction),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "wire::Dataset", deny_unknown_fields)]
struct Dataset {
    #[serde(serialize_with = "to_name::<wire::Boundary, _>")]
    #[serde(deserialize_with = "of_name::<wire::Boundary, _>")]
    boundary: i32,
    #[serde(default, skip_serializing_if = "is_default")]
    #[serde(serialize_with = "to_name::<wire::Sensitivity, _>")]
    #[serde(deserialize_with = "of_name::<wire::Sensitivity, _>")]
    sensitivity: i32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(serialize_with = "to_names::<wire::DataCategory, _>")]
    #[serde(deserialize_with = "of_names::<wire::DataCategory, _>")]
    categories: Vec<i32>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    subject_jurisdiction: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    owner: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "wire::RegisteredTool", deny_unknown_fields)]
struct Tool {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    owner_entity: String,
    #[serde(default, serialize_with = "to_digests", deserialize_with = "of_digests")]
    build_digests: Vec<Bytes>,
    #[serde(default)]
    withdrawn: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "wire::Site", deny_unknown_fields)]
struct Site {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    country: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    site_operator: String,
    in_custody: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Retention {
    /// How old events get; 0: nothing expires any more.
    max_age_seconds: u32,
    legal_basis: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "wire::Custodian", deny_unknown_fields)]
struct Custodian {
    witness_vkey: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    mirror_vkey: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    url: String,
    #[serde(default)]
    withdrawn: bool,
}

/// Another key of a source, or none.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceKey {
    /// The new verifier key, named like the source; absent: the source has no key any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    new_key: Option<Vkey>,
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    #[serde(serialize_with = "to_hex", deserialize_with = "of_hex")]
    possession: Bytes,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "wire::SourceRoles", deny_unknown_fields)]
struct SourceRoles {
    #[serde(serialize_with = "to_names::<wire::SourceRole, _>")]
    #[serde(deserialize_with = "of_names::<wire::SourceRole, _>")]
    roles: Vec<i32>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    principal: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "wire::LedgerKey", deny_unknown_fields)]
struct LedgerKey {
    #[serde(rename = "new_key")]
    ledger_vkey: String,
    #[serde(serialize_with = "to_hex", deserialize_with = "of_hex")]
    possession: Bytes,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
}

/// A verifier key.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Vkey(#[serde(serialize_with = "to_vkey", deserialize_with = "of_vkey")] VerifierKey);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Redaction {
    first_index: u64,
    last_index: u64,
    legal_basis: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    /// Its verifier key, which holds the name.
    #[serde(serialize_with = "to_vkey", deserialize_with = "of_vkey")]
    key: VerifierKey,
    #[serde(serialize_with = "to_names::<wire::SourceRole, _>")]
    #[serde(deserialize_with = "of_names::<wire::SourceRole, _>")]
    roles: Vec<i32>,
    #[serde(default, skip_serializing_if = "is_default")]
    heartbeat_seconds: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    principal: String,
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Signature(#[serde(with = "Approval")] wire::Approval);

#[derive(Serialize, Deserialize)]
#[serde(remote = "wire::Approval", deny_unknown_fields)]
struct Approval {
    source: String,
    #[serde(serialize_with = "to_hex", deserialize_with = "of_hex")]
    key_id: Bytes,
    #[serde(serialize_with = "to_hex", deserialize_with = "of_hex")]
    signature: Bytes,
}

/// The text of a proposal; `None` for one that the file's words cannot say.
pub(super) fn write(proposal: &Proposal) -> Option<String> {
    let (target, revision) = match &proposal.change {
        Change::Control(change) => (change.target.clone(), change.revision),
        Change::Source(_) | Change::Redaction(_) => (String::new(), 0),
    };
    let change = Table::of(&proposal.change)?;
    let approvals = proposal.approvals().iter().cloned().map(Signature).collect();
    let file = File { ledger: proposal.origin.clone(), target, revision, change, approvals };
    let text = toml::to_string_pretty(&file).ok()?;
    Some(format!("{HEAD}\n{text}"))
}

/// The change alone, as it stands in the file.
pub(super) fn write_change(change: &Change) -> Option<String> {
    toml::to_string_pretty(&Table::of(change)?).ok()
}

/// Reads what [`write`] wrote, or a person.
pub(super) fn parse(text: &str) -> Result<Proposal, ProposalError> {
    let file: File = toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        at(text, start, error.message().to_owned())
    })?;
    if let Table::Key(SourceKey { new_key: Some(key), .. }) = &file.change
        && key.0.name() != file.target
    {
        let problem = format!("new_key: named {}, the target is {}", key.0.name(), file.target);
        return Err(at(text, key_start(text, "new_key"), problem));
    }
    let mut change = file.change.into_change(file.target, file.revision);
    *change.approvals_mut() = file.approvals.into_iter().map(|signature| signature.0).collect();
    Proposal::checked(file.ledger, change).map_err(|error| match error {
        ProposalError::Change { field, problem } => {
            at(text, key_start(text, &field), format!("{field}: {problem}"))
        }
        other => other,
    })
}

/// An error at a byte of the text.
fn at(text: &str, start: usize, problem: String) -> ProposalError {
    let before = text.get(..start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&symbol| symbol != '\n').count() + 1;
    ProposalError::File { line, column, problem }
}

/// Where the line begins that sets `key`.
fn key_start(text: &str, key: &str) -> usize {
    let sets = |line: &str| {
        let value = line.trim_start().strip_prefix(key);
        value.is_some_and(|value| value.trim_start().starts_with('='))
    };
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if sets(line) {
            return start;
        }
        start += line.len();
    }
    0
}

impl Table {
    fn of(change: &Change) -> Option<Self> {
        let change = match change {
            Change::Control(change) => change,
            Change::Source(status) => return Source::of(status).map(Self::Source),
            Change::Redaction(redaction) => {
                return Some(Self::Redaction(Redaction::of(redaction)));
            }
        };
        let content = change.content.clone();
        Some(match change.kind() {
            ControlKind::Policy => Self::Policy { text: String::from_utf8(content.into()).ok()? },
            ControlKind::Dataset => Self::Dataset(wire::Dataset::decode(content).ok()?),
            ControlKind::Tool => Self::Tool(wire::RegisteredTool::decode(content).ok()?),
            ControlKind::Site => Self::Site(wire::Site::decode(content).ok()?),
            ControlKind::Retention => {
                Self::Retention(Retention::of(wire::Retention::decode(content).ok()?)?)
            }
            ControlKind::Custodian => Self::Custodian(wire::Custodian::decode(content).ok()?),
            ControlKind::Key => Self::Key(SourceKey::of(&change.target, content)?),
            ControlKind::Role => Self::Role(wire::SourceRoles::decode(content).ok()?),
            ControlKind::LedgerKey => Self::LedgerKey(wire::LedgerKey::decode(content).ok()?),
            _ => return None,
        })
    }

    fn into_change(self, target: String, revision: u64) -> Change {
        let (kind, content) = match self {
            Self::Policy { text } => (ControlKind::Policy, text.into_bytes()),
            Self::Dataset(dataset) => (ControlKind::Dataset, dataset.encode_to_vec()),
            Self::Tool(tool) => (ControlKind::Tool, tool.encode_to_vec()),
            Self::Site(site) => (ControlKind::Site, site.encode_to_vec()),
            Self::Retention(retention) => (ControlKind::Retention, retention.encode()),
            Self::Custodian(custodian) => (ControlKind::Custodian, custodian.encode_to_vec()),
            Self::Key(key) => (ControlKind::Key, key.encode()),
            Self::Role(roles) => (ControlKind::Role, roles.encode_to_vec()),
            Self::LedgerKey(key) => (ControlKind::LedgerKey, key.encode_to_vec()),
            Self::Source(source) => return Change::Source(source.into_status()),
            Self::Redaction(redaction) => return Change::Redaction(redaction.into_wire()),
        };
        let (kind, content, approvals) = (kind.into(), content.into(), Vec::new());
        Change::Control(wire::ControlChange { kind, target, content, approvals, revision })
    }
}

impl SourceKey {
    /// `None` for bytes that are no key, or a name that no key has.
    fn of(target: &str, content: Bytes) -> Option<Self> {
        let wire::SourceKey { public_key, possession, reason } =
            wire::SourceKey::decode(content).ok()?;
        let new_key = match &public_key[..] {
            [] => None,
            key => {
                let key = VerifierKey::new(target, KeyType::Ed25519, key.try_into().ok()?);
                Some(Vkey(key.ok()?))
            }
        };
        Some(Self { new_key, possession, reason })
    }

    fn encode(self) -> Vec<u8> {
        let Self { new_key, possession, reason } = self;
        let public_key = new_key.map(|key| Bytes::copy_from_slice(key.0.public_key().as_bytes()));
        let public_key = public_key.unwrap_or_default();
        wire::SourceKey { public_key, possession, reason }.encode_to_vec()
    }
}

impl Retention {
    /// `None` for an age that is not one of whole seconds.
    fn of(retention: wire::Retention) -> Option<Self> {
        let max_age = retention.max_age.unwrap_or_default();
        let max_age_seconds = max_age.seconds.try_into().ok().filter(|_| max_age.nanos == 0)?;
        Some(Self { max_age_seconds, legal_basis: retention.legal_basis })
    }

    fn encode(self) -> Vec<u8> {
        let max_age = prost_types::Duration { seconds: self.max_age_seconds.into(), nanos: 0 };
        let max_age = (self.max_age_seconds > 0).then_some(max_age);
        wire::Retention { max_age, legal_basis: self.legal_basis }.encode_to_vec()
    }
}

impl Redaction {
    fn of(redaction: &wire::Redaction) -> Self {
        let legal_basis = redaction.legal_basis.clone();
        let (first_index, last_index) = (redaction.first_index, redaction.last_index);
        Self { first_index, last_index, legal_basis }
    }

    fn into_wire(self) -> wire::Redaction {
        let Self { first_index, last_index, legal_basis } = self;
        wire::Redaction { first_index, last_index, legal_basis, ..Default::default() }
    }
}

impl Source {
    fn of(status: &wire::SourceStatus) -> Option<Self> {
        let public_key = status.public_key[..].try_into().ok()?;
        let heartbeat = status.heartbeat_interval.unwrap_or_default();
        Some(Self {
            key: VerifierKey::new(&status.source, KeyType::Ed25519, public_key).ok()?,
            roles: status.roles.clone(),
            heartbeat_seconds: heartbeat.seconds.try_into().ok()?,
            principal: status.principal.clone(),
        })
    }

    fn into_status(self) -> wire::SourceStatus {
        let interval = prost_types::Duration { seconds: self.heartbeat_seconds.into(), nanos: 0 };
        wire::SourceStatus {
            phase: SourcePhase::Registered.into(),
            source: self.key.name().to_owned(),
            public_key: Bytes::copy_from_slice(self.key.public_key().as_bytes()),
            roles: self.roles,
            heartbeat_interval: (self.heartbeat_seconds > 0).then_some(interval),
            principal: self.principal,
            ..Default::default()
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// An enum of the vocabulary, whose values stand in the file by their names in `event.proto`.
trait Vocabulary: TryFrom<i32> + Into<i32> + Default {
    const KIND: &str;
    fn name(&self) -> &'static str;
    fn from_name(name: &str) -> Option<Self>;
}

macro_rules! vocabulary {
    ($($kind:ident)*) => {$(
        impl Vocabulary for wire::$kind {
            const KIND: &str = stringify!($kind);

            fn name(&self) -> &'static str {
                self.as_str_name()
            }

            fn from_name(name: &str) -> Option<Self> {
                Self::from_str_name(name)
            }
        }
    )*};
}

vocabulary!(Boundary Sensitivity DataCategory SourceRole);

fn to_name<E: Vocabulary, S: Serializer>(value: &i32, to: S) -> Result<S::Ok, S::Error> {
    // A value of a later version has no name here, and so the proposal no file.
    let known = E::try_from(*value).map_err(|_| ser::Error::custom("value without a name"))?;
    to.serialize_str(known.name())
}

fn of_name<'de, E: Vocabulary, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    Ok(Named::<E>::deserialize(from)?.0)
}

fn to_names<E: Vocabulary, S: Serializer>(values: &[i32], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(|&value| Named::<E>(value, PhantomData)))
}

fn of_names<'de, E: Vocabulary, D: Deserializer<'de>>(from: D) -> Result<Vec<i32>, D::Error> {
    let named = Vec::<Named<E>>::deserialize(from)?;
    Ok(named.into_iter().map(|named| named.0).collect())
}

struct Named<E>(i32, PhantomData<E>);

impl<E: Vocabulary> Serialize for Named<E> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to_name::<E, S>(&self.0, to)
    }
}

impl<'de, E: Vocabulary> Deserialize<'de> for Named<E> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        let known = E::from_name(&name).map(|known| Self(known.into(), PhantomData));
        known.ok_or_else(|| {
            let (kind, zero) = (E::KIND, E::default().name());
            let example = zero.replace("UNSPECIFIED", "...");
            de::Error::custom(format!("found {name:?}, expected a {kind} as in {example}"))
        })
    }
}

/// Bytes in hexadecimal.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Hex(#[serde(serialize_with = "to_hex", deserialize_with = "of_hex")] Bytes);

fn to_hex<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{bytes:x}"))
}

fn of_hex<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(from)?;
    unhex(&text).map(Bytes::from).ok_or_else(|| {
        de::Error::custom(format!("found {text:?}, expected hexadecimal digits, two a byte"))
    })
}

fn to_digests<S: Serializer>(digests: &[Bytes], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(digests.iter().cloned().map(Hex))
}

fn of_digests<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Bytes>, D::Error> {
    Ok(Vec::<Hex>::deserialize(from)?.into_iter().map(|hex| hex.0).collect())
}

fn to_vkey<S: Serializer>(key: &VerifierKey, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(key)
}

fn of_vkey<'de, D: Deserializer<'de>>(from: D) -> Result<VerifierKey, D::Error> {
    VerifierKey::parse(&String::deserialize(from)?).map_err(de::Error::custom)
}

/// What stands above a proposal.
const HEAD: &str = "\
# What the governance of an access ledger is to do. It takes effect when both governance parties
# have signed what stands here, and one of them has recorded it:
#
#   access-ledger control sign --key KEY-FILE THIS-FILE
#   access-ledger control apply --key KEY-FILE THIS-FILE
#
# For a redaction: `redact` in the place of `control`.
";
