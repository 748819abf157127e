//! The text of a policy before Cedar reads it: where each rule begins, and how deep it can be.
//!
//! Cedar's parser, checker and evaluator call themselves for each level of a rule. Without bounds,
//! a text of a few kilobytes would end the process, and a long chain of operators would be
//! evaluated on one thread and be too deep for the stack of another, so that two auditors disagree.

use crate::{
    error::{EventFault, PolicyError},
    event::text_fault,
};

/// Where a rule begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Statement {
    /// Offset of its first token.
    pub(super) start: usize,
    /// Offset of its annotation `@id`, if it has one.
    pub(super) id: Option<usize>,
}

/// Most brackets that stand within each other.
const NESTING_MAX: usize = 16;

/// Most signs of one rule that make it deeper: operators, dots, brackets, and the word `if`. What
/// is listed makes none, so that a rule can name every country.
const SIGNS_MAX: usize = 160;

/// The rules of a text, in order.
///
/// # Errors
///
/// [`PolicyError`] for characters that are not shown or that hide others, and for a rule that is
/// too deep.
pub(super) fn statements(text: &str) -> Result<Vec<Statement>, PolicyError> {
    match text_fault(text.as_bytes(), true) {
        Some(EventFault::Character { position }) => {
            return Err(place(text, position, "character that is not shown or hides others"));
        }
        Some(fault) => return Err(place(text, 0, fault.to_string())),
        None => {}
    }
    let mut statements = Vec::new();
    let mut current: Option<Statement> = None;
    let (mut signs, mut depth, mut before) = (0, 0_usize, "");
    let tokens = Tokens { text, at: 0 };
    for (at, token) in tokens {
        let statement = current.get_or_insert(Statement { start: at, id: None });
        if before == "@" && token == "id" && depth == 0 {
            statement.id = Some(at.saturating_sub(1));
        }
        signs += usize::from(deepens(token));
        match token {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            ";" => {
                statements.extend(current.take());
                (signs, depth) = (0, 0);
            }
            _ => {}
        }
        if depth > NESTING_MAX {
            let problem = format!("bracket {depth} deep, at most {NESTING_MAX}");
            return Err(place(text, at, problem));
        }
        if signs > SIGNS_MAX {
            let problem = format!("rule of more than {SIGNS_MAX} operators and brackets");
            return Err(place(text, at, problem));
        }
        before = token;
    }
    statements.extend(current);
    Ok(statements)
}

/// An error at a byte offset of the text.
pub(super) fn place(text: &str, at: usize, problem: impl Into<String>) -> PolicyError {
    let (mut line, mut column) = (1, 1);
    for (_, symbol) in text.char_indices().take_while(|&(offset, _)| offset < at) {
        if symbol == '\n' {
            (line, column) = (line + 1, 1);
        } else {
            column += 1;
        }
    }
    PolicyError { line, column, problem: problem.into() }
}

/// Words, strings and signs of a text; comments and space lie between them.
struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.text.get(self.at..)?;
            let space = rest.len() - rest.trim_start().len();
            if space > 0 {
                self.at += space;
            } else if rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else {
                let len = token_len(rest)?;
                let token = (self.at, rest.get(..len)?);
                self.at += len;
                return Some(token);
            }
        }
    }
}

fn deepens(token: &str) -> bool {
    let is_sign = token.starts_with(|first: char| first.is_ascii_punctuation() && first != '_');
    token == "if" || is_sign && !token.starts_with([',', ':', '"'])
}

/// Length of the token that a text begins with; `None` for the empty text.
fn token_len(text: &str) -> Option<usize> {
    let is_word = |symbol: char| symbol.is_alphanumeric() || symbol == '_';
    let first = text.chars().next()?;
    if first == '"' {
        return Some(string_len(text));
    }
    if !is_word(first) {
        return Some(first.len_utf8());
    }
    Some(text.find(|symbol| !is_word(symbol)).unwrap_or(text.len()))
}

/// Length of the string that a text begins with, quotes included; all of it if it does not end.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, symbol) in text.char_indices().skip(1) {
        match symbol {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}
