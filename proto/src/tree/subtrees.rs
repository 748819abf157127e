//! The complete nodes over a stretch of leaves, computed apart from the tree they belong to.
//!
//! Growing a tree leaf by leaf is sequential. Stretches of leaves are not: whoever has many of them
//! hashes each on its own core, and [`Frontier::extend`] then joins them with a hash or two a
//! level.

use super::{Frontier, Level, Node};
use crate::{
    hash::{Digest, node_hash},
    position::Index,
};

/// All nodes that consecutive leaves complete by themselves: about twice as many as leaves.
#[derive(Clone, Debug)]
pub struct Subtrees {
    first: Index,
    /// Level 0 first: the leaves. Levels without a node are left out.
    levels: Vec<Vec<Digest>>,
}

impl Subtrees {
    /// Computes the nodes over `leaves`, of which the first is at `first`.
    ///
    /// Hashes less than once a leaf.
    #[must_use]
    pub fn over(first: Index, leaves: Vec<Digest>) -> Self {
        let mut levels = Vec::new();
        let (mut first_node, mut nodes) = (first.0, leaves);
        while !nodes.is_empty() {
            // The parent of a right child at the edge takes a leaf that lies before.
            let start = usize::from(first_node % 2 == 1);
            let (pairs, _) = nodes.get(start..).unwrap_or_default().as_chunks::<2>();
            let parents = pairs.iter().map(|[left, right]| node_hash(left, right)).collect();
            levels.push(std::mem::replace(&mut nodes, parents));
            first_node = first_node.div_ceil(2);
        }
        Self { first, levels }
    }

    /// The leaves.
    #[must_use]
    pub fn leaves(&self) -> &[Digest] {
        self.levels.first().map_or(&[], Vec::as_slice)
    }
}

impl Frontier {
    /// Adds the leaves of `subtrees`, as [`Frontier::append`] would one by one. Hashes at most once
    /// a level.
    ///
    /// # Panics
    ///
    /// When the leaves do not begin at the tree's size.
    pub fn extend(&mut self, subtrees: &Subtrees) {
        assert_eq!(subtrees.first, self.size().next_index(), "the leaves continue the tree");
        // The parent of the pair that the seam cuts, on its way up.
        let mut carry = None;
        for level in 0..=usize::from(Node::LEVEL_MAX) {
            let nodes = subtrees.levels.get(level).map_or(&[][..], Vec::as_slice);
            if nodes.is_empty() && carry.is_none() {
                return;
            }
            if self.levels.len() <= level {
                self.levels.push(Level::default());
            }
            let Some(own) = self.levels.get_mut(level) else {
                return;
            };
            carry = match (carry, nodes.first()) {
                (None, Some(first)) => own.root().map(|left| node_hash(left, first)),
                (Some(node), None) => own.push(node),
                // Either the carried node completes a pair, or it begins the one that `first`
                // completes.
                (Some(node), Some(first)) => {
                    own.push(node).or_else(|| own.root().map(|left| node_hash(left, first)))
                }
                (None, None) => None,
            };
            own.nodes.extend_from_slice(nodes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        position::count_of,
        tree::reference::{self, leaves},
    };

    proptest! {
        #[test]
        fn stretches_grow_the_same_tree_as_leaves_one_by_one(
            stretches in prop::collection::vec((0_usize..70, any::<bool>()), 0..12),
        ) {
            let all = leaves(stretches.iter().map(|(count, _)| count).sum());
            let (mut extended, mut appended) = (Frontier::new(), Frontier::new());
            let mut rest = &all[..];
            for (count, forget) in stretches {
                let (some, after) = rest.split_at(count);
                rest = after;
                let subtrees = Subtrees::over(extended.size().next_index(), some.to_vec());
                prop_assert_eq!(subtrees.leaves(), some);
                extended.extend(&subtrees);
                some.iter().for_each(|leaf| appended.append(*leaf));
                for level in 0..14 {
                    prop_assert_eq!(extended.recent(level), appended.recent(level));
                }
                let taken = &all[..all.len() - rest.len()];
                prop_assert_eq!(extended.root(), reference::mth(taken));
                prop_assert_eq!(extended.roots(), appended.roots());
                if forget {
                    extended.forget();
                    appended.forget();
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "the leaves continue the tree")]
    fn leaves_out_of_place_are_our_own_mistake() {
        let subtrees = Subtrees::over(Index(1), leaves(3));
        assert_eq!(count_of(subtrees.leaves().len()), 3);
        Frontier::new().extend(&subtrees);
    }
}
