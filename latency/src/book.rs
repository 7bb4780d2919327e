//! The table of one runner, and what is still to be measured of it.

use crate::entry;
use base::limits::HANG_LIMIT;
use base::{LatencyEntry, LatencyTable};
use std::collections::BTreeMap;
use std::time::Duration;

/// A batch that takes longer is not offered: a machine that is twice as slow for a moment must not
/// make it look hung.
const RUN_MAX: Duration = HANG_LIMIT.checked_div(2).expect("two is not zero");

/// What a runner promises, and what it still has to measure before it does.
#[derive(Debug)]
pub struct LatencyBook {
    table: LatencyTable,
    /// What is offered once it is measured, ascending.
    sizes: Vec<u32>,
    measured: BTreeMap<u32, LatencyEntry>,
    /// This size and larger ones are too much for the engine or take too long.
    dropped_from: Option<u32>,
}

/// What a runner answers to a grant.
#[derive(Debug, PartialEq, Eq)]
pub struct Profiled {
    /// The samples; none = the size is not offered.
    pub samples: Vec<Duration>,
    /// The table, when it is complete now or one of its entries was measured anew.
    pub table: Option<LatencyTable>,
}

impl LatencyBook {
    /// Wants `sizes`; `kept` is used when it holds all of them.
    pub fn new(sizes: Vec<u32>, kept: Option<LatencyTable>) -> LatencyBook {
        let has = |table: &LatencyTable, size| table.entries().iter().any(|e| e.batch == size);
        let table = kept.filter(|t| sizes.iter().all(|s| has(t, *s))).unwrap_or_default();
        LatencyBook { table, sizes, measured: BTreeMap::new(), dropped_from: None }
    }

    /// The table; empty until everything is measured.
    pub fn table(&self) -> &LatencyTable {
        &self.table
    }

    /// Sizes that have to be measured.
    pub fn missing(&self) -> Vec<u32> {
        if !self.table.is_empty() {
            return Vec::new();
        }
        self.sizes.iter().copied().filter(|s| !self.measured.contains_key(s)).collect()
    }

    /// Whether a batch of this size may be run to measure it: it was not dropped, and what the
    /// largest smaller one that was measured took, scaled up, is short enough.
    pub fn fits(&self, batch: u32) -> bool {
        if self.dropped_from.is_some_and(|from| batch >= from) {
            return false;
        }
        let smaller = if self.table.is_empty() {
            self.measured.range(..batch).next_back().map(|(_, entry)| *entry)
        } else {
            self.table.entries().iter().rfind(|entry| entry.batch < batch).copied()
        };
        smaller.is_none_or(|smaller| {
            smaller.p50.mul_f64(f64::from(batch) / f64::from(smaller.batch)) <= RUN_MAX
        })
    }

    /// A size was measured under a grant, or none of its runs came to an end. What takes too long is
    /// dropped, with all larger sizes.
    pub fn profiled(&mut self, batch: u32, samples: Vec<Duration>) -> Profiled {
        let found = entry(batch, &samples).filter(|found| self.offers(found));
        let changed = match found {
            Some(found) => self.keep(found),
            None => self.drop_from(batch),
        };
        Profiled {
            samples: if found.is_some() { samples } else { Vec::new() },
            table: changed.then(|| self.table.clone()),
        }
    }

    /// Whether a size is short enough to be offered. The smallest always is: without it there is no
    /// model.
    fn offers(&self, found: &LatencyEntry) -> bool {
        self.is_smallest(found.batch) || found.p50 <= RUN_MAX
    }

    fn is_smallest(&self, batch: u32) -> bool {
        self.sizes.first().is_none_or(|smallest| batch <= *smallest)
    }

    /// True = the table is complete now, or one of its entries was measured anew.
    fn keep(&mut self, found: LatencyEntry) -> bool {
        if !self.table.is_empty() {
            let before = self.table.p50(found.batch);
            if before.is_some_and(|before| found.p50 * 2 <= before) {
                // What was too slow then may not be now.
                self.dropped_from = None;
            }
            self.table.set(found);
            return true;
        }
        self.measured.insert(found.batch, found);
        self.complete()
    }

    /// This size and all larger ones are not offered, those excepted that were measured. The
    /// smallest size stays wanted. True = the table is complete now.
    fn drop_from(&mut self, batch: u32) -> bool {
        if self.is_smallest(batch) {
            return false;
        }
        self.dropped_from = Some(self.dropped_from.map_or(batch, |from| from.min(batch)));
        if !self.table.is_empty() {
            return false;
        }
        let measured = &self.measured;
        self.sizes.retain(|size| *size < batch || measured.contains_key(size));
        self.complete()
    }

    fn complete(&mut self) -> bool {
        if self.measured.is_empty() || !self.missing().is_empty() {
            return false;
        }
        self.table = LatencyTable::new(self.measured.values().copied());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// The largest size of the table that a measurement completed.
    fn complete(book: &mut LatencyBook, batch: u32, samples: &[u64]) -> Option<u32> {
        let samples = samples.iter().map(|ms| MS(*ms)).collect();
        book.profiled(batch, samples).table.map(|table| table.batch_max())
    }

    #[test]
    fn the_table_is_empty_until_every_size_is_measured() {
        let mut book = LatencyBook::new(vec![1, 2, 4], None);
        assert_eq!(book.missing(), [1, 2, 4]);
        assert_eq!(complete(&mut book, 2, &[20]), None);
        assert!(book.table().is_empty());
        assert_eq!(book.missing(), [1, 4]);
        assert_eq!(complete(&mut book, 1, &[10]), None);
        assert_eq!(complete(&mut book, 4, &[40, 44]), Some(4));
        assert!(book.missing().is_empty());
        // Measured anew it is another promise.
        assert_eq!(complete(&mut book, 1, &[30]), Some(4));
        assert_eq!((book.table().p50(1), book.table().p50(2)), (Some(MS(30)), Some(MS(20))));
    }

    #[test]
    fn sizes_that_do_not_fit_are_dropped_and_the_rest_is_the_table() {
        let mut book = LatencyBook::new(vec![1, 2, 4, 8, 16], None);
        assert!(book.fits(16), "nothing is known yet");
        assert_eq!(complete(&mut book, 1, &[300]), None);
        assert!(book.fits(2));
        assert!(!book.fits(4), "1.2 s are predicted");
        assert_eq!(complete(&mut book, 4, &[]), None);
        assert_eq!(book.missing(), [2]);
        assert_eq!(complete(&mut book, 2, &[600]), Some(2));
        assert!(!book.fits(4) && !book.fits(16), "a late grant changes nothing");
        let late = book.profiled(8, vec![]);
        assert_eq!(late, Profiled { samples: vec![], table: None });

        // The drop may be the last that was missing, and a run that takes too long is one.
        let mut book = LatencyBook::new(vec![1, 2, 4], None);
        book.profiled(1, vec![MS(10)]);
        let two = book.profiled(2, vec![MS(1001)]);
        assert_eq!((two.samples, two.table.map(|t| t.batch_max())), (vec![], Some(1)));
        assert_eq!(complete(&mut book, 4, &[]), None, "said once");

        // What fails at one member says nothing about sizes, and one member may take long.
        let mut book = LatencyBook::new(vec![1, 2], None);
        assert_eq!(complete(&mut book, 1, &[]), None);
        assert_eq!(book.missing(), [1, 2]);
        book.profiled(1, vec![MS(1900)]);
        assert_eq!(book.missing(), [2]);
        assert_eq!(complete(&mut book, 2, &[1000]), Some(2));
    }

    #[test]
    fn sizes_that_were_dropped_in_a_bad_hour_come_back_in_a_better_one() {
        let mut book = LatencyBook::new(vec![1, 2, 4, 8], None);
        book.profiled(1, vec![MS(800)]);
        assert!(!book.fits(2));
        assert_eq!(complete(&mut book, 2, &[]), Some(1));
        // Nothing has become better: nothing larger is tried.
        assert_eq!(complete(&mut book, 1, &[700]), Some(1));
        assert!(!book.fits(2) && !book.fits(4));
        assert_eq!(complete(&mut book, 1, &[20]), Some(1));
        assert!(book.fits(2) && book.fits(8));
        assert_eq!(complete(&mut book, 2, &[30]), Some(2));
        assert_eq!(complete(&mut book, 4, &[50]), Some(4));
        // What the engine refuses stays refused, and what was measured stays.
        assert_eq!(book.profiled(8, vec![]), Profiled { samples: vec![], table: None });
        assert!(!book.fits(8) && book.fits(4));
        assert_eq!(book.table().batch_max(), 4);
    }

    #[test]
    fn a_kept_table_without_all_the_sizes_is_measured_anew() {
        let kept =
            LatencyTable::new([entry(1, &[MS(10)]), entry(2, &[MS(20)])].into_iter().flatten());
        assert_eq!(LatencyBook::new(vec![1, 2, 4], Some(kept.clone())).missing(), [1, 2, 4]);
        assert!(LatencyBook::new(vec![1, 2], Some(kept)).missing().is_empty());
    }
}
