//! A viewer in this process: str0m as the peer that receives.

use crate::node::Door;
use base::CameraId;
use ipc::ingest_message::Answer;
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcConfig};

use crate::patience::PATIENCE;
use crate::relay::Relay;

/// A picture as it came.
#[derive(Debug, Clone)]
pub struct Frame {
    pub rtp: u32,
    pub data: Vec<u8>,
    pub at: Instant,
    /// Nothing is missing before it.
    pub contiguous: bool,
    /// `profile-level-id` of the payload type it came as.
    pub profile: Option<u32>,
}

impl Frame {
    pub fn key(&self) -> bool {
        crate::camera::key(&self.data)
    }
}

pub struct Peer {
    rtc: Rtc,
    mid: Mid,
    socket: UdpSocket,
    pub session: String,
    pub answer: Answer,
    pub frames: Vec<Frame>,
    pub offered: Instant,
    pub connected: bool,
    pub closed: bool,
}

pub fn offer(rtc: &mut Rtc) -> (String, str0m::change::SdpPendingOffer) {
    let mut api = rtc.sdp_api();
    api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
    let (offer, pending) = api.apply().unwrap();
    (offer.to_sdp_string(), pending)
}

pub fn config() -> RtcConfig {
    RtcConfig::new().clear_codecs().enable_h264(true)
}

impl Peer {
    pub fn watch(hub: &impl Door, camera: &str) -> Peer {
        Peer::watch_through(hub, camera, None)
    }

    pub fn watch_through(hub: &impl Door, camera: &str, relay: Option<&Relay>) -> Peer {
        let mut rtc = config().build(Instant::now());
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let local = socket.local_addr().unwrap();
        rtc.add_local_candidate(Candidate::host(local, "udp").unwrap());
        let (sdp, pending) = offer(&mut rtc);
        let offered = Instant::now();
        let answer = hub.watch(&CameraId::new(camera).unwrap(), &sdp);
        assert_eq!(answer.status, 201, "{}", answer.message);
        let answer_sdp = match relay {
            Some(relay) => relay.instead(&answer.sdp),
            None => answer.sdp.clone(),
        };
        let sdp = SdpAnswer::from_sdp_string(&answer_sdp).unwrap();
        rtc.sdp_api().accept_answer(pending, sdp).unwrap();
        let mid = answer.sdp.lines().find_map(|line| line.strip_prefix("a=mid:")).unwrap();
        let mid = Mid::from(mid);
        let session = answer.session.clone();
        let (frames, connected, closed) = (Vec::new(), false, false);
        Peer { rtc, mid, socket, session, answer, frames, offered, connected, closed }
    }

    /// Lives until `done`.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn run(&mut self, what: &str, mut done: impl FnMut(&Peer) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            let frames = self.frames.len();
            assert!(Instant::now() < end, "{what} did not happen; {frames} frames");
            self.turn(Duration::from_millis(50));
        }
    }

    /// What it would send first: a STUN request that proves that it knows the answer.
    pub fn first_datagram(&mut self) -> Vec<u8> {
        let end = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < end, "it sends nothing");
            self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
            let mut sent = None;
            loop {
                match self.rtc.poll_output().unwrap() {
                    Output::Timeout(_) => break,
                    Output::Transmit(out) => sent = sent.or(Some(out.contents.to_vec())),
                    Output::Event(_) => {}
                }
            }
            match sent {
                Some(datagram) => return datagram,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Waits for a datagram or a deadline, at most `most`.
    pub fn turn(&mut self, most: Duration) {
        let due = self.poll();
        let nap = due.saturating_duration_since(Instant::now()).min(most);
        self.socket.set_read_timeout(Some(nap.max(Duration::from_micros(100)))).unwrap();
        let mut buffer = [0; 2048];
        let now = match self.socket.recv_from(&mut buffer) {
            Ok((size, source)) => {
                let now = Instant::now();
                let destination = self.socket.local_addr().unwrap();
                if let Ok(contents) = buffer[..size].try_into() {
                    let proto = Protocol::Udp;
                    let receive = Receive { proto, source, destination, contents };
                    self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
                    self.poll();
                    return;
                }
                now
            }
            Err(_) => Instant::now(),
        };
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        self.poll();
    }

    /// Says that it can't decode.
    pub fn ask_for_key(&mut self) {
        use str0m::media::KeyframeRequestKind;
        let mut writer = self.rtc.writer(self.mid).unwrap();
        writer.request_keyframe(None, KeyframeRequestKind::Pli).unwrap();
        self.poll();
    }

    /// Says goodbye.
    pub fn leave(mut self) {
        self.rtc.close().unwrap();
        self.poll();
        self.turn(Duration::from_millis(10));
    }

    fn poll(&mut self) -> Instant {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(due) => return due,
                Output::Transmit(out) => {
                    let _ = self.socket.send_to(&out.contents, out.destination);
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::Closed) => self.closed = true,
                Output::Event(Event::IceConnectionStateChange(
                    IceConnectionState::Disconnected,
                )) => self.closed = true,
                Output::Event(Event::MediaData(media)) => self.frames.push(Frame {
                    rtp: media.time.numer() as u32,
                    at: Instant::now(),
                    contiguous: media.contiguous,
                    profile: media.params.spec().format.profile_level_id,
                    data: media.data.to_vec(),
                }),
                Output::Event(_) => {}
            }
        }
    }
}
