//! `vas config check | show`.

use super::Outcome;
use crate::config::Config;
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

/// Runs it; the configuration has been read, so it is valid.
///
/// # Errors
/// None.
pub fn run(args: &Args, config: &Config) -> Outcome {
    match args.action {
        Action::Show => print!("{config}"),
        Action::Check => {
            for warning in config.warnings() {
                println!("warning: {warning}");
            }
            println!(
                "{} cameras, {} models, {} assignments: valid",
                config.cameras.len(),
                config.models.len(),
                config.assignments.len()
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
