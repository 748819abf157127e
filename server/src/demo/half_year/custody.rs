//! Where data lies: backups at two sites of the company, holdings that move to the custodian month
//! by month, and a site that was certified erased and read again.

use access_ledger_proto::{
    hash::sha256,
    wire::{
        Erasure, ErasurePhase, Holding, Place, Purpose, RecipientKind, Transfer, TransferMode,
        event::Body,
    },
};
use bytes::Bytes;
use rand::Rng;

use super::{
    Arranged, DAYS, Happening, What,
    approvals::push,
    at,
    company::{HOME, HOME_ENTITY, STORAGE_FLEET},
    datasets::{BACKUPS, CUSTODY, DATASETS, Dataset, SINGAPORE, VIRGINIA},
    event_at, timestamp,
};

/// Everything that has to do with where data lies, all through the half-year.
pub(super) fn arrange(rng: &mut impl Rng, arranged: &mut Arranged) {
    for day in MONTHS {
        for dataset in DATASETS.iter().filter(|dataset| dataset.is_protected()) {
            hold(rng, dataset, day, arranged);
        }
    }
    for day in (5..DAYS).step_by(7) {
        back_up(rng, VIRGINIA, HOME, day, arranged);
        // An old schedule goes on for two weeks.
        if day < 14 {
            back_up(rng, SINGAPORE, "SG", day, arranged);
        }
        let moving =
            DATASETS.iter().filter(|dataset| moved(dataset, day) < moved(dataset, day + 7));
        for dataset in moving {
            migrate(rng, dataset, day, arranged);
        }
    }
    for (number, phase) in (0_u64..).zip(ERASURE) {
        let day = ERASURE_DAY + 3 * number;
        let job = Erasure {
            job_id: "ERASE-SG-1".to_owned(),
            phase: phase.into(),
            site: SINGAPORE.to_owned(),
            dataset: BACKUPS.name.to_owned(),
            method: "keys destroyed, disks shredded".to_owned(),
            objects: 1_184,
            manifest_digest: Bytes::copy_from_slice(sha256(b"1184 volumes of sg-1").as_bytes()),
        };
        push(arranged, day, told(rng, at(day, 6, 0), Body::Erasure(job)).resting());
    }
}

/// The day after which the backups abroad are certified to be gone.
pub(super) const ERASED_DAY: u64 = ERASURE_DAY + 3 * (ERASURE.len() as u64 - 1);

/// How much of a dataset lies where, at the end of a day.
fn hold(rng: &mut impl Rng, dataset: &Dataset, day: u64, arranged: &mut Arranged) {
    let moved = dataset.holding / 100 * moved(dataset, day);
    let mut places = vec![(dataset.region, HOME, HOME_ENTITY, dataset.holding - moved)];
    if dataset.moved_on > 0 {
        places.push((CUSTODY, HOME, "Contoso Trust", moved));
    }
    if dataset.name == BACKUPS.name {
        let left = if day < ERASED_DAY { dataset.holding } else { 0 };
        places = vec![
            (VIRGINIA, HOME, HOME_ENTITY, dataset.holding),
            (SINGAPORE, "SG", "Northwind Pte", left),
        ];
    }
    for (site, country, operator, records) in places {
        let holding = Holding {
            dataset: dataset.name.to_owned(),
            site: site.to_owned(),
            country: country.to_owned(),
            site_operator: operator.to_owned(),
            records,
            bytes: records.saturating_mul(dataset.record_bytes),
            as_of: Some(timestamp(at(day, 22, 0))),
        };
        push(arranged, day, told(rng, at(day, 22, 30), Body::Holding(holding)));
    }
}

/// Per cent of a dataset that have moved to the custodian: it takes two months.
fn moved(dataset: &Dataset, day: u64) -> u64 {
    let begins = dataset.moved_on.saturating_sub(MOVING_DAYS);
    match dataset.moved_on {
        0 => 0,
        end => (day.saturating_sub(begins) * 100 / (end - begins).max(1)).min(100),
    }
}

fn back_up(rng: &mut impl Rng, site: &str, country: &str, day: u64, arranged: &mut Arranged) {
    let entity = if country == HOME { HOME_ENTITY } else { "Northwind Pte" };
    let transfer = Transfer {
        to: Some(place(site, country, entity)),
        mode: TransferMode::Backup.into(),
        recipient_kind: RecipientKind::Affiliate.into(),
        purpose: Purpose::SystemOperation.into(),
        ..of(&BACKUPS, day, BACKUPS.holding / 52)
    };
    push(arranged, day, told(rng, at(day, 9, 15), Body::Transfer(transfer)));
}

fn migrate(rng: &mut impl Rng, dataset: &Dataset, day: u64, arranged: &mut Arranged) {
    let share = moved(dataset, day + 7) - moved(dataset, day);
    let transfer = Transfer {
        to: Some(place(CUSTODY, HOME, "Contoso Trust")),
        mode: TransferMode::Copy.into(),
        legal_basis: "custody agreement".to_owned(),
        recipient_kind: RecipientKind::Vendor.into(),
        purpose: Purpose::Migration.into(),
        ..of(dataset, day, dataset.holding / 100 * share)
    };
    push(arranged, day, told(rng, at(day, 8, 5), Body::Transfer(transfer)));
}

/// Records of a dataset that leave the place where they lie.
fn of(dataset: &Dataset, day: u64, records: u64) -> Transfer {
    let mut data = dataset.data(day);
    data.region = dataset.region.to_owned();
    data.records = records;
    data.bytes = records.saturating_mul(dataset.record_bytes);
    Transfer {
        from: Some(place(dataset.region, HOME, HOME_ENTITY)),
        data: vec![data],
        ..Transfer::default()
    }
}

fn place(site: &str, country: &str, entity: &str) -> Place {
    Place { site: site.to_owned(), country: country.to_owned(), entity: entity.to_owned() }
}

/// What the storage fleet records.
fn told(rng: &mut impl Rng, time: u64, body: Body) -> Happening {
    let event = event_at(rng, time, body);
    Happening::new(time, What::Event(STORAGE_FLEET, event.into()))
}

/// The first day, and the last day of each month.
const MONTHS: [u64; 7] = [0, 30, 61, 91, 122, 152, DAYS - 1];

const MOVING_DAYS: u64 = 62;

const ERASURE_DAY: u64 = 118;

const ERASURE: [ErasurePhase; 5] = [
    ErasurePhase::Scheduled,
    ErasurePhase::Started,
    ErasurePhase::Completed,
    ErasurePhase::Verified,
    ErasurePhase::Certified,
];
