//! Inclusion and consistency: build the proof from stored nodes, verify it against roots.
//!
//! An inclusion path shows that a leaf lies at an index of the tree with a root; a consistency path
//! shows that one tree begins with all leaves of another (RFC 6962, sections 2.1.1 and 2.1.2).
//!
//! Verifying trusts nothing but the roots and sizes that it is given, and those belong together:
//! take both from one verified checkpoint. With a size that is not the root's, an inclusion path
//! may still lead to the root.

use crate::{
    error::{BuildError, ProofError},
    hash::{Digest, node_hash},
    position::{Index, Size},
    tree::{Node, Sibling, decompose, empty_root, join, siblings},
};

/// Where the complete nodes of a tree come from.
pub trait NodeSource {
    /// Why a node could not be had.
    type Error;

    /// The hash of a complete node.
    ///
    /// # Errors
    ///
    /// The source's own: it does not hold the node, or could not read it.
    fn node(&self, node: Node) -> Result<Digest, Self::Error>;
}

/// Builds the inclusion path of the leaf at `index` in the tree of `size` leaves.
///
/// PATH of RFC 6962, section 2.1.1: the leaf's sibling first, at most 64 digests. Reads at most
/// twice that many nodes.
///
/// # Errors
///
/// [`BuildError::BeyondTree`] unless `index < size`; [`BuildError::Source`] when a node cannot be
/// had.
pub fn inclusion_path<S: NodeSource + ?Sized>(
    source: &S,
    index: Index,
    size: Size,
) -> Result<Vec<Digest>, BuildError<S::Error>> {
    if !size.contains(index) {
        return Err(BuildError::BeyondTree { index, size });
    }
    let mut path = Vec::new();
    extend_path(&mut path, source, Node::leaf(index), size)?;
    Ok(path)
}

/// Builds the consistency path from the tree of `old` leaves to the tree of `new` leaves.
///
/// PROOF of RFC 6962, section 2.1.2: at most 65 digests, none if the sizes are equal. Reads at most
/// twice that many nodes.
///
/// # Errors
///
/// [`BuildError::Sizes`] unless `1 <= old <= new`; [`BuildError::Source`] when a node cannot be
/// had.
pub fn consistency_path<S: NodeSource + ?Sized>(
    source: &S,
    old: Size,
    new: Size,
) -> Result<Vec<Digest>, BuildError<S::Error>> {
    let seam = match decompose(old).next_back() {
        Some(seam) if old <= new => seam,
        _ => return Err(BuildError::Sizes { old, new }),
    };
    let mut path = Vec::new();
    if old == new {
        return Ok(path);
    }
    if !is_whole(seam) {
        path.push(source.node(seam).map_err(BuildError::Source)?);
    }
    extend_path(&mut path, source, seam, new)?;
    Ok(path)
}

/// Computes the root of the tree of `size` leaves. Reads a node for each set bit of `size`.
///
/// # Errors
///
/// [`BuildError::Source`] when a node cannot be had.
pub fn root_at<S: NodeSource + ?Sized>(
    source: &S,
    size: Size,
) -> Result<Digest, BuildError<S::Error>> {
    Ok(join_roots(source, decompose(size))?.unwrap_or_else(empty_root))
}

/// Verifies that `leaf` is the leaf hash at `index` in the tree of `size` leaves with this root.
///
/// `path` as of [`inclusion_path`].
///
/// # Errors
///
/// [`ProofError::BeyondTree`] unless `index < size`; [`ProofError::Length`] unless the path has
/// exactly as many digests as it needs; [`ProofError::Root`] when it leads to another root.
pub fn verify_inclusion(
    index: Index,
    size: Size,
    leaf: Digest,
    path: &[Digest],
    root: Digest,
) -> Result<(), ProofError> {
    if !size.contains(index) {
        return Err(ProofError::BeyondTree { index, size });
    }
    let node = Node::leaf(index);
    check_len(path, siblings(node, size).count())?;
    let found = siblings(node, size).zip(path).fold(leaf, |below, (sibling, hash)| match sibling {
        Sibling::Left(_) => node_hash(hash, &below),
        Sibling::Right(_) | Sibling::Edge(_) => node_hash(&below, hash),
    });
    check_root(found, root, size)
}

/// Verifies that the tree of `new` leaves begins with the tree of `old` leaves.
///
/// `path` as of [`consistency_path`].
///
/// # Errors
///
/// [`ProofError::Sizes`] unless `1 <= old <= new`: the empty tree is a part of any, so a proof for
/// it would prove nothing; [`ProofError::Length`] unless the path has exactly as many digests as it
/// needs; [`ProofError::Root`] when it leads to another root, old or new.
pub fn verify_consistency(
    old: Size,
    new: Size,
    old_root: Digest,
    new_root: Digest,
    path: &[Digest],
) -> Result<(), ProofError> {
    let seam = match decompose(old).next_back() {
        Some(seam) if old <= new => seam,
        _ => return Err(ProofError::Sizes { old, new }),
    };
    if old == new {
        check_len(path, 0)?;
        return check_root(old_root, new_root, new);
    }
    let above = siblings(seam, new).count();
    let (start, above) = match path.split_first() {
        _ if is_whole(seam) => {
            check_len(path, above)?;
            (old_root, path)
        }
        Some((first, rest)) if rest.len() == above => (*first, rest),
        _ => return Err(ProofError::Length { found: path.len(), wanted: above + 1 }),
    };
    // The old tree ends with the seam: in it, the nodes to the right do not exist yet.
    let (mut found_old, mut found_new) = (start, start);
    for (sibling, hash) in siblings(seam, new).zip(above) {
        match sibling {
            Sibling::Left(_) => {
                found_old = node_hash(hash, &found_old);
                found_new = node_hash(hash, &found_new);
            }
            Sibling::Right(_) | Sibling::Edge(_) => found_new = node_hash(&found_new, hash),
        }
    }
    check_root(found_old, old_root, old)?;
    check_root(found_new, new_root, new)
}

/// Whether a tree's smallest complete subtree is the whole tree, so that its hash is the root,
/// which the verifier has.
const fn is_whole(seam: Node) -> bool {
    seam.index == 0
}

/// Appends what `node` is joined with on its way to the root of the tree of `size` leaves.
fn extend_path<S: NodeSource + ?Sized>(
    path: &mut Vec<Digest>,
    source: &S,
    node: Node,
    size: Size,
) -> Result<(), BuildError<S::Error>> {
    for sibling in siblings(node, size) {
        match sibling {
            Sibling::Left(node) | Sibling::Right(node) => {
                path.push(source.node(node).map_err(BuildError::Source)?);
            }
            Sibling::Edge(level) => {
                let below = decompose(size).filter(|root| root.level < level);
                path.extend(join_roots(source, below)?);
            }
        }
    }
    Ok(())
}

/// The root over neighbouring subtrees, largest first; `None` for none.
fn join_roots<S: NodeSource + ?Sized>(
    source: &S,
    nodes: impl DoubleEndedIterator<Item = Node>,
) -> Result<Option<Digest>, BuildError<S::Error>> {
    nodes.rev().try_fold(None, |right, node| {
        let left = source.node(node).map_err(BuildError::Source)?;
        Ok(Some(join(&left, right)))
    })
}

const fn check_len(path: &[Digest], wanted: usize) -> Result<(), ProofError> {
    if path.len() == wanted {
        Ok(())
    } else {
        Err(ProofError::Length { found: path.len(), wanted })
    }
}

fn check_root(found: Digest, wanted: Digest, size: Size) -> Result<(), ProofError> {
    if found == wanted { Ok(()) } else { Err(ProofError::Root { size, found, wanted }) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::tree::{Frontier, reference};

    /// The nodes over some leaves. Panics when asked for one that is not complete.
    struct Leaves(Vec<Digest>);

    impl NodeSource for Leaves {
        type Error = Infallible;

        fn node(&self, node: Node) -> Result<Digest, Infallible> {
            let mut complete = self.0.chunks_exact(1 << node.level);
            Ok(reference::mth(complete.nth(usize::try_from(node.index).unwrap()).unwrap()))
        }
    }

    /// A tree of any size, all of whose leaves are zeros.
    struct Uniform(Size);

    impl NodeSource for Uniform {
        type Error = Infallible;

        fn node(&self, node: Node) -> Result<Digest, Infallible> {
            assert!(node.index < self.0.0 >> node.level, "{node:?} is not complete");
            Ok((0..node.level).fold(Digest::ZERO, |hash, _| node_hash(&hash, &hash)))
        }
    }

    struct Lost;

    impl NodeSource for Lost {
        type Error = Node;

        fn node(&self, node: Node) -> Result<Digest, Node> {
            Err(node)
        }
    }

    fn size(count: usize) -> Size {
        Size(count as u64)
    }

    fn flip(digest: Digest, bit: usize) -> Digest {
        let mut bytes = *digest.as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        Digest::from_bytes(bytes)
    }

    /// Every path that differs from `path` in one flipped bit, or one hash less, more or moved.
    fn mutations(path: &[Digest], bit: usize) -> Vec<Vec<Digest>> {
        let mut mutated = Vec::new();
        let mut mutate = |change: &dyn Fn(&mut Vec<Digest>)| {
            let mut other = path.to_vec();
            change(&mut other);
            mutated.push(other);
        };
        for at in 0..path.len() {
            mutate(&|path| path[at] = flip(path[at], bit));
            mutate(&|path| {
                path.remove(at);
            });
            (0..at).for_each(|from| mutate(&|path| path.swap(from, at)));
        }
        for at in 0..=path.len() {
            mutate(&|path| path.insert(at, Digest::ZERO));
        }
        mutated
    }

    #[test]
    fn every_small_proof_is_the_reference_proof_and_holds() {
        let leaves = Leaves(reference::leaves(40));
        for new in 0..=40 {
            let root = reference::mth(&leaves.0[..new]);
            assert_eq!(root_at(&leaves, size(new)), Ok(root));
            for (at, leaf) in leaves.0[..new].iter().enumerate() {
                let index = Index(at as u64);
                let path = inclusion_path(&leaves, index, size(new)).unwrap();
                assert_eq!(path, reference::path(at, &leaves.0[..new]));
                assert_eq!(verify_inclusion(index, size(new), *leaf, &path, root), Ok(()));
            }
            for old in 1..=new {
                let old_root = reference::mth(&leaves.0[..old]);
                let path = consistency_path(&leaves, size(old), size(new)).unwrap();
                assert_eq!(path, reference::proof(old, &leaves.0[..new]));
                let verdict = verify_consistency(size(old), size(new), old_root, root, &path);
                assert_eq!(verdict, Ok(()));
            }
        }
    }

    #[test]
    fn sizes_and_indexes_that_prove_nothing_are_refused() {
        let (old, new, index) = (Size(0), Size(4), Index(4));
        let zero = Digest::ZERO;
        assert_eq!(consistency_path(&Lost, old, new), Err(BuildError::Sizes { old, new }));
        let verdict = verify_consistency(old, new, empty_root(), zero, &[]);
        assert_eq!(verdict, Err(ProofError::Sizes { old, new }));
        let (old, new) = (Size(5), Size(4));
        assert_eq!(consistency_path(&Lost, old, new), Err(BuildError::Sizes { old, new }));
        let verdict = verify_consistency(old, new, zero, zero, &[]);
        assert_eq!(verdict, Err(ProofError::Sizes { old, new }));
        let size = new;
        let beyond = BuildError::BeyondTree { index, size };
        assert_eq!(inclusion_path(&Lost, index, size), Err(beyond));
        let verdict = verify_inclusion(index, size, zero, &[], zero);
        assert_eq!(verdict, Err(ProofError::BeyondTree { index, size }));
    }

    #[test]
    fn lost_nodes_are_named() {
        let node = |level, index| Err(BuildError::Source(Node { level, index }));
        assert_eq!(inclusion_path(&Lost, Index(2), Size(4)), node(0, 3));
        assert_eq!(consistency_path(&Lost, Size(6), Size(8)), node(1, 2));
        assert_eq!(root_at(&Lost, Size(6)).map(|root| vec![root]), node(1, 2));
    }

    proptest! {
        #[test]
        fn only_the_right_inclusion_proof_holds(
            (index, count) in (1_usize..600).prop_flat_map(|count| (0..count, Just(count))),
            other in 1_usize..600,
            bit in 0_usize..256,
        ) {
            let mut leaves = Leaves(reference::leaves(count.max(other)));
            let place = Index(index as u64);
            let path = inclusion_path(&leaves, place, size(count)).unwrap();
            let other_root = reference::mth(&leaves.0[..other]);
            leaves.0.truncate(count);
            let (leaf, root) = (leaves.0[index], reference::mth(&leaves.0));
            prop_assert_eq!(&path, &reference::path(index, &leaves.0));
            let holds = |index: Index, size, leaf, path: &[Digest], root| {
                verify_inclusion(index, size, leaf, path, root).is_ok()
            };
            prop_assert!(holds(place, size(count), leaf, &path, root));
            for path in mutations(&path, bit) {
                prop_assert!(!holds(place, size(count), leaf, &path, root));
            }
            prop_assert!(!holds(place, size(count), flip(leaf, bit), &path, root));
            prop_assert!(!holds(place, size(count), leaf, &path, flip(root, bit)));
            for index in (0..count as u64 + 2).filter(|&at| at != place.0) {
                prop_assert!(!holds(Index(index), size(count), leaf, &path, root));
            }
            prop_assert_eq!(holds(place, size(other), leaf, &path, other_root), other == count);
            // With a root of another size, the shape decides.
            let alike = index < other
                && reference::sides(index, other) == reference::sides(index, count);
            prop_assert_eq!(holds(place, size(other), leaf, &path, root), alike);
        }

        #[test]
        fn only_the_right_consistency_proof_holds(
            (old, new) in (1_usize..600).prop_flat_map(|new| (1..=new, Just(new))),
            bit in 0_usize..256,
        ) {
            let leaves = Leaves(reference::leaves(new));
            let path = consistency_path(&leaves, size(old), size(new)).unwrap();
            let (old_root, root) = (reference::mth(&leaves.0[..old]), reference::mth(&leaves.0));
            prop_assert_eq!(&path, &reference::proof(old, &leaves.0));
            let holds = |old: usize, new: usize, old_root, root, path: &[Digest]| {
                verify_consistency(size(old), size(new), old_root, root, path).is_ok()
            };
            prop_assert!(holds(old, new, old_root, root, &path));
            for path in mutations(&path, bit) {
                prop_assert!(!holds(old, new, old_root, root, &path));
            }
            prop_assert!(!holds(old, new, flip(old_root, bit), root, &path));
            prop_assert!(!holds(old, new, old_root, flip(root, bit), &path));
            prop_assert_eq!(holds(old, new, root, old_root, &path), old == new);
            for other in (0..new + 2).filter(|&other| other != old) {
                prop_assert!(!holds(other, new, old_root, root, &path));
            }
        }

        #[test]
        fn trees_of_any_size_can_be_proven(
            old in size_of_any_scale(),
            new in size_of_any_scale(),
            index: u64,
        ) {
            let (old, new) = (Size(old.min(new)), Size(old.max(new)));
            let (leaf, source) = (Digest::ZERO, Uniform(new));
            let (old_root, root) = (root_at(&source, old).unwrap(), root_at(&source, new).unwrap());
            let path = consistency_path(&source, old, new).unwrap();
            prop_assert_eq!(verify_consistency(old, new, old_root, root, &path), Ok(()));
            for index in [0, index % new.0, new.0 - 1].map(Index) {
                let path = inclusion_path(&source, index, new).unwrap();
                prop_assert_eq!(verify_inclusion(index, new, leaf, &path, root), Ok(()));
            }
            let roots: Vec<_> =
                decompose(old).map(|node| source.node(node).unwrap()).collect();
            let Some(mut frontier) = Frontier::from_roots(old, &roots) else {
                return Ok(());
            };
            (0..5).for_each(|_| frontier.append(leaf));
            let paths = frontier.paths();
            for index in (old.0..old.0 + 5).map(Index) {
                let path = paths.path(index).unwrap();
                let verdict = verify_inclusion(index, frontier.size(), leaf, &path, paths.root());
                prop_assert_eq!(verdict, Ok(()));
            }
        }

        #[test]
        fn paths_of_any_length_between_any_places_are_judged(
            index: u64,
            (old, new) in (size_of_any_scale(), size_of_any_scale()),
            len in 0_usize..140,
        ) {
            let path = reference::leaves(len);
            let (one, two) = (Digest::ZERO, empty_root());
            for size in [Size(old), Size(new), Size(u64::MAX)] {
                prop_assert!(verify_inclusion(Index(index), size, one, &path, two).is_err());
                prop_assert!(verify_inclusion(Index(u64::MAX), size, one, &path, two).is_err());
                prop_assert!(verify_consistency(Size(old), size, one, two, &path).is_err());
            }
        }
    }

    /// 1 to `u64::MAX`, each number of bits as likely as any other.
    fn size_of_any_scale() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0_u32..64).prop_map(|(bits, shift)| (bits >> shift).max(1))
    }
}
