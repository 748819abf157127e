//! Events in the name of somebody whose key the operator lacks, sources that nobody asked for, and
//! keys that are other ones.

use access_ledger_client::verify::Fault;
use access_ledger_proto::{
    error::{SealError, SourceError},
    event::{self, Body},
    wire,
};
use access_ledger_server::{
    custodian::alarms::{AlarmKind, Place},
    demo::tamper::Seized,
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use prost::Message as _;

use super::{Attack, Says, at, forked, signed};
use crate::{
    node::ORIGIN,
    operator::{
        Crime, SIZE, append, forged_registration, invented, newest_time, own_key, replace_event,
        reseal, sealed_records,
    },
};

/// Another event for an entry of a source, under the seal that is there.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn replace_an_event_of_a_source(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    replace_event(&mut copy, 9, invented())?;
    copy.rechain()?;
    let seal = Says::Log(12, |fault| matches!(fault, Fault::Seal(SealError::Signature)));
    Attack::new(crime, signed(&copy)?, [seal, Says::Fork], forked(SIZE))
}

/// The same, under a seal of the operator's own making in the source's name.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn replace_an_event_and_seal_again(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    let [source, _] = &crime.sources;
    replace_event(&mut copy, 24, invented())?;
    reseal(&mut copy, 24, &own_key(source.name())?)?;
    copy.rechain()?;
    let key = Says::Log(24, |fault| matches!(fault, Fault::Source(SourceError::Key { .. })));
    Attack::new(crime, signed(&copy)?, [key, Says::Fork], forked(SIZE))
}

/// The ledger registers a source that nobody asked for.
///
/// # Errors
///
/// None: the ledger's own source seals whatever it records.
pub fn forge_a_source(crime: &mut Crime) -> anyhow::Result<Attack> {
    let status = forged_registration("ghost", &own_key("ghost")?);
    let role = Says::Log(SIZE, |fault| matches!(fault, Fault::Source(SourceError::Role { .. })));
    registered(crime, status, role)
}

/// The same, with signatures that somebody gave for something else.
///
/// # Errors
///
/// None: the ledger's own source seals whatever it records.
pub fn forge_a_source_upon_signatures(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut status = forged_registration("ghost", &own_key("ghost")?);
    let [source, _] = &crime.sources;
    status.enrolment = source.enrolment().enrolment;
    let enrolment = |fault: &Fault| matches!(fault, Fault::Source(SourceError::Enrolment));
    registered(crime, status, Says::Log(SIZE, enrolment))
}

fn registered(crime: &mut Crime, status: wire::SourceStatus, says: Says) -> anyhow::Result<Attack> {
    let (mut copy, mut own) = (crime.honest.clone(), crime.own()?);
    let event = own.event(wire::event::Body::SourceStatus(status));
    append(&mut copy, &own, vec![event])?;
    Attack::new(crime, signed(&copy)?, [says, says], at(AlarmKind::LogInvalid, SIZE))
}

/// A batch of somebody who is not registered.
///
/// # Errors
///
/// None: anybody can make a key.
pub fn record_as_a_stranger(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    let time = newest_time(&copy)?;
    copy.records.extend(sealed_records(ORIGIN, &own_key("ghost")?, 1, time, vec![invented()])?);
    copy.rechain()?;
    let unknown =
        Says::Log(SIZE, |fault| matches!(fault, Fault::Source(SourceError::Unknown { .. })));
    Attack::new(crime, signed(&copy)?, [unknown, unknown], at(AlarmKind::LogInvalid, SIZE))
}

/// Another rule in the genesis, under the seal that is there.
///
/// # Errors
///
/// None: the scene begins with a genesis.
pub fn change_the_genesis(crime: &mut Crime) -> anyhow::Result<Attack> {
    let copy = with_genesis(crime, false, |genesis| genesis.self_enrolment = false)?;
    let seal = Says::Log(0, |fault| matches!(fault, Fault::Seal(SealError::Signature)));
    Attack::new(crime, signed(&copy)?, [seal, Says::Fork], forked(SIZE))
}

/// The same, sealed again: from the start nobody may enrol by itself, so the first registration is
/// unlawful.
///
/// # Errors
///
/// None: the scene begins with a genesis.
pub fn change_the_genesis_and_seal_again(crime: &mut Crime) -> anyhow::Result<Attack> {
    let copy = with_genesis(crime, true, |genesis| genesis.self_enrolment = false)?;
    let unlawful = Says::Log(1, |fault| matches!(fault, Fault::Source(SourceError::SelfEnrolment)));
    Attack::new(crime, signed(&copy)?, [unlawful, Says::Fork], forked(SIZE))
}

/// The genesis of another ledger.
///
/// # Errors
///
/// None: the scene begins with a genesis.
pub fn serve_the_genesis_of_another_ledger(crime: &mut Crime) -> anyhow::Result<Attack> {
    let other = own_key("ledger.example/other")?;
    let copy = with_genesis(crime, true, |genesis| {
        genesis.origin = other.name().to_owned();
        genesis.ledger_vkey = other.verifier().to_string();
    })?;
    let foreign = Says::Log(0, |fault| matches!(fault, Fault::ForeignGenesis { .. }));
    Attack::new(crime, signed(&copy)?, [foreign, Says::Fork], forked(SIZE))
}

/// The honest log with another genesis, sealed by the ledger's own source again or not.
fn with_genesis(
    crime: &Crime,
    sealed: bool,
    change: impl FnOnce(&mut wire::Genesis),
) -> anyhow::Result<Seized> {
    let mut copy = crime.honest.clone();
    let old = copy.record(0)?.event.clone().context("the genesis")?;
    let mut event = wire::Event::decode(old)?;
    let Some(wire::event::Body::ControlChange(control)) = &mut event.body else {
        anyhow::bail!("no genesis");
    };
    let mut genesis = wire::Genesis::decode(control.content.clone())?;
    change(&mut genesis);
    control.content = genesis.encode_to_vec().into();
    replace_event(&mut copy, 0, event.encode_to_vec().into())?;
    if sealed {
        let own = copy.own.clone();
        reseal(&mut copy, 0, &own)?;
    }
    copy.rechain()?;
    Ok(copy)
}

/// Checkpoints are signed with another key of the ledger's name.
///
/// # Errors
///
/// None: anybody can make a key.
pub fn swap_the_ledger_key(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    copy.key = own_key(ORIGIN)?;
    let alarm = (AlarmKind::CheckpointInvalid, Place::Ledger);
    Attack::new(crime, signed(&copy)?, [Says::Checkpoint, Says::Checkpoint], alarm)
}

/// A source is registered with a key of the operator's.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn swap_a_source_key(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    let event = copy.record(1)?.event.clone().context("a registration")?;
    ensure!(event::body(&event).is_some_and(|body| body.number == Body::SOURCE_STATUS));
    let mut event = wire::Event::decode(event)?;
    let [source, _] = &crime.sources;
    let key = own_key(source.name())?;
    if let Some(wire::event::Body::SourceStatus(status)) = &mut event.body {
        status.public_key = Bytes::copy_from_slice(key.verifier().public_key().as_bytes());
    }
    replace_event(&mut copy, 1, event.encode_to_vec().into())?;
    let own = copy.own.clone();
    reseal(&mut copy, 1, &own)?;
    copy.rechain()?;
    let enrolment = Says::Log(1, |fault| matches!(fault, Fault::Source(SourceError::Enrolment)));
    Attack::new(crime, signed(&copy)?, [enrolment, Says::Fork], forked(SIZE))
}
