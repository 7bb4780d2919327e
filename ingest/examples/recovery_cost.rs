//! Time from the start of ingest to the first recorded picture of all cameras, over recordings as a
//! killed ingest leaves them.
//!
//! `cargo run --release -p ingest --example recovery_cost -- assets/pedestrians.mp4 64 7 3` lays 64
//! cameras with 7 days each below `$TMPDIR` (4.9 GB of indexes, and names: segments are links to one
//! file per day), starts ingest three times, and removes all of it. Before each start the indexes
//! leave the page cache, and the newest segment of each camera ends in half a fragment. Beside it:
//! the same without anything recorded, and what it takes to read every row of every day.
#![allow(clippy::unwrap_used)] // A tool for people who look at its output.

use base::time::NANOS_PER_SEC as SECOND;
use base::{CameraId, MediaTime, UtcNanos};
use ipc::desired::{DecodeMode, DesiredCamera, DesiredState, DesiredStream, FORMAT};
use ipc::directories::Directories;
use ipc::recording::{Day, Header, Recordings, Row, SegmentName, read_index};
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn camera(n: u64) -> CameraId {
    format!("c{n}").parse().unwrap()
}

fn directories(root: &Path) -> Directories {
    Directories { shm: root.join("shm"), runtime: root.join("run"), state: root.join("state") }
}

/// Runs ingest until `done` says so; how long that took.
fn ingest(root: &Path, clip: &Path, cameras: u64, mut done: impl FnMut() -> bool) -> Duration {
    let directories = directories(root);
    fs::create_dir_all(&directories.state).unwrap();
    let row = |n: u64| DesiredCamera {
        id: camera(n).to_string(),
        enabled: true,
        streams: vec![DesiredStream {
            name: "main".into(),
            url: format!("file://{}", clip.display()),
            transport: String::new(),
            roles: vec![],
            any_file: true,
        }],
        loop_offset_ms: 0,
        record: true,
        live: false,
        decode: DecodeMode::Off,
        deadline_ms: 500,
    };
    let state = DesiredState {
        format: FORMAT,
        epoch: base::Epoch(1),
        revision: 1,
        written_utc: String::new(),
        cameras: (0..cameras).map(row).collect(),
        subscriptions: vec![],
    };
    state.store(&directories.desired()).unwrap();
    let (trigger, stop) = ipc::stop::Stop::pair().unwrap();
    let options = ingest::Options {
        recording: ingest::RecordingOptions::new(directories.recordings()),
        directories,
        export_enabled: false,
        file_roots: vec![],
        decode_command: vec!["true".into()],
        webrtc: ingest::live::WebrtcOptions { udp_port: 0, ..Default::default() },
    };
    let start = Instant::now();
    let thread = std::thread::spawn(move || ingest::run(options, stop));
    while !done() {
        assert!(!thread.is_finished(), "ingest ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    let taken = start.elapsed();
    drop(trigger);
    thread.join().unwrap().unwrap();
    taken
}

fn last_row(index: &Path) -> Option<Row> {
    let file = File::open(index).ok()?;
    let rows = file.metadata().ok()?.len().checked_sub(128)? / 64;
    let mut bytes = [0; 64];
    file.read_exact_at(&mut bytes, 64 + rows * 64).ok()?;
    Row::decode(&bytes)
}

/// Whether every camera has a row of a picture that came since.
fn all_recorded(
    recordings: &Recordings,
    cameras: u64,
    since: UtcNanos,
) -> impl FnMut() -> bool + use<> {
    let mut left: Vec<CameraId> = (0..cameras).map(camera).collect();
    let recordings = recordings.clone();
    move || {
        let today = Day::of(ipc::clock::utc());
        left.retain(|camera| {
            let of = |day: Day| last_row(&recordings.day(camera, day).join("index"));
            [today, today.before()].map(of).into_iter().flatten().all(|row| row.start_utc < since)
        });
        left.is_empty()
    }
}

/// A segment as ingest writes it, and its rows.
fn template(root: &Path, clip: &Path) -> (Vec<u8>, Vec<Row>) {
    let recordings = Recordings::new(directories(root).recordings());
    let rows = || -> Vec<Row> {
        let days = recordings.days(&camera(0)).unwrap();
        days.iter().flat_map(|day| recordings.rows(&camera(0), *day).unwrap()).collect()
    };
    ingest(root, clip, 1, || {
        rows().last().map(|row| row.segment) > rows().first().map(|r| r.segment)
    });
    let mut rows = rows();
    let name = rows[0].segment;
    rows.retain(|row| row.segment == name);
    (fs::read(recordings.segment(&camera(0), name)).unwrap(), rows)
}

/// Lays `days` times 24 hours that end a minute ago; rows and bytes of indexes.
fn lay(
    recordings: &Recordings,
    of: &CameraId,
    days: u64,
    (bytes, rows): &(Vec<u8>, Vec<Row>),
) -> u64 {
    let now = ipc::clock::utc().0 - 60 * SECOND;
    let ticks: u64 = rows.iter().map(|row| u64::from(row.duration)).sum();
    let length = ticks * SECOND / MediaTime::RATE;
    let mut utc = now - days * 86_400 * SECOND;
    let (mut number, mut laid) = (0, 0);
    let mut open: Option<(Day, BufWriter<File>, PathBuf)> = None;
    while utc < now {
        let name = SegmentName::at(UtcNanos(utc));
        if open.as_ref().is_none_or(|(day, ..)| *day != name.day()) {
            let directory = recordings.day(of, name.day());
            fs::create_dir_all(&directory).unwrap();
            let whole = directory.join(name.to_string());
            fs::write(&whole, bytes).unwrap();
            let mut index = BufWriter::new(File::create(directory.join("index")).unwrap());
            index.write_all(&Header::default().encode()).unwrap();
            open = Some((name.day(), index, whole));
        } else if let Some((_, _, whole)) = &open {
            let path = recordings.segment(of, name);
            // The newest one is cut: it is a file of its own.
            if utc + length >= now {
                fs::write(path, bytes).unwrap();
            } else {
                fs::hard_link(whole, path).unwrap();
            }
        }
        for row in rows {
            let since = row.start_utc.0 - rows[0].start_utc.0;
            let row = Row { segment: name, start_utc: UtcNanos(utc + since), number, ..*row };
            open.as_mut().unwrap().1.write_all(&row.encode()).unwrap();
            number += 1;
            laid += 1;
        }
        utc += length;
    }
    laid
}

fn indexes(recordings: &Recordings, cameras: u64) -> Vec<PathBuf> {
    let of = |n: u64| {
        let days = recordings.days(&camera(n)).unwrap();
        days.into_iter().map(move |day| recordings.day(&camera(n), day).join("index"))
    };
    (0..cameras).flat_map(of).collect()
}

/// The indexes leave the page cache.
fn forget(paths: &[PathBuf]) {
    for path in paths {
        let file = File::open(path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [clip, numbers @ ..] = &arguments[..] else { panic!("{USAGE}") };
    let numbers: Vec<u64> = numbers.iter().map(|number| number.parse().expect(USAGE)).collect();
    let [cameras, days, runs] = numbers[..] else { panic!("{USAGE}") };
    let clip = fs::canonicalize(clip).unwrap();
    let place = std::env::temp_dir().join(format!("recovery-cost-{}", std::process::id()));
    let model = template(&place.join("model"), &clip);
    let root = place.join("node");
    let recordings = Recordings::new(directories(&root).recordings());
    let since = ipc::clock::utc();
    let empty = all_recorded(
        &Recordings::new(directories(&place.join("empty")).recordings()),
        cameras,
        since,
    );
    println!(
        "nothing recorded before: {:.2} s",
        ingest(&place.join("empty"), &clip, cameras, empty).as_secs_f64()
    );
    let rows: u64 = (0..cameras).map(|n| lay(&recordings, &camera(n), days, &model)).sum();
    println!(
        "laid {cameras} cameras x {days} days, {rows} rows, {:.1} GB of indexes",
        rows as f64 * 64e-9
    );
    for run in 1..=runs {
        for n in 0..cameras {
            let day = *recordings.days(&camera(n)).unwrap().last().unwrap();
            let last = last_row(&recordings.day(&camera(n), day).join("index")).unwrap();
            let path = recordings.segment(&camera(n), last.segment);
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            let from = model.1[0].offset as usize;
            file.write_all(&model.0[from..from + model.1[0].bytes as usize / 2]).unwrap();
        }
        let paths = indexes(&recordings, cameras);
        forget(&paths);
        let start = Instant::now();
        std::thread::scope(|scope| {
            for n in 0..cameras {
                let recordings = &recordings;
                scope.spawn(move || {
                    for day in recordings.days(&camera(n)).unwrap() {
                        recordings.segments(&camera(n), day).unwrap();
                        let path = recordings.day(&camera(n), day).join("index");
                        read_index(&path, UtcNanos(0)).unwrap();
                    }
                });
            }
        });
        let reading = start.elapsed();
        forget(&paths);
        let since = ipc::clock::utc();
        let taken = ingest(&root, &clip, cameras, all_recorded(&recordings, cameras, since));
        println!(
            "run {run}: all {cameras} recorded after {:.2} s; reading every row takes {:.2} s",
            taken.as_secs_f64(),
            reading.as_secs_f64()
        );
    }
    fs::remove_dir_all(place).unwrap();
}

const USAGE: &str = "usage: recovery_cost CLIP CAMERAS DAYS RUNS";
