//! Two stages: a model that looks at the detections of another one.
//!
//! A child subscription has no gate on a camera of its own: when its parent's result arrives, each
//! detection becomes a crop of the same frame, still in its slot. Crops of many cameras join one
//! batch. They are held by id like everything else; a newer result takes the place of an older one,
//! and a crop whose slot is about to be overwritten has expired. Counts of a child are of crops.

use crate::machine::Scheduler;
use crate::subscription::{Subscription, SubscriptionState};
use crate::{FrameIndex, SubscriptionKey};
use base::{FrameDetections, Instant, Rect, Stamp};
use std::time::Duration;

/// Crops taken of one frame, best score first (chosen: a batch of 16 cameras fills 256).
pub const CROPS_MAX: usize = 16;
/// Boxes with a side below this many pixels hold nothing to look at (chosen).
const SIDE_MIN: f32 = 8.0;

/// Crops of one frame that wait for a launch.
#[derive(Debug)]
pub(crate) struct Crops {
    pub stamp: Stamp,
    /// Sequence of the parent result.
    pub parent: u64,
    regions: [Rect; CROPS_MAX],
    count: usize,
    /// Crops bound so far.
    next: usize,
}

impl Crops {
    /// Crops that are not bound yet.
    pub fn left(&self) -> u64 {
        (self.count - self.next) as u64
    }

    /// The next crop to bind.
    pub fn take(&mut self) -> Option<Rect> {
        let region = *self.regions[..self.count].get(self.next)?;
        self.next += 1;
        Some(region)
    }

    /// Whether none of its frame's crops is bound yet.
    pub fn untouched(&self) -> bool {
        self.next == 0
    }
}

impl Scheduler {
    /// A parent's result: what its children look at.
    pub(crate) fn offer_crops(
        &mut self,
        parent: SubscriptionKey,
        stamp: &Stamp,
        sequence: u64,
        found: &FrameDetections,
    ) {
        let count = self.subscriptions.get(parent).map_or(0, |s| s.details.children.len());
        if count == 0 {
            return;
        }
        let large = |r: &Rect| {
            (r.x2 - r.x1) * stamp.size.width as f32 >= SIDE_MIN
                && (r.y2 - r.y1) * stamp.size.height as f32 >= SIDE_MIN
        };
        let mut regions = [Rect::WHOLE; CROPS_MAX];
        let mut held = 0;
        let boxes = found.detections.iter().map(|d| d.bbox).filter(|r| r.valid() && large(r));
        for region in boxes.take(CROPS_MAX) {
            regions[held] = region;
            held += 1;
        }
        for i in 0..count {
            let Some(s) = self.subscriptions.get(parent) else { return };
            let child = s.details.children[i];
            self.drop_crops(child, stamp);
            let Some(s) = self.subscriptions.get_mut(child) else { continue };
            let fresh = held as u64;
            s.observed += fresh;
            if s.state != SubscriptionState::Active || stamp.published < s.gate {
                s.refuse(fresh);
                continue;
            }
            if held == 0 {
                continue;
            }
            let crops = Crops { stamp: *stamp, parent: sequence, regions, count: held, next: 0 };
            match &mut s.details.crops {
                Some(place) => **place = crops,
                None => s.details.crops = Some(Box::new(crops)),
            }
            self.make_ready(child);
        }
    }

    /// Ends what a child has not looked at yet, for a newer frame is there.
    fn drop_crops(&mut self, child: SubscriptionKey, newer: &Stamp) {
        let Some(s) = self.subscriptions.get_mut(child) else { return };
        let Some(crops) = &mut s.details.crops else { return };
        let left = crops.left();
        if left > 0 {
            if alive(&crops.stamp, newer) {
                s.counts.superseded += left;
            } else {
                s.details.ledger.expired += left;
            }
            crops.next = crops.count;
        }
        self.unready(child);
    }

    /// Brings a child in line with its state: crops that nobody looks at are not kept.
    pub(crate) fn examine_child(&mut self, key: SubscriptionKey) {
        let Some(s) = self.subscriptions.get_mut(key) else { return };
        if s.state == SubscriptionState::Active {
            return;
        }
        let left = s.pending();
        s.refuse(left);
        if let Some(crops) = &mut s.details.crops {
            crops.next = crops.count;
        }
        self.unready(key);
    }

    /// Whether a child's frame is still there and can be answered; if not, its crops have expired.
    pub(crate) fn crops_in_time(
        &mut self,
        key: SubscriptionKey,
        limit: Duration,
        answered_at: Instant,
        index: &mut dyn FrameIndex,
    ) -> bool {
        let Some(s) = self.subscriptions.get(key) else { return false };
        let Some(crops) = &s.details.crops else { return false };
        let (camera, stamp) = (s.camera, crops.stamp);
        self.look(camera, index);
        let agent = &self.cameras[camera.0 as usize];
        let here = agent.current().is_some_and(|newest| alive(&stamp, newest));
        let in_time = stamp.info.capture + limit >= answered_at;
        if here && in_time {
            return true;
        }
        if let Some(s) = self.subscriptions.get_mut(key) {
            s.details.ledger.expired += s.pending();
            if let Some(crops) = &mut s.details.crops {
                crops.next = crops.count;
            }
        }
        false
    }
}

/// Whether a frame's slot is not the next one to be overwritten, as of the newest frame.
fn alive(stamp: &Stamp, newest: &Stamp) -> bool {
    let behind = newest.frame_id.0.saturating_sub(stamp.frame_id.0);
    newest.generation == stamp.generation
        && newest.frame_id >= stamp.frame_id
        && behind + 1 < u64::from(stamp.slots.saturating_sub(1))
}

impl Subscription {
    /// Crops that are not looked at, by the reason.
    fn refuse(&mut self, count: u64) {
        let counter = match self.state {
            SubscriptionState::NoRunner => &mut self.details.ledger.unserved_no_runner,
            SubscriptionState::Parked => &mut self.details.ledger.unserved_parked,
            SubscriptionState::Paused => &mut self.details.ledger.unserved_paused,
            SubscriptionState::Active | SubscriptionState::NoFrames => &mut self.counts.gated,
        };
        *counter += count;
    }
}
