//! A runner process in virtual time: what it answers, when, and what goes wrong.

use super::plan::{Fault, Offence, RunnerPlan};
use crate::random::Random;
use base::{
    Detection, FrameDetections, InstanceId, Instant, MemberError, Rect, StageTimes, TrackId,
};
use latency::{LatencyBook, Sampling, batch_sizes};
use scheduler::{BatchId, Input, Outcome, RunnerInfo, RunnerKey};
use std::time::Duration;

/// One way over a socket (chosen: the order of what the product's socket benchmark gives).
pub(super) const WIRE: Duration = Duration::from_micros(50);
/// Share of prepared batches whose frames a runner can't read: it replies without the token.
const UNREADABLE: f64 = 0.002;

/// Something a runner sends, and when it arrives.
pub(super) type Sent = (Instant, Input);

/// One process; lives follow each other.
#[derive(Debug)]
pub(super) struct Process<'a> {
    pub plan: &'a RunnerPlan,
    random: Random,
    /// The life that runs now, `None` = dead.
    pub instance: Option<InstanceId>,
    /// When that life began.
    since: Instant,
    /// Its newest connection.
    pub link: Option<RunnerKey>,
    /// Batches without the token: members, when Prepare came, when the copy is done.
    prepared: Vec<(BatchId, u32, Instant, Instant)>,
    /// What it does wrong at its next message.
    pub offence: Option<Offence>,
    /// What it promises; outlives its lives.
    pub book: LatencyBook,
}

impl<'a> Process<'a> {
    pub fn new(plan: &'a RunnerPlan, seed: u64, ix: u64) -> Self {
        Process {
            plan,
            random: Random::new(seed, 3_000_000 + ix),
            instance: None,
            since: Instant::ZERO,
            link: None,
            prepared: Vec::new(),
            offence: None,
            book: LatencyBook::new(
                batch_sizes(plan.batch_max),
                plan.measured.then(|| plan.table(1.0)),
            ),
        }
    }

    /// A new life begins.
    pub fn start(&mut self, now: Instant, instance: InstanceId) {
        self.instance = Some(instance);
        self.since = now;
        self.end_connection();
    }

    pub fn end_connection(&mut self) {
        self.link = None;
        self.prepared.clear();
        self.offence = None;
    }

    pub fn info(&self, instance: InstanceId) -> RunnerInfo {
        let plan = self.plan;
        RunnerInfo {
            instance,
            model: plan.model.clone(),
            device: plan.device.clone(),
            gpu: plan.gpu,
            batch_max: plan.batch_max,
            deadline: plan.deadline,
            latency: self.book.table().clone(),
        }
    }

    /// Since when this life answers nothing any more.
    fn hangs_from(&self) -> Instant {
        let hangs = self.plan.faults.iter().filter_map(|f| match f {
            Fault::Hang(at, _) if *at >= self.since => Some(*at),
            _ => None,
        });
        hangs.min().unwrap_or(Instant::FAR)
    }

    /// Whether nothing is wrong with it from `from` on until `now`.
    pub fn healthy(&self, from: Instant, now: Instant) -> bool {
        self.instance.is_some()
            && self.hangs_from() > now
            && !self.plan.faults.iter().any(|fault| match *fault {
                Fault::Stop(at, lasts) => at < now && from < at + lasts,
                Fault::Slow(at, to, _) => at < now && from < to,
                _ => false,
            })
    }

    /// When something that would be done at `at` is done by a process that may stand still.
    /// `None` = never.
    fn done(&self, begin: Instant, at: Instant) -> Option<Instant> {
        let mut done = at;
        for fault in &self.plan.faults {
            if let Fault::Stop(stop, lasts) = *fault
                && stop <= done
                && begin < stop + lasts
            {
                done = if stop <= begin { done + (stop + lasts - begin) } else { done + lasts };
            }
        }
        (done < self.hangs_from()).then_some(done)
    }

    fn execution(&mut self, begin: Instant, batch: u32) -> Duration {
        let noise = (1.0 + self.plan.noise * self.random.normal()).max(0.2);
        let mut length = self.plan.latency(batch).mul_f64(noise);
        if self.random.unit() < self.plan.spikes {
            length *= 2;
        }
        for fault in &self.plan.faults {
            if let Fault::Slow(from, to, times) = *fault
                && (from..to).contains(&begin)
            {
                length *= times;
            }
        }
        length
    }

    fn outcome(&mut self, now: Instant) -> Outcome {
        for fault in &self.plan.faults {
            if let Fault::Errors(from, to, share) = *fault
                && (from..to).contains(&now)
                && self.random.unit() < share
            {
                let errors = MemberError::ALL;
                return Err(errors[self.random.below(errors.len() as u64) as usize]);
            }
        }
        let count = self.random.below(u64::from(self.plan.detections) + 1);
        let detections = (0..count).map(|_| {
            let (x, y) = (self.random.unit() as f32 * 0.8, self.random.unit() as f32 * 0.8);
            let (w, h) = (self.random.unit() as f32 * 0.19, self.random.unit() as f32 * 0.19);
            let bbox = Rect { x1: x, y1: y, x2: x + 0.01 + w, y2: y + 0.01 + h };
            Detection { bbox, score: 0.9, class_id: 0, track: TrackId(0) }
        });
        Ok(FrameDetections { detections: detections.collect(), ..Default::default() })
    }

    /// A Prepare was sent at `now`.
    pub fn prepare(
        &mut self,
        now: Instant,
        batch: BatchId,
        members: u32,
        token: bool,
    ) -> Vec<Sent> {
        let received = now + WIRE;
        let copied = received + self.plan.copy;
        if token {
            return self.execute(batch, members, received, copied, copied);
        }
        let Some(runner) = self.link else { return Vec::new() };
        let Some(done) = self.done(received, copied) else { return Vec::new() };
        if self.random.unit() < UNREADABLE {
            let times = StageTimes {
                received,
                copied: done,
                granted: done,
                preprocessed: done,
                executed: done,
                postprocessed: done,
            };
            let outcomes = vec![Err(MemberError::Frame); members as usize];
            return vec![(done + WIRE, Input::Reply { runner, batch, times, outcomes })];
        }
        self.prepared.push((batch, members, received, copied));
        if self.plan.light {
            return Vec::new();
        }
        vec![(done + WIRE, Input::Prepared { runner, batch })]
    }

    /// A Grant was sent at `now`.
    pub fn grant(&mut self, now: Instant, batch: BatchId) -> Vec<Sent> {
        let Some(at) = self.prepared.iter().position(|p| p.0 == batch) else { return Vec::new() };
        let (_, members, received, copied) = self.prepared.remove(at);
        self.execute(batch, members, received, copied, copied.max(now + WIRE))
    }

    /// A Revoke was sent.
    pub fn revoke(&mut self, batch: BatchId) {
        self.prepared.retain(|p| p.0 != batch);
    }

    fn execute(
        &mut self,
        batch: BatchId,
        members: u32,
        received: Instant,
        copied: Instant,
        begin: Instant,
    ) -> Vec<Sent> {
        let Some(runner) = self.link else { return Vec::new() };
        let length = self.execution(begin, members);
        let mut outcomes: Vec<Outcome> = (0..members).map(|_| self.outcome(begin)).collect();
        let Some(executed) = self.done(received, begin + length) else { return Vec::new() };
        let after = executed + self.plan.postprocess;
        let mut sent = Vec::new();
        if !self.plan.light {
            let input = Input::Executed { runner, batch, granted: begin, executed };
            if self.offence == Some(Offence::ExecutedTwice) {
                self.offence = None;
                sent.push((executed + WIRE, input.clone()));
            }
            sent.push((executed + WIRE, input));
        }
        if self.offence == Some(Offence::WrongCount) {
            self.offence = None;
            outcomes.push(Ok(FrameDetections::default()));
        }
        if let Some(postprocessed) = self.done(executed, after) {
            let (granted, preprocessed) = (begin, begin);
            let times =
                StageTimes { received, copied, granted, preprocessed, executed, postprocessed };
            let input = Input::Reply { runner, batch, times, outcomes };
            sent.push((postprocessed + WIRE, input));
        }
        sent
    }

    /// A ProfileGrant was sent at `now`.
    pub fn profile(&mut self, now: Instant, batch_size: u32, lease: Duration) -> Vec<Sent> {
        let Some(runner) = self.link else { return Vec::new() };
        let begin = now + WIRE;
        let mut sampling = Sampling::granted(lease);
        let mut elapsed = Duration::ZERO;
        let mut again = self.book.fits(batch_size);
        while again {
            let took = self.execution(begin + elapsed, batch_size);
            elapsed += took;
            again = sampling.ran(took, elapsed);
        }
        let Some(done) = self.done(begin, begin + elapsed) else { return Vec::new() };
        let profiled = self.book.profiled(batch_size, sampling.into_samples());
        let samples = profiled.samples;
        let mut sent = vec![(done + WIRE, Input::ProfileDone { runner, batch_size, samples })];
        sent.extend(profiled.table.map(|t| (done + WIRE * 2, Input::Table { runner, table: t })));
        sent
    }

    /// What it sends unasked when it breaks the protocol so. Some offences wait for a message.
    pub fn offend(&mut self, now: Instant, offence: Offence) -> Option<Input> {
        let runner = self.link?;
        let batch = BatchId(u64::MAX);
        let times = StageTimes {
            received: now,
            copied: now,
            granted: now,
            preprocessed: now,
            executed: now,
            postprocessed: now,
        };
        match offence {
            Offence::ReplyUnknown => {
                Some(Input::Reply { runner, batch, times, outcomes: Vec::new() })
            }
            Offence::ExecutedUnknown => {
                Some(Input::Executed { runner, batch, granted: now, executed: now })
            }
            Offence::PreparedUnknown => Some(Input::Prepared { runner, batch }),
            Offence::WrongCount | Offence::ExecutedTwice => {
                self.offence = Some(offence);
                None
            }
        }
    }
}
