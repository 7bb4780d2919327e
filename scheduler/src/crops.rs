//! Crops of one frame that wait for a launch.

use base::{Rect, Stamp};

/// What a parent's result gave a child to look at.
#[derive(Debug)]
pub(crate) struct Crops {
    pub stamp: Stamp,
    /// Sequence of the parent result.
    pub parent: u64,
    /// Best score first, at most as many as the subscription wants.
    regions: Vec<Rect>,
    /// Crops bound so far.
    next: usize,
}

impl Crops {
    /// None yet, with room for `most` of a frame.
    pub fn new(stamp: &Stamp, most: usize) -> Crops {
        Crops { stamp: *stamp, parent: 0, regions: Vec::with_capacity(most), next: 0 }
    }

    /// Those of another frame.
    pub fn begin(&mut self, stamp: &Stamp, sequence: u64, regions: &[Rect]) {
        (self.stamp, self.parent, self.next) = (*stamp, sequence, 0);
        self.regions.clear();
        self.regions.extend_from_slice(regions);
    }

    /// Crops that are not bound yet.
    pub fn left(&self) -> u64 {
        (self.regions.len() - self.next) as u64
    }

    /// Gives up what is not bound yet.
    pub fn end(&mut self) {
        self.next = self.regions.len();
    }

    /// The next crop to bind.
    pub fn take(&mut self) -> Option<Rect> {
        let region = *self.regions.get(self.next)?;
        self.next += 1;
        Some(region)
    }

    /// Whether none of its frame's crops is bound yet.
    pub fn untouched(&self) -> bool {
        self.next == 0
    }
}

/// Whether a frame's slot is not the next one to be overwritten, as of the newest frame.
pub(crate) fn alive(stamp: &Stamp, newest: &Stamp) -> bool {
    let behind = newest.frame_id.0.saturating_sub(stamp.frame_id.0);
    newest.generation == stamp.generation
        && newest.frame_id >= stamp.frame_id
        && behind + 1 < u64::from(stamp.slots.saturating_sub(1))
}
