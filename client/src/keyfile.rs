//! Key files: a signing key as one line of text, or encrypted under a passphrase.
//!
//! In the clear it is the line `PRIVATE+KEY+...` ([`Signer::parse`]). Encrypted, the first line is
//! the verifier key, which says name and type, and the rest PKCS#8 in PEM: `ENCRYPTED PRIVATE KEY`
//! of PBES2 with scrypt (N = 2^14, r = 8, p = 5) and AES-256-CBC, which OpenSSL reads too, for it
//! passes over what stands before the PEM. Whatever PBES2 scheme others wrote with is read.
//!
//! A passphrase is what [`use_passphrase_file`] names, or the file that the environment variable
//! `ACCESS_LEDGER_PASSPHRASE_FILE` does, or the systemd credential `access-ledger-passphrase`; its
//! first line counts. Secrets are wiped when they are dropped.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use access_ledger_proto::{
    error::KeyError,
    note::{Signer, VerifierKey},
};
use pkcs8::{
    AlgorithmIdentifierRef, EncryptedPrivateKeyInfoRef, LineEnding, ObjectIdentifier,
    PrivateKeyInfoRef, SecretDocument,
    der::{asn1::OctetStringRef, pem::PemLabel as _},
    pkcs5::{pbes2, scrypt},
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::connect::read_secret;

/// A key file cannot be read or made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// No key in the clear, and not an encrypted one.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key is encrypted, and no passphrase is at hand.
    #[error("encrypted, and no passphrase is given")]
    Locked,
    /// The key cannot be decrypted: another passphrase, most likely.
    #[error("not decrypted: {problem}")]
    Passphrase {
        /// What went wrong.
        problem: String,
    },
    /// What was decrypted is not the key that the first line names.
    #[error("holds another key than its first line names")]
    OtherKey,
    /// The file of the passphrase cannot be read, or holds none.
    #[error("passphrase {}: {problem}", .path.display())]
    PassphraseFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// What key files are encrypted under.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl fmt::Debug for Passphrase {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Passphrase")
    }
}

impl Passphrase {
    /// The first line of a file that only its owner reads.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::PassphraseFile`].
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        Self::first_line(path, read_secret(path))
    }

    fn first_line(path: &Path, text: io::Result<Zeroizing<String>>) -> Result<Self, KeyFileError> {
        let refused = |problem: String| {
            let path = path.to_owned();
            KeyFileError::PassphraseFile { path, problem }
        };
        let text = text.map_err(|error| refused(error.to_string()))?;
        match text.lines().next() {
            Some(line) if !line.is_empty() => Ok(Self(Zeroizing::new(line.to_owned()))),
            _ => Err(refused("its first line is empty".to_owned())),
        }
    }

    /// The passphrase of this process; `None` when it has none.
    ///
    /// # Errors
    ///
    /// As [`Passphrase::read`].
    pub fn at_hand() -> Result<Option<Self>, KeyFileError> {
        let named = FILE.get().cloned().or_else(|| env::var_os(FILE_VARIABLE).map(PathBuf::from));
        if let Some(path) = named {
            return Self::read(&path).map(Some);
        }
        let Some(folder) = env::var_os("CREDENTIALS_DIRECTORY") else { return Ok(None) };
        let path = Path::new(&folder).join("access-ledger-passphrase");
        match path.try_exists() {
            // Its mode tells nothing: systemd lets the service in by an access list.
            Ok(true) => {
                Self::first_line(&path, fs::read_to_string(&path).map(Zeroizing::new)).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// Has this process take its passphrase from a file. The first call counts.
pub fn use_passphrase_file(path: PathBuf) {
    let _earlier = FILE.set(path);
}

/// Reads a key file that only its owner may read, with the passphrase at hand if it needs one.
///
/// # Errors
///
/// What the file system says, `PermissionDenied` when others may read it; `InvalidData` with a
/// [`KeyFileError`].
pub fn read(path: &Path) -> io::Result<Signer> {
    let text = read_secret(path)?;
    parse(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads the text of a key file, with the passphrase at hand if it needs one.
///
/// # Errors
///
/// Any [`KeyFileError`].
pub fn parse(text: &str) -> Result<Signer, KeyFileError> {
    if is_encrypted(text) {
        return decrypt(text, &Passphrase::at_hand()?.ok_or(KeyFileError::Locked)?);
    }
    Ok(Signer::parse(text.trim_end())?)
}

/// The text of a new key file: encrypted, if a passphrase is at hand.
///
/// # Errors
///
/// Any [`KeyFileError`].
pub fn text(key: &Signer) -> Result<Zeroizing<String>, KeyFileError> {
    match Passphrase::at_hand()? {
        Some(passphrase) => encrypt(key, &passphrase),
        None => Ok(clear_text(key)),
    }
}

/// The text of a key file in the clear.
#[must_use]
pub fn clear_text(key: &Signer) -> Zeroizing<String> {
    Zeroizing::new(format!("{}\n", *key.secret_text()))
}

/// Whether the text of a key file is an encrypted key.
#[must_use]
pub fn is_encrypted(text: &str) -> bool {
    text.contains(PEM_BEGIN)
}

/// The text of an encrypted key file.
///
/// # Errors
///
/// [`KeyFileError::Passphrase`] when the system gives no random bytes.
pub fn encrypt(key: &Signer, passphrase: &Passphrase) -> Result<Zeroizing<String>, KeyFileError> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    getrandom::fill(&mut salt).and_then(|()| getrandom::fill(&mut iv)).map_err(failed)?;
    let params = pbes2::Parameters::generate_scrypt_aes256cbc(
        scrypt::Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P).map_err(failed)?,
        &salt,
        iv,
    );
    // The private key is an OCTET STRING within an OCTET STRING (RFC 8410).
    let mut inner = Zeroizing::new([0; 34]);
    let [tag, length, seed @ ..] = &mut *inner;
    (*tag, *length, *seed) = (0x04, 32, *key.seed());
    let octets = OctetStringRef::new(&*inner).map_err(failed)?;
    let algorithm = AlgorithmIdentifierRef { oid: ED25519, parameters: None };
    let info = PrivateKeyInfoRef::new(algorithm, octets);
    let document = info
        .encrypt_with_params(params.map_err(failed)?, passphrase.0.as_bytes())
        .map_err(failed)?;
    let pem = document.to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF);
    Ok(Zeroizing::new(format!("{}\n{}", key.verifier(), *pem.map_err(failed)?)))
}

/// Reads the text of an encrypted key file.
///
/// # Errors
///
/// [`KeyFileError::Key`] for a first line that is no verifier key; [`KeyFileError::Passphrase`];
/// [`KeyFileError::OtherKey`].
pub fn decrypt(text: &str, passphrase: &Passphrase) -> Result<Signer, KeyFileError> {
    let (first, _) = text.split_once('\n').ok_or(KeyError::Form)?;
    let named = VerifierKey::parse(first.trim_end())?;
    let pem = text.get(text.find(PEM_BEGIN).ok_or(KeyError::Form)?..).unwrap_or_default();
    let (_, document) = SecretDocument::from_pem(pem).map_err(failed)?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(failed)?;
    let clear = encrypted.decrypt(passphrase.0.as_bytes()).map_err(failed)?;
    let info = PrivateKeyInfoRef::try_from(clear.as_bytes()).map_err(failed)?;
    let seed = match info.private_key.as_bytes() {
        [0x04, 32, seed @ ..] if info.algorithm.oid == ED25519 => seed.try_into().ok(),
        _ => None,
    };
    let seed = Zeroizing::new(seed.ok_or(KeyFileError::OtherKey)?);
    let key = Signer::new(named.name(), named.key_type(), *seed)?;
    if *key.verifier() == named { Ok(key) } else { Err(KeyFileError::OtherKey) }
}

fn failed(problem: impl ToString) -> KeyFileError {
    KeyFileError::Passphrase { problem: problem.to_string() }
}

/// id-Ed25519 (RFC 8410).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

const PEM_BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";

/// 16 MiB five times over: as much as OpenSSL computes without being told to.
const SCRYPT_LOG_N: u8 = 14;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 5;

const FILE_VARIABLE: &str = "ACCESS_LEDGER_PASSPHRASE_FILE";

static FILE: OnceLock<PathBuf> = OnceLock::new();

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::PermissionsExt as _};

    use access_ledger_proto::note::KeyType;

    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn an_encrypted_key_comes_back_with_its_passphrase_alone() {
        let key = Signer::new("witness.example/w", KeyType::CosignatureV1, [7; 32]).unwrap();
        let good = passphrase("correct horse");
        let text = encrypt(&key, &good).unwrap();
        assert!(is_encrypted(&text) && !is_encrypted(&clear_text(&key)));
        assert!(!text.contains(&*key.secret_text()));
        let back = decrypt(&text, &good).unwrap();
        assert_eq!(*back.secret_text(), *key.secret_text());
        let refused = decrypt(&text, &passphrase("correct horsf")).unwrap_err();
        assert!(matches!(refused, KeyFileError::Passphrase { .. }), "{refused}");
        assert!(matches!(parse(&text), Err(KeyFileError::Locked)));
        // Another name makes another key id; another key is not the one that is named.
        let renamed = text.replacen("example/w", "example/v", 1);
        assert!(matches!(decrypt(&renamed, &good), Err(KeyFileError::Key(KeyError::Id { .. }))));
        let other = Signer::new("other", KeyType::Ed25519, [8; 32]).unwrap();
        let (_, pem) = text.split_once('\n').unwrap();
        let swapped = format!("{}\n{pem}", other.verifier());
        assert!(matches!(decrypt(&swapped, &good), Err(KeyFileError::OtherKey)));
    }

    #[test]
    fn a_passphrase_is_the_first_line_of_its_owners_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passphrase");
        let put = |text: &str, mode| {
            fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Passphrase::read(&path)
        };
        assert_eq!(*put("one two\nrest\n", 0o600).unwrap().0, "one two");
        for (text, mode) in [("one\n", 0o640), ("\none\n", 0o600), ("", 0o600)] {
            let refused = put(text, mode).unwrap_err();
            assert!(matches!(refused, KeyFileError::PassphraseFile { .. }), "{refused}");
        }
    }
}
