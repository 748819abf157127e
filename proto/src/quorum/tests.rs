use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    error::{KeyError, QuorumFault},
    hash::sha256,
    note::Signer,
};

fn key(name: &str, key_type: KeyType, seed: u64) -> VerifierKey {
    let seed = *sha256(&seed.to_be_bytes()).as_bytes();
    Signer::new(name, key_type, seed).unwrap().verifier().clone()
}

fn witness(seed: u64) -> VerifierKey {
    key(&format!("witness.example/{seed}"), KeyType::CosignatureV1, seed)
}

fn log(seed: u64) -> VerifierKey {
    key("ledger.example/1", KeyType::Ed25519, seed)
}

fn signed(seeds: &[u64]) -> Vec<Cosignature> {
    seeds.iter().map(|&seed| Cosignature { key: witness(seed), timestamp_s: 1 }).collect()
}

fn fault(file: impl AsRef<[u8]>) -> (usize, QuorumFault) {
    let error = Quorum::parse(file).unwrap_err();
    (error.line, error.fault)
}

/// The example of the specification.
fn example() -> String {
    let mut file = format!("log {} https://ledger.example\n\n", log(0));
    for group in ["X", "Y"] {
        for at in 1..=3 {
            let seed = at + if group == "X" { 10 } else { 20 };
            let key = witness(seed);
            file.push_str(&format!("witness {group}{at} {key} https://w{seed}.example/\n"));
        }
    }
    file.push_str("group X-witnesses 2 X1 X2 X3\n");
    file.push_str("group Y-witnesses any Y1 Y2 Y3\n");
    file.push_str("group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n");
    file
}

#[test]
fn the_specifications_example_asks_for_two_of_one_and_one_of_the_other() {
    let quorum = Quorum::parse(example()).unwrap();
    for (seeds, met) in [
        (&[11, 12, 21][..], true),
        (&[13, 12, 23], true),
        (&[11, 12, 13, 21, 22, 23], true),
        (&[11, 21, 22, 23], false),
        (&[11, 12, 13], false),
        (&[], false),
    ] {
        assert_eq!(quorum.is_met(&signed(seeds)), met, "{seeds:?}");
        assert_eq!(quorum.lacking(&signed(seeds)).is_empty(), met, "{seeds:?}");
    }
    assert_eq!(quorum.lacking(&signed(&[11, 21])), ["X2", "X3"]);
    assert_eq!(quorum.lacking(&signed(&[11, 12])), ["Y1", "Y2", "Y3"]);
    let urls = quorum.witnesses().iter().map(|witness| witness.url.as_deref().unwrap());
    assert_eq!(urls.collect::<Vec<_>>()[4], "https://w22.example/");
}

#[test]
fn only_the_logs_of_the_file_are_accepted_and_without_any_all_are() {
    let quorum = Quorum::parse(example()).unwrap();
    assert!(quorum.accepts_log(&log(0)) && !quorum.accepts_log(&log(1)));
    assert!(Quorum::parse("quorum none\n").unwrap().accepts_log(&log(1)));
}

#[test]
fn a_cosignature_of_the_same_key_under_another_name_does_not_count() {
    let quorum = Quorum::parse(format!("witness a {}\nquorum a\n", witness(1))).unwrap();
    let renamed = key("somebody.else", KeyType::CosignatureV1, 1);
    assert!(quorum.is_met(&signed(&[1])));
    assert!(!quorum.is_met(&[Cosignature { key: renamed, timestamp_s: 1 }]));
    assert!(!quorum.is_met(&signed(&[2])));
}

#[test]
fn one_that_signed_twice_counts_once() {
    let file = format!("witness a {}\nwitness b {}\n", witness(1), witness(2));
    let quorum = Quorum::parse(format!("{file}group g 2 a b\nquorum g\n")).unwrap();
    assert!(!quorum.is_met(&signed(&[1, 1])));
    assert!(quorum.is_met(&signed(&[2, 1, 1])));
}

#[test]
fn no_quorum_wants_nothing_and_knows_its_witnesses_nevertheless() {
    let quorum = Quorum::parse(format!("witness a {}\nquorum none\n", witness(1))).unwrap();
    assert!(quorum.is_met(&[]) && quorum.lacking(&[]).is_empty());
    assert_eq!(quorum.keys(), [witness(1)]);
    assert!(Quorum::default().is_met(&[]));
    let known = Quorum::of_known(vec![witness(1), witness(2)]);
    assert!(known.is_met(&[]) && !known.wants_any() && known.witnesses().len() == 2);
}

#[test]
fn spaces_tabs_comments_and_names_of_any_bytes_are_read() {
    let mut file = Vec::new();
    file.extend_from_slice(b"\t # a comment with \xff bytes\n \t \n#\n");
    file.extend_from_slice(format!("  witness\t K  {} \n", witness(1)).as_bytes());
    // The Kelvin sign is another name than K, and bytes that are no UTF-8 are a name.
    file.extend_from_slice(format!("witness \u{212a} {}\n", witness(2)).as_bytes());
    file.extend_from_slice(b"witness \xff ");
    file.extend_from_slice(format!("{}\n", witness(3)).as_bytes());
    file.extend_from_slice(b"group any any \xff\nquorum any\n");
    let quorum = Quorum::parse(&file).unwrap();
    assert!(quorum.is_met(&signed(&[3])) && !quorum.is_met(&signed(&[1, 2])));
    assert_eq!(quorum.lacking(&[]), ["\u{fffd}"]);
}

#[test]
fn every_fault_is_told_with_its_line() {
    let (a, b) = (format!("witness a {}\n", witness(1)), format!("witness b {}\n", witness(2)));
    let ab = format!("{a}{b}");
    let name = |name: &str| name.to_owned();
    assert_eq!(fault(""), (0, QuorumFault::NoQuorum));
    assert_eq!(fault(&a), (1, QuorumFault::NoQuorum));
    assert_eq!(fault("quorum none"), (1, QuorumFault::Unterminated));
    assert_eq!(fault("\nquorum none\r\n"), (2, QuorumFault::Control { found: b'\r' }));
    assert_eq!(fault("# \x7f\n"), (1, QuorumFault::Control { found: 0x7f }));
    assert_eq!(fault("#\nlogs x\n"), (2, QuorumFault::Keyword { found: name("logs") }));
    for (line, form) in [
        ("log", "log <vkey> [<url>]"),
        ("log a b c", "log <vkey> [<url>]"),
        ("witness a", "witness <name> <vkey> [<url>]"),
        ("witness a b c d", "witness <name> <vkey> [<url>]"),
        ("group g", "group <name> <k|any|all> <member>..."),
        ("group g any", "group <name> <k|any|all> <member>..."),
        ("quorum", "quorum <name>"),
        ("quorum a b", "quorum <name>"),
    ] {
        assert_eq!(fault(format!("{a}{line}\n")), (2, QuorumFault::Form { wanted: form }));
    }
    assert_eq!(fault("witness a b\n"), (1, QuorumFault::Key(KeyError::Form)));
    let (found, wanted) = (KeyType::Ed25519, KeyType::CosignatureV1);
    let as_witness = format!("witness a {}\n", log(1));
    assert_eq!(fault(as_witness), (1, QuorumFault::KeyType { found, wanted }));
    let as_log = format!("log {}\n", witness(1));
    let swapped = QuorumFault::KeyType { found: wanted, wanted: found };
    assert_eq!(fault(as_log), (1, swapped));
    // The same key is a duplicate whatever its name; a log's may be a witness's too.
    let renamed = key("other", KeyType::CosignatureV1, 1);
    let twice = format!("{a}witness c {renamed}\n");
    assert_eq!(fault(twice), (2, QuorumFault::KeyTwice { first: 1 }));
    let logs = format!("log {}\nlog {}\n", log(1), key("other", KeyType::Ed25519, 1));
    assert_eq!(fault(logs), (2, QuorumFault::KeyTwice { first: 1 }));
    assert!(Quorum::parse(format!("{a}log {}\nquorum a\n", log(1))).is_ok());
    let taken = |taken: &str| QuorumFault::NameTaken { name: name(taken) };
    assert_eq!(fault(format!("{a}witness a {}\n", witness(2))), (2, taken("a")));
    assert_eq!(fault(format!("{ab}group a any b\n")), (3, taken("a")));
    assert_eq!(fault(format!("witness none {}\n", witness(1))), (1, taken("none")));
    let undefined = |undefined: &str| QuorumFault::Undefined { name: name(undefined) };
    assert_eq!(fault(format!("quorum a\n{a}")), (1, undefined("a")));
    assert_eq!(fault(format!("{a}group g any g\n")), (2, undefined("g")));
    assert_eq!(fault(format!("{a}group g any none\n")), (2, undefined("none")));
    let member = |member: &str| QuorumFault::MemberTwice { name: name(member) };
    assert_eq!(fault(format!("{a}group g any a a\n")), (2, member("a")));
    assert_eq!(fault(format!("{ab}group g any a\ngroup h all a b\n")), (4, member("a")));
    for found in ["0", "3", "01", "+1", "-1", "1.0", "ANY", "99999999999999999999"] {
        let threshold = QuorumFault::Threshold { found: name(found), members: 2 };
        assert_eq!(fault(format!("{ab}group g {found} a b\n")), (3, threshold));
    }
    let two = format!("{a}quorum none\n\nquorum a\n");
    assert_eq!(fault(two), (4, QuorumFault::QuorumTwice { first: 2 }));
}

#[test]
fn groups_may_nest_as_deep_as_the_file_is_long() {
    let mut file = format!("witness a {}\ngroup g0 all a\n", witness(1));
    for depth in 1..20_000 {
        file.push_str(&format!("group g{depth} any g{}\n", depth - 1));
    }
    file.push_str("quorum g19999\n");
    let quorum = Quorum::parse(file).unwrap();
    assert!(quorum.is_met(&signed(&[1])) && !quorum.is_met(&[]));
    assert_eq!(quorum.lacking(&[]), ["a"]);
}

/// A policy as a tree: what the file must mean.
#[derive(Clone, Debug)]
enum Tree {
    Witness(u64),
    Group(usize, Vec<Self>),
}

impl Tree {
    fn is_met(&self, signed: &BTreeSet<u64>) -> bool {
        match self {
            Self::Witness(seed) => signed.contains(seed),
            Self::Group(threshold, members) => {
                members.iter().filter(|member| member.is_met(signed)).count() >= *threshold
            }
        }
    }

    /// Gives witnesses numbers of their own, and thresholds that can hold.
    fn number(&mut self, next: &mut u64) {
        match self {
            Self::Witness(seed) => {
                *seed = *next;
                *next += 1;
            }
            Self::Group(threshold, members) => {
                *threshold = 1 + *threshold % members.len();
                members.iter_mut().for_each(|member| member.number(next));
            }
        }
    }

    /// Writes the lines that define it; its name.
    fn write(&self, file: &mut String, groups: &mut usize) -> String {
        match self {
            Self::Witness(seed) => {
                file.push_str(&format!("witness w{seed} {}\n", witness(*seed)));
                format!("w{seed}")
            }
            Self::Group(threshold, members) => {
                let names: Vec<_> =
                    members.iter().map(|member| member.write(file, groups)).collect();
                *groups += 1;
                file.push_str(&format!("group g{groups} {threshold} {}\n", names.join(" ")));
                format!("g{groups}")
            }
        }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = Just(Tree::Witness(0));
    leaf.prop_recursive(4, 24, 5, |inner| {
        (any::<u8>(), proptest::collection::vec(inner, 1..5))
            .prop_map(|(threshold, members)| Tree::Group(threshold.into(), members))
    })
}

proptest! {
    #[test]
    fn a_file_means_what_its_tree_means(mut tree in tree(), signers in any::<u32>()) {
        let mut count = 0;
        tree.number(&mut count);
        let (mut file, mut groups) = (String::new(), 0);
        let name = tree.write(&mut file, &mut groups);
        file.push_str(&format!("quorum {name}\n"));
        let quorum = Quorum::parse(&file).unwrap();
        let mut signers: BTreeSet<u64> =
            (0..count).filter(|seed| signers >> (seed % 32) & 1 == 1).collect();
        let cosigned = |signers: &BTreeSet<u64>| {
            signed(&signers.iter().copied().collect::<Vec<_>>())
        };
        let met = quorum.is_met(&cosigned(&signers));
        prop_assert_eq!(met, tree.is_met(&signers));
        // Who lacks has not signed, and all of them together are enough.
        let lacking: Vec<u64> = quorum
            .lacking(&cosigned(&signers))
            .iter()
            .map(|name| name[1..].parse().unwrap())
            .collect();
        prop_assert_eq!(lacking.is_empty(), met);
        prop_assert!(lacking.iter().all(|seed| !signers.contains(seed)));
        signers.extend(lacking);
        prop_assert!(quorum.is_met(&cosigned(&signers)));
    }

    #[test]
    fn any_bytes_are_a_policy_or_an_error_with_a_line(
        lines in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..20),
                Just(b"group g any a".to_vec()),
                Just(b"quorum none".to_vec()),
                Just(format!("witness a {}", witness(1)).into_bytes()),
            ],
            0..6,
        ),
    ) {
        let file = lines.join(&b'\n');
        if let Err(error) = Quorum::parse(&file) {
            prop_assert!(error.line <= file.split(|&byte| byte == b'\n').count());
        }
    }
}
