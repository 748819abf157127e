//! `ListFindings`: what the entries indexed so far bring to light.

use access_ledger_proto::{position::Size, wire};

use super::{PAGE_SIZE_MAX, indexed, refuse_index};
use crate::{book::Book, index::FindingFilter, refusal::Refusal};

/// Answers one page.
pub(super) fn list(
    book: &Book,
    published: Size,
    request: wire::ListFindingsRequest,
) -> Result<wire::ListFindingsResponse, Refusal> {
    let from = parse_token(&request.page_token)?;
    let most = match usize::try_from(request.page_size).unwrap_or(usize::MAX) {
        0 => PAGE_SIZE_MAX,
        size => size.min(PAGE_SIZE_MAX),
    };
    indexed(book, published);
    let filter = FindingFilter { rules: request.rules, states: request.states };
    let page = book.index.list_findings(&filter, from, most).map_err(refuse_index)?;
    Ok(wire::ListFindingsResponse {
        findings: page.findings,
        next_page_token: page.next.map(|next| next.to_string()).unwrap_or_default(),
        indexed_size: page.size.0,
    })
}

/// A token is the number of the finding that comes next.
fn parse_token(token: &str) -> Result<u64, Refusal> {
    if token.is_empty() {
        return Ok(0);
    }
    token.parse().map_err(|_| Refusal::Request {
        field: "page_token",
        problem: format!("{token:?}, expected that of the page before"),
    })
}
