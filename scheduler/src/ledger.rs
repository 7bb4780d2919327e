//! Where every frame went. Docs: the ledger in ARCHITECTURE.md.

use base::MemberError;

/// Counts of one subscription. Every frame id from the first observed one on is in exactly one of
/// `gated`, `superseded`, `unserved_*`, `expired`, `crowded`, `bound` or pending; every bound frame in
/// exactly one of `sampled`, `torn`, `errors`, `revoked`, `expired_late`, `lost_with_runner` or in
/// flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ledger {
    /// Frame ids from the first observed one on.
    pub observed: u64,
    /// Published before the gate opened: the FPS ceiling.
    pub gated: u64,
    /// A newer frame was bound.
    pub superseded: u64,
    /// Its runner hung.
    pub unserved_parked: u64,
    /// No runner of the model was connected.
    pub unserved_no_runner: u64,
    /// The subscription was disabled.
    pub unserved_paused: u64,
    /// Published while the ring could not be read.
    pub unserved_gap: u64,
    /// Too old to be answered within its deadline.
    pub expired: u64,
    /// Regions beyond those that a second stage looks at of one frame.
    pub crowded: u64,
    /// Named in a Prepare.
    pub bound: u64,
    /// Answered with detections or none.
    pub sampled: u64,
    /// Overwritten before the runner had copied it.
    pub torn: u64,
    /// Answered with an error other than torn, by [`MemberError`] from `Frame` on.
    pub errors: [u64; 5],
    /// Prepared ahead and taken back.
    pub revoked: u64,
    /// The lease passed before the answer.
    pub expired_late: u64,
    /// The connection ended before the answer.
    pub lost_with_runner: u64,
}

impl Ledger {
    /// Frames that ended before or at binding.
    pub fn decided(&self) -> u64 {
        self.gated
            + self.superseded
            + self.unserved_parked
            + self.unserved_no_runner
            + self.unserved_paused
            + self.unserved_gap
            + self.expired
            + self.crowded
            + self.bound
    }

    /// Bound frames that ended.
    pub fn ended(&self) -> u64 {
        self.sampled
            + self.torn
            + self.errors.iter().sum::<u64>()
            + self.revoked
            + self.expired_late
            + self.lost_with_runner
    }

    /// Counts the answer for one bound frame that was no result.
    pub(crate) fn answer(&mut self, error: MemberError) {
        match error {
            MemberError::Torn => self.torn += 1,
            MemberError::Frame => self.errors[0] += 1,
            MemberError::Engine => self.errors[1] += 1,
            MemberError::Postprocess => self.errors[2] += 1,
            MemberError::Parameters => self.errors[3] += 1,
            MemberError::Request => self.errors[4] += 1,
        }
    }
}
