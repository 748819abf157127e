//! What counts as an access, and what of it.
//!
//! An attempt is an access that was performed, denied, or failed, and an intent that the rules
//! deny. An intent that they allow is not counted, for the access itself follows; nor is a denial
//! that names an intent, for the intent was counted.
//!
//! Data is counted as it is registered where it is registered, as the access claims where not. When
//! the data of an access says less than the access in all, the rest counts with the first of it.

use access_ledger_proto::{
    authority::Judgement,
    facts::{
        assess::{DataFacts, GrantStatus},
        is_performed, records_of,
    },
    wire::{self, Boundary, DataCategory, LocationEvidence, Outcome, event::Body},
};

use super::{cells::Names, grid::label};

/// An attempt to access data.
pub(super) struct Attempt<'a> {
    pub(super) event: &'a wire::Event,
    pub(super) access: &'a wire::Access,
    pub(super) actor: &'a wire::Principal,
    /// In nanoseconds since the Unix epoch.
    pub(super) time: u64,
    pub(super) is_performed: bool,
    pub(super) is_denied: bool,
    /// It names a grant that is valid for it.
    pub(super) is_approved: bool,
    judgement: &'a Judgement,
}

/// One item of its data.
pub(super) struct Item<'a> {
    pub(super) data: &'a wire::Data,
    /// What is known of it.
    pub(super) facts: Option<&'a DataFacts>,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl<'a> Attempt<'a> {
    /// The attempt that an entry tells of, if it does.
    pub(super) fn of(event: &'a wire::Event, judgement: &'a Judgement) -> Option<Self> {
        let (Some(Body::Access(access)), Some(actor)) = (&event.body, &event.actor) else {
            return None;
        };
        let is_denied = match access.outcome() {
            Outcome::Requested if judgement.allowed => return None,
            Outcome::Denied if access.intent.is_some() => return None,
            outcome => matches!(outcome, Outcome::Requested | Outcome::Denied),
        };
        let is_performed = is_performed(access);
        let has_grant = judgement.assessed.grant.status == GrantStatus::Valid;
        let (time, is_approved) = (judgement.time, is_performed && has_grant);
        Some(Self { event, access, actor, time, is_performed, is_denied, is_approved, judgement })
    }

    /// Its data, with the records and bytes touched: none unless it was performed.
    pub(super) fn items(&self) -> impl Iterator<Item = Item<'a>> {
        let data = &self.access.data;
        let total = records_of(self.access.records, data);
        let told: u64 = data.iter().fold(0, |sum, data| sum.saturating_add(data.records));
        let bytes_told: u64 = data.iter().fold(0, |sum, data| sum.saturating_add(data.bytes));
        let rest = total.saturating_sub(told);
        let bytes_rest = self.access.bytes.saturating_sub(bytes_told);
        let (is_performed, facts) = (self.is_performed, &self.judgement.assessed.data);
        data.iter().enumerate().map(move |(at, data)| {
            let (rest, bytes_rest) = if at == 0 { (rest, bytes_rest) } else { (0, 0) };
            let counted =
                |told: u64, rest| if is_performed { told.saturating_add(rest) } else { 0 };
            Item {
                data,
                facts: facts.get(at),
                records: counted(data.records, rest),
                bytes: counted(data.bytes, bytes_rest),
            }
        })
    }

    /// Records touched in all.
    pub(super) fn records(&self) -> u64 {
        if self.is_performed { records_of(self.access.records, &self.access.data) } else { 0 }
    }

    /// Whether anything but somebody's word tells where the person is.
    pub(super) fn is_location_verified(&self) -> bool {
        is_known(&self.actor.physical_country)
            && matches!(
                self.actor.location_evidence(),
                LocationEvidence::DeviceAttested
                    | LocationEvidence::Gateway
                    | LocationEvidence::Idp
                    | LocationEvidence::Geoip
            )
    }
}

impl<'a> Item<'a> {
    /// Whose law protects the persons: a country; empty when that is unknown.
    pub(super) fn jurisdiction(&self) -> &'a str {
        let claimed = self.data.subject_jurisdiction.as_str();
        let country = self.facts.map_or(claimed, |facts| facts.jurisdiction.as_str());
        if is_known(country) { country } else { "" }
    }

    /// The boundary that it lies in, by name.
    pub(super) fn boundary(&self) -> String {
        let value = self.facts.map_or(self.data.boundary, |facts| facts.boundary.into());
        label(value, Boundary::as_str_name, "BOUNDARY_")
    }
}

/// Takes up the categories of data: those that it says it holds or, where it says nothing, those
/// that are registered.
pub(super) fn name_categories(names: &mut Names, data: &wire::Data, facts: Option<&DataFacts>) {
    let name = |value| label(value, DataCategory::as_str_name, "DATA_CATEGORY_");
    for &category in &data.categories {
        names.insert(&name(category));
    }
    if data.categories.is_empty() {
        for category in facts.iter().flat_map(|facts| facts.categories.iter()) {
            names.insert(&name(category.into()));
        }
    }
}

/// Whether it names a country.
pub(super) fn is_known(country: &str) -> bool {
    !country.is_empty() && country != "ZZ"
}
