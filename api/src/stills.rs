//! The newest picture of a camera as JPEG: one thread reads the rings and encodes.
//!
//! A client that wants what another one just got receives the same bytes. Nothing is decoded here:
//! the ring holds pictures.

use crate::limits::STILLS_WAITING_MAX;
use base::{Absent, CameraId, FrameId, Generation, Newest, Size, Stamp};
use ipc::clock;
use ipc::ring::{CopyError, RingReader};
use kernels::jpeg;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// A ring that nobody asked for is closed after so long, so that a removed ring's memory is freed.
const IDLE: Duration = Duration::from_secs(10);
/// How long a client waits for the thread: many times the slowest picture.
const PATIENCE: Duration = Duration::from_secs(5);
/// A still is worth another look when the writer overtook the copy.
const ATTEMPTS: u32 = 3;

/// One encoded picture.
#[derive(Debug)]
pub struct Still {
    /// The frame.
    pub stamp: Stamp,
    /// Pixels.
    pub size: Size,
    /// JPEG.
    pub jpeg: Vec<u8>,
}

/// Why there is no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StillError {
    /// The camera has no frame.
    #[error("camera {camera} has no frame: {}", explain(*.absent))]
    Absent {
        /// The camera.
        camera: CameraId,
        /// Why.
        absent: Absent,
    },
    /// This process can't open the ring.
    #[error("the ring of camera {camera} can't be opened now: {reason}")]
    Unreadable {
        /// The camera.
        camera: CameraId,
        /// Why.
        reason: String,
    },
    /// The newest frame is older than wanted.
    #[error("the newest frame of camera {camera} is {age_ms} ms old, max_age_ms is {max_age_ms}")]
    TooOld {
        /// The camera.
        camera: CameraId,
        /// Its age since capture.
        age_ms: u128,
        /// The limit.
        max_age_ms: u128,
    },
    /// The writer was faster than the copy every time.
    #[error("the frame of camera {0} was overwritten while it was read; ask again")]
    Torn(CameraId),
    /// The encoder refused.
    #[error("the frame of camera {camera} can't be encoded: {reason}")]
    Encode {
        /// The camera.
        camera: CameraId,
        /// Why.
        reason: String,
    },
    /// Too many ask.
    #[error("more than {STILLS_WAITING_MAX} stills are waiting; ask again later")]
    Busy,
    /// The thread is gone or stuck.
    #[error("the stills thread does not answer")]
    NoAnswer,
}

fn explain(absent: Absent) -> &'static str {
    match absent {
        Absent::NoRing => "no ring, frame export is off or nothing was decoded yet",
        Absent::Stale => "the ring's writer is gone or stuck",
        Absent::Retired => "the ring is being replaced",
        Absent::Invalid => "the ring's header is not one this version reads",
        Absent::Unreadable => "the ring can't be opened",
    }
}

struct Job {
    camera: CameraId,
    max_age: Option<Duration>,
    answer: SyncSender<Result<Arc<Still>, StillError>>,
}

/// The end that asks. Waits for the answer: call it where waiting is allowed.
#[derive(Debug, Clone)]
pub struct Stills(SyncSender<Job>);

impl Stills {
    /// The two ends.
    pub fn channel(shm: PathBuf) -> (Stills, StillsWorker) {
        let (send, receive) = sync_channel(STILLS_WAITING_MAX);
        (Stills(send), StillsWorker { shm, receive, cameras: HashMap::new(), pixels: vec![] })
    }

    /// The newest picture of a camera, not older than `max_age` since its capture.
    ///
    /// # Errors
    /// [`StillError`] says why there is none.
    pub fn newest(
        &self,
        camera: CameraId,
        max_age: Option<Duration>,
    ) -> Result<Arc<Still>, StillError> {
        let (answer, wait) = sync_channel(1);
        self.0.try_send(Job { camera, max_age, answer }).map_err(|_| StillError::Busy)?;
        wait.recv_timeout(PATIENCE).unwrap_or(Err(StillError::NoAnswer))
    }
}

/// The end that reads and encodes.
pub struct StillsWorker {
    shm: PathBuf,
    receive: Receiver<Job>,
    cameras: HashMap<CameraId, Camera>,
    pixels: Vec<u8>,
}

struct Camera {
    reader: RingReader,
    last: Option<Arc<Still>>,
    asked: Instant,
}

impl StillsWorker {
    /// Answers until every [`Stills`] is gone.
    pub fn run(mut self) {
        loop {
            match self.receive.recv_timeout(IDLE) {
                Ok(job) => {
                    let answer = self.still(&job.camera, job.max_age);
                    // The client may have given up.
                    let _ = job.answer.try_send(answer);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.cameras.retain(|_, camera| camera.asked.elapsed() < IDLE);
        }
    }

    fn still(
        &mut self,
        id: &CameraId,
        max_age: Option<Duration>,
    ) -> Result<Arc<Still>, StillError> {
        let camera = self.cameras.entry(id.clone()).or_insert_with(|| Camera {
            reader: RingReader::new(&self.shm, id),
            last: None,
            asked: Instant::now(),
        });
        camera.asked = Instant::now();
        for _ in 0..ATTEMPTS {
            let now = clock::monotonic();
            let stamp = match camera.reader.newest(now) {
                Newest::Frame(stamp) => stamp,
                Newest::Absent(absent) => return Err(missing(id, absent, &camera.reader)),
            };
            let age = now.since(stamp.info.capture);
            if let Some(max_age) = max_age.filter(|m| age > *m) {
                let (age_ms, max_age_ms) = (age.as_millis(), max_age.as_millis());
                return Err(StillError::TooOld { camera: id.clone(), age_ms, max_age_ms });
            }
            let key = |s: &Stamp| -> (Generation, FrameId) { (s.generation, s.frame_id) };
            if let Some(last) = camera.last.as_ref().filter(|l| key(&l.stamp) == key(&stamp)) {
                return Ok(last.clone());
            }
            let copied =
                camera.reader.copy(stamp.generation, stamp.frame_id, stamp.slot, &mut self.pixels);
            let record = match copied {
                Ok(record) => record,
                Err(CopyError::Torn | CopyError::Generation | CopyError::Slot) => continue,
                Err(CopyError::Gone(absent)) => return Err(missing(id, absent, &camera.reader)),
            };
            let mut jpeg = Vec::with_capacity(self.pixels.len() / 8);
            jpeg::encode(&record.picture, &self.pixels, &mut jpeg).map_err(|error| {
                StillError::Encode { camera: id.clone(), reason: error.to_string() }
            })?;
            let still = Arc::new(Still { stamp, size: record.picture.size, jpeg });
            camera.last = Some(still.clone());
            return Ok(still);
        }
        Err(StillError::Torn(id.clone()))
    }
}

/// Why there is no frame. What is wrong with this process is not told of the camera.
fn missing(id: &CameraId, absent: Absent, reader: &RingReader) -> StillError {
    let camera = id.clone();
    match (absent, reader.refusal()) {
        (Absent::Unreadable, Some(error)) => {
            StillError::Unreadable { camera, reason: error.to_string() }
        }
        _ => StillError::Absent { camera, absent },
    }
}
