//! A company's day, as its services record it: seeded, so that it can be told again byte for byte.
//!
//! Staff at home and in offices abroad, and machines, reach the data of users at home with the
//! tools of their desks. Each office follows its own working hours. Abroad, most accesses to
//! protected data name a grant; some are denied, and a few happen without one. Nothing here reads a
//! clock or draws randomness from elsewhere: seed, start and count decide everything.

mod company;
mod datasets;
mod draw;
mod sized;

use access_ledger_proto::{
    hash::sha256,
    wire::{
        Access, Action, Boundary, Data, Event, LocationEvidence, Outcome, Place, Principal,
        PrincipalKind, Purpose, Tool, event::Body,
    },
};
use bytes::Bytes;
use prost_types::Timestamp;
use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

pub use self::{
    company::SOURCES,
    sized::{ACCESS_LEN, ACCESS_LEN_MAX, ACCESS_LEN_MIN, access_of_len},
};
use self::{
    company::{Desk, Office, Reach, ToolLine},
    datasets::Dataset,
    draw::{pick, random_bytes, row, weighted},
};

/// How many accesses a day has unless told otherwise.
pub const ACCESSES: u64 = 20_000;

/// One access, and who records it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// One of [`SOURCES`].
    pub source: &'static str,
    /// A valid event with the body `Access`.
    pub event: Event,
}

/// The accesses of 24 hours, in the order of their times.
///
/// Memory does not depend on how many there are.
#[derive(Debug)]
pub struct Day {
    rng: ChaCha8Rng,
    sites: Vec<Site>,
    /// Nanoseconds since the Unix epoch.
    start: u64,
    count: u64,
    made: u64,
    minute: Minute,
    /// Weight of all minutes.
    weight: u64,
}

/// Where the day has come to.
#[derive(Debug)]
struct Minute {
    /// 0 to 1,439, counted from the start of the day.
    number: u64,
    /// How many accesses it holds, and how many of them are made.
    count: u64,
    made: u64,
    /// Weight of all minutes through this one.
    weight: u64,
}

/// An office and the people in it.
#[derive(Debug)]
struct Site {
    office: &'static Office,
    people: Vec<Person>,
}

/// Somebody, or a machine, for one day.
#[derive(Debug)]
struct Person {
    desk: &'static Desk,
    principal: Principal,
    /// The grant that covers the person's work.
    grant_id: String,
}

impl Day {
    /// A day of exactly `count` accesses that begins at `start`: nanoseconds since the Unix epoch.
    #[must_use]
    pub fn new(seed: u64, start: u64, count: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let sites = company::OFFICES.iter().map(|office| Site::staffed(&mut rng, office)).collect();
        let weight = (0..MINUTES).map(|minute| weight_at(minute_start(start, minute))).sum();
        let minute = Minute { number: 0, count: 0, made: 0, weight: weight_at(start) };
        let mut day = Self { rng, sites, start, count, made: 0, minute, weight };
        day.minute.count = day.due(day.minute.weight);
        day
    }

    /// How many accesses are due when so much of the day's weight is over.
    fn due(&self, weight: u64) -> u64 {
        let due = u128::from(self.count) * u128::from(weight) / u128::from(self.weight);
        u64::try_from(due).unwrap_or(self.count)
    }

    /// The next time: spread over its minute, in order. `None` when the day is over.
    fn next_time(&mut self) -> Option<u64> {
        if self.made == self.count {
            return None;
        }
        while self.minute.made == self.minute.count {
            let number = self.minute.number + 1;
            let weight = self.minute.weight + weight_at(minute_start(self.start, number));
            let count = self.due(weight) - self.due(self.minute.weight);
            self.minute = Minute { number, count, made: 0, weight };
        }
        let minute = &mut self.minute;
        let within = u128::from(minute.made) * u128::from(MINUTE_NANOS)
            + u128::from(self.rng.random_range(0..MINUTE_NANOS));
        let within = u64::try_from(within / u128::from(minute.count)).unwrap_or_default();
        minute.made += 1;
        self.made += 1;
        Some(minute_start(self.start, minute.number).saturating_add(within))
    }
}

impl Iterator for Day {
    type Item = Recorded;

    fn next(&mut self) -> Option<Recorded> {
        let time = self.next_time()?;
        let site = weighted(&mut self.rng, &self.sites, |site| busy(site.office, time));
        let person = pick(&mut self.rng, &site.people);
        let event = access(&mut self.rng, site.office, person, time);
        Some(Recorded { source: person.desk.source, event })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.count - self.made);
        (left.unwrap_or(usize::MAX), left.ok())
    }
}

impl Site {
    fn staffed(rng: &mut impl Rng, office: &'static Office) -> Self {
        let desks = office.desks.iter().flat_map(|&(people, desk)| (0..people).map(move |_| desk));
        let people = desks.map(|desk| Person::new(rng, office, desk)).collect();
        Self { office, people }
    }
}

impl Person {
    fn new(rng: &mut impl Rng, office: &Office, desk: &'static Desk) -> Self {
        let human = desk.kind == PrincipalKind::Human;
        let away = human && rng.random_ratio(1, 20);
        let (physical_country, evidence) = if away {
            *pick(rng, company::ELSEWHERE)
        } else {
            (office.country, *row(rng, company::AT_THE_OFFICE))
        };
        let letter = if human { 'p' } else { 's' };
        let principal = Principal {
            id: format!("{letter}-{:08x}", rng.random::<u32>()),
            kind: desk.kind.into(),
            entity: office.entity.to_owned(),
            entity_country: office.entity_country.to_owned(),
            office_country: office.country.to_owned(),
            physical_country: physical_country.to_owned(),
            location_evidence: if human { evidence } else { LocationEvidence::Gateway }.into(),
            roles: vec![desk.role.to_owned()],
            privileged: desk.privileged,
            session_id: format!("{:08x}", rng.random::<u32>()),
        };
        // At home a desk works under a standing approval; abroad everybody needs a grant.
        let grant_id = if office.country == company::HOME {
            format!("standing-{}", desk.role)
        } else {
            case(rng, "grant")
        };
        Self { desk, principal, grant_id }
    }
}

/// One access of a person at a time.
fn access(rng: &mut impl Rng, office: &Office, person: &Person, time: u64) -> Event {
    let desk = person.desk;
    let action = *row(rng, desk.actions);
    let dataset = *row(rng, desk.data);
    let reason = row(rng, desk.reasons);
    let outcome = *row(rng, reach(office, dataset, action).outcomes());
    let touched = outcome != Outcome::Denied && outcome != Outcome::Error;
    let records = if touched { records(rng, action) } else { 0 };
    let protected = dataset.boundary == Boundary::Protected;
    let named = protected && outcome != Outcome::Denied && outcome != Outcome::AllowedUnapproved;
    let denied = outcome == Outcome::Denied;
    let legal = reason.purpose == Purpose::LegalRequest;
    let hurried = desk.kind == PrincipalKind::Human && rng.random_ratio(1, 50);
    let justifications = if hurried { company::LOW_INFORMATION } else { reason.justifications };
    let body = Access {
        action: action.into(),
        data: vec![data(rng, dataset, records)],
        purpose: reason.purpose.into(),
        justification: (*pick(rng, justifications)).to_owned(),
        grant_id: if named { person.grant_id.clone() } else { String::new() },
        legal_request_id: if legal { case(rng, "LR") } else { String::new() },
        outcome: outcome.into(),
        deny_reason: if denied { pick(rng, company::DENY_REASONS) } else { "" }.to_owned(),
        policy_version: company::POLICY_VERSION.to_owned(),
        destination: destination(office, action).filter(|_| touched),
        records,
        bytes: records * dataset.record_bytes,
        ..Access::default()
    };
    let mut event = event_at(rng, time, body);
    event.correlation_id = case(rng, desk.case_prefix);
    event.tool = Some(tool(rng, &desk.tool));
    event.actor = Some(person.principal.clone());
    if desk.kind == PrincipalKind::Human {
        delegate(rng, &mut event, desk);
    } else {
        event.trace_id = random_bytes::<16>(rng);
        event.span_id = random_bytes::<8>(rng);
    }
    event
}

/// The number of a case: `CASE-48213`.
fn case(rng: &mut impl Rng, prefix: &str) -> String {
    format!("{prefix}-{}", rng.random_range(10_000..100_000_u32))
}

/// Now and then an assistant does the work, on behalf of the person.
fn delegate(rng: &mut impl Rng, event: &mut Event, desk: &Desk) {
    if !desk.assisted || !rng.random_ratio(1, 12) {
        return;
    }
    let assistant = Principal {
        id: company::ASSISTANT.to_owned(),
        kind: PrincipalKind::AiAgent.into(),
        ..Principal::default()
    };
    event.on_behalf_of = event.actor.replace(assistant);
}

fn reach(office: &Office, dataset: &Dataset, action: Action) -> Reach {
    if dataset.boundary != Boundary::Protected {
        Reach::Open
    } else if office.country == company::HOME {
        Reach::Home
    } else if matches!(action, Action::Read | Action::Query | Action::List) {
        Reach::Foreign
    } else {
        Reach::ForeignBeyondReading
    }
}

/// How many records an action touches.
fn records(rng: &mut impl Rng, action: Action) -> u64 {
    match action {
        Action::Export | Action::RestoreBackup => rng.random_range(50_000..2_000_000),
        // Most queries are small, a few are not.
        Action::Query => 1 << rng.random_range(0..14_u32),
        Action::List | Action::Copy => rng.random_range(10..200),
        Action::Download => rng.random_range(1..50),
        _ => rng.random_range(1..4),
    }
}

fn data(rng: &mut impl Rng, dataset: &Dataset, records: u64) -> Data {
    // Whoever touches a handful of records touches known persons; the rest is a mass.
    let persons = if dataset.jurisdiction.is_empty() || records > 3 { 0 } else { records };
    Data {
        datastore_type: dataset.datastore_type.to_owned(),
        dataset: dataset.name.to_owned(),
        region: dataset.region.to_owned(),
        subject_jurisdiction: dataset.jurisdiction.to_owned(),
        boundary: dataset.boundary.into(),
        sensitivity: dataset.sensitivity.into(),
        categories: dataset.categories.iter().map(|&category| category.into()).collect(),
        fields: dataset.fields.iter().map(|&field| field.to_owned()).collect(),
        subject_tokens: (0..persons).map(|_| subject_token(rng)).collect(),
        ..Data::default()
    }
}

/// Stands for the keyed hash of one of the users: the same one comes up again during the day.
fn subject_token(rng: &mut impl Rng) -> Bytes {
    let subject = rng.random_range(0..SUBJECTS);
    Bytes::copy_from_slice(&sha256(&subject.to_be_bytes()).as_bytes()[..SUBJECT_TOKEN_LEN])
}

/// Where data went that left its store for more than a screen.
fn destination(office: &Office, action: Action) -> Option<Place> {
    let site = match action {
        Action::Export => "export-bucket",
        Action::Download => "workstation",
        Action::Copy => "feature-store",
        Action::Share => "partner-share",
        _ => return None,
    };
    Some(Place {
        site: site.to_owned(),
        country: office.country.to_owned(),
        entity: office.entity.to_owned(),
    })
}

fn tool(rng: &mut impl Rng, line: &ToolLine) -> Tool {
    let version = *row(rng, line.versions);
    let build = sha256(format!("{}@{version}", line.id).as_bytes());
    Tool {
        id: line.id.to_owned(),
        version: version.to_owned(),
        build_digest: Bytes::copy_from_slice(build.as_bytes()),
        owner_entity: company::TOOL_OWNER.to_owned(),
        gateway: line.gateway.to_owned(),
    }
}

fn event_at(rng: &mut impl Rng, time: u64, access: Access) -> Event {
    let seconds = time / SECOND_NANOS;
    let nanos = time % SECOND_NANOS;
    Event {
        event_id: random_bytes::<16>(rng),
        occurred_at: Some(Timestamp {
            seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
            nanos: i32::try_from(nanos).unwrap_or_default(),
        }),
        body: Some(Body::Access(access)),
        ..Event::default()
    }
}

fn minute_start(start: u64, minute: u64) -> u64 {
    start.saturating_add(minute * MINUTE_NANOS)
}

/// How busy the company is at a time.
fn weight_at(time: u64) -> u64 {
    company::OFFICES.iter().map(|office| busy(office, time)).sum()
}

/// How busy an office is at a time. Never 0.
fn busy(office: &Office, time: u64) -> u64 {
    let hour = (time / HOUR_NANOS + office.utc_offset_hours) % 24;
    let activity = usize::try_from(hour).ok().and_then(|hour| office.hours.get(hour));
    office.weight * activity.copied().unwrap_or(1)
}

const SECOND_NANOS: u64 = 1_000_000_000;
const MINUTE_NANOS: u64 = 60 * SECOND_NANOS;
const HOUR_NANOS: u64 = 60 * MINUTE_NANOS;
const MINUTES: u64 = 24 * 60;

/// Users whose data is touched: few enough that some come up several times a day.
const SUBJECTS: u32 = 5_000;
const SUBJECT_TOKEN_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use access_ledger_proto::{event::validate, source::Name};
    use prost::Message as _;

    use super::*;

    /// 2026-03-02, 00:00 UTC.
    const START: u64 = 1_772_409_600 * SECOND_NANOS;

    fn access_of(event: &Event) -> &Access {
        match &event.body {
            Some(Body::Access(access)) => access,
            other => panic!("another body: {other:?}"),
        }
    }

    fn time_of(event: &Event) -> u64 {
        let time = event.occurred_at.unwrap();
        u64::try_from(time.seconds).unwrap() * SECOND_NANOS + u64::try_from(time.nanos).unwrap()
    }

    fn encoded(seed: u64, count: u64) -> Vec<(&'static str, Vec<u8>)> {
        Day::new(seed, START, count).map(|one| (one.source, one.event.encode_to_vec())).collect()
    }

    #[test]
    fn one_seed_tells_one_day() {
        assert_eq!(encoded(7, 500), encoded(7, 500));
        assert_ne!(encoded(7, 500), encoded(8, 500));
        // The bytes themselves: another machine, or another version of a crate, tells the same.
        let all: Vec<u8> = encoded(7, 500).into_iter().flat_map(|(_, event)| event).collect();
        assert_eq!(
            sha256(&all).to_string(),
            "e2b143718f0be495378be63f4a99c046a8a4ffeb3031c2c2691a98d090e6413a"
        );
    }

    #[test]
    fn events_are_valid_and_in_order_within_the_day() {
        let mut before = START;
        for one in Day::new(1, START, 5_000) {
            let time = time_of(&one.event);
            assert!((before..START + MINUTES * MINUTE_NANOS).contains(&time));
            before = time;
            validate(&one.event.encode_to_vec(), time).unwrap();
            Name::parse(one.source.as_bytes()).unwrap();
            assert!(SOURCES.contains(&one.source));
        }
    }

    #[test]
    fn a_day_has_as_many_accesses_as_asked_for() {
        for count in [0, 1, 2, 1_439, 1_441, ACCESSES] {
            let day = Day::new(2, START, count);
            assert_eq!(day.size_hint().1, usize::try_from(count).ok());
            assert_eq!(day.map(|_| 1).sum::<u64>(), count);
        }
        // A day that begins at another hour, and one of more accesses than anybody could keep.
        assert_eq!(Day::new(2, START + 5 * HOUR_NANOS + 1, 999).map(|_| 1).sum::<u64>(), 999);
        assert_eq!(Day::new(2, START, u64::MAX).take(10).map(|_| 1).sum::<u64>(), 10);
    }

    #[test]
    fn events_are_as_long_as_real_ones() {
        let total: usize = encoded(3, 5_000).iter().map(|(_, event)| event.len()).sum();
        assert!((250..=400).contains(&(total / 5_000)), "{} bytes on average", total / 5_000);
    }

    #[test]
    fn the_day_is_mixed() {
        let mut outcomes = BTreeMap::new();
        let (mut sources, mut countries) = (BTreeSet::new(), BTreeSet::new());
        let (mut foreign, mut granted, mut exports) = (0, 0, 0);
        for one in Day::new(4, START, ACCESSES) {
            let access = access_of(&one.event);
            *outcomes.entry(access.outcome()).or_insert(0_u32) += 1;
            assert_eq!(access.outcome() == Outcome::Denied, !access.deny_reason.is_empty());
            sources.insert(one.source);
            let person = one.event.on_behalf_of.as_ref().or(one.event.actor.as_ref()).unwrap();
            let protected = access.data[0].boundary() == Boundary::Protected;
            if person.office_country != company::HOME && protected {
                foreign += 1;
                granted += u32::from(!access.grant_id.is_empty());
            }
            countries.insert(person.office_country.clone());
            exports += u32::from(access.action() == Action::Export);
        }
        assert_eq!(sources.into_iter().collect::<Vec<_>>(), SOURCES);
        assert_eq!(Vec::from_iter(countries), ["CN", "GB", "IE", "PH", "SG", "US"]);
        let count = |outcome| outcomes.get(&outcome).copied().unwrap_or_default();
        assert!((15_000..19_500).contains(&count(Outcome::Allowed)), "{outcomes:?}");
        assert!((200..1_500).contains(&count(Outcome::Denied)), "{outcomes:?}");
        assert!((50..400).contains(&count(Outcome::AllowedUnapproved)), "{outcomes:?}");
        assert!((3_000..10_000).contains(&foreign), "{foreign} foreign accesses");
        assert!(granted * 100 > foreign * 75, "{granted} grants for {foreign} foreign accesses");
        assert!((5..100).contains(&exports), "{exports} exports");
    }

    #[test]
    fn offices_work_by_day() {
        let mut by_hour = [0_u32; 24];
        for one in Day::new(5, START, 20_000) {
            let hour = time_of(&one.event) / HOUR_NANOS % 24;
            let home = one.event.actor.is_some_and(|actor| {
                actor.kind() == PrincipalKind::Human && actor.office_country == company::HOME
            });
            by_hour[usize::try_from(hour).unwrap()] += u32::from(home);
        }
        // 18:00 UTC is mid-morning at home, 09:00 UTC the middle of the night.
        assert!(by_hour[18] > 20 * by_hour[9], "{by_hour:?}");
    }
}
