//! Runs workloads under all policies and prints their tables: those named in the arguments, else
//! all that are built in. With `--html FILE` first, writes the report with plots too.

#![allow(clippy::disallowed_methods, reason = "an example writes its report")]

use scheduler_sim::report::{compare, policies};
use scheduler_sim::{Workload, html};

fn main() {
    let mut named: Vec<String> = std::env::args().skip(1).collect();
    let file = (named.first().map(String::as_str) == Some("--html")).then(|| {
        named.remove(0);
        named.remove(0)
    });
    let names = if named.is_empty() { scheduler_sim::workload::names() } else { named };
    let mut comparisons = Vec::new();
    for name in names {
        match Workload::built_in(&name) {
            Some(Ok(workload)) => {
                let comparison = compare(&name, &workload, workload.seed, &policies());
                let comparison = comparison.expect("all are known");
                println!("{}", comparison.table());
                comparisons.push(comparison);
            }
            Some(Err(e)) => println!("{name}: {e}"),
            None => println!("{name}: no such workload"),
        }
    }
    if let Some(file) = file {
        std::fs::write(&file, html::page(&comparisons)).expect("the file can be written");
    }
}
