//! Evidence of honest statements proves nothing, however it is laid out or altered; evidence of
//! dishonest ones convicts whoever signed them, and nobody else.

use access_ledger_proto::{
    hash::leaf_hash,
    note::{KeyType, Signer},
    position::{count_of, memory_len},
    proof::inclusion_path,
    tree::{Node, root_of},
    wire,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::{prelude::*, sample::Index as Pick};
use prost::Message as _;

use super::{
    reading::Title,
    writing::{finish, section},
    *,
};
use crate::verify::{Fault, LogVerifier, Record, Scope, honest::Honest};

/// The tree over some records.
struct Leaves(Vec<Digest>);

/// A node beyond the leaves.
#[derive(Debug)]
struct Beyond;

impl NodeSource for Leaves {
    type Error = Beyond;

    fn node(&self, node: Node) -> Result<Digest, Beyond> {
        let place = |index: u64| index.checked_shl(node.level.into()).and_then(memory_len);
        let range = (place(node.index).zip(place(node.index + 1))).map(|(from, to)| from..to);
        range.and_then(|range| self.0.get(range)).map(root_of).ok_or(Beyond)
    }
}

/// A log of batches of these lengths.
fn log(batches: impl IntoIterator<Item = u64>) -> Honest {
    let mut ledger = Honest::new();
    ledger.register("a");
    ledger.register("b");
    for (at, events) in batches.into_iter().enumerate() {
        ledger.record(if at % 2 == 0 { "a" } else { "b" }, events);
    }
    ledger
}

/// The same ledger's other history, which differs from the entry at `from` on.
fn other(ledger: &Honest, from: usize) -> Honest {
    let mut other = log([]);
    other.records.clone_from(&ledger.records);
    for record in other.records.iter_mut().skip(from) {
        let mut entry = record.entry.to_vec();
        // The event's digest.
        entry[60] ^= 1;
        record.entry = entry.into();
    }
    other
}

fn leaves(records: &[Record]) -> Leaves {
    Leaves(records.iter().map(|record| leaf_hash(&record.entry)).collect())
}

fn witness(seed: u8) -> Signer {
    Signer::new(&format!("witness/{seed}"), KeyType::CosignatureV1, [seed; 32]).unwrap()
}

/// The ledger's checkpoint over its first entries, cosigned.
fn signed(ledger: &Honest, size: usize, witnesses: &[&Signer]) -> VerifiedCheckpoint {
    let checkpoint = ledger.checkpoint_of(&ledger.records[..size]);
    let mut note = checkpoint.note().to_owned();
    for witness in witnesses {
        note.push_str(&checkpoint.cosign(witness, 1_790_000_000).unwrap());
    }
    let keys: Vec<_> = witnesses.iter().map(|witness| witness.verifier().clone()).collect();
    VerifiedCheckpoint::open(note.as_bytes(), ledger.signer.verifier(), &keys).unwrap()
}

/// The entry at `index` under the first `size`.
fn proof(ledger: &Honest, index: usize, size: usize) -> TlogProof {
    let place = Index(count_of(index));
    let path = inclusion_path(&leaves(&ledger.records), place, Size(count_of(size))).unwrap();
    let entry = ledger.records[index].entry.to_vec();
    let checkpoint = signed(ledger, size, &[]).note().to_owned();
    TlogProof { entry, index: place, path, checkpoint }
}

fn judged(text: &str) -> Result<Verdict, EvidenceError> {
    Evidence::parse(text.as_bytes())?.judge(&[])
}

/// The convictions of a file, none where it proves nothing.
fn convictions(text: &str) -> Vec<Conviction> {
    match judged(text) {
        Ok(Verdict::Proven(convictions)) => convictions,
        Ok(Verdict::NotProven) | Err(_) => Vec::new(),
    }
}

fn keys(text: &str) -> Vec<String> {
    convictions(text).iter().map(|conviction| conviction.key.name().to_owned()).collect()
}

/// What an audit of the records that the ledger signs as they are finds, with all proofs.
fn caught(ledger: &Honest) -> Option<Caught> {
    let served = ledger.checkpoint();
    let mut verifier = LogVerifier::new(ledger.signer.verifier(), Scope::Events);
    let taken = verifier.advance(vec![(Index::GENESIS, ledger.records.clone())]);
    let violation = taken.and_then(|()| verifier.finish(&served)).err()?;
    let at = match violation.what {
        Fault::Unsealed { size } => vec![size.last_index().unwrap()],
        _ => {
            let run = wire::EntryRun::decode(violation.evidence.as_slice()).unwrap();
            let count = count_of(run.entries.len());
            (run.first_index..run.first_index + count).map(Index).collect()
        }
    };
    let size = ledger.records.len();
    let proofs = at.iter().map(|index| proof(ledger, memory_len(index.0).unwrap(), size));
    let proofs = proofs.collect();
    Some(Caught::Log { violation: Box::new(violation), served: Box::new(served), proofs })
}

/// One of every kind of evidence that convicts, by name.
fn dishonest() -> Vec<(&'static str, String)> {
    let ledger = log([3, 2, 4]);
    let forked = other(&ledger, 5);
    let (known, size) = (witness(7), ledger.records.len());
    let vkey = ledger.signer.verifier();
    let boxed = |ledger: &Honest, size| Box::new(signed(ledger, size, &[&known]));
    let tree = leaves(&ledger.records);
    let caught_at = |size| {
        let held = signed(&ledger, ledger.records.len(), &[&known]);
        compare_held(&held, &signed(&forked, size, &[]), &tree).unwrap().unwrap()
    };
    let (pinned, served) = (boxed(&forked, 7), boxed(&ledger, size));
    let path = consistency_path(&tree, Size(7), Size(count_of(size))).unwrap();
    let error = ProofError::Length { found: 0, wanted: 1 };
    let shown = Caught::Inconsistent { pinned, served, error, path };
    let mut backwards = log([3, 2, 4]);
    backwards.alter(6, |entry| entry.recorded_at -= 5_000);
    backwards.rechain();
    vec![
        ("same size", caught_at(size).evidence(vkey)),
        ("two sizes", caught_at(7).evidence(vkey)),
        ("a power of two", caught_at(8).evidence(vkey)),
        ("shown by the ledger", shown.evidence(vkey)),
        ("a rule", caught(&backwards).unwrap().evidence(vkey)),
    ]
}

#[test]
fn each_kind_of_misdeed_is_proven() {
    for (what, text) in dishonest() {
        let Ok(Verdict::Proven(found)) = judged(&text) else {
            panic!("{what}: {:?}\n{text}", judged(&text));
        };
        assert!(found.iter().any(|found| found.key.name() == "ledger.example/test"), "{what}");
        // Whoever signed one history only is not accused.
        let both = what == "shown by the ledger";
        assert_eq!(found.iter().any(|found| found.key.name() == "witness/7"), both, "{what}");
    }
}

#[test]
fn every_byte_counts() {
    for (what, text) in dishonest() {
        let proven = convictions(&text);
        for at in 0..text.len() {
            for bit in [1_u8, 1 << 5] {
                let mut changed = text.clone().into_bytes();
                changed[at] ^= bit;
                assert!(Evidence::parse(&changed).is_err(), "{what}: byte {at}");
                // Whoever changes a file can compute its digest again.
                let Ok(changed) = String::from_utf8(changed) else { continue };
                let Some((content, _)) = changed.rsplit_once("\n--- sha256 ") else { continue };
                let found = convictions(&finish(content.to_owned()));
                let same = found.iter().all(|one| proven.contains(one));
                assert!(same, "{what}: byte {at} accuses of something else");
            }
        }
    }
}

#[test]
fn entries_that_break_a_rule_by_themselves_are_proven_and_their_twins_are_not() {
    type Break = fn(&mut Honest);
    let rules: [(&str, Break); 8] = [
        ("link", |ledger| ledger.alter(6, |entry| entry.prev = Digest::ZERO)),
        ("index", |ledger| ledger.alter(6, |entry| entry.index = Index(9))),
        ("time", |ledger| ledger.alter(6, |entry| entry.recorded_at = 1)),
        ("form", |ledger| ledger.records[6].entry = vec![9; 100].into()),
        ("interrupted", |ledger| ledger.records[5] = ledger.records[7].clone()),
        ("number", |ledger| ledger.alter(7, |entry| entry.source_seq += 4)),
        ("number of a batch", |ledger| {
            ledger.record("a", 1);
            ledger.alter(12, |entry| entry.source_seq += 4);
        }),
        ("unsealed", |ledger| drop(ledger.records.pop())),
    ];
    for (rule, break_it) in rules {
        let mut ledger = log([3, 2, 4]);
        let twin = log([3, 2, 4]);
        break_it(&mut ledger);
        if matches!(rule, "interrupted") {
            ledger.rechain();
        }
        let vkey = ledger.signer.verifier();
        let text = caught(&ledger).unwrap_or_else(|| panic!("{rule}")).evidence(vkey);
        let found = convictions(&text);
        let [Conviction { misdeed: Misdeed::Rule { violation, .. }, .. }] = &found[..] else {
            panic!("{rule}: {:?}\n{text}", judged(&text));
        };
        let what = &violation.what;
        let fits = match rule {
            "link" => matches!(what, Fault::Link { .. }),
            "index" => matches!(what, Fault::Index { .. }),
            "time" => matches!(what, Fault::Time { .. }),
            "form" => matches!(what, Fault::Entry(_)),
            "interrupted" => matches!(what, Fault::Interrupted { .. }),
            "number" | "number of a batch" => matches!(what, Fault::Sequence(_)),
            _ => matches!(what, Fault::Unsealed { .. }),
        };
        assert!(fits, "{rule}: {what}");
        // The same entries of a ledger that kept the rule.
        let Ok(evidence) = Evidence::parse(text.as_bytes()) else { panic!("{rule}") };
        let exhibits = evidence.exhibits.iter().map(|exhibit| match exhibit {
            Exhibit::EntryProof(known) => {
                let at = memory_len(known.index.0).unwrap().min(twin.records.len() - 1);
                Exhibit::EntryProof(proof(&twin, at, twin.records.len()))
            }
            _ => Exhibit::Checkpoint(twin.checkpoint().note().to_owned()),
        });
        let text = render(&twin, &[], exhibits);
        assert_eq!(judged(&text), Ok(Verdict::NotProven), "{rule}");
    }
}

#[test]
fn what_is_the_writers_word_is_not_proven() {
    let ledger = log([3, 2]);
    let vkey = ledger.signer.verifier();
    let at = |size| Box::new(signed(&ledger, size, &[]));
    let (index, bytes) = (Index(4), Bytes::from_static(b"anything\n--- at all ---\n"));
    let problem = "gone\n\n--- checkpoint served (1 lines) ---\nforged".to_owned();
    let proof = Box::new(proof(&ledger, 4, 8));
    let run = |event: &[u8]| {
        let (entry, event) = (ledger.records[4].entry.clone(), Bytes::copy_from_slice(event));
        let (entries, events) = (vec![entry], vec![event]);
        wire::EntryRun { first_index: 4, entries, events }.encode_to_vec()
    };
    let all = [
        Caught::Checkpoint { error: CheckpointError::Lines, note: bytes.clone() },
        Caught::Rollback { pinned: at(8), served: at(3) },
        Caught::Unproven { pinned: at(3), served: at(8), problem: problem.clone() },
        Caught::Withheld { index, problem: problem.clone(), served: at(8) },
        Caught::Proof {
            index,
            error: ReceiptError::Genesis { found: Digest::ZERO },
            file: problem,
        },
        Caught::Answer { problem: "none".into(), bytes },
        Caught::Altered { index, signed: at(8), proof, held: run(b"one"), served: run(b"two") },
    ];
    for caught in all {
        let text = caught.evidence(vkey);
        let evidence = Evidence::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(evidence.finding, printable(&caught));
        assert_eq!(judged(&text), Ok(Verdict::NotProven), "{caught}");
    }
}

#[test]
fn a_witness_that_the_reader_knows_is_convicted_too() {
    let ledger = log([3, 2]);
    let (silent, known) = (other(&ledger, 3), witness(3));
    let [one, two] = [&ledger, &silent].map(|history| signed(history, 8, &[&known]));
    let bare = |checkpoint: &VerifiedCheckpoint| Exhibit::Checkpoint(checkpoint.note().to_owned());
    let text = render(&ledger, &[], [bare(&one), bare(&two)].into_iter());
    assert_eq!(keys(&text), ["ledger.example/test"]);
    let evidence = Evidence::parse(text.as_bytes()).unwrap();
    let Ok(Verdict::Proven(found)) = evidence.judge(&[known.verifier().clone()]) else {
        panic!("{text}");
    };
    assert_eq!(found.len(), 2);
    assert!(found.iter().any(|conviction| conviction.key == *known.verifier()), "{found:?}");
}

#[test]
fn malformed_files_are_refused_by_line() {
    let ledger = log([3]);
    let note = ledger.checkpoint().note().to_owned();
    let good = render(&ledger, &[], [Exhibit::Checkpoint(note)].into_iter());
    assert_eq!(judged(&good), Ok(Verdict::NotProven));
    let resealed = |text: &str| finish(text.rsplit_once("\n--- sha256 ").unwrap().0.to_owned());
    for (from, to, line) in [
        ("evidence v1", "evidence v2", 1),
        ("finding: ", "finding:", 2),
        ("ledger: ", "Ledger: ", 3),
        ("\n\n--- check", "\n--- check", 4),
        ("checkpoint served", "checkpoint swerved", 5),
        (" lines) ---", " lines)", 5),
        ("(5 lines)", "(05 lines)", 5),
        ("(5 lines)", "(6 lines)", 12),
    ] {
        let changed = resealed(&good.replacen(from, to, 1));
        let found = Evidence::parse(changed.as_bytes());
        assert!(
            matches!(found, Err(EvidenceError::Line { line: at, .. }) if at == line),
            "{from:?} to {to:?}: {found:?}"
        );
    }
    let cut = good.trim_end();
    assert!(matches!(Evidence::parse(cut.as_bytes()), Err(EvidenceError::Line { .. })));
    let more = format!("{good}\n");
    assert!(matches!(Evidence::parse(more.as_bytes()), Err(EvidenceError::Line { .. })));
    let control = good.replace("finding: ", "finding: \r");
    assert!(matches!(Evidence::parse(control.as_bytes()), Err(EvidenceError::Text { .. })));
    let notes = vec![Exhibit::Other(Vec::new()); Evidence::SECTIONS_MAX + 1];
    let many = render(&ledger, &[], notes.into_iter());
    assert_eq!(Evidence::parse(many.as_bytes()), Err(EvidenceError::TooManySections));
}

/// A file of these exhibits.
fn render(
    ledger: &Honest,
    witnesses: &[&Signer],
    exhibits: impl Iterator<Item = Exhibit>,
) -> String {
    let vkey = ledger.signer.verifier();
    let mut text = format!("access-ledger evidence v1\nfinding: anything\nledger: {vkey}\n");
    for witness in witnesses {
        text.push_str(&format!("witness: {}\n", witness.verifier()));
    }
    let lines = |hashes: &[Digest]| -> String {
        hashes.iter().map(|hash| STANDARD.encode(hash) + "\n").collect()
    };
    for exhibit in exhibits {
        let (title, content) = match exhibit {
            Exhibit::Checkpoint(note) => (Title::CheckpointServed, note),
            Exhibit::OtherHistory { under, path } => {
                (Title::OtherHistory, lines(&[&[under], &path[..]].concat()))
            }
            Exhibit::PathServed(path) => (Title::PathServed, lines(&path)),
            Exhibit::EntryProof(proof) => (Title::EntryProof, proof.encode()),
            Exhibit::Entries(run) => {
                (Title::EntriesServed, STANDARD.encode(run.encode_to_vec()) + "\n")
            }
            Exhibit::Other(bytes) => (Title::NoteServed, STANDARD.encode(bytes) + "\n"),
        };
        section(&mut text, title, &content);
    }
    finish(text)
}

/// Something that an honest ledger of these records has signed or shown.
fn honest_exhibit(ledger: &Honest, witness: &Signer, kind: u8, picks: &[Pick; 3]) -> Exhibit {
    let count = ledger.records.len();
    let tree = leaves(&ledger.records);
    // Honest ledgers end where a batch does.
    let ends: Vec<usize> = (1..=count)
        .filter(|&size| {
            let entry = access_ledger_proto::entry::Entry::parse(&ledger.records[size - 1].entry);
            entry.unwrap().seal.is_some()
        })
        .collect();
    let mut sizes = [ends[picks[0].index(ends.len())], ends[picks[1].index(ends.len())]];
    sizes.sort_unstable();
    let [old, new] = sizes.map(|size| Size(count_of(size)));
    match kind % 5 {
        0 => Exhibit::Checkpoint(signed(ledger, sizes[0], &[witness]).note().to_owned()),
        1 => Exhibit::OtherHistory {
            under: root_at(&tree, old).unwrap(),
            path: consistency_path(&tree, old, new).unwrap(),
        },
        2 => Exhibit::PathServed(consistency_path(&tree, old, new).unwrap()),
        3 => Exhibit::EntryProof(proof(ledger, picks[2].index(sizes[1]), sizes[1])),
        _ => {
            let at = picks[2].index(count);
            let entries = vec![ledger.records[at].entry.clone()];
            let events = vec![ledger.records[at].event.clone().unwrap_or_default()];
            Exhibit::Entries(wire::EntryRun { first_index: count_of(at), entries, events })
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn honest_statements_prove_nothing_however_they_are_mixed_or_altered(
        batches in prop::collection::vec(1_u64..5, 0..6),
        shown in prop::collection::vec((any::<u8>(), any::<[Pick; 3]>()), 0..10),
        changes in prop::collection::vec((any::<Pick>(), any::<u8>()), 64),
        moves in prop::collection::vec((any::<Pick>(), any::<Pick>()), 16),
    ) {
        let (ledger, known) = (log(batches), witness(5));
        let exhibit =
            |(kind, picks): &(u8, [Pick; 3])| honest_exhibit(&ledger, &known, *kind, picks);
        let exhibits = shown.iter().map(exhibit);
        let text = render(&ledger, &[&known], exhibits);
        prop_assert_eq!(judged(&text), Ok(Verdict::NotProven), "{}", text);
        let (content, _) = text.rsplit_once("\n--- sha256 ").unwrap();
        for (at, byte) in changes {
            let mut changed = content.as_bytes().to_vec();
            let at = at.index(changed.len());
            changed[at] = byte;
            let Ok(changed) = String::from_utf8(changed) else { continue };
            prop_assert!(convictions(&finish(changed.clone())).is_empty(), "{}", changed);
        }
        // Whole lines from elsewhere in the file: hashes, sizes, roots, signatures.
        let lines: Vec<&str> = content.split_inclusive('\n').collect();
        for (from, to) in moves {
            let mut changed = lines.clone();
            changed[to.index(lines.len())] = lines[from.index(lines.len())];
            let changed = changed.concat();
            prop_assert!(convictions(&finish(changed.clone())).is_empty(), "{}", changed);
        }
    }

    #[test]
    fn a_fork_at_any_two_sizes_is_proven_by_who_holds_the_tree(
        batches in prop::collection::vec(1_u64..6, 1..12),
        from: Pick,
        size: Pick,
        cosigned: [bool; 2],
    ) {
        let (ledger, known) = (log(batches), witness(5));
        let count = ledger.records.len();
        let (from, size) = (from.index(count), size.index(count) + 1);
        let forked = other(&ledger, from);
        let by = |cosigned: bool| if cosigned { vec![&known] } else { Vec::new() };
        let held = signed(&ledger, count, &by(cosigned[0]));
        let served = signed(&forked, size, &by(cosigned[1]));
        let tree = leaves(&ledger.records);
        let caught = compare_held(&held, &served, &tree).unwrap();
        // Up to where the histories part there is nothing to find.
        prop_assert_eq!(caught.is_some(), size > from);
        if let Some(caught) = caught {
            let text = caught.evidence(ledger.signer.verifier());
            let witness = cosigned == [true, true];
            let wanted = if witness { vec!["ledger.example/test", "witness/5"] } else { vec!["ledger.example/test"] };
            prop_assert_eq!(keys(&text), wanted);
        }
        let twin = signed(&ledger, size, &[]);
        prop_assert!(compare_held(&held, &twin, &tree).unwrap().is_none());
    }

    #[test]
    fn nothing_that_is_read_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _verdict = Evidence::parse(&bytes).map(|evidence| evidence.judge(&[]));
        let text = format!(
            "access-ledger evidence v1\nfinding: x\nledger: {}\n{}",
            Honest::new().signer.verifier(),
            String::from_utf8_lossy(&bytes)
        );
        prop_assert!(convictions(&finish(text)).is_empty());
    }
}
