//! What do readers of the frame ring cost its writer?
//!
//! `cargo run -p benches --bin ring_writer_cost -- [CYCLES]`: a writer of 1920x1080 at 25 fps beside
//! 16 processes that poll the ring every millisecond and copy 5 frames a second each, beside 16
//! processes that do the same with memory of their own, and beside none. The three take turns
//! within one run (whose turn it is not, is stopped). Counted is the writer's thread CPU time from
//! opening the slot to having published, with the picture copied in from memory as a decoder's
//! output would be. Prints the median per turn and the ratio of the first two per cycle.

use base::{
    CameraId, ColourMatrix, ColourRange, FrameFlags, FrameInfo, MediaTime, Newest, Picture, Size,
};
use benches::thread_cpu;
use ipc::clock::{monotonic, utc};
use ipc::ring::{RingReader, RingSpec, RingWriter};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use std::error::Error;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SIZE: Size = Size { width: 1920, height: 1080 };
const READERS: u32 = 16;
const FPS: u32 = 25;
const POLL: Duration = Duration::from_millis(1);
const COPY_PERIOD: Duration = Duration::from_millis(200);
/// Frames of a turn, and how many of them are not counted: the others' caches are still warm.
const TURN: u32 = 100;
const SETTLE: u32 = 15;
/// Pictures that the writer copies in, so that they don't stay in the first-level cache.
const SOURCES: usize = 4;

fn camera() -> CameraId {
    CameraId::new("bench").expect("is an id")
}

/// A process that polls and copies: the ring, or memory of its own.
fn read(shm: &Path, number: u32, private: bool) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut reader = RingReader::new(shm, &camera());
    let own = vec![7u8; SIZE.nv12_bytes()];
    let mut pixels = Vec::with_capacity(SIZE.nv12_bytes());
    let mut due = Instant::now() + COPY_PERIOD * number / READERS;
    loop {
        std::thread::sleep(POLL);
        let now = Instant::now();
        if private {
            if now >= due {
                pixels.clear();
                pixels.extend_from_slice(black_box(&own));
            }
        } else if let Newest::Frame(stamp) = reader.newest(monotonic())
            && now >= due
        {
            let (generation, id, slot) = (stamp.generation, stamp.frame_id, stamp.slot);
            let _ = reader.copy(generation, id, slot, &mut pixels);
        }
        black_box(&mut pixels);
        if now >= due {
            // Never a burst after having been stopped.
            due = (due + COPY_PERIOD).max(now);
        }
    }
}

/// Processes that end with this one's interest in them.
struct Group(Vec<Child>);

impl Group {
    fn start(shm: &Path, mode: &str) -> Result<Group> {
        let mut group = Group(Vec::new());
        for number in 0..READERS {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg(mode).arg(shm).arg(number.to_string());
            group.0.push(command.spawn()?);
        }
        Ok(group)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        for child in &self.0 {
            kill_process(Pid::from_child(child), signal)?;
        }
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself; then there is nothing to do.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Median CPU time per frame of one turn, in microseconds.
fn turn(writer: &mut RingWriter, sources: &[Vec<u8>]) -> f64 {
    let period = Duration::from_secs(1) / FPS;
    let began = Instant::now();
    let mut costs = Vec::new();
    for n in 0..TURN {
        std::thread::sleep((began + period * n).saturating_duration_since(Instant::now()));
        let source = &sources[n as usize % sources.len()];
        let info = FrameInfo {
            media: MediaTime(u64::from(n) * 3600),
            capture: monotonic(),
            capture_utc: utc(),
            decode_start: monotonic(),
            flags: FrameFlags::default(),
        };
        let before = thread_cpu();
        let mut slot = writer.begin();
        slot.pixels().copy_from_slice(source);
        slot.publish(&info);
        let cost = thread_cpu() - before;
        if n >= SETTLE {
            costs.push(cost.as_secs_f64() * 1e6);
        }
        if n % FPS == 0 {
            writer.heartbeat();
        }
    }
    median(&mut costs)
}

fn run(cycles: usize) -> Result<()> {
    let root = PathBuf::from("/dev/shm");
    let root = if root.is_dir() { root } else { std::env::temp_dir() };
    let shm = tempfile::tempdir_in(root)?;
    let picture = Picture { size: SIZE, matrix: ColourMatrix::Bt709, range: ColourRange::Limited };
    let slots =
        ipc::ring::slots_for(f64::from(FPS), base::limits::DEADLINE_DEFAULT, Duration::ZERO);
    let spec = RingSpec { camera: camera(), picture, slots };
    let mut writer = RingWriter::create(shm.path(), &spec)?;
    let sources: Vec<Vec<u8>> =
        (0..SOURCES).map(|n| vec![n as u8 + 1; SIZE.nv12_bytes()]).collect();
    let shared = Group::start(shm.path(), "--shared")?;
    let private = Group::start(shm.path(), "--private")?;
    let cpus = std::thread::available_parallelism()?;
    println!(
        "{}x{} at {FPS} fps, {slots} slots, {cpus} CPUs; us per frame",
        SIZE.width, SIZE.height
    );
    println!("cycle  no readers  {READERS} of the ring  {READERS} of own memory  ratio");
    let (mut none, mut ring, mut own, mut ratios) = (vec![], vec![], vec![], vec![]);
    for cycle in 0..=cycles {
        shared.signal(Signal::STOP)?;
        private.signal(Signal::STOP)?;
        let alone = turn(&mut writer, &sources);
        // Which of the two comes first alternates.
        let mut pair = [0.0; 2];
        for step in 0..2 {
            let which = (step + cycle) % 2;
            let group = if which == 0 { &shared } else { &private };
            group.signal(Signal::CONT)?;
            pair[which] = turn(&mut writer, &sources);
            group.signal(Signal::STOP)?;
        }
        if cycle == 0 {
            // Warm-up: everybody maps and faults in.
            continue;
        }
        let ratio = pair[0] / pair[1];
        println!("{cycle:>5}  {alone:>10.1}  {:>14.1}  {:>16.1}  {ratio:>5.3}", pair[0], pair[1]);
        none.push(alone);
        ring.push(pair[0]);
        own.push(pair[1]);
        ratios.push(ratio);
    }
    println!(
        "median {:>10.1}  {:>14.1}  {:>16.1}  {:>5.3} (lowest {:.3}, highest {:.3})",
        median(&mut none),
        median(&mut ring),
        median(&mut own),
        median(&mut ratios),
        ratios[0],
        ratios[ratios.len() - 1],
    );
    drop((shared, private));
    writer.remove()?;
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let reader = |shm: &str, number: &str, private| {
        number.parse().map_err(Into::into).and_then(|n| read(shm.as_ref(), n, private))
    };
    let result = match arguments[..] {
        ["--shared", shm, number] => reader(shm, number, false),
        ["--private", shm, number] => reader(shm, number, true),
        [] => run(8),
        [cycles] => match cycles.parse() {
            Ok(cycles) if cycles > 0 => run(cycles),
            _ => Err("usage: ring_writer_cost [CYCLES]".into()),
        },
        _ => Err("usage: ring_writer_cost [CYCLES]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ring_writer_cost: {error}");
            ExitCode::FAILURE
        }
    }
}
