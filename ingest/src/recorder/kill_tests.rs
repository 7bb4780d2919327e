//! kill -9 at each step of a segment's begin and end, and of putting in order what that leaves. What
//! was acknowledged is there, every file is whole, numbers go on, and nothing is left behind.
//!
//! The recorder runs in a child process: this test binary again, told by its environment to run
//! [`child`] and to kill itself at the nth call, or when half of what it writes is written.

use super::disk::Disk;
use super::fault_tests::{all_rows, assert_holds, assert_whole, at, camera, fragments};
use super::recovery;
use super::storage::{RecordingOptions, Storage};
use super::writer::Writer;
use base::UtcNanos;
use base::time::NANOS_PER_SEC as SECOND;
use ipc::recording::{Call, Probe, Recordings, Row, recover};
use std::collections::BTreeSet;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const CHILD: &str = "VAS_RECORDER_KILL_TEST";
/// What the child's output says of each fragment that was acknowledged.
const ACKNOWLEDGED: &str = "acknowledged ";
/// The last seconds of a day: the script records into the next one.
const NIGHT: &str = "20260130";

#[derive(Debug)]
struct Killer {
    left: AtomicU64,
}

fn kill() -> ! {
    let me = rustix::process::getpid();
    rustix::process::kill_process(me, rustix::process::Signal::KILL).expect("can kill itself");
    unreachable!("killed");
}

impl Probe for Killer {
    fn ask(&self, call: Call, _: &Path) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            kill();
        }
        // Half of a write is a step of its own.
        if matches!(call, Call::Write(_)) && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(io::ErrorKind::Other.into());
        }
        Ok(())
    }

    fn half_written(&self) {
        kill();
    }
}

fn script(root: &Path, step: u64) {
    let killer = Arc::new(Killer { left: step.into() });
    let disk = Disk::probed(killer);
    let storage = Storage::new(RecordingOptions { disk, ..RecordingOptions::new(root.to_owned()) });
    let claim = storage.claim(&camera(), || false).unwrap();
    let mut writer = Writer::open(&claim).unwrap();
    for fragment in fragments(at(NIGHT, 86_395), 2) {
        writer.write(&fragment).unwrap();
        let row = writer.last().unwrap();
        let bytes = row.encode().map(|byte| format!("{byte:02x}")).concat();
        println!("{ACKNOWLEDGED}{bytes}");
    }
    writer.close().unwrap();
    recovery::all_due(&storage);
    while recovery::one(&storage) {}
}

/// Not a test by itself: the body of the child process, idle when run as a test.
#[test]
fn child() {
    let Ok(order) = std::env::var(CHILD) else { return };
    // No child outlives the test that started it.
    let signal = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(signal).unwrap();
    let (step, root) = order.split_once(' ').unwrap();
    script(Path::new(root), step.parse().unwrap());
}

/// Runs the script up to a step; what was acknowledged, and whether it came to its end.
fn run_to(root: &Path, step: u64) -> (Vec<Row>, bool) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "recorder::kill_tests::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{step} {}", root.display()))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().filter_map(|line| line.rsplit_once(ACKNOWLEDGED)).map(|(_, hex)| {
        let byte = |at: usize| u8::from_str_radix(&hex[at * 2..][..2], 16).unwrap();
        Row::decode(&std::array::from_fn(byte)).unwrap()
    });
    let killed = output.status.signal() == Some(9);
    assert!(killed || output.status.success(), "step {step}: {:?}", output.status);
    (rows.collect(), !killed)
}

#[test]
fn killed_at_each_step_of_a_segment() {
    for step in 1.. {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("rec");
        let recordings = Recordings::new(&root);
        let what = format!("step {step}");
        let (mut acknowledged, ended) = run_to(&root, step);
        assert_holds(&recordings, &acknowledged, &what);
        // The next one goes on.
        let storage = Storage::new(RecordingOptions::new(root.clone()));
        let claim = storage.claim(&camera(), || false).unwrap();
        let mut writer = Writer::open(&claim).unwrap();
        for fragment in fragments(UtcNanos(at(NIGHT, 86_395).0 + 60 * SECOND), 1) {
            writer.write(&fragment).unwrap();
            acknowledged.extend(writer.last());
        }
        writer.close().unwrap();
        recovery::all_due(&storage);
        while recovery::one(&storage) {}
        assert_holds(&recordings, &acknowledged, &what);
        assert_whole(&recordings, &BTreeSet::new(), &what);
        assert_eq!(recover(&recordings, &camera()).unwrap().indexes, 0, "{what}");
        let rows = all_rows(&recordings);
        assert!(
            rows.windows(2).all(|pair| pair[1].number == pair[0].number + 1),
            "{what}: {rows:?}"
        );
        // One more than was told when it was killed between the row and the telling.
        let more = rows.len() - acknowledged.len();
        assert!(more <= 1, "{what}: {more} more than were acknowledged");
        for name in recordings.files().list(&root.join("cam")).unwrap() {
            let names = recordings.files().list(&root.join("cam").join(&name)).unwrap();
            assert!(names.iter().all(|name| !name.starts_with("index.")), "{what}: {names:?}");
        }
        if ended {
            assert!(step > 50, "only {step} steps");
            return;
        }
    }
}

/// Killed while it puts in order what a kill left: the next one finds it none the worse.
#[test]
fn killed_at_each_step_of_putting_in_order() {
    let lay = |root: &Path| -> Vec<Row> {
        // The script ends between a fragment and its row: the 4th of 4.
        let whole = tempfile::tempdir().unwrap();
        let all = run_to(&whole.path().join("rec"), u64::MAX).0;
        let copy = |from: &Path, to: &Path| {
            let done = Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
            assert!(done.success());
        };
        copy(&whole.path().join("rec"), root);
        let recordings = Recordings::new(root);
        let last = all.last().unwrap();
        let segment = recordings.segment(&camera(), last.segment);
        let index = segment.with_file_name("index");
        let cut = |path: &Path, bytes: u64| {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(bytes).unwrap();
        };
        cut(&segment, u64::from(last.offset + last.bytes / 2));
        cut(&index, std::fs::metadata(&index).unwrap().len() - 30);
        all[..all.len() - 1].to_vec()
    };
    let laid = tempfile::tempdir().unwrap();
    let acknowledged = lay(&laid.path().join("rec"));
    // Writer::open puts the end in order; the steps after it are those of the test above.
    for step in 1..24 {
        let root = tempfile::tempdir().unwrap();
        let copied = Command::new("cp")
            .arg("-r")
            .args([laid.path().join("rec"), root.path().join("rec")])
            .status()
            .unwrap();
        assert!(copied.success());
        let root = root.path().join("rec");
        let recordings = Recordings::new(&root);
        let what = format!("step {step}");
        let (more, _) = run_to(&root, step);
        assert_holds(&recordings, &acknowledged, &what);
        let done = recover(&recordings, &camera()).unwrap();
        assert!(done.faults.is_empty(), "{what}: {done:?}");
        assert_holds(&recordings, &acknowledged, &what);
        assert_holds(&recordings, &more, &what);
        assert_whole(&recordings, &BTreeSet::new(), &what);
    }
}
