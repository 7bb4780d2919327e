//! `vas scheduler`.

use super::Outcome;
use crate::config::Config;
use crate::signals;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `vas scheduler`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Record every input and answer of the core, for `vas replay`
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// Runs the scheduler until a signal.
///
/// # Errors
/// Why it did not start.
pub fn run(args: Args, config: Config) -> Outcome {
    let stop = signals::stop()?;
    let options = scheduler_driver::Options {
        capacities: config.devices.iter().map(|d| (d.id.clone(), d.capacity)).collect(),
        usable_share: config.usable_share,
        steering: config.steering,
        directories: config.directories,
        trace: args.trace,
    };
    scheduler_driver::run(options, stop)?;
    Ok(ExitCode::SUCCESS)
}
