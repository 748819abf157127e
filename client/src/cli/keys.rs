//! Key files, and the ledger's key that is pinned beside them.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use access_ledger_proto::{
    facts::sources::Sources,
    note::{Signer, VerifierKey},
    position::{Index, Size},
};
use anyhow::{Context as _, anyhow, bail};

use super::complain;
use crate::{keyfile, pull::Puller, verify::Scope};

/// Reads a key file, with the passphrase at hand if it needs one.
pub(super) fn read_key(path: &Path) -> anyhow::Result<Signer> {
    keyfile::read(path).with_context(|| format!("key {}", path.display()))
}

/// Writes a key file that only its owner reads, encrypted if a passphrase is at hand. Never
/// overwrites one.
pub(super) fn write_key(path: &Path, key: &Signer) -> anyhow::Result<()> {
    let text = keyfile::text(key)?;
    write_new(path, &text, 0o600).with_context(|| format!("key {}", path.display()))
}

/// The ledger's key: as given, else as pinned at the first contact with this source key, else, for
/// want of better, as the ledger itself tells it. A first contact pins it beside the key file.
pub(super) async fn ledger_key(
    given: Option<&VerifierKey>,
    key_file: &Path,
    puller: &Puller,
) -> anyhow::Result<VerifierKey> {
    let path = beside(key_file, ".ledger");
    let pinned = match fs::read_to_string(&path) {
        Ok(text) => {
            let parsed = VerifierKey::parse(text.trim_end());
            Some(parsed.with_context(|| format!("pinned ledger key {}", path.display()))?)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let key = match (given, pinned) {
        (Some(given), Some(pinned)) if *given != pinned => {
            bail!(
                "{} pins the ledger key {pinned}, given is {given}: if `verify` tells that governance \
                 put this in the place of that, remove the file",
                path.display()
            );
        }
        (_, Some(pinned)) => return Ok(pinned),
        (Some(given), None) => given.clone(),
        (None, None) => {
            let told = told_key(puller).await?;
            complain(format_args!(
                "warning: no --ledger given; trusting the key that the server tells, {told}, from now on"
            ));
            told
        }
    };
    write_new(&path, &format!("{key}\n"), 0o644).with_context(|| path.display().to_string())?;
    Ok(key)
}

/// A path with something appended to the file's name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// The ledger's key as the genesis names it: worth as much as the connection.
async fn told_key(puller: &Puller) -> anyhow::Result<VerifierKey> {
    let mut records = puller.records(Index::GENESIS, Size(1), Scope::Events);
    let run = records.next().await.ok_or_else(|| anyhow!("the ledger has no genesis"))?;
    let genesis = run?.1.into_iter().next().and_then(|record| record.event);
    let sources = Sources::from_genesis(&genesis.unwrap_or_default())?;
    Ok(VerifierKey::parse(&sources.genesis().ledger_vkey)?)
}

pub(super) fn write_new(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use access_ledger_proto::note::KeyType;

    use super::*;

    #[test]
    fn key_files_are_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        let key = Signer::new("payments", KeyType::Ed25519, [1; 32]).unwrap();
        write_key(&path, &key).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_key(&path).unwrap().verifier(), key.verifier());
        assert!(write_key(&path, &key).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = format!("{:#}", read_key(&path).unwrap_err());
        assert!(refused.contains("mode is 640"), "{refused}");
        assert_eq!(beside(&path, ".spool"), folder.path().join("a.key.spool"));
    }
}
