//! Drives the engine: runs granted batches and granted measurements, one after the other. While one
//! executes on an asynchronous engine, the frames of the next go into another slot of it.

use super::cap::cap;
use super::peer::Peer;
use super::shared::{Batch, Place, Shared, Task};
use super::watchdog::{Guard, Watchdog};
use crate::engine::{Engine, EngineError, Finished, Frame, Ticket};
use crate::latency_cache::LatencyCache;
use crate::parameters::Parameters;
use crate::pipeline;
use crate::sampling::sample;
use base::limits::{HANG_LIMIT, PROFILE_GRACE};
use base::model::ModelSpec;
use base::{FrameDetections, Instant, LatencyTable, MemberError, StageTimes};
use ipc::clock;
use ipc::runner_message::{Reply, RunnerMessage};
use latency::{Profiled, Sampling};
use std::time::Duration;

/// The same engine error is logged at most this often.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// What drives the engine.
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

/// A batch that executes.
struct Running<'a> {
    batch: Batch,
    ticket: Ticket,
    watched: Guard<'a>,
}

impl<'a> Work<'a> {
    /// Works until the runner stops, on a thread of its own.
    pub fn run(mut self) {
        let mut running: Option<Running<'a>> = None;
        loop {
            if let Some(now) = running.take() {
                running = self.poll(now);
            }
            match self.shared.next_task(running.is_some()) {
                None => return,
                Some(Task::Poll) => {}
                Some(task) => running = self.begin(task).or(running),
            }
        }
    }

    /// Does what waits, with a synchronous engine on the thread that listens.
    pub fn run_waiting(&mut self) {
        while let Some(task) = self.shared.waiting_task() {
            let mut running = self.begin(task);
            while let Some(now) = running {
                running = self.poll(now);
            }
        }
    }

    /// Does a task; a batch is running then, unless it could not be started.
    fn begin(&mut self, task: Task) -> Option<Running<'a>> {
        match task {
            Task::Batch(batch) => return self.submit(batch),
            Task::Stage { slot, frames } => self.stage(slot, frames),
            Task::Profile { peer, batch_size, lease } => self.profile(&peer, batch_size, lease),
            Task::Poll => {}
        }
        None
    }

    /// The frames of a prepared batch become the engine's, so that nothing is left to be done when
    /// its token comes.
    fn stage(&mut self, slot: usize, frames: Vec<Frame>) {
        let members = frames.len();
        match pipeline::caught(members, || self.engine.prepare(slot, frames)) {
            Ok(()) => {
                if let Some((peer, batch, received, copied)) = self.shared.staged(slot) {
                    peer.send(&RunnerMessage::Prepared { batch, received, copied });
                }
            }
            // No token is needed to say so.
            Err(error) => {
                if let Some(batch) = self.shared.refused(slot) {
                    let now = clock::monotonic();
                    self.answer(batch, Err(error), (now, now));
                }
            }
        }
    }

    /// Starts a granted batch. `None` = it could not be started, and was answered.
    fn submit(&mut self, mut batch: Batch) -> Option<Running<'a>> {
        let members = batch.members.iter().flatten().count();
        let watchdog: &'a Watchdog = self.watchdog;
        let watched = watchdog.guard(HANG_LIMIT, members);
        let (engine, shared) = (&mut self.engine, self.shared);
        let frames = std::mem::take(&mut batch.frames);
        let place = batch.place;
        let submitted = pipeline::caught(members, || {
            let slot = match place {
                Place::Slot(slot) => slot,
                Place::Here | Place::Moving(_) => {
                    let slot = shared.free_slot().expect("fewer batches are held than slots");
                    engine.prepare(slot, frames)?;
                    slot
                }
            };
            engine.submit(slot)
        });
        match submitted {
            Ok(ticket) => Some(Running { batch, ticket, watched }),
            Err(error) => {
                drop(watched);
                self.executed(batch, Err(error));
                None
            }
        }
    }

    /// Looks whether a batch has executed; answers it when it has.
    fn poll(&mut self, running: Running<'a>) -> Option<Running<'a>> {
        let members = running.batch.members.iter().flatten().count();
        let polled = pipeline::caught(members, || self.engine.poll(&running.ticket));
        let result = match polled {
            Ok(None) => return Some(running),
            Ok(Some(finished)) if finished.fits.len() != members => {
                let why = format!("the engine answered for {} members", finished.fits.len());
                Err(EngineError::Run { members, why })
            }
            Ok(Some(finished)) => Ok(finished),
            Err(error) => Err(error),
        };
        let Running { batch, watched, .. } = running;
        drop(watched);
        self.executed(batch, result);
        None
    }

    /// A batch has executed, or failed to: the device is free.
    fn executed(&mut self, batch: Batch, result: Result<Finished, EngineError>) {
        let now = clock::monotonic();
        // When the input was complete and when the output was there.
        let (preprocessed, executed) = match &result {
            Ok(finished) => (finished.preprocessed, finished.executed),
            Err(_) => (now, now),
        };
        let result = result.map(|mut finished| {
            self.shared.recycle(std::mem::take(&mut finished.frames));
            finished
        });
        self.shared.executed();
        if batch.two_steps {
            let granted = batch.granted.expect("it was submitted");
            batch.peer.send(&RunnerMessage::Executed {
                batch: batch.id,
                granted,
                preprocessed,
                executed,
            });
        }
        self.answer(batch, result, (preprocessed, executed));
    }

    /// Decodes and replies.
    fn answer(
        &mut self,
        batch: Batch,
        result: Result<Finished, EngineError>,
        (preprocessed, executed): (Instant, Instant),
    ) {
        let Batch { id, peer, members, received, copied, granted, .. } = batch;
        let mut next = 0;
        let mut outcomes: Vec<_> = members
            .into_iter()
            .map(|parameters| {
                let parameters = parameters?;
                let place = next;
                next += 1;
                match &result {
                    Ok(finished) => self.outcome(finished, place, &parameters),
                    Err(_) => Err(MemberError::Engine),
                }
            })
            .collect();
        if let Err(error) = result {
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
        let times = StageTimes {
            received,
            copied,
            granted: granted.unwrap_or(preprocessed),
            preprocessed,
            executed,
            postprocessed: clock::monotonic(),
        };
        peer.send(&RunnerMessage::Reply(Reply { batch: id, times, outcomes }));
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
        let Some(slot) = self.shared.free_slot() else {
            // A scheduler measures a runner that holds nothing.
            let samples = Vec::new();
            return peer.send(&RunnerMessage::ProfileDone { batch_size, samples });
        };
        let fits = self.shared.latency().fits(batch_size);
        let samples = if fits { self.samples(slot, batch_size, lease) } else { Vec::new() };
        let Profiled { samples, table } = self.shared.latency().profiled(batch_size, samples);
        if samples.is_empty() {
            tracing::info!(
                model = %self.spec.model_id,
                "batches of {batch_size} are not offered: they fail or take too long"
            );
        }
        peer.send(&RunnerMessage::ProfileDone { batch_size, samples });
        if let Some(table) = table {
            self.store(&table);
            peer.send(&RunnerMessage::Table(table));
        }
    }

    /// Runs of one size, as many as fit the lease. None when the engine refuses.
    fn samples(&mut self, slot: usize, batch_size: u32, lease: Duration) -> Vec<Duration> {
        let members = batch_size as usize;
        let limit = lease.saturating_add(PROFILE_GRACE);
        let _watched = self.watchdog.guard(limit, members);
        let engine = self.engine.as_mut();
        let run = |frames| {
            engine.prepare(slot, frames)?;
            pipeline::execute(engine, slot, members)
        };
        sample(batch_size, Sampling::granted(lease), run).unwrap_or_else(|error| {
            self.log(error);
            Vec::new()
        })
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
