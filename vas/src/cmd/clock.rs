//! `vas clock accept`.

use super::{Failure, Outcome};
use crate::config::Config;
use crate::output;
use base::clock_trust::STEP_MAX;
use clap::Subcommand;
use ipc::clock_trust::{accept, accepted_in};
use std::process::ExitCode;

/// Arguments of `vas clock`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Vouch for the time of this machine: what is too old by it may be deleted again
    Accept,
}

/// Runs it.
///
/// # Errors
/// When the state directory can't be written.
pub fn run(args: &Args, config: &Config) -> Outcome {
    let Action::Accept = args.action;
    let file = accepted_in(&config.directories.state);
    accept(&file).map_err(|error| -> Failure {
        format!(
            "{} can't be written: {error}; is that this node's state directory?",
            file.display()
        )
        .into()
    })?;
    output::print(format_args!(
        "the time of this machine is accepted until it starts again or its clock is set by more than {} s; \
         ingest takes it up within seconds, serve within an hour or when it is started\n",
        STEP_MAX.as_secs()
    ))?;
    Ok(ExitCode::SUCCESS)
}
