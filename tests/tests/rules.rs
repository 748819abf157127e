//! Every rule of the vocabulary is found where it is broken, and nowhere else.

use std::collections::BTreeSet;

use access_ledger_proto::findings::rules::RULES;
use access_ledger_tests::{
    offences::{OFFENCES, Tell},
    story::{Story, fold::findings},
};

/// What is found in a story that opens in order and goes on like this.
fn found(tell: Tell) -> anyhow::Result<Vec<String>> {
    let mut story = Story::open()?;
    tell(&mut story)?;
    Ok(findings(story.lines())?.into_iter().map(|finding| finding.rule).collect())
}

#[test]
fn every_offence_breaks_its_rule_and_no_other() -> anyhow::Result<()> {
    for (offence, number) in OFFENCES.iter().zip(0..) {
        assert_eq!(found(offence.commit)?, [offence.rule], "offence {number}");
    }
    Ok(())
}

#[test]
fn no_innocent_twin_breaks_a_rule() -> anyhow::Result<()> {
    for (offence, number) in OFFENCES.iter().zip(0..) {
        assert_eq!(found(offence.twin)?, [""; 0], "twin {number} of {}", offence.rule);
    }
    Ok(())
}

#[test]
fn every_rule_has_an_offence() {
    let offences: BTreeSet<_> = OFFENCES.iter().map(|offence| offence.rule).collect();
    let rules: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(offences, rules);
}

#[test]
fn every_finding_says_what_it_rests_on() -> anyhow::Result<()> {
    for offence in &OFFENCES {
        let mut story = Story::open()?;
        (offence.commit)(&mut story)?;
        for finding in findings(story.lines())? {
            assert_eq!(finding.finding_id, format!("{}-{}", finding.rule, finding.index));
            assert!(finding.index <= finding.found_index, "{finding:?}");
            assert!(finding.time > 0 && !finding.facts.is_empty(), "{finding:?}");
            let names: BTreeSet<_> = finding.facts.iter().map(|fact| &fact.name).collect();
            assert_eq!(names.len(), finding.facts.len(), "{finding:?}");
        }
    }
    Ok(())
}
