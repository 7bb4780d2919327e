//! What holds of a subscription, whatever happened.

use super::Subscription;
use super::audited::Audited;
use crate::invariant::Invariant;

impl Subscription {
    /// What must hold, and whether it does, when so many members of batches are its own. Notes gate
    /// and tag.
    pub fn audit(&mut self, flying: u32) -> [(Invariant, bool); 4] {
        let now = Audited { gate: self.gate, tag: self.tag };
        let before = std::mem::replace(&mut self.details.audited, now);
        let ledger = self.ledger();
        let balanced = ledger.observed == ledger.decided() + self.pending()
            && ledger.bound == ledger.ended() + u64::from(self.counts.in_flight);
        [
            (Invariant::InFlight, self.counts.in_flight == flying),
            (Invariant::Gate, self.gate >= before.gate),
            (Invariant::Tag, self.tag >= before.tag),
            (Invariant::Ledger, balanced),
        ]
    }

    /// Breaks an invariant that is its own.
    #[cfg(test)]
    pub fn harm(&mut self, invariant: Invariant) {
        match invariant {
            Invariant::Token => {}
            Invariant::InFlight => {
                (self.counts.bound, self.counts.in_flight, self.observed) = (1, 1, 1);
            }
            Invariant::Gate => self.gate = base::Instant::ZERO,
            Invariant::Tag => self.details.audited.tag = self.tag + 1,
            Invariant::Ledger => self.observed += 1,
        }
    }
}
