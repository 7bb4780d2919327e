//! `vas sim`: scheduling policies in virtual time, the production scheduler first.

use super::{Failure, Outcome};
use crate::output;
use scheduler_sim::report::{self, Comparison};
use scheduler_sim::workload::{self, ALIASES, BUILT_IN};
use scheduler_sim::{Workload, html};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `vas sim`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the built-in workloads and their variants, one name per line
    #[arg(long, conflicts_with_all = ["workload", "json", "html"])]
    list: bool,
    /// Built-in workloads or files, with +VARIANT where wanted
    #[arg(long, value_name = "NAME|FILE", default_value = "demo", num_args = 1.., value_delimiter = ',')]
    workload: Vec<String>,
    /// Scheduling policy: `fab` is the production scheduler as the workload sets it
    #[arg(long, value_name = "NAME", default_value = "fab", value_parser = policies())]
    policy: String,
    /// Seed of everything random; the same seed gives the same bytes [default: the workload's]
    #[arg(long)]
    seed: Option<u64>,
    /// Search how many streams a device serves within the deadline (slow)
    #[arg(long)]
    streams: bool,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report with plots as one HTML file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

fn policies() -> Vec<&'static str> {
    [&["all"][..], &report::policies()].concat()
}

/// Runs it. Fails when an invariant of the scheduler was broken.
///
/// # Errors
/// When a workload can't be read or a file not written.
pub fn run(args: &Args) -> Outcome {
    if args.list {
        let aliases = ALIASES.iter().map(|(alias, _)| (*alias).to_owned());
        for name in workload::names().into_iter().chain(aliases) {
            output::print(format_args!("{name}\n"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let policies = match args.policy.as_str() {
        "all" => report::policies(),
        one => vec![one],
    };
    let mut comparisons: Vec<Comparison> = Vec::new();
    for named in &args.workload {
        let (name, workload) = load(named)?;
        let seed = args.seed.unwrap_or(workload.seed);
        let mut comparison = report::compare(&name, &workload, seed, &policies)
            .ok_or_else(|| format!("no policy is called {}", args.policy))?;
        if args.streams {
            comparison.search_streams(&workload);
        }
        output::print(comparison.table() + "\n")?;
        comparisons.push(comparison);
    }
    let write = |file: &Path, text: String| {
        fs::write(file, text).map_err(|e| format!("can't write {}: {e}", file.display()))
    };
    if let Some(file) = &args.json {
        write(file, serde_json::to_string_pretty(&comparisons)? + "\n")?;
    }
    if let Some(file) = &args.html {
        write(file, html::page(&comparisons))?;
    }
    let sound = comparisons.iter().all(Comparison::sound);
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn load(named: &str) -> Result<(String, Workload), Failure> {
    if let Some(built_in) = Workload::built_in(named) {
        return Ok((named.to_owned(), built_in.map_err(|e| format!("{named}: {e}"))?));
    }
    let (file, variants) = workload::split(named);
    let path = Path::new(file);
    let text = fs::read_to_string(path).map_err(|e| {
        let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        format!("workload {named} is neither built in ({}) nor readable: {e}", names.join(", "))
    })?;
    let workload =
        Workload::with_variants(&text, &variants).map_err(|e| format!("{named}: {e}"))?;
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let name = [&[name.as_str()][..], &variants].concat().join("+");
    Ok((name, workload))
}
