//! The state machine: what each input changes. What is launched when is in `launch`.

use crate::camera::{Camera, Seen};
use crate::config::Config;
use crate::device::{Device, DeviceIx, Model, ModelIx, golden_share};
use crate::input::{Desired, Input, Outcome, RunnerInfo, SubscriptionSpec};
use crate::output::{Binding, CloseReason, Output};
use crate::runner::{Batch, Bound, Phase, Runner, RunnerState};
use crate::subscription::{Subscription, SubscriptionState};
use crate::{AgentState, BatchId, CameraKey, FrameIndex, RunnerKey, SubscriptionKey};
use base::{CameraId, DeviceId, InstanceId, Instant, LatencyEntry, ModelId, StageTimes, Stages};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

/// The core may be polled this late; beyond it the process itself stood still (stopped, swapped,
/// migrated), and leases and hang limits are moved on by as much (chosen: above the delays of a
/// loaded machine, below the shortest lease of a CPU).
const OVERSLEPT: Duration = Duration::from_millis(50);
/// How often a subscription that nobody serves looks at its camera, only to count.
const UNSERVED_LOOK: Duration = Duration::from_secs(1);

/// The scheduling core. See the crate's documentation for the contract.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: Config,
    pub(crate) revision: u64,
    pub(crate) cameras: Vec<Camera>,
    camera_keys: BTreeMap<CameraId, CameraKey>,
    pub(crate) subscriptions: BTreeMap<SubscriptionKey, Subscription>,
    subscription_keys: BTreeMap<(CameraId, ModelId, Option<ModelId>), SubscriptionKey>,
    next_subscription: u32,
    pub(crate) models: Vec<Model>,
    pub(crate) devices: Vec<Device>,
    pub(crate) runners: BTreeMap<RunnerKey, Runner>,
    refused: BTreeSet<InstanceId>,
    next_batch: u64,
    next_sequence: u64,
    pub(crate) looks: BinaryHeap<Reverse<(Instant, CameraKey)>>,
    /// Outputs that were decided while an input was handled.
    pub(crate) queue: VecDeque<Output<'static>>,
    /// Rises with every input and every new instant: one answer per camera and epoch.
    pub(crate) epoch: u64,
    pub(crate) now: Instant,
    /// When the last wait should have ended.
    pub(crate) wake_at: Instant,
    /// Memory of ended batches, used again.
    spare_members: Vec<Vec<Binding>>,
}

impl Scheduler {
    /// A scheduler that knows nothing yet.
    pub fn new(config: Config) -> Scheduler {
        Scheduler {
            config,
            revision: 0,
            cameras: Vec::new(),
            camera_keys: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            subscription_keys: BTreeMap::new(),
            next_subscription: 0,
            models: Vec::new(),
            devices: Vec::new(),
            runners: BTreeMap::new(),
            refused: BTreeSet::new(),
            next_batch: 1,
            next_sequence: 1,
            looks: BinaryHeap::new(),
            queue: VecDeque::new(),
            epoch: 0,
            now: Instant::ZERO,
            wake_at: Instant::FAR,
            spare_members: Vec::new(),
        }
    }

    /// The camera behind a key of this scheduler.
    pub fn camera_id(&self, key: CameraKey) -> &CameraId {
        &self.cameras[key.0 as usize].id
    }

    /// The assignment id behind a key; `None` once the subscription is gone.
    pub fn subscription_id(&self, key: SubscriptionKey) -> Option<&str> {
        self.subscriptions.get(&key).map(|s| s.spec.id.as_str())
    }

    /// Cameras with subscriptions.
    pub fn cameras(&self) -> impl Iterator<Item = (CameraKey, &CameraId)> {
        let keyed = self.cameras.iter().enumerate();
        keyed
            .filter(|(_, c)| c.state != AgentState::Stopped)
            .map(|(i, c)| (CameraKey(i as u32), &c.id))
    }

    /// Takes in what happened. Poll afterwards. `now` never goes back.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.advance(now);
        self.epoch += 1;
        match input {
            Input::Desired(desired) => self.desired(desired),
            Input::RunnerUp { runner, info } => self.runner_up(runner, info),
            Input::RunnerDown { runner } => self.runner_down(runner),
            Input::RunnerGone { instance } => self.runner_gone(instance),
            Input::Prepared { runner, batch } => self.prepared(runner, batch),
            Input::Executed { runner, batch, granted, executed } => {
                self.executed(runner, batch, granted, executed);
            }
            Input::Reply { runner, batch, times, outcomes } => {
                self.reply(runner, batch, &times, outcomes);
            }
            Input::ProfileRequest { runner, sizes } => {
                if let Some(r) = self.runners.get_mut(&runner) {
                    r.profile_queue.clear();
                    let sizes = sizes.into_iter().filter(|s| (1..=r.info.batch_max).contains(s));
                    r.profile_queue.extend(sizes);
                }
            }
            Input::ProfileDone { runner, batch_size, samples } => {
                self.profile_done(runner, batch_size, samples);
            }
            Input::Table { runner, table } => {
                if let Some(r) = self.runners.get_mut(&runner) {
                    r.set_table(table);
                }
            }
        }
    }

    /// What to do next. Call until it answers [`Output::Wait`].
    pub fn poll(&mut self, now: Instant, index: &mut dyn FrameIndex) -> Output<'_> {
        self.advance(now);
        self.pass_bounds();
        if let Some(queued) = self.queue.pop_front() {
            return queued;
        }
        self.look_at_due(index);
        self.step(index)
    }

    fn advance(&mut self, now: Instant) {
        assert!(now >= self.now, "time went back from {} to {} ns", self.now.0, now.0);
        if now > self.now {
            self.now = now;
            self.epoch += 1;
        }
        let overslept = now - self.wake_at;
        if overslept > OVERSLEPT {
            // Answers that came meanwhile are not handled yet: nobody may be judged by this clock.
            for runner in self.runners.values_mut() {
                runner.postpone(overslept);
            }
        }
        self.wake_at = self.wake_at.max(now);
    }

    // --- desired state ---------------------------------------------------------------------

    fn desired(&mut self, desired: Desired) {
        self.revision = desired.revision;
        let mut wanted = BTreeSet::new();
        let mut begun: Vec<SubscriptionKey> = Vec::new();
        for spec in desired.subscriptions {
            let name = (spec.camera.clone(), spec.model.clone(), spec.parent.clone());
            if !wanted.insert(name.clone()) {
                continue; // One subscription per camera, model and parent; the first one counts.
            }
            match self.subscription_keys.get(&name) {
                Some(&key) => self.update_subscription(key, spec),
                None => begun.push(self.add_subscription(name, spec)),
            }
        }
        let obsolete: Vec<_> = self
            .subscription_keys
            .iter()
            .filter(|(name, _)| !wanted.contains(*name))
            .map(|(_, key)| *key)
            .collect();
        for key in obsolete {
            self.remove_subscription(key);
        }
        // Evenly over one interval, model by model: those that begin together never meet. Where
        // the first of them stands is spread too, for those that begin one by one.
        for model in 0..self.models.len() {
            let here = |k: &&SubscriptionKey| self.subscriptions[k].model == ModelIx(model);
            let keys: Vec<_> = begun.iter().filter(here).copied().collect();
            if !keys.is_empty() {
                let offset = golden_share(self.models[model].begun);
                self.models[model].begun += 1;
                let count = keys.len() as f64;
                for (rank, key) in keys.into_iter().enumerate() {
                    if let Some(s) = self.subscriptions.get_mut(&key) {
                        s.stagger(self.now, (offset + rank as f64 / count).fract());
                    }
                }
            }
            self.refresh_states(ModelIx(model));
        }
    }

    fn add_subscription(
        &mut self,
        name: (CameraId, ModelId, Option<ModelId>),
        spec: SubscriptionSpec,
    ) -> SubscriptionKey {
        let key = SubscriptionKey(self.next_subscription);
        self.next_subscription += 1;
        let camera = self.camera_key(&spec.camera);
        let model = self.model_ix(&spec.model);
        self.cameras[camera.0 as usize].subscriptions.push(key);
        self.models[model.0].subscriptions.push(key);
        self.subscriptions.insert(key, Subscription::new(spec, camera, model, self.now));
        self.subscription_keys.insert(name, key);
        key
    }

    fn update_subscription(&mut self, key: SubscriptionKey, spec: SubscriptionSpec) {
        let now = self.now;
        let Some(s) = self.subscriptions.get_mut(&key) else { return };
        if s.spec == spec {
            return;
        }
        // A gate far ahead belongs to the old, lower ceiling.
        if s.spec.max_fps != spec.max_fps {
            let interval =
                spec.max_fps.map_or(Duration::ZERO, |f| Duration::from_secs_f64(1.0 / f));
            s.gate = s.gate.min(now + interval);
        }
        s.spec = spec;
        let (camera, model) = (s.camera, s.model);
        self.refresh_states(model);
        self.schedule_look(camera);
    }

    fn remove_subscription(&mut self, key: SubscriptionKey) {
        let Some(s) = self.subscriptions.remove(&key) else { return };
        self.models[s.model.0].ready.remove(&(s.tag, key));
        self.models[s.model.0].subscriptions.retain(|k| *k != key);
        let name = (s.spec.camera, s.spec.model, s.spec.parent);
        self.subscription_keys.remove(&name);
        let camera = &mut self.cameras[s.camera.0 as usize];
        camera.subscriptions.retain(|k| *k != key);
        if camera.subscriptions.is_empty() {
            camera.stop();
            self.camera_keys.remove(&camera.id.clone());
        } else {
            self.schedule_look(s.camera);
        }
    }

    fn camera_key(&mut self, id: &CameraId) -> CameraKey {
        if let Some(key) = self.camera_keys.get(id) {
            return *key;
        }
        let key = CameraKey(self.cameras.len() as u32);
        let mut camera = Camera::new(id.clone());
        camera.start();
        camera.look_at = self.now;
        self.looks.push(Reverse((self.now, key)));
        self.cameras.push(camera);
        self.camera_keys.insert(id.clone(), key);
        key
    }

    fn model_ix(&mut self, id: &ModelId) -> ModelIx {
        if let Some(i) = self.models.iter().position(|m| m.id == *id) {
            return ModelIx(i);
        }
        self.models.push(Model {
            id: id.clone(),
            runners: Vec::new(),
            subscriptions: Vec::new(),
            ready: BTreeSet::new(),
            begun: 0,
        });
        ModelIx(self.models.len() - 1)
    }

    fn device_ix(&mut self, id: &DeviceId) -> DeviceIx {
        if let Some(i) = self.devices.iter().position(|d| d.id == *id) {
            return DeviceIx(i);
        }
        self.devices.push(Device {
            id: id.clone(),
            capacity: self.config.capacity_of(id),
            lent: 0,
            virtual_now: 0,
            runners: Vec::new(),
            suspect: false,
            busy: Duration::ZERO,
            profiled_last: false,
        });
        DeviceIx(self.devices.len() - 1)
    }

    /// Brings the state of a model's subscriptions in line with its runners.
    fn refresh_states(&mut self, model: ModelIx) {
        let of = |r: &RunnerKey| self.runners.get(r).map(|r| r.state);
        let states: Vec<_> = self.models[model.0].runners.iter().filter_map(of).collect();
        let serving = states.iter().any(|s| !matches!(s, RunnerState::Hung | RunnerState::Gone));
        let hung = states.contains(&RunnerState::Hung);
        for i in 0..self.models[model.0].subscriptions.len() {
            let key = self.models[model.0].subscriptions[i];
            let Some(s) = self.subscriptions.get_mut(&key) else { continue };
            // Subscriptions on another model's detections have no policy yet: they are paused.
            let state = if !s.spec.enabled || s.spec.parent.is_some() {
                SubscriptionState::Paused
            } else if serving {
                SubscriptionState::Active
            } else if hung {
                SubscriptionState::Parked
            } else {
                SubscriptionState::NoRunner
            };
            if state == s.state {
                continue;
            }
            s.state = state;
            if state == SubscriptionState::Active {
                s.begin_serving(self.now);
            }
            let camera = s.camera;
            self.refresh_ready(key);
            self.schedule_look(camera);
        }
    }

    // --- frames ----------------------------------------------------------------------------

    /// Looks at every camera whose time has come.
    fn look_at_due(&mut self, index: &mut dyn FrameIndex) {
        while let Some(&Reverse((at, key))) = self.looks.peek() {
            if at > self.now {
                break;
            }
            self.looks.pop();
            if self.cameras[key.0 as usize].look_at != at {
                continue; // A newer entry took its place.
            }
            self.look(key, index);
            self.schedule_look(key);
        }
    }

    /// Reads the newest frame of a camera, once per epoch, and tells its subscriptions.
    pub(crate) fn look(&mut self, key: CameraKey, index: &mut dyn FrameIndex) {
        let camera = &mut self.cameras[key.0 as usize];
        if camera.read_in == self.epoch {
            return;
        }
        camera.read_in = self.epoch;
        let seen = camera.read(self.now, index.newest(key));
        if camera.absent.is_some() {
            // Nothing of it can be bound until it is back.
            for i in 0..self.cameras[key.0 as usize].subscriptions.len() {
                let subscription = self.cameras[key.0 as usize].subscriptions[i];
                self.refresh_ready(subscription);
            }
            return;
        }
        let Seen::Frame { first, returned } = seen else { return };
        let Some(stamp) = camera.newest else { return };
        for i in 0..self.cameras[key.0 as usize].subscriptions.len() {
            let subscription = self.cameras[key.0 as usize].subscriptions[i];
            let Some(s) = self.subscriptions.get_mut(&subscription) else { continue };
            s.observe(stamp.frame_id.0, first, returned && !first);
            if returned {
                s.reopen(self.now);
            }
            s.settle(&stamp);
            self.refresh_ready(subscription);
        }
    }

    /// Puts a subscription into its model's ready set or takes it out.
    pub(crate) fn refresh_ready(&mut self, key: SubscriptionKey) {
        let Some(s) = self.subscriptions.get_mut(&key) else { return };
        let camera = &self.cameras[s.camera.0 as usize];
        let ready = camera.absent.is_none() && camera.newest.is_some_and(|n| s.eligible(&n));
        if let Some(newest) = camera.newest
            && !ready
        {
            s.settle(&newest);
        }
        if ready == s.ready {
            return;
        }
        s.ready = ready;
        let entry = (s.tag, key);
        if ready {
            self.models[s.model.0].ready.insert(entry);
        } else {
            self.models[s.model.0].ready.remove(&entry);
        }
    }

    /// When the camera could bring something to one of its subscriptions that waits for it.
    pub(crate) fn schedule_look(&mut self, key: CameraKey) {
        let camera = &self.cameras[key.0 as usize];
        let mut at = Instant::FAR;
        if camera.state == AgentState::Running {
            for s in camera.subscriptions.iter().filter_map(|k| self.subscriptions.get(k)) {
                if s.ready {
                    continue; // It waits for a device, and is read again at launch.
                }
                let look = if s.state == SubscriptionState::Active {
                    let (slack, interval) = (self.config.arrival_slack, self.config.poll_interval);
                    camera.next_look(self.now, s.gate, slack, interval)
                } else {
                    self.now + UNSERVED_LOOK
                };
                at = at.min(look);
            }
        }
        let camera = &mut self.cameras[key.0 as usize];
        if at != camera.look_at {
            camera.look_at = at;
            if at != Instant::FAR {
                self.looks.push(Reverse((at, key)));
            }
        }
    }

    // --- runners ---------------------------------------------------------------------------

    fn runner_up(&mut self, key: RunnerKey, info: RunnerInfo) {
        if self.refused.contains(&info.instance) {
            self.queue
                .push_back(Output::Close { runner: key, reason: CloseReason::RefusedInstance });
            return;
        }
        let model = self.model_ix(&info.model);
        let device = self.device_ix(&info.device);
        // What is known of earlier lives of this runner goes; a live one is replaced.
        let before = self.devices[device.0].runners.iter().copied();
        let earlier: Vec<_> = before.filter(|k| self.runners[k].model == model).collect();
        for other in earlier {
            if self.runners[&other].connected() {
                self.queue
                    .push_back(Output::Close { runner: other, reason: CloseReason::Replaced });
                self.lose_runner(other, RunnerState::Gone);
            }
            self.runners.remove(&other);
            self.devices[device.0].runners.retain(|k| *k != other);
            self.models[model.0].runners.retain(|k| *k != other);
        }
        self.rebase_tags(model, device);
        self.devices[device.0].runners.push(key);
        self.models[model.0].runners.push(key);
        self.runners.insert(key, Runner::new(info, model, device));
        self.refresh_suspect(device);
        self.refresh_states(model);
    }

    /// Tags that ran ahead on another device are worth nothing on this one: none lies further
    /// ahead of the device's virtual time than one of its own steps.
    fn rebase_tags(&mut self, model: ModelIx, device: DeviceIx) {
        let virtual_now = self.devices[device.0].virtual_now;
        for i in 0..self.models[model.0].subscriptions.len() {
            let key = self.models[model.0].subscriptions[i];
            let Some(s) = self.subscriptions.get_mut(&key) else { continue };
            let furthest = virtual_now.saturating_add(s.step(&self.cameras[s.camera.0 as usize]));
            if s.tag > furthest {
                if s.ready {
                    self.models[model.0].ready.remove(&(s.tag, key));
                    self.models[model.0].ready.insert((furthest, key));
                }
                s.tag = furthest;
            }
        }
    }

    fn runner_down(&mut self, key: RunnerKey) {
        if self.runners.get(&key).is_some_and(Runner::connected) {
            self.lose_runner(key, RunnerState::Gone);
        }
    }

    fn runner_gone(&mut self, instance: InstanceId) {
        let hung = |r: &&mut Runner| r.info.instance == instance && r.state == RunnerState::Hung;
        let Some(runner) = self.runners.values_mut().find(hung) else { return };
        runner.state = RunnerState::Gone;
        let (model, device) = (runner.model, runner.device);
        self.refresh_suspect(device);
        self.refresh_states(model);
    }

    /// Settles everything a runner owes and frees its tokens.
    fn lose_runner(&mut self, key: RunnerKey, state: RunnerState) {
        let Some(runner) = self.runners.get_mut(&key) else { return };
        let (model, device) = (runner.model, runner.device);
        let mut tokens = u32::from(runner.state == RunnerState::Profiling);
        runner.state = state;
        runner.profiling = None;
        runner.profile_queue.clear();
        for mut batch in std::mem::take(&mut runner.batches) {
            tokens += u32::from(batch.phase == Phase::Executing);
            if batch.phase != Phase::Late {
                for binding in &batch.members {
                    if let Some(s) = self.subscriptions.get_mut(&binding.subscription) {
                        s.in_flight -= 1;
                        s.ledger.lost_with_runner += 1;
                    }
                }
            }
            batch.members.clear();
            self.spare_members.push(batch.members);
        }
        self.devices[device.0].lent -= tokens;
        self.refresh_suspect(device);
        self.refresh_states(model);
    }

    fn refresh_suspect(&mut self, device: DeviceIx) {
        let hung =
            |k: &RunnerKey| self.runners.get(k).is_some_and(|r| r.state == RunnerState::Hung);
        let suspect = self.devices[device.0].runners.iter().any(hung);
        self.devices[device.0].suspect = suspect;
    }

    /// Passes the leases and hang limits whose time has come.
    fn pass_bounds(&mut self) {
        loop {
            let due = self
                .runners
                .iter()
                .filter(|(_, r)| !r.batches.is_empty() || r.profiling.is_some())
                .map(|(key, r)| (r.next_bound(self.config.hang_limit), *key))
                .filter(|((at, _), _)| *at <= self.now)
                .min_by_key(|((at, _), key)| (*at, *key));
            let Some(((_, bound), key)) = due else { return };
            match bound {
                Bound::Hang => self.hang(key),
                Bound::Lease(batch) => self.lease_passed(key, batch),
                Bound::ProfileLease => {
                    let Some(runner) = self.runners.get_mut(&key) else { return };
                    runner.state = RunnerState::Late;
                    self.devices[runner.device.0].lent -= 1;
                }
            }
        }
    }

    fn hang(&mut self, key: RunnerKey) {
        if let Some(runner) = self.runners.get(&key) {
            self.refused.insert(runner.info.instance);
        }
        self.queue.push_back(Output::Close { runner: key, reason: CloseReason::Hung });
        self.lose_runner(key, RunnerState::Hung);
    }

    fn lease_passed(&mut self, key: RunnerKey, batch: BatchId) {
        let Some(runner) = self.runners.get_mut(&key) else { return };
        let device = runner.device;
        runner.state = RunnerState::Late;
        // What it has prepared can't be granted to it now: another runner is not to wait for that.
        if let Some(prepared) = runner.batches.iter().find(|b| b.phase == Phase::Prepared) {
            let prepared = prepared.id;
            self.take_back(key, prepared);
            self.queue.push_back(Output::Revoke { runner: key, batch: prepared });
        }
        let Some(runner) = self.runners.get_mut(&key) else { return };
        for b in runner.batches.iter_mut().filter(|b| b.id == batch) {
            b.phase = Phase::Late;
            self.devices[device.0].lent -= 1;
            for binding in &b.members {
                if let Some(s) = self.subscriptions.get_mut(&binding.subscription) {
                    s.in_flight -= 1;
                    s.ledger.expired_late += 1;
                }
            }
        }
    }

    /// Settles a prepared batch that is not granted.
    pub(crate) fn take_back(&mut self, key: RunnerKey, id: BatchId) {
        let Some(runner) = self.runners.get_mut(&key) else { return };
        let Some(at) = runner.batches.iter().position(|b| b.id == id) else { return };
        let batch = runner.batches.remove(at);
        runner.note_revoked(id);
        for m in &batch.members {
            if let Some(s) = self.subscriptions.get_mut(&m.subscription) {
                s.in_flight -= 1;
                s.ledger.revoked += 1;
            }
        }
        self.give_back_members(batch.members);
    }

    /// Whether a message about `batch` came too late to matter: its connection is being closed, or
    /// the batch was taken back while the message was on its way.
    fn stale_message(&self, key: RunnerKey, batch: BatchId) -> bool {
        self.runners.get(&key).is_none_or(|r| !r.connected() || r.was_revoked(batch))
    }

    fn protocol_error(&mut self, key: RunnerKey, what: &'static str) {
        self.queue.push_back(Output::Close { runner: key, reason: CloseReason::Protocol(what) });
        self.lose_runner(key, RunnerState::Gone);
    }

    fn batch_mut(&mut self, key: RunnerKey, batch: BatchId) -> Option<&mut Batch> {
        self.runners.get_mut(&key)?.batches.iter_mut().find(|b| b.id == batch)
    }

    fn prepared(&mut self, key: RunnerKey, batch: BatchId) {
        if self.stale_message(key, batch) {
            return;
        }
        let now = self.now;
        match self.batch_mut(key, batch) {
            // Preparing is done; from here on it waits for us, not we for it.
            Some(b) if b.phase == Phase::Prepared => b.since = now,
            Some(_) => {}
            None => self.protocol_error(key, "prepared a batch that it does not hold"),
        }
    }

    fn executed(&mut self, key: RunnerKey, batch: BatchId, granted: Instant, executed: Instant) {
        if self.stale_message(key, batch) {
            return;
        }
        match self.batch_mut(key, batch).map(|b| b.phase) {
            Some(Phase::Executing) => {}
            // The token was passed on already.
            Some(Phase::Late) => return,
            _ => return self.protocol_error(key, "executed a batch without the token"),
        }
        let now = self.now;
        let Some(runner) = self.runners.get_mut(&key) else { return };
        let device = runner.device;
        let Some(b) = runner.batches.iter_mut().find(|b| b.id == batch) else { return };
        let busy = (executed - granted).min(now - b.since);
        b.phase = Phase::Executed;
        b.since = now;
        runner.busy += busy;
        self.devices[device.0].busy += busy;
        self.devices[device.0].lent -= 1;
    }

    fn reply(
        &mut self,
        key: RunnerKey,
        batch: BatchId,
        times: &StageTimes,
        outcomes: Vec<Outcome>,
    ) {
        let now = self.now;
        if self.stale_message(key, batch) {
            return;
        }
        let Some(runner) = self.runners.get_mut(&key) else { return };
        let Some(at) = runner.batches.iter().position(|b| b.id == batch) else {
            return self.protocol_error(key, "replied to a batch that it does not hold");
        };
        if runner.batches[at].members.len() != outcomes.len() {
            return self.protocol_error(key, "replied with another number of outcomes");
        }
        // Without the token only: there was nothing to execute.
        if runner.batches[at].phase == Phase::Prepared && outcomes.iter().any(Result::is_ok) {
            return self.protocol_error(key, "replied to a batch without the token");
        }
        let mut b = runner.batches.remove(at);
        if b.phase == Phase::Executing {
            let busy = (times.executed - times.granted).min(now - b.since);
            runner.busy += busy;
            self.devices[runner.device.0].busy += busy;
            self.devices[runner.device.0].lent -= 1;
        }
        if b.phase == Phase::Late {
            // Its members have ended; the answer is discarded.
            runner.demote();
        } else {
            runner.batch_count += 1;
            runner.member_count += b.members.len() as u64;
            runner.count_in_time();
            let count = outcomes.len();
            for (i, (binding, outcome)) in b.members.iter().zip(outcomes).enumerate() {
                let info = &binding.stamp.info;
                let published = binding.stamp.published;
                let stages = Stages::new(info.capture, info.decode_start, published, times, now);
                runner.count_stages(&stages);
                let Some(s) = self.subscriptions.get_mut(&binding.subscription) else { continue };
                s.in_flight -= 1;
                s.ledger.answer(outcome.as_ref().err().copied());
                self.queue.push_back(Output::Result {
                    runner: key,
                    batch,
                    binding: *binding,
                    sequence: self.next_sequence,
                    received: now,
                    stages,
                    outcome,
                    last: i + 1 == count,
                });
                self.next_sequence += 1;
            }
            // A member whose subscription went meanwhile may have been the last one.
            if let Some(Output::Result { batch: of, last, .. }) = self.queue.back_mut()
                && *of == batch
            {
                *last = true;
            }
        }
        b.members.clear();
        self.spare_members.push(b.members);
    }

    fn profile_done(&mut self, key: RunnerKey, batch_size: u32, mut samples: Vec<Duration>) {
        let Some(runner) = self.runners.get_mut(&key) else { return };
        let Some((size, since, _)) = runner.profiling.take() else { return };
        let device = runner.device;
        if runner.state == RunnerState::Profiling {
            self.devices[device.0].lent -= 1;
            self.devices[device.0].busy += self.now - since;
            runner.resume();
        } else if runner.connected() {
            runner.demote();
        }
        if size != batch_size || samples.is_empty() {
            return;
        }
        // A first idea of the larger sizes' leases until the runner sends its table.
        samples.sort_unstable();
        let p50 = samples[samples.len() / 2];
        let p99 = samples[samples.len() - 1];
        let mut table = runner.table.clone();
        table.set(LatencyEntry { batch: size, p50, p99 });
        runner.table = table;
    }

    pub(crate) fn next_batch_id(&mut self) -> BatchId {
        let id = BatchId(self.next_batch);
        self.next_batch += 1;
        id
    }

    pub(crate) fn spare_members(&mut self) -> Vec<Binding> {
        self.spare_members.pop().unwrap_or_default()
    }

    pub(crate) fn give_back_members(&mut self, mut members: Vec<Binding>) {
        members.clear();
        self.spare_members.push(members);
    }
}
