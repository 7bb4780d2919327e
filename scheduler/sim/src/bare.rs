//! A world in virtual time that costs next to nothing: where it is measured, the core is measured.
//!
//! Cameras answer by arithmetic, runners take alpha + beta b and never fail, nothing is checked or
//! kept. Every call into the core goes through a [`Probe`]. Used by the benchmark of the core's cost
//! and by the test that it does not allocate; for behaviour there is [`crate::World`].

use crate::random::Random;
use base::{
    CameraId, Detection, DeviceId, FrameDetections, FrameFlags, FrameId, FrameInfo, Generation,
    InstanceId, Instant, LatencyEntry, LatencyTable, MediaTime, ModelId, Newest, Rect, Size,
    StageTimes, Stamp, TrackId, UtcNanos,
};
use scheduler::{
    BatchId, CameraKey, Config, Desired, FrameIndex, Input, Output, RunnerInfo, RunnerKey,
    Scheduler, SubscriptionSpec,
};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Virtual time at which a world begins: later than any capture it counts back to.
pub const BEGIN: Instant = Instant(1_000_000_000);
/// Capture to publication (chosen: a hardware decoder of 1080p).
const DECODE_NS: u64 = 8_000_000;
/// Copy of a batch, and decoding of its outputs (those of [`crate::RunnerModel`]).
const COPY: Duration = Duration::from_micros(300);
const POSTPROCESS: Duration = Duration::from_micros(200);
/// Detections of each frame (chosen: a busy street).
const DETECTIONS: usize = 7;

/// One call into the core, by what went in or came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "named as the inputs and outputs of the core")]
pub enum Call {
    Desired,
    RunnerUp,
    Prepared,
    Executed,
    Reply,
    Prepare,
    Grant,
    Revoke,
    Result,
    Wait,
    Other,
}

impl Call {
    /// All of them; a call's place is its number.
    pub const ALL: [Call; 11] = [
        Call::Desired,
        Call::RunnerUp,
        Call::Prepared,
        Call::Executed,
        Call::Reply,
        Call::Prepare,
        Call::Grant,
        Call::Revoke,
        Call::Result,
        Call::Wait,
        Call::Other,
    ];

    /// Whether it is a poll that decided something, not a look at cameras and not an input.
    pub const fn is_decision(self) -> bool {
        matches!(self, Call::Prepare | Call::Grant | Call::Revoke | Call::Result | Call::Other)
    }

    /// How tables name it.
    pub const fn name(self) -> &'static str {
        match self {
            Call::Desired => "handle Desired",
            Call::RunnerUp => "handle RunnerUp",
            Call::Prepared => "handle Prepared",
            Call::Executed => "handle Executed",
            Call::Reply => "handle Reply",
            Call::Prepare => "poll -> Prepare",
            Call::Grant => "poll -> Grant",
            Call::Revoke => "poll -> Revoke",
            Call::Result => "poll -> Result",
            Call::Wait => "poll -> Wait",
            Call::Other => "poll -> other",
        }
    }
}

/// Who measures: `begin` and `end` stand directly around each call into the core.
pub trait Probe {
    /// A call begins.
    fn begin(&mut self);
    /// It has ended.
    fn end(&mut self);
    /// What it was, and of how many members (a Prepare, a Reply; else 0).
    fn note(&mut self, now: Instant, call: Call, members: u32);
}

/// Ceilings of the subscriptions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rates {
    /// All the same, frames per second.
    Uniform(f64),
    /// 60 % at 5, 20 % at 1, 10 % at 10, 5 % at 2.5 and 5 % every frame (chosen).
    Mix,
}

/// What a world consists of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setup {
    /// Subscriptions: camera and model pairs.
    pub subscriptions: u32,
    /// Cameras.
    pub cameras: u32,
    /// Models, each with one runner; models go round the devices.
    pub models: u32,
    /// Devices, GPUs.
    pub devices: u32,
    /// Frames per second of every camera, phases random.
    pub source_fps: f64,
    /// Frames are published up to this much late, uniformly.
    pub jitter: Duration,
    /// Ceilings.
    pub rates: Rates,
    /// Load of each device with full batches: sum of rate x (alpha/b + beta).
    pub load: f64,
    /// Fixed cost of a batch relative to that of a member.
    pub alpha_over_beta: f64,
    /// Largest batch of each engine.
    pub batch_max: u32,
    /// Seed of phases, jitter and rates.
    pub seed: u64,
}

impl Setup {
    /// `subscriptions` of them with all else in the proportion of 10,000 subscriptions, 3,000
    /// cameras, 100 models and 8 devices, at 70 % load. At least 4 models: a camera has up to 4
    /// subscriptions. Alpha to beta as of ResNet-50 on an A100 (1.63 ms and 0.30 ms).
    pub fn of(subscriptions: u32) -> Setup {
        Setup {
            subscriptions,
            cameras: (subscriptions * 3).div_ceil(10).max(1),
            models: (subscriptions / 100).max(4),
            devices: (subscriptions * 8 / 10_000).max(1),
            source_fps: 25.0,
            jitter: Duration::from_millis(1),
            rates: Rates::Uniform(5.0),
            load: 0.7,
            alpha_over_beta: 5.4,
            batch_max: 32,
            seed: 1,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Camera {
    phase_ns: u64,
    salt: u64,
}

/// The newest frame of every camera at `now`, computed.
#[derive(Debug, Clone)]
pub struct BareIndex {
    cameras: Vec<Camera>,
    period_ns: u64,
    jitter_ns: u64,
    /// The instant that is answered for.
    pub now: Instant,
    /// Answers given.
    pub answers: u64,
}

impl BareIndex {
    fn published(&self, camera: &Camera, id: u64) -> u64 {
        // A finaliser of SplitMix64, scaled to the jitter by a multiplication.
        let mut z = (id ^ camera.salt).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z ^= z >> 32;
        let late = ((z & 0xFFFF_FFFF) * self.jitter_ns) >> 32;
        camera.phase_ns + id * self.period_ns + late
    }
}

impl FrameIndex for BareIndex {
    fn newest(&mut self, key: CameraKey) -> Newest {
        self.answers += 1;
        let camera = &self.cameras[key.0 as usize];
        let mut id = (self.now.0 - camera.phase_ns) / self.period_ns;
        let mut published = self.published(camera, id);
        if published > self.now.0 {
            id -= 1;
            published = self.published(camera, id);
        }
        let capture = Instant(published - DECODE_NS);
        Newest::Frame(Stamp {
            generation: Generation(1),
            frame_id: FrameId(id),
            slot: (id & 31) as u32,
            slots: 32,
            size: Size { width: 1920, height: 1080 },
            published: Instant(published),
            info: FrameInfo {
                media: MediaTime(id * 3600),
                capture,
                capture_utc: UtcNanos(capture.0),
                decode_start: capture,
                flags: FrameFlags::default(),
            },
        })
    }
}

/// What a runner was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Job {
    runner: u32,
    batch: u64,
    members: u32,
    received: u64,
    granted: u64,
    executed: u64,
}

/// In the order in which the runner says them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Saying {
    Prepared,
    Executed,
    Reply,
}

#[derive(Debug)]
struct Runner {
    alpha: Duration,
    beta: Duration,
    prepared: Option<Job>,
}

impl Runner {
    fn latency(&self, members: u32) -> Duration {
        self.alpha + self.beta * members
    }
}

/// The world. See the module.
pub struct BareWorld<P> {
    /// The core.
    pub scheduler: Scheduler,
    /// Who measures.
    pub probe: P,
    /// The cameras.
    pub index: BareIndex,
    now: Instant,
    wake: Instant,
    events: BinaryHeap<Reverse<(u64, Saying, Job)>>,
    runners: Vec<Runner>,
    desired: Desired,
    /// Detections that came back, to be sent again.
    found: Vec<FrameDetections>,
}

impl<P: Probe> BareWorld<P> {
    /// A world in which desired state and all runners have just been handled.
    pub fn new(setup: &Setup, config: Config, probe: P) -> BareWorld<P> {
        let mut random = Random::new(setup.seed, 0);
        let period_ns = (1e9 / setup.source_fps) as u64;
        let cameras = (0..setup.cameras)
            .map(|_| Camera { phase_ns: random.below(period_ns), salt: random.next_u64() })
            .collect();
        let index = BareIndex {
            cameras,
            period_ns,
            jitter_ns: base::time::nanos(setup.jitter),
            now: BEGIN,
            answers: 0,
        };
        let subscriptions: Vec<_> = (0..setup.subscriptions)
            .map(|i| {
                let (camera, rank) = (i % setup.cameras, i / setup.cameras);
                // Neighbouring models of a start that differs per camera: no pair comes twice.
                let first = Random::new(setup.seed, u64::from(camera) + 1)
                    .below(u64::from(setup.models)) as u32;
                subscription(camera, (first + rank) % setup.models, setup.rates, &mut random)
            })
            .collect();
        let mut world = BareWorld {
            scheduler: Scheduler::new(config),
            probe,
            index,
            now: BEGIN,
            wake: Instant::FAR,
            events: BinaryHeap::with_capacity(4 * setup.models as usize),
            runners: Vec::new(),
            desired: Desired { revision: 0, subscriptions },
            found: Vec::new(),
        };
        let rate_of = |device: u32| -> f64 {
            let of_device =
                |s: &&SubscriptionSpec| number(s.model.as_str()) % setup.devices == device;
            let here = world.desired.subscriptions.iter().filter(of_device);
            here.map(|s| s.max_fps.unwrap_or(f64::MAX).min(setup.source_fps)).sum()
        };
        let rates: Vec<f64> = (0..setup.devices).map(rate_of).collect();
        world.desire_again();
        for model in 0..setup.models {
            let device = model % setup.devices;
            let per_member = setup.alpha_over_beta / f64::from(setup.batch_max) + 1.0;
            let beta = setup.load / rates[device as usize] / per_member;
            world.runner(setup, model, device, Duration::from_secs_f64(beta));
        }
        world
    }

    fn runner(&mut self, setup: &Setup, model: u32, device: u32, beta: Duration) {
        let alpha = beta.mul_f64(setup.alpha_over_beta);
        let runner = Runner { alpha, beta, prepared: None };
        let sizes = (0..).map(|e| 1 << e).take_while(|b| *b < setup.batch_max);
        let latency = LatencyTable::new(sizes.chain([setup.batch_max]).map(|batch| {
            let p50 = runner.latency(batch);
            LatencyEntry { batch, p50, p99: p50.mul_f64(1.1) }
        }));
        let info = RunnerInfo {
            instance: InstanceId(u64::from(model) + 1),
            model: ModelId::new(&format!("m{model}")).expect("a literal id"),
            device: format!("gpu{device}").parse::<DeviceId>().expect("a literal id"),
            gpu: true,
            batch_max: setup.batch_max,
            deadline: Duration::from_millis(500),
            latency,
        };
        self.runners.push(runner);
        let runner = RunnerKey(u64::from(model));
        self.handle(Call::RunnerUp, 0, Input::RunnerUp { runner, info });
        self.poll();
    }

    /// Sends the desired state once more, with a new revision and nothing else new.
    pub fn desire_again(&mut self) {
        self.desired.revision += 1;
        let input = Input::Desired(self.desired.clone());
        self.handle(Call::Desired, 0, input);
        self.poll();
    }

    /// Lives on until `end`.
    pub fn run_until(&mut self, end: Instant) {
        loop {
            let event = self.events.peek().map_or(u64::MAX, |Reverse((at, ..))| *at);
            let next = self.wake.0.min(event);
            if next > end.0 {
                return;
            }
            self.now = Instant(next);
            self.index.now = self.now;
            while let Some(&Reverse((at, saying, job))) = self.events.peek() {
                if at > next {
                    break;
                }
                self.events.pop();
                self.say(saying, job);
            }
            self.poll();
        }
    }

    fn handle(&mut self, call: Call, members: u32, input: Input) {
        self.probe.begin();
        self.scheduler.handle(self.now, input);
        self.probe.end();
        self.probe.note(self.now, call, members);
    }

    fn say(&mut self, saying: Saying, job: Job) {
        let (runner, batch) = (RunnerKey(u64::from(job.runner)), BatchId(job.batch));
        let (granted, executed) = (Instant(job.granted), Instant(job.executed));
        match saying {
            Saying::Prepared => {
                self.handle(Call::Prepared, job.members, Input::Prepared { runner, batch });
            }
            Saying::Executed => {
                let input = Input::Executed { runner, batch, granted, executed };
                self.handle(Call::Executed, job.members, input);
            }
            Saying::Reply => {
                let received = Instant(job.received);
                let times = StageTimes {
                    received,
                    copied: received + COPY,
                    granted,
                    preprocessed: granted,
                    executed,
                    postprocessed: self.now,
                };
                let outcomes = (0..job.members).map(|_| Ok(self.found.pop().unwrap_or_else(found)));
                let outcomes = outcomes.collect();
                let input = Input::Reply { runner, batch, times, outcomes };
                self.handle(Call::Reply, job.members, input);
            }
        }
    }

    /// Polls until the core waits, and does what it says.
    fn poll(&mut self) {
        loop {
            self.probe.begin();
            let output = self.scheduler.poll(self.now, &mut self.index);
            self.probe.end();
            let mut size = 0;
            let call = match output {
                Output::Prepare { runner, batch, lease, members } => {
                    size = members.len() as u32;
                    let r = &mut self.runners[runner.0 as usize];
                    let mut job = Job {
                        runner: runner.0 as u32,
                        batch: batch.0,
                        members: size,
                        received: self.now.0,
                        granted: 0,
                        executed: 0,
                    };
                    let copied = self.now + COPY;
                    if lease.is_some() {
                        execute(&mut self.events, r, &mut job, copied);
                    } else {
                        r.prepared = Some(job);
                        self.events.push(Reverse((copied.0, Saying::Prepared, job)));
                    }
                    Call::Prepare
                }
                Output::Grant { runner, batch, .. } => {
                    let r = &mut self.runners[runner.0 as usize];
                    let mut job = r.prepared.take().expect("what is granted was prepared");
                    assert_eq!(job.batch, batch.0, "a runner holds one prepared batch");
                    let granted = self.now.max(Instant(job.received) + COPY);
                    execute(&mut self.events, r, &mut job, granted);
                    Call::Grant
                }
                Output::Revoke { runner, .. } => {
                    self.runners[runner.0 as usize].prepared = None;
                    Call::Revoke
                }
                Output::Result { outcome, .. } => {
                    self.found.extend(outcome.ok());
                    Call::Result
                }
                Output::Wait { until, .. } => {
                    assert!(until > self.now, "the core waits for what is past at {}", until.0);
                    self.wake = until;
                    Call::Wait
                }
                Output::ProfileGrant { .. } => Call::Other,
                Output::Close { runner, reason } => panic!("runner {} closed: {reason}", runner.0),
            };
            self.probe.note(self.now, call, size);
            if call == Call::Wait {
                return;
            }
        }
    }
}

fn execute(
    events: &mut BinaryHeap<Reverse<(u64, Saying, Job)>>,
    runner: &Runner,
    job: &mut Job,
    granted: Instant,
) {
    let executed = granted + runner.latency(job.members);
    (job.granted, job.executed) = (granted.0, executed.0);
    events.push(Reverse((executed.0, Saying::Executed, *job)));
    events.push(Reverse(((executed + POSTPROCESS).0, Saying::Reply, *job)));
}

/// The number in an id such as `m17`.
fn number(id: &str) -> u32 {
    id[1..].parse().expect("a letter and a number")
}

fn subscription(camera: u32, model: u32, rates: Rates, random: &mut Random) -> SubscriptionSpec {
    let max_fps = match rates {
        Rates::Uniform(fps) => Some(fps),
        Rates::Mix => match random.below(20) {
            0..12 => Some(5.0),
            12..16 => Some(1.0),
            16..18 => Some(10.0),
            18 => Some(2.5),
            _ => None,
        },
    };
    SubscriptionSpec {
        id: format!("c{camera}-m{model}"),
        camera: CameraId::new(&format!("c{camera}")).expect("a literal id"),
        model: ModelId::new(&format!("m{model}")).expect("a literal id"),
        parent: None,
        max_fps,
        weight: 1.0,
        deadline: None,
        parameters: 0,
        regions_max: base::limits::MAX_REGIONS_DEFAULT,
        enabled: true,
    }
}

fn found() -> FrameDetections {
    let bbox = Rect { x1: 0.1, y1: 0.1, x2: 0.2, y2: 0.2 };
    let detection = Detection { bbox, score: 0.9, class_id: 0, track: TrackId(0) };
    FrameDetections { detections: vec![detection; DETECTIONS], ..FrameDetections::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count([u64; Call::ALL.len()], u64);

    impl Probe for Count {
        fn begin(&mut self) {}
        fn end(&mut self) {}
        fn note(&mut self, _: Instant, call: Call, members: u32) {
            self.0[call as usize] += 1;
            self.1 += if call == Call::Prepare { u64::from(members) } else { 0 };
        }
    }

    #[test]
    fn every_subscription_gets_its_rate_below_full_load_and_devices_are_busy_above_it() {
        let run = |load: f64| {
            let setup = Setup { load, ..Setup::of(400) };
            let count = Count([0; Call::ALL.len()], 0);
            let mut world = BareWorld::new(&setup, Config::default(), count);
            world.run_until(BEGIN + Duration::from_secs(3));
            let before = world.probe.1;
            world.run_until(BEGIN + Duration::from_secs(8));
            (world.probe.1 - before) as f64 / 5.0
        };
        assert!((run(0.7) / 2000.0 - 1.0).abs() < 0.02, "{} of 2000 fps", run(0.7));
        let share = run(1.3) * 1.3 / 2000.0;
        assert!((0.9..1.01).contains(&share), "overloaded devices do {share} of what they can");
    }
}
