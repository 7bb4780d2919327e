//! `vas runner DIR`.

use super::{Failure, Outcome};
use crate::config::Config;
use crate::signals;
use base::DeviceId;
use runner::{DevicePolicy, EngineOptions};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `vas runner`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model's folder, with model.yaml
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Where it runs: a device of the configuration
    #[arg(long, value_name = "ID", default_value = "cpu")]
    device: DeviceId,
}

/// Runs one model on one device until a signal.
///
/// # Errors
/// Why it did not start, or ended.
pub fn run(args: Args, config: Config) -> Outcome {
    let stop = signals::stop()?;
    let options = runner::Options {
        model_dir: std::path::absolute(args.dir)?,
        device: args.device,
        policy: DevicePolicy::Cpu,
        engine: engine(&config)?,
        directories: config.directories,
    };
    runner::serve(options, stop)?;
    Ok(ExitCode::SUCCESS)
}

/// How every command that runs a model runs it.
///
/// # Errors
/// When there is no cache folder.
pub fn engine(config: &Config) -> Result<EngineOptions, Failure> {
    let cache_dir = runner::default_cache_dir().ok_or(
        "neither XDG_CACHE_HOME nor HOME is an absolute path; set one, for the cache folder",
    )?;
    let threads = config.threads;
    Ok(EngineOptions { onnxruntime: config.onnxruntime.clone(), cache_dir, threads })
}
