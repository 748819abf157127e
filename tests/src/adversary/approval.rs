//! Approvals and rules that are not what both parties of the governance wanted.

use access_ledger_client::verify::Fault;
use access_ledger_proto::{
    enrolment::EnrolmentClaim,
    error::SourceError,
    facts::{
        control::{control_message, registration_message},
        sources::Roles,
    },
    source::Name,
    wire::{self, ControlKind, SourceRole, event::Body},
};
use access_ledger_server::custodian::alarms::AlarmKind;
use bytes::Bytes;
use prost::Message as _;

use super::{Attack, Says, at, signed};
use crate::{
    node::ORIGIN,
    operator::{Crime, append, forged_registration, newest_time, own_key, sealed_records},
    parties::{approval, approve, request},
    source::Source,
};

/// An approval in the name of an approver, under a seal of the operator's making.
///
/// # Errors
///
/// None: a source seals whatever it records.
pub fn forge_an_approval(crime: &mut Crime) -> anyhow::Result<Attack> {
    let approver = approver(crime)?;
    ask(crime, "p-1")?;
    let mut copy = crime.honest.clone();
    let (index, time) = (crime.size(), newest_time(&copy)?);
    let forged = crime.own()?.event(approve(REQUEST, 0));
    let key = own_key(approver.name())?;
    copy.records.extend(sealed_records(ORIGIN, &key, 1, time, vec![forged])?);
    copy.rechain()?;
    let key = Says::Log(index, |fault| matches!(fault, Fault::Source(SourceError::Key { .. })));
    Attack::new(crime, signed(&copy)?, [key, key], at(AlarmKind::LogInvalid, index))
}

/// The ledger registers an approver that the parties never heard of.
///
/// # Errors
///
/// None: the ledger's own source seals whatever it records.
pub fn forge_an_approver(crime: &mut Crime) -> anyhow::Result<Attack> {
    let (mut copy, mut own) = (crime.honest.clone(), crime.own()?);
    let mut status = forged_registration("security/ghost", &own_key("security/ghost")?);
    status.roles = vec![SourceRole::Approve.into()];
    let event = own.event(Body::SourceStatus(status));
    let index = append(&mut copy, &own, vec![event])?;
    let role = Says::Log(index, |fault| matches!(fault, Fault::Source(SourceError::Role { .. })));
    Attack::new(crime, signed(&copy)?, [role, role], at(AlarmKind::LogInvalid, index))
}

/// One party of the governance, hand in hand with the operator, registers an approver alone.
///
/// # Errors
///
/// None: a party seals whatever it records.
pub fn register_an_approver_alone(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    let mut status = forged_registration("security/ghost", &own_key("security/ghost")?);
    status.roles = vec![SourceRole::Approve.into()];
    let company = &mut crime.governance.company;
    let event = company.event(Body::SourceStatus(status));
    let index = append(&mut copy, company, vec![event])?;
    let alone =
        Says::Log(index, |fault| matches!(fault, Fault::Source(SourceError::Parties { found: 1 })));
    Attack::new(crime, signed(&copy)?, [alone, alone], at(AlarmKind::LogInvalid, index))
}

/// The ledger approves a request by its own source, which records no such thing, behind an event
/// that it does record.
///
/// # Errors
///
/// None: the ledger's own source seals whatever it records.
pub fn approve_as_the_ledger(crime: &mut Crime) -> anyhow::Result<Attack> {
    approver(crime)?;
    ask(crime, "p-1")?;
    let (mut copy, mut own) = (crime.honest.clone(), crime.own()?);
    let read = own.event(Body::LedgerRead(wire::LedgerRead::default()));
    let decision = own.event(approve(REQUEST, 0));
    // A violation is told at the seal of its batch.
    let index = append(&mut copy, &own, vec![read, decision])? + 1;
    let body = Says::Log(index, |fault| matches!(fault, Fault::Source(SourceError::Body { .. })));
    Attack::new(crime, signed(&copy)?, [body, body], at(AlarmKind::LogInvalid, index))
}

/// A source that is no approver approves a request, hand in hand with the operator.
///
/// # Errors
///
/// None: a source seals whatever it records.
pub fn approve_without_the_role(crime: &mut Crime) -> anyhow::Result<Attack> {
    approver(crime)?;
    ask(crime, "p-1")?;
    let mut copy = crime.honest.clone();
    let [source, _] = &mut crime.sources;
    let decision = source.event(approve(REQUEST, 0));
    let index = append(&mut copy, source, vec![decision])?;
    let says = Says::Finding("APPROVER_NOT_AUTHORIZED", index);
    Attack::new(crime, signed(&copy)?, [says, Says::InOrder], None)
}

/// An approver approves what the same person asked for.
///
/// # Errors
///
/// None: a source seals whatever it records.
pub fn approve_ones_own_request(crime: &mut Crime) -> anyhow::Result<Attack> {
    let mut approver = approver(crime)?;
    ask(crime, PERSON)?;
    let mut copy = crime.honest.clone();
    let decision = approver.event(approve(REQUEST, 0));
    let index = append(&mut copy, &approver, vec![decision])?;
    let says = Says::Finding("SELF_APPROVED", index);
    Attack::new(crime, signed(&copy)?, [says, Says::InOrder], None)
}

/// One party changes the policy.
///
/// # Errors
///
/// None: a party seals whatever it records.
pub fn change_the_policy_with_one_signature(crime: &mut Crime) -> anyhow::Result<Attack> {
    changed(crime, |change, _| change.approvals.clear())
}

/// One party changes the policy, with a signature in the name of the other.
///
/// # Errors
///
/// None: a party seals whatever it records.
pub fn change_the_policy_with_a_forged_signature(crime: &mut Crime) -> anyhow::Result<Attack> {
    changed(crime, |change, custodian| {
        change.approvals.clear();
        let message = control_message(ORIGIN, change);
        if let Ok(mut forger) = own_key(custodian.name())
            .and_then(|key| Source::with_key(key, custodian.ledger()))
            .map(|forger| approval(&forger, &message))
        {
            forger.key_id = Bytes::copy_from_slice(&custodian.key().verifier().id().0);
            change.approvals.push(forger);
        }
    })
}

fn changed(
    crime: &mut Crime,
    tamper: impl FnOnce(&mut wire::ControlChange, &Source),
) -> anyhow::Result<Attack> {
    let mut copy = crime.honest.clone();
    let policy = "permit (principal, action, resource);";
    let governance = &mut crime.governance;
    let mut change = governance.change(ControlKind::Policy, "", 2, policy);
    tamper(&mut change, &governance.custodian);
    let event = governance.company.event(Body::ControlChange(change));
    let index = append(&mut copy, &governance.company, vec![event])?;
    let says = Says::Finding("CONTROL_CHANGED_ALONE", index);
    Attack::new(crime, signed(&copy)?, [says, Says::InOrder], None)
}

/// Both parties register an approver, whose key [`PERSON`] holds, in the honest log.
fn approver(crime: &mut Crime) -> anyhow::Result<Source> {
    let approver = Source::new("security/ann", 5, &crime.vkey)?;
    let roles = [SourceRole::Approve];
    let claim = EnrolmentClaim {
        source: Name::parse(approver.name().as_bytes())?,
        public_key: approver.key().verifier().public_key(),
        roles: Roles::from_iter(roles),
        heartbeat_nanos: 0,
    };
    let message = registration_message(ORIGIN, &claim, PERSON);
    let mut status = approver.registration(&roles);
    PERSON.clone_into(&mut status.principal);
    status.approvals.push(approval(&crime.governance.custodian, &message));
    let company = &mut crime.governance.company;
    let event = company.event(Body::SourceStatus(status));
    append(&mut crime.honest, company, vec![event])?;
    Ok(approver)
}

/// Somebody asks for access in the honest log.
fn ask(crime: &mut Crime, person: &str) -> anyhow::Result<()> {
    let [_, support] = &mut crime.sources;
    let event = wire::Event {
        actor: Some(wire::Principal { id: person.to_owned(), ..Default::default() }),
        body: Some(request(REQUEST, "accounts.profile")),
        ..Default::default()
    };
    let event = wire::Event {
        event_id: Bytes::from_static(&[4; 16]),
        occurred_at: Some(prost_types::Timestamp { seconds: 1_760_000_000, nanos: 0 }),
        ..event
    };
    append(&mut crime.honest, support, vec![event.encode_to_vec().into()])?;
    Ok(())
}

/// Who holds the approver's key.
const PERSON: &str = "p-sec-1";

const REQUEST: &str = "req-1";
