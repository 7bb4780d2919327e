//! One run of a bare world with every call into the core timed, and what several such runs say.

use benches::counting_allocator::{Counts, count, counts};
use benches::ticks::{empty_pair, ticks};
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
    /// Of every 16th call: what reading the clock cost just then.
    empty: Vec<u32>,
}

impl Recorder {
    fn clear(&mut self) {
        self.made.clear();
        self.times.clear();
        self.empty.clear();
    }

    /// Nanoseconds of all calls since `from`, less what reading the clock costs; and that.
    fn times(&self, ns_per_tick: f64, from: usize) -> (Vec<f64>, f64) {
        let mut empty = self.empty.clone();
        empty.sort_unstable();
        let reading = empty.get(empty.len() / 2).copied().unwrap_or_default();
        let ns = |t: &u32| f64::from(t.saturating_sub(reading)) * ns_per_tick;
        (self.times[from..].iter().map(ns).collect(), f64::from(reading) * ns_per_tick)
    }
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
            if self.times.len() % 16 == 1 {
                self.empty.push(u32::try_from(empty_pair()).unwrap_or(u32::MAX));
            }
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

/// Looks away.
struct Unread;

impl Probe for Unread {
    fn begin(&mut self) {}
    fn end(&mut self) {}
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
    /// Reading the clock before and after a call, already subtracted: of each repetition,
    /// nanoseconds.
    pub reading_ns: Vec<f64>,
    /// Virtual seconds measured.
    pub seconds: f64,
    /// The first desired state, from nothing, and the same once more in the middle of work: the
    /// shortest, nanoseconds.
    pub desired: (f64, f64),
}

/// Runs `setup` as often as planned.
pub fn record(setup: &Setup, config: &Config, plan: Plan, ns_per_tick: f64) -> Recording {
    let mut out = Recording {
        made: Vec::new(),
        shortest: Vec::new(),
        raw: Vec::new(),
        answers: 0,
        reading_ns: Vec::new(),
        seconds: plan.measured.as_secs_f64(),
        desired: (f64::MAX, f64::MAX),
    };
    let (begin, end) = (BEGIN + plan.warm_up, BEGIN + plan.warm_up + plan.measured);
    for repetition in 0..plan.repetitions {
        let room = if repetition == 0 { 1 << 20 } else { out.made.len() + 1 };
        let nothing = Made { call: Call::Other, members: 0, at: 0 };
        let mut recorder = Recorder {
            on: true,
            begun: 0,
            ticks: 0,
            made: vec![nothing; room],
            times: vec![0; room],
            empty: vec![0; room / 16 + 1],
        };
        recorder.clear();
        let mut world = BareWorld::new(setup, config.clone(), recorder);
        out.desired.0 = out.desired.0.min(world.probe.times(ns_per_tick, 0).0[0]);
        world.probe.on = false;
        world.run_until(begin);
        world.probe.on = true;
        world.probe.clear();
        let before = world.index.answers;
        world.run_until(end);
        out.answers = world.index.answers - before;
        let (times, reading) = world.probe.times(ns_per_tick, 0);
        if repetition == 0 {
            out.made.clone_from(&world.probe.made);
            out.shortest.clone_from(&times);
        } else {
            assert_eq!(out.made, world.probe.made, "two runs of one setup differ");
            for (least, time) in out.shortest.iter_mut().zip(&times) {
                *least = least.min(*time);
            }
        }
        out.raw.push(times);
        out.reading_ns.push(reading);
        world.desire_again();
        let again = world.probe.times(ns_per_tick, out.made.len()).0[0];
        out.desired.1 = out.desired.1.min(again);
    }
    out
}

/// The measured time without a reading of the clock within, core and world together: an upper
/// bound that no fence has a part in. Of as many runs as there are repetitions the shortest, in
/// nanoseconds.
pub fn unread(setup: &Setup, config: &Config, plan: Plan, ns_per_tick: f64) -> f64 {
    let run = |_| {
        let mut world = BareWorld::new(setup, config.clone(), Unread);
        world.run_until(BEGIN + plan.warm_up);
        let begun = ticks();
        world.run_until(BEGIN + plan.warm_up + plan.measured);
        (ticks() - begun) as f64 * ns_per_tick
    };
    (0..plan.repetitions).map(run).fold(f64::MAX, f64::min)
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
pub fn index_cost(index: &BareIndex, cameras: u32, ns_per_tick: f64) -> f64 {
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
        least = least.min((ticks() - begin) as f64 * ns_per_tick / f64::from(ANSWERS));
    }
    least
}

/// The index of a world of this setup, a second after its beginning.
pub fn index_of(setup: &Setup) -> BareIndex {
    let world = BareWorld::new(setup, Config::default(), Unread);
    let mut index = world.index.clone();
    index.now = BEGIN + Duration::from_secs(1);
    index
}
