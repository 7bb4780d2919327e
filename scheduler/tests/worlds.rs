//! Random worlds: whatever happens, no invariant breaks.
//!
//! More of them: `cargo run --release -p scheduler --example worlds`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use scheduler_sim::checker::{Happening, Seen};
use scheduler_sim::worlds::try_world;
use std::time::Duration;

/// Worlds of every run of the tests, and how long they last.
const WORLDS: u64 = 30;
const LENGTH: Duration = Duration::from_secs(30);

fn sound(seed: u64, length: Duration) -> Seen {
    let played = try_world(seed, length);
    let again = format!(
        "cargo run --release -p scheduler --example worlds -- --seed {seed} --seconds {}",
        length.as_secs()
    );
    let broken: Vec<_> = played.violations.iter().map(ToString::to_string).collect();
    assert!(broken.is_empty(), "world {seed}: {again}\n{}", broken.join("\n"));
    played.seen
}

#[test]
fn worlds_that_broke_something_once_break_nothing() {
    for line in include_str!("seeds.txt").lines() {
        let text = line.split('#').next().unwrap_or_default();
        let mut numbers = text.split_whitespace().map(|n| n.parse::<u64>().unwrap());
        if let Some(seed) = numbers.next() {
            let seconds = numbers.next().expect("a kept seed has its length in seconds beside it");
            sound(seed, Duration::from_secs(seconds));
        }
    }
}

#[test]
fn worlds_break_nothing_and_everything_happens_in_them() {
    let mut seen = Seen::default();
    for seed in 1..=WORLDS {
        seen.add(&sound(seed, LENGTH));
    }
    let never: Vec<_> = Happening::ALL.into_iter().filter(|h| seen.count(*h) == 0).collect();
    assert_eq!(never, [], "what never happened in {WORLDS} worlds is not tested by them");
}

#[test]
fn a_world_that_nobody_saw_before_breaks_nothing() {
    #[expect(clippy::disallowed_types, reason = "every run plays another world, and prints which")]
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let seed = since.as_nanos() as u64 % 1_000_000_000;
    println!("world {seed}");
    sound(seed, LENGTH);
}
