//! Latency tables: how long one batch of b frames occupies a device.

use std::time::Duration;

/// Measured execution of batches of one size: preprocess on the device, execute, until the token
/// can pass on. Copies before the token and postprocess after it are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatencyEntry {
    /// Members of the batch.
    pub batch: u32,
    /// Median: what planning uses.
    pub p50: Duration,
    /// 99th percentile: what feasibility and leases use.
    pub p99: Duration,
}

/// L(b): entries with rising batch sizes, none twice. Empty = not measured yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LatencyTable {
    entries: Vec<LatencyEntry>,
}

impl LatencyTable {
    /// Sorts the entries; of two with one size the later stays. Sizes of 0 are dropped.
    pub fn new(entries: impl IntoIterator<Item = LatencyEntry>) -> Self {
        let mut table = LatencyTable::default();
        for entry in entries {
            table.set(entry);
        }
        table
    }

    /// Inserts or replaces the entry of its size.
    pub fn set(&mut self, entry: LatencyEntry) {
        if entry.batch == 0 {
            return;
        }
        match self.entries.binary_search_by_key(&entry.batch, |e| e.batch) {
            Ok(i) => self.entries[i] = entry,
            Err(i) => self.entries.insert(i, entry),
        }
    }

    /// The entries, sizes rising.
    pub fn entries(&self) -> &[LatencyEntry] {
        &self.entries
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Largest measured size, 0 when empty.
    pub fn batch_max(&self) -> u32 {
        self.entries.last().map_or(0, |e| e.batch)
    }

    /// Median for `batch`: between two measured sizes by straight line, beyond the last in
    /// proportion. `None` when empty.
    pub fn p50(&self, batch: u32) -> Option<Duration> {
        self.at(batch, |e| e.p50)
    }

    /// 99th percentile for `batch`, as [`LatencyTable::p50`].
    pub fn p99(&self, batch: u32) -> Option<Duration> {
        self.at(batch, |e| e.p99)
    }

    fn at(&self, batch: u32, value: impl Fn(&LatencyEntry) -> Duration) -> Option<Duration> {
        let last = self.entries.last()?;
        if batch > last.batch {
            return Some(value(last).mul_f64(f64::from(batch) / f64::from(last.batch)));
        }
        let i = self.entries.partition_point(|e| e.batch < batch);
        let high = &self.entries[i];
        if high.batch == batch || i == 0 {
            return Some(value(high));
        }
        let low = &self.entries[i - 1];
        let share = f64::from(batch - low.batch) / f64::from(high.batch - low.batch);
        let (a, b) = (value(low).as_secs_f64(), value(high).as_secs_f64());
        Some(Duration::from_secs_f64((a + (b - a) * share).max(0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(batch: u32, ms: u64) -> LatencyEntry {
        let p50 = Duration::from_millis(ms);
        LatencyEntry { batch, p50, p99: p50 * 2 }
    }

    #[test]
    fn reads_between_and_beyond_the_measured_sizes() {
        let table = LatencyTable::new([entry(4, 40), entry(1, 10), entry(8, 60)]);
        let ms = |b| table.p50(b).map(|d| d.as_millis());
        assert_eq!(
            (ms(1), ms(2), ms(4), ms(6), ms(8), ms(16)),
            (Some(10), Some(20), Some(40), Some(50), Some(60), Some(120))
        );
        assert_eq!(table.p99(8), Some(Duration::from_millis(120)));
        assert_eq!(LatencyTable::default().p50(1), None);
    }

    #[test]
    fn later_entries_replace_earlier_ones() {
        let table = LatencyTable::new([entry(2, 10), entry(2, 30), entry(0, 5)]);
        assert_eq!(table.entries(), &[entry(2, 30)]);
    }
}
