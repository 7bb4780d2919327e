//! The seqlock that guards a group of words, written over a trait of atomic words so that the model
//! checker runs the code that production runs.
//!
//! Writer: sequence odd (relaxed), fence(Release), data, sequence even (Release). Reader: sequence
//! (Acquire), data, fence(Acquire), sequence again; odd or different = torn. A reader that saw any
//! byte of a later write sees, through the pair of fences, that write's odd sequence or a later one.
//!
//! Nothing here waits: a reader that loses tries again or gives up, a writer never looks at readers.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// An atomic word and the fence of its memory model.
pub(super) trait Word {
    /// Loads the word.
    fn load(&self, order: Ordering) -> u64;
    /// Stores the word.
    fn store(&self, value: u64, order: Ordering);
    /// A fence between accesses to words of this kind and whatever else the data consists of.
    fn fence(order: Ordering);
}

impl Word for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        // Readers map the file read-only, where the language allows relaxed loads alone.
        let value = AtomicU64::load(self, Ordering::Relaxed);
        if matches!(order, Ordering::Acquire) {
            fence(Ordering::Acquire);
        }
        value
    }

    fn store(&self, value: u64, order: Ordering) {
        AtomicU64::store(self, value, order);
    }

    fn fence(order: Ordering) {
        fence(order);
        // Decoders may use streaming stores (x86 movnt*), which the fences of the language do not
        // order: they may pass an earlier store and lag behind a later one.
        #[cfg(target_arch = "x86_64")]
        if matches!(order, Ordering::Release) {
            // SAFETY: sfence exists on every x86_64 and has no operands.
            unsafe { std::arch::x86_64::_mm_sfence() };
        }
    }
}

/// A sequence word and `N` words that it guards. Bytes beside them (pixels) may be guarded too.
pub(super) struct Guarded<'a, W, const N: usize> {
    /// Odd while a write is under way; only ever rises.
    pub sequence: &'a W,
    /// The guarded words.
    pub words: [&'a W; N],
}

impl<W: Word, const N: usize> Guarded<'_, W, N> {
    /// Starts a write: from here on until [`Guarded::close`] readers refuse what they see. Starting
    /// again without a close (an abandoned write) is allowed.
    pub fn open(&self) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence | 1, Ordering::Relaxed);
        // Pairs with the fence in `read_with`.
        W::fence(Ordering::Release);
    }

    /// Stores the words and ends the write.
    pub fn close(&self, values: [u64; N]) {
        for (word, value) in self.words.iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        let sequence = self.sequence.load(Ordering::Relaxed);
        // For streaming stores only; the store below is a Release store.
        W::fence(Ordering::Release);
        // Pairs with the first load in `read_with`.
        self.sequence.store((sequence | 1).wrapping_add(1), Ordering::Release);
    }

    /// Reads the words, lets `body` read the bytes that go with them, and returns both with the
    /// sequence if no write touched them meanwhile. `body` may refuse by `None`; what it read is
    /// not to be believed before this function returns it.
    pub fn read_with<T>(
        &self,
        body: impl FnOnce(&[u64; N]) -> Option<T>,
    ) -> Option<(u64, [u64; N], T)> {
        // Pairs with the store in `close`.
        let before = self.sequence.load(Ordering::Acquire);
        if before & 1 == 1 {
            return None;
        }
        let values = std::array::from_fn(|n| self.words[n].load(Ordering::Relaxed));
        let extra = body(&values)?;
        // Pairs with the fence in `open`.
        W::fence(Ordering::Acquire);
        (self.sequence.load(Ordering::Relaxed) == before).then_some((before, values, extra))
    }

    /// Reads the words alone.
    pub fn read(&self) -> Option<(u64, [u64; N])> {
        self.read_with(|_| Some(())).map(|(sequence, values, ())| (sequence, values))
    }
}
