//! Runs workloads under the production policy and prints their tables: those named in the
//! arguments, else all that are built in.

use scheduler_sim::Workload;
use scheduler_sim::report::{FAB, FAB_DEFAULTS, compare};

fn main() {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let names = if named.is_empty() { scheduler_sim::workload::names() } else { named };
    for name in names {
        match Workload::built_in(&name) {
            Some(Ok(workload)) => {
                let comparison = compare(&name, &workload, workload.seed, &[FAB, FAB_DEFAULTS]);
                println!("{}", comparison.expect("both are known").table());
            }
            Some(Err(e)) => println!("{name}: {e}"),
            None => println!("{name}: no such workload"),
        }
    }
}
