//! The second stage: a subscription that looks at the detections of another one, its parent. Counts of
//! a child are of crops.

use super::{Subscription, SubscriptionState};
use crate::SubscriptionKey;
use crate::crops::{Crops, alive};
use base::{Rect, Stamp};

impl Subscription {
    /// Whether others look at its detections.
    pub fn parent(&self) -> bool {
        self.parent
    }

    /// Those that look at its detections.
    pub fn children(&self) -> &[SubscriptionKey] {
        &self.details.children
    }

    /// Nobody looks at its detections.
    pub fn unlink(&mut self) {
        self.details.children.clear();
        self.parent = false;
    }

    /// This one looks at its detections.
    pub fn link(&mut self, child: SubscriptionKey) {
        self.details.children.push(child);
        self.parent = true;
    }

    /// Whether it is a child without a parent.
    pub fn orphan(&self) -> bool {
        self.details.orphan
    }

    /// Its parent is there or is not. False = that was so before.
    pub fn become_orphan(&mut self, orphan: bool) -> bool {
        std::mem::replace(&mut self.details.orphan, orphan) != orphan
    }

    /// Of a child, where its crops are; `None` = there are none.
    pub fn crops_of(&self) -> Option<&Stamp> {
        self.details.crops.as_ref().map(|crops| &crops.stamp)
    }

    /// Takes what its parent found in a newer frame: `fresh` boxes, of which it looks at some of the
    /// first, `found`. True = it has something to look at.
    pub fn offer(&mut self, stamp: &Stamp, sequence: u64, found: &[Rect], fresh: usize) -> bool {
        self.observed += fresh as u64;
        if self.state != SubscriptionState::Active || stamp.published < self.gate {
            self.refuse(fresh as u64);
            return false;
        }
        let most = self.details.spec.regions_max as usize;
        let held = &found[..found.len().min(most)];
        self.details.ledger.crowded += (fresh - held.len()) as u64;
        if held.is_empty() {
            return false;
        }
        let crops = self.details.crops.get_or_insert_with(|| Box::new(Crops::new(stamp, most)));
        crops.begin(stamp, sequence, held);
        true
    }

    /// Ends what it has not looked at yet, for a newer frame is there.
    pub fn drop_crops(&mut self, newer: &Stamp) {
        let Some(crops) = &mut self.details.crops else { return };
        let left = crops.left();
        if left > 0 {
            if alive(&crops.stamp, newer) {
                self.counts.superseded += left;
            } else {
                self.details.ledger.expired += left;
            }
            crops.end();
        }
    }

    /// Ends what it has not looked at yet, for it is too late.
    pub fn expire_crops(&mut self) {
        self.details.ledger.expired += self.pending();
        if let Some(crops) = &mut self.details.crops {
            crops.end();
        }
    }

    /// Ends what it has not looked at yet, for nobody serves it.
    pub fn give_up_crops(&mut self) {
        let left = self.pending();
        self.refuse(left);
        if let Some(crops) = &mut self.details.crops {
            crops.end();
        }
    }

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
