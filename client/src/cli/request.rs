//! `request`: asks for access.

use access_ledger_proto::wire;
use anyhow::anyhow;
use clap::Args;

use super::{Failure, caller::Caller, complain, say, scope::ScopeArgs, words};
use crate::governance::{self, Requested};

/// Asks for access to data; prints the id of the request, which an approver answers
///
/// The duration runs from the approval. Without `--actor`, the one who asks is the one who may use
/// the grant.
#[derive(Debug, Args)]
pub(super) struct Request {
    #[command(flatten)]
    caller: Caller,
    /// Who asks: the pseudonymous id that the person's accesses carry too
    #[arg(long, value_name = "ID")]
    by: String,
    /// Employer of the one who asks
    #[arg(long, value_name = "NAME", default_value = "")]
    entity: String,
    /// ISO 3166 code of the employer's country
    #[arg(long, value_name = "CODE", default_value = "")]
    entity_country: String,
    /// ISO 3166 code of the country of the office
    #[arg(long, value_name = "CODE", default_value = "")]
    office_country: String,
    /// ISO 3166 code of the country that the person is in
    #[arg(long, value_name = "CODE", default_value = "")]
    physical_country: String,
    /// Why, in a sentence that an auditor understands
    #[arg(long, value_name = "TEXT")]
    justification: String,
    /// For how long: 45m, 8h, 30d; by default 30 days
    #[arg(long, value_name = "TIME", value_parser = words::duration)]
    duration: Option<prost_types::Duration>,
    /// What for: customer-support, production-alert, maintenance, ...
    #[arg(long, value_name = "PURPOSE", value_parser = words::purpose)]
    purpose: Option<i32>,
    /// Id of the request, unique in the ledger; by default a random one
    #[arg(long, value_name = "ID", default_value = "")]
    id: String,
    #[command(flatten)]
    scope: ScopeArgs,
}

impl Request {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Self { caller, by, scope, .. } = self;
        let mut scope = scope.into_scope();
        if scope.datasets.is_empty() {
            return Err(anyhow!("no --dataset; all of them is `--dataset '*'`").into());
        }
        if scope.actors.is_empty() {
            scope.actors.push(by.clone());
        }
        let actor = wire::Principal {
            id: by,
            kind: wire::PrincipalKind::Human.into(),
            entity: self.entity,
            entity_country: self.entity_country,
            office_country: self.office_country,
            physical_country: self.physical_country,
            ..Default::default()
        };
        let request = wire::AccessRequest {
            request_id: self.id,
            scope: Some(scope),
            justification: self.justification,
            requested_duration: self.duration,
            purpose: self.purpose.unwrap_or_default(),
        };
        let called = caller.call().await?;
        let recorder = called.recorder().await?;
        let requested = governance::request(&recorder, actor, request).await;
        let Requested { request_id, recorded } =
            requested.map_err(|error| called.failure(error))?;
        called.close(&recorder).await?;
        complain(format_args!("recorded at index {}", recorded.index()));
        say(format_args!("{request_id}"))?;
        Ok(())
    }
}
