//! A connected runner: what it holds, how it stands, how long its messages take, and what follows from
//! these for the batches that it may be given.

mod answering;
mod session;
mod standing;
mod way;

use crate::RunnerKey;
use crate::input::RunnerInfo;
use crate::latency_watch::LatencyWatch;
use crate::place::{DeviceIx, ModelIx};
use crate::promise::{Checks, Promise};
use crate::status::{RunnerReport, RunnerState};
use crate::wanted::Wanted;
use base::{Instant, limits};
use plan::{Demand, Share, paying_batch};
use session::Session;
use standing::Standing;
use std::time::Duration;
use way::Way;

pub(crate) use answering::Answered;
pub(crate) use session::{Batch, Bound, Phase};

/// A runner that became slow gets longer leases, up to this many times what it announced (six times
/// slower is still served, what others wait for it stays bounded; 1 fails a test of faults; any: 8 % of the
/// results of a model 60 times slower are late).
const LEASE_GROWTH: u32 = 2;
/// Bounds of the lease of one profiled size (below the hang limit, and enough samples of a fast
/// model to tell p50 from p99), and of a batch before anything is measured.
const PROFILE_LEASE: (Duration, Duration) =
    (Duration::from_millis(200), Duration::from_millis(1500));
/// Runs that fit a profile lease (two to warm up and seven samples fill 60 % of it; 8 fail a test).
const PROFILE_RUNS: u32 = 15;
/// A runner that was not launched on for this long is taken for recovered (always: 66 % of the answers
/// of a model three times slower are late; twice: 8 % fewer answers in the 20 s after a model was ten times
/// slower; never: none).
const RETRIED: Duration = Duration::from_millis(100);

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
    /// L(b), announced and observed.
    watch: LatencyWatch,
    /// It measured since it announced its table last: the next one counts.
    measured: bool,
    /// Since when and how often it may be measured unasked.
    checks: Checks,
    /// Others want its device, whom it must not cost what it did not promise.
    minded: bool,
    /// The largest batch that pays.
    paying: u32,
    /// What it was given of its device.
    share: Share,
    /// When it was last launched on.
    launched_at: Instant,
    /// The largest batch that bears rare long executions.
    careful_max: u32,
    /// It was demoted when it was last launched on: the fair order of its model has a time of its own.
    left_behind: bool,
    session: Session,
    standing: Standing,
    way: Way,
    batch_count: u64,
    member_count: u64,
    busy: Duration,
    /// Nanoseconds, in the order of [`base::Stages::NAMES`].
    stage_sums: [u64; 9],
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
            watch: LatencyWatch::new(table),
            measured: false,
            checks: Checks::default(),
            minded: true,
            paying,
            share: Share { interval: 0.0, batch: 1.0, batch_max: paying },
            launched_at: Instant::ZERO,
            careful_max: paying,
            left_behind: false,
            session: Session::default(),
            standing: Standing::default(),
            way: Way::default(),
            batch_count: 0,
            member_count: 0,
            busy: Duration::ZERO,
            stage_sums: [0; 9],
        }
    }

    pub fn state(&self) -> RunnerState {
        if self.session.measuring() {
            RunnerState::Profiling
        } else if self.session.late() {
            RunnerState::Late
        } else if self.standing.demoted() {
            RunnerState::Demoted
        } else {
            RunnerState::Ready
        }
    }

    /// Tokens that it holds.
    pub fn tokens(&self) -> u32 {
        self.session.tokens()
    }

    /// What it holds, oldest first.
    pub fn batches(&self) -> &[Batch] {
        self.session.batches()
    }

    /// What it held.
    pub fn into_batches(self) -> Vec<Batch> {
        self.session.into_batches()
    }

    /// The batch that waits for the token.
    pub fn prepared(&self) -> Option<&Batch> {
        self.session.prepared()
    }

    /// Whether it measures a size, wants to, or owes what it measured.
    pub fn measures(&self) -> bool {
        self.session.measures()
    }

    /// Whether it could begin to measure a size once it holds nothing.
    pub fn would_measure(&self) -> bool {
        self.session.would_measure()
    }

    /// Whether a Prepare may be sent.
    pub fn accepts(&self, with_token: bool, measure_next: bool) -> bool {
        self.session.accepts(with_token, measure_next)
    }

    /// When its first bound passes, if it has any.
    pub fn next_bound(&self, hang_limit: Duration) -> Option<(Instant, Bound)> {
        (!self.session.idle()).then(|| self.session.next_bound(hang_limit))
    }

    /// Whether it is served after others, with no more than it promised: it is slower than that, and
    /// there are others.
    pub fn yields(&self) -> bool {
        self.state() == RunnerState::Demoted && self.minded
    }

    /// `L(b) = alpha + beta b` as planning reckons, seconds, the token's way in `alpha`. A slow
    /// runner is planned as it was announced: it does not take from the others.
    pub fn planned_line(&self) -> Option<(f64, f64)> {
        let line = if self.yields() { self.watch.announced_line() } else { self.watch.line() };
        line.map(|(alpha, beta)| (alpha + self.turnaround().as_secs_f64(), beta))
    }

    /// How long the token is lent for a batch of `size`.
    pub fn lease(&self, size: u32) -> Duration {
        let floor = if self.info.gpu { limits::LEASE_FLOOR_GPU } else { limits::LEASE_FLOOR_CPU };
        let lease = |p99: Duration| (p99 * limits::LEASE_FACTOR).max(floor);
        self.watch.at(size).map_or(PROFILE_LEASE.1, |latency| {
            lease(latency.p99).min(lease(latency.announced_p99) * LEASE_GROWTH)
        })
    }

    /// How long the token is lent to measure `size`.
    pub fn profile_lease(&self, size: u32) -> Duration {
        let (shortest, longest) = PROFILE_LEASE;
        self.watch.p50(size).map_or(longest, |p50| (p50 * PROFILE_RUNS).clamp(shortest, longest))
    }

    /// Whether a demoted runner may use the device.
    pub fn in_budget(&mut self, now: Instant) -> bool {
        self.standing.in_budget(now)
    }

    /// When that is so again.
    pub fn in_budget_at(&self) -> Instant {
        self.standing.in_budget_at()
    }

    /// How long before the token comes back the next batch is prepared, at most `longest`.
    pub fn lead(&self, longest: Duration) -> Duration {
        self.way.lead(longest)
    }

    /// Mean time that a token is out beyond the execution.
    pub fn turnaround(&self) -> Duration {
        self.way.turnaround()
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

    /// Whether others mind what it takes of its device beyond what it promised.
    pub fn mind(&mut self, minded: bool) {
        self.minded = minded;
    }

    /// Whether it keeps what it promised, or is to be tried.
    pub fn keeps(&self) -> bool {
        self.state() != RunnerState::Demoted
    }

    /// Whether its state allows steering.
    pub fn steerable(&self) -> bool {
        let state = self.state();
        (state == RunnerState::Ready || (state == RunnerState::Demoted && !self.minded))
            && !self.watch.announced().is_empty()
    }

    /// L(b), announced and observed.
    pub fn watch(&self) -> &LatencyWatch {
        &self.watch
    }

    /// The largest batch that pays.
    pub fn paying(&self) -> u32 {
        self.paying
    }

    /// What it was given of its device.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// The largest batch that bears rare long executions.
    pub fn careful_max(&self) -> u32 {
        self.careful_max
    }

    /// Whether it was demoted when it was last launched on.
    pub fn left_behind(&self) -> bool {
        self.left_behind
    }

    /// What it asks of its device for `part` of what is `wanted` of its model. `crowded`: its model
    /// alone wants more than the device has; then a few results may be late, and the largest batch is
    /// one that is usually in time.
    pub fn demand(&self, wanted: &Wanted, part: f64, steered: bool, crowded: bool) -> Demand {
        let line = self.planned_line();
        let (alpha, beta) = line.unwrap_or_default();
        let batch = self.share.batch.max(1.0) as u32;
        let longest = if crowded { self.watch.usual(batch) } else { self.watch.p99(batch) };
        let spread = match (self.watch.p50(batch), longest) {
            (Some(p50), Some(longest)) if !p50.is_zero() && !self.yields() => {
                (longest.as_secs_f64() / p50.as_secs_f64()).max(1.0)
            }
            _ => 1.0,
        };
        let way = self.answer_time(0, self.info.gpu).as_secs_f64();
        Demand {
            alpha,
            beta,
            rate: line.map_or(0.0, |_| wanted.rate * part),
            freedom: wanted.freedom,
            steered,
            patience: (wanted.deadline - wanted.delay - way).max(0.0) / spread,
            batch_max: self.paying,
        }
    }

    /// It gets this share of its device for what it asked.
    pub fn plan(&mut self, share: Share, demand: Demand) {
        self.share = share;
        self.careful_max = self.careful(demand);
        self.standing.plan_budget(demand.load(f64::from(share.batch_max)));
    }

    /// The largest batch that is in time even when it takes as long as rarely one does. Half the choice
    /// of frames that other batches leave to the fair order: what is small costs more.
    fn careful(&self, demand: Demand) -> u32 {
        let batch = self.share.batch.max(1.0) as u32;
        match (self.watch.usual(batch), self.watch.rare(batch)) {
            (Some(usual), Some(rare)) if !usual.is_zero() => {
                let longer = (rare.as_secs_f64() / usual.as_secs_f64()).max(1.0);
                let (patience, freedom) = (demand.patience / longer, demand.freedom / longer / 2.0);
                Demand { patience, freedom, ..demand }.batch_in_time()
            }
            _ => self.share.batch_max,
        }
    }

    /// Frames per second that its device, of this load and capacity, would have room for without it; at
    /// least a little.
    pub fn room(&self, load: f64, capacity: f64) -> f64 {
        let (alpha, beta) = self.watch.line().unwrap_or((0.0, 1e-3));
        let own = self.share.batch / self.share.interval.max(1e-9);
        let frame = alpha / self.share.batch.max(1.0) + beta;
        let others = (load * capacity - own.min(1e6) * frame).max(0.0);
        ((capacity - others).max(0.05 * capacity)) / frame.max(1e-9)
    }

    /// Asks it to measure what may be promised in vain, when that is due; `room` is what a frame has
    /// left of its deadline. True = it was asked.
    pub fn check_promise(&mut self, now: Instant, room: Duration) -> bool {
        let idle = !self.session.measures() && !self.session.late();
        let Some(single) = self.watch.announced().p50(1).filter(|_| idle) else { return false };
        match self.checks.look(now, self.launched_at, single, room) {
            Promise::Stands => return false,
            Promise::Doubtful => self.session.ask(std::iter::once(1)),
            Promise::Restored => {
                // Those that the runner does not offer take no time.
                let doubled = (1..).map(|power| 1 << power);
                let largest = self.info.batch_max;
                let sizes = doubled.take_while(|size| *size < largest);
                self.session.ask(sizes.chain(Some(largest).filter(|size| *size > 1)));
            }
        }
        true
    }

    /// What the core says of it.
    pub fn report(&self, steered: bool) -> RunnerReport {
        RunnerReport {
            model: self.info.model.clone(),
            device: self.info.device.clone(),
            instance: self.info.instance,
            state: self.state(),
            batches: self.batch_count,
            members: self.member_count,
            busy: self.busy,
            stage_sums: self.stage_sums.map(Duration::from_nanos),
            latency: self.watch.announced().clone(),
            batch_size: self.paying,
            batch_planned: self.share.batch,
            interval: Duration::from_secs_f64(self.share.interval.clamp(0.0, 1e6)),
            steered,
        }
    }

    pub fn count_stages(&mut self, stages_ns: &[u64; 9]) {
        for (sum, stage) in self.stage_sums.iter_mut().zip(stages_ns) {
            *sum += stage;
        }
    }
}
