//! `vas config check | show`.

use super::Outcome;
use crate::config::Config;
use crate::output;
use clap::Subcommand;
use std::process::ExitCode;

/// Arguments of `vas config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say whether the configuration is valid, and what in it looks unintended
    Check,
    /// Print the effective configuration, defaults filled in
    Show,
}

impl Args {
    /// Whether there must be a file: nothing can be said of one that is not there.
    pub const fn needs_file(&self) -> bool {
        matches!(self.action, Action::Check)
    }
}

/// Runs it; the configuration has been read, so it is valid. What it asks of this machine may still
/// contradict itself, which `check` tells with exit status 1.
///
/// # Errors
/// When the output can't be written.
pub fn run(args: &Args, config: &Config) -> Outcome {
    match args.action {
        Action::Show => output::print(config)?,
        Action::Check => {
            for warning in config.warnings() {
                output::print(format_args!("warning: {warning}\n"))?;
            }
            let contradictions = config.contradictions();
            for contradiction in &contradictions {
                output::print(format_args!("error: {contradiction}\n"))?;
            }
            if !contradictions.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
            output::print(format_args!(
                "{} cameras, {} models, {} assignments: valid\n",
                config.cameras.len(),
                config.models.len(),
                config.assignments.len()
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
