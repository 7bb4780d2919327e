//! CPU time per frame, three ways side by side on the same paced stream: this product's transport
//! and decode worker into the ring; decoding alone with the same library; the ffmpeg program into
//! an NV12 pipe with a reader.
//!
//! `cargo run --release -p ingest --example decode_cost -- 60 1280x720 25` makes a clip with the
//! ffmpeg program (libx264, no B-frames, 2 s between key frames) and plays it for 60 s.
#![allow(clippy::unwrap_used)] // A tool for people who look at its output.

use ffmpeg_next as ff;
use ipc::desired::{DecodeMode, DesiredCamera, DesiredState, DesiredStream, FORMAT};
use ipc::directories::Directories;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// CPU time of the threads of a process whose names begin with `prefix`.
fn cpu(process: u32, prefix: &str) -> Duration {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return Duration::ZERO;
    };
    let read = |task: std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let schedstat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanos = schedstat.split(' ').next()?.parse().ok()?;
        name.starts_with(prefix).then(|| Duration::from_nanos(nanos))
    };
    tasks.filter_map(|task| read(task.ok()?)).sum()
}

/// The decode workers that `process` started.
fn workers(process: u32) -> Vec<u32> {
    let children = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let child = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        let (name, rest) = stat.rsplit_once(')')?;
        let parent: u32 = rest.split(' ').nth(2)?.parse().ok()?;
        (parent == process && name.contains("(dec:")).then_some(child)
    });
    children.collect()
}

/// Decodes the clip's packets in memory at `fps`, for ever. Prints a line per second: frames.
fn decode_only(clip: &Path, fps: f64) -> ! {
    ff::init().unwrap();
    let mut input = ff::format::input(clip).unwrap();
    let stream = input.streams().best(ff::media::Type::Video).unwrap();
    let (index, parameters) = (stream.index(), stream.parameters());
    let packets: Vec<ff::Packet> = input
        .packets()
        .filter(|(stream, _)| stream.index() == index)
        .map(|(_, packet)| packet)
        .collect();
    let codec = ff::decoder::find(parameters.id()).unwrap();
    let mut context = ff::codec::context::Context::from_parameters(parameters).unwrap();
    context.set_flags(ff::codec::flag::Flags::LOW_DELAY);
    let kind = ff::threading::Type::Slice;
    context.set_threading(ff::threading::Config { kind, count: 1, ..Default::default() });
    let mut decoder = context.decoder().open_as(codec).unwrap().video().unwrap();
    let mut frame = ff::frame::Video::empty();
    let start = Instant::now();
    let mut frames = 0u64;
    for (n, packet) in packets.iter().cycle().enumerate() {
        let due = start + Duration::from_secs_f64(n as f64 / fps);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        decoder.send_packet(packet).unwrap();
        while decoder.receive_frame(&mut frame).is_ok() {
            frames += 1;
            if frames.is_multiple_of(25) {
                println!("{frames}");
            }
        }
    }
    unreachable!("the clip has packets and is played for ever");
}

/// Reads whole frames from standard input, as somebody who wants pictures would.
fn read_frames(bytes: usize) -> ! {
    let mut input = std::io::stdin().lock();
    let mut frame = vec![0; bytes];
    let mut frames = 0u64;
    while input.read_exact(&mut frame).is_ok() {
        frames += 1;
        if frames.is_multiple_of(25) {
            println!("{frames}");
        }
    }
    std::process::exit(0);
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (seconds, size, fps) = match words[..] {
        ["decode"] => return ingest::decode_main(),
        ["only", clip, fps] => decode_only(Path::new(clip), fps.parse().unwrap()),
        ["read", bytes] => read_frames(bytes.parse().unwrap()),
        [seconds, size, fps] => (seconds.parse::<u64>().unwrap(), size, fps),
        _ => panic!("usage: decode_cost SECONDS WIDTHxHEIGHT FPS"),
    };
    let (width, height) = size.split_once('x').unwrap();
    let bytes = width.parse::<usize>().unwrap() * height.parse::<usize>().unwrap() * 3 / 2;
    let root = std::env::temp_dir().join(format!("decode-cost-{}", std::process::id()));
    let directories = Directories {
        shm: format!("/dev/shm/decode-cost-{}", std::process::id()).into(),
        runtime: root.join("run"),
        state: root.join("state"),
    };
    std::fs::create_dir_all(&directories.state).unwrap();
    let clip = root.join("clip.mp4");
    let picture = format!("testsrc2=size={size}:rate={fps},noise=alls=12:allf=t");
    let gop = (2.0 * fps.parse::<f64>().unwrap()).to_string();
    let made = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", &picture, "-t", "20"])
        .args(["-c:v", "libx264", "-preset", "veryfast", "-profile:v", "main", "-bf", "0"])
        .args(["-b:v", if bytes > 2_000_000 { "4M" } else { "2M" }, "-g", &gop])
        .args(["-pix_fmt", "yuv420p"])
        .arg(&clip)
        .status()
        .unwrap();
    assert!(made.success(), "ffmpeg could not make the clip");

    let row = DesiredCamera {
        id: "c0".into(),
        enabled: true,
        streams: vec![DesiredStream {
            name: "main".into(),
            url: format!("file://{}", clip.display()),
            transport: String::new(),
            roles: vec![],
            any_file: true,
        }],
        loop_offset_ms: 0,
        record: false,
        live: false,
        decode: DecodeMode::Full,
        deadline_ms: 500,
    };
    let state = DesiredState {
        format: FORMAT,
        epoch: base::Epoch(1),
        revision: 1,
        written_utc: String::new(),
        cameras: vec![row],
        subscriptions: vec![],
    };
    state.store(&directories.desired()).unwrap();
    let me = std::env::current_exe().unwrap();
    let (trigger, stop) = ipc::stop::Stop::pair().unwrap();
    let options = ingest::Options {
        directories: directories.clone(),
        export_enabled: true,
        file_roots: vec![],
        decode_command: vec![me.clone().into(), "decode".into()],
        recording: ingest::RecordingOptions::new(directories.recordings()),
        webrtc: ingest::live::WebrtcOptions { udp_port: 0, ..Default::default() },
    };
    let ours = std::thread::spawn(move || ingest::run(options, stop));
    let clip_text = clip.to_str().unwrap();
    let silent = |command: &mut Command| Ended(command.stdout(Stdio::null()).spawn().unwrap());
    let only = silent(Command::new(&me).args(["only", clip_text, fps]));
    let mut program = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-re", "-stream_loop", "-1", "-threads", "1"])
        .args(["-i", clip_text, "-f", "rawvideo", "-pix_fmt", "nv12", "pipe:1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pipe = program.stdout.take().unwrap();
    let reader = silent(Command::new(&me).args(["read", &bytes.to_string()]).stdin(pipe));
    let program = Ended(program);

    std::thread::sleep(Duration::from_secs(3));
    let camera = base::CameraId::new("c0").unwrap();
    let frames = || {
        let newest =
            ipc::ring::inspect(&directories.shm, &camera).ok().and_then(|ring| ring.newest);
        newest.map_or(0, |stamp| stamp.frame_id.0)
    };
    let measure = || {
        let (pid, workers) = (std::process::id(), workers(std::process::id()));
        let decode = workers.iter().map(|&worker| cpu(worker, "")).sum::<Duration>();
        let ours = cpu(pid, "link:") + decode;
        [ours, cpu(only.0.id(), ""), cpu(program.0.id(), "") + cpu(reader.0.id(), "")]
    };
    let (first, before) = (frames(), measure());
    std::thread::sleep(Duration::from_secs(seconds));
    let (last, after) = (frames(), measure());
    drop((reader, program, only, trigger));
    ours.join().unwrap().unwrap();
    std::fs::remove_dir_all(root).unwrap();

    let played = (last - first) as f64;
    let [ours, only, program] =
        [0, 1, 2].map(|n| (after[n] - before[n]).as_secs_f64() * 1e3 / played);
    println!("{played} frames of {size} at {fps} fps, CPU time per frame:");
    println!("  transport, decode, ring          {ours:.2} ms");
    println!("  decoding alone, same library     {only:.2} ms   ratio {:.2}", ours / only);
    println!("  ffmpeg to an NV12 pipe, reader   {program:.2} ms   ratio {:.2}", ours / program);
    ExitCode::SUCCESS
}
