//! Erasures, phase by phase, and how much of a dataset lies where.

use std::borrow::Cow;

use super::{Facts, Noted};
use crate::{
    event,
    wire::{self, ErasurePhase},
};

impl Facts {
    /// The certified erasure, at or before a time, after which nothing of these data should be
    /// left where they lie: of the dataset at the site, of all at the site, of the dataset
    /// everywhere.
    pub(super) fn erased_before(
        &self,
        data: &wire::Data,
        time: u64,
    ) -> Option<Cow<'_, wire::ErasedFacts>> {
        if self.erased.is_hot_empty() {
            return None;
        }
        let places = [
            (data.region.as_str(), data.dataset.as_str()),
            (&data.region, ""),
            ("", &data.dataset),
        ];
        let named = places.into_iter().filter(|place| *place != ("", ""));
        named
            .filter_map(|(site, dataset)| self.erased.get(&key(site, dataset)))
            .filter(|erased| erased.time <= time)
            .max_by_key(|erased| erased.index)
    }

    /// Counts an access on the job that should have left nothing to access.
    pub(super) fn count_after_erasure(&mut self, noted: &Noted<'_>, access: &wire::Access) {
        if self.erased.is_hot_empty() {
            return;
        }
        let time = noted.time();
        let erased = access.data.iter().filter_map(|data| self.erased_before(data, time));
        let mut jobs: Vec<String> = erased.map(|erased| erased.job_id.clone()).collect();
        jobs.sort_unstable();
        jobs.dedup();
        for job in jobs {
            self.erasures.change(&job, noted.index, |row| {
                row.accesses_after = row.accesses_after.saturating_add(1);
            });
        }
    }

    /// Adds a phase; the first time of each counts. What a later phase says of site, dataset and
    /// method fills in what was left open, and the newest count of objects stands. What was
    /// certified stays so, whatever is told of the job later.
    pub(super) fn take_erasure(&mut self, noted: &Noted<'_>, phase: &wire::Erasure) {
        let mut row = self.erasures.get(&phase.job_id).map_or_else(
            || wire::ErasureFacts {
                job_id: phase.job_id.clone(),
                index: noted.index.0,
                ..Default::default()
            },
            Cow::into_owned,
        );
        for (new, old) in [
            (&phase.site, &mut row.site),
            (&phase.dataset, &mut row.dataset),
            (&phase.method, &mut row.method),
        ] {
            if old.is_empty() {
                new.clone_into(old);
            }
        }
        if phase.objects > 0 {
            row.objects = phase.objects;
        }
        let at = match phase.phase() {
            ErasurePhase::Scheduled => Some(&mut row.scheduled_at),
            ErasurePhase::Started => Some(&mut row.started_at),
            ErasurePhase::Completed => Some(&mut row.completed_at),
            ErasurePhase::Verified => Some(&mut row.verified_at),
            ErasurePhase::Certified => Some(&mut row.certified_at),
            ErasurePhase::Failed => Some(&mut row.failed_at),
            ErasurePhase::Unspecified => None,
        };
        if let Some(at) = at.filter(|at| **at == 0) {
            *at = noted.time();
            match phase.phase() {
                ErasurePhase::Verified => noted.source.as_str().clone_into(&mut row.verified_by),
                ErasurePhase::Certified => self.certify(noted, &mut row),
                _ => {}
            }
        }
        self.erasures.insert(&phase.job_id, noted.index, row);
    }

    fn certify(&mut self, noted: &Noted<'_>, row: &mut wire::ErasureFacts) {
        row.certified_index = noted.index.0;
        if row.site.is_empty() && row.dataset.is_empty() {
            return;
        }
        let erased = wire::ErasedFacts {
            job_id: row.job_id.clone(),
            time: row.certified_at,
            index: noted.index.0,
        };
        self.erased.insert(&key(&row.site, &row.dataset), noted.index, erased);
    }

    /// Keeps the newest count, and the one before it.
    pub(super) fn take_holding(&mut self, noted: &Noted<'_>, holding: &wire::Holding) {
        let key = key(&holding.site, &holding.dataset);
        let as_of = holding.as_of.as_ref().map_or_else(|| noted.time(), event::nanos_of);
        let mut row = wire::HoldingFacts {
            dataset: holding.dataset.clone(),
            site: holding.site.clone(),
            country: holding.country.clone(),
            site_operator: holding.site_operator.clone(),
            records: holding.records,
            bytes: holding.bytes,
            as_of,
            index: noted.index.0,
            ..Default::default()
        };
        if let Some(before) = self.holdings.get(&key) {
            if before.as_of > as_of {
                return;
            }
            row.previous_records = before.records;
            row.previous_as_of = before.as_of;
        }
        self.holdings.insert(&key, noted.index, row);
    }
}

/// Names hold no line feed.
fn key(site: &str, dataset: &str) -> String {
    format!("{site}\n{dataset}")
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn phase(job: &str, phase: ErasurePhase, site: &str, dataset: &str) -> EventBody {
        EventBody::Erasure(wire::Erasure {
            job_id: job.into(),
            phase: phase.into(),
            site: site.into(),
            dataset: dataset.into(),
            ..Default::default()
        })
    }

    fn erased(ledger: &Ledger, site: &str, dataset: &str) -> Option<String> {
        let at = wire::Data { region: site.into(), ..data(dataset) };
        let access = wire::Access { data: vec![at], ..access("", "") };
        let assessed = ledger.assess("gateway", EventBody::Access(access));
        assessed.data.into_iter().next()?.erased.map(|erased| erased.job_id)
    }

    fn certified(site: &str, dataset: &str) -> Ledger {
        let mut ledger = Ledger::new();
        ledger.take("gateway", phase("j", ErasurePhase::Scheduled, site, dataset));
        ledger.take("gateway", phase("j", ErasurePhase::Completed, "", ""));
        ledger.take("security/ann", phase("j", ErasurePhase::Verified, "", ""));
        assert_eq!(erased(&ledger, "dc", "users"), None);
        ledger.take("gateway", phase("j", ErasurePhase::Certified, "", ""));
        ledger
    }

    #[test]
    fn a_certified_erasure_covers_its_dataset_at_its_site() {
        let found = |site, dataset| {
            let ledger = certified(site, dataset);
            [("dc", "users"), ("dc", "orders"), ("dc-2", "users"), ("", "users")]
                .map(|(site, dataset)| erased(&ledger, site, dataset).is_some())
        };
        assert_eq!(found("dc", "users"), [true, false, false, false]);
        assert_eq!(found("dc", ""), [true, true, false, false]);
        assert_eq!(found("", "users"), [true, false, true, true]);
        assert_eq!(found("", ""), [false; 4]);
    }

    #[test]
    fn phases_keep_their_first_time_and_accesses_after_them_are_counted() {
        let mut ledger = certified("dc", "users");
        let row = |ledger: &Ledger| ledger.facts.erasures().get("j").unwrap().into_owned();
        let first = row(&ledger);
        assert_eq!(first.verified_by, "security/ann");
        assert!(first.scheduled_at < first.completed_at && first.verified_at < first.certified_at);
        ledger.take("gateway", phase("j", ErasurePhase::Certified, "", ""));
        ledger.take("gateway", phase("j", ErasurePhase::Unspecified, "", ""));
        assert_eq!(row(&ledger), first);
        let at = wire::Data { region: "dc".into(), ..data("users") };
        let read = wire::Access { data: vec![at.clone(), at], ..access("", "") };
        // From before the certification.
        let mut before = ledger.event(EventBody::Access(read.clone()));
        before.occurred_at = Some(timestamp(first.certified_at - 1));
        ledger.take_event("gateway", &before);
        assert_eq!(row(&ledger).accesses_after, 0);
        ledger.take("gateway", EventBody::Access(read.clone()));
        let denied = wire::Access { outcome: wire::Outcome::Denied.into(), ..read };
        ledger.take("gateway", EventBody::Access(denied));
        assert_eq!(row(&ledger).accesses_after, 1);
    }

    #[test]
    fn the_newest_holding_stands_and_the_one_before_it() {
        let mut ledger = Ledger::new();
        let mut report = |records, as_of: Option<u64>| {
            let holding = wire::Holding {
                dataset: "users".into(),
                site: "dc".into(),
                records,
                as_of: as_of.map(timestamp),
                ..Default::default()
            };
            ledger.take("gateway", EventBody::Holding(holding));
            let row = ledger.facts.holdings().get("dc\nusers").unwrap();
            (row.records, row.previous_records)
        };
        assert_eq!(report(100, Some(START - DAY)), (100, 0));
        assert_eq!(report(60, None), (60, 100));
        // What comes late does not stand for what is now.
        assert_eq!(report(90, Some(START - HOUR)), (60, 100));
    }
}
