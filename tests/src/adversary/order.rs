//! Entries that are gone, moved, added or recorded twice, with indexes and links made good again.

use access_ledger_client::verify::Fault;
use access_ledger_proto::{error::SealError, position::Size};
use access_ledger_server::{custodian::alarms::AlarmKind, demo::tamper::Seized};
use anyhow::Context as _;

use super::{Attack, Says, at, forked, rolled_back, signed};
use crate::operator::{BATCHES, Crime, SIZE, invented, newest_time, replace_event};

/// The last entry, which carries a seal, is gone, and the rest is signed.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn delete_the_last_entry_and_sign_again(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    copy.records.pop();
    let unsealed =
        Says::Log(25, |fault| matches!(fault, Fault::Unsealed { size: Size(size) } if *size == 28));
    Attack::new(crime, signed(&copy)?, [unsealed, Says::Rollback], rolled_back(28))
}

/// An entry inside a batch is gone.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn delete_one_in_the_middle_and_chain_and_sign_again(
    crime: &mut Crime,
) -> anyhow::Result<Attack> {
    let gap =
        |fault: &Fault| matches!(fault, Fault::Sequence(gap) if gap.found == gap.expected + 1);
    let served = rechained(crime, |copy| drop(copy.records.remove(10)))?;
    Attack::new(crime, signed(&served)?, [Says::Log(10, gap), Says::Rollback], forked(28))
}

/// An entry with a seal is gone: the batch is still open when another source begins.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn delete_a_seal_and_chain_and_sign_again(crime: &mut Crime) -> anyhow::Result<Attack> {
    let interrupted = Says::Log(12, |fault| matches!(fault, Fault::Interrupted { .. }));
    let served = rechained(crime, |copy| drop(copy.records.remove(12)))?;
    Attack::new(crime, signed(&served)?, [interrupted, Says::Rollback], forked(28))
}

/// A whole batch is gone: the source's next one, moved up, leaves numbers out.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn delete_a_batch_and_chain_and_sign_again(crime: &mut Crime) -> anyhow::Result<Attack> {
    let [_, _, (first, count), _, (next, _), ..] = BATCHES;
    let gap =
        |fault: &Fault| matches!(fault, Fault::Sequence(gap) if gap.found == gap.expected + 5);
    let gone = usize::try_from(first)?..usize::try_from(first + count)?;
    let served = rechained(crime, |copy| drop(copy.records.drain(gone)))?;
    let says = [Says::Log(next - count, gap), Says::Rollback];
    Attack::new(crime, signed(&served)?, says, forked(SIZE - count))
}

/// Two entries changed places.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn swap_two(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    copy.records.swap(9, 10);
    let index = Says::Log(9, |fault| matches!(fault, Fault::Index { found } if found.0 == 10));
    Attack::new(crime, signed(&copy)?, [index, Says::Fork], forked(SIZE))
}

/// The same, with indexes and links made good.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn swap_two_and_chain_again(crime: &mut Crime) -> anyhow::Result<Attack> {
    let served = rechained(crime, |copy| copy.records.swap(9, 10))?;
    let gap = Says::Log(9, |fault| matches!(fault, Fault::Sequence(gap) if gap.found == 7));
    Attack::new(crime, signed(&served)?, [gap, Says::Fork], forked(SIZE))
}

/// An entry is there twice.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn insert_one(crime: &mut Crime) -> anyhow::Result<Attack> {
    let again = Says::Log(10, |fault| matches!(fault, Fault::Sequence(gap) if gap.found == 6));
    let twice = crime.honest.record(9)?.clone();
    let served = rechained(crime, |copy| copy.records.insert(10, twice))?;
    Attack::new(crime, signed(&served)?, [again, Says::Inconsistent], forked(SIZE + 1))
}

/// An entry with an event of the operator's own, and numbers made good up to the seal, which says
/// how many it covers.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn insert_one_and_number_again(crime: &mut Crime) -> anyhow::Result<Attack> {
    let covers =
        |fault: &Fault| matches!(fault, Fault::Seal(SealError::Covers { found: 5, wanted: 6 }));
    let mut copy = crime.honest.clone();
    let record = copy.record(9)?.clone();
    copy.records.insert(10, record);
    replace_event(&mut copy, 10, invented())?;
    for index in 10..14 {
        copy.alter(index, |entry| entry.source_seq = index - 3)?;
    }
    copy.rechain()?;
    let says = [Says::Log(13, covers), Says::Inconsistent];
    Attack::new(crime, signed(&copy)?, says, forked(SIZE + 1))
}

/// A batch is recorded a second time, under its own numbers.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn replay_a_batch(crime: &mut Crime) -> anyhow::Result<Attack> {
    let again = Says::Log(SIZE, |fault| matches!(fault, Fault::Sequence(gap) if gap.found == 5));
    let served = replayed(crime, None)?;
    Attack::new(crime, signed(&served)?, [again, again], at(AlarmKind::LogInvalid, SIZE))
}

/// A batch is recorded a second time, under the numbers that are next.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn replay_a_batch_under_another_number(crime: &mut Crime) -> anyhow::Result<Attack> {
    let seal = Says::Log(SIZE + 4, |fault| matches!(fault, Fault::Seal(SealError::Signature)));
    let [source, _] = &crime.sources;
    let served = replayed(crime, Some(source.next_seq))?;
    Attack::new(crime, signed(&served)?, [seal, seal], at(AlarmKind::LogInvalid, SIZE + 4))
}

fn replayed(crime: &Crime, first_seq: Option<u64>) -> anyhow::Result<Seized> {
    let mut copy = crime.honest.clone();
    let time = newest_time(&copy)?;
    let batch = copy.records.get(8..13).context("a batch")?.to_vec();
    copy.records.extend(batch);
    for (index, number) in (SIZE..SIZE + 5).zip(0..) {
        copy.alter(index, |entry| {
            entry.recorded_at = time;
            entry.source_seq = first_seq.map_or(entry.source_seq, |first| first + number);
        })?;
    }
    copy.rechain()?;
    Ok(copy)
}

/// The honest log with other records, chained again.
fn rechained(crime: &Crime, change: impl FnOnce(&mut Seized)) -> anyhow::Result<Seized> {
    let mut copy = crime.honest.clone();
    change(&mut copy);
    copy.rechain()?;
    Ok(copy)
}
