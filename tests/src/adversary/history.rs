//! Other histories than the one that somebody saw, signed with the ledger's real key.

use access_ledger_server::{
    custodian::alarms::{AlarmKind, Place},
    demo::tamper::Seized,
};

use super::{Attack, Says, forked, gone_on, rolled_back, signed};
use crate::operator::{BATCHES, Crime, SECOND, SIZE, append, newest_time};

/// The ledger goes back to an old backup.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn restore_an_old_backup(crime: &mut Crime) -> anyhow::Result<Attack> {
    let backup = backup(crime)?;
    Attack::new(crime, signed(&backup)?, [Says::InOrder, Says::Rollback], rolled_back(18))
}

/// The same, and it records on from there.
///
/// # Errors
///
/// None: a source seals whatever it records.
pub fn restore_an_old_backup_and_record_on(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut backup = backup(crime)?;
    let [_, source] = &mut crime.sources;
    let events = source.events(20);
    append(&mut backup, source, events)?;
    Attack::new(crime, signed(&backup)?, [Says::InOrder, Says::Inconsistent], forked(38))
}

/// The log ends early, behind a seal.
fn backup(crime: &Crime) -> anyhow::Result<Seized> {
    let [_, _, _, _, _, (end, _), ..] = BATCHES;
    let mut backup = crime.honest.clone();
    backup.records.truncate(usize::try_from(end)?);
    Ok(backup)
}

/// Two logs of one size.
///
/// # Errors
///
/// None: the ledger's key signs anything.
pub fn fork(crime: &mut Crime) -> anyhow::Result<Attack> {
    let other = other_history(crime)?;
    Attack::new(crime, signed(&other)?, [Says::InOrder, Says::Fork], forked(SIZE))
}

/// Two logs, one of which went on.
///
/// # Errors
///
/// None: a source seals whatever it records.
pub fn fork_and_record_on(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut other = other_history(crime)?;
    let [source, _] = &mut crime.sources;
    let events = source.events(3);
    append(&mut other, source, events)?;
    Attack::new(crime, signed(&other)?, [Says::InOrder, Says::Inconsistent], forked(SIZE + 3))
}

/// As long as the honest log, in order in itself, and another one: the last batch was recorded at
/// another time.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn other_history(crime: &Crime) -> anyhow::Result<Seized> {
    let mut other = crime.honest.clone();
    let time = newest_time(&other)? + 1;
    for index in BATCHES[7].0..crime.size() {
        other.alter(index, |entry| entry.recorded_at = time)?;
    }
    other.rechain()?;
    Ok(other)
}

/// The ledger goes on, and serves those who look what it signed before. Whoever saw no more than
/// that sees nothing wrong.
///
/// # Errors
///
/// None: a source seals whatever it records.
pub fn serve_an_old_checkpoint_for_ever(crime: &mut Crime) -> anyhow::Result<Attack> {
    let (says, alarm) = (Says::InOrder, (AlarmKind::Stale, Place::Ledger));
    let served = signed(&crime.honest)?;
    Ok(Attack { later: HOUR, ..Attack::new(crime, served, [says, says], alarm)? })
}

/// The hashes of a tree file are other ones, and with them the proofs that are made of them. The
/// custodian has a tree of its own, and asks for none.
///
/// # Errors
///
/// None: a source seals whatever it records.
pub fn prove_from_a_flipped_tree(crime: &mut Crime) -> anyhow::Result<Attack> {
    let served = signed(&gone_on(crime, SECOND)?)?.consistency(|path| {
        let mut path = path?;
        if let Some(hash) = path.first_mut() {
            *hash = hash.iter().map(|byte| byte ^ 1).collect();
        }
        Ok(path)
    });
    Attack::new(crime, served, [Says::InOrder, Says::Inconsistent], None)
}

const HOUR: u64 = 3_600 * SECOND;
