//! The hub's thread: streams in, viewers out, one loop over the UDP port and a wake-up.

use super::bitstream;
use super::clock::Clock;
use super::group::{Follows, Group, Picture};
use super::socket::{Outgoing, Port, Received};
use super::viewer::{Common, Refused, Viewer};
use super::{Shared, Wake, WebrtcOptions, media_origin, stun};
use crate::timeline::ticks_of_utc;
use crate::unit::{AccessUnit, Codec};
use base::{CameraId, Instant, MediaTime, UtcNanos};
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use ipc::ingest_message::Answer;
use ipc::recording::SegmentName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use str0m::IceCreds;

/// A port that is taken is tried again (chosen).
const PORT_RETRY: Duration = Duration::from_secs(2);
/// Longest offer (chosen: a browser's is about 6 KiB).
const OFFER_BYTES_MAX: usize = 64 << 10;
/// Addresses remembered of one viewer.
const ADDRESSES_MAX: usize = 8;
/// Batches of datagrams taken before units have their turn.
const RECEIVE_TURNS: usize = 64;
/// Commands taken before datagrams and deadlines have their turn.
const COMMAND_TURNS: usize = 256;
/// Groups of pictures without B-frames after which a stream counts as free of them (chosen: some
/// groups may have none by chance).
const GROUPS_WITHOUT: u32 = 3;

/// A picture that is older is not what a camera shows now (chosen: above the stall that is noticed).
const FRESH: Duration = Duration::from_secs(5);

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
    Offer {
        camera: CameraId,
        stream: String,
        sdp: String,
        reply: Sender<Answer>,
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

/// Why a stream can't be watched in a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unfit {
    H265,
    Bipredicted,
}

struct Stream {
    camera: CameraId,
    name: String,
    shared: Arc<Shared>,
    feeds: u32,
    /// Since when it has none.
    left: Instant,
    group: Group,
    unfit: Option<Unfit>,
    /// Key pictures since the last B picture.
    groups_without: u32,
    profile: Option<u16>,
    newest: Option<MediaTime>,
    /// When that was captured, by both clocks.
    captured: Option<(Instant, UtcNanos)>,
    viewers: BTreeSet<u64>,
}

struct Seat {
    viewer: Viewer,
    stream: u64,
    session: String,
    name: String,
    due: Instant,
    addresses: Vec<SocketAddr>,
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
    seats: HashMap<u64, Seat>,
    next_viewer: u64,
    sessions: HashMap<String, u64>,
    /// By `ice-ufrag`.
    names: HashMap<String, u64>,
    /// By the peer's address, with the address of this machine that it uses.
    addresses: HashMap<SocketAddr, (u64, Option<IpAddr>)>,
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
            seats: HashMap::new(),
            next_viewer: 1,
            sessions: HashMap::new(),
            names: HashMap::new(),
            addresses: HashMap::new(),
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
                && self.seats.is_empty()
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
                let stream = self.streams.entry(shared.id).or_insert_with(|| Stream {
                    camera,
                    name,
                    shared,
                    feeds: 0,
                    left: now,
                    group: Group::default(),
                    unfit: None,
                    groups_without: 0,
                    profile: None,
                    newest: None,
                    captured: None,
                    viewers: BTreeSet::new(),
                });
                stream.feeds += 1;
                self.feedless.remove(&stream.shared.id);
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
            Command::Offer { camera, stream, sdp, reply } => {
                let answer = self.offer(&camera, &stream, &sdp, now);
                // Whoever asked may have gone.
                let _ = reply.send(answer.unwrap_or_else(|r| Answer::failed(r.status, r.message)));
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
                let ids: Vec<_> = self.seats.keys().copied().collect();
                for id in ids {
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
            if let Some(seat) = self.seats.get_mut(&viewer) {
                seat.viewer.picture(&picture, follows, profile, now);
            }
            self.drive(viewer, now);
        }
        self.flush();
    }

    fn offer(
        &mut self,
        camera: &CameraId,
        stream: &str,
        sdp: &str,
        now: Instant,
    ) -> Result<Answer, Refused> {
        let refused = |status, message| Err(Refused { status, message });
        let id = self.find(camera, stream)?;
        if let Some(stream) = self.streams.get(&id)
            && stream.unfit.is_some()
        {
            return refused(422, stream.why_unfit());
        }
        if sdp.len() > OFFER_BYTES_MAX {
            let message =
                format!("the offer has {} bytes, the limit is {OFFER_BYTES_MAX}", sdp.len());
            return refused(400, message);
        }
        if self.seats.len() >= self.options.viewers_max {
            let message = format!(
                "{} viewers watch already, the limit of this node; close one and try again",
                self.seats.len()
            );
            return refused(503, message);
        }
        if self.stopping.is_some() {
            return refused(503, "live view is being stopped; try again when it runs".into());
        }
        let port = match &self.port {
            Ok(port) => port,
            Err(why) => return refused(503, why.clone()),
        };
        let addresses = match self.options.announce.is_empty() {
            false => self.options.announce.clone(),
            true => port.addresses().unwrap_or_default(),
        };
        let local: Vec<_> =
            addresses.into_iter().map(|ip| SocketAddr::new(ip, port.number())).collect();
        if local.is_empty() {
            let why = "no interface has an address for viewers; set webrtc.announce";
            return refused(503, why.into());
        }
        if self.common.is_none() {
            self.common = Some(common(self.options.silence)?);
        }
        let Some(common) = &self.common else { return refused(503, "no certificate".into()) };
        let ice = IceCreds { ufrag: unguessable(8)?, pass: unguessable(16)? };
        let (session, name) = (unguessable(16)?, ice.ufrag.clone());
        let accept = || Viewer::accept(sdp, ice, local, common, now);
        // What strangers send is parsed here: a fault of the parser is one offer's.
        let Ok(accepted) = catch_unwind(AssertUnwindSafe(accept)) else {
            return refused(400, "the offer can't be understood; send the SDP of a browser".into());
        };
        let (viewer, sdp) = accepted?;
        let number = self.next_viewer;
        self.next_viewer += 1;
        let media = match self.streams.get_mut(&id) {
            Some(stream) => {
                stream.viewers.insert(number);
                stream.count();
                stream.newest
            }
            None => None,
        };
        self.sessions.insert(session.clone(), number);
        self.names.insert(name.clone(), number);
        let addresses = Vec::new();
        let seat = Seat { viewer, stream: id, session: session.clone(), name, due: now, addresses };
        self.seats.insert(number, seat);
        self.due.insert((now, number));
        let media = media.unwrap_or_else(|| MediaTime(ticks_of_utc(ipc::clock::utc())));
        let media_origin = media_origin(media);
        Ok(Answer { status: 201, session, sdp, media_origin, ..Answer::default() })
    }

    fn close(&mut self, camera: &CameraId, session: &str, now: Instant) -> Answer {
        let of_camera = |id: &u64| {
            let stream = self.seats.get(id).and_then(|seat| self.streams.get(&seat.stream));
            stream.is_some_and(|stream| stream.camera == *camera)
        };
        match self.sessions.get(session).copied().filter(of_camera) {
            Some(id) => {
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
            Refused { status: 404, message }
        })
    }

    fn receive(&mut self) {
        let Some(clock) = self.common.as_ref().map(|common| common.clock) else {
            return self.discard();
        };
        let now = ipc::clock::monotonic();
        let Ok(port) = &mut self.port else { return };
        let mut touched = BTreeSet::new();
        let (seats, names, addresses) = (&mut self.seats, &self.names, &mut self.addresses);
        for at in 0..port.sockets().len() {
            let mut turns = 0;
            while turns < RECEIVE_TURNS
                && port.receive(at, |datagram| {
                    let id = deliver(&datagram, seats, names, addresses, &clock, now);
                    touched.extend(id);
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
                while port.receive(at, |_| ()) {}
            }
        }
    }

    /// Lets a viewer do what is due, and takes it out when it is gone.
    fn drive(&mut self, id: u64, now: Instant) {
        let (Some(seat), Some(common), Ok(port)) =
            (self.seats.get_mut(&id), &self.common, &self.port)
        else {
            // Nobody who could be due.
            return self.due.retain(|(_, other)| *other != id);
        };
        self.due.remove(&(seat.due, id));
        let Some(stream) = self.streams.get(&seat.stream) else { return self.remove(id) };
        let (out, addresses) = (&mut self.out, &self.addresses);
        let mut transmit = |to: SocketAddr, contents: &[u8]| {
            let from = addresses.get(&to).and_then(|(_, local)| *local);
            out.push(to, from, contents, port);
        };
        let viewer = &mut seat.viewer;
        let work =
            || viewer.drive(&stream.group, stream.profile, &common.clock, now, &mut transmit);
        // What strangers send is parsed in there: a fault hits the one who sent it.
        match catch_unwind(AssertUnwindSafe(work)).unwrap_or(None) {
            Some(due) => {
                seat.due = due;
                self.due.insert((due, id));
            }
            None => self.remove(id),
        }
    }

    /// Says goodbye to a viewer. Its session is over at once.
    fn end(&mut self, id: u64, now: Instant) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        self.sessions.remove(&seat.session);
        seat.viewer.close(now);
        self.drive(id, now);
    }

    fn remove(&mut self, id: u64) {
        let Some(seat) = self.seats.remove(&id) else { return };
        self.due.remove(&(seat.due, id));
        self.sessions.remove(&seat.session);
        self.names.remove(&seat.name);
        for address in seat.addresses {
            if self.addresses.get(&address).is_some_and(|(owner, _)| *owner == id) {
                self.addresses.remove(&address);
            }
        }
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

impl Stream {
    /// The kept pictures, unless the stream stands still.
    fn fresh(&self) -> Result<Vec<Arc<AccessUnit>>, String> {
        let old = |(capture, _): &(Instant, UtcNanos)| ipc::clock::monotonic() - *capture > FRESH;
        if let Some((_, utc)) = self.captured.filter(old) {
            let last = SegmentName::at(utc);
            return Err(format!(
                "camera {} sends no pictures: the last one came at {}; try again when it is live",
                self.camera,
                last.stem()
            ));
        }
        Ok(self.group.pictures().iter().map(|p| Arc::clone(&p.unit)).collect())
    }

    /// Looks whether browsers can play what comes.
    fn judge(&mut self, unit: &AccessUnit) {
        if unit.codec == Codec::H265 {
            self.unfit = Some(Unfit::H265);
            return;
        }
        if unit.key() {
            self.profile = bitstream::profile(&unit.data).or(self.profile);
            self.groups_without = self.groups_without.saturating_add(1);
            if self.unfit == Some(Unfit::H265) || self.groups_without > GROUPS_WITHOUT {
                self.unfit = None;
            }
        } else if bitstream::bipredicted(&unit.data) {
            self.unfit = Some(Unfit::Bipredicted);
            self.groups_without = 0;
        }
    }

    fn why_unfit(&self) -> String {
        let Stream { camera, name, .. } = self;
        let (what, remedy) = match self.unfit {
            Some(Unfit::H265) => ("H.265, which browsers don't take", "to H.264"),
            _ => ("B-frames, which browsers show out of order", "to no B-frames"),
        };
        format!(
            "camera {camera} can't be watched live: its stream {name} has {what}; set it {remedy} \
             in the camera, or give the camera a sub_url with such a stream and the role live"
        )
    }

    fn count(&self) {
        let viewers = u32::try_from(self.viewers.len()).unwrap_or(u32::MAX);
        self.shared.viewers.store(viewers, Ordering::Relaxed);
    }
}

/// Hands a datagram to the viewer that it is for: by address, else by the name in it and proof
/// that it comes from that viewer.
fn deliver(
    datagram: &Received<'_>,
    seats: &mut HashMap<u64, Seat>,
    names: &HashMap<String, u64>,
    addresses: &mut HashMap<SocketAddr, (u64, Option<IpAddr>)>,
    clock: &Clock,
    now: Instant,
) -> Option<u64> {
    let &Received { source, local, contents } = datagram;
    let asked = stun::asked(contents).and_then(|name| names.get(name)).copied();
    let known = addresses.get(&source).copied();
    // A browser may leave its address to another one of the same machine.
    let id = asked.or(known.map(|(id, _)| id))?;
    let seat = seats.get_mut(&id)?;
    let handle = || {
        if known != Some((id, local)) {
            if !seat.viewer.accepts(source, local, contents, clock, now) {
                return None;
            }
            if !seat.addresses.contains(&source) {
                if seat.addresses.len() == ADDRESSES_MAX {
                    addresses.remove(&seat.addresses.remove(0));
                }
                seat.addresses.push(source);
            }
            addresses.insert(source, (id, local));
        }
        seat.viewer.receive(source, local, contents, clock, now);
        Some(id)
    };
    catch_unwind(AssertUnwindSafe(handle)).unwrap_or_else(|_| {
        seat.viewer.fault();
        Some(id)
    })
}

fn common(silence: Duration) -> Result<Common, Refused> {
    let provider = str0m::crypto::from_feature_flags();
    let failed = |e: &dyn std::fmt::Display| Refused {
        status: 503,
        message: format!("live view has no certificate: {e}; restart ingest"),
    };
    let certificate =
        provider.dtls_provider.generate_certificate().ok_or_else(|| failed(&"none was made"))?;
    Ok(Common { certificate, clock: Clock::new(), silence })
}

/// `bytes` random bytes in hexadecimal.
fn unguessable(bytes: usize) -> Result<String, Refused> {
    use rustix::rand::{GetRandomFlags, getrandom};
    let mut random = vec![0; bytes];
    match getrandom(&mut random[..], GetRandomFlags::empty()) {
        Ok(got) if got == bytes => Ok(random.iter().map(|b| format!("{b:02x}")).collect()),
        _ => Err(Refused { status: 503, message: "the kernel has no random numbers".into() }),
    }
}
