//! `vas up`.

use super::Outcome;
use crate::config::Config;
use crate::up::{Wishes, run as run_node};
use std::time::Duration;

/// Arguments of `vas up`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show what happens: a table drawn in place on a terminal, plain lines elsewhere
    #[arg(long)]
    table: bool,
    /// Stop by itself, so many seconds after the first result
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Print a summary at the end; fail when nobody was found or nothing is stored
    #[arg(long)]
    summary: bool,
}

/// Runs the node until a signal, or as long as asked.
///
/// # Errors
/// Why it did not start.
pub fn run(args: &Args, config: Config) -> Outcome {
    let Args { table, seconds, summary } = *args;
    run_node(&config, Wishes { table, run_for: seconds.map(Duration::from_secs), summary })
}
