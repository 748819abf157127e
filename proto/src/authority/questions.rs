//! What the policy is asked about an access or a transfer: one question for each of its data.

use crate::{
    facts::{
        Noted,
        assess::{
            Assessed, BreakGlassStatus, Country, DataFacts, DestinationStatus, GrantStatus,
            IntentStatus, LegalStatus, ToolStatus,
        },
    },
    policy::{Act, Destination, GrantStanding, IntentStanding, Magnitude, Question},
    wire::{
        self, Action, Boundary, LocationEvidence, Outcome, PrincipalKind, Purpose, RecipientKind,
        Sensitivity, TransferMode, event::Body as EventBody,
    },
};

/// One question for each dataset, and one where no dataset is named: what is not said must not go
/// unjudged. `None` for what holds a value that this version does not know, which nothing permits.
pub(super) fn of<'a>(
    noted: &Noted<'a>,
    assessed: &'a Assessed,
) -> impl Iterator<Item = Option<Question<'a>>> {
    let (asked, data): (_, &[wire::Data]) = match &noted.event.body {
        Some(EventBody::Access(access)) => (of_access(noted, access, assessed), &access.data),
        Some(EventBody::Transfer(transfer)) => {
            (of_transfer(noted, transfer, assessed), &transfer.data)
        }
        _ => (None, &[]),
    };
    let unnamed = data.is_empty().then_some(asked);
    let pairs = data.iter().zip(&assessed.data);
    unnamed.into_iter().chain(pairs.map(move |(data, facts)| about(asked?, data, facts)))
}

fn of_access<'a>(
    noted: &Noted<'a>,
    access: &'a wire::Access,
    assessed: &Assessed,
) -> Option<Question<'a>> {
    let intent = match assessed.intent {
        IntentStatus::None if access.outcome() == Outcome::Requested => IntentStanding::Asks,
        IntentStatus::None => IntentStanding::None,
        IntentStatus::Allowed => IntentStanding::Allowed,
        IntentStatus::Beyond(_) => IntentStanding::Beyond,
    };
    // An access that does not say who it was is a person's.
    let who = of_actor(noted, assessed, PrincipalKind::Human)?;
    Some(Question {
        act: Act::Access(Action::try_from(access.action).ok()?),
        purpose: Purpose::try_from(access.purpose).ok()?,
        break_glass: assessed.break_glass == BreakGlassStatus::InForce,
        intent,
        records: Magnitude::of(protected_records(access.records, &access.data, assessed)),
        ..with_destination(who, access.destination.as_ref(), assessed)
    })
}

fn of_transfer<'a>(
    noted: &Noted<'a>,
    transfer: &'a wire::Transfer,
    assessed: &Assessed,
) -> Option<Question<'a>> {
    let mode = TransferMode::try_from(transfer.mode).ok()?;
    // Backups and the like run by themselves.
    let who = of_actor(noted, assessed, PrincipalKind::Service)?;
    let asked = Question {
        act: Act::Transfer(mode),
        purpose: Purpose::try_from(transfer.purpose).ok()?,
        recipient: RecipientKind::try_from(transfer.recipient_kind).ok()?,
        records: Magnitude::of(protected_records(0, &transfer.data, assessed)),
        ..who
    };
    // What is only shown elsewhere goes nowhere; what is moved goes somewhere, told or not.
    if matches!(mode, TransferMode::RemoteAccess | TransferMode::OnScreen) {
        return Some(asked);
    }
    let moved = with_destination(asked, transfer.to.as_ref(), assessed);
    Some(match moved.destination {
        Destination::None => Question { destination: Destination::Outside, ..moved },
        _ => moved,
    })
}

/// Who acts, with what, on whose approval; the rest as of a place-less access to unknown data.
/// `nobody` stands for a kind of principal that is not told.
fn of_actor<'a>(
    noted: &Noted<'a>,
    assessed: &Assessed,
    nobody: PrincipalKind,
) -> Option<Question<'a>> {
    let actor = noted.event.actor.as_ref();
    let kind = actor.map_or(Some(nobody), |actor| match PrincipalKind::try_from(actor.kind) {
        Ok(PrincipalKind::Unspecified) => Some(PrincipalKind::Human),
        known => known.ok(),
    })?;
    let evidence = actor.map_or(0, |actor| actor.location_evidence);
    let country =
        |of: fn(&wire::Principal) -> &str| actor.map(of).map_or(Country::NONE, Country::of);
    let text = |of: fn(&wire::Principal) -> &str| actor.map_or("", of);
    Some(Question {
        act: Act::Access(Action::Unspecified),
        kind,
        privileged: actor.is_some_and(|actor| actor.privileged),
        employer: text(|actor| &actor.entity),
        employer_country: country(|actor| &actor.entity_country),
        office_country: country(|actor| &actor.office_country),
        physical_country: country(|actor| &actor.physical_country),
        location_evidence: LocationEvidence::try_from(evidence).ok()?,
        roles: actor.map_or(&[], |actor| &actor.roles),
        dataset: "",
        registered: false,
        boundary: Boundary::Protected,
        sensitivity: Sensitivity::Unspecified,
        categories: Default::default(),
        jurisdiction: Country::NONE,
        region: "",
        purpose: Purpose::Unspecified,
        grant: match assessed.grant.status {
            GrantStatus::None => GrantStanding::None,
            GrantStatus::Valid => GrantStanding::Valid,
            _ => GrantStanding::Invalid,
        },
        approvals: u8::try_from(assessed.grant.approvals).unwrap_or(u8::MAX),
        grant_names_dataset: false,
        break_glass: false,
        legal_request_open: assessed.legal == LegalStatus::Open,
        tool: noted.event.tool.as_ref().map_or("", |tool| &tool.id),
        tool_approved: assessed.tool == ToolStatus::Approved,
        intent: IntentStanding::None,
        destination: Destination::None,
        destination_site: "",
        destination_country: Country::NONE,
        recipient: RecipientKind::Unspecified,
        records: Magnitude::default(),
    })
}

fn with_destination<'a>(
    asked: Question<'a>,
    place: Option<&'a wire::Place>,
    assessed: &Assessed,
) -> Question<'a> {
    Question {
        destination: match assessed.destination {
            DestinationStatus::None => Destination::None,
            DestinationStatus::InCustody => Destination::InCustody,
            DestinationStatus::Unregistered | DestinationStatus::OutsideCustody => {
                Destination::Outside
            }
        },
        destination_site: place.map_or("", |place| &place.site),
        destination_country: place.map_or(Country::NONE, |place| Country::of(&place.country)),
        ..asked
    }
}

fn about<'a>(asked: Question<'a>, data: &'a wire::Data, facts: &DataFacts) -> Option<Question<'a>> {
    // What is registered counts, but what is claimed must make sense.
    Boundary::try_from(data.boundary).ok()?;
    Sensitivity::try_from(data.sensitivity).ok()?;
    Some(Question {
        dataset: &data.dataset,
        registered: facts.registered,
        boundary: closed(facts.boundary),
        sensitivity: facts.sensitivity,
        categories: facts.categories,
        jurisdiction: facts.jurisdiction,
        region: &data.region,
        grant_names_dataset: facts.named_by_grant,
        ..asked
    })
}

/// What nobody classified is protected.
fn closed(boundary: Boundary) -> Boundary {
    if boundary == Boundary::Unspecified { Boundary::Protected } else { boundary }
}

/// How many protected records an access touched. What is told in all, `total`, counts where it may
/// be about protected data alone: all data are protected, or one that is says no number of its own.
fn protected_records(total: u64, data: &[wire::Data], assessed: &Assessed) -> u64 {
    let is_protected = |facts: &DataFacts| closed(facts.boundary) == Boundary::Protected;
    let pairs = || data.iter().zip(&assessed.data);
    let protected = || pairs().filter(|(_, facts)| is_protected(facts)).map(|(data, _)| data);
    let told = protected().fold(0_u64, |sum, data| sum.saturating_add(data.records));
    let whole =
        pairs().all(|(_, facts)| is_protected(facts)) || protected().any(|data| data.records == 0);
    if whole { told.max(total) } else { told }
}
