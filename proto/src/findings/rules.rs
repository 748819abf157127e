//! The rules that this program knows: how grave a breach is, and what it means in one sentence.
//!
//! A policy may bring rules of its own, which no table can know; they count as [`DEFAULT`].

use crate::wire::Severity;

/// A rule that a finding may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, as findings carry it.
    pub name: &'static str,
    /// How grave a breach is.
    pub severity: Severity,
    /// What happened, for an auditor who meets the name for the first time.
    pub meaning: &'static str,
}

/// Of a rule that only the policy in the log knows.
pub const DEFAULT: Severity = Severity::Medium;

/// How grave a breach of a rule is.
#[must_use]
pub fn severity(name: &str) -> Severity {
    find(name).map_or(DEFAULT, |rule| rule.severity)
}

/// A rule by its name; `None` for one of a policy's own.
#[must_use]
pub fn find(name: &str) -> Option<&'static Rule> {
    let place = RULES.binary_search_by_key(&name, |rule| rule.name).ok()?;
    RULES.get(place)
}

const fn critical(name: &'static str, meaning: &'static str) -> Rule {
    Rule { name, severity: Severity::Critical, meaning }
}

const fn high(name: &'static str, meaning: &'static str) -> Rule {
    Rule { name, severity: Severity::High, meaning }
}

const fn medium(name: &'static str, meaning: &'static str) -> Rule {
    Rule { name, severity: Severity::Medium, meaning }
}

const fn low(name: &'static str, meaning: &'static str) -> Rule {
    Rule { name, severity: Severity::Low, meaning }
}

/// All rules that facts, timers or the default policy can find broken, sorted by name.
pub const RULES: [Rule; 30] = [
    critical("ACCESS_AFTER_ERASURE", "data was reached at a site that was certified erased"),
    high("APPROVALS_MISSING", "the grant has fewer approvals that count than it needs"),
    high("APPROVER_NOT_AUTHORIZED", "a source without the role answered a request"),
    high("BEYOND_VERDICT", "an access went beyond the ledger's verdict on its intent"),
    high("BREAK_GLASS_UNREVIEWED", "emergency access was not reviewed in time"),
    critical("BULK_EXPORT", "much protected data was exported with fewer than two approvers"),
    medium("CLASSIFICATION_MISMATCH", "an event classifies a dataset below its registration"),
    critical("CONTROL_CHANGED_ALONE", "a rule was changed without both governance parties"),
    medium("CONTROL_INVALID", "a change of the rules is of no effect: old revision or no content"),
    critical("COPY_OUTSIDE_CUSTODY", "protected data went to a place that is not in custody"),
    high("CROSS_REGION", "staff abroad reached protected data that no grant names"),
    critical("DISCLOSURE_WITHOUT_PROCESS", "data went to an authority without a legal process"),
    critical("ERASED_WITHOUT_RECORD", "events are gone and no redaction accounts for them"),
    high("GRANT_EXHAUSTED", "the grant's uses or records were spent"),
    medium("GRANT_NOT_IN_FORCE", "the grant had not begun, was over, or was suspended"),
    high("GRANT_REVOKED", "the grant had been revoked"),
    high("GRANT_SCOPE", "the access lies outside of what the grant covers"),
    high("GRANT_UNKNOWN", "no such grant or request is in the log"),
    high("INTENT_MISSING", "the access needed a verdict beforehand and names none"),
    medium("INTENT_UNANSWERED", "the ledger gave no verdict on an intended access in time"),
    medium("LOCATION_UNVERIFIED", "nothing verified where the person was"),
    low("LOW_INFORMATION_JUSTIFICATION", "the reason given says nothing"),
    high("NO_GRANT", "protected data was reached without a grant"),
    critical("POLICY_VIOLATED", "something was allowed that the policy forbids"),
    critical("PRIVILEGED_ACCESS", "a privileged account reached protected data without a grant"),
    critical("SELF_APPROVED", "somebody approved their own request"),
    medium("SOURCE_GAP", "a source lost events before they were numbered"),
    high("SOURCE_SILENT", "a source was silent for longer than it promised"),
    low("SOURCE_UNVETTED", "a source registered itself and nobody vouched for it"),
    medium("TOOL_NOT_APPROVED", "the tool or its build is not registered, or was withdrawn"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_found_by_its_name() {
        for rule in &RULES {
            assert_eq!(find(rule.name), Some(rule), "out of order");
            assert!(!rule.meaning.is_empty());
        }
        assert_eq!(find("HOUSE_RULE"), None);
        assert_eq!(severity("HOUSE_RULE"), DEFAULT);
        assert_eq!(severity("POLICY_VIOLATED"), Severity::Critical);
    }
}
