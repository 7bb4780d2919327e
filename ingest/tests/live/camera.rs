//! A camera: a clip, played in real time into a feed.

use base::{CameraId, MediaTime};
use ingest::live::Hub;
use ingest::unit::{AccessUnit, Codec, UnitFlags};
use ipc::clock;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const FPS: u64 = 25;

/// 10 s of 320x180, H.264 High, a key picture every 5 s, access unit delimiters.
pub fn group_of_5s() -> Vec<Vec<u8>> {
    units(&asset("group_5s.h264"))
}

pub fn asset(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/assets")).join(name)
}

/// The access units of an elementary stream with delimiters.
pub fn units(path: &std::path::Path) -> Vec<Vec<u8>> {
    let stream = std::fs::read(path).unwrap();
    let delimiter = [0, 0, 0, 1, 9];
    let mut starts: Vec<_> =
        stream.windows(5).enumerate().filter(|(_, w)| *w == delimiter).map(|(at, _)| at).collect();
    starts.push(stream.len());
    starts.windows(2).map(|pair| stream[pair[0]..pair[1]].to_vec()).collect()
}

/// Whether a unit of such a stream can be decoded on its own.
pub fn key(unit: &[u8]) -> bool {
    unit.windows(4).any(|w| w[..3] == [0, 0, 1] && w[3] & 31 == 7)
}

pub fn utc_ticks() -> u64 {
    (u128::from(clock::utc().0) * 9 / 100_000) as u64
}

/// A unit of a stream at a moment of its media timeline, taken now.
pub fn unit(data: &[u8], codec: Codec, media: u64, flags: UnitFlags) -> Arc<AccessUnit> {
    let (capture, capture_utc) = (clock::monotonic(), clock::utc());
    let (data, media) = (data.to_vec(), MediaTime(media));
    Arc::new(AccessUnit { codec, data, media, capture, capture_utc, flags })
}

/// A running camera.
pub struct Camera {
    stop: Arc<AtomicBool>,
    /// Pictures so far.
    pub sent: Arc<AtomicU64>,
    /// Media time of the newest picture.
    pub media: Arc<AtomicU64>,
    /// Set: it sends nothing, and is not gone.
    pub quiet: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Camera {
    /// Plays `clip` from picture `first` on, in a loop, its media time that of UTC, or after
    /// `last`.
    pub fn start(hub: &Hub, name: &str, clip: Vec<Vec<u8>>, first: usize, last: u64) -> Camera {
        let id = CameraId::new(name).unwrap();
        let mut feed = hub.feed(&id, "main");
        let (stop, sent, media) = (Arc::default(), Arc::default(), Arc::default());
        let quiet: Arc<AtomicBool> = Arc::default();
        let silent = Arc::clone(&quiet);
        let (stopped, count, newest) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&media));
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            let origin = utc_ticks().max(last + 1);
            let mut at = 0u64;
            while !AtomicBool::load(&stopped, Ordering::Relaxed) {
                let due = start + Duration::from_micros(at * 1_000_000 / FPS);
                let pause = due.saturating_duration_since(Instant::now());
                std::thread::sleep(pause.max(Duration::from_millis(1)));
                if silent.load(Ordering::Relaxed) {
                    continue;
                }
                let data = &clip[(first + at as usize) % clip.len()];
                let flags = UnitFlags::when(key(data), UnitFlags::KEY)
                    .with(UnitFlags::when(at == 0, UnitFlags::DISCONTINUITY));
                let media = origin + at * 90_000 / FPS;
                feed.push(&unit(data, Codec::H264, media, flags));
                AtomicU64::store(&newest, media, Ordering::Relaxed);
                AtomicU64::fetch_add(&count, 1, Ordering::Relaxed);
                at += 1;
            }
        });
        Camera { stop, sent, media, quiet, thread: Some(thread) }
    }

    /// Ends it; returns the last media time.
    pub fn stop(mut self) -> u64 {
        self.end();
        self.media.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.end();
    }
}
