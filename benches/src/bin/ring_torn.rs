//! Does a reader of the frame ring ever accept a torn frame?
//!
//! `cargo run -p benches --bin ring_torn -- [--full]`: a writer at full speed, 0, 1 and 16 polling
//! readers and one that is stopped and continued all the time, each in a process of its own. Every
//! word of a frame follows from its id, every accepted frame is checked whole. Readers take turns
//! at the newest frame and at the oldest live one, whose slot is the next to be overwritten.
//! `--full` reads 10 million frames of 64x64 and 20,000 of 1920x1080, otherwise a hundredth. Exits
//! non-zero when a torn frame was accepted, or when so few were torn that the run proves nothing.

use base::{
    CameraId, ColourMatrix, ColourRange, FrameFlags, FrameId, FrameInfo, MediaTime, Newest,
    Picture, Size,
};
use ipc::clock::{monotonic, utc};
use ipc::ring::{CopyError, RingReader, RingSpec, RingWriter};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use std::error::Error;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// First argument of a reader process.
const READER: &str = "--reader";
/// Found in the shared-memory root by readers without a number of their own.
const STOP: &str = "stop";
/// Fewest tears of a full run that prove anything.
const TORN_MIN: u64 = 1000;
const SLOTS: u32 = 8;

fn camera() -> CameraId {
    CameraId::new("bench").expect("is an id")
}

fn word(id: u64, at: u64) -> u64 {
    (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

fn paint(id: u64, pixels: &mut [u8]) {
    for (at, eight) in pixels.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *eight = word(id, at as u64).to_ne_bytes();
    }
}

fn painted(id: u64, pixels: &[u8]) -> bool {
    let mut difference = 0;
    for (at, eight) in pixels.as_chunks::<8>().0.iter().enumerate() {
        difference |= word(id, at as u64) ^ u64::from_ne_bytes(*eight);
    }
    difference == 0
}

/// A reader process: ends after `reads` accepted frames, or when told to.
fn read(shm: &Path, reads: u64) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut reader = RingReader::new(shm, &camera());
    let mut pixels = Vec::new();
    let (mut bad, mut tries) = (0u64, 0u64);
    while reader.stats().copies < reads {
        tries += 1;
        if tries.is_multiple_of(256) && reads == u64::MAX && shm.join(STOP).exists() {
            break;
        }
        let Newest::Frame(stamp) = reader.newest(monotonic()) else { continue };
        let back = if tries.is_multiple_of(2) { u64::from(SLOTS) - 2 } else { 0 };
        let id = stamp.frame_id.0.saturating_sub(back).max(1);
        let slot = ((id - 1) % u64::from(SLOTS)) as u32;
        match reader.copy(stamp.generation, FrameId(id), slot, &mut pixels) {
            Ok(record) => {
                let right = record.info.media == MediaTime(id) && painted(id, &pixels);
                bad += u64::from(!right || pixels.len() != record.picture.size.nv12_bytes());
            }
            Err(CopyError::Torn) => {}
            Err(error) => return Err(error.into()),
        }
    }
    println!("{} {} {bad}", reader.stats().copies, reader.stats().torn);
    Ok(())
}

fn start(shm: &Path, reads: u64) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(READER).arg(shm).arg(reads.to_string()).stdout(Stdio::piped());
    Ok(command.spawn()?)
}

/// Accepted, torn and badly accepted frames.
#[derive(Default, Clone, Copy)]
struct Counts {
    accepted: u64,
    torn: u64,
    bad: u64,
}

fn finish(mut child: Child) -> Result<Counts> {
    let mut text = String::new();
    child.stdout.take().ok_or("no pipe")?.read_to_string(&mut text)?;
    let status = child.wait()?;
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    match numbers[..] {
        [accepted, torn, bad] if status.success() => Ok(Counts { accepted, torn, bad }),
        _ => Err(format!("a reader ended with {status} and `{text}`").into()),
    }
}

/// Ends the writer's thread on every way out.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn write(writer: &mut RingWriter, stop: &AtomicBool) -> u64 {
    let mut frames = 0;
    let info = FrameInfo {
        media: MediaTime(0),
        capture: monotonic(),
        capture_utc: utc(),
        decode_start: monotonic(),
        flags: FrameFlags::default(),
    };
    while !stop.load(Ordering::Relaxed) {
        let id = writer.last_frame_id().map_or(1, |id| id.0 + 1);
        let mut slot = writer.begin();
        paint(id, slot.pixels());
        slot.publish(&FrameInfo { media: MediaTime(id), ..info });
        frames += 1;
    }
    frames
}

/// One line of the table.
fn phase(root: &Path, size: Size, readers: u64, reads: u64) -> Result<Counts> {
    let shm = tempfile::tempdir_in(root)?;
    let picture =
        Picture { size, matrix: ColourMatrix::Unspecified, range: ColourRange::Unspecified };
    let spec = RingSpec { camera: camera(), picture, slots: SLOTS };
    let mut writer = RingWriter::create(shm.path(), &spec)?;
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let (counts, frames) = std::thread::scope(|scope| {
        let writing = scope.spawn(|| write(&mut writer, &stop));
        let on_drop = StopOnDrop(&stop);
        let stopped = start(shm.path(), u64::MAX)?;
        let polling = (0..readers)
            .map(|_| start(shm.path(), reads / readers))
            .collect::<Result<Vec<Child>>>()?;
        let done = AtomicBool::new(false);
        let mut counts = std::thread::scope(|scope| -> Result<Counts> {
            let stopper = scope.spawn(|| -> Result<()> {
                let pid = Pid::from_child(&stopped);
                while !done.load(Ordering::Relaxed) {
                    kill_process(pid, Signal::STOP)?;
                    std::thread::sleep(Duration::from_millis(20));
                    kill_process(pid, Signal::CONT)?;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            });
            let done = StopOnDrop(&done);
            let mut sum = Counts::default();
            for child in polling {
                let counts = finish(child)?;
                sum.accepted += counts.accepted;
                sum.torn += counts.torn;
                sum.bad += counts.bad;
            }
            if readers == 0 {
                std::thread::sleep(Duration::from_secs(3));
            }
            drop(done);
            stopper.join().map_err(|_| "the stopper panicked")??;
            Ok(sum)
        })?;
        std::fs::write(shm.path().join(STOP), "")?;
        let last = finish(stopped)?;
        drop(on_drop);
        let frames = writing.join().map_err(|_| "the writer panicked")?;
        println!(
            "{:>9}  {readers:>7}  {:>10}  {:>9}  {:>8}  {:>8}  {:>8}  {:>4}  {:>6.1}",
            format!("{}x{}", size.width, size.height),
            frames,
            (frames as f64 / began.elapsed().as_secs_f64()) as u64,
            counts.accepted,
            counts.torn,
            last.torn,
            counts.bad + last.bad,
            began.elapsed().as_secs_f64(),
        );
        counts.torn += last.torn;
        counts.bad += last.bad;
        Result::Ok((counts, frames))
    })?;
    if frames < u64::from(SLOTS) {
        return Err("the writer stood still".into());
    }
    writer.remove()?;
    Ok(counts)
}

fn run(full: bool) -> Result<bool> {
    let root = PathBuf::from("/dev/shm");
    let root = if root.is_dir() { root } else { std::env::temp_dir() };
    let share = if full { 1 } else { 100 };
    println!(
        "     size  readers     written  written/s  accepted      torn  torn (s)   bad  seconds\n\
         (one more reader is stopped for 20 ms, continued for 5 ms, and so on: its tears are (s))"
    );
    let mut sum = Counts::default();
    for (width, height, reads) in [(64, 64, 10_000_000), (1920, 1080, 20_000)] {
        for readers in [0, 1, 16] {
            let reads = reads / share / 2;
            let counts = phase(&root, Size { width, height }, readers, reads)?;
            sum.accepted += counts.accepted;
            sum.torn += counts.torn;
            sum.bad += counts.bad;
        }
    }
    println!(
        "{} frames accepted by polling readers, {} torn and refused, {} torn and accepted",
        sum.accepted, sum.torn, sum.bad
    );
    let enough = sum.torn >= TORN_MIN / share;
    if !enough {
        println!("too few tears to prove anything: at least {} are wanted", TORN_MIN / share);
    }
    Ok(enough && sum.bad == 0)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        [READER, shm, reads] => {
            reads.parse().map_err(Into::into).and_then(|n| read(shm.as_ref(), n)).map(|()| true)
        }
        [] => run(false),
        ["--full"] => run(true),
        _ => Err("usage: ring_torn [--full]".into()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ring_torn: {error}");
            ExitCode::FAILURE
        }
    }
}
