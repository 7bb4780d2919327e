//! `cargo xtask ci`: every stage, timed against the committed budget.

use crate::stages::{LONG_STAGES, STAGES, Stage, Work};
use crate::{codegen, mutate, repository, tidy};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// As in deny.toml.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
const BUDGET: &str = "hack/ci-budget.toml";

/// Arguments of `ci`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    long: bool,
    /// How long hack/setup took before.
    setup: Option<Duration>,
}

impl Options {
    /// Reads them.
    ///
    /// # Errors
    /// What is not known.
    pub fn parse(arguments: &[&str]) -> Result<Options, String> {
        let mut options = Options::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match *argument {
                "--long" => options.long = true,
                "--setup-seconds" => {
                    let seconds = rest.next().and_then(|n| n.parse().ok());
                    let seconds = seconds.ok_or("--setup-seconds needs whole seconds")?;
                    options.setup = Some(Duration::from_secs(seconds));
                }
                other => return Err(format!("`{other}` is not known; options are: --long")),
            }
        }
        Ok(options)
    }
}

/// Test results, summed over all test programs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tests {
    passed: u64,
    failed: u64,
}

impl Tests {
    /// Adds what a line such as `test result: ok. 3 passed; 0 failed; ...` says.
    fn count(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let words: Vec<_> = result.split([' ', ';', '.']).filter(|w| !w.is_empty()).collect();
        for pair in words.windows(2) {
            match (pair[0].parse::<u64>(), pair[1]) {
                (Ok(n), "passed") => self.passed += n,
                (Ok(n), "failed") => self.failed += n,
                _ => {}
            }
        }
    }
}

/// Runs all stages, also after one failed, and prints what each took.
///
/// # Errors
/// The names of the stages that failed.
pub fn run(root: &Path, options: &Options) -> Result<(), String> {
    let budget = budget(root)?;
    let mut rows: Vec<(&str, Duration)> =
        options.setup.map(|took| ("setup", took)).into_iter().collect();
    let mut failed = Vec::new();
    let mut tests = Tests::default();
    let long = if options.long { LONG_STAGES } else { &[] };
    for stage in long.iter().chain(STAGES) {
        println!("== {}", stage.name);
        let started = Instant::now();
        if let Err(message) = run_stage(root, stage, &mut tests) {
            println!("{message}");
            failed.push(stage.name);
        }
        rows.push((stage.name, started.elapsed()));
    }
    print!("\n{}", table(&rows, &budget, &failed));
    println!("tests: {} passed, {} failed", tests.passed, tests.failed);
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

fn run_stage(root: &Path, stage: &Stage, tests: &mut Tests) -> Result<(), String> {
    match stage.work {
        Work::Tidy => tidy::run(root),
        Work::Codegen => codegen::run(root, codegen::Mode::Check),
        Work::Mutate => mutate::run(root, &mutate::Options::default()),
        Work::Deny => deny(root),
        Work::Cargo(arguments) => {
            let mut command = Command::new("cargo");
            command.args(arguments).env("RUSTDOCFLAGS", "-D warnings");
            finish(root, &mut command, |_| ())
        }
        Work::Bench(arguments) => {
            let (program, arguments) = arguments.split_first().unwrap_or((&"", &[]));
            let mut command = Command::new("cargo");
            command.args(["run", "--quiet", "--locked", "--package", "benches", "--bin", program]);
            finish(root, command.arg("--").args(arguments), |_| ())
        }
        Work::Test(arguments) => {
            let result = finish(root, Command::new("cargo").args(arguments), |l| tests.count(l));
            if tests.passed == 0 {
                return result.and(Err("no test ran".to_owned()));
            }
            result
        }
    }
}

/// Runs a command to its end; `line` sees what it prints.
fn finish(root: &Path, command: &mut Command, mut line: impl FnMut(&str)) -> Result<(), String> {
    let name = format!("{command:?}").replace('"', "");
    let failure = |e: std::io::Error| format!("{name}: {e}");
    command.current_dir(root).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failure)?;
    if let Some(stdout) = child.stdout.take() {
        for text in BufReader::new(stdout).split(b'\n') {
            let text = String::from_utf8_lossy(&text.map_err(failure)?).into_owned();
            println!("{text}");
            line(&text);
        }
    }
    let status = child.wait().map_err(failure)?;
    if status.success() { Ok(()) } else { Err(format!("{name}: {status}")) }
}

/// Bans, licences and sources need no network. Advisories need the advisory database, which is used
/// when it is there and never fetched from here.
fn deny(root: &Path) -> Result<(), String> {
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let present = cargo_home.is_some_and(|home| has_advisories(&home.join("advisory-dbs")));
    let metadata = metadata(root)?;
    let mut command = Command::new(repository::tool("cargo-deny"));
    command
        .args(["--log-level", "error", "--offline", "--workspace", "--metadata-path"])
        .arg(&metadata);
    command.args(["check", "--hide-inclusion-graph"]);
    command.args(["bans", "licenses", "sources"]);
    if present {
        command.arg("advisories");
    } else {
        println!(
            "deny: advisories are SKIPPED, no advisory database on this machine; where there is a network: \
             cargo deny check advisories"
        );
    }
    let result = finish(root, &mut command, |_| ());
    // Made above for this command only; a left-over harms nobody.
    let _ = fs::remove_file(metadata);
    result
}

/// Whether an advisory database was fetched. A check that could not fetch one leaves a lock behind
/// in an otherwise empty folder.
fn has_advisories(databases: &Path) -> bool {
    let entries = databases.read_dir().into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|database| database.join(".git").exists())
}

/// The dependency graph of the platform that is built, as a file. Left to itself cargo-deny asks for
/// that of every platform, for which sources are not downloaded.
fn metadata(root: &Path) -> Result<PathBuf, String> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform"])
        .arg(PLATFORM)
        .current_dir(root)
        .output()
        .map_err(|e| format!("cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let name = format!("vas-metadata-{}.json", std::process::id());
    let path = std::env::temp_dir().join(name);
    fs::write(&path, output.stdout).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

fn budget(root: &Path) -> Result<BTreeMap<String, f64>, String> {
    let path = root.join(BUDGET);
    let text = fs::read_to_string(&path).map_err(|e| format!("{BUDGET}: {e}"))?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| format!("{BUDGET}: {e}"))?;
    let minutes = table.get("minutes").and_then(toml::Value::as_table);
    let minutes = minutes.ok_or_else(|| format!("{BUDGET} has no [minutes]"))?;
    let number = |v: &toml::Value| v.as_float().or_else(|| v.as_integer().map(|n| n as f64));
    Ok(minutes.iter().filter_map(|(k, v)| Some((k.clone(), number(v)?))).collect())
}

/// Minutes per stage beside the budget. A stage over budget is marked, not failed: the budget is
/// for a cold build on two cores, and machines differ.
fn table(rows: &[(&str, Duration)], budget: &BTreeMap<String, f64>, failed: &[&str]) -> String {
    let mut text = format!("{:<10} {:>8} {:>8}\n", "stage", "minutes", "budget");
    let mut total = 0.0;
    let mut total_budget = 0.0;
    for (name, took) in rows {
        let minutes = took.as_secs_f64() / 60.0;
        total += minutes;
        let allowed = budget.get(*name).copied();
        total_budget += allowed.unwrap_or(0.0);
        let shown = allowed.map_or("none".to_owned(), |b| format!("{b:.1}"));
        let over = if allowed.is_some_and(|b| minutes > b) { "  over budget" } else { "" };
        let result = if failed.contains(name) { "  FAILED" } else { "" };
        text += &format!("{name:<10} {minutes:>8.1} {shown:>8}{over}{result}\n");
    }
    text + &format!("{:<10} {total:>8.1} {total_budget:>8.1}\n", "total")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed_over_all_programs() {
        let mut tests = Tests::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.0s",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            tests.count(line);
        }
        assert_eq!(tests, Tests { passed: 7, failed: 2 });
    }

    #[test]
    fn the_table_marks_what_is_over_budget_or_failed() {
        let budget = BTreeMap::from([("a".to_owned(), 1.0), ("b".to_owned(), 1.0)]);
        let rows = [("a", Duration::from_secs(120)), ("b", Duration::from_secs(30))];
        let table = table(&rows, &budget, &["b"]);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[1], "a               2.0      1.0  over budget");
        assert_eq!(lines[2], "b               0.5      1.0  FAILED");
        assert_eq!(lines[3], "total           2.5      2.0");
    }

    #[test]
    fn the_lock_of_a_fetch_that_failed_is_no_advisory_database() {
        let databases = tempfile::tempdir().unwrap();
        assert!(!has_advisories(&databases.path().join("missing")));
        fs::write(databases.path().join("db.lock"), "").unwrap();
        assert!(!has_advisories(databases.path()));
        fs::create_dir_all(databases.path().join("advisory-db-0123/.git")).unwrap();
        assert!(has_advisories(databases.path()));
    }

    #[test]
    fn every_stage_has_a_budget_and_options_are_checked() {
        let budget = budget(&repository::root()).unwrap();
        for stage in STAGES.iter().chain(LONG_STAGES) {
            assert!(budget.contains_key(stage.name), "{} has no minutes in {BUDGET}", stage.name);
        }
        assert!(Options::parse(&["--long", "--setup-seconds", "4"]).unwrap().long);
        assert!(Options::parse(&["--longer"]).is_err());
        assert!(Options::parse(&["--setup-seconds"]).is_err());
    }
}
