//! The `vas` command: one binary, a subcommand per process of the product.
//!
//! Parses the command line, reads the configuration, sets up logging and signals, and hands checked
//! options to the crate that does the work. No decision of the product is made here.
#![forbid(unsafe_code)]

mod cmd;
mod config;
mod crash;
mod get;
mod output;
mod parent;
mod signals;
mod telemetry;
mod up;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cmd::Cli::parse();
    let name = cli.command.name();
    if let Some(parent) = cli.under
        && !parent::end_with(parent)
    {
        // It ended before this process could tie itself to it.
        return ExitCode::FAILURE;
    }
    telemetry::init(name, cli.under.is_some());
    crash::prepare();
    if let Err(refused) = ipc::descriptors::raise() {
        tracing::warn!("{refused}");
    }
    match cmd::run(cli) {
        Ok(code) => code,
        Err(error) => {
            // A configuration's problems name file and line, which is what editors look for.
            if error.is::<config::ConfigError>() {
                output::complain(error);
            } else {
                output::complain(format_args!("vas {name}: {error}"));
            }
            ExitCode::FAILURE
        }
    }
}
