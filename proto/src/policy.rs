//! The policy: what the facts of an access mean.
//!
//! A policy is a Cedar policy set (<https://docs.cedarpolicy.com>), kept in the log by what both
//! governance parties signed. It is asked once for each dataset of an access or transfer, as a pure
//! function of a [`Question`], whose attributes are those of `policy/schema.cedarschema`. Each
//! `forbid` carries an `@id`, which is the rule that a finding names.
//!
//! What comes into force was checked in Cedar's strict mode: a rule that misspells an attribute or
//! a value never does. What cannot be answered all the same is denied: no rule that permits, an
//! error while a rule is evaluated, a value that the schema does not know.

mod answers;
mod question;
mod request;
mod text;

use std::{collections::BTreeSet, str::FromStr as _, sync::Arc};

use cedar_policy::{
    Authorizer, Decision, Effect, PolicySet, ValidationMode, Validator, ffi::DetailedError,
};

use self::text::{Statement, place, statements};
pub use self::{
    answers::Answers,
    question::{Act, Destination, GrantStanding, IntentStanding, Magnitude, Question},
};
use crate::{error::PolicyError, hash::sha256};

/// The rule of what no rule permits or what a rule could not be evaluated for.
pub const POLICY_VIOLATED: &str = "POLICY_VIOLATED";

/// A checked policy.
#[derive(Clone, Debug)]
pub struct Policy {
    set: PolicySet,
    sees: Sees,
}

/// What a policy says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer(Arc<[Arc<str>]>);

/// Which of the names that a question holds a policy looks at. Others need not tell one question
/// from another, so that few answers serve many accesses.
#[derive(Clone, Copy, Debug, Default)]
struct Sees {
    employer: bool,
    roles: bool,
    dataset: bool,
    region: bool,
    tool: bool,
    destination_site: bool,
}

impl Policy {
    /// What a ledger starts with unless told otherwise, with a comment on each rule.
    pub const DEFAULT: &str = include_str!("policy/default.cedar");

    /// What a policy can see, in Cedar's schema syntax, with comments.
    pub const SCHEMA: &str = include_str!("policy/schema.cedarschema");

    /// Longest text, in bytes: what fits a genesis.
    pub const LEN_MAX: usize = 24_000;

    /// Longest `@id`, in bytes.
    pub const ID_LEN_MAX: usize = 64;

    /// Reads and checks a policy's text: rules without slots, each `forbid` with an `@id` of 1 to
    /// 64 bytes of `[A-Z0-9_-]` that no other has, all of them sound by [`Policy::SCHEMA`] in
    /// Cedar's strict mode. The empty text is a policy, which permits nothing.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] with the first offending place.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > Self::LEN_MAX {
            let problem = format!("{} bytes of text, at most {}", text.len(), Self::LEN_MAX);
            return Err(place(text, Self::LEN_MAX, problem));
        }
        let statements = statements(text)?;
        let set = PolicySet::from_str(text)
            .map_err(|errors| first(text, &statements, [(None, DetailedError::from(&errors))]))?;
        check_rules(text, &statements, &set)?;
        check_types(text, &statements, &set)?;
        Ok(Self { sees: Sees::of(&set), set })
    }

    /// The policy that permits nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self { set: PolicySet::new(), sees: Sees::default() }
    }

    /// The `@id`s of the rules that forbid, sorted.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<&str> {
        self.set.policies().filter_map(|rule| rule.annotation("id")).collect()
    }

    /// Whether any rule permits something; whatever none permits is denied.
    #[must_use]
    pub fn permits(&self) -> bool {
        self.set.policies().any(|rule| rule.effect() == Effect::Permit)
    }

    /// Answers a question.
    #[must_use]
    pub fn answer(&self, question: &Question<'_>) -> Answer {
        let Some((request, entities)) = request::of(question) else {
            return Answer::violated();
        };
        let response = Authorizer::new().is_authorized(&request, &self.set, &entities);
        let diagnostics = response.diagnostics();
        let failed = diagnostics.errors().next().is_some();
        if response.decision() == Decision::Allow && !failed {
            return Answer::default();
        }
        // Of a denial, the reasons are the rules that forbid; of a failed permission, those that
        // permit, which have no say in it.
        let forbids = diagnostics.reason().filter(|_| response.decision() == Decision::Deny);
        let mut rules: BTreeSet<&str> =
            forbids.filter_map(|id| self.set.annotation(id, "id")).collect();
        if failed || rules.is_empty() {
            rules.insert(POLICY_VIOLATED);
        }
        Answer(rules.into_iter().map(Arc::from).collect())
    }
}

impl Answer {
    /// Whether the policy allows it.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules that object, sorted, each once.
    #[must_use]
    pub fn rules(&self) -> &[Arc<str>] {
        &self.0
    }

    /// The answer to what cannot be asked.
    #[must_use]
    pub fn violated() -> Self {
        Self(Arc::new([Arc::from(POLICY_VIOLATED)]))
    }
}

impl Default for Answer {
    /// Nothing objects.
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

impl Sees {
    fn of(set: &PolicySet) -> Self {
        // In this form an attribute that a rule looks at is spelled out between quotes, however
        // the text spells it. A literal of the same name only makes for more answers.
        let rules: Vec<_> = set.policies().map(cedar_policy::Policy::to_json).collect();
        let mentions = |name: &str| {
            let name = format!("\"{name}\"");
            rules.iter().any(|rule| rule.as_ref().map_or(true, |it| it.to_string().contains(&name)))
        };
        Self {
            employer: mentions("employer"),
            roles: mentions("roles"),
            dataset: mentions("dataset"),
            region: mentions("region"),
            tool: mentions("tool"),
            destination_site: mentions("destination_site"),
        }
    }
}

/// How the ledger names a policy: `<revision>-<first 8 hex digits of the SHA-256 of the text>`.
#[must_use]
pub fn version(revision: u64, text: &str) -> String {
    let digest = sha256(text.as_bytes()).to_string();
    format!("{revision}-{}", digest.get(..8).unwrap_or(&digest))
}

/// Refuses rules with slots, and a `forbid` without an `@id` of its own.
fn check_rules(text: &str, statements: &[Statement], set: &PolicySet) -> Result<(), PolicyError> {
    let mut ids = BTreeSet::new();
    for (number, statement) in statements.iter().enumerate() {
        let id = cedar_policy::PolicyId::new(policy_id(number));
        let Some(rule) = set.policy(&id) else {
            return Err(place(text, statement.start, "rule with a slot, which nothing fills"));
        };
        if rule.effect() == Effect::Permit {
            continue;
        }
        let Some(name) = rule.annotation("id") else {
            return Err(place(text, statement.start, "`forbid` without an `@id`"));
        };
        let at = statement.id.unwrap_or(statement.start);
        let fits = (1..=Policy::ID_LEN_MAX).contains(&name.len());
        if !fits || !name.bytes().all(|it| matches!(it, b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-')) {
            let problem = format!("`@id` {name:?}, expected 1 to 64 of A-Z, 0-9, `_`, `-`");
            return Err(place(text, at, problem));
        }
        if !ids.insert(name) {
            return Err(place(text, at, format!("`@id` {name:?} stands twice")));
        }
    }
    Ok(())
}

/// Refuses what Cedar's strict mode finds wrong or odd by the schema: also a rule that can never
/// apply, and text that looks like something else than it is.
fn check_types(text: &str, statements: &[Statement], set: &PolicySet) -> Result<(), PolicyError> {
    let checked = Validator::new(request::schema().clone()).validate(set, ValidationMode::Strict);
    let errors = checked.validation_errors();
    let mut found: Vec<_> = errors
        .map(|error| (Some(error.policy_id().to_string()), DetailedError::from(error)))
        .collect();
    if found.is_empty() {
        let warnings = checked.validation_warnings();
        found = warnings
            .map(|warning| (Some(warning.policy_id().to_string()), DetailedError::from(warning)))
            .collect();
    }
    if found.is_empty() { Ok(()) } else { Err(first(text, statements, found)) }
}

/// The first of the errors in the order of the text, each with the rule that it is about, if known.
fn first(
    text: &str,
    statements: &[Statement],
    errors: impl IntoIterator<Item = (Option<String>, DetailedError)>,
) -> PolicyError {
    let start_of = |rule: Option<String>| {
        let mut rules = statements.iter().enumerate();
        let found = rule.and_then(|rule| rules.find(|&(number, _)| policy_id(number) == rule));
        found.map_or(0, |(_, statement)| statement.start)
    };
    let located = errors.into_iter().map(|(rule, error)| {
        let label = error.source_locations.iter().min_by_key(|label| label.loc.start);
        let at = label.map_or_else(|| start_of(rule), |label| label.loc.start);
        (at, problem(&error))
    });
    let (at, problem) = located.min().unwrap_or_default();
    place(text, at, problem)
}

/// One line of what an error says, without the number that Cedar gave the rule.
fn problem(error: &DetailedError) -> String {
    let label = error.source_locations.iter().find_map(|label| label.label.as_deref());
    let parts = [Some(error.message.as_str()), label, error.help.as_deref()];
    let parts = parts.into_iter().flatten().map(|part| {
        let rest = part.strip_prefix("for policy `").and_then(|rest| rest.split_once('`'));
        let part = rest.map_or(part, |(_, rest)| rest.trim_start_matches([',', ':']));
        part.split_whitespace().collect::<Vec<_>>().join(" ")
    });
    parts.collect::<Vec<_>>().join("; ")
}

/// The id that Cedar gives the rule of this number in a text.
fn policy_id(number: usize) -> String {
    format!("policy{number}")
}

#[cfg(test)]
mod tests;
