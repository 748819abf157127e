//! What a source may do.

use crate::{error::SourceError, wire::SourceRole};

/// A set of roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u32);

impl Roles {
    /// What a self-enrolled source may do.
    pub const RECORDER: Self = Self(1 << SourceRole::Record as u32);

    /// The ledger's own source records registrations and verdicts.
    pub(super) const LEDGER: Self = Self::RECORDER;

    pub(super) const GOVERNANCE: Self =
        Self(1 << SourceRole::Govern as u32 | 1 << SourceRole::Record as u32);

    /// Reads roles from a message: at least one, each known.
    ///
    /// # Errors
    ///
    /// [`SourceError::UnknownRole`] for a value that this version does not know;
    /// [`SourceError::NoRole`] for an empty list.
    pub fn parse(values: &[i32]) -> Result<Self, SourceError> {
        let roles = values.iter().map(|&value| {
            SourceRole::try_from(value)
                .ok()
                .filter(|&role| role != SourceRole::Unspecified)
                .ok_or(SourceError::UnknownRole { value })
        });
        let roles: Self = roles.collect::<Result<_, _>>()?;
        if roles == Self::default() { Err(SourceError::NoRole) } else { Ok(roles) }
    }

    /// Whether the set holds a role.
    #[must_use]
    pub const fn contains(self, role: SourceRole) -> bool {
        self.0 & (1 << role as u32) != 0
    }

    /// The roles, ascending by value.
    pub fn iter(self) -> impl Iterator<Item = SourceRole> {
        ALL_ROLES.into_iter().filter(move |&role| self.contains(role))
    }

    /// The roles as a message holds them.
    #[must_use]
    pub fn values(self) -> Vec<i32> {
        self.iter().map(i32::from).collect()
    }
}

impl FromIterator<SourceRole> for Roles {
    fn from_iter<I: IntoIterator<Item = SourceRole>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |set, role| set | 1 << role as u32))
    }
}

const ALL_ROLES: [SourceRole; 4] =
    [SourceRole::Record, SourceRole::Enrol, SourceRole::Approve, SourceRole::Govern];
