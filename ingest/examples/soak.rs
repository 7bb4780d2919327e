//! Many RTSP cameras recorded for a long time: whether memory or descriptors grow, and whether the
//! recordings are whole.
//!
//! `cargo run --release -p ingest --example soak -- 600 16` makes a clip with the ffmpeg program
//! (1280x720, 10 pictures a second), serves it from 16 cameras in a process of their own, and keeps
//! them with an ingest in another one for 600 s. Ends with 1 when something grew or was lost.
#![allow(clippy::unwrap_used)] // A tool for people who look at its output.

use base::CameraId;
use fake_camera::{Camera, Clip, Settings};
use ingest::RecordingOptions;
use ingest::live::WebrtcOptions;
use ipc::clock;
use ipc::desired::{DecodeMode, DesiredCamera, DesiredState, DesiredStream, FORMAT};
use ipc::directories::Directories;
use ipc::ingest_message::{Request, StreamState, call};
use ipc::recording::{Recordings, connected};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const FPS: f64 = 10.0;
/// Seconds between two looks at the process.
const LOOK: u64 = 10;
/// Seconds at the start that are not judged: buffers and caches fill.
const WARM: u64 = 60;
/// Growth of memory that is noise of the allocator (chosen: 16 cameras hold about 60 MiB).
const NOISE_KIB: u64 = 4096;

fn directories(root: &Path) -> Directories {
    let shm = root.join("shm");
    Directories { shm, runtime: root.join("run"), state: root.join("state") }
}

/// Cameras until standard input ends; their addresses are printed.
fn cameras(clip: &Path, count: usize) {
    let clip = Clip::read(clip).unwrap();
    let start = |_| Camera::start(Settings::new(clip.clone(), FPS)).unwrap();
    let cameras: Vec<Camera> = (0..count).map(start).collect();
    for camera in &cameras {
        println!("{}", camera.url());
    }
    let _ = std::io::stdin().read(&mut [0]);
}

/// An ingest until standard input ends.
fn keep(root: &Path) {
    let directories = directories(root);
    let (trigger, stop) = ipc::stop::Stop::pair().unwrap();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        drop(trigger);
    });
    let options = ingest::Options {
        recording: RecordingOptions::new(directories.recordings()),
        directories,
        export_enabled: false,
        file_roots: vec![],
        decode_command: vec!["true".into()],
        webrtc: WebrtcOptions { udp_port: 0, ..WebrtcOptions::default() },
    };
    ingest::run(options, stop).unwrap();
}

fn again(arguments: &[&str]) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Resident memory in KiB, descriptors, threads, CPU time of a process.
fn look(process: u32) -> (u64, usize, u64, Duration) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    let cpu = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
    });
    (field("VmRSS:"), descriptors, field("Threads:"), cpu.sum())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (seconds, count) = match words[..] {
        ["cameras", clip, count] => {
            cameras(Path::new(clip), count.parse().unwrap());
            return ExitCode::SUCCESS;
        }
        ["ingest", root] => {
            keep(Path::new(root));
            return ExitCode::SUCCESS;
        }
        [seconds, count] => (seconds.parse::<u64>().unwrap(), count),
        _ => panic!("usage: soak SECONDS CAMERAS"),
    };
    let root = tempfile::tempdir().unwrap();
    let directories = directories(root.path());
    std::fs::create_dir_all(&directories.state).unwrap();
    let clip = root.path().join("clip.h264");
    let made = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-f", "lavfi", "-t", "20"])
        .args(["-i", "testsrc2=size=1280x720:rate=10,noise=alls=12:allf=t"])
        .args(["-c:v", "libx264", "-preset", "veryfast", "-profile:v", "main", "-bf", "0"])
        .args(["-b:v", "1500k", "-g", "20", "-pix_fmt", "yuv420p"])
        .arg(&clip)
        .status()
        .unwrap();
    assert!(made.success(), "ffmpeg could not make the clip");
    let mut sources = again(&["cameras", clip.to_str().unwrap(), count]);
    let count: usize = count.parse().unwrap();
    let lines = BufReader::new(sources.stdout.take().unwrap()).lines();
    let addresses: Vec<String> = lines.take(count).map(Result::unwrap).collect();
    let row = |(n, url): (usize, &String)| DesiredCamera {
        id: format!("c{n}"),
        enabled: true,
        streams: vec![DesiredStream {
            name: "main".into(),
            url: url.clone(),
            transport: "tcp".into(),
            roles: vec![],
            any_file: true,
        }],
        loop_offset_ms: 0,
        record: true,
        live: true,
        decode: DecodeMode::Off,
        deadline_ms: 500,
    };
    let state = DesiredState {
        format: FORMAT,
        epoch: base::Epoch(1),
        revision: 1,
        written_utc: String::new(),
        cameras: addresses.iter().enumerate().map(row).collect(),
        subscriptions: vec![],
    };
    state.store(&directories.desired()).unwrap();
    let mut ingest = again(&["ingest", root.path().to_str().unwrap()]);
    let socket = directories.ingest_socket();
    let live = || {
        let answer = call(&socket, &Request::Status, Duration::from_secs(5)).unwrap_or_default();
        let recorded =
            |s: &&ipc::ingest_message::StreamStatus| s.state == StreamState::Live && s.recording;
        answer.streams.iter().filter(recorded).count()
    };
    let begun = Instant::now();
    while live() < count {
        assert!(begun.elapsed() < Duration::from_secs(60), "only {} cameras are recorded", live());
        std::thread::sleep(Duration::from_millis(100));
    }
    let (first, start) = (clock::utc(), Instant::now());
    println!("{count} cameras recorded after {:.1} s", begun.elapsed().as_secs_f64());

    let mut looks = Vec::new();
    while start.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_secs(LOOK));
        let (kib, descriptors, threads, cpu) = look(ingest.id());
        let second = start.elapsed().as_secs();
        println!(
            "{second:5} s: {:.1} MiB, {descriptors} descriptors, {threads} threads, {:.1} s CPU, \
             {} of {count} live and recorded",
            kib as f64 / 1024.0,
            cpu.as_secs_f64(),
            live()
        );
        looks.push((second, kib, descriptors));
    }
    let last = clock::utc();
    drop(ingest.stdin.take());
    assert!(ingest.wait().unwrap().success());
    drop(sources.stdin.take());
    sources.wait().unwrap();

    let mut bad = false;
    let recordings = Recordings::new(directories.recordings());
    let (mut segments, mut frames, mut bytes) = (0, 0, 0);
    for n in 0..count {
        let camera = CameraId::new(&format!("c{n}")).unwrap();
        let rows = recordings.window(&camera, first, last).unwrap();
        for day in recordings.days(&camera).unwrap() {
            segments += recordings.segments(&camera, day).unwrap().len();
        }
        frames += rows.iter().map(|row| u64::from(row.frames)).sum::<u64>();
        bytes += rows.iter().map(|row| u64::from(row.bytes)).sum::<u64>();
        for pair in rows.windows(2).filter(|pair| !connected(&pair[0], &pair[1])) {
            println!("LOST: {camera} has a gap at {:?}", pair[1].start_utc);
            bad = true;
        }
    }
    let elapsed = (last.0 - first.0) as f64 / 1e9;
    let expected = elapsed * FPS * count as f64;
    println!(
        "{segments} segments, {frames} pictures of {expected:.0} expected, {:.1} MB",
        bytes as f64 / 1e6
    );
    if (frames as f64) < expected * 0.99 {
        println!("LOST: {:.2} % of the pictures", 100.0 - frames as f64 / expected * 100.0);
        bad = true;
    }
    // Memory goes up and down with the cached groups of pictures: its highest of the first part of
    // the run is held against that of the rest.
    let judged: Vec<_> = looks.iter().filter(|(second, ..)| *second >= WARM).collect();
    let (early, late) = judged.split_at(judged.len() / 3);
    let most = |looks: &[&(u64, u64, usize)]| {
        let kib = looks.iter().map(|look| look.1).max();
        kib.zip(looks.iter().map(|look| look.2).max())
    };
    if let (Some(before), Some(after)) = (most(early), most(late)) {
        println!(
            "most in the first third after {WARM} s and later: memory {} and {} KiB, descriptors \
             {} and {}",
            before.0, after.0, before.1, after.1
        );
        if after.0 > before.0 + NOISE_KIB || after.1 > before.1 {
            println!("GREW");
            bad = true;
        }
    }
    if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
