//! Paths of tiles and entry bundles (C2SP tlog-tiles; FORMATS.md, section 7).
//!
//! ```text
//! <level>/<tile>[.p/<width>]      level 0 to 63, or "entries"; width 1 to 255
//! ```
//!
//! The tile's number is written in groups of three digits, all but the last with an `x` before
//! them: 1234067 is `x001/x234/067`. There is one way of writing each path, so that caches hold
//! each resource once.

use access_ledger_proto::{
    position::Size,
    tree::{Stored, TILE_WIDTH},
};

/// What a tile is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Hashes of this tile level.
    Hashes(u8),
    /// Entries.
    Entries,
}

/// A tile or an entry bundle, whole or the beginning of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TilePath {
    pub(super) kind: Kind,
    /// 0-based place of the tile in its level.
    number: u64,
    /// 1 to [`TILE_WIDTH`].
    width: u16,
}

impl TilePath {
    /// Reads what follows `/tile/`; `None` for what is no such path.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let (kind, rest) = path.split_once('/')?;
        let kind = match kind {
            "entries" => Kind::Entries,
            level => Kind::Hashes(decimal(level).filter(|&level| level <= LEVEL_MAX)?),
        };
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => {
                (number, decimal(width).filter(|width| (1..TILE_WIDTH).contains(width))?)
            }
            None => (rest, TILE_WIDTH),
        };
        Some(Self { kind, number: parse_number(number)?, width })
    }

    /// The place of the first hash or entry in its level, and how many there are; `None` if the
    /// tree of this size does not have them all.
    pub(super) fn range(self, size: Size) -> Option<(u64, u16)> {
        let level = match self.kind {
            Kind::Hashes(level) => level,
            Kind::Entries => 0,
        };
        let first = self.number.checked_mul(TILE_WIDTH.into())?;
        let end = first.checked_add(self.width.into())?;
        (end <= Stored::count_in(level, size)).then_some((first, self.width))
    }
}

/// Reads groups of three digits.
fn parse_number(text: &str) -> Option<u64> {
    let (groups, last) = match text.rsplit_once('/') {
        Some((groups, last)) => (Some(groups), last),
        None => (None, text),
    };
    // Leading groups of zeros would be a second way of writing a number.
    if groups.is_some_and(|groups| groups.starts_with("x000")) {
        return None;
    }
    let mut number = 0_u64;
    for group in groups.into_iter().flat_map(|groups| groups.split('/')) {
        number = number.checked_mul(1_000)?.checked_add(three_digits(group.strip_prefix('x')?)?)?;
    }
    number.checked_mul(1_000)?.checked_add(three_digits(last)?)
}

fn three_digits(text: &str) -> Option<u64> {
    (text.len() == 3 && is_digits(text)).then(|| text.parse().ok()).flatten()
}

/// A decimal number without leading zeros.
fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    let is_canonical = is_digits(text) && (text == "0" || !text.starts_with('0'));
    is_canonical.then(|| text.parse().ok()).flatten()
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The highest level that a path can name. Trees whose size is a `u64` end far below.
const LEVEL_MAX: u8 = 63;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(kind: Kind, number: u64, width: u16) -> TilePath {
        TilePath { kind, number, width }
    }

    #[test]
    fn paths_of_the_specification_are_read() {
        let read = |text| TilePath::parse(text).unwrap();
        assert_eq!(read("0/x001/x234/067"), path(Kind::Hashes(0), 1_234_067, 256));
        assert_eq!(read("63/000.p/255"), path(Kind::Hashes(63), 0, 255));
        assert_eq!(read("entries/x100/000.p/1"), path(Kind::Entries, 100_000, 1));
        let most = "0/x018/x446/x744/x073/x709/x551/615";
        assert_eq!(read(most), path(Kind::Hashes(0), u64::MAX, 256));
    }

    #[test]
    fn other_paths_are_refused() {
        for bad in [
            "",
            "0",
            "0/",
            "/000",
            "64/000",
            "00/000",
            "-1/000",
            "+1/000",
            "a/000",
            "256/000",
            "0/0",
            "0/00",
            "0/0000",
            "0/00a",
            "0/+01",
            "0/x000",
            "0/000/",
            "0//000",
            "0/000/000",
            "0/x000/001",
            "0/x01/000",
            "0/X001/000",
            "0/x001/x000",
            "0/x001/x000/",
            "0/xx01/000",
            "0/000.p",
            "0/000.p/",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/01",
            "0/000.p/-1",
            "0/000.p/1/",
            "0/000.p/1.p/1",
            "0/000%2e",
            "entries",
            "entries/",
            "Entries/000",
            "0/x018/x446/x744/x073/x709/x551/616",
        ] {
            assert_eq!(TilePath::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_tree_has_the_tiles_of_the_specification() {
        // The example of C2SP tlog-tiles: 70,000 leaves.
        let has = |text| TilePath::parse(text).unwrap().range(Size(70_000));
        assert_eq!(has("0/272"), Some((272 * 256, 256)));
        assert_eq!(has("0/273.p/112"), Some((273 * 256, 112)));
        assert_eq!(has("entries/273.p/7"), Some((273 * 256, 7)));
        assert_eq!(has("0/273.p/113"), None);
        assert_eq!(has("0/273"), None);
        assert_eq!(has("0/274.p/1"), None);
        assert_eq!(has("1/000"), Some((0, 256)));
        assert_eq!(has("1/001.p/17"), Some((256, 17)));
        assert_eq!(has("1/001.p/18"), None);
        assert_eq!(has("2/000.p/1"), Some((0, 1)));
        assert_eq!(has("2/000.p/2"), None);
        assert_eq!(has("3/000.p/1"), None);
        assert_eq!(has("63/000.p/1"), None);
        assert_eq!(has("0/x018/x446/x744/x073/x709/x551/615"), None);
    }

    proptest! {
        #[test]
        fn every_number_has_one_path(number in 0..u64::MAX / 256, width in 1_u16..256) {
            let mut groups = format!("{:03}", number % 1_000);
            let mut rest = number / 1_000;
            while rest > 0 {
                groups = format!("x{:03}/{groups}", rest % 1_000);
                rest /= 1_000;
            }
            let read = TilePath::parse(&format!("5/{groups}.p/{width}"));
            prop_assert_eq!(read, Some(path(Kind::Hashes(5), number, width)));
            let padded = TilePath::parse(&format!("5/x000/{groups}"));
            prop_assert_eq!(padded, None);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "[0-9x/.pents]{0,40}", size: u64) {
            if let Some(path) = TilePath::parse(&text) {
                let range = path.range(Size(size));
                prop_assert!(range.is_none_or(|(first, width)| first + u64::from(width) <= size));
            }
        }
    }
}
