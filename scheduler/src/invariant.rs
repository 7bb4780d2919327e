//! What holds inside the core, whatever it is told: looked at from within, where the checker of the
//! simulator looks from outside. A debug build ends where one is broken; in production it is counted,
//! the status tells how often, and the core goes on with the nearest value that makes sense.

/// One of the invariants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invariant {
    /// A token is lent once: as many are out as batches execute and sizes are measured.
    Token,
    /// A bound frame without an end is a member of exactly one batch.
    InFlight,
    /// Tags move on, but for what is taken back and for a change of what they are measured by.
    Tag,
    /// Gates move on, but for a change of the ceiling.
    Gate,
    /// The sums of a ledger agree.
    Ledger,
}

impl Invariant {
    /// How many there are.
    pub const COUNT: usize = 5;
}

/// How often each invariant was broken.
#[derive(Debug, Default)]
pub(crate) struct Invariants([u64; Invariant::COUNT]);

impl Invariants {
    /// Counts the invariant unless it `holds`.
    #[track_caller]
    pub fn hold(&mut self, invariant: Invariant, holds: bool) {
        if !holds {
            self.0[invariant as usize] += 1;
            debug_assert!(holds, "{invariant:?} is broken");
        }
    }

    pub fn broken(&self) -> [u64; Invariant::COUNT] {
        self.0
    }
}
