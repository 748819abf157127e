//! Events that are gone without both parties' word.

use access_ledger_client::verify::Fault;
use access_ledger_proto::wire::event::Body;
use access_ledger_server::custodian::alarms::AlarmKind;

use super::{Attack, Says, at, signed};
use crate::{
    operator::{BATCHES, Crime, SECOND, append},
    personal::redaction,
};

/// The events of a batch are gone, and nothing says so.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn erase_events_without_a_record(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    let (first, count) = BATCHES[2];
    for index in first..first + count {
        copy.record(index)?.event = None;
    }
    let says = Says::Log(first, |fault| matches!(fault, Fault::ErasedWithoutRecord));
    let alarms = (first..first + count).map(|index| at(AlarmKind::Withheld, index)).collect();
    let attack = Attack::behind_pin(crime, signed(&copy)?, says, at(AlarmKind::Withheld, first))?;
    Ok(Attack { alarms, ..attack })
}

/// Both parties had a batch erased, the record says so, and its events are still there. Whoever
/// comes for the first time reads a log that is in order; the custodian has erased its own copy,
/// and asks for them again.
///
/// # Errors
///
/// None: the parties seal whatever they record.
pub fn mark_an_erasure_that_never_happened(crime: &mut Crime) -> anyhow::Result<Attack> {
    let (first, count) = BATCHES[2];
    let (mut copy, last) = (crime.honest.clone(), first + count - 1);
    let wanted = redaction(&crime.governance, first, last);
    let company = &mut crime.governance.company;
    let event = company.event(Body::Redaction(wanted));
    append(&mut copy, company, vec![event])?;
    let mut twin = copy.clone();
    for index in first..=last {
        twin.record(index)?.event = None;
    }
    let alarms = (first..=last).map(|index| at(AlarmKind::NotErased, index)).collect();
    let attack = Attack::new(crime, signed(&copy)?, [Says::InOrder, Says::InOrder], None)?;
    Ok(Attack { alarms, twin, later: SECOND, ..attack })
}
