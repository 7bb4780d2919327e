//! The state machine: its state, and who takes which input.
//!
//! `reconcile` takes desired state, `answers` what runners say, `look` what cameras show; `launch`
//! decides what is launched when, `planning` how often and for whom.

use crate::camera::{Agent, AgentState, Camera};
use crate::config::Config;
use crate::device::{Device, Model};
use crate::input::{Input, Outcome};
use crate::invariant::Invariants;
use crate::output::{Binding, Output};
use crate::planning::Scratch;
use crate::queue::Queue;
use crate::runner::{Hung, Runner, RunnerIx};
use crate::slab::Subscriptions;
use crate::{BatchId, CameraKey, FrameIndex, RunnerKey, SubscriptionKey};
use base::{CameraId, InstanceId, Instant, ModelId, StageTimes, Stages};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The core may be polled this late; beyond it the process itself stood still (stopped, swapped,
/// migrated), and leases and hang limits are moved on by as much (chosen: above the delays of a
/// loaded machine, below the shortest lease of a CPU).
const OVERSLEPT: Duration = Duration::from_millis(50);

/// A reply whose results are handed out one by one.
#[derive(Debug)]
pub(crate) struct Replied {
    pub runner: RunnerKey,
    pub ix: RunnerIx,
    pub batch: BatchId,
    pub received: Instant,
    pub times: StageTimes,
    /// What came after the runner had received the batch is the same for all members.
    pub since_received: Stages,
    pub since_received_ns: [u64; 9],
    /// Sequence of the first result.
    pub sequence: u64,
    pub members: Vec<Binding>,
    pub outcomes: std::vec::IntoIter<Outcome>,
    pub next: usize,
}

/// What desired state calls a subscription: camera, model, parent model.
pub(crate) type Name = (CameraId, ModelId, Option<ModelId>);

/// The scheduling core. See the crate's documentation for the contract.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: Config,
    pub(crate) revision: u64,
    pub(crate) invariants: Invariants,
    pub(crate) cameras: Vec<Camera>,
    /// Beside `cameras`.
    pub(crate) agents: Vec<Agent>,
    pub(crate) camera_keys: BTreeMap<CameraId, CameraKey>,
    /// Places of cameras that nobody looks at any more.
    pub(crate) free_cameras: Vec<CameraKey>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) subscription_keys: BTreeMap<Name, SubscriptionKey>,
    pub(crate) models: Vec<Model>,
    pub(crate) devices: Vec<Device>,
    pub(crate) runners: Vec<Option<Runner>>,
    pub(crate) runner_keys: BTreeMap<RunnerKey, RunnerIx>,
    /// Whose message is being handled.
    pub(crate) sender: RunnerIx,
    pub(crate) hung: BTreeMap<InstanceId, Hung>,
    pub(crate) next_batch: u64,
    pub(crate) next_sequence: u64,
    /// Subscriptions that nobody serves, by when their frames are counted next.
    pub(crate) unserved: Queue,
    /// When a model is planned next.
    pub(crate) plan_at: Instant,
    /// Outputs that were decided while an input was handled.
    pub(crate) queue: VecDeque<Output<'static>>,
    pub(crate) replied: VecDeque<Replied>,
    /// Rises with every input and every new instant: one answer per camera and epoch.
    pub(crate) epoch: u64,
    pub(crate) now: Instant,
    /// When the last wait should have ended.
    pub(crate) wake_at: Instant,
    /// Memory of ended batches, used again.
    pub(crate) spare_members: Vec<Vec<Binding>>,
    /// Ready subscriptions that a launch passed over; empty between launches.
    pub(crate) aside: Vec<(u64, SubscriptionKey)>,
    pub(crate) scratch: Scratch,
}

impl Scheduler {
    /// A scheduler that knows nothing yet.
    pub fn new(config: Config) -> Scheduler {
        Scheduler {
            config,
            revision: 0,
            invariants: Invariants::default(),
            cameras: Vec::new(),
            agents: Vec::new(),
            camera_keys: BTreeMap::new(),
            free_cameras: Vec::new(),
            subscriptions: Subscriptions::default(),
            subscription_keys: BTreeMap::new(),
            models: Vec::new(),
            devices: Vec::new(),
            runners: Vec::new(),
            runner_keys: BTreeMap::new(),
            sender: RunnerIx(0),
            hung: BTreeMap::new(),
            next_batch: 1,
            next_sequence: 1,
            unserved: Queue::default(),
            plan_at: Instant::FAR,
            queue: VecDeque::new(),
            replied: VecDeque::new(),
            epoch: 0,
            now: Instant::ZERO,
            wake_at: Instant::FAR,
            spare_members: Vec::new(),
            aside: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// The camera behind a key of this scheduler.
    pub fn camera_id(&self, key: CameraKey) -> &CameraId {
        &self.agents[key.0 as usize].id
    }

    /// The assignment id behind a key; `None` once the subscription is gone.
    pub fn subscription_id(&self, key: SubscriptionKey) -> Option<&str> {
        self.subscriptions.get(key).map(|s| s.details.spec.id.as_str())
    }

    /// Cameras with subscriptions.
    pub fn cameras(&self) -> impl Iterator<Item = (CameraKey, &CameraId)> {
        let keyed = self.agents.iter().enumerate();
        keyed
            .filter(|(_, a)| a.state != AgentState::Stopped)
            .map(|(i, a)| (CameraKey(i as u32), &a.id))
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
            Input::Prepared { runner, batch } => {
                self.hear(runner);
                self.prepared(runner, batch);
            }
            Input::Executed { runner, batch, granted, executed } => {
                self.hear(runner);
                self.executed(runner, batch, granted, executed);
            }
            Input::Reply { runner, batch, times, outcomes } => {
                self.hear(runner);
                self.reply(runner, batch, &times, outcomes);
            }
            Input::ProfileRequest { runner, sizes } => {
                if let Some(r) = self.runner_mut(runner) {
                    r.profile_queue.clear();
                    let sizes = sizes.into_iter().filter(|s| (1..=r.info.batch_max).contains(s));
                    r.profile_queue.extend(sizes);
                    let device = r.device;
                    self.devices[device.0].dirty = true;
                }
            }
            Input::ProfileDone { runner, batch_size, samples } => {
                self.profile_done(runner, batch_size, samples);
            }
            Input::Table { runner, table } => {
                if let Some(r) = self.runner_mut(runner) {
                    r.set_table(table);
                    let model = r.model;
                    self.plan_soon(model);
                }
            }
        }
    }

    /// What to do next. Call until it answers [`Output::Wait`].
    pub fn poll(&mut self, now: Instant, index: &mut dyn FrameIndex) -> Output<'_> {
        self.advance(now);
        if !self.replied.is_empty() {
            return self.next_result();
        }
        self.pass_bounds();
        if let Some(queued) = self.queue.pop_front() {
            return queued;
        }
        self.look_unserved(index);
        self.plan_due();
        self.step(index)
    }

    fn advance(&mut self, now: Instant) {
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
            for runner in self.runners.iter_mut().flatten() {
                runner.postpone(overslept + OVERSLEPT);
            }
            for device in &mut self.devices {
                device.bound_at = Instant::ZERO;
            }
        }
        self.wake_at = now;
    }

    /// Looks a sender up once: handling its message asks for it again and again.
    fn hear(&mut self, key: RunnerKey) {
        if let Some(ix) = self.runner_ix(key) {
            self.sender = ix;
        }
    }

    pub(crate) fn runner(&self, ix: RunnerIx) -> Option<&Runner> {
        self.runners.get(ix.0)?.as_ref()
    }

    pub(crate) fn runner_ix(&self, key: RunnerKey) -> Option<RunnerIx> {
        if self.runner(self.sender).is_some_and(|r| r.key == key) {
            return Some(self.sender);
        }
        self.runner_keys.get(&key).copied()
    }

    pub(crate) fn runner_mut(&mut self, key: RunnerKey) -> Option<&mut Runner> {
        let ix = self.runner_ix(key)?;
        self.runners[ix.0].as_mut()
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
