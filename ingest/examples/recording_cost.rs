//! CPU time of recording, beside `ffmpeg -c copy` of the same clip at the same time.
//!
//! `cargo run --release -p ingest --example recording_cost -- assets/pedestrians.mp4 30 4` records
//! the clip on four cameras for 30 s in real time, and lets four ffmpeg processes do the same.
#![allow(clippy::unwrap_used)] // A tool for people who look at its output.

use ipc::desired::{DecodeMode, DesiredCamera, DesiredState, DesiredStream, FORMAT};
use ipc::directories::Directories;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// CPU time of the threads of a process, by name.
fn threads(process: u32) -> Vec<(String, Duration)> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let read = |task: std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let schedstat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanos = schedstat.split(' ').next()?.parse().ok()?;
        Some((name.trim_end().to_owned(), Duration::from_nanos(nanos)))
    };
    tasks.filter_map(|task| read(task.ok()?)).collect()
}

fn sum(threads: &[(String, Duration)], kinds: &[&str]) -> Duration {
    let of = |name: &str| kinds.iter().any(|kind| name.starts_with(kind));
    threads.iter().filter(|(name, _)| of(name)).map(|(_, time)| *time).sum()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [clip, seconds, cameras] = &arguments[..] else {
        panic!("usage: recording_cost CLIP SECONDS CAMERAS");
    };
    let clip = std::fs::canonicalize(clip).unwrap();
    let (seconds, cameras): (u64, u64) = (seconds.parse().unwrap(), cameras.parse().unwrap());
    let root = std::env::temp_dir().join(format!("recording-cost-{}", std::process::id()));
    let directories =
        Directories { shm: root.join("shm"), runtime: root.join("run"), state: root.join("state") };
    std::fs::create_dir_all(&directories.state).unwrap();
    let row = |n: u64| DesiredCamera {
        id: format!("c{n}"),
        enabled: true,
        streams: vec![DesiredStream {
            name: "main".into(),
            url: format!("file://{}", clip.display()),
            transport: String::new(),
            roles: vec![],
            any_file: true,
        }],
        loop_offset_ms: n * 700,
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
        directories: directories.clone(),
        export_enabled: false,
        file_roots: vec![],
        decode_command: vec!["true".into()],
        recording: ingest::RecordingOptions::new(directories.recordings()),
        webrtc: ingest::live::WebrtcOptions { udp_port: 0, ..Default::default() },
    };
    let thread = std::thread::spawn(move || ingest::run(options, stop));
    let rival = |n: u64| -> Child {
        let folder = root.join(format!("ffmpeg{n}"));
        std::fs::create_dir_all(&folder).unwrap();
        let input = ["-nostdin", "-v", "error", "-re", "-stream_loop", "-1", "-i"];
        let copy = ["-map", "0:v", "-c", "copy", "-flush_packets", "1", "-f", "segment"];
        let format = ["-segment_time", "6", "-segment_format", "mp4", "-segment_format_options"];
        Command::new("ffmpeg")
            .args(input)
            .arg(&clip)
            .args(copy)
            .args(format)
            .arg("movflags=+frag_keyframe+empty_moov+default_base_moof:flush_packets=1")
            .arg(folder.join("%05d.mp4"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut rivals: Vec<Child> = (0..cameras).map(rival).collect();
    // Both have opened what they read, and stand in the middle of their work.
    std::thread::sleep(Duration::from_secs(3));
    let look = || {
        let ours = threads(std::process::id());
        let theirs: Duration = rivals.iter().map(|rival| sum(&threads(rival.id()), &[""])).sum();
        (sum(&ours, &["rec:"]), sum(&ours, &["rec:", "cam:"]), theirs)
    };
    let before = look();
    std::thread::sleep(Duration::from_secs(seconds));
    let after = look();
    for rival in &mut rivals {
        rival.kill().unwrap();
        rival.wait().unwrap();
    }
    drop(trigger);
    thread.join().unwrap().unwrap();
    std::fs::remove_dir_all(root).unwrap();
    let share = |time: Duration| time.as_secs_f64() * 1e3 / (seconds * cameras) as f64;
    let [recorder, ours, theirs] =
        [after.0 - before.0, after.1 - before.1, after.2 - before.2].map(share);
    println!("{cameras} cameras, {seconds} s; CPU milliseconds per camera and second:");
    println!("recorder alone {recorder:.2}, with source and pacing {ours:.2}");
    println!("ffmpeg -c copy {theirs:.2}; ratio {:.2}", ours / theirs);
}
