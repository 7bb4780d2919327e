//! A connected runner: what it holds and what it owes.

mod standing;
mod way;

use crate::batch_size::paying_batch;
use crate::device::{DeviceIx, ModelIx};
use crate::input::RunnerInfo;
use crate::latency_watch::LatencyWatch;
use crate::output::Binding;
use crate::plan::Share;
use crate::promise::Checks;
use crate::status::RunnerReport;
use crate::{BatchId, RunnerKey};
use base::{Instant, LatencyTable, limits};
use standing::Standing;
use std::collections::VecDeque;
use std::time::Duration;
use way::Way;

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
    /// Overran the hang limit: its connection is closed, this instance is refused. No runner of the
    /// core is in this state, only the status of one that was.
    Hung,
}

/// Lease while nothing is measured yet (chosen: half the hang limit).
const LEASE_UNMEASURED: Duration = Duration::from_secs(1);
/// A runner that became slow gets longer leases, up to this many times what it announced (chosen:
/// six times slower is still served; what others wait for it stays bounded).
const LEASE_GROWTH: u32 = 2;
/// Bounds of the lease of one profiled size (chosen: below the hang limit, and enough samples of a
/// fast model to tell p50 from p99).
const PROFILE_LEASE: (Duration, Duration) =
    (Duration::from_millis(200), Duration::from_millis(1500));
/// Runs that fit a profile lease (chosen: two to warm up and seven samples fill 60 % of it).
const PROFILE_RUNS: u32 = 15;
/// A runner that was not launched on for this long is taken for recovered (chosen).
const RETRIED: Duration = Duration::from_millis(200);
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
    /// How long the token is expected to be out.
    pub length: Duration,
}

/// Index into the core's runners; a place is used again once its runner is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RunnerIx(pub usize);

/// An instance that overran the hang limit. It is refused, and its model and device are marked, until
/// it is said to be gone or another instance has its place.
#[derive(Debug)]
pub(crate) struct Hung {
    pub model: ModelIx,
    pub device: DeviceIx,
    /// What it had done.
    pub report: RunnerReport,
}

/// A runner that is connected. It leaves the core with its connection.
#[derive(Debug)]
pub(crate) struct Runner {
    pub key: RunnerKey,
    pub info: RunnerInfo,
    pub model: ModelIx,
    pub device: DeviceIx,
    pub state: RunnerState,
    /// Oldest first. At most one Prepared, one Executing or Late, one Executed.
    pub batches: Vec<Batch>,
    pub profile_queue: VecDeque<u32>,
    /// Size, when it began, end of its lease.
    pub profiling: Option<(u32, Instant, Instant)>,
    /// L(b), announced and observed.
    pub watch: LatencyWatch,
    /// It measured since it announced its table last: the next one counts.
    pub measured: bool,
    /// Since when and how often it may be measured unasked.
    pub checks: Checks,
    /// Others want its device, whom it must not cost what it did not promise.
    pub minded: bool,
    /// The largest batch that pays.
    pub paying: u32,
    /// What it was given of its device.
    pub share: Share,
    /// When it was last launched on.
    pub launched_at: Instant,
    /// The largest batch that bears rare long executions.
    pub careful_max: u32,
    /// It was demoted when it was last launched on: the fair order of its model has a time of its own.
    pub left_behind: bool,
    standing: Standing,
    way: Way,
    /// Batches that were taken back of late: what still comes for them is discarded.
    revoked: VecDeque<BatchId>,
    pub batch_count: u64,
    pub member_count: u64,
    pub busy: Duration,
    /// Nanoseconds, in the order of [`base::Stages::NAMES`].
    pub stage_sums: [u64; 9],
}

impl Runner {
    pub fn new(key: RunnerKey, info: RunnerInfo, model: ModelIx, device: DeviceIx) -> Runner {
        let table = info.latency.clone();
        let paying = paying_batch(&table, info.batch_max);
        Runner {
            key,
            info,
            model,
            device,
            state: RunnerState::Ready,
            batches: Vec::with_capacity(3),
            profile_queue: VecDeque::new(),
            profiling: None,
            watch: LatencyWatch::new(table),
            measured: false,
            checks: Checks::default(),
            minded: true,
            paying,
            share: Share { interval: 0.0, batch: 1.0, batch_max: paying },
            launched_at: Instant::ZERO,
            careful_max: paying,
            left_behind: false,
            standing: Standing::default(),
            way: Way::default(),
            revoked: VecDeque::with_capacity(REVOKED_KEPT),
            batch_count: 0,
            member_count: 0,
            busy: Duration::ZERO,
            stage_sums: [0; 9],
        }
    }

    /// Tokens that it holds.
    pub fn tokens(&self) -> u32 {
        let executing = self.batches.iter().filter(|b| b.phase == Phase::Executing).count();
        executing as u32 + u32::from(self.state == RunnerState::Profiling)
    }

    /// Whether it is served after others, with no more than it promised: it is slower than that, and
    /// there are others.
    pub fn yields(&self) -> bool {
        self.state == RunnerState::Demoted && self.minded
    }

    /// `L(b) = alpha + beta b` as planning reckons, seconds, the token's way in `alpha`. A slow
    /// runner is planned as it was announced: it does not take from the others.
    pub fn planned_line(&self) -> Option<(f64, f64)> {
        let line = if self.yields() { self.watch.announced_line() } else { self.watch.line() };
        line.map(|(alpha, beta)| (alpha + self.turnaround().as_secs_f64(), beta))
    }

    /// It announces a table. Only what it measured under a grant changes what it promises; how fast
    /// it is while it works is seen here, not there.
    pub fn set_table(&mut self, table: LatencyTable) {
        if !std::mem::take(&mut self.measured) {
            return;
        }
        self.paying = paying_batch(&table, self.info.batch_max);
        self.watch.announce(table);
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
        let lease = |p99: Duration| (p99 * limits::LEASE_FACTOR).max(floor);
        self.watch.at(size).map_or(LEASE_UNMEASURED, |latency| {
            lease(latency.p99).min(lease(latency.announced_p99) * LEASE_GROWTH)
        })
    }

    /// How long the token is lent to measure `size`.
    pub fn profile_lease(&self, size: u32) -> Duration {
        let (shortest, longest) = PROFILE_LEASE;
        self.watch.p50(size).map_or(longest, |p50| (p50 * PROFILE_RUNS).clamp(shortest, longest))
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

    /// A batch of this size took this long to execute, as the runner stamped it.
    pub fn executed(&mut self, size: u32, took: Duration) {
        let announced = self.watch.at(size).map(|latency| latency.announced_p99);
        self.watch.record(size, took);
        let Some(announced) = announced else { return };
        if self.standing.executed(took, announced) && self.state == RunnerState::Ready {
            self.state = RunnerState::Demoted;
        }
    }

    /// An answer came within its lease.
    pub fn count_in_time(&mut self) {
        if self.standing.count_in_time() && self.state == RunnerState::Demoted {
            self.state = RunnerState::Ready;
        }
    }

    /// What it is planned to need of its device, seconds per second.
    pub fn plan_budget(&mut self, rate: f64) {
        self.standing.plan_budget(rate);
    }

    /// Whether a demoted runner may use the device.
    pub fn in_budget(&mut self, now: Instant) -> bool {
        self.standing.in_budget(now)
    }

    /// When that is so again.
    pub fn in_budget_at(&self) -> Instant {
        self.standing.in_budget_at()
    }

    /// The device was its own for this long.
    pub fn spend(&mut self, now: Instant, busy: Duration) {
        self.busy += busy;
        self.standing.spend(now, busy);
    }

    /// The way of a Prepare took this long.
    pub fn note_lead(&mut self, took: Duration) {
        self.way.note_lead(took);
    }

    /// How long before the token comes back the next batch is prepared, at most `longest`.
    pub fn lead(&self, longest: Duration) -> Duration {
        self.way.lead(longest)
    }

    /// A token was out for this long beyond its execution.
    pub fn note_turnaround(&mut self, beyond: Duration) {
        self.way.note_turnaround(beyond);
    }

    /// Mean time that a token is out beyond the execution.
    pub fn turnaround(&self) -> Duration {
        self.way.turnaround()
    }

    /// The reply came this long after the execution ended.
    pub fn note_tail(&mut self, took: Duration) {
        self.way.note_tail(took);
    }

    /// So many results came, so many of them late.
    pub fn count_late(&mut self, results: usize, late: usize) {
        self.standing.count_late(results, late);
    }

    /// Whether few enough results were late to rely on executions that are not unusually long.
    pub fn bold(&self) -> bool {
        self.standing.bold()
    }

    /// From the token to the handled reply of a batch of `size`, 99th percentile. `copy`: the
    /// pixels are copied under the token.
    pub fn answer_time(&self, size: u32, copy: bool) -> Duration {
        self.way(copy) + self.watch.p99(size).unwrap_or_default()
    }

    /// The same in overload: of a usual execution, or of any.
    pub fn answer_time_crowded(&self, size: u32, copy: bool) -> Duration {
        let longest = if self.bold() { self.watch.usual(size) } else { self.watch.rare(size) };
        self.way(copy) + longest.max(self.watch.p50(size)).unwrap_or_default()
    }

    /// From the token to the handled reply, without the execution.
    pub fn way(&self, copy: bool) -> Duration {
        let lead = if copy { self.way.copy() } else { Duration::ZERO };
        lead + self.way.turnaround() + self.way.tail()
    }

    /// The same for a batch of one as it mostly is: a frame that can't even make that has expired.
    /// A runner that had nothing for a while is tried as it was announced: how slow it was is old.
    pub fn answer_time_alone(&self, now: Instant, copy: bool) -> Duration {
        let lead = if copy { self.way.copy() } else { Duration::ZERO };
        if now - self.launched_at > RETRIED {
            return self.watch.announced().p50(1).unwrap_or_default();
        }
        lead + self.watch.p50(1).unwrap_or_default() + self.way.tail()
    }

    /// The largest batch of at most `batch` that takes no longer now than `batch` was announced to
    /// take: what a slow runner may occupy the device with.
    pub fn modest(&self, batch: u32) -> u32 {
        let Some(promised) = self.watch.announced().p99(batch) else { return 1 };
        let fits = |b: u32| self.watch.p99(b).is_some_and(|l| l <= promised);
        let (mut low, mut high) = (1, batch.max(1));
        while low < high {
            let middle = (low + high).div_ceil(2);
            if fits(middle) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        low
    }

    /// It takes batches again, after others if it overran a lease.
    pub fn resume(&mut self) {
        self.state =
            if self.standing.demoted() { RunnerState::Demoted } else { RunnerState::Ready };
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
        self.standing.demote();
        self.state = RunnerState::Demoted;
    }

    pub fn count_stages(&mut self, stages_ns: &[u64; 9]) {
        for (sum, stage) in self.stage_sums.iter_mut().zip(stages_ns) {
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
