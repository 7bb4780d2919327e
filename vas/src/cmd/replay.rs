//! `vas replay TRACE`: a recorded run through the core of this build.

use super::Outcome;
use crate::output;
use scheduler::trace;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `vas replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What `vas scheduler --trace FILE` recorded
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
}

/// Replays the trace and stops at the first output that differs.
///
/// # Errors
/// When the file can't be read, is no trace, or this build decides differently.
pub fn run(args: &Args) -> Outcome {
    let shown = args.trace.display();
    let bytes = fs::read(&args.trace).map_err(|e| format!("can't read trace {shown}: {e}"))?;
    let seen = trace::replay(&bytes).map_err(|e| format!("trace {shown}: {e}"))?;
    output::print(format_args!(
        "recorded by version {}: {} inputs, {} polls, {} answers of rings, {} outputs, all equal\n",
        seen.version, seen.inputs, seen.polls, seen.answers, seen.outputs
    ))?;
    if seen.cut {
        output::print("the trace ends within a record: its recording was cut off\n")?;
    }
    Ok(ExitCode::SUCCESS)
}
