//! What storing events costs: events per second and CPU per event, for commits of 1, 16 and 256
//! events with seven detections each, and what a page of a list takes meanwhile.
//!
//! usage: store_commit [--seconds S] [--dir DIR]
//!
//! Every commit is durable (two syncs); DIR says which disk answers them, the current directory by
//! default. The sizes take turns in short rounds on one store that grows from empty, so that all
//! see the same growth. CPU is user + system time of the writing thread.

use base::{
    CameraId, Detection, DeviceId, FrameDetections, FrameId, Generation, MediaTime, ModelId, Rect,
    Size, Stages, TrackId, UtcNanos,
};
use benches::thread_cpu;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use store::{EventOptions, EventQuery, EventReader, EventStore, NewEvent};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const SIZES: [usize; 3] = [1, 16, 256];
const ROUND: Duration = Duration::from_millis(500);
const CAMERAS: u64 = 16;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1)).cloned()
    };
    let seconds: f64 = value("--seconds").unwrap_or("30".into()).parse()?;
    let parent = PathBuf::from(value("--dir").unwrap_or(".".into()));
    let directory = tempfile::Builder::new().prefix("store_commit.").tempdir_in(&parent)?;
    let options = EventOptions { free_space_floor_bytes: 0, ..EventOptions::default() };
    let (mut writer, reader) = EventStore::open(directory.path(), options)?;

    let mut measured = SIZES.map(|_| Measured::default());
    let mut events = Events { next: 0 };
    let rounds = (seconds / ROUND.as_secs_f64() / SIZES.len() as f64).ceil() as usize;
    for _ in 0..rounds.max(1) {
        for (size, measured) in SIZES.iter().zip(&mut measured) {
            let start = Instant::now();
            while start.elapsed() < ROUND {
                // Made outside the measured time.
                let batch = events.batch(*size);
                let (wall, cpu) = (Instant::now(), thread_cpu());
                let stored = writer.append(&batch)?;
                measured.add(wall.elapsed(), thread_cpu() - cpu, stored.len());
            }
        }
    }
    println!("commit  commits  events/s  p50 ms  p99 ms  CPU us/event");
    for (size, measured) in SIZES.iter().zip(&mut measured) {
        measured.print(*size);
    }
    lists(&reader)?;
    let file = std::fs::read_dir(directory.path().join("events"))?
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|metadata| metadata.len())
        .sum::<u64>();
    let stored = events.next;
    println!("{stored} events in {} MiB, {} bytes each", file >> 20, file / stored.max(1));
    Ok(())
}

#[derive(Default)]
struct Measured {
    commits: Vec<Duration>,
    cpu: Duration,
    events: usize,
}

impl Measured {
    fn add(&mut self, wall: Duration, cpu: Duration, events: usize) {
        self.commits.push(wall);
        self.cpu += cpu;
        self.events += events;
    }

    fn print(&mut self, size: usize) {
        self.commits.sort_unstable();
        let wall: Duration = self.commits.iter().sum();
        let n = self.commits.len();
        println!(
            "{size:>6}  {n:>7}  {:>8.0}  {:>6.2}  {:>6.2}  {:>12.1}",
            self.events as f64 / wall.as_secs_f64(),
            self.commits[n / 2].as_secs_f64() * 1e3,
            self.commits[n * 99 / 100].as_secs_f64() * 1e3,
            self.cpu.as_secs_f64() * 1e6 / self.events as f64,
        );
    }
}

/// Events as a node makes them: cameras in turn at 10 fps, two models.
struct Events {
    next: u64,
}

impl Events {
    fn batch(&mut self, count: usize) -> Vec<NewEvent> {
        (0..count).map(|_| self.event()).collect()
    }

    fn event(&mut self) -> NewEvent {
        let n = self.next;
        self.next += 1;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at =
            |i: u64| (n.wrapping_mul(2_654_435_761).wrapping_add(i * 40_503) % 997) as f32 / 997.0;
        let detections = (0..7)
            .map(|i| {
                let (x, y) = (at(i) * 0.8, at(i + 7) * 0.8);
                Detection {
                    bbox: Rect { x1: x, y1: y, x2: x + 0.1, y2: y + 0.2 },
                    score: 0.4 + at(i + 14) * 0.6,
                    class_id: if i < 5 { 0 } else { 2 },
                    track: TrackId(0),
                }
            })
            .collect();
        NewEvent {
            camera: id::<CameraId>(&format!("camera-{:02}", n % CAMERAS)),
            model: id::<ModelId>(if (n / CAMERAS).is_multiple_of(2) {
                "nanodet_g_416"
            } else {
                "other"
            }),
            model_version: "1.0.0".into(),
            device: id::<DeviceId>("cpu"),
            capture_utc: UtcNanos(base::time::nanos(now) - 80_000_000),
            generation: Generation(base::time::nanos(now) / 1_000_000_000_000),
            frame_id: FrameId(n / CAMERAS),
            media: MediaTime(n / CAMERAS * 9000),
            frame: Size { width: 1920, height: 1080 },
            detections: FrameDetections { detections, ..FrameDetections::default() },
            stages: Stages::from_array(
                [20, 6_100, 900, 1_400, 0, 2_300, 38_000, 700, 150].map(Duration::from_micros),
            ),
            metadata: None,
        }
    }
}

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("the ids above are well-formed")
}

fn lists(reader: &EventReader) -> Fallible<()> {
    let all = EventQuery::default();
    let camera = EventQuery { camera: Some(id("camera-03")), ..all.clone() };
    let pair = EventQuery { model: Some(id("other")), class_id: Some(2), ..camera.clone() };
    for (name, query) in [("all", all), ("camera", camera), ("camera, model, class", pair)] {
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..200 {
            let start = Instant::now();
            reader.list(&query)?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        println!(
            "newest 100 by {name}: p50 {:.2} ms, p99 {:.2} ms",
            ms(times[100]),
            ms(times[198])
        );
    }
    Ok(())
}
