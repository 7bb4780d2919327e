//! Batches on devices: with the token, or side by side.

use super::{Event, Execution, WIRE, World};
use crate::policy::Policy;
use base::{DeviceId, FrameDetections, Instant, LatencyEntry, LatencyTable, StageTimes};
use latency::Sampling;
use scheduler::{BatchId, Input, RunnerKey};
use std::time::Duration;

/// A device as the world watches it.
pub(super) struct Device {
    pub(super) id: DeviceId,
    capacity: u32,
    /// Tokens out: who, until when at most.
    tokens: Vec<(RunnerKey, Instant)>,
    /// What executes side by side, when there is no token.
    jobs: Vec<Job>,
    /// Until when the jobs were advanced.
    advanced: Instant,
    /// Rises with every job that begins or ends.
    version: u64,
}

impl Device {
    pub(super) fn new(id: DeviceId, capacity: u32) -> Device {
        let (tokens, jobs) = (Vec::new(), Vec::new());
        Device { id, capacity, tokens, jobs, advanced: Instant::ZERO, version: 0 }
    }

    /// How fast each job runs, 1 = alone.
    fn speed(&self) -> f64 {
        f64::min(1.0, f64::from(self.capacity) / self.jobs.len().max(1) as f64)
    }
}

/// One batch that shares its device.
pub(super) struct Job {
    key: RunnerKey,
    runner: usize,
    batch: BatchId,
    members: usize,
    received: Instant,
    begin: Instant,
    /// What is left of it, nanoseconds of a device of its own.
    left: f64,
}

/// A batch whose execution is over, and the boundaries of its stages.
struct Ended {
    key: RunnerKey,
    runner: usize,
    batch: BatchId,
    members: usize,
    received: Instant,
    copied: Instant,
    begin: Instant,
    executed: Instant,
}

impl<P: Policy> World<P> {
    /// A token goes out: never more than the device's capacity at a time.
    pub(super) fn give_token(&mut self, key: RunnerKey, lease: Duration) {
        if self.privileges.sharing {
            return;
        }
        let now = self.now;
        let device = &mut self.devices[self.device_of[self.connections[&key].runner]];
        device.tokens.retain(|(_, until)| *until > now);
        device.tokens.push((key, now + lease));
        let (out, capacity) = (device.tokens.len(), device.capacity as usize);
        if out > capacity {
            let detail = format!("{out} tokens of {} are out, capacity is {capacity}", device.id);
            self.checker.broken("one token per unit of capacity", now, detail);
        }
    }

    /// The tokens of a runner are back.
    pub(super) fn take_token(&mut self, key: RunnerKey) {
        let Some(connection) = self.connections.get(&key) else { return };
        let device = self.device_of[connection.runner];
        self.devices[device].tokens.retain(|(holder, _)| *holder != key);
    }

    pub(super) fn two_step(&self, key: RunnerKey) -> bool {
        self.connections.get(&key).is_some_and(|c| self.runners[c.runner].gpu)
    }

    pub(super) fn prepare(&mut self, key: RunnerKey, batch: BatchId, token: bool, members: usize) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let runner = connection.runner;
        let received = now + WIRE;
        let free = self.privileges.free_copies;
        let copied = received + if free { Duration::ZERO } else { self.runners[runner].copy };
        if token {
            self.execute(key, batch, members, (received, copied), copied);
        } else {
            connection.prepared.insert(batch, (members, received, copied));
            if !self.runners[runner].hung(now) {
                self.message(copied + WIRE, key, Input::Prepared { runner: key, batch });
            }
        }
    }

    pub(super) fn grant(&mut self, key: RunnerKey, batch: BatchId) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Some((members, received, copied)) = connection.prepared.remove(&batch) else {
            let detail = format!("{batch:?} of {key:?}");
            return self.checker.broken("a grant names a prepared batch", self.now, detail);
        };
        let begin = copied.max(self.now + WIRE);
        self.execute(key, batch, members, (received, copied), begin);
    }

    fn execute(
        &mut self,
        key: RunnerKey,
        batch: BatchId,
        members: usize,
        (received, copied): (Instant, Instant),
        begin: Instant,
    ) {
        let runner = self.connections[&key].runner;
        let random = &mut self.randoms[runner];
        let length = self.runners[runner].execution(self.now, members as u32, random);
        let Some(length) = length else { return };
        if self.privileges.sharing {
            let left = length.as_nanos() as f64;
            let number = self.next_event + 1;
            let job = Job { key, runner, batch, members, received, begin, left };
            self.beginning.insert(number, job);
            return self.event(begin, Event::Begin(number));
        }
        self.busy[runner] += length;
        let executed = begin + length;
        self.answer(Ended { key, runner, batch, members, received, copied, begin, executed });
    }

    /// The execution of a batch ends, now or at a moment that is known.
    fn answer(&mut self, ended: Ended) {
        let Ended { key, runner, batch, members, received, copied, begin, executed } = ended;
        let model = &self.runners[runner];
        let postprocessed = executed + model.postprocess;
        self.batches[runner] += 1;
        if let Some(executions) = &mut self.executions {
            executions.push(Execution {
                start: begin,
                end: executed,
                device: model.device.clone(),
                model: model.model.clone(),
                batch: members as u32,
            });
        }
        let times = StageTimes {
            received,
            copied,
            granted: begin,
            preprocessed: begin,
            executed,
            postprocessed,
        };
        // The light path answers once.
        if model.gpu {
            let input = Input::Executed { runner: key, batch, granted: begin, executed };
            self.message(executed + WIRE, key, input);
        }
        let outcomes = vec![Ok(FrameDetections::default()); members];
        let input = Input::Reply { runner: key, batch, times, outcomes };
        self.message(postprocessed + WIRE, key, input);
        self.restate(key, runner, executed);
    }

    /// A runner that does so says how long its batches take now.
    fn restate(&mut self, key: RunnerKey, runner: usize, now: Instant) {
        let model = &self.runners[runner];
        let slower = model.slower(now);
        if !model.restates || self.restated[runner] == slower {
            return;
        }
        self.restated[runner] = slower;
        let times = |e: &LatencyEntry| LatencyEntry {
            batch: e.batch,
            p50: e.p50 * slower,
            p99: e.p99 * slower,
        };
        let table = LatencyTable::new(self.books[runner].table().entries().iter().map(times));
        self.message(now + WIRE, key, Input::Table { runner: key, table });
    }

    pub(super) fn begin_shared(&mut self, job: Job) {
        if !self.connections.get(&job.key).is_some_and(|c| c.up) {
            return;
        }
        let device = self.device_of[job.runner];
        self.advance_shared(device);
        self.devices[device].jobs.push(job);
        self.expect_shared(device);
    }

    pub(super) fn end_shared(&mut self, device: usize, version: u64) {
        if self.devices[device].version != version {
            return;
        }
        self.advance_shared(device);
        let jobs = &mut self.devices[device].jobs;
        // Ends are rounded up to a nanosecond: what is left is nothing.
        let ended: Vec<Job> = jobs.extract_if(.., |job| job.left < 0.5).collect();
        for job in ended {
            let Job { key, runner, batch, members, received, begin, .. } = job;
            let (copied, executed) = (begin, self.now);
            self.answer(Ended { key, runner, batch, members, received, copied, begin, executed });
        }
        self.expect_shared(device);
    }

    /// Takes the jobs of a dead connection off their device.
    pub(super) fn abandon(&mut self, key: RunnerKey) {
        if !self.privileges.sharing {
            return;
        }
        let Some(connection) = self.connections.get(&key) else { return };
        let device = self.device_of[connection.runner];
        self.advance_shared(device);
        self.devices[device].jobs.retain(|job| job.key != key);
        self.expect_shared(device);
    }

    fn advance_shared(&mut self, device: usize) {
        let device = &mut self.devices[device];
        let passed = (self.now - device.advanced).as_nanos() as f64 * device.speed();
        device.advanced = self.now;
        for job in &mut device.jobs {
            job.left -= passed;
            self.busy[job.runner] += Duration::from_nanos(passed.round() as u64);
        }
    }

    /// Plans the end of the job that ends first if none begins before.
    fn expect_shared(&mut self, device: usize) {
        let d = &mut self.devices[device];
        d.version += 1;
        let version = d.version;
        let Some(first) = d.jobs.iter().map(|j| j.left).min_by(f64::total_cmp) else { return };
        let length = (first.max(0.0) / d.speed()).ceil() as u64;
        let at = self.now + Duration::from_nanos(length);
        self.event(at, Event::Share(device, version));
    }

    /// A runner measures a size, and announces its table when that is complete.
    pub(super) fn profile(&mut self, key: RunnerKey, batch_size: u32, lease: Duration) {
        let runner = self.connections[&key].runner;
        let begin = self.now + WIRE;
        let mut sampling = Sampling::granted(lease);
        let mut elapsed = Duration::ZERO;
        let mut again = self.books[runner].fits(batch_size);
        while again {
            let (model, random) = (&self.runners[runner], &mut self.randoms[runner]);
            let Some(took) = model.execution(begin + elapsed, batch_size, random) else { return };
            elapsed += took;
            again = sampling.ran(took, elapsed);
        }
        let done = begin + elapsed + WIRE;
        let profiled = self.books[runner].profiled(batch_size, sampling.into_samples());
        let samples = profiled.samples;
        self.message(done, key, Input::ProfileDone { runner: key, batch_size, samples });
        if let Some(table) = profiled.table {
            self.message(done + WIRE, key, Input::Table { runner: key, table });
        }
    }
}
