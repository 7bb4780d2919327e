//! The state of the core: all of its data, its clock, and what is waiting to be told.
//!
//! What is done with it stands in the steps, which know the state; the state knows no step.

use crate::cameras::Cameras;
use crate::config::Config;
use crate::device::Device;
use crate::invariant::Invariants;
use crate::model::Model;
use crate::output::{Binding, CloseReason, Output};
use crate::place::{DeviceIx, ModelIx, RunnerIx};
use crate::queue::Queue;
use crate::replied::{Replied, Reply};
use crate::runner::Hung;
use crate::runners::Runners;
use crate::scratch::Scratch;
use crate::slab::Subscriptions;
use crate::{BatchId, CameraKey, RunnerKey, SubscriptionKey};
use base::{CameraId, DeviceId, InstanceId, Instant, ModelId};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The core may be polled this late; beyond it the process itself stood still (stopped, swapped,
/// migrated), and leases and hang limits are moved on by as much (above the delays of a
/// loaded machine, below the shortest lease of a CPU; half, none and any break invariants of random worlds).
const OVERSLEPT: Duration = Duration::from_millis(50);

/// What desired state calls a subscription: camera, model, parent model.
pub(crate) type Name = (CameraId, ModelId, Option<ModelId>);

/// The scheduling core. See the crate's documentation for the contract.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: Config,
    pub(crate) invariants: Invariants,
    pub(crate) cameras: Cameras,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) subscription_keys: BTreeMap<Name, SubscriptionKey>,
    pub(crate) models: Vec<Model>,
    pub(crate) devices: Vec<Device>,
    pub(crate) runners: Runners,
    pub(crate) hung: BTreeMap<InstanceId, Hung>,
    /// Subscriptions that nobody serves, by when their frames are counted next.
    pub(crate) unserved: Queue,
    pub(crate) scratch: Scratch,
    revision: u64,
    next_batch: u64,
    next_sequence: u64,
    /// When a model is planned next.
    plan_at: Instant,
    /// Outputs that were decided while an input was handled.
    queue: VecDeque<Output<'static>>,
    replied: VecDeque<Replied>,
    /// Rises with every input and every new instant: one answer per camera and epoch.
    epoch: u64,
    now: Instant,
    /// When the last wait should have ended.
    wake_at: Instant,
    /// Memory of ended batches, used again.
    spare_members: Vec<Vec<Binding>>,
    /// Memory for the ready subscriptions that a launch passes over.
    aside: Vec<(u64, SubscriptionKey)>,
}

impl Scheduler {
    /// A scheduler that knows nothing yet.
    pub fn new(config: Config) -> Scheduler {
        Scheduler {
            config,
            invariants: Invariants::default(),
            cameras: Cameras::default(),
            subscriptions: Subscriptions::default(),
            subscription_keys: BTreeMap::new(),
            models: Vec::new(),
            devices: Vec::new(),
            runners: Runners::default(),
            hung: BTreeMap::new(),
            unserved: Queue::default(),
            scratch: Scratch::default(),
            revision: 0,
            next_batch: 1,
            next_sequence: 1,
            plan_at: Instant::FAR,
            queue: VecDeque::new(),
            replied: VecDeque::new(),
            epoch: 0,
            now: Instant::ZERO,
            wake_at: Instant::FAR,
            spare_members: Vec::new(),
            aside: Vec::new(),
        }
    }

    /// The camera behind a key of this scheduler.
    pub fn camera_id(&self, key: CameraKey) -> &CameraId {
        &self.cameras.agent(key).id
    }

    /// The assignment id behind a key; `None` once the subscription is gone.
    pub fn subscription_id(&self, key: SubscriptionKey) -> Option<&str> {
        self.subscriptions.get(key).map(|s| s.spec().id.as_str())
    }

    /// Cameras with subscriptions.
    pub fn cameras(&self) -> impl Iterator<Item = (CameraKey, &CameraId)> {
        let keyed = self.cameras.all().enumerate();
        keyed
            .filter(|(_, (agent, _))| !agent.stopped())
            .map(|(i, (agent, _))| (CameraKey(i as u32), &agent.id))
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// An input came: cameras are looked at again.
    pub(crate) fn begin_epoch(&mut self) {
        self.epoch += 1;
    }

    /// It is `now`. Time never goes back.
    pub(crate) fn advance(&mut self, now: Instant) {
        assert!(now >= self.now, "time went back from {} to {} ns", self.now.0, now.0);
        if now > self.now {
            self.now = now;
            self.epoch += 1;
        }
        if now <= self.wake_at {
            return;
        }
        let overslept = now - self.wake_at;
        if overslept > OVERSLEPT {
            // Answers that came meanwhile are not handled yet: nobody may be judged by this clock.
            for runner in self.runners.iter_mut() {
                runner.postpone(overslept + OVERSLEPT);
            }
            self.devices.iter_mut().for_each(Device::seek_bound);
        }
        self.wake_at = now;
    }

    /// There is nothing to do before that.
    pub(crate) fn sleep(&mut self, until: Instant) {
        self.wake_at = until;
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn set_revision(&mut self, revision: u64) {
        self.revision = revision;
    }

    /// The place of a model, which gets one if it has none.
    pub(crate) fn model_ix(&mut self, id: &ModelId) -> ModelIx {
        if let Some(i) = self.models.iter().position(|m| m.id == *id) {
            return ModelIx(i);
        }
        let model = Model::new(id.clone());
        // Of no use to anybody: nothing names it, but for a runner that hangs.
        let unused = |(i, m): (usize, &Model)| {
            m.unused() && !self.hung.values().any(|h| h.model == ModelIx(i))
        };
        let place = self.models.iter().enumerate().position(unused);
        ModelIx(put(&mut self.models, place, model))
    }

    /// The place of a device, which gets one if it has none.
    pub(crate) fn device_ix(&mut self, id: &DeviceId) -> DeviceIx {
        if let Some(i) = self.devices.iter().position(|d| d.id == *id) {
            return DeviceIx(i);
        }
        let device = Device::new(id.clone(), self.config.capacity_of(id), self.now);
        let unused = |(i, d): (usize, &Device)| {
            d.runners().is_empty() && !self.hung.values().any(|h| h.device == DeviceIx(i))
        };
        let place = self.devices.iter().enumerate().position(unused);
        DeviceIx(put(&mut self.devices, place, device))
    }

    /// The virtual time that a runner's model is ordered by. Where runners share one token it is the
    /// device's; where they do not, each model is a bottleneck of its own. So is a demoted runner: the
    /// device's time leaves it behind, and tags that are all raised to that would know no weights.
    pub(crate) fn virtual_now(&self, ix: RunnerIx) -> u64 {
        let Some(r) = self.runners.get(ix) else { return 0 };
        let device = &self.devices[r.device.0];
        let model = &self.models[r.model.0];
        if !self.shares_token(ix) {
            model.virtual_now()
        } else if r.yields() && r.left_behind() {
            device.virtual_now().min(model.virtual_now())
        } else {
            device.virtual_now()
        }
    }

    /// Whether this runner has one token in common with others, and its model no other runner.
    pub(crate) fn shares_token(&self, ix: RunnerIx) -> bool {
        let Some(r) = self.runners.get(ix) else { return false };
        self.devices[r.device.0].capacity == 1 && self.models[r.model.0].runners().len() < 2
    }

    /// Whether a runner on the device measures L(b) or is about to: that takes every other turn.
    pub(crate) fn measuring(&self, device: DeviceIx) -> bool {
        let runners = self.devices[device.0].runners().iter();
        runners.filter_map(|ix| self.runners.get(*ix)).any(|r| r.measures())
    }

    /// Whether that is so on a device that serves this model.
    pub(crate) fn measured_now(&self, model: ModelIx) -> bool {
        self.models[model.0].devices().iter().any(|device| self.measuring(*device))
    }

    /// The first lease or hang limit on a device, and whose it is.
    pub(crate) fn first_bound(
        &self,
        device: DeviceIx,
    ) -> Option<(Instant, crate::runner::Bound, RunnerIx)> {
        let runners = self.devices[device.0].runners().iter();
        let bounds = runners.filter_map(|ix| {
            let (at, bound) = self.runners.get(*ix)?.next_bound(self.config.hang_limit)?;
            Some((at, bound, *ix))
        });
        bounds.min_by_key(|(at, ..)| *at)
    }

    /// A runner's bounds may have changed.
    pub(crate) fn rebound(&mut self, ix: RunnerIx) {
        let Some(r) = self.runners.get(ix) else { return };
        if let Some((at, _)) = r.next_bound(self.config.hang_limit) {
            self.devices[r.device.0].bound_by(at);
        }
    }

    /// The model is planned at the next poll.
    pub(crate) fn plan_soon(&mut self, model: ModelIx) {
        self.models[model.0].plan_by(self.now);
        self.plan_at = self.now;
    }

    /// Whether a model is to be planned now.
    pub(crate) fn plans_due(&self) -> bool {
        self.plan_at <= self.now
    }

    /// The models that were due are planned: the next one is due as it says.
    pub(crate) fn plans_made(&mut self) {
        let next = self.models.iter().map(Model::plan_at).min();
        self.plan_at = next.unwrap_or(Instant::FAR);
    }

    /// The next batch gets this id.
    pub(crate) fn next_batch_id(&mut self) -> BatchId {
        let id = BatchId(self.next_batch);
        self.next_batch += 1;
        id
    }

    /// The next result gets this number.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Decided while an input was handled: told at the next poll.
    pub(crate) fn tell(&mut self, output: Output<'static>) {
        self.queue.push_back(output);
    }

    /// The connection of a runner is closed at the next poll.
    pub(crate) fn close(&mut self, runner: RunnerKey, reason: CloseReason) {
        self.tell(Output::Close { runner, reason });
    }

    /// What was decided first.
    pub(crate) fn told(&mut self) -> Option<Output<'static>> {
        self.queue.pop_front()
    }

    /// The results of a reply, which is numbered from [`Scheduler::next_sequence`] on, are handed out.
    pub(crate) fn hand_out(&mut self, replied: Replied, results: usize) {
        self.next_sequence += results as u64;
        self.replied.push_back(replied);
    }

    /// Whether results wait.
    pub(crate) fn replied(&self) -> bool {
        !self.replied.is_empty()
    }

    /// The next result of the oldest reply. It has half a kilobyte: made last, it is not copied.
    pub(crate) fn next_result(&mut self) -> Output<'static> {
        let reply = self.replied.front_mut().expect("the caller has seen a reply");
        let (binding, sequence, outcome) = reply.next();
        let (stages, stages_ns) = reply.stages(&binding.stamp);
        let Reply { runner, ix, batch, received, .. } = *reply.of();
        let last = reply.done();
        // Unless another runner has its place by now.
        if let Some(r) = self.runners.get_mut(ix).filter(|r| r.key == runner) {
            r.count_stages(&stages_ns);
        }
        if last && let Some(done) = self.replied.pop_front() {
            self.give_back_members(done.into_members());
        }
        Output::Result { runner, batch, binding, sequence, received, stages, outcome, last }
    }

    pub(crate) fn spare_members(&mut self) -> Vec<Binding> {
        self.spare_members.pop().unwrap_or_default()
    }

    pub(crate) fn give_back_members(&mut self, mut members: Vec<Binding>) {
        members.clear();
        self.spare_members.push(members);
    }

    /// Memory for the ready subscriptions that a launch passes over.
    pub(crate) fn take_aside(&mut self) -> Vec<(u64, SubscriptionKey)> {
        std::mem::take(&mut self.aside)
    }

    pub(crate) fn give_back_aside(&mut self, mut aside: Vec<(u64, SubscriptionKey)>) {
        aside.clear();
        self.aside = aside;
    }

    /// Memory of the planner. Whoever takes it gives it back.
    pub(crate) fn take_scratch(&mut self) -> Scratch {
        std::mem::take(&mut self.scratch)
    }

    pub(crate) fn give_back_scratch(&mut self, scratch: Scratch) {
        self.scratch = scratch;
    }
}

/// Puts one more into a place that nobody uses, or behind all; returns where.
fn put<T>(all: &mut Vec<T>, unused: Option<usize>, new: T) -> usize {
    match unused {
        Some(place) => {
            all[place] = new;
            place
        }
        None => {
            all.push(new);
            all.len() - 1
        }
    }
}
