//! Measured latencies, kept across restarts: a file per model, device and machine.

use crate::hardware;
use base::limits::BATCH_MAX;
use base::model::ModelSpec;
use base::{DeviceId, LatencyEntry, LatencyTable};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Folder of the cache that holds measured tables.
pub(crate) const FOLDER: &str = "latency";

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
    /// What executes, by its own name; empty in files of versions that did not tell.
    #[serde(default)]
    hardware: String,
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
            hardware: hardware::name(spec),
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
    /// The file for these weights, this device and its hardware, thread count and runtime, in `folder`. Reads the
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
        let entry = |batch, ms| LatencyEntry { batch, p50: MS(ms), p99: MS(ms) };
        let table = LatencyTable::new([entry(1, 10), entry(2, 20)]);
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
        // The same on another machine, or of a version that did not tell which.
        cache.store(&table).unwrap();
        let text = std::fs::read_to_string(cache.path()).unwrap();
        let hardware = format!("  \"hardware\": {},\n", serde_json::json!(hardware::name(&spec)));
        assert!(text.contains(&hardware), "{text}");
        for other in ["  \"hardware\": \"another, 2 processors\",\n", ""] {
            std::fs::write(cache.path(), text.replace(&hardware, other)).unwrap();
            assert_eq!(cache.load(), None);
        }
    }
}
