//! The hub's thread: streams in, viewers out, one loop over the UDP port and a wake-up.

use super::clock::Clock;
use super::group::{Follows, Picture};
use super::offer::{Common, Peer, Refused};
use super::seats::Seats;
use super::socket::{Outgoing, Port};
use super::stream::Stream;
use super::viewer::Viewer;
use super::{Shared, Wake, WebrtcOptions};
use crate::timeline::ticks_of_utc;
use crate::unit::AccessUnit;
use base::{CameraId, Instant, MediaTime, guard};
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use ipc::ingest_message::Answer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A port that is taken is tried again (chosen).
const PORT_RETRY: Duration = Duration::from_secs(2);
/// Batches of datagrams taken before units have their turn.
const RECEIVE_TURNS: usize = 64;
/// Commands taken before datagrams and deadlines have their turn.
const COMMAND_TURNS: usize = 256;
/// What others want of the hub.
pub enum Command {
    /// A stream has a feed from now on.
    Open {
        camera: CameraId,
        stream: String,
        shared: Arc<Shared>,
    },
    /// A stream's next unit.
    Unit {
        stream: u64,
        unit: Arc<AccessUnit>,
    },
    /// A stream has one feed less.
    Gone {
        stream: u64,
    },
    /// Somebody has an offer for a stream.
    Admit {
        camera: CameraId,
        stream: String,
        reply: Sender<Result<Admission, Refused>>,
    },
    /// It has been answered.
    Seat {
        entrant: Box<Entrant>,
        reply: Sender<Result<MediaTime, Refused>>,
    },
    Close {
        camera: CameraId,
        session: String,
        reply: Sender<Answer>,
    },
    Pictures {
        camera: CameraId,
        stream: String,
        reply: Sender<Result<Vec<Arc<AccessUnit>>, Answer>>,
    },
    Stop {
        reply: Sender<()>,
    },
}

/// What it takes to answer an offer.
pub struct Admission {
    /// The stream.
    pub stream: u64,
    /// Where viewers find the hub.
    pub local: Vec<SocketAddr>,
    /// As every viewer has it.
    pub common: Common,
}

/// A viewer whose offer has been answered.
pub struct Entrant {
    /// The stream.
    pub stream: u64,
    /// What answered.
    pub peer: Peer,
    /// By which it can be ended.
    pub session: String,
    /// Its `ice-ufrag`.
    pub name: String,
}

/// The thread's state.
pub struct Worker {
    options: WebrtcOptions,
    inbox: Receiver<Command>,
    wake: Arc<Wake>,
    bound: Arc<AtomicU32>,
    common: Option<Common>,
    port: Result<Port, String>,
    port_retry: Instant,
    out: Outgoing,
    streams: BTreeMap<u64, Stream>,
    /// Streams without a feed.
    feedless: BTreeSet<u64>,
    seats: Seats,
    /// When each viewer is due.
    due: BTreeSet<(Instant, u64)>,
    stopping: Option<Sender<()>>,
}

impl Worker {
    /// With its port bound, when that is possible.
    pub fn new(
        options: WebrtcOptions,
        inbox: Receiver<Command>,
        wake: Arc<Wake>,
        bound: Arc<AtomicU32>,
    ) -> Worker {
        let mut worker = Worker {
            options,
            inbox,
            wake,
            bound,
            common: None,
            port: Err(String::new()),
            port_retry: Instant::ZERO,
            out: Outgoing::default(),
            streams: BTreeMap::new(),
            feedless: BTreeSet::new(),
            seats: Seats::default(),
            due: BTreeSet::new(),
            stopping: None,
        };
        worker.keep_port(ipc::clock::monotonic());
        worker
    }

    /// Until it is stopped, or everyone who could ask is gone.
    pub fn run(&mut self) {
        let mut more = false;
        loop {
            self.nap(more, ipc::clock::monotonic());
            self.wake.clear();
            self.keep_port(ipc::clock::monotonic());
            match self.commands() {
                Some(left) => more = left,
                None => return,
            }
            self.receive();
            let now = ipc::clock::monotonic();
            while let Some(&(due, id)) = self.due.first()
                && due <= now
            {
                self.drive(id, now);
            }
            self.flush();
            self.leave_streams(now);
            if let Some(reply) = &self.stopping
                && self.seats.len() == 0
            {
                let _ = reply.send(());
                return;
            }
        }
    }

    /// Until something is due or comes; only looks when there is `more` to do.
    fn nap(&mut self, more: bool, now: Instant) {
        let mut until = now + Duration::from_secs(if more { 0 } else { 3600 });
        if let Some(&(due, _)) = self.due.first() {
            until = until.min(due);
        }
        if self.port.is_err() {
            until = until.min(self.port_retry);
        }
        for stream in self.feedless.iter().filter_map(|id| self.streams.get(id)) {
            until = until.min(stream.left + self.options.grace);
        }
        let mut fds = vec![PollFd::new(&self.wake.event, PollFlags::IN)];
        if let Ok(port) = &self.port {
            fds.extend(port.sockets().iter().map(|b| PollFd::new(b.socket(), PollFlags::IN)));
        }
        let nap = until - now;
        let timeout = Timespec {
            tv_sec: i64::try_from(nap.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: nap.subsec_nanos().into(),
        };
        // Interrupted is awake.
        let _ = poll(&mut fds, Some(&timeout));
    }

    fn keep_port(&mut self, now: Instant) {
        if self.port.is_ok() || now < self.port_retry {
            return;
        }
        let number = self.options.udp_port;
        match Port::bind(number) {
            Ok(port) => {
                tracing::info!("viewers are served on UDP port {}", port.number());
                self.bound.store(port.number().into(), Ordering::Release);
                self.port = Ok(port);
            }
            Err(e) => {
                let why = format!(
                    "live view has no UDP port: {number} can't be bound: {e}; free it or set \
                     another webrtc.udp_port"
                );
                if self.port.as_ref().err() != Some(&why) {
                    tracing::error!("{why}");
                }
                self.port = Err(why);
                self.port_retry = now + PORT_RETRY;
            }
        }
    }

    /// Takes what others want. Returns whether there is more, and None when nobody is left.
    fn commands(&mut self) -> Option<bool> {
        for _ in 0..COMMAND_TURNS {
            match self.inbox.try_recv() {
                Ok(command) => self.command(command, ipc::clock::monotonic()),
                Err(TryRecvError::Empty) => return Some(false),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
        Some(true)
    }

    fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Open { camera, stream: name, shared } => {
                let id = shared.id;
                let new = || Stream::new(camera, name, shared, now);
                let stream = self.streams.entry(id).or_insert_with(new);
                stream.feeds += 1;
                self.feedless.remove(&id);
            }
            Command::Unit { stream, unit } => self.unit(stream, unit, now),
            Command::Gone { stream: id } => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.feeds = stream.feeds.saturating_sub(1);
                    stream.left = now;
                    // Another source may follow: nobody is shown the end of this one as if it
                    // were live.
                    if stream.feeds == 0 {
                        stream.group.clear();
                        self.feedless.insert(id);
                    }
                }
            }
            Command::Admit { camera, stream, reply } => {
                // Whoever asked may have gone.
                let _ = reply.send(self.admit(&camera, &stream));
            }
            Command::Seat { entrant, reply } => {
                let _ = reply.send(self.seat(*entrant, now));
            }
            Command::Close { camera, session, reply } => {
                let _ = reply.send(self.close(&camera, &session, now));
            }
            Command::Pictures { camera, stream, reply } => {
                let found = self.find(&camera, &stream);
                let answer = match found.map(|id| self.streams.get(&id)) {
                    Ok(Some(stream)) => stream.fresh().map_err(|why| Answer::failed(404, why)),
                    Ok(None) => Ok(vec![]),
                    Err(refused) => Err(Answer::failed(refused.status, refused.message)),
                };
                let _ = reply.send(answer);
            }
            Command::Stop { reply } => {
                for id in self.seats.ids() {
                    self.end(id, now);
                }
                self.stopping = Some(reply);
            }
        }
    }

    fn unit(&mut self, id: u64, unit: Arc<AccessUnit>, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.shared.queued_units.fetch_sub(1, Ordering::Relaxed);
        stream.shared.queued_bytes.fetch_sub(unit.data.len(), Ordering::Relaxed);
        stream.newest = Some(unit.media);
        stream.captured = Some((unit.capture, unit.capture_utc));
        let before = stream.unfit;
        stream.judge(&unit);
        if stream.unfit != before && stream.unfit.is_some() && !stream.viewers.is_empty() {
            let why = stream.why_unfit();
            tracing::warn!("{} viewers are sent away: {why}", stream.viewers.len());
            for viewer in stream.viewers.clone() {
                self.end(viewer, now);
            }
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let picture = Rc::new(Picture::new(unit));
        let follows = stream.group.push(&picture) == Follows::Yes;
        let (viewers, profile) = (stream.viewers.clone(), stream.profile);
        for viewer in viewers {
            if let Some(seat) = self.seats.get_mut(viewer) {
                seat.viewer.picture(&picture, follows, profile, now);
            }
            self.drive(viewer, now);
        }
        self.flush();
    }

    /// Whether there is a place for one more who watches the stream.
    fn admit(&mut self, camera: &CameraId, stream: &str) -> Result<Admission, Refused> {
        let id = self.find(camera, stream)?;
        self.check_place(id)?;
        let port = self.port.as_ref().map_err(|why| Refused::new(503, why.clone()))?;
        let addresses = match self.options.announce.is_empty() {
            false => self.options.announce.clone(),
            true => port.addresses().unwrap_or_default(),
        };
        let local: Vec<_> =
            addresses.into_iter().map(|ip| SocketAddr::new(ip, port.number())).collect();
        if local.is_empty() {
            let why = "no interface has an address for viewers; set webrtc.announce";
            return Err(Refused::new(503, why));
        }
        let common = match &self.common {
            Some(common) => common.clone(),
            None => self.common.insert(common()?).clone(),
        };
        Ok(Admission { stream: id, local, common })
    }

    fn check_place(&self, stream: u64) -> Result<(), Refused> {
        if let Some(stream) = self.streams.get(&stream)
            && stream.unfit.is_some()
        {
            return Err(Refused::new(422, stream.why_unfit()));
        }
        if self.seats.len() >= self.options.viewers_max {
            let message = format!(
                "{} viewers watch already, the limit of this node; close one and try again",
                self.seats.len()
            );
            return Err(Refused::new(503, message));
        }
        if self.stopping.is_some() {
            let message = "live view is being stopped; try again when it runs";
            return Err(Refused::new(503, message));
        }
        Ok(())
    }

    /// Takes in one that was admitted, when there still is a place. Returns the media time of the
    /// newest picture.
    fn seat(&mut self, entrant: Entrant, now: Instant) -> Result<MediaTime, Refused> {
        let Entrant { stream: id, peer, session, name } = entrant;
        self.check_place(id)?;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Err(Refused::new(404, "the camera has no live view any more; enable it"));
        };
        let viewer = Viewer::new(peer, self.options.silence, now);
        let number = self.seats.add(viewer, id, (session, name), now);
        self.due.insert((now, number));
        stream.viewers.insert(number);
        stream.count();
        Ok(stream.newest.unwrap_or_else(|| MediaTime(ticks_of_utc(ipc::clock::utc()))))
    }

    fn close(&mut self, camera: &CameraId, session: &str, now: Instant) -> Answer {
        let of_camera =
            |stream: u64| self.streams.get(&stream).is_some_and(|s| s.camera == *camera);
        match self.seats.of_session(session).filter(|&(_, stream)| of_camera(stream)) {
            Some((id, _)) => {
                self.end(id, now);
                Answer::done()
            }
            None => Answer::failed(404, format!("camera {camera} has no viewer {session:.64}")),
        }
    }

    /// The stream of this name, or the camera's for live view.
    fn find(&self, camera: &CameraId, name: &str) -> Result<u64, Refused> {
        let of =
            |stream: &&Stream| stream.camera == *camera && (name.is_empty() || stream.name == name);
        let found = self.streams.values().filter(of).max_by_key(|stream| stream.feeds);
        found.map(|stream| stream.shared.id).ok_or_else(|| {
            let which = match name {
                "" => String::new(),
                name => format!(" of stream {name:.64}"),
            };
            let message = format!(
                "camera {camera} has no live view{which}: it is unknown, disabled, or has \
                 live = false"
            );
            Refused::new(404, message)
        })
    }

    fn receive(&mut self) {
        let Some(clock) = self.common.as_ref().map(|common| common.clock) else {
            return self.discard();
        };
        let now = ipc::clock::monotonic();
        let Ok(port) = &mut self.port else { return };
        let mut touched = BTreeSet::new();
        let seats = &mut self.seats;
        for at in 0..port.sockets().len() {
            let mut turns = 0;
            while turns < RECEIVE_TURNS
                && port.receive(at, |datagram| {
                    touched.extend(seats.deliver(&datagram, &clock, now));
                })
            {
                turns += 1;
            }
        }
        for id in touched {
            self.drive(id, now);
        }
    }

    /// Without a viewer ever, there is nobody that a datagram could be for.
    fn discard(&mut self) {
        if let Ok(port) = &mut self.port {
            for at in 0..port.sockets().len() {
                // Not until nothing is left: whoever sends decides when that is.
                for _ in 0..RECEIVE_TURNS {
                    if !port.receive(at, |_| ()) {
                        break;
                    }
                }
            }
        }
    }

    /// Lets a viewer do what is due, and takes it out when it is gone.
    fn drive(&mut self, id: u64, now: Instant) {
        let (Some((seat, ways)), Some(common), Ok(port)) =
            (self.seats.with_ways(id), &self.common, &self.port)
        else {
            // Nobody who could be due.
            return self.due.retain(|(_, other)| *other != id);
        };
        self.due.remove(&(seat.due, id));
        let Some(stream) = self.streams.get(&seat.stream) else { return self.remove(id) };
        let out = &mut self.out;
        let mut transmit =
            |to: SocketAddr, contents: &[u8]| out.push(to, ways.from(to), contents, port);
        let viewer = &mut seat.viewer;
        let work =
            || viewer.drive(&stream.group, stream.profile, &common.clock, now, &mut transmit);
        // What strangers send is parsed in there: a fault hits the one who sent it.
        match guard::foreign(work).unwrap_or(None) {
            Some(due) => {
                seat.due = due;
                self.due.insert((due, id));
            }
            None => self.remove(id),
        }
    }

    /// Says goodbye to a viewer. Its session is over at once.
    fn end(&mut self, id: u64, now: Instant) {
        self.seats.end_session(id);
        let Some(seat) = self.seats.get_mut(id) else { return };
        if guard::foreign(|| seat.viewer.close(now)).is_err() {
            seat.viewer.fault();
        }
        self.drive(id, now);
    }

    fn remove(&mut self, id: u64) {
        let Some(seat) = self.seats.remove(id) else { return };
        self.due.remove(&(seat.due, id));
        if let Some(stream) = self.streams.get_mut(&seat.stream) {
            stream.viewers.remove(&id);
            stream.count();
        }
    }

    /// Ends streams that have had no feed for long.
    fn leave_streams(&mut self, now: Instant) {
        let grace = self.options.grace;
        let over = |id: &u64| self.streams.get(id).is_some_and(|s| now - s.left >= grace);
        let over: Vec<_> = self.feedless.iter().copied().filter(over).collect();
        for id in over {
            if let Some(stream) = self.streams.get(&id) {
                for viewer in stream.viewers.clone() {
                    self.end(viewer, now);
                    self.remove(viewer);
                }
            }
            self.streams.remove(&id);
            self.feedless.remove(&id);
        }
    }

    fn flush(&mut self) {
        if let Ok(port) = &self.port {
            self.out.flush(port);
        }
    }
}

fn common() -> Result<Common, Refused> {
    let provider = str0m::crypto::from_feature_flags();
    let made = provider.dtls_provider.generate_certificate();
    let why = "live view has no certificate: none could be made; restart ingest";
    let certificate = made.ok_or_else(|| Refused::new(503, why))?;
    Ok(Common { certificate, clock: Clock::new() })
}
