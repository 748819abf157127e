//! The findings of a story, as the protocol's own fold computes them, entry by entry.

use access_ledger_proto::{
    facts::Noted,
    findings::Findings,
    position::Index,
    wire::{Event, FindingRecord},
};
use anyhow::Context as _;
use prost::Message as _;

use super::Line;

/// All findings at the end of a log, in the order in which they are found.
///
/// # Errors
///
/// For lines that do not begin with a genesis.
pub fn findings(lines: &[Line]) -> anyhow::Result<Vec<FindingRecord>> {
    let (genesis, rest) = lines.split_first().context("no genesis")?;
    let mut fold = Findings::from_genesis(genesis.event.as_deref().unwrap_or_default())?;
    let mut found = Vec::new();
    for (line, index) in rest.iter().zip(1..) {
        take(&mut fold, Index(index), line, &mut found)?;
    }
    found.extend(fold.conclude());
    for finding in &mut found {
        finding.state = fold.state_of(&finding.finding_id).into();
    }
    Ok(found)
}

/// Passes the next line on to a fold.
///
/// # Errors
///
/// For an event that cannot be decoded.
pub fn take(
    fold: &mut Findings,
    index: Index,
    line: &Line,
    found: &mut Vec<FindingRecord>,
) -> anyhow::Result<()> {
    let (source, recorded_at) = (line.source.as_name(), line.recorded_at);
    match &line.event {
        Some(event) => {
            let event = &Event::decode(event.clone())?;
            fold.take(&Noted { index, recorded_at, source, event }, found);
        }
        None => fold.missing(index, recorded_at, source, found),
    }
    Ok(())
}
