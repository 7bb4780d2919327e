//! What the tests of the ring share: cameras, frames whose every byte follows from their id, child
//! processes.

use base::{
    CameraId, ColourMatrix, ColourRange, FrameFlags, FrameId, FrameInfo, MediaTime, Newest,
    Picture, Size, Stamp,
};
use ipc::clock;
use ipc::ring::{RingReader, RingSpec, RingWriter};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Environment variable that holds a child's order.
pub const ORDER: &str = "VAS_RING_TEST_ORDER";

/// A directory of the test's own, in shared memory where there is some.
pub fn shm() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

pub fn camera() -> CameraId {
    CameraId::new("cam").unwrap()
}

pub fn spec(width: u32, height: u32) -> RingSpec {
    let picture = Picture {
        size: Size { width, height },
        matrix: ColourMatrix::Bt601,
        range: ColourRange::Limited,
    };
    RingSpec { camera: camera(), picture, slots: 8 }
}

pub fn info(id: u64) -> FrameInfo {
    FrameInfo {
        media: MediaTime(id.wrapping_mul(3600)),
        capture: clock::monotonic(),
        capture_utc: clock::utc(),
        decode_start: clock::monotonic(),
        flags: FrameFlags::KEY.with(FrameFlags::DISCONTINUITY),
    }
}

fn word(id: u64, at: u64) -> u64 {
    (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// Fills a picture so that every eight bytes tell which frame they belong to.
pub fn paint(id: u64, pixels: &mut [u8]) {
    for (at, eight) in pixels.chunks_exact_mut(8).enumerate() {
        eight.copy_from_slice(&word(id, at as u64).to_ne_bytes());
    }
}

/// Whether a picture is the one that [`paint`] made for the id, to the last whole word.
pub fn painted(id: u64, pixels: &[u8]) -> bool {
    let mut difference = 0;
    for (at, eight) in pixels.chunks_exact(8).enumerate() {
        difference |= word(id, at as u64) ^ u64::from_ne_bytes(eight.try_into().unwrap());
    }
    difference == 0
}

/// Writes and publishes the next frame.
pub fn publish(writer: &mut RingWriter) -> FrameId {
    let id = writer.last_frame_id().map_or(1, |id| id.0 + 1);
    let mut slot = writer.begin();
    paint(id, slot.pixels());
    assert_eq!(slot.publish(&info(id)), FrameId(id));
    FrameId(id)
}

/// The newest frame, which must be there.
pub fn newest(reader: &mut RingReader) -> Stamp {
    match reader.newest(clock::monotonic()) {
        Newest::Frame(stamp) => stamp,
        Newest::Absent(reason) => panic!("no frame: {reason:?}"),
    }
}

/// This binary, to be started with an order.
pub fn child(order: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(CHILD_ARGS).env(ORDER, order);
    command
}

/// Arguments that make this binary run a child's order.
pub const CHILD_ARGS: [&str; 4] = ["--exact", "child", "--nocapture", "--test-threads=1"];

/// Names in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
