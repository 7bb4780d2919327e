//! Subscriptions by key, in one piece of memory.

use crate::SubscriptionKey;
use crate::subscription::Subscription;

/// A slot is used again once its subscription is gone; the upper half of a key counts how often, so
/// that an old key never finds the new tenant.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    tenant: Option<Subscription>,
}

impl Subscriptions {
    /// Adds what `make` returns for its key.
    pub fn insert(
        &mut self,
        make: impl FnOnce(SubscriptionKey) -> Subscription,
    ) -> SubscriptionKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, tenant: None });
            (self.slots.len() - 1) as u32
        });
        let here = &mut self.slots[slot as usize];
        let key = SubscriptionKey(u64::from(here.generation) << 32 | u64::from(slot));
        here.tenant = Some(make(key));
        key
    }

    /// Takes one out.
    pub fn remove(&mut self, key: SubscriptionKey) -> Option<Subscription> {
        self.get(key)?;
        let slot = &mut self.slots[key.place()];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.place() as u32);
        slot.tenant.take()
    }

    /// The subscription of a key, if it is still there.
    pub fn get(&self, key: SubscriptionKey) -> Option<&Subscription> {
        let slot = self.slots.get(key.place())?;
        slot.tenant.as_ref().filter(|s| s.key == key)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, key: SubscriptionKey) -> Option<&mut Subscription> {
        let slot = self.slots.get_mut(key.place())?;
        slot.tenant.as_mut().filter(|s| s.key == key)
    }

    /// All of them, by slot.
    pub fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.slots.iter().filter_map(|s| s.tenant.as_ref())
    }
}

impl std::ops::Index<SubscriptionKey> for Subscriptions {
    type Output = Subscription;
    fn index(&self, key: SubscriptionKey) -> &Subscription {
        self.get(key).expect("the caller holds the key of a living subscription")
    }
}
