//! Which sources are silent by the custodian's own clock: pure decisions, time is an argument.
//!
//! A source that promised heartbeats and is not heard for its interval is silent, unless it said
//! that it stops. It is heard with every entry of its own. What counts is the time up to which the
//! copy has all that the ledger had signed: nobody is blamed for what is still on its way.
//!
//! Where that time stands still, because the ledger does not answer or the copy is behind, sources
//! may not have been able to record. Each is excused for the longest such stretch since it was
//! heard last: once, so that a ledger that delays the copy again and again hides nobody by that.

use std::collections::BTreeMap;

use access_ledger_proto::{
    facts::sources::Sources,
    source::{Name, SourceName},
};

/// The sources that promised heartbeats. Memory grows with their number.
#[derive(Clone, Debug, Default)]
pub struct Silence {
    heard: BTreeMap<SourceName, Heard>,
    /// Up to when all was heard, as told last.
    until: u64,
}

/// Times in nanoseconds since the Unix epoch, by the own clock.
#[derive(Clone, Copy, Debug)]
struct Heard {
    interval: u64,
    at: u64,
    /// The longest stretch since then in which nobody could be heard.
    deaf: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Expected,
    /// It said so.
    Stopped,
    /// It was told to be silent.
    Silent,
}

/// A source that is silent. Times in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silent {
    /// The source.
    pub source: SourceName,
    /// When it was heard last, by the own clock since the Unix epoch.
    pub since: u64,
    /// What it had promised.
    pub interval: u64,
}

impl Silence {
    /// Watches over the sources that are registered at the time `now`. Those that left service are
    /// forgotten; their names come back.
    pub fn expect(&mut self, sources: &Sources, now: u64) -> Vec<SourceName> {
        for source in sources.iter() {
            let promised = source.heartbeat_nanos > 0 && source.decommissioned_at.is_none();
            if promised && !self.heard.contains_key(&source.name) {
                let (interval, state) = (source.heartbeat_nanos, State::Expected);
                self.heard.insert(source.name.clone(), Heard { interval, at: now, deaf: 0, state });
            }
        }
        let gone = |name: &&SourceName| {
            let source = sources.get(name.as_name());
            source.is_none_or(|source| source.decommissioned_at.is_some())
        };
        let gone: Vec<SourceName> = self.heard.keys().filter(gone).cloned().collect();
        self.heard.retain(|name, _| !gone.contains(name));
        gone
    }

    /// Whether any source promised heartbeats, so that entries need to be looked at.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        !self.heard.is_empty()
    }

    /// An entry of this source came at the time `now`. `true` if it was silent before.
    pub fn hear(&mut self, source: Name<'_>, now: u64) -> bool {
        let Some(heard) = self.heard.get_mut(source.as_str()) else {
            return false;
        };
        (heard.at, heard.deaf) = (heard.at.max(now), 0);
        std::mem::replace(&mut heard.state, State::Expected) == State::Silent
    }

    /// The source said that it stops: its silence means nothing until it is heard again.
    pub fn stop(&mut self, source: Name<'_>) {
        if let Some(heard) = self.heard.get_mut(source.as_str()) {
            heard.state = State::Stopped;
        }
    }

    /// The sources that have become silent, each told once until it is heard again. All that came
    /// before the time `until` was heard; earlier calls said no later time.
    pub fn due(&mut self, until: u64) -> Vec<Silent> {
        let before = std::mem::replace(&mut self.until, until);
        let mut silent = Vec::new();
        for (source, heard) in &mut self.heard {
            heard.deaf = heard.deaf.max(until.saturating_sub(heard.at.max(before)));
            let Heard { interval, at: since, deaf, state } = *heard;
            let excused = interval.saturating_add(deaf);
            if state == State::Expected && until.saturating_sub(since) > excused {
                heard.state = State::Silent;
                silent.push(Silent { source: source.clone(), since, interval });
            }
        }
        silent
    }

    /// A source that was told to be silent before the restart.
    pub fn is_silent(&mut self, source: &str) {
        if let Some(heard) = self.heard.get_mut(source) {
            heard.state = State::Silent;
        }
    }
}

#[cfg(test)]
mod tests {
    use access_ledger_proto::{
        facts::sources::{Roles, Source},
        note::{KeyType, Signer},
        position::Index,
        wire,
    };
    use prost::Message as _;

    use super::*;

    /// Sources with these heartbeat intervals.
    fn sources(intervals: &[(&str, u64)]) -> Sources {
        let key = |seed| Signer::new("l", KeyType::Ed25519, [seed; 32]).unwrap();
        let initial = |name: &str, seed| wire::InitialSource {
            name: name.to_owned(),
            public_key: key(seed).verifier().public_key().to_bytes().to_vec().into(),
        };
        let genesis = wire::Genesis {
            origin: "l".into(),
            ledger_vkey: key(1).verifier().to_string(),
            ledger_source: Some(initial("ledger", 2)),
            governance: vec![initial("one", 3), initial("two", 4)],
            ..Default::default()
        };
        let change = wire::ControlChange {
            kind: wire::ControlKind::Genesis.into(),
            content: genesis.encode_to_vec().into(),
            ..Default::default()
        };
        let body = Some(wire::event::Body::ControlChange(change));
        let event = wire::Event { body, ..Default::default() }.encode_to_vec();
        let mut sources = Sources::from_genesis(&event).unwrap();
        sources.restore(intervals.iter().map(|&(name, heartbeat_nanos)| {
            let (key, decommissioned) = (key(9), (name == "gone").then_some(Index(2)));
            let (name, key) = (SourceName::parse(name).unwrap(), *key.verifier().public_key());
            let source = Source::new(name, key, Roles::RECORDER, Index(1));
            Source { heartbeat_nanos, decommissioned_at: decommissioned, ..source }
        }));
        sources
    }

    fn name(name: &str) -> Name<'_> {
        Name::parse(name.as_bytes()).unwrap()
    }

    /// Who is silent when the custodian has listened all the time, up to `now`.
    fn due(silence: &mut Silence, now: u64) -> Vec<String> {
        let begun = if silence.until == 0 { now } else { silence.until };
        (begun..=now).flat_map(|now| told(silence, now)).collect()
    }

    fn told(silence: &mut Silence, until: u64) -> Vec<String> {
        silence.due(until).into_iter().map(|silent| silent.source.as_str().to_owned()).collect()
    }

    /// Listens from the time 100 on, when these were expected.
    fn listening(sources: &Sources) -> Silence {
        let mut silence = Silence::default();
        assert_eq!(silence.expect(sources, 100), []);
        assert!(due(&mut silence, 100).is_empty());
        silence
    }

    #[test]
    fn a_source_is_silent_once_until_it_is_heard_again() {
        let sources = sources(&[("a", 10), ("b", 50), ("mute", 0), ("gone", 10)]);
        let mut silence = listening(&sources);
        // One unit passes between two looks, and what is heard in it is heard behind it.
        assert!(due(&mut silence, 111).is_empty());
        assert_eq!(due(&mut silence, 112), ["a"]);
        assert!(due(&mut silence, 149).is_empty(), "it was told");
        assert!(silence.hear(name("a"), 150));
        assert!(!silence.hear(name("a"), 150));
        assert!(due(&mut silence, 151).is_empty());
        assert_eq!(due(&mut silence, 152), ["b"]);
        assert_eq!(due(&mut silence, 162), ["a"]);
    }

    #[test]
    fn who_said_that_it_stops_is_not_silent() {
        let mut silence = listening(&sources(&[("a", 10)]));
        silence.stop(name("a"));
        assert!(due(&mut silence, 1_000).is_empty());
        assert!(!silence.hear(name("a"), 1_000));
        assert_eq!(due(&mut silence, 1_012), ["a"]);
    }

    #[test]
    fn nobody_is_blamed_for_what_the_custodian_could_not_hear() {
        let mut silence = listening(&sources(&[("a", 10)]));
        assert!(due(&mut silence, 105).is_empty());
        // For 895 units nothing is heard of the ledger; five of its ten are left to the source.
        assert!(told(&mut silence, 1_000).is_empty());
        assert!(due(&mut silence, 1_005).is_empty());
        assert_eq!(due(&mut silence, 1_006), ["a"]);
        // A custodian that was away itself has not listened either.
        let mut silence = Silence { until: 5, ..Silence::default() };
        silence.expect(&sources(&[("a", 10)]), 100);
        assert!(told(&mut silence, 5).is_empty());
        assert!(told(&mut silence, 101).is_empty());
        assert!(due(&mut silence, 111).is_empty());
        assert_eq!(due(&mut silence, 112), ["a"]);
    }

    #[test]
    fn one_excuse_is_all_that_delays_give_however_many_there_are() {
        let mut silence = listening(&sources(&[("a", 100)]));
        let steps: Vec<u64> = (1..).map(|step| 100 + step * 9).take_while(|&at| at < 500).collect();
        let silent = steps.into_iter().find(|&at| !told(&mut silence, at).is_empty());
        assert_eq!(silent, Some(100 + 13 * 9), "the first look behind 100 and 9");
    }

    #[test]
    fn who_left_service_is_forgotten_and_who_was_silent_before_a_restart_still_is() {
        let mut silence = listening(&sources(&[("a", 10), ("b", 10)]));
        silence.is_silent("a");
        assert_eq!(due(&mut silence, 112), ["b"]);
        assert!(silence.hear(name("a"), 112));
        let gone = silence.expect(&sources(&[("b", 10)]), 113);
        assert_eq!(gone.iter().map(SourceName::as_str).collect::<Vec<_>>(), ["a"]);
        assert!(silence.is_needed());
    }
}
