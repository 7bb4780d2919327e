//! Subscriptions in the order of a number: an instant or a tag.

use crate::SubscriptionKey;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A heap, the smallest first. Number and key are one integer each: comparing them takes no branch,
/// and half the time of a heap goes to branches that nobody can predict.
#[derive(Debug, Default)]
pub(crate) struct Queue(BinaryHeap<Reverse<u128>>);

fn unpack(entry: u128) -> (u64, SubscriptionKey) {
    ((entry >> 64) as u64, SubscriptionKey(entry as u64))
}

impl Queue {
    pub fn push(&mut self, number: u64, key: SubscriptionKey) {
        self.0.push(Reverse(u128::from(number) << 64 | u128::from(key.0)));
    }

    pub fn peek(&self) -> Option<(u64, SubscriptionKey)> {
        self.0.peek().map(|entry| unpack(entry.0))
    }

    pub fn pop(&mut self) -> Option<(u64, SubscriptionKey)> {
        self.0.pop().map(|entry| unpack(entry.0))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Room for `capacity` entries in all.
    pub fn reserve(&mut self, capacity: usize) {
        self.0.reserve(capacity.saturating_sub(self.0.len()));
    }

    pub fn retain(&mut self, mut counts: impl FnMut(u64, SubscriptionKey) -> bool) {
        self.0.retain(|entry| {
            let (number, key) = unpack(entry.0);
            counts(number, key)
        });
    }
}
