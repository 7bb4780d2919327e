//! The recorder of one stream: access units in, segments on the disk out.
//!
//! A thread per recorded stream. It sleeps, empties the stream's inbox several times a second, cuts
//! fragments and writes them: a slow disk holds up nobody but the recorder itself, whose inbox then
//! drops units and counts them. With a thread each, the waits for the disk of many cameras overlap,
//! and a thread that wakes a few times a second costs next to nothing.
//!
//! docs/recording.md describes what lies on the disk.

mod cutter;
mod disk;
#[cfg(test)]
mod fault_tests;
mod holds;
mod inbox;
#[cfg(test)]
mod kill_tests;
mod listing;
mod recovery;
mod retention;
mod room;
mod state;
mod storage;
#[cfg(test)]
pub mod tests;
mod writer;

pub use disk::{Disk, Limited as LimitedDisk};
pub use retention::Retention;
pub use state::RecordingState;
pub use storage::{RecordingOptions, Storage};

use crate::backoff::LogGate;
use crate::counters::Counters;
use crate::unit::AccessUnit;
use base::{CameraId, Instant};
use cutter::Cutter;
use inbox::Inbox;
use ipc::clock;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use writer::Writer;

/// How often the inbox is emptied (chosen: with the length of a fragment well below the second that
/// may be lost).
const POLL: Duration = Duration::from_millis(150);
/// After the disk refused something, the next attempt.
const RETRY: Duration = Duration::from_secs(3);
/// Without units for so long, nothing is being recorded,
const IDLE: Duration = Duration::from_secs(3);
/// and the segment is ended: it grows old like the others (chosen: longer than the jump in time at
/// which another one begins anyway).
const QUIET: Duration = Duration::from_secs(60);

/// A running recorder.
pub struct Recorder {
    inbox: Arc<Inbox>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Starts the recorder of a camera. It waits for one that is still there.
    ///
    /// # Errors
    /// When the process has no threads left.
    pub fn start(
        camera: CameraId,
        storage: Arc<Storage>,
        counters: Arc<Counters>,
    ) -> io::Result<Recorder> {
        let inbox = Arc::new(Inbox::default());
        let worker = Worker {
            inbox: Arc::clone(&inbox),
            counters: Arc::clone(&counters),
            storage,
            gate: LogGate::default(),
            camera,
        };
        let name = format!("rec:{}", worker.camera);
        let thread = thread::Builder::new().name(name).spawn(move || worker.run())?;
        Ok(Recorder { inbox, counters, thread: Some(thread) })
    }

    /// One whose thread is gone.
    #[cfg(test)]
    pub fn broken_off() -> Recorder {
        Recorder { inbox: Arc::default(), counters: Arc::default(), thread: None }
    }

    /// Takes a unit or drops it. Never waits.
    pub fn push(&self, unit: &Arc<AccessUnit>) {
        let dropped = self.inbox.push(unit);
        if dropped > 0 {
            self.counters.record_dropped.add(dropped);
        }
    }

    /// Whether its thread is gone, though nobody ended it.
    pub fn broken(&self) -> bool {
        let broken = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        if broken && self.counters.recording.get().0 {
            self.counters.recording.set_off("the recorder broke off; the log says where");
        }
        broken
    }

    /// Ends it: what was taken is written. The thread is gone when the handle says so.
    pub fn stop(mut self) -> Option<JoinHandle<()>> {
        self.inbox.close();
        self.thread.take()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

struct Worker {
    camera: CameraId,
    inbox: Arc<Inbox>,
    counters: Arc<Counters>,
    storage: Arc<Storage>,
    gate: LogGate,
}

impl Worker {
    fn run(mut self) {
        let state = Arc::clone(&self.counters);
        let state = &state.recording;
        state.set_off("waiting for a key picture");
        let Some(claim) = self.storage.claim(&self.camera, || self.inbox.closed()) else { return };
        let mut writer = None;
        let mut cutter = Cutter::default();
        let mut retry_at: Option<Instant> = None;
        let mut last_unit = clock::monotonic();
        // Since when units came and none of them was written.
        let mut unwritten: Option<Instant> = None;
        let mut fragment_due = false;
        let mut quiet = false;
        loop {
            let (units, closed) = self.inbox.take(POLL);
            let now = clock::monotonic();
            if retry_at.is_some_and(|at| now < at) && !closed {
                self.counters.record_dropped.add(units.len() as u64);
                continue;
            }
            retry_at = None;
            if let Some(unit) = units.back() {
                last_unit = unit.unit.capture;
                unwritten.get_or_insert(now);
                quiet = false;
            } else if now - last_unit > QUIET && !std::mem::replace(&mut quiet, true) {
                cutter.restart();
                if let Some(Err(error)) = writer.as_mut().map(Writer::close) {
                    self.complain(&claim.refused(&error, now));
                }
            } else if now - last_unit > IDLE && state.get().0 {
                state.set_off("no video comes");
            }
            let mut write = |cut: cutter::Fragment| -> io::Result<()> {
                claim.takes(cut.begins_segment, cut.pictures.len() as u64);
                let writer = match &mut writer {
                    Some(writer) => writer,
                    none => none.insert(Writer::open(&claim)?),
                };
                writer.write(&cut)
            };
            let mut outcome = Ok(());
            for queued in &units {
                if outcome.is_err() {
                    self.counters.record_dropped.add(1);
                    continue;
                }
                let cut = cutter.push(&queued.unit, queued.after_loss);
                if let Some(fragment) = cut.fragment {
                    fragment_due = true;
                    outcome = write(fragment);
                }
                if let Some(refused) = cut.refused {
                    // What was written before does not make it a recording now.
                    fragment_due = false;
                    let line = refused.to_string();
                    self.complain(&line);
                    state.set_off(&line);
                }
            }
            if outcome.is_ok()
                && let Some(fragment) = cutter.flush(now, closed)
            {
                fragment_due = true;
                outcome = write(fragment);
            }
            match outcome {
                Ok(()) if std::mem::take(&mut fragment_due) => {
                    if self.gate.clear() {
                        tracing::info!(camera = %self.camera, "recording goes on");
                    }
                    state.set_on(&self.storage.warning());
                    unwritten = None;
                }
                Ok(()) if unwritten.is_some_and(|since| now - since > IDLE) && state.get().0 => {
                    state.set_off("waiting for a key picture");
                }
                Ok(()) => {}
                Err(error) => {
                    fragment_due = false;
                    cutter.restart();
                    if let Some(writer) = &mut writer {
                        writer.abandon();
                    }
                    let line = claim.refused(&error, now);
                    self.complain(&line);
                    state.set_off(&line);
                    retry_at = Some(now + RETRY);
                }
            }
            if closed {
                break;
            }
        }
        if let Some(writer) = &mut writer
            && let Err(error) = writer.close()
        {
            tracing::error!(camera = %self.camera, "the last segment may be cut short: {error}");
        }
        state.set_off("");
    }

    fn complain(&mut self, line: &str) {
        if self.gate.allows(line, clock::monotonic()) {
            tracing::error!(camera = %self.camera, "recording stands still: {line}; trying again \
                every {} s", RETRY.as_secs());
        }
    }
}
