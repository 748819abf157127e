//! Intended accesses: announced, answered by the ledger, and carried out once.

use std::borrow::Cow;

use super::{
    Facts, Noted,
    assess::{Beyond, IntentStatus},
    is_performed, records_of,
};
use crate::wire::{self, AuthorizationDecision, Outcome};

/// How long an intent stays open, from its time on: one day.
pub const INTENT_OPEN_NANOS: u64 = 24 * super::HOUR_NANOS;

impl Facts {
    /// Takes an access: an intent, or one that was carried out.
    pub(super) fn take_access(&mut self, noted: &Noted<'_>, access: &wire::Access) {
        if !access.grant_id.is_empty() {
            self.count_use(noted, access);
        }
        if access.outcome() == Outcome::Requested {
            self.open_intent(noted, access);
            return;
        }
        if is_performed(access) {
            self.count_emergency(noted, access);
            self.count_after_erasure(noted, access);
        }
        self.use_intent(noted, access);
    }

    /// How an access stands to the verdict on the intent that it names.
    pub(super) fn intent_status(&self, noted: &Noted<'_>, access: &wire::Access) -> IntentStatus {
        let Some(reference) = &access.intent else { return IntentStatus::None };
        let Some(intent) = self.named_intent(noted, reference) else {
            return IntentStatus::Beyond(Beyond::Unknown);
        };
        match beyond(&intent, noted, access) {
            Some(beyond) => IntentStatus::Beyond(beyond),
            None => IntentStatus::Allowed,
        }
    }

    /// Whether a verdict was counted as the use of the grant that an access names.
    pub(super) fn is_counted_by_verdict(&self, noted: &Noted<'_>, access: &wire::Access) -> bool {
        let intent = access.intent.as_ref().and_then(|intent| self.named_intent(noted, intent));
        intent.is_some_and(|intent| {
            intent.decision() == AuthorizationDecision::Allow
                && intent.grant_id == access.grant_id
                && intent.source == noted.source.as_str()
        })
    }

    /// Takes the ledger's verdict; the first one counts. An ALLOW is a use of the intent's grant.
    pub(super) fn take_verdict(&mut self, noted: &Noted<'_>, verdict: &wire::Authorization) {
        let Some(reference) = &verdict.intent else { return };
        let Some(intent) = self.named_intent(noted, reference) else { return };
        if intent.verdict_index != 0 {
            return;
        }
        let grant_id = intent.grant_id.clone();
        self.intents.change(&intent_key(&reference.event_id), noted.index, |intent| {
            intent.verdict_index = noted.index.0;
            intent.decision = verdict.decision;
        });
        if verdict.decision() == AuthorizationDecision::Allow && !grant_id.is_empty() {
            self.grants.change(&grant_id, noted.index, |grant| {
                grant.uses = grant.uses.saturating_add(1);
            });
        }
    }

    /// Brings the saved intents to mind that are to be forgotten in time.
    pub(super) fn find_open_intents(&mut self) {
        let mut open = Vec::new();
        self.intents.each(|key, intent| open.extend(id_of(key).map(|id| (intent.time, id))));
        self.open_intents = open.into_iter().collect();
    }

    /// An id that is open already stays that of the first.
    fn open_intent(&mut self, noted: &Noted<'_>, access: &wire::Access) {
        self.forget_intents(noted);
        let Ok(id) = <[u8; 16]>::try_from(noted.event.event_id.as_ref()) else { return };
        let key = intent_key(&id);
        if self.intents.get(&key).is_some() {
            return;
        }
        let mut datasets: Vec<String> =
            access.data.iter().map(|data| data.dataset.clone()).collect();
        datasets.sort_unstable();
        let row = wire::IntentFacts {
            index: noted.index.0,
            time: noted.time(),
            source: noted.source.as_str().to_owned(),
            actor: noted.actor().to_owned(),
            action: access.action,
            datasets,
            grant_id: access.grant_id.clone(),
            records: records_of(access.records, &access.data),
            ..Default::default()
        };
        self.open_intents.insert((row.time, id));
        self.intents.insert(&key, noted.index, row);
    }

    /// An intent is used up by the first access of its own source that names it, once it was
    /// answered.
    fn use_intent(&mut self, noted: &Noted<'_>, access: &wire::Access) {
        let Some(reference) = &access.intent else { return };
        let Some(intent) = self.named_intent(noted, reference) else { return };
        if intent.verdict_index == 0 || intent.source != noted.source.as_str() {
            return;
        }
        let time = intent.time;
        if let Ok(id) = reference.event_id.as_ref().try_into() {
            self.open_intents.remove(&(time, id));
        }
        self.intents.remove(&intent_key(&reference.event_id), noted.index);
    }

    fn named_intent(
        &self,
        noted: &Noted<'_>,
        reference: &wire::EventReference,
    ) -> Option<Cow<'_, wire::IntentFacts>> {
        self.intents.get(&intent_key(&reference.event_id)).filter(|intent| {
            reference.index.is_none_or(|index| index == intent.index)
                && noted.recorded_at <= intent.time.saturating_add(INTENT_OPEN_NANOS)
        })
    }

    /// Drops the rows of the intents that are not open any more.
    fn forget_intents(&mut self, noted: &Noted<'_>) {
        while let Some(&(time, id)) = self.open_intents.first()
            && time.saturating_add(INTENT_OPEN_NANOS) < noted.recorded_at
        {
            self.open_intents.pop_first();
            self.intents.remove(&intent_key(&id), noted.index);
        }
    }
}

/// How an access goes beyond the verdict on its intent: the first that applies.
fn beyond(intent: &wire::IntentFacts, noted: &Noted<'_>, access: &wire::Access) -> Option<Beyond> {
    let announced = |data: &wire::Data| intent.datasets.binary_search(&data.dataset).is_ok();
    let records = records_of(access.records, &access.data);
    if intent.source != noted.source.as_str() {
        Some(Beyond::Source)
    } else if intent.verdict_index == 0 {
        Some(Beyond::Unanswered)
    } else if intent.decision() != AuthorizationDecision::Allow {
        Some(Beyond::Denied)
    } else if intent.actor != noted.actor() {
        Some(Beyond::Actor)
    } else if intent.action != access.action {
        Some(Beyond::Action)
    } else if !access.data.iter().all(announced) {
        Some(Beyond::Dataset)
    } else if intent.grant_id != access.grant_id {
        Some(Beyond::Grant)
    } else if intent.records > 0 && records > intent.records {
        Some(Beyond::Records)
    } else {
        None
    }
}

/// The key of an intent's row: its event id in lower-case hex.
#[must_use]
pub fn intent_key(event_id: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).map_or('0', |&digit| digit.into());
    event_id.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn id_of(key: &str) -> Option<[u8; 16]> {
    u128::from_str_radix(key, 16).ok().filter(|_| key.len() == 32).map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests;
