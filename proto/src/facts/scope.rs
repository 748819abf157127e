//! Whether a grant's scope covers what was done.
//!
//! A list of names is kept without those that another one of the list covers, and sorted by what
//! comes before a trailing `*`. Then one binary search finds the only entry that can cover a name:
//! the greatest that is not behind it.

use crate::wire::{Action, Scope};

/// What a scope has to cover.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Id of the person; empty: not told.
    pub actor: &'a str,
    /// What is done.
    pub action: Action,
    /// Where the person, or the recipient, is; empty: not told.
    pub country: &'a str,
}

/// Brings a scope into the order that [`covers`] and [`covers_name`] rely on.
#[must_use]
pub fn normal(scope: &Scope) -> Scope {
    Scope {
        actors: normal_names(scope.actors.clone()),
        datasets: normal_names(scope.datasets.clone()),
        actions: sorted(scope.actions.clone()),
        categories: sorted(scope.categories.clone()),
        countries: sorted(scope.countries.clone()),
    }
}

/// What both of two scopes in normal order cover, in normal order.
#[must_use]
pub fn intersection(one: &Scope, other: &Scope) -> Scope {
    Scope {
        actors: common_names(&one.actors, &other.actors),
        datasets: common_names(&one.datasets, &other.datasets),
        actions: common(&one.actions, &other.actions),
        categories: common(&one.categories, &other.categories),
        countries: common(&one.countries, &other.countries),
    }
}

/// Whether a scope in normal order covers who does what from where; its data are asked for one by
/// one: [`covers_data`].
#[must_use]
pub fn covers(scope: &Scope, wanted: &Wanted<'_>) -> bool {
    let action = i32::from(wanted.action);
    let country = wanted.country;
    (scope.actors.is_empty() || covers_name(&scope.actors, wanted.actor))
        && (scope.actions.is_empty() || action != 0 && scope.actions.contains(&action))
        && (scope.countries.is_empty()
            || !country.is_empty() && scope.countries.iter().any(|one| one == country))
}

/// Whether a scope in normal order covers categories of a dataset.
#[must_use]
pub fn covers_data(scope: &Scope, dataset: &str, categories: &[i32]) -> bool {
    let category = |category: &i32| *category != 0 && scope.categories.contains(category);
    (scope.datasets.is_empty() || covers_name(&scope.datasets, dataset))
        && (scope.categories.is_empty()
            || !categories.is_empty() && categories.iter().all(category))
}

/// Whether a list in normal order names this, or begins it with an entry that ends with `*`.
#[must_use]
pub fn covers_name(names: &[String], name: &str) -> bool {
    let behind = names.partition_point(|entry| stem(entry) <= name);
    let entry = behind.checked_sub(1).and_then(|place| names.get(place));
    !name.is_empty() && entry.is_some_and(|entry| entry_covers(entry, name))
}

/// Whether a list in normal order has an entry that says more than "everything", and covers this.
#[must_use]
pub fn names_it(names: &[String], name: &str) -> bool {
    names.first().is_some_and(|first| first != "*") && covers_name(names, name)
}

fn stem(entry: &str) -> &str {
    entry.strip_suffix('*').unwrap_or(entry)
}

/// Whether an entry covers a name, or all that another entry covers.
fn entry_covers(entry: &str, other: &str) -> bool {
    match entry.strip_suffix('*') {
        Some(prefix) => other.strip_suffix('*').unwrap_or(other).starts_with(prefix),
        None => entry == other,
    }
}

fn normal_names(mut names: Vec<String>) -> Vec<String> {
    // Of an entry and a name with the same stem, the entry that ends with `*` covers the name.
    names.sort_unstable_by(|one, other| {
        let order = |name: &str| !name.ends_with('*');
        (stem(one), order(one)).cmp(&(stem(other), order(other)))
    });
    // What an entry covers follows it.
    names.dedup_by(|next, kept| entry_covers(kept, next));
    names
}

/// The entries of either list that the other one covers.
fn common_names(one: &[String], other: &[String]) -> Vec<String> {
    if one.is_empty() || other.is_empty() {
        return [one, other].concat();
    }
    let covered = |names: &[String], by: &[String]| -> Vec<String> {
        let is_covered = |name: &&String| {
            let behind = by.partition_point(|entry| stem(entry) <= stem(name));
            let entry = behind.checked_sub(1).and_then(|place| by.get(place));
            entry.is_some_and(|entry| entry_covers(entry, name))
        };
        names.iter().filter(is_covered).cloned().collect()
    };
    let both = [covered(one, other), covered(other, one)].concat();
    or_nothing(normal_names(both))
}

fn common<T: Ord + Clone + Default>(one: &[T], other: &[T]) -> Vec<T> {
    if one.is_empty() || other.is_empty() {
        return [one, other].concat();
    }
    or_nothing(one.iter().filter(|item| other.contains(item)).cloned().collect())
}

/// An empty list would not restrict; one that holds the empty name or the value 0 covers nothing.
fn or_nothing<T: Default>(common: Vec<T>) -> Vec<T> {
    if common.is_empty() { vec![T::default()] } else { common }
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort_unstable();
    items.dedup();
    items
}
