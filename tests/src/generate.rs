//! A seeded company at work: a [`Story`] of any length, nearly all of it in order, with every
//! offence of [`OFFENCES`] in it now and then.
//!
//! A few people abroad and many at home read data under grants that are asked for, approved, run
//! out and are taken back; services announce what they are about to do and get verdicts; some
//! things go wrong. The same seed tells the same story.

use access_ledger_proto::{
    position::Index,
    wire::{
        self, Access, Action, Attestation, AuthorizationDecision, Boundary, Event, Finding,
        GrantChange, GrantState, Holding, LedgerRead, Outcome, Principal, Purpose, event::Body,
    },
};
use anyhow::Context as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    offences::OFFENCES,
    story::{
        APPROVERS, GATEWAY, HOME, LEDGER, RECORDER, SECOND, SITES, Story,
        parts::{self, data, reference},
    },
};

/// Tells a story of at least so many entries; nobody tells more than a hundred beyond.
///
/// # Errors
///
/// None: all names are good.
pub fn generate(seed: u64, entries: usize) -> anyhow::Result<Story> {
    let mut company = Company::found(seed)?;
    while company.story.lines().len() < entries {
        company.work()?;
    }
    Ok(company.story)
}

struct Company {
    story: Story,
    random: ChaCha8Rng,
    staff: Vec<Principal>,
    /// Newest last.
    grants: Vec<Grant>,
    /// What was committed last, as a finding's id.
    suspicion: String,
}

/// A grant that was in force once.
#[derive(Clone)]
struct Grant {
    id: String,
    person: Principal,
    dataset: String,
}

impl Company {
    fn found(seed: u64) -> anyhow::Result<Self> {
        let mut story = Story::open()?;
        for number in 0..DATASETS {
            story.classify(&dataset(number), Boundary::Protected)?;
        }
        let staff = (0..STAFF).map(member).collect();
        let random = ChaCha8Rng::seed_from_u64(seed);
        Ok(Self { story, random, staff, grants: Vec::new(), suspicion: String::new() })
    }

    /// One thing that happens in a day's work.
    fn work(&mut self) -> anyhow::Result<()> {
        let pause = self.random.random_range(SECOND / 10..20 * SECOND);
        self.story.wait(pause);
        match self.random.random_range(0..1_000) {
            0..640 => self.read_under_grant(),
            640..820 => self.read_public(),
            820..870 => self.ask(),
            870..900 => self.announce(),
            900..910 => self.change_grant(),
            910..980 => self.keep_books(),
            980..985 => self.handle(),
            _ => self.stray(),
        }
    }

    fn ask(&mut self) -> anyhow::Result<()> {
        let person = self.any_person()?;
        let dataset = dataset(self.random.random_range(0..DATASETS));
        let id = self.story.fresh("q-");
        let mut request = parts::request(&id);
        let scope = request.scope.get_or_insert_default();
        scope.actors = vec![person.id.clone()];
        scope.datasets = vec![dataset.clone()];
        let (actor, body) = (Some(person.clone()), Some(Body::AccessRequest(request)));
        self.story.record(GATEWAY, Event { actor, body, ..Default::default() })?;
        // Some wait long, and some for ever.
        for by in 0..APPROVERS.len() {
            self.story.wait(self.random.random_range(SECOND..300 * SECOND));
            if self.random.random_bool(0.6) {
                self.story.approve(&id, by, |_| {})?;
                self.grants.push(Grant {
                    id: id.clone(),
                    person: person.clone(),
                    dataset: dataset.clone(),
                });
            }
        }
        Ok(())
    }

    fn read_under_grant(&mut self) -> anyhow::Result<()> {
        let Some(Grant { id, person, dataset }) = self.any_grant() else { return self.ask() };
        let records = self.random.random_range(1..40);
        let action = if self.random.random_bool(0.5) { Action::Read } else { Action::Query };
        self.access(person, |access| {
            access.grant_id = id;
            access.action = action.into();
            access.data = vec![wire::Data { records, ..data(&dataset) }];
            access.records = records;
        })
    }

    fn read_public(&mut self) -> anyhow::Result<()> {
        let person = self.any_person()?;
        let records = self.random.random_range(1..5_000);
        let outcome = if self.random.random_bool(0.05) { Outcome::Error } else { Outcome::Allowed };
        self.access(person, |access| {
            access.grant_id.clear();
            access.data = vec![wire::Data { records, ..data(crate::story::PUBLIC) }];
            access.purpose = Purpose::ContentModeration.into();
            access.outcome = outcome.into();
        })
    }

    fn access(&mut self, actor: Principal, edit: impl FnOnce(&mut Access)) -> anyhow::Result<()> {
        self.story.access(|event, access| {
            event.actor = Some(actor);
            edit(access);
        })?;
        Ok(())
    }

    /// An intent, its verdict, and what came of it.
    fn announce(&mut self) -> anyhow::Result<()> {
        let Some(Grant { id, person, dataset }) = self.any_grant() else { return self.ask() };
        let intend = |access: &mut Access| {
            access.grant_id.clone_from(&id);
            access.data = vec![data(&dataset)];
        };
        let intent = self.story.next_index();
        self.access(person.clone(), |access| {
            intend(access);
            access.outcome = Outcome::Requested.into();
        })?;
        // The grant may have run out: then the verdict is wrong, and found.
        self.story.verdict(LEDGER, intent, AuthorizationDecision::Allow)?;
        self.story.wait(SECOND);
        self.access(person, |access| {
            intend(access);
            access.intent = Some(reference(intent));
        })
    }

    fn change_grant(&mut self) -> anyhow::Result<()> {
        let Some(grant) = self.any_grant() else { return self.ask() };
        let states =
            [GrantState::Suspended, GrantState::Active, GrantState::Revoked, GrantState::Ended];
        let state = states.get(self.random.random_range(0..states.len())).context("in range")?;
        let change = GrantChange {
            grant_id: grant.id,
            state: (*state).into(),
            reason: "no longer needed".to_owned(),
            ..Default::default()
        };
        self.story.tell(APPROVERS[0].0, Body::GrantChange(change))?;
        Ok(())
    }

    fn keep_books(&mut self) -> anyhow::Result<()> {
        let records = self.random.random_range(1_000..1_000_000);
        let body = match self.random.random_range(0..3) {
            0 => Body::Holding(Holding {
                dataset: dataset(self.random.random_range(0..DATASETS)),
                site: SITES[0].0.to_owned(),
                country: HOME.to_owned(),
                records,
                ..Default::default()
            }),
            1 => Body::Attestation(Attestation {
                kind: wire::AttestationKind::NilReturn.into(),
                statement: "no request received in the period".to_owned(),
                country: "SG".to_owned(),
                ..Default::default()
            }),
            _ => Body::LedgerRead(LedgerRead {
                reader: "auditor-1".to_owned(),
                query: "report cross-region".to_owned(),
                rows: records,
                ..Default::default()
            }),
        };
        self.story.tell(RECORDER, body)?;
        Ok(())
    }

    /// Somebody looks into what was found last.
    fn handle(&mut self) -> anyhow::Result<()> {
        let finding_id = self.suspicion.clone();
        if finding_id.is_empty() {
            return self.stray();
        }
        let state = wire::FindingState::Acknowledged.into();
        let note = "asked the person's lead".to_owned();
        self.story.tell(APPROVERS[0].0, Body::Finding(Finding { finding_id, state, note }))?;
        Ok(())
    }

    /// An offence, or its innocent twin.
    fn stray(&mut self) -> anyhow::Result<()> {
        let which = self.random.random_range(0..OFFENCES.len());
        let offence = OFFENCES.get(which).context("in range")?;
        if self.random.random_bool(0.5) {
            let Index(index) = self.story.next_index();
            self.suspicion = format!("{}-{index}", offence.rule);
            (offence.commit)(&mut self.story)
        } else {
            (offence.twin)(&mut self.story)
        }
    }

    fn any_person(&mut self) -> anyhow::Result<Principal> {
        let which = self.random.random_range(0..self.staff.len());
        self.staff.get(which).cloned().context("in range")
    }

    /// One of the newest grants, most of which are in force.
    fn any_grant(&mut self) -> Option<Grant> {
        let newest = self.grants.len().saturating_sub(GRANTS_IN_USE);
        let in_use = self.grants.get(newest..).filter(|grants| !grants.is_empty())?;
        in_use.get(self.random.random_range(0..in_use.len())).cloned()
    }
}

/// One in five works abroad.
fn member(number: usize) -> Principal {
    let mut person = Principal { id: format!("p-{}", 1_000 + number), ..parts::person() };
    if number.is_multiple_of(5) {
        person.entity = "example-sg".to_owned();
        for country in
            [&mut person.entity_country, &mut person.office_country, &mut person.physical_country]
        {
            *country = "SG".to_owned();
        }
    }
    person
}

fn dataset(number: usize) -> String {
    format!("users.table-{number}")
}

const STAFF: usize = 150;

const DATASETS: usize = 40;

/// Grants that people go on using.
const GRANTS_IN_USE: usize = 60;
