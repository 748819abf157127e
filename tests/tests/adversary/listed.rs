//! None of the design's attacks is dropped unseen: each stands in the table of `README.md`, and its
//! tests exist; and every test that plays one is on the list.

use std::{collections::BTreeSet, fs, path::Path};

use access_ledger_tests::adversary::DESIGN;
use anyhow::ensure;

/// The text of the test files that play attacks, of those of this crate.
fn tests() -> anyhow::Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut text = String::new();
    for file in ["adversary.rs", "query.rs"] {
        text += &fs::read_to_string(folder.join(file))?;
    }
    for file in fs::read_dir(folder.join("adversary"))? {
        text += &fs::read_to_string(file?.path())?;
    }
    Ok(text)
}

/// The tests among them: those of the macro, and functions behind an attribute.
fn names(text: &str) -> BTreeSet<&str> {
    let listed = text.split_once("attacks! {\n").and_then(|(_, rest)| rest.split_once("\n}"));
    let listed = listed.map(|(listed, _)| listed).unwrap_or_default();
    let of_macro = listed
        .lines()
        .flat_map(|line| line.split_once(": ").map_or(line, |line| line.1).split([',', ';']));
    let attribute = text.split("#[tokio::test").skip(1);
    let functions = attribute.filter_map(|test| test.split_once("fn ")?.1.split_once('('));
    let names = of_macro.chain(functions.map(|(name, _)| name)).map(str::trim);
    names.filter(|name| !name.is_empty()).collect()
}

#[test]
fn every_attack_of_the_design_is_in_the_table_and_has_its_tests() -> anyhow::Result<()> {
    let text = tests()?;
    let names = names(&text);
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"))?;
    let (_, attacks) = readme.split_once("\n## Attacks\n").unwrap_or_default();
    let rows: Vec<Vec<&str>> = attacks
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    for (attack, tests) in DESIGN {
        let row = rows.iter().find(|row| row.first().is_some_and(|cell| cell.contains(attack)));
        ensure!(row.is_some_and(|row| row.len() == 4), "{attack:?} is in no row of the table");
        ensure!(!tests.is_empty(), "{attack:?} has no test");
        for test in tests {
            ensure!(names.contains(test), "{attack:?}: there is no test {test}");
        }
    }
    Ok(())
}

#[test]
fn every_test_that_plays_an_attack_is_on_the_list() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/adversary");
    let text = tests()?;
    let names = names(&text);
    for file in fs::read_dir(folder)? {
        let source = fs::read_to_string(file?.path())?;
        let acts = source.split("\npub fn ").skip(1).filter_map(|act| act.split_once('('));
        let acts = acts
            .filter(|(_, rest)| rest.starts_with("crime: &mut Crime) -> anyhow::Result<Attack>"));
        for (act, _) in acts {
            ensure!(names.contains(act), "nobody plays {act}");
            ensure!(DESIGN.iter().any(|(_, tests)| tests.contains(&act)), "{act} is not listed");
        }
    }
    Ok(())
}
