//! The seqlock under a model checker: loom runs every interleaving of a small writer and reader,
//! with every value that the memory model lets a relaxed load return.
//!
//! The ring is cut down to what the protocol consists of: two slots of one record word and two
//! pixel words, and a header that names frame and slot. The code is `seqlock`, unchanged.

use super::seqlock::{Guarded, Word};
use loom::sync::atomic::{AtomicU64, fence};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How a word may be broken, to show that the model would notice.
trait Rule: Send + Sync + 'static {
    const FENCES: bool;
    const EVEN_IS_RELEASE: bool;
}

struct Sound;
impl Rule for Sound {
    const FENCES: bool = true;
    const EVEN_IS_RELEASE: bool = true;
}

struct NoFences;
impl Rule for NoFences {
    const FENCES: bool = false;
    const EVEN_IS_RELEASE: bool = true;
}

struct RelaxedEven;
impl Rule for RelaxedEven {
    const FENCES: bool = true;
    const EVEN_IS_RELEASE: bool = false;
}

struct Cell<R>(AtomicU64, std::marker::PhantomData<R>);

impl<R> Cell<R> {
    fn new() -> Self {
        Cell(AtomicU64::new(0), std::marker::PhantomData)
    }
}

impl<R: Rule> Word for Cell<R> {
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, if R::EVEN_IS_RELEASE { order } else { Ordering::Relaxed });
    }

    fn fence(order: Ordering) {
        // The fence before the even store only serves streaming stores, which the model lacks; it
        // would hide a relaxed even store.
        if R::FENCES && (R::EVEN_IS_RELEASE || order == Ordering::Acquire) {
            fence(order);
        }
    }
}

struct Slot<R> {
    sequence: Cell<R>,
    id: Cell<R>,
    pixels: [Cell<R>; 2],
}

struct Ring<R> {
    sequence: Cell<R>,
    id: Cell<R>,
    at: Cell<R>,
    slots: [Slot<R>; 2],
}

impl<R: Rule> Ring<R> {
    fn new() -> Self {
        let slot = || Slot {
            sequence: Cell::new(),
            id: Cell::new(),
            pixels: std::array::from_fn(|_| Cell::new()),
        };
        Ring { sequence: Cell::new(), id: Cell::new(), at: Cell::new(), slots: [slot(), slot()] }
    }

    fn header(&self) -> Guarded<'_, Cell<R>, 2> {
        Guarded { sequence: &self.sequence, words: [&self.id, &self.at] }
    }

    fn record(&self, slot: u64) -> Guarded<'_, Cell<R>, 1> {
        let slot = &self.slots[slot as usize];
        Guarded { sequence: &slot.sequence, words: [&slot.id] }
    }

    /// As `RingWriter::begin` and `SlotMut::publish`.
    fn publish(&self, id: u64) {
        let slot = id % 2;
        self.record(slot).open();
        for pixel in &self.slots[slot as usize].pixels {
            pixel.store(id, Ordering::Relaxed);
        }
        self.record(slot).close([id]);
        self.header().open();
        self.header().close([id, slot]);
    }

    /// As `OpenRing::read` and `OpenRing::copy`: the id and pixels of an accepted frame.
    fn read(&self) -> Option<(u64, [u64; 2])> {
        let (_, [id, at]) = self.header().read()?;
        assert_eq!(id % 2, at, "header names a frame and another's slot");
        let (_, _, pixels) = self.record(at).read_with(|[found]| {
            (*found == id).then(|| {
                std::array::from_fn(|n| self.slots[at as usize].pixels[n].load(Ordering::Relaxed))
            })
        })?;
        Some((id, pixels))
    }
}

fn check<R: Rule>(frames: u64, seen: Arc<std::sync::Mutex<Vec<u64>>>) {
    let mut model = loom::model::Builder::new();
    // Four involuntary switches reach every state of one reader against one writer that differs in
    // kind: into the middle of either side and back, twice.
    model.preemption_bound = Some(4);
    model.check(move || {
        let ring = Arc::new(Ring::<R>::new());
        let writer = loom::thread::spawn({
            let ring = ring.clone();
            move || {
                for id in 1..=frames {
                    ring.publish(id);
                }
            }
        });
        if let Some((id, pixels)) = ring.read() {
            assert_eq!(pixels, [id; 2], "a torn frame was accepted");
            seen.lock().expect("no thread panicked").push(id);
        }
        writer.join().expect("the writer ended");
        assert_eq!(ring.read(), Some((frames, [frames; 2])), "a quiet ring reads whole");
    });
}

fn seen_by<R: Rule>(frames: u64) -> Vec<u64> {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    check::<R>(frames, seen.clone());
    let mut ids = seen.lock().expect("no thread panicked").clone();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[test]
fn no_interleaving_accepts_a_torn_frame() {
    // Three frames in two slots: the third overwrites the first under the reader. The zero is the
    // fresh ring, whose words are all equal.
    assert_eq!(seen_by::<Sound>(3), [0, 1, 2, 3], "every frame was accepted in some run");
}

#[test]
#[should_panic = "a torn frame was accepted"]
fn the_model_notices_missing_fences() {
    seen_by::<NoFences>(3);
}

#[test]
#[should_panic = "a torn frame was accepted"]
fn the_model_notices_a_relaxed_even_store() {
    seen_by::<RelaxedEven>(3);
}
