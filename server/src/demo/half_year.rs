//! Half a year of a company, as its services record it: seeded, so that it can be told again byte
//! for byte.
//!
//! Staff at home and in offices abroad, and machines, reach the data of users at home with the
//! tools of their desks. Whoever does needs a grant, which the home security team decides on. Into
//! these everyday accesses a story is woven that an auditor should find ([`story`], [`custody`],
//! [`legal`]). Nothing here reads a clock or draws randomness from elsewhere: seed and count decide
//! everything.

mod access;
mod approvals;
mod company;
mod custody;
mod datasets;
mod draw;
mod legal;
mod sized;
mod story;

use std::collections::BTreeMap;

use access_ledger_proto::wire::{
    ControlChange, Event, LocationEvidence, Principal, PrincipalKind, Tool, event::Body,
};
use prost_types::Timestamp;
use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use self::{
    approvals::{Approvals, Need},
    company::{Desk, HOME, Office, ToolLine},
    draw::{pick, random_bytes, row, weighted},
};
pub use self::{
    company::{APPROVERS, SOURCES},
    sized::{ACCESS_LEN, ACCESS_LEN_MAX, ACCESS_LEN_MIN, access_of_len},
};

/// How many everyday accesses the half-year has unless told otherwise.
pub const ACCESSES: u64 = 20_000;

/// When it begins: 2025-07-01, 00:00 UTC, in nanoseconds since the Unix epoch.
pub const START: u64 = 1_751_328_000 * SECOND_NANOS;

/// How many days it has: to the end of 2025-12-31.
pub const DAYS: u64 = 184;

/// One day: 24 hours from midnight UTC on.
#[derive(Debug)]
pub struct Day {
    /// The first is 0.
    pub number: u64,
    /// What happens, in the order of the times.
    pub happenings: Vec<Happening>,
}

/// Something that goes into the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    /// When: nanoseconds since the Unix epoch, within its day.
    pub time: u64,
    /// It rests on what came before it, which must be in the ledger first.
    pub rests: bool,
    /// What.
    pub what: What,
}

/// What goes into the ledger.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A valid event, which this source records: one of [`SOURCES`] or [`APPROVERS`].
    Event(&'static str, Box<Event>),
    /// A rule that governance changes, for both parties to sign.
    Rule(ControlChange),
}

/// The days of the half-year.
#[derive(Debug)]
pub struct HalfYear {
    /// Draws who there is, who asks for what, and the story: the same with any number of accesses.
    rng: ChaCha8Rng,
    /// Draws the everyday accesses.
    everyday: ChaCha8Rng,
    sites: Vec<Site>,
    approvals: Approvals,
    /// Weight of each day.
    weights: Vec<u64>,
    /// Everyday accesses, of all days.
    count: u64,
    /// Everyday accesses of the days before.
    made: u64,
    next: u64,
    /// What a day before has arranged, by day.
    arranged: Arranged,
}

/// What is to happen, by the number of its day.
type Arranged = BTreeMap<u64, Vec<Happening>>;

/// An office and the people in it.
#[derive(Debug)]
struct Site {
    office: &'static Office,
    people: Vec<Person>,
}

/// Somebody, or a machine.
#[derive(Debug)]
struct Person {
    desk: &'static Desk,
    principal: Principal,
    /// What the person's grants are asked for: a place in [`Approvals`].
    need: usize,
}

impl HalfYear {
    /// A half-year with exactly `count` everyday accesses beside those of its story.
    #[must_use]
    pub fn new(seed: u64, count: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut everyday = rng.clone();
        everyday.set_stream(1);
        let mut approvals = Approvals::default();
        let sites: Vec<_> = company::OFFICES
            .iter()
            .map(|office| Site::staffed(&mut rng, office, &mut approvals))
            .collect();
        // On the first day the rules are made and the first grants asked for.
        let weight = |day| if day == 0 { 0 } else { hours(day).into_iter().sum() };
        let weights = (0..DAYS).map(weight).collect();
        let mut arranged = Arranged::new();
        legal::arrange(&mut rng, &mut arranged);
        custody::arrange(&mut rng, &mut arranged);
        story::arrange(&mut rng, &sites, &mut arranged);
        let (made, next) = (0, 0);
        Self { rng, everyday, sites, approvals, weights, count, made, next, arranged }
    }

    /// How many everyday accesses have happened when a day is over.
    fn due(&self, day: u64) -> u64 {
        let sum = |weights: &[u64]| weights.iter().copied().map(u128::from).sum::<u128>();
        let days = usize::try_from(day + 1).unwrap_or(usize::MAX);
        let over = sum(self.weights.get(..days).unwrap_or(&self.weights));
        let due = u128::from(self.count) * over / sum(&self.weights).max(1);
        u64::try_from(due).unwrap_or(self.count)
    }

    /// The everyday accesses of a day.
    fn work(&mut self, day: u64, happenings: &mut Vec<Happening>) {
        let due = self.due(day);
        let by_hour: Vec<_> = (0_u64..).zip(hours(day)).collect();
        for _ in self.made..due {
            let hour = weighted(&mut self.everyday, &by_hour, |(_, weight)| *weight).0;
            let time = at(day, hour, 0) + self.everyday.random_range(0..HOUR_NANOS);
            let site =
                weighted(&mut self.everyday, &self.sites, |site| busy(site.office, day, hour));
            let person = pick(&mut self.everyday, &site.people);
            let grant = self.approvals.grant(person.need, day);
            access::push(&mut self.everyday, site.office, person, grant, time, happenings);
        }
        self.made = due;
    }
}

impl Iterator for HalfYear {
    type Item = Day;

    fn next(&mut self) -> Option<Day> {
        let number = self.next;
        if number == DAYS {
            return None;
        }
        self.next += 1;
        let mut happenings = Vec::new();
        if number == 0 {
            let rules = datasets::registrations();
            happenings.extend(rules.map(|rule| Happening::new(at(0, 8, 0), What::Rule(rule))));
        }
        self.approvals.ask(&mut self.rng, number, &mut self.arranged);
        self.work(number, &mut happenings);
        story::act(&mut self.rng, &self.sites, &mut self.approvals, number, &mut happenings);
        happenings.extend(self.arranged.remove(&number).unwrap_or_default());
        // Stable: what was told first of one moment stays first.
        happenings.sort_by_key(|happening| happening.time);
        Some(Day { number, happenings })
    }
}

impl Happening {
    fn new(time: u64, what: What) -> Self {
        Self { time, rests: false, what }
    }

    /// Rests on what came before it.
    fn resting(self) -> Self {
        Self { rests: true, ..self }
    }
}

impl Site {
    fn staffed(rng: &mut impl Rng, office: &'static Office, approvals: &mut Approvals) -> Self {
        let mut people = Vec::new();
        for &(count, desk) in office.desks {
            let team: Vec<_> = (0..count).map(|_| principal(rng, office, desk)).collect();
            // At home a desk works under a standing grant; abroad everybody asks for their own.
            let mut shared = None;
            for principal in &team {
                let need = if office.country == HOME {
                    *shared
                        .get_or_insert_with(|| approvals.add(Need::standing(office, desk, &team)))
                } else {
                    approvals.add(Need::personal(rng, office, desk, principal))
                };
                people.push(Person { desk, principal: principal.clone(), need });
            }
        }
        Self { office, people }
    }
}

/// Somebody who works at a desk.
fn principal(rng: &mut impl Rng, office: &Office, desk: &Desk) -> Principal {
    let human = desk.kind == PrincipalKind::Human;
    let letter = if human { 'p' } else { 's' };
    let evidence =
        if human { *row(rng, company::AT_THE_OFFICE) } else { LocationEvidence::Gateway };
    Principal {
        id: format!("{letter}-{:08x}", rng.random::<u32>()),
        kind: desk.kind.into(),
        entity: office.entity.to_owned(),
        entity_country: office.entity_country.to_owned(),
        office_country: office.country.to_owned(),
        physical_country: office.country.to_owned(),
        location_evidence: evidence.into(),
        roles: vec![desk.role.to_owned()],
        privileged: desk.privileged,
        session_id: format!("{:08x}", rng.random::<u32>()),
    }
}

/// A tool in one of the versions that are in use.
fn tool(rng: &mut impl Rng, line: &ToolLine) -> Tool {
    let version = *row(rng, line.versions);
    tool_version(line.id, version, line.gateway)
}

fn tool_version(id: &str, version: &str, gateway: &str) -> Tool {
    Tool {
        id: id.to_owned(),
        version: version.to_owned(),
        build_digest: datasets::build_digest(id, version),
        owner_entity: datasets::TOOL_OWNER.to_owned(),
        gateway: gateway.to_owned(),
    }
}

/// An event that nobody has acted in yet.
fn event_at(rng: &mut impl Rng, time: u64, body: Body) -> Event {
    Event {
        event_id: random_bytes::<16>(rng),
        occurred_at: Some(timestamp(time)),
        body: Some(body),
        ..Event::default()
    }
}

/// The number of a case: `CASE-48213`.
fn case(rng: &mut impl Rng, prefix: &str) -> String {
    format!("{prefix}-{}", rng.random_range(10_000..100_000_u32))
}

/// A time of the half-year.
fn at(day: u64, hour: u64, minute: u64) -> u64 {
    START + day * DAY_NANOS + hour * HOUR_NANOS + minute * MINUTE_NANOS
}

pub(super) fn timestamp(time: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(time / SECOND_NANOS).unwrap_or(i64::MAX),
        nanos: i32::try_from(time % SECOND_NANOS).unwrap_or_default(),
    }
}

/// How busy the company is in each hour of a day, UTC.
fn hours(day: u64) -> [u64; 24] {
    let mut hour = 0;
    [(); 24].map(|()| {
        let weight = company::OFFICES.iter().map(|office| busy(office, day, hour)).sum();
        hour += 1;
        weight
    })
}

/// How busy an office is in an hour of a day, UTC. Never 0.
fn busy(office: &Office, day: u64, hour: u64) -> u64 {
    let local = (hour + office.utc_offset_hours) % 24;
    let activity = usize::try_from(local).ok().and_then(|hour| office.hours.get(hour));
    // The half-year begins on a Tuesday.
    let weekend = (day + 1) % 7 >= 5;
    let share = if weekend && office.closed_at_weekends { 1 } else { WEEKDAY_SHARE };
    office.weight * activity.copied().unwrap_or(1) * share
}

const SECOND_NANOS: u64 = 1_000_000_000;
const MINUTE_NANOS: u64 = 60 * SECOND_NANOS;
pub(super) const HOUR_NANOS: u64 = 60 * MINUTE_NANOS;
/// Nanoseconds of a day.
pub const DAY_NANOS: u64 = 24 * HOUR_NANOS;

/// How much busier a weekday is than a day of the weekend.
const WEEKDAY_SHARE: u64 = 8;

#[cfg(test)]
mod tests;
