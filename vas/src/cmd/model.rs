//! `vas model check DIR | run DIR CLIP --jsonl | profile DIR`.

use super::{Outcome, runner::engine};
use crate::config::{CPU, Config};
use crate::output;
use base::{DeviceId, Picture};
use clap::Subcommand;
use ingest::clip::{ClipError, ClipFrame, ClipFrames};
use std::cell::Cell;
use std::io::{self, Write};
use std::iter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `vas model`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Load a model folder and run it once at every batch size
    Check {
        /// The model's folder, with model.yaml
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Run a model over every frame of a clip, without cameras or a scheduler
    Run {
        /// The model's folder, with model.yaml
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// H.264 or H.265 video file
        #[arg(value_name = "CLIP")]
        clip: PathBuf,
        /// One line of JSON per frame: class id, score and box of every detection
        #[arg(long)]
        jsonl: bool,
    },
    /// Measure how long batches of every size take, for `vas plan` and the model's runner
    Profile {
        /// The model's folder, with model.yaml
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// The device to measure
        #[arg(long, value_name = "ID", default_value = "cpu")]
        device: DeviceId,
    },
}

/// Runs it.
///
/// # Errors
/// What is wrong with the folder, the clip or the engine.
pub fn run(args: Args, config: &Config) -> Outcome {
    match args.action {
        Action::Check { dir } => check(&dir, config),
        Action::Run { dir, clip, jsonl } => over_clip(&dir, &clip, jsonl, config),
        Action::Profile { dir, device } => profile(&dir, &device, config),
    }
}

fn profile(dir: &Path, device: &DeviceId, config: &Config) -> Outcome {
    let spec = runner::model_yaml::load(dir)?;
    if !device.as_str().starts_with(CPU) && !spec.has_gpu_engine() {
        return Err(format!(
            "device {device} can't be measured: this build runs models on CPUs only; give --device cpu"
        )
        .into());
    }
    let options = engine(config)?;
    let (table, file) = runner::model_profile(&spec, device, &options)?;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    output::print(format_args!(
        "{} on {device}, {} threads\nbatch  p50 ms  p99 ms  ms per frame\n",
        spec.model_id, options.threads
    ))?;
    for entry in table.entries() {
        let (p50, p99) = (ms(entry.p50), ms(entry.p99));
        let each = p50 / f64::from(entry.batch);
        output::print(format_args!("{:5} {p50:7.1} {p99:7.1} {each:13.1}\n", entry.batch))?;
    }
    output::print(format_args!("stored in {}\n", file.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn check(dir: &Path, config: &Config) -> Outcome {
    let report = runner::model_check(dir, &engine(config)?);
    for fact in &report.facts {
        output::print(format_args!("{fact}\n"))?;
    }
    for problem in &report.problems {
        output::complain(problem);
    }
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn over_clip(dir: &Path, clip: &Path, jsonl: bool, config: &Config) -> Outcome {
    let spec = runner::model_yaml::load(dir)?;
    let mut frames = ClipFrames::open(clip)?.map(convert);
    // What nobody can read need not be found.
    let closed = Cell::new(false);
    let frames = iter::from_fn(|| if closed.get() { None } else { frames.next() });
    let mut out = io::stdout().lock();
    let mut written = Ok(());
    let mut found = 0;
    let count = runner::model_run(&spec, &engine(config)?, frames, |index, detections| {
        found += detections.detections.len();
        if jsonl && written.is_ok() {
            written = writeln!(out, "{}", runner::jsonl_line(index, detections));
            closed.set(written.is_err());
        }
    })?;
    if !jsonl {
        written = writeln!(out, "{count} frames, {found} detections");
    }
    output::tolerate(written)?;
    Ok(ExitCode::SUCCESS)
}

fn convert(frame: Result<ClipFrame, ClipError>) -> Result<runner::ClipFrame, ClipError> {
    let ClipFrame { index, size, matrix, range, pixels } = frame?;
    let picture = Picture { size, matrix, range };
    let index = usize::try_from(index).expect("frames of a clip are counted in memory");
    Ok(runner::ClipFrame { index, picture, pixels })
}
