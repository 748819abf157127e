//! The Merkle tree: where its nodes are, and how it grows (RFC 6962, section 2.1).
//!
//! A tree of `size` leaves is made of complete subtrees, one for each set bit of `size`, largest
//! first. Everything else follows from that: the root joins their roots, the [`Frontier`] is those
//! roots, and the way from a leaf to the root passes complete nodes and, at most once, the
//! incomplete subtree at the right edge. `siblings` says which; building and verifying proofs both
//! walk it, so they cannot disagree about the shape.
//!
//! Complete nodes never change, so they can be stored. Storage keeps one binary level in
//! [`TILE_HEIGHT`] (FORMATS.md, section 7) and computes the nodes between: [`Node::stored`].

use std::cmp::Ordering;

use crate::{
    hash::{Digest, node_hash, sha256},
    position::{Index, Size, count_of},
};

#[cfg(test)]
pub(crate) mod reference;
mod subtrees;

pub use self::subtrees::Subtrees;

/// Binary levels from one tile level to the next.
pub const TILE_HEIGHT: u8 = 8;

/// Hashes in a full tile: `2^TILE_HEIGHT`.
pub const TILE_WIDTH: u16 = 1 << TILE_HEIGHT;

/// A complete subtree: the one over leaves `index << level` up to `(index + 1) << level`.
///
/// Level 0 are the leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Height over the leaves: 0 to [`Node::LEVEL_MAX`].
    pub level: u8,
    /// 0-based place among the nodes of its level.
    pub index: u64,
}

/// The run of hashes of one tile level that a node is computed from. Never spans two tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Tile level: its hashes are the nodes at binary level `tile_level * TILE_HEIGHT`.
    pub tile_level: u8,
    /// 0-based place of the first hash in that level.
    pub first: u64,
    /// A power of two, 1 to `TILE_WIDTH / 2`.
    pub count: u16,
}

impl Node {
    /// The highest level of a tree whose size is a `u64`.
    pub const LEVEL_MAX: u8 = 63;

    /// The leaf at `index`.
    #[must_use]
    pub const fn leaf(index: Index) -> Self {
        Self { level: 0, index: index.0 }
    }

    /// The stored hashes whose [`root_of`] is this node: itself at a tile level, else the nodes
    /// below it at the next lower one. `None` for a node that no tree can have.
    #[must_use]
    pub const fn stored(self) -> Option<Stored> {
        if self.level > Self::LEVEL_MAX {
            return None;
        }
        let count = 1 << (self.level % TILE_HEIGHT);
        match self.index.checked_mul(count as u64) {
            Some(first) => Some(Stored { tile_level: self.level / TILE_HEIGHT, first, count }),
            None => None,
        }
    }
}

impl Stored {
    /// How many hashes the tile level `tile_level` has in a tree of `size` leaves.
    #[must_use]
    pub const fn count_in(tile_level: u8, size: Size) -> u64 {
        match size.0.checked_shr(tile_level as u32 * TILE_HEIGHT as u32) {
            Some(count) => count,
            None => 0,
        }
    }
}

/// The complete subtrees that a tree of `size` leaves is made of, largest first: one for each set
/// bit.
pub fn decompose(size: Size) -> impl DoubleEndedIterator<Item = Node> {
    (0..=Node::LEVEL_MAX)
        .rev()
        .map(move |level| (level, size.0 >> level))
        .filter(|(_, count)| count % 2 == 1)
        .map(|(level, count)| Node { level, index: count - 1 })
}

/// The root of the tree over `hashes`: leaf hashes, or the nodes of one level in their order.
///
/// Hashes `hashes.len() - 1` times; the root of nothing is `SHA-256("")`.
#[must_use]
pub fn root_of(hashes: &[Digest]) -> Digest {
    match hashes {
        [] => empty_root(),
        [one] => *one,
        _ => {
            // The largest power of two below the length: RFC 6962's k.
            let (left, right) = hashes.split_at(hashes.len().div_ceil(2).next_power_of_two());
            node_hash(&root_of(left), &root_of(right))
        }
    }
}

/// The root of the tree without leaves: `SHA-256("")`.
#[must_use]
pub fn empty_root() -> Digest {
    sha256(b"")
}

/// `left` with what lies to the right of it; alone it stands for both.
pub(crate) fn join(left: &Digest, right: Option<Digest>) -> Digest {
    right.map_or(*left, |right| node_hash(left, &right))
}

/// What a node is joined with on its way to the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sibling {
    /// A complete node to the left.
    Left(Node),
    /// A complete node to the right.
    Right(Node),
    /// To the right, what is left over of this level: the leaves after its last complete node,
    /// fewer than a node of it covers and at least one.
    Edge(u8),
}

/// The siblings from `node` up to the root of the tree of `size` leaves, lowest first.
///
/// `node` is complete in that tree. Total for any other, but then without meaning. At most 64.
pub(crate) fn siblings(node: Node, size: Size) -> impl Iterator<Item = Sibling> {
    let levels = (node.level..=Node::LEVEL_MAX).take_while(move |level| size.0 >> level != 0);
    levels.filter_map(move |level| {
        let own = node.index >> (level - node.level);
        if own % 2 == 1 {
            return Some(Sibling::Left(Node { level, index: own - 1 }));
        }
        let complete = size.0 >> level;
        match (own + 1).cmp(&complete) {
            Ordering::Less => Some(Sibling::Right(Node { level, index: own + 1 })),
            Ordering::Equal if size.0 != complete << level => Some(Sibling::Edge(level)),
            // Nothing to the right: the node stands for its parent.
            Ordering::Equal | Ordering::Greater => None,
        }
    })
}

/// A growing tree, in memory.
///
/// It holds the roots of its complete subtrees and, beyond that, only the nodes made since the last
/// [`forget`](Self::forget): those are what storage appends to its level files, and enough for the
/// inclusion paths of the leaves that came with them.
#[derive(Clone, Debug, Default)]
pub struct Frontier {
    /// Level 0 first; as many as `size` has bits.
    levels: Vec<Level>,
}

/// The complete nodes of one level, without those that nothing needs any more.
#[derive(Clone, Debug, Default)]
struct Level {
    /// Index of the first of `nodes`. Always even, so that an odd length of `nodes` means that the
    /// last is a left child without its sibling: one of the frontier's roots.
    first: u64,
    nodes: Vec<Digest>,
    /// How many of `nodes` are older than the last `forget`: 0 or 1.
    kept: usize,
}

impl Frontier {
    /// The largest size to start from. Half of the number range is left to grow into, so that no
    /// number of appends that can be made overflows.
    pub const SIZE_MAX: Size = Size(1 << 63);

    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The tree of `size` leaves from the roots of its complete subtrees, in the order of
    /// [`decompose`]. Nothing counts as made since the last `forget`.
    ///
    /// `None` unless there is one root for each set bit of `size`, or for a size above
    /// [`Frontier::SIZE_MAX`].
    #[must_use]
    pub fn from_roots(size: Size, roots: &[Digest]) -> Option<Self> {
        if size > Self::SIZE_MAX || count_of(roots.len()) != u64::from(size.0.count_ones()) {
            return None;
        }
        let mut smallest_first = roots.iter().rev();
        let counts = (0..=Node::LEVEL_MAX).map(|level| size.0 >> level);
        let levels = counts
            .take_while(|&count| count != 0)
            .map(|count| {
                let kept = usize::from(count % 2 == 1);
                let nodes = smallest_first.by_ref().take(kept).copied().collect();
                Level { first: count & !1, nodes, kept }
            })
            .collect();
        Some(Self { levels })
    }

    /// The roots of the complete subtrees, in the order of [`decompose`].
    #[must_use]
    pub fn roots(&self) -> Vec<Digest> {
        self.levels.iter().rev().filter_map(Level::root).copied().collect()
    }

    /// How many leaves were appended.
    #[must_use]
    pub fn size(&self) -> Size {
        Size(self.levels.first().map_or(0, Level::count))
    }

    /// The root of the tree. Hashes at most once a level.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.levels
            .iter()
            .fold(None, |edge, level| level.join_edge(edge))
            .unwrap_or_else(empty_root)
    }

    /// Adds a leaf by its leaf hash. Hashes once for each node that it completes: less than once a
    /// leaf on average.
    pub fn append(&mut self, leaf: Digest) {
        let mut node = leaf;
        for level in &mut self.levels {
            match level.push(node) {
                Some(parent) => node = parent,
                None => return,
            }
        }
        self.levels.push(Level { nodes: vec![node], ..Level::default() });
    }

    /// The complete nodes at binary level `level` made since the last `forget`: the index of the
    /// first and the nodes in their order. With none, the index that the next one gets.
    #[must_use]
    pub fn recent(&self, level: u8) -> (u64, &[Digest]) {
        self.levels.get(usize::from(level)).map_or((0, &[]), Level::recent)
    }

    /// Inclusion paths in the tree as it is. Make it once a group: it hashes like
    /// [`Frontier::root`], its paths not at all.
    #[must_use]
    pub fn paths(&self) -> Paths<'_> {
        let mut edge = None;
        let edges = self
            .levels
            .iter()
            .map(|level| {
                let below = edge;
                edge = level.join_edge(below);
                below
            })
            .collect();
        Paths { frontier: self, edges, root: edge.unwrap_or_else(empty_root) }
    }

    /// Drops the nodes that only `recent` and `paths` need. Their memory is kept for the next
    /// group.
    pub fn forget(&mut self) {
        self.levels.iter_mut().for_each(Level::forget);
    }

    fn node(&self, node: Node) -> Option<Digest> {
        self.levels.get(usize::from(node.level))?.get(node.index)
    }
}

impl Level {
    /// Complete nodes of this level in the whole tree.
    fn count(&self) -> u64 {
        self.first + count_of(self.nodes.len())
    }

    /// Adds the next node; the parent, if the node completes one.
    fn push(&mut self, node: Digest) -> Option<Digest> {
        let parent = self.root().map(|left| node_hash(left, &node));
        self.nodes.push(node);
        parent
    }

    /// The left child that has no sibling yet.
    fn root(&self) -> Option<&Digest> {
        self.nodes.last().filter(|_| self.nodes.len() % 2 == 1)
    }

    /// The leaves after the last complete node of the level above, given those after this level's.
    fn join_edge(&self, edge: Option<Digest>) -> Option<Digest> {
        self.root().map_or(edge, |root| Some(join(root, edge)))
    }

    fn get(&self, index: u64) -> Option<Digest> {
        let place = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.nodes.get(place).copied()
    }

    fn recent(&self) -> (u64, &[Digest]) {
        let nodes = self.nodes.get(self.kept..).unwrap_or_default();
        (self.first + count_of(self.kept), nodes)
    }

    fn forget(&mut self) {
        self.kept = self.nodes.len() % 2;
        let forgotten = self.nodes.len() - self.kept;
        self.nodes.drain(..forgotten);
        self.first += count_of(forgotten);
    }
}

/// Inclusion paths of the leaves that a [`Frontier`] took since its last `forget`.
#[derive(Clone, Debug)]
pub struct Paths<'a> {
    frontier: &'a Frontier,
    /// By level: the root of the leaves after the last complete node of that level.
    edges: Vec<Option<Digest>>,
    root: Digest,
}

impl Paths<'_> {
    /// The root that the paths lead to.
    #[must_use]
    pub const fn root(&self) -> Digest {
        self.root
    }

    /// The path of the leaf at `index`, its sibling first: at most 64 digests, no hashing.
    ///
    /// `None` unless the leaf was appended since the last `forget`.
    #[must_use]
    pub fn path(&self, index: Index) -> Option<Vec<Digest>> {
        let size = self.frontier.size();
        let (first, _) = self.frontier.recent(0);
        if index.0 < first || !size.contains(index) {
            return None;
        }
        // A left sibling is either as recent as the leaf or a root that `forget` kept.
        siblings(Node::leaf(index), size)
            .map(|sibling| match sibling {
                Sibling::Left(node) | Sibling::Right(node) => self.frontier.node(node),
                Sibling::Edge(level) => self.edges.get(usize::from(level)).copied().flatten(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The complete nodes at `level` over `leaves`.
    fn nodes(level: u8, leaves: &[Digest]) -> Vec<Digest> {
        leaves.chunks_exact(1 << level).map(reference::mth).collect()
    }

    /// Everything that a frontier says, against the reference over the leaves it took.
    fn check(
        frontier: &Frontier,
        leaves: &[Digest],
        forgotten: usize,
    ) -> Result<(), TestCaseError> {
        let root = reference::mth(leaves);
        let paths = frontier.paths();
        prop_assert_eq!(frontier.size(), Size(leaves.len() as u64));
        prop_assert_eq!(frontier.root(), root);
        prop_assert_eq!(paths.root(), root);
        prop_assert_eq!(root_of(leaves), root);
        for level in 0..12 {
            let first = forgotten >> level;
            let (found_first, found) = frontier.recent(level);
            prop_assert_eq!(found_first, first as u64);
            prop_assert_eq!(found, &nodes(level, leaves)[first..]);
        }
        for index in 0..=leaves.len() {
            let known = (forgotten..leaves.len()).contains(&index);
            let wanted = known.then(|| reference::path(index, leaves));
            prop_assert_eq!(paths.path(Index(index as u64)), wanted);
        }
        let roots = frontier.roots();
        let wanted: Vec<_> = decompose(frontier.size())
            .map(|node| nodes(node.level, leaves)[usize::try_from(node.index).unwrap()])
            .collect();
        prop_assert_eq!(&roots, &wanted);
        Ok(())
    }

    proptest! {
        #[test]
        fn any_cuts_give_the_reference_tree(
            groups in prop::collection::vec((0_usize..60, 0_u8..3), 0..10),
        ) {
            let leaves = reference::leaves(groups.iter().map(|(count, _)| count).sum());
            let (mut frontier, mut size, mut forgotten) = (Frontier::new(), 0, 0);
            for (count, then) in groups {
                leaves[size..size + count].iter().for_each(|leaf| frontier.append(*leaf));
                size += count;
                check(&frontier, &leaves[..size], forgotten)?;
                match then {
                    0 => continue,
                    1 => frontier.forget(),
                    _ => {
                        let roots = frontier.roots();
                        frontier = Frontier::from_roots(frontier.size(), &roots).unwrap();
                    }
                }
                forgotten = size;
                check(&frontier, &leaves[..size], forgotten)?;
            }
        }
    }

    #[test]
    fn every_size_has_the_reference_root_and_paths() {
        let leaves = reference::leaves(140);
        let mut frontier = Frontier::new();
        check(&frontier, &[], 0).unwrap();
        for (before, leaf) in leaves.iter().enumerate() {
            frontier.append(*leaf);
            check(&frontier, &leaves[..=before], 0).unwrap();
        }
    }

    #[test]
    fn frontiers_of_wrong_roots_or_beyond_the_limit_are_refused() {
        let roots = reference::leaves(64);
        assert!(Frontier::from_roots(Size(5), &roots[..1]).is_none());
        assert!(Frontier::from_roots(Size(5), &roots[..3]).is_none());
        assert!(Frontier::from_roots(Size::ZERO, &roots[..1]).is_none());
        assert!(Frontier::from_roots(Size::ZERO, &[]).is_some());
        assert!(Frontier::from_roots(Frontier::SIZE_MAX, &roots[..1]).is_some());
        assert!(Frontier::from_roots(Size((1 << 63) + 1), &roots[..2]).is_none());
        assert!(Frontier::from_roots(Size(u64::MAX), &roots).is_none());
    }

    #[test]
    fn largest_frontier_grows() {
        let roots = reference::leaves(63);
        let size = Size(Frontier::SIZE_MAX.0 - 1);
        let mut frontier = Frontier::from_roots(size, &roots).unwrap();
        for leaf in reference::leaves(5) {
            frontier.append(leaf);
        }
        assert_eq!(frontier.size(), Size(Frontier::SIZE_MAX.0 + 4));
        assert_eq!(frontier.recent(63).1.len(), 1);
        assert_eq!(frontier.recent(64), (0, &[][..]));
        let paths = frontier.paths();
        assert_eq!(paths.path(Index(size.0 - 1)), None);
        assert_eq!(paths.path(Index(size.0)).unwrap().len(), 64);
        assert_eq!(paths.path(Index(size.0 + 1)).unwrap().len(), 3);
        assert_eq!(paths.path(Index(u64::MAX)), None);
    }

    #[test]
    fn nodes_are_computed_from_the_tile_level_below() {
        let stored = |level, index| Node { level, index }.stored();
        let some = |tile_level, first, count| Some(Stored { tile_level, first, count });
        assert_eq!(stored(0, 300), some(0, 300, 1));
        assert_eq!(stored(7, 3), some(0, 384, 128));
        assert_eq!(stored(8, 3), some(1, 3, 1));
        assert_eq!(stored(9, 3), some(1, 6, 2));
        assert_eq!(stored(63, 1), some(7, 128, 128));
        assert_eq!(stored(0, u64::MAX), some(0, u64::MAX, 1));
        assert_eq!(stored(1, u64::MAX), None);
        assert_eq!(stored(64, 0), None);
    }

    #[test]
    fn tile_levels_count_complete_nodes() {
        assert_eq!(Stored::count_in(0, Size(70_000)), 70_000);
        assert_eq!(Stored::count_in(1, Size(70_000)), 273);
        assert_eq!(Stored::count_in(2, Size(70_000)), 1);
        assert_eq!(Stored::count_in(7, Size(u64::MAX)), 255);
        assert_eq!(Stored::count_in(8, Size(u64::MAX)), 0);
        assert_eq!(Stored::count_in(u8::MAX, Size(u64::MAX)), 0);
    }
}
