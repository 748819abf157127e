//! `control`: changes of the rules that both governance parties sign. Keys and roles: rekey.rs.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use access_ledger_proto::{
    note::VerifierKey,
    wire::{self, ControlKind},
};
use anyhow::{Context as _, anyhow, ensure};
use bytes::Bytes;
use clap::{Args, Subcommand};
use prost::Message as _;

use super::{
    Failure,
    caller::Caller,
    keys::beside,
    ledger::{LedgerArgs, all_sources, founders},
    record::write_synced,
    rekey::{Key, LedgerKey, Role},
    say, words,
};
use crate::{
    evidence::printable,
    governance::proposal::{Change, Proposal, ProposalError},
};

/// Proposes, signs and applies what governance registers and changes: datasets, tools, sites,
/// custodians, how long events are kept, keys and roles
///
/// A change takes both parties of the governance. One proposes it into a file and signs that; the
/// other reads the file, signs it too or applies it, which counts as signing.
#[derive(Debug, Subcommand)]
pub(super) enum Control {
    Dataset(Box<Dataset>),
    Tool(Tool),
    Site(Site),
    Retention(Retention),
    Custodian(Box<Custodian>),
    Key(Key),
    Role(Role),
    LedgerKey(LedgerKey),
    Sign(Sign),
    Apply(Apply),
}

/// Proposes how a dataset is classified
#[derive(Debug, Args)]
pub(super) struct Dataset {
    #[command(flatten)]
    out: Out,
    /// Its name
    #[arg(value_name = "DATASET")]
    name: String,
    /// Whether it is protected: protected, public, business-metrics, ...
    #[arg(long, value_name = "BOUNDARY", value_parser = words::boundary)]
    boundary: i32,
    /// How sensitive it is: public, internal, confidential, restricted, special-category
    #[arg(long, value_name = "SENSITIVITY", value_parser = words::sensitivity)]
    sensitivity: Option<i32>,
    /// Which kinds of data it may hold: contact, device, location, ...; repeat for more
    #[arg(long = "category", value_name = "CATEGORY", value_parser = words::category)]
    categories: Vec<i32>,
    /// ISO 3166 code of the country whose law protects the persons
    #[arg(long, value_name = "CODE", default_value = "")]
    jurisdiction: String,
    /// Who answers for it
    #[arg(long, value_name = "NAME", default_value = "")]
    owner: String,
}

/// Proposes a tool that staff may reach protected data with
#[derive(Debug, Args)]
pub(super) struct Tool {
    #[command(flatten)]
    out: Out,
    /// Its id
    #[arg(value_name = "TOOL")]
    id: String,
    /// Who answers for it
    #[arg(long, value_name = "NAME", default_value = "")]
    owner: String,
    /// SHA-256 of a build that was vetted; repeat for more. None: every build is approved
    #[arg(long = "build", value_name = "HEX", value_parser = words::digest)]
    builds: Vec<Bytes>,
    /// It is approved no longer, whatever its build
    #[arg(long)]
    withdrawn: bool,
}

/// Proposes a place where data lies
#[derive(Debug, Args)]
pub(super) struct Site {
    #[command(flatten)]
    out: Out,
    /// Its name
    #[arg(value_name = "SITE")]
    name: String,
    /// ISO 3166 code of the country that it lies in
    #[arg(long, value_name = "CODE", default_value = "")]
    country: String,
    /// Who operates it
    #[arg(long, value_name = "NAME", default_value = "")]
    operator: String,
    /// Protected data may be copied to it
    #[arg(long)]
    in_custody: bool,
}

/// Proposes how old events get: those of sources that only record are then erased by the ledger
#[derive(Debug, Args)]
pub(super) struct Retention {
    #[command(flatten)]
    out: Out,
    /// The age, as in 365d; at least a day. 0s: nothing expires any more
    #[arg(long, value_name = "TIME", value_parser = words::duration)]
    max_age: prost_types::Duration,
    /// The law or the rule that asks for it
    #[arg(long, value_name = "TEXT")]
    legal_basis: String,
}

/// Proposes a custodian, so that auditors learn its keys from the log
#[derive(Debug, Args)]
pub(super) struct Custodian {
    #[command(flatten)]
    out: Out,
    /// Its name
    #[arg(value_name = "CUSTODIAN")]
    name: String,
    /// Verifier key that it cosigns with as a witness
    #[arg(long = "witness-key", value_name = "VKEY")]
    witness: VerifierKey,
    /// Verifier key that it cosigns with as a mirror, if it is one
    #[arg(long = "mirror-key", value_name = "VKEY")]
    mirror: Option<VerifierKey>,
    /// Where it serves auditors
    #[arg(id = "custodian-url", long = "url", value_name = "URL", default_value = "")]
    url: String,
    /// It cosigns no longer
    #[arg(long)]
    withdrawn: bool,
}

/// Signs a proposal for one party of the governance, after showing what it says
#[derive(Debug, Args)]
pub(super) struct Sign {
    #[command(flatten)]
    caller: Caller,
    /// The proposal; the signature is added to it
    #[arg(value_name = "PROPOSAL")]
    file: PathBuf,
}

/// Records a proposal; the party whose key this is counts as having signed it
#[derive(Debug, Args)]
pub(super) struct Apply {
    #[command(flatten)]
    caller: Caller,
    /// The proposal
    #[arg(value_name = "PROPOSAL")]
    file: PathBuf,
}

/// The ledger that a change is proposed for, and the file to propose it in.
#[derive(Debug, Args)]
pub(super) struct Out {
    #[command(flatten)]
    pub(super) ledger: LedgerArgs,
    /// The file to write the proposal to; must not exist
    #[arg(long, value_name = "PROPOSAL")]
    pub(super) out: PathBuf,
}

impl Control {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Dataset(command) => command.run().await,
            Self::Tool(command) => command.run().await,
            Self::Site(command) => command.run().await,
            Self::Retention(command) => command.run().await,
            Self::Custodian(command) => command.run().await,
            Self::Key(command) => command.run().await,
            Self::Role(command) => command.run().await,
            Self::LedgerKey(command) => command.run().await,
            Self::Sign(command) => command.run().await,
            Self::Apply(command) => command.run().await,
        }
    }
}

impl Dataset {
    async fn run(self: Box<Self>) -> Result<(), Failure> {
        let dataset = wire::Dataset {
            boundary: self.boundary,
            sensitivity: self.sensitivity.unwrap_or_default(),
            categories: self.categories,
            subject_jurisdiction: self.jurisdiction,
            owner: self.owner,
        };
        self.out.propose(ControlKind::Dataset, &self.name, dataset.encode_to_vec()).await
    }
}

impl Tool {
    async fn run(self) -> Result<(), Failure> {
        let Self { out, id, owner: owner_entity, builds: build_digests, withdrawn } = self;
        let tool = wire::RegisteredTool { owner_entity, build_digests, withdrawn };
        out.propose(ControlKind::Tool, &id, tool.encode_to_vec()).await
    }
}

impl Site {
    async fn run(self) -> Result<(), Failure> {
        let Self { out, name, country, operator: site_operator, in_custody } = self;
        let site = wire::Site { country, site_operator, in_custody };
        out.propose(ControlKind::Site, &name, site.encode_to_vec()).await
    }
}

impl Retention {
    async fn run(self) -> Result<(), Failure> {
        let is_any = self.max_age != prost_types::Duration::default();
        let max_age = is_any.then_some(self.max_age);
        let retention = wire::Retention { max_age, legal_basis: self.legal_basis };
        self.out.propose(ControlKind::Retention, "", retention.encode_to_vec()).await
    }
}

impl Custodian {
    async fn run(self: Box<Self>) -> Result<(), Failure> {
        let Self { out, name, witness, mirror, url, withdrawn } = *self;
        let custodian = wire::Custodian {
            witness_vkey: witness.to_string(),
            mirror_vkey: mirror.map(|mirror| mirror.to_string()).unwrap_or_default(),
            url,
            withdrawn,
        };
        out.propose(ControlKind::Custodian, &name, custodian.encode_to_vec()).await
    }
}

impl Out {
    /// Proposes a change of a rule, as the revision after the one in force.
    pub(super) async fn propose(
        &self,
        kind: ControlKind,
        target: &str,
        content: Vec<u8>,
    ) -> Result<(), Failure> {
        let facts = self.ledger.facts().await?;
        let change = wire::ControlChange {
            kind: kind.into(),
            target: target.to_owned(),
            content: content.into(),
            approvals: Vec::new(),
            revision: facts.revision(kind.into(), target).saturating_add(1),
        };
        let origin = &facts.sources().genesis().origin;
        let proposal = Proposal::new(origin, Change::Control(change))?;
        write_proposal(&proposal, &self.out)?;
        show(&proposal)?;
        Ok(())
    }
}

impl Sign {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut proposal = read_proposal(&self.file)?;
        show(&proposal)?;
        let called = self.caller.call().await?;
        let sources = founders(&called.puller(), &called.ledger).await?;
        let signed = proposal.sign(&called.key, &sources);
        if let Err(ProposalError::NotGovernance { .. }) = signed {
            // Unless it was given to the party since.
            let view = beside(&self.caller.key, ".view.json");
            let sources = all_sources(&called.puller(), &called.ledger, &view).await?;
            proposal.sign(&called.key, &sources)?;
        } else {
            signed?;
        }
        write_synced(&self.file, proposal.to_text().as_bytes())?;
        say(format_args!("signed     by {}", called.key.name()))?;
        Ok(())
    }
}

impl Apply {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let proposal = read_proposal(&self.file)?;
        show_head(&proposal)?;
        let called = self.caller.call().await?;
        let recorder = called.recorder().await?;
        let applied = proposal.apply(&recorder).await.map_err(|error| called.failure(error))?;
        called.close(&recorder).await?;
        let index = applied.recorded.index();
        match proposal.change() {
            Change::Redaction(_) => say(format_args!("recorded   at index {index}"))?,
            _ => say(format_args!("in force   since index {index}"))?,
        }
        Ok(())
    }
}

/// Shows on the terminal all that is signed.
pub(super) fn show(proposal: &Proposal) -> anyhow::Result<()> {
    show_head(proposal)?;
    for line in proposal.change_text().lines() {
        say(format_args!("  {}", printable(line)))?;
    }
    Ok(())
}

/// Shows what a proposal is about, and who signed it.
fn show_head(proposal: &Proposal) -> anyhow::Result<()> {
    say(format_args!("ledger     {}", printable(proposal.origin())))?;
    match proposal.change() {
        Change::Control(change) => {
            let about = format!("{} {}", words::word("ControlKind", change.kind), change.target);
            say(format_args!("change     {}", printable(about.trim_end())))?;
            say(format_args!("revision   {}", change.revision))?;
        }
        Change::Source(status) => say(format_args!("change     source {}", status.source))?,
        Change::Redaction(redaction) => {
            let (first, last) = (redaction.first_index, redaction.last_index);
            say(format_args!("erases     the events from {first} to {last}"))?;
        }
    }
    say(format_args!("digest     {}", proposal.digest()))?;
    let signers: Vec<_> = proposal.approvals().iter().map(|given| given.source.as_str()).collect();
    if !signers.is_empty() {
        say(format_args!("signed by  {}, as the file says", printable(signers.join(", "))))?;
    }
    Ok(())
}

/// Reads a proposal; an error names file, line and column.
fn read_proposal(path: &Path) -> anyhow::Result<Proposal> {
    let name = path.display();
    let text = read_text(path)?;
    Proposal::parse(&text).map_err(|error| match error {
        error @ ProposalError::File { .. } => anyhow!("{name}:{error}"),
        error => anyhow!("{name}: {error}"),
    })
}

/// Reads a file that a person wrote, as far as one is that long.
pub(super) fn read_text(path: &Path) -> anyhow::Result<String> {
    let read = || {
        let mut text = String::new();
        let mut file = File::open(path)?.take(TEXT_BYTES_MAX + 1);
        file.read_to_string(&mut text).map(|_| text)
    };
    let text = read().with_context(|| path.display().to_string())?;
    ensure!(
        text.len() as u64 <= TEXT_BYTES_MAX,
        "{}: more than {TEXT_BYTES_MAX} bytes",
        path.display()
    );
    Ok(text)
}

/// Writes a new proposal. One that exists may carry somebody's signature.
pub(super) fn write_proposal(proposal: &Proposal, path: &Path) -> anyhow::Result<()> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(proposal.to_text().as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| path.display().to_string())
}

/// A proposal holds a content of 32,000 bytes at most, and 16 signatures.
const TEXT_BYTES_MAX: u64 = 256 << 10;
