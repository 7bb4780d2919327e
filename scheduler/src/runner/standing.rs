//! How a runner stands with the core: whether it keeps what it announced, what it may spend of its
//! device while it does not, and how many of its results may still be late.

use base::Instant;
use std::time::Duration;

/// In-time batches after which a demoted runner is as good as any (5 and 20: the same in all
/// worlds; never: `faulty` p99 +25 %).
const REHABILITATION: u32 = 10;
/// Executions in a row that must be too long before a runner is demoted (study: 3).
const OVERRUNS: u32 = 3;
/// Too long is this many times the announced 99th percentile (study: 1.5).
const OVERRUN_FACTOR: f64 = 1.5;
/// A demoted runner may save up as much device time as it is planned in this (nothing: 4 %
/// fewer answers when its cameras return; half, twice: within 1 % beside a model three times slower).
const BUDGET_SPAN: f64 = 0.5;
/// Share of the results that may be late in overload (target: 0.5 %).
const LATE_SHARE: f64 = 0.004;
/// Late results that are saved up, and remembered, at most: one large batch and several (a
/// bound: 512 are made up for by 128,000 results; without the second `overload+x1.6`, once three times
/// slower for 10 s, has 0.3 % fewer in time).
const LATE_SAVED: (f64, f64) = (-512.0, 64.0);

#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Answers in time since the last one that was not.
    in_time: u32,
    /// A lease was overrun, or executions were too long, and that was not made up for yet.
    demoted: bool,
    /// Executions in a row that were too long.
    overruns: u32,
    /// Late results that it may still have before its batches must bear rare long executions.
    late_credit: f64,
    /// Device seconds per second that it was planned to need, and what of it is unused.
    budget_rate: f64,
    budget: f64,
    budget_at: Instant,
}

impl Standing {
    /// Whether it comes after all others.
    pub fn demoted(&self) -> bool {
        self.demoted
    }

    /// It overran a lease.
    pub fn demote(&mut self) {
        self.in_time = 0;
        self.demoted = true;
    }

    /// An execution took so long; `announced` is the 99th percentile for its size. True = it was one
    /// too many.
    pub fn executed(&mut self, took: Duration, announced: Duration) -> bool {
        if took.as_secs_f64() <= OVERRUN_FACTOR * announced.as_secs_f64() {
            self.overruns = 0;
            return false;
        }
        self.overruns += 1;
        let enough = self.overruns >= OVERRUNS;
        if enough {
            self.demote();
        }
        enough
    }

    /// An answer came within its lease. True = that made up for everything.
    pub fn count_in_time(&mut self) -> bool {
        if self.overruns > 0 {
            return false;
        }
        self.in_time = self.in_time.saturating_add(1);
        let made_up = self.demoted && self.in_time >= REHABILITATION;
        self.demoted &= !made_up;
        made_up
    }

    /// What it is planned to need of its device, seconds per second.
    pub fn plan_budget(&mut self, rate: f64) {
        self.budget_rate = rate;
    }

    /// Whether a demoted runner may use the device: it gets what it was planned to need before it
    /// became slow, and no more.
    pub fn in_budget(&mut self, now: Instant) -> bool {
        self.earn(now);
        self.budget >= 0.0
    }

    fn earn(&mut self, now: Instant) {
        let earned = (now - self.budget_at).as_secs_f64() * self.budget_rate;
        self.budget_at = now;
        self.budget = (self.budget + earned).min(self.budget_rate * BUDGET_SPAN);
    }

    /// When a demoted runner is in budget again.
    pub fn in_budget_at(&self) -> Instant {
        if self.budget_rate <= 0.0 {
            return Instant::FAR;
        }
        let wait = (-self.budget).max(0.0) / self.budget_rate;
        self.budget_at + Duration::from_secs_f64(wait.min(3600.0)) + Duration::from_micros(1)
    }

    /// The device was its own for this long.
    pub fn spend(&mut self, now: Instant, busy: Duration) {
        self.earn(now);
        // What it used while nobody minded is no debt.
        let floor = if self.demoted { f64::MIN } else { 0.0 };
        self.budget = (self.budget - busy.as_secs_f64()).max(floor);
    }

    /// So many results came, so many of them late.
    pub fn count_late(&mut self, results: usize, late: usize) {
        let (least, most) = LATE_SAVED;
        let credit = self.late_credit + LATE_SHARE * results as f64 - late as f64;
        self.late_credit = credit.clamp(least, most);
    }

    /// Whether few enough results were late to rely on executions that are not unusually long. Of
    /// batches that bear twice the usual time and those that are as large as a usual one allows, a
    /// mixture is the most that can be answered at a given share of late results.
    pub fn bold(&self) -> bool {
        self.late_credit >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn three_long_executions_in_a_row_demote_and_ten_answers_in_time_make_up_for_it() {
        let mut standing = Standing::default();
        let announced = ms(10);
        assert!(!standing.executed(ms(16), announced));
        assert!(!standing.executed(ms(16), announced));
        assert!(!standing.executed(ms(15), announced), "not too long: the row ends");
        assert!(!standing.executed(ms(16), announced));
        assert!(!standing.executed(ms(16), announced));
        assert!(standing.executed(ms(16), announced) && standing.demoted());
        for _ in 0..20 {
            assert!(!standing.count_in_time(), "not while it is too slow");
        }
        standing.executed(ms(10), announced);
        let made_up: Vec<bool> = (0..10).map(|_| standing.count_in_time()).collect();
        assert_eq!(made_up.iter().position(|m| *m), Some(9));
        assert!(!standing.demoted());
        standing.demote();
        standing.count_in_time();
        assert!(standing.demoted(), "one lease that is overrun is enough, and counts anew");
    }

    #[test]
    fn who_is_demoted_spends_what_it_was_planned_to_need() {
        let at = |ms: u64| Instant(1_000_000_000 + ms * 1_000_000);
        let mut standing = Standing::default();
        standing.plan_budget(0.1);
        assert!(standing.in_budget(at(0)));
        standing.spend(at(0), ms(300));
        assert!(standing.in_budget(at(0)), "while it was as good as any it owes nothing");
        standing.demote();
        standing.spend(at(0), ms(30));
        assert!(!standing.in_budget(at(0)));
        let again = standing.in_budget_at();
        assert!(again > at(295) && again < at(305), "30 ms at a tenth of the device: {again:?}");
        assert!(!standing.in_budget(at(290)) && standing.in_budget(again));
        assert!(standing.in_budget(at(60_000)));
        standing.spend(at(60_000), ms(60));
        assert!(!standing.in_budget(at(60_000)), "it saves up half a second of its share");
        standing.plan_budget(0.0);
        assert_eq!(standing.in_budget_at(), Instant::FAR);
    }

    #[test]
    fn few_late_results_leave_a_runner_bold() {
        let mut standing = Standing::default();
        assert!(standing.bold());
        standing.count_late(100, 1);
        assert!(!standing.bold());
        standing.count_late(200, 0);
        assert!(standing.bold(), "one in 250 may be late");
        standing.count_late(1_000_000, 0);
        standing.count_late(0, 65);
        assert!(!standing.bold(), "no more than 64 are saved up");
    }
}
