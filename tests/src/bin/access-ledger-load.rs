//! Measures the ledger against what the machine can do.

use std::process::ExitCode;

use access_ledger_tests::load::{self, Cli};
use clap::Parser as _;

/// As in the server, whose processes this binary plays too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    load::run(&Cli::parse())
}
