//! Which sources are silent by the custodian's own clock: pure decisions, time is an argument.
//!
//! A source that promised heartbeats and is not heard for its interval is silent, unless it said
//! that it stops. It is heard with every entry of its own. While the custodian itself does not hear
//! the ledger, or has not caught up, no source can be blamed: the watch is paused, and when it goes
//! on every source has its whole interval again.

use std::collections::BTreeMap;

use access_ledger_proto::{
    facts::sources::Sources,
    source::{Name, SourceName},
};

/// The sources that promised heartbeats. Memory grows with their number.
#[derive(Clone, Debug, Default)]
pub struct Silence {
    heard: BTreeMap<SourceName, Heard>,
    is_paused: bool,
}

/// Times in nanoseconds since the Unix epoch, by the own clock.
#[derive(Clone, Copy, Debug)]
struct Heard {
    interval: u64,
    at: u64,
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
                self.heard.insert(source.name.clone(), Heard { interval, at: now, state });
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
        heard.at = heard.at.max(now);
        std::mem::replace(&mut heard.state, State::Expected) == State::Silent
    }

    /// The source said that it stops: its silence means nothing until it is heard again.
    pub fn stop(&mut self, source: Name<'_>) {
        if let Some(heard) = self.heard.get_mut(source.as_str()) {
            heard.state = State::Stopped;
        }
    }

    /// The ledger itself is not heard, or the copy is behind.
    pub const fn pause(&mut self) {
        self.is_paused = true;
    }

    /// The sources that have become silent by the time `now`, each told once until it is heard
    /// again. Ends a pause: the caller has caught up.
    pub fn due(&mut self, now: u64) -> Vec<Silent> {
        if std::mem::take(&mut self.is_paused) {
            let waiting = self.heard.values_mut();
            waiting.for_each(|heard| heard.at = heard.at.max(now));
        }
        let mut silent = Vec::new();
        for (source, heard) in &mut self.heard {
            let Heard { interval, at: since, state } = *heard;
            if state == State::Expected && now.saturating_sub(since) > interval {
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

    fn due(silence: &mut Silence, now: u64) -> Vec<String> {
        silence.due(now).into_iter().map(|silent| silent.source.as_str().to_owned()).collect()
    }

    #[test]
    fn a_source_is_silent_once_until_it_is_heard_again() {
        let mut silence = Silence::default();
        let sources = sources(&[("a", 10), ("b", 50), ("mute", 0), ("gone", 10)]);
        assert_eq!(silence.expect(&sources, 100), []);
        assert!(due(&mut silence, 110).is_empty());
        assert_eq!(due(&mut silence, 111), ["a"]);
        assert!(due(&mut silence, 149).is_empty(), "it was told");
        assert!(silence.hear(name("a"), 150));
        assert!(!silence.hear(name("a"), 150));
        assert_eq!(due(&mut silence, 151), ["b"]);
        assert_eq!(due(&mut silence, 161), ["a"]);
    }

    #[test]
    fn who_said_that_it_stops_is_not_silent() {
        let mut silence = Silence::default();
        silence.expect(&sources(&[("a", 10)]), 100);
        silence.stop(name("a"));
        assert!(due(&mut silence, 1_000).is_empty());
        assert!(!silence.hear(name("a"), 1_000));
        assert_eq!(due(&mut silence, 1_011), ["a"]);
    }

    #[test]
    fn nobody_is_blamed_for_what_the_custodian_could_not_hear() {
        let mut silence = Silence::default();
        silence.expect(&sources(&[("a", 10)]), 100);
        silence.pause();
        assert!(due(&mut silence, 1_000).is_empty());
        assert!(due(&mut silence, 1_010).is_empty());
        assert_eq!(due(&mut silence, 1_011), ["a"]);
    }

    #[test]
    fn who_left_service_is_forgotten_and_who_was_silent_before_a_restart_still_is() {
        let mut silence = Silence::default();
        let known = sources(&[("a", 10), ("b", 10)]);
        silence.expect(&known, 100);
        silence.is_silent("a");
        assert_eq!(due(&mut silence, 111), ["b"]);
        assert!(silence.hear(name("a"), 111));
        let gone = silence.expect(&sources(&[("b", 10)]), 112);
        assert_eq!(gone.iter().map(SourceName::as_str).collect::<Vec<_>>(), ["a"]);
        assert!(silence.is_needed());
    }
}
