//! CPU time per frame of the video path: source and pacing, transport, decode and export.
//!
//! `cargo run -p ingest --example cost -- assets/pedestrians.mp4 20 2` plays the clip for 20 s on
//! two cameras, in real time, and reads the threads' CPU time from /proc. A URL (`rtsp://...`) in
//! place of the clip measures an RTSP session.
#![allow(clippy::unwrap_used)] // A tool for people who look at its output.

use ipc::desired::{DecodeMode, DesiredCamera, DesiredState, DesiredStream, FORMAT};
use ipc::directories::Directories;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// CPU time of every thread of a process, by name.
fn cpu(process: u32) -> Vec<(String, Duration)> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let read = |task: std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let schedstat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanos = schedstat.split(' ').next()?.parse().ok()?;
        Some((name.trim_end().to_owned(), Duration::from_nanos(nanos)))
    };
    tasks.filter_map(|task| read(task.ok()?)).collect()
}

/// CPU time of this process and its children by kind of thread, and the frame ids of the cameras.
fn state(directories: &Directories) -> (Vec<(&'static str, Duration)>, u64) {
    let mut all = cpu(std::process::id());
    for entry in std::fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let ours = format!(" {} ", std::process::id());
        if stat.rsplit_once(')').is_some_and(|(_, rest)| rest[2..].starts_with(&ours)) {
            all.extend(cpu(process));
        }
    }
    let kinds = [("cam:", "source"), ("link:", "transport"), ("dec:", "worker")];
    let sum = |prefix: &str| all.iter().filter(|t| t.0.starts_with(prefix)).map(|t| t.1).sum();
    let times = kinds.map(|(prefix, what)| (what, sum(prefix))).to_vec();
    let cameras = ipc::ring::list(&directories.shm).unwrap();
    let newest = |camera| ipc::ring::inspect(&directories.shm, camera).ok()?.newest;
    (times, cameras.iter().filter_map(newest).map(|stamp| stamp.frame_id.0).sum())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [clip, seconds, cameras] = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        ["decode"] => return ingest::decode_main(),
        [clip, seconds, cameras] => [clip, seconds, cameras],
        _ => panic!("usage: cost CLIP|URL SECONDS CAMERAS"),
    };
    let url = match clip.contains("://") {
        true => clip.to_owned(),
        false => format!("file://{}", std::fs::canonicalize(clip).unwrap().display()),
    };
    let root = std::env::temp_dir().join(format!("ingest-cost-{}", std::process::id()));
    let directories = Directories {
        shm: format!("/dev/shm/ingest-cost-{}", std::process::id()).into(),
        runtime: root.join("run"),
        state: root.join("state"),
    };
    std::fs::create_dir_all(&directories.state).unwrap();
    let row = |n: u64| DesiredCamera {
        id: format!("c{n}"),
        enabled: true,
        streams: vec![DesiredStream {
            name: "main".into(),
            url: url.clone(),
            transport: String::new(),
            roles: vec![],
            any_file: true,
        }],
        loop_offset_ms: n * 7_030,
        record: false,
        live: false,
        decode: DecodeMode::Full,
        deadline_ms: 500,
    };
    let state_file = DesiredState {
        format: FORMAT,
        epoch: base::Epoch(1),
        revision: 1,
        written_utc: String::new(),
        cameras: (0..cameras.parse().unwrap()).map(row).collect(),
        subscriptions: vec![],
    };
    state_file.store(&directories.desired()).unwrap();
    let (trigger, stop) = ipc::stop::Stop::pair().unwrap();
    let options = ingest::Options {
        directories: directories.clone(),
        export_enabled: true,
        file_roots: vec![],
        decode_command: vec![std::env::current_exe().unwrap().into(), "decode".into()],
        recording: ingest::RecordingOptions::new(directories.recordings()),
        webrtc: ingest::live::WebrtcOptions { udp_port: 0, ..Default::default() },
    };
    let thread = std::thread::spawn(move || ingest::run(options, stop));
    std::thread::sleep(Duration::from_secs(3));
    let (start, (before, first)) = (Instant::now(), state(&directories));
    std::thread::sleep(Duration::from_secs(seconds.parse().unwrap()));
    let (elapsed, (after, last)) = (start.elapsed(), state(&directories));
    drop(trigger);
    thread.join().unwrap().unwrap();
    std::fs::remove_dir_all(root).unwrap();
    let frames = last - first;
    println!("{frames} frames in {:.2} s", elapsed.as_secs_f64());
    for ((what, before), (_, after)) in before.iter().zip(&after) {
        let per_frame = (*after - *before).as_secs_f64() * 1e6 / frames as f64;
        println!("{what}: {per_frame:.0} us per frame");
    }
    ExitCode::SUCCESS
}
