//! Events that are gone without both parties' word.

use access_ledger_client::verify::Fault;
use access_ledger_server::custodian::alarms::AlarmKind;

use super::{Attack, Says, at, signed};
use crate::operator::{BATCHES, Crime};

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
