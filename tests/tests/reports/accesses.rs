//! Reports on accesses: cross-region, unapproved, privileged, flows, subject.

use access_ledger_client::reports::{Options, Report};
use access_ledger_proto::wire::{self, Action, Outcome, Place, Transfer, event::Body};
use access_ledger_tests::story::{
    DATASET, DAY, GATEWAY, PUBLIC, RECORDER, Story,
    parts::{self, data, person},
};
use bytes::Bytes;

use super::{days, options, rows, rows_of};

/// Somebody at an office abroad.
fn colleague(id: &str, place: &str, evidence: wire::LocationEvidence) -> wire::Principal {
    wire::Principal {
        id: id.to_owned(),
        entity: "example-sg".to_owned(),
        entity_country: "SG".to_owned(),
        office_country: "SG".to_owned(),
        physical_country: place.to_owned(),
        location_evidence: evidence.into(),
        ..person()
    }
}

/// A grant for somebody else.
fn grant(story: &mut Story, id: &str, actor: &str) -> anyhow::Result<()> {
    story.request(id, |request| {
        let scope = request.scope.get_or_insert_default();
        scope.actors = vec![actor.to_owned()];
    })?;
    story.approve(id, 0, |_| {})?;
    Ok(())
}

#[test]
fn cross_region_counts_who_is_not_known_to_be_at_home() -> anyhow::Result<()> {
    use wire::LocationEvidence::{Gateway, SelfDeclared};
    let mut story = Story::open()?;
    grant(&mut story, "g-sg", "p-2")?;
    let read = |story: &mut Story, actor: wire::Principal, records, outcome: Outcome| {
        story.access(|event, access| {
            access.grant_id = if actor.id == "p-2" { "g-sg" } else { "" }.to_owned();
            event.actor = Some(actor);
            access.records = records;
            access.bytes = records * 100;
            access.outcome = outcome.into();
        })
    };
    // The day before: four accesses, which the change is measured by.
    for _ in 0..4 {
        read(&mut story, colleague("p-2", "SG", Gateway), 1, Outcome::Allowed)?;
    }
    story.wait(DAY);
    // At home: not counted.
    read(&mut story, person(), 9, Outcome::Allowed)?;
    read(&mut story, colleague("p-2", "SG", Gateway), 5, Outcome::Allowed)?;
    read(&mut story, colleague("p-3", "SG", SelfDeclared), 7, Outcome::Denied)?;
    // At home, but of an office abroad; the place is nobody's word.
    read(&mut story, colleague("p-4", "IE", SelfDeclared), 3, Outcome::Allowed)?;
    // An intent that no grant covers is a denial; the access that was denied with it is the same.
    let intent = read(&mut story, colleague("p-3", "SG", Gateway), 7, Outcome::Requested)?;
    story.verdict("ledger", intent, wire::AuthorizationDecision::Deny)?;
    story.access(|event, access| {
        event.actor = Some(colleague("p-3", "SG", Gateway));
        access.outcome = Outcome::Denied.into();
        access.intent = Some(parts::reference(intent));
    })?;
    assert_eq!(
        rows_of(&story, Report::CrossRegion, &options(days(1, 2)?))?,
        [
            "2026-03-03/2026-03-03 | IE | ie-1 | SG | IE | example-sg | 1 | 1 | 3 | 300 | 0.0 | 0.0 |  | 100.0",
            "2026-03-03/2026-03-03 | IE | ie-1 | SG | SG | example-sg | 3 | 2 | 5 | 500 | 33.3 | 66.7 | -25.0 | 33.3",
        ]
    );
    Ok(())
}

#[test]
fn an_access_to_several_datasets_counts_once_a_row() -> anyhow::Result<()> {
    let mut story = Story::open()?;
    story.access(|event, access| {
        event.actor = Some(colleague("p-2", "SG", wire::LocationEvidence::Gateway));
        let elsewhere = wire::Data { region: "de-1".to_owned(), ..data(DATASET) };
        access.data = vec![data(DATASET), data(PUBLIC), elsewhere];
        // Three of them say one record each; seven are left for the first.
        access.records = 10;
    })?;
    assert_eq!(
        rows(&story, Report::CrossRegion, 1)?,
        [
            "2026-03-02/2026-03-02 | IE | de-1 | SG | SG | example-sg | 1 | 1 | 1 | 0 | 0.0 | 0.0 |  | 0.0",
            "2026-03-02/2026-03-02 | IE | ie-1 | SG | SG | example-sg | 1 | 1 | 9 | 0 | 0.0 | 0.0 |  | 0.0",
        ]
    );
    Ok(())
}

#[test]
fn unapproved_tells_what_no_approval_covered_and_what_became_of_it() -> anyhow::Result<()> {
    let mut story = Story::open()?;
    let without = story.access(|_, access| access.grant_id.clear())?;
    story.access(|_, access| access.grant_id = "g-none".to_owned())?;
    // In order; denied; and against another rule.
    story.access(|_, _| {})?;
    story.access(|_, access| {
        access.grant_id.clear();
        access.outcome = Outcome::Denied.into();
    })?;
    story.access(|event, _| event.tool = None)?;
    let finding_id = format!("NO_GRANT-{without}");
    let state = wire::FindingState::Explained.into();
    let handled = wire::Finding { finding_id, state, note: "drill".to_owned() };
    story.tell("security/ana", Body::Finding(handled))?;
    let first = without.0;
    let second = first + 1;
    assert_eq!(
        rows(&story, Report::Unapproved, 1)?,
        [
            format!(
                "{first} | 2026-03-02T08:00:00Z | p-1 | example-ie | IE | console | users.profile | READ | 1 | NO_GRANT | EXPLAINED"
            ),
            format!(
                "{second} | 2026-03-02T08:00:00Z | p-1 | example-ie | IE | console | users.profile | READ | 1 | GRANT_UNKNOWN | OPEN"
            ),
        ]
    );
    Ok(())
}

#[test]
fn privileged_tells_what_an_account_reached() -> anyhow::Result<()> {
    let mut story = Story::open()?;
    let reach = |story: &mut Story, dataset: &str, outcome: Outcome| {
        story.wait(DAY / 24);
        story.access(|event, access| {
            event.actor = Some(wire::Principal {
                id: "root".to_owned(),
                privileged: true,
                roles: vec!["operator".to_owned(), "dba".to_owned()],
                ..person()
            });
            access.data = vec![data(dataset)];
            access.outcome = outcome.into();
            access.grant_id.clear();
        })
    };
    reach(&mut story, DATASET, Outcome::Allowed)?;
    reach(&mut story, PUBLIC, Outcome::Allowed)?;
    reach(&mut story, "secrets", Outcome::Denied)?;
    story.access(|_, _| {})?;
    assert_eq!(
        rows(&story, Report::Privileged, 1)?,
        [
            "root | dba, operator | posts.public, users.profile | PROTECTED, PUBLIC | console | 3 | 2 | 0.0 | 2026-03-02T11:00:00Z"
        ]
    );
    Ok(())
}

#[test]
fn flows_show_the_tool_through_which_data_leaves() -> anyhow::Result<()> {
    let mut story = Story::open()?;
    story.access(|_, _| {})?;
    for person_id in ["p-5", "p-6"] {
        story.wait(DAY);
        story.access(|event, access| {
            event.actor = Some(wire::Principal { id: person_id.to_owned(), ..person() });
            event.tool = Some(wire::Tool {
                id: "moderation".to_owned(),
                version: "2.1".to_owned(),
                build_digest: Bytes::from(vec![9; 32]),
                owner_entity: "example-sg".to_owned(),
                gateway: String::new(),
            });
            access.action = Action::Export.into();
            access.purpose = wire::Purpose::ContentModeration.into();
            access.records = 500;
            let (site, country) = ("sg-1".to_owned(), "SG".to_owned());
            access.destination = Some(Place { site, country, entity: String::new() });
        })?;
    }
    let transfer = Transfer {
        from: Some(Place { site: "ie-1".to_owned(), ..Place::default() }),
        to: Some(Place { country: "SG".to_owned(), ..Place::default() }),
        mode: wire::TransferMode::Backup.into(),
        data: vec![wire::Data { categories: Vec::new(), records: 40, ..data(DATASET) }],
        ..Transfer::default()
    };
    story.tell(RECORDER, Body::Transfer(transfer))?;
    assert_eq!(
        rows(&story, Report::Flows, 9)?,
        [
            " |  |  |  | users.profile | ie-1 | SG | CONTACT |  | 1 | 40 | 0 | 2026-03-04T08:00:00Z | 2026-03-04T08:00:00Z",
            "console |  | yes |  | users.profile | ie-1 | IE | CONTACT | CUSTOMER_SUPPORT | 1 | 1 | 1 | 2026-03-02T08:00:00Z | 2026-03-02T08:00:00Z",
            "moderation | 2.1 | unregistered | example-sg | users.profile | ie-1 | sg-1 | CONTACT | CONTENT_MODERATION | 2 | 1000 | 2 | 2026-03-03T08:00:00Z | 2026-03-04T08:00:00Z",
        ]
    );
    Ok(())
}

#[test]
fn subject_tells_one_person_and_names_staff_only_when_asked() -> anyhow::Result<()> {
    let token = vec![7; 16];
    let mut story = Story::open()?;
    let concerned = || {
        let subject_tokens = vec![Bytes::from(token.clone())];
        wire::Data { subject_tokens, ..data(DATASET) }
    };
    story.access(|_, access| access.data = vec![concerned(), data(PUBLIC)])?;
    story.access(|_, access| {
        access.data = vec![concerned()];
        access.outcome = Outcome::Denied.into();
    })?;
    story.access(|_, _| {})?;
    let place = |country: &str, entity: &str| {
        let (country, entity) = (country.to_owned(), entity.to_owned());
        Some(Place { site: String::new(), country, entity })
    };
    let transfer = Transfer {
        from: place("IE", "example-ie"),
        to: place("US", "District Court"),
        mode: wire::TransferMode::Api.into(),
        recipient_kind: wire::RecipientKind::Authority.into(),
        legal_basis: "court order".to_owned(),
        legal_request_id: "lr-1".to_owned(),
        purpose: wire::Purpose::LegalRequest.into(),
        data: vec![concerned()],
        ..Transfer::default()
    };
    let body = Some(Body::Transfer(transfer));
    let event = wire::Event { actor: Some(person()), body, ..wire::Event::default() };
    story.record(GATEWAY, event)?;
    let options = Options { subject: Some(token.clone()), ..options(days(0, 1)?) };
    assert_eq!(
        rows_of(&story, Report::Subject, &options)?,
        [
            "2026-03-02T08:00:00Z | CUSTOMER_SUPPORT | CONTACT | READ | STAFF | IE | grant g-1 | example-ie",
            "2026-03-02T08:00:00Z | LEGAL_REQUEST | CONTACT | API | AUTHORITY | US | court order, legal request lr-1 | District Court",
        ]
    );
    let named = rows_of(&story, Report::Subject, &Options { with_staff: true, ..options })?;
    assert!(named[0].ends_with("| example-ie (by p-1)"), "{}", named[0]);
    assert!(named[1].ends_with("| District Court (by p-1)"), "{}", named[1]);
    Ok(())
}
