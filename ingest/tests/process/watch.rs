//! What a reader of a ring sees.

use crate::node::Node;
use base::{FrameId, Generation, Newest, Stamp};
use ingest::clip::ClipFrames;
use ipc::ring::RingReader;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

/// Long enough for a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(90);

/// What `wait_until` takes for an answer.
pub trait Answer {
    type Value;
    fn value(self) -> Option<Self::Value>;
}

impl Answer for bool {
    type Value = ();
    fn value(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Answer for Option<T> {
    type Value = T;
    fn value(self) -> Option<T> {
        self
    }
}

/// Asks until there is an answer.
pub fn wait_until<A: Answer>(what: &str, mut ask: impl FnMut() -> A) -> A::Value {
    let start = Instant::now();
    loop {
        if let Some(value) = ask().value() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn hash(pixels: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    pixels.hash(&mut hasher);
    hasher.finish()
}

/// Every picture of a clip, recognisable.
pub struct Reference(HashMap<u64, usize>);

impl Reference {
    pub fn of(clip: &Path) -> Reference {
        let frames = ClipFrames::open(clip).unwrap().map(Result::unwrap);
        Reference(frames.map(|f| (hash(&f.pixels), f.index as usize)).collect())
    }
}

/// A frame that was copied whole.
pub struct Seen {
    pub stamp: Stamp,
    picture: u64,
}

impl Seen {
    /// Its number in the clip; it must be one of the clip's, bit by bit.
    pub fn place(&self, reference: &Reference) -> usize {
        let place = reference.0.get(&self.picture);
        *place.unwrap_or_else(|| panic!("frame {} is not in the clip", self.stamp.frame_id.0))
    }
}

pub struct Watch {
    reader: RingReader,
    last: Option<FrameId>,
    /// Newest frame id seen of each generation.
    newest: HashMap<Generation, u64>,
    camera: String,
}

impl Watch {
    pub fn new(node: &Node, camera: &str) -> Watch {
        let reader = RingReader::new(&node.directories.shm, &camera.parse().unwrap());
        Watch { reader, last: None, newest: HashMap::new(), camera: camera.to_owned() }
    }

    fn look(&mut self) -> Option<Seen> {
        let Newest::Frame(stamp) = self.reader.newest(ipc::clock::monotonic()) else {
            return None;
        };
        let newest = self.newest.entry(stamp.generation).or_default();
        *newest = stamp.frame_id.0.max(*newest);
        if Some(stamp.frame_id) == self.last {
            return None;
        }
        let mut pixels = Vec::new();
        let copied =
            self.reader.copy(stamp.generation, stamp.frame_id, stamp.slot, &mut pixels).ok()?;
        assert_eq!(copied.info, stamp.info);
        self.last = Some(stamp.frame_id);
        Some(Seen { stamp, picture: hash(&pixels) })
    }

    /// Takes note of what is newest now.
    pub fn glance(&mut self) {
        let _ = self.look();
    }

    /// The next frames.
    pub fn collect(&mut self, count: usize) -> Vec<Seen> {
        let what = format!("{count} frames of {}", self.camera);
        (0..count).map(|_| wait_until(&what, || self.look())).collect()
    }

    /// The next frames of a newer generation than `old`.
    pub fn collect_generation_after(&mut self, old: Generation, count: usize) -> Vec<Seen> {
        let what = format!("a new generation of {}", self.camera);
        let newer = |seen: Option<Seen>| seen.filter(|seen| seen.stamp.generation > old);
        let first = wait_until(&what, || newer(self.look()));
        let mut all = vec![first];
        all.extend(self.collect(count - 1));
        all
    }

    /// The newest frame id that was seen of a generation that is over.
    pub fn last_of(&self, generation: Generation) -> u64 {
        self.newest[&generation]
    }
}
