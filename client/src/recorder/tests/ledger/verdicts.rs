//! Verdicts of the small ledger: it allows what names a grant.

use access_ledger_proto::{
    entry::Entry,
    position::Index,
    proof::inclusion_path,
    wire::{self, AuthorizationDecision, event::Body},
};
use bytes::Bytes;
use prost::Message as _;

use super::{Leaves, Log};
use crate::authorize::intent_id;

/// A way to give a wrong verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum VerdictLie {
    /// On another intent.
    OtherIntent,
    /// At another index.
    OtherPlace,
    /// By a source that is not the ledger's own.
    OtherSource,
    /// Of another event than the entry commits to.
    OtherEvent,
    /// Another entry than the tree holds.
    NotInTree,
    /// Another body.
    OtherBody,
    Absent,
}

impl VerdictLie {
    pub(in super::super) const ALL: [Self; 7] = [
        Self::OtherIntent,
        Self::OtherPlace,
        Self::OtherSource,
        Self::OtherEvent,
        Self::NotInTree,
        Self::OtherBody,
        Self::Absent,
    ];
}

impl Log {
    /// Records the verdicts on the intents of a batch, unless they are there.
    pub(super) fn judge(&mut self, first_index: u64, events: &[Bytes]) {
        for (index, event) in (first_index..).zip(events) {
            let Some(event_id) = intent_id(event) else { continue };
            if self.verdicts.contains_key(&index) {
                continue;
            }
            let event = self.verdict(index, event_id, event);
            let sealer = match self.faults.verdict_lie {
                Some(VerdictLie::OtherSource) => self.other.clone(),
                _ => self.own.clone(),
            };
            self.append_own(&sealer, event);
            self.verdicts.insert(index, self.link.size.0 - 1);
        }
    }

    fn verdict(&self, index: u64, event_id: Bytes, intent: &Bytes) -> Bytes {
        let Some(Body::Access(access)) = wire::Event::decode(intent.clone()).unwrap().body else {
            unreachable!("an intent is an access")
        };
        let lie = self.faults.verdict_lie;
        let event_id =
            if lie == Some(VerdictLie::OtherIntent) { vec![9; 16].into() } else { event_id };
        let index = index + u64::from(lie == Some(VerdictLie::OtherPlace));
        let allows = !access.grant_id.is_empty();
        let decision =
            if allows { AuthorizationDecision::Allow } else { AuthorizationDecision::Deny };
        let authorization = wire::Authorization {
            intent: Some(wire::EventReference { event_id, index: Some(index) }),
            decision: decision.into(),
            rules: if allows { Vec::new() } else { vec!["NO_GRANT".to_owned()] },
            policy_version: "1-00000000".to_owned(),
            grant_id: access.grant_id,
        };
        let body = match lie {
            Some(VerdictLie::OtherBody) => {
                Body::LedgerRead(wire::LedgerRead { reader: "r".to_owned(), ..Default::default() })
            }
            _ => Body::Authorization(authorization),
        };
        let event = wire::Event {
            event_id: vec![2; 16].into(),
            occurred_at: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
            body: Some(body),
            ..Default::default()
        };
        event.encode_to_vec().into()
    }

    /// The verdicts on the intents among entries that lie side by side.
    pub(super) fn verdicts_on(&self, first_index: u64, count: usize) -> Vec<wire::RecordedVerdict> {
        let lie = self.faults.verdict_lie;
        if lie == Some(VerdictLie::Absent) {
            return Vec::new();
        }
        let range = first_index..first_index + count as u64;
        let told = self.verdicts.range(range).map(|(_, &index)| {
            let mut entry = self.entries[usize::try_from(index).unwrap()].clone();
            let parsed = Entry::parse(&entry).unwrap();
            let events = &self.sources[parsed.source.as_str()].events;
            let mut event = events[usize::try_from(parsed.source_seq).unwrap() - 1].clone();
            match lie {
                Some(VerdictLie::OtherEvent) => {
                    let mut other = wire::Event::decode(event.clone()).unwrap();
                    other.correlation_id = "other".to_owned();
                    event = other.encode_to_vec().into();
                }
                // The time of the recording.
                Some(VerdictLie::NotInTree) => entry[16] ^= 1,
                _ => {}
            }
            let path = inclusion_path(&Leaves(&self.leaves), Index(index), self.link.size);
            wire::RecordedVerdict {
                index,
                event,
                entry: entry.into(),
                inclusion_path: path
                    .unwrap()
                    .iter()
                    .map(|hash| hash.as_ref().to_vec().into())
                    .collect(),
            }
        });
        told.collect()
    }
}
