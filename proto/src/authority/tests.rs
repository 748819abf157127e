//! A small company's ledger under the default policy; what breaks its rules is in `rules.rs`, what
//! the ledger answers in `verdicts.rs`. All through whole logs.

mod rules;
mod verdicts;

use prost::Message as _;
use prost_types::Duration;

use super::*;
use crate::{
    facts::testing::*,
    position::Index,
    wire::{
        Access, Action, Boundary, BreakGlassPhase, ErasurePhase, GrantState, LegalRequestPhase,
        LocationEvidence, PrincipalKind, Purpose, RecipientKind, Sensitivity, SourceRole, Transfer,
        TransferMode, Verdict,
    },
};

/// A ledger under the default policy, of a company at home in the US.
struct Court {
    authority: Authority,
    next: u64,
    now: u64,
}

impl Court {
    /// Datasets `users`, `secrets` (special category) and `posts` (public), tool `console` in
    /// build 1, sites `vault` in custody and `dc` not.
    fn new() -> Self {
        let authority = Authority::from_genesis(&genesis()).unwrap();
        let mut court = Self { authority, next: 1, now: START };
        for (source, seed, role, principal) in [
            ("security/ann", 4, SourceRole::Approve, "ann"),
            ("security/ben", 5, SourceRole::Approve, "ben"),
            ("gateway", 6, SourceRole::Record, ""),
        ] {
            let status = registration(source, seed, &[role], principal);
            court.take("company", EventBody::SourceStatus(status));
        }
        let registered = |boundary: Boundary, sensitivity: Sensitivity| {
            let dataset = wire::Dataset {
                sensitivity: sensitivity.into(),
                subject_jurisdiction: "US".into(),
                ..dataset(boundary)
            };
            dataset.encode_to_vec()
        };
        let build_digests = vec![vec![1; 32].into()];
        let tool = wire::RegisteredTool { build_digests, ..Default::default() };
        let site = |in_custody| wire::Site { in_custody, ..Default::default() }.encode_to_vec();
        use Boundary::{Protected, Public};
        use Sensitivity::{Confidential, SpecialCategory};
        for (kind, target, content) in [
            (ControlKind::Dataset, "users", registered(Protected, Confidential)),
            (ControlKind::Dataset, "secrets", registered(Protected, SpecialCategory)),
            (ControlKind::Dataset, "posts", registered(Public, Sensitivity::Public)),
            (ControlKind::Tool, "console", tool.encode_to_vec()),
            (ControlKind::Site, "vault", site(true)),
            (ControlKind::Site, "dc", site(false)),
        ] {
            court.govern(change(kind, target, 1, content));
        }
        court.govern(change(ControlKind::Policy, "", 2, Policy::DEFAULT.into()));
        court.grant("g", &["users", "secrets"], 1);
        court
    }

    fn noted<'a>(&self, source: &'a str, event: &'a wire::Event) -> Noted<'a> {
        Noted { index: Index(self.next), recorded_at: self.now, source: name(source), event }
    }

    /// An event of an engineer at home, at this moment.
    fn event(&self, body: EventBody) -> wire::Event {
        let mut event = event(body);
        let mut id = self.next.to_be_bytes().to_vec();
        id.resize(16, 0);
        event.event_id = id.into();
        event.occurred_at = Some(timestamp(self.now));
        event.actor = Some(wire::Principal {
            id: "eng-1".into(),
            kind: PrincipalKind::Human.into(),
            physical_country: "US".into(),
            location_evidence: LocationEvidence::DeviceAttested.into(),
            ..Default::default()
        });
        let build_digest = vec![1; 32].into();
        event.tool = Some(wire::Tool { id: "console".into(), build_digest, ..Default::default() });
        event
    }

    fn take(&mut self, source: &str, body: EventBody) -> Vec<Objection> {
        let event = self.event(body);
        self.take_event(source, &event)
    }

    fn take_event(&mut self, source: &str, event: &wire::Event) -> Vec<Objection> {
        let noted = self.noted(source, event);
        let objections = self.authority.apply(&noted);
        self.next += 1;
        self.now += SECOND;
        objections
    }

    fn govern(&mut self, change: wire::ControlChange) {
        assert_eq!(self.take("company", EventBody::ControlChange(change)), []);
    }

    /// Approved by ann, and by ben if `approvals` is 2.
    fn grant(&mut self, id: &str, datasets: &[&str], approvals: usize) {
        self.take("gateway", EventBody::AccessRequest(request(id, scope(&["eng-1"], datasets))));
        for approver in ["security/ann", "security/ben"].iter().take(approvals) {
            let decision = decision(id, Verdict::Approve);
            assert_eq!(self.take(approver, EventBody::Decision(decision)), []);
        }
    }

    fn judge(&self, event: &wire::Event) -> Judgement {
        let noted = self.noted("gateway", event);
        self.authority.clone().judge(&noted)
    }

    fn longest_verdict(&self) -> wire::Authorization {
        longest_verdict(self.authority.answers.policy(), &self.authority.version)
    }

    /// The rules that an event breaks, after checking that they and the judgement agree.
    fn rules(&self, event: &wire::Event) -> Vec<String> {
        let judgement = self.judge(event);
        let forbidding = |rule: &Arc<str>| **rule != *"CLASSIFICATION_MISMATCH";
        assert_eq!(judgement.allowed, !judgement.rules.iter().any(forbidding));
        let longest = self.longest_verdict();
        let is_known = |rule: &Arc<str>| longest.rules.iter().any(|known| **known == **rule);
        assert!(judgement.rules.iter().all(is_known), "{:?}", judgement.rules);
        judgement.rules.iter().map(|rule| rule.to_string()).collect()
    }

    fn access(&self, access: Access) -> wire::Event {
        self.event(EventBody::Access(access))
    }

    /// An access with the grant `g`, changed.
    fn with(&self, change: impl FnOnce(&mut wire::Principal, &mut Access)) -> wire::Event {
        let mut event = self.access(access("g", "users"));
        let (Some(actor), Some(EventBody::Access(access))) = (&mut event.actor, &mut event.body)
        else {
            unreachable!("an access with an actor")
        };
        change(actor, access);
        event
    }

    fn transfer(&self, transfer: Transfer) -> wire::Event {
        self.event(EventBody::Transfer(transfer))
    }

    #[track_caller]
    fn breaks(&self, event: &wire::Event, rules: &[&str]) {
        assert_eq!(self.rules(event), rules);
    }
}

/// Takes an intent and the verdict on it.
fn announce(court: &mut Court, intent: &wire::Event) -> wire::Authorization {
    let noted = court.noted("gateway", intent);
    let verdict = court.authority.clone().verdict(&noted);
    let longest = court.longest_verdict();
    assert!(verdict.rules.iter().all(|rule| longest.rules.contains(rule)), "{verdict:?}");
    assert_eq!(court.authority.verdict_len_max(), longest.encoded_len());
    assert!(verdict.encoded_len() <= longest.encoded_len() + 2 + verdict.grant_id.len());
    court.take_event("gateway", intent);
    let noted = Noted { index: Index(court.next - 1), ..court.noted("gateway", intent) };
    // Whether the intent was applied before makes no difference.
    assert_eq!(court.authority.clone().verdict(&noted), verdict);
    court.take("ledger", EventBody::Authorization(verdict.clone()));
    verdict
}
