//! Runs every built-in workload and prints its table.

fn main() {
    for (name, _) in scheduler_sim::workload::BUILT_IN {
        let workload = scheduler_sim::Workload::built_in(name);
        let workload = workload.expect("it is listed").expect("it is tested");
        print!("{}", scheduler_sim::run(name, &workload, 1).table());
    }
}
