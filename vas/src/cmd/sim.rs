//! `vas sim`: scheduling policies in virtual time, the production scheduler first.

use super::{Failure, Outcome};
use crate::output;
use scheduler_sim::report::{self, Comparison, Seeds};
use scheduler_sim::rivals::{FAIR, RIVALS};
use scheduler_sim::workload::{self, ALIASES, BUILT_IN};
use scheduler_sim::{Workload, html};
use std::collections::BTreeMap;
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
    #[arg(long, value_name = "NAME", default_value = "fab", num_args = 1.., value_delimiter = ',', value_parser = policies())]
    policy: Vec<String>,
    /// Seed of everything random; the same seed gives the same bytes [default: the workload's]
    #[arg(long)]
    seed: Option<u64>,
    /// Run seeds 1 to N and print medians with their ranges
    #[arg(long, value_name = "N", conflicts_with_all = ["seed", "streams", "html"],
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: Option<u64>,
    /// Seconds before anything is measured [default: the workload's]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    from: Option<u32>,
    /// Rivals pay as production does: for copies, and a socket's way for each frame
    #[arg(long)]
    fair: bool,
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
    let names: Vec<String> = match args.policy.iter().any(|name| name == "all") {
        true => report::policies().into_iter().map(|name| paying(name, args.fair)).collect(),
        false => args.policy.iter().map(|name| paying(name, args.fair)).collect(),
    };
    let policies: Vec<&str> = names.iter().map(String::as_str).collect();
    if let Some(seeds) = args.seeds {
        return several(args, seeds, &policies);
    }
    let mut comparisons: Vec<Comparison> = Vec::new();
    for named in &args.workload {
        let (name, workload) = load(named, args)?;
        let seed = args.seed.unwrap_or(workload.seed);
        let mut comparison =
            report::compare(&name, &workload, seed, &policies).ok_or("a policy is not known")?;
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

/// The name of a policy that pays as production does.
fn paying(name: &str, fair: bool) -> String {
    let rival = RIVALS.contains(&name);
    if fair && rival { format!("{name}{FAIR}") } else { name.to_owned() }
}

/// Each workload with seeds 1 to `seeds`: medians and ranges.
fn several(args: &Args, seeds: u64, policies: &[&str]) -> Outcome {
    let seeds: Vec<u64> = (1..=seeds).collect();
    let mut figures = BTreeMap::new();
    let mut sound = true;
    for named in &args.workload {
        let (name, workload) = load(named, args)?;
        let row = |policy: &&str| Seeds::run(&workload, &seeds, policy);
        let rows: Vec<Seeds> =
            policies.iter().map(row).collect::<Option<_>>().ok_or("a policy is not known")?;
        let (from, to) = (workload.warm_up_s, workload.warm_up_s + workload.seconds);
        let head = format!(
            "{name}: median of {} seeds (range), ages in ms, {from} s to {to} s",
            seeds.len()
        );
        output::print(format!("{head}\n{}\n", Seeds::table(&rows)))?;
        sound &= rows.iter().flat_map(|row| &row.runs).all(|run| run.violations.is_empty());
        figures.insert(name, rows);
    }
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&figures)? + "\n";
        fs::write(file, text).map_err(|e| format!("can't write {}: {e}", file.display()))?;
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn load(named: &str, args: &Args) -> Result<(String, Workload), Failure> {
    let (name, mut workload) = find(named)?;
    if let Some(from) = args.from {
        workload.warm_up_s = f64::from(from);
    }
    Ok((name, workload))
}

fn find(named: &str) -> Result<(String, Workload), Failure> {
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
