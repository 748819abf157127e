//! What is different in a custodian's folder: its keys, and whose log it holds.

use std::path::PathBuf;

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    note::{KeyType, Signer, VerifierKey},
    witness::origin_hex,
};

use super::{FORMAT_VERSION, Folder, Meta, Role, keys::read_key, malformed, read_note};
use crate::{error::LedgerError, os::Disk, witness};

impl Folder {
    /// Notes that were cosigned.
    #[must_use]
    pub fn witness(&self) -> PathBuf {
        self.root.join("witness")
    }

    /// The marker of a copy whose keys sign nothing yet.
    #[must_use]
    pub fn suspended(&self) -> PathBuf {
        self.root.join("suspended")
    }

    /// What is kept for the next start: derived from the log, or worth no more than the copy.
    pub(crate) fn notes(&self) -> [PathBuf; 3] {
        ["follow.json", "sightings.json", "halted"].map(|name| self.root.join(name))
    }

    /// What was found.
    #[must_use]
    pub fn alarms(&self) -> PathBuf {
        self.root.join("alarms")
    }

    /// Records of who read, on their way to the ledger.
    #[must_use]
    pub fn reads_spool(&self) -> PathBuf {
        self.root.join("reads")
    }

    /// The newest checkpoint of the ledger with these keys that was cosigned here, as far as its
    /// file can be read: what the mirror key signed for must be there. The witness judges the file.
    fn read_cosigned(&self, disk: &dyn Disk, keys: &[VerifierKey]) -> Option<VerifiedCheckpoint> {
        let ledger = keys.first()?;
        read_note(disk, &self.witness().join(origin_hex(ledger.name())), keys)
    }

    /// The newest checkpoint that lies here of the ledger with these keys, signed or cosigned here:
    /// what it covers was here. Of two that are of one size the one with the cosignatures.
    pub(crate) fn newest_known(
        &self,
        disk: &dyn Disk,
        keys: &[VerifierKey],
    ) -> Option<VerifiedCheckpoint> {
        let known = self.read_checkpoint(disk, keys).into_iter();
        known.chain(self.read_cosigned(disk, keys)).max_by_key(VerifiedCheckpoint::size)
    }

    /// The policy file that asks for the custodian's cosignatures.
    #[must_use]
    pub fn quorum_policy(&self) -> PathBuf {
        self.root.join("quorum.policy")
    }

    /// The key of the ledger that the custodian in this folder follows; `None` when there is none
    /// yet.
    ///
    /// # Errors
    ///
    /// As [`Folder::origin`]; [`LedgerError::Role`] for a ledger's.
    pub fn followed(&self, disk: &dyn Disk) -> Result<Option<VerifierKey>, LedgerError> {
        let Some(meta) = self.read_meta(disk)? else { return Ok(None) };
        self.check_role(&meta, Role::Custodian)?;
        let key = VerifierKey::parse(&meta.ledger.unwrap_or_default());
        key.map(Some).map_err(|error| malformed(&self.meta(), error))
    }

    /// The keys of the custodian in this folder, which follows `ledger`; makes it in an empty
    /// folder. A key of the same name may have taken the place of the one that was followed: the
    /// folder stays that of the former one until the verified log has told so. Without a name: the
    /// one that it has, or a new one.
    ///
    /// # Errors
    ///
    /// As [`Folder::followed`]; [`LedgerError::Follows`] for a custodian of another ledger;
    /// [`LedgerError::File`] for keys of another name or form, or a name that no key can have;
    /// [`LedgerError::Io`].
    pub(crate) fn open_custodian(
        &self,
        disk: &dyn Disk,
        ledger: &VerifierKey,
        name: Option<&str>,
    ) -> Result<witness::Keys, LedgerError> {
        let followed = self.followed(disk)?;
        if let Some(found) = followed.as_ref().filter(|found| found.name() != ledger.name()) {
            let (found, wanted) = (found.to_string(), ledger.to_string());
            return Err(LedgerError::Follows { folder: self.root.clone(), found, wanted });
        }
        let known = read_key(disk, &self.keys().join(WITNESS_KEY))?;
        let name = match (name, known) {
            (Some(name), _) => name.to_owned(),
            (None, Some(key)) => key.name().to_owned(),
            (None, None) => {
                let random = disk.random().map_err(|source| LedgerError::io(&self.root, source))?;
                format!("custodian.localhost/{random:08x}")
            }
        };
        let keys = witness::Keys {
            witness: self.cosigning_key(disk, WITNESS_KEY, &name)?,
            mirror: self.cosigning_key(disk, MIRROR_KEY, &format!("{name}/mirror"))?,
        };
        if followed.is_none() {
            self.write_custodian_meta(disk, ledger)?;
        }
        Ok(keys)
    }

    /// Marks the folder as that of a custodian of this ledger.
    pub(crate) fn write_custodian_meta(
        &self,
        disk: &dyn Disk,
        ledger: &VerifierKey,
    ) -> Result<(), LedgerError> {
        let (origin, ledger) = (ledger.name().to_owned(), Some(ledger.to_string()));
        let role = Role::Custodian;
        self.put_meta(disk, &Meta { format_version: FORMAT_VERSION, origin, role, ledger })
    }

    /// The public half of the witness key; `None` when there is none.
    pub(crate) fn witness_key(&self, disk: &dyn Disk) -> Result<Option<VerifierKey>, LedgerError> {
        let key = read_key(disk, &self.keys().join(WITNESS_KEY))?;
        Ok(key.map(|key| key.verifier().clone()))
    }

    /// The custodian's own keys.
    pub(crate) fn cosigning_keys(&self) -> [PathBuf; 2] {
        [WITNESS_KEY, MIRROR_KEY].map(|name| self.keys().join(name))
    }

    fn cosigning_key(
        &self,
        disk: &dyn Disk,
        file: &str,
        name: &str,
    ) -> Result<Signer, LedgerError> {
        let key = self.make_key(disk, file, (name, KeyType::CosignatureV1))?;
        if key.name() == name {
            return Ok(key);
        }
        let problem = format!("the key of {}, expected that of {name}", key.name());
        Err(malformed(&self.keys().join(file), problem))
    }
}

const WITNESS_KEY: &str = "witness.key";

const MIRROR_KEY: &str = "mirror.key";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::real_disk;

    fn ledger(name: &str) -> VerifierKey {
        Signer::new(name, KeyType::Ed25519, [1; 32]).unwrap().verifier().clone()
    }

    #[test]
    fn a_custodian_keeps_its_name_its_keys_and_its_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, folder) = (real_disk(), Folder::new(dir.path()));
        let one = ledger("one.example");
        let keys = folder.open_custodian(&*disk, &one, None).unwrap();
        let name = keys.witness.name().to_owned();
        assert!(name.starts_with("custodian.localhost/"), "{name}");
        assert_eq!(keys.mirror.name(), format!("{name}/mirror"));
        let again = folder.open_custodian(&*disk, &one, Some(&name)).unwrap();
        assert_eq!(again.mirror.verifier(), keys.mirror.verifier());
        assert_eq!(folder.ledger_key(&*disk).unwrap(), Some(one.clone()));

        let other = folder.open_custodian(&*disk, &ledger("two.example"), None);
        assert!(matches!(other, Err(LedgerError::Follows { .. })));
        let renamed = folder.open_custodian(&*disk, &one, Some("another.example"));
        assert!(matches!(renamed, Err(LedgerError::File { .. })));
    }

    #[test]
    fn no_folder_is_taken_for_one_of_the_other_role() {
        let role = |refused: LedgerError| match refused {
            LedgerError::Role { found, wanted, .. } => (found, wanted),
            other => panic!("{other}"),
        };
        let dir = tempfile::tempdir().unwrap();
        let (disk, folder) = (real_disk(), Folder::new(dir.path()));
        folder.open_custodian(&*disk, &ledger("one.example"), None).unwrap();
        let refused = folder.origin(&*disk).unwrap_err();
        assert_eq!(role(refused), (Role::Custodian, Role::Ledger));

        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        folder.write_meta(&*disk, "one.example").unwrap();
        let refused = folder.open_custodian(&*disk, &ledger("one.example"), None).unwrap_err();
        assert_eq!(role(refused), (Role::Ledger, Role::Custodian));
    }
}
