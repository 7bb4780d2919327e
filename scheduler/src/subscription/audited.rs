//! What the next audit of a subscription compares with.

use base::Instant;

/// Gate and tag as of the last audit; they were set back on purpose to no less.
#[derive(Debug, Clone, Copy)]
pub(super) struct Audited {
    pub gate: Instant,
    pub tag: u64,
}

impl Audited {
    pub const NEVER: Audited = Audited { gate: Instant::ZERO, tag: 0 };

    /// Gate or tag may have been set back.
    pub fn set_back(&mut self, gate: Instant, tag: u64) {
        self.gate = self.gate.min(gate);
        self.tag = self.tag.min(tag);
    }
}
