//! A connected runner: what it holds and what it owes.

use crate::BatchId;
use crate::batch_size::paying_batch;
use crate::device::{DeviceIx, ModelIx};
use crate::input::RunnerInfo;
use crate::output::Binding;
use base::{Instant, LatencyTable, Stages, limits};
use std::collections::VecDeque;
use std::time::Duration;

/// What a runner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerState {
    /// Takes batches.
    Ready,
    /// Measures L(b) under the token.
    Profiling,
    /// Overran a lease: no Prepare until its late answer has come.
    Late,
    /// Overran a lease before: served after all others.
    Demoted,
    /// Overran the hang limit: its connection is closed, this instance is refused.
    Hung,
    /// Its connection is closed.
    Gone,
}

/// Lease while nothing is measured yet (chosen: half the hang limit).
const LEASE_UNMEASURED: Duration = Duration::from_secs(1);
/// Bounds of the lease of one profiled size (chosen: below the hang limit, and enough samples of a
/// fast model to tell p50 from p99).
const PROFILE_LEASE: (Duration, Duration) =
    (Duration::from_millis(200), Duration::from_millis(1500));
/// Runs that fit a profile lease (chosen: two to warm up and seven samples fill 60 % of it).
const PROFILE_RUNS: u32 = 15;
/// In-time batches after which a demoted runner is as good as any (chosen).
const REHABILITATION: u32 = 10;
/// Revoked batches that are remembered (chosen: a runner holds one prepared batch at a time).
const REVOKED_KEPT: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Named, without token.
    Prepared,
    /// With the token.
    Executing,
    /// The token is back, the reply is not here yet.
    Executed,
    /// The lease passed: settled, token passed on, the reply will be discarded.
    Late,
}

#[derive(Debug)]
pub(crate) struct Batch {
    pub id: BatchId,
    pub members: Vec<Binding>,
    pub phase: Phase,
    /// When it was last given something to do: Prepare, then Grant.
    pub since: Instant,
    pub lease_end: Instant,
}

#[derive(Debug)]
pub(crate) struct Runner {
    pub info: RunnerInfo,
    pub model: ModelIx,
    pub device: DeviceIx,
    pub state: RunnerState,
    /// Oldest first. At most one Prepared, one Executing or Late, one Executed.
    pub batches: Vec<Batch>,
    pub profile_queue: VecDeque<u32>,
    /// Size, when it began, end of its lease.
    pub profiling: Option<(u32, Instant, Instant)>,
    pub table: LatencyTable,
    pub batch_size: u32,
    pub in_time: u32,
    /// A lease was overrun and not made up for yet.
    demoted: bool,
    /// Batches that were taken back of late: what still comes for them is discarded.
    revoked: VecDeque<BatchId>,
    pub batch_count: u64,
    pub member_count: u64,
    pub busy: Duration,
    pub stage_sums: [Duration; 9],
}

impl Runner {
    pub fn new(info: RunnerInfo, model: ModelIx, device: DeviceIx) -> Runner {
        let table = info.latency.clone();
        let batch_size = paying_batch(&table, info.batch_max);
        Runner {
            info,
            model,
            device,
            state: RunnerState::Ready,
            batches: Vec::with_capacity(3),
            profile_queue: VecDeque::new(),
            profiling: None,
            table,
            batch_size,
            in_time: 0,
            demoted: false,
            revoked: VecDeque::new(),
            batch_count: 0,
            member_count: 0,
            busy: Duration::ZERO,
            stage_sums: [Duration::ZERO; 9],
        }
    }

    pub fn connected(&self) -> bool {
        !matches!(self.state, RunnerState::Hung | RunnerState::Gone)
    }

    pub fn set_table(&mut self, table: LatencyTable) {
        self.batch_size = paying_batch(&table, self.info.batch_max);
        self.table = table;
    }

    /// Whether a Prepare may be sent: nothing is late, measured or prepared, and with the token
    /// nothing executes. `measure_next`: the next turn is a measurement's, for which a runner with
    /// sizes to measure must hold nothing.
    pub fn accepts(&self, with_token: bool, measure_next: bool) -> bool {
        matches!(self.state, RunnerState::Ready | RunnerState::Demoted)
            && self.profiling.is_none()
            && self.batches.iter().all(|b| match b.phase {
                Phase::Prepared | Phase::Late => false,
                Phase::Executing => !with_token,
                Phase::Executed => true,
            })
            && self.batches.len() < 3
            && (self.profile_queue.is_empty() || (with_token && !measure_next))
    }

    /// How long the token is lent for a batch of `size`.
    pub fn lease(&self, size: u32) -> Duration {
        let floor = if self.info.gpu { limits::LEASE_FLOOR_GPU } else { limits::LEASE_FLOOR_CPU };
        match self.table.p99(size) {
            Some(p99) => (p99 * limits::LEASE_FACTOR).max(floor),
            None => LEASE_UNMEASURED,
        }
    }

    /// How long the token is lent to measure `size`.
    pub fn profile_lease(&self, size: u32) -> Duration {
        let (shortest, longest) = PROFILE_LEASE;
        self.table.p50(size).map_or(longest, |p50| (p50 * PROFILE_RUNS).clamp(shortest, longest))
    }

    /// When its first bound passes: end of a lease or of the patience with it.
    pub fn next_bound(&self, hang_limit: Duration) -> (Instant, Bound) {
        let mut next = (Instant::FAR, Bound::Hang);
        let mut consider = |at: Instant, bound: Bound| {
            if at < next.0 {
                next = (at, bound);
            }
        };
        for batch in &self.batches {
            consider(batch.since + hang_limit, Bound::Hang);
            if batch.phase == Phase::Executing {
                consider(batch.lease_end, Bound::Lease(batch.id));
            }
        }
        if let Some((_, _, lease_end)) = self.profiling {
            consider(lease_end + limits::PROFILE_GRACE, Bound::Hang);
            if self.state == RunnerState::Profiling {
                consider(lease_end, Bound::ProfileLease);
            }
        }
        next
    }

    /// An answer came within its lease.
    pub fn count_in_time(&mut self) {
        self.in_time = self.in_time.saturating_add(1);
        if self.demoted && self.in_time >= REHABILITATION {
            self.demoted = false;
            if self.state == RunnerState::Demoted {
                self.state = RunnerState::Ready;
            }
        }
    }

    /// It takes batches again, after others if it overran a lease.
    pub fn resume(&mut self) {
        self.state = if self.demoted { RunnerState::Demoted } else { RunnerState::Ready };
    }

    /// A prepared batch is taken back.
    pub fn note_revoked(&mut self, batch: BatchId) {
        if self.revoked.len() == REVOKED_KEPT {
            self.revoked.pop_front();
        }
        self.revoked.push_back(batch);
    }

    /// Whether the batch was taken back: what the runner sent meanwhile is no mistake.
    pub fn was_revoked(&self, batch: BatchId) -> bool {
        self.revoked.contains(&batch)
    }

    /// The core itself was late: nobody else's time ran meanwhile.
    pub fn postpone(&mut self, by: Duration) {
        for batch in &mut self.batches {
            batch.since += by;
            batch.lease_end += by;
        }
        if let Some((_, since, lease_end)) = &mut self.profiling {
            *since += by;
            *lease_end += by;
        }
    }

    /// A lease was overrun and the late answer has come: it goes on, demoted.
    pub fn demote(&mut self) {
        self.in_time = 0;
        self.demoted = true;
        self.state = RunnerState::Demoted;
    }

    pub fn count_stages(&mut self, stages: &Stages) {
        for (sum, stage) in self.stage_sums.iter_mut().zip(stages.as_array()) {
            *sum += stage;
        }
    }
}

/// What passes at a runner's next bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Lease(BatchId),
    ProfileLease,
    Hang,
}
