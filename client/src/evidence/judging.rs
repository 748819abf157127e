//! Judges evidence offline, by signatures and hashes alone.
//!
//! An honest ledger signs one history: for each size one root, each under every later one, over
//! entries that keep the rules. An honest witness cosigns no second history. So whatever honest
//! parties have ever signed, laid side by side in any way, proves nothing here. What is not signed
//! (what a server sent, what the writer says that it found) is not looked at.
//!
//! A witness that cosigns a smaller size after a larger one is not convicted: the times in
//! cosignatures are of its own clock, which may have stepped back.

use std::{collections::BTreeMap, fmt};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    entry::Entry,
    error::{ProofError, SequenceGap},
    hash::{Digest, leaf_hash, sha256},
    note::VerifierKey,
    position::{Index, Size},
    proof::{verify_consistency, verify_inclusion},
    receipt::TlogProof,
};
use bytes::Bytes;

use super::{Evidence, EvidenceError, Exhibit, cosigners};
use crate::verify::{Fault, LogVerifier, Record, Scope, Violation, digest};

/// What a file of evidence proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The holders of these keys broke their word; at least one.
    Proven(Vec<Conviction>),
    /// The file is in order, and what its writer found is the writer's word.
    NotProven,
}

/// One key, and what its holder did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conviction {
    /// The ledger's or a witness's key.
    pub key: VerifierKey,
    /// What it was used for.
    pub misdeed: Misdeed,
}

/// What no honest holder of a key does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misdeed {
    /// Signed two roots of one size.
    TwoRoots {
        /// The size.
        size: Size,
        /// The roots, in the order of the file.
        roots: [Digest; 2],
    },
    /// Signed a history that does not begin with one that it signed as well.
    Diverged {
        /// The smaller size.
        smaller: Size,
        /// The root that it signed of that size.
        signed: Digest,
        /// The larger size.
        larger: Size,
        /// The root that the larger history has at the smaller size.
        under: Digest,
    },
    /// Signed two histories with different entries at one place.
    TwoEntries {
        /// The place.
        index: Index,
        /// The sizes of the histories, in the order of the file.
        sizes: [Size; 2],
        /// The entries' leaf hashes.
        leaves: [Digest; 2],
    },
    /// Signed a history whose entries break a rule.
    Rule {
        /// The size that it signed.
        size: Size,
        /// The rule and the place.
        violation: Violation,
    },
}

/// An entry that is under a signed root.
struct Proven {
    entry: Bytes,
    /// The event as it was served, if its digest is that in the entry.
    event: Option<Bytes>,
    checkpoint: VerifiedCheckpoint,
}

impl Evidence {
    /// Verifies every signature and proof of the file and concludes. `witnesses` are keys that the
    /// reader knows, beside those that the file names.
    ///
    /// # Errors
    ///
    /// [`EvidenceError::Checkpoint`] for a note that the file's ledger did not sign or whose known
    /// cosignature fails; [`EvidenceError::Unproven`] for a proof of an entry that does not hold.
    pub fn judge(&self, witnesses: &[VerifierKey]) -> Result<Verdict, EvidenceError> {
        let unknown = |key: &&VerifierKey| !self.witnesses.contains(key);
        let more = witnesses.iter().filter(unknown);
        let witnesses: Vec<_> = self.witnesses.iter().chain(more).cloned().collect();
        let mut signed = Vec::new();
        let mut entries = BTreeMap::<Index, Vec<Proven>>::new();
        for exhibit in &self.exhibits {
            match exhibit {
                Exhibit::Checkpoint(note) => {
                    let note = note.as_bytes();
                    signed.push(VerifiedCheckpoint::open(note, &self.ledger, &witnesses)?);
                }
                Exhibit::EntryProof(proof) => {
                    let proven = self.prove(proof, &witnesses)?;
                    signed.push(proven.checkpoint.clone());
                    entries.entry(proof.index).or_default().push(proven);
                }
                _ => {}
            }
        }
        let mut convictions = Convictions { ledger: &self.ledger, found: Vec::new() };
        self.judge_roots(&signed, &mut convictions);
        judge_places(&entries, &mut convictions);
        for under in &signed {
            convictions.judge_entries(under, &entries);
        }
        let found = convictions.found;
        Ok(if found.is_empty() { Verdict::NotProven } else { Verdict::Proven(found) })
    }

    /// Verifies that an entry is under a root that the ledger signed. Not [`TlogProof::verify`],
    /// which asks of the entry that it is in order.
    fn prove(&self, proof: &TlogProof, known: &[VerifierKey]) -> Result<Proven, EvidenceError> {
        let note = proof.checkpoint.as_bytes();
        let checkpoint = VerifiedCheckpoint::open(note, &self.ledger, known)?;
        let (index, size, root) = (proof.index, checkpoint.size(), checkpoint.root());
        verify_inclusion(index, size, leaf_hash(&proof.entry), &proof.path, root)
            .map_err(|error| EvidenceError::Unproven { index, error })?;
        let recorded = Entry::parse(&proof.entry).ok().map(|entry| entry.event_digest);
        let event = self.events(index).find(|event| recorded == Some(sha256(event))).cloned();
        Ok(Proven { entry: Bytes::copy_from_slice(&proof.entry), event, checkpoint })
    }

    /// The events that were served of an entry.
    fn events(&self, index: Index) -> impl Iterator<Item = &Bytes> {
        let runs = self.exhibits.iter().filter_map(|exhibit| match exhibit {
            Exhibit::Entries(run) => Some(run),
            _ => None,
        });
        runs.filter_map(move |run| {
            let offset = usize::try_from(index.0.checked_sub(run.first_index)?).ok()?;
            run.events.get(offset).filter(|event| !event.is_empty())
        })
    }

    /// Two roots of one size, or of two sizes that one path does not lead through.
    fn judge_roots(&self, signed: &[VerifiedCheckpoint], convictions: &mut Convictions<'_>) {
        for (at, one) in signed.iter().enumerate() {
            for other in signed.iter().skip(at + 1) {
                if one.size() == other.size() {
                    if one.root() != other.root() {
                        let (size, roots) = (one.size(), [one.root(), other.root()]);
                        convictions.both(one, other, &Misdeed::TwoRoots { size, roots });
                    }
                    continue;
                }
                let (old, new) =
                    if one.size() < other.size() { (one, other) } else { (other, one) };
                if let Some(under) =
                    self.exhibits.iter().find_map(|exhibit| under(exhibit, old, new))
                {
                    let (smaller, larger) = (old.size(), new.size());
                    let signed = old.root();
                    let misdeed = Misdeed::Diverged { smaller, signed, larger, under };
                    convictions.both(old, new, &misdeed);
                }
            }
        }
    }
}

/// The root that an exhibit shows `new` to have at the size of `old`, if it is another than that
/// of `old`.
fn under(exhibit: &Exhibit, old: &VerifiedCheckpoint, new: &VerifiedCheckpoint) -> Option<Digest> {
    let leads =
        |root, path: &[Digest]| verify_consistency(old.size(), new.size(), root, new.root(), path);
    let (under, path) = match exhibit {
        Exhibit::OtherHistory { under, path } => (*under, path),
        Exhibit::PathServed(path) => match leads(old.root(), path) {
            // What the path makes of the smaller size.
            Err(ProofError::Root { size, found, .. }) if size == old.size() => (found, path),
            _ => return None,
        },
        _ => return None,
    };
    (under != old.root() && leads(under, path).is_ok()).then_some(under)
}

/// Two entries at one place.
fn judge_places(entries: &BTreeMap<Index, Vec<Proven>>, convictions: &mut Convictions<'_>) {
    for (&index, proven) in entries {
        for (at, one) in proven.iter().enumerate() {
            for other in proven.iter().skip(at + 1).filter(|other| other.entry != one.entry) {
                let (one_under, other_under) = (&one.checkpoint, &other.checkpoint);
                let sizes = [one_under.size(), other_under.size()];
                let leaves = [leaf_hash(&one.entry), leaf_hash(&other.entry)];
                let misdeed = Misdeed::TwoEntries { index, sizes, leaves };
                convictions.both(one_under, other_under, &misdeed);
            }
        }
    }
}

/// Who is convicted of what, each once.
struct Convictions<'a> {
    ledger: &'a VerifierKey,
    found: Vec<Conviction>,
}

impl Convictions<'_> {
    /// The ledger signed both, and so did some witnesses.
    fn both(&mut self, one: &VerifiedCheckpoint, other: &VerifiedCheckpoint, misdeed: &Misdeed) {
        self.add(self.ledger.clone(), misdeed);
        for witness in cosigners(one).filter(|key| cosigners(other).any(|known| known == *key)) {
            self.add(witness.clone(), misdeed);
        }
    }

    fn add(&mut self, key: VerifierKey, misdeed: &Misdeed) {
        let conviction = Conviction { key, misdeed: misdeed.clone() };
        if !self.found.contains(&conviction) {
            self.found.push(conviction);
        }
    }

    /// The rules that entries break by themselves or beside each other, under one root. Cosigners
    /// of a bad history are not accused: a witness sees no entries.
    fn judge_entries(
        &mut self,
        under: &VerifiedCheckpoint,
        entries: &BTreeMap<Index, Vec<Proven>>,
    ) {
        let is_under = |proven: &&Proven| {
            let checkpoint = &proven.checkpoint;
            (checkpoint.size(), checkpoint.root()) == (under.size(), under.root())
        };
        let proven =
            entries.iter().filter_map(|(&index, at)| Some((index, at.iter().find(is_under)?)));
        let proven: Vec<(Index, &Proven)> = proven.collect();
        // Neighbours stand together in a run.
        for run in proven.chunk_by(|one, next| one.0.next() == next.0) {
            for violation in violations(run, self.ledger, under.size()) {
                let size = under.size();
                self.add(self.ledger.clone(), &Misdeed::Rule { size, violation });
            }
        }
    }
}

/// The rules that entries next to each other break, which are all under a root of `size`.
fn violations(run: &[(Index, &Proven)], ledger: &VerifierKey, size: Size) -> Vec<Violation> {
    let Some(&(first, front)) = run.first() else {
        return Vec::new();
    };
    let records = |scope| {
        let event = |proven: &Proven| proven.event.clone().filter(|_| scope == Scope::Events);
        let record = |(_, proven): &(Index, &Proven)| Record {
            entry: proven.entry.clone(),
            event: event(proven),
        };
        run.iter().map(record).collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    let entries = digest(first, records(Scope::EntriesOnly), Scope::EntriesOnly);
    if first == Index::GENESIS {
        // From the genesis on nothing is taken on trust.
        found.extend(LogVerifier::new(ledger, Scope::EntriesOnly).take(entries).err());
        if front.event.is_some() {
            let genesis: Vec<_> = records(Scope::Events).into_iter().take(1).collect();
            let genesis = digest(first, genesis, Scope::Events);
            let mut verifier = LogVerifier::new(ledger, Scope::Events);
            found.extend(verifier.take(genesis).and_then(|_| verifier.settle()).err());
        }
    } else {
        found.extend(entries.into_violation());
    }
    for pair in run.windows(2) {
        if let [(_, one), (index, next)] = pair {
            found.extend(skipped(&one.entry, &next.entry).map(|what| Violation::new(*index, what)));
        }
    }
    if let Some((last, proven)) = run.last()
        && size.last_index() == Some(*last)
        && Entry::parse(&proven.entry).is_ok_and(|entry| entry.seal.is_none())
    {
        found.push(Violation::new(*last, Fault::Unsealed { size }));
    }
    // One rule that is broken once is told once.
    found.iter_mut().for_each(|violation| violation.evidence.clear());
    found.sort_by_key(|violation| violation.index);
    found.dedup();
    found
}

/// Two batches of one source next to each other, whose numbers do not follow each other.
fn skipped(one: &[u8], next: &[u8]) -> Option<Fault> {
    let (one, next) = (Entry::parse(one).ok()?, Entry::parse(next).ok()?);
    let expected = one.source_seq.saturating_add(1);
    if one.source != next.source || next.source_seq == expected {
        return None;
    }
    let (name, found) = (next.source.to_owned(), next.source_seq);
    Some(Fault::Sequence(SequenceGap { name, found, expected }))
}

impl fmt::Display for Misdeed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoRoots { size, roots: [one, other] } => {
                write!(out, "two histories of size {size}: root {one} and root {other}")
            }
            Self::Diverged { smaller, signed, larger, under } => write!(
                out,
                "two histories: root {signed} of size {smaller}, and size {larger}, \
                 under which size {smaller} has root {under}"
            ),
            Self::TwoEntries { index, sizes: [one, other], leaves: [first, second] } => write!(
                out,
                "two histories, of sizes {one} and {other}: entry {index} has leaf hash {first} \
                 in one and {second} in the other"
            ),
            Self::Rule { size, violation } => {
                write!(out, "a history of size {size} that breaks a rule: {violation}")
            }
        }
    }
}
