//! Live view: WebRTC viewers of the cameras' streams, without transcoding.
//!
//! [`Hub`] is a thread that serves all viewers of the node on one UDP port. Streams hand it their
//! access units through a [`Feed`], which never waits; whoever answers the control socket calls
//! [`Hub::offer`], [`Hub::close`] and [`Hub::pictures`]. docs/live.md has bounds and behaviour.

mod bitstream;
mod clock;
#[cfg(test)]
mod fault_tests;
mod group;
mod hub;
mod offer;
mod seats;
mod socket;
mod stream;
mod stun;
mod viewer;

use crate::control::LiveView;
use crate::unit::{AccessUnit, Codec};
use base::{CameraId, MediaTime};
use crossbeam_channel::{Sender, bounded, unbounded};
use hub::{Admission, Command, Entrant, Worker};
use ipc::ingest_message::{Answer, Picture};
use offer::{Peer, Refused};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use str0m::IceCreds;

/// Units of one stream on their way to the hub; beyond it they are dropped up to the next key
/// picture (chosen: as in [`group`]; the hub takes them out within milliseconds).
const QUEUE_BYTES: usize = 16 << 20;
const QUEUE_UNITS: usize = 512;
/// Units that wait before the hub is woken for a stream that nobody watches.
const UNWATCHED_UNITS: usize = 64;
/// Whoever asks waits at most this long (chosen: a hub that takes longer is stuck).
const ANSWER: Duration = Duration::from_secs(5);

/// How live view is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebrtcOptions {
    /// UDP port of all viewers; 0 = any that is free.
    pub udp_port: u16,
    /// Addresses that viewers are told; empty = every interface's.
    pub announce: Vec<IpAddr>,
    /// Most viewers of the node.
    pub viewers_max: usize,
    /// A viewer that is not heard of for longer is gone.
    pub silence: Duration,
    /// How long the viewers of a stream without a feed stay.
    pub grace: Duration,
}

impl Default for WebrtcOptions {
    fn default() -> WebrtcOptions {
        WebrtcOptions {
            udp_port: 8189,
            announce: Vec::new(),
            // Chosen: two cores serve as many at 1 % of a core each.
            viewers_max: 128,
            // Chosen: browsers send a report every second and prove their consent every 5 s.
            silence: Duration::from_secs(15),
            // Chosen: a camera whose row changes comes back within a second or two.
            grace: Duration::from_secs(10),
        }
    }
}

/// The eventfd that the hub's thread waits for, written once per nap.
#[derive(Debug)]
struct Wake {
    event: OwnedFd,
    pending: AtomicBool,
}

impl Wake {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // A full counter wakes as well.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// Before the queue is read: who comes after this wakes again.
    fn clear(&self) {
        let mut count = [0; 8];
        // Not readable: then nobody woke.
        let _ = rustix::io::read(&self.event, &mut count);
        self.pending.store(false, Ordering::Release);
    }
}

/// What a stream's threads and the hub both see.
#[derive(Debug, Default)]
struct Shared {
    id: u64,
    queued_bytes: AtomicUsize,
    queued_units: AtomicUsize,
    viewers: AtomicU32,
}

type Registry = BTreeMap<(CameraId, String), Arc<Shared>>;

/// The hub. Clones are the same hub.
#[derive(Clone)]
pub struct Hub {
    commands: Sender<Command>,
    wake: Arc<Wake>,
    registry: Arc<Mutex<Registry>>,
    port: Arc<AtomicU32>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("port", &self.port()).finish_non_exhaustive()
    }
}

impl Hub {
    /// Starts the thread. A port that can't be had is no error: it is tried again, and offers are
    /// refused with the reason until then.
    ///
    /// # Errors
    /// When the process has no threads or descriptors left.
    pub fn start(options: WebrtcOptions) -> io::Result<Hub> {
        let (commands, inbox) = unbounded();
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let wake = Arc::new(Wake { event, pending: AtomicBool::new(false) });
        let port = Arc::new(AtomicU32::new(0));
        let (ready, bound_once) = bounded(1);
        let (their_wake, their_port) = (Arc::clone(&wake), Arc::clone(&port));
        thread::Builder::new().name("live:hub".into()).spawn(move || {
            let mut worker = Worker::new(options, inbox, their_wake, their_port);
            // Whoever starts the hub waits for this.
            let _ = ready.send(());
            worker.run();
        })?;
        // Nothing is sent when the thread died: then offers are refused.
        let _ = bound_once.recv();
        Ok(Hub { commands, wake, registry: Arc::default(), port })
    }

    /// The UDP port, once it is bound.
    pub fn port(&self) -> Option<u16> {
        u16::try_from(self.port.load(Ordering::Acquire)).ok().filter(|&port| port != 0)
    }

    /// Opens a stream for viewers, until the feed is dropped. Viewers of a stream whose feed comes
    /// back within 10 s stay.
    pub fn feed(&self, camera: &CameraId, stream: &str) -> Feed {
        let shared = {
            let mut registry = self.registry();
            let id = registry.len() as u64 + 1;
            let new = || Arc::new(Shared { id, ..Shared::default() });
            Arc::clone(registry.entry((camera.clone(), stream.to_owned())).or_insert_with(new))
        };
        let (camera, stream) = (camera.clone(), stream.to_owned());
        self.tell(Command::Open { camera, stream, shared: Arc::clone(&shared) });
        Feed { hub: self.clone(), shared, gap: false }
    }

    /// Takes a viewer's SDP offer for a stream; empty = the one for live view. 201 with session,
    /// answer and the media time of RTP time 0, else why not.
    ///
    /// The offer is read and answered on the caller's thread.
    pub fn offer(&self, camera: &CameraId, stream: &str, sdp: &str) -> Answer {
        self.answer(camera, stream, sdp).unwrap_or_else(|r| Answer::failed(r.status, r.message))
    }

    fn answer(&self, camera: &CameraId, stream: &str, sdp: &str) -> Result<Answer, Refused> {
        let silent = || {
            let Answer { status, message, .. } = unavailable("live view does not answer");
            Refused { status, message }
        };
        let (camera, stream) = (camera.clone(), stream.to_owned());
        let admitted = self.ask(|reply| Command::Admit { camera, stream, reply });
        let Admission { stream, local, common } = admitted.ok_or_else(silent)??;
        let ice = IceCreds { ufrag: unguessable(8)?, pass: unguessable(16)? };
        let (session, name) = (unguessable(16)?, ice.ufrag.clone());
        let (peer, sdp) = Peer::answer(sdp, ice, local, &common, ipc::clock::monotonic())?;
        let entrant = Entrant { stream, peer, session: session.clone(), name };
        let entrant = Box::new(entrant);
        let seated = self.ask(|reply| Command::Seat { entrant, reply });
        let media_origin = media_origin(seated.ok_or_else(silent)??);
        Ok(Answer { status: 201, session, sdp, media_origin, ..Answer::default() })
    }

    /// Ends a viewer.
    pub fn close(&self, camera: &CameraId, session: &str) -> Answer {
        let (camera, session) = (camera.clone(), session.to_owned());
        self.ask(|reply| Command::Close { camera, session, reply })
            .unwrap_or_else(|| unavailable("live view does not answer"))
    }

    /// The newest group of pictures of a stream, key picture first, as far as it is kept.
    pub fn pictures(&self, camera: &CameraId, stream: &str) -> Answer {
        let (name, stream) = (camera.clone(), stream.to_owned());
        let units = match self.ask(|reply| Command::Pictures { camera: name, stream, reply }) {
            Some(Ok(units)) => units,
            Some(Err(answer)) => return answer,
            None => return unavailable("live view does not answer"),
        };
        let codec = match units.first().map(|unit| unit.codec) {
            Some(Codec::H264) => "h264",
            Some(Codec::H265) => "h265",
            None => {
                let why = format!("camera {camera} has no picture yet; try again when it is live");
                return Answer::failed(404, why);
            }
        };
        let picture = |unit: &Arc<AccessUnit>| Picture {
            data: unit.data.clone(),
            media: unit.media,
            capture_utc: unit.capture_utc,
            key: unit.key(),
        };
        let pictures = units.iter().map(picture).collect();
        Answer { pictures, codec: codec.to_owned(), ..Answer::done() }
    }

    /// Viewers of a stream that are connected or about to be.
    pub fn viewers(&self, camera: &CameraId, stream: &str) -> u32 {
        let key = (camera.clone(), stream.to_owned());
        self.registry().get(&key).map_or(0, |shared| shared.viewers.load(Ordering::Relaxed))
    }

    /// Says goodbye to all viewers and ends the thread.
    pub fn stop(&self) {
        let (reply, done) = bounded(1);
        self.tell(Command::Stop { reply });
        // Not for ever: a stuck thread ends with the process.
        let _ = done.recv_timeout(ANSWER);
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = bounded(1);
        self.tell(command(reply));
        answer.recv_timeout(ANSWER).ok()
    }

    fn tell(&self, command: Command) {
        // Without the thread nobody answers, which is what the caller is told.
        let _ = self.commands.send(command);
        self.wake.wake();
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveView for Hub {
    fn offer(&self, camera: &CameraId, stream: &str, sdp: &str) -> Answer {
        Hub::offer(self, camera, stream, sdp)
    }

    fn close(&self, camera: &CameraId, session: &str) -> Answer {
        Hub::close(self, camera, session)
    }

    fn pictures(&self, camera: &CameraId, stream: &str) -> Answer {
        Hub::pictures(self, camera, stream)
    }

    fn viewers(&self, camera: &CameraId, stream: &str) -> u32 {
        Hub::viewers(self, camera, stream)
    }
}

fn unavailable(why: &str) -> Answer {
    Answer::failed(503, format!("{why}; look into the log of ingest"))
}

/// A stream's end of the way to its viewers.
#[derive(Debug)]
pub struct Feed {
    hub: Hub,
    shared: Arc<Shared>,
    gap: bool,
}

impl Feed {
    /// Hands over the next unit. Never waits: when the hub does not keep up, units are dropped up
    /// to the next key picture. Returns whether this one was taken.
    pub fn push(&mut self, unit: &Arc<AccessUnit>) -> bool {
        let shared = &self.shared;
        let units = shared.queued_units.load(Ordering::Relaxed);
        let bytes = shared.queued_bytes.load(Ordering::Relaxed);
        let full = units >= QUEUE_UNITS || (units > 0 && bytes + unit.data.len() > QUEUE_BYTES);
        if full || (self.gap && !unit.key()) {
            self.gap = true;
            return false;
        }
        self.gap = false;
        shared.queued_units.fetch_add(1, Ordering::Relaxed);
        shared.queued_bytes.fetch_add(unit.data.len(), Ordering::Relaxed);
        let command = Command::Unit { stream: shared.id, unit: Arc::clone(unit) };
        let _ = self.hub.commands.send(command);
        let watched = shared.viewers.load(Ordering::Relaxed) > 0;
        if watched || unit.key() || units >= UNWATCHED_UNITS {
            self.hub.wake.wake();
        }
        true
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.hub.tell(Command::Gone { stream: self.shared.id });
    }
}

/// `bytes` random bytes in hexadecimal.
fn unguessable(bytes: usize) -> Result<String, Refused> {
    use rustix::rand::{GetRandomFlags, getrandom};
    let mut random = vec![0; bytes];
    match getrandom(&mut random[..], GetRandomFlags::empty()) {
        Ok(got) if got == bytes => Ok(random.iter().map(|b| format!("{b:02x}")).collect()),
        _ => Err(Refused::new(503, "the kernel has no random numbers")),
    }
}

/// The camera's media time at RTP time 0, near `media`.
fn media_origin(media: MediaTime) -> MediaTime {
    MediaTime(media.0 & !u64::from(u32::MAX))
}
