//! One decode worker, spoken to as ingest does. The bytes are written out here as the table of the
//! format has them.

use crate::node::{Node, again, asset};
use crate::watch::{Watch, wait_until};
use base::{Absent, Newest};
use ipc::ring::{RingReader, inspect};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

const KEY: u16 = 1;
const PREROLL: u16 = 8;
const MORE: u16 = 32;

struct Worker {
    child: Child,
    socket: UnixStream,
    sequence: u64,
}

fn start() -> Worker {
    let (ours, its) = UnixStream::pair().unwrap();
    let command = again("decode");
    let child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::from(OwnedFd::from(its)))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Worker { child, socket: ours, sequence: 0 }
}

impl Worker {
    fn send(&mut self, kind: u8, flags: u16, media: u64, payload: &[u8]) {
        let now = ipc::clock::monotonic().0;
        let mut bytes = b"VASU".to_vec();
        bytes.extend([kind, u8::from(kind == 2)]);
        bytes.extend(flags.to_le_bytes());
        bytes.extend((payload.len() as u64).to_le_bytes());
        for field in [self.sequence, media, now, ipc::clock::utc().0] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(payload);
        self.socket.write_all(&bytes).unwrap();
    }

    fn configure(&mut self, node: &Node, camera: &str, parent: u32) {
        let shm = node.directories.shm.display();
        let text = format!(
            r#"{{"camera":"{camera}","shm":"{shm}","parent":{parent},"fps":10.0,"deadline_ms":500,
            "hints":{{"reorder":0,"matrix":0,"range":0}}}}"#
        );
        self.send(1, 0, 0, text.as_bytes());
    }

    fn unit(&mut self, flags: u16, data: &[u8]) {
        self.sequence += 1;
        let media = 1_000_000 + self.sequence * 9_000;
        self.send(2, flags, media, data);
    }

    /// Waits until the worker has dealt with all units: exported, decoded only, errors.
    fn progress(&mut self) -> [u64; 3] {
        loop {
            let mut bytes = [0; 48];
            self.socket.read_exact(&mut bytes).unwrap();
            assert_eq!(bytes[..4], *b"VASD");
            if bytes[4] == 3 {
                // A remark: its text follows.
                let text = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
                self.socket.read_exact(&mut vec![0; text as usize]).unwrap();
            } else {
                assert_eq!(bytes[4], 1, "neither progress nor a remark");
            }
            let field = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
            if field(16) == self.sequence {
                return [field(24), field(32), field(40)];
            }
        }
    }

    fn end(mut self) -> ExitStatus {
        drop(self.socket);
        self.child.wait().unwrap()
    }
}

/// The access units of an elementary stream of H.264.
fn units(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    // A unit ends before the first NAL unit after its picture that does not belong to it.
    let starts: Vec<usize> =
        bytes.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(at, _)| at).collect();
    let mut units: Vec<Vec<u8>> = vec![vec![]];
    for (n, &start) in starts.iter().enumerate() {
        let end = starts.get(n + 1).copied().unwrap_or(bytes.len());
        let picture = matches!(bytes[start + 3] & 0x1f, 1 | 5);
        // `first_mb_in_slice` is 0, one bit set, in the first slice of a picture.
        if picture && bytes[start + 4] & 0x80 == 0 {
            units.last_mut().unwrap().extend(&bytes[start..end]);
            continue;
        }
        let current = units.last_mut().unwrap();
        let has_picture = nal_kinds(current).any(|kind| matches!(kind, 1 | 5));
        if has_picture {
            units.push(vec![]);
        }
        units.last_mut().unwrap().extend(&bytes[start..end]);
    }
    units
}

fn nal_kinds(unit: &[u8]) -> impl Iterator<Item = u8> + '_ {
    unit.windows(4).filter(|w| w[..3] == [0, 0, 1]).map(|w| w[3] & 0x1f)
}

fn small_units() -> Vec<Vec<u8>> {
    let units: Vec<_> = units(&asset("two_sizes.h264")).into_iter().take(25).collect();
    assert!(nal_kinds(&units[0]).any(|kind| kind == 5));
    units
}

fn flags(n: usize) -> u16 {
    if n == 0 { KEY } else { 0 }
}

#[test]
fn of_a_burst_only_the_newest_frame_is_exported() {
    let node = Node::new();
    let units = small_units();
    let mut worker = start();
    worker.configure(&node, "burst", std::process::id());
    for (n, data) in units.iter().enumerate() {
        let more = if n + 1 < units.len() { MORE } else { 0 };
        worker.unit(flags(n) | more, data);
    }
    let [exported, unexported, errors] = worker.progress();
    assert_eq!((exported + unexported, errors), (25, 0));
    assert!(unexported > 0 && exported > 0, "{exported} exported, {unexported} not");
    let camera = "burst".parse().unwrap();
    let mut reader = RingReader::new(&node.directories.shm, &camera);
    let Newest::Frame(stamp) = reader.newest(ipc::clock::monotonic()) else { panic!() };
    assert_eq!(stamp.info.media.0, 1_000_000 + 25 * 9_000);
    assert_eq!(stamp.frame_id.0, exported);
    // What leads to the start of the camera is shown to nobody.
    for (n, data) in units.iter().enumerate() {
        worker.unit(flags(n) | PREROLL, data);
    }
    assert_eq!(worker.progress(), [exported, unexported + 25, 0]);
    // A stop removes the ring.
    worker.send(3, 0, 0, &[]);
    assert!(worker.child.wait().unwrap().success());
    assert_eq!(reader.newest(ipc::clock::monotonic()), Newest::Absent(Absent::NoRing));
    assert!(node.shm_entries().is_empty());
}

#[test]
fn nonsense_in_units_is_survived_and_nonsense_between_them_ends_the_worker() {
    let node = Node::new();
    let units = small_units();
    let mut worker = start();
    worker.configure(&node, "garbage", std::process::id());
    let mut seed = 1u32;
    for n in 0..200usize {
        let noise: Vec<u8> = (0..n * 7)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .collect();
        worker.unit(flags(n % 10), &noise);
    }
    for (n, data) in units.iter().enumerate() {
        worker.unit(flags(n), data);
    }
    let [exported, _, errors] = worker.progress();
    assert!(errors > 0 && exported > 0);
    worker.socket.write_all(&[0x5a; 200]).unwrap();
    assert!(!worker.child.wait().unwrap().success());
    // Ended like one that was killed: the ring stays for the next worker, which goes on.
    let report = inspect(&node.directories.shm, &"garbage".parse().unwrap()).unwrap();
    assert!(!report.writer && !report.retired);
    let mut next = start();
    next.configure(&node, "garbage", std::process::id());
    next.sequence = 1000;
    next.unit(KEY, &units[0]);
    next.progress();
    let mut watch = Watch::new(&node, "garbage");
    assert_eq!(watch.collect(1)[0].stamp.frame_id.0, exported + 1);
    assert!(next.end().success());
}

#[test]
fn media_time_in_a_ring_never_goes_back() {
    let node = Node::new();
    let units = small_units();
    let mut worker = start();
    worker.configure(&node, "back", std::process::id());
    worker.unit(KEY, &units[0]);
    assert_eq!(worker.progress(), [1, 0, 0]);
    worker.sequence = 0;
    worker.unit(KEY, &units[0]);
    worker.sequence = 1;
    worker.unit(0, &units[1]);
    assert_eq!(worker.progress(), [2, 1, 0], "the same time again is not exported");
    assert!(worker.end().success());
}

#[test]
fn an_idle_worker_beats_and_ends_with_its_ingest_but_leaves_the_ring() {
    let node = Node::new();
    let mut worker = start();
    worker.configure(&node, "idle", std::process::id());
    worker.unit(KEY, &small_units()[0]);
    let camera = "idle".parse().unwrap();
    let beat = || inspect(&node.directories.shm, &camera).ok().map(|report| report.heartbeat);
    let first = wait_until("a ring", beat);
    wait_until("two heartbeats", || beat().filter(|&now| (now - first).as_millis() >= 1500));
    assert!(worker.end().success());
    assert!(node.directories.ring(&camera).exists());
}

#[test]
fn a_worker_that_is_not_ingests_child_or_gets_no_configuration_ends() {
    let node = Node::new();
    let mut orphan = start();
    orphan.configure(&node, "nobody", 1);
    assert!(!orphan.child.wait().unwrap().success());
    let mut silent = start();
    silent.unit(KEY, &small_units()[0]);
    assert!(!silent.child.wait().unwrap().success());
    let mut wrong = start();
    wrong.configure(&node, "no/camera", std::process::id());
    assert!(!wrong.child.wait().unwrap().success());
    // Started by hand.
    let command = again("decode");
    let status =
        Command::new(&command[0]).args(&command[1..]).stdin(Stdio::null()).output().unwrap().status;
    assert!(!status.success());
    assert!(node.shm_entries().is_empty());
}
