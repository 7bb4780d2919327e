//! The state machine: its state, and who takes which input.
//!
//! `reconcile` takes desired state, `answers` what runners say, `look` what cameras show; `launch`
//! decides what is launched when.

use crate::camera::Camera;
use crate::config::Config;
use crate::device::{Device, Model};
use crate::input::Input;
use crate::output::{Binding, Output};
use crate::runner::Runner;
use crate::subscription::Subscription;
use crate::{AgentState, BatchId, CameraKey, FrameIndex, RunnerKey, SubscriptionKey};
use base::{CameraId, InstanceId, Instant, ModelId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

/// The core may be polled this late; beyond it the process itself stood still (stopped, swapped,
/// migrated), and leases and hang limits are moved on by as much (chosen: above the delays of a
/// loaded machine, below the shortest lease of a CPU).
const OVERSLEPT: Duration = Duration::from_millis(50);

/// The scheduling core. See the crate's documentation for the contract.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: Config,
    pub(crate) revision: u64,
    pub(crate) cameras: Vec<Camera>,
    pub(crate) camera_keys: BTreeMap<CameraId, CameraKey>,
    pub(crate) subscriptions: BTreeMap<SubscriptionKey, Subscription>,
    pub(crate) subscription_keys: BTreeMap<(CameraId, ModelId, Option<ModelId>), SubscriptionKey>,
    pub(crate) next_subscription: u32,
    pub(crate) models: Vec<Model>,
    pub(crate) devices: Vec<Device>,
    pub(crate) runners: BTreeMap<RunnerKey, Runner>,
    pub(crate) refused: BTreeSet<InstanceId>,
    pub(crate) next_batch: u64,
    pub(crate) next_sequence: u64,
    pub(crate) looks: BinaryHeap<Reverse<(Instant, CameraKey)>>,
    /// Outputs that were decided while an input was handled.
    pub(crate) queue: VecDeque<Output<'static>>,
    /// Rises with every input and every new instant: one answer per camera and epoch.
    pub(crate) epoch: u64,
    pub(crate) now: Instant,
    /// When the last wait should have ended.
    pub(crate) wake_at: Instant,
    /// Memory of ended batches, used again.
    pub(crate) spare_members: Vec<Vec<Binding>>,
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
