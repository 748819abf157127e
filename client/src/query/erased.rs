//! Why events are gone, by a verified log.
//!
//! An entry that is found by rule is pulled after the audit. Its event may have been erased in
//! between, but then a redaction says so: under the checkpoint of the audit, or under a newer one,
//! up to which the log is verified then.

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    entry::Entry,
    event,
    facts::{erased::Redactions, redactions::Erasable},
    note::VerifierKey,
    position::Index,
};

use super::{ErasedBy, Hit, SelectError};
use crate::{
    audit::Audited,
    evidence::Caught,
    pull::Puller,
    verify::{LogVerifier, Record, Scope, Violation},
};

/// The lawful redactions of a log, as far as it was verified.
pub(super) struct Erased {
    verifier: LogVerifier,
    checkpoint: VerifiedCheckpoint,
    redactions: Redactions,
}

impl Erased {
    /// `rules` are the records of the audited log that [`changes_rules`].
    pub(super) fn of(rules: &[(Index, Record)], audited: &Audited) -> Self {
        let (verifier, checkpoint) = (audited.verifier.clone(), audited.checkpoint.clone());
        let mut erased = Self { verifier, checkpoint, redactions: Redactions::default() };
        erased.take(rules.iter().map(|(index, record)| (*index, record)));
        erased
    }

    /// What erased the event of a hit.
    pub(super) fn by(&self, hit: &Hit) -> Option<ErasedBy> {
        let entry = Entry::parse(&hit.record.entry).ok()?;
        let erasable = Erasable::of(self.verifier.sources()?, entry.source, hit.index);
        let (index, legal_basis) = self.redactions.of(hit.index, entry.recorded_at, erasable)?;
        Some(ErasedBy { index, legal_basis: legal_basis.to_owned() })
    }

    /// That the event of a hit, which was there when the log was audited, was erased since.
    ///
    /// # Errors
    ///
    /// [`SelectError::Caught`] when no redaction accounts for that; [`SelectError::Pull`].
    pub(super) async fn expect_accounts(
        &mut self,
        hit: &Hit,
        puller: &Puller,
        ledger: &VerifierKey,
    ) -> Result<(), SelectError> {
        if self.by(hit).is_some() {
            return Ok(());
        }
        self.follow(puller, ledger).await?;
        if self.by(hit).is_some() {
            return Ok(());
        }
        let problem = "its event was there when the log was verified, and no redaction accounts \
                       for its being gone";
        let (index, served) = (hit.index, Box::new(self.checkpoint.clone()));
        Err(caught(Caught::Withheld { index, problem: problem.to_owned(), served }))
    }

    /// Verifies what was recorded since.
    async fn follow(&mut self, puller: &Puller, ledger: &VerifierKey) -> Result<(), SelectError> {
        let note = puller.checkpoint().await?;
        let newest = VerifiedCheckpoint::open(&note, ledger, &[])
            .map_err(|error| caught(Caught::Checkpoint { error, note }))?;
        let first = self.verifier.size().next_index();
        if newest.size().next_index() <= first {
            return Ok(());
        }
        let told = |violation: Violation| {
            let (violation, served) = (Box::new(violation), Box::new(newest.clone()));
            caught(Caught::Log { violation, served, proofs: Vec::new() })
        };
        let mut records = puller.records(first, newest.size(), Scope::Events);
        while let Some((first, records)) = records.next().await.transpose()? {
            self.verifier.advance(vec![(first, records.clone())]).map_err(told)?;
            let places = (first.0..).map(Index).zip(&records);
            self.take(places.filter(|(_, record)| changes_rules(record)));
        }
        self.verifier.finish(&newest).map_err(told)?;
        self.checkpoint = newest;
        Ok(())
    }

    fn take<'a>(&mut self, rules: impl Iterator<Item = (Index, &'a Record)>) {
        let Some(sources) = self.verifier.sources() else { return };
        for (index, record) in rules {
            let body = record.event.as_deref().and_then(event::body);
            if let (Ok(entry), Some(body)) = (Entry::parse(&record.entry), body) {
                self.redactions.take(sources, (index, entry.recorded_at), entry.source, body);
            }
        }
    }
}

/// Whether a record holds a change of the rules, or a redaction.
pub(super) fn changes_rules(record: &Record) -> bool {
    let body = record.event.as_deref().and_then(event::body);
    body.is_some_and(Redactions::concerns)
}

/// Events that were gone already when the log was audited: the runs of their indexes, in order.
#[derive(Debug, Default)]
pub(super) struct Gone {
    runs: Vec<(Index, Index)>,
}

impl Gone {
    /// Notes the event at `index`; in the order of the log.
    pub(super) fn note(&mut self, index: Index) {
        match self.runs.last_mut() {
            Some((_, end)) if *end == index => *end = index.next(),
            _ => self.runs.push((index, index.next())),
        }
    }

    pub(super) fn holds(&self, index: Index) -> bool {
        let before = self.runs.partition_point(|&(first, _)| first <= index);
        before.checked_sub(1).and_then(|at| self.runs.get(at)).is_some_and(|&(_, end)| index < end)
    }
}

fn caught(caught: Caught) -> SelectError {
    SelectError::Caught(Box::new(caught))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_that_were_noted_are_held_and_no_others() {
        let noted = [2, 3, 4, 8, 10, 11];
        let mut gone = Gone::default();
        noted.map(Index).into_iter().for_each(|index| gone.note(index));
        let held: Vec<_> = (0..15).filter(|&index| gone.holds(Index(index))).collect();
        assert_eq!((held.as_slice(), gone.runs.len()), (&noted[..], 3));
        assert!(!Gone::default().holds(Index(0)));
    }
}
