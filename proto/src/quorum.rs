//! Trust policies: which cosignatures make a checkpoint good enough (C2SP tlog-policy).
//!
//! ```text
//! log <vkey> [<url>]
//! witness <name> <vkey> [<url>]
//! group <name> <k|any|all> <member>...
//! quorum <name|none>
//! ```
//!
//! Lines may be indented, empty, or comments (`#`); words are parted by spaces and tabs. A group's
//! members are witnesses and groups of the lines before it, each a member of one group at most: so
//! there are no cycles, and no witness counts twice. Names mean nothing outside of the file.
//!
//! Promises: what [`Quorum::is_met`] accepts was signed by as many witnesses as the file asks for,
//! each on the very checkpoint at hand. Nothing here recurses, whatever the file says.

mod parse;

use std::collections::BTreeSet;

use crate::{
    checkpoint::Cosignature,
    error::QuorumError,
    note::{KeyType, VerifierKey},
};

/// A trust policy: the logs and witnesses that its owner knows, and the quorum of the witnesses.
///
/// The default one knows nobody and wants nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quorum {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    /// In the order of the file: members come before the groups that they are in.
    groups: Vec<Group>,
    /// `None`: no cosignature is wanted.
    wanted: Option<Member>,
}

/// A log that a policy accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyLog {
    /// Its key, of the type [`KeyType::Ed25519`]; the name is the origin.
    pub key: VerifierKey,
    /// Where it can be reached.
    pub url: Option<String>,
}

/// A witness that a policy knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyWitness {
    /// Its name in the policy, which need not be the key's.
    pub name: String,
    /// Its key, of the type [`KeyType::CosignatureV1`].
    pub key: VerifierKey,
    /// Where it takes checkpoints: the prefix of `/add-checkpoint`.
    pub url: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    threshold: usize,
    /// At least one.
    members: Vec<Member>,
}

/// By position in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Witness(usize),
    Group(usize),
}

impl Quorum {
    /// Reads a policy file. Names that are not UTF-8 are compared by their bytes.
    ///
    /// # Errors
    ///
    /// The first line that is wrong, see [`crate::error::QuorumFault`].
    pub fn parse(file: impl AsRef<[u8]>) -> Result<Self, QuorumError> {
        parse::parse(file.as_ref())
    }

    /// The policy that knows these witnesses, named like their keys, and wants none of them.
    #[must_use]
    pub fn of_known(keys: Vec<VerifierKey>) -> Self {
        let witness = |key: VerifierKey| {
            let name = key.name().to_owned();
            PolicyWitness { name, key, url: None }
        };
        Self { witnesses: keys.into_iter().map(witness).collect(), ..Self::default() }
    }

    /// Whether it wants any cosignature at all.
    #[must_use]
    pub const fn wants_any(&self) -> bool {
        self.wanted.is_some()
    }

    /// The logs that it names, in the order of the file; none means that any may be checked.
    #[must_use]
    pub fn logs(&self) -> &[PolicyLog] {
        &self.logs
    }

    /// All witnesses that it names, in the order of the file, whether or not the quorum needs them.
    #[must_use]
    pub fn witnesses(&self) -> &[PolicyWitness] {
        &self.witnesses
    }

    /// The keys of all witnesses, in the order of the file.
    #[must_use]
    pub fn keys(&self) -> Vec<VerifierKey> {
        self.witnesses.iter().map(|witness| witness.key.clone()).collect()
    }

    /// Whether the policy is for checkpoints of the log with this key.
    #[must_use]
    pub fn accepts_log(&self, key: &VerifierKey) -> bool {
        self.logs.is_empty() || self.logs.iter().any(|log| log.key == *key)
    }

    /// Whether the verified cosignatures of one checkpoint are enough for it.
    ///
    /// They are those of [`crate::checkpoint::VerifiedCheckpoint::cosignatures`], opened with
    /// [`Quorum::keys`]. Others than the policy's witnesses do not count.
    #[must_use]
    pub fn is_met(&self, cosignatures: &[Cosignature]) -> bool {
        let Some(wanted) = self.wanted else {
            return true;
        };
        self.held(cosignatures).has(wanted)
    }

    /// Names of the witnesses whose cosignatures would help, in the order of the file: those that
    /// did not sign, of the groups that are not met. Empty when the quorum is met.
    #[must_use]
    pub fn lacking(&self, cosignatures: &[Cosignature]) -> Vec<&str> {
        let held = self.held(cosignatures);
        let mut names = BTreeSet::new();
        let mut open: Vec<Member> = self.wanted.into_iter().collect();
        while let Some(member) = open.pop() {
            match member {
                _ if held.has(member) => {}
                Member::Witness(at) => drop(names.insert(at)),
                Member::Group(at) => {
                    open.extend(self.groups.get(at).iter().flat_map(|group| &group.members));
                }
            }
        }
        let witnesses = names.into_iter().filter_map(|at| self.witnesses.get(at));
        witnesses.map(|witness| witness.name.as_str()).collect()
    }

    fn held(&self, cosignatures: &[Cosignature]) -> Held {
        let signed =
            |witness: &PolicyWitness| cosignatures.iter().any(|found| found.key == witness.key);
        let witnesses = self.witnesses.iter().map(signed).collect();
        let mut held = Held { witnesses, groups: Vec::with_capacity(self.groups.len()) };
        for Group { threshold, members } in &self.groups {
            let count = members.iter().filter(|member| held.has(**member)).count();
            held.groups.push(count >= *threshold);
        }
        held
    }
}

/// Which witnesses and groups have witnessed a checkpoint, by position.
struct Held {
    witnesses: Vec<bool>,
    groups: Vec<bool>,
}

impl Held {
    fn has(&self, member: Member) -> bool {
        let found = match member {
            Member::Witness(at) => self.witnesses.get(at),
            Member::Group(at) => self.groups.get(at),
        };
        found.copied().unwrap_or(false)
    }
}

/// What signs checkpoints, and what cosigns them.
const LOG_KEY: KeyType = KeyType::Ed25519;
const WITNESS_KEY: KeyType = KeyType::CosignatureV1;

#[cfg(test)]
mod tests;
