//! The contract, input by input: what a driver sees.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ahead;
mod bench;
mod cascade;

use base::{Absent, InstanceId, Instant, Newest, StageTimes};
use bench::{Bench, Did, MS, launch};
use scheduler::{CloseReason, Input, Ledger, RunnerKey, RunnerState, SubscriptionState};
use std::time::Duration;

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
    let report = bench.core.report(bench.now);
    assert_eq!((report.devices[0].suspect, report.runners), (false, vec![]));
    bench.runner(3, "m", 8);
    let mut did = Vec::new();
    for id in 3..50 {
        bench.frame(0, id, Duration::ZERO);
        did.extend(bench.pass(40));
    }
    assert!(matches!(did[..], [Did::Prepare(RunnerKey(3), ..), ..]), "{did:?}");
}

#[test]
fn another_instance_in_its_place_proves_that_a_hung_one_is_gone() {
    let mut bench = Bench::new(&["a"], &["m"]);
    bench.runner(1, "m", 7);
    bench.frame(0, 1, Duration::ZERO);
    launch(&bench.pass(110));
    assert_eq!(bench.pass(2_000), [Did::Close(RunnerKey(1), CloseReason::Hung)]);
    bench.handle(Input::RunnerDown { runner: RunnerKey(1) });
    assert!(bench.core.report(bench.now).devices[0].suspect);
    // Its lock was taken over before anybody saw it free.
    bench.runner(2, "m", 8);
    bench.handle(Input::RunnerDown { runner: RunnerKey(2) });
    let report = bench.core.report(bench.now);
    assert_eq!((report.devices[0].suspect, report.runners), (false, vec![]));
    assert_eq!(report.subscriptions[0].state, SubscriptionState::NoRunner);
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
