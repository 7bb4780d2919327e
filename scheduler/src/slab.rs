//! Subscriptions by key, in one piece of memory.

use crate::SubscriptionKey;
use crate::subscription::Subscription;

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

    /// All of them, by slot.
    pub fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.slots.iter().flatten()
    }
}

impl std::ops::Index<SubscriptionKey> for Subscriptions {
    type Output = Subscription;
    fn index(&self, key: SubscriptionKey) -> &Subscription {
        self.get(key).expect("the caller holds the key of a living subscription")
    }
}
