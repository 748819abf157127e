//! Flags of both servers: where traces go.

use access_ledger_client::error::ConnectError;
use clap::Args;

use super::CredentialArgs;
use crate::trace::ExportOptions;

/// Where traces go.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// Collector of OpenTelemetry that gets traces (OTLP over HTTP), as in `http://127.0.0.1:4318`.
    /// Without it there are none.
    #[arg(long, value_name = "URL", env = "ACCESS_LEDGER_OTLP", help_heading = "Traces")]
    pub otlp: Option<String>,
}

impl TraceArgs {
    /// Where the traces of a service go, if anywhere; of the batches whose callers send none, one
    /// in `one_in` is traced.
    ///
    /// # Errors
    ///
    /// As [`CredentialArgs::read`].
    pub fn export(
        &self,
        service: &'static str,
        one_in: u32,
        credentials: &CredentialArgs,
    ) -> Result<Option<ExportOptions>, ConnectError> {
        let Some(url) = self.otlp.clone() else { return Ok(None) };
        let credentials = credentials.read()?;
        Ok(Some(ExportOptions { url, one_in, service, credentials }))
    }
}
