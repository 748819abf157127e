//! What the software is made of: licences, sources and banned crates, by the rules of
//! `.ci/deny.toml`, which `cargo deny` reads too (and adds advisories, for which it needs a
//! network).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    sync::LazyLock,
};

use serde_json::Value;

static RULES: LazyLock<toml::Table> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/deny.toml");
    std::fs::read_to_string(path).unwrap().parse().unwrap()
});

/// All packages of the lock file.
static PACKAGES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let arguments = ["metadata", "--format-version=1", "--locked", "--offline"];
    let told = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let mut metadata: Value = serde_json::from_slice(&told.stdout).unwrap();
    serde_json::from_value(metadata["packages"].take()).unwrap()
});

fn text<'a>(package: &'a Value, field: &str) -> &'a str {
    package[field].as_str().unwrap_or_default()
}

fn rule(table: &str, name: &str) -> &'static [toml::Value] {
    RULES[table][name].as_array().unwrap()
}

#[test]
fn every_package_has_a_licence_that_is_allowed() {
    let allowed: BTreeSet<_> =
        rule("licenses", "allow").iter().map(|licence| licence.as_str().unwrap()).collect();
    let refused = PACKAGES.iter().filter(|package| !is_allowed(text(package, "license"), &allowed));
    let refused: Vec<_> =
        refused.map(|package| (text(package, "name"), text(package, "license"))).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn every_package_comes_from_the_registry_or_is_ours() {
    let registries: Vec<_> = rule("sources", "allow-registry")
        .iter()
        .map(|url| format!("registry+{}", url.as_str().unwrap()))
        .collect();
    for package in &*PACKAGES {
        let (name, source) = (text(package, "name"), package["source"].as_str());
        let is_ours = source.is_none() && name.starts_with("access-ledger-");
        assert!(is_ours || registries.iter().any(|url| source == Some(url)), "{name}: {source:?}");
    }
}

#[test]
fn no_banned_crate_is_built_and_none_of_trust_twice() {
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for package in &*PACKAGES {
        *versions.entry(text(package, "name")).or_default() += 1;
    }
    for ban in rule("bans", "deny") {
        let name = ban["crate"].as_str().unwrap();
        let is_once = ban.get("deny-multiple-versions").is_some();
        let found = versions.get(name).copied().unwrap_or_default();
        assert!(found <= usize::from(is_once), "{name}: {found} versions");
    }
}

/// Whether the expression (SPDX, or the older form with slashes) can be met by what is allowed.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let expression = expression.replace('/', " OR ").replace(" WITH ", "-WITH-");
    let spaced = expression.replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let allowed: BTreeSet<_> = allowed.iter().map(|id| id.replace(" WITH ", "-WITH-")).collect();
    any_of(&mut words, &allowed) && words.peek().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut holds = all_of(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        // Both sides are read, whatever the first says.
        holds |= all_of(words, allowed);
    }
    holds
}

fn all_of(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut holds = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        holds &= one(words, allowed);
    }
    holds
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    match words.next() {
        Some("(") => {
            let holds = any_of(words, allowed);
            words.next() == Some(")") && holds
        }
        word => word.is_some_and(|word| allowed.contains(word)),
    }
}

#[test]
fn licence_expressions_are_read() {
    let allowed = BTreeSet::from(["MIT", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"]);
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/GPL-3.0",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "MIT MIT", "(MIT", "Apache-2.0", "OR MIT"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}
