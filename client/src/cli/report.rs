//! `report`: who saw whose data, from where, with which tool, on whose approval.

use std::io::{self, Write as _};

use access_ledger_proto::wire::GetReportRequest;
use anyhow::anyhow;
use clap::Args;

use super::{Failure, complain, ledger::LedgerArgs};
use crate::{
    reports::{
        Day, Options, Period, Recomputed, Report,
        render::{Basis, Format, render},
    },
    verify::state::unhex,
};

/// Computes a report from the log
///
/// Reads and verifies the whole log like `verify`, and computes the report from it. The footer
/// tells what it rests on.
#[derive(Debug, Args)]
#[command(after_help = REPORTS)]
pub(super) struct ReportArgs {
    /// Which report: see below
    #[arg(value_name = "NAME")]
    name: Report,
    /// The first day, in UTC, as in 2026-01-01
    #[arg(long, value_name = "DATE")]
    from: Day,
    /// The day after the last
    #[arg(long, value_name = "DATE")]
    to: Day,
    /// Of the report "subject": the person's token, in hex
    #[arg(long, alias = "token", value_name = "HEX", required_if_eq("name", "subject"))]
    subject: Option<String>,
    /// Of the report "subject": name the staff
    #[arg(long)]
    with_staff: bool,
    /// A table for people; CSV (RFC 4180), with the footer on the standard error; or JSON
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Ask the server for its report instead of computing it: fast, and nothing is verified
    #[arg(long)]
    by_server: bool,
    #[command(flatten)]
    ledger: LedgerArgs,
}

/// Lists the grants that are in force, and the requests that wait for an answer
///
/// The report `grants` of today: reads and verifies the whole log like `verify`, and computes it
/// from that.
#[derive(Debug, Args)]
pub(super) struct Grants {
    /// A table for people; CSV (RFC 4180), with the footer on the standard error; or JSON
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Ask the server for its report instead of computing it: fast, and nothing is verified
    #[arg(long)]
    by_server: bool,
    #[command(flatten)]
    ledger: LedgerArgs,
}

const REPORTS: &str = "\
Reports:
  cross-region  who reached data of persons in another country
  unapproved    accesses that no approval covered
  privileged    what privileged accounts reached
  flows         which tool moved which data from where to where
  subject       what happened to the data of one person (--subject)
  transparency  what authorities asked for, and got, by half-year
  grants        grants in force, and requests that wait for one
  approvals     how approvers decide
  break-glass   emergency accesses and their reviews
  erasure       data that was removed, and accesses to it afterwards
  custody       how much of each dataset lies where
  sources       how completely each source recorded
  readers       who read the ledger";

impl Grants {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Self { format, by_server, ledger } = self;
        let now = jiff::Timestamp::now().as_nanosecond();
        let from = Day::of(u64::try_from(now).unwrap_or_default());
        let to = Day(from.0.saturating_add(1));
        let (name, subject, with_staff) = (Report::Grants, None, false);
        let report = ReportArgs { name, from, to, subject, with_staff, format, by_server, ledger };
        Box::pin(report.run()).await
    }
}

impl ReportArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let subject = match &self.subject {
            Some(hex) => Some(unhex(hex).ok_or_else(|| anyhow!("token {hex:?} is no hex"))?),
            None => None,
        };
        let period = Period::new(self.from, self.to)?;
        let options = Options { period, subject, with_staff: self.with_staff };
        let (table, footer, basis) = match self.by_server {
            true => self.ask(options).await?,
            false => self.compute(options).await?,
        };
        let mut out = io::BufWriter::new(io::stdout().lock());
        render(&table, &footer, basis, self.format, &mut out, &mut io::stderr().lock())?;
        out.flush()?;
        Ok(())
    }

    async fn compute(&self, options: Options) -> Result<Rendered, Failure> {
        let recomputed = Recomputed::new(self.name, options);
        let (audited, recomputed) = self.ledger.observe(recomputed).await?;
        let footer = recomputed.footer(&audited.verifier, &audited.checkpoint);
        Ok((recomputed.table()?, footer, Basis::Verified))
    }

    /// The server's own.
    async fn ask(&self, options: Options) -> Result<Rendered, Failure> {
        let request = GetReportRequest {
            name: self.name.name().to_owned(),
            from: Some(options.period.from_time()),
            to: Some(options.period.to_time()),
            subject_token: options.subject.unwrap_or_default().into(),
            with_staff: options.with_staff,
        };
        let answer = self.ledger.puller().await?.report(request).await?;
        let (table, footer) = (answer.table.unwrap_or_default(), answer.footer.unwrap_or_default());
        let size = footer.size;
        complain(format_args!("NOT verified: as the server tells it, from {size} entries"));
        Ok((table, footer, Basis::ToldByServer))
    }
}

type Rendered =
    (access_ledger_proto::wire::ReportTable, access_ledger_proto::wire::ReportFooter, Basis);
