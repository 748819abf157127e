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

/// What tells one question from another, for one policy: fixed attributes, then a digest of the
/// names that the policy looks at.
pub(super) type Key = [u8; KEY_LEN];

const FIXED_LEN: usize = 23 + 8;
const KEY_LEN: usize = FIXED_LEN + 32;

impl Question<'_> {
    /// Every attribute has a part in it, so that equal keys have equal answers. The parts that vary
    /// most come first.
    pub(super) fn key(&self, sees: Sees) -> Key {
        // Names each field, so that a new one cannot be forgotten.
        let Self {
            act,
            kind,
            privileged,
            employer,
            employer_country,
            office_country,
            physical_country,
            location_evidence,
            roles,
            dataset,
            registered,
            boundary,
            sensitivity,
            categories,
            jurisdiction,
            region,
            purpose,
            grant,
            approvals,
            grant_names_dataset,
            break_glass,
            legal_request_open,
            tool,
            tool_approved,
            intent,
            destination,
            destination_site,
            destination_country,
            recipient,
            records: Magnitude(records),
        } = *self;
        let flags = [
            privileged,
            registered,
            grant_names_dataset,
            break_glass,
            legal_request_open,
            tool_approved,
            matches!(act, Act::Transfer(_)),
        ];
        let [employer_a, employer_b] = letters(employer_country);
        let [office_a, office_b] = letters(office_country);
        let [physical_a, physical_b] = letters(physical_country);
        let [home_a, home_b] = letters(jurisdiction);
        let [destination_a, destination_b] = letters(destination_country);
        let fixed = [
            act.code(),
            code(purpose),
            records,
            physical_a,
            physical_b,
            code(location_evidence),
            flags.iter().fold(0, |bits, &flag| bits << 1 | u8::from(flag)),
            office_a,
            office_b,
            employer_a,
            employer_b,
            home_a,
            home_b,
            code(kind),
            code(boundary),
            code(sensitivity),
            grant as u8,
            approvals,
            intent as u8,
            destination as u8,
            destination_a,
            destination_b,
            code(recipient),
        ];
        let mut key = [0; KEY_LEN];
        let (head, tail) = key.split_at_mut(FIXED_LEN);
        let (plain, set) = head.split_at_mut(fixed.len());
        plain.copy_from_slice(&fixed);
        set.copy_from_slice(&categories.bits().to_be_bytes());
        let names = [
            (sees.employer, employer),
            (sees.dataset, dataset),
            (sees.region, region),
            (sees.tool, tool),
            (sees.destination_site, destination_site),
        ];
        let seen = names.iter().filter(|(sees, _)| *sees).map(|&(_, name)| name);
        let roles = if sees.roles { roles } else { &[] };
        let mut seen = seen.chain(roles.iter().map(String::as_str)).peekable();
        if seen.peek().is_some() {
            tail.copy_from_slice(&digest(seen));
        }
        key
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

/// SHA-256, each name after its length: whoever chooses names cannot make two questions look alike.
fn digest<'a>(names: impl Iterator<Item = &'a str>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for name in names {
        let len = u64::try_from(name.len()).unwrap_or(u64::MAX);
        hasher.update(len.to_be_bytes());
        hasher.update(name);
    }
    hasher.finalize().into()
}
