//! The demonstration: a company's day, recorded, verified, and tampered with.

pub mod day;

/// Placeholder.
///
/// # Errors
///
/// Always.
pub fn run(_: &crate::config::DemoArgs) -> anyhow::Result<std::process::ExitCode> {
    anyhow::bail!("being built")
}
