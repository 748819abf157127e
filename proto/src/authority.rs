//! What the ledger rules on: whether an access was allowed, whether an intended one is, and which
//! changes of the rules come into force.
//!
//! An [`Authority`] is the facts at a place of the log and the policy in force there. Server,
//! custodian and auditor move it along the same log and get the same judgements; the server asks
//! it, besides, for its verdicts on intents, and what it may take into the log.

mod questions;

use std::sync::Arc;

use prost::Message as _;

use crate::{
    error::{ControlError, ControlRefusal, PolicyError, RedactionError, SourceError},
    event,
    facts::{
        Facts, Noted, Objection,
        assess::{Assessed, GrantStatus, IntentStatus},
        control::{control_message, parties},
        intents::intent_key,
        is_performed,
        redactions::redaction_message,
    },
    policy::{self, Answer, Answers, POLICY_VIOLATED, Policy},
    wire::{
        self, AuthorizationDecision, ControlKind, Outcome, SourceRole, event::Body as EventBody,
    },
};

/// How long before its recording an intent may have been made and still be allowed: five minutes,
/// as far as clocks may be apart. What is older was kept back, and what it rests on may be gone.
pub const INTENT_STALE_NANOS: u64 = 300_000_000_000;

/// The facts at a place of the log, and the policy in force there.
///
/// A clone goes its own way.
#[derive(Clone, Debug)]
pub struct Authority {
    facts: Facts,
    answers: Answers,
    version: Arc<str>,
    /// Follows from the policy.
    verdict_len_max: usize,
}

/// What is to be said of an access or a transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// [`Noted::time`].
    pub time: u64,
    /// Whether data was touched; a transfer always was.
    pub performed: bool,
    /// Whether facts and policy allow it.
    pub allowed: bool,
    /// The rules that object, sorted, each once. Alone, CLASSIFICATION_MISMATCH forbids nothing.
    pub rules: Vec<Arc<str>>,
    /// What it rests on.
    pub assessed: Assessed,
}

impl Authority {
    /// At entry 0, whose event this is. Where the text of its policy is none, nothing is permitted.
    ///
    /// # Errors
    ///
    /// As [`Facts::from_genesis`].
    pub fn from_genesis(event: &[u8]) -> Result<Self, SourceError> {
        Facts::from_genesis(event).map(Self::new)
    }

    /// At the place that the facts are from.
    #[must_use]
    pub fn new(facts: Facts) -> Self {
        let in_force = facts.policy();
        let policy = Policy::parse(&in_force.text).unwrap_or_else(|_| Policy::nothing());
        let version: Arc<str> = policy::version(in_force.revision, &in_force.text).into();
        let verdict_len_max = longest_verdict(&policy, &version).encoded_len();
        Self { answers: Answers::new(policy), version, verdict_len_max, facts }
    }

    /// The facts.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The facts, to be saved and settled; what moves them is [`Authority::apply`].
    pub const fn facts_mut(&mut self) -> &mut Facts {
        &mut self.facts
    }

    /// The version of the policy in force ([`policy::version`]).
    #[must_use]
    pub const fn policy_version(&self) -> &Arc<str> {
        &self.version
    }

    /// Judges an access or a transfer, with what comes before it. Of other events there is nothing
    /// to say: nothing performed, nothing forbidden.
    #[must_use]
    pub fn judge(&mut self, noted: &Noted<'_>) -> Judgement {
        let performed = match &noted.event.body {
            Some(EventBody::Access(access)) => is_performed(access),
            Some(EventBody::Transfer(_)) => true,
            _ => return Judgement { time: noted.time(), allowed: true, ..Judgement::default() },
        };
        let assessed = self.facts.assess(noted);
        let mut rules: Vec<Arc<str>> = objections(&assessed).map(Arc::from).collect();
        let mut allowed = rules.is_empty();
        if assessed.data.iter().any(|data| data.mismatch) {
            rules.push(Arc::from("CLASSIFICATION_MISMATCH"));
        }
        for question in questions::of(noted, &assessed) {
            let answer = match question {
                Some(question) => self.answers.answer(&question),
                None => Answer::violated(),
            };
            allowed &= answer.allowed();
            rules.extend_from_slice(answer.rules());
        }
        rules.sort_unstable();
        rules.dedup();
        Judgement { time: noted.time(), performed, allowed, rules, assessed }
    }

    /// Answers an intended access: an [`Access`](wire::Access) with the outcome REQUESTED, which
    /// lies in the log as the last entry before its verdict and was applied or not. The verdict is
    /// in force once it was applied in its turn, and until then uses up nothing.
    #[must_use]
    pub fn verdict(&mut self, intent: &Noted<'_>) -> wire::Authorization {
        let judgement = self.judge(intent);
        let mut rules: Vec<String> = judgement.rules.iter().map(|rule| rule.to_string()).collect();
        let mut allowed = judgement.allowed;
        let occurred_at = intent.event.occurred_at.as_ref().map_or(0, event::nanos_of);
        if intent.recorded_at.saturating_sub(occurred_at) > INTENT_STALE_NANOS {
            allowed = false;
            rules.push("INTENT_STALE".to_owned());
        }
        // The use of an intent whose id another one has would count as the other's.
        let open = self.facts.intents().get(&intent_key(&intent.event.event_id));
        if open.is_some_and(|open| open.index != intent.index.0) {
            allowed = false;
            rules.push("BEYOND_VERDICT".to_owned());
        }
        let grant_id = match &intent.event.body {
            Some(EventBody::Access(access)) if access.outcome() == Outcome::Requested => {
                access.grant_id.clone()
            }
            _ => {
                allowed = false;
                rules.push(POLICY_VIOLATED.to_owned());
                String::new()
            }
        };
        rules.sort_unstable();
        rules.dedup();
        let decision =
            if allowed { AuthorizationDecision::Allow } else { AuthorizationDecision::Deny };
        wire::Authorization {
            intent: Some(wire::EventReference {
                event_id: intent.event.event_id.clone(),
                index: Some(intent.index.0),
            }),
            decision: decision.into(),
            rules,
            policy_version: self.version.to_string(),
            grant_id,
        }
    }

    /// Most bytes of an encoded verdict on an intent without a grant; a grant adds the length of
    /// its name.
    #[must_use]
    pub const fn verdict_len_max(&self) -> usize {
        self.verdict_len_max
    }

    /// Moves past an entry: of a verified log, after all that come before it. A policy comes into
    /// force if its change is lawful and its text is one; what is wrong otherwise is among the
    /// objections.
    pub fn apply(&mut self, noted: &Noted<'_>) -> Vec<Objection> {
        let Some(EventBody::ControlChange(change)) = &noted.event.body else {
            return self.facts.apply(noted);
        };
        if change.kind() != ControlKind::Policy
            || self.facts.judge_control(noted.source, change).is_err()
        {
            return self.facts.apply(noted);
        }
        match parse(change) {
            Ok(policy) => {
                let objections = self.facts.apply(noted);
                let in_force = self.facts.policy();
                self.version = policy::version(in_force.revision, &in_force.text).into();
                self.verdict_len_max = longest_verdict(&policy, &self.version).encoded_len();
                self.answers = Answers::new(policy);
                objections
            }
            Err(error) => {
                let mut objection = ControlError::Content.objection(change);
                objection.facts.push(("problem", error.to_string()));
                vec![objection]
            }
        }
    }

    /// Whether the ledger takes an event: it refuses a change of the rules, or a redaction, that
    /// would have no effect. All else is for others to judge.
    ///
    /// # Errors
    ///
    /// [`ControlRefusal`].
    pub fn admit_control(&self, noted: &Noted<'_>) -> Result<(), ControlRefusal> {
        let origin = &self.facts.sources().genesis().origin;
        match &noted.event.body {
            Some(EventBody::ControlChange(change)) => {
                match self.facts.judge_control(noted.source, change) {
                    Ok(()) if change.kind() == ControlKind::Policy => parse(change).map(drop)?,
                    Err(ControlError::Alone { .. }) => {
                        let message = control_message(origin, change);
                        return Err(self.alone(noted, &message, &change.approvals));
                    }
                    judged => judged?,
                }
            }
            Some(EventBody::Redaction(redaction)) => {
                match self.facts.judge_redaction(noted, redaction) {
                    Err(RedactionError::Alone { .. }) => {
                        let message = redaction_message(origin, redaction);
                        return Err(self.alone(noted, &message, &redaction.approvals));
                    }
                    judged => drop(judged?),
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn alone(
        &self,
        noted: &Noted<'_>,
        message: &str,
        approvals: &[wire::Approval],
    ) -> ControlRefusal {
        let sources = self.facts.sources();
        let signed = parties(sources, noted.source, message, approvals);
        let governs = sources.iter().filter(|source| {
            source.roles.now().contains(SourceRole::Govern) && source.decommissioned_at.is_none()
        });
        let missing = governs.filter(|source| signed.iter().all(|one| one.name != source.name));
        ControlRefusal::Alone {
            missing: missing.map(|source| source.name.clone()).collect(),
            signed: signed.iter().map(|source| source.name.clone()).collect(),
        }
    }
}

fn parse(change: &wire::ControlChange) -> Result<Policy, PolicyError> {
    // The facts refuse what is not UTF-8 before.
    Policy::parse(str::from_utf8(&change.content).unwrap_or("\u{fffd}"))
}

/// A verdict with every rule that facts and policy know, on an intent without a grant: at least as
/// long, encoded, as any.
fn longest_verdict(policy: &Policy, version: &str) -> wire::Authorization {
    let own = ["CLASSIFICATION_MISMATCH", "INTENT_STALE", "BEYOND_VERDICT", POLICY_VIOLATED];
    let rules = own.into_iter().chain(OBJECTIONS).chain(policy.ids());
    wire::Authorization {
        intent: Some(wire::EventReference { event_id: vec![0; 16].into(), index: Some(u64::MAX) }),
        decision: AuthorizationDecision::Deny.into(),
        rules: rules.map(str::to_owned).collect(),
        policy_version: version.to_owned(),
        grant_id: String::new(),
    }
}

/// All that [`objections`] may name.
const OBJECTIONS: [&str; 8] = [
    "GRANT_UNKNOWN",
    "APPROVALS_MISSING",
    "GRANT_REVOKED",
    "GRANT_NOT_IN_FORCE",
    "GRANT_SCOPE",
    "GRANT_EXHAUSTED",
    "BEYOND_VERDICT",
    "ACCESS_AFTER_ERASURE",
];

/// The rules that the facts alone break; each of them denies.
fn objections(assessed: &Assessed) -> impl Iterator<Item = &'static str> {
    let grant = match assessed.grant.status {
        GrantStatus::None | GrantStatus::Valid => None,
        GrantStatus::Unknown => Some("GRANT_UNKNOWN"),
        GrantStatus::ApprovalsMissing => Some("APPROVALS_MISSING"),
        GrantStatus::Revoked => Some("GRANT_REVOKED"),
        GrantStatus::NotInForce => Some("GRANT_NOT_IN_FORCE"),
        GrantStatus::Scope => Some("GRANT_SCOPE"),
        GrantStatus::Exhausted => Some("GRANT_EXHAUSTED"),
    };
    let beyond = matches!(assessed.intent, IntentStatus::Beyond(_)).then_some("BEYOND_VERDICT");
    let erased = assessed.data.iter().any(|data| data.erased.is_some());
    let erased = erased.then_some("ACCESS_AFTER_ERASURE");
    [grant, beyond, erased].into_iter().flatten()
}

#[cfg(test)]
mod tests;
