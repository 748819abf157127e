//! The facts of a finding: few, named, in an order that reads like a sentence. An auditor must
//! understand the finding by them, without looking anything up.

use std::fmt::Write as _;

use super::{NANOS, fact};
use crate::{
    authority::Judgement,
    facts::{
        Facts, Noted,
        assess::{Assessed, IntentStatus, LegalStatus, ToolStatus},
        intents::intent_key,
        records_of,
    },
    wire::{self, FindingFact, Principal, event::Body},
};

/// Who did what with which tool, as far as the event says.
pub(super) fn of_event(noted: &Noted<'_>) -> Vec<FindingFact> {
    let mut told = Vec::with_capacity(10);
    if let Some(actor) = &noted.event.actor {
        told.push(fact("actor", &actor.id));
        told.push(fact("entity", &actor.entity));
        told.push(fact("country", country(actor)));
    }
    if let Some(tool) = &noted.event.tool {
        told.push(fact("tool", &tool.id));
    }
    match &noted.event.body {
        Some(Body::Access(access)) => {
            told.push(fact("action", word(access.action().as_str_name(), "ACTION_")));
            tell_data(&mut told, access.records, &access.data);
            told.push(fact("purpose", word(access.purpose().as_str_name(), "PURPOSE_")));
            told.push(fact("grant", &access.grant_id));
            told.push(fact("break_glass", &access.break_glass_id));
            told.push(fact("legal_request", &access.legal_request_id));
            told.push(fact("to", place(access.destination.as_ref())));
        }
        Some(Body::Transfer(transfer)) => {
            told.push(fact("action", word(transfer.mode().as_str_name(), "TRANSFER_MODE_")));
            tell_data(&mut told, 0, &transfer.data);
            told.push(fact("purpose", word(transfer.purpose().as_str_name(), "PURPOSE_")));
            told.push(fact("grant", &transfer.grant_id));
            told.push(fact("legal_request", &transfer.legal_request_id));
            told.push(fact("from", place(transfer.from.as_ref())));
            told.push(fact("to", place(transfer.to.as_ref())));
            let kind = transfer.recipient_kind().as_str_name();
            told.push(fact("recipient", word(kind, "RECIPIENT_KIND_")));
        }
        _ => {}
    }
    told.push(fact("source", noted.source));
    told
}

/// What makes a performed access, or a transfer, break a rule: other entries, and facts.
pub(super) fn of_access(
    rule: &str,
    noted: &Noted<'_>,
    judgement: &Judgement,
    facts: &Facts,
) -> (Vec<u64>, Vec<FindingFact>) {
    let mut told = of_event(noted);
    let mut related = Vec::new();
    let assessed = &judgement.assessed;
    match rule {
        "GRANT_NOT_IN_FORCE" | "GRANT_REVOKED" | "GRANT_SCOPE" | "GRANT_EXHAUSTED"
        | "APPROVALS_MISSING" | "BULK_EXPORT" => {
            tell_grant(rule, noted, assessed, facts, &mut told, &mut related);
        }
        "CROSS_REGION" | "LOCATION_UNVERIFIED" => {
            let evidence = noted.event.actor.as_ref().map(Principal::location_evidence);
            let evidence = evidence.unwrap_or_default().as_str_name();
            told.push(fact("evidence", word(evidence, "LOCATION_EVIDENCE_")));
            let homes = assessed.data.iter().map(|data| data.jurisdiction.as_str());
            told.push(fact("home_of_data", list(homes)));
        }
        "TOOL_NOT_APPROVED" => tell_tool(noted, assessed.tool, &mut told),
        "ACCESS_AFTER_ERASURE" => {
            for erased in assessed.data.iter().filter_map(|data| data.erased.as_ref()) {
                told.push(fact("job", &erased.job_id));
                told.push(fact("certified_at", time(erased.time)));
                related.push(erased.index);
            }
        }
        "CLASSIFICATION_MISMATCH" => tell_mismatch(noted, assessed, &mut told),
        "BEYOND_VERDICT" => {
            if let IntentStatus::Beyond(beyond) = assessed.intent {
                told.push(fact("beyond", beyond.as_str()));
            }
            if let Some(Body::Access(access)) = &noted.event.body
                && let Some(intent) = &access.intent
            {
                let known = facts.intents().get(&intent_key(&intent.event_id)).map(|row| row.index);
                related.extend(known.or(intent.index));
            }
        }
        "DISCLOSURE_WITHOUT_PROCESS" => {
            let status = match assessed.legal {
                LegalStatus::None => "none named",
                LegalStatus::Unknown => "not in the log",
                LegalStatus::Closed => "closed",
                LegalStatus::Open => "open",
            };
            told.push(fact("legal_process", status));
        }
        _ => {}
    }
    related.sort_unstable();
    related.dedup();
    (related, told)
}

fn tell_grant(
    rule: &str,
    noted: &Noted<'_>,
    assessed: &Assessed,
    facts: &Facts,
    told: &mut Vec<FindingFact>,
    related: &mut Vec<u64>,
) {
    let id = match &noted.event.body {
        Some(Body::Access(access)) => access.grant_id.as_str(),
        Some(Body::Transfer(transfer)) => transfer.grant_id.as_str(),
        _ => return,
    };
    told.push(fact("approvals", assessed.grant.approvals));
    let Some(grant) = facts.grants().get(id) else { return };
    related.push(grant.index);
    told.push(fact("approvers", list(grant.approvers.iter().map(String::as_str))));
    match rule {
        "GRANT_NOT_IN_FORCE" => {
            told.push(fact("state", word(grant.state().as_str_name(), "GRANT_STATE_")));
            told.push(fact("not_before", time(grant.not_before)));
            told.push(fact("not_after", time(grant.not_after)));
        }
        "GRANT_REVOKED" => {
            told.push(fact("revoked_by", &grant.changed_by));
            told.push(fact("revoked_at", time(grant.changed_at)));
            related.push(grant.changed_index);
        }
        "GRANT_SCOPE" => {
            let scope = grant.scope.clone().unwrap_or_default();
            told.push(fact("granted_actors", list(scope.actors.iter().map(String::as_str))));
            told.push(fact("granted_datasets", list(scope.datasets.iter().map(String::as_str))));
            let actions = scope.actions().map(|action| word(action.as_str_name(), "ACTION_"));
            told.push(fact("granted_actions", list(actions)));
            told.push(fact("granted_countries", list(scope.countries.iter().map(String::as_str))));
        }
        "GRANT_EXHAUSTED" => {
            told.push(fact("uses", of_limit(grant.uses, grant.max_uses)));
            told.push(fact("records_used", of_limit(grant.records, grant.max_records)));
        }
        _ => {}
    }
}

fn tell_tool(noted: &Noted<'_>, status: ToolStatus, told: &mut Vec<FindingFact>) {
    if let Some(tool) = &noted.event.tool {
        told.push(fact("version", &tool.version));
        let mut build = String::new();
        for byte in tool.build_digest.iter().take(4) {
            // Writing to a `String` cannot fail.
            let _infallible = write!(build, "{byte:02x}");
        }
        told.push(fact("build", build));
    }
    let status = match status {
        ToolStatus::None => "none named",
        ToolStatus::Unregistered => "not registered",
        ToolStatus::Withdrawn => "withdrawn",
        ToolStatus::OtherBuild => "another build",
        ToolStatus::Approved => "approved",
    };
    told.push(fact("tool_status", status));
}

fn tell_mismatch(noted: &Noted<'_>, assessed: &Assessed, told: &mut Vec<FindingFact>) {
    let claimed = match &noted.event.body {
        Some(Body::Access(access)) => &access.data[..],
        Some(Body::Transfer(transfer)) => &transfer.data[..],
        _ => return,
    };
    let pairs = claimed.iter().zip(&assessed.data);
    let Some((data, registered)) = pairs.into_iter().find(|(_, facts)| facts.mismatch) else {
        return;
    };
    let told_as = |boundary: wire::Boundary, sensitivity: wire::Sensitivity| {
        let sensitivity = word(sensitivity.as_str_name(), "SENSITIVITY_");
        let words = [word(boundary.as_str_name(), "BOUNDARY_"), sensitivity];
        let said = words.into_iter().filter(|word| !word.is_empty());
        said.collect::<Vec<_>>().join(" ")
    };
    told.push(fact("mismatched", &data.dataset));
    told.push(fact("claimed", told_as(data.boundary(), data.sensitivity())));
    told.push(fact("registered", told_as(registered.boundary, registered.sensitivity)));
}

fn tell_data(told: &mut Vec<FindingFact>, records: u64, data: &[wire::Data]) {
    told.push(fact("dataset", list(data.iter().map(|data| data.dataset.as_str()))));
    told.push(fact("region", list(data.iter().map(|data| data.region.as_str()))));
    told.push(fact("records", records_of(records, data)));
}

/// Where somebody was; else where their office is.
fn country(actor: &Principal) -> &str {
    let known = |country: &&str| !country.is_empty();
    [actor.physical_country.as_str(), &actor.office_country].into_iter().find(known).unwrap_or("")
}

fn place(place: Option<&wire::Place>) -> String {
    let words = place.map(|place| [&place.site, &place.country, &place.entity]);
    let said = words.into_iter().flatten().map(String::as_str).filter(|word| !word.is_empty());
    said.collect::<Vec<_>>().join(" ")
}

/// An enum's value without its prefix; empty for UNSPECIFIED.
fn word(name: &'static str, prefix: &str) -> &'static str {
    match name.strip_prefix(prefix) {
        Some("UNSPECIFIED") => "",
        Some(word) => word,
        None => name,
    }
}

/// The first few of a list, each once, and how many more there are.
fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 3;
    let mut items: Vec<&str> = items.filter(|item| !item.is_empty()).collect();
    items.sort_unstable();
    items.dedup();
    let more = items.len().saturating_sub(SHOWN);
    items.truncate(SHOWN);
    let mut text = items.join(", ");
    if more > 0 {
        // Writing to a `String` cannot fail.
        let _infallible = write!(text, " and {more} more");
    }
    text
}

fn of_limit(used: u64, max: u64) -> String {
    if max == 0 { String::new() } else { format!("{used} of {max}") }
}

/// RFC 3339 in UTC.
fn time(nanos: u64) -> String {
    let seconds = i64::try_from(nanos / NANOS).unwrap_or(i64::MAX);
    let nanos = i32::try_from(nanos % NANOS).unwrap_or_default();
    prost_types::Timestamp { seconds, nanos }.to_string()
}
