//! Bytes that are not what was recorded, and bytes that are not served: a disk that was written to.

use access_ledger_client::verify::Fault;
use access_ledger_server::custodian::alarms::AlarmKind;
use anyhow::Context as _;

use super::{Attack, Says, at, forked, signed, unsigned};
use crate::operator::{Crime, SIZE};

/// One byte of an event is another.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn flip_a_byte_of_an_event(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    let record = copy.record(9)?;
    let mut event = record.event.clone().context("an event")?.to_vec();
    *event.get_mut(20).context("a byte")? ^= 1;
    record.event = Some(event.into());
    let says = Says::Log(9, |fault| matches!(fault, Fault::EventDigest { .. }));
    // The tree is the same. A pin spares reading what was verified before.
    Attack::behind_pin(crime, signed(&copy)?, says, at(AlarmKind::Damaged, 9))
}

/// One byte of an entry is another: of the link, which is checked at the entry itself.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn flip_a_byte_of_an_entry(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    flip(&mut copy.record(9)?.entry, PREV_AT)?;
    let says = Says::Log(9, |fault| matches!(fault, Fault::Link { .. }));
    Attack::behind_pin(crime, unsigned(crime, &copy)?, says, at(AlarmKind::Damaged, 9))
}

/// The same, and the tree is signed again.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn flip_a_byte_of_an_entry_and_sign_again(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    flip(&mut copy.record(9)?.entry, PREV_AT)?;
    let says = Says::Log(9, |fault| matches!(fault, Fault::Link { .. }));
    Attack::new(crime, signed(&copy)?, [says, Says::Fork], forked(SIZE))
}

/// The last entry is gone; the checkpoint still covers it.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn delete_the_last_entry(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    copy.records.pop();
    let (last, served) = (crime.size() - 1, unsigned(crime, &copy)?);
    Attack::behind_pin(crime, served, Says::Withheld(last), at(AlarmKind::Withheld, last))
}

/// An event of a batch is gone, without a record of its erasure.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn drop_one_event_of_a_batch(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    copy.record(9)?.event = None;
    let says = Says::Log(9, |fault| matches!(fault, Fault::ErasedWithoutRecord));
    Attack::behind_pin(crime, signed(&copy)?, says, at(AlarmKind::Withheld, 9))
}

/// Flips a byte.
///
/// # Errors
///
/// When there is none.
pub fn flip(bytes: &mut bytes::Bytes, at: usize) -> anyhow::Result<()> {
    let mut flipped = bytes.to_vec();
    *flipped.get_mut(at).context("a byte")? ^= 1;
    *bytes = flipped.into();
    Ok(())
}

/// Where `prev` lies in an entry: behind version, index and time.
const PREV_AT: usize = 1 + 8 + 8;
