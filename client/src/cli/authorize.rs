//! `authorize`: asks whether an access may happen.

use std::{fs, io::Read as _, path::PathBuf};

use access_ledger_proto::{note::VerifierKey, quorum::Quorum};
use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;

use super::{
    Failure, Server,
    cosigners::read_quorum,
    json::parse_event,
    keys::{beside, ledger_key, read_key},
    record::SPOOL_BYTES_MAX,
    say,
};
use crate::{authorize::Denied, pull::Puller, recorder::Recorder};

/// Asks the ledger whether an access may happen; the question and the answer go on record first
///
/// Exit codes: 0 allowed; 3 denied by the ledger's verdict; 1 the ledger is caught lying; 2 usage,
/// file or network. Whatever is not 0 is a denial.
///
/// The event that is recorded afterwards, of what was done, names the intent as it is printed here
/// in its `access.intent`, and the same grant.
#[derive(Debug, Args)]
pub(super) struct Authorize {
    #[command(flatten)]
    server: Server,
    /// The source's key file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Verifier key of the ledger; else the one pinned beside the key file, else the server's word
    #[arg(long, value_name = "VKEY", env = "ACCESS_LEDGER_KEY")]
    ledger: Option<VerifierKey>,
    /// Trust policy (C2SP tlog-policy): the verdict counts once the policy's witnesses have
    /// cosigned it
    #[arg(long, value_name = "FILE", value_parser = read_quorum)]
    quorum: Option<Quorum>,
    /// The folder that keeps events until they are recorded; default: the key file's name +
    /// `.spool`
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// The intended access: one JSON object (protobuf JSON mapping of `Event`), with the outcome
    /// OUTCOME_REQUESTED or none; `-` is the standard input. Absent `eventId` and `occurredAt` are
    /// filled in
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
}

impl Authorize {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let key = read_key(&self.key)?;
        let intent = parse_event(&self.read()?);
        let intent = intent.with_context(|| self.file.display().to_string())?;
        let link = self.server.reach().await?;
        let puller = Puller::new(link.clone());
        let ledger = ledger_key(self.ledger.as_ref(), &self.key, &puller).await?;
        let caught = |error| Failure::of_recorder(error, &ledger);
        let spool = self.spool.clone().unwrap_or_else(|| beside(&self.key, ".spool"));
        let recorder = Recorder::builder(link, key, ledger.clone())
            .spool(&spool, SPOOL_BYTES_MAX)
            .quorum(self.quorum.clone().unwrap_or_default())
            .start()
            .await
            .map_err(caught)?;
        let permit = match recorder.authorize(intent).await {
            Ok(permit) => permit,
            Err(Denied::Failed(error)) => return Err(caught(error)),
            Err(Denied::Verdict(denial)) => {
                let (rules, index) =
                    (denial.verdict().rules().join(", "), denial.verdict().index());
                let version = denial.verdict().policy_version();
                let told = format!("{rules} (policy {version}, verdict at index {index})");
                return Err(Failure::Denied(told));
            }
        };
        recorder.close().await.map_err(caught)?;
        let (verdict, reference) = (permit.verdict(), permit.reference());
        let event_id = STANDARD.encode(&reference.event_id);
        let index = permit.intent().index();
        say(format_args!("allowed   policy {}", verdict.policy_version()))?;
        say(format_args!("grant     {}", or_none(verdict.grant_id())))?;
        say(format_args!(r#"intent    {{"eventId": "{event_id}", "index": "{index}"}}"#))?;
        say(format_args!("verdict   index {}", verdict.index()))?;
        Ok(())
    }

    fn read(&self) -> anyhow::Result<String> {
        if self.file.as_os_str() != "-" {
            let text = fs::read_to_string(&self.file);
            return text.with_context(|| self.file.display().to_string());
        }
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text)?;
        Ok(text)
    }
}

fn or_none(name: &str) -> &str {
    if name.is_empty() { "none" } else { name }
}
