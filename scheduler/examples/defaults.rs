//! Whether the scheduler's defaults are ever worse than doing less, or than a rival that pays as it does.
//!
//! ```text
//! cargo run --release -p scheduler --example defaults                    all worlds, 12 seeds
//! cargo run --release -p scheduler --example defaults -- 3 s2 s3+noisy   3 seeds of some worlds
//! ```
//!
//! Windows of a minute, from 2 minutes on for all policies and from 10 minutes on for the scheduler's own
//! settings. A figure is the ratio of the same seed, its median over the seeds. Ends with an error when a
//! world misses its target.

#![expect(
    clippy::disallowed_methods,
    reason = "worlds are independent of each other and played by several threads; no core sees them"
)]

use scheduler_sim::Workload;
use scheduler_sim::report::{
    FAB_DEFAULTS, FAB_OFF, FAB_ON, RunReport, Spread, fair_rivals, windows,
};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

const WORLDS: [&str; 9] = ["s1", "s2", "s3", "s4", "s7", "s8", "mixed", "uniform", "demo"];
/// Worlds that are also run with cameras that are late by up to this.
const JITTERED: [&str; 2] = ["s2", "s3"];
const JITTERS_MS: [f64; 3] = [1.0, 4.0, 15.0];
/// Seconds at which windows begin.
const BEGINS: [f64; 2] = [120.0, 600.0];
const WINDOW_S: f64 = 60.0;
/// The most that mean and 99th percentile may be of those of another policy.
const MEAN_MAX: f64 = 1.02;
const P99_MAX: f64 = 1.05;
/// Rivals that answer less than this of our results in time, or serve an assignment less than this,
/// are younger by serving less.
const IN_TIME_MIN: f64 = 0.995;
const SHARE_MIN: f64 = 0.98;

struct World {
    name: String,
    workload: Workload,
}

impl World {
    fn built_in(name: &str) -> World {
        let built_in =
            Workload::built_in(name).unwrap_or_else(|| panic!("no world is called {name}"));
        let mut workload = built_in.expect("built-in worlds are tested");
        workload.seconds = WINDOW_S;
        World { name: name.to_owned(), workload }
    }

    fn jittered(name: &str, jitter_ms: f64) -> World {
        let mut world = World::built_in(name);
        world.name = format!("{name}, {jitter_ms} ms");
        world.workload.camera.iter_mut().for_each(|c| c.jitter_ms = jitter_ms);
        world
    }
}

/// One world with one seed: the reports of a policy, one for each window.
struct Run {
    world: usize,
    policy: usize,
    seed: u64,
    reports: Vec<RunReport>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seeds: u64 = arguments
        .next()
        .map_or(12, |n| n.parse().expect("the first argument is a number of seeds"));
    let names: Vec<String> = arguments.collect();
    let worlds = if names.is_empty() { all() } else { names.iter().map(|n| named(n)).collect() };
    let rivals = fair_rivals();
    let ours = [FAB_DEFAULTS, FAB_OFF, FAB_ON];
    let policies: Vec<&str> = ours.into_iter().chain(rivals.iter().map(String::as_str)).collect();

    let mut runs = play(&worlds, &policies, seeds);
    runs.sort_by_key(|r| (r.world, r.policy, r.seed));
    let mut missed = 0;
    println!("ratio of the defaults to another policy, mean / p99; median of {seeds} seeds\n");
    println!(
        "{:<16} {:>6} {:>15} {:>12} {:>12}  best fair rival",
        "world", "from", "defaults, ms", "to off", "to on"
    );
    for (w, world) in worlds.iter().enumerate() {
        let of = |policy: usize, window: usize| -> Vec<&RunReport> {
            let its = runs.iter().filter(|r| (r.world, r.policy) == (w, policy));
            its.filter_map(|r| r.reports.get(window)).collect()
        };
        for (window, begin) in BEGINS.iter().enumerate() {
            let mine = of(0, window);
            let median = |figure: fn(&RunReport) -> f64| {
                Spread::of(mine.iter().map(|r| figure(r)).collect()).median
            };
            let (off, on) = (ratio(&mine, &of(1, window)), ratio(&mine, &of(2, window)));
            let beaten = (ours.len()..policies.len()).filter_map(|p| {
                let its = of(p, window);
                let counts = its
                    .iter()
                    .zip(&mine)
                    .all(|(r, m)| r.goodput >= IN_TIME_MIN * m.goodput && r.share_min >= SHARE_MIN);
                (counts && !its.is_empty()).then(|| (policies[p], ratio(&mine, &its)))
            });
            let worst = beaten.max_by(|(_, a), (_, b)| excess(*a).total_cmp(&excess(*b)));
            let rival = worst.map_or(f64::MIN, |(_, r)| excess(r));
            let miss = excess(off).max(excess(on)).max(rival) > 0.0;
            missed += u32::from(miss);
            let pair = |(mean, p99): (f64, f64)| format!("{mean:.3}/{p99:.3}");
            println!(
                "{:<16} {begin:>4} s {:>15} {:>12} {:>12}  {:<30}{}",
                world.name,
                format!("{:.1} / {:.1}", median(|r| r.age_mean_ms), median(|r| r.age_p99_ms)),
                pair(off),
                pair(on),
                worst.map_or_else(|| "-".into(), |(name, r)| format!("{name} {}", pair(r))),
                if miss { "MISSED" } else { "" },
            );
        }
    }
    let broken: Vec<&String> =
        runs.iter().flat_map(|r| &r.reports).flat_map(|r| &r.violations).collect();
    broken.iter().take(10).for_each(|violation| println!("broken: {violation}"));
    println!("\n{missed} of {} missed", worlds.len() * BEGINS.len());
    if missed == 0 && broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn all() -> Vec<World> {
    let variants = ["", "+sync", "+noisy"];
    let plain = WORLDS
        .iter()
        .flat_map(|w| variants.iter().map(move |v| World::built_in(&format!("{w}{v}"))));
    let jittered =
        JITTERED.iter().flat_map(|w| JITTERS_MS.iter().map(|ms| World::jittered(w, *ms)));
    plain.chain(jittered).collect()
}

/// `s2`, `s2+noisy`, `s2@4` for 4 ms of jitter.
fn named(name: &str) -> World {
    match name.split_once('@') {
        Some((name, ms)) => World::jittered(name, ms.parse().expect("milliseconds stand behind @")),
        None => World::built_in(name),
    }
}

/// Median ratios of mean and 99th percentile, seed by seed.
fn ratio(mine: &[&RunReport], other: &[&RunReport]) -> (f64, f64) {
    let of = |figure: fn(&RunReport) -> f64| {
        let ratios = mine.iter().zip(other).map(|(m, o)| figure(m) / figure(o));
        Spread::of(ratios.collect()).median
    };
    (of(|r| r.age_mean_ms), of(|r| r.age_p99_ms))
}

/// By how much a pair of ratios is beyond the targets; at most 0 = met.
fn excess((mean, p99): (f64, f64)) -> f64 {
    (mean / MEAN_MAX - 1.0).max(p99 / P99_MAX - 1.0)
}

/// Every world under every policy with every seed, on all cores.
fn play(worlds: &[World], policies: &[&str], seeds: u64) -> Vec<Run> {
    let jobs: Vec<(usize, usize, u64)> = (0..worlds.len())
        .flat_map(|w| (0..policies.len()).flat_map(move |p| (1..=seeds).map(move |s| (w, p, s))))
        .collect();
    let (next, (sender, receiver)) = (AtomicUsize::new(0), mpsc::channel());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next, jobs) = (sender.clone(), &next, &jobs);
            scope.spawn(move || {
                while let Some(&(world, policy, seed)) =
                    jobs.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let name = policies[policy];
                    let begins = if name.starts_with("fab") { &BEGINS[..] } else { &BEGINS[..1] };
                    let reports = windows(&worlds[world].workload, seed, name, begins)
                        .expect("the policy is known");
                    sender
                        .send(Run { world, policy, seed, reports })
                        .expect("main receives until all threads end");
                }
            });
        }
        drop(sender);
        receiver.iter().collect()
    })
}
