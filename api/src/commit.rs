//! The way of events into the store: a bounded channel and one thread that commits groups.
//!
//! Whoever offers an event never waits. What does not fit is dropped and counted; what the store
//! refuses is counted and told, and nothing is tried twice.

use base::FrameDetections;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use store::NewEvent;
use tracing::{error, info, warn};

/// How events are grouped.
#[derive(Debug, Clone, Copy)]
pub struct CommitLimits {
    /// Events that wait at most; further ones are dropped.
    pub waiting_max: usize,
    /// What events that wait or are being committed hold at most, in bytes; further ones are dropped.
    pub bytes_max: usize,
    /// A group is committed when it has so many events,
    pub group_max: usize,
    /// or when its first event has waited so long.
    pub group_wait: Duration,
    /// Whether anybody offers events or not, what is past retention is deleted so often,
    pub expire_every: Duration,
    /// and the files are looked after so often.
    pub keep_every: Duration,
}

impl Default for CommitLimits {
    /// 2048 events are some seconds of a large node and, with a usual ten detections each, under
    /// 2 MB, but one with masks may have 10 MB: 64 MiB are six of those; 256 and 100 ms keep commits at ten per second or fewer; whole days are deleted, for
    /// which an hour is often enough; a look at the files is a few `stat` (all chosen).
    fn default() -> Self {
        CommitLimits {
            waiting_max: 2048,
            bytes_max: 64 << 20,
            group_max: 256,
            group_wait: Duration::from_millis(100),
            expire_every: Duration::from_secs(3600),
            keep_every: Duration::from_secs(1),
        }
    }
}

/// What became of results since serve started.
#[derive(Debug, Default)]
pub struct EventCounters {
    /// In the store.
    pub stored: AtomicU64,
    /// Dropped because too many waited, or too much.
    pub dropped: AtomicU64,
    /// Lost because the store failed.
    pub failed: AtomicU64,
    /// Refused by the store one by one: clock far ahead, past retention, too large.
    pub rejected: AtomicU64,
    /// Results without detections, counted instead of stored.
    pub empty: AtomicU64,
    /// Results that are errors, never stored.
    pub errors: AtomicU64,
    /// Results of cameras that are not configured, dropped.
    pub unknown_camera: AtomicU64,
    /// Commits.
    pub commits: AtomicU64,
    /// Why the last commit failed; `None` when it did not.
    failure: Mutex<Option<String>>,
}

impl EventCounters {
    /// Why the last commit failed; `None` when it did not.
    pub fn failure(&self) -> Option<String> {
        self.failure_slot().clone()
    }

    /// Sets how the last commit ended and returns how the one before did.
    pub(crate) fn set_failure(&self, failure: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.failure_slot(), failure)
    }

    fn failure_slot(&self) -> MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one commit did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// Events stored.
    pub stored: usize,
    /// Why each other one was refused.
    pub rejected: Vec<String>,
}

/// The end that offers events.
#[derive(Debug, Clone)]
pub struct Commit {
    send: SyncSender<NewEvent>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    counters: Arc<EventCounters>,
}

impl Commit {
    /// The two ends.
    pub fn channel(limits: CommitLimits, counters: Arc<EventCounters>) -> (Commit, Committer) {
        let (send, receive) = sync_channel(limits.waiting_max);
        let bytes = Arc::<AtomicUsize>::default();
        let committer =
            Committer { receive, bytes: bytes.clone(), limits, counters: counters.clone() };
        (Commit { send, bytes, bytes_max: limits.bytes_max, counters }, committer)
    }

    /// Hands an event over or drops it; never waits.
    pub fn offer(&self, event: NewEvent) {
        let bytes = bytes(&event);
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes > self.bytes_max || self.send.try_send(event).is_err() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What an event holds, nearly.
fn bytes(event: &NewEvent) -> usize {
    let FrameDetections { detections, keypoints, masks } = &event.detections;
    let masks: usize = masks.iter().map(|mask| size_of_val(mask) + mask.data.len()).sum();
    size_of_val(event) + size_of_val(&detections[..]) + size_of_val(&keypoints[..]) + masks
}

/// The end that commits.
#[derive(Debug)]
pub struct Committer {
    receive: Receiver<NewEvent>,
    bytes: Arc<AtomicUsize>,
    limits: CommitLimits,
    counters: Arc<EventCounters>,
}

impl Committer {
    /// Commits groups with `append` until every [`Commit`] is gone and the channel is empty, and
    /// calls `expire` and `keep` now and then between them, `keep` at the end too.
    pub fn run(
        self,
        mut append: impl FnMut(Vec<NewEvent>) -> Result<Committed, String>,
        mut expire: impl FnMut(),
        mut keep: impl FnMut(),
    ) {
        let (mut expired, mut kept) = (Instant::now(), Instant::now());
        loop {
            let limits = &self.limits;
            if expired.elapsed() >= limits.expire_every {
                expire();
                expired = Instant::now();
            }
            if kept.elapsed() >= limits.keep_every {
                keep();
                kept = Instant::now();
            }
            let to_expiry = limits.expire_every.saturating_sub(expired.elapsed());
            let left = limits.keep_every.saturating_sub(kept.elapsed()).min(to_expiry);
            let group = match self.receive.recv_timeout(left) {
                Ok(first) => self.group(first),
                Err(RecvTimeoutError::Timeout) => continue,
                // What nobody can find is lost when the store is closed.
                Err(RecvTimeoutError::Disconnected) => return keep(),
            };
            let size = group.len() as u64;
            let held: usize = group.iter().map(bytes).sum();
            let counters = &self.counters;
            counters.commits.fetch_add(1, Ordering::Relaxed);
            match append(group) {
                Ok(committed) => {
                    counters.stored.fetch_add(committed.stored as u64, Ordering::Relaxed);
                    let rejected = committed.rejected.len() as u64;
                    let before = counters.rejected.fetch_add(rejected, Ordering::Relaxed);
                    if let (0, Some(first)) = (before, committed.rejected.first()) {
                        warn!("event refused, further ones are only counted: {first}");
                    }
                    if counters.set_failure(None).is_some() {
                        info!("storing events works again");
                    }
                }
                Err(reason) => {
                    counters.failed.fetch_add(size, Ordering::Relaxed);
                    if counters.set_failure(Some(reason.clone())).is_none() {
                        error!("events are lost until the store works again: {reason}");
                    }
                }
            }
            self.bytes.fetch_sub(held, Ordering::Relaxed);
        }
    }

    /// The group that begins with `first`.
    fn group(&self, first: NewEvent) -> Vec<NewEvent> {
        let mut group = vec![first];
        let due = Instant::now() + self.limits.group_wait;
        while group.len() < self.limits.group_max {
            match self.receive.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(event) => group.push(event),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use std::sync::mpsc;

    fn limits(waiting_max: usize, group_max: usize) -> CommitLimits {
        let group_wait = Duration::from_secs(3600);
        CommitLimits { waiting_max, group_max, group_wait, ..CommitLimits::default() }
    }

    fn count(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    #[test]
    fn a_burst_beyond_the_channel_is_dropped_and_counted() {
        let counters = Arc::new(EventCounters::default());
        let (commit, committer) = Commit::channel(limits(8, 4), counters.clone());
        let (began, begin) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let append = |group: Vec<_>| {
                began.send(()).unwrap();
                wait.recv().unwrap_or(());
                Ok(Committed { stored: group.len(), rejected: vec![] })
            };
            committer.run(append, || {}, || {});
        });
        // One full group makes the store busy, then 100 meet a channel of 8.
        (0..4).for_each(|n| commit.offer(testing::event(n)));
        begin.recv().unwrap();
        (0..100).for_each(|n| commit.offer(testing::event(n)));
        assert_eq!(count(&counters.dropped), 92);
        drop((go, commit));
        thread.join().unwrap();
        assert_eq!((count(&counters.stored), count(&counters.failed)), (12, 0));
        assert_eq!(count(&counters.commits), 3, "groups of four");
    }

    /// As large as a reply can be.
    fn with_mask(number: u64, bytes: usize) -> NewEvent {
        let mut event = testing::event(number);
        let mask = base::Mask { detection: 0, width: 1, height: 1, data: vec![1; bytes] };
        event.detections.masks.push(mask);
        event
    }

    #[test]
    fn few_large_events_are_as_much_as_many_small_ones() {
        let counters = Arc::new(EventCounters::default());
        let large = 1 << 20;
        let limits = CommitLimits { bytes_max: 3 * large, ..limits(2048, 2) };
        let (commit, committer) = Commit::channel(limits, counters.clone());
        (0..5).for_each(|n| commit.offer(with_mask(n, large)));
        assert_eq!(count(&counters.dropped), 3, "two and what else they hold");
        commit.offer(testing::event(5));
        drop(commit);
        let bytes = committer.bytes.clone();
        let mut seen = Vec::new();
        let append = |group: Vec<_>| {
            seen.push((group.len(), bytes.load(Ordering::Relaxed) > group.len() * large));
            Ok(Committed { stored: group.len(), rejected: vec![] })
        };
        committer.run(append, || {}, || {});
        // What is being committed still counts.
        assert_eq!((seen, bytes.load(Ordering::Relaxed)), (vec![(2, true), (1, false)], 0));
        assert_eq!(count(&counters.dropped), 3, "a small one still fits");
    }

    #[test]
    fn events_that_wait_are_committed_when_nobody_offers_more() {
        let counters = Arc::new(EventCounters::default());
        let (commit, committer) = Commit::channel(limits(100, 1000), counters.clone());
        (0..7).for_each(|n| commit.offer(testing::event(n)));
        drop(commit);
        let mut sizes = Vec::new();
        let append = |group: Vec<_>| {
            sizes.push(group.len());
            Ok(Committed { stored: group.len(), rejected: vec![] })
        };
        committer.run(append, || {}, || {});
        assert_eq!(sizes, [7]);
    }

    #[test]
    fn a_failing_store_loses_its_group_and_the_next_one_is_tried() {
        let counters = Arc::new(EventCounters::default());
        let (commit, committer) = Commit::channel(limits(100, 2), counters.clone());
        (0..6).for_each(|n| commit.offer(testing::event(n)));
        drop(commit);
        let (mut calls, mut failures) = (0, Vec::new());
        let append = |group: Vec<_>| {
            // What `append` sees is how the commit before it ended.
            failures.push(counters.failure());
            calls += 1;
            match calls {
                1 => Err("disk full".into()),
                2 => Ok(Committed { stored: 1, rejected: vec!["too large".into()] }),
                _ => Ok(Committed { stored: group.len(), rejected: vec![] }),
            }
        };
        committer.run(append, || {}, || {});
        assert_eq!(failures, [None, Some("disk full".into()), None]);
        let counted = [&counters.failed, &counters.stored, &counters.rejected].map(count);
        assert_eq!((calls, counted), (3, [2, 3, 1]));
    }
}
