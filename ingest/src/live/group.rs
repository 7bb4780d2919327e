//! The newest group of pictures of a stream, kept for viewers that come and for stills.
//!
//! Pure. The group begins with a key picture. Beyond [`BYTES`] or [`PICTURES`], and behind a gap,
//! it does not grow until the next key picture: what is kept can always be decoded.

use super::bitstream;
use crate::unit::{AccessUnit, UnitFlags};
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// Bound of a group (chosen: 10 s of 6 Mb/s, and it fits a message between ingest and serve).
pub const BYTES: usize = 8 << 20;
/// Most pictures of a group (chosen: 20 s of 30 fps; a browser decodes them in about a second).
pub const PICTURES: usize = 600;

const _: () = assert!(BYTES + PICTURES * 64 < base::limits::MESSAGE_BYTES_MAX);

/// A picture and its RTP payloads, which are made once, for the first viewer.
#[derive(Debug)]
pub struct Picture {
    /// The unit.
    pub unit: Arc<AccessUnit>,
    payloads: OnceCell<Vec<Arc<[u8]>>>,
}

impl Picture {
    /// Of a unit.
    pub fn new(unit: Arc<AccessUnit>) -> Picture {
        Picture { unit, payloads: OnceCell::new() }
    }

    /// Its RTP payloads.
    pub fn payloads(&self) -> &[Arc<[u8]>] {
        self.payloads.get_or_init(|| bitstream::payloads(&self.unit.data))
    }
}

/// The group.
#[derive(Debug, Default)]
pub struct Group {
    pictures: VecDeque<Rc<Picture>>,
    bytes: usize,
    cut: bool,
}

/// What a picture means for those who follow the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// Decoding goes on, or begins here.
    Yes,
    /// What it leans on was lost: wait for the next key picture.
    No,
}

impl Group {
    /// Takes the next picture.
    pub fn push(&mut self, picture: &Rc<Picture>) -> Follows {
        let unit = &picture.unit;
        if unit.key() {
            *self = Group::default();
        } else if unit.flags.has(UnitFlags::DISCONTINUITY) {
            self.cut = true;
            return Follows::No;
        }
        if !unit.key() && self.pictures.is_empty() {
            return Follows::No;
        }
        let bytes = self.bytes + unit.data.len();
        if bytes > BYTES || self.pictures.len() == PICTURES {
            self.cut = true;
        }
        if !self.cut {
            self.bytes = bytes;
            self.pictures.push_back(Rc::clone(picture));
        }
        Follows::Yes
    }

    /// The pictures, key picture first.
    pub fn pictures(&self) -> &VecDeque<Rc<Picture>> {
        &self.pictures
    }

    /// Whether the newest picture of the stream is among them, so that a viewer that has them can
    /// follow.
    pub fn whole(&self) -> bool {
        !self.cut && !self.pictures.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Group::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Codec;
    use base::{Instant, MediaTime, UtcNanos};

    fn picture(flags: UnitFlags, bytes: usize) -> Rc<Picture> {
        let (codec, data) = (Codec::H264, vec![0; bytes]);
        let (media, capture, capture_utc) = (MediaTime(0), Instant(0), UtcNanos(0));
        Rc::new(Picture::new(Arc::new(AccessUnit {
            codec,
            data,
            media,
            capture,
            capture_utc,
            flags,
        })))
    }

    #[test]
    fn begins_with_a_key_picture_and_is_replaced_by_the_next() {
        let (key, other) = (picture(UnitFlags::KEY, 5), picture(UnitFlags(0), 1));
        let mut group = Group::default();
        assert_eq!(group.push(&other), Follows::No);
        assert!(!group.whole() && group.pictures().is_empty());
        for _ in 0..2 {
            assert_eq!(group.push(&key), Follows::Yes);
            assert_eq!(group.push(&other), Follows::Yes);
            assert!(group.whole());
            assert_eq!((group.pictures().len(), group.bytes), (2, 6));
        }
    }

    #[test]
    fn behind_a_gap_it_stays_what_it_was() {
        let (key, other) = (picture(UnitFlags::KEY, 5), picture(UnitFlags(0), 1));
        let jump = picture(UnitFlags::DISCONTINUITY, 1);
        let mut group = Group::default();
        group.push(&key);
        assert_eq!(group.push(&jump), Follows::No);
        group.push(&other);
        assert!(!group.whole());
        assert_eq!(group.pictures().len(), 1);
        group.push(&key);
        assert!(group.whole());
    }

    #[test]
    fn beyond_its_bounds_the_stream_is_followed_but_not_kept() {
        let (key, large) = (picture(UnitFlags::KEY, 5), picture(UnitFlags(0), BYTES / 2));
        let mut group = Group::default();
        group.push(&key);
        for _ in 0..3 {
            assert_eq!(group.push(&large), Follows::Yes);
        }
        assert!(!group.whole());
        assert_eq!(group.pictures().len(), 2);
        group.push(&key);
        for _ in 0..PICTURES {
            group.push(&picture(UnitFlags(0), 1));
        }
        assert!(!group.whole());
        assert_eq!(group.pictures().len(), PICTURES);
    }
}
