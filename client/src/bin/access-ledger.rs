//! The command line: parses and exits.

use std::process::ExitCode;

fn main() -> ExitCode {
    access_ledger_client::cli::run(std::env::args_os())
}
