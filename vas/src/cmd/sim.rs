//! `vas sim`: the production scheduler in virtual time.

use super::{Failure, Outcome};
use crate::output;
use scheduler_sim::report::RunReport;
use scheduler_sim::workload::BUILT_IN;
use scheduler_sim::{Workload, run as simulate};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `vas sim`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the built-in workloads, one name per line
    #[arg(long, conflicts_with_all = ["workload", "json"])]
    list: bool,
    /// A built-in workload or a file
    #[arg(long, value_name = "NAME|FILE", default_value = "demo")]
    workload: String,
    /// Scheduling policy
    #[arg(long, value_name = "NAME", default_value = "all", value_parser = ["all", POLICY])]
    policy: String,
    /// Seed of everything random; the same seed gives the same bytes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the reports as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The policy of this build.
const POLICY: &str = "fab-base";

/// Runs it. Fails when an invariant of the scheduler was broken.
///
/// # Errors
/// When the workload can't be read or the file not written.
pub fn run(args: &Args) -> Outcome {
    if args.list {
        for (name, _) in BUILT_IN {
            output::print(format_args!("{name}\n"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (name, workload) = load(&args.workload)?;
    let reports = [simulate(&name, &workload, args.seed)];
    for report in &reports {
        output::print(report.table())?;
    }
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&reports)? + "\n";
        fs::write(file, text).map_err(|e| format!("can't write {}: {e}", file.display()))?;
    }
    let sound = reports.iter().all(|report: &RunReport| report.violations.is_empty());
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn load(named: &str) -> Result<(String, Workload), Failure> {
    if let Some(built_in) = Workload::built_in(named) {
        return Ok((named.to_owned(), built_in?));
    }
    let path = Path::new(named);
    let text = fs::read_to_string(path).map_err(|e| {
        let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        format!("workload {named} is neither built in ({}) nor readable: {e}", names.join(", "))
    })?;
    let workload = Workload::parse(&text).map_err(|e| format!("{named}: {e}"))?;
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok((name, workload))
}
