//! The same log gives the same findings: to whoever folds it entry by entry, to a server that saves
//! its facts, forgets what is old, and restarts, and to an auditor who decodes on all cores.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Included},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use access_ledger_client::{audit::Observer as _, fold::FindingsList};
use access_ledger_proto::{
    authority::Authority,
    facts::{Archive, Facts, Table, sources::Source},
    findings::{Findings, rules::RULES},
    position::{Index, count_of},
    wire::FindingRecord,
};
use access_ledger_tests::{
    generate::generate,
    story::{
        Line, Story,
        fold::{findings, take},
    },
};
use anyhow::Context as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const SEED: u64 = 20;

const ENTRIES: usize = 200_000;

/// An archive in memory.
#[derive(Debug, Default)]
struct Shelf {
    rows: Mutex<BTreeMap<(u8, String), Vec<u8>>>,
}

impl Shelf {
    fn rows(&self) -> MutexGuard<'_, BTreeMap<(u8, String), Vec<u8>>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out all changes of the facts.
    fn save(&self, facts: &Facts) {
        let mut rows = self.rows();
        for (table, key, row) in facts.changes() {
            let key = (table.tag(), key.to_owned());
            match row {
                Some(row) => drop(rows.insert(key, row)),
                None => drop(rows.remove(&key)),
            }
        }
    }
}

impl Archive for Shelf {
    fn load(&self, table: Table, key: &str) -> Option<Vec<u8>> {
        self.rows().get(&(table.tag(), key.to_owned())).cloned()
    }

    fn scan(&self, table: Table, each: &mut dyn FnMut(&str, &[u8])) {
        let first = (table.tag(), String::new());
        let end = (table.tag() + 1, String::new());
        for ((_, key), row) in self.rows().range((Included(first), Excluded(end))) {
            each(key, row);
        }
    }
}

/// A fold that is kept on a shelf.
struct Kept {
    fold: Findings,
    shelf: Arc<Shelf>,
}

impl Kept {
    fn new(genesis: &[u8]) -> anyhow::Result<Self> {
        let shelf = Arc::new(Shelf::default());
        let archive: Arc<dyn Archive> = shelf.clone();
        let facts = Facts::from_genesis(genesis)?.with_archive(&archive);
        Ok(Self { fold: Findings::new(Authority::new(facts)), shelf })
    }

    /// Saves the facts and forgets what is old.
    fn settle(&mut self, newest: Index) {
        self.shelf.save(self.fold.authority().facts());
        self.fold.authority_mut().facts_mut().settle(newest);
    }

    /// Stops and starts again.
    fn restart(&mut self, genesis: &[u8], newest: Index) -> anyhow::Result<()> {
        self.settle(newest);
        let saved = self.fold.save();
        let sources: Vec<Source> =
            self.fold.authority().facts().sources().iter().cloned().collect();
        let archive: Arc<dyn Archive> = self.shelf.clone();
        let facts = Facts::restore(genesis, sources, &archive)?;
        self.fold = Findings::restore(Authority::new(facts), &saved)?;
        Ok(())
    }
}

/// The findings of a fold that settles and restarts at random places.
fn by_server(lines: &[Line]) -> anyhow::Result<Vec<FindingRecord>> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let (first, rest) = lines.split_first().context("no genesis")?;
    let genesis = first.event.as_deref().unwrap_or_default();
    let mut kept = Kept::new(genesis)?;
    let mut found = Vec::new();
    for (line, index) in rest.iter().zip((1..).map(Index)) {
        take(&mut kept.fold, index, line, &mut found)?;
        match random.random_range(0..4_000) {
            0 => kept.restart(genesis, index)?,
            1..8 => kept.settle(index),
            _ => {}
        }
    }
    found.extend(kept.fold.conclude());
    for finding in &mut found {
        finding.state = kept.fold.state_of(&finding.finding_id).into();
    }
    Ok(found)
}

/// The findings as an auditor computes them, from runs of any length.
fn by_auditor(story: &Story) -> anyhow::Result<Vec<FindingRecord>> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let records = story.records()?;
    let (mut list, mut rest) = (FindingsList::default(), records.as_slice());
    while !rest.is_empty() {
        let first = Index(count_of(records.len() - rest.len()));
        let (run, after) = rest.split_at(random.random_range(1..5_000).min(rest.len()));
        list.take(first, run);
        rest = after;
    }
    Ok(list.conclude()?)
}

/// Tells the first difference rather than two long lists.
fn expect_same(found: &[FindingRecord], wanted: &[FindingRecord]) {
    for (number, pair) in found.iter().zip(wanted).enumerate() {
        assert_eq!(pair.0, pair.1, "finding {number}");
    }
    assert_eq!(found.len(), wanted.len());
}

#[test]
fn the_same_log_gives_everybody_the_same_findings() -> anyhow::Result<()> {
    let story = generate(SEED, ENTRIES)?;
    let wanted = findings(story.lines())?;
    expect_same(&by_server(story.lines())?, &wanted);
    expect_same(&by_auditor(&story)?, &wanted);

    let broken: BTreeSet<_> = wanted.iter().map(|finding| finding.rule.as_str()).collect();
    let rules: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(broken, rules, "the story breaks every rule");
    let ids: BTreeSet<_> = wanted.iter().map(|finding| &finding.finding_id).collect();
    assert_eq!(ids.len(), wanted.len(), "ids are unique");
    assert!(wanted.iter().any(|finding| finding.state != 0), "somebody handled one");
    let in_order = wanted.is_sorted_by_key(|finding| finding.found_index);
    assert!(in_order, "findings come in the order in which they come to light");
    Ok(())
}

#[test]
fn a_damaged_state_is_refused() -> anyhow::Result<()> {
    let story = Story::open()?;
    let genesis =
        story.lines().first().and_then(|line| line.event.clone()).context("no genesis")?;
    let authority = Authority::from_genesis(&genesis)?;
    assert!(Findings::restore(authority.clone(), b"\xff").is_err());
    let empty = Findings::new(authority.clone()).save();
    assert!(Findings::restore(authority, &empty).is_ok());
    Ok(())
}
