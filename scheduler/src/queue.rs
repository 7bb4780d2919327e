//! Subscriptions in the order of a number: an instant or a tag.

use crate::SubscriptionKey;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A heap, the smallest first. Number and key are one integer each: comparing them takes no branch,
/// and half the time of a heap goes to branches that nobody can predict.
#[derive(Debug)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<u128>>,
    /// The smallest number, `u64::MAX` when empty: most of the time it is all that is asked for.
    first: u64,
}

fn unpack(entry: u128) -> (u64, SubscriptionKey) {
    ((entry >> 64) as u64, SubscriptionKey(entry as u64))
}

impl Default for Queue {
    fn default() -> Queue {
        Queue { heap: BinaryHeap::new(), first: u64::MAX }
    }
}

impl Queue {
    pub fn push(&mut self, number: u64, key: SubscriptionKey) {
        self.heap.push(Reverse(u128::from(number) << 64 | u128::from(key.0)));
        self.first = self.first.min(number);
    }

    /// The smallest number, `u64::MAX` when empty.
    pub fn first(&self) -> u64 {
        self.first
    }

    pub fn peek(&self) -> Option<(u64, SubscriptionKey)> {
        self.heap.peek().map(|entry| unpack(entry.0))
    }

    pub fn pop(&mut self) -> Option<(u64, SubscriptionKey)> {
        let popped = self.heap.pop().map(|entry| unpack(entry.0));
        self.find_first();
        popped
    }

    fn find_first(&mut self) {
        self.first = self.peek().map_or(u64::MAX, |(number, _)| number);
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn clear(&mut self) {
        self.heap.clear();
        self.first = u64::MAX;
    }

    /// Room for `capacity` entries in all.
    pub fn reserve(&mut self, capacity: usize) {
        self.heap.reserve(capacity.saturating_sub(self.heap.len()));
    }

    pub fn retain(&mut self, mut counts: impl FnMut(u64, SubscriptionKey) -> bool) {
        self.heap.retain(|entry| {
            let (number, key) = unpack(entry.0);
            counts(number, key)
        });
        self.find_first();
    }
}
