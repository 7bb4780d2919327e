//! The thread that listens: connections, messages in, frames out of the rings.
//!
//! A connection becomes the active one when it has answered Hello with a Welcome of this protocol;
//! it then replaces the one before. Until then it can disturb nobody.

use super::peer::{Closed, Inbox, Peer};
use super::shared::{Batch, Place, Shared};
use super::work::Work;
use crate::engine::{EngineInfo, Frame};
use crate::parameters::{ParameterCache, Parameters};
use base::limits::{HANG_LIMIT, PROTOCOL_VERSION};
use base::log_gate::LogGate;
use base::model::ModelSpec;
use base::{Absent, CameraId, DeviceId, InstanceId, Instant, MemberError, Newest};
use ipc::clock;
use ipc::descriptors;
use ipc::directories::Directories;
use ipc::ring::{CopyError, FrameRecord, RingReader};
use ipc::runner_message::{Hello, Member, Prepare, Reply, RunnerMessage, Welcome};
use ipc::stop::Stop;
use kernels::Fit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Connections that have not answered Hello yet; the oldest goes first.
const NEWCOMERS_MAX: usize = 4;
/// A ring that no batch named for so long is closed: its memory may be that of a camera that is
/// gone (chosen: longer than the longest period of a subscription).
const RING_IDLE: Duration = Duration::from_secs(30);
/// How often rings and newcomers are looked over while nothing happens.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the listening thread knows of the runner.
pub struct Listen<'a> {
    /// The model.
    pub spec: &'a ModelSpec,
    /// The engine.
    pub info: &'a EngineInfo,
    /// The device.
    pub device: &'a DeviceId,
    /// This life.
    pub instance: InstanceId,
    /// Where the rings are.
    pub directories: &'a Directories,
    /// Batches go here.
    pub shared: &'a Shared,
}

struct Connection {
    peer: Arc<Peer>,
    inbox: Inbox,
    since: Instant,
    /// The last batch that it named; ids rise.
    last_batch: Option<u64>,
}

struct Ring {
    reader: RingReader,
    /// When a frame was last copied from it; at first when it was made.
    used: Instant,
}

impl Ring {
    fn new(shm: &Path, camera: &CameraId, now: Instant) -> Ring {
        Ring { reader: RingReader::new(shm, camera), used: now }
    }

    /// Copies the frame of a member. Only a success keeps the ring open for longer: a camera that
    /// is gone may be named for as long as somebody wants it.
    fn copy(
        &mut self,
        member: &Member,
        pixels: &mut Vec<u8>,
        now: Instant,
    ) -> Result<FrameRecord, CopyError> {
        let copied = self.reader.copy(member.generation, member.frame_id, member.slot, pixels);
        if copied.is_ok() {
            self.used = now;
        }
        copied
    }

    /// Whether its memory may stay mapped: it is used, and its camera has not given it up.
    fn wanted(&mut self, now: Instant) -> bool {
        now - self.used < RING_IDLE
            && !matches!(self.reader.newest(now), Newest::Absent(Absent::Retired | Absent::NoRing))
    }
}

/// The state of the thread.
struct Listener<'a> {
    about: Listen<'a>,
    active: Option<Connection>,
    newcomers: Vec<Connection>,
    /// Accepting failed then: no descriptors left, most likely.
    deaf_since: Option<Instant>,
    refusals: LogGate,
    /// Of descriptors, to open rings with.
    shortage: LogGate,
    rings: HashMap<CameraId, Ring>,
    /// When the rings were looked over.
    looked: Instant,
    defaults: Arc<Parameters>,
    parameters: ParameterCache,
}

/// Who drives the engine.
pub enum Drive<'d, 'a> {
    /// This thread, between messages.
    Here(&'d mut Work<'a>),
    /// Another one; this says that it ended.
    Beside(&'d Stop),
}

/// Accepts and answers until `stop`, or until the thread that drives the engine ended.
pub fn listen(
    about: Listen<'_>,
    socket: &UnixListener,
    stop: &Stop,
    drive: &mut Drive<'_, '_>,
) -> io::Result<()> {
    let defaults = Arc::new(Parameters::defaults(about.spec));
    let mut listener = Listener {
        about,
        active: None,
        newcomers: Vec::new(),
        deaf_since: None,
        refusals: LogGate::default(),
        shortage: LogGate::default(),
        rings: HashMap::new(),
        looked: Instant::ZERO,
        defaults,
        parameters: ParameterCache::default(),
    };
    let wait =
        Timespec { tv_sec: LOOK_EVERY.as_secs() as i64, tv_nsec: LOOK_EVERY.subsec_nanos().into() };
    loop {
        let deaf = listener.deaf_since.is_some();
        let idle = listener.newcomers.is_empty() && listener.rings.is_empty() && !deaf;
        let ready = {
            let connections = listener.active.iter().chain(&listener.newcomers);
            let gone = match drive {
                Drive::Here(_) => stop,
                Drive::Beside(gone) => gone,
            };
            let mut fds: Vec<PollFd<'_>> =
                vec![PollFd::new(stop, PollFlags::IN), PollFd::new(gone, PollFlags::IN)];
            // A connection that cannot be accepted stays readable: looking again has to wait.
            let interest = if deaf { PollFlags::empty() } else { PollFlags::IN };
            fds.push(PollFd::new(socket, interest));
            fds.extend(connections.map(|c| PollFd::new(&*c.peer, PollFlags::IN)));
            match poll(&mut fds, (!idle).then_some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<bool>>()
        };
        if ready[0] || ready[1] {
            return Ok(());
        }
        let connections = &ready[3..];
        // Newcomers first, from behind, so that places stay valid when one is dropped or promoted.
        let actives = usize::from(listener.active.is_some());
        for place in (actives..connections.len()).rev() {
            if connections[place] {
                listener.newcomer(place - actives);
            }
        }
        if actives == 1 && connections[0] {
            listener.read_active();
        }
        if let Drive::Here(work) = drive {
            work.run_waiting();
        }
        if ready[2] {
            listener.accept(socket);
        }
        listener.look_over();
    }
}

impl Listener<'_> {
    fn accept(&mut self, socket: &UnixListener) {
        let peer = match socket.accept().and_then(|(stream, _)| Peer::new(stream)) {
            Ok(peer) => peer,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                let why = descriptors::used_up(&error).unwrap_or_else(|| error.to_string());
                let line = format!("a connection could not be accepted: {why}");
                if self.refusals.allows(&line, clock::monotonic()) {
                    tracing::warn!("{line}");
                }
                self.deaf_since = Some(clock::monotonic());
                return;
            }
        };
        if self.newcomers.len() == NEWCOMERS_MAX {
            self.newcomers.remove(0).peer.close();
        }
        peer.send(&RunnerMessage::Hello(self.hello()));
        let since = clock::monotonic();
        let inbox = Inbox::default();
        self.newcomers.push(Connection { peer, inbox, since, last_batch: None });
    }

    fn hello(&self) -> Hello {
        let Listen { spec, info, .. } = self.about;
        Hello {
            protocol: PROTOCOL_VERSION,
            instance: self.about.instance,
            model_id: spec.model_id.clone(),
            model_version: spec.version.clone(),
            device: self.about.device.clone(),
            gpu: info.gpu,
            input: spec.input.size,
            batch_max: spec.batch_max,
            deadline: spec.deadline,
            labels: spec.labels.clone(),
            latency: self.about.shared.latency().table().clone(),
            runtime: info.summary.clone(),
        }
    }

    /// Reads from a newcomer: its first message has to be a fitting Welcome.
    fn newcomer(&mut self, place: usize) {
        let connection = &mut self.newcomers[place];
        let mut messages = match connection.inbox.read(&connection.peer) {
            Ok(messages) if messages.is_empty() => return,
            Ok(messages) => messages.into_iter(),
            Err(why) => {
                let connection = self.newcomers.remove(place);
                connection.peer.close();
                tracing::info!("connection closed before its welcome: {why}");
                return;
            }
        };
        let connection = self.newcomers.remove(place);
        match messages.next() {
            Some(RunnerMessage::Welcome(welcome)) if welcome.protocol == PROTOCOL_VERSION => {
                self.promote(connection, welcome);
            }
            Some(RunnerMessage::Welcome(Welcome { protocol, .. })) => {
                connection.peer.close();
                tracing::error!(
                    "scheduler speaks protocol {protocol}, this runner {PROTOCOL_VERSION}: use \
                     the same version of vas for both"
                );
                return;
            }
            _ => {
                connection.peer.close();
                tracing::warn!("connection closed: its first message was not Welcome");
                return;
            }
        }
        self.handle_all(messages);
    }

    fn promote(&mut self, connection: Connection, welcome: Welcome) {
        self.drop_active();
        tracing::info!(scheduler = %welcome.instance, "scheduler connected");
        let sizes = self.about.shared.latency().missing();
        if !sizes.is_empty() {
            connection.peer.send(&RunnerMessage::ProfileRequest { sizes });
        }
        self.active = Some(connection);
    }

    fn drop_active(&mut self) {
        if let Some(old) = self.active.take() {
            old.peer.close();
            self.about.shared.forget_all();
        }
    }

    fn read_active(&mut self) {
        let Some(active) = &mut self.active else { return };
        match active.inbox.read(&active.peer) {
            Ok(messages) => self.handle_all(messages.into_iter()),
            Err(why) => self.lost(&why),
        }
    }

    fn lost(&mut self, why: &Closed) {
        tracing::info!("scheduler connection closed: {why}");
        self.drop_active();
    }

    fn handle_all(&mut self, messages: impl Iterator<Item = RunnerMessage>) {
        for message in messages {
            let received = clock::monotonic();
            if let Err(why) = self.handle(message, received) {
                self.lost(&why);
                return;
            }
        }
    }

    fn handle(&mut self, message: RunnerMessage, received: Instant) -> Result<(), Closed> {
        let shared = self.about.shared;
        match message {
            RunnerMessage::Prepare(prepare) => return self.prepare(prepare, received),
            RunnerMessage::Grant { batch, .. } => {
                if !shared.grant(batch, received) {
                    tracing::debug!(batch, "grant for a batch that is not held");
                }
            }
            RunnerMessage::Revoke { batch } => {
                if !shared.revoke(batch) {
                    tracing::debug!(batch, "revoke for a batch that is not held");
                }
            }
            RunnerMessage::ProfileGrant { batch_size, lease } => {
                let max = self.about.spec.batch_max;
                if !(1..=max).contains(&batch_size) {
                    let why = format!("profile of size {batch_size} granted, 1 to {max} exist");
                    return Err(Closed::Protocol(why));
                }
                if let Some(active) = &self.active {
                    shared.profile(Arc::clone(&active.peer), batch_size, lease);
                }
            }
            other => {
                let name = name(&other);
                return Err(Closed::Protocol(format!("a scheduler does not send {name} here")));
            }
        }
        Ok(())
    }

    fn prepare(&mut self, prepare: Prepare, received: Instant) -> Result<(), Closed> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let id = prepare.batch;
        if active.last_batch.is_some_and(|last| id <= last) {
            return Err(Closed::Protocol(format!("batch {id} came after a later one")));
        }
        active.last_batch = Some(id);
        let peer = Arc::clone(&active.peer);
        let count = prepare.members.len();
        let members = if count > self.about.spec.batch_max as usize || !self.about.shared.has_room()
        {
            tracing::warn!(batch = id, members = count, "a batch too large or too many");
            vec![Err(MemberError::Request); count]
        } else {
            self.members(&prepare, received)
        };
        let copied = clock::monotonic();
        if members.iter().all(Result::is_err) {
            // Nothing to execute: the reply needs no token.
            let times = base::StageTimes {
                received,
                copied,
                granted: copied,
                preprocessed: copied,
                executed: copied,
                postprocessed: copied,
            };
            let outcomes =
                members.into_iter().map(|m| m.map(|_| base::FrameDetections::default())).collect();
            peer.send(&RunnerMessage::Reply(Reply { batch: id, times, outcomes }));
            return Ok(());
        }
        let mut frames = Vec::with_capacity(count);
        let members = members.into_iter().map(|member| {
            let (frame, parameters) = member?;
            frames.push(frame);
            Ok(parameters)
        });
        let members = members.collect();
        let two_steps = prepare.lease.is_none();
        let granted = (!two_steps).then_some(copied);
        let place = Place::Here;
        // Who drives the engine says Prepared once the engine has the frames.
        self.about.shared.add(Batch {
            id,
            peer,
            members,
            frames,
            place,
            received,
            copied,
            granted,
            two_steps,
        });
        Ok(())
    }

    /// Copies every frame out of its ring, once; a member that fails does not hinder the others.
    fn members(
        &mut self,
        prepare: &Prepare,
        now: Instant,
    ) -> Vec<Result<(Frame, Arc<Parameters>), MemberError>> {
        let spec = self.about.spec;
        let sets: Vec<Result<Arc<Parameters>, MemberError>> =
            prepare.parameters.iter().map(|set| self.parameters.get(spec, &set.json)).collect();
        let mut members: Vec<Result<(Frame, Arc<Parameters>), MemberError>> = Vec::new();
        for member in &prepare.members {
            let parameters = match member.parameters {
                None => Ok(Arc::clone(&self.defaults)),
                Some(index) => sets[index as usize].clone(),
            };
            let one = parameters.and_then(|parameters| {
                let same = prepare.members.iter().zip(&members).find_map(|(earlier, made)| {
                    let (frame, _) = made.as_ref().ok()?;
                    is_same_frame(earlier, member).then_some(frame)
                });
                let frame = match same {
                    Some(frame) => Frame { region: member.region, ..frame.clone() },
                    None => self.copy(&prepare.cameras[member.camera as usize], member, now)?,
                };
                // A region that can't be shown is found here, not in the time of the device.
                let (size, input) = (frame.picture.size, &spec.input);
                if let Err(error) = Fit::new(size, frame.region, input.size, input.resize) {
                    tracing::debug!("of a frame of {}x{}: {error}", size.width, size.height);
                    self.about.shared.recycle([frame]);
                    return Err(MemberError::Request);
                }
                Ok((frame, parameters))
            });
            members.push(one);
        }
        members
    }

    /// Copies the frame of a member out of its ring.
    fn copy(
        &mut self,
        camera: &CameraId,
        member: &Member,
        now: Instant,
    ) -> Result<Frame, MemberError> {
        let ring = match self.rings.get_mut(camera) {
            Some(ring) => ring,
            None => {
                let ring = Ring::new(&self.about.directories.shm, camera, now);
                self.rings.entry(camera.clone()).or_insert(ring)
            }
        };
        let mut pixels = self.about.shared.buffer();
        match ring.copy(member, &mut pixels, now) {
            Ok(record) => {
                let pixels = Arc::new(pixels);
                Ok(Frame { picture: record.picture, region: member.region, pixels })
            }
            Err(error) => {
                self.about.shared.recycle_buffer(pixels);
                tracing::debug!(%camera, frame = member.frame_id.0, "frame not copied: {error}");
                let refusal = ring.reader.refusal().filter(|_| is_own(error));
                if let Some(why) = refusal.and_then(descriptors::used_up)
                    && self.shortage.allows(&why, now)
                {
                    tracing::error!("frames can't be copied: {why}");
                }
                Err(match error {
                    CopyError::Torn => MemberError::Torn,
                    CopyError::Gone(_) | CopyError::Generation => MemberError::Frame,
                    CopyError::Slot => MemberError::Request,
                })
            }
        }
    }

    fn look_over(&mut self) {
        let now = clock::monotonic();
        self.deaf_since = self.deaf_since.filter(|since| now - *since < LOOK_EVERY);
        if now - self.looked >= LOOK_EVERY {
            self.looked = now;
            self.rings.retain(|_, ring| ring.wanted(now));
        }
        self.newcomers.retain(|newcomer| {
            let good = now - newcomer.since < HANG_LIMIT;
            if !good {
                newcomer.peer.close();
                tracing::info!("connection closed: it did not answer Hello");
            }
            good
        });
    }
}

/// Whether both look at one frame, at whatever region of it.
fn is_same_frame(a: &Member, b: &Member) -> bool {
    let of = |m: &Member| (m.camera, m.generation, m.frame_id, m.slot);
    of(a) == of(b)
}

fn name(message: &RunnerMessage) -> &'static str {
    match message {
        RunnerMessage::Hello(_) => "Hello",
        RunnerMessage::Welcome(_) => "Welcome",
        RunnerMessage::Prepare(_) => "Prepare",
        RunnerMessage::Prepared { .. } => "Prepared",
        RunnerMessage::Grant { .. } => "Grant",
        RunnerMessage::Revoke { .. } => "Revoke",
        RunnerMessage::Executed { .. } => "Executed",
        RunnerMessage::Reply(_) => "Reply",
        RunnerMessage::ProfileRequest { .. } => "ProfileRequest",
        RunnerMessage::ProfileGrant { .. } => "ProfileGrant",
        RunnerMessage::ProfileDone { .. } => "ProfileDone",
        RunnerMessage::Table(_) => "Table",
    }
}

/// Whether it says something of this process, and nothing of the ring.
fn is_own(error: CopyError) -> bool {
    error == CopyError::Gone(Absent::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{ColourMatrix, ColourRange, FrameFlags, FrameId, FrameInfo, MediaTime};
    use base::{Picture, Rect, Size, UtcNanos};
    use ipc::ring::{RingSpec, RingWriter};

    /// A ring with a frame, and the frame.
    fn ring(shm: &Path, camera: &CameraId) -> (RingWriter, Member) {
        let size = Size { width: 32, height: 16 };
        let (matrix, range) = (ColourMatrix::Bt601, ColourRange::Limited);
        let picture = Picture { size, matrix, range };
        let spec = RingSpec { camera: camera.clone(), picture, slots: 8 };
        let mut writer = RingWriter::create(shm, &spec).unwrap();
        let now = clock::monotonic();
        let frame_id = writer.begin().publish(&FrameInfo {
            media: MediaTime(1),
            capture: now,
            capture_utc: UtcNanos(1),
            decode_start: now,
            flags: FrameFlags::default(),
        });
        let Newest::Frame(stamp) = RingReader::new(shm, camera).newest(now) else { panic!() };
        let member = Member {
            camera: 0,
            generation: writer.generation(),
            frame_id,
            slot: stamp.slot,
            region: Rect::WHOLE,
            parent: 0,
            parameters: None,
        };
        (writer, member)
    }

    /// Whether this process has mapped anything below `shm`.
    fn mapped(shm: &Path) -> bool {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().any(|line| line.contains(shm.to_str().unwrap()))
    }

    #[test]
    fn a_ring_that_is_retired_or_only_fails_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let camera: CameraId = "front".parse().unwrap();
        let (writer, member) = ring(dir.path(), &camera);
        let now = clock::monotonic();
        let mut one = Ring::new(dir.path(), &camera, now);
        let mut pixels = Vec::new();
        one.copy(&member, &mut pixels, now).unwrap();
        assert!(one.wanted(now));
        // Trying in vain is no use of it.
        let later = now + RING_IDLE;
        let gone = Member { frame_id: FrameId(999), ..member };
        one.copy(&gone, &mut pixels, later).unwrap_err();
        assert!(!one.wanted(later));
        one.copy(&member, &mut pixels, later).unwrap();
        assert!(one.wanted(later), "its camera is silent, not gone");

        writer.remove().unwrap();
        assert!(!one.wanted(now));
        drop(one);
        assert!(!mapped(dir.path()));
    }
}
