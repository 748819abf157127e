//! What a source may not do.

use thiserror::Error;

use super::NameError;
use crate::{facts::control::PARTIES_MIN, position::Index, source::SourceName, wire::SourceRole};

/// A source used another number than its next one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("source {name} goes on with number {found}, expected {expected}")]
pub struct SequenceGap {
    /// Whose numbers.
    pub name: SourceName,
    /// The number found.
    pub found: u64,
    /// The number that was next.
    pub expected: u64,
}

/// A source may not do what it did.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// No source of this name is registered.
    #[error("source {name} is not registered")]
    Unknown {
        /// The name.
        name: SourceName,
    },
    /// The seal names another key than the registered one.
    #[error("key is not the one that source {name} registered")]
    Key {
        /// The source.
        name: SourceName,
    },
    /// The seal names a key that governance has replaced.
    #[error("key of source {name} was replaced at index {since}, go on with the new one")]
    KeyReplaced {
        /// The source.
        name: SourceName,
        /// The entry that did it.
        since: Index,
    },
    /// Governance has revoked the key and given no other.
    #[error("key of source {name} was revoked at index {since}")]
    Revoked {
        /// The source.
        name: SourceName,
        /// The entry that did it.
        since: Index,
    },
    /// A key that is in use, or was before it was replaced or revoked.
    #[error("public key is in use or was, a new one is wanted")]
    KeyReused,
    /// The source was taken out of service.
    #[error("source {name} was decommissioned at index {since}")]
    Inactive {
        /// The source.
        name: SourceName,
        /// The entry that did it.
        since: Index,
    },
    /// The source lacks a role.
    #[error("source {name} lacks the role {}", .role.as_str_name())]
    Role {
        /// The source.
        name: SourceName,
        /// The role wanted.
        role: SourceRole,
    },
    /// The name is taken.
    #[error("source {name} is registered already")]
    Exists {
        /// The name.
        name: SourceName,
    },
    /// A status about another source.
    #[error("status of source {name}, a source reports its own")]
    Foreign {
        /// The source that the status is about.
        name: SourceName,
    },
    /// The name is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No usable Ed25519 key.
    #[error("public key is not a usable Ed25519 key of 32 bytes")]
    PublicKey,
    /// A role that this version does not know.
    #[error("role {value} is unspecified or unknown")]
    UnknownRole {
        /// The enum value.
        value: i32,
    },
    /// A source without any role.
    #[error("no role, expected at least one")]
    NoRole,
    /// A signature of the enrolment is missing or fails.
    #[error("signature of the enrolment does not verify")]
    Enrolment,
    /// The new source does not lie below its parent.
    #[error("name does not lie below its parent {parent}")]
    NotBelow {
        /// The parent.
        parent: SourceName,
    },
    /// A source enrolled itself below another source's name.
    #[error("name lies below {ancestor}, whose signature is missing")]
    Ancestor {
        /// The source above.
        ancestor: SourceName,
    },
    /// The ledger does not allow it.
    #[error("self-enrolment is not allowed in this ledger")]
    SelfEnrolment,
    /// More than recording.
    #[error("a source that enrols itself may only have the role SOURCE_ROLE_RECORD")]
    SelfEnrolmentRoles,
    /// A registration that gives the role GOVERN.
    #[error(
        "role SOURCE_ROLE_GOVERN, which no registration gives: governance stands in the genesis"
    )]
    Governance,
    /// A registration with the role APPROVE that too few parties of the governance have signed.
    #[error(
        "signed by {found} parties of the governance, at least {PARTIES_MIN} must for the role \
         SOURCE_ROLE_APPROVE"
    )]
    Parties {
        /// How many have.
        found: usize,
    },
    /// An event that only the ledger's own source records, or that it does not record.
    #[error("source {name} may not record events with body {number}")]
    Body {
        /// The source that sealed it.
        name: SourceName,
        /// Field number of the body.
        number: u32,
    },
    /// A source of the genesis that somebody else ends or changes, or the ledger's own.
    #[error("source {name} stands in the genesis, no other source ends or changes it")]
    Founding {
        /// The source.
        name: SourceName,
    },
    /// A change of the rules beside other events.
    #[error("an event that changes the rules stands alone in its batch")]
    Alone,
    /// A second genesis, or none where one belongs.
    #[error("genesis is malformed, missing or repeated")]
    Genesis,
    /// The body cannot be decoded.
    #[error("body of the event cannot be decoded")]
    Undecodable,
}
