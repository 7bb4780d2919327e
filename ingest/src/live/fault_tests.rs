//! The WebRTC library panics: over an offer, over a datagram, when a viewer is due. Each time the one who
//! brought it to that is refused or gone, and the hub and the others go on.

use super::clock::Clock;
use super::group::Group;
use super::hub::{Command, Entrant, Worker};
use super::offer::{Common, Peer, Refused};
use super::seats::Seats;
use super::socket::Received;
use super::viewer::Viewer;
use super::{Shared, Wake, WebrtcOptions};
use base::Instant;
use crossbeam_channel::{bounded, unbounded};
use rustix::event::{EventfdFlags, eventfd};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind};
use str0m::{Candidate, IceCreds, Rtc, RtcConfig};

thread_local! {
    /// Whether this thread's next call into the library panics.
    static NEXT: Cell<bool> = const { Cell::new(false) };
}

/// Where the library is called.
pub(super) fn library() {
    assert!(!NEXT.take(), "planted");
}

const SILENCE: Duration = Duration::from_secs(60);

pub(super) fn common() -> Common {
    let provider = str0m::crypto::from_feature_flags();
    let certificate = provider.dtls_provider.generate_certificate().unwrap();
    Common { certificate, clock: Clock::new() }
}

/// A browser at `address`, and the peer of this name that has answered its offer.
pub(super) fn met(
    address: SocketAddr,
    name: &str,
    common: &Common,
    now: Instant,
) -> Result<(Rtc, Peer), Refused> {
    let mut browser =
        RtcConfig::new().clear_codecs().enable_h264(true).build(common.clock.theirs(now));
    browser.add_local_candidate(Candidate::host(address, "udp").unwrap());
    let mut api = browser.sdp_api();
    api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
    let (offer, pending) = api.apply().unwrap();
    let ice = IceCreds { ufrag: name.into(), pass: "a password of 22 chars".into() };
    let local = vec!["127.0.0.1:8189".parse().unwrap()];
    let (peer, answer) = Peer::answer(&offer.to_sdp_string(), ice, local, common, now)?;
    let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
    browser.sdp_api().accept_answer(pending, answer).unwrap();
    Ok((browser, peer))
}

/// What answers a browser's offer.
fn answered(common: &Common, now: Instant) -> Result<Peer, Refused> {
    met("127.0.0.1:9".parse().unwrap(), "name", common, now).map(|(_, peer)| peer)
}

#[test]
fn over_an_offer_that_one_is_refused() {
    let (common, now) = (common(), ipc::clock::monotonic());
    NEXT.set(true);
    let refused = answered(&common, now).err().unwrap();
    assert_eq!(refused.status, 400);
    assert!(refused.message.contains("it can't be read"), "{}", refused.message);
    assert!(answered(&common, now).is_ok());
}

#[test]
fn over_a_datagram_its_viewer_is_gone() {
    let (common, now) = (common(), ipc::clock::monotonic());
    let mut seats = Seats::default();
    let mut seat = |name: &str| {
        let viewer = Viewer::new(answered(&common, now).ok().unwrap(), SILENCE, now);
        seats.add(viewer, 1, (format!("session of {name}"), name.to_owned()), now)
    };
    let (a, b) = (seat("aaaa"), seat("bbbb"));
    // A binding request that names it.
    let mut contents = vec![0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
    contents.extend([7; 12]);
    contents.extend([0, 6, 0, 6]);
    contents.extend(b"aaaa:b\0\0");
    let source: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let datagram = Received { source, local: None, contents: &contents };
    NEXT.set(true);
    assert_eq!(seats.deliver(&datagram, &common.clock, now), Some(a));
    let mut drive = |id| {
        let (seat, _) = seats.with_ways(id).unwrap();
        seat.viewer.drive(&Group::default(), None, &common.clock, now, &mut |_, _| {})
    };
    assert_eq!(drive(a), None);
    assert!(drive(b).is_some(), "the other one has nothing to do with it");
}

#[test]
fn when_a_viewer_is_due_it_is_gone_and_the_hub_goes_on() {
    let (commands, inbox) = unbounded();
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let wake = Arc::new(Wake { event, pending: AtomicBool::new(false) });
    let (theirs, bound) = (Arc::clone(&wake), Arc::<AtomicU32>::default());
    let thread = std::thread::spawn(move || {
        NEXT.set(true);
        let options = WebrtcOptions { udp_port: 0, ..WebrtcOptions::default() };
        Worker::new(options, inbox, theirs, bound).run();
    });
    let tell = |command| {
        commands.send(command).unwrap();
        wake.wake();
    };
    let shared = Arc::<Shared>::default();
    let (camera, stream) = ("front".parse().unwrap(), "main".to_owned());
    tell(Command::Open { camera, stream: stream.clone(), shared: Arc::clone(&shared) });
    let admit = || {
        let (reply, admitted) = bounded(1);
        let camera = "front".parse().unwrap();
        tell(Command::Admit { camera, stream: stream.clone(), reply });
        admitted.recv().unwrap().ok().unwrap()
    };
    let seat = |session: &str| {
        let admission = admit();
        let now = ipc::clock::monotonic();
        let peer = answered(&admission.common, now).ok().unwrap();
        let (session, name) = (session.to_owned(), session.to_owned());
        let entrant = Box::new(Entrant { stream: admission.stream, peer, session, name });
        let (reply, seated) = bounded(1);
        tell(Command::Seat { entrant, reply });
        seated.recv().unwrap().ok().unwrap();
    };
    seat("first");
    let watching = || shared.viewers.load(Ordering::Relaxed);
    // It is due between two of these, if not before the first.
    (0..1000).take_while(|_| watching() > 0).for_each(|_| drop(admit()));
    assert_eq!(watching(), 0);
    seat("second");
    (0..3).for_each(|_| drop(admit()));
    assert_eq!(watching(), 1);
    let (reply, stopped) = bounded(1);
    tell(Command::Stop { reply });
    stopped.recv().unwrap();
    thread.join().unwrap();
}
