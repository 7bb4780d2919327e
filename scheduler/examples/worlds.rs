//! Plays random worlds around the core and prints which seeds break an invariant.
//!
//! `cargo run --release -p scheduler --example worlds -- --count 1000 --seconds 60 [--first N]`

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "worlds are independent of each other and played by several threads; no core sees them"
)]

use scheduler_sim::checker::{Happening, Seen};
use scheduler_sim::worlds::{Played, random_world, try_world};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const USAGE: &str = "usage: worlds [--count N] [--seconds N] [--first SEED] [--seed SEED] \
[--threads N] [--until-broken] [--plan]
  --seed          plays that world only and prints every violation
  --until-broken  ends at the first world that breaks an invariant
  --plan          with --seed: prints the world as well";

#[derive(Debug, Clone)]
struct Options {
    count: u64,
    seconds: u64,
    first: u64,
    seed: Option<u64>,
    threads: u64,
    until_broken: bool,
    plan: bool,
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        count: 1000,
        seconds: 60,
        first: 1,
        seed: None,
        threads: 2,
        until_broken: false,
        plan: false,
    };
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().and_then(|v| v.parse::<u64>().ok());
            value.ok_or_else(|| format!("{argument} needs a whole number\n{USAGE}"))
        };
        match argument.as_str() {
            "--count" => options.count = number()?,
            "--seconds" => options.seconds = number()?,
            "--first" => options.first = number()?,
            "--seed" => options.seed = Some(number()?),
            "--threads" => options.threads = number()?.max(1),
            "--until-broken" => options.until_broken = true,
            "--plan" => options.plan = true,
            other => return Err(format!("`{other}` is not known\n{USAGE}")),
        }
    }
    Ok(options)
}

fn print(seed: u64, played: &Played, all: bool) {
    let shown = if all { played.violations.len() } else { 1 };
    for violation in played.violations.iter().take(shown) {
        println!("world {seed}: {violation}");
    }
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    let length = Duration::from_secs(options.seconds);
    if let Some(seed) = options.seed {
        if options.plan {
            println!("{:#?}", random_world(seed, length));
        }
        let played = try_world(seed, length);
        print(seed, &played, true);
        println!(
            "world {seed}: {} batches, {} results, {} wake-ups, digest {:016x}",
            played.batches, played.results, played.wakes, played.digest
        );
        return if played.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    // What the core says when it panics is told with the seed.
    std::panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let (broken, results, wakes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let seen = Mutex::new(Seen::default());
    let work = || loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= options.count || (options.until_broken && broken.load(Ordering::Relaxed) > 0) {
            return;
        }
        let seed = options.first + n;
        let played = try_world(seed, length);
        results.fetch_add(played.results, Ordering::Relaxed);
        wakes.fetch_add(played.wakes, Ordering::Relaxed);
        seen.lock().expect("nobody panics with it").add(&played.seen);
        if !played.violations.is_empty() {
            broken.fetch_add(1, Ordering::Relaxed);
            print(seed, &played, false);
        }
        if (n + 1).is_multiple_of(100) {
            let took = started.elapsed().as_secs_f64();
            println!("{} worlds, {} broken, {took:.1} s", n + 1, broken.load(Ordering::Relaxed));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(work);
        }
    });
    let seen = seen.into_inner().expect("all threads have ended well");
    let happened = Happening::ALL.map(|h| format!("{h:?} {}", seen.count(h)));
    println!("{}", happened.join(", "));
    let broken = broken.into_inner();
    println!(
        "{} worlds of {} s from seed {}: {broken} broken; {} results, {} wake-ups, {:.1} s",
        next.into_inner().min(options.count),
        options.seconds,
        options.first,
        results.into_inner(),
        wakes.into_inner(),
        started.elapsed().as_secs_f64()
    );
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
