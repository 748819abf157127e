//! Known answers of the tree and its proofs, made by other projects (transparency-dev/merkle).

use access_ledger_proto::{
    hash::{Digest, leaf_hash},
    position::{Index, Size},
    proof::{verify_consistency, verify_inclusion},
    tree::{Frontier, root_of},
};
use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

const ROOTS: &str = include_str!("../vectors/merkle-tree-roots.json");
const INCLUSION: &str = include_str!("../vectors/merkle-inclusion.json");
const CONSISTENCY: &str = include_str!("../vectors/merkle-consistency.json");

/// What became of a vector.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Holds,
    /// A proof, but not of this.
    Refused,
    /// Not a proof: something that should be a digest is not 32 bytes.
    Malformed,
}

fn number(vector: &Value, field: &str) -> Result<u64> {
    vector[field].as_u64().with_context(|| format!("{field} is not a u64"))
}

/// `None` for a text that does not hold 32 bytes.
fn digest(value: &Value) -> Result<Option<Digest>> {
    let text = value.as_str().context("hash is not a text")?;
    Ok(Digest::from_slice(&BASE64_STANDARD.decode(text)?))
}

/// The vector's digests: the two named, and the proof. `None` if any is malformed.
fn digests(vector: &Value, fields: [&str; 2]) -> Result<Option<([Digest; 2], Vec<Digest>)>> {
    let proof = match &vector["proof"] {
        Value::Null => &[],
        proof => proof.as_array().context("proof is not a list")?.as_slice(),
    };
    let proof: Option<Vec<_>> = proof.iter().map(digest).collect::<Result<_>>()?;
    let [one, two] = fields.map(|field| digest(&vector[field]));
    Ok(one?.zip(two?).zip(proof).map(|((one, two), proof)| ([one, two], proof)))
}

fn judge_inclusion(vector: &Value) -> Result<Verdict> {
    let index = Index(number(vector, "leafIdx")?);
    let size = Size(number(vector, "treeSize")?);
    let Some(([leaf, root], path)) = digests(vector, ["leafHash", "root"])? else {
        return Ok(Verdict::Malformed);
    };
    let verdict = verify_inclusion(index, size, leaf, &path, root);
    Ok(verdict.map_or(Verdict::Refused, |()| Verdict::Holds))
}

fn judge_consistency(vector: &Value) -> Result<Verdict> {
    let (old, new) = (Size(number(vector, "size1")?), Size(number(vector, "size2")?));
    let Some(([old_root, new_root], path)) = digests(vector, ["root1", "root2"])? else {
        return Ok(Verdict::Malformed);
    };
    let verdict = verify_consistency(old, new, old_root, new_root, &path);
    Ok(verdict.map_or(Verdict::Refused, |()| Verdict::Holds))
}

/// Judges every vector, compares with what it wants, and counts how many hold, are refused, are
/// malformed.
fn judge_all(vectors: &str, judge: fn(&Value) -> Result<Verdict>) -> Result<[usize; 3]> {
    let vectors: Vec<Value> = serde_json::from_str(vectors)?;
    let mut counts = [0; 3];
    for vector in &vectors {
        let case = vector["case"].as_str().context("case is not a text")?;
        let verdict = judge(vector).context(case.to_owned())?;
        let refused = vector["wantErr"].as_bool().context("wantErr is not a boolean")?;
        anyhow::ensure!((verdict != Verdict::Holds) == refused, "{case}: {verdict:?}");
        let [holds, not, malformed] = &mut counts;
        *match verdict {
            Verdict::Holds => holds,
            Verdict::Refused => not,
            Verdict::Malformed => malformed,
        } += 1;
    }
    Ok(counts)
}

#[test]
fn inclusion_vectors_agree() -> Result<()> {
    assert_eq!(judge_all(INCLUSION, judge_inclusion)?, [4, 37, 12]);
    Ok(())
}

#[test]
fn consistency_vectors_agree() -> Result<()> {
    assert_eq!(judge_all(CONSISTENCY, judge_consistency)?, [3, 32, 8]);
    Ok(())
}

#[test]
fn tree_roots_agree() -> Result<()> {
    let vector: Value = serde_json::from_str(ROOTS)?;
    let texts =
        |field: &str| -> Result<Vec<String>> { Ok(serde_json::from_value(vector[field].clone())?) };
    let leaves: Vec<Digest> = texts("leaf_inputs_hex")?
        .iter()
        .map(|hex| Ok(leaf_hash(&bytes_of_hex(hex)?)))
        .collect::<Result<_>>()?;
    let roots = texts("root_by_size_hex")?;
    assert_eq!(roots.len(), leaves.len() + 1);

    let mut frontier = Frontier::new();
    for (size, root) in roots.iter().enumerate() {
        assert_eq!(root_of(&leaves[..size]).to_string(), *root, "size {size}");
        assert_eq!(frontier.root().to_string(), *root, "size {size}");
        leaves.get(size).into_iter().for_each(|leaf| frontier.append(*leaf));
    }
    Ok(())
}

fn bytes_of_hex(hex: &str) -> Result<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| Ok(u8::from_str_radix(str::from_utf8(pair)?, 16)?)).collect()
}
