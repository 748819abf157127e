//! What an access or a transfer rests on, as far as the log tells: its grant, emergency, legal
//! process and intent, its tool and destination, and how the data that it touched are registered.

use std::borrow::Cow;

use super::{
    Facts, Noted,
    grants::Use,
    records_of,
    scope::{Wanted, names_it},
};
use crate::wire::{
    self, Action, Boundary, DataCategory, Sensitivity, TransferMode, event::Body as EventBody,
};

/// What the log tells about an access or a transfer. All but the erasures are small values of few
/// kinds, so that what a policy makes of them can be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assessed {
    /// The grant that it names.
    pub grant: GrantAssessed,
    /// The emergency that it names.
    pub break_glass: BreakGlassStatus,
    /// The authority's request that it names.
    pub legal: LegalStatus,
    /// The tool that it was done with.
    pub tool: ToolStatus,
    /// Where the data went.
    pub destination: DestinationStatus,
    /// The intent that it carries out.
    pub intent: IntentStatus,
    /// Its data, in their order.
    pub data: Vec<DataFacts>,
}

/// The grant that an access names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrantAssessed {
    /// Whether it covers the access.
    pub status: GrantStatus,
    /// How many approvals of it count.
    pub approvals: usize,
    /// Index of the approval that made it; 0: it is not known.
    pub index: u64,
}

/// Whether a grant covers an access: the first that applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GrantStatus {
    /// The access names no grant.
    #[default]
    None,
    /// No grant has this id.
    Unknown,
    /// No approval of it counts.
    ApprovalsMissing,
    /// It was revoked before.
    Revoked,
    /// Its time had not come or was over, or it was suspended or ended.
    NotInForce,
    /// It does not cover who did what from where, or a dataset, or a category.
    Scope,
    /// Its uses or records are used up.
    Exhausted,
    /// It covers the access.
    Valid,
}

/// The emergency that an access names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BreakGlassStatus {
    /// The access names none.
    #[default]
    None,
    /// Nobody declared it.
    Unknown,
    /// Not declared yet, or ended, reviewed, or due for review.
    NotInForce,
    /// In force.
    InForce,
}

/// The authority's request that an access names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LegalStatus {
    /// The access names none.
    #[default]
    None,
    /// The log does not know it.
    Unknown,
    /// Rejected, withdrawn or closed.
    Closed,
    /// Open.
    Open,
}

/// The tool of an access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ToolStatus {
    /// The event names none.
    #[default]
    None,
    /// Not registered.
    Unregistered,
    /// No longer approved.
    Withdrawn,
    /// Registered with other builds than the one that ran.
    OtherBuild,
    /// Registered, in this build.
    Approved,
}

/// Where data went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DestinationStatus {
    /// Nowhere.
    #[default]
    None,
    /// To a place that is no registered site.
    Unregistered,
    /// To a registered site that protected data must not be copied to.
    OutsideCustody,
    /// To a registered site in custody.
    InCustody,
}

/// The intent that an access names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IntentStatus {
    /// The access names none.
    #[default]
    None,
    /// The verdict allowed what was done.
    Allowed,
    /// What was done goes beyond its verdict.
    Beyond(Beyond),
}

/// How an access goes beyond the verdict on its intent: the first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Beyond {
    /// No open intent has this id: there never was one, it was used up, or it was forgotten.
    Unknown,
    /// Another source's intent.
    Source,
    /// There is no verdict yet.
    Unanswered,
    /// The verdict is no ALLOW.
    Denied,
    /// Another person's intent.
    Actor,
    /// Another action than announced.
    Action,
    /// A dataset that was not announced.
    Dataset,
    /// Another grant than announced.
    Grant,
    /// More records than announced.
    Records,
}

/// How a dataset of an access is registered, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataFacts {
    /// Whether governance has registered the dataset.
    pub registered: bool,
    /// As registered; of an unregistered dataset as the event says.
    pub boundary: Boundary,
    /// As registered; of an unregistered dataset as the event says.
    pub sensitivity: Sensitivity,
    /// As registered, or where that says nothing, as the event says.
    pub categories: Categories,
    /// As registered, or where that says nothing, as the event says.
    pub jurisdiction: Country,
    /// What the event says differs from what is registered.
    pub mismatch: bool,
    /// Whether the grant names it, and not only everything.
    pub named_by_grant: bool,
    /// The certified erasure before the access, after which nothing should be left.
    pub erased: Option<wire::ErasedFacts>,
}

/// A set of categories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Categories(u64);

impl Categories {
    /// Reads a message's values; those that this version does not know become UNSPECIFIED.
    #[must_use]
    pub fn of(values: &[i32]) -> Self {
        Self(values.iter().fold(0, |set, &value| {
            set | 1 << DataCategory::try_from(value).unwrap_or_default() as u32
        }))
    }

    /// Whether all of another set are in this one.
    #[must_use]
    pub const fn holds(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// One bit for each category, that of its value.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The categories, ascending by value; UNSPECIFIED stands for those that are not known.
    pub fn iter(self) -> impl Iterator<Item = DataCategory> {
        (0..64)
            .filter(move |bit| self.0 >> bit & 1 == 1)
            .filter_map(|bit| DataCategory::try_from(bit).ok())
    }
}

/// Two capital letters (ISO 3166-1 alpha-2, or `ZZ`), or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

impl Country {
    /// None.
    pub const NONE: Self = Self([0; 2]);

    /// Reads a country; none for what is not two capital letters.
    #[must_use]
    pub fn of(text: &str) -> Self {
        match text.as_bytes() {
            &[first @ b'A'..=b'Z', second @ b'A'..=b'Z'] => Self([first, second]),
            _ => Self::default(),
        }
    }

    /// The two letters; empty for none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        if *self == Self::default() { "" } else { str::from_utf8(&self.0).unwrap_or_default() }
    }
}

impl Beyond {
    /// One word for a finding's fact.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Source => "source",
            Self::Unanswered => "unanswered",
            Self::Denied => "denied",
            Self::Actor => "actor",
            Self::Action => "action",
            Self::Dataset => "dataset",
            Self::Grant => "grant",
            Self::Records => "records",
        }
    }
}

impl Facts {
    /// What an access or a transfer rests on, with the facts before it; of other events nothing.
    #[must_use]
    pub fn assess(&self, noted: &Noted<'_>) -> Assessed {
        match &noted.event.body {
            Some(EventBody::Access(access)) => self.assess_access(noted, access),
            Some(EventBody::Transfer(transfer)) => self.assess_transfer(noted, transfer),
            _ => Assessed::default(),
        }
    }

    fn assess_access(&self, noted: &Noted<'_>, access: &wire::Access) -> Assessed {
        let mut assessed = Assessed {
            break_glass: self.break_glass_status(&access.break_glass_id, noted.time()),
            legal: self.legal_status(&access.legal_request_id),
            tool: self.tool_status(noted.event.tool.as_ref()),
            destination: self.destination_status(access.destination.as_ref()),
            intent: self.intent_status(noted, access),
            data: self.data_facts(noted, &access.data),
            ..Assessed::default()
        };
        self.assess_grant(noted, &self.use_of(noted, access), &access.data, &mut assessed);
        assessed
    }

    fn assess_transfer(&self, noted: &Noted<'_>, transfer: &wire::Transfer) -> Assessed {
        let mut assessed = Assessed {
            legal: self.legal_status(&transfer.legal_request_id),
            tool: self.tool_status(noted.event.tool.as_ref()),
            destination: self.destination_status(transfer.to.as_ref()),
            data: self.data_facts(noted, &transfer.data),
            ..Assessed::default()
        };
        let wanted = Wanted {
            actor: noted.actor(),
            action: action_of(transfer.mode()),
            country: transfer.to.as_ref().map_or("", |to| &to.country),
        };
        let records = records_of(0, &transfer.data);
        let used = Use { grant_id: &transfer.grant_id, wanted, records, counted_by_verdict: false };
        self.assess_grant(noted, &used, &transfer.data, &mut assessed);
        assessed
    }

    fn assess_grant(
        &self,
        noted: &Noted<'_>,
        used: &Use<'_>,
        data: &[wire::Data],
        assessed: &mut Assessed,
    ) {
        if used.grant_id.is_empty() {
            return;
        }
        let Some(grant) = self.grants.get(used.grant_id) else {
            assessed.grant.status = GrantStatus::Unknown;
            return;
        };
        assessed.grant = GrantAssessed {
            status: self.grant_status(&grant, noted.time(), used, data),
            approvals: grant.approvers.len(),
            index: grant.index,
        };
        let named = grant.scope.as_ref().map_or(&[][..], |scope| &scope.datasets);
        for (facts, data) in assessed.data.iter_mut().zip(data) {
            facts.named_by_grant = names_it(named, &data.dataset);
        }
    }

    fn tool_status(&self, tool: Option<&wire::Tool>) -> ToolStatus {
        let Some(tool) = tool else { return ToolStatus::None };
        let Some(registered) = self.catalogue.tool(&tool.id) else {
            return ToolStatus::Unregistered;
        };
        let builds = &registered.build_digests;
        if registered.withdrawn {
            ToolStatus::Withdrawn
        } else if builds.is_empty() || builds.contains(&tool.build_digest) {
            ToolStatus::Approved
        } else {
            ToolStatus::OtherBuild
        }
    }

    fn destination_status(&self, place: Option<&wire::Place>) -> DestinationStatus {
        let Some(place) = place.filter(|place| **place != wire::Place::default()) else {
            return DestinationStatus::None;
        };
        match self.catalogue.site(&place.site) {
            None => DestinationStatus::Unregistered,
            Some(site) if site.in_custody => DestinationStatus::InCustody,
            Some(_) => DestinationStatus::OutsideCustody,
        }
    }

    fn data_facts(&self, noted: &Noted<'_>, data: &[wire::Data]) -> Vec<DataFacts> {
        let time = noted.time();
        let facts = |data: &wire::Data| DataFacts {
            erased: self.erased_before(data, time).map(Cow::into_owned),
            ..self.classified(data)
        };
        data.iter().map(facts).collect()
    }

    /// How a dataset is classified, and whether the event says otherwise. What the event leaves
    /// open, or the registration does, is no difference.
    fn classified(&self, data: &wire::Data) -> DataFacts {
        let claimed = DataFacts {
            boundary: data.boundary(),
            sensitivity: data.sensitivity(),
            categories: Categories::of(&data.categories),
            jurisdiction: Country::of(&data.subject_jurisdiction),
            ..DataFacts::default()
        };
        let Some(dataset) = self.catalogue.dataset(&data.dataset) else { return claimed };
        let categories = Categories::of(&dataset.categories);
        let jurisdiction = Country::of(&dataset.subject_jurisdiction);
        let (no_categories, nowhere) = (categories.is_empty(), jurisdiction == Country::default());
        let differs = |claimed: i32, registered: i32| claimed != 0 && claimed != registered;
        let mismatch = differs(data.boundary, dataset.boundary)
            || dataset.sensitivity != 0 && differs(data.sensitivity, dataset.sensitivity)
            || !no_categories && !categories.holds(claimed.categories)
            || !nowhere
                && claimed.jurisdiction != Country::default()
                && claimed.jurisdiction != jurisdiction;
        DataFacts {
            registered: true,
            boundary: dataset.boundary(),
            sensitivity: dataset.sensitivity(),
            categories: if no_categories { claimed.categories } else { categories },
            jurisdiction: if nowhere { claimed.jurisdiction } else { jurisdiction },
            mismatch,
            ..DataFacts::default()
        }
    }
}

/// What a grant must allow for a transfer: to look at data from elsewhere is to read them.
const fn action_of(mode: TransferMode) -> Action {
    match mode {
        TransferMode::RemoteAccess | TransferMode::OnScreen => Action::Read,
        TransferMode::Copy | TransferMode::Replication | TransferMode::Backup => Action::Copy,
        TransferMode::Api | TransferMode::Chat => Action::Share,
        TransferMode::Unspecified => Action::Unspecified,
    }
}
