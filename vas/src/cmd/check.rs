//! `vas check`.

use super::Outcome;
use crate::config::Config;
use crate::output;
use std::process::ExitCode;

/// Verifies and repairs the store; refuses while serve runs. Fails when something was lost or could not be
/// repaired, which the report names.
///
/// # Errors
/// When serve runs, or the store can't be read.
pub fn run(config: &Config) -> Outcome {
    let report = store::check::check(&config.directories.state)?;
    output::print(&report)?;
    Ok(if report.lossy() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
