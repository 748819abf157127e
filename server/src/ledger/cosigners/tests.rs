//! What is asked for next, and which cosignatures are kept.

use access_ledger_proto::note::{KeyType, Signer};

use super::*;

fn key(name: &str, seed: u8) -> VerifierKey {
    let key_type = if name == "log" { KeyType::Ed25519 } else { KeyType::CosignatureV1 };
    Signer::new(name, key_type, [seed; 32]).unwrap().verifier().clone()
}

fn policy(lines: &[String]) -> Option<Quorum> {
    Some(Quorum::parse(lines.concat()).unwrap())
}

fn line(name: &str, seed: u8, url: &str) -> String {
    format!("witness {name} {} {url}\n", key(name, seed))
}

#[test]
fn every_address_is_asked_once_for_all_of_its_keys() {
    let none = "quorum none\n".to_owned();
    let cosigning = Cosigning {
        witnesses: policy(&[
            line("a", 1, "http://one/"),
            line("b", 2, "http://two"),
            line("c", 3, "http://one"),
            none.clone(),
        ]),
        receipts: policy(&[line("a", 1, "http://one"), line("d", 4, "http://two/"), none]),
        ..Cosigning::default()
    };
    let place = |url: &str, keys: [VerifierKey; 2]| Place { url: url.into(), keys: keys.into() };
    let places = [
        place("http://one", [key("a", 1), key("c", 3)]),
        place("http://two", [key("b", 2), key("d", 4)]),
    ];
    assert_eq!(cosigning.places(), places);
    assert_eq!(cosigning.keys(), [key("a", 1), key("b", 2), key("c", 3), key("d", 4)]);
}

#[test]
fn receipts_that_would_wait_for_ever_are_refused() {
    let lines = |quorum: &str| {
        let ab = [line("a", 1, "http://one"), line("b", 2, "")];
        policy(&[ab.concat(), format!("group any any a b\n{quorum}")])
    };
    let check = |receipts| {
        let cosigning = Cosigning { receipts, ..Cosigning::default() };
        cosigning.check(&[&key("log", 9)]).map_err(|error| error.to_string())
    };
    assert_eq!(check(lines("quorum a\n")), Ok(()));
    // Of two, the one with an address is enough.
    assert_eq!(check(lines("quorum any\n")), Ok(()));
    let refused = "receipts would wait for ever: no address is known of b";
    assert_eq!(check(lines("quorum b\n")), Err(refused.to_owned()));
    // A custodian's mirror is asked with its witness.
    let mirror = [line("a", 1, "http://one"), line("a/mirror", 3, ""), "quorum a/mirror\n".into()];
    assert_eq!(check(policy(&mirror)), Ok(()));
    // Somebody else's file may tell where b is.
    let cosigning = Cosigning {
        witnesses: policy(&[line("b", 2, "http://two"), "quorum none\n".to_owned()]),
        receipts: lines("quorum b\n"),
        ..Cosigning::default()
    };
    assert!(cosigning.check(&[&key("log", 9)]).is_ok());
}

#[test]
fn a_newer_cosignature_takes_the_place_of_an_older_one_and_no_other() {
    let mut gathered = Gathered {
        root: Digest::ZERO,
        note: "note\n".to_owned(),
        cosignatures: Vec::new(),
        lines: Vec::new(),
    };
    let mut put = |seed, timestamp_s, line: &str| {
        let cosignature = Cosignature { key: key("w", seed), timestamp_s };
        gathered.put(cosignature, line.to_owned());
        gathered.published(Size(1)).note.clone()
    };
    assert_eq!(put(1, 5, "one at 5\n"), "note\none at 5\n");
    assert_eq!(put(2, 5, "two at 5\n"), "note\none at 5\ntwo at 5\n");
    assert_eq!(put(1, 4, "one at 4\n"), "note\none at 5\ntwo at 5\n");
    assert_eq!(put(1, 6, "one at 6\n"), "note\none at 6\ntwo at 5\n");
}
