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
