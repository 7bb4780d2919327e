//! An allocator that counts what one marked stretch of code asks of it.
//!
//! A program makes it its own with `#[global_allocator]`. Counts are of the whole process: the
//! program that counts is single-threaded, or its other threads are quiet meanwhile.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The system's allocator, counted while [`count`] is on.
pub struct CountingAllocator;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static FREES: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// What was counted since the program began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// New blocks and blocks that grew or shrank.
    pub allocations: u64,
    /// Blocks given back.
    pub frees: u64,
    /// Bytes of the allocations.
    pub bytes: u64,
}

impl Counts {
    /// What came after `before`.
    pub fn since(self, before: Counts) -> Counts {
        Counts {
            allocations: self.allocations - before.allocations,
            frees: self.frees - before.frees,
            bytes: self.bytes - before.bytes,
        }
    }
}

/// Starts or stops counting.
pub fn count(on: bool) {
    COUNTING.store(on, Relaxed);
}

/// The counts so far.
pub fn counts() -> Counts {
    Counts {
        allocations: ALLOCATIONS.load(Relaxed),
        frees: FREES.load(Relaxed),
        bytes: BYTES.load(Relaxed),
    }
}

// A plain add of a value that one thread writes: a locked one would cost what is being measured.
fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed) + by, Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTING.load(Relaxed) {
            add(&ALLOCATIONS, 1);
            add(&BYTES, layout.size() as u64);
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if COUNTING.load(Relaxed) {
            add(&FREES, 1);
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`; `alloc` is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if COUNTING.load(Relaxed) {
            add(&ALLOCATIONS, 1);
            add(&BYTES, size as u64);
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`; `alloc` is the system's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
