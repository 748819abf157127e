//! Whether a justification says anything.

use std::collections::BTreeSet;

/// Fewest letters of a justification that says something: "fix bug" has six.
const LETTERS_MIN: usize = 12;

/// Fewest different words.
const WORDS_MIN: usize = 3;

/// Fewest different characters where each says about half a word, and no spaces part words.
const IDEOGRAPHS_MIN: usize = 6;

/// Whether a justification tells a reviewer nothing: it is empty, too short to name what and why,
/// or the same word or letter again and again. Whether what it says is true is for people to judge.
#[must_use]
pub fn is_low_information(text: &str) -> bool {
    if different(text.chars().filter(is_ideograph)).len() >= IDEOGRAPHS_MIN {
        return false;
    }
    let lower = text.to_lowercase();
    let words = lower.split(|letter: char| !letter.is_alphanumeric());
    let words = different(words.filter(|word| has_two_letters(word)));
    let letters: usize = words.iter().map(|word| word.chars().count()).sum();
    words.len() < WORDS_MIN || letters < LETTERS_MIN
}

fn different<T: Ord>(items: impl Iterator<Item = T>) -> BTreeSet<T> {
    items.collect()
}

/// Of Chinese, Japanese or Korean.
const fn is_ideograph(letter: &char) -> bool {
    matches!(
        letter,
        '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}'
    )
}

/// Not a number, and not one letter repeated.
fn has_two_letters(word: &str) -> bool {
    let mut letters = word.chars().filter(|letter| letter.is_alphabetic());
    letters.next().is_some_and(|first| letters.any(|letter| letter != first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_neither_what_nor_why_is_low_information() {
        for text in [
            "",
            "   ",
            "n/a",
            "test",
            "asdf asdf asdf",
            "access needed",
            "xxx yyy zzz www",
            "INC-4711",
            "1 2 3 4 5 6 7 8 9 0",
            "a b c d e f g h i j k l",
            ".",
        ] {
            assert!(is_low_information(text), "{text}");
        }
    }

    #[test]
    fn a_reason_in_any_script_is_enough() {
        for text in [
            "customer reported a failed payment",
            "INC-4711: order rows missing in replica",
            "Fehlende Bestellungen im Bericht pr\u{fc}fen",
            "\u{8abf}\u{67fb}\u{306e}\u{305f}\u{3081}\u{6ce8}\u{6587}\u{3092}\u{78ba}\u{8a8d}",
        ] {
            assert!(!is_low_information(text), "{text}");
        }
    }
}
