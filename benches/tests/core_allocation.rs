//! The scheduling core in steady state asks the allocator for nothing.

use base::Instant;
use benches::counting_allocator::{CountingAllocator, Counts, count, counts};
use scheduler::Config;
use scheduler_sim::bare::{BEGIN, BareWorld, Call, Probe, Rates, Setup};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Virtual seconds until the core's memory has its size: steering is tried after 12 and judged
/// after 24.
const WARM_UP_S: u64 = 30;

/// Counts by kind of call.
#[derive(Default)]
struct PerCall {
    before: Counts,
    calls: [u64; Call::ALL.len()],
    allocations: [u64; Call::ALL.len()],
    bytes: [u64; Call::ALL.len()],
}

impl Probe for PerCall {
    fn begin(&mut self) {
        count(true);
    }

    fn end(&mut self) {
        count(false);
    }

    fn note(&mut self, _: Instant, call: Call, _: u32) {
        let counted = counts().since(self.before);
        self.before = counts();
        self.calls[call as usize] += 1;
        self.allocations[call as usize] += counted.allocations;
        self.bytes[call as usize] += counted.bytes;
    }
}

/// Allocations within the core in each of five virtual seconds.
fn allocations(name: &str, setup: &Setup) -> Vec<u64> {
    let mut world = BareWorld::new(setup, Config::default(), PerCall::default());
    world.run_until(BEGIN + Duration::from_secs(WARM_UP_S));
    let mut seconds = Vec::new();
    let mut sums = PerCall::default();
    for second in WARM_UP_S + 1..=WARM_UP_S + 5 {
        world.probe = PerCall { before: counts(), ..PerCall::default() };
        world.run_until(BEGIN + Duration::from_secs(second));
        seconds.push(world.probe.allocations.iter().sum());
        for i in 0..Call::ALL.len() {
            sums.calls[i] += world.probe.calls[i];
            sums.allocations[i] += world.probe.allocations[i];
            sums.bytes[i] += world.probe.bytes[i];
        }
    }
    let results = sums.calls[Call::Result as usize];
    println!("{name}: seed {}, {results} results, allocations per second {seconds:?}", setup.seed);
    for call in Call::ALL {
        let (n, of, bytes) =
            (sums.allocations[call as usize], sums.calls[call as usize], sums.bytes[call as usize]);
        if n > 0 {
            let each = n as f64 / results as f64 * 1e3;
            println!(
                "  {:<16} {n} in {of} calls, {bytes} bytes, {each:.1} per 1000 results",
                call.name()
            );
        }
    }
    assert!(results > 0, "{name}: the world does not work");
    seconds
}

// One test: the counts are the process's.
#[test]
fn steady_state_does_not_allocate() {
    let base = Setup::of(2_000);
    for (name, setup) in [
        ("70 % load", base),
        ("1.3x overload", Setup { load: 1.3, ..base }),
        ("mixed rates", Setup { rates: Rates::Mix, ..base }),
    ] {
        let seconds = allocations(name, &setup);
        assert_eq!(seconds, [0; 5], "{name}: allocations in steady state");
    }
}
