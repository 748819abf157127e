//! What a server tells of its own: pages of its index, which nobody has verified. To believe one,
//! verify the log and compute the same from it.

use access_ledger_proto::wire;

use super::{PullError, Puller};

impl Puller {
    /// One page of the registered sources, as the server tells them; `token` is empty for the
    /// first.
    ///
    /// # Errors
    ///
    /// [`PullError::Refused`], [`PullError::Deadline`].
    pub async fn sources(&self, token: &str) -> Result<wire::ListSourcesResponse, PullError> {
        self.persist(async |mut client| {
            let request = wire::ListSourcesRequest { page_size: 0, page_token: token.to_owned() };
            client.list_sources(request).await
        })
        .await
    }

    /// One page of the findings, as the server tells them.
    ///
    /// # Errors
    ///
    /// [`PullError::Refused`], [`PullError::Deadline`].
    pub async fn findings(
        &self,
        request: wire::ListFindingsRequest,
    ) -> Result<wire::ListFindingsResponse, PullError> {
        self.persist(async |mut client| client.list_findings(request.clone()).await).await
    }

    /// One page of the entries that meet a filter, as the server tells them.
    ///
    /// # Errors
    ///
    /// [`PullError::Refused`], [`PullError::Deadline`].
    pub async fn query(
        &self,
        request: &wire::QueryRequest,
    ) -> Result<wire::QueryResponse, PullError> {
        self.persist(async |mut client| client.query(request.clone()).await).await
    }

    /// A report, as the server computes it.
    ///
    /// # Errors
    ///
    /// [`PullError::Refused`], [`PullError::Deadline`].
    pub async fn report(
        &self,
        request: wire::GetReportRequest,
    ) -> Result<wire::GetReportResponse, PullError> {
        self.persist(async |mut client| client.get_report(request.clone()).await).await
    }
}
