//! The file that names the logs to witness besides the one that is followed.
//!
//! Lines `log <vkey> [<url>]`, as in C2SP tlog-policy; empty lines and those that begin with `#`
//! say nothing. The URL is for others.

use access_ledger_proto::{
    error::KeyError,
    note::{KeyType, VerifierKey},
};
use thiserror::Error;

/// The file is malformed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {problem}")]
pub struct LogsError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: LogsProblem,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LogsProblem {
    /// Another line than wanted.
    #[error("expected \"log <vkey> [<url>]\"")]
    Form,
    /// The key is malformed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key that signs no checkpoints.
    #[error("key of type {found}, a log's is Ed25519")]
    KeyType {
        /// The key's type.
        found: KeyType,
    },
    /// The origin was named before.
    #[error("log {origin} is named twice")]
    Twice {
        /// The origin.
        origin: String,
    },
}

/// Reads the keys of the logs in the order of their lines, each origin once.
///
/// # Errors
///
/// [`LogsError`] names the first line that is malformed.
pub fn parse_logs(text: &str) -> Result<Vec<VerifierKey>, LogsError> {
    let mut logs: Vec<VerifierKey> = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let key = parse_line(line).map_err(|problem| LogsError { line: number, problem })?;
        let Some(key) = key else { continue };
        if logs.iter().any(|known| known.name() == key.name()) {
            let problem = LogsProblem::Twice { origin: key.name().to_owned() };
            return Err(LogsError { line: number, problem });
        }
        logs.push(key);
    }
    Ok(logs)
}

fn parse_line(line: &str) -> Result<Option<VerifierKey>, LogsProblem> {
    let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
    let key = match words.next() {
        None => return Ok(None),
        Some(word) if word.starts_with('#') => return Ok(None),
        Some("log") => words.next().ok_or(LogsProblem::Form)?,
        Some(_) => return Err(LogsProblem::Form),
    };
    if words.nth(1).is_some() {
        return Err(LogsProblem::Form);
    }
    let key = VerifierKey::parse(key)?;
    match key.key_type() {
        KeyType::Ed25519 => Ok(Some(key)),
        found @ KeyType::CosignatureV1 => Err(LogsProblem::KeyType { found }),
    }
}

#[cfg(test)]
mod tests {
    use access_ledger_proto::note::Signer;

    use super::*;

    fn vkey(name: &str, key_type: KeyType) -> VerifierKey {
        Signer::new(name, key_type, [7; 32]).unwrap().verifier().clone()
    }

    #[test]
    fn logs_are_read_by_line() {
        let (a, b) = (vkey("a.example", KeyType::Ed25519), vkey("b.example", KeyType::Ed25519));
        let text = format!("# logs\n\n log\t{a} https://a.example/log \n  # b\nlog {b}\n");
        assert_eq!(parse_logs(&text), Ok(vec![a, b]));
        assert_eq!(parse_logs(""), Ok(Vec::new()));
    }

    #[test]
    fn a_malformed_line_is_named() {
        let (log, witness) = (vkey("a", KeyType::Ed25519), vkey("w", KeyType::CosignatureV1));
        let refused = |line: &str, wanted: LogsProblem| {
            let text = format!("log {log}\n{line}\n");
            assert_eq!(parse_logs(&text), Err(LogsError { line: 2, problem: wanted }), "{line}");
        };
        let key_type = LogsProblem::KeyType { found: KeyType::CosignatureV1 };
        refused("log", LogsProblem::Form);
        refused("witness w", LogsProblem::Form);
        refused(&format!("log {log} url more"), LogsProblem::Form);
        refused("log a+b", LogsProblem::Key(KeyError::Form));
        refused(&format!("log {witness}"), key_type);
        refused(&format!("log {log}"), LogsProblem::Twice { origin: "a".into() });
    }
}
