//! Whether a runner that becomes three times slower for 300 s costs the healthy models beside it more
//! than one of its batches: p99 of each with the fault less that without, median of 12 seeds, against
//! its `B_m`.
//!
//! `cargo run --release -p scheduler --example isolation [-- --seeds N --seconds S]`

use scheduler_sim::isolation::isolation;
use std::process::ExitCode;

fn option(name: &str, default: f64) -> Result<f64, String> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().position(|a| a == name) {
        None => Ok(default),
        Some(at) => {
            let value = arguments.get(at + 1).and_then(|v| v.parse().ok());
            value.filter(|v| *v >= 1.0).ok_or(format!("{name} needs a number of at least 1"))
        }
    }
}

fn main() -> ExitCode {
    let (seeds, seconds) = match (option("--seeds", 12.0), option("--seconds", 300.0)) {
        (Ok(seeds), Ok(seconds)) => (seeds as u64, seconds),
        (Err(why), _) | (_, Err(why)) => {
            eprintln!("{why}; usage: isolation [--seeds N] [--seconds S]");
            return ExitCode::FAILURE;
        }
    };
    println!("one of three models is three times slower for {seconds} s; {seeds} seeds; ms");
    let mut kept = true;
    for restates in [false, true] {
        println!(
            "{}",
            if restates { "the slow runner announces what it takes, unasked" } else { "as it is" }
        );
        for healthy in isolation(seeds, seconds, restates) {
            let rises = healthy.rises_ms.iter().map(|r| format!("{r:.1}")).collect::<Vec<_>>();
            println!(
                "  {:<14} p99 rises by {:5.2}, B_m {:5.2}: {}  ({})",
                healthy.model,
                healthy.median_ms(),
                healthy.bound_ms,
                if healthy.kept() { "kept" } else { "BROKEN" },
                rises.join(" ")
            );
            kept &= healthy.kept();
        }
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
