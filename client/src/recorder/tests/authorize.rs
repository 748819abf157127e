//! Nothing but a proven verdict lets an access happen.

use access_ledger_proto::wire::{Outcome, event::Body};

use super::{
    ledger::{FakeLedger, VerdictLie},
    *,
};
use crate::authorize::Denied;

fn intent(grant_id: &str) -> wire::Event {
    with_grant(grant_id, Outcome::Unspecified)
}

fn with_grant(grant_id: &str, outcome: Outcome) -> wire::Event {
    let mut event = access(0);
    if let Some(Body::Access(access)) = &mut event.body {
        grant_id.clone_into(&mut access.grant_id);
        access.outcome = outcome.into();
    }
    event
}

fn last_access(ledger: &FakeLedger) -> wire::Access {
    let event = ledger.lock().events(SOURCE).pop().unwrap();
    let Some(Body::Access(access)) = wire::Event::decode(event).unwrap().body else {
        panic!("no access")
    };
    access
}

#[tokio::test]
async fn a_permit_comes_from_a_proven_verdict_and_names_it_in_the_access() {
    let ledger = registered();
    let recorder = builder(&ledger).start().await.unwrap();
    recorder.record(access(1)).await.unwrap().receipt().await.unwrap();
    let permit = recorder.authorize(intent("R-1")).await.unwrap();
    let (reference, verdict) = (permit.reference(), permit.verdict());
    assert_eq!(reference.index, Some(permit.intent().index().0));
    assert!(verdict.is_allowed() && verdict.index() > permit.intent().index());
    assert_eq!((verdict.grant_id(), verdict.policy_version()), ("R-1", "1-00000000"));
    verdict.proof().verify(&ledger.key(), &[]).unwrap();
    permit.access(access(2)).await.unwrap().receipt().await.unwrap();
    let recorded = last_access(&ledger);
    assert_eq!(recorded.intent, Some(reference));
    assert_eq!(
        (recorded.grant_id.as_str(), recorded.policy_version.as_str()),
        ("R-1", "1-00000000")
    );

    let permit = recorder.authorize(intent("R-1")).await.unwrap();
    let told = permit.access(with_grant("R-2", Outcome::Allowed)).await.unwrap();
    told.receipt().await.unwrap();
    assert_eq!(last_access(&ledger).grant_id, "R-2");
}

#[tokio::test]
async fn a_denial_is_proven_too_and_tells_the_rules() {
    let ledger = registered();
    let recorder = builder(&ledger).start().await.unwrap();
    let denied = recorder.authorize(intent("")).await.unwrap_err();
    let Denied::Verdict(denial) = denied else { panic!("{denied:?}") };
    assert_eq!(denial.verdict().rules(), ["NO_GRANT"]);
    denial.verdict().proof().verify(&ledger.key(), &[]).unwrap();
    assert!(denial.intent().index() < denial.verdict().index());
    assert_eq!(Denied::Verdict(denial).to_string(), "the ledger denies it: NO_GRANT");
    // Nothing is wrong with the recorder.
    let _permit = recorder.authorize(intent("R-1")).await.unwrap();
}

#[tokio::test]
async fn a_verdict_that_does_not_hold_is_a_denial_with_the_evidence() {
    for lie in VerdictLie::ALL {
        let ledger = registered();
        ledger.lock().faults.verdict_lie = Some(lie);
        let recorder = builder(&ledger).start().await.unwrap();
        let denied = recorder.authorize(intent("R-1")).await.unwrap_err();
        let Denied::Failed(RecorderError::Evidence { fault, evidence, .. }) = denied else {
            panic!("{lie:?}: {denied:?}")
        };
        let answer = wire::AppendResponse::decode(evidence).unwrap();
        assert_eq!(answer.verdicts.is_empty(), lie == VerdictLie::Absent);
        let expected = match lie {
            VerdictLie::OtherIntent | VerdictLie::OtherPlace => "intent",
            VerdictLie::OtherSource => "source of the verdict",
            VerdictLie::OtherEvent => "event of the verdict",
            VerdictLie::OtherBody => "body of the verdict",
            VerdictLie::NotInTree => {
                assert!(matches!(fault, EvidenceFault::Receipt(_)), "{fault:?}");
                continue;
            }
            VerdictLie::Absent => {
                assert!(matches!(fault, EvidenceFault::Verdicts { found: 0, wanted: 1 }));
                continue;
            }
        };
        assert!(
            matches!(fault, EvidenceFault::Mismatch { field } if field == expected),
            "{lie:?}: {fault:?}"
        );
        assert!(recorder.authorize(intent("R-1")).await.is_err());
    }
}

#[tokio::test]
async fn what_is_no_intent_or_no_access_is_refused_before_it_is_recorded() {
    let ledger = registered();
    let recorder = builder(&ledger).start().await.unwrap();
    for event in [with_grant("R-1", Outcome::Allowed), wire::Event::default()] {
        let denied = recorder.authorize(event).await.unwrap_err();
        assert!(matches!(denied, Denied::Failed(RecorderError::Kind { .. })), "{denied:?}");
    }
    assert!(ledger.lock().events(SOURCE).is_empty());
    let permit = recorder.authorize(intent("R-1")).await.unwrap();
    let told = permit.access(with_grant("R-1", Outcome::Requested)).await.unwrap_err();
    assert!(matches!(told, RecorderError::Kind { .. }), "{told:?}");
}

#[tokio::test]
async fn without_an_answer_in_time_it_is_denied() {
    let ledger = registered();
    let recorder = builder(&ledger).deadline(Duration::from_millis(80)).start().await.unwrap();
    ledger.lock().faults.silent = true;
    let denied = recorder.authorize(intent("R-1")).await.unwrap_err();
    assert!(matches!(denied, Denied::Failed(RecorderError::Deadline { .. })), "{denied:?}");
    ledger.lock().faults = ledger::Faults { down: true, ..Default::default() };
    let denied = recorder.authorize(intent("R-1")).await.unwrap_err();
    assert!(matches!(denied, Denied::Failed(RecorderError::Deadline { .. })), "{denied:?}");
}

#[tokio::test]
async fn a_genesis_that_is_not_proven_is_a_denial() {
    let ledger = registered();
    let recorder = builder(&ledger).start().await.unwrap();
    ledger.lock().faults.lie = Some(Lie::ForeignKey);
    let denied = recorder.authorize(intent("R-1")).await.unwrap_err();
    assert!(matches!(denied, Denied::Failed(RecorderError::Genesis { .. })), "{denied:?}");
    assert!(ledger.lock().events(SOURCE).is_empty());
}

#[tokio::test]
async fn each_intent_is_answered_once_over_connections_that_break() {
    for seed in 0..6 {
        let ledger = registered();
        ledger.lock().faults =
            ledger::Faults { lost: 60, unanswered: 60, busy: 30, seed, ..Default::default() };
        let recorder = Arc::new(builder(&ledger).start().await.unwrap());
        let mut callers = JoinSet::new();
        for caller in 0..40 {
            let recorder = recorder.clone();
            callers.spawn(async move {
                let grant = if caller % 2 == 0 { "R-1" } else { "" };
                (caller % 2 == 0, recorder.authorize(intent(grant)).await)
            });
            recorder_events(&ledger, caller).await;
        }
        while let Some(answer) = callers.join_next().await {
            match answer.unwrap() {
                (true, Ok(_)) | (false, Err(Denied::Verdict(_))) => {}
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        assert_eq!(ledger.lock().events(SOURCE).len(), 40);
    }
}

/// Lets the other tasks run now and then, so that batches are cut everywhere.
async fn recorder_events(ledger: &FakeLedger, caller: usize) {
    if caller.is_multiple_of(3) {
        tokio::task::yield_now().await;
    }
    assert!(ledger.lock().events(SOURCE).len() <= 40);
}
