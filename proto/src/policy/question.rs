//! What a policy is asked: the attributes of one dataset of an access or a transfer.

use sha2::{Digest as _, Sha256};

use super::Sees;
use crate::{
    facts::assess::{Categories, Country},
    wire::{
        Action, Boundary, LocationEvidence, PrincipalKind, Purpose, RecipientKind, Sensitivity,
        TransferMode,
    },
};

/// All that a policy can see, under the names of `policy/schema.cedarschema`, which says what each
/// means. No persons and no grants: whoever acts under the same circumstances gets the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// What was done.
    pub act: Act,
    /// `Principal.kind`; unspecified denies.
    pub kind: PrincipalKind,
    /// `Principal.privileged`.
    pub privileged: bool,
    /// `Principal.employer`.
    pub employer: &'a str,
    /// `Principal.employer_country`.
    pub employer_country: Country,
    /// `Principal.office_country`.
    pub office_country: Country,
    /// `Principal.physical_country`.
    pub physical_country: Country,
    /// `Principal.location_evidence`.
    pub location_evidence: LocationEvidence,
    /// `Principal.roles`.
    pub roles: &'a [String],
    /// `Data.dataset`.
    pub dataset: &'a str,
    /// `Data.registered`.
    pub registered: bool,
    /// `Data.boundary`; unspecified denies.
    pub boundary: Boundary,
    /// `Data.sensitivity`.
    pub sensitivity: Sensitivity,
    /// `Data.categories`.
    pub categories: Categories,
    /// `Data.jurisdiction`.
    pub jurisdiction: Country,
    /// `Data.region`.
    pub region: &'a str,
    /// `Circumstances.purpose`.
    pub purpose: Purpose,
    /// `Circumstances.grant`.
    pub grant: GrantStanding,
    /// `Circumstances.approvals`.
    pub approvals: u8,
    /// `Circumstances.grant_names_dataset`.
    pub grant_names_dataset: bool,
    /// `Circumstances.break_glass`.
    pub break_glass: bool,
    /// `Circumstances.legal_request_open`.
    pub legal_request_open: bool,
    /// `Circumstances.tool`; empty for none.
    pub tool: &'a str,
    /// `Circumstances.tool_approved`.
    pub tool_approved: bool,
    /// `Circumstances.intent`.
    pub intent: IntentStanding,
    /// `Circumstances.destination`.
    pub destination: Destination,
    /// `Circumstances.destination_site`; empty for none.
    pub destination_site: &'a str,
    /// `Circumstances.destination_country`.
    pub destination_country: Country,
    /// `Circumstances.recipient`.
    pub recipient: RecipientKind,
    /// `Circumstances.records`.
    pub records: Magnitude,
}

/// What was done: a policy's `action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// An access; unspecified denies.
    Access(Action),
    /// A transfer; unspecified denies.
    Transfer(TransferMode),
}

/// A number of records, rounded down to a power of ten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Magnitude(u8);

/// What there is to a grant that an access names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantStanding {
    /// It names none.
    None,
    /// It is in force and covers the access.
    Valid,
    /// Anything else.
    Invalid,
}

/// How an access was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntentStanding {
    /// Not at all.
    None,
    /// It is an announcement itself.
    Asks,
    /// It was, and was allowed.
    Allowed,
    /// It names an announcement that does not cover it.
    Beyond,
}

/// Where data went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere: it stayed, or was only shown.
    None,
    /// To a site that is registered in custody.
    InCustody,
    /// Anywhere else.
    Outside,
}

/// What tells one question from another, for one policy: the attributes, then a digest of the names
/// that the policy looks at.
pub(super) type Key = [u8; KEY_LEN];

const KEY_LEN: usize = CODES_LEN + 5 * 2 + 8 + 32;
const CODES_LEN: usize = 13;

impl Question<'_> {
    /// Every attribute has a part in it, so that equal keys have equal answers.
    pub(super) fn key(&self, sees: Sees) -> Key {
        // Names each field, so that a new one cannot be forgotten.
        let Self {
            act,
            kind,
            privileged,
            employer: _,
            employer_country,
            office_country,
            physical_country,
            location_evidence,
            roles: _,
            dataset: _,
            registered,
            boundary,
            sensitivity,
            categories,
            jurisdiction,
            region: _,
            purpose,
            grant,
            approvals,
            grant_names_dataset,
            break_glass,
            legal_request_open,
            tool: _,
            tool_approved,
            intent,
            destination,
            destination_site: _,
            destination_country,
            recipient,
            records: Magnitude(records),
        } = *self;
        let transfer = matches!(act, Act::Transfer(_));
        let flags = [privileged, registered, grant_names_dataset, break_glass].into_iter().chain([
            legal_request_open,
            tool_approved,
            transfer,
        ]);
        let codes: [u8; CODES_LEN] = [
            act.code(),
            code(purpose),
            records,
            flags.fold(0, |bits, flag| bits << 1 | u8::from(flag)),
            code(location_evidence),
            code(kind),
            code(boundary),
            code(sensitivity),
            code(recipient),
            approvals,
            grant as u8,
            intent as u8,
            destination as u8,
        ];
        let homes = [physical_country, jurisdiction].map(letters);
        let others = [office_country, employer_country, destination_country].map(letters);
        let (categories, names) = (categories.bits().to_be_bytes(), self.names(sees));
        let parts: [&[u8]; 5] =
            [&codes, homes.as_flattened(), others.as_flattened(), &categories, &names];
        let mut key = [0; KEY_LEN];
        let mut rest = key.as_mut_slice();
        for part in parts {
            let (head, tail) = rest.split_at_mut(part.len());
            head.copy_from_slice(part);
            rest = tail;
        }
        key
    }

    /// A digest of the names that a policy looks at, zeros if there are none. Each stands after its
    /// length: whoever chooses names cannot make two questions look alike.
    fn names(&self, sees: Sees) -> [u8; 32] {
        let names = [
            (sees.employer, self.employer),
            (sees.dataset, self.dataset),
            (sees.region, self.region),
            (sees.tool, self.tool),
            (sees.destination_site, self.destination_site),
        ];
        let roles = if sees.roles { self.roles } else { &[] };
        let names = names.into_iter().filter(|(sees, _)| *sees).map(|(_, name)| name);
        let mut names = names.chain(roles.iter().map(String::as_str)).peekable();
        if names.peek().is_none() {
            return [0; 32];
        }
        let mut hasher = Sha256::new();
        for name in names {
            let len = u64::try_from(name.len()).unwrap_or(u64::MAX);
            hasher.update(len.to_be_bytes());
            hasher.update(name);
        }
        hasher.finalize().into()
    }
}

impl Act {
    fn code(self) -> u8 {
        match self {
            Self::Access(action) => code(action),
            Self::Transfer(mode) => code(mode),
        }
    }
}

impl Magnitude {
    /// Rounds down.
    #[must_use]
    pub fn of(records: u64) -> Self {
        let digits = records.checked_ilog10().map_or(0, |exponent| exponent + 1);
        Self(u8::try_from(digits).unwrap_or(u8::MAX))
    }

    /// 0, 1, 10, 100, ..., up to the largest that Cedar's integers hold, 10^18.
    #[must_use]
    pub fn value(self) -> i64 {
        let exponent = u32::from(self.0).checked_sub(1);
        exponent.map_or(0, |exponent| 10_i64.pow(exponent.min(18)))
    }
}

impl GrantStanding {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Valid => "VALID",
            Self::Invalid => "INVALID",
        }
    }
}

impl IntentStanding {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Asks => "ASKS",
            Self::Allowed => "ALLOWED",
            Self::Beyond => "BEYOND",
        }
    }
}

impl Destination {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::InCustody => "IN_CUSTODY",
            Self::Outside => "OUTSIDE",
        }
    }
}

fn letters(country: Country) -> [u8; 2] {
    country.as_str().as_bytes().try_into().unwrap_or_default()
}

/// An enum's value; those that the vocabulary knows fit a byte.
fn code(value: impl Into<i32>) -> u8 {
    u8::try_from(value.into()).unwrap_or(u8::MAX)
}
