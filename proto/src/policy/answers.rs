//! Answers of one policy, kept for questions that come again.

use std::{collections::BTreeMap, sync::Arc};

use super::{Answer, Policy, Question, question::Key};

/// A policy, and what it said so far. Gives what [`Policy::answer`] gives, only sooner.
#[derive(Clone, Debug)]
pub struct Answers {
    policy: Arc<Policy>,
    kept: BTreeMap<Key, Answer>,
}

/// Most answers that are kept; about 2 MiB. When there are more, all are forgotten: a policy that
/// is asked so much is told apart by names, which come and go.
pub(super) const KEPT_MAX: usize = 16_384;

impl Answers {
    /// Nothing was asked yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy: Arc::new(policy), kept: BTreeMap::new() }
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Answers a question.
    pub fn answer(&mut self, question: &Question<'_>) -> Answer {
        let key = question.key(self.policy.sees);
        if let Some(answer) = self.kept.get(&key) {
            return answer.clone();
        }
        let answer = self.policy.answer(question);
        if self.kept.len() >= KEPT_MAX {
            self.kept.clear();
        }
        self.kept.insert(key, answer.clone());
        answer
    }
}
