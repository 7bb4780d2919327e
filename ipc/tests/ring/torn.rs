//! Readers in other processes against a writer at full speed: what they accept is whole.

use crate::support::{camera, child, newest, painted, publish, shm, spec};
use base::{FrameId, Newest};
use ipc::clock;
use ipc::ring::{CopyError, RingReader, RingWriter};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Made in the shared-memory root when endless readers are to end.
const STOP: &str = "stop";

/// A child: copies newest frames and frames that are about to be overwritten until it has accepted
/// `accepted` or finds [`STOP`], checks every byte, prints how many it refused.
pub fn read(shm: &Path, accepted: u64) {
    let mut reader = RingReader::new(shm, &camera());
    let mut pixels = Vec::new();
    let mut highest = FrameId(0);
    let mut edge = false;
    while reader.stats().copies < accepted {
        let Newest::Frame(stamp) = reader.newest(clock::monotonic()) else { continue };
        if stamp.frame_id.0.is_multiple_of(64) && shm.join(STOP).exists() {
            break;
        }
        assert!(stamp.frame_id >= highest, "{:?} after {highest:?}", stamp.frame_id);
        highest = stamp.frame_id;
        edge = !edge;
        let back = if edge { u64::from(stamp.slots) - 2 } else { 0 };
        let id = stamp.frame_id.0.saturating_sub(back).max(1);
        let slot = ((id - 1) % u64::from(stamp.slots)) as u32;
        match reader.copy(stamp.generation, FrameId(id), slot, &mut pixels) {
            Ok(record) => {
                assert!(painted(id, &pixels), "frame {id}: a torn frame was accepted");
                assert_eq!(record.info.media.0, id * 3600, "frame {id}: another frame's record");
                assert_eq!(pixels.len(), record.picture.size.nv12_bytes());
            }
            Err(CopyError::Torn) => assert!(pixels.is_empty()),
            Err(error) => panic!("frame {id}: {error}"),
        }
    }
    println!("torn {}", reader.stats().torn);
}

fn start(shm: &Path, accepted: u64) -> Child {
    let order = format!("read {} {accepted}", shm.display());
    child(&order).stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits for a reader; the number of copies it refused.
fn finish(mut reader: Child) -> u64 {
    let mut output = String::new();
    reader.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    let status = reader.wait().unwrap();
    assert!(status.success(), "a reader failed: {output}");
    let torn = output.lines().find_map(|line| line.rsplit_once("torn ")?.1.parse().ok());
    torn.unwrap_or_else(|| panic!("a reader said nothing: {output}"))
}

/// Ends the writer's thread also when an assertion fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_torn_frame_is_accepted_and_a_stopped_reader_stops_nobody() {
    let shm = shm();
    let mut writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap();
    publish(&mut writer);
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let torn: u64 = std::thread::scope(|scope| {
        let stop = StopOnDrop(&stop);
        scope.spawn(|| {
            while !stop.0.load(Ordering::Relaxed) {
                written.store(publish(&mut writer).0, Ordering::Relaxed);
            }
        });
        // The ring goes round several times.
        let rounds = || {
            let until = written.load(Ordering::Relaxed) + 50;
            while written.load(Ordering::Relaxed) < until {
                std::thread::yield_now();
            }
        };
        let polling = [start(shm.path(), 30_000), start(shm.path(), 30_000)];
        let stopped = start(shm.path(), u64::MAX);
        let pid = Pid::from_child(&stopped);
        for _ in 0..40 {
            kill_process(pid, Signal::STOP).unwrap();
            let (_, state) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
            assert!(state.stopped(), "the reader ended: {state:?}");
            // It stands in the middle of whatever it was doing.
            rounds();
            kill_process(pid, Signal::CONT).unwrap();
            rounds();
        }
        let torn: u64 = polling.into_iter().map(finish).sum();
        std::fs::write(shm.path().join(STOP), "").unwrap();
        torn + finish(stopped)
    });
    assert!(torn > 0, "nothing was torn: this run proves nothing");
    writer.remove().unwrap();
}

/// The same within one process, where a reader can be paused at will: between header and copy.
#[test]
fn a_frame_that_was_overwritten_meanwhile_is_refused() {
    let shm = shm();
    let mut writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap();
    let mut reader = RingReader::new(shm.path(), &camera());
    let mut pixels = vec![1, 2, 3];
    publish(&mut writer);
    let stamp = newest(&mut reader);
    for _ in 0..7 {
        publish(&mut writer);
    }
    // Seven more frames fill the ring: the first is still whole, but no longer live, since its slot
    // is the next to go.
    assert!(reader.copy(stamp.generation, stamp.frame_id, stamp.slot, &mut pixels).is_ok());
    let slot = writer.begin();
    let copied = reader.copy(stamp.generation, stamp.frame_id, stamp.slot, &mut pixels);
    assert_eq!(copied, Err(CopyError::Torn), "its slot is being written");
    assert!(pixels.is_empty());
    drop_unpublished(slot);
    let copied = reader.copy(stamp.generation, stamp.frame_id, stamp.slot, &mut pixels);
    assert_eq!(copied, Err(CopyError::Torn), "its slot was abandoned");
    publish(&mut writer);
    let copied = reader.copy(stamp.generation, stamp.frame_id, stamp.slot, &mut pixels);
    assert_eq!(copied, Err(CopyError::Torn), "its slot holds another frame");
    assert_eq!(reader.stats().torn, 3);
    assert_eq!(reader.stats().copies, 1);
}

fn drop_unpublished(_: ipc::ring::SlotMut<'_>) {}

#[test]
fn an_abandoned_slot_changes_nothing_but_the_oldest_frame() {
    let shm = shm();
    let mut writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap();
    let mut reader = RingReader::new(shm.path(), &camera());
    for _ in 0..20 {
        publish(&mut writer);
    }
    let before = newest(&mut reader);
    let mut slot = writer.begin();
    slot.pixels().fill(7);
    drop_unpublished(slot);
    assert_eq!(newest(&mut reader), before);
    let mut pixels = Vec::new();
    for back in 0..8 {
        let (id, slot) = (before.frame_id.0 - back, (before.slot + 8 - back as u32) % 8);
        let copied = reader.copy(before.generation, FrameId(id), slot, &mut pixels);
        if back < 7 {
            assert!(copied.is_ok() && painted(id, &pixels), "{back} back: {copied:?}");
        } else {
            assert_eq!(copied, Err(CopyError::Torn));
        }
    }
    assert_eq!(publish(&mut writer), FrameId(21));
    assert_eq!(newest(&mut reader).frame_id, FrameId(21));
}
