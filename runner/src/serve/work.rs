//! The engine thread: runs granted batches and granted measurements, one after the other.

use super::cap::cap;
use super::peer::Peer;
use super::shared::{Batch, Shared, Task};
use super::watchdog::Watchdog;
use crate::engine::{Engine, EngineError, Finished};
use crate::latency::LatencyCache;
use crate::parameters::Parameters;
use crate::pipeline;
use crate::sampling::sample;
use base::limits::{HANG_LIMIT, PROFILE_GRACE};
use base::model::ModelSpec;
use base::{FrameDetections, Instant, LatencyTable, MemberError, StageTimes};
use ipc::clock;
use ipc::runner_message::{Reply, RunnerMessage};
use std::sync::Arc;
use std::time::Duration;

/// Samples of one size; p99 of so few is their largest.
const SAMPLES: usize = 9;
/// Share of the lease after which no further sample is begun.
const LEASE_SHARE: f64 = 0.6;
/// The same engine error is logged at most this often.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// What the engine thread owns.
pub struct Work<'a> {
    /// The model.
    pub spec: &'a ModelSpec,
    /// The loaded engine.
    pub engine: Box<dyn Engine>,
    /// Batches come from here.
    pub shared: &'a Shared,
    /// Ends the process when the engine hangs.
    pub watchdog: &'a Watchdog,
    /// Where L(b) is kept, `None` = nowhere.
    pub cache: Option<LatencyCache>,
    /// When an engine error was logged, and which.
    pub logged: Option<(EngineError, Instant)>,
    /// Whether it was said that replies are too large.
    pub capped: bool,
}

impl Work<'_> {
    /// Works until the runner stops.
    pub fn run(mut self) {
        while let Some(task) = self.shared.next_task() {
            match task {
                Task::Batch(batch) => self.batch(batch),
                Task::Profile { peer, batch_size, lease } => {
                    self.profile(&peer, batch_size, lease);
                }
            }
        }
    }

    fn batch(&mut self, batch: Batch) {
        let Batch { id, peer, members, received, copied, granted, two_steps } = batch;
        let granted = granted.expect("only granted batches become tasks");
        let mut frames = Vec::with_capacity(members.len());
        let parameters: Vec<Result<Arc<Parameters>, MemberError>> = members
            .into_iter()
            .map(|member| {
                let (frame, parameters) = member?;
                frames.push(frame);
                Ok(parameters)
            })
            .collect();
        let count = frames.len();
        let executed = {
            let _watched = self.watchdog.guard(HANG_LIMIT, count);
            self.execute(frames)
        };
        let now = clock::monotonic();
        let (preprocessed, executed_at) = match &executed {
            Ok(finished) => (finished.preprocessed, finished.executed),
            Err(_) => (now, now),
        };
        if let Ok(finished) = &executed {
            self.shared.latency().observe(count as u32, finished.executed - granted);
        }
        let executed = executed.map(|mut finished| {
            let frames = std::mem::take(&mut finished.frames);
            self.shared.recycle(frames);
            finished
        });
        self.shared.executed();
        if two_steps {
            let (preprocessed, executed) = (preprocessed, executed_at);
            peer.send(&RunnerMessage::Executed { batch: id, granted, preprocessed, executed });
        }

        let mut next = 0;
        let mut outcomes: Vec<_> = parameters
            .into_iter()
            .map(|parameters| {
                let parameters = parameters?;
                let place = next;
                next += 1;
                match &executed {
                    Ok(finished) => self.outcome(finished, place, &parameters),
                    Err(_) => Err(MemberError::Engine),
                }
            })
            .collect();
        if let Err(error) = executed {
            self.log(error);
        }
        if cap(&mut outcomes) && !self.capped {
            self.capped = true;
            tracing::warn!(
                model = %self.spec.model_id,
                "a reply is too large: masks and keypoints of its worst detections are left out; \
                 raise confidence_threshold or lower batch_max"
            );
        }
        let postprocessed = clock::monotonic();
        let times = StageTimes {
            received,
            copied,
            granted,
            preprocessed,
            executed: executed_at,
            postprocessed,
        };
        peer.send(&RunnerMessage::Reply(Reply { batch: id, times, outcomes }));
        self.update(&peer, postprocessed);
    }

    fn execute(&mut self, frames: Vec<crate::engine::Frame>) -> Result<Finished, EngineError> {
        let count = frames.len();
        self.engine.prepare(0, frames)?;
        let finished = pipeline::execute(self.engine.as_mut(), 0, count)?;
        if finished.fits.len() != count {
            let why = format!("the engine answered for {} members", finished.fits.len());
            return Err(EngineError::Run { members: count, why });
        }
        Ok(finished)
    }

    fn outcome(
        &self,
        finished: &Finished,
        place: usize,
        parameters: &Parameters,
    ) -> Result<FrameDetections, MemberError> {
        pipeline::outcome(self.spec, finished, place, parameters)
    }

    fn log(&mut self, error: EngineError) {
        let now = clock::monotonic();
        let due = match &self.logged {
            Some((last, at)) => *last != error || now - *at >= LOG_PERIOD,
            None => true,
        };
        if due {
            tracing::error!(model = %self.spec.model_id, "{error}");
            self.logged = Some((error, now));
        }
    }

    /// Measures batches of one size, or drops it: it is predicted to take too long, it does, or the
    /// engine refuses it. Then the table is complete without it.
    fn profile(&mut self, peer: &Peer, batch_size: u32, lease: Duration) {
        let fits = self.shared.latency().fits(batch_size);
        let samples = if fits { self.samples(batch_size, lease) } else { Vec::new() };
        let (samples, complete) = {
            let mut book = self.shared.latency();
            if !samples.is_empty() && book.offers(batch_size, &samples) {
                let complete = book.measured(batch_size, &samples);
                (samples, complete)
            } else {
                (Vec::new(), book.drop_from(batch_size))
            }
        };
        if samples.is_empty() {
            tracing::info!(
                model = %self.spec.model_id,
                "batches of {batch_size} are not offered: they fail or take too long"
            );
        }
        peer.send(&RunnerMessage::ProfileDone { batch_size, samples });
        if complete {
            let table = self.shared.latency().table().clone();
            self.store(&table);
            peer.send(&RunnerMessage::Table(table));
        }
    }

    /// Runs of one size within 60 % of the lease; at least one, whatever it takes. None when the
    /// engine refuses.
    fn samples(&mut self, batch_size: u32, lease: Duration) -> Vec<Duration> {
        let budget = lease.mul_f64(LEASE_SHARE);
        let limit = lease.saturating_add(PROFILE_GRACE);
        let _watched = self.watchdog.guard(limit, batch_size as usize);
        sample(batch_size, SAMPLES, budget, |frames| self.execute(frames)).unwrap_or_else(|error| {
            self.log(error);
            Vec::new()
        })
    }

    fn update(&mut self, peer: &Peer, now: Instant) {
        let Some(table) = self.shared.latency().update(now).cloned() else { return };
        self.store(&table);
        peer.send(&RunnerMessage::Table(table));
    }

    /// A cache that cannot be written costs a measurement at the next start, nothing else: it is
    /// said once.
    fn store(&mut self, table: &LatencyTable) {
        let Some(cache) = &self.cache else { return };
        if let Err(error) = cache.store(table) {
            let path = cache.path().display();
            tracing::warn!("latencies are not kept: {path}: {error}");
            self.cache = None;
        }
    }
}
