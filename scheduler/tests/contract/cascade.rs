//! Second stages: which regions are looked at, and where the others went.

use crate::bench::{Bench, Did, launch, spec};
use base::{Detection, FrameDetections, Rect, StageTimes, TrackId};
use scheduler::{Input, Ledger, RunnerKey, SubscriptionSpec};
use std::collections::VecDeque;
use std::time::Duration;

/// Detections, each in a place of its own.
fn found(count: usize) -> FrameDetections {
    let one = |i| Detection {
        bbox: Rect { x2: 1.0 - i as f32 / 1000.0, ..Rect::WHOLE },
        score: 0.9,
        class_id: 0,
        track: TrackId(0),
    };
    FrameDetections { detections: (0..count).map(one).collect(), ..Default::default() }
}

/// The ledger of a second stage that looks at up to `most` regions of a frame with `count`, after all
/// of them were answered.
fn looked_at(most: u32, count: usize) -> Ledger {
    let mut bench = Bench::new(&[], &[]);
    let child = SubscriptionSpec {
        parent: Some("people".parse().unwrap()),
        regions_max: most,
        ..spec("a", "faces")
    };
    bench.desire(vec![spec("a", "people"), child]);
    bench.runner(1, "people", 7);
    bench.runner(2, "faces", 8);
    bench.large_frame(0, 1, Duration::ZERO);
    let (_, parent, _) = launch(&bench.pass(110));
    let mut todo = VecDeque::from(answer(&mut bench, 1, parent, vec![found(count)]));
    while let Some(did) = todo.pop_front() {
        if let Did::Prepare(RunnerKey(2), batch, frames) = did {
            todo.extend(answer(&mut bench, 2, batch, vec![found(0); frames.len()]));
        }
    }
    bench.ledger(1)
}

fn answer(
    bench: &mut Bench,
    runner: u64,
    batch: scheduler::BatchId,
    found: Vec<FrameDetections>,
) -> Vec<Did> {
    let times = StageTimes { received: bench.now, ..StageTimes::default() };
    let outcomes = found.into_iter().map(Ok).collect();
    bench.handle(Input::Reply { runner: RunnerKey(runner), batch, times, outcomes })
}

#[test]
fn regions_beyond_what_an_assignment_wants_are_counted() {
    for (most, count, taken) in [(16, 17, 16), (3, 20, 3), (1, 1, 1), (64, 40, 40), (64, 70, 64)] {
        let (observed, bound) = (count as u64, taken);
        let crowded = observed - bound;
        let expected = Ledger { observed, bound, crowded, sampled: bound, ..Ledger::default() };
        assert_eq!(looked_at(most, count), expected, "{most} of {count}");
    }
}
