//! What one connected runner holds and owes, followed from outside.

use base::{InstanceId, Instant, LatencyTable, limits};
use scheduler::{BatchId, Binding, RunnerInfo};
use std::collections::BTreeMap;
use std::time::Duration;

/// An execution that takes so many times the announced 99th percentile may cost a runner its rank
/// (the core's factor is 1.5, three times in a row).
const OVERRUN: f64 = 1.4;

/// In-time replies after which a runner that was too slow is as good as any (the core's is 10).
const REHABILITATED: u32 = 20;

/// What a batch waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The token.
    Prepared,
    /// The engine.
    Executing,
    /// The reply, token given back.
    Executed,
    /// Nothing: the lease passed. The reply will be discarded.
    Late,
}

#[derive(Debug)]
pub(super) struct Held {
    pub id: BatchId,
    pub members: Vec<Binding>,
    pub phase: Phase,
    /// When it was named.
    pub launched: Instant,
    /// When it was last given something to do, or said something.
    pub since: Instant,
    pub lease_end: Instant,
}

/// A size that is measured.
#[derive(Debug)]
pub(super) struct Measured {
    pub since: Instant,
    pub lease_end: Instant,
    pub late: bool,
}

#[derive(Debug)]
pub(super) struct Link {
    pub info: RunnerInfo,
    pub model: usize,
    pub device: usize,
    pub instance: InstanceId,
    pub table: LatencyTable,
    /// Longest execution that was seen.
    pub longest: Duration,
    /// The same by size.
    took: BTreeMap<u32, Duration>,
    /// The most that an execution took of what the runner says.
    slowest: f64,
    pub batches: Vec<Held>,
    pub measured: Option<Measured>,
    /// Sizes that it asked to measure.
    pub wanted: Vec<u32>,
    /// It measured since its last table: the next one counts.
    pub profiled: bool,
    /// When its smallest size was measured unasked.
    pub checked_at: Option<Instant>,
    pub revoked: Vec<BatchId>,
    /// The connection has to be closed, for this reason.
    pub must_close: Option<&'static str>,
    /// Close was said.
    pub closed: bool,
    /// Replies in time since the last late one: who overran a lease is served after all others
    /// until it has made up for it.
    pub in_time: u32,
    /// Last instant at which it could not take a batch.
    pub busy_at: Instant,
}

impl Link {
    pub fn new(info: RunnerInfo, model: usize, device: usize, now: Instant) -> Link {
        Link {
            model,
            device,
            instance: info.instance,
            table: info.latency.clone(),
            longest: Duration::ZERO,
            took: BTreeMap::new(),
            slowest: 1.0,
            batches: Vec::new(),
            measured: None,
            wanted: Vec::new(),
            profiled: false,
            checked_at: None,
            revoked: Vec::new(),
            must_close: None,
            closed: false,
            in_time: u32::MAX / 2,
            busy_at: now,
            info,
        }
    }

    /// Whether the core may talk to it.
    pub fn open(&self) -> bool {
        !self.closed && self.must_close.is_none()
    }

    pub fn batch(&mut self, id: BatchId) -> Option<&mut Held> {
        self.batches.iter_mut().find(|b| b.id == id)
    }

    pub fn has(&self, phase: Phase) -> bool {
        self.batches.iter().any(|b| b.phase == phase)
    }

    /// Tokens that it holds.
    pub fn tokens(&self) -> usize {
        let executing = self.batches.iter().filter(|b| b.phase == Phase::Executing).count();
        executing + usize::from(self.measured.as_ref().is_some_and(|m| !m.late))
    }

    pub fn late(&self) -> bool {
        self.has(Phase::Late) || self.measured.as_ref().is_some_and(|m| m.late)
    }

    /// Whether it could take a batch with the token at once.
    pub fn idle(&self) -> bool {
        self.open() && self.measured.is_none() && self.batches.is_empty()
    }

    /// Whether it is not served after others because it was too slow.
    pub fn as_good_as_any(&self) -> bool {
        self.in_time >= REHABILITATED
    }

    /// When it is hung, as things are.
    pub fn hung_at(&self, hang_limit: Duration) -> Instant {
        let batches = self.batches.iter().map(|b| b.since + hang_limit);
        let measured = self.measured.iter().map(|m| m.lease_end + limits::PROFILE_GRACE);
        batches.chain(measured).min().unwrap_or(Instant::FAR)
    }

    /// The core stood still: nobody's time ran.
    pub fn postpone(&mut self, by: Duration) {
        for b in &mut self.batches {
            b.since += by;
            b.lease_end += by;
        }
        if let Some(m) = &mut self.measured {
            m.since += by;
            m.lease_end += by;
        }
    }

    /// It says something else now, against which all that batches took is held.
    pub fn announce(&mut self, table: LatencyTable) {
        self.table = table;
        let times = self.took.iter().filter_map(|(size, took)| self.times(*took, *size));
        self.slowest = times.fold(1.0, f64::max);
    }

    /// How many times as long as it says this is.
    fn times(&self, took: Duration, size: u32) -> Option<f64> {
        let said = self.table.p50(size).filter(|p50| !p50.is_zero())?;
        Some(took.as_secs_f64() / said.as_secs_f64())
    }

    /// A batch of `size` took so long.
    pub fn executed(&mut self, took: Duration, size: u32) {
        self.longest = self.longest.max(took);
        let known = self.took.entry(size).or_default();
        *known = took.max(*known);
        self.slowest = self.slowest.max(self.times(took, size).unwrap_or(1.0));
        if self.table.p99(size).is_some_and(|p99| took > p99.mul_f64(OVERRUN)) {
            self.in_time = 0;
        }
    }

    /// The longest execution of a batch of `size` that the core may reckon with: what the runner
    /// said of it, as many times longer as any batch took longer than it had said.
    pub fn longest(&self, size: u32) -> Duration {
        let said = self.table.p99(size).unwrap_or_default();
        let slow = self.table.p50(size).unwrap_or_default().mul_f64(self.slowest);
        said.max(slow).max(self.longest)
    }

    /// Shortest lease of any batch.
    pub fn lease_floor(&self) -> Duration {
        if self.info.gpu { limits::LEASE_FLOOR_GPU } else { limits::LEASE_FLOOR_CPU }
    }
}
