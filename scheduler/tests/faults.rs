//! What a runner can do wrong, and what it may cost others: at most one lease, once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base::Instant;
use scheduler::{Config, RunnerState, Steering, SubscriptionState};
use scheduler_sim::{CameraModel, Fault, RunnerModel, World};
use std::time::Duration;

fn ms(value: f64) -> Duration {
    Duration::from_secs_f64(value / 1e3)
}

fn at(seconds: f64) -> Instant {
    Instant::ZERO + Duration::from_secs_f64(seconds)
}

/// Ten cameras, `steady` and `other` on each at 5 fps, both on one GPU.
fn two_models(other: Vec<Fault>, gpu: bool) -> World {
    // A model that begins to be steered moves its gates once, which costs frames.
    let config = Config { steering: Steering::Off, ..Config::default() };
    let mut world = World::new(config, 11);
    let mut all = Vec::new();
    for i in 0..10 {
        let id = format!("c{i}");
        let phase = ms(f64::from(i) * 3.7);
        world.camera(&id, CameraModel { phase, ..Default::default() });
        all.push(World::subscription(&id, "steady", Some(5.0)));
        all.push(World::subscription(&id, "other", Some(5.0)));
    }
    let device = if gpu { "gpu0" } else { "cpu" };
    let model = |name: &str, faults| RunnerModel {
        model: name.parse().unwrap(),
        device: device.parse().unwrap(),
        gpu,
        alpha: ms(1.0),
        beta: ms(0.5),
        deadline: ms(500.0),
        faults,
        ..RunnerModel::default()
    };
    world.runner(Instant::ZERO, model("steady", vec![]));
    world.runner(Instant::ZERO, model("other", other));
    world.subscribe(all);
    world
}

fn ages(world: &World, model: &str, from: f64, to: f64) -> Vec<Duration> {
    let of_model = |d: &&scheduler_sim::world::Delivered| {
        let id = world.scheduler.subscription_id(d.binding.subscription).unwrap();
        id.ends_with(model) && d.received >= at(from) && d.received < at(to)
    };
    world.delivered.iter().filter(of_model).map(|d| d.age).collect()
}

fn runner_state(world: &World, model: &str) -> RunnerState {
    let report = world.scheduler.report(world.now());
    report.runners.iter().find(|r| r.model.as_str() == model).unwrap().state
}

fn subscription_states(world: &World, model: &str) -> Vec<SubscriptionState> {
    let report = world.scheduler.report(world.now());
    let of = report.subscriptions.iter().filter(|s| s.model.as_str() == model);
    of.map(|s| s.state).collect()
}

fn sound(world: &mut World) {
    world.scheduler.audit(0..usize::MAX);
    let (now, report) = (world.now(), world.scheduler.report(world.now()));
    world.checker.report(now, &report);
    assert_eq!(world.checker.violations(), []);
}

#[test]
fn a_hung_runner_costs_others_one_lease_and_is_refused_until_a_new_instance_comes() {
    for gpu in [true, false] {
        let mut world = two_models(vec![Fault::Hang(at(5.0))], gpu);
        world.run_until(at(5.0));
        let before = ages(&world, "steady", 1.0, 5.0).into_iter().max().unwrap();
        world.run_until(at(6.5));
        assert_eq!(runner_state(&world, "other"), RunnerState::Late);
        world.run_until(at(10.0));
        assert_eq!(runner_state(&world, "other"), RunnerState::Hung);
        assert!(
            subscription_states(&world, "other").iter().all(|s| *s == SubscriptionState::Parked)
        );
        let device = &world.scheduler.report(world.now()).devices[0];
        assert!(device.suspect);
        // One lease: the floor, 10 ms on a GPU, 100 ms on a CPU.
        let lease = ms(if gpu { 10.0 } else { 100.0 });
        let worst = ages(&world, "steady", 5.0, 10.0).into_iter().max().unwrap();
        assert!(worst <= before + lease + ms(6.0), "gpu {gpu}: {worst:?}, before {before:?}");
        let after = ages(&world, "steady", 7.5, 10.0);
        assert!(after.iter().max().unwrap() <= &(before + ms(1.0)), "gpu {gpu}");
        assert!((after.len() as f64 / 2.5 - 50.0).abs() < 2.0, "{} results", after.len());

        let parked = world.scheduler.report(world.now()).subscriptions;
        let unserved: u64 = parked.iter().map(|s| s.ledger.unserved_parked).sum();
        assert!(unserved > 0, "frames that went by are counted as parked");
        sound(&mut world);
    }
}

#[test]
fn a_slow_runner_goes_on_demoted_and_recovers() {
    let mut world = two_models(vec![Fault::Slow(at(5.0), at(7.0), 12)], true);
    world.run_until(at(7.0));
    let worst = ages(&world, "steady", 5.0, 7.0).into_iter().max().unwrap();
    let before = ages(&world, "steady", 1.0, 5.0).into_iter().max().unwrap();
    // One lease: the floor of 10 ms, twice that for a runner that is known to be slow.
    assert!(worst <= before + ms(20.0), "{worst:?}, before {before:?}");
    let report = world.scheduler.report(world.now());
    let late: u64 = report.subscriptions.iter().map(|s| s.ledger.expired_late).sum();
    assert!(late > 0, "members of an overrun lease end as expired_late");
    let of = |r: &&scheduler::RunnerReport| r.model.as_str() == "other";
    assert_ne!(report.runners.iter().find(of).unwrap().state, RunnerState::Ready);
    world.run_until(at(12.0));
    assert_eq!(runner_state(&world, "other"), RunnerState::Ready);
    let back = ages(&world, "other", 8.0, 12.0).len();
    assert!((198..=205).contains(&back), "{back} results in 4 s, 200 are due");
    sound(&mut world);
}

#[test]
fn a_runner_that_says_that_it_is_slow_has_promised_nothing_else() {
    let mut world = two_models(vec![], true);
    let slow = RunnerModel {
        model: "restates".parse().unwrap(),
        faults: vec![Fault::Slow(at(5.0), at(60.0), 3)],
        restates: true,
        ..RunnerModel::default()
    };
    world.runner(Instant::ZERO, slow.clone());
    let mut all = world.desired().to_vec();
    all.extend((0..10).map(|i| World::subscription(&format!("c{i}"), "restates", Some(5.0))));
    world.subscribe(all);
    for second in [10.0, 30.0, 60.0] {
        world.run_until(at(second));
        assert_eq!(runner_state(&world, "restates"), RunnerState::Demoted, "{second} s");
        let report = world.scheduler.report(world.now());
        let runner = report.runners.iter().find(|r| r.model.as_str() == "restates").unwrap();
        assert_eq!(runner.latency, slow.table(), "{second} s");
    }
    world.run_until(at(65.0));
    assert_eq!(runner_state(&world, "restates"), RunnerState::Ready);
    sound(&mut world);
}

#[test]
fn a_slow_runner_that_nobody_minds_goes_on_as_it_can() {
    let mut world = World::new(Config::default(), 7);
    let mut all = Vec::new();
    for i in 0..20 {
        let id = format!("c{i}");
        world.camera(&id, CameraModel { phase: ms(f64::from(i) * 1.9), ..Default::default() });
        all.push(World::subscription(&id, "m", None));
    }
    // 500 frames per second: three times slower it needs batches of six, and it promised 2.5 ms.
    let runner = RunnerModel {
        alpha: ms(1.0),
        beta: ms(0.5),
        deadline: ms(500.0),
        faults: vec![Fault::Slow(at(5.0), at(60.0), 3)],
        ..RunnerModel::default()
    };
    world.runner(Instant::ZERO, runner);
    world.subscribe(all);
    world.run_until(at(30.0));
    assert_eq!(runner_state(&world, "m"), RunnerState::Demoted);
    let results = ages(&world, "m", 10.0, 30.0).len();
    assert!(results > 9_500, "{results} results in 20 s, 10,000 are wanted");
    sound(&mut world);
}

#[test]
fn a_promise_by_which_nothing_is_in_time_is_measured_again_until_it_is() {
    let mut world = World::new(Config::default(), 7);
    let mut all = Vec::new();
    for i in 0..10 {
        let id = format!("c{i}");
        world.camera(&id, CameraModel { phase: ms(f64::from(i) * 3.9), ..Default::default() });
        all.push(World::subscription(&id, "m", Some(10.0)));
        all.push(World::subscription(&id, "beside", Some(5.0)));
    }
    // Measured while it takes 660 ms for a frame, of which 500 may pass.
    let runner = |name: &str, measured, faults| RunnerModel {
        model: name.parse().unwrap(),
        alpha: ms(10.0),
        beta: ms(1.0),
        batch_max: 16,
        deadline: ms(500.0),
        measured,
        faults,
        ..RunnerModel::default()
    };
    let slow = Fault::Slow(Instant::ZERO, at(100.0), 60);
    world.runner(Instant::ZERO, runner("m", false, vec![slow]));
    world.runner(Instant::ZERO, runner("beside", true, vec![]));
    world.subscribe(all);
    world.run_until(at(100.0));
    assert_eq!(ages(&world, "m", 0.0, 100.0).len(), 0);
    let report = world.scheduler.report(world.now());
    let of = |r: &&scheduler::RunnerReport| r.model.as_str() == "m";
    let latency = &report.runners.iter().find(of).unwrap().latency;
    assert_eq!((latency.batch_max(), latency.p50(1)), (1, Some(ms(660.0))));
    // Measured at about 11, 32, 73 and 154 s, each time by one batch: the others hardly notice.
    let beside = ages(&world, "beside", 10.0, 100.0);
    assert!(beside.len() > 4_300, "{} of 4,500", beside.len());
    let late = beside.iter().filter(|age| **age > ms(150.0)).count();
    assert!(late < 180, "{late} of {}", beside.len());
    world.run_until(at(170.0));
    let report = world.scheduler.report(world.now());
    let latency = &report.runners.iter().find(of).unwrap().latency;
    assert_eq!((latency.batch_max(), latency.p50(1)), (16, Some(ms(11.0))));
    let recovered = ages(&world, "m", 165.0, 170.0).len();
    assert!(recovered >= 490, "{recovered} results in 5 s, 500 are wanted");
    sound(&mut world);
}

#[test]
fn a_crashed_runner_loses_what_it_held_and_its_next_life_goes_on() {
    let mut world = two_models(vec![Fault::Crash(at(5.0), Some(Duration::from_secs(3)))], true);
    world.run_until(at(6.0));
    assert_eq!(world.scheduler.report(world.now()).runners.len(), 1, "it is forgotten");
    assert!(subscription_states(&world, "other").iter().all(|s| *s == SubscriptionState::NoRunner));
    world.run_until(at(12.0));
    assert_eq!(runner_state(&world, "other"), RunnerState::Ready);
    assert_eq!(ages(&world, "other", 5.1, 8.0).len(), 0);
    let back = ages(&world, "other", 9.0, 12.0).len();
    assert!((148..=152).contains(&back), "{back} results in 3 s, 150 are possible");
    let steady = ages(&world, "steady", 4.0, 10.0).len();
    assert!((298..=302).contains(&steady), "{steady} results in 6 s, 300 are possible");
    let report = world.scheduler.report(world.now());
    let no_runner: u64 = report.subscriptions.iter().map(|s| s.ledger.unserved_no_runner).sum();
    assert!(no_runner > 0);
    sound(&mut world);
}

#[test]
fn a_runner_without_a_table_is_measured_between_batches() {
    let mut world = World::new(Config::default(), 5);
    world.camera("a", CameraModel::default());
    let model = |name: &str, measured| RunnerModel {
        model: name.parse().unwrap(),
        measured,
        batch_max: 8,
        deadline: ms(500.0),
        ..RunnerModel::default()
    };
    world.runner(Instant::ZERO, model("known", true));
    world.runner(at(2.0), model("new", false));
    let both = ["known", "new"].map(|m| World::subscription("a", m, Some(10.0)));
    world.subscribe(both.to_vec());
    world.run_until(at(6.0));
    let report = world.scheduler.report(world.now());
    let new = report.runners.iter().find(|r| r.model.as_str() == "new").unwrap();
    assert_eq!(new.latency.batch_max(), 8);
    assert_eq!(new.batch_size, 8);
    assert_eq!(new.state, RunnerState::Ready);
    // Its neighbour went on meanwhile, its frames not older than one profile lease.
    let known = ages(&world, "known", 1.0, 6.0);
    assert!(known.len() >= 49, "{} results", known.len());
    sound(&mut world);
}

#[test]
fn a_camera_that_returns_goes_on_and_its_absence_is_counted() {
    let mut world = World::new(Config::default(), 5);
    let outages = vec![(at(5.0), at(12.0))];
    world.camera("a", CameraModel { outages, ..Default::default() });
    world.camera("b", CameraModel::default());
    world.runner(Instant::ZERO, RunnerModel::default());
    let both = ["a", "b"].map(|c| World::subscription(c, "m", Some(5.0)));
    world.subscribe(both.to_vec());
    world.run_until(at(10.0));
    let a = |world: &World| world.scheduler.report(world.now()).subscriptions[0].clone();
    assert_eq!(a(&world).state, SubscriptionState::NoFrames);
    assert_eq!(a(&world).reason, "no_frames");
    world.run_until(at(20.0));
    assert_eq!(a(&world).state, SubscriptionState::Active);
    let bound = a(&world).ledger.bound;
    assert!((60..=68).contains(&bound), "{bound} frames bound in 13 s");
    // Every published frame from the first observed one on is in the ledger.
    let observed = a(&world).ledger.observed;
    let published = world.published("a");
    // Those since the last look, an interval ago at most, are still to be counted.
    assert!(published - observed <= 6, "{published} published, {observed} observed");
    sound(&mut world);
}

#[test]
fn a_trace_replays_to_the_same_outputs_and_a_change_is_found() {
    let mut world = World::new(Config::default(), 4);
    world.record();
    for i in 0..4 {
        world.camera(&format!("c{i}"), CameraModel { jitter: ms(3.0), ..Default::default() });
    }
    let crash = Fault::Crash(at(2.0), Some(Duration::from_secs(1)));
    let faults = vec![crash, Fault::Hang(at(6.0))];
    world.runner(Instant::ZERO, RunnerModel { measured: false, faults, ..RunnerModel::default() });
    let all = |fps| (0..4).map(|i| World::subscription(&format!("c{i}"), "m", Some(fps))).collect();
    world.subscribe(all(5.0));
    world.run_until(at(5.0));
    world.subscribe(all(8.0));
    world.run_until(at(10.0));
    let trace = world.trace().to_vec();
    let replayed = scheduler::trace::replay(&trace).unwrap();
    assert!(replayed.outputs > 400 && replayed.answers > 100 && !replayed.cut, "{replayed:?}");
    // Killed while it was written: the whole records count.
    let cut = scheduler::trace::replay(&trace[..trace.len() - 3]).unwrap();
    assert!(cut.cut && cut.outputs == replayed.outputs - 1);
    // Another frame id in an answer is another run, whenever that frame was bound.
    let starts = trace.windows(6).enumerate().filter(|(_, w)| w[0] == 3 && w[1] == 81);
    let differs = |at: usize| {
        let mut changed = trace.clone();
        changed[at + 5 + 5 + 8] ^= 1;
        scheduler::trace::replay(&changed).is_err_and(|e| e.to_string().contains("differs"))
    };
    let found = starts.take(100).filter(|(at, _)| differs(*at)).count();
    assert!(found > 20, "{found} of 100 changes are found");
    assert!(scheduler::trace::replay(b"VASTRACX").is_err());
}

#[test]
fn an_unmeasured_runner_is_measured_also_when_it_has_no_idle_moment() {
    let mut world = World::new(Config::default(), 5);
    let cameras: Vec<String> = (0..20).map(|i| format!("c{i}")).collect();
    for (i, id) in cameras.iter().enumerate() {
        world.camera(id, CameraModel { phase: ms(i as f64 * 1.9), ..Default::default() });
    }
    // One frame takes 21 ms, 500 per second are wanted: only larger batches can serve them.
    let runner = RunnerModel {
        alpha: ms(20.0),
        beta: ms(1.0),
        batch_max: 32,
        deadline: ms(500.0),
        measured: false,
        ..RunnerModel::default()
    };
    world.runner(Instant::ZERO, runner);
    let all = cameras.iter().map(|c| World::subscription(c, "m", Some(25.0)));
    world.subscribe(all.collect());
    world.run_until(at(15.0));
    let report = world.scheduler.report(world.now());
    assert_eq!(report.runners[0].latency.batch_max(), 32, "{:?}", report.runners[0]);
    assert_eq!(report.runners[0].batch_size, 32);
    sound(&mut world);
}

#[test]
fn a_model_that_moves_to_a_busy_device_gets_its_share_there_at_once() {
    let mut world = World::new(Config::default(), 6);
    let mut all = Vec::new();
    for i in 0..10 {
        let id = format!("c{i}");
        world.camera(&id, CameraModel { phase: ms(f64::from(i) * 3.9), ..Default::default() });
        all.push(World::subscription(&id, "busy", Some(25.0)));
    }
    all.push(World::subscription("c0", "moves", Some(25.0)));
    let model = |name: &str, device: &str, faults| RunnerModel {
        model: name.parse().unwrap(),
        device: device.parse().unwrap(),
        alpha: ms(0.0),
        beta: ms(12.0),
        batch_max: 1,
        deadline: ms(500.0),
        faults,
        ..RunnerModel::default()
    };
    // Three times what gpu0 can do: its virtual time falls behind that of gpu1.
    world.runner(Instant::ZERO, model("busy", "gpu0", vec![]));
    world.runner(Instant::ZERO, model("moves", "gpu1", vec![Fault::Crash(at(60.0), None)]));
    world.subscribe(all);
    world.run_until(at(61.0));
    world.runner(at(61.0), model("moves", "gpu0", vec![]));
    world.run_until(at(66.0));
    let moved = ages(&world, "moves", 61.0, 66.0).len();
    // Eleven subscriptions share 83 frames per second: 7.5 each.
    assert!((30..=45).contains(&moved), "{moved} results in 5 s");
    sound(&mut world);
}
