//! Prints the table of every built-in workload and variant under the production policy.

use scheduler_sim::{Workload, run, workload};

fn main() {
    for name in workload::names() {
        let workload = Workload::built_in(&name).expect("it is listed").expect("it is tested");
        println!("{}", run(&name, &workload, workload.seed).table());
    }
}
