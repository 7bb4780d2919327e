//! What every rival has: cameras, gates, requests, runners, devices, batches that are out.

use crate::policy::Frames;
use base::{CameraId, DeviceId, FrameId, Instant, ModelId, Newest, Rect, Stamp};
use scheduler::{
    BatchId, Binding, CameraKey, Config, Desired, RunnerInfo, RunnerKey, SubscriptionKey,
    SubscriptionSpec,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

/// A batch whose runner says nothing for this many times its p99 and this much more loses the
/// token (production: three times p99 with a floor).
const LEASE_TIMES: u32 = 3;
const LEASE_FLOOR: Duration = Duration::from_millis(50);

/// A frame that passed its gate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub subscription: SubscriptionKey,
    pub camera: CameraKey,
    pub stamp: Stamp,
    /// The result is late after this.
    pub deadline: Instant,
    parameters: u32,
}

impl Request {
    /// When it came.
    pub fn arrived(&self) -> Instant {
        self.stamp.published
    }

    fn binding(&self) -> Binding {
        Binding {
            subscription: self.subscription,
            camera: self.camera,
            stamp: self.stamp,
            region: Rect::WHOLE,
            parent: 0,
            parameters: self.parameters,
            first: true,
        }
    }
}

pub(super) struct Subscription {
    pub spec: SubscriptionSpec,
    camera: CameraKey,
    pub model: usize,
    /// Frames published earlier are not taken.
    pub gate: Instant,
    /// It is desired, enabled and not on another model's detections.
    pub active: bool,
    /// It is desired.
    pub present: bool,
}

struct Camera {
    id: CameraId,
    subscriptions: Vec<SubscriptionKey>,
    newest: Option<Stamp>,
    planned: bool,
}

#[derive(Default)]
pub(super) struct Model {
    /// Places in `runners` of those that are connected.
    pub runners: Vec<usize>,
    /// Requests in the order of arrival, where the rule keeps them here.
    pub queue: VecDeque<Request>,
    /// Active subscriptions.
    pub sources: usize,
    /// Sum of their ceilings, 25 fps where there is none.
    pub rate: f64,
}

pub(super) struct Runner {
    pub key: RunnerKey,
    pub info: RunnerInfo,
    pub model: usize,
    pub device: usize,
    up: bool,
    /// The batch on the device.
    executing: Option<BatchId>,
    /// Its lease passed and it has not answered since.
    lost: bool,
    /// L(b), p99, by b - 1.
    lengths: Vec<Duration>,
    /// From launch to reply without the execution, the longest so far.
    overhead: Duration,
}

struct Device {
    id: DeviceId,
    capacity: u32,
    lent: u32,
}

struct Batch {
    runner: usize,
    members: Vec<Binding>,
    launched: Instant,
    lease_end: Instant,
}

/// The state that a rule decides on.
pub(super) struct Server {
    pub subscriptions: Vec<Subscription>,
    keys: BTreeMap<(CameraId, ModelId, Option<ModelId>), SubscriptionKey>,
    cameras: Vec<Camera>,
    camera_keys: BTreeMap<CameraId, CameraKey>,
    pub models: Vec<Model>,
    model_places: BTreeMap<ModelId, usize>,
    pub runners: Vec<Runner>,
    devices: Vec<Device>,
    batches: BTreeMap<BatchId, Batch>,
    next_batch: u64,
    arrivals: BinaryHeap<Reverse<(Instant, CameraKey)>>,
    config: Config,
    tokens: bool,
    /// From publication until it is known.
    notice: Duration,
}

impl Server {
    /// A server that knows nothing yet.
    pub fn new(tokens: bool, notice: Duration) -> Server {
        Server {
            subscriptions: Vec::new(),
            keys: BTreeMap::new(),
            cameras: Vec::new(),
            camera_keys: BTreeMap::new(),
            models: Vec::new(),
            model_places: BTreeMap::new(),
            runners: Vec::new(),
            devices: Vec::new(),
            batches: BTreeMap::new(),
            next_batch: 1,
            arrivals: BinaryHeap::new(),
            config: Config::default(),
            tokens,
            notice,
        }
    }

    /// Takes the capacities of devices.
    pub fn start(&mut self, config: &Config) {
        self.config = config.clone();
    }

    /// Takes a frame when the gate is open, and moves the gate as production does.
    pub fn pass_gate(&mut self, key: SubscriptionKey, stamp: &Stamp) -> Option<Request> {
        let s = &mut self.subscriptions[key.0 as usize];
        if stamp.published < s.gate {
            return None;
        }
        if let Some(fps) = s.spec.max_fps {
            s.gate = (s.gate + Duration::from_secs_f64(1.0 / fps)).max(stamp.published);
        }
        Some(self.request(key, stamp))
    }

    /// A request for a frame, whatever the gate says.
    pub fn request(&self, key: SubscriptionKey, stamp: &Stamp) -> Request {
        let s = &self.subscriptions[key.0 as usize];
        let runner = self.models[s.model].runners.first().map(|r| self.runners[*r].info.deadline);
        let limit = s.spec.deadline.or(runner).unwrap_or(Duration::MAX);
        Request {
            subscription: key,
            camera: s.camera,
            stamp: *stamp,
            deadline: stamp.info.capture + limit,
            parameters: s.spec.parameters,
        }
    }

    /// Puts a request into its model's queue.
    pub fn enqueue(&mut self, request: Request) {
        let model = self.subscriptions[request.subscription.0 as usize].model;
        self.models[model].queue.push_back(request);
    }

    /// The newest frame of a subscription's camera.
    pub fn newest(&self, key: SubscriptionKey) -> Option<Stamp> {
        let camera = self.subscriptions[key.0 as usize].camera;
        self.cameras[camera.0 as usize].newest
    }

    /// Runners that could begin a batch now, in the order of their connection.
    pub fn free_runners(&self) -> impl Iterator<Item = usize> {
        self.runners.iter().enumerate().filter(|(_, r)| self.free(r)).map(|(place, _)| place)
    }

    fn free(&self, runner: &Runner) -> bool {
        let device = &self.devices[runner.device];
        runner.up
            && !runner.lost
            && runner.executing.is_none()
            && (!self.tokens || device.lent < device.capacity)
    }

    /// Launch to reply of a batch of `batch` frames, at the 99th percentile.
    pub fn length(&self, runner: usize, batch: usize) -> Duration {
        let r = &self.runners[runner];
        let at = batch.clamp(1, r.lengths.len().max(1)) - 1;
        r.lengths.get(at).copied().unwrap_or_default() + r.overhead
    }

    /// The largest batch of a runner's engine.
    pub fn batch_max(&self, runner: usize) -> usize {
        self.runners[runner].lengths.len()
    }

    /// Drops requests from the front while one that is answered with `target` frames from the
    /// front on, or with as many as there are, would be late.
    pub fn drop_hopeless(&mut self, runner: usize, now: Instant, target: usize, shave: Duration) {
        let model = self.runners[runner].model;
        while let Some(head) = self.models[model].queue.front() {
            let batch = self.models[model].queue.len().min(target);
            if now + self.length(runner, batch) + shave <= head.deadline {
                return;
            }
            self.models[model].queue.pop_front();
        }
    }

    /// Takes the first `count` requests of a model's queue.
    pub fn take(&mut self, model: usize, count: usize) -> Vec<Request> {
        let queue = &mut self.models[model].queue;
        queue.drain(..count.min(queue.len())).collect()
    }

    fn model(&mut self, id: &ModelId) -> usize {
        let fresh = self.models.len();
        let place = *self.model_places.entry(id.clone()).or_insert(fresh);
        if place == fresh {
            self.models.push(Model::default());
        }
        place
    }

    /// Takes desired state; answers which subscriptions began.
    pub fn desired(&mut self, now: Instant, desired: Desired) -> Vec<SubscriptionKey> {
        let mut begun = Vec::new();
        for s in &mut self.subscriptions {
            (s.present, s.active) = (false, false);
        }
        for spec in desired.subscriptions {
            let name = (spec.camera.clone(), spec.model.clone(), spec.parent.clone());
            let active = spec.enabled && spec.parent.is_none();
            if let Some(key) = self.keys.get(&name) {
                let s = &mut self.subscriptions[key.0 as usize];
                if s.present {
                    continue; // One per camera, model and parent; the first counts.
                }
                (s.present, s.active) = (true, active);
                if s.spec.max_fps != spec.max_fps {
                    let interval = spec.max_fps.map_or(0.0, |fps| 1.0 / fps);
                    s.gate = s.gate.min(now + Duration::from_secs_f64(interval));
                }
                s.spec = spec;
                continue;
            }
            let key = SubscriptionKey(self.subscriptions.len() as u64);
            let fresh = CameraKey(self.cameras.len() as u32);
            let camera = *self.camera_keys.entry(spec.camera.clone()).or_insert(fresh);
            if camera == fresh {
                self.cameras.push(Camera {
                    id: spec.camera.clone(),
                    subscriptions: Vec::new(),
                    newest: None,
                    planned: false,
                });
            }
            self.cameras[camera.0 as usize].subscriptions.push(key);
            let model = self.model(&spec.model);
            let (gate, present) = (now, true);
            self.subscriptions.push(Subscription { spec, camera, model, gate, active, present });
            self.keys.insert(name, key);
            begun.push(key);
        }
        let subscriptions = &self.subscriptions;
        self.keys.retain(|_, key| subscriptions[key.0 as usize].present);
        for (place, camera) in self.cameras.iter_mut().enumerate() {
            camera.subscriptions.retain(|key| subscriptions[key.0 as usize].present);
            if !camera.planned && !camera.subscriptions.is_empty() {
                camera.planned = true;
                self.arrivals.push(Reverse((now, CameraKey(place as u32))));
            }
        }
        for model in &mut self.models {
            model.queue.retain(|r| subscriptions[r.subscription.0 as usize].active);
            (model.sources, model.rate) = (0, 0.0);
        }
        for s in self.subscriptions.iter().filter(|s| s.active) {
            self.models[s.model].sources += 1;
            self.models[s.model].rate += s.spec.max_fps.unwrap_or(25.0);
        }
        begun
    }

    /// Takes in a runner.
    pub fn runner_up(&mut self, key: RunnerKey, info: RunnerInfo) {
        let model = self.model(&info.model);
        let known = self.devices.iter().position(|d| d.id == info.device);
        let device = known.unwrap_or(self.devices.len());
        if known.is_none() {
            let capacity = self.config.capacity_of(&info.device);
            self.devices.push(Device { id: info.device.clone(), capacity, lent: 0 });
        }
        let length = |batch| info.latency.p99(batch).unwrap_or_default();
        self.models[model].runners.push(self.runners.len());
        self.runners.push(Runner {
            key,
            model,
            device,
            up: true,
            executing: None,
            lost: false,
            lengths: (1..=info.batch_max).map(length).collect(),
            overhead: Duration::ZERO,
            info,
        });
    }

    /// The place of a connected runner.
    pub fn place(&self, key: RunnerKey) -> Option<usize> {
        self.runners.iter().position(|r| r.key == key && r.up)
    }

    /// Everything that a runner holds is lost with it, and what waits when it was the last.
    pub fn runner_down(&mut self, place: usize) -> Vec<Binding> {
        self.release(place);
        let runner = &mut self.runners[place];
        runner.up = false;
        let model = &mut self.models[runner.model];
        model.runners.retain(|r| *r != place);
        let out = self.batches.extract_if(.., |_, b| b.runner == place);
        let mut lost: Vec<Binding> = out.flat_map(|(_, b)| b.members).collect();
        if model.runners.is_empty() {
            lost.extend(model.queue.drain(..).map(|r| Request::binding(&r)));
        }
        lost
    }

    /// The device of a runner is free again.
    fn release(&mut self, place: usize) {
        let runner = &mut self.runners[place];
        if runner.executing.take().is_some() && !runner.lost {
            self.devices[runner.device].lent -= 1;
        }
        runner.lost = false;
    }

    /// Takes the device from those whose lease has passed; answers when the next one does.
    pub fn pass_leases(&mut self, now: Instant) -> Instant {
        let mut next = Instant::FAR;
        if !self.tokens {
            return next;
        }
        for runner in &mut self.runners {
            let Some(batch) = runner.executing.filter(|_| !runner.lost) else { continue };
            let end = self.batches[&batch].lease_end;
            if end <= now {
                runner.lost = true;
                self.devices[runner.device].lent -= 1;
            } else {
                next = next.min(end);
            }
        }
        next
    }

    /// Puts requests on a device: the batch, for how long it may stay, its members.
    pub fn launch(
        &mut self,
        now: Instant,
        place: usize,
        requests: Vec<Request>,
    ) -> (BatchId, Duration, &[Binding]) {
        let id = BatchId(self.next_batch);
        self.next_batch += 1;
        let lease = self.length(place, requests.len()) * LEASE_TIMES + LEASE_FLOOR;
        let members = requests.iter().map(Request::binding);
        let batch = Batch {
            runner: place,
            members: members.collect(),
            launched: now,
            lease_end: now + lease,
        };
        let runner = &mut self.runners[place];
        runner.executing = Some(id);
        self.devices[runner.device].lent += 1;
        (id, lease, &self.batches.entry(id).or_insert(batch).members)
    }

    /// The next frame that was published until `now` and not shown yet.
    pub fn next_frame(
        &mut self,
        now: Instant,
        frames: &mut dyn Frames,
    ) -> Option<(CameraKey, Stamp)> {
        while let Some(&Reverse((at, key))) = self.arrivals.peek() {
            if at > now {
                return None;
            }
            self.arrivals.pop();
            let camera = &mut self.cameras[key.0 as usize];
            if camera.subscriptions.is_empty() {
                camera.planned = false;
                continue;
            }
            let before = camera.newest.map_or(FrameId::default(), |n| n.frame_id);
            let newest = frames.newest(key);
            let known =
                frames.next_publication(key).0.saturating_add(base::time::nanos(self.notice));
            self.arrivals.push(Reverse((Instant(known), key)));
            if let Newest::Frame(stamp) = newest
                && stamp.frame_id > before
            {
                camera.newest = Some(stamp);
                return Some((key, stamp));
            }
        }
        None
    }

    /// When the next frame of any camera comes.
    pub fn next_arrival(&self) -> Instant {
        self.arrivals.peek().map_or(Instant::FAR, |Reverse((at, _))| *at)
    }

    /// The subscriptions of a camera.
    pub fn watching(&self, camera: CameraKey) -> &[SubscriptionKey] {
        &self.cameras[camera.0 as usize].subscriptions
    }

    /// Whether a subscription is active and its model has a runner.
    pub fn serves(&self, key: SubscriptionKey) -> bool {
        let s = &self.subscriptions[key.0 as usize];
        s.active && !self.models[s.model].runners.is_empty()
    }

    /// Takes a batch back that its runner answered.
    pub fn answered(
        &mut self,
        now: Instant,
        id: BatchId,
        executed: Duration,
    ) -> Option<Vec<Binding>> {
        let batch = self.batches.remove(&id)?;
        self.executed(batch.runner, id);
        let runner = &mut self.runners[batch.runner];
        let overhead = (now - batch.launched).saturating_sub(executed);
        runner.overhead = runner.overhead.max(overhead);
        Some(batch.members)
    }

    /// A batch is no longer on its device.
    pub fn executed(&mut self, place: usize, id: BatchId) {
        if self.runners[place].executing == Some(id) {
            self.release(place);
        }
    }

    /// The camera behind a key.
    pub fn camera_id(&self, key: CameraKey) -> &CameraId {
        &self.cameras[key.0 as usize].id
    }

    /// Every camera that ever had subscriptions, in the order of their keys.
    pub fn cameras(&self) -> impl Iterator<Item = &CameraId> {
        self.cameras.iter().map(|c| &c.id)
    }
}
