//! The data folder: what lies where, who made it, and making it.
//!
//! ```text
//! meta.toml          format version, origin; written last, so its presence means "initialised"
//! lock               one process per folder
//! keys/ledger.key    signs checkpoints; `ledger.next.key`, `ledger-<key id>.key`: keys.rs
//! keys/source.key    seals what the ledger itself records; `source.next.key` and so on likewise
//! keys/company.key   only when `init` made it: governance, belongs on a machine of the company
//! keys/custodian.key   the same of the custodian: who holds both changes the rules alone
//! checkpoint         newest
//! evidence/          sealed batches that contradict the log; segments that were damaged
//! mending/           segments on their way into the log       restore/mend.rs
//! log/ tree/         storage
//! index/             derived
//! ```
//!
//! A custodian's folder has the same log, tree, index, checkpoint and lock, and further:
//!
//! ```text
//! meta.toml          says so, and names the key of the ledger that it follows
//! keys/witness.key   cosigns: consistent with all that it saw
//! keys/mirror.key    cosigns: it holds every entry
//! follow.json        what it remembers besides the log       custodian/memory.rs
//! witness/           the newest cosigned notes                witness.rs
//! alarms/ halted     what it found                            custodian/alarms.rs, halt.rs
//! suspended          a copy, whose keys sign nothing yet      custodian/suspension.rs
//! quorum.policy      asks for its cosignatures: for the ledger and its clients
//! ```

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    note::{KeyType, VerifierKey},
    policy::Policy,
    source::SourceName,
    wire,
};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{
    error::LedgerError,
    os::{self, Clock, Disk},
};

mod custodian;
mod keys;

use self::keys::new_key;
pub use self::keys::{Keys, Purpose, read_signer};

/// The name of the ledger's own source.
pub const LEDGER_SOURCE: &str = "ledger";

/// The names of the governance sources whose keys `init` makes: the two parties that change rules
/// only together.
pub const GOVERNANCE_SOURCES: [&str; 2] = ["company", "custodian"];

/// What a new ledger is to be.
#[derive(Clone, Debug)]
pub struct Genesis {
    /// Its name: the name of its checkpoint key, in every checkpoint and seal.
    pub origin: String,
    /// Keys with the role GOVERN, each named like its source: none, and they are made, or at least
    /// two, for rules change only by two parties together.
    pub governance: Vec<VerifierKey>,
    /// Whether sources may enrol themselves.
    pub self_enrolment: bool,
    /// The policy in force from entry 0 on: Cedar. What [`Policy::parse`] refuses permits nothing.
    pub policy: String,
}

impl Genesis {
    /// A ledger of this name whose governance keys are made, where governance registers every
    /// source, under the default policy.
    #[must_use]
    pub fn new(origin: impl Into<String>) -> Self {
        Self {
            origin: origin.into(),
            governance: Vec::new(),
            self_enrolment: false,
            policy: Policy::DEFAULT.to_owned(),
        }
    }

    /// The same under the policy in a file, if one is given.
    ///
    /// # Errors
    ///
    /// [`LedgerError::File`] when the file cannot be read; [`LedgerError::Policy`] with line and
    /// column when it is no policy.
    pub fn with_policy(self, disk: &dyn Disk, path: Option<&Path>) -> Result<Self, LedgerError> {
        let Some(path) = path else { return Ok(self) };
        let policy = read_text(disk, path)?.ok_or_else(|| malformed(path, "missing"))?;
        Policy::parse(&policy)
            .map_err(|error| LedgerError::Policy { path: path.to_owned(), error })?;
        Ok(Self { policy, ..self })
    }
}

/// Paths in a data folder.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

/// `meta.toml`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    /// [`FORMAT_VERSION`] of the binary that made the folder.
    format_version: u32,
    origin: String,
    #[serde(default, skip_serializing_if = "Role::is_ledger")]
    role: Role,
    /// Verifier key of the ledger: of the one that a custodian follows, or of a copy without keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ledger: Option<String>,
}

/// What every version of `meta.toml` says.
#[derive(Debug, Deserialize)]
struct Versioned {
    format_version: u32,
}

/// Whose data folder it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It grows by what sources record.
    #[default]
    Ledger,
    /// It grows by what a ledger signed.
    Custodian,
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Ledger => "ledger",
            Self::Custodian => "custodian",
        })
    }
}

impl Role {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_ledger(&self) -> bool {
        *self == Self::Ledger
    }
}

impl Folder {
    /// The folder at `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The lock file.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The newest checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.root.join("checkpoint")
    }

    /// Evidence against sources.
    #[must_use]
    pub fn evidence(&self) -> PathBuf {
        self.root.join("evidence")
    }

    /// Segments that a restore writes before they go into the log.
    pub(crate) fn mending(&self) -> PathBuf {
        self.root.join("mending")
    }

    /// Removes what a restore has left there: events that no redaction reaches. Nothing of the log
    /// is there alone.
    pub(crate) fn clear_mending(&self, disk: &dyn Disk) -> Result<(), LedgerError> {
        let folder = self.mending();
        let cleared = match disk.list(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(names) => names.iter().try_for_each(|name| disk.remove(&folder.join(name))),
        };
        cleared.map_err(|source| LedgerError::io(&folder, source))
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// The governance keys, where `init` made them.
    #[must_use]
    pub fn governance_keys(&self) -> [PathBuf; 2] {
        GOVERNANCE_SOURCES.map(|name| self.keys().join(format!("{name}.key")))
    }

    fn meta(&self) -> PathBuf {
        self.root.join("meta.toml")
    }

    /// The origin of the ledger in this folder; `None` when there is none yet.
    ///
    /// # Errors
    ///
    /// [`LedgerError::File`] when `meta.toml` cannot be read or understood;
    /// [`LedgerError::FormatVersion`] when a newer binary made the folder; [`LedgerError::Role`]
    /// for a custodian's.
    pub fn origin(&self, disk: &dyn Disk) -> Result<Option<String>, LedgerError> {
        let meta = self.read_meta(disk)?;
        meta.map(|meta| self.check_role(&meta, Role::Ledger).map(|()| meta.origin)).transpose()
    }

    /// Whose folder it is; `None` when it is nobody's yet.
    ///
    /// # Errors
    ///
    /// As [`Folder::origin`], but for the role.
    pub(crate) fn role(&self, disk: &dyn Disk) -> Result<Option<Role>, LedgerError> {
        Ok(self.read_meta(disk)?.map(|meta| meta.role))
    }

    /// The key that signs the checkpoints of the log in this folder, a ledger's or a custodian's;
    /// `None` when there is none yet.
    ///
    /// # Errors
    ///
    /// As [`Folder::origin`] and [`Folder::open_keys`].
    pub fn ledger_key(&self, disk: &dyn Disk) -> Result<Option<VerifierKey>, LedgerError> {
        match self.read_meta(disk)? {
            None => Ok(None),
            Some(Meta { role: Role::Custodian, .. }) => self.followed(disk),
            Some(Meta { ledger: Some(key), .. }) => {
                let key =
                    VerifierKey::parse(&key).map_err(|error| malformed(&self.meta(), error))?;
                Ok(Some(key))
            }
            Some(_) => Ok(Some(self.open_keys(disk)?.ledger.verifier().clone())),
        }
    }

    /// The keys of which one has signed what lies here, or what was signed since it was copied:
    /// `given`, the ledger's own ones, the newest first, and the one that `meta.toml` names.
    ///
    /// # Errors
    ///
    /// As [`Folder::origin`]; [`LedgerError::Uninitialised`]; [`LedgerError::ForeignKey`] for a
    /// `given` one of another ledger; [`LedgerError::File`] for keys, and without any.
    pub(crate) fn known_keys(
        &self,
        disk: &dyn Disk,
        given: Option<&VerifierKey>,
    ) -> Result<Vec<VerifierKey>, LedgerError> {
        let meta = self.read_meta(disk)?.ok_or_else(|| self.uninitialised())?;
        let Meta { origin, role, ledger, .. } = meta;
        if let Some(key) = given.filter(|key| key.name() != origin) {
            return Err(LedgerError::ForeignKey { key: key.name().to_owned(), origin });
        }
        let own = match role {
            Role::Ledger => self.signers(disk, Purpose::Ledger)?,
            Role::Custodian => Vec::new(),
        };
        let own = own.iter().rev().map(|own| own.verifier().clone());
        let mut keys: Vec<_> = given.cloned().into_iter().chain(own).collect();
        keys.retain(|key| key.name() == origin);
        if let Some(key) = ledger {
            let key = VerifierKey::parse(&key).map_err(|error| malformed(&self.meta(), error))?;
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(malformed(&self.keys().join("ledger.key"), "missing"));
        }
        Ok(keys)
    }

    /// Has `meta.toml`, where it names a key of the ledger, name this one: the verified log tells
    /// that it is. With `None`, for a ledger that holds its keys, no key.
    pub(crate) fn name_key(
        &self,
        disk: &dyn Disk,
        key: Option<&VerifierKey>,
    ) -> Result<(), LedgerError> {
        let ledger = key.map(ToString::to_string);
        match self.read_meta(disk)? {
            Some(meta) if meta.ledger.is_some() && meta.ledger != ledger => {
                self.put_meta(disk, &Meta { ledger, ..meta })
            }
            _ => Ok(()),
        }
    }

    /// That nothing is in the folder yet.
    pub(crate) fn uninitialised(&self) -> LedgerError {
        LedgerError::Uninitialised { folder: self.root.clone() }
    }

    fn check_role(&self, meta: &Meta, wanted: Role) -> Result<(), LedgerError> {
        let found = meta.role;
        if found == wanted {
            return Ok(());
        }
        Err(LedgerError::Role { folder: self.root.clone(), found, wanted })
    }

    fn read_meta(&self, disk: &dyn Disk) -> Result<Option<Meta>, LedgerError> {
        let path = self.meta();
        let Some(text) = read_text(disk, &path)? else {
            return Ok(None);
        };
        let wrong = |error: toml::de::Error| malformed(&path, error.to_string().trim_end());
        // The version first: a newer folder may say more than is known here.
        let Versioned { format_version: found } = toml::from_str(&text).map_err(wrong)?;
        if found != FORMAT_VERSION {
            return Err(LedgerError::FormatVersion { path, found, known: FORMAT_VERSION });
        }
        toml::from_str(&text).map(Some).map_err(wrong)
    }

    /// Marks the folder as that of an initialised ledger.
    pub(crate) fn write_meta(&self, disk: &dyn Disk, origin: &str) -> Result<(), LedgerError> {
        let origin = origin.to_owned();
        let role = Role::Ledger;
        self.put_meta(disk, &Meta { format_version: FORMAT_VERSION, origin, role, ledger: None })
    }

    /// Marks the folder as a copy of the ledger with this key.
    pub(crate) fn write_meta_of(
        &self,
        disk: &dyn Disk,
        key: &VerifierKey,
    ) -> Result<(), LedgerError> {
        let (origin, ledger) = (key.name().to_owned(), Some(key.to_string()));
        let role = Role::Ledger;
        self.put_meta(disk, &Meta { format_version: FORMAT_VERSION, origin, role, ledger })
    }

    fn put_meta(&self, disk: &dyn Disk, meta: &Meta) -> Result<(), LedgerError> {
        let path = self.meta();
        let text = toml::to_string(&meta).map_err(|error| malformed(&path, error))?;
        os::replace(disk, &path, text.as_bytes()).map_err(|source| LedgerError::io(&path, source))
    }

    /// The newest checkpoint that this ledger signed, with one of these keys, as far as its file
    /// tells: a file that is missing or torn is as good as none, the log has it all.
    pub(crate) fn read_checkpoint(
        &self,
        disk: &dyn Disk,
        keys: &[VerifierKey],
    ) -> Option<VerifiedCheckpoint> {
        read_note(disk, &self.checkpoint(), keys)
    }

    /// The event of entry 0; makes the governance keys when `genesis` names none.
    pub(crate) fn genesis_event(
        &self,
        disk: &dyn Disk,
        clock: &dyn Clock,
        keys: &Keys,
        genesis: &Genesis,
    ) -> Result<Vec<u8>, LedgerError> {
        let mut governance = genesis.governance.clone();
        if governance.is_empty() {
            for name in GOVERNANCE_SOURCES {
                let file = format!("{name}.key");
                let key = self.make_key(disk, &file, (name, KeyType::Ed25519))?;
                governance.push(key.verifier().clone());
            }
            let [company, custodian] = self.governance_keys();
            warn!(
                company = %company.display(),
                custodian = %custodian.display(),
                "made both governance keys: move them to two machines of two companies"
            );
        }
        let initial = |key: &VerifierKey| wire::InitialSource {
            name: key.name().to_owned(),
            public_key: key.public_key().to_bytes().to_vec().into(),
        };
        let content = wire::Genesis {
            origin: genesis.origin.clone(),
            ledger_vkey: keys.ledger.verifier().to_string(),
            ledger_source: Some(initial(keys.source.verifier())),
            governance: governance.iter().map(initial).collect(),
            self_enrolment: genesis.self_enrolment,
            policy: genesis.policy.clone(),
        };
        let change = wire::ControlChange {
            kind: wire::ControlKind::Genesis.into(),
            target: genesis.origin.clone(),
            content: content.encode_to_vec().into(),
            approvals: Vec::new(),
            revision: 0,
        };
        let body = wire::event::Body::ControlChange(change);
        let event = own_event(clock.now_nanos(), body);
        let event = event.map_err(|problem| LedgerError::Genesis { problem })?;
        Ok(event.encode_to_vec())
    }
}

/// An event of the ledger's own, which happens `now`: nanoseconds since the Unix epoch.
pub(crate) fn own_event(now: u64, body: wire::event::Body) -> Result<wire::Event, String> {
    let mut event_id = [0; 16];
    getrandom::fill(&mut event_id).map_err(|error| error.to_string())?;
    Ok(wire::Event {
        event_id: event_id.to_vec().into(),
        occurred_at: Some(timestamp(now)),
        body: Some(body),
        ..Default::default()
    })
}

/// A time in nanoseconds since the Unix epoch.
pub(crate) fn timestamp(nanos: u64) -> prost_types::Timestamp {
    let seconds = i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(nanos % 1_000_000_000).unwrap_or_default();
    prost_types::Timestamp { seconds, nanos }
}

/// A checkpoint that one of these keys has signed, as far as the file can be read.
fn read_note(disk: &dyn Disk, path: &Path, keys: &[VerifierKey]) -> Option<VerifiedCheckpoint> {
    let note = os::read(disk, path, CHECKPOINT_BYTES_MAX).ok()?;
    let (key, others) = keys.split_first()?;
    VerifiedCheckpoint::open_by_any(&note, key, others)
        .inspect_err(|error| warn!(path = %path.display(), %error, "ignored checkpoint file"))
        .ok()
}

fn read_text(disk: &dyn Disk, path: &Path) -> Result<Option<String>, LedgerError> {
    match os::read(disk, path, TEXT_BYTES_MAX) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|error| malformed(path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LedgerError::io(path, source)),
    }
}

fn malformed(path: &Path, problem: impl ToString) -> LedgerError {
    LedgerError::File { path: path.to_owned(), problem: problem.to_string() }
}

/// Checks that an origin can be the name of a key and a line of a checkpoint, and that governance
/// is more than one party.
///
/// # Errors
///
/// [`LedgerError::Origin`] otherwise, and for the names of governance keys that no source can have;
/// [`LedgerError::GovernanceAlone`] for a single key.
pub(crate) fn check_genesis(genesis: &Genesis) -> Result<(), LedgerError> {
    let refused = |name: &str, problem: String| LedgerError::Origin { name: name.into(), problem };
    new_key(&genesis.origin, KeyType::Ed25519)
        .map_err(|problem| refused(&genesis.origin, problem))?;
    if let [key] = &genesis.governance[..] {
        return Err(LedgerError::GovernanceAlone { name: key.name().to_owned() });
    }
    for key in &genesis.governance {
        SourceName::parse(key.name()).map_err(|error| refused(key.name(), error.to_string()))?;
    }
    Ok(())
}

/// Version of all formats below the data folder.
const FORMAT_VERSION: u32 = 1;

/// A key or `meta.toml`.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// A checkpoint with its cosignatures.
const CHECKPOINT_BYTES_MAX: usize = 64 << 10;

/// The disk of the machine.
#[must_use]
pub fn real_disk() -> Arc<dyn Disk> {
    Arc::new(os::RealDisk)
}
