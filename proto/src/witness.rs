//! What a log sends to a witness, and where it reads what the witness keeps (C2SP tlog-witness;
//! FORMATS.md, section 8).
//!
//! ```text
//! POST <prefix>/add-checkpoint      GET <prefix>/<hex SHA-256 of the origin>/checkpoint
//!
//! old <size>\n
//! <base64 hash>\n                   (at most 63 lines: the consistency path)
//! \n
//! <checkpoint, with its signatures>
//! ```

use crate::{
    error::AddCheckpointError,
    hash::{Digest, sha256},
    note::{digest_text, parse_decimal, parse_digest},
    position::Size,
};

/// The body of an `add-checkpoint` call. Nothing of it has been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint<'a> {
    /// Size of the newest checkpoint that the witness cosigned, as the log knows; 0 for none.
    pub old: Size,
    /// Consistency path from `old` to the checkpoint: at most [`AddCheckpoint::PROOF_MAX`].
    pub proof: Vec<Digest>,
    /// The checkpoint: what should be a signed note.
    pub note: &'a [u8],
}

impl<'a> AddCheckpoint<'a> {
    /// Most hashes of a proof.
    pub const PROOF_MAX: usize = 63;

    /// Most bytes of a body: the largest proof, and a checkpoint with as many signatures as are
    /// read and room for what others write into it.
    pub const LEN_MAX: usize = 64 << 10;

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// [`AddCheckpointError::Old`], [`AddCheckpointError::Hash`] for the line that is malformed;
    /// [`AddCheckpointError::ProofLength`] for more than [`AddCheckpoint::PROOF_MAX`];
    /// [`AddCheckpointError::Truncated`] without an empty line before the checkpoint.
    pub fn parse(body: &'a [u8]) -> Result<Self, AddCheckpointError> {
        let (line, mut rest) = split_line(body).ok_or(AddCheckpointError::Old)?;
        let old = line.strip_prefix("old ").and_then(parse_decimal).map(Size);
        let old = old.ok_or(AddCheckpointError::Old)?;
        let mut proof = Vec::new();
        for number in 2.. {
            let (line, after) = split_line(rest).ok_or(AddCheckpointError::Truncated)?;
            rest = after;
            if line.is_empty() {
                break;
            }
            if proof.len() == Self::PROOF_MAX {
                return Err(AddCheckpointError::ProofLength);
            }
            proof.push(parse_digest(line).ok_or(AddCheckpointError::Hash { line: number })?);
        }
        Ok(Self { old, proof, note: rest })
    }

    /// The body that [`AddCheckpoint::parse`] reads.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = format!("old {}\n", self.old);
        for hash in &self.proof {
            body.push_str(&digest_text(hash));
            body.push('\n');
        }
        body.push('\n');
        [body.as_bytes(), self.note].concat()
    }
}

/// What a witness calls a log in paths: the SHA-256 of its origin in 64 lower-case hex digits.
#[must_use]
pub fn origin_hex(origin: &str) -> String {
    sha256(origin.as_bytes()).to_string()
}

/// The type of a 409's body: the size of the newest cosigned checkpoint, in decimal, and a line
/// feed.
pub const SIZE_TYPE: &str = "text/x.tlog.size";

/// The body of a 409 with a size, as [`parse_size`] reads it.
#[must_use]
pub fn size_body(size: Size) -> String {
    format!("{size}\n")
}

/// The size in the body of a 409; `None` unless that is all there is.
#[must_use]
pub fn parse_size(body: &[u8]) -> Option<Size> {
    match split_line(body)? {
        (digits, []) => parse_decimal(digits).map(Size),
        _ => None,
    }
}

/// The first line without its line feed, and what follows; `None` unless it is UTF-8 and ends.
fn split_line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((str::from_utf8(line).ok()?, rest.get(1..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_conflict_tells_a_size_and_nothing_else() {
        for size in [0, 7, u64::MAX].map(Size) {
            assert_eq!(parse_size(size_body(size).as_bytes()), Some(size));
        }
        for body in ["", "7", "7\n\n", "07\n", "+7\n", " 7\n", "7 \n", "18446744073709551616\n"] {
            assert_eq!(parse_size(body.as_bytes()), None, "{body:?}");
        }
    }

    #[test]
    fn the_example_of_the_specification_is_read() {
        let body = "old 20852014\n\
                    PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
                    jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
                    \nexample.com/behind-the-sofa\n20852163\n";
        let add = AddCheckpoint::parse(body.as_bytes()).unwrap();
        assert_eq!((add.old, add.proof.len()), (Size(20_852_014), 2));
        assert_eq!(add.note, b"example.com/behind-the-sofa\n20852163\n");
        assert_eq!(add.to_bytes(), body.as_bytes());
    }

    #[test]
    fn malformed_bodies_are_refused() {
        let hash = digest_text(&Digest::ZERO);
        let refused = |body: &str, wanted: AddCheckpointError| {
            assert_eq!(AddCheckpoint::parse(body.as_bytes()), Err(wanted), "{body:?}");
        };
        for old in ["", "old", "old \n\n", "old 07\n\n", "old -1\n\n", "old 1 \n\n", "Old 1\n\n"] {
            refused(old, AddCheckpointError::Old);
        }
        refused("old 18446744073709551616\n\n", AddCheckpointError::Old);
        refused("old 1", AddCheckpointError::Old);
        refused("old 1\n", AddCheckpointError::Truncated);
        refused(&format!("old 1\n{hash}\n"), AddCheckpointError::Truncated);
        refused(&format!("old 1\n{hash}"), AddCheckpointError::Truncated);
        refused("old 1\r\n\r\n", AddCheckpointError::Old);
        for line in [" ", "AAAA", hash.trim_end_matches('='), &format!(" {hash}")] {
            let line_3 = AddCheckpointError::Hash { line: 3 };
            refused(&format!("old 1\n{hash}\n{line}\n\n"), line_3);
        }
        let most = format!("{hash}\n").repeat(AddCheckpoint::PROOF_MAX);
        let read = AddCheckpoint::parse(format!("old 1\n{most}\n").as_bytes()).map(drop);
        assert_eq!(read, Ok(()));
        refused(&format!("old 1\n{most}{hash}\n\n"), AddCheckpointError::ProofLength);
        let not_text = AddCheckpoint::parse(b"old 1\n\xff\n\n");
        assert_eq!(not_text, Err(AddCheckpointError::Truncated));
    }

    proptest! {
        #[test]
        fn bodies_come_back_as_they_went(
            old: u64, proof in prop::collection::vec(any::<[u8; 32]>(), 0..=63),
            note in prop::collection::vec(any::<u8>(), 0..99),
        ) {
            let proof = proof.into_iter().map(Digest::from_bytes).collect();
            let add = AddCheckpoint { old: Size(old), proof, note: &note };
            let bytes = add.to_bytes();
            prop_assert_eq!(AddCheckpoint::parse(&bytes), Ok(add));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            if let Ok(add) = AddCheckpoint::parse(&bytes) {
                prop_assert_eq!(add.to_bytes(), bytes);
            }
        }
    }
}
