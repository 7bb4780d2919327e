//! What a runner holds: batches in their phases, a size that it measures, and those it still wants to.

use crate::BatchId;
use crate::output::Binding;
use base::{Instant, limits};
use std::collections::VecDeque;
use std::time::Duration;

/// Revoked batches that are remembered (a bound: a runner holds one prepared batch at a
/// time; 1, half and twice are the same).
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
    phase: Phase,
    /// When it was last given something to do: Prepare, then Grant.
    since: Instant,
    lease_end: Instant,
    /// How long the token is expected to be out.
    length: Duration,
}

impl Batch {
    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn size(&self) -> u32 {
        self.members.len() as u32
    }

    /// How long the token is lent for it, while it is.
    pub fn lease(&self) -> Option<Duration> {
        (self.phase == Phase::Executing).then(|| self.lease_end - self.since)
    }

    /// When the token should come back, while it is lent.
    pub fn executing_until(&self) -> Option<Instant> {
        (self.phase == Phase::Executing).then(|| self.since + self.length)
    }

    /// When it was last given something to do, or had done it.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// As long as its lease was.
    pub fn lent(&self) -> Duration {
        self.lease_end - self.since
    }
}

/// What the token of a runner is lent for, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Batches.
    Batches,
    /// A size that is measured.
    Measuring,
    /// A lease passed, and the answer is not here yet.
    Late,
}

/// A size that is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measuring {
    pub size: u32,
    pub since: Instant,
    lease_end: Instant,
}

/// What passes at a runner's next bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Lease(BatchId),
    ProfileLease,
    Hang,
}

/// What a runner holds. At most one batch is Prepared, one Executing or Late, one Executed; while a
/// size is measured there is none.
#[derive(Debug)]
pub(super) struct Session {
    /// Oldest first.
    batches: Vec<Batch>,
    turn: Turn,
    measuring: Option<Measuring>,
    /// Sizes to measure.
    queue: VecDeque<u32>,
    /// Batches that were taken back of late: what still comes for them is discarded.
    revoked: VecDeque<BatchId>,
}

impl Default for Session {
    fn default() -> Session {
        Session {
            batches: Vec::with_capacity(3),
            turn: Turn::Batches,
            measuring: None,
            queue: VecDeque::new(),
            revoked: VecDeque::with_capacity(REVOKED_KEPT),
        }
    }
}

impl Session {
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    pub fn into_batches(self) -> Vec<Batch> {
        self.batches
    }

    pub fn batch(&self, id: BatchId) -> Option<&Batch> {
        self.batches.iter().find(|b| b.id == id)
    }

    fn batch_mut(&mut self, id: BatchId) -> Option<&mut Batch> {
        self.batches.iter_mut().find(|b| b.id == id)
    }

    /// Whether it holds nothing whose time could run out.
    pub fn idle(&self) -> bool {
        self.batches.is_empty() && self.measuring.is_none()
    }

    /// Tokens that it holds.
    pub fn tokens(&self) -> u32 {
        let executing = self.batches.iter().filter(|b| b.phase == Phase::Executing).count();
        executing as u32 + u32::from(self.turn == Turn::Measuring)
    }

    pub fn measuring(&self) -> bool {
        self.turn == Turn::Measuring
    }

    pub fn late(&self) -> bool {
        self.turn == Turn::Late
    }

    /// Whether it measures a size, wants to, or owes what it measured.
    pub fn measures(&self) -> bool {
        self.measuring.is_some() || !self.queue.is_empty()
    }

    /// Whether it could begin to measure a size once it holds nothing.
    pub fn would_measure(&self) -> bool {
        !self.queue.is_empty() && self.measuring.is_none() && self.turn == Turn::Batches
    }

    /// Whether a Prepare may be sent: nothing is late, measured or prepared, and with the token
    /// nothing executes. `measure_next`: the next turn is a measurement's, for which a runner with
    /// sizes to measure must hold nothing.
    pub fn accepts(&self, with_token: bool, measure_next: bool) -> bool {
        self.turn == Turn::Batches
            && self.measuring.is_none()
            && self.batches.iter().all(|b| match b.phase {
                Phase::Prepared | Phase::Late => false,
                Phase::Executing => !with_token,
                Phase::Executed => true,
            })
            && self.batches.len() < 3
            && (self.queue.is_empty() || (with_token && !measure_next))
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
        if let Some(Measuring { lease_end, .. }) = self.measuring {
            consider(lease_end + limits::PROFILE_GRACE, Bound::Hang);
            if self.turn == Turn::Measuring {
                consider(lease_end, Bound::ProfileLease);
            }
        }
        next
    }

    /// The core itself was late: nobody else's time ran meanwhile.
    pub fn postpone(&mut self, by: Duration) {
        for batch in &mut self.batches {
            batch.since += by;
            batch.lease_end += by;
        }
        if let Some(Measuring { since, lease_end, .. }) = &mut self.measuring {
            *since += by;
            *lease_end += by;
        }
    }

    /// A batch is launched on it, with a token or ahead of one.
    pub fn launch(
        &mut self,
        id: BatchId,
        members: Vec<Binding>,
        with_token: bool,
        now: Instant,
        (lease, length): (Duration, Duration),
    ) {
        let phase = if with_token { Phase::Executing } else { Phase::Prepared };
        let (since, lease_end) = (now, now + lease);
        self.batches.push(Batch { id, members, phase, since, lease_end, length });
    }

    /// The batch that is prepared and waits for the token.
    pub fn prepared(&self) -> Option<&Batch> {
        self.batches.iter().find(|b| b.phase == Phase::Prepared)
    }

    /// The prepared batch gets the token.
    pub fn grant(&mut self, id: BatchId, now: Instant, lease: Duration) {
        let Some(batch) = self.batch_mut(id) else { return };
        batch.phase = Phase::Executing;
        batch.since = now;
        batch.lease_end = now + lease;
    }

    /// A batch was prepared: from here on it waits for us, not we for it. Returns how long that took,
    /// unless it has the token by now. `None` = it does not hold it.
    pub fn note_prepared(&mut self, id: BatchId, now: Instant) -> Option<Option<Duration>> {
        let batch = self.batch_mut(id)?;
        if batch.phase != Phase::Prepared {
            return Some(None);
        }
        Some(Some(now - std::mem::replace(&mut batch.since, now)))
    }

    /// A batch gives the token back. Returns its size and how long the token was out.
    pub fn note_executed(&mut self, id: BatchId, now: Instant) -> Option<(u32, Duration)> {
        let batch = self.batch_mut(id)?;
        batch.phase = Phase::Executed;
        Some((batch.members.len() as u32, now - std::mem::replace(&mut batch.since, now)))
    }

    /// A batch leaves it.
    pub fn remove(&mut self, id: BatchId) -> Option<Batch> {
        let at = self.batches.iter().position(|b| b.id == id)?;
        Some(self.batches.remove(at))
    }

    /// A prepared batch is taken back.
    pub fn take_back(&mut self, id: BatchId) -> Option<Batch> {
        let batch = self.remove(id)?;
        self.note_revoked(id);
        Some(batch)
    }

    fn note_revoked(&mut self, batch: BatchId) {
        if self.revoked.len() == REVOKED_KEPT {
            self.revoked.pop_front();
        }
        self.revoked.push_back(batch);
    }

    /// Whether the batch was taken back: what the runner sent meanwhile is no mistake.
    pub fn was_revoked(&self, batch: BatchId) -> bool {
        self.revoked.contains(&batch)
    }

    /// The lease of a batch passed. Returns how long the token was out.
    pub fn pass_lease(&mut self, id: BatchId, now: Instant) -> Option<Duration> {
        self.turn = Turn::Late;
        let batch = self.batch_mut(id)?;
        batch.phase = Phase::Late;
        Some(now - batch.since)
    }

    /// The lease of what is measured passed.
    pub fn pass_profile_lease(&mut self) {
        self.turn = Turn::Late;
    }

    /// It goes on with batches.
    pub fn resume(&mut self) {
        self.turn = Turn::Batches;
    }

    /// It wants to measure these sizes and no others.
    pub fn ask(&mut self, sizes: impl Iterator<Item = u32>) {
        self.queue.clear();
        self.queue.extend(sizes);
    }

    /// The next size to measure, when it holds nothing.
    pub fn next_size(&mut self) -> Option<u32> {
        if self.batches.is_empty() { self.queue.pop_front() } else { None }
    }

    /// A size is measured from here on.
    pub fn measure(&mut self, size: u32, now: Instant, lease: Duration) {
        self.turn = Turn::Measuring;
        self.measuring = Some(Measuring { size, since: now, lease_end: now + lease });
    }

    /// What was measured is here.
    pub fn end_measuring(&mut self) -> Option<Measuring> {
        self.measuring.take()
    }
}
