//! What events are found by: the terms of an event, and whether an event meets a filter.
//!
//! An index keeps what [`terms()`] says of every event; an auditor who has the events asks
//! [`Criteria::matches`]. Both answer a [`wire::Filter`] alike, so an answer that leaves a hit out
//! can be told from one that does not.

use bytes::Bytes;
use prost::Message as _;

use crate::{
    event,
    wire::{self, event::Body},
};

mod criteria;

pub use self::criteria::Criteria;

/// A field that entries are found by. The numbers are those of files on disk: they do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Field {
    /// The source that sealed the entry: the one field that the entry tells, not the event.
    Source = 1,
    /// A person or service: who did it, for whom, who is to be given access, who read the ledger.
    Actor = 2,
    /// Who employs the actor; who holds the place that data comes from or goes to.
    Entity = 3,
    /// Country of the actor's employer.
    EntityCountry = 4,
    /// Country of the actor's office.
    OfficeCountry = 5,
    /// Country where the actor was.
    PhysicalCountry = 6,
    /// Id of the tool.
    Tool = 7,
    /// Name of the dataset, or a pattern of a scope as it stands there.
    Dataset = 8,
    /// A region or site that data lies at, comes from, goes to or is erased from.
    Region = 9,
    /// Whose law protects the persons: a country.
    Jurisdiction = 10,
    /// [`wire::Boundary`].
    Boundary = 11,
    /// [`wire::DataCategory`].
    Category = 12,
    /// [`wire::Action`].
    Action = 13,
    /// [`wire::Outcome`] of an access.
    Outcome = 14,
    /// [`wire::Purpose`].
    Purpose = 15,
    /// Id of a grant, or of the request that it answers, which is a grant's default id.
    Grant = 16,
    /// Id of an authority's request.
    LegalRequest = 17,
    /// Id of an emergency.
    BreakGlass = 18,
    /// Keyed hash of a data subject, of whom there is data, or whose data was looked for.
    SubjectToken = 19,
    /// Kind of event: its field number in `Event.body`.
    Body = 20,
    /// Country of a place that data lies at, comes from or goes to, or of an authority that asks.
    PlaceCountry = 21,
}

impl Field {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 21] = [
        Self::Source,
        Self::Actor,
        Self::Entity,
        Self::EntityCountry,
        Self::OfficeCountry,
        Self::PhysicalCountry,
        Self::Tool,
        Self::Dataset,
        Self::Region,
        Self::Jurisdiction,
        Self::Boundary,
        Self::Category,
        Self::Action,
        Self::Outcome,
        Self::Purpose,
        Self::Grant,
        Self::LegalRequest,
        Self::BreakGlass,
        Self::SubjectToken,
        Self::Body,
        Self::PlaceCountry,
    ];

    /// Its place in [`Field::ALL`].
    #[must_use]
    pub const fn place(self) -> usize {
        self as usize - 1
    }
}

/// Hands out the terms of an event, all fields but [`Field::Source`]. One that the event says twice
/// may come twice.
///
/// Names are UTF-8 and never empty. Enum values and kinds are their number, 4 bytes big-endian, so
/// that values which this version does not know are found as well; 0 stands where a record that
/// always has the field leaves it open.
pub fn terms(event: &wire::Event, each: impl FnMut(Field, &[u8])) {
    let mut terms = Terms(each);
    for principal in event.actor.iter().chain(&event.on_behalf_of) {
        terms.principal(principal);
    }
    if let Some(tool) = &event.tool {
        terms.text(Field::Tool, &tool.id);
    }
    if let Some(body) = &event.body {
        terms.tag(Field::Body, body_number(body));
        terms.body(body);
    }
}

/// Reads an event that a verifier need not have validated; `None` for bytes that parsers read
/// differently, which say nothing, to everybody alike.
#[must_use]
pub fn decode(event: &Bytes) -> Option<wire::Event> {
    event::body(event)?;
    wire::Event::decode(event.clone()).ok()
}

/// The term of an enum value or kind.
#[must_use]
pub const fn number_term(value: i32) -> [u8; 4] {
    value.to_be_bytes()
}

/// Calls a function with what an event says.
struct Terms<F>(F);

impl<F: FnMut(Field, &[u8])> Terms<F> {
    fn text(&mut self, field: Field, text: &str) {
        if !text.is_empty() {
            (self.0)(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: Field, texts: &[String]) {
        texts.iter().for_each(|text| self.text(field, text));
    }

    fn number(&mut self, field: Field, value: i32) {
        (self.0)(field, &number_term(value));
    }

    fn numbers(&mut self, field: Field, values: &[i32]) {
        values.iter().for_each(|&value| self.number(field, value));
    }

    fn tag(&mut self, field: Field, tag: u32) {
        (self.0)(field, &tag.to_be_bytes());
    }

    fn body(&mut self, body: &Body) {
        match body {
            Body::Access(access) => self.access(access),
            Body::Authorization(verdict) => self.text(Field::Grant, &verdict.grant_id),
            Body::AccessRequest(request) => {
                self.text(Field::Grant, &request.request_id);
                self.number(Field::Purpose, request.purpose);
                request.scope.iter().for_each(|scope| self.scope(scope));
            }
            Body::Decision(decision) => {
                self.text(Field::Grant, &decision.request_id);
                self.text(Field::Grant, &decision.grant_id);
                decision.narrowed_scope.iter().for_each(|scope| self.scope(scope));
            }
            Body::GrantChange(change) => self.text(Field::Grant, &change.grant_id),
            Body::BreakGlass(emergency) => {
                self.text(Field::BreakGlass, &emergency.break_glass_id);
            }
            Body::LegalRequest(request) => {
                self.text(Field::LegalRequest, &request.legal_request_id);
                self.text(Field::PlaceCountry, &request.country);
                self.numbers(Field::Category, &request.categories_produced);
            }
            Body::Transfer(transfer) => self.transfer(transfer),
            Body::Erasure(erasure) => {
                self.text(Field::Region, &erasure.site);
                self.text(Field::Dataset, &erasure.dataset);
            }
            Body::Holding(holding) => {
                self.text(Field::Dataset, &holding.dataset);
                self.text(Field::Region, &holding.site);
                self.text(Field::PlaceCountry, &holding.country);
                self.text(Field::Entity, &holding.site_operator);
            }
            Body::Attestation(attestation) => {
                self.text(Field::PlaceCountry, &attestation.country);
            }
            Body::SourceStatus(status) => self.text(Field::Actor, &status.principal),
            Body::ControlChange(change) => self.control(change),
            Body::LedgerRead(read) => self.read(read),
            Body::Redaction(_) | Body::Finding(_) => {}
        }
    }

    fn principal(&mut self, principal: &wire::Principal) {
        self.text(Field::Actor, &principal.id);
        self.text(Field::Entity, &principal.entity);
        self.text(Field::EntityCountry, &principal.entity_country);
        self.text(Field::OfficeCountry, &principal.office_country);
        self.text(Field::PhysicalCountry, &principal.physical_country);
    }

    fn access(&mut self, access: &wire::Access) {
        self.number(Field::Action, access.action);
        self.number(Field::Outcome, access.outcome);
        self.number(Field::Purpose, access.purpose);
        self.text(Field::Grant, &access.grant_id);
        self.text(Field::LegalRequest, &access.legal_request_id);
        self.text(Field::BreakGlass, &access.break_glass_id);
        access.destination.iter().for_each(|place| self.place(place));
        access.data.iter().for_each(|data| self.data(data));
    }

    fn read(&mut self, read: &wire::LedgerRead) {
        self.text(Field::Actor, &read.reader);
        self.tokens(&read.subject_tokens);
    }

    fn transfer(&mut self, transfer: &wire::Transfer) {
        self.number(Field::Purpose, transfer.purpose);
        self.text(Field::Grant, &transfer.grant_id);
        self.text(Field::LegalRequest, &transfer.legal_request_id);
        for place in transfer.from.iter().chain(&transfer.to) {
            self.place(place);
        }
        transfer.data.iter().for_each(|data| self.data(data));
    }

    fn data(&mut self, data: &wire::Data) {
        self.text(Field::Dataset, &data.dataset);
        self.text(Field::Region, &data.region);
        self.text(Field::Jurisdiction, &data.subject_jurisdiction);
        self.number(Field::Boundary, data.boundary);
        self.numbers(Field::Category, &data.categories);
        self.tokens(&data.subject_tokens);
    }

    fn tokens(&mut self, tokens: &[Bytes]) {
        for token in tokens.iter().filter(|token| !token.is_empty()) {
            (self.0)(Field::SubjectToken, token);
        }
    }

    fn place(&mut self, place: &wire::Place) {
        self.text(Field::Region, &place.site);
        self.text(Field::PlaceCountry, &place.country);
        self.text(Field::Entity, &place.entity);
    }

    fn scope(&mut self, scope: &wire::Scope) {
        self.texts(Field::Actor, &scope.actors);
        self.texts(Field::Dataset, &scope.datasets);
        self.numbers(Field::Action, &scope.actions);
        self.numbers(Field::Category, &scope.categories);
    }

    fn control(&mut self, change: &wire::ControlChange) {
        let field = match wire::ControlKind::try_from(change.kind) {
            Ok(wire::ControlKind::Dataset) => Field::Dataset,
            Ok(wire::ControlKind::Tool) => Field::Tool,
            Ok(wire::ControlKind::Site) => Field::Region,
            _ => return,
        };
        self.text(field, &change.target);
    }
}

/// Field number of a body in `Event.body`.
const fn body_number(body: &Body) -> u32 {
    match body {
        Body::Access(_) => 16,
        Body::Authorization(_) => 17,
        Body::AccessRequest(_) => 18,
        Body::Decision(_) => 19,
        Body::GrantChange(_) => 20,
        Body::BreakGlass(_) => 21,
        Body::LegalRequest(_) => 22,
        Body::Transfer(_) => 23,
        Body::Erasure(_) => 24,
        Body::Holding(_) => 25,
        Body::Attestation(_) => 26,
        Body::SourceStatus(_) => 27,
        Body::ControlChange(_) => 28,
        Body::Redaction(_) => 29,
        Body::LedgerRead(_) => 30,
        Body::Finding(_) => 31,
    }
}

/// Names of the bodies in `event.proto`, from field number 16 on.
pub const BODY_NAMES: [&str; 16] = [
    "access",
    "authorization",
    "access_request",
    "decision",
    "grant_change",
    "break_glass",
    "legal_request",
    "transfer",
    "erasure",
    "holding",
    "attestation",
    "source_status",
    "control_change",
    "redaction",
    "ledger_read",
    "finding",
];

/// Field number of the first body.
const BODY_FIRST: u32 = 16;

#[cfg(test)]
mod tests;
