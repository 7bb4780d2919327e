//! The planner at work: what each model needs is measured, doubtful promises are checked, devices are
//! divided.
//!
//! Runs per model, once per interval and when something changed, between two decisions. The rules
//! themselves are pure: [`crate::wanted`], [`crate::promise`], [`plan`].

use crate::place::{DeviceIx, ModelIx};
use crate::scratch::Scratch;
use crate::state::Scheduler;

impl Scheduler {
    /// Plans the models whose time has come.
    pub(crate) fn plan_due(&mut self) {
        if !self.plans_due() {
            return;
        }
        for model in (0..self.models.len()).map(ModelIx) {
            if self.models[model.0].plan_at() <= self.now() {
                self.plan_model(model);
                // Models take turns within the interval.
                let next = self.now() + self.config.replan_interval;
                self.models[model.0].plan_by(next);
            }
        }
        self.plans_made();
    }

    fn plan_model(&mut self, model: ModelIx) {
        self.measure(model);
        self.check_promises(model);
        for i in 0..self.models[model.0].devices().len() {
            let device = self.models[model.0].devices()[i];
            self.note_minded(device);
            self.plan_device(device);
            self.conclude_trial(device);
        }
        self.steer(model);
    }

    /// What the active subscriptions of a model need.
    fn measure(&mut self, model: ModelIx) {
        let m = &mut self.models[model.0];
        let deadline = m.runners().iter().find_map(|ix| self.runners.get(*ix));
        let deadline = deadline.map_or(base::limits::DEADLINE_DEFAULT, |r| r.info.deadline);
        let measure = &mut self.scratch.measure;
        measure.clear();
        for key in m.subscriptions() {
            let Some(s) = self.subscriptions.get_mut(*key) else { continue };
            let camera = &self.cameras[s.camera];
            let fps = camera.fps();
            s.set_source(fps);
            if s.active() && camera.absent().is_none() && fps > 0.0 {
                measure.add(camera, s.rate(fps), s.interval(), s.deadline_or(deadline));
            }
        }
        m.set_wanted(measure.wanted());
    }

    /// Asks the runners of a model that can answer no frame in time to measure what a single one
    /// takes, and the other sizes once that has come down.
    fn check_promises(&mut self, model: ModelIx) {
        let (now, m) = (self.now(), &self.models[model.0]);
        if m.wanted().rate <= 0.0 {
            return;
        }
        let room = m.wanted().room();
        for ix in m.runners() {
            let Some(r) = self.runners.get_mut(*ix) else { continue };
            if r.check_promise(now, room) {
                self.devices[r.device.0].touch();
            }
        }
    }

    /// Takes note of whom the runners of a device have to mind: those that keep what they promised
    /// and are wanted.
    fn note_minded(&mut self, device: DeviceIx) {
        let count = self.devices[device.0].runners().len();
        let keeping = (0..count).filter(|at| self.keeps(device, *at)).count();
        for at in 0..count {
            let others = keeping - usize::from(self.keeps(device, at));
            let ix = self.devices[device.0].runners()[at];
            if let Some(r) = self.runners.get_mut(ix) {
                r.mind(others > 0);
            }
        }
    }

    /// Whether a runner of a device keeps its promise and is wanted.
    fn keeps(&self, device: DeviceIx, at: usize) -> bool {
        self.runners.get(self.devices[device.0].runners()[at]).is_some_and(|r| {
            let mut wanted = self.models[r.model.0].subscriptions().iter();
            r.keeps() && wanted.any(|key| self.subscriptions.get(*key).is_some_and(|s| s.active()))
        })
    }

    /// Divides a device among the models with a runner on it.
    fn plan_device(&mut self, device: DeviceIx) {
        let mut scratch = self.take_scratch();
        let Scratch { demands, division, .. } = &mut scratch;
        let d = &self.devices[device.0];
        let usable = self.config.usable_share * f64::from(d.capacity);
        demands.clear();
        for ix in d.runners() {
            let Some(r) = self.runners.get(*ix) else { continue };
            let m = &self.models[r.model.0];
            let steered = m.cohorts().is_some();
            let crowded = d.overloaded_alone();
            demands.push(r.demand(m.wanted(), self.part(*ix), steered, crowded));
        }
        division.divide(demands, usable);
        let mut shares = division.shares.iter().zip(&*demands);
        for ix in d.runners() {
            let Some(r) = self.runners.get_mut(*ix) else { continue };
            let Some((share, demand)) = shares.next() else { break };
            r.plan(*share, *demand);
        }
        let load = division.load;
        self.give_back_scratch(scratch);
        self.devices[device.0].plan(load, usable);
    }
}
