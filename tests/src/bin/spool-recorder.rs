//! A service that records with a spool until somebody kills it: for `spool_kill`.
//!
//! It records events of growing number, and prints each number once `record` has accepted the
//! event, so that whoever reads the pipe knows what must never be lost.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use access_ledger_client::{connect, recorder::Recorder};
use access_ledger_proto::{
    note::{Signer, VerifierKey},
    wire::{Access, Action, Data, Event, Outcome, Principal, event::Body},
};
use clap::Parser;

/// Records events until it is killed.
#[derive(Debug, Parser)]
struct Args {
    /// Address of the ledger.
    #[arg(long)]
    server: String,
    /// Verifier key of the ledger.
    #[arg(long)]
    ledger: VerifierKey,
    /// The source's key, as text.
    #[arg(long)]
    key: String,
    /// The spool's folder.
    #[arg(long)]
    spool: PathBuf,
    /// The number in the first event.
    #[arg(long)]
    first: u64,
    /// The number to end behind, in order; without it there is no end.
    #[arg(long)]
    last: Option<u64>,
    /// Most events in a batch.
    #[arg(long)]
    batch_events: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let key = Signer::parse(&args.key)?;
    let recorder = Recorder::builder(connect::channel(&args.server)?, key, args.ledger)
        .spool(&args.spool, 1 << 20)
        .batch_events_max(args.batch_events)
        .backoff(Duration::from_millis(2), Duration::from_millis(50))
        .start()
        .await?;
    for number in args.first..=args.last.unwrap_or(u64::MAX) {
        let _ticket = recorder.record(event(number)).await?;
        // Straight to the pipe: what is buffered dies with the process.
        let mut out = io::stdout().lock();
        writeln!(out, "{number}")?;
        out.flush()?;
    }
    let closed = recorder.close().await?;
    anyhow::ensure!(closed.unsent == 0, "{} events were not recorded", closed.unsent);
    Ok(())
}

/// Differs from every other by its number; of many lengths.
fn event(number: u64) -> Event {
    let access = Access {
        action: Action::Read.into(),
        data: vec![Data { dataset: format!("dataset-{number}"), ..Data::default() }],
        justification: "because ".repeat(usize::try_from(number % 61).unwrap_or_default()),
        outcome: Outcome::Allowed.into(),
        ..Access::default()
    };
    let actor = Some(Principal { id: "u-1".to_owned(), ..Principal::default() });
    Event { actor, body: Some(Body::Access(access)), ..Event::default() }
}
