//! What a runner is given and what it answers: the way of a batch, and of a size that it measures.

use super::Runner;
use super::session::{Batch, Phase};
use crate::BatchId;
use crate::output::Binding;
use base::{Instant, LatencyEntry, LatencyTable, StageTimes};
use plan::paying_batch;
use std::time::Duration;

/// Leases of a late execution that count as its length: a runner that became twelve times slower is
/// known at once, one that stood still is not taken for a thousand times slower (all of it: the mean is
/// 13 % higher for 5 s after a batch of `s2` that took 60 times as long; one: p99 is 29 % higher after a
/// model beside two others was 30 times slower).
const OVERRUN_COUNTED: u32 = 4;

/// A batch that was answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub members: Vec<Binding>,
    /// Its members have ended before; the answer is discarded.
    pub late: bool,
    /// It gives the token back, which it used for this long.
    pub token: Option<Duration>,
}

/// A size that was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub size: u32,
    /// It gives the token back, which it used for this long.
    pub token: Option<Duration>,
}

impl Runner {
    /// A batch is launched on it, while it is `demoted` or not: then the fair order of its model has a
    /// time of its own.
    pub fn launch(
        &mut self,
        id: BatchId,
        members: Vec<Binding>,
        with_token: bool,
        demoted: bool,
        now: Instant,
    ) {
        let count = members.len() as u32;
        let lease = self.lease(count);
        let length = self.watch.p50(count).unwrap_or_default() + self.turnaround();
        self.session.launch(id, members, with_token, now, (lease, length));
        (self.launched_at, self.left_behind) = (now, demoted);
    }

    /// Its prepared batch gets the token for so long. `None` = it has none, or the token for another.
    pub fn grant(&mut self, id: BatchId, now: Instant) -> Option<Duration> {
        let executing = self.batches().iter().any(|b| b.phase() == Phase::Executing);
        let size = self.prepared().filter(|b| b.id == id && !executing)?.size();
        let lease = self.lease(size);
        self.session.grant(id, now, lease);
        Some(lease)
    }

    /// A batch was prepared. False = it does not hold it.
    pub fn note_prepared(&mut self, id: BatchId, now: Instant) -> Option<bool> {
        let took = self.session.note_prepared(id, now)?;
        if let Some(took) = took {
            self.way.note_lead(took);
        }
        Some(took.is_some())
    }

    /// A batch was executed and gives the token back. Returns how long that was used. `None` = it does
    /// not hold it.
    pub fn note_executed(&mut self, id: BatchId, now: Instant, took: Duration) -> Option<Duration> {
        let (size, out) = self.session.note_executed(id, now)?;
        Some(self.return_token(size, now, took, out))
    }

    /// The token that was out comes back.
    fn return_token(&mut self, size: u32, now: Instant, took: Duration, out: Duration) -> Duration {
        let busy = took.min(out);
        self.note_execution(size, busy);
        self.way.note_turnaround(out - busy);
        self.spend(now, busy);
        busy
    }

    /// A batch of this size took this long to execute, as the runner stamped it.
    fn note_execution(&mut self, size: u32, took: Duration) {
        let announced = self.watch.at(size).map(|latency| latency.announced_p99);
        self.watch.record(size, took);
        let Some(announced) = announced else { return };
        self.standing.executed(took, announced);
    }

    /// The device was its own for this long.
    fn spend(&mut self, now: Instant, busy: Duration) {
        self.busy += busy;
        self.standing.spend(now, busy);
    }

    /// A batch is answered, and leaves it. `None` = it does not hold it.
    pub fn answer(&mut self, id: BatchId, now: Instant, times: &StageTimes) -> Option<Answered> {
        let batch = self.session.remove(id)?;
        let size = batch.size();
        let mut token = None;
        let took = times.executed - times.granted;
        match batch.phase() {
            Phase::Executing => {
                token = Some(self.return_token(size, now, took, now - batch.since()));
            }
            Phase::Late => {
                // What it took is not forgotten. Far beyond its lease it stood still, which says little
                // of how slow it is.
                let most = batch.lent() * OVERRUN_COUNTED;
                self.note_execution(size, took.min(most));
                self.demote();
                return Some(Answered { members: batch.members, late: true, token });
            }
            Phase::Prepared | Phase::Executed => {}
        }
        self.batch_count += 1;
        self.member_count += u64::from(size);
        self.standing.count_in_time();
        self.way.note_tail((now - times.executed).min(now - batch.since()));
        Some(Answered { members: batch.members, late: false, token })
    }

    /// So many results came, so many of them late.
    pub fn count_late(&mut self, results: usize, late: usize) {
        self.standing.count_late(results, late);
    }

    /// A prepared batch is taken back. Returns it, and when it was launched: a runner holds one prepared
    /// batch at a time, so it was the last one.
    pub fn take_back(&mut self, id: BatchId) -> Option<(Batch, Instant)> {
        Some((self.session.take_back(id)?, self.launched_at))
    }

    /// Whether the batch was taken back: what the runner sent meanwhile is no mistake.
    pub fn was_revoked(&self, batch: BatchId) -> bool {
        self.session.was_revoked(batch)
    }

    /// The batch of that id.
    pub fn batch(&self, id: BatchId) -> Option<&Batch> {
        self.session.batch(id)
    }

    /// The lease of a batch passed. Returns how long the token was out, and the members.
    pub fn pass_lease(&mut self, id: BatchId, now: Instant) -> (Duration, &[Binding]) {
        let lent = self.session.pass_lease(id, now).unwrap_or_default();
        self.spend(now, lent);
        (lent, self.session.batch(id).map_or(&[], |b| &b.members))
    }

    /// The lease of what is measured passed.
    pub fn pass_profile_lease(&mut self) {
        self.session.pass_profile_lease();
    }

    /// The core itself was late: nobody else's time ran meanwhile.
    pub fn postpone(&mut self, by: Duration) {
        self.session.postpone(by);
    }

    /// It wants to measure these sizes.
    pub fn ask(&mut self, sizes: Vec<u32>) {
        let most = self.info.batch_max;
        self.session.ask(sizes.into_iter().filter(|s| (1..=most).contains(s)));
    }

    /// It measures its next size from here on, for so long at most. `None` = there is none, or it holds a
    /// batch.
    pub fn measure(&mut self, now: Instant) -> Option<(u32, Duration)> {
        let size = self.session.next_size()?;
        let lease = self.profile_lease(size);
        self.session.measure(size, now, lease);
        Some((size, lease))
    }

    /// It measured a size. `None` = nobody let it.
    pub fn end_measuring(&mut self, now: Instant) -> Option<Measured> {
        let measuring = self.session.end_measuring()?;
        self.measured = true;
        self.checks.measured(now);
        let in_time = self.session.measuring();
        if in_time {
            self.session.resume();
        } else {
            self.demote();
        }
        Some(Measured { size: measuring.size, token: in_time.then(|| now - measuring.since) })
    }

    /// A lease was overrun and the late answer has come: it goes on, demoted.
    fn demote(&mut self) {
        self.standing.demote();
        self.session.resume();
    }

    /// A first idea of the larger sizes' leases from samples of one, until it sends its table.
    pub fn expect(&mut self, size: u32, mut samples: Vec<Duration>) {
        samples.sort_unstable();
        let p50 = samples[samples.len() / 2];
        let p99 = samples[samples.len() - 1];
        let mut table = self.watch.announced().clone();
        table.set(LatencyEntry { batch: size, p50, p99 });
        self.watch.announce(table);
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
}
