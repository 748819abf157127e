//! An alarm as it is kept in `alarms/` and sent to the webhook: one JSON object.
//!
//! The shape is stable: fields are added, never renamed or removed.
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `version` | number | 1 |
//! | `id` | text | name of the file without its ending: time, kind and place |
//! | `kind` | text | one of [`AlarmKind`] |
//! | `origin` | text | the ledger |
//! | `index` | number or null | the first entry concerned |
//! | `size` | number | entries of the ledger that were known |
//! | `party` | text or null | the source or witness that it is about, where it is not the ledger |
//! | `message` | text | one sentence for people |
//! | `evidence` | text or null | name of the file in `alarms/` that proves it |
//! | `evidence_sha256` | text or null | of that file, in hexadecimal |
//! | `raised_at` | text | RFC 3339, by the custodian's clock |
//! | `ended_at` | text or null | when it was over |
//! | `ended_by` | text or null | why: the condition ended, or who cleared it |
//!
//! Events never stand in it: it leaves the machine.

use std::fmt;

use access_ledger_client::{
    evidence::{Caught, printable},
    verify::Fault,
};
use access_ledger_proto::{
    note::VerifierKey,
    position::{Index, Size},
};
use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum AlarmKind {
    /// The ledger signed two histories.
    Fork,
    /// The ledger went back behind what it had signed.
    Rollback,
    /// What the ledger serves as its checkpoint is not signed by it.
    CheckpointInvalid,
    /// The entries break a rule.
    LogInvalid,
    /// The ledger does not serve what it signed for.
    Withheld,
    /// The ledger serves other bytes than those that it had served before.
    Damaged,
    /// Entries appear that claim to be older than they can be.
    Backdated,
    /// Entries appear that claim to be from the future.
    FutureDated,
    /// A source declared that it lost events.
    SourceGap,
    /// A source that promised heartbeats is silent.
    SourceSilent,
    /// Nothing new was heard from the ledger for too long.
    Stale,
    /// The copy is behind the ledger for too long.
    Behind,
    /// The ledger still serves events that it recorded as erased.
    NotErased,
    /// The own copy is not what was stored.
    CopyDamaged,
    /// The ledger answered the custodian's own records with a proof that does not hold.
    ReceiptInvalid,
}

/// What an alarm is about within its ledger: alarms of one kind, ledger and place are the same
/// alarm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The ledger as a whole.
    Ledger,
    /// An entry.
    Index(Index),
    /// A checkpoint.
    Size(Size),
    /// A source or witness.
    Party(String),
}

/// Something that somebody must look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What happened.
    pub kind: AlarmKind,
    /// The ledger's name.
    pub origin: String,
    /// The first entry concerned, where entries are.
    pub index: Option<Index>,
    /// Entries of the ledger that are known.
    pub size: Size,
    /// The source or witness that it is about.
    pub party: Option<String>,
    /// One sentence; control characters are escaped.
    pub message: String,
    /// The text of [`Caught::evidence`], where there is some.
    pub evidence: Option<String>,
}

/// An alarm as it is kept. The table of fields stands at the top of this file.
#[expect(missing_docs, reason = "the table above tells")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmRecord {
    pub version: u32,
    pub id: String,
    pub kind: AlarmKind,
    pub origin: String,
    pub index: Option<u64>,
    pub size: u64,
    pub party: Option<String>,
    pub message: String,
    pub evidence: Option<String>,
    pub evidence_sha256: Option<String>,
    pub raised_at: String,
    pub ended_at: Option<String>,
    pub ended_by: Option<String>,
}

/// What makes an alarm the same as another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: AlarmKind,
    pub(super) origin: String,
    pub(super) place: Place,
}

impl AlarmKind {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::Fork,
        Self::Rollback,
        Self::CheckpointInvalid,
        Self::LogInvalid,
        Self::Withheld,
        Self::Damaged,
        Self::Backdated,
        Self::FutureDated,
        Self::SourceGap,
        Self::SourceSilent,
        Self::Stale,
        Self::Behind,
        Self::NotErased,
        Self::CopyDamaged,
        Self::ReceiptInvalid,
    ];

    /// The name in files, messages and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fork => "FORK",
            Self::Rollback => "ROLLBACK",
            Self::CheckpointInvalid => "CHECKPOINT_INVALID",
            Self::LogInvalid => "LOG_INVALID",
            Self::Withheld => "WITHHELD",
            Self::Damaged => "DAMAGED",
            Self::Backdated => "BACKDATED",
            Self::FutureDated => "FUTURE_DATED",
            Self::SourceGap => "SOURCE_GAP",
            Self::SourceSilent => "SOURCE_SILENT",
            Self::Stale => "STALE",
            Self::Behind => "BEHIND",
            Self::NotErased => "NOT_ERASED",
            Self::CopyDamaged => "COPY_DAMAGED",
            Self::ReceiptInvalid => "RECEIPT_INVALID",
        }
    }

    /// Whether nothing of that ledger may be cosigned any more until a human has looked at it.
    #[must_use]
    pub const fn halts(self) -> bool {
        matches!(self, Self::Fork | Self::Rollback | Self::LogInvalid)
    }

    /// Whether each is about something that happened once: it is not found again, so that the
    /// oldest may make room for the newest.
    pub(super) const fn is_event(self) -> bool {
        matches!(self, Self::Backdated | Self::FutureDated | Self::SourceGap)
    }

    /// Where alarms of this kind are told apart: a state of the whole ledger is one alarm however
    /// far the ledger has grown meanwhile.
    fn place(self, index: Option<Index>, size: Size, party: Option<&str>) -> Place {
        match self {
            Self::Stale
            | Self::Behind
            | Self::CheckpointInvalid
            | Self::CopyDamaged
            | Self::ReceiptInvalid => Place::Ledger,
            Self::Fork | Self::Rollback => Place::Size(size),
            Self::SourceSilent => Place::Party(party.unwrap_or_default().to_owned()),
            Self::LogInvalid
            | Self::Withheld
            | Self::Damaged
            | Self::Backdated
            | Self::FutureDated
            | Self::SourceGap
            | Self::NotErased => index.map_or(Place::Ledger, Place::Index),
        }
    }
}

impl fmt::Display for AlarmKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl fmt::Display for Place {
    /// As part of a file's name.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ledger => out.write_str("ledger"),
            Self::Index(index) => write!(out, "index-{index}"),
            Self::Size(size) => write!(out, "size-{size}"),
            Self::Party(name) => name.chars().take(PARTY_CHARS_MAX).try_for_each(|char| {
                let plain = char.is_ascii_alphanumeric() || matches!(char, '.' | '-');
                write!(out, "{}", if plain { char } else { '_' })
            }),
        }
    }
}

impl Alarm {
    /// An alarm about a ledger as a whole.
    #[must_use]
    pub fn new(kind: AlarmKind, origin: &str, size: Size, message: impl fmt::Display) -> Self {
        let origin = origin.to_owned();
        let message = printable(message).chars().take(MESSAGE_CHARS_MAX).collect();
        Self { kind, origin, index: None, size, party: None, message, evidence: None }
    }

    /// The same about an entry.
    #[must_use]
    pub fn at(self, index: Index) -> Self {
        Self { index: Some(index), ..self }
    }

    /// The same about a source or witness.
    #[must_use]
    pub fn about(self, party: &str) -> Self {
        Self { party: Some(party.to_owned()), ..self }
    }

    /// The same with what was caught as evidence.
    #[must_use]
    pub fn with_evidence(self, caught: &Caught, ledger: &VerifierKey) -> Self {
        Self { evidence: Some(caught.evidence(ledger)), ..self }
    }

    /// What to raise when a ledger is caught.
    #[must_use]
    pub fn of_caught(caught: &Caught, ledger: &VerifierKey) -> Self {
        let (kind, index, size) = match caught {
            Caught::Fork { served, .. }
            | Caught::Inconsistent { served, .. }
            | Caught::Unproven { served, .. } => (AlarmKind::Fork, None, served.size()),
            Caught::Diverged { smaller, .. } => (AlarmKind::Fork, None, smaller.size()),
            Caught::Rollback { served, .. } => (AlarmKind::Rollback, None, served.size()),
            Caught::Log { violation, served, .. } => {
                // Another tree than the one that its entries make: a second history, not a bad one.
                let kind = match violation.what {
                    Fault::Root { .. } => AlarmKind::Fork,
                    _ => AlarmKind::LogInvalid,
                };
                (kind, Some(violation.index), served.size())
            }
            Caught::Withheld { index, served, .. } => {
                (AlarmKind::Withheld, Some(*index), served.size())
            }
            Caught::Altered { index, signed, .. } => {
                (AlarmKind::Damaged, Some(*index), signed.size())
            }
            Caught::Proof { index, .. } => {
                (AlarmKind::LogInvalid, Some(*index), index.size_through())
            }
            // What is left is about the answer as such: its signature, its form.
            _ => (AlarmKind::CheckpointInvalid, None, Size::ZERO),
        };
        let alarm = Self::new(kind, ledger.name(), size, caught).with_evidence(caught, ledger);
        Self { index, ..alarm }
    }

    pub(super) fn key(&self) -> Key {
        let place = self.kind.place(self.index, self.size, self.party.as_deref());
        Key { kind: self.kind, origin: self.origin.clone(), place }
    }
}

impl AlarmRecord {
    /// Whether what raised it still lasts, as far as anybody said.
    #[must_use]
    pub const fn is_lasting(&self) -> bool {
        self.ended_at.is_none()
    }

    pub(super) fn key(&self) -> Key {
        let (index, size) = (self.index.map(Index), Size(self.size));
        let place = self.kind.place(index, size, self.party.as_deref());
        Key { kind: self.kind, origin: self.origin.clone(), place }
    }
}

/// Of a message, which may quote what a server said.
const MESSAGE_CHARS_MAX: usize = 4_096;

/// Of a source's or witness's name in the name of a file.
const PARTY_CHARS_MAX: usize = 64;
