//! Every rule of the vocabulary, as something that breaks it and an innocent twin of that.
//!
//! Both are told into an open [`Story`], again and again if need be: ids come from where in the
//! story they stand.

use access_ledger_proto::{
    position::Index,
    wire::{
        Access, AccessRequest, Action, AuthorizationDecision, Boundary, BreakGlass,
        BreakGlassPhase, ControlKind, Data, Dataset, Decision, Erasure, ErasurePhase, Event,
        GrantChange, GrantState, LegalProcess, LegalRequest, LegalRequestPhase, LocationEvidence,
        Outcome, Place, Principal, Purpose, RecipientKind, ReviewVerdict, Sensitivity, SourcePhase,
        SourceRole, SourceStatus, Transfer, TransferMode, event::Body,
    },
};
use prost::Message as _;

use crate::story::{
    APPROVERS, DATASET, DAY, GATEWAY, GRANT, HOME, LEDGER, PARTIES, PUBLIC, RECORDER, SECOND,
    SITES, Story,
    parts::{self, data, duration, reference, timestamp},
};

/// Tells something.
pub type Tell = fn(&mut Story) -> anyhow::Result<()>;

/// A breach of a rule.
#[derive(Clone, Copy, Debug)]
pub struct Offence {
    /// The one rule that it breaks.
    pub rule: &'static str,
    /// Breaks it, and no other.
    pub commit: Tell,
    /// Does nearly the same and breaks none.
    pub twin: Tell,
}

const fn offence(rule: &'static str, commit: Tell, twin: Tell) -> Offence {
    Offence { rule, commit, twin }
}

/// At least one for every rule that the default policy, the facts or the timers know.
pub const OFFENCES: [Offence; 37] = [
    // Grants.
    offence("NO_GRANT", |s| read(s, DATASET, ""), |s| read(s, PUBLIC, "")),
    offence("PRIVILEGED_ACCESS", |s| privileged(s, ""), |s| privileged(s, GRANT)),
    offence("GRANT_UNKNOWN", |s| read(s, DATASET, "g-nobody"), |s| read(s, DATASET, GRANT)),
    offence("GRANT_UNKNOWN", unapproved, new_grant),
    offence("GRANT_UNKNOWN", unknown_request, new_grant),
    offence("GRANT_NOT_IN_FORCE", |s| used_after(s, 2 * HOUR), |s| used_after(s, HOUR / 2)),
    offence(
        "GRANT_NOT_IN_FORCE",
        |s| changed(s, &[GrantState::Suspended]),
        |s| changed(s, &[GrantState::Suspended, GrantState::Active]),
    ),
    offence(
        "GRANT_REVOKED",
        |s| changed(s, &[GrantState::Revoked]),
        |s| changed(s, &[GrantState::Extended]),
    ),
    offence("GRANT_SCOPE", |s| read(s, OTHER, GRANT), |s| read(s, DATASET, GRANT)),
    offence("GRANT_EXHAUSTED", |s| used(s, 2), |s| used(s, 1)),
    offence("GRANT_EXHAUSTED", |s| used_records(s, 101), |s| used_records(s, 100)),
    // Approvals.
    offence("APPROVALS_MISSING", |s| special_category(s, 1), |s| special_category(s, 2)),
    offence("SELF_APPROVED", |s| asked_by(s, APPROVERS[0].1), |s| asked_by(s, APPROVERS[1].1)),
    offence(
        "APPROVER_NOT_AUTHORIZED",
        |s| decided_by(s, RECORDER),
        |s| decided_by(s, APPROVERS[1].0),
    ),
    // Where, with what, how much.
    offence("CROSS_REGION", |s| abroad(s, Action::Export), |s| abroad(s, Action::Read)),
    offence("LOCATION_UNVERIFIED", |s| located(s, SELF_DECLARED), |s| located(s, IDP)),
    offence("TOOL_NOT_APPROVED", |s| with_build(s, 8), |s| with_build(s, 7)),
    offence("BULK_EXPORT", |s| export(s, 20_000), |s| export(s, 9_000)),
    offence("COPY_OUTSIDE_CUSTODY", |s| copy_to(s, SITES[1].0), |s| copy_to(s, SITES[0].0)),
    offence("CLASSIFICATION_MISMATCH", misclassified, plain),
    offence("ACCESS_AFTER_ERASURE", |s| erased_site(s, true), |s| erased_site(s, false)),
    offence("DISCLOSURE_WITHOUT_PROCESS", |s| disclose(s, false), |s| disclose(s, true)),
    // Intents and verdicts.
    offence("INTENT_MISSING", decrypt, |s| announced(s, Action::Decrypt, 1)),
    offence("INTENT_UNANSWERED", |s| answered_after(s, 120), |s| answered_after(s, 1)),
    offence(
        "BEYOND_VERDICT",
        |s| announced(s, Action::Read, 50),
        |s| announced(s, Action::Read, 1),
    ),
    offence("POLICY_VIOLATED", |s| allowed_by(s, LEDGER, ""), |s| allowed_by(s, LEDGER, GRANT)),
    offence("POLICY_VIOLATED", |s| allowed_by(s, RECORDER, GRANT), plain),
    // Emergencies and reasons.
    offence(
        "BREAK_GLASS_UNREVIEWED",
        |s| emergency(s, 2 * HOUR, REASON),
        |s| emergency(s, HOUR / 2, REASON),
    ),
    offence(
        "LOW_INFORMATION_JUSTIFICATION",
        |s| emergency(s, SECOND, "asap"),
        |s| emergency(s, SECOND, REASON),
    ),
    offence(
        "LOW_INFORMATION_JUSTIFICATION",
        |s| justified(s, "fix fix fix"),
        |s| justified(s, REASON),
    ),
    // Sources.
    offence(
        "SOURCE_GAP",
        |s| status(s, RECORDER, SourcePhase::GapDeclared),
        |s| status(s, RECORDER, SourcePhase::Started),
    ),
    offence("SOURCE_SILENT", |s| heartbeats(s, 600), |s| heartbeats(s, 50)),
    offence("SOURCE_UNVETTED", unvetted, vetted),
    offence("ERASED_WITHOUT_RECORD", |s| erased_event(s, false), |s| erased_event(s, true)),
    // Governance.
    offence("CONTROL_CHANGED_ALONE", control_alone, |s| control(s, &statistics())),
    offence("CONTROL_INVALID", |s| control(s, b"\xff"), |s| control(s, &statistics())),
    offence("CONTROL_INVALID", control_again, |s| control(s, &statistics())),
];

const HOUR: u64 = 3_600 * SECOND;
const EXTENDED: GrantState = GrantState::Extended;
const SELF_DECLARED: LocationEvidence = LocationEvidence::SelfDeclared;
const IDP: LocationEvidence = LocationEvidence::Idp;

/// Protected, and of no grant.
const OTHER: &str = "users.messages";

/// A reason that says something.
const REASON: &str = "login service down in two regions, need to see session records";

fn plain(story: &mut Story) -> anyhow::Result<()> {
    edited(story, |_, _| {})
}

fn edited(story: &mut Story, edit: impl FnOnce(&mut Event, &mut Access)) -> anyhow::Result<()> {
    story.access(edit).map(drop)
}

/// Reads a dataset under a grant, or under none.
fn read(story: &mut Story, dataset: &str, grant: &str) -> anyhow::Result<()> {
    edited(story, |_, access| {
        access.data = vec![data(dataset)];
        access.grant_id = grant.to_owned();
    })
}

fn privileged(story: &mut Story, grant: &str) -> anyhow::Result<()> {
    edited(story, |event, access| {
        event.actor.get_or_insert_default().privileged = true;
        access.grant_id = grant.to_owned();
    })
}

fn unknown_request(story: &mut Story) -> anyhow::Result<()> {
    story.approve("nobody-asked", 0, |_| {}).map(drop)
}

/// A new grant, approved once.
fn granted(
    story: &mut Story,
    request: impl FnOnce(&mut AccessRequest),
    decision: impl FnOnce(&mut Decision),
) -> anyhow::Result<String> {
    let id = story.fresh("g");
    story.request(&id, request)?;
    story.approve(&id, 0, decision)?;
    Ok(id)
}

fn new_grant(story: &mut Story) -> anyhow::Result<()> {
    granted(story, |_| {}, |_| {}).map(drop)
}

/// Uses a grant for an hour so much later.
fn used_after(story: &mut Story, nanos: u64) -> anyhow::Result<()> {
    let hour = |request: &mut AccessRequest| request.requested_duration = Some(duration(HOUR));
    let grant = granted(story, hour, |_| {})?;
    story.wait(nanos);
    read(story, DATASET, &grant)
}

fn change(story: &mut Story, grant: &str, state: GrantState) -> anyhow::Result<()> {
    let not_after = (state == EXTENDED).then(|| timestamp(story.now() + 30 * DAY));
    let (grant_id, state) = (grant.to_owned(), state.into());
    let change = GrantChange { grant_id, state, reason: REASON.to_owned(), not_after };
    story.tell(APPROVERS[0].0, Body::GrantChange(change)).map(drop)
}

/// Uses a grant whose state was changed, to the last of these.
fn changed(story: &mut Story, states: &[GrantState]) -> anyhow::Result<()> {
    let grant = granted(story, |_| {}, |_| {})?;
    states.iter().try_for_each(|&state| change(story, &grant, state))?;
    read(story, DATASET, &grant)
}

/// Uses a grant for one use so many times.
fn used(story: &mut Story, times: u64) -> anyhow::Result<()> {
    let grant = granted(story, |_| {}, |decision| decision.max_uses = 1)?;
    (0..times).try_for_each(|_| read(story, DATASET, &grant))
}

/// Uses a grant for a hundred records after so many were read.
fn used_records(story: &mut Story, records: u64) -> anyhow::Result<()> {
    let grant = granted(story, |_| {}, |decision| decision.max_records = 100)?;
    edited(story, |_, access| {
        access.grant_id.clone_from(&grant);
        access.records = records;
        access.data = vec![Data { records, ..data(DATASET) }];
    })
}

/// Names a request that nobody has approved.
fn unapproved(story: &mut Story) -> anyhow::Result<()> {
    let id = story.fresh("g");
    story.request(&id, |_| {})?;
    read(story, DATASET, &id)
}

/// Reads health data on so many approvals.
fn special_category(story: &mut Story, approvals: usize) -> anyhow::Result<()> {
    let dataset = story.fresh("users.health-");
    let sensitivity = Sensitivity::SpecialCategory.into();
    let registered = Dataset {
        boundary: Boundary::Protected.into(),
        sensitivity,
        subject_jurisdiction: HOME.to_owned(),
        ..Default::default()
    };
    story.control(ControlKind::Dataset, &dataset, &registered.encode_to_vec())?;
    let grant = story.fresh("g");
    let named = dataset.clone();
    story.request(&grant, |request| {
        request.scope.get_or_insert_default().datasets = vec![named];
    })?;
    (0..approvals).try_for_each(|by| story.approve(&grant, by, |_| {}).map(drop))?;
    edited(story, |_, access| {
        access.data = vec![Data { sensitivity, ..data(&dataset) }];
        access.grant_id = grant;
    })
}

/// The first approver approves what this person asks for.
fn asked_by(story: &mut Story, person: &str) -> anyhow::Result<()> {
    let id = story.fresh("g");
    let (mut event, mut request) = (Event::default(), parts::request(&id));
    event.actor = Some(Principal { id: person.to_owned(), ..parts::person() });
    request.scope.get_or_insert_default().actors = vec![person.to_owned()];
    event.body = Some(Body::AccessRequest(request));
    story.record(GATEWAY, event)?;
    story.approve(&id, 0, |_| {}).map(drop)
}

/// This source approves a request.
fn decided_by(story: &mut Story, source: &str) -> anyhow::Result<()> {
    let id = story.fresh("g");
    story.request(&id, |_| {})?;
    story.tell(source, Body::Decision(parts::approval(&id))).map(drop)
}

fn abroad(story: &mut Story, action: Action) -> anyhow::Result<()> {
    edited(story, |event, access| {
        event.actor.get_or_insert_default().physical_country = "SG".to_owned();
        access.action = action.into();
    })
}

fn located(story: &mut Story, evidence: LocationEvidence) -> anyhow::Result<()> {
    edited(story, |event, _| {
        event.actor.get_or_insert_default().location_evidence = evidence.into();
    })
}

fn with_build(story: &mut Story, build: u8) -> anyhow::Result<()> {
    edited(story, |event, _| {
        event.tool.get_or_insert_default().build_digest = vec![build; 32].into();
    })
}

fn export(story: &mut Story, records: u64) -> anyhow::Result<()> {
    edited(story, |_, access| {
        access.action = Action::Export.into();
        access.records = records;
        access.data = vec![Data { records, ..data(DATASET) }];
    })
}

fn copy_to(story: &mut Story, site: &str) -> anyhow::Result<()> {
    edited(story, |_, access| {
        access.action = Action::Copy.into();
        access.destination = Some(Place { site: site.to_owned(), ..Default::default() });
    })
}

fn misclassified(story: &mut Story) -> anyhow::Result<()> {
    edited(story, |_, access| {
        access.data = vec![Data { boundary: Boundary::Public.into(), ..data(DATASET) }];
    })
}

/// Reads data at a site, before or after the data was certified erased there.
fn erased_site(story: &mut Story, is_after: bool) -> anyhow::Result<()> {
    let (site, job_id) = (story.fresh("old-"), story.fresh("job-"));
    let region = site.clone();
    let read = |story: &mut Story| {
        edited(story, |_, access| access.data = vec![Data { region, ..data(DATASET) }])
    };
    let phases = [ErasurePhase::Completed, ErasurePhase::Verified, ErasurePhase::Certified];
    let erase = |story: &mut Story| {
        phases.into_iter().try_for_each(|phase| {
            let (job_id, site, dataset) = (job_id.clone(), site.clone(), DATASET.to_owned());
            let phase = phase.into();
            let erasure = Erasure { job_id, phase, site, dataset, ..Default::default() };
            story.tell(RECORDER, Body::Erasure(erasure)).map(drop)
        })
    };
    if is_after {
        erase(story)?;
        read(story)
    } else {
        read(story)?;
        erase(story)
    }
}

/// Hands data to an authority, on a legal request that is known or names none.
fn disclose(story: &mut Story, is_known: bool) -> anyhow::Result<()> {
    let legal_request_id = if is_known { story.fresh("lr-") } else { String::new() };
    if is_known {
        let request = LegalRequest {
            legal_request_id: legal_request_id.clone(),
            phase: LegalRequestPhase::Received.into(),
            process: LegalProcess::CourtOrder.into(),
            country: HOME.to_owned(),
            agency: "district court".to_owned(),
            accounts_specified: 1,
            ..Default::default()
        };
        story.tell(RECORDER, Body::LegalRequest(request))?;
    }
    let (mut event, _) = parts::access();
    let place = |site: &str| Some(Place { site: site.to_owned(), ..Default::default() });
    event.body = Some(Body::Transfer(Transfer {
        from: place(SITES[0].0),
        to: place("district court"),
        mode: TransferMode::Api.into(),
        legal_basis: "court order".to_owned(),
        data: vec![data(DATASET)],
        recipient_kind: RecipientKind::Authority.into(),
        purpose: Purpose::LegalRequest.into(),
        legal_request_id,
        ..Default::default()
    }));
    story.record(GATEWAY, event).map(drop)
}

/// Announces an access to [`DATASET`].
fn intent(story: &mut Story, action: Action, grant: &str) -> anyhow::Result<Index> {
    story.access(|_, access| {
        access.action = action.into();
        access.outcome = Outcome::Requested.into();
        access.grant_id = grant.to_owned();
    })
}

/// Carries out an intent that the ledger allowed.
fn announced(story: &mut Story, action: Action, records: u64) -> anyhow::Result<()> {
    let intent = intent(story, action, GRANT)?;
    story.verdict(LEDGER, intent, AuthorizationDecision::Allow)?;
    edited(story, |_, access| {
        access.action = action.into();
        access.intent = Some(reference(intent));
        access.records = records;
        access.data = vec![Data { records, ..data(DATASET) }];
    })
}

fn decrypt(story: &mut Story) -> anyhow::Result<()> {
    edited(story, |_, access| access.action = Action::Decrypt.into())
}

fn answered_after(story: &mut Story, seconds: u64) -> anyhow::Result<()> {
    let intent = intent(story, Action::Read, GRANT)?;
    story.wait(seconds * SECOND);
    story.verdict(LEDGER, intent, AuthorizationDecision::Deny).map(drop)
}

/// A verdict of this source that allows to go on with, or without, a grant.
fn allowed_by(story: &mut Story, source: &str, grant: &str) -> anyhow::Result<()> {
    let intent = intent(story, Action::Read, grant)?;
    story.verdict(source, intent, AuthorizationDecision::Allow).map(drop)
}

/// An emergency that is to be reviewed within an hour.
fn emergency(story: &mut Story, nanos: u64, reason: &str) -> anyhow::Result<()> {
    let id = story.fresh("bg-");
    let phase = |phase: BreakGlassPhase| BreakGlass {
        break_glass_id: id.clone(),
        phase: phase.into(),
        ..Default::default()
    };
    let mut event = Event { actor: Some(parts::person()), ..Default::default() };
    event.body = Some(Body::BreakGlass(BreakGlass {
        incident: "INC-2044".to_owned(),
        review_due: Some(timestamp(story.now() + HOUR)),
        reason: reason.to_owned(),
        ..phase(BreakGlassPhase::Declared)
    }));
    story.record(GATEWAY, event)?;
    edited(story, |_, access| {
        access.grant_id.clear();
        access.break_glass_id.clone_from(&id);
        access.purpose = Purpose::BreakGlass.into();
    })?;
    story.tell(GATEWAY, Body::BreakGlass(phase(BreakGlassPhase::Ended)))?;
    story.wait(nanos);
    let review_verdict = ReviewVerdict::Justified.into();
    let review = BreakGlass { review_verdict, ..phase(BreakGlassPhase::Reviewed) };
    story.tell(APPROVERS[0].0, Body::BreakGlass(review)).map(drop)
}

fn justified(story: &mut Story, reason: &str) -> anyhow::Result<()> {
    let id = story.fresh("g");
    story.request(&id, |request| reason.clone_into(&mut request.justification)).map(drop)
}

fn status(story: &mut Story, source: &str, phase: SourcePhase) -> anyhow::Result<()> {
    let dropped = u64::from(phase == SourcePhase::GapDeclared) * 3;
    let (source, phase) = (source.to_owned(), phase.into());
    let status = SourceStatus { phase, source: source.clone(), dropped, ..Default::default() };
    story.tell(&source, Body::SourceStatus(status)).map(drop)
}

/// A source that promised a heartbeat a minute and sends two so many seconds apart.
fn heartbeats(story: &mut Story, seconds: u64) -> anyhow::Result<()> {
    let source = story.fresh("pod-");
    story.register(&source, &[SourceRole::Record], 60 * SECOND, "")?;
    status(story, &source, SourcePhase::Heartbeat)?;
    story.wait(seconds * SECOND);
    status(story, &source, SourcePhase::Heartbeat)?;
    status(story, &source, SourcePhase::Stopped)
}

fn vetted(story: &mut Story) -> anyhow::Result<()> {
    let source = story.fresh("pod-");
    story.register(&source, &[SourceRole::Record], 0, "").map(drop)
}

fn unvetted(story: &mut Story) -> anyhow::Result<()> {
    let source = story.fresh("pod-");
    story.enrol(&source).map(drop)
}

/// An event that is erased, with a record of governance or without.
fn erased_event(story: &mut Story, is_recorded: bool) -> anyhow::Result<()> {
    let index = story.access(|_, _| {})?;
    story.erase(index);
    if is_recorded {
        let redaction = story.redaction(index, index)?;
        story.tell(PARTIES[0], Body::Redaction(redaction))?;
    }
    Ok(())
}

/// One party alone registers a dataset.
fn control_alone(story: &mut Story) -> anyhow::Result<()> {
    let target = story.fresh("stats.");
    let mut change = story.change(ControlKind::Dataset, &target, &statistics())?;
    change.approvals.clear();
    story.tell(PARTIES[0], Body::ControlChange(change)).map(drop)
}

/// Both parties register a dataset with this content.
fn control(story: &mut Story, content: &[u8]) -> anyhow::Result<()> {
    let target = story.fresh("stats.");
    story.control(ControlKind::Dataset, &target, content).map(drop)
}

/// Both parties register a dataset, and the same signatures come once more.
fn control_again(story: &mut Story) -> anyhow::Result<()> {
    let target = story.fresh("stats.");
    let change = story.change(ControlKind::Dataset, &target, &statistics())?;
    story.tell(PARTIES[0], Body::ControlChange(change.clone()))?;
    story.tell(PARTIES[0], Body::ControlChange(change)).map(drop)
}

fn statistics() -> Vec<u8> {
    let boundary = Boundary::Aggregated.into();
    Dataset { boundary, ..Default::default() }.encode_to_vec()
}
