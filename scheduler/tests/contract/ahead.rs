//! Batches that are prepared while another one executes.

use crate::bench::{Bench, Did, info, launch};
use base::{FrameDetections, StageTimes};
use scheduler::{BatchId, CloseReason, Input, RunnerInfo, RunnerKey, RunnerState};
use std::time::Duration;

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
fn beside_a_cpu_runner_that_is_gone_batches_are_prepared_ahead() {
    let mut bench = Bench::new(&["a", "b"], &["m"]);
    let fallback = RunnerInfo { gpu: false, ..info("gpu0", "other", 6) };
    bench.handle(Input::RunnerUp { runner: RunnerKey(9), info: fallback });
    bench.handle(Input::RunnerDown { runner: RunnerKey(9) });
    let (first, second) = prepared_ahead(&mut bench);
    assert_eq!(executed(&mut bench, first), [Did::Grant(RunnerKey(1), second)]);
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
