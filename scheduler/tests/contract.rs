//! The contract, input by input: what a driver sees.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base::{
    Absent, FrameDetections, FrameFlags, FrameId, FrameInfo, Generation, InstanceId, Instant,
    LatencyEntry, LatencyTable, MediaTime, Newest, Size, StageTimes, Stamp, UtcNanos,
};
use scheduler::{
    BatchId, CameraKey, CloseReason, Config, Desired, FrameIndex, Input, Ledger, Output,
    RunnerInfo, RunnerKey, RunnerState, Scheduler, SubscriptionSpec, SubscriptionState,
};
use std::time::Duration;

const MS: u64 = 1_000_000;

/// What a driver did, in short.
#[derive(Debug, PartialEq, Clone)]
enum Did {
    Prepare(RunnerKey, BatchId, Vec<u64>),
    Profile(RunnerKey, u32),
    Grant(RunnerKey, BatchId),
    Revoke(RunnerKey, BatchId),
    Close(RunnerKey, CloseReason),
    Result(u64),
}

#[derive(Default)]
struct Frames(Vec<Option<Newest>>);

impl FrameIndex for Frames {
    fn newest(&mut self, camera: CameraKey) -> Newest {
        let known = self.0.get(camera.0 as usize).copied().flatten();
        known.unwrap_or(Newest::Absent(Absent::NoRing))
    }
}

struct Bench {
    core: Scheduler,
    frames: Frames,
    now: Instant,
}

impl Bench {
    fn new(cameras: &[&str], models: &[&str]) -> Bench {
        let mut bench = Bench {
            core: Scheduler::new(Config::default()),
            frames: Frames::default(),
            now: Instant(1_000 * MS),
        };
        let pairs = models.iter().flat_map(|m| cameras.iter().map(move |c| (*c, *m)));
        let subscriptions = pairs.map(|(camera, model)| SubscriptionSpec {
            id: format!("{camera}/{model}"),
            camera: camera.parse().unwrap(),
            model: model.parse().unwrap(),
            parent: None,
            max_fps: None,
            weight: 1.0,
            deadline: None,
            parameters: 0,
            enabled: true,
        });
        let subscriptions = subscriptions.collect();
        bench.core.handle(bench.now, Input::Desired(Desired { revision: 1, subscriptions }));
        bench
    }

    /// A runner on the device `cpu0` whose batches of one take 10 ms.
    fn runner(&mut self, key: u64, model: &str, instance: u64) -> Vec<Did> {
        self.runner_on("cpu0", key, model, instance)
    }

    /// The same on a GPU, where batches are prepared ahead, when its name says so.
    fn runner_on(&mut self, device: &str, key: u64, model: &str, instance: u64) -> Vec<Did> {
        let ms = Duration::from_millis(10);
        let info = RunnerInfo {
            instance: InstanceId(instance),
            model: model.parse().unwrap(),
            device: device.parse().unwrap(),
            gpu: device.starts_with("gpu"),
            batch_max: 8,
            deadline: Duration::from_millis(500),
            latency: LatencyTable::new([LatencyEntry { batch: 1, p50: ms, p99: ms }]),
        };
        self.handle(Input::RunnerUp { runner: RunnerKey(key), info })
    }

    fn handle(&mut self, input: Input) -> Vec<Did> {
        self.core.handle(self.now, input);
        self.drain()
    }

    /// A camera publishes a frame that was captured `age` ago.
    fn frame(&mut self, camera: usize, id: u64, age: Duration) {
        let capture = self.now.back(age);
        let stamp = Stamp {
            generation: Generation(1),
            frame_id: FrameId(id),
            slot: 0,
            slots: 30,
            size: Size { width: 2, height: 2 },
            published: self.now,
            info: FrameInfo {
                media: MediaTime(0),
                capture,
                capture_utc: UtcNanos(0),
                decode_start: capture,
                flags: FrameFlags::default(),
            },
        };
        self.set(camera, Newest::Frame(stamp));
    }

    fn set(&mut self, camera: usize, newest: Newest) {
        if self.frames.0.len() <= camera {
            self.frames.0.resize(camera + 1, None);
        }
        self.frames.0[camera] = Some(newest);
    }

    /// Lets time pass in steps of a millisecond.
    fn pass(&mut self, ms: u64) -> Vec<Did> {
        let mut did = Vec::new();
        for _ in 0..ms {
            self.now = Instant(self.now.0 + MS);
            did.extend(self.drain());
        }
        did
    }

    fn drain(&mut self) -> Vec<Did> {
        let mut did = Vec::new();
        loop {
            match self.core.poll(self.now, &mut self.frames) {
                Output::Prepare { runner, batch, members, .. } => {
                    let ids = members.iter().map(|m| m.stamp.frame_id.0).collect();
                    did.push(Did::Prepare(runner, batch, ids));
                }
                Output::ProfileGrant { runner, batch_size, .. } => {
                    did.push(Did::Profile(runner, batch_size));
                }
                Output::Close { runner, reason } => did.push(Did::Close(runner, reason)),
                Output::Result { binding, .. } => did.push(Did::Result(binding.stamp.frame_id.0)),
                Output::Grant { runner, batch, .. } => did.push(Did::Grant(runner, batch)),
                Output::Revoke { runner, batch } => did.push(Did::Revoke(runner, batch)),
                Output::Wait { .. } => return did,
            }
        }
    }

    fn reply(&mut self, runner: u64, batch: BatchId) -> Vec<Did> {
        let times = StageTimes { received: self.now, ..StageTimes::default() };
        let outcomes = vec![Ok(FrameDetections::default())];
        self.handle(Input::Reply { runner: RunnerKey(runner), batch, times, outcomes })
    }

    fn ledger(&self, at: usize) -> Ledger {
        self.core.report(self.now).subscriptions[at].ledger
    }
}

/// The one launch in what was done.
#[track_caller]
fn launch(did: &[Did]) -> (RunnerKey, BatchId, Vec<u64>) {
    let launches: Vec<_> = did.iter().filter(|d| matches!(d, Did::Prepare(..))).collect();
    match launches[..] {
        [Did::Prepare(runner, batch, ids)] => (*runner, *batch, ids.clone()),
        _ => panic!("not one launch: {did:?}"),
    }
}

#[test]
fn a_frame_is_launched_answered_and_passed_on() {
    let mut bench = Bench::new(&["a"], &["m"]);
    bench.runner(1, "m", 7);
    bench.frame(0, 1, Duration::from_millis(3));
    let (runner, batch, ids) = launch(&bench.pass(110));
    assert_eq!((runner, ids), (RunnerKey(1), vec![1]));
    assert_eq!(bench.pass(5), [], "the same frame is not taken twice");
    assert_eq!(bench.reply(1, batch), [Did::Result(1)]);
    assert_eq!(bench.ledger(0), Ledger { observed: 1, bound: 1, sampled: 1, ..Ledger::default() });
}

#[test]
fn a_hung_instance_is_refused_until_it_is_gone_or_another_comes() {
    let mut bench = Bench::new(&["a"], &["m"]);
    bench.runner(1, "m", 7);
    bench.frame(0, 1, Duration::ZERO);
    launch(&bench.pass(110));
    let did = bench.pass(2_000);
    assert_eq!(did, [Did::Close(RunnerKey(1), CloseReason::Hung)]);
    bench.handle(Input::RunnerDown { runner: RunnerKey(1) });
    let refused = Did::Close(RunnerKey(2), CloseReason::RefusedInstance);
    assert_eq!(bench.runner(2, "m", 7), [refused], "the same instance answers again");
    bench.handle(Input::RunnerDown { runner: RunnerKey(2) });
    bench.frame(0, 2, Duration::ZERO);
    assert_eq!(bench.pass(1_100), [], "nothing is launched");
    let state = |b: &Bench| b.core.report(b.now).subscriptions[0].state;
    assert_eq!(state(&bench), SubscriptionState::Parked);
    assert!(bench.core.report(bench.now).devices[0].suspect);
    bench.handle(Input::RunnerGone { instance: InstanceId(7) });
    assert_eq!(state(&bench), SubscriptionState::NoRunner);
    assert!(!bench.core.report(bench.now).devices[0].suspect);
    bench.runner(3, "m", 8);
    let mut did = Vec::new();
    for id in 3..50 {
        bench.frame(0, id, Duration::ZERO);
        did.extend(bench.pass(40));
    }
    assert!(matches!(did[..], [Did::Prepare(RunnerKey(3), ..), ..]), "{did:?}");
}

#[test]
fn a_lost_runner_gives_its_token_back_at_once() {
    let mut bench = Bench::new(&["a"], &["m", "n"]);
    bench.runner(1, "m", 7);
    bench.runner(2, "n", 8);
    bench.frame(0, 1, Duration::ZERO);
    let (first, ..) = launch(&bench.pass(102));
    let did = bench.handle(Input::RunnerDown { runner: first });
    assert_ne!(launch(&did).0, first, "the other model's frame gets the token");
    let lost = if first == RunnerKey(1) { 0 } else { 1 };
    assert_eq!(bench.ledger(lost).lost_with_runner, 1);
}

#[test]
fn a_frame_that_can_not_be_answered_in_time_is_not_bound() {
    let mut bench = Bench::new(&["a"], &["m"]);
    bench.runner(1, "m", 7);
    // Deadline 500 ms, execution 10 ms.
    bench.frame(0, 1, Duration::from_millis(495));
    assert_eq!(bench.pass(110), []);
    assert_eq!(bench.ledger(0), Ledger { observed: 1, expired: 1, ..Ledger::default() });
    bench.frame(0, 2, Duration::from_millis(300));
    assert_eq!(launch(&bench.pass(110)).2, [2]);
}

#[test]
fn frames_published_while_a_ring_could_not_be_read_are_a_gap() {
    let mut bench = Bench::new(&["a"], &["m"]);
    bench.runner(1, "m", 7);
    bench.frame(0, 5, Duration::ZERO);
    let (_, batch, _) = launch(&bench.pass(110));
    bench.reply(1, batch);
    bench.set(0, Newest::Absent(Absent::Stale));
    assert_eq!(bench.pass(300), []);
    bench.frame(0, 12, Duration::ZERO);
    launch(&bench.pass(110));
    let ledger = bench.ledger(0);
    assert_eq!((ledger.bound, ledger.unserved_gap, ledger.superseded), (2, 6, 0), "{ledger:?}");
}

#[test]
fn a_demoted_runner_is_served_after_the_others() {
    let mut bench = Bench::new(&["a"], &["m", "n"]);
    bench.runner(1, "m", 7);
    bench.frame(0, 1, Duration::ZERO);
    let (_, late, _) = launch(&bench.pass(110));
    bench.runner(2, "n", 8);
    // The shortest lease on a CPU is 100 ms; it has passed, and the token goes to `n`.
    bench.frame(0, 2, Duration::ZERO);
    let (first, batch, ids) = launch(&bench.pass(110));
    assert_eq!(first, RunnerKey(2));
    assert_eq!(bench.reply(2, batch), [Did::Result(ids[0])]);
    let state = |b: &Bench| {
        let report = b.core.report(b.now);
        report.runners.iter().find(|r| r.model.as_str() == "m").unwrap().state
    };
    assert_eq!(state(&bench), RunnerState::Late);
    assert_eq!(bench.reply(1, late), [], "a late answer is discarded");
    assert_eq!(state(&bench), RunnerState::Demoted);
    assert_eq!(bench.ledger(0).expired_late, 1);
    // Both want the next frame. What the slow one was planned to need comes back with time.
    let mut order = Vec::new();
    for id in 3..200 {
        bench.frame(0, id, Duration::ZERO);
        let mut todo = std::collections::VecDeque::from(bench.pass(20));
        while let Some(did) = todo.pop_front() {
            if let Did::Prepare(runner, batch, _) = did {
                order.push(runner.0);
                todo.extend(bench.reply(runner.0, batch));
            }
        }
    }
    assert_eq!(order[0], 2, "the slow one comes after the other");
    assert!(order.contains(&1), "and is served within its budget");
}

#[test]
fn measuring_and_batches_take_turns() {
    let mut bench = Bench::new(&["a"], &["m", "n"]);
    bench.runner(1, "m", 7);
    bench.runner(2, "n", 8);
    let sizes = vec![1, 2, 4, 99];
    let did = bench.handle(Input::ProfileRequest { runner: RunnerKey(2), sizes });
    let mut todo = std::collections::VecDeque::from(did);
    let mut order = Vec::new();
    let mut id = 0;
    while let Some(did) = todo.pop_front() {
        match did {
            Did::Profile(runner, batch_size) => {
                order.push('p');
                // Meanwhile frames become ready for both models.
                id += 1;
                bench.frame(0, id, Duration::ZERO);
                todo.extend(bench.pass(110));
                let samples = vec![Duration::from_millis(5)];
                todo.extend(bench.handle(Input::ProfileDone { runner, batch_size, samples }));
            }
            Did::Prepare(runner, batch, _) => {
                order.push('b');
                todo.extend(bench.reply(runner.0, batch));
            }
            Did::Result(_) => {}
            Did::Close(..) | Did::Grant(..) | Did::Revoke(..) => panic!("{did:?}"),
        }
    }
    let text: String = order.iter().collect();
    assert_eq!(
        text.matches('p').count(),
        3,
        "sizes above the engine's largest are left out: {text}"
    );
    assert!(!text.contains("pp"), "a batch goes between two measurements: {text}");
}

#[test]
fn what_the_protocol_forbids_closes_the_connection() {
    let mut bench = Bench::new(&["a"], &["m"]);
    bench.runner(1, "m", 7);
    bench.frame(0, 1, Duration::ZERO);
    let (runner, batch, _) = launch(&bench.pass(110));
    let times = StageTimes::default();
    let did = bench.handle(Input::Reply { runner, batch, times, outcomes: vec![] });
    assert!(matches!(did[..], [Did::Close(_, CloseReason::Protocol(_))]), "{did:?}");
    assert_eq!(bench.ledger(0).lost_with_runner, 1);
    // Another connection of the same model and device takes its place.
    bench.runner(2, "m", 9);
    let did = bench.runner(3, "m", 10);
    assert_eq!(did, [Did::Close(RunnerKey(2), CloseReason::Replaced)]);
}

#[test]
fn a_pause_of_the_scheduler_itself_is_held_against_nobody() {
    let mut bench = Bench::new(&["a"], &["m"]);
    bench.runner(1, "m", 7);
    bench.frame(0, 1, Duration::ZERO);
    let (_, batch, _) = launch(&bench.pass(110));
    // Stopped for five seconds: the answer lies in the socket, the first poll comes before it.
    bench.now = Instant(bench.now.0 + 5_000 * MS);
    assert_eq!(bench.drain(), []);
    assert_eq!(bench.reply(1, batch), [Did::Result(1)]);
    assert_eq!(bench.ledger(0).sampled, 1);
    // An answer that stays away is noticed all the same.
    bench.frame(0, 2, Duration::ZERO);
    launch(&bench.pass(110));
    bench.now = Instant(bench.now.0 + 5_000 * MS);
    let closed = Did::Close(RunnerKey(1), CloseReason::Hung);
    assert_eq!(bench.pass(2_500), [closed]);
}

/// `m` executes a batch and has the next one prepared; both batch ids.
fn prepared_ahead(bench: &mut Bench) -> (BatchId, BatchId) {
    bench.runner_on("gpu0", 1, "m", 7);
    bench.frame(0, 1, Duration::ZERO);
    bench.frame(1, 1, Duration::ZERO);
    let mut did = Vec::new();
    while did.is_empty() {
        did = bench.pass(1);
    }
    let (_, first, _) = launch(&did);
    let mut did = Vec::new();
    while did.is_empty() {
        did = bench.pass(1);
    }
    let (_, second, _) = launch(&did);
    (first, second)
}

fn executed(bench: &mut Bench, batch: BatchId) -> Vec<Did> {
    let runner = RunnerKey(1);
    let (granted, executed) = (bench.now, bench.now);
    bench.handle(Input::Executed { runner, batch, granted, executed })
}

#[test]
fn the_next_batch_of_a_gpu_is_prepared_ahead_and_granted_when_the_token_is_back() {
    let mut bench = Bench::new(&["a", "b"], &["m"]);
    let (first, second) = prepared_ahead(&mut bench);
    bench.handle(Input::Prepared { runner: RunnerKey(1), batch: second });
    assert_eq!(executed(&mut bench, first), [Did::Grant(RunnerKey(1), second)]);
    assert_eq!(bench.reply(1, first), [Did::Result(1)]);
    executed(&mut bench, second);
    assert_eq!(bench.reply(1, second), [Did::Result(1)]);
}

#[test]
fn a_batch_without_a_readable_frame_is_answered_without_the_token() {
    let mut bench = Bench::new(&["a", "b"], &["m"]);
    let (first, second) = prepared_ahead(&mut bench);
    let reply = |outcome| Input::Reply {
        runner: RunnerKey(1),
        batch: second,
        times: StageTimes::default(),
        outcomes: vec![outcome],
    };
    assert_eq!(bench.handle(reply(Err(base::MemberError::Torn))), [Did::Result(1)]);
    assert_eq!(bench.ledger(1).torn, 1);
    executed(&mut bench, first);
    assert_eq!(bench.reply(1, first), [Did::Result(1)], "the other batch goes on");
    // With detections it must have executed: nobody gave it the token.
    let mut bench = Bench::new(&["a", "b"], &["m"]);
    prepared_ahead(&mut bench);
    let did = bench.handle(reply(Ok(FrameDetections::default())));
    assert!(matches!(did[..], [Did::Close(_, CloseReason::Protocol(_))]), "{did:?}");
}

#[test]
fn a_late_runner_loses_what_it_prepared_and_what_it_says_of_that_is_no_mistake() {
    let mut bench = Bench::new(&["a", "b"], &["m"]);
    let (first, second) = prepared_ahead(&mut bench);
    // The lease, 30 ms, passes.
    assert_eq!(bench.pass(40), [Did::Revoke(RunnerKey(1), second)]);
    assert_eq!((bench.ledger(0).expired_late, bench.ledger(1).revoked), (1, 1));
    bench.handle(Input::Prepared { runner: RunnerKey(1), batch: second });
    assert_eq!(bench.reply(1, second), [], "sent before the Revoke was read");
    assert_eq!(bench.reply(1, first), [], "late, discarded");
    let report = bench.core.report(bench.now);
    assert_eq!(report.runners[0].state, RunnerState::Demoted);
    assert!(report.subscriptions.iter().all(|s| s.balanced()));
}

#[test]
fn one_long_measurement_is_late_and_not_hung() {
    let mut bench = Bench::new(&["a"], &["m"]);
    bench.runner(1, "m", 7);
    let sizes = vec![8];
    let did = bench.handle(Input::ProfileRequest { runner: RunnerKey(1), sizes });
    assert_eq!(did, [Did::Profile(RunnerKey(1), 8)]);
    let state = |b: &Bench| b.core.report(b.now).runners[0].state;
    assert_eq!(bench.pass(5_000), []);
    assert_eq!(state(&bench), RunnerState::Late, "the token went on, the runner did not");
    let samples = vec![Duration::from_secs(5)];
    bench.handle(Input::ProfileDone { runner: RunnerKey(1), batch_size: 8, samples });
    assert_eq!(state(&bench), RunnerState::Demoted);
    bench.handle(Input::ProfileRequest { runner: RunnerKey(1), sizes: vec![8] });
    assert_eq!(bench.pass(13_000), [Did::Close(RunnerKey(1), CloseReason::Hung)]);
}

#[test]
#[should_panic(expected = "time went back")]
fn time_never_goes_back() {
    let mut bench = Bench::new(&["a"], &["m"]);
    bench.pass(1);
    bench.core.poll(Instant(1), &mut bench.frames);
}
