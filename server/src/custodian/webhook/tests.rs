//! Whatever a webhook answers, it is told of every alarm until it takes it.

use std::sync::{Arc, Mutex};

use access_ledger_proto::position::Size;
use tokio::time::timeout;

use super::*;
use crate::custodian::alarms::{
    Alarm, AlarmKind, Place,
    tests::{NOW, ORIGIN, TestClock, open},
};

/// What a webhook answers, call by call, and what it was sent.
#[derive(Clone, Default)]
struct Hook {
    answers: Arc<Mutex<Vec<Result<u16, String>>>>,
    bodies: Arc<Mutex<Vec<serde_json::Value>>>,
}

impl Hook {
    /// Answers so, and 204 from then on.
    fn new(answers: &[Result<u16, &str>]) -> Self {
        let answers = answers.iter().rev().map(|answer| answer.map_err(str::to_owned));
        Self { answers: Arc::new(Mutex::new(answers.collect())), ..Self::default() }
    }

    fn post(&self, body: &[u8]) -> Result<u16, String> {
        self.bodies.lock().unwrap().push(serde_json::from_slice(body).unwrap());
        self.answers.lock().unwrap().pop().unwrap_or(Ok(204))
    }

    /// Tells it until nothing is untold for a while.
    async fn tell(&self, alarms: &Arc<Alarms>) -> Vec<String> {
        let telling = tell(alarms.clone(), async |body| self.post(&body));
        assert!(timeout(Duration::from_secs(3_600), telling).await.is_err(), "it never ends");
        let bodies = std::mem::take(&mut *self.bodies.lock().unwrap());
        let told = |body: &serde_json::Value| {
            let state = if body["ended_at"].is_null() { "raised" } else { "ended" };
            format!("{} {state}", body["kind"].as_str().unwrap())
        };
        bodies.iter().map(told).collect()
    }
}

fn alarm(kind: AlarmKind) -> Alarm {
    Alarm::new(kind, ORIGIN, Size(1), "something")
}

#[tokio::test(start_paused = true)]
async fn an_alarm_is_sent_again_until_it_is_taken_and_its_end_too() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::at(NOW));
    let alarms = open(&folder, &clock);
    let hook = Hook::new(&[Ok(500), Err("refused"), Ok(302)]);
    alarms.raise(alarm(AlarmKind::Stale));
    assert_eq!(hook.tell(&alarms).await, ["STALE raised"; 4]);
    assert_eq!(hook.tell(&alarms).await, [""; 0], "it is told once");
    alarms.end(AlarmKind::Stale, ORIGIN, Place::Ledger, "news");
    assert_eq!(hook.tell(&alarms).await, ["STALE ended"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_taken_is_sent_after_a_restart_and_what_was_is_not() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::at(NOW));
    let alarms = open(&folder, &clock);
    alarms.raise(alarm(AlarmKind::Stale));
    assert_eq!(Hook::default().tell(&alarms).await, ["STALE raised"]);
    clock.set(NOW + 1);
    alarms.raise(alarm(AlarmKind::Behind));
    let alarms = open(&folder, &clock);
    assert_eq!(Hook::default().tell(&alarms).await, ["BEHIND raised"]);
    assert_eq!(Hook::default().tell(&open(&folder, &clock)).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_alarm_that_is_refused_for_ever_does_not_keep_others_waiting() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::at(NOW));
    let alarms = open(&folder, &clock);
    alarms.raise(alarm(AlarmKind::Behind));
    alarms.raise(alarm(AlarmKind::Stale));
    let taken = Mutex::new(0);
    let telling = tell(alarms.clone(), async |body| {
        let is_stale = String::from_utf8_lossy(&body).contains("\"STALE\"");
        *taken.lock().unwrap() += u32::from(is_stale);
        Ok(if is_stale { 200 } else { 400 })
    });
    assert!(timeout(Duration::from_secs(3_600), telling).await.is_err());
    assert_eq!(*taken.lock().unwrap(), 1);
    assert_eq!(alarms.unsent().len(), 1);
}
