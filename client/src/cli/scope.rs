//! What a request asks for or an approval covers, in flags.

use access_ledger_proto::wire;
use clap::Args;

use super::words;

/// A scope; a kind of which none is given does not restrict.
#[derive(Debug, Args)]
pub(super) struct ScopeArgs {
    /// Who may use the grant; `team-a/*` stands for all names that begin so; repeat for more
    #[arg(long = "actor", value_name = "ID", help_heading = "Scope")]
    actors: Vec<String>,
    /// Which data; `accounts.*` stands for all names that begin so; repeat for more
    #[arg(long = "dataset", value_name = "NAME", help_heading = "Scope")]
    datasets: Vec<String>,
    /// To do what: read, query, export, ...; repeat for more
    #[arg(
        long = "action",
        value_name = "ACTION",
        value_parser = words::action,
        help_heading = "Scope"
    )]
    actions: Vec<i32>,
    /// Which kinds of data: contact, device, location, ...; repeat for more
    #[arg(
        long = "category",
        value_name = "CATEGORY",
        value_parser = words::category,
        help_heading = "Scope"
    )]
    categories: Vec<i32>,
    /// From where: ISO 3166 code of the country; repeat for more
    #[arg(long = "country", value_name = "CODE", help_heading = "Scope")]
    countries: Vec<String>,
}

impl ScopeArgs {
    pub(super) fn into_scope(self) -> wire::Scope {
        let Self { actors, datasets, actions, categories, countries } = self;
        wire::Scope { actors, datasets, actions, categories, countries }
    }
}
