//! A workload as a world, and what changes in it as time passes.

use super::{CameraGroup, ModelGroup, Start, Workload, at, ms};
use crate::camera::CameraModel;
use crate::policy::Policy;
use crate::random::Random;
use crate::runner::{Fault, RunnerModel};
use crate::world::World;
use base::Instant;
use scheduler::{Config, Scheduler, SubscriptionKey, SubscriptionSpec};
use std::collections::BTreeMap;
use std::time::Duration;

/// The random stream of the cameras' phases; entities of a world have their own above 1,000,000.
const CAMERAS: u64 = 0;
const BEGINNINGS: u64 = 1;
const CHURN: u64 = 2;
const CLASSES: u64 = 3;
const DROPOUTS: u64 = 4;
/// A random start falls into at most this many instants (chosen: 4 ms apart in a second).
const BEGINNINGS_MAX: u64 = 250;

/// A result of a [`Play`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Which assignment: the place of its [`Share`].
    pub assignment: usize,
    /// When it was received.
    pub at: Instant,
    /// Age of its frame then.
    pub age: Duration,
}

/// What there is to know of one assignment.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// Camera, model, ceiling and weight.
    pub spec: SubscriptionSpec,
    /// Most frames per second that it can get: its ceiling, or every frame.
    pub rate: f64,
}

/// A world and the changes of assignments that are still to come.
pub struct Play<P: Policy = Scheduler> {
    /// The world.
    pub world: World<P>,
    /// The model group of each of the world's runners.
    pub runner_models: Vec<usize>,
    /// Everything that may be assigned, in order.
    pub shares: Vec<Share>,
    outcomes: Vec<Outcome>,
    numbers: BTreeMap<SubscriptionKey, Option<usize>>,
    by_id: BTreeMap<String, usize>,
    /// Whether it is assigned now, and since when.
    pub(super) active: Vec<Option<Instant>>,
    /// How long it was assigned until `active` began.
    present: Vec<Duration>,
    changes: BTreeMap<Instant, Vec<Change>>,
    random: Random,
    /// As many are kept assigned on the mean.
    pub(super) wanted: usize,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Begin(usize),
    End(usize),
    Churn,
}

impl Workload {
    /// Builds the world with the settings of the workload.
    pub fn play(&self, seed: u64) -> Play {
        self.play_with(self.config(), seed)
    }

    /// The world at its start, without the changes of assignments that come later.
    pub fn world(&self, seed: u64) -> World {
        self.play(seed).world
    }

    /// Builds the world with other settings of the production policy.
    pub fn play_with(&self, config: Config, seed: u64) -> Play {
        self.play_policy(Scheduler::new(config.clone()), config, seed)
    }

    /// Builds the world around any policy.
    pub fn play_policy<P: Policy>(&self, policy: P, config: Config, seed: u64) -> Play<P> {
        let mut world = World::with(policy, config, seed);
        let mut play = Plan::new(self, seed);
        let mut random = Random::new(seed, CAMERAS);
        let mut number = 0;
        for group in &self.camera {
            for in_group in 0..group.count {
                let id = format!("c{number:05}");
                world.camera(&id, group.camera(number, &mut random, self.seconds_in_all(), seed));
                play.watch(group, &id, in_group);
                number += 1;
            }
        }
        for (index, model) in self.model.iter().enumerate() {
            for device in model.device_names() {
                play.runner_models.push(index);
                world.runner(Instant::ZERO, model.runner(device, self.seconds_in_all()));
            }
        }
        play.begin(world)
    }

    fn seconds_in_all(&self) -> f64 {
        self.warm_up_s + self.seconds
    }
}

impl CameraGroup {
    fn camera(&self, number: u64, random: &mut Random, seconds: f64, seed: u64) -> CameraModel {
        let period = Duration::from_secs_f64(1.0 / self.fps);
        let share = random.unit();
        let drift = random.range(-1.0, 1.0) * self.drift_ppm;
        let mut outages: Vec<_> = self.outages_s.iter().map(|(f, t)| (at(*f), at(*t))).collect();
        let mut random = Random::new(seed, (DROPOUTS << 32) + number);
        for minute in 0..(seconds / 60.0).ceil() as u32 {
            if random.unit() < self.dropouts_per_min {
                let from = 60.0 * (f64::from(minute) + random.unit());
                let to = ((from + 2.0) / self.storm_s).ceil() * self.storm_s;
                if outages.last().is_none_or(|(_, back)| *back <= at(from)) {
                    outages.push((at(from), at(to)));
                }
            }
        }
        CameraModel {
            fps: self.fps,
            phase: if self.aligned { Duration::ZERO } else { period.mul_f64(share) },
            delay: ms(self.delay_ms),
            jitter: ms(self.jitter_ms),
            drift_ppm: drift,
            slots: 30,
            outages,
        }
    }
}

impl ModelGroup {
    fn runner(&self, device: &str, seconds: f64) -> RunnerModel {
        let mut faults = Vec::new();
        faults.extend(self.hang_at_s.map(|s| Fault::Hang(at(s))));
        faults.extend(self.slow_s.map(|(f, t, n)| Fault::Slow(at(f), at(t), n)));
        if let Some((first, back)) = self.crash_s {
            let every = self.crash_every_s.unwrap_or(f64::INFINITY);
            let crashes = (0..).map(|n| if n == 0 { first } else { first + f64::from(n) * every });
            let back = Some(Duration::from_secs_f64(back));
            faults.extend(crashes.take_while(|s| *s < seconds).map(|s| Fault::Crash(at(s), back)));
        }
        RunnerModel {
            model: self.name.parse().expect("checked by parse"),
            device: device.parse().expect("checked by parse"),
            gpu: self.gpu,
            alpha: ms(self.alpha_ms),
            beta: ms(self.beta_ms),
            profile: self.table_ms.iter().map(|(b, l)| (*b, ms(*l))).collect(),
            batch_max: self.batch_max,
            deadline: ms(self.deadline_ms),
            copy: ms(self.copy_ms),
            postprocess: ms(self.postprocess_ms),
            noise: self.noise,
            spikes: self.spikes,
            measured: !self.unmeasured,
            restates: self.restates,
            faults,
        }
    }
}

/// Gathers what will be assigned when.
struct Plan<'a> {
    workload: &'a Workload,
    runner_models: Vec<usize>,
    shares: Vec<Share>,
    /// Whether it is there at the start.
    there: Vec<bool>,
    changes: BTreeMap<Instant, Vec<Change>>,
    beginnings: Random,
    /// Comings and goings of each class that does, in seconds; it is there at the start.
    classes: BTreeMap<(String, u64), Vec<f64>>,
    seed: u64,
}

impl<'a> Plan<'a> {
    fn new(workload: &'a Workload, seed: u64) -> Plan<'a> {
        Plan {
            workload,
            runner_models: Vec::new(),
            shares: Vec::new(),
            there: Vec::new(),
            changes: BTreeMap::new(),
            beginnings: Random::new(seed, BEGINNINGS),
            classes: BTreeMap::new(),
            seed,
        }
    }

    fn watch(&mut self, group: &CameraGroup, camera: &str, in_group: u32) {
        for watch in &group.watch {
            let until = |n: u32| (f64::from(n) * watch.share + 1e-9).floor();
            let has = until(in_group + 1) > until(in_group);
            if !has && self.workload.churn_per_s == 0.0 {
                continue;
            }
            let mut spec = World::subscription(camera, &watch.model, Some(watch.fps));
            spec.weight = watch.weight;
            let index = self.shares.len();
            self.shares.push(Share { spec, rate: watch.fps.min(group.fps) });
            let draw = self.beginnings.below(BEGINNINGS_MAX) as f64 / BEGINNINGS_MAX as f64;
            let begin = match self.workload.start {
                Start::Aligned => 0.0,
                Start::Random => draw * self.workload.start_s,
            };
            self.there.push(has && begin == 0.0);
            if has && begin > 0.0 {
                self.change(begin, Change::Begin(index));
            }
            if let Some(present) = watch.present_s {
                for (n, second) in
                    self.class(&watch.model, group.count, present).into_iter().enumerate()
                {
                    let change = if n % 2 == 0 { Change::End(index) } else { Change::Begin(index) };
                    self.change(second, change);
                }
            }
        }
    }

    fn change(&mut self, second: f64, change: Change) {
        self.changes.entry(at(second)).or_default().push(change);
    }

    /// When the class ends, begins, ends and so on.
    fn class(&mut self, model: &str, count: u32, (there, away): (f64, f64)) -> Vec<f64> {
        let number = self.classes.len() as u64;
        let seconds = self.workload.seconds_in_all();
        let seed = self.seed;
        let times = self.classes.entry((model.to_owned(), u64::from(count))).or_insert_with(|| {
            let mut random = Random::new(seed, (CLASSES << 32) + number);
            let (mut now, mut times) = (0.0, Vec::new());
            loop {
                let mean = if times.len() % 2 == 0 { there } else { away };
                now += -mean * (1.0 - random.unit()).ln();
                if now >= seconds {
                    return times;
                }
                times.push(now);
            }
        });
        times.clone()
    }

    fn begin<P: Policy>(mut self, mut world: World<P>) -> Play<P> {
        let per_s = self.workload.churn_per_s;
        if per_s > 0.0 {
            // After the start, evenly spread.
            let count = ((self.workload.seconds_in_all() - 2.0) * per_s) as u32;
            for n in 0..count {
                self.change(2.0 + f64::from(n) / per_s, Change::Churn);
            }
        }
        let there = self.shares.iter().zip(&self.there).filter(|(_, t)| **t);
        world.subscribe(there.map(|(s, _)| s.spec.clone()).collect());
        let begins = self.changes.values().flatten().filter(|c| matches!(c, Change::Begin(_)));
        Play {
            world,
            wanted: self.there.iter().filter(|t| **t).count() + begins.count(),
            active: self.there.iter().map(|t| t.then_some(Instant::ZERO)).collect(),
            present: vec![Duration::ZERO; self.shares.len()],
            by_id: self.shares.iter().enumerate().map(|(i, s)| (s.spec.id.clone(), i)).collect(),
            runner_models: self.runner_models,
            shares: self.shares,
            outcomes: Vec::new(),
            numbers: BTreeMap::new(),
            changes: self.changes,
            random: Random::new(self.seed, CHURN),
        }
    }
}

impl<P: Policy> Play<P> {
    /// Runs until `end`, with all changes until then.
    pub fn run_until(&mut self, end: Instant) {
        while let Some(next) = self.changes.first_entry() {
            let now = *next.key();
            if now > end {
                break;
            }
            let changes = next.remove();
            self.world.run_until(now);
            self.gather();
            for change in changes {
                self.change(now, change);
            }
            let active = self.shares.iter().zip(&self.active).filter(|(_, a)| a.is_some());
            self.world.subscribe(active.map(|(s, _)| s.spec.clone()).collect());
        }
        self.world.run_until(end);
        self.gather();
    }

    /// The results since this was last asked.
    pub fn outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// Takes the results over while the policy still knows whose they are.
    fn gather(&mut self) {
        for delivered in std::mem::take(&mut self.world.delivered) {
            let key = delivered.binding.subscription;
            let (scheduler, by_id) = (&self.world.scheduler, &self.by_id);
            let find = || scheduler.subscription_id(key).and_then(|id| by_id.get(id)).copied();
            let assignment = *self.numbers.entry(key).or_insert_with(find);
            if let Some(assignment) = assignment {
                let (at, age) = (delivered.received, delivered.age);
                self.outcomes.push(Outcome { assignment, at, age });
            }
        }
    }

    /// For how many seconds each assignment was there so far.
    pub fn presence(&self) -> Vec<f64> {
        let now = self.world.now();
        let of = |i: usize| {
            let since = self.active[i].map_or(Duration::ZERO, |since| now - since);
            (self.present[i] + since).as_secs_f64()
        };
        (0..self.shares.len()).map(of).collect()
    }

    fn change(&mut self, now: Instant, change: Change) {
        match change {
            Change::Begin(i) => {
                self.active[i].get_or_insert(now);
            }
            Change::End(i) => {
                if let Some(since) = self.active[i].take() {
                    self.present[i] += now - since;
                }
            }
            Change::Churn => self.churn(now),
        }
    }

    /// One change: an assignment is added, removed, or given to another model of its camera, so
    /// that their number stays about the same.
    fn churn(&mut self, now: Instant) {
        let count = self.active.iter().filter(|a| a.is_some()).count();
        let adds = self.random.unit() < if count < self.wanted { 0.5 } else { 0.15 };
        if adds {
            if let Some(i) = self.pick(|_, active| !active) {
                self.change(now, Change::Begin(i));
            }
            return;
        }
        let Some(i) = self.pick(|_, active| active) else { return };
        self.change(now, Change::End(i));
        let camera = self.shares[i].spec.camera.clone();
        if self.random.unit() < 0.5
            && let Some(other) = self.pick(|s, active| !active && s.camera == camera)
            && other != i
        {
            self.change(now, Change::Begin(other));
        }
    }

    fn pick(&mut self, of: impl Fn(&SubscriptionSpec, bool) -> bool) -> Option<usize> {
        let all = self.shares.iter().zip(&self.active).enumerate();
        let some = all.filter(|(_, (s, a))| of(&s.spec, a.is_some())).map(|(i, _)| i);
        let some: Vec<usize> = some.collect();
        (!some.is_empty()).then(|| some[self.random.below(some.len() as u64) as usize])
    }
}
