//! The rivals behave as in the study that the product's policy comes from: figures of a simulation
//! written independently, in another language, are met within bands.
//!
//! Cases: cameras of 25 fps at 5 fps each, ResNet-50 on a T4 (2.30 + 0.81 b ms), 20 ms from
//! capture to the ring, deadline 100 ms. The study has no wire (here 0.1 ms a batch). Run with
//! `--nocapture` for the whole table.

use base::Instant;
use scheduler::SubscriptionSpec;
use scheduler_sim::{CameraModel, RIVALS, Random, RunnerModel, World, rival};
use std::time::Duration;

const WARM_UP_S: f64 = 3.0;
const SECONDS: f64 = 10.0;

#[derive(Debug, Clone, Copy)]
struct Figures {
    mean_ms: f64,
    p99_ms: f64,
    /// Results within the deadline per second, relative to what all ceilings add up to.
    goodput: f64,
    batch: f64,
}

fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value)
}

/// All subscriptions begin together, or each at a random instant of one interval.
fn run(name: &str, cameras: u32, together: bool, seed: u64) -> Figures {
    let policy = rival(name).unwrap_or_else(|| panic!("{name} is no rival"));
    let mut world = World::with(policy, scheduler::Config::default(), seed);
    let mut random = Random::new(seed, 0);
    let postprocess = Duration::ZERO;
    world.runner(Instant::ZERO, RunnerModel { postprocess, ..RunnerModel::default() });
    let mut begins: Vec<(f64, SubscriptionSpec)> = Vec::new();
    for i in 0..cameras {
        let id = format!("c{i:04}");
        let phase = seconds(random.range(0.0, 0.04));
        world.camera(&id, CameraModel { phase, ..CameraModel::default() });
        let begin = if together { 0.0 } else { random.range(0.0, 0.2) };
        begins.push((begin, World::subscription(&id, "m", Some(5.0))));
    }
    begins.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut all = Vec::new();
    for (begin, spec) in begins {
        all.push(spec);
        if !together || all.len() == cameras as usize {
            world.subscribe_at(Instant::ZERO + seconds(begin), all.clone());
        }
    }
    world.run_until(Instant::ZERO + seconds(WARM_UP_S));
    let (skip, batches) = (world.delivered.len(), world.batches[0]);
    world.run_until(Instant::ZERO + seconds(WARM_UP_S + SECONDS));
    assert_eq!(world.checker.violations(), [], "{name}");
    let mut ages: Vec<f64> =
        world.delivered[skip..].iter().map(|d| d.age.as_secs_f64() * 1e3).collect();
    ages.sort_by(f64::total_cmp);
    let count = ages.len();
    assert!(count > 0, "{name} delivers nothing");
    let in_time = ages.iter().filter(|a| **a <= 100.0).count() as f64;
    Figures {
        mean_ms: ages.iter().sum::<f64>() / count as f64,
        p99_ms: ages[count * 99 / 100],
        goodput: in_time / (SECONDS * f64::from(cameras) * 5.0),
        batch: count as f64 / (world.batches[0] - batches) as f64,
    }
}

/// Name, mean and p99 in ms, goodput as the study has them.
type Row = (&'static str, f64, f64, f64);

fn compare(case: &str, cameras: u32, together: bool, study: &[Row]) {
    println!("{case}");
    for name in RIVALS {
        let f = run(name, cameras, together, 1);
        println!(
            "  {name:14} mean {:6.1}  p99 {:6.1} ms  goodput {:5.1} %  batch {:5.2}",
            f.mean_ms,
            f.p99_ms,
            f.goodput * 100.0,
            f.batch
        );
        let Some((_, mean, p99, goodput)) = study.iter().find(|r| r.0 == name) else { continue };
        let near = |what: &str, is: f64, study: f64| {
            let off = (is - study).abs() / study;
            assert!(off < 0.12, "{case}, {name}: {what} is {is:.3}, the study has {study}");
        };
        near("mean", f.mean_ms, *mean);
        near("p99", f.p99_ms, *p99);
        near("goodput", f.goodput, *goodput);
    }
}

#[test]
fn sixty_cameras_at_a_quarter_of_the_load() {
    compare(
        "60 cameras, random start",
        60,
        false,
        &[
            ("triton-d5", 28.0, 32.0, 1.0),
            ("mux-old", 50.0, 68.0, 1.0),
            ("nexus", 25.1, 28.6, 1.0),
            ("clockwork", 25.2, 30.1, 1.0),
            ("symphony", 69.5, 100.0, 1.0),
            ("token-due", 44.5, 64.0, 1.0),
        ],
    );
}

#[test]
fn sixty_cameras_that_begin_together() {
    compare(
        "60 cameras, aligned start",
        60,
        true,
        &[
            ("triton-d5", 42.0, 55.0, 1.0),
            ("mux-old", 78.0, 96.0, 1.0),
            ("nexus", 40.0, 52.0, 1.0),
            ("clockwork", 40.0, 53.0, 1.0),
        ],
    );
}

#[test]
fn a_hundred_and_ninety_cameras_at_78_percent() {
    compare(
        "190 cameras, random start",
        190,
        false,
        &[
            ("triton-d5", 35.5, 46.0, 1.0),
            ("mux-old", 65.0, 86.0, 1.0),
            ("nexus", 35.3, 46.0, 1.0),
            ("clockwork", 38.0, 51.0, 1.0),
        ],
    );
}

#[test]
fn a_hundred_and_ninety_cameras_that_begin_together() {
    compare(
        "190 cameras, aligned start",
        190,
        true,
        &[
            ("triton-d5", 107.0, 151.0, 0.47),
            ("mux-old", 117.0, 161.0, 0.34),
            ("nexus", 79.0, 100.0, 0.70),
            ("clockwork", 81.0, 100.0, 0.70),
        ],
    );
}

/// The study read L(b) from the measured table, whose largest batches are cheaper than the line:
/// its goodputs are shares of 1,222 per second, these of the 1,235 that the line has at most.
#[test]
fn four_hundred_cameras_are_1_6_times_the_load() {
    println!("400 cameras, random start");
    for (name, least, most) in [
        ("nexus", 1204.0 / 1222.0, 1.0),
        ("clockwork", 1184.0 / 1222.0, 1.0),
        ("symphony", 1205.0 / 1222.0, 1.0),
        ("triton-d5", 0.0, 0.01),
        ("triton-d5-q64", 0.05, 0.25),
        ("mux-old", 0.10, 0.20),
    ] {
        let f = run(name, 400, false, 1);
        let share = f.goodput * 2000.0 / 1235.0;
        println!("  {name:14} {f:?}");
        assert!(share >= least * 0.95 && share <= most, "{name}: {share:.3} of the capacity");
    }
}
