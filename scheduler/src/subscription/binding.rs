//! Binding a frame and taking it back: gate and tag move here, and a bound frame finds its one end.

use super::Subscription;
use crate::camera::Camera;
use base::{Instant, MemberError, Rect, Stamp};

/// One crop of a frame, for a child.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crop {
    pub stamp: Stamp,
    pub region: Rect,
    /// Sequence of the parent result.
    pub parent: u64,
}

/// How a bound frame ends that gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Prepared ahead and taken back.
    Revoked,
    /// The lease passed before the answer.
    ExpiredLate,
    /// The connection ended before the answer.
    LostWithRunner,
}

impl Subscription {
    /// Of the pending ids older than the newest, how many were published before and after the gate
    /// opened. Only the newest one's stamp is known; the period dates the others.
    fn passed_over(&self, stamp: &Stamp, period_ns: f64) -> (u64, u64) {
        let older = self.pending().saturating_sub(1);
        if older == 0 {
            return (0, 0);
        }
        if self.interval_ns == 0 {
            return (0, older); // Without a ceiling nothing is gated.
        }
        let open = stamp.published.0.saturating_sub(self.gate.0);
        let after = if period_ns > 0.0 { (open as f64 / period_ns) as u64 } else { older };
        let after = after.min(older);
        (older - after, after)
    }

    /// Binds the newest frame: moves gate and tag. `virtual_now` is the device's virtual time.
    /// Returns the start tag.
    ///
    /// The gate moves one interval on, but not behind the frame: no credit survives an idle time.
    /// A frame is eligible only if it was published after the gate, so of any k sampled frames the
    /// last was published at least `(k - 2) / r` after the first: at most `n r + 2` in n seconds.
    pub fn bind(&mut self, now: Instant, stamp: &Stamp, camera: &Camera, virtual_now: u64) -> u64 {
        let (gated, superseded) = self.passed_over(stamp, camera.period_ns());
        self.counts.gated += gated;
        self.counts.superseded += superseded;
        self.counts.bound += 1;
        self.counts.in_flight += 1;
        self.undecided = stamp.frame_id.0 + 1;
        if self.interval_ns > 0 {
            let next = Instant(self.gate.0.saturating_add(self.interval_ns));
            self.gate = next.max(stamp.published);
        }
        self.counts.granted.count(now);
        self.advance_tag(virtual_now)
    }

    /// Binds the next crop of a frame. Gate and tag move with the first one, which has a start tag.
    pub fn bind_crop(&mut self, now: Instant, virtual_now: u64) -> Option<(Crop, Option<u64>)> {
        let crops = self.details.crops.as_mut()?;
        let first = crops.untouched();
        let (stamp, parent) = (crops.stamp, crops.parent);
        let region = crops.take()?;
        self.counts.bound += 1;
        self.counts.in_flight += 1;
        let mut start = None;
        if first {
            if self.interval_ns > 0 {
                let next = Instant(self.gate.0.saturating_add(self.interval_ns));
                self.gate = next.max(stamp.published);
            }
            self.counts.granted.count(now);
            start = Some(self.advance_tag(virtual_now));
        }
        Some((Crop { stamp, region, parent }, start))
    }

    /// A frame that was bound at `bound` is taken back before it was granted: its turn comes again.
    /// The gate stays, for gates never move back.
    pub fn unbind(&mut self, bound: Instant) {
        self.tag = self.tag.saturating_sub(self.step);
        self.details.audited.set_back(self.gate, self.tag);
        self.counts.granted.uncount(bound);
    }

    /// Moves the tag by one frame. Returns the start tag.
    pub fn advance_tag(&mut self, virtual_now: u64) -> u64 {
        let start = self.tag.max(virtual_now);
        self.tag = start.saturating_add(self.step);
        start
    }

    /// Gives the newest frame up: it is too old to be answered in time.
    pub fn expire(&mut self, stamp: &Stamp, period_ns: f64) {
        let (gated, expired) = self.passed_over(stamp, period_ns);
        self.counts.gated += gated;
        self.details.ledger.expired += expired + 1;
        self.undecided = stamp.frame_id.0 + 1;
    }

    /// A bound frame ends. False = none was in flight.
    #[must_use]
    pub fn land(&mut self) -> bool {
        let flies = self.counts.in_flight > 0;
        self.counts.in_flight = self.counts.in_flight.saturating_sub(1);
        flies
    }

    /// A bound frame ends without an answer. False = none was in flight.
    #[must_use]
    pub fn end(&mut self, how: End) -> bool {
        let ledger = &mut self.details.ledger;
        match how {
            End::Revoked => ledger.revoked += 1,
            End::ExpiredLate => ledger.expired_late += 1,
            End::LostWithRunner => ledger.lost_with_runner += 1,
        }
        self.land()
    }

    /// A bound frame was answered.
    pub fn answer(&mut self, error: Option<MemberError>) {
        match error {
            None => self.counts.sampled += 1,
            Some(error) => self.details.ledger.answer(error),
        }
    }
}
