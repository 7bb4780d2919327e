//! The event loop of virtual time.

use crate::camera::{CameraModel, SimCamera};
use crate::checker::Checker;
use crate::random::Random;
use crate::runner::{Fault, RunnerModel};
use base::{CameraId, DeviceId, FrameDetections, InstanceId, Instant, Newest, StageTimes};
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
const WIRE: Duration = Duration::from_micros(50);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A message of a runner's connection arrives; the number finds its content.
    Message(RunnerKey, u64),
    Connect(usize),
    Crash(usize),
    /// The connection that the scheduler closed is down.
    Closed(RunnerKey),
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

/// Cameras, runners and the scheduler between them.
pub struct World {
    /// The production core.
    pub scheduler: Scheduler,
    /// Watches it.
    pub checker: Checker,
    /// Every delivered result, in order.
    pub delivered: Vec<Delivered>,
    /// Device time per runner model.
    pub busy: Vec<Duration>,
    /// Batches per runner model.
    pub batches: Vec<u64>,
    now: Instant,
    seed: u64,
    cameras: Cameras,
    desired: Vec<SubscriptionSpec>,
    revision: u64,
    runners: Vec<RunnerModel>,
    randoms: Vec<Random>,
    connections: BTreeMap<RunnerKey, Connection>,
    next_connection: u64,
    next_instance: u64,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    messages: BTreeMap<u64, Input>,
    next_event: u64,
    /// Tokens out: who, on which device, until when at most.
    tokens: Vec<(RunnerKey, DeviceId, Instant)>,
    capacity: Config,
    trace: Option<Trace>,
}

#[derive(Default)]
struct Trace {
    encoder: Encoder,
    bytes: Vec<u8>,
}

/// The cameras as the core sees them, with every answer recorded when a trace is wanted.
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

struct Cameras {
    ids: Vec<CameraId>,
    models: BTreeMap<CameraId, SimCamera>,
    by_key: Vec<CameraId>,
    now: Instant,
}

impl Cameras {
    fn newest(&mut self, camera: CameraKey) -> Newest {
        let id = &self.by_key[camera.0 as usize];
        match self.models.get_mut(id) {
            Some(model) => model.newest(self.now),
            None => Newest::Absent(base::Absent::NoRing),
        }
    }
}

impl World {
    /// An empty world.
    pub fn new(config: Config, seed: u64) -> World {
        World {
            scheduler: Scheduler::new(config.clone()),
            checker: Checker::default(),
            delivered: Vec::new(),
            busy: Vec::new(),
            batches: Vec::new(),
            now: Instant::ZERO,
            seed,
            cameras: Cameras {
                ids: Vec::new(),
                models: BTreeMap::new(),
                by_key: Vec::new(),
                now: Instant::ZERO,
            },
            desired: Vec::new(),
            revision: 0,
            runners: Vec::new(),
            randoms: Vec::new(),
            connections: BTreeMap::new(),
            next_connection: 1,
            next_instance: 1,
            events: BinaryHeap::new(),
            messages: BTreeMap::new(),
            next_event: 0,
            tokens: Vec::new(),
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
        let random = Random::new(self.seed, 1_000_000 + self.cameras.ids.len() as u64);
        self.cameras.ids.push(id.clone());
        self.cameras.models.insert(id, SimCamera::new(model, random));
    }

    /// Frames that a camera published until now.
    pub fn published(&mut self, id: &str) -> u64 {
        let now = self.now;
        let id: CameraId = id.parse().expect("camera ids of a workload are valid");
        self.cameras.models.get_mut(&id).map_or(0, |c| c.published(now))
    }

    /// Adds a runner that connects at `at`.
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
        self.runners.push(model);
        self.randoms.push(Random::new(self.seed, 2_000_000 + number as u64));
        self.busy.push(Duration::ZERO);
        self.batches.push(0);
        self.event(at, Event::Connect(number));
        number
    }

    /// Replaces the subscriptions, now.
    pub fn subscribe(&mut self, subscriptions: Vec<SubscriptionSpec>) {
        self.revision += 1;
        self.desired = subscriptions.clone();
        let desired = Desired { revision: self.revision, subscriptions };
        self.handle(Input::Desired(desired));
        self.drain();
    }

    /// The subscriptions as they were last set.
    pub fn desired(&self) -> &[SubscriptionSpec] {
        &self.desired
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
            enabled: true,
        }
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
                        self.tokens.retain(|(holder, ..)| *holder != key);
                    }
                    self.handle(input);
                }
            }
            Event::Connect(runner) => {
                let key = RunnerKey(self.next_connection);
                self.next_connection += 1;
                let info = self.runners[runner].info(InstanceId(self.next_instance));
                self.next_instance += 1;
                let connection = Connection { runner, up: true, prepared: BTreeMap::new() };
                self.connections.insert(key, connection);
                self.handle(Input::RunnerUp { runner: key, info });
                if !self.runners[runner].measured {
                    let sizes = self.runners[runner].sizes();
                    self.message(now + WIRE, key, Input::ProfileRequest { runner: key, sizes });
                }
            }
            Event::Crash(runner) => {
                let up = |(_, c): &(&RunnerKey, &mut Connection)| c.runner == runner && c.up;
                let Some((key, connection)) = self.connections.iter_mut().find(up) else { return };
                connection.up = false;
                let key = *key;
                self.tokens.retain(|(holder, ..)| *holder != key);
                self.handle(Input::RunnerDown { runner: key });
            }
            Event::Closed(key) => {
                self.handle(Input::RunnerDown { runner: key });
            }
        }
    }

    /// Polls until the core waits; returns until when.
    fn drain(&mut self) -> Instant {
        let now = self.now;
        self.cameras.now = now;
        loop {
            self.refresh_keys();
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
                        let max_fps = self.ceiling(binding);
                        self.checker.bound(now, binding, max_fps);
                    }
                    let count = members.len();
                    if let Some(lease) = lease {
                        self.token(runner, lease);
                    }
                    self.prepare(runner, batch, lease.is_some(), count);
                }
                Output::Grant { runner, batch, lease } => {
                    self.token(runner, lease);
                    self.grant(runner, batch);
                }
                Output::Revoke { runner, batch } => {
                    if let Some(c) = self.connections.get_mut(&runner) {
                        c.prepared.remove(&batch);
                    }
                }
                Output::ProfileGrant { runner, batch_size, lease } => {
                    self.token(runner, lease);
                    self.profile(runner, batch_size, lease);
                }
                Output::Close { runner, .. } => {
                    if let Some(c) = self.connections.get_mut(&runner) {
                        c.up = false;
                    }
                    self.tokens.retain(|(holder, ..)| *holder != runner);
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

    fn refresh_keys(&mut self) {
        let known = self.cameras.by_key.len();
        for (key, id) in self.scheduler.cameras() {
            let at = key.0 as usize;
            if at >= known {
                self.cameras.by_key.resize(at + 1, id.clone());
                self.cameras.by_key[at] = id.clone();
            }
        }
    }

    fn ceiling(&self, binding: &Binding) -> Option<f64> {
        let id = self.scheduler.subscription_id(binding.subscription)?;
        self.desired.iter().find(|s| s.id == id)?.max_fps
    }

    /// A token goes out: never more than the device's capacity at a time.
    fn token(&mut self, key: RunnerKey, lease: Duration) {
        let now = self.now;
        let device = self.runners[self.connections[&key].runner].device.clone();
        self.tokens.retain(|(.., until)| *until > now);
        self.tokens.push((key, device.clone(), now + lease));
        let out = self.tokens.iter().filter(|(_, d, _)| *d == device).count();
        let capacity = self.capacity.capacity_of(&device) as usize;
        if out > capacity {
            let detail = format!("{out} tokens of {device} are out, capacity is {capacity}");
            self.checker.broken("one token per unit of capacity", now, detail);
        }
    }

    fn two_step(&self, key: RunnerKey) -> bool {
        self.connections.get(&key).is_some_and(|c| self.runners[c.runner].gpu)
    }

    fn prepare(&mut self, key: RunnerKey, batch: BatchId, token: bool, members: usize) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let runner = connection.runner;
        let received = now + WIRE;
        let copied = received + self.runners[runner].copy;
        if token {
            let light = !self.runners[runner].gpu;
            self.execute(key, batch, members, (received, copied), copied, light);
        } else {
            connection.prepared.insert(batch, (members, received, copied));
            if !self.runners[runner].hung(now) {
                self.message(copied + WIRE, key, Input::Prepared { runner: key, batch });
            }
        }
    }

    fn grant(&mut self, key: RunnerKey, batch: BatchId) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Some((members, received, copied)) = connection.prepared.remove(&batch) else {
            let detail = format!("{batch:?} of {key:?}");
            return self.checker.broken("a grant names a prepared batch", self.now, detail);
        };
        let begin = copied.max(self.now + WIRE);
        self.execute(key, batch, members, (received, copied), begin, false);
    }

    fn execute(
        &mut self,
        key: RunnerKey,
        batch: BatchId,
        members: usize,
        (received, copied): (Instant, Instant),
        begin: Instant,
        light: bool,
    ) {
        let runner = self.connections[&key].runner;
        let model = &self.runners[runner];
        let random = &mut self.randoms[runner];
        let Some(length) = model.execution(self.now, members as u32, random) else { return };
        let executed = begin + length;
        let postprocessed = executed + model.postprocess;
        self.busy[runner] += length;
        self.batches[runner] += 1;
        let times = StageTimes {
            received,
            copied,
            granted: begin,
            preprocessed: begin,
            executed,
            postprocessed,
        };
        if !light {
            let input = Input::Executed { runner: key, batch, granted: begin, executed };
            self.message(executed + WIRE, key, input);
        }
        let outcomes = vec![Ok(FrameDetections::default()); members];
        let input = Input::Reply { runner: key, batch, times, outcomes };
        self.message(postprocessed + WIRE, key, input);
    }

    /// A runner measures until it has nine runs or 60 % of the lease is used, as the product's.
    fn profile(&mut self, key: RunnerKey, batch_size: u32, lease: Duration) {
        let runner = self.connections[&key].runner;
        let Some(length) =
            self.runners[runner].execution(self.now, batch_size, &mut self.randoms[runner])
        else {
            return;
        };
        let fit = lease.as_secs_f64() * 0.6 / length.as_secs_f64();
        let runs = (fit as u32).clamp(1, 9);
        let samples = vec![length; runs as usize];
        let done = self.now + WIRE * 2 + length * runs;
        let input = Input::ProfileDone { runner: key, batch_size, samples };
        self.message(done, key, input);
        if batch_size == self.runners[runner].batch_max {
            let table = self.runners[runner].table();
            self.message(done + WIRE, key, Input::Table { runner: key, table });
        }
    }
}
