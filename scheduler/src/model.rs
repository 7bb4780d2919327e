//! A model and who wants it.

use crate::SubscriptionKey;
use crate::cohorts::Cohorts;
use crate::place::{DeviceIx, RunnerIx};
use crate::queue::Queue;
use crate::ready::Ready;
use crate::timetable::{Course, golden_share};
use crate::wanted::Wanted;
use base::{Instant, ModelId};

/// A model as the core numbers it.
#[derive(Debug)]
pub(crate) struct Model {
    pub id: ModelId,
    runners: Vec<RunnerIx>,
    /// The device of each of them.
    devices: Vec<DeviceIx>,
    subscriptions: Vec<SubscriptionKey>,
    /// Subscriptions with a frame to bind.
    pub ready: Ready,
    /// When subscriptions may have a frame to bind. An entry counts while its subscription awaits
    /// that instant.
    pub awaited: Queue,
    /// Subscriptions whose next frame may be there and was not at the last look: looked at again whenever
    /// a launch is considered.
    overdue: Vec<SubscriptionKey>,
    /// Whether some of its subscriptions look at another model's detections.
    crops: bool,
    /// How many groups of subscriptions began so far: places the next one between the others.
    begun: u64,
    /// Virtual time of its own launches.
    virtual_now: u64,
    /// What the planner found out about its subscriptions.
    wanted: Wanted,
    /// Its part of the timetable, while it is steered.
    cohorts: Option<Cohorts>,
    /// The last ones that ended: memory for the next.
    ended: Option<Cohorts>,
    /// When it is planned next.
    plan_at: Instant,
}

impl Model {
    pub fn new(id: ModelId) -> Model {
        Model {
            id,
            runners: Vec::new(),
            devices: Vec::new(),
            subscriptions: Vec::new(),
            ready: Ready::default(),
            awaited: Queue::default(),
            overdue: Vec::new(),
            crops: false,
            begun: 0,
            virtual_now: 0,
            wanted: Wanted::default(),
            cohorts: None,
            ended: None,
            plan_at: Instant::FAR,
        }
    }

    /// Whether nobody wants it and nobody serves it.
    pub fn unused(&self) -> bool {
        self.subscriptions.is_empty() && self.runners.is_empty()
    }

    pub fn runners(&self) -> &[RunnerIx] {
        &self.runners
    }

    /// The device of each runner.
    pub fn devices(&self) -> &[DeviceIx] {
        &self.devices
    }

    /// A runner serves it.
    pub fn add_runner(&mut self, runner: RunnerIx, device: DeviceIx) {
        self.runners.push(runner);
        self.devices.push(device);
    }

    /// It does so no longer.
    pub fn remove_runner(&mut self, runner: RunnerIx, device: DeviceIx) {
        self.runners.retain(|other| *other != runner);
        self.devices.retain(|other| *other != device);
    }

    pub fn subscriptions(&self) -> &[SubscriptionKey] {
        &self.subscriptions
    }

    /// Adds a subscription, and room for what is kept of it.
    pub fn add(&mut self, key: SubscriptionKey) {
        self.subscriptions.push(key);
        self.ready.reserve(self.subscriptions.len());
        self.awaited.reserve(self.awaited_max() + 1);
        self.overdue.reserve(self.subscriptions.len());
    }

    /// Drops the subscriptions that are gone.
    pub fn retain(&mut self, here: impl Fn(SubscriptionKey) -> bool) {
        self.subscriptions.retain(|key| here(*key));
    }

    /// Whether entries of `awaited` that no longer count should be dropped.
    pub fn awaits_many(&self) -> bool {
        self.awaited.len() > self.awaited_max()
    }

    fn awaited_max(&self) -> usize {
        64 + 4 * self.subscriptions.len()
    }

    /// Whether no subscription has a frame to bind, or may have one by now.
    pub fn nothing_by(&self, now: Instant) -> bool {
        self.ready.is_empty() && self.overdue.is_empty() && self.awaited.first() > now.0
    }

    /// The next frame of this subscription may be there.
    pub fn add_overdue(&mut self, key: SubscriptionKey) {
        self.overdue.push(key);
    }

    /// Those whose frame may be there, to look at.
    pub fn take_overdue(&mut self) -> Vec<SubscriptionKey> {
        std::mem::take(&mut self.overdue)
    }

    /// Those of them that still may, before what was told meanwhile.
    pub fn give_back_overdue(&mut self, mut still: Vec<SubscriptionKey>) {
        still.append(&mut self.overdue);
        self.overdue = still;
    }

    /// Whether some of its subscriptions look at another model's detections.
    pub fn crops(&self) -> bool {
        self.crops
    }

    pub fn set_crops(&mut self, crops: bool) {
        self.crops = crops;
    }

    /// Another group of subscriptions begins. Returns where the first of them stands in an interval,
    /// 0 to 1: those that begin one by one are spread too.
    pub fn begin_group(&mut self) -> f64 {
        self.begun += 1;
        golden_share(self.begun - 1)
    }

    /// Virtual time of its own launches.
    pub fn virtual_now(&self) -> u64 {
        self.virtual_now
    }

    /// It was launched with this smallest start tag; `anew`: its time begins there.
    pub fn advance(&mut self, smallest: u64, anew: bool) {
        self.virtual_now = if anew { smallest } else { self.virtual_now.max(smallest) };
    }

    /// What its subscriptions need.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    pub fn set_wanted(&mut self, wanted: Wanted) {
        self.wanted = wanted;
    }

    /// Its part of the timetable, while it is steered.
    pub fn cohorts(&self) -> Option<&Cohorts> {
        self.cohorts.as_ref()
    }

    pub fn cohorts_mut(&mut self) -> Option<&mut Cohorts> {
        self.cohorts.as_mut()
    }

    /// It is steered by this course from here on, unless it is near enough. Returns whether it is
    /// another one than before.
    pub fn steer(&mut self, course: Course) -> bool {
        if self.cohorts.as_mut().is_some_and(|c| c.follows(&course)) {
            return false;
        }
        let before = self.cohorts.take().or_else(|| self.ended.take());
        self.cohorts = Some(Cohorts::begin(course, before));
        true
    }

    /// It is no longer steered.
    pub fn end_cohorts(&mut self) {
        self.ended = self.cohorts.take();
    }

    pub fn plan_at(&self) -> Instant {
        self.plan_at
    }

    /// It is planned at this instant.
    pub fn plan_by(&mut self, at: Instant) {
        self.plan_at = at;
    }
}
