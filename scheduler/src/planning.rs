//! The planner at work: what each model needs is measured, devices are divided, cohorts formed.
//!
//! Runs per model, once per interval and when something changed, between two decisions. The rules
//! themselves are pure: [`crate::plan`], [`crate::timetable`], [`crate::cohort`].

use crate::cohort::{Assignment, Steered};
use crate::device::{DeviceIx, ModelIx};
use crate::machine::Scheduler;
use crate::plan::{Cyclic, Demand, Division, Launches};
use crate::runner::{Runner, RunnerIx, RunnerState};
use crate::subscription::{Subscription, SubscriptionState};
use crate::timetable::{Course, Timetable};
use crate::trial::Circumstances;
use crate::{Steering, SubscriptionKey};
use base::Instant;
use std::time::Duration;

/// Overload ends when the load has fallen below this share of what made it begin (chosen).
const RELIEF: f64 = 0.97;
/// Frames per period beyond this leave nothing to choose that a cohort would improve (chosen).
const FRAMES_MAX: f64 = 300.0;
/// `F / r` may be this far from a whole number for frames to land at the same places in each period
/// (chosen: a frame slips into the next cohort after a hundred periods at most).
const WHOLE: f64 = 0.01;
/// Of the frames of a model at least these must be steerable (chosen).
const STEERED_SHARE_MIN: f64 = 0.5;
/// A timetable is kept while intervals and lengths stay within this (chosen).
const KEEP: f64 = 0.10;
/// Plans in a row that must differ before the timetable is changed: a change costs every
/// subscription a frame (chosen).
const MISFITS: u32 = 3;
/// Of a frame period, what arrivals may be in doubt of: beyond it a frame is chosen blindly (chosen: gains
/// are lost at half of it, and the trial decides).
const DOUBT_MAX: f64 = 1.0 / 8.0;
/// Load below which frames wait for nobody, and a trial would only cost frames (chosen).
const LOAD_MIN: f64 = 0.1;
/// Periods between two moves of a gate that give up frames (chosen: at most 2 % are lost).
const SHIFT_EVERY: u32 = 50;
/// So many moves may follow each other at once (chosen: when steering begins a timetable is made
/// and made again for its cohorts).
const SHIFTS_SAVED: u32 = 3;
/// Gates are moved to stay before their frame when they are off by more than this share of a frame
/// period (chosen).
const GATE_SLACK: u64 = 16;

/// What a model's subscriptions need.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    /// Frames per second at the ceiling.
    pub rate: f64,
    /// Mean of max fps / source fps, by rate.
    pub freedom: f64,
    /// Mean seconds from capture to publication, by rate.
    pub delay: f64,
    /// Mean seconds by which arrivals are in doubt, by rate, and the same in frame periods.
    pub doubt: f64,
    pub blindness: f64,
    /// Shortest deadline, seconds.
    pub deadline: f64,
    /// The interval that most steerable frames share, nanoseconds; 0 = none can be steered.
    pub period: u64,
    /// Frames that a camera gives in it.
    pub frames: u32,
}

/// A steered model's part of its device's timetable.
#[derive(Debug)]
pub(crate) struct Cohorts {
    pub course: Course,
    /// When each launch commits, into the period: it begins a preparation later.
    pub commits: Vec<u64>,
    /// The same in rising order.
    sorted: Vec<u64>,
    /// Plans in a row that it does not follow.
    misfits: u32,
    /// Its launches stand as long as their cohorts need.
    fitted: Fitted,
}

impl Cohorts {
    /// New ones in the memory of `before`.
    fn begin(course: Course, before: Option<Cohorts>) -> Cohorts {
        let (mut commits, mut sorted, mut lengths) =
            before.map_or_else(Default::default, |c| (c.commits, c.sorted, c.course.lengths));
        commits.clear();
        sorted.clear();
        lengths.clear();
        let course = Course { lengths, ..course };
        Cohorts { course, commits, sorted, misfits: 0, fitted: Fitted::New }
    }

    /// The first commit of `launch` at or after `at`.
    fn commit_from(&self, launch: u32, at: Instant) -> Instant {
        let period = self.course.period;
        let offset = self.commits[launch as usize];
        let turns = at.0.saturating_sub(offset).div_ceil(period);
        Instant(offset + turns * period)
    }

    /// Mean members of a launch at this rate.
    pub fn crowd(&self, rate: f64) -> f64 {
        rate * self.course.period as f64 / 1e9 / f64::from(self.course.launches)
    }

    /// The first commit of any launch after `now`.
    pub fn next_commit(&self, now: Instant) -> Instant {
        let period = self.course.period;
        let (turn, within) = (now.0 / period * period, now.0 % period);
        let at = self.sorted.partition_point(|c| *c <= within);
        match self.sorted.get(at) {
            Some(offset) => Instant(turn + offset),
            None => Instant(turn + period + self.sorted.first().copied().unwrap_or(0)),
        }
    }
}

/// How far a timetable knows its cohorts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fitted {
    /// Made for equal launches; nobody is taken for them yet.
    New,
    /// Cohorts were formed around it.
    Formed,
    /// Made again for these cohorts.
    Done,
}

/// The largest batch that is in time even when it takes as long as rarely one does. Half the choice
/// of frames that other batches leave to the fair order: what is small costs more.
fn careful(r: &Runner, demand: Demand) -> u32 {
    let batch = r.share.batch.max(1.0) as u32;
    match (r.watch.usual(batch), r.watch.rare(batch)) {
        (Some(usual), Some(rare)) if !usual.is_zero() => {
            let longer = (rare.as_secs_f64() / usual.as_secs_f64()).max(1.0);
            let (patience, freedom) = (demand.patience / longer, demand.freedom / longer / 2.0);
            Demand { patience, freedom, ..demand }.batch_in_time()
        }
        _ => r.share.batch_max,
    }
}

impl Scheduler {
    /// Plans the models whose time has come.
    pub(crate) fn plan_due(&mut self) {
        if self.plan_at > self.now {
            return;
        }
        for model in (0..self.models.len()).map(ModelIx) {
            if self.models[model.0].plan_at <= self.now {
                self.plan_model(model);
                // Models take turns within the interval.
                self.models[model.0].plan_at = self.now + self.config.replan_interval;
            }
        }
        let next = self.models.iter().map(|m| m.plan_at).min();
        self.plan_at = next.unwrap_or(Instant::FAR);
    }

    /// The model is planned at the next poll.
    pub(crate) fn plan_soon(&mut self, model: ModelIx) {
        self.models[model.0].plan_at = self.now;
        self.plan_at = self.now;
    }

    fn plan_model(&mut self, model: ModelIx) {
        self.measure(model);
        self.check_promises(model);
        for i in 0..self.models[model.0].devices.len() {
            let device = self.models[model.0].devices[i];
            self.plan_device(device);
            self.conclude_trial(device);
        }
        match self.course(model) {
            Some(course) => {
                let kept = self.models[model.0].cohorts.as_mut().is_some_and(|c| {
                    let near = |a: f64, b: f64| (a - b).abs() <= KEEP * b;
                    let fits = near(course.interval(), c.course.interval())
                        && near(course.length as f64, c.course.length as f64);
                    c.misfits = if fits { 0 } else { c.misfits + 1 };
                    c.course.period == course.period && c.misfits < MISFITS
                });
                if !kept {
                    let before = self.models[model.0].cohorts.take();
                    let before = before.or_else(|| self.models[model.0].ended.take());
                    self.models[model.0].cohorts = Some(Cohorts::begin(course, before));
                    self.arrange(self.models[model.0].devices[0]);
                }
                self.form_cohorts(model);
            }
            None if self.models[model.0].cohorts.is_some() => self.spread_evenly(model),
            None => {}
        }
    }

    /// What the active subscriptions of a model need.
    fn measure(&mut self, model: ModelIx) {
        let mut wanted = Wanted { deadline: f64::MAX, ..Wanted::default() };
        let deadline = self.models[model.0].runners.iter().find_map(|r| self.runner(*r));
        let deadline = deadline.map_or(base::limits::DEADLINE_DEFAULT, |r| r.info.deadline);
        let mut classes = std::mem::take(&mut self.scratch.classes);
        classes.clear();
        for i in 0..self.models[model.0].subscriptions.len() {
            let key = self.models[model.0].subscriptions[i];
            let Some(s) = self.subscriptions.get_mut(key) else { continue };
            let camera = &self.cameras[s.camera.0 as usize];
            let fps = camera.fps();
            s.set_source(fps);
            if s.state != SubscriptionState::Active || camera.absent.is_some() || fps <= 0.0 {
                continue;
            }
            let rate = s.rate(fps);
            wanted.rate += rate;
            wanted.freedom += rate * rate / fps;
            wanted.delay += rate * camera.delay().as_secs_f64();
            wanted.doubt += rate * camera.guard_ns() as f64 / 1e9;
            wanted.blindness += rate * camera.guard_ns() as f64 / 1e9 * fps;
            let limit = s.deadline.unwrap_or(deadline).as_secs_f64();
            wanted.deadline = wanted.deadline.min(limit);
            let Some((interval, frames)) = class_of(s.interval(), fps) else { continue };
            match classes.iter_mut().find(|(i, f, _)| (*i, *f) == (interval, frames)) {
                Some((.., sum)) => *sum += rate,
                None => classes.push((interval, frames, rate)),
            }
        }
        if wanted.rate > 0.0 {
            wanted.freedom /= wanted.rate;
            wanted.delay /= wanted.rate;
            wanted.doubt /= wanted.rate;
            wanted.blindness /= wanted.rate;
        }
        let largest = classes.iter().max_by(|a, b| a.2.total_cmp(&b.2));
        if let Some((period, frames, rate)) = largest
            && *rate >= STEERED_SHARE_MIN * wanted.rate
        {
            wanted.period = *period;
            wanted.frames = *frames;
        }
        self.scratch.classes = classes;
        self.models[model.0].wanted = wanted;
    }

    /// Divides a device among the models with a runner on it.
    fn plan_device(&mut self, device: DeviceIx) {
        self.note_minded(device);
        let usable = self.config.usable_share * f64::from(self.devices[device.0].capacity);
        let mut demands = std::mem::take(&mut self.scratch.demands);
        demands.clear();
        for i in 0..self.devices[device.0].runners.len() {
            let ix = self.devices[device.0].runners[i];
            let Some(r) = self.runner(ix) else { continue };
            let model = &self.models[r.model.0];
            let wanted = &model.wanted;
            let demoted = r.yields();
            let line = r.planned_line();
            let (alpha, beta) = line.unwrap_or_default();
            let batch = r.share.batch.max(1.0) as u32;
            // In overload of one model a few results may be late: the largest batch is one that is usually in time.
            let overloaded = self.overloaded_alone(device);
            let longest = if overloaded { r.watch.usual(batch) } else { r.watch.p99(batch) };
            let spread = match (r.watch.p50(batch), longest) {
                (Some(p50), Some(longest)) if !p50.is_zero() && !demoted => {
                    (longest.as_secs_f64() / p50.as_secs_f64()).max(1.0)
                }
                _ => 1.0,
            };
            let way = r.answer_time(0, r.info.gpu).as_secs_f64();
            demands.push(Demand {
                alpha,
                beta,
                rate: line.map_or(0.0, |_| wanted.rate * self.part(ix)),
                freedom: wanted.freedom,
                steered: model.cohorts.is_some(),
                patience: (wanted.deadline - wanted.delay - way).max(0.0) / spread,
                batch_max: r.paying,
            });
        }
        let mut division = std::mem::take(&mut self.scratch.division);
        division.divide(&demands, usable);
        let mut at = 0;
        for i in 0..self.devices[device.0].runners.len() {
            let ix = self.devices[device.0].runners[i];
            let Some(r) = self.runners.get_mut(ix.0).and_then(Option::as_mut) else { continue };
            r.share = division.shares[at];
            r.careful_max = careful(r, demands[at]);
            r.plan_budget(demands[at].load(f64::from(r.share.batch_max)));
            at += 1;
        }
        let load = division.load;
        self.scratch.demands = demands;
        self.scratch.division = division;
        let d = &mut self.devices[device.0];
        d.load = load / f64::from(d.capacity);
        let limit = if d.overloaded { RELIEF * usable } else { usable };
        d.overloaded = load > limit;
    }

    /// Whether the device is steered from now on; a change is everybody's at once.
    fn conclude_trial(&mut self, device: DeviceIx) {
        let d = &self.devices[device.0];
        let mut at =
            Circumstances { load: d.load, possible: !d.overloaded, ..Circumstances::default() };
        let (mut rate, mut blindness, mut any) = (0.0, 0.0, false);
        for ix in &d.runners {
            let Some(r) = self.runner(*ix) else { continue };
            let wanted = &self.models[r.model.0].wanted;
            at.runners += 1;
            at.doubt += wanted.rate * wanted.doubt;
            blindness += wanted.rate * wanted.blindness;
            rate += wanted.rate;
            any |= self.could_be_steered(*ix);
        }
        at.doubt /= f64::max(rate, 1e-9);
        at.possible &= any && at.load >= LOAD_MIN && blindness <= DOUBT_MAX * rate;
        let now = self.now;
        let changed = self.devices[device.0].trial.conclude(now, at);
        if changed && self.config.steering == Steering::Auto {
            for i in 0..self.devices[device.0].models.len() {
                let model = self.devices[device.0].models[i];
                self.plan_soon(model);
            }
        }
    }

    /// Which part of its model's frames a runner is to take: all of them, or by the room that its
    /// device has.
    fn part(&self, ix: RunnerIx) -> f64 {
        let Some(r) = self.runner(ix) else { return 0.0 };
        let runners = &self.models[r.model.0].runners;
        if runners.len() < 2 {
            return 1.0;
        }
        // Room: what the device would have left without this model, at least a little.
        let room = |ix: &RunnerIx| {
            self.runner(*ix).map_or(0.0, |r| {
                let device = &self.devices[r.device.0];
                let (alpha, beta) = r.watch.line().unwrap_or((0.0, 1e-3));
                let own = r.share.batch / r.share.interval.max(1e-9);
                let frame = alpha / r.share.batch.max(1.0) + beta;
                let capacity = f64::from(device.capacity);
                let others = (device.load * capacity - own.min(1e6) * frame).max(0.0);
                ((capacity - others).max(0.05 * capacity)) / frame.max(1e-9)
            })
        };
        let all: f64 = runners.iter().map(room).sum();
        if all > 0.0 { room(&ix) / all } else { 0.0 }
    }

    /// The launches that a model should have, when it is to be steered.
    fn course(&mut self, model: ModelIx) -> Option<Course> {
        let [ix] = self.models[model.0].runners[..] else { return None };
        let device = self.runner(ix)?.device;
        if !self.to_be_steered(ix) {
            return None;
        }
        let mut cyclic = std::mem::take(&mut self.scratch.cyclic);
        cyclic.clear();
        let usable = self.config.usable_share * f64::from(self.devices[device.0].capacity);
        let mut spare = usable;
        let mut own = 0;
        for other in &self.devices[device.0].runners {
            let Some(r) = self.runner(*other) else { continue };
            let wanted = &self.models[r.model.0].wanted;
            let Some((alpha, beta)) = r.planned_line() else { continue };
            let demand = Demand {
                alpha,
                beta,
                rate: wanted.rate * self.part(*other),
                freedom: wanted.freedom,
                steered: true,
                patience: 0.0,
                batch_max: r.paying,
            };
            if *other == ix {
                own = cyclic.len();
            }
            if self.to_be_steered(*other) {
                let period = wanted.period as f64 / 1e9;
                let batch_max = r.share.batch_max;
                let cohorts = self.models[r.model.0].cohorts.as_ref();
                let current = cohorts.filter(|c| c.course.period == wanted.period);
                cyclic.push(Cyclic {
                    period,
                    frames: wanted.frames,
                    demand,
                    batch_max,
                    current: current.map(|c| c.course.launches),
                });
            } else {
                spare -= demand.load(r.share.batch);
            }
        }
        self.scratch.launches.choose(&cyclic, spare);
        let launches = self.scratch.launches.chosen[own];
        let Cyclic { period, demand, .. } = cyclic[own];
        self.scratch.cyclic = cyclic;
        let batch = demand.rate * period / f64::from(launches);
        let length = (demand.alpha + demand.beta * batch.max(1.0)) * 1e9;
        let period_ns = self.models[model.0].wanted.period;
        let course =
            Course { period: period_ns, launches, length: length as u64, lengths: Vec::new() };
        Some(course)
    }

    /// Whether a runner's model is to be steered: its rates allow it, and it is wanted.
    fn to_be_steered(&self, ix: RunnerIx) -> bool {
        let Some(r) = self.runner(ix) else { return false };
        let wanted = match self.config.steering {
            Steering::Off => false,
            Steering::Auto => self.devices[r.device.0].trial.steers(),
            Steering::On => true,
        };
        wanted && self.could_be_steered(ix)
    }

    /// Whether its rates and its state allow it.
    fn could_be_steered(&self, ix: RunnerIx) -> bool {
        let Some(r) = self.runner(ix) else { return false };
        let m = &self.models[r.model.0];
        m.runners.len() == 1
            && m.wanted.period != 0
            && m.wanted.frames >= 2
            && m.wanted.rate > 0.0
            && !self.devices[r.device.0].overloaded
            && (r.state == RunnerState::Ready || (r.state == RunnerState::Demoted && !r.minded))
            && !r.watch.announced().is_empty()
    }

    /// Makes the timetable of a device anew.
    fn arrange(&mut self, device: DeviceIx) {
        let mut timetable = std::mem::take(&mut self.scratch.timetable);
        timetable.clear();
        for ix in &self.devices[device.0].runners {
            let Some(r) = self.runner(*ix) else { continue };
            if let Some(cohorts) = &self.models[r.model.0].cohorts {
                timetable.add(&cohorts.course);
            }
        }
        timetable.resolve(self.devices[device.0].capacity);
        let mut row = 0;
        for i in 0..self.devices[device.0].runners.len() {
            let Some(r) = self.runner(self.devices[device.0].runners[i]) else { continue };
            let lead = if r.info.gpu { r.lead(self.config.prepare_ahead) } else { Duration::ZERO };
            let model = r.model;
            let Some(cohorts) = &mut self.models[model.0].cohorts else { continue };
            let period = cohorts.course.period;
            let lead = base::time::nanos(lead) % period;
            cohorts.commits.clear();
            let starts = timetable.offsets(row).iter();
            cohorts.commits.extend(starts.map(|s| (s + period - lead) % period));
            row += 1;
            cohorts.sorted.clone_from(&cohorts.commits);
            cohorts.sorted.sort_unstable();
            // Whoever has no place yet finds one when its model is planned.
            if !self.models[model.0].subscriptions.is_empty() {
                self.models[model.0].plan_at = self.now;
                self.plan_at = self.now;
            }
        }
        self.scratch.timetable = timetable;
    }

    /// Puts the subscriptions of a model into cohorts and moves their gates before the frames that
    /// are taken.
    fn form_cohorts(&mut self, model: ModelIx) {
        let Some(mut cohorts) = self.models[model.0].cohorts.take() else { return };
        let period = cohorts.course.period;
        let mut steered = std::mem::take(&mut self.scratch.steered);
        let mut keys = std::mem::take(&mut self.scratch.keys);
        steered.clear();
        keys.clear();
        let launches = cohorts.commits.len() as u32;
        for i in 0..self.models[model.0].subscriptions.len() {
            let key = self.models[model.0].subscriptions[i];
            let Some(s) = self.subscriptions.get_mut(key) else { continue };
            let camera = &self.cameras[s.camera.0 as usize];
            let fits = s.state == SubscriptionState::Active
                && camera.predictable()
                && s.interval() == Some(Duration::from_nanos(period))
                && class_of(s.interval(), camera.fps()).is_some_and(|(_, n)| n >= 2);
            if !fits {
                s.cohort = None;
                continue;
            }
            let expected = camera.arrival_from(self.now).0.saturating_add(camera.guard_ns());
            steered.push(Steered {
                arrival: expected % period,
                frame_period: camera.period_ns() as u64,
                doubt: camera.guard_ns(),
                launch: s.cohort.filter(|c| *c < launches),
            });
            keys.push(key);
        }
        let mut assignment = std::mem::take(&mut self.scratch.assignment);
        assignment.assign(&steered, &cohorts.commits, period);
        if cohorts.fitted == Fitted::New
            && keys.len() * 10 >= self.models[model.0].subscriptions.len() * 9
        {
            cohorts.fitted = Fitted::Formed;
            let first = self.models[model.0].runners.first();
            let line = first.and_then(|ix| self.runner(*ix)?.planned_line());
            if let Some((alpha, beta)) = line {
                let length = |n: u32| ((alpha + beta * f64::from(n)) * 1e9) as u64;
                let lengths = assignment.crowd.iter().map(|n| if *n == 0 { 0 } else { length(*n) });
                cohorts.course.lengths.clear();
                cohorts.course.lengths.extend(lengths);
            }
        }
        self.models[model.0].cohorts = Some(cohorts);
        for (key, launch) in keys.iter().zip(&assignment.placed) {
            self.align(model, *key, *launch);
        }
        self.scratch.assignment = assignment;
        self.scratch.steered = steered;
        self.scratch.keys = keys;
        self.fit(model);
    }

    /// Once all models of a device have cohorts, its timetable is made again for these.
    fn fit(&mut self, model: ModelIx) {
        let Some(&device) = self.models[model.0].devices.first() else { return };
        let mut any = false;
        for i in 0..self.devices[device.0].runners.len() {
            let ix = self.devices[device.0].runners[i];
            let Some(of) = self.runner(ix).map(|r| r.model) else { continue };
            let Some(cohorts) = &self.models[of.0].cohorts else { continue };
            match cohorts.fitted {
                Fitted::New => return,
                Fitted::Formed => any = true,
                Fitted::Done => {}
            }
        }
        if !any {
            return;
        }
        for i in 0..self.devices[device.0].runners.len() {
            let ix = self.devices[device.0].runners[i];
            let Some(of) = self.runner(ix).map(|r| r.model) else { continue };
            if let Some(cohorts) = &mut self.models[of.0].cohorts {
                cohorts.fitted = Fitted::Done;
            }
        }
        self.arrange(device);
    }

    /// Takes a subscription's frames for a launch from now on: its gate moves on until it stands
    /// before the frame that lands right before the launch.
    fn align(&mut self, model: ModelIx, key: SubscriptionKey, launch: u32) {
        let Some(cohorts) = &self.models[model.0].cohorts else { return };
        let Some(s) = self.subscriptions.get_mut(key) else { return };
        let camera = &self.cameras[s.camera.0 as usize];
        if s.ready {
            // It waits for a device; its next frame is the one to choose.
            s.cohort = Some(launch);
            return;
        }
        let guard = Duration::from_nanos(camera.guard_ns());
        let moved = s.cohort != Some(launch);
        // Who stays may await a frame right now; who moves begins with the next frame.
        let from = if moved { s.gate.max(self.now) } else { s.gate };
        let first = camera.arrival_past(from);
        let commit = cohorts.commit_from(launch, first + guard);
        let arrival = camera.arrival_until(commit.back(guard));
        let half = Duration::from_nanos(camera.period_ns() as u64 / 2);
        let best = arrival.back(half);
        let slack = Duration::from_nanos(camera.period_ns() as u64 / GATE_SLACK);
        s.cohort = Some(launch);
        let mut late = best > s.gate + slack;
        if best > s.gate + half / 2 {
            // Time is given up, often a frame: seldom enough to stay near the ceiling.
            late = self.now >= s.details.shift_at;
            if late {
                let rest = Duration::from_nanos(cohorts.course.period) * SHIFT_EVERY;
                let shift_at = &mut s.details.shift_at;
                *shift_at = (*shift_at).max(self.now.back(rest * SHIFTS_SAVED)) + rest;
            }
        }
        if late {
            s.gate = best;
        }
        if moved || late {
            self.schedule(key);
        }
    }

    /// When a steered subscription's next frame is taken: the commit of its launch right after
    /// the first predicted frame that passes its gate. `None` = that frame misses the launch.
    pub(crate) fn next_commit(&self, s: &Subscription) -> Option<Instant> {
        let launch = s.cohort?;
        let cohorts = self.models[s.model.0].cohorts.as_ref()?;
        let camera = &self.cameras[s.camera.0 as usize];
        if !camera.predictable() || launch as usize >= cohorts.commits.len() {
            return None;
        }
        let arrival = camera.arrival_past(s.gate);
        let commit = cohorts.commit_from(launch, arrival);
        let wait = commit.0.saturating_sub(arrival.0) as f64;
        (commit > self.now && wait <= camera.period_ns()).then_some(commit)
    }

    /// Ends the steering of a model: its gates are spread evenly again.
    pub(crate) fn spread_evenly(&mut self, model: ModelIx) {
        self.models[model.0].ended = self.models[model.0].cohorts.take();
        let count = self.models[model.0].subscriptions.len();
        for i in 0..count {
            let key = self.models[model.0].subscriptions[i];
            let Some(s) = self.subscriptions.get_mut(key) else { continue };
            if s.cohort.take().is_some() {
                s.spread(self.now, i as f64 / count as f64);
                if !s.ready {
                    self.schedule(key);
                }
            }
        }
    }
}

/// The interval of a subscription and the frames that its camera gives in it, when these are a
/// whole number.
fn class_of(interval: Option<Duration>, fps: f64) -> Option<(u64, u32)> {
    let interval = interval?;
    let frames = interval.as_secs_f64() * fps;
    let whole = frames.round();
    let fits = (1.0..=FRAMES_MAX).contains(&whole) && (frames / whole - 1.0).abs() <= WHOLE;
    fits.then(|| (base::time::nanos(interval), whole as u32))
}

/// Memory of the planner, used again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    classes: Vec<(u64, u32, f64)>,
    demands: Vec<Demand>,
    division: Division,
    cyclic: Vec<Cyclic>,
    launches: Launches,
    timetable: Timetable,
    steered: Vec<Steered>,
    keys: Vec<SubscriptionKey>,
    assignment: Assignment,
}
