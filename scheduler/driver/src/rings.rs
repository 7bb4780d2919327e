//! The rings of the core's cameras as its frame index.

use base::log_gate::LogGate;
use base::{Absent, CameraId, Instant, Newest};
use ipc::descriptors;
use ipc::ring::RingReader;
use scheduler::{CameraKey, FrameIndex};
use std::path::PathBuf;

/// Ring readers by camera key. A key may be another camera's with the next desired state.
pub(crate) struct Rings {
    shm: PathBuf,
    readers: Vec<Option<(CameraId, RingReader)>>,
    /// Of descriptors, to open rings with.
    shortage: LogGate,
    /// The instant of the current poll.
    pub now: Instant,
}

impl Rings {
    pub fn new(shm: PathBuf) -> Rings {
        Rings { shm, readers: Vec::new(), shortage: LogGate::default(), now: Instant::ZERO }
    }

    /// Opens readers for new cameras and closes those of cameras that are gone.
    pub fn keep<'a>(&mut self, cameras: impl Iterator<Item = (CameraKey, &'a CameraId)>) {
        let mut kept: Vec<Option<(CameraId, RingReader)>> = Vec::new();
        for (key, id) in cameras {
            let at = key.0 as usize;
            if kept.len() <= at {
                kept.resize_with(at + 1, || None);
            }
            let before = self.readers.get_mut(at).and_then(Option::take);
            let before = before.filter(|(of, _)| of == id);
            let new = || (id.clone(), RingReader::new(&self.shm, id));
            kept[at] = Some(before.unwrap_or_else(new));
        }
        self.readers = kept;
    }
}

impl FrameIndex for Rings {
    fn newest(&mut self, camera: CameraKey) -> Newest {
        match self.readers.get_mut(camera.0 as usize) {
            Some(Some((_, reader))) => {
                let newest = reader.newest(self.now);
                if newest == Newest::Absent(Absent::Unreadable)
                    && let Some(why) = reader.refusal().and_then(descriptors::used_up)
                    && self.shortage.allows(&why, self.now)
                {
                    tracing::error!("rings can't be read: {why}");
                }
                newest
            }
            _ => Newest::Absent(Absent::NoRing),
        }
    }
}
