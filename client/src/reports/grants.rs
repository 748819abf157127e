//! `grants`: grants that were in force in the period, and requests that wait for one.
//!
//! A request that waits is a row under its own id, which nobody has approved, so that approvers see
//! what is theirs to answer; one that was denied is none. A scope names its first names of each
//! kind.

use access_ledger_proto::{
    position::count_of,
    wire::{Action, DataCategory, GrantFacts, GrantState, RequestFacts, Scope, Verdict},
};

use super::{
    Ground, Options,
    grid::{Column, Row, label, list, number, text},
    period::time,
};

pub(super) const COLUMNS: [Column; 12] = [
    text("grant"),
    text("requester"),
    text("approvers"),
    text("scope"),
    text("approved at"),
    text("in force from"),
    text("in force to"),
    text("first use"),
    text("last use"),
    text("uses of max"),
    number("out-of-scope attempts"),
    text("ended by"),
];

pub(super) fn rows(options: &Options, ground: &dyn Ground) -> Vec<Row> {
    let (period, now) = (options.period, ground.recorded_until());
    let mut grants = Vec::new();
    ground.facts().grants().each(|_, grant| {
        let begins = grant.approved_at.min(grant.not_before);
        // What ended the day it was approved was in force that day.
        let ends = ending(grant).max(grant.approved_at);
        if begins < period.to() && ends >= period.from() {
            grants.push((grant.approved_at, grant.grant_id.clone(), of_grant(grant, now)));
        }
    });
    let mut waiting = Vec::new();
    ground.facts().requests().each(|_, request| {
        if request.time < period.to() && is_open(request) {
            waiting.push((request.time, request.request_id.clone(), of_request(request)));
        }
    });
    grants.sort();
    waiting.sort();
    grants.into_iter().chain(waiting).map(|(_, _, row)| row).collect()
}

/// When it stopped being in force, or will.
fn ending(grant: &GrantFacts) -> u64 {
    match grant.state() {
        GrantState::Revoked | GrantState::Ended => grant.changed_at.min(grant.not_after),
        _ => grant.not_after,
    }
}

/// Neither a grant nor a refusal that counts.
fn is_open(request: &RequestFacts) -> bool {
    let is_denied = request
        .decisions
        .iter()
        .any(|decision| decision.verdict() == Verdict::Deny && decision.void_by.is_empty());
    request.grant_id.is_empty() && !is_denied
}

fn of_grant(grant: &GrantFacts, now: u64) -> Row {
    let uses = match grant.max_uses {
        0 => grant.uses.to_string(),
        most => format!("{} of {most}", grant.uses),
    };
    vec![
        grant.grant_id.clone(),
        grant.requester.clone(),
        list(&grant.approvers),
        grant.scope.as_ref().map_or_else(String::new, scope),
        time(grant.approved_at),
        time(grant.not_before),
        time(grant.not_after),
        time(grant.first_use),
        time(grant.last_use),
        uses,
        grant.out_of_scope.to_string(),
        ended_by(grant, now),
    ]
}

fn of_request(request: &RequestFacts) -> Row {
    let mut row = vec![String::new(); COLUMNS.len()];
    let told = [
        request.request_id.clone(),
        request.actor.clone(),
        String::new(),
        request.scope.as_ref().map_or_else(String::new, scope),
    ];
    for (cell, told) in row.iter_mut().zip(told) {
        *cell = told;
    }
    row
}

fn ended_by(grant: &GrantFacts, now: u64) -> String {
    match grant.state() {
        state @ (GrantState::Revoked | GrantState::Ended | GrantState::Suspended) => {
            let state = label(state.into(), GrantState::as_str_name, "GRANT_STATE_");
            format!("{state} by {}", grant.changed_by)
        }
        _ if grant.not_after <= now => "expiry".to_owned(),
        _ => String::new(),
    }
}

/// What it covers: `datasets users; actions READ, QUERY`. `everything` when nothing restricts it.
fn scope(scope: &Scope) -> String {
    let actions = labels(&scope.actions, Action::as_str_name, "ACTION_");
    let categories = labels(&scope.categories, DataCategory::as_str_name, "DATA_CATEGORY_");
    let parts = [
        ("actors", &scope.actors),
        ("datasets", &scope.datasets),
        ("actions", &actions),
        ("categories", &categories),
        ("countries", &scope.countries),
    ];
    let told: Vec<_> = parts
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(kind, names)| format!("{kind} {}", some_of(names)))
        .collect();
    if told.is_empty() { "everything".to_owned() } else { told.join("; ") }
}

fn labels<E: TryFrom<i32>>(
    values: &[i32],
    name: fn(&E) -> &'static str,
    prefix: &str,
) -> Vec<String> {
    values.iter().map(|&value| label(value, name, prefix)).collect()
}

fn some_of(names: &[String]) -> String {
    let mut told = list(names.iter().take(SCOPE_NAMES_MAX));
    let left_out = names.len().saturating_sub(SCOPE_NAMES_MAX);
    if left_out > 0 {
        told.push_str(&format!(", +{}", count_of(left_out)));
    }
    told
}

/// A scope may have thousands of names; the row is to be read.
const SCOPE_NAMES_MAX: usize = 8;
