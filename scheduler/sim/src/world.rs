//! The event loop of virtual time.

mod devices;

use crate::camera::{CameraModel, SimCamera};
use crate::checker::Checker;
use crate::policy::{Frames, Policy, Privileges};
use crate::random::Random;
use crate::runner::{Fault, RunnerModel};
use base::{CameraId, DeviceId, InstanceId, Instant, ModelId, Newest};
use devices::{Device, Job};
use latency::{LatencyBook, batch_sizes};
use scheduler::trace::Encoder;
use scheduler::{
    BatchId, Binding, CameraKey, Config, Desired, FrameIndex, Input, Output, RunnerKey, Scheduler,
    SubscriptionSpec,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// One way over a socket, encoding and decoding included (chosen: the order of what the product's
/// socket benchmark gives).
pub(crate) const WIRE: Duration = Duration::from_micros(50);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A message of a runner's connection arrives; the number finds its content.
    Message(RunnerKey, u64),
    Connect(usize),
    Crash(usize),
    /// The connection that the scheduler closed is down.
    Closed(RunnerKey),
    /// The subscriptions change; the number finds them.
    Subscribe(u64),
    /// A batch begins on a shared device; the number finds it.
    Begin(u64),
    /// A batch on a shared device ends, unless another began or ended since: the second number
    /// tells.
    Share(usize, u64),
}

struct Connection {
    runner: usize,
    up: bool,
    /// Prepared batches without token: members, when Prepare came, when the copy is done.
    prepared: BTreeMap<BatchId, (usize, Instant, Instant)>,
}

/// A result as the world received it.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The frame and for whom.
    pub binding: Binding,
    /// When.
    pub received: Instant,
    /// Age of the result.
    pub age: Duration,
}

/// One batch on a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// It had the device from here on.
    pub start: Instant,
    /// To here.
    pub end: Instant,
    /// The device.
    pub device: DeviceId,
    /// The model.
    pub model: ModelId,
    /// Members.
    pub batch: u32,
}

/// Cameras, runners and the policy between them.
pub struct World<P: Policy = Scheduler> {
    /// The policy, usually the production core.
    pub scheduler: P,
    /// Watches it.
    pub checker: Checker,
    /// Every delivered result, in order. A long run may take them out from time to time.
    pub delivered: Vec<Delivered>,
    /// Device time per runner model.
    pub busy: Vec<Duration>,
    /// Batches per runner model.
    pub batches: Vec<u64>,
    /// Every execution, those of one device in order, once [`World::keep_executions`] was called.
    pub executions: Option<Vec<Execution>>,
    now: Instant,
    seed: u64,
    privileges: Privileges,
    cameras: Cameras,
    desired: Vec<SubscriptionSpec>,
    revision: u64,
    runners: Vec<RunnerModel>,
    /// What each of them promises, over all its lives.
    books: Vec<LatencyBook>,
    /// Those that restate: how many times slower they said they are.
    restated: Vec<u32>,
    randoms: Vec<Random>,
    devices: Vec<Device>,
    /// Per runner model its place in `devices`.
    device_of: Vec<usize>,
    connections: BTreeMap<RunnerKey, Connection>,
    next_connection: u64,
    next_instance: u64,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    messages: BTreeMap<u64, Input>,
    changes: BTreeMap<u64, Vec<SubscriptionSpec>>,
    beginning: BTreeMap<u64, Job>,
    next_event: u64,
    capacity: Config,
    trace: Option<Trace>,
}

#[derive(Default)]
struct Trace {
    encoder: Encoder,
    bytes: Vec<u8>,
}

/// The cameras as the policy sees them, with every answer recorded when a trace is wanted.
struct Index<'a> {
    cameras: &'a mut Cameras,
    trace: &'a mut Option<Trace>,
}

impl FrameIndex for Index<'_> {
    fn newest(&mut self, camera: CameraKey) -> Newest {
        let newest = self.cameras.newest(camera);
        if let Some(trace) = self.trace {
            trace.bytes.extend_from_slice(trace.encoder.answer(camera, &newest));
        }
        newest
    }
}

impl Frames for Index<'_> {
    fn next_publication(&mut self, camera: CameraKey) -> Instant {
        let now = self.cameras.now;
        self.cameras.of(camera).map_or(Instant::FAR, |c| c.next_publication(now))
    }
}

#[derive(Default)]
struct Cameras {
    numbers: BTreeMap<CameraId, usize>,
    models: Vec<SimCamera>,
    /// Per key of the policy its place in `models`.
    by_key: Vec<Option<usize>>,
    now: Instant,
}

impl Cameras {
    fn of(&mut self, camera: CameraKey) -> Option<&mut SimCamera> {
        let number = (*self.by_key.get(camera.0 as usize)?)?;
        self.models.get_mut(number)
    }

    fn newest(&mut self, camera: CameraKey) -> Newest {
        let now = self.now;
        self.of(camera).map_or(Newest::Absent(base::Absent::NoRing), |c| c.newest(now))
    }
}

impl World<Scheduler> {
    /// An empty world around the production core.
    pub fn new(config: Config, seed: u64) -> World {
        World::with(Scheduler::new(config.clone()), config, seed)
    }

    /// A subscription with the usual values.
    pub fn subscription(camera: &str, model: &str, max_fps: Option<f64>) -> SubscriptionSpec {
        SubscriptionSpec {
            id: format!("{camera}/{model}"),
            camera: camera.parse().expect("camera ids of a workload are valid"),
            model: model.parse().expect("model ids of a workload are valid"),
            parent: None,
            max_fps,
            weight: 1.0,
            deadline: None,
            parameters: 0,
            regions_max: base::limits::MAX_REGIONS_DEFAULT,
            enabled: true,
        }
    }
}

impl<P: Policy> World<P> {
    /// An empty world around any policy.
    pub fn with(mut policy: P, config: Config, seed: u64) -> World<P> {
        policy.start(&config);
        World {
            privileges: policy.privileges(),
            scheduler: policy,
            checker: Checker::default(),
            delivered: Vec::new(),
            busy: Vec::new(),
            batches: Vec::new(),
            executions: None,
            now: Instant::ZERO,
            seed,
            cameras: Cameras::default(),
            desired: Vec::new(),
            revision: 0,
            runners: Vec::new(),
            books: Vec::new(),
            restated: Vec::new(),
            randoms: Vec::new(),
            devices: Vec::new(),
            device_of: Vec::new(),
            connections: BTreeMap::new(),
            next_connection: 1,
            next_instance: 1,
            events: BinaryHeap::new(),
            messages: BTreeMap::new(),
            changes: BTreeMap::new(),
            beginning: BTreeMap::new(),
            next_event: 0,
            capacity: config,
            trace: None,
        }
    }

    /// Records everything from now on; call before the first input.
    pub fn record(&mut self) {
        let mut trace = Trace::default();
        let header = trace.encoder.header(&self.capacity).to_vec();
        trace.bytes = header;
        self.trace = Some(trace);
    }

    /// The trace so far; empty when nothing is recorded.
    pub fn trace(&self) -> &[u8] {
        self.trace.as_ref().map_or(&[], |t| &t.bytes)
    }

    /// Keeps every execution from now on, for a timeline.
    pub fn keep_executions(&mut self) {
        self.executions.get_or_insert_with(Vec::new);
    }

    fn handle(&mut self, input: Input) {
        if let Some(trace) = &mut self.trace {
            trace.bytes.extend_from_slice(trace.encoder.handle(self.now, &input));
        }
        self.scheduler.handle(self.now, input);
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Adds a camera.
    pub fn camera(&mut self, id: &str, model: CameraModel) {
        let id: CameraId = id.parse().expect("camera ids of a workload are valid");
        let number = self.cameras.models.len();
        let random = Random::new(self.seed, 1_000_000 + number as u64);
        self.cameras.models.push(SimCamera::new(model, random));
        self.cameras.numbers.insert(id, number);
    }

    /// Frames that a camera published until now.
    pub fn published(&mut self, id: &str) -> u64 {
        let now = self.now;
        let id: CameraId = id.parse().expect("camera ids of a workload are valid");
        let number = self.cameras.numbers.get(&id);
        number.map_or(0, |n| self.cameras.models[*n].published(now))
    }

    /// Adds a runner that connects at `at`. A model may have a runner on each of several devices.
    pub fn runner(&mut self, at: Instant, model: RunnerModel) -> usize {
        let number = self.runners.len();
        for fault in &model.faults {
            if let Fault::Crash(at, back) = fault {
                self.event(*at, Event::Crash(number));
                if let Some(back) = back {
                    self.event(*at + *back, Event::Connect(number));
                }
            }
        }
        let device = self.devices.iter().position(|d| d.id == model.device);
        self.device_of.push(device.unwrap_or(self.devices.len()));
        if device.is_none() {
            let capacity = self.capacity.capacity_of(&model.device);
            self.devices.push(Device::new(model.device.clone(), capacity));
        }
        let kept = (model.measured || self.privileges.exact_tables).then(|| model.table());
        self.books.push(LatencyBook::new(batch_sizes(model.batch_max), kept));
        self.restated.push(1);
        self.runners.push(model);
        self.randoms.push(Random::new(self.seed, 2_000_000 + number as u64));
        self.busy.push(Duration::ZERO);
        self.batches.push(0);
        self.event(at, Event::Connect(number));
        number
    }

    /// Replaces the subscriptions, now.
    pub fn subscribe(&mut self, subscriptions: Vec<SubscriptionSpec>) {
        self.change(subscriptions);
        self.drain();
    }

    /// Replaces the subscriptions at `at`, as often as wanted: a world with churn.
    pub fn subscribe_at(&mut self, at: Instant, subscriptions: Vec<SubscriptionSpec>) {
        let number = self.next_event + 1;
        self.changes.insert(number, subscriptions);
        self.event(at, Event::Subscribe(number));
    }

    fn change(&mut self, subscriptions: Vec<SubscriptionSpec>) {
        self.revision += 1;
        self.checker.desired(self.now, &subscriptions);
        self.desired.clone_from(&subscriptions);
        let desired = Desired { revision: self.revision, subscriptions };
        self.handle(Input::Desired(desired));
        for (key, id) in self.scheduler.cameras() {
            let at = key.0 as usize;
            if at >= self.cameras.by_key.len() {
                self.cameras.by_key.resize(at + 1, None);
            }
            self.cameras.by_key[at] = self.cameras.numbers.get(id).copied();
        }
    }

    /// The subscriptions as they were last set.
    pub fn desired(&self) -> &[SubscriptionSpec] {
        &self.desired
    }

    fn event(&mut self, at: Instant, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse((at, self.next_event, event)));
    }

    fn message(&mut self, at: Instant, runner: RunnerKey, input: Input) {
        let number = self.next_event + 1;
        self.messages.insert(number, input);
        self.event(at, Event::Message(runner, number));
    }

    /// Runs until `end`.
    pub fn run_until(&mut self, end: Instant) {
        loop {
            let wait = self.drain();
            let event = self.events.peek().map_or(Instant::FAR, |Reverse((at, _, _))| *at);
            let next = wait.min(event);
            if next > end {
                self.now = end;
                return;
            }
            assert!(next > self.now || event <= self.now, "the core waits for the present");
            self.now = next.max(self.now);
            while let Some(Reverse((at, _, _))) = self.events.peek() {
                if *at > self.now {
                    break;
                }
                let Some(Reverse((_, _, event))) = self.events.pop() else { break };
                self.apply(event);
            }
        }
    }

    fn apply(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Message(key, number) => {
                let Some(input) = self.messages.remove(&number) else { return };
                if self.connections.get(&key).is_some_and(|c| c.up) {
                    let frees = matches!(
                        input,
                        Input::Executed { .. } | Input::Reply { .. } | Input::ProfileDone { .. }
                    );
                    // The reply of the two-step path comes after its token went back; a second
                    // token of the runner can't be out, it executes one batch at a time.
                    if frees && !matches!(input, Input::Reply { .. } if self.two_step(key)) {
                        self.take_token(key);
                    }
                    self.handle(input);
                }
            }
            Event::Connect(runner) => {
                let key = RunnerKey(self.next_connection);
                self.next_connection += 1;
                let book = &self.books[runner];
                let (table, sizes) = (book.table().clone(), book.missing());
                let info = self.runners[runner].info(InstanceId(self.next_instance), table);
                self.next_instance += 1;
                self.restated[runner] = 1;
                let connection = Connection { runner, up: true, prepared: BTreeMap::new() };
                self.connections.insert(key, connection);
                self.handle(Input::RunnerUp { runner: key, info });
                if !sizes.is_empty() {
                    self.message(now + WIRE, key, Input::ProfileRequest { runner: key, sizes });
                }
            }
            Event::Crash(runner) => {
                let up = |(_, c): &(&RunnerKey, &mut Connection)| c.runner == runner && c.up;
                let Some((key, connection)) = self.connections.iter_mut().find(up) else { return };
                connection.up = false;
                let key = *key;
                self.take_token(key);
                self.abandon(key);
                self.handle(Input::RunnerDown { runner: key });
            }
            Event::Closed(key) => {
                self.handle(Input::RunnerDown { runner: key });
            }
            Event::Subscribe(number) => {
                if let Some(subscriptions) = self.changes.remove(&number) {
                    self.change(subscriptions);
                }
            }
            Event::Begin(number) => {
                if let Some(job) = self.beginning.remove(&number) {
                    self.begin_shared(job);
                }
            }
            Event::Share(device, version) => self.end_shared(device, version),
        }
    }

    /// Polls until the policy waits; returns until when.
    fn drain(&mut self) -> Instant {
        let now = self.now;
        self.cameras.now = now;
        loop {
            if let Some(trace) = &mut self.trace {
                trace.bytes.extend_from_slice(trace.encoder.poll(now));
            }
            let mut index = Index { cameras: &mut self.cameras, trace: &mut self.trace };
            let output = self.scheduler.poll(now, &mut index);
            if let Some(trace) = &mut self.trace {
                trace.bytes.extend_from_slice(trace.encoder.output(&output));
            }
            match output {
                Output::Prepare { runner, batch, lease, members } => {
                    let members: Vec<Binding> = members.to_vec();
                    for binding in &members {
                        let id = || self.scheduler.subscription_id(binding.subscription);
                        self.checker.bound(now, binding, id);
                    }
                    let count = members.len();
                    if let Some(lease) = lease {
                        self.give_token(runner, lease);
                    }
                    self.prepare(runner, batch, lease.is_some(), count);
                }
                Output::Grant { runner, batch, lease } => {
                    self.give_token(runner, lease);
                    self.grant(runner, batch);
                }
                Output::Revoke { runner, batch } => {
                    if let Some(c) = self.connections.get_mut(&runner) {
                        c.prepared.remove(&batch);
                    }
                }
                Output::ProfileGrant { runner, batch_size, lease } => {
                    self.give_token(runner, lease);
                    self.profile(runner, batch_size, lease);
                }
                Output::Close { runner, .. } => {
                    if let Some(c) = self.connections.get_mut(&runner) {
                        c.up = false;
                    }
                    self.take_token(runner);
                    self.abandon(runner);
                    self.event(now, Event::Closed(runner));
                }
                Output::Result { binding, received, stages, .. } => {
                    let age = received - binding.stamp.info.capture;
                    if stages.age() != age {
                        let detail = format!("{:?} is not {age:?}", stages);
                        self.checker.broken("stages add up to the age", now, detail);
                    }
                    self.delivered.push(Delivered { binding, received, age });
                }
                Output::Wait { until, .. } => return until,
            }
        }
    }
}
