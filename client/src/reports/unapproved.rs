//! `unapproved`: accesses and transfers that happened though no approval covered them: one row for
//! each finding that says so.
//!
//! Rules that object to something else (the tool, the place, the classification) are left out.
//! Rules that this version does not know are told: a policy may have brought them.

use access_ledger_proto::{
    facts::{is_performed, records_of},
    position::Index,
    wire::{self, Action, FindingState, TransferMode, event::Body},
};

use super::{
    Ground, Options, Told, Wanted,
    grid::{Column, Row, label, list, number, text},
    period::time,
    subject::data,
};
use crate::error::ReportError;

pub(super) const COLUMNS: [Column; 11] = [
    number("index"),
    text("time"),
    text("actor"),
    text("entity"),
    text("countries"),
    text("tool"),
    text("dataset"),
    text("action"),
    number("records"),
    text("rule"),
    text("state"),
];

pub(super) fn rows(options: &Options, ground: &dyn Ground) -> Result<Vec<Row>, ReportError> {
    let mut findings = ground.findings(options.period, &is_about_approval)?;
    findings.sort_by(|one, other| (one.index, &one.rule).cmp(&(other.index, &other.rule)));
    let mut indexes: Vec<_> = findings.iter().map(|finding| Index(finding.index)).collect();
    indexes.dedup();
    let told = ground.entries(&Wanted::At(&indexes))?;
    let row = |finding: &wire::FindingRecord| {
        let at = told.binary_search_by_key(&Index(finding.index), |told| told.index).ok()?;
        row(told.get(at)?, finding, state(finding, ground))
    };
    Ok(findings.iter().filter_map(row).collect())
}

/// Whether a rule objects that an approval is missing.
pub(super) fn is_about_approval(rule: &str) -> bool {
    !OTHER_RULES.contains(&rule)
}

fn row(told: &Told, finding: &wire::FindingRecord, state: FindingState) -> Option<Row> {
    let (action, records) = match &told.event.body {
        Some(Body::Access(access)) if is_performed(access) => (
            label(access.action, Action::as_str_name, "ACTION_"),
            records_of(access.records, &access.data),
        ),
        Some(Body::Transfer(transfer)) => (
            label(transfer.mode, TransferMode::as_str_name, "TRANSFER_MODE_"),
            records_of(0, &transfer.data),
        ),
        _ => return None,
    };
    let actor = told.event.actor.clone().unwrap_or_default();
    let mut datasets: Vec<_> = data(&told.event).iter().map(|data| &data.dataset).collect();
    datasets.sort_unstable();
    datasets.dedup();
    Some(vec![
        told.index.to_string(),
        time(told.time),
        actor.id.clone(),
        actor.entity.clone(),
        countries(&actor),
        told.event.tool.as_ref().map_or_else(String::new, |tool| tool.id.clone()),
        list(datasets),
        action,
        records.to_string(),
        finding.rule.clone(),
        match state {
            FindingState::Unspecified => "OPEN".to_owned(),
            handled => label(handled.into(), FindingState::as_str_name, "FINDING_STATE_"),
        },
    ])
}

/// What humans have made of it by the end of the log.
fn state(finding: &wire::FindingRecord, ground: &dyn Ground) -> FindingState {
    let handling = ground.facts().handling().get(&finding.finding_id);
    handling.map_or_else(|| finding.state(), |handling| handling.state())
}

/// Of the employer, the office and the person, each once.
fn countries(actor: &wire::Principal) -> String {
    let mut told: Vec<&str> = Vec::new();
    for country in [&actor.entity_country, &actor.office_country, &actor.physical_country] {
        if !told.contains(&country.as_str()) {
            told.push(country);
        }
    }
    list(told)
}

/// What they object to is not that an approval is missing.
const OTHER_RULES: [&str; 16] = [
    "ACCESS_AFTER_ERASURE",
    "APPROVER_NOT_AUTHORIZED",
    "BREAK_GLASS_UNREVIEWED",
    "CLASSIFICATION_MISMATCH",
    "CONTROL_CHANGED_ALONE",
    "CONTROL_INVALID",
    "COPY_OUTSIDE_CUSTODY",
    "ERASED_WITHOUT_RECORD",
    "INTENT_UNANSWERED",
    "LOCATION_UNVERIFIED",
    "LOW_INFORMATION_JUSTIFICATION",
    "SELF_APPROVED",
    "SOURCE_GAP",
    "SOURCE_SILENT",
    "SOURCE_UNVETTED",
    "TOOL_NOT_APPROVED",
];
