//! Cells as bytes: a protobuf message of our own, in which what is empty takes no room.

use prost::Message;

use super::{Cell, Distinct, Minutes, Names, minutes::WORDS};

#[derive(Clone, PartialEq, Message)]
struct StoredCell {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(uint64, tag = "2")]
    approved: u64,
    #[prost(uint64, tag = "3")]
    denied: u64,
    #[prost(uint64, tag = "4")]
    unverified: u64,
    #[prost(uint64, tag = "5")]
    records: u64,
    #[prost(uint64, tag = "6")]
    bytes: u64,
    #[prost(uint64, tag = "7")]
    lost: u64,
    #[prost(uint64, tag = "8")]
    gaps: u64,
    #[prost(uint64, tag = "9")]
    heartbeats: u64,
    #[prost(fixed64, tag = "10")]
    first: u64,
    #[prost(fixed64, tag = "11")]
    last: u64,
    #[prost(fixed64, tag = "12")]
    stopped: u64,
    #[prost(fixed64, repeated, tag = "13")]
    people: Vec<u64>,
    #[prost(message, optional, tag = "14")]
    roles: Option<StoredNames>,
    #[prost(message, optional, tag = "15")]
    datasets: Option<StoredNames>,
    #[prost(message, optional, tag = "16")]
    boundaries: Option<StoredNames>,
    #[prost(message, optional, tag = "17")]
    categories: Option<StoredNames>,
    #[prost(message, optional, tag = "18")]
    tools: Option<StoredNames>,
    #[prost(message, optional, tag = "19")]
    purposes: Option<StoredNames>,
    #[prost(message, optional, tag = "20")]
    builds: Option<StoredNames>,
    #[prost(fixed64, repeated, tag = "21")]
    minutes: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredNames {
    #[prost(string, repeated, tag = "1")]
    kept: Vec<String>,
    #[prost(fixed64, repeated, tag = "2")]
    all: Vec<u64>,
}

pub(super) fn encode(cell: &Cell) -> Vec<u8> {
    StoredCell {
        count: cell.count,
        approved: cell.approved,
        denied: cell.denied,
        unverified: cell.unverified,
        records: cell.records,
        bytes: cell.bytes,
        lost: cell.lost,
        gaps: cell.gaps,
        heartbeats: cell.heartbeats,
        first: cell.first,
        last: cell.last,
        stopped: cell.stopped,
        people: cell.people.smallest.iter().copied().collect(),
        roles: store(&cell.roles),
        datasets: store(&cell.datasets),
        boundaries: store(&cell.boundaries),
        categories: store(&cell.categories),
        tools: store(&cell.tools),
        purposes: store(&cell.purposes),
        builds: store(&cell.builds),
        minutes: cell.minutes.words.clone(),
    }
    .encode_to_vec()
}

pub(super) fn parse(bytes: &[u8]) -> Option<Cell> {
    let stored = StoredCell::decode(bytes).ok()?;
    let minutes_fit = matches!(stored.minutes.len(), 0 | WORDS);
    minutes_fit.then(|| Cell {
        count: stored.count,
        approved: stored.approved,
        denied: stored.denied,
        unverified: stored.unverified,
        records: stored.records,
        bytes: stored.bytes,
        lost: stored.lost,
        gaps: stored.gaps,
        heartbeats: stored.heartbeats,
        first: stored.first,
        last: stored.last,
        stopped: stored.stopped,
        people: Distinct { smallest: stored.people.into_iter().collect() },
        roles: restore(stored.roles),
        datasets: restore(stored.datasets),
        boundaries: restore(stored.boundaries),
        categories: restore(stored.categories),
        tools: restore(stored.tools),
        purposes: restore(stored.purposes),
        builds: restore(stored.builds),
        minutes: Minutes { words: stored.minutes },
    })
}

fn store(names: &Names) -> Option<StoredNames> {
    (!names.kept.is_empty()).then(|| StoredNames {
        kept: names.iter().map(str::to_owned).collect(),
        all: names.all.smallest.iter().copied().collect(),
    })
}

fn restore(stored: Option<StoredNames>) -> Names {
    let StoredNames { kept, all } = stored.unwrap_or_default();
    Names {
        kept: kept.into_iter().map(String::into_boxed_str).collect(),
        all: Distinct { smallest: all.into_iter().collect() },
    }
}
