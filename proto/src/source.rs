//! Names of sources.
//!
//! A name is 1 to 128 bytes of `[a-z0-9._/:@-]` (FORMATS.md, section 2). Names are hierarchical:
//! `payments/pod-7f3` lies below `payments`.

use std::{fmt, sync::Arc};

use crate::error::NameError;

/// A borrowed, valid name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name<'a>(&'a str);

/// An owned, valid name; cloning shares it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName(Arc<str>);

impl<'a> Name<'a> {
    /// Longest name, in bytes.
    pub const LEN_MAX: usize = 128;

    /// Checks the bytes of a name.
    ///
    /// # Errors
    ///
    /// [`NameError::Length`] unless 1 to 128 bytes; [`NameError::Character`] for a byte outside
    /// `[a-z0-9._/:@-]`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NameError> {
        if bytes.is_empty() || bytes.len() > Self::LEN_MAX {
            return Err(NameError::Length { len: bytes.len() });
        }
        if let Some(position) = bytes.iter().position(|&byte| !is_name_byte(byte)) {
            return Err(NameError::Character { position });
        }
        match str::from_utf8(bytes) {
            Ok(name) => Ok(Self(name)),
            Err(error) => Err(NameError::Character { position: error.valid_up_to() }),
        }
    }

    /// The name as text.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The owned form.
    #[must_use]
    pub fn to_owned(self) -> SourceName {
        SourceName(self.0.into())
    }

    /// Whether this name lies below `parent`: `payments/a` below `payments`, but not `payments-a`.
    #[must_use]
    pub fn is_below(self, parent: Name<'_>) -> bool {
        self.0.strip_prefix(parent.0).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
    }

    /// The names that this one lies below, nearest first.
    pub fn ancestors(self) -> impl Iterator<Item = Name<'a>> {
        self.0
            .rmatch_indices('/')
            .filter_map(|(at, _)| self.0.get(..at))
            .filter(|name| !name.is_empty())
            .map(Name)
    }
}

impl SourceName {
    /// Checks and owns a name.
    ///
    /// # Errors
    ///
    /// As [`Name::parse`].
    pub fn parse(name: &str) -> Result<Self, NameError> {
        Name::parse(name.as_bytes()).map(Name::to_owned)
    }

    /// The borrowed form.
    #[must_use]
    pub fn as_name(&self) -> Name<'_> {
        Name(&self.0)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for SourceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0)
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

const fn is_name_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'/' | b':' | b'@' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_alphabet_or_length_are_refused() {
        assert_eq!(Name::parse(b""), Err(NameError::Length { len: 0 }));
        assert_eq!(Name::parse(&[b'a'; 129]), Err(NameError::Length { len: 129 }));
        assert_eq!(Name::parse(b"abC"), Err(NameError::Character { position: 2 }));
        assert_eq!(Name::parse("a\u{e9}".as_bytes()), Err(NameError::Character { position: 1 }));
        assert!(Name::parse(b"gateway:eu-1/x@y.z_0").is_ok());
    }

    #[test]
    fn only_a_slash_makes_a_child() {
        let name = |text: &'static str| Name::parse(text.as_bytes()).unwrap();
        assert!(name("payments/pod-1").is_below(name("payments")));
        assert!(!name("payments-1").is_below(name("payments")));
        assert!(!name("payments").is_below(name("payments")));
        assert!(!name("payments/").is_below(name("payments")));
        let ancestors: Vec<_> = name("a/b/c").ancestors().map(Name::as_str).collect();
        assert_eq!(ancestors, ["a/b", "a"]);
    }
}
