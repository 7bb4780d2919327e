//! L(b) of this runner: measured under the token, kept across restarts, corrected while it works.

use base::limits::{BATCH_MAX, HANG_LIMIT};
use base::model::ModelSpec;
use base::{DeviceId, Instant, LatencyEntry, LatencyTable};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A value that is off by less is not worth a message (design section 5).
const HYSTERESIS: f64 = 0.10;
/// Tables are sent and stored at most this often.
const UPDATE_PERIOD: Duration = Duration::from_secs(10);
/// Batches of one size that are remembered (chosen: p99 is then the second largest).
const WINDOW: usize = 128;
/// New batches of one size between two looks at their percentiles.
const LOOK_EVERY: usize = 16;
/// A batch that takes longer is not offered: a machine that is twice as slow for a moment must not
/// make it look hung.
const RUN_MAX: Duration = HANG_LIMIT.checked_div(2).expect("two is not zero");

/// Folder of the cache that holds measured tables.
pub(crate) const FOLDER: &str = "latency";

/// Median and 99th percentile of samples, nearest rank. `None` when there are none.
pub fn entry(batch: u32, samples: &[Duration]) -> Option<LatencyEntry> {
    let mut sorted = samples.to_vec();
    sorted.sort();
    let rank = |share: f64| {
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
    };
    Some(LatencyEntry { batch, p50: rank(0.5)?, p99: rank(0.99)? })
}

/// The table, what is still to be measured, and what real batches say about it.
#[derive(Debug)]
pub struct LatencyBook {
    table: LatencyTable,
    /// What is offered once it is measured, ascending.
    sizes: Vec<u32>,
    measured: BTreeMap<u32, LatencyEntry>,
    /// This size and larger ones are too much for the engine or take too long.
    dropped_from: Option<u32>,
    windows: BTreeMap<u32, Window>,
    changed: bool,
    sent: Option<Instant>,
}

#[derive(Debug, Default)]
struct Window {
    recent: VecDeque<Duration>,
    unseen: usize,
}

impl LatencyBook {
    /// Wants `sizes`; `cached` is used when it holds all of them.
    pub fn new(sizes: Vec<u32>, cached: Option<LatencyTable>) -> LatencyBook {
        let has = |table: &LatencyTable, size| table.entries().iter().any(|e| e.batch == size);
        let table = cached.filter(|t| sizes.iter().all(|s| has(t, *s))).unwrap_or_default();
        LatencyBook {
            table,
            sizes,
            measured: BTreeMap::new(),
            dropped_from: None,
            windows: BTreeMap::new(),
            changed: false,
            sent: None,
        }
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

    /// Samples of one size, taken under a grant. True = the table is complete now, or one of its
    /// entries was measured anew.
    pub fn measured(&mut self, batch: u32, samples: &[Duration]) -> bool {
        let Some(entry) = entry(batch, samples) else { return false };
        if !self.table.is_empty() {
            self.table.set(entry);
            return true;
        }
        self.measured.insert(batch, entry);
        self.complete()
    }

    /// Whether a batch of this size may be run to measure it: it was not dropped, and what the
    /// largest smaller one that was measured took, scaled up, is short enough.
    pub fn fits(&self, batch: u32) -> bool {
        if self.dropped_from.is_some_and(|from| batch >= from) {
            return false;
        }
        let smaller = self.measured.range(..batch).next_back().map(|(_, entry)| *entry);
        smaller.is_none_or(|smaller| {
            smaller.p50.mul_f64(f64::from(batch) / f64::from(smaller.batch)) <= RUN_MAX
        })
    }

    /// Whether samples of a size are short enough for it to be offered. The smallest always is:
    /// without it there is no model.
    pub fn offers(&self, batch: u32, samples: &[Duration]) -> bool {
        self.sizes.first().is_none_or(|smallest| batch <= *smallest)
            || entry(batch, samples).is_some_and(|entry| entry.p50 <= RUN_MAX)
    }

    /// This size and all larger ones are not offered, those excepted that were measured. The
    /// smallest size stays wanted. True = the table is complete now.
    pub fn drop_from(&mut self, batch: u32) -> bool {
        if !self.table.is_empty() || self.sizes.first().is_none_or(|smallest| batch <= *smallest) {
            return false;
        }
        self.dropped_from = Some(self.dropped_from.map_or(batch, |from| from.min(batch)));
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

    /// One real batch.
    pub fn observe(&mut self, batch: u32, took: Duration) {
        if self.table.is_empty() {
            return;
        }
        let window = self.windows.entry(batch).or_default();
        if window.recent.len() == WINDOW {
            window.recent.pop_front();
        }
        window.recent.push_back(took);
        window.unseen += 1;
        if window.unseen < LOOK_EVERY {
            return;
        }
        window.unseen = 0;
        let Some(now) = entry(batch, window.recent.make_contiguous()) else { return };
        let off = |a: Duration, b: Duration| {
            (a.as_secs_f64() - b.as_secs_f64()).abs() > HYSTERESIS * b.as_secs_f64()
        };
        let old = self.table.entries().iter().find(|e| e.batch == batch);
        if old.is_none_or(|old| off(now.p50, old.p50) || off(now.p99, old.p99)) {
            self.table.set(now);
            self.changed = true;
        }
    }

    /// The table, when it changed and the last one is long enough ago.
    pub fn update(&mut self, now: Instant) -> Option<&LatencyTable> {
        let due = self.sent.is_none_or(|sent| now - sent >= UPDATE_PERIOD);
        if !self.changed || !due {
            return None;
        }
        self.changed = false;
        self.sent = Some(now);
        Some(&self.table)
    }
}

/// The file that keeps a table for the next start.
#[derive(Debug)]
pub struct LatencyCache {
    path: PathBuf,
    key: Key,
}

/// What a measurement is valid for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    model_sha256: String,
    input: String,
    device: String,
    threads: usize,
    runtime: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    format: u32,
    #[serde(flatten)]
    key: Key,
    entries: Vec<StoredEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredEntry {
    batch: u32,
    p50_ns: u64,
    p99_ns: u64,
}

const FORMAT: u32 = 1;

impl Key {
    fn new(spec: &ModelSpec, device: &DeviceId, threads: usize, runtime: &str) -> io::Result<Key> {
        let mut hash = Sha256::new();
        io::copy(&mut std::fs::File::open(&spec.weights)?, &mut hash)?;
        Ok(Key {
            model_sha256: hex(&hash.finalize()),
            // Preprocessing belongs to what is measured.
            input: format!("{:?} {:?} {:?}", spec.input.size, spec.input.layout, spec.input.dtype),
            device: device.to_string(),
            threads,
            runtime: runtime.to_owned(),
        })
    }
}

impl Stored {
    /// The table, when it is of this format and plausible.
    fn table(self) -> Option<LatencyTable> {
        let plausible = |e: &StoredEntry| {
            (1..=BATCH_MAX).contains(&e.batch) && e.p50_ns > 0 && e.p50_ns <= e.p99_ns
        };
        if self.format != FORMAT || !self.entries.iter().all(plausible) {
            return None;
        }
        Some(LatencyTable::new(self.entries.iter().map(|e| LatencyEntry {
            batch: e.batch,
            p50: Duration::from_nanos(e.p50_ns),
            p99: Duration::from_nanos(e.p99_ns),
        })))
    }
}

fn read(path: &Path) -> Option<Stored> {
    let text = std::fs::read_to_string(path).ok()?;
    serde_json::from_str(&text)
        .inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "stored latencies ignored");
        })
        .ok()
}

/// The table that was stored last for these weights on each of `devices`, whatever version of the
/// runtime it was measured with: for whoever plans without an engine. Reads the weights once.
///
/// # Errors
/// When the weights cannot be read.
pub fn stored_latencies(
    cache_dir: &Path,
    spec: &ModelSpec,
    devices: &[DeviceId],
    threads: usize,
) -> io::Result<Vec<(DeviceId, LatencyTable)>> {
    let Some(first) = devices.first() else { return Ok(Vec::new()) };
    let key = Key::new(spec, first, threads, "")?;
    let Ok(entries) = std::fs::read_dir(cache_dir.join(FOLDER)) else { return Ok(Vec::new()) };
    let mut files: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .filter(|e| e.path().extension().is_some_and(|ext| ext == "json"))
        .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
        .collect();
    files.sort();
    let mut found: BTreeMap<&DeviceId, LatencyTable> = BTreeMap::new();
    for (_, path) in files {
        let Some(stored) = read(&path) else { continue };
        let of = Key { runtime: key.runtime.clone(), ..stored.key.clone() };
        let device =
            devices.iter().find(|device| of == Key { device: device.to_string(), ..key.clone() });
        if let (Some(device), Some(table)) = (device, stored.table()) {
            found.insert(device, table);
        }
    }
    Ok(devices.iter().filter_map(|d| Some((d.clone(), found.remove(d)?))).collect())
}

impl LatencyCache {
    /// The file for these weights, this device, thread count and runtime, in `folder`. Reads the
    /// weights once.
    ///
    /// # Errors
    /// When the weights cannot be read.
    pub fn new(
        folder: &Path,
        spec: &ModelSpec,
        device: &DeviceId,
        threads: usize,
        runtime: &str,
    ) -> io::Result<LatencyCache> {
        let key = Key::new(spec, device, threads, runtime)?;
        let name = hex(&Sha256::digest(serde_json::to_string(&key)?));
        Ok(LatencyCache { path: folder.join(format!("{}.json", &name[..32])), key })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The stored table; `None` when there is none, or it is not of this key or not plausible.
    pub fn load(&self) -> Option<LatencyTable> {
        read(&self.path).filter(|stored| stored.key == self.key).and_then(Stored::table)
    }

    /// Stores a table: written beside, then renamed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn store(&self, table: &LatencyTable) -> io::Result<()> {
        let entries = table.entries().iter().map(|e| StoredEntry {
            batch: e.batch,
            p50_ns: base::time::nanos(e.p50),
            p99_ns: base::time::nanos(e.p99),
        });
        let stored = Stored { format: FORMAT, key: self.key.clone(), entries: entries.collect() };
        let folder = self.path.parent().expect("made by join");
        std::fs::create_dir_all(folder)?;
        let beside = self.path.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&beside, serde_json::to_string_pretty(&stored)? + "\n")?;
        std::fs::rename(&beside, &self.path)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_model;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn percentiles_are_nearest_rank() {
        let samples: Vec<Duration> = (1..=100).rev().map(MS).collect();
        let e = entry(4, &samples).unwrap();
        assert_eq!((e.batch, e.p50, e.p99), (4, MS(50), MS(99)));
        let e = entry(1, &[MS(7)]).unwrap();
        assert_eq!((e.p50, e.p99), (MS(7), MS(7)));
        assert_eq!(entry(1, &[]), None);
    }

    #[test]
    fn the_table_is_empty_until_every_size_is_measured() {
        let mut book = LatencyBook::new(vec![1, 2, 4], None);
        assert_eq!(book.missing(), [1, 2, 4]);
        assert!(!book.measured(2, &[MS(20)]));
        book.observe(1, MS(10));
        assert!(book.table().is_empty());
        assert_eq!(book.missing(), [1, 4]);
        assert!(!book.measured(1, &[MS(10)]));
        assert!(book.measured(4, &[MS(40), MS(44)]));
        assert_eq!(book.table().batch_max(), 4);
        assert!(book.missing().is_empty());
    }

    #[test]
    fn sizes_that_do_not_fit_are_dropped_and_the_rest_is_the_table() {
        let mut book = LatencyBook::new(vec![1, 2, 4, 8, 16], None);
        assert!(book.fits(16), "nothing is known yet");
        assert!(!book.measured(1, &[MS(300)]));
        assert!(book.fits(2));
        assert!(!book.fits(4), "1.2 s are predicted");
        assert!(book.offers(2, &[MS(1000)]) && !book.offers(2, &[MS(1001)]));
        assert!(book.offers(1, &[MS(1900)]), "the only one there is");
        assert!(!book.drop_from(4));
        assert_eq!(book.missing(), [2]);
        assert!(book.measured(2, &[MS(600)]));
        assert_eq!(book.table().batch_max(), 2);
        assert!(!book.fits(4) && !book.fits(16), "a late grant changes nothing");

        // The drop may be the last that was missing.
        let mut book = LatencyBook::new(vec![1, 2, 4], None);
        book.measured(1, &[MS(10)]);
        assert!(book.drop_from(2));
        assert_eq!(book.table().batch_max(), 1);
        assert!(!book.drop_from(4), "said once");

        // What fails at one member says nothing about sizes.
        let mut book = LatencyBook::new(vec![1, 2], None);
        assert!(!book.drop_from(1));
        assert_eq!(book.missing(), [1, 2]);
    }

    #[test]
    fn real_batches_correct_it_past_the_hysteresis_and_at_most_every_ten_seconds() {
        let mut book = LatencyBook::new(vec![1], None);
        book.measured(1, &[MS(100)]);
        let mut at = Instant::ZERO + Duration::from_secs(100);
        for _ in 0..64 {
            book.observe(1, MS(105));
        }
        assert_eq!(book.update(at), None, "5 % are within the hysteresis");
        for _ in 0..WINDOW {
            book.observe(1, MS(120));
        }
        assert_eq!(book.update(at).unwrap().p50(1), Some(MS(120)));
        for _ in 0..WINDOW {
            book.observe(1, MS(200));
        }
        at += MS(9_999);
        assert_eq!(book.update(at), None);
        at += MS(1);
        assert_eq!(book.update(at).unwrap().p50(1), Some(MS(200)));
        // A size that was never profiled appears once it is used.
        for _ in 0..LOOK_EVERY {
            book.observe(3, MS(300));
        }
        at += UPDATE_PERIOD;
        assert_eq!(book.update(at).unwrap().p50(3), Some(MS(300)));
    }

    #[test]
    fn a_stored_table_is_found_again_by_the_same_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let weights = dir.path().join("w.onnx");
        std::fs::write(&weights, "one").unwrap();
        let spec = base::model::ModelSpec { weights: weights.clone(), ..test_model::spec() };
        let cpu: DeviceId = "cpu".parse().unwrap();
        let open = |device: &DeviceId, threads, runtime: &str| {
            LatencyCache::new(&dir.path().join("l"), &spec, device, threads, runtime).unwrap()
        };
        let cache = open(&cpu, 1, "rt 1");
        assert_eq!(cache.load(), None);
        let table = LatencyTable::new([entry(1, &[MS(10)]).unwrap(), entry(2, &[MS(20)]).unwrap()]);
        cache.store(&table).unwrap();
        assert_eq!(open(&cpu, 1, "rt 1").load(), Some(table.clone()));
        assert_eq!(open(&"gpu0".parse().unwrap(), 1, "rt 1").load(), None);
        assert_eq!(open(&cpu, 2, "rt 1").load(), None);
        let other = open(&cpu, 1, "rt 2");
        assert_eq!(other.load(), None);
        // Who plans has no engine and takes any runtime, of the devices that were measured.
        let devices = ["gpu0", "cpu"].map(|id| id.parse::<DeviceId>().unwrap());
        std::fs::rename(dir.path().join("l"), dir.path().join(FOLDER)).unwrap();
        let stored = |threads| stored_latencies(dir.path(), &spec, &devices, threads).unwrap();
        assert_eq!(stored(1), [(cpu.clone(), table.clone())]);
        assert_eq!(stored(2), []);
        std::fs::rename(dir.path().join(FOLDER), dir.path().join("l")).unwrap();
        // The name is not trusted: the file says what it is for.
        std::fs::copy(cache.path(), other.path()).unwrap();
        assert_eq!(other.load(), None);
        std::fs::write(&weights, "two").unwrap();
        assert_eq!(open(&cpu, 1, "rt 1").load(), None);
        // A file that is damaged or holds nonsense is not used.
        std::fs::write(cache.path(), "{").unwrap();
        assert_eq!(cache.load(), None);
        cache
            .store(&LatencyTable::new([LatencyEntry { batch: 1, p50: MS(5), p99: MS(4) }]))
            .unwrap();
        assert_eq!(cache.load(), None);
        // A cached table without all the sizes is measured anew.
        assert_eq!(LatencyBook::new(vec![1, 2, 4], Some(table.clone())).missing(), [1, 2, 4]);
        assert!(LatencyBook::new(vec![1, 2], Some(table)).missing().is_empty());
    }
}
