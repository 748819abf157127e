//! `subject`: what happened to the data of one person, for that person.
//!
//! Told are accesses that were performed, and transfers, whose data has the person's token. Names
//! of staff are withheld unless asked for; employers and other parties are told always.

use access_ledger_proto::{
    facts::is_performed,
    wire::{
        self, Action, DataCategory, PrincipalKind, Purpose, RecipientKind, TransferMode,
        event::Body,
    },
};

use super::{
    Ground, Options, Told, Wanted,
    grid::{Column, Row, label, list, text},
    period::time,
};
use crate::error::ReportError;

pub(super) const COLUMNS: [Column; 8] = [
    text("time"),
    text("purpose"),
    text("categories"),
    text("action"),
    text("recipient category"),
    text("country"),
    text("legal basis"),
    text("disclosed to"),
];

pub(super) fn rows(options: &Options, ground: &dyn Ground) -> Result<Vec<Row>, ReportError> {
    let token = options.subject.as_deref().filter(|token| !token.is_empty());
    let token = token.ok_or(ReportError::NoSubject)?;
    let mut told = ground.entries(&Wanted::Subject(token, options.period))?;
    told.sort_by_key(|told| (told.time, told.index));
    Ok(told.iter().filter_map(|told| row(told, token, options.with_staff)).collect())
}

/// Whether an event has a subject token among its data.
pub(super) fn concerns(event: &wire::Event, token: &[u8]) -> bool {
    data(event).iter().any(|data| data.subject_tokens.iter().any(|one| one == token))
}

/// The data that an event tells of.
pub(super) fn data(event: &wire::Event) -> &[wire::Data] {
    match &event.body {
        Some(Body::Access(access)) => &access.data,
        Some(Body::Transfer(transfer)) => &transfer.data,
        _ => &[],
    }
}

fn row(told: &Told, token: &[u8], with_staff: bool) -> Option<Row> {
    let actor = told.event.actor.as_ref();
    let concerned =
        data(&told.event).iter().filter(|data| data.subject_tokens.iter().any(|one| one == token));
    let mut categories: Vec<i32> =
        concerned.flat_map(|data| data.categories.iter().copied()).collect();
    categories.sort_unstable();
    categories.dedup();
    let categories = categories
        .into_iter()
        .map(|category| label(category, DataCategory::as_str_name, "DATA_CATEGORY_"));
    let purpose = |value| label(value, Purpose::as_str_name, "PURPOSE_");
    let (purpose, action, recipient, country, basis, party) = match &told.event.body {
        Some(Body::Access(access)) if is_performed(access) => (
            purpose(access.purpose),
            label(access.action, Action::as_str_name, "ACTION_"),
            actor.map_or_else(String::new, kind),
            access_country(access, actor),
            basis_of(access),
            access_party(access, actor),
        ),
        Some(Body::Transfer(transfer)) => {
            let to = transfer.to.clone().unwrap_or_default();
            (
                purpose(transfer.purpose),
                label(transfer.mode, TransferMode::as_str_name, "TRANSFER_MODE_"),
                label(transfer.recipient_kind, RecipientKind::as_str_name, "RECIPIENT_KIND_"),
                to.country,
                transfer_basis(transfer),
                if to.entity.is_empty() { to.site } else { to.entity },
            )
        }
        _ => return None,
    };
    let by = actor.filter(|actor| with_staff && !actor.id.is_empty());
    let disclosed_to = match by {
        Some(by) if party.is_empty() => format!("(by {})", by.id),
        Some(by) => format!("{party} (by {})", by.id),
        None => party,
    };
    let categories = list(categories);
    Some(vec![
        time(told.time),
        purpose,
        categories,
        action,
        recipient,
        country,
        basis,
        disclosed_to,
    ])
}

/// Persons are staff to the person whose data it is.
fn kind(actor: &wire::Principal) -> String {
    match actor.kind() {
        PrincipalKind::Human => "STAFF".to_owned(),
        _ => label(actor.kind, PrincipalKind::as_str_name, "PRINCIPAL_KIND_"),
    }
}

/// Where the data was seen: where it went, or else where who looked at it was.
fn access_country(access: &wire::Access, actor: Option<&wire::Principal>) -> String {
    let destination = access.destination.as_ref().map(|place| &place.country);
    let places = actor.map(|actor| [&actor.physical_country, &actor.office_country]);
    let mut told = destination.into_iter().chain(places.into_iter().flatten());
    told.find(|country| !country.is_empty()).cloned().unwrap_or_default()
}

fn access_party(access: &wire::Access, actor: Option<&wire::Principal>) -> String {
    let destination = access.destination.as_ref().map(|place| &place.entity);
    let mut told = destination.into_iter().chain(actor.map(|actor| &actor.entity));
    told.find(|entity| !entity.is_empty()).cloned().unwrap_or_default()
}

fn basis_of(access: &wire::Access) -> String {
    let named = [
        ("legal request", &access.legal_request_id),
        ("grant", &access.grant_id),
        ("emergency", &access.break_glass_id),
    ];
    list(
        named.into_iter().filter(|(_, id)| !id.is_empty()).map(|(kind, id)| format!("{kind} {id}")),
    )
}

fn transfer_basis(transfer: &wire::Transfer) -> String {
    let request = &transfer.legal_request_id;
    let request =
        if request.is_empty() { String::new() } else { format!("legal request {request}") };
    list([transfer.legal_basis.clone(), request])
}
