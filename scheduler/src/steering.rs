//! Steering at work: which models of a device keep a timetable, and which launch each subscription's
//! frames are taken for. The rules themselves are pure: [`crate::timetable`], [`crate::cohort`].

use crate::SubscriptionKey;
use crate::cohort::Steered;
use crate::cohorts::Fitted;
use crate::config::Steering;
use crate::place::{DeviceIx, ModelIx, RunnerIx};
use crate::scratch::Scratch;
use crate::state::Scheduler;
use crate::timetable::Course;
use crate::trial::Circumstances;
use crate::wanted::class_of;
use plan::{Cyclic, Demand};
use std::time::Duration;

/// Of a frame period, what arrivals may be in doubt of: beyond it a frame is chosen blindly (half, twice: the
/// same; any: with 15 ms of jitter a trial costs 12 to 19 % of the mean for 10 s).
const DOUBT_MAX: f64 = 1.0 / 8.0;

impl Scheduler {
    /// Whether the device is steered from now on; a change is everybody's at once.
    pub(crate) fn conclude_trial(&mut self, device: DeviceIx) {
        let d = &self.devices[device.0];
        let (load, possible) = (d.load(), !d.overloaded());
        let mut at = Circumstances { load, possible, ..Circumstances::default() };
        let (mut rate, mut blindness, mut any) = (0.0, 0.0, false);
        for ix in d.runners() {
            let Some(r) = self.runners.get(*ix) else { continue };
            let wanted = self.models[r.model.0].wanted();
            at.runners += 1;
            at.doubt += wanted.rate * wanted.doubt;
            blindness += wanted.rate * wanted.blindness;
            rate += wanted.rate;
            any |= self.could_be_steered(*ix);
        }
        at.doubt /= f64::max(rate, 1e-9);
        at.possible &= any && blindness <= DOUBT_MAX * rate;
        let now = self.now();
        let changed = self.devices[device.0].conclude_trial(now, at);
        if changed && self.config.steering == Steering::Auto {
            for i in 0..self.devices[device.0].models().len() {
                let model = self.devices[device.0].models()[i];
                self.plan_soon(model);
            }
        }
    }

    /// Which part of its model's frames a runner is to take: all of them, or by the room that its
    /// device has.
    pub(crate) fn part(&self, ix: RunnerIx) -> f64 {
        let Some(r) = self.runners.get(ix) else { return 0.0 };
        let runners = self.models[r.model.0].runners();
        if runners.len() < 2 {
            return 1.0;
        }
        // Room: what the device would have left without this model, at least a little.
        let room = |ix: &RunnerIx| {
            self.runners.get(*ix).map_or(0.0, |r| {
                let device = &self.devices[r.device.0];
                r.room(device.load(), f64::from(device.capacity))
            })
        };
        let all: f64 = runners.iter().map(room).sum();
        if all > 0.0 { room(&ix) / all } else { 0.0 }
    }

    /// Steers a model, or ends that.
    pub(crate) fn steer(&mut self, model: ModelIx) {
        match self.course(model) {
            Some(course) => {
                if self.models[model.0].steer(course) {
                    self.arrange(self.models[model.0].devices()[0]);
                }
                self.form_cohorts(model);
            }
            None if self.models[model.0].cohorts().is_some() => self.spread_evenly(model),
            None => {}
        }
    }

    /// The launches that a model should have, when it is to be steered.
    fn course(&mut self, model: ModelIx) -> Option<Course> {
        let [ix] = self.models[model.0].runners()[..] else { return None };
        let device = self.runners.get(ix)?.device;
        if !self.to_be_steered(ix) {
            return None;
        }
        let mut scratch = self.take_scratch();
        let Scratch { cyclic, launches, .. } = &mut scratch;
        cyclic.clear();
        let usable = self.config.usable_share * f64::from(self.devices[device.0].capacity);
        let mut spare = usable;
        let mut own = 0;
        for other in self.devices[device.0].runners() {
            let Some(r) = self.runners.get(*other) else { continue };
            let m = &self.models[r.model.0];
            let wanted = m.wanted();
            let Some((alpha, beta)) = r.planned_line() else { continue };
            let demand = Demand {
                alpha,
                beta,
                rate: wanted.rate * self.part(*other),
                freedom: wanted.freedom,
                steered: true,
                patience: 0.0,
                batch_max: r.paying(),
            };
            if *other == ix {
                own = cyclic.len();
            }
            if self.to_be_steered(*other) {
                cyclic.push(Cyclic {
                    period: wanted.period as f64 / 1e9,
                    frames: wanted.frames,
                    demand,
                    batch_max: r.share().batch_max,
                });
            } else {
                spare -= demand.load(r.share().batch);
            }
        }
        launches.choose(cyclic, spare);
        let launches = launches.chosen[own];
        let Cyclic { period, demand, .. } = cyclic[own];
        self.give_back_scratch(scratch);
        let batch = demand.rate * period / f64::from(launches);
        let length = (demand.alpha + demand.beta * batch.max(1.0)) * 1e9;
        let period = self.models[model.0].wanted().period;
        Some(Course { period, launches, length: length as u64, lengths: Vec::new() })
    }

    /// Whether a runner's model is to be steered: its rates allow it, and it is wanted.
    fn to_be_steered(&self, ix: RunnerIx) -> bool {
        let Some(r) = self.runners.get(ix) else { return false };
        let wanted = match self.config.steering {
            Steering::Off => false,
            Steering::Auto => self.devices[r.device.0].steers(),
            Steering::On => true,
        };
        wanted && self.could_be_steered(ix)
    }

    /// Whether its rates and its state allow it.
    fn could_be_steered(&self, ix: RunnerIx) -> bool {
        let Some(r) = self.runners.get(ix) else { return false };
        let m = &self.models[r.model.0];
        m.runners().len() == 1
            && m.wanted().steerable()
            && !self.devices[r.device.0].overloaded()
            && r.steerable()
    }

    /// Makes the timetable of a device anew.
    fn arrange(&mut self, device: DeviceIx) {
        let mut scratch = self.take_scratch();
        let timetable = &mut scratch.timetable;
        timetable.clear();
        for ix in self.devices[device.0].runners() {
            let Some(r) = self.runners.get(*ix) else { continue };
            if let Some(cohorts) = self.models[r.model.0].cohorts() {
                timetable.add(cohorts.course());
            }
        }
        timetable.resolve(self.devices[device.0].capacity);
        let mut row = 0;
        for i in 0..self.devices[device.0].runners().len() {
            let Some(r) = self.runners.get(self.devices[device.0].runners()[i]) else { continue };
            let lead = if r.info.gpu { r.lead(self.config.prepare_ahead) } else { Duration::ZERO };
            let model = r.model;
            let Some(cohorts) = self.models[model.0].cohorts_mut() else { continue };
            cohorts.stand(timetable.offsets(row), lead);
            row += 1;
            // Whoever has no place yet finds one when its model is planned.
            if !self.models[model.0].subscriptions().is_empty() {
                self.plan_soon(model);
            }
        }
        self.give_back_scratch(scratch);
    }

    /// Puts the subscriptions of a model into cohorts and moves their gates before the frames that
    /// are taken.
    fn form_cohorts(&mut self, model: ModelIx) {
        let now = self.now();
        let (m, scratch) = (&mut self.models[model.0], &mut self.scratch);
        let Some(cohorts) = m.cohorts() else { return };
        let (period, launches) = (cohorts.period(), cohorts.commits().len() as u32);
        scratch.steered.clear();
        scratch.keys.clear();
        for key in m.subscriptions() {
            let Some(s) = self.subscriptions.get_mut(*key) else { continue };
            let camera = &self.cameras[s.camera];
            let fits = s.active()
                && camera.predictable()
                && s.interval() == Some(Duration::from_nanos(period))
                && class_of(s.interval(), camera.fps()).is_some_and(|(_, n)| n >= 2);
            if !fits {
                s.leave_cohort();
                continue;
            }
            let expected = camera.arrival_from(now).0.saturating_add(camera.guard_ns());
            scratch.steered.push(Steered {
                arrival: expected % period,
                frame_period: camera.period_ns() as u64,
                doubt: camera.guard_ns(),
                launch: s.cohort().filter(|c| *c < launches),
            });
            scratch.keys.push(*key);
        }
        scratch.assignment.assign(&scratch.steered, cohorts.commits(), period);
        let most = scratch.keys.len() * 10 >= m.subscriptions().len() * 9;
        if cohorts.fitted() == Fitted::New && most {
            let first = m.runners().first().and_then(|ix| self.runners.get(*ix)?.planned_line());
            let length = first
                .map(|(alpha, beta)| move |n: u32| ((alpha + beta * f64::from(n)) * 1e9) as u64);
            if let Some(cohorts) = m.cohorts_mut() {
                cohorts.form(&scratch.assignment.crowd, length);
            }
        }
        for at in 0..self.scratch.keys.len() {
            self.align(model, self.scratch.keys[at], self.scratch.assignment.placed[at]);
        }
        self.fit(model);
    }

    /// Once all models of a device have cohorts, its timetable is made again for these.
    fn fit(&mut self, model: ModelIx) {
        let Some(&device) = self.models[model.0].devices().first() else { return };
        let mut any = false;
        for ix in self.devices[device.0].runners() {
            let Some(of) = self.runners.get(*ix).map(|r| r.model) else { continue };
            match self.models[of.0].cohorts().map(|c| c.fitted()) {
                Some(Fitted::New) => return,
                Some(Fitted::Formed) => any = true,
                Some(Fitted::Done) | None => {}
            }
        }
        if !any {
            return;
        }
        for ix in self.devices[device.0].runners() {
            let Some(of) = self.runners.get(*ix).map(|r| r.model) else { continue };
            if let Some(cohorts) = self.models[of.0].cohorts_mut() {
                cohorts.settle();
            }
        }
        self.arrange(device);
    }

    /// Takes a subscription's frames for a launch from now on: its gate moves on until it stands
    /// before the frame that lands right before the launch.
    fn align(&mut self, model: ModelIx, key: SubscriptionKey, launch: u32) {
        let now = self.now();
        let Some(cohorts) = self.models[model.0].cohorts() else { return };
        let Some(s) = self.subscriptions.get_mut(key) else { return };
        let camera = &self.cameras[s.camera];
        let moved = s.join(launch);
        if s.ready() {
            // It waits for a device; its next frame is the one to choose.
            return;
        }
        let guard = Duration::from_nanos(camera.guard_ns());
        // Who stays may await a frame right now; who moves begins with the next frame.
        let from = if moved { s.gate().max(now) } else { s.gate() };
        let first = camera.arrival_past(from);
        let commit = cohorts.commit_from(launch, first + guard);
        let arrival = camera.arrival_until(commit.back(guard));
        let half = Duration::from_nanos(camera.period_ns() as u64 / 2);
        let best = arrival.back(half);
        // A gate that is off by less still stands before its frame.
        let mut late = best > s.gate() + half / 2;
        if late {
            // Time is given up, often a frame.
            late = s.may_shift(now, Duration::from_nanos(cohorts.period()));
        }
        if late {
            s.shift(best);
        }
        if moved || late {
            self.schedule(key);
        }
    }

    /// Ends the steering of a model: its gates are spread evenly again.
    fn spread_evenly(&mut self, model: ModelIx) {
        let now = self.now();
        self.models[model.0].end_cohorts();
        let count = self.models[model.0].subscriptions().len();
        for i in 0..count {
            let key = self.models[model.0].subscriptions()[i];
            let Some(s) = self.subscriptions.get_mut(key) else { continue };
            if s.leave_cohort() {
                s.spread(now, i as f64 / count as f64);
                if !s.ready() {
                    self.schedule(key);
                }
            }
        }
    }
}
