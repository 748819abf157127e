//! Reads a policy file, line by line; what a line refers to stands before it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Group, LOG_KEY, Member, PolicyLog, PolicyWitness, Quorum, WITNESS_KEY};
use crate::{
    error::{KeyError, QuorumError, QuorumFault},
    note::{KeyType, VerifierKey, parse_decimal},
};

pub(super) fn parse(file: &[u8]) -> Result<Quorum, QuorumError> {
    let mut parser = Parser::default();
    let lines = file.split_inclusive(|&byte| byte == b'\n');
    let mut last = 0;
    for (text, line) in lines.zip(1..) {
        parser.line = line;
        parser.take(text).map_err(|fault| QuorumError { line, fault })?;
        last = line;
    }
    if parser.quorum_line.is_none() {
        return Err(QuorumError { line: last, fault: QuorumFault::NoQuorum });
    }
    Ok(parser.quorum)
}

/// What was read so far. Names and keys by the lines' own bytes.
#[derive(Default)]
struct Parser<'a> {
    quorum: Quorum,
    line: usize,
    quorum_line: Option<usize>,
    names: BTreeMap<&'a [u8], Member>,
    /// Those that are a member of a group.
    members: BTreeSet<&'a [u8]>,
    /// Public keys and the lines that have them, of logs and of witnesses.
    log_keys: BTreeMap<[u8; 32], usize>,
    witness_keys: BTreeMap<[u8; 32], usize>,
}

impl<'a> Parser<'a> {
    fn take(&mut self, text: &'a [u8]) -> Result<(), QuorumFault> {
        let text = text.strip_suffix(b"\n").ok_or(QuorumFault::Unterminated)?;
        let control = |byte: &&u8| **byte != b'\t' && byte.is_ascii_control();
        if let Some(&found) = text.iter().find(control) {
            return Err(QuorumFault::Control { found });
        }
        let mut words = text.split(|byte| matches!(byte, b' ' | b'\t'));
        let words: Vec<_> = words.by_ref().filter(|word| !word.is_empty()).collect();
        match words.split_first() {
            None => Ok(()),
            Some((first, _)) if first.starts_with(b"#") => Ok(()),
            Some((first, words)) => match *first {
                b"log" => self.log(words),
                b"witness" => self.witness(words),
                b"group" => self.group(words),
                b"quorum" => self.wanted(words),
                found => Err(QuorumFault::Keyword { found: told(found) }),
            },
        }
    }

    fn log(&mut self, words: &[&'a [u8]]) -> Result<(), QuorumFault> {
        let (key, url) = match *words {
            [key] => (key, None),
            [key, url] => (key, Some(told(url))),
            _ => return Err(QuorumFault::Form { wanted: "log <vkey> [<url>]" }),
        };
        let key = read_key(key, LOG_KEY, self.line, &mut self.log_keys)?;
        self.quorum.logs.push(PolicyLog { key, url });
        Ok(())
    }

    fn witness(&mut self, words: &[&'a [u8]]) -> Result<(), QuorumFault> {
        let (name, key, url) = match *words {
            [name, key] => (name, key, None),
            [name, key, url] => (name, key, Some(told(url))),
            _ => return Err(QuorumFault::Form { wanted: "witness <name> <vkey> [<url>]" }),
        };
        let key = read_key(key, WITNESS_KEY, self.line, &mut self.witness_keys)?;
        self.define(name, Member::Witness(self.quorum.witnesses.len()))?;
        self.quorum.witnesses.push(PolicyWitness { name: told(name), key, url });
        Ok(())
    }

    fn group(&mut self, words: &[&'a [u8]]) -> Result<(), QuorumFault> {
        let [name, threshold, names @ ..] = words else {
            return Err(QuorumFault::Form { wanted: GROUP_FORM });
        };
        if names.is_empty() {
            return Err(QuorumFault::Form { wanted: GROUP_FORM });
        }
        let threshold = read_threshold(threshold, names.len())?;
        let mut members = Vec::with_capacity(names.len());
        for &name in names {
            members.push(self.find(name)?);
            if !self.members.insert(name) {
                return Err(QuorumFault::MemberTwice { name: told(name) });
            }
        }
        // Behind its members: no group is a member of itself.
        self.define(name, Member::Group(self.quorum.groups.len()))?;
        self.quorum.groups.push(Group { threshold, members });
        Ok(())
    }

    fn wanted(&mut self, words: &[&'a [u8]]) -> Result<(), QuorumFault> {
        let [name] = *words else {
            return Err(QuorumFault::Form { wanted: "quorum <name>" });
        };
        if let Some(first) = self.quorum_line {
            return Err(QuorumFault::QuorumTwice { first });
        }
        self.quorum.wanted = if name == NONE { None } else { Some(self.find(name)?) };
        self.quorum_line = Some(self.line);
        Ok(())
    }

    fn define(&mut self, name: &'a [u8], member: Member) -> Result<(), QuorumFault> {
        if name == NONE || self.names.contains_key(name) {
            return Err(QuorumFault::NameTaken { name: told(name) });
        }
        self.names.insert(name, member);
        Ok(())
    }

    fn find(&self, name: &[u8]) -> Result<Member, QuorumFault> {
        let undefined = || QuorumFault::Undefined { name: told(name) };
        self.names.get(name).copied().ok_or_else(undefined)
    }
}

fn read_key(
    text: &[u8],
    wanted: KeyType,
    line: usize,
    known: &mut BTreeMap<[u8; 32], usize>,
) -> Result<VerifierKey, QuorumFault> {
    let text = str::from_utf8(text).map_err(|_| KeyError::Form)?;
    let key = VerifierKey::parse(text)?;
    if key.key_type() != wanted {
        return Err(QuorumFault::KeyType { found: key.key_type(), wanted });
    }
    match known.insert(*key.public_key().as_bytes(), line) {
        Some(first) => Err(QuorumFault::KeyTwice { first }),
        None => Ok(key),
    }
}

fn read_threshold(text: &[u8], members: usize) -> Result<usize, QuorumFault> {
    let number = |text: &[u8]| -> Option<usize> {
        parse_decimal(str::from_utf8(text).ok()?)?.try_into().ok()
    };
    let threshold = match text {
        b"any" => Some(1),
        b"all" => Some(members),
        number_text => number(number_text).filter(|k| (1..=members).contains(k)),
    };
    threshold.ok_or_else(|| QuorumFault::Threshold { found: told(text), members })
}

/// Words as messages tell them.
fn told(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}

const GROUP_FORM: &str = "group <name> <k|any|all> <member>...";

/// The name that is nobody's: no cosignature is wanted.
const NONE: &[u8] = b"none";
