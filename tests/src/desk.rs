//! The command line as people use it: a folder to type in, beside a ledger that runs in this
//! process.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use access_ledger_client::{
    audit::{Observer, audit_observed},
    pull::Puller,
    verify::Record,
    view::View,
};
use access_ledger_proto::{
    entry::Entry,
    facts::{Facts, Noted},
    position::Index,
    quorum::Quorum,
    wire::Event,
};
use anyhow::{Context as _, ensure};
use prost::Message as _;
use tempfile::TempDir;

use crate::{node::Node, process::binaries};

/// A folder to type in, beside a ledger that runs in this process.
pub struct Desk {
    folder: TempDir,
    /// The ledger.
    pub node: Node,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none after a signal.
    pub code: Option<i32>,
    /// What it said.
    pub out: String,
    /// What it complained of.
    pub err: String,
}

impl Ended {
    fn of(output: Output) -> anyhow::Result<Self> {
        let code = output.status.code();
        let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        Ok(Self { code, out, err })
    }

    /// That it ended well, having said all of this.
    ///
    /// # Panics
    ///
    /// When it did not.
    #[track_caller]
    pub fn says(self, wanted: &[&str]) -> Self {
        let holds = self.code == Some(0) && wanted.iter().all(|line| self.out.contains(line));
        assert!(holds, "{self:?}, wanted {wanted:?}");
        self
    }

    /// That it ended with code 2, having complained like this.
    ///
    /// # Panics
    ///
    /// When it did not.
    #[track_caller]
    pub fn complains(self, wanted: &str) {
        assert!(self.code == Some(2) && self.err.contains(wanted), "{self:?}, wanted {wanted}");
    }
}

impl Desk {
    /// With a new ledger, and the keys of both parties in the folder.
    ///
    /// # Errors
    ///
    /// When the ledger does not start.
    pub async fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let node = Node::start(&folder.path().join("data")).await?;
        for party in ["company", "custodian"] {
            let key = format!("{party}.key");
            fs::copy(folder.path().join("data/keys").join(&key), folder.path().join(&key))?;
        }
        Ok(Self { folder, node })
    }

    /// Runs `access-ledger` with the words of a line, where `_` in a word stands for a space,
    /// and `VKEY` for the ledger's key.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub async fn run(&self, line: &str) -> anyhow::Result<Ended> {
        let words: Vec<_> = line.split_whitespace().map(|word| word.replace('_', " ")).collect();
        self.type_words(&words).await
    }

    /// The same for words that may hold spaces.
    ///
    /// # Errors
    ///
    /// As [`Desk::run`].
    pub async fn type_words(&self, words: &[String]) -> anyhow::Result<Ended> {
        let mut command = Command::new(binaries()?.join("access-ledger"));
        command
            .args(words.iter().map(|word| word.replace("VKEY", &self.node.vkey.to_string())))
            .env("ACCESS_LEDGER_SERVER", format!("http://{}", self.node.address))
            .current_dir(self.folder.path());
        Ended::of(tokio::task::spawn_blocking(move || command.output()).await??)
    }

    /// Makes a key; its verifier key.
    ///
    /// # Errors
    ///
    /// When the command fails.
    pub async fn keygen(&self, name: &str, file: &str) -> anyhow::Result<String> {
        let made = self.run(&format!("keygen --name {name} --out {file}")).await?;
        ensure!(made.code == Some(0), "{made:?}");
        Ok(made.out.trim().to_owned())
    }

    /// Registers a source that may record.
    ///
    /// # Errors
    ///
    /// As [`Desk::keygen`].
    pub async fn register(&self, name: &str, file: &str) -> anyhow::Result<()> {
        let vkey = self.keygen(name, file).await?;
        let line = format!("source register --key company.key --ledger VKEY {vkey}");
        self.run(&line).await?.says(&["is registered at index"]);
        Ok(())
    }

    /// Registers somebody who answers requests, with both keys at hand.
    ///
    /// # Errors
    ///
    /// As [`Desk::keygen`].
    pub async fn register_approver(
        &self,
        name: &str,
        file: &str,
        person: &str,
    ) -> anyhow::Result<Ended> {
        let vkey = self.keygen(name, file).await?;
        let keys = "--key custodian.key --sign-with company.key --ledger VKEY";
        self.run(&format!("source register --role approve --principal {person} {keys} {vkey}"))
            .await
    }

    /// A file of the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the folder.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        write(&self.path(name), text)
    }

    /// What follows from the log, verified from entry 0 on.
    ///
    /// # Errors
    ///
    /// When the log is not in order.
    pub async fn facts(&self) -> anyhow::Result<Facts> {
        let view = tempfile::tempdir()?;
        let mut view = View::open(&view.path().join("view.json"), &self.node.vkey)?;
        let puller = Puller::new(self.node.clients().channel);
        let progress = std::sync::Arc::new(|_, _| ());
        let seen = Seen(Ok(None));
        let (_, seen) =
            audit_observed(&puller, &mut view, Quorum::default(), progress, seen).await?;
        seen.0?.context("no genesis")
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    Ok(fs::File::create(path)?.write_all(text.as_bytes())?)
}

/// Every entry's facts, folded without any shortcut.
struct Seen(anyhow::Result<Option<Facts>>);

impl Seen {
    fn fold(&mut self, record: &Record) -> anyhow::Result<()> {
        let Ok(facts) = &mut self.0 else { return Ok(()) };
        let event = record.event.as_ref().context("erased")?;
        let Some(facts) = facts else {
            *facts = Some(Facts::from_genesis(event)?);
            return Ok(());
        };
        let (entry, event) = (Entry::parse(&record.entry)?, Event::decode(event.clone())?);
        let (index, recorded_at, source) = (entry.index, entry.recorded_at, entry.source);
        facts.apply(&Noted { index, recorded_at, source, event: &event });
        Ok(())
    }
}

impl Observer for Seen {
    fn take(&mut self, _: Index, records: &[Record]) {
        for record in records {
            if let Err(error) = self.fold(record) {
                self.0 = Err(error);
            }
        }
    }
}
