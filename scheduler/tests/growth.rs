//! The cost of a change grows with what there is, not with its square.

#![allow(clippy::disallowed_types, clippy::unwrap_used, reason = "what is measured is time")]

use base::Instant;
use scheduler::{Config, Desired, Input, Scheduler, SubscriptionSpec};
use scheduler_sim::World;
use std::time::Duration;

/// A model on each camera, and a second stage on its detections.
fn specs(cameras: usize, fps: f64) -> Vec<SubscriptionSpec> {
    let of = |i| {
        let camera = format!("c{i}");
        let parent = World::subscription(&camera, "people", Some(fps));
        let mut child = World::subscription(&camera, "faces", Some(fps));
        child.parent = Some("people".parse().unwrap());
        [parent, child]
    };
    (0..cameras).flat_map(of).collect()
}

/// How long it takes to go from one of these states to the next, all in all: the shortest of some tries.
fn cost(states: &[Vec<SubscriptionSpec>]) -> Duration {
    let tries = (0..5).map(|_| {
        let mut core = Scheduler::new(Config::default());
        let mut took = Duration::ZERO;
        for (n, subscriptions) in states.iter().cloned().enumerate() {
            let begun = std::time::Instant::now();
            core.handle(Instant(1), Input::Desired(Desired { revision: 1, subscriptions }));
            if n > 0 {
                took += begun.elapsed();
            }
        }
        took
    });
    tries.min().unwrap()
}

#[test]
fn a_desired_state_costs_in_proportion_to_its_subscriptions() {
    const CAMERAS: usize = 8_000;
    let plain: Vec<_> = specs(CAMERAS, 5.0).into_iter().filter(|s| s.parent.is_none()).collect();
    // Nothing changes: a look-up for each subscription.
    let unchanged = cost(&[plain.clone(), plain]);
    let all = specs(CAMERAS, 5.0);
    let mut one = all.clone();
    one[0].max_fps = Some(3.0);
    let changes = [
        ("one of them changes", one),
        ("all of them change", specs(CAMERAS, 10.0)),
        ("all but one go", specs(1, 5.0)),
    ];
    for (what, state) in changes {
        let took = cost(&[all.clone(), state]);
        // There are twice as many and each is touched more than once: some six times as long. By the
        // square it is more than fifty times.
        assert!(took < 20 * unchanged, "{what}: {took:?}, unchanged ones take {unchanged:?}");
    }
}
