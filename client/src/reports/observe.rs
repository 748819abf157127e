//! Counts cells from observations: the one place that auditors and servers share.

use access_ledger_proto::wire::event::Body;

use super::{Cells, Report, accesses::Attempt, cross_region, flows, privileged, sources};
use crate::fold::Observation;

/// Which reports to count cells for. Others have no cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reports(u16);

impl Reports {
    /// All that are computed from cells: what a server keeps.
    pub const ALL: Self = Self(
        1 << Report::CrossRegion.tag()
            | 1 << Report::Privileged.tag()
            | 1 << Report::Flows.tag()
            | 1 << Report::Sources.tag(),
    );

    /// One, if it has cells.
    #[must_use]
    pub const fn only(report: Report) -> Self {
        Self(Self::ALL.0 & 1 << report.tag())
    }

    /// Whether cells of a report are counted.
    #[must_use]
    pub const fn contains(self, report: Report) -> bool {
        self.0 & 1 << report.tag() != 0
    }
}

/// Counts an entry. Entries may be counted in any order and in parts: cells add up. Of an entry
/// whose event was erased all that is left is that its source recorded it.
pub fn observe(cells: &mut Cells, reports: Reports, observation: &Observation<'_>) {
    let noted = observation.noted;
    if reports.contains(Report::Sources) {
        sources::observe(cells, noted);
    }
    let Some(judgement) = observation.judgement else {
        return;
    };
    if let Some(attempt) = Attempt::of(noted.event, judgement) {
        if reports.contains(Report::CrossRegion) {
            cross_region::observe(cells, &attempt);
        }
        if reports.contains(Report::Privileged) {
            privileged::observe(cells, &attempt);
        }
        if reports.contains(Report::Flows) {
            flows::observe_access(cells, judgement, &attempt);
        }
    }
    if let Some(Body::Transfer(transfer)) = &noted.event.body
        && reports.contains(Report::Flows)
    {
        flows::observe_transfer(cells, judgement, noted.event, transfer);
    }
}
