//! The rules of the house that a machine can check.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// A file of the repository, by its path from the top.
struct Tracked {
    path: PathBuf,
    /// Empty for what is no text.
    text: String,
}

/// All files that git would keep, in the order of their paths.
fn files() -> anyhow::Result<Vec<Tracked>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(&folder)? {
            let path = file?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if matches!(name, ".git" | "target" | "__pycache__" | "corpus" | "artifacts") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = String::from_utf8(fs::read(&path)?).unwrap_or_default();
            found.push(Tracked { path: path.strip_prefix(root)?.to_owned(), text });
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn is_rust(file: &Tracked) -> bool {
    file.path.extension().is_some_and(|extension| extension == "rs")
}

/// Written by people, and not data.
fn is_source(file: &Tracked) -> bool {
    let extension = file.path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("rs" | "proto" | "py" | "toml"))
}

/// The documents that a text names, as paths. Addresses elsewhere are nobody's business here.
fn documents(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "./_-:".contains(c);
    text.split(move |c| !is_part(c))
        .map(|word| word.trim_end_matches(['.', ':']))
        .filter(|word| word.ends_with(".md") && *word != ".md" && !word.contains("://"))
}

/// Tells of every line that is against a rule.
fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// Every line that `is_bad` finds, in files that `concerns` names.
fn bad_lines(
    concerns: impl Fn(&Tracked) -> bool,
    is_bad: impl Fn(&str) -> bool,
) -> anyhow::Result<Vec<String>> {
    let files = files()?;
    let concerned = files.iter().filter(|file| concerns(file));
    let lines = concerned.flat_map(|file| {
        file.text.lines().zip(1..).map(move |(line, number)| (file, line, number))
    });
    let bad = lines.filter(|(_, line, _)| is_bad(line));
    Ok(bad.map(|(file, line, at)| format!("{}:{at}: {line}", file.path.display())).collect())
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() -> anyhow::Result<()> {
    const LINES_MAX: usize = 500;
    let files = files()?;
    let long = files.iter().filter(|file| {
        // The vocabulary is one list, in one order.
        let is_vocabulary = file.path.ends_with("v1/event.proto");
        is_source(file) && !is_vocabulary && file.text.lines().count() > LINES_MAX
    });
    report(
        &long
            .map(|file| format!("{}: {} lines", file.path.display(), file.text.lines().count()))
            .collect::<Vec<_>>(),
    );
    Ok(())
}

#[test]
fn every_file_says_first_what_it_is_for() -> anyhow::Result<()> {
    let files = files()?;
    let silent = files.iter().filter(|file| is_rust(file) && !file.text.starts_with("//!"));
    report(&silent.map(|file| file.path.display().to_string()).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn nothing_is_left_for_later() -> anyhow::Result<()> {
    let marks = ["TO-DO", "FIX-ME", "X-XX"].map(|mark| mark.replace('-', ""));
    report(&bad_lines(is_source, |line| marks.iter().any(|mark| line.contains(mark)))?);
    Ok(())
}

#[test]
fn names_of_files_say_what_is_in_them() -> anyhow::Result<()> {
    const SAY_NOTHING: [&str; 8] =
        ["util", "utils", "helper", "helpers", "common", "manager", "misc", "types"];
    let files = files()?;
    let nameless = files.iter().filter(|file| {
        file.path.with_extension("").iter().any(|part| SAY_NOTHING.iter().any(|name| part == *name))
    });
    report(&nameless.map(|file| file.path.display().to_string()).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn lines_fit_on_a_page() -> anyhow::Result<()> {
    // What cannot be broken: addresses, text in quotes, rows of tables.
    const WHOLE: [&str; 3] = ["http", "\"", "//! |"];
    let is_breakable = |line: &str| !WHOLE.iter().any(|part| line.contains(part));
    report(&bad_lines(is_source, |line| line.chars().count() > 100 && is_breakable(line))?);
    Ok(())
}

#[test]
fn nothing_names_the_machine_that_it_was_made_on() -> anyhow::Result<()> {
    let own = Path::new("tests/tests/tidy.rs");
    let marks = ["/home/", "/Users/", "://10.", "://192.168.", ".internal/"];
    report(&bad_lines(
        |file| file.path != own,
        |line| marks.iter().any(|mark| line.contains(mark)),
    )?);
    Ok(())
}

#[test]
fn every_document_that_is_named_is_there() -> anyhow::Result<()> {
    let files = files()?;
    let is_there = |name: &str| {
        files.iter().any(|file| file.path.ends_with(name.trim_start_matches(['.', '/'])))
    };
    let is_text = |file: &Tracked| {
        is_source(file) || file.path.extension().is_some_and(|extension| extension == "md")
    };
    report(&bad_lines(is_text, |line| !documents(line).all(is_there))?);
    Ok(())
}

/// What stands between backticks, as far as it could be the name of a module.
fn names(line: &str) -> impl Iterator<Item = &str> {
    let is_name = |text: &&str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    line.split('`').skip(1).step_by(2).filter(is_name)
}

/// The modules in a folder: files, and folders with a `main.rs` or `mod.rs`.
fn modules(files: &[Tracked], folder: &str) -> BTreeSet<String> {
    let is_in = |path: &&Path| path.parent() == Some(Path::new(folder));
    let sources = files.iter().filter(|file| is_rust(file));
    let paths = sources.filter_map(|file| match file.path.file_name() {
        Some(name) if name == "main.rs" || name == "mod.rs" => file.path.parent(),
        _ => Some(file.path.as_path()),
    });
    let stems = paths.filter(is_in).filter_map(|path| path.file_stem()?.to_str());
    stems.filter(|stem| *stem != "lib").map(str::to_owned).collect()
}

#[test]
fn the_readme_of_the_tests_has_every_suite_and_every_shared_part() -> anyhow::Result<()> {
    let files = files()?;
    let readme = files.iter().find(|file| file.path == Path::new("tests/README.md"));
    let text = &readme.context("no README")?.text;
    let (suites, rest) = text.split_once("Shared parts").context("no shared parts")?;
    let (parts, _) = rest.split_once("\n## ").context("no end")?;
    // The last cell of a row names suites, the first one parts.
    let rows = suites.lines().filter_map(|line| line.trim_end_matches(" |").rsplit_once(" | "));
    let suites: BTreeSet<_> = rows.flat_map(|(_, cell)| names(cell)).map(str::to_owned).collect();
    assert_eq!(suites, modules(&files, "tests/tests"));
    let rows = parts.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let parts: BTreeSet<_> = rows.flat_map(|(cell, _)| names(cell)).map(str::to_owned).collect();
    assert_eq!(parts, modules(&files, "tests/src"));
    Ok(())
}

#[test]
fn every_crate_has_the_lints_of_the_workspace() -> anyhow::Result<()> {
    for crate_name in CRATES {
        let path = Path::new(crate_name).join("Cargo.toml");
        let files = files()?;
        let manifest = files.iter().find(|file| file.path == path).context("no manifest")?;
        let has_lints = manifest.text.contains("[lints]\nworkspace = true");
        assert!(has_lints, "{}", path.display());
    }
    Ok(())
}

#[test]
fn the_top_level_holds_the_crates_and_nothing_else() -> anyhow::Result<()> {
    let allowed = ["Cargo.toml", "Cargo.lock", "README.md"];
    let files = files()?;
    let strangers = files
        .iter()
        .filter_map(|file| file.path.iter().next()?.to_str())
        .filter(|top| !top.starts_with('.') && !allowed.contains(top) && !CRATES.contains(top));
    report(&strangers.map(str::to_owned).collect::<Vec<_>>());
    Ok(())
}

const CRATES: [&str; 4] = ["proto", "client", "server", "tests"];
