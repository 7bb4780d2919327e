//! What the hub knows of a stream: its newest pictures, who watches it, and whether browsers can play
//! it.

use super::group::Group;
use super::{Shared, bitstream};
use crate::unit::{AccessUnit, Codec};
use base::{CameraId, Instant, MediaTime, UtcNanos};
use ipc::recording::SegmentName;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Groups of pictures without B-frames after which a stream counts as free of them (chosen: some
/// groups may have none by chance).
const GROUPS_WITHOUT: u32 = 3;
/// A picture that is older is not what a camera shows now (chosen: above the stall that is noticed).
const FRESH: Duration = Duration::from_secs(5);

/// Why a stream can't be watched in a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// Its codec is H.265.
    H265,
    /// It has B-frames.
    Bipredicted,
}

/// A stream.
pub struct Stream {
    /// Whose.
    pub camera: CameraId,
    /// Which of its.
    pub name: String,
    /// What its threads see too.
    pub shared: Arc<Shared>,
    /// Sources that push pictures.
    pub feeds: u32,
    /// Since when it has none.
    pub left: Instant,
    /// Its newest pictures.
    pub group: Group,
    /// Why nobody may watch it.
    pub unfit: Option<Unfit>,
    /// Profile of its pictures.
    pub profile: Option<u16>,
    /// Media time of the newest picture.
    pub newest: Option<MediaTime>,
    /// When that was captured, by both clocks.
    pub captured: Option<(Instant, UtcNanos)>,
    /// Who watches.
    pub viewers: BTreeSet<u64>,
    /// Key pictures since the last B picture.
    groups_without: u32,
}

impl Stream {
    /// Without a picture so far.
    pub fn new(camera: CameraId, name: String, shared: Arc<Shared>, now: Instant) -> Stream {
        Stream {
            camera,
            name,
            shared,
            feeds: 0,
            left: now,
            group: Group::default(),
            unfit: None,
            profile: None,
            newest: None,
            captured: None,
            viewers: BTreeSet::new(),
            groups_without: 0,
        }
    }

    /// The kept pictures, unless the stream stands still.
    pub fn fresh(&self) -> Result<Vec<Arc<AccessUnit>>, String> {
        let old = |(capture, _): &(Instant, UtcNanos)| ipc::clock::monotonic() - *capture > FRESH;
        if let Some((_, utc)) = self.captured.filter(old) {
            let last = SegmentName::at(utc);
            return Err(format!(
                "camera {} sends no pictures: the last one came at {}; try again when it is live",
                self.camera,
                last.stem()
            ));
        }
        Ok(self.group.pictures().iter().map(|p| Arc::clone(&p.unit)).collect())
    }

    /// Looks whether browsers can play what comes.
    pub fn judge(&mut self, unit: &AccessUnit) {
        if unit.codec == Codec::H265 {
            self.unfit = Some(Unfit::H265);
            return;
        }
        if unit.key() {
            self.profile = bitstream::profile(&unit.data).or(self.profile);
            self.groups_without = self.groups_without.saturating_add(1);
            if self.unfit == Some(Unfit::H265) || self.groups_without > GROUPS_WITHOUT {
                self.unfit = None;
            }
        } else if bitstream::bipredicted(&unit.data) {
            self.unfit = Some(Unfit::Bipredicted);
            self.groups_without = 0;
        }
    }

    /// Why browsers can't play it, with the remedy.
    pub fn why_unfit(&self) -> String {
        let Stream { camera, name, .. } = self;
        let (what, remedy) = match self.unfit {
            Some(Unfit::H265) => ("H.265, which browsers don't take", "to H.264"),
            _ => ("B-frames, which browsers show out of order", "to no B-frames"),
        };
        format!(
            "camera {camera} can't be watched live: its stream {name} has {what}; set it {remedy} \
             in the camera, or give the camera a sub_url with such a stream and the role live"
        )
    }

    /// Tells how many watch.
    pub fn count(&self) {
        let viewers = u32::try_from(self.viewers.len()).unwrap_or(u32::MAX);
        self.shared.viewers.store(viewers, Ordering::Relaxed);
    }
}
