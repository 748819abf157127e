//! A small ledger whose log registers a source that must be heard, and has a time of its own.

use std::time::Duration;

use access_ledger_proto::{entry::Entry, note::VerifierKey, wire};
use bytes::Bytes;
use prost::Message as _;
use tokio::time::Instant;

use super::Log;

impl Log {
    /// Registers a source in the log too, by its governance, and takes the time from tokio's clock
    /// from here on.
    pub(in super::super) fn register_beating(&mut self, key: &VerifierKey, heartbeat: Duration) {
        self.began = Some(Instant::now());
        let heartbeat_interval = Some(heartbeat.try_into().unwrap());
        self.register(key.clone());
        self.sources.get_mut(key.name()).unwrap().heartbeat = heartbeat_interval;
        self.tell(wire::SourceStatus {
            phase: wire::SourcePhase::Registered.into(),
            source: key.name().to_owned(),
            public_key: Bytes::copy_from_slice(key.public_key().as_bytes()),
            roles: vec![wire::SourceRole::Record.into()],
            heartbeat_interval,
            ..wire::SourceStatus::default()
        });
    }

    /// The governance records an event of its own; the index of its entry.
    pub(in super::super) fn tell(&mut self, status: wire::SourceStatus) -> u64 {
        let body = Some(wire::event::Body::SourceStatus(status));
        let event = wire::Event { event_id: vec![2; 16].into(), body, ..wire::Event::default() };
        let other = self.other.clone();
        self.append_own(&other, event.encode_to_vec().into()).first_index
    }

    /// Every entry, with its event.
    pub(in super::super) fn records(&self) -> impl Iterator<Item = (Entry<'_>, &Bytes)> {
        self.entries.iter().map(|bytes| {
            let entry = Entry::parse(bytes).unwrap();
            let at = usize::try_from(entry.source_seq).unwrap() - 1;
            let event = &self.sources[entry.source.as_str()].events[at];
            (entry, event)
        })
    }
}
