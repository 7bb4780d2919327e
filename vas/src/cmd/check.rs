//! `vas check`.

use super::Outcome;
use crate::config::Config;
use std::process::ExitCode;

/// Verifies and repairs the store; refuses while serve runs.
///
/// # Errors
/// What could not be repaired.
pub fn run(config: &Config) -> Outcome {
    let report = store::check::check(&config.directories.state)?;
    print!("{report}");
    Ok(ExitCode::SUCCESS)
}
