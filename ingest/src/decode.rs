//! The decode worker, a process of its own per camera: access units in from ingest's socket,
//! pictures out into the camera's ring. What breaks in here, libavcodec included, stays in here.
//!
//! One thread. The format of the socket is in [`crate::worker_message`].

use crate::decoder::{Decoded, Decoder, DecoderError};
use crate::unit::UnitFlags;
use crate::worker_message::{
    Configuration, HEADER, HeaderError, Progress, Said, TEXT_MAX, ToWorker, UnitHeader,
};
use base::limits::{DECODER_DATA_BYTES_MAX, RING_BYTES_MAX, RING_HEARTBEAT};
use base::{CameraId, FrameInfo, Generation, Instant, Size};
use ffmpeg_next as ff;
use ipc::clock;
use ipc::ring::{RingError, RingSpec, RingWriter, slots_for, slots_within};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketType};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How often ingest is told about progress at most (chosen: ingest waits 3 s for one).
const REPORT: Duration = Duration::from_millis(500);
/// While more units always wait, every frame after this time is exported nevertheless (chosen):
/// a decoder slower than its camera shows old frames, not none.
const EXPORT_AT_LEAST: Duration = Duration::from_millis(250);
/// After so many access units without a picture ingest is told (chosen: four times as many as any
/// stream may hold back). The H.264 decoder swallows that it got no memory.
const BLANK_UNITS: u32 = 64;

/// A decode worker: everything `vas decode` does.
///
/// Takes no arguments: its configuration and the access units come on standard input, a stream
/// socket whose other end is ingest. Started by hand it says so and fails.
pub fn decode_main() -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("decode worker: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error("standard input is no socket; decode workers are started by `vas ingest`")]
    NotStarted,
    #[error("ingest, process {0}, is gone")]
    Orphan(i32),
    #[error("can't {0}: {1}")]
    Io(&'static str, io::Error),
    #[error("ingest sent what is no message: {0}")]
    Header(#[from] HeaderError),
    #[error("ingest sent a configuration that is none: {0}")]
    Configuration(String),
}

/// Why this camera can't be exported as it is.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error(transparent)]
    Decoder(#[from] DecoderError),
}

fn work() -> Result<(), WorkerError> {
    let io = |what| move |e: io::Error| WorkerError::Io(what, e);
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(io("take standard input"))?;
    if rustix::net::sockopt::socket_type(&socket) != Ok(SocketType::STREAM) {
        return Err(WorkerError::NotStarted);
    }
    // A signal for the whole group (Ctrl-C, a service that stops) is meant for ingest, which then
    // stops its workers in order.
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let ignored = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal, ignored).map_err(io("ignore signals"))?;
    }
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|e| WorkerError::Io("ask for the end of ingest", e.into()))?;
    let inlet = Inlet { socket };
    let mut worker: Option<Worker> = None;
    let mut header = [0; HEADER];
    loop {
        let mut idle = || worker.as_mut().map_or(RING_HEARTBEAT, |w| w.idle(&inlet));
        // Without a stop message ingest has died: the ring stays for the next worker.
        let Some(()) = inlet.read(&mut header, &mut idle)? else { return Ok(()) };
        let (message, payload) = ToWorker::decode(&header)?;
        let ended = match message {
            ToWorker::Configuration => {
                let mut text = vec![0; payload];
                let Some(()) = inlet.read(&mut text, &mut idle)? else { return Ok(()) };
                configure(&mut worker, &inlet, &text)?
            }
            ToWorker::Unit(unit) => {
                let mut packet = ff::Packet::new(payload);
                let buffer = packet.data_mut().unwrap_or_default();
                if buffer.len() != payload {
                    let progress = worker.as_ref().map(|w| w.progress).unwrap_or_default();
                    inlet.refuse(progress, &DecoderError::Memory.to_string());
                    return Ok(());
                }
                let Some(()) = inlet.read(buffer, &mut idle)? else { return Ok(()) };
                let Some(worker) = &mut worker else {
                    let detail = "an access unit came before it".to_owned();
                    return Err(WorkerError::Configuration(detail));
                };
                worker.unit(&inlet, unit, &mut packet)
            }
            ToWorker::Stop => {
                if let Some(ring) = worker.and_then(|w| w.ring) {
                    ring.remove().map_err(io("remove the ring"))?;
                }
                return Ok(());
            }
        };
        if let Err(refusal) = ended {
            let progress = worker.as_ref().map(|w| w.progress).unwrap_or_default();
            inlet.refuse(progress, &refusal.to_string());
            return Ok(());
        }
    }
}

/// The socket, read without missing a heartbeat.
struct Inlet {
    socket: OwnedFd,
}

impl Inlet {
    /// Fills `buffer`; `None` at the end of the stream. Calls `idle` whenever there is nothing to
    /// read; it says how long to wait before the next call.
    fn read(
        &self,
        buffer: &mut [u8],
        idle: &mut dyn FnMut() -> Duration,
    ) -> Result<Option<()>, WorkerError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match rustix::net::recv(&self.socket, &mut buffer[filled..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Ok(None),
                Ok((_, count)) => filled += count,
                Err(Errno::AGAIN) => {
                    let wait = idle();
                    self.poll(wait);
                }
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(None),
                Err(e) => return Err(WorkerError::Io("read from ingest", e.into())),
            }
        }
        Ok(Some(()))
    }

    fn poll(&self, wait: Duration) -> bool {
        let timeout = Timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&timeout)), Ok(ready) if ready > 0)
    }

    /// Whether ingest has sent more than was read.
    fn waits(&self) -> bool {
        self.poll(Duration::ZERO)
    }

    /// Tells ingest, or not when it does not listen: the next report says the same and more.
    fn report(&self, progress: Progress) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = rustix::net::send(&self.socket, &progress.encode(Said::Progress), flags);
    }

    /// The last message. Ingest that does not listen ends this process.
    fn refuse(&self, progress: Progress, text: &str) {
        self.say(progress, Said::Refusal, text);
    }

    /// What could not be had as configured; nothing when all is as wanted.
    fn remark(&self, progress: Progress, text: &str) {
        self.say(progress, Said::Remark, text);
    }

    fn say(&self, progress: Progress, said: fn(usize) -> Said, text: &str) {
        let text = &text.as_bytes()[..text.floor_char_boundary(TEXT_MAX)];
        let message = [&progress.encode(said(text.len())), text].concat();
        let _ = rustix::net::send(&self.socket, &message, SendFlags::NOSIGNAL);
    }
}

/// Takes a configuration, the first or another one.
fn configure(
    worker: &mut Option<Worker>,
    inlet: &Inlet,
    text: &[u8],
) -> Result<Result<(), Refusal>, WorkerError> {
    let invalid = |detail: String| WorkerError::Configuration(detail);
    let configuration: Configuration =
        serde_json::from_slice(text).map_err(|e| invalid(e.to_string()))?;
    let camera = CameraId::new(&configuration.camera).map_err(|e| invalid(e.to_string()))?;
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if parent != configuration.parent {
        // It ended before its end could be asked for.
        return Err(WorkerError::Orphan(configuration.parent));
    }
    if let Some(worker) = worker {
        if worker.camera != camera {
            return Err(invalid(format!("camera {camera} instead of {}", worker.camera)));
        }
        worker.configuration = configuration;
        let resized = worker.resize();
        worker.tell(inlet);
        return Ok(resized);
    }
    // What process lists show.
    if let Ok(name) = CString::new(format!("dec:{camera}")) {
        let _ = rustix::thread::set_name(&name);
    }
    let now = clock::monotonic();
    let new = worker.insert(Worker {
        configuration,
        camera,
        decoder: None,
        ring: None,
        heartbeat: now,
        exported_at: now,
        discontinuity: false,
        progress: Progress::default(),
        reported: Progress::default(),
        reported_at: now,
        blank: 0,
        told: (false, None),
        remark: String::new(),
    });
    inlet.report(new.progress);
    Ok(Ok(()))
}

/// What travels through the decoder with each access unit.
type Tag = (UnitHeader, Instant);

struct Worker {
    configuration: Configuration,
    camera: CameraId,
    decoder: Option<Decoder<Tag>>,
    ring: Option<RingWriter>,
    heartbeat: Instant,
    exported_at: Instant,
    /// A frame that was not exported carried the flag: the next one has it.
    discontinuity: bool,
    progress: Progress,
    reported: Progress,
    reported_at: Instant,
    /// Access units since the last picture.
    blank: u32,
    /// What ingest was told of: whether no picture comes, and which ring.
    told: (bool, Option<Generation>),
    remark: String,
}

impl Worker {
    /// Tells ingest when no picture comes, when another ring has fewer slots than the configuration
    /// asks for, and when neither is so any more.
    fn tell(&mut self, inlet: &Inlet) {
        let blank = self.blank >= BLANK_UNITS;
        let now = (blank, self.ring.as_ref().map(RingWriter::generation));
        if std::mem::replace(&mut self.told, now) == now {
            return;
        }
        let remark = match &self.ring {
            _ if blank => format!(
                "no picture came of the last {BLANK_UNITS} that the camera sent: they are damaged, or take \
                 more than the {} MiB of memory that a worker has",
                DECODER_DATA_BYTES_MAX >> 20
            ),
            Some(ring) => {
                let spec = ring.spec();
                fewer(&self.configuration, spec.picture.size, spec.slots)
            }
            None => String::new(),
        };
        if remark != self.remark {
            inlet.remark(self.progress, &remark);
            self.remark = remark;
        }
    }

    /// Heartbeat of the ring when it is due.
    fn beat(&mut self, now: Instant) {
        if now - self.heartbeat >= RING_HEARTBEAT {
            self.heartbeat = now;
            if let Some(ring) = &mut self.ring {
                ring.heartbeat();
            }
        }
    }

    /// Progress, when there is any and the last report is old enough.
    fn report(&mut self, inlet: &Inlet, now: Instant) {
        if now - self.reported_at >= REPORT && self.reported != self.progress {
            inlet.report(self.progress);
            (self.reported, self.reported_at) = (self.progress, now);
        }
    }

    /// Nothing to read: heartbeat and report. Says when to look again.
    fn idle(&mut self, inlet: &Inlet) -> Duration {
        let now = clock::monotonic();
        self.beat(now);
        self.report(inlet, now);
        let beat = RING_HEARTBEAT.saturating_sub(now - self.heartbeat);
        if self.reported == self.progress {
            return beat;
        }
        beat.min(REPORT.saturating_sub(now - self.reported_at))
    }

    fn unit(
        &mut self,
        inlet: &Inlet,
        unit: UnitHeader,
        packet: &mut ff::Packet,
    ) -> Result<(), Refusal> {
        let decode_start = clock::monotonic();
        let result = self.decode(inlet, unit, packet, decode_start);
        self.progress.sequence = unit.sequence;
        let now = clock::monotonic();
        self.beat(now);
        self.report(inlet, now);
        result
    }

    fn decode(
        &mut self,
        inlet: &Inlet,
        unit: UnitHeader,
        packet: &mut ff::Packet,
        decode_start: Instant,
    ) -> Result<(), Refusal> {
        let hints = self.configuration.hints;
        let fits = |d: &&mut Decoder<Tag>| d.codec() == unit.codec && d.hints() == hints;
        let decoder = match self.decoder.as_mut().filter(fits) {
            Some(decoder) => decoder,
            None => self.decoder.insert(Decoder::new(unit.codec, hints)?),
        };
        let errors = decoder.errors();
        decoder.submit(packet, unit.flags, (unit, decode_start));
        self.blank = self.blank.saturating_add(1);
        while let Some(decoded) = decoder.next()? {
            self.blank = 0;
            // While others wait, this frame is old already: only the newest is worth a slot.
            let superseded = unit.flags.has(UnitFlags::MORE) || inlet.waits();
            let starving = decode_start - self.exported_at >= EXPORT_AT_LEAST;
            self.discontinuity |= decoded.flags.has(base::FrameFlags::DISCONTINUITY);
            if decoded.preroll || superseded && !starving {
                self.progress.unexported += 1;
                continue;
            }
            if export(
                &mut self.ring,
                &self.configuration,
                &self.camera,
                &decoded,
                self.discontinuity,
            )? {
                self.progress.exported += 1;
                self.exported_at = decode_start;
                self.discontinuity = false;
            } else {
                self.progress.unexported += 1;
            }
        }
        self.progress.errors += decoder.errors() - errors;
        self.tell(inlet);
        Ok(())
    }

    /// Another deadline or rate: another number of slots, as long as there is room for both rings.
    fn resize(&mut self) -> Result<(), Refusal> {
        if let Some(mut ring) = self.ring.take() {
            let slots = slots(&self.configuration, ring.spec().picture.size);
            let spec = RingSpec { slots, ..ring.spec().clone() };
            if spec != *ring.spec() {
                ring = ring.replace(&spec)?;
            }
            if spec != *ring.spec() {
                let (has, wanted) = (ring.spec().slots, spec.slots);
                tracing::warn!(camera = %self.camera, "no room in shared memory to change the ring \
                    from {has} to {wanted} slots: it stays as it is; enlarge shared memory");
            }
            self.ring = Some(ring);
        }
        Ok(())
    }
}

/// Slots that rate and deadline ask for.
fn wanted_slots(configuration: &Configuration) -> u32 {
    let deadline = Duration::from_millis(configuration.deadline_ms);
    slots_for(configuration.fps, deadline, Duration::ZERO)
}

/// Those of them that pictures of this size may have.
fn slots(configuration: &Configuration, size: Size) -> u32 {
    slots_within(size, wanted_slots(configuration))
}

/// What `slots` are less than: empty when as many were wanted.
fn fewer(configuration: &Configuration, size: Size, slots: u32) -> String {
    let wanted = wanted_slots(configuration);
    if slots >= wanted || slots < slots_within(size, wanted) {
        // Enough, or shared memory was full, which is told where it happens.
        return String::new();
    }
    let Configuration { fps, deadline_ms, .. } = configuration;
    format!(
        "the ring has {slots} slots of the {wanted} that {fps:.0} pictures per second and a deadline of \
         {deadline_ms} ms ask for: a ring of {}x{} may take {} MiB; late models miss frames, set the camera \
         to smaller or fewer pictures",
        size.width,
        size.height,
        RING_BYTES_MAX >> 20
    )
}

/// Writes a picture into the ring, which is made or changed when the picture asks for it. False
/// when the picture is not newer than the last one.
fn export(
    ring: &mut Option<RingWriter>,
    configuration: &Configuration,
    camera: &CameraId,
    decoded: &Decoded<'_, Tag>,
    discontinuity: bool,
) -> Result<bool, Refusal> {
    let picture = decoded.picture;
    let slots = slots(configuration, picture.size);
    let spec = RingSpec { camera: camera.clone(), picture, slots };
    let writer = match ring.take() {
        // The number of slots is changed by the configuration alone, where there is room.
        Some(writer) if writer.spec().picture == spec.picture => writer,
        Some(writer) => writer.replace(&spec)?,
        None => RingWriter::create(&configuration.shm, &spec)?,
    };
    let writer = ring.insert(writer);
    let (unit, decode_start) = decoded.tag;
    if writer.last_media().is_some_and(|last| unit.media <= last) {
        return Ok(false);
    }
    let mut slot = writer.begin();
    let (luma, chroma) = slot.planes();
    decoded.write_nv12(luma, chroma);
    let flag = base::FrameFlags::DISCONTINUITY;
    slot.publish(&FrameInfo {
        media: unit.media,
        capture: unit.capture,
        capture_utc: unit.capture_utc,
        decode_start,
        flags: if discontinuity { decoded.flags.with(flag) } else { decoded.flags },
    });
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker_message::Hints;

    fn configuration(fps: f64, deadline_ms: u64) -> Configuration {
        let (camera, shm) = ("large".to_owned(), "/nowhere".into());
        Configuration { camera, shm, parent: 0, fps, deadline_ms, hints: Hints::default() }
    }

    #[test]
    fn a_ring_is_bounded_in_bytes_and_ingest_is_told_what_it_lacks() {
        let size = |width, height| Size { width, height };
        // What took 15 GiB: 158 slots of 96 MiB.
        let hostile = configuration(240.0, 500);
        let largest = size(8192, 8192);
        let has = slots(&hostile, largest);
        assert_eq!((wanted_slots(&hostile), has), (80, 10));
        let told = fewer(&hostile, largest, has);
        for part in ["10 slots of the 80", "240 pictures", "500 ms", "8192x8192", "1024 MiB"] {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(fewer(&hostile, size(1920, 1080), 80), "", "as many as were wanted");
        assert_eq!(fewer(&hostile, largest, 80), "");
        let kept = fewer(&hostile, largest, 9);
        assert_eq!(kept, "", "shared memory was full: told by the worker itself");
        let usual = configuration(25.0, 500);
        assert_eq!(slots(&usual, size(8192, 4320)), wanted_slots(&usual), "8K as it is used");
    }
}
