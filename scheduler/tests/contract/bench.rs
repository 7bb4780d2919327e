//! A driver of the core with cameras and runners that do what a test says.

use base::{
    Absent, FrameDetections, FrameFlags, FrameId, FrameInfo, Generation, InstanceId, Instant,
    LatencyEntry, LatencyTable, MediaTime, Newest, Size, StageTimes, Stamp, UtcNanos,
};
use scheduler::{
    BatchId, CameraKey, CloseReason, Config, Desired, FrameIndex, Input, Ledger, Output,
    RunnerInfo, RunnerKey, Scheduler, SubscriptionSpec,
};
use std::time::Duration;

pub const MS: u64 = 1_000_000;

/// What a driver did, in short.
#[derive(Debug, PartialEq, Clone)]
pub enum Did {
    Prepare(RunnerKey, BatchId, Vec<u64>),
    Profile(RunnerKey, u32),
    Grant(RunnerKey, BatchId),
    Revoke(RunnerKey, BatchId),
    Close(RunnerKey, CloseReason),
    Result(u64),
}

#[derive(Default)]
pub struct Frames(Vec<Option<Newest>>);

impl FrameIndex for Frames {
    fn newest(&mut self, camera: CameraKey) -> Newest {
        let known = self.0.get(camera.0 as usize).copied().flatten();
        known.unwrap_or(Newest::Absent(Absent::NoRing))
    }
}

pub struct Bench {
    pub core: Scheduler,
    pub frames: Frames,
    pub now: Instant,
}

impl Bench {
    pub fn new(cameras: &[&str], models: &[&str]) -> Bench {
        let mut bench = Bench {
            core: Scheduler::new(Config::default()),
            frames: Frames::default(),
            now: Instant(1_000 * MS),
        };
        let pairs = models.iter().flat_map(|m| cameras.iter().map(move |c| spec(c, m)));
        bench.desire(pairs.collect());
        bench
    }

    /// These subscriptions and no others.
    pub fn desire(&mut self, subscriptions: Vec<SubscriptionSpec>) {
        self.core.handle(self.now, Input::Desired(Desired { revision: 1, subscriptions }));
    }

    /// A runner on the device `cpu0` whose batches of one take 10 ms.
    pub fn runner(&mut self, key: u64, model: &str, instance: u64) -> Vec<Did> {
        self.runner_on("cpu0", key, model, instance)
    }

    /// The same on a GPU, where batches are prepared ahead, when its name says so.
    pub fn runner_on(&mut self, device: &str, key: u64, model: &str, instance: u64) -> Vec<Did> {
        let info = info(device, model, instance);
        self.handle(Input::RunnerUp { runner: RunnerKey(key), info })
    }

    pub fn handle(&mut self, input: Input) -> Vec<Did> {
        self.core.handle(self.now, input);
        self.drain()
    }

    /// A camera publishes a frame that was captured `age` ago.
    pub fn frame(&mut self, camera: usize, id: u64, age: Duration) {
        self.publish(camera, id, age, Size { width: 2, height: 2 });
    }

    /// The same of a size in which there is something to look at.
    pub fn large_frame(&mut self, camera: usize, id: u64, age: Duration) {
        self.publish(camera, id, age, Size { width: 640, height: 480 });
    }

    fn publish(&mut self, camera: usize, id: u64, age: Duration, size: Size) {
        let capture = self.now.back(age);
        let stamp = Stamp {
            generation: Generation(1),
            frame_id: FrameId(id),
            slot: 0,
            slots: 30,
            size,
            published: self.now,
            info: FrameInfo {
                media: MediaTime(0),
                capture,
                capture_utc: UtcNanos(0),
                decode_start: capture,
                flags: FrameFlags::default(),
            },
        };
        self.set(camera, Newest::Frame(stamp));
    }

    pub fn set(&mut self, camera: usize, newest: Newest) {
        if self.frames.0.len() <= camera {
            self.frames.0.resize(camera + 1, None);
        }
        self.frames.0[camera] = Some(newest);
    }

    /// Lets time pass in steps of a millisecond.
    pub fn pass(&mut self, ms: u64) -> Vec<Did> {
        let mut did = Vec::new();
        for _ in 0..ms {
            self.now = Instant(self.now.0 + MS);
            did.extend(self.drain());
        }
        did
    }

    pub fn drain(&mut self) -> Vec<Did> {
        let mut did = Vec::new();
        loop {
            match self.core.poll(self.now, &mut self.frames) {
                Output::Prepare { runner, batch, members, .. } => {
                    let ids = members.iter().map(|m| m.stamp.frame_id.0).collect();
                    did.push(Did::Prepare(runner, batch, ids));
                }
                Output::ProfileGrant { runner, batch_size, .. } => {
                    did.push(Did::Profile(runner, batch_size));
                }
                Output::Close { runner, reason } => did.push(Did::Close(runner, reason)),
                Output::Result { binding, .. } => did.push(Did::Result(binding.stamp.frame_id.0)),
                Output::Grant { runner, batch, .. } => did.push(Did::Grant(runner, batch)),
                Output::Revoke { runner, batch } => did.push(Did::Revoke(runner, batch)),
                Output::Wait { .. } => {
                    self.core.audit(0..usize::MAX);
                    return did;
                }
            }
        }
    }

    pub fn reply(&mut self, runner: u64, batch: BatchId) -> Vec<Did> {
        let times = StageTimes { received: self.now, ..StageTimes::default() };
        let outcomes = vec![Ok(FrameDetections::default())];
        self.handle(Input::Reply { runner: RunnerKey(runner), batch, times, outcomes })
    }

    pub fn ledger(&self, at: usize) -> Ledger {
        self.core.report(self.now).subscriptions[at].ledger
    }
}

/// Every frame of the camera for the model.
pub fn spec(camera: &str, model: &str) -> SubscriptionSpec {
    SubscriptionSpec {
        id: format!("{camera}/{model}"),
        camera: camera.parse().unwrap(),
        model: model.parse().unwrap(),
        parent: None,
        max_fps: None,
        weight: 1.0,
        deadline: None,
        parameters: 0,
        regions_max: 16,
        enabled: true,
    }
}

/// A runner whose batches of one take 10 ms, on a GPU when the device's name says so.
pub fn info(device: &str, model: &str, instance: u64) -> RunnerInfo {
    let ms = Duration::from_millis(10);
    RunnerInfo {
        instance: InstanceId(instance),
        model: model.parse().unwrap(),
        device: device.parse().unwrap(),
        gpu: device.starts_with("gpu"),
        batch_max: 8,
        deadline: Duration::from_millis(500),
        latency: LatencyTable::new([LatencyEntry { batch: 1, p50: ms, p99: ms }]),
    }
}

/// The one launch in what was done.
#[track_caller]
pub fn launch(did: &[Did]) -> (RunnerKey, BatchId, Vec<u64>) {
    let launches: Vec<_> = did.iter().filter(|d| matches!(d, Did::Prepare(..))).collect();
    match launches[..] {
        [Did::Prepare(runner, batch, ids)] => (*runner, *batch, ids.clone()),
        _ => panic!("not one launch: {did:?}"),
    }
}
