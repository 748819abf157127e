//! What the server's index says of findings and reports is what whoever folds the log says, however
//! the index was stopped, cut into blocks or damaged on the way.

use std::{fs, path::Path};

use access_ledger_client::{
    audit::Observer as _,
    reports::{Day, Options, Period, Recomputed, Report},
};
use access_ledger_proto::{
    facts::Facts,
    position::Index as Place,
    wire::{self, FindingRecord, FindingState},
};
use access_ledger_server::index::{FindingFilter, Index};
use access_ledger_tests::{
    generate::generate,
    node::Node,
    offences::OFFENCES,
    source::Refused,
    stored::Stored,
    story::{self, DAY, Line, Story},
};
use anyhow::Context as _;
use proptest::prelude::*;
use tonic::Code;

/// Every rule broken and kept, over some months, so that reports have months to add up.
fn months() -> anyhow::Result<Story> {
    let mut story = Story::open()?;
    for (number, offence) in OFFENCES.iter().cycle().take(3 * OFFENCES.len()).enumerate() {
        (offence.commit)(&mut story)?;
        (offence.twin)(&mut story)?;
        story.access(|_, access| {
            for data in &mut access.data {
                data.subject_tokens.push(SUBJECT.to_vec().into());
            }
        })?;
        if number % 2 == 0 {
            story.wait(DAY + DAY / 7);
        }
    }
    Ok(story)
}

/// All findings that the index lists, by pages of `most`.
fn listed(
    index: &Index,
    filter: &FindingFilter,
    most: usize,
) -> anyhow::Result<Vec<FindingRecord>> {
    let (mut listed, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let page = index.list_findings(filter, from, most)?;
        anyhow::ensure!(page.findings.len() <= most && page.next.is_none_or(|next| next > from));
        listed.extend(page.findings);
        next = page.next;
    }
    Ok(listed)
}

/// Of a person whose data are touched in [`months`], and nowhere else.
const SUBJECT: [u8; 16] = [5; 16];

/// The whole of a story, and parts of it that begin and end in and between months.
fn periods(lines: &[Line]) -> anyhow::Result<Vec<Period>> {
    let first = Day::of(lines.first().context("no lines")?.recorded_at).0;
    let last = Day::of(lines.last().context("no lines")?.recorded_at).0;
    let days = last + 1 - first;
    [(first - 40, last + 1), (first + days / 5, last - days / 6), (last, last + 1)]
        .into_iter()
        .filter(|(from, to)| from < to)
        .map(|(from, to)| Ok(Period::new(Day(from), Day(to))?))
        .collect()
}

fn recomputed(
    report: Report,
    options: &Options,
    records: &[access_ledger_client::verify::Record],
) -> anyhow::Result<wire::ReportTable> {
    let mut recomputed = Recomputed::new(report, options.clone());
    recomputed.take(Place::GENESIS, records);
    Ok(recomputed.table()?)
}

/// Compares all reports of an index with their recomputation; returns how many rows there were.
fn compare_reports(
    stored: &Stored,
    index: &Index,
    story: &Story,
    periods: &[Period],
) -> anyhow::Result<usize> {
    let records = story.records()?;
    let mut rows = 0;
    for &period in periods {
        let options = Options { period, subject: Some(SUBJECT.to_vec()), with_staff: true };
        for report in Report::ALL {
            let (table, footer) = index.report(&stored.reader, report, &options)?;
            let expected = recomputed(report, &options, &records)?;
            assert_eq!(table, expected, "{report} of {period}");
            assert_eq!(footer.size, story.next_index().0);
            rows += table.rows.len();
        }
    }
    Ok(rows)
}

#[test]
fn reports_of_months_are_those_of_a_recomputation() -> anyhow::Result<()> {
    let story = months()?;
    let periods = periods(story.lines())?;
    let mut stored = Stored::new()?;
    stored.append(&story.records()?)?;
    for block_entries in [13, 65_536] {
        let (index, _indexer) = stored.index(block_entries)?;
        assert!(compare_reports(&stored, &index, &story, &periods)? > 100);
        let all = listed(&index, &FindingFilter::default(), 1_000)?;
        assert_eq!(all, story::fold::findings(story.lines())?);
    }
    Ok(())
}

#[test]
fn reports_of_a_busy_day_are_those_of_a_recomputation() -> anyhow::Result<()> {
    let story = generate(7, 3_000)?;
    let mut stored = Stored::new()?;
    stored.append(&story.records()?)?;
    let (index, _indexer) = stored.index(500)?;
    compare_reports(&stored, &index, &story, &periods(story.lines())?)?;
    Ok(())
}

#[test]
fn findings_are_listed_by_rule_and_state_in_pages_of_any_size() -> anyhow::Result<()> {
    let story = generate(3, 3_000)?;
    let mut stored = Stored::new()?;
    stored.append(&story.records()?)?;
    let (index, _indexer) = stored.index(1_000)?;
    let all = story::fold::findings(story.lines())?;
    assert!(all.len() > 50);
    for most in [1, 7, 1_000] {
        assert_eq!(listed(&index, &FindingFilter::default(), most)?, all);
    }
    let filters: [(&[&str], &[FindingState]); 4] = [
        (&["NO_GRANT"], &[]),
        (&["GRANT_SCOPE", "CROSS_REGION", "NOBODY_BROKE_THIS"], &[FindingState::Unspecified]),
        (&[], &[FindingState::Acknowledged, FindingState::Explained, FindingState::Closed]),
        (&["NOBODY_BROKE_THIS"], &[]),
    ];
    for (rules, states) in filters {
        let filter = FindingFilter {
            rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
            states: states.iter().map(|state| (*state).into()).collect(),
        };
        let wanted = |finding: &&FindingRecord| {
            (rules.is_empty() || rules.contains(&&*finding.rule))
                && (states.is_empty() || states.contains(&finding.state()))
        };
        let expected: Vec<_> = all.iter().filter(wanted).cloned().collect();
        assert_eq!(listed(&index, &filter, 5)?, expected);
        let indexes = index.indexes_of_rules(rules.iter().copied());
        let of_rules = all.iter().filter(|finding| rules.contains(&&*finding.rule));
        let mut of_rules: Vec<_> = of_rules
            .filter(|finding| finding.rule != "ERASED_WITHOUT_RECORD")
            .map(|finding| finding.index)
            .collect();
        of_rules.sort_unstable();
        of_rules.dedup();
        assert_eq!(indexes.iter().collect::<Vec<_>>(), of_rules);
    }
    Ok(())
}

/// All rows of the facts, as text.
fn rows_of(facts: &Facts) -> Vec<String> {
    let mut rows = Vec::new();
    facts.requests().each(|key, row| rows.push(format!("{key} {row:?}")));
    facts.grants().each(|key, row| rows.push(format!("{key} {row:?}")));
    facts.break_glass().each(|key, row| rows.push(format!("{key} {row:?}")));
    facts.legal().each(|key, row| rows.push(format!("{key} {row:?}")));
    facts.erasures().each(|key, row| rows.push(format!("{key} {row:?}")));
    facts.holdings().each(|key, row| rows.push(format!("{key} {row:?}")));
    facts.intents().each(|key, row| rows.push(format!("{key} {row:?}")));
    facts.controls().each(|key, row| rows.push(format!("{key} {row:?}")));
    facts.handling().each(|key, row| rows.push(format!("{key} {row:?}")));
    rows.push(format!("{:?}", facts.policy()));
    rows.extend(facts.sources().iter().map(|source| format!("{source:?}")));
    rows
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 6,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn restarts_at_any_point_change_nothing(
        seed in any::<u64>(),
        block_entries in 1_u32..60,
        stops in prop::collection::vec(1_usize..120, 1..8),
    ) {
        let run = || -> anyhow::Result<()> {
            let story = generate(seed, 400)?;
            let records = story.records()?;
            let (mut stored, mut rest) = (Stored::new()?, &records[..]);
            for stop in stops.iter().copied().chain([usize::MAX]) {
                let (part, after) = rest.split_at(stop.min(rest.len()));
                stored.append(part)?;
                drop(stored.index(block_entries)?);
                rest = after;
            }
            let (index, indexer) = stored.index(block_entries)?;
            let findings = listed(&index, &FindingFilter::default(), 100)?;
            assert_eq!(findings, story::fold::findings(story.lines())?);
            compare_reports(&stored, &index, &story, &periods(story.lines())?[..1])?;

            let mut whole = Stored::new()?;
            whole.append(&records)?;
            let (_, uninterrupted) = whole.index(65_536)?;
            let (facts, expected) = (indexer.authority(), uninterrupted.authority());
            assert_eq!(rows_of(facts.facts()), rows_of(expected.facts()));
            Ok(())
        };
        run().unwrap();
    }
}

/// All files below a folder.
fn files(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(self::files(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

#[test]
fn whatever_is_lost_of_the_index_costs_time_only() -> anyhow::Result<()> {
    let story = generate(11, 600)?;
    let mut stored = Stored::new()?;
    stored.append(&story.records()?)?;
    let expected = story::fold::findings(story.lines())?;
    let period = *periods(story.lines())?.first().context("no period")?;
    let options = Options { period, subject: None, with_staff: false };
    let ask = |what: &Path| -> anyhow::Result<()> {
        let (index, indexer) = stored.index(64).with_context(|| format!("{}", what.display()))?;
        assert_eq!(listed(&index, &FindingFilter::default(), 100)?, expected, "{}", what.display());
        let (table, _) = index.report(&stored.reader, Report::CrossRegion, &options)?;
        assert_eq!(table, recomputed(Report::CrossRegion, &options, &story.records()?)?);
        assert_eq!(indexer.size(), stored.reader.size());
        Ok(())
    };
    let folder = stored.folder().join("index");
    ask(&folder)?;
    for file in files(&folder)? {
        if file.exists() {
            fs::remove_file(&file)?;
        }
        ask(&file)?;
    }
    let findings = folder.join("findings");
    let length = fs::metadata(&findings)?.len();
    for wrong in [length - 1, length / 2, 0] {
        fs::File::options().write(true).open(&findings)?.set_len(wrong)?;
        ask(&findings)?;
    }
    for lost in ["blocks", "state", ""] {
        fs::remove_dir_all(folder.join(lost))?;
        ask(&folder.join(lost))?;
    }
    Ok(())
}

#[tokio::test]
async fn findings_and_reports_are_served_at_the_indexed_size() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let mut source = node.clients().enrolled("payments", 1, &node.vkey).await?;
    node.clients().record(&source.record(5)?).await?;
    let mut auditor = node.clients().auditor;
    let size = node.clients().size(&node.vkey).await?;

    let request = wire::ListFindingsRequest { page_size: 2, ..Default::default() };
    let page = auditor.list_findings(request.clone()).await?.into_inner();
    assert_eq!((page.findings.len(), page.indexed_size), (2, size));
    let unvetted = &page.findings.first().context("no finding")?;
    assert_eq!((&*unvetted.rule, unvetted.index), ("SOURCE_UNVETTED", 1));
    let page_token = page.next_page_token;
    let next = auditor.list_findings(wire::ListFindingsRequest { page_token, ..request }).await?;
    assert!(next.into_inner().findings.iter().all(|finding| !page.findings.contains(finding)));

    let midnight = |day: i64| Some(prost_types::Timestamp { seconds: day * 86_400, nanos: 0 });
    let good = wire::GetReportRequest {
        name: "sources".into(),
        from: midnight(20_000),
        to: midnight(30_000),
        ..Default::default()
    };
    let report = auditor.get_report(good.clone()).await?.into_inner();
    let footer = report.footer.context("no footer")?;
    let checkpoint =
        auditor.get_checkpoint(wire::GetCheckpointRequest::default()).await?.into_inner();
    let note = String::from_utf8(checkpoint.checkpoint.to_vec())?;
    let root = note.lines().nth(2).context("no root")?;
    assert_eq!(footer.size, size);
    assert_eq!(base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &footer.root), root);
    assert_eq!(footer.sources, 2);
    assert!(!report.table.context("no table")?.rows.is_empty());

    let late = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    let bad = [
        ("name", wire::GetReportRequest { name: "gossip".into(), ..good.clone() }),
        ("from", wire::GetReportRequest { from: late, ..good.clone() }),
        ("from", wire::GetReportRequest { from: None, ..good.clone() }),
        ("to", wire::GetReportRequest { to: None, ..good.clone() }),
        ("from", wire::GetReportRequest { to: good.from, ..good.clone() }),
        ("subject_token", wire::GetReportRequest { name: "subject".into(), ..good.clone() }),
    ];
    for (field, request) in bad {
        let status = auditor.get_report(request).await.err().context("served")?;
        let refused = Refused::of(&status);
        assert_eq!(refused.kind(), (Code::InvalidArgument, "REQUEST_INVALID"));
        assert_eq!(refused.field.as_deref(), Some(field));
    }
    let request = wire::ListFindingsRequest { page_token: "next".into(), ..Default::default() };
    let status = auditor.list_findings(request).await.err().context("served")?;
    assert_eq!(Refused::of(&status).field.as_deref(), Some("page_token"));
    node.stop().await
}
