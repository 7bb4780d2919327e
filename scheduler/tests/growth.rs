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

/// How long it takes to add all, to change all, to change one, and to remove all but one: the shortest
/// of some tries.
fn cost(cameras: usize) -> Duration {
    let mut one = specs(cameras, 10.0);
    one[0].max_fps = Some(3.0);
    let states = [specs(cameras, 5.0), specs(cameras, 10.0), one, specs(1, 10.0)];
    let tries = (0..5).map(|_| {
        let mut core = Scheduler::new(Config::default());
        let states = states.clone();
        let begun = std::time::Instant::now();
        for subscriptions in states {
            core.handle(Instant(1), Input::Desired(Desired { revision: 1, subscriptions }));
        }
        begun.elapsed()
    });
    tries.min().unwrap()
}

#[test]
fn a_desired_state_costs_in_proportion_to_its_subscriptions() {
    let (small, large) = (cost(250), cost(8_000));
    // 32 times as many: 50 times as long by n log n, as much again for the processor's caches, a
    // thousand times by the square.
    assert!(large < 250 * small, "{large:?} for 32 times what takes {small:?}");
}
