//! `approve`, `deny`: answers a request.

use access_ledger_proto::{
    position::Index,
    wire::{self, Verdict},
};
use clap::Args;

use super::{Failure, caller::Caller, say, scope::ScopeArgs, words};
use crate::governance::{self, Decided};

/// Approves a request, in full or in part
///
/// The key must be that of a source with the role `approve`, and of another person than the one who
/// asked: any other approval is recorded, has no effect, and is found. See `access-ledger grants`
/// for what waits and what an approval became.
#[derive(Debug, Args)]
pub(super) struct Approve {
    #[command(flatten)]
    caller: Caller,
    /// Id of the request
    #[arg(value_name = "REQUEST")]
    request: String,
    /// The grant does not hold before this time; by default it holds from the approval on
    #[arg(long, value_name = "TIME", value_parser = words::time)]
    not_before: Option<prost_types::Timestamp>,
    /// The grant ends at this time; by default after the duration that was asked for
    #[arg(long, value_name = "TIME", value_parser = words::time)]
    not_after: Option<prost_types::Timestamp>,
    /// How many accesses the grant covers; 0: any number
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_uses: u64,
    /// How many records all accesses together may touch; 0: any number
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_records: u64,
    /// Id of the grant; by default the request's
    #[arg(long, value_name = "ID", default_value = "")]
    grant: String,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    narrowed: ScopeArgs,
}

/// Denies a request, or asks for more before it is decided
#[derive(Debug, Args)]
pub(super) struct Deny {
    #[command(flatten)]
    caller: Caller,
    /// Id of the request
    #[arg(value_name = "REQUEST")]
    request: String,
    /// Not a refusal: the one who asked must say more
    #[arg(long)]
    need_info: bool,
    #[command(flatten)]
    answer: Answer,
}

/// What goes with any answer.
#[derive(Debug, Args)]
struct Answer {
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Employer of the approver
    #[arg(long, value_name = "NAME", default_value = "")]
    entity: String,
    /// For whom the approver speaks: the company, the custodian
    #[arg(long, value_name = "NAME", default_value = "")]
    party: String,
}

impl Approve {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let scope = self.narrowed.into_scope();
        let decision = wire::Decision {
            request_id: self.request,
            verdict: Verdict::Approve.into(),
            reason: self.answer.reason,
            narrowed_scope: (scope != wire::Scope::default()).then_some(scope),
            not_before: self.not_before,
            not_after: self.not_after,
            max_uses: self.max_uses,
            max_records: self.max_records,
            party: self.answer.party,
            grant_id: self.grant,
        };
        let (decided, index) = decide(&self.caller, self.answer.entity, decision).await?;
        let (request, grant) = (decided.request_id, decided.grant_id.unwrap_or_default());
        say(format_args!("approved {request} at index {index}, grant {grant}"))?;
        Ok(())
    }
}

impl Deny {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let verdict = if self.need_info { Verdict::NeedInfo } else { Verdict::Deny };
        let decision = wire::Decision {
            request_id: self.request,
            verdict: verdict.into(),
            reason: self.answer.reason,
            party: self.answer.party,
            ..Default::default()
        };
        let (decided, index) = decide(&self.caller, self.answer.entity, decision).await?;
        let done = if self.need_info { "asked for more about" } else { "denied" };
        say(format_args!("{done} {} at index {index}", decided.request_id))?;
        Ok(())
    }
}

async fn decide(
    caller: &Caller,
    entity: String,
    decision: wire::Decision,
) -> Result<(Decided, Index), Failure> {
    let called = caller.call().await?;
    let recorder = called.recorder().await?;
    // The key's source stands for the person, whom the registration names.
    let id = called.key.name().to_owned();
    let actor = (!entity.is_empty()).then(|| wire::Principal { id, entity, ..Default::default() });
    let decided = governance::decide(&recorder, actor, decision).await;
    let decided = decided.map_err(|error| called.failure(error))?;
    called.close(&recorder).await?;
    let index = decided.recorded.index();
    Ok((decided, index))
}
