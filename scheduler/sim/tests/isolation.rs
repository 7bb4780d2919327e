//! A runner that is slower than it promised does not cost the models beside it more than one of its
//! batches. The example `isolation` shows it over 300 s and twelve seeds.

use scheduler_sim::isolation::isolation;

#[test]
fn a_slow_runner_costs_its_neighbours_one_of_its_batches() {
    // Also when it says itself that it is slow: a promise is changed by measuring only.
    for restates in [false, true] {
        for healthy in isolation(3, 40.0, restates) {
            assert!(healthy.kept(), "restates {restates}: {healthy:?}, {}", healthy.median_ms());
        }
    }
}
