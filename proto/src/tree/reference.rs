//! RFC 6962, section 2.1, word for word: what the rest is tested against. It takes leaf hashes in
//! the place of the leaves' data.

use crate::hash::{Digest, sha256};

/// MTH(D\[n\]): the Merkle tree hash.
pub(crate) fn mth(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => sha256(b""),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(k(leaves.len()));
            sha256(&[&[0x01], mth(left).as_ref(), mth(right).as_ref()].concat())
        }
    }
}

/// PATH(m, D\[n\]): the audit path of leaf `m`.
pub(crate) fn path(m: usize, leaves: &[Digest]) -> Vec<Digest> {
    if leaves.len() == 1 {
        return vec![];
    }
    let (left, right) = leaves.split_at(k(leaves.len()));
    if m < left.len() {
        [path(m, left), vec![mth(right)]].concat()
    } else {
        [path(m - left.len(), right), vec![mth(left)]].concat()
    }
}

/// PROOF(m, D\[n\]): the consistency proof from size `m`.
pub(crate) fn proof(m: usize, leaves: &[Digest]) -> Vec<Digest> {
    subproof(m, leaves, true)
}

/// SUBPROOF(m, D\[n\], b).
fn subproof(m: usize, leaves: &[Digest], b: bool) -> Vec<Digest> {
    if m == leaves.len() {
        return if b { vec![] } else { vec![mth(leaves)] };
    }
    let (left, right) = leaves.split_at(k(leaves.len()));
    if m <= left.len() {
        [subproof(m, left, b), vec![mth(right)]].concat()
    } else {
        [subproof(m - left.len(), right, false), vec![mth(left)]].concat()
    }
}

/// On which side the hashes of PATH(m, D\[n\]) lie, true for left.
pub(crate) fn sides(m: usize, n: usize) -> Vec<bool> {
    match n {
        1 => vec![],
        _ if m < k(n) => [sides(m, k(n)), vec![false]].concat(),
        _ => [sides(m - k(n), n - k(n)), vec![true]].concat(),
    }
}

/// The largest power of two smaller than `n`.
fn k(n: usize) -> usize {
    let mut k = 1;
    while k * 2 < n {
        k *= 2;
    }
    k
}

/// `count` different leaf hashes.
pub(crate) fn leaves(count: usize) -> Vec<Digest> {
    (0..count).map(|number| sha256(number.to_string().as_bytes())).collect()
}
