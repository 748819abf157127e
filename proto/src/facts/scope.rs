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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        normal_names(names.iter().map(|&name| name.to_owned()).collect())
    }

    /// What [`covers_name`] finds by one search, asked of every entry.
    fn is_covered(names: &[String], name: &str) -> bool {
        names.iter().any(|entry| match entry.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => entry == name,
        })
    }

    #[test]
    fn what_another_entry_covers_is_left_out() {
        let kept = names(&["b", "a/b", "a/*", "a", "a/b*", "b", "a/*"]);
        assert_eq!(kept, ["a", "a/*", "b"]);
        assert_eq!(names(&["x", "*", "y*"]), ["*"]);
        assert_eq!(names(&["x*", "x"]), ["x*"]);
    }

    #[test]
    fn a_prefix_covers_names_whatever_follows_it() {
        let list = names(&["a*", "b!", "c"]);
        for name in ["a", "a!", "a*", "a~", "ab", "b!", "c"] {
            assert!(covers_name(&list, name), "{name}");
        }
        for name in ["", "b", "b!c", "cc"] {
            assert!(!covers_name(&list, name), "{name}");
        }
    }

    #[test]
    fn what_has_nothing_in_common_covers_nothing() {
        let one = Scope { datasets: names(&["a"]), actions: vec![1], ..Scope::default() };
        let other = Scope { datasets: names(&["b*"]), actions: vec![2], ..Scope::default() };
        let common = intersection(&one, &other);
        for dataset in ["", "a", "b", "bc"] {
            assert!(!covers_data(&common, dataset, &[]), "{dataset:?}");
        }
        let read = Wanted { actor: "x", action: Action::Read, country: "US" };
        assert!(!covers(&common, &read));
        let nothing = Wanted { action: Action::Unspecified, ..read };
        assert!(!covers(&common, &nothing));
        assert!(covers(&Scope::default(), &nothing));
    }

    #[test]
    fn only_an_entry_that_says_something_names() {
        assert!(names_it(&names(&["users"]), "users"));
        assert!(names_it(&names(&["us*"]), "users"));
        assert!(!names_it(&names(&["*"]), "users"));
        assert!(!names_it(&[], "users"));
    }

    #[test]
    fn ten_thousand_datasets_are_searched() {
        let all: Vec<String> = (0..10_000).map(|number| format!("{number:x}")).collect();
        let scope = normal(&Scope { datasets: all.clone(), ..Scope::default() });
        assert_eq!(scope.datasets.len(), 10_000);
        assert!(all.iter().all(|name| covers_data(&scope, name, &[])));
        assert!(!covers_data(&scope, "2710", &[]));
        assert!(!covers_data(&scope, "users", &[]));
    }

    fn list() -> impl Strategy<Value = Vec<String>> {
        vec("[ab!]{0,3}[*]?", 0..8)
    }

    proptest! {
        #[test]
        fn one_search_finds_what_looking_at_all_entries_finds(
            list in list(),
            name in "[ab!]{1,4}",
        ) {
            let normal = normal_names(list.clone());
            prop_assert_eq!(covers_name(&normal, &name), is_covered(&list, &name));
        }

        #[test]
        fn an_intersection_covers_what_both_cover(
            one in list(),
            other in list(),
            name in "[ab!]{1,4}",
        ) {
            let by = |list: &[String]| list.is_empty() || is_covered(list, &name);
            let both = by(&one) && by(&other);
            let common = common_names(&normal_names(one), &normal_names(other));
            prop_assert_eq!(common.is_empty() || covers_name(&common, &name), both);
            prop_assert_eq!(normal_names(common.clone()), common);
        }
    }
}
