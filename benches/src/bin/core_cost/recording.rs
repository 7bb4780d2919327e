//! One run of a bare world with every call into the core timed, and what several such runs say.

use benches::counting_allocator::{Counts, count, counts};
use benches::ticks::{Clock, ticks};
use scheduler::{CameraKey, Config, FrameIndex};
use scheduler_sim::bare::{BEGIN, BareIndex, BareWorld, Call, Probe, Setup};
use std::hint::black_box;
use std::time::Duration;

/// One timed call. Two repetitions of a setup make the same calls in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    pub call: Call,
    pub members: u32,
    /// Virtual nanoseconds.
    pub at: u64,
}

/// What is kept of every call, in memory that was touched before.
struct Recorder {
    on: bool,
    begun: u64,
    ticks: u64,
    made: Vec<Made>,
    times: Vec<u32>,
}

impl Probe for Recorder {
    #[inline(always)]
    fn begin(&mut self) {
        self.begun = ticks();
    }

    #[inline(always)]
    fn end(&mut self) {
        self.ticks = ticks() - self.begun;
    }

    fn note(&mut self, now: base::Instant, call: Call, members: u32) {
        if self.on {
            self.made.push(Made { call, members, at: now.0 });
            self.times.push(u32::try_from(self.ticks).unwrap_or(u32::MAX));
        }
    }
}

/// Counts allocations instead of time.
#[derive(Default)]
struct AllocationProbe;

impl Probe for AllocationProbe {
    fn begin(&mut self) {
        count(true);
    }
    fn end(&mut self) {
        count(false);
    }
    fn note(&mut self, _: base::Instant, _: Call, _: u32) {}
}

/// How long, how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub warm_up: Duration,
    pub measured: Duration,
    pub repetitions: usize,
}

/// All repetitions of one setup.
pub struct Recording {
    pub made: Vec<Made>,
    /// Of each call the shortest time of all repetitions, nanoseconds: what the call costs when
    /// nobody else takes the processor.
    pub shortest: Vec<f64>,
    /// Of each repetition all times, nanoseconds.
    pub raw: Vec<Vec<f64>>,
    /// Answers of the frame index in the measured time.
    pub answers: u64,
    /// Virtual seconds measured.
    pub seconds: f64,
    /// The first desired state, from nothing, and the same once more in the middle of work: the
    /// shortest, nanoseconds.
    pub desired: (f64, f64),
}

/// Runs `setup` as often as planned.
pub fn record(setup: &Setup, config: &Config, plan: Plan, clock: &Clock) -> Recording {
    let mut made: Vec<Made> = Vec::new();
    let mut shortest: Vec<f64> = Vec::new();
    let mut raw = Vec::new();
    let mut answers = 0;
    let mut desired = (f64::MAX, f64::MAX);
    for repetition in 0..plan.repetitions {
        let room = if repetition == 0 { 1 << 20 } else { made.len() + 1 };
        let nothing = Made { call: Call::Other, members: 0, at: 0 };
        let mut recorder = Recorder {
            on: true,
            begun: 0,
            ticks: 0,
            made: vec![nothing; room],
            times: vec![0; room],
        };
        recorder.made.clear();
        recorder.times.clear();
        let mut world = BareWorld::new(setup, config.clone(), recorder);
        desired.0 = desired.0.min(clock.ns(u64::from(world.probe.times[0])));
        world.probe.on = false;
        world.run_until(BEGIN + plan.warm_up);
        world.probe.on = true;
        world.probe.made.clear();
        world.probe.times.clear();
        let before = world.index.answers;
        world.run_until(BEGIN + plan.warm_up + plan.measured);
        answers = world.index.answers - before;
        let times: Vec<f64> = world.probe.times.iter().map(|t| clock.ns(u64::from(*t))).collect();
        world.probe.times.clear();
        world.probe.made.truncate(times.len());
        if repetition == 0 {
            made = std::mem::take(&mut world.probe.made);
            shortest.clone_from(&times);
        } else {
            assert_eq!(made, world.probe.made, "two runs of one setup differ");
            for (least, time) in shortest.iter_mut().zip(&times) {
                *least = least.min(*time);
            }
        }
        raw.push(times);
        world.desire_again();
        desired.1 = desired.1.min(clock.ns(u64::from(world.probe.times[0])));
    }
    let seconds = plan.measured.as_secs_f64();
    Recording { made, shortest, raw, answers, seconds, desired }
}

/// Allocations within the core in the measured time, and the results of that time.
pub fn allocations(setup: &Setup, config: &Config, plan: Plan) -> Counts {
    let mut world = BareWorld::new(setup, config.clone(), AllocationProbe);
    world.run_until(BEGIN + plan.warm_up);
    let before = counts();
    world.run_until(BEGIN + plan.warm_up + plan.measured);
    counts().since(before)
}

/// Nanoseconds of one answer of the frame index, cameras in random order, caches warm.
pub fn index_cost(index: &BareIndex, cameras: u32, clock: &Clock) -> f64 {
    const ANSWERS: u32 = 100_000;
    let mut index = index.clone();
    let mut least = f64::MAX;
    for _ in 0..5 {
        let mut random = scheduler_sim::Random::new(1, 1);
        let keys: Vec<_> =
            (0..1024).map(|_| CameraKey(random.below(u64::from(cameras)) as u32)).collect();
        let asked: &mut dyn FrameIndex = black_box(&mut index);
        let begin = ticks();
        for i in 0..ANSWERS {
            black_box(asked.newest(keys[(i % 1024) as usize]));
        }
        least = least.min(clock.ns(ticks() - begin) / f64::from(ANSWERS));
    }
    least
}

/// The index of a world of this setup, a second after its beginning.
pub fn index_of(setup: &Setup) -> BareIndex {
    let world = BareWorld::new(setup, Config::default(), AllocationProbe);
    let mut index = world.index.clone();
    index.now = BEGIN + Duration::from_secs(1);
    index
}
