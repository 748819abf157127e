//! Times that are not when something was recorded, and a silence that is hidden.

use access_ledger_client::verify::Fault;
use access_ledger_proto::{
    enrolment::EnrolmentClaim,
    error::{SealError, SourceError},
    facts::sources::Roles,
    source::Name,
    wire::{self, SourcePhase, event::Body},
};
use access_ledger_server::{
    custodian::alarms::{AlarmKind, Place},
    demo::tamper::Seized,
};
use bytes::Bytes;

use super::{Attack, Says, at, forked, gone_on, signed};
use crate::{
    node::ORIGIN,
    operator::{
        Crime, SECOND, SIZE, append, append_at, end, entry, newest_time, own_key, sealed_records,
    },
    source::Source,
};

/// The last entry is recorded later; within its neighbours' times nothing in the log says
/// otherwise.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn change_recorded_at(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    let later = newest_time(&copy)? + 1;
    copy.alter(SIZE - 1, |entry| entry.recorded_at = later)?;
    copy.rechain()?;
    Attack::new(crime, signed(&copy)?, [Says::InOrder, Says::Fork], forked(SIZE))
}

/// An entry is recorded later, and what follows is not chained again.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn change_recorded_at_alone(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    copy.alter(9, |entry| entry.recorded_at += 1)?;
    let link = Says::Log(10, |fault| matches!(fault, Fault::Link { .. }));
    Attack::new(crime, signed(&copy)?, [link, Says::Fork], forked(SIZE))
}

/// A batch that was recorded is recorded earlier.
///
/// # Errors
///
/// None: the scene holds what is changed.
pub fn backdate_a_batch(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    let early = entry(copy.record(8)?, |entry| entry.recorded_at)? - 1;
    for index in 13..16 {
        copy.alter(index, |entry| entry.recorded_at = early)?;
    }
    copy.rechain()?;
    let time = Says::Log(13, |fault| matches!(fault, Fault::Time { .. }));
    Attack::new(crime, signed(&copy)?, [time, Says::Fork], forked(SIZE))
}

/// A new batch is recorded as of the time of the last entry, which was minutes ago. Nothing in the
/// log says otherwise: only who looks at its own clock meanwhile knows.
///
/// # Errors
///
/// None: a source seals whatever it records.
pub fn backdate_a_new_batch(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    let time = newest_time(&copy)?;
    let [source, _] = &mut crime.sources;
    let events = source.events(2);
    append_at(&mut copy, source, time, events)?;
    let (says, alarm) = ([Says::InOrder, Says::InOrder], (AlarmKind::Backdated, Place::Ledger));
    Ok(Attack {
        twin: gone_on(crime, 2 * MINUTE)?,
        later: 2 * MINUTE,
        ..Attack::new(crime, signed(&copy)?, says, alarm)?
    })
}

/// A source that promised a heartbeat a minute falls silent, and the operator serves its log as it
/// is.
///
/// # Errors
///
/// None: a source seals whatever it records.
pub fn keep_quiet_about_a_silent_source(crime: &mut Crime) -> anyhow::Result<Attack> {
    let silent = Silent::join(crime)?;
    let copy = silent.gone_on(crime, SILENCE)?;
    let says = [Says::Finding("SOURCE_SILENT", silent.last), Says::InOrder];
    Ok(Attack {
        twin: silent.stopped(crime)?,
        later: SILENCE,
        ..Attack::new(crime, signed(&copy)?, says, silent.alarm())?
    })
}

/// Its last heartbeat is recorded again.
///
/// # Errors
///
/// None: a source seals whatever it records.
pub fn hide_a_silence_by_an_old_heartbeat(crime: &mut Crime) -> anyhow::Result<Attack> {
    let silent = Silent::join(crime)?;
    let mut copy = silent.gone_on(crime, MINUTE / 2)?;
    let (index, time) = (end(&copy), newest_time(&copy)? + SECOND);
    let again = copy.record(silent.last)?.clone();
    copy.records.push(again);
    copy.alter(index, |entry| entry.recorded_at = time)?;
    copy.rechain()?;
    let says = Says::Log(index, |fault| matches!(fault, Fault::Sequence(gap) if gap.found == 1));
    Attack::new(crime, signed(&copy)?, [says, says], at(AlarmKind::LogInvalid, index))
}

/// The operator makes the heartbeat that is missing.
///
/// # Errors
///
/// None: a source seals whatever it records.
pub fn hide_a_silence_by_a_forged_heartbeat(crime: &mut Crime) -> anyhow::Result<Attack> {
    let silent = Silent::join(crime)?;
    let mut copy = silent.gone_on(crime, MINUTE / 2)?;
    let (index, time) = (end(&copy), newest_time(&copy)? + SECOND);
    let beat = crime.own()?.event(heartbeat(silent.source.name()));
    let forged = own_key(silent.source.name())?;
    copy.records.extend(sealed_records(ORIGIN, &forged, 2, time, vec![beat])?);
    copy.rechain()?;
    let says = Says::Log(index, |fault| {
        matches!(fault, Fault::Source(SourceError::Key { .. }) | Fault::Seal(SealError::Signature))
    });
    Attack::new(crime, signed(&copy)?, [says, says], at(AlarmKind::LogInvalid, index))
}

/// The operator lets the ledger's time stand still, so that no silence ever becomes too long. The
/// log is in order in itself; whoever has a clock sees that it is behind.
///
/// # Errors
///
/// None: a source seals whatever it records.
pub fn hide_a_silence_by_a_slow_clock(crime: &mut Crime) -> anyhow::Result<Attack> {
    let silent = Silent::join(crime)?;
    let copy = silent.gone_on(crime, 0)?;
    let says = [Says::InOrder, Says::InOrder];
    Ok(Attack {
        twin: silent.stopped(crime)?,
        later: SILENCE,
        alarms: vec![silent.alarm(), (AlarmKind::Backdated, Place::Ledger)],
        ..Attack::new(crime, signed(&copy)?, says, None)?
    })
}

/// A source with a heartbeat interval.
struct Silent {
    source: Source,
    /// Its last entry.
    last: u64,
}

impl Silent {
    /// It enrols in the honest log with a heartbeat of a minute, and is heard once.
    fn join(crime: &mut Crime) -> anyhow::Result<Self> {
        let mut source = Source::new("gateway", 3, &crime.vkey)?;
        let claim = EnrolmentClaim {
            source: Name::parse(source.name().as_bytes())?,
            public_key: source.key().verifier().public_key(),
            roles: Roles::RECORDER,
            heartbeat_nanos: MINUTE,
        };
        let possession = source.key().sign(claim.message(ORIGIN).as_bytes());
        let mut status = source.registration(&[wire::SourceRole::Record]);
        status.heartbeat_interval = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        status.enrolment = Some(wire::Enrolment {
            possession: Bytes::copy_from_slice(&possession),
            ..Default::default()
        });
        let mut own = crime.own()?;
        let registration = own.event(Body::SourceStatus(status));
        append(&mut crime.honest, &own, vec![registration])?;
        let beat = source.event(heartbeat(source.name()));
        let last = append(&mut crime.honest, &source, vec![beat])?;
        Ok(Self { source, last })
    }

    fn alarm(&self) -> (AlarmKind, Place) {
        (AlarmKind::SourceSilent, Place::Party(self.source.name().to_owned()))
    }

    /// The honest twin: it says that it stops, and the log goes on.
    fn stopped(&self, crime: &mut Crime) -> anyhow::Result<Seized> {
        let honest = crime.honest.clone();
        let time = newest_time(&honest)?;
        let stop = crime.own()?.event(status(self.source.name(), SourcePhase::Stopped));
        append_at(&mut crime.honest, &self.source, time + MINUTE / 2, vec![stop])?;
        let twin = gone_on(crime, MINUTE)?;
        crime.honest = honest;
        Ok(twin)
    }

    /// The honest log, where another source is heard so much later.
    fn gone_on(&self, crime: &mut Crime, later: u64) -> anyhow::Result<Seized> {
        let mut copy = crime.honest.clone();
        let time = newest_time(&copy)? + later;
        let [source, _] = &mut crime.sources;
        let events = source.events(2);
        append_at(&mut copy, source, time, events)?;
        Ok(copy)
    }
}

fn heartbeat(source: &str) -> Body {
    status(source, SourcePhase::Heartbeat)
}

fn status(source: &str, phase: SourcePhase) -> Body {
    Body::SourceStatus(wire::SourceStatus {
        phase: phase.into(),
        source: source.to_owned(),
        ..Default::default()
    })
}

const MINUTE: u64 = 60 * SECOND;

/// Longer than a minute and the time between two answers of the ledger, for which nobody is blamed.
const SILENCE: u64 = 120 * SECOND;
