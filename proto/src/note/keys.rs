//! Keys: their ids, their text forms, signing and verifying.
//!
//! Ed25519 is verified as Go's and OpenSSL's implementations do it (see [`verifies`]). On top of
//! that a public key must be encoded canonically and not be of small order: no honest signer makes
//! such a key, and one signature would fit many messages under it.

use std::{fmt, str};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::KeyError;

/// The first 4 bytes of `SHA-256(name || 0x0A || type || public key)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 4]);

/// What a key signs (C2SP signed-note, "Signature types").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum KeyType {
    /// Ed25519 over the text of a note, or over a seal message.
    Ed25519 = 0x01,
    /// Timestamped Ed25519 cosignature over a checkpoint (C2SP tlog-cosignature).
    CosignatureV1 = 0x04,
}

/// A public key with the name and type under which it is known.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VerifierKey {
    name: String,
    key_type: KeyType,
    id: KeyId,
    public_key: VerifyingKey,
}

/// A private key. The seed is wiped when it is dropped, and never printed but by
/// [`Signer::secret_text`].
#[derive(Clone)]
pub struct Signer {
    key: SigningKey,
    verifier: VerifierKey,
}

impl KeyId {
    /// Reads 8 lower-case hexadecimal digits.
    fn parse(text: &str) -> Option<Self> {
        let canonical = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 8 || !text.bytes().all(canonical) {
            return None;
        }
        u32::from_str_radix(text, 16).ok().map(|id| Self(id.to_be_bytes()))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl KeyType {
    /// The type's byte in key ids and key texts.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// The type of a byte; `None` for one that this code does not verify.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0x01 => Some(Self::Ed25519),
            0x04 => Some(Self::CosignatureV1),
            _ => None,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Ed25519 => "Ed25519",
            Self::CosignatureV1 => "cosignature/v1",
        })
    }
}

/// The id of a public key with a type and a name.
#[must_use]
pub fn key_id(name: &str, key_type: KeyType, public_key: &VerifyingKey) -> KeyId {
    let mut hasher = Sha256::new();
    hasher.update(name);
    hasher.update([b'\n', key_type.byte()]);
    hasher.update(public_key.as_bytes());
    let [a, b, c, d, ..]: [u8; 32] = hasher.finalize().into();
    KeyId([a, b, c, d])
}

/// Reads an Ed25519 public key: exactly 32 bytes.
///
/// # Errors
///
/// [`KeyError::PublicKey`] unless the bytes are the canonical encoding of a point that is not of
/// small order.
pub fn parse_public_key(bytes: &[u8]) -> Result<VerifyingKey, KeyError> {
    let bytes = bytes.try_into().map_err(|_| KeyError::PublicKey)?;
    VerifyingKey::from_bytes(bytes)
        .ok()
        .filter(|key| !key.is_weak() && key.to_edwards().compress().as_bytes() == bytes)
        .ok_or(KeyError::PublicKey)
}

/// Whether `signature` is `key`'s over `message` (RFC 8032, section 5.1.7).
///
/// By the equation without cofactor, with `S` below the group's order and `R` compared by its
/// bytes: what Go, OpenSSL and the reference implementation accept, so that no two verifiers of a
/// log disagree.
#[must_use]
pub fn verifies(key: &VerifyingKey, message: &[u8], signature: &[u8; 64]) -> bool {
    key.verify(message, &Signature::from_bytes(signature)).is_ok()
}

/// Whether `name` can name a key: not empty, no Unicode space, no `+`, no control character.
#[must_use]
pub fn is_key_name(name: &str) -> bool {
    let allowed = |c: char| !c.is_whitespace() && c >= ' ' && c != '+';
    !name.is_empty() && name.chars().all(allowed)
}

impl VerifierKey {
    /// Names an Ed25519 public key.
    ///
    /// # Errors
    ///
    /// [`KeyError::Name`] for a name that [`is_key_name`] refuses; else as [`parse_public_key`].
    pub fn new(name: &str, key_type: KeyType, public_key: &[u8; 32]) -> Result<Self, KeyError> {
        Self::from_point(name, key_type, parse_public_key(public_key)?)
    }

    /// Reads `<name>+<8 hex digits of the key id>+<base64(type || public key)>`.
    ///
    /// # Errors
    ///
    /// [`KeyError::Form`] for another form; [`KeyError::Type`] for a type that is not verified
    /// here; [`KeyError::Id`] when the id is not that of the key; else as [`VerifierKey::new`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, id, key_type, public_key) = parse_key_text(text)?;
        let key = Self::new(name, key_type, &public_key)?;
        key.check_id(id)?;
        Ok(key)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the key signs.
    #[must_use]
    pub const fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The key's id.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// The public key itself.
    #[must_use]
    pub const fn public_key(&self) -> &VerifyingKey {
        &self.public_key
    }

    /// Whether `signature` is this key's over `message`, as the bytes stand: a cosignature's
    /// message begins with its own header lines.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        verifies(&self.public_key, message, signature)
    }

    fn from_point(name: &str, key_type: KeyType, point: VerifyingKey) -> Result<Self, KeyError> {
        if !is_key_name(name) {
            return Err(KeyError::Name);
        }
        let id = key_id(name, key_type, &point);
        Ok(Self { name: name.to_owned(), key_type, id, public_key: point })
    }

    fn check_id(&self, found: KeyId) -> Result<(), KeyError> {
        if found == self.id { Ok(()) } else { Err(KeyError::Id { found, computed: self.id }) }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_key_text(out, self, self.public_key.as_bytes())
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "VerifierKey({self})")
    }
}

impl str::FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

impl Signer {
    /// Names the key that grows from `seed` (RFC 8032's private key, 32 bytes).
    ///
    /// # Errors
    ///
    /// [`KeyError::Name`] for a name that [`is_key_name`] refuses.
    pub fn new(name: &str, key_type: KeyType, seed: [u8; 32]) -> Result<Self, KeyError> {
        let seed = Zeroizing::new(seed);
        let key = SigningKey::from_bytes(&seed);
        let verifier = VerifierKey::from_point(name, key_type, key.verifying_key())?;
        Ok(Self { key, verifier })
    }

    /// Reads `PRIVATE+KEY+<name>+<8 hex digits of the key id>+<base64(type || seed)>`, the form of
    /// Go's `golang.org/x/mod/sumdb/note`.
    ///
    /// # Errors
    ///
    /// As [`VerifierKey::parse`], but never [`KeyError::PublicKey`]: any seed makes a key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.strip_prefix(PRIVATE_PREFIX).ok_or(KeyError::Form)?;
        let (name, id, key_type, seed) = parse_key_text(text)?;
        let signer = Self::new(name, key_type, *seed)?;
        signer.verifier.check_id(id)?;
        Ok(signer)
    }

    /// The form that [`Signer::parse`] reads. It holds the seed: for a file that only its owner
    /// reads. Wiped when it is dropped.
    #[must_use]
    pub fn secret_text(&self) -> Zeroizing<String> {
        // Room for all of it: a text that moves as it grows would leave the seed behind.
        let mut text = Zeroizing::new(String::with_capacity(
            PRIVATE_PREFIX.len() + self.name().len() + KEY_TEXT_REST_MAX,
        ));
        text.push_str(PRIVATE_PREFIX);
        // Writing to a `String` cannot fail.
        let _infallible = write_key_text(&mut *text, &self.verifier, self.key.as_bytes());
        text
    }

    /// The seed that the key grows from, for a file of another form. Wiped when it is dropped.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.verifier.name()
    }

    /// The public half.
    #[must_use]
    pub const fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Signs the bytes as they stand.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Signer({})", self.verifier)
    }
}

/// Name, id, type, and the public or the private key: a public one takes no harm from being wiped.
type KeyText<'a> = (&'a str, KeyId, KeyType, Zeroizing<[u8; 32]>);

/// Splits `<name>+<key id>+<base64(type || 32 bytes)>`; the base64 part may hold `+` itself.
fn parse_key_text(text: &str) -> Result<KeyText<'_>, KeyError> {
    let mut fields = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (fields.next(), fields.next(), fields.next()) else {
        return Err(KeyError::Form);
    };
    if !is_key_name(name) {
        return Err(KeyError::Name);
    }
    let id = KeyId::parse(id).ok_or(KeyError::Form)?;
    let key = Zeroizing::new(STANDARD.decode(key).map_err(|_| KeyError::Form)?);
    let (&key_type, key) = key.split_first().ok_or(KeyError::Form)?;
    let key_type = KeyType::from_byte(key_type).ok_or(KeyError::Type { found: key_type })?;
    let key = key.try_into().map_err(|_| KeyError::Form)?;
    Ok((name, id, key_type, Zeroizing::new(key)))
}

fn write_key_text(
    out: &mut impl fmt::Write,
    key: &VerifierKey,
    material: &[u8; 32],
) -> fmt::Result {
    let mut typed = Zeroizing::new([0; 33]);
    let [first, rest @ ..] = &mut *typed;
    (*first, *rest) = (key.key_type.byte(), *material);
    let encoded = Zeroizing::new(STANDARD.encode(*typed));
    write!(out, "{}+{}+{}", key.name, key.id, *encoded)
}

const PRIVATE_PREFIX: &str = "PRIVATE+KEY+";

/// What follows the name: two plus signs, 8 digits, and 33 bytes in base64.
const KEY_TEXT_REST_MAX: usize = 2 + 8 + 44;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // The key pair of Go's golang.org/x/mod/sumdb/note tests.
    const GO_SECRET: &str =
        "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const GO_PUBLIC: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

    fn signer(name: &str) -> Signer {
        Signer::new(name, KeyType::Ed25519, [7; 32]).unwrap()
    }

    #[test]
    fn keys_of_another_implementation_read_and_print_the_same() {
        let signer = Signer::parse(GO_SECRET).unwrap();
        assert_eq!(*signer.secret_text(), GO_SECRET);
        assert_eq!(signer.verifier().to_string(), GO_PUBLIC);
        let verifier: VerifierKey = GO_PUBLIC.parse().unwrap();
        assert_eq!(&verifier, signer.verifier());
        assert_eq!((verifier.name(), verifier.key_type()), ("PeterNeumann", KeyType::Ed25519));
        assert_eq!(verifier.id().to_string(), "c74f20a3");
    }

    #[test]
    fn malformed_keys_are_refused() {
        let refused = |text: &str| VerifierKey::parse(text).unwrap_err();
        let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
        let key = *signer("a").verifier().public_key().as_bytes();
        let typed = |key_type: u8, key: &[u8]| base64(&[&[key_type][..], key].concat());

        for text in ["", "a", "a+00000000", "a+00000000+", "a+0000000+AQ==", "a+0000000G+AQ=="] {
            assert_eq!(refused(text), KeyError::Form, "{text}");
        }
        let upper = GO_PUBLIC.replace("c74f20a3", "C74F20A3");
        assert_eq!(refused(&upper), KeyError::Form);
        assert_eq!(refused(&format!("{GO_PUBLIC}\n")), KeyError::Form);
        assert_eq!(refused(&format!("a+00000000+{}", typed(1, &key[1..]))), KeyError::Form);
        assert_eq!(refused(&format!("a b+00000000+{}", typed(1, &key))), KeyError::Name);
        assert_eq!(refused(&format!("+00000000+{}", typed(1, &key))), KeyError::Name);
        let ecdsa = format!("a+00000000+{}", typed(2, &key));
        assert_eq!(refused(&ecdsa), KeyError::Type { found: 2 });
        let computed = signer("a").verifier().id();
        assert_eq!(
            refused(&format!("a+00000000+{}", typed(1, &key))),
            KeyError::Id { found: KeyId([0; 4]), computed }
        );
        assert_eq!(Signer::parse(GO_PUBLIC).unwrap_err(), KeyError::Form);
        let misnamed = GO_SECRET.replace("Peter", "Petra");
        assert!(matches!(Signer::parse(&misnamed), Err(KeyError::Id { .. })));
        assert_eq!(Signer::new("a+b", KeyType::Ed25519, [0; 32]).unwrap_err(), KeyError::Name);
    }

    #[test]
    fn weak_and_non_canonical_public_keys_are_refused() {
        let refused = |key: [u8; 32]| {
            assert_eq!(VerifierKey::new("a", KeyType::Ed25519, &key), Err(KeyError::PublicKey));
        };
        // The identity and a point of order 4.
        let mut identity = [0; 32];
        identity[0] = 1;
        refused(identity);
        refused([0; 32]);
        // y = p + 3, which RFC 8032 does not decode, though y = 3 is a point.
        let mut three = [0; 32];
        three[0] = 3;
        assert!(VerifierKey::new("a", KeyType::Ed25519, &three).is_ok());
        let mut beyond = [0xff; 32];
        (beyond[0], beyond[31]) = (0xf0, 0x7f);
        refused(beyond);
        // y = 2 is not on the curve.
        let mut off = [0; 32];
        off[0] = 2;
        refused(off);
    }

    #[test]
    fn names_hold_no_space_plus_or_control() {
        for name in ["", "a b", "a\u{2003}b", "a\u{85}b", "a+b", "a\nb", "a\u{1}b"] {
            assert!(!is_key_name(name), "{name:?}");
        }
        assert!(is_key_name("example.com/log:1@x-\u{e9}"));
    }

    #[test]
    fn the_seed_is_never_shown_by_debug() {
        let signer = Signer::parse(GO_SECRET).unwrap();
        assert_eq!(format!("{signer:?}"), format!("Signer({GO_PUBLIC})"));
        assert_eq!(format!("{:?}", signer.verifier()), format!("VerifierKey({GO_PUBLIC})"));
    }

    #[test]
    fn a_signature_fits_its_message_and_key_only() {
        let (one, two) = (signer("a"), Signer::new("a", KeyType::Ed25519, [8; 32]).unwrap());
        let signature = one.sign(b"message");
        assert!(one.verifier().verifies(b"message", &signature));
        assert!(!one.verifier().verifies(b"massage", &signature));
        assert!(!two.verifier().verifies(b"message", &signature));
    }

    proptest! {
        #[test]
        fn keys_come_back_as_they_went(
            name in "[^\\s\\p{Cc}+]{1,40}", cosigner: bool, seed: [u8; 32],
        ) {
            let key_type = if cosigner { KeyType::CosignatureV1 } else { KeyType::Ed25519 };
            let signer = Signer::new(&name, key_type, seed).unwrap();
            let again = Signer::parse(&signer.secret_text()).unwrap();
            prop_assert_eq!(again.verifier(), signer.verifier());
            let verifier = VerifierKey::parse(&signer.verifier().to_string());
            prop_assert_eq!(verifier.as_ref(), Ok(signer.verifier()));
            prop_assert_eq!(KeyType::from_byte(key_type.byte()), Some(key_type));
        }

        #[test]
        fn any_text_is_read_as_a_key_without_a_panic(text in ".{0,120}") {
            if let Ok(key) = VerifierKey::parse(&text) {
                prop_assert_eq!(key.to_string(), text.as_str());
            }
            let secret = format!("{PRIVATE_PREFIX}{text}");
            if let Ok(signer) = Signer::parse(&secret) {
                prop_assert_eq!(signer.secret_text(), Zeroizing::new(secret));
            }
        }
    }
}
