//! Subscriptions by key, in one piece of memory.

use crate::SubscriptionKey;
use crate::subscription::Subscription;
use std::ops::Range;

/// A slot is used again once its subscription is gone; the upper half of a key counts how often, so
/// that an old key never finds the new tenant.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    slots: Vec<Option<Subscription>>,
    generations: Vec<u32>,
    free: Vec<u32>,
}

impl Subscriptions {
    /// Adds what `make` returns for its key.
    pub fn insert(
        &mut self,
        make: impl FnOnce(SubscriptionKey) -> Subscription,
    ) -> SubscriptionKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.generations.push(0);
            (self.slots.len() - 1) as u32
        });
        let generation = self.generations[slot as usize];
        let key = SubscriptionKey(u64::from(generation) << 32 | u64::from(slot));
        self.slots[slot as usize] = Some(make(key));
        key
    }

    /// Takes one out.
    pub fn remove(&mut self, key: SubscriptionKey) -> Option<Subscription> {
        self.get(key)?;
        let generation = &mut self.generations[key.place()];
        *generation = generation.wrapping_add(1);
        self.free.push(key.place() as u32);
        self.slots[key.place()].take()
    }

    /// The subscription of a key, if it is still there.
    pub fn get(&self, key: SubscriptionKey) -> Option<&Subscription> {
        self.slots.get(key.place())?.as_ref().filter(|s| s.key == key)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, key: SubscriptionKey) -> Option<&mut Subscription> {
        self.slots.get_mut(key.place())?.as_mut().filter(|s| s.key == key)
    }

    /// Places in use, and free ones below them.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// Those of some places.
    pub fn part(&self, places: Range<usize>) -> impl Iterator<Item = &Subscription> {
        let end = places.end.min(self.slots.len());
        self.slots[places.start.min(end)..end].iter().flatten()
    }

    /// The same, to change them.
    pub fn part_mut(&mut self, places: Range<usize>) -> impl Iterator<Item = &mut Subscription> {
        let end = places.end.min(self.slots.len());
        self.slots[places.start.min(end)..end].iter_mut().flatten()
    }
}

impl std::ops::Index<SubscriptionKey> for Subscriptions {
    type Output = Subscription;
    fn index(&self, key: SubscriptionKey) -> &Subscription {
        self.get(key).expect("the caller holds the key of a living subscription")
    }
}
