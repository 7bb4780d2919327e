//! The command line: one file per subcommand.

mod check;
mod clock;
mod config;
mod decode;
mod ingest;
mod media;
mod model;
mod plan;
mod replay;
mod ring;
mod runner;
mod scheduler;
mod serve;
mod sim;
mod up;

use crate::config::{Config, ConfigError};
use clap::{Parser, Subcommand};
use ipc::roots::RootError;
use std::path::PathBuf;
use std::process::ExitCode;

/// A way for a command to fail: one clear line that names the thing and the remedy.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a command ends with.
pub type Outcome = Result<ExitCode, Failure>;

/// Video aggregation with an AI platform beside it.
#[derive(Debug, Parser)]
#[command(name = "vas", version, max_term_width = 100)]
pub struct Cli {
    /// Configuration file [default: vas.toml in the working directory]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Process id of the `vas up` that started this process
    #[arg(long, global = true, hide = true, value_name = "PID")]
    pub under: Option<u32>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start every process of this node and stop them together
    Up(up::Args),
    /// Read the cameras and keep their decode workers (one per node)
    Ingest,
    /// Decode one camera into its ring (started by ingest)
    #[command(hide = true)]
    Decode,
    /// Make a still or a clip (started by serve)
    #[command(hide = true)]
    Media,
    /// Choose frames, build batches, hand them to the runners (one per node)
    Scheduler(scheduler::Args),
    /// Run one model on one device
    Runner(runner::Args),
    /// Store events and answer HTTP (one per node)
    Serve,
    /// Look into the frame rings
    Ring(ring::Args),
    /// Check a model folder, or run it over a clip
    Model(model::Args),
    /// Say which model runs best on which device, before anything starts
    Plan(plan::Args),
    /// Run the scheduler in virtual time
    Sim(sim::Args),
    /// Run a recorded trace of the scheduler again and compare
    Replay(replay::Args),
    /// Verify and repair the store while serve is not running
    Check,
    /// Accept the time of this machine after it was in doubt
    Clock(clock::Args),
    /// Check or show the configuration
    Config(config::Args),
}

impl Command {
    /// The word on the command line.
    pub const fn name(&self) -> &'static str {
        match self {
            Command::Up(_) => "up",
            Command::Ingest => "ingest",
            Command::Decode => "decode",
            Command::Media => "media",
            Command::Scheduler(_) => "scheduler",
            Command::Runner(_) => "runner",
            Command::Serve => "serve",
            Command::Ring(_) => "ring",
            Command::Model(_) => "model",
            Command::Plan(_) => "plan",
            Command::Sim(_) => "sim",
            Command::Replay(_) => "replay",
            Command::Check => "check",
            Command::Clock(_) => "clock",
            Command::Config(_) => "config",
        }
    }
}

/// Runs the command.
///
/// # Errors
/// What goes to standard error before a non-zero exit.
pub fn run(cli: Cli) -> Outcome {
    let file = cli.config.as_deref();
    let required = || -> Result<Config, ConfigError> { Config::load(file) };
    let optional = || -> Result<Config, ConfigError> { Config::load_or_default(file) };
    match cli.command {
        Command::Up(args) => up::run(&args, required()?),
        Command::Ingest => ingest::run(&own(required()?)?),
        Command::Decode => Ok(decode::run()),
        Command::Media => Ok(media::run()),
        Command::Scheduler(args) => scheduler::run(args, own(required()?)?),
        Command::Runner(args) => runner::run(args, own(optional()?)?),
        Command::Serve => serve::run(&own(required()?)?),
        Command::Ring(args) => ring::run(&args, &optional()?),
        Command::Model(args) => model::run(args, &optional()?),
        Command::Plan(args) => plan::run(&args, &required()?),
        Command::Sim(args) => sim::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Check => check::run(&optional()?),
        Command::Clock(args) => clock::run(&args, &optional()?),
        Command::Config(args) => {
            config::run(&args, &if args.needs_file() { required()? } else { optional()? })
        }
    }
}

/// The configuration of a process of a node, whose directories are this user's own.
///
/// # Errors
/// Which one is not, and what to do.
fn own(config: Config) -> Result<Config, RootError> {
    config.directories.prepare()?;
    Ok(config)
}
