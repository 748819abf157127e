//! `GetReport`: reports from what the index keeps.

use access_ledger_client::{
    error::ReportError,
    reports::{Options, Period, Report},
};
use access_ledger_proto::{
    event::nanos_of,
    position::Size,
    proof::root_at,
    wire::{self, GetReportRequest, GetReportResponse},
};
use prost::Message as _;

use super::{indexed, refuse_index};
use crate::{
    book::{Book, bytes_of, unreadable},
    index::IndexedReportError,
    refusal::Refusal,
};

/// The report on the entries indexed so far. Its footer has no root yet: a checkpoint may not cover
/// them all.
pub(super) fn compute(
    book: &Book,
    published: Size,
    request: &GetReportRequest,
) -> Result<GetReportResponse, Refusal> {
    let report = request.name.parse().map_err(refuse)?;
    let options = parse_options(request)?;
    indexed(book, published);
    let computed = book.index.report(&book.reader, report, &options);
    let (table, footer) = computed.map_err(|error| match error {
        IndexedReportError::Report(error) => refuse(error),
        IndexedReportError::Index(error) => refuse_index(error),
    })?;
    bounded(report, &table)?;
    let footer = wire::ReportFooter { origin: book.vkey.name().to_owned(), ..footer };
    Ok(GetReportResponse { table: Some(table), footer: Some(footer) })
}

/// Adds the root of the tree that the report is on, which a checkpoint covers.
pub(super) fn add_root(book: &Book, footer: &mut wire::ReportFooter) -> Result<(), Refusal> {
    let root = root_at(&book.tree, Size(footer.size));
    footer.root = bytes_of(&root.map_err(|_| unreadable("tree has lost nodes"))?);
    Ok(())
}

fn parse_options(request: &GetReportRequest) -> Result<Options, Refusal> {
    let missing = |field| Refusal::Request { field, problem: "missing".to_owned() };
    let from = request.from.as_ref().ok_or_else(|| missing("from"))?;
    let to = request.to.as_ref().ok_or_else(|| missing("to"))?;
    let period = Period::of(nanos_of(from), nanos_of(to)).map_err(refuse)?;
    let token = &request.subject_token;
    let subject = (!token.is_empty()).then(|| token.to_vec());
    Ok(Options { period, subject, with_staff: request.with_staff })
}

fn refuse(error: ReportError) -> Refusal {
    let field = match error {
        ReportError::Name { .. } => "name",
        ReportError::NoSubject => "subject_token",
        ReportError::Ground { problem } => return unreadable(problem),
        _ => "from",
    };
    Refusal::Request { field, problem: error.to_string() }
}

fn bounded(report: Report, table: &wire::ReportTable) -> Result<(), Refusal> {
    let found = table.encoded_len();
    if found <= REPORT_BYTES_MAX {
        return Ok(());
    }
    let problem =
        format!("report {report} has {found} bytes, at most {REPORT_BYTES_MAX} are served");
    Err(Refusal::Request { field: "from", problem })
}

/// Most bytes of a report: auditors take messages of 2 MiB.
const REPORT_BYTES_MAX: usize = 3 << 19;
