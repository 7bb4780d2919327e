//! One viewer: a WebRTC peer and what it is to be sent next.
//!
//! Sans-IO: moments come in, datagrams go out through the caller. A viewer that comes gets the
//! group of pictures so far, fast, with RTP times as if the camera took them just then; where it
//! has caught up it follows. RTP time is the low 32 bits of the camera's media time.

use super::clock::Clock;
use super::group::{self, Group, Picture};
use super::offer::Peer;
use base::{Instant, MediaTime};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use str0m::media::{Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Event, IceConnectionState, Input, Output, Rtc};

/// Time to say goodbye.
const CLOSING: Duration = Duration::from_secs(1);
/// How long the group so far is spread (chosen: live within 1 s, and a browser decodes 720p at more
/// than 300 pictures per second).
const CATCH_UP_PER_PICTURE: Duration = Duration::from_millis(3);
const CATCH_UP_BITS_PER_SECOND: u64 = 60_000_000;
const CATCH_UP_MAX: Duration = Duration::from_millis(700);
/// A viewer that can't decode gets the group again, not more often than this (chosen).
const AGAIN: Duration = Duration::from_secs(2);
/// Packets that leave at once, and the pause until the next (chosen: a browser's socket holds about
/// 64 KiB; together 280 Mb/s).
const BURST_PACKETS: usize = 32;
const BURST_PAUSE: Duration = Duration::from_millis(1);
/// Pictures that may wait for their turn to leave; beyond, the next key picture is waited for.
const OUTBOX_PICTURES: usize = 256;
/// A group whose newest picture is older is the end of what a camera sent before it stopped: nobody
/// is shown it as if it were live, and nobody who misses something gets it again.
const STALE: Duration = Duration::from_secs(5);
const STALE_AGAIN: Duration = Duration::from_secs(1);
/// Loss in two seconds on end that means that the way is too narrow (chosen: random loss of radio
/// stays below).
const NARROW_LOSS: f32 = 0.15;
/// Longest pause of a viewer on a narrow way; it doubles from 1 s.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// Media time that goes back or jumps by more than this (an hour) can't be followed in 32 bits.
const JUMP: u64 = 3600 * MediaTime::RATE;

/// A picture on its way out.
#[derive(Debug)]
struct Sending {
    picture: Rc<Picture>,
    /// Payloads that have left.
    sent: usize,
    stamp: u32,
    pt: Pt,
}

#[derive(Debug)]
enum Feeding {
    /// For a key picture.
    Waits,
    /// Through the group so far, and what came since.
    CatchesUp {
        pictures: VecDeque<Rc<Picture>>,
        due: Instant,
        pause_per_byte: f64,
    },
    Follows,
}

/// One viewer.
pub struct Viewer {
    rtc: Rtc,
    mid: Mid,
    /// Profile and payload type, of all that were agreed on.
    types: Vec<(u16, Pt)>,
    /// Candidate addresses, ours.
    local: Vec<SocketAddr>,
    /// Which of the ways between them is used is decided, and the peer is connected over it.
    nominated: bool,
    connected: bool,
    feeding: Feeding,
    outbox: VecDeque<Sending>,
    /// When more of it may leave.
    outbox_due: Instant,
    sequence: u64,
    /// Newest RTP time, not cut to 32 bits.
    last: Option<u64>,
    /// When it was heard of, and when it began to catch up.
    heard: Instant,
    began: Instant,
    /// Key pictures before this moment are not for it.
    paused_until: Instant,
    pause: Duration,
    narrow: u32,
    wants_group: bool,
    /// To say goodbye at the next drive.
    leaves: bool,
    silence: Duration,
    closing: Option<Instant>,
    gone: Option<&'static str>,
}

impl std::fmt::Debug for Viewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Viewer").field("feeding", &self.feeding).finish_non_exhaustive()
    }
}

impl Viewer {
    /// Whoever has the peer's answer.
    pub fn new(peer: Peer, silence: Duration, now: Instant) -> Viewer {
        let Peer { rtc, mid, types, local } = peer;
        Viewer {
            rtc,
            mid,
            types,
            local,
            nominated: false,
            connected: false,
            feeding: Feeding::Waits,
            outbox: VecDeque::new(),
            outbox_due: now,
            sequence: 1,
            last: None,
            heard: now,
            began: now,
            paused_until: now,
            pause: Duration::ZERO,
            narrow: 0,
            wants_group: false,
            leaves: false,
            silence,
            closing: None,
            gone: None,
        }
    }

    /// Whether it has chosen the addresses that it uses.
    pub fn nominated(&self) -> bool {
        self.nominated
    }

    /// Whether a datagram is this viewer's, proven by what only it knows.
    pub fn accepts(
        &self,
        source: SocketAddr,
        local: Option<IpAddr>,
        contents: &[u8],
        clock: &Clock,
        now: Instant,
    ) -> bool {
        #[cfg(test)]
        super::fault_tests::library();
        self.input(source, local, contents, clock, now)
            .is_some_and(|input| self.rtc.accepts(&input))
    }

    /// A datagram of this viewer.
    pub fn receive(
        &mut self,
        source: SocketAddr,
        local: Option<IpAddr>,
        contents: &[u8],
        clock: &Clock,
        now: Instant,
    ) {
        let Some(input) = self.input(source, local, contents, clock, now) else { return };
        self.heard = now;
        if let Err(e) = self.rtc.handle_input(input) {
            tracing::debug!("a viewer's datagram is refused: {e}");
            // Later on anyone who knows its address could have sent it.
            if !self.connected {
                self.gone = Some("it sent what can't be understood");
            }
        }
    }

    fn input<'a>(
        &self,
        source: SocketAddr,
        local: Option<IpAddr>,
        contents: &'a [u8],
        clock: &Clock,
        now: Instant,
    ) -> Option<Input<'a>> {
        // Behind a translation of addresses the announced one stands for ours.
        let of_family = |a: &&SocketAddr| a.is_ipv4() == source.is_ipv4();
        let exact = self.local.iter().find(|a| Some(a.ip()) == local);
        let destination = *exact.or_else(|| self.local.iter().find(of_family))?;
        let contents = contents.try_into().ok()?;
        let receive = Receive { proto: Protocol::Udp, source, destination, contents };
        Some(Input::Receive(clock.theirs(now), receive))
    }

    /// The next picture of the stream, which `group` already has.
    pub fn picture(
        &mut self,
        picture: &Rc<Picture>,
        follows: bool,
        profile: Option<u16>,
        now: Instant,
    ) {
        if !self.connected || self.closing.is_some() {
            return;
        }
        if !follows {
            return self.wait();
        }
        match &mut self.feeding {
            Feeding::Waits => {
                if picture.unit.key() && now >= self.paused_until {
                    self.feeding = Feeding::Follows;
                    self.began = now;
                    self.send(picture, None, profile);
                }
            }
            Feeding::Follows => self.send(picture, None, profile),
            Feeding::CatchesUp { pictures, .. } => {
                pictures.push_back(Rc::clone(picture));
                if pictures.len() > 2 * group::PICTURES {
                    self.wait();
                }
            }
        }
    }

    /// Sends nothing until the next key picture.
    pub fn wait(&mut self) {
        self.feeding = Feeding::Waits;
    }

    /// Does what is due: brings the group so far to a viewer that just connected or that can't
    /// decode, and drives the peer. Datagrams go to `transmit`. Returns when it wants to be called
    /// again, and None when it is gone.
    pub fn drive(
        &mut self,
        group: &Group,
        profile: Option<u16>,
        clock: &Clock,
        now: Instant,
        transmit: &mut dyn FnMut(SocketAddr, &[u8]),
    ) -> Option<Instant> {
        #[cfg(test)]
        super::fault_tests::library();
        if self.closing.is_some_and(|until| now >= until) {
            return None;
        }
        if now - self.heard > self.silence {
            self.gone = Some("it was not heard of any more");
        }
        let mut turns = 0;
        loop {
            if std::mem::take(&mut self.leaves) {
                tracing::info!("a viewer is sent away: media time jumped too far for it");
                self.close(now);
            }
            // Everything is taken out of the peer before something else goes in.
            let due = self.poll(clock, now, transmit)?;
            if std::mem::take(&mut self.wants_group) {
                self.begin(group, now);
            }
            let mut next = self.catch_up(group, profile, now);
            while next.is_some_and(|next| next <= now) {
                next = self.catch_up(group, profile, now);
            }
            let before = self.sequence;
            let more = self.let_out(clock, now);
            let wrote = self.sequence != before;
            turns += 1;
            // More than a few turns at one moment: something would like to run hot.
            if self.leaves || ((wrote || due <= now) && turns < 8) {
                self.rtc.handle_input(Input::Timeout(clock.theirs(now))).ok()?;
                continue;
            }
            let until = self.closing.unwrap_or(self.heard + self.silence);
            let due = due.max(now + Duration::from_micros(500)).min(until);
            return [Some(due), next, more].into_iter().flatten().min();
        }
    }

    /// Takes out what the peer has to say, up to its next deadline.
    fn poll(
        &mut self,
        clock: &Clock,
        now: Instant,
        transmit: &mut dyn FnMut(SocketAddr, &[u8]),
    ) -> Option<Instant> {
        loop {
            if let Some(why) = self.gone {
                tracing::debug!("a viewer is gone: {why}");
                return None;
            }
            if !self.rtc.is_alive() {
                return None;
            }
            match self.rtc.poll_output().ok()? {
                Output::Timeout(due) => return Some(clock.ours(due)),
                Output::Transmit(out) => transmit(out.destination, &out.contents),
                Output::Event(event) => self.event(event, now),
            }
        }
    }

    fn event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Connected => {
                self.connected = true;
                self.wants_group = true;
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                self.gone = Some("its address does not answer");
            }
            Event::IceConnectionStateChange(state) => self.nominated |= state.is_connected(),
            Event::Closed => self.gone = Some("it left"),
            // The camera can't be asked for a key picture. The group so far is as good.
            Event::KeyframeRequest(_) => {
                let busy = matches!(self.feeding, Feeding::CatchesUp { .. });
                self.wants_group |= !busy && now >= self.paused_until && now - self.began >= AGAIN;
            }
            Event::MediaEgressStats(stats) => self.judge(stats.loss.unwrap_or(0.0), now),
            _ => {}
        }
    }

    /// A way that loses much is too narrow: the viewer pauses and goes on with a key picture.
    fn judge(&mut self, loss: f32, now: Instant) {
        if loss < NARROW_LOSS {
            self.narrow = 0;
            if now - self.paused_until > 2 * PAUSE_MAX {
                self.pause = Duration::ZERO;
            }
            return;
        }
        self.narrow += 1;
        if self.narrow >= 2 {
            self.narrow = 0;
            self.pause = (self.pause * 2).clamp(Duration::from_secs(1), PAUSE_MAX);
            self.paused_until = now + self.pause;
            tracing::debug!("a viewer loses {:.0} % and pauses {:?}", loss * 100.0, self.pause);
            self.outbox.clear();
            self.wait();
        }
    }

    fn begin(&mut self, group: &Group, now: Instant) {
        let mut pictures = group.pictures().clone();
        let stale = if self.last.is_some() { STALE_AGAIN } else { STALE };
        if pictures.back().is_some_and(|newest| now - newest.unit.capture > stale) {
            // One that follows goes on following.
            return;
        }
        if !group.whole() {
            // What comes next does not lean on these: a still until the next key picture.
            pictures.truncate(1);
        }
        if pictures.is_empty() {
            return self.wait();
        }
        let bytes: usize = pictures.iter().map(|p| p.unit.data.len()).sum();
        let by_pictures = CATCH_UP_PER_PICTURE * u32::try_from(pictures.len()).unwrap_or(u32::MAX);
        let by_bytes = bytes as u64 * 8 * 1_000_000 / CATCH_UP_BITS_PER_SECOND;
        let spread = by_pictures.max(Duration::from_micros(by_bytes)).min(CATCH_UP_MAX);
        let pause_per_byte = spread.as_secs_f64() / bytes.max(1) as f64;
        self.began = now;
        self.feeding = Feeding::CatchesUp { pictures, due: now, pause_per_byte };
    }

    /// Sends the next picture of the group so far, if it is due. Returns when the next one is.
    fn catch_up(&mut self, group: &Group, profile: Option<u16>, now: Instant) -> Option<Instant> {
        let Feeding::CatchesUp { pictures, due, pause_per_byte } = &mut self.feeding else {
            return None;
        };
        if now < *due {
            return Some(*due);
        }
        let newest = Rc::clone(pictures.back()?);
        let picture = pictures.pop_front()?;
        let left = pictures.len() as u64;
        let pause = *pause_per_byte * picture.unit.data.len() as f64;
        // Late calls don't bunch pictures: it is decoding that takes the time.
        *due = (*due + Duration::from_secs_f64(pause)).max(now);
        let (due, last) = (*due, pictures.is_empty());
        // As if it was taken a frame before now, and never past the newest.
        let media = newest.unit.media.0;
        let ahead = base::time::nanos(now - newest.unit.capture) * 9 / 100_000;
        let stamp = match last {
            true => media,
            false => {
                media.saturating_sub(FRAME).saturating_add(ahead).min(media.saturating_sub(left))
            }
        };
        if last {
            self.feeding = if group.whole() { Feeding::Follows } else { Feeding::Waits };
        }
        self.send(&picture, Some(stamp), profile);
        if last { None } else { Some(due) }
    }

    /// Puts a picture on its way, at its own time or at `stamp`.
    fn send(&mut self, picture: &Rc<Picture>, stamp: Option<u64>, profile: Option<u16>) {
        let wanted = stamp.unwrap_or(picture.unit.media.0);
        let far =
            |last: u64| wanted.saturating_add(JUMP) < last || wanted > last.saturating_add(JUMP);
        if self.last.is_some_and(far) {
            self.leaves = true;
            return;
        }
        if self.outbox.len() >= OUTBOX_PICTURES {
            self.outbox.clear();
            return self.wait();
        }
        // Where it was caught up, the times just before may be ahead by a few ticks.
        let stamp = self.last.map_or(wanted, |last| wanted.max(last + 1));
        self.last = Some(stamp);
        let Some(pt) = self.payload_type(profile) else { return };
        let (picture, stamp) = (Rc::clone(picture), stamp as u32);
        self.outbox.push_back(Sending { picture, sent: 0, stamp, pt });
    }

    /// Lets packets out, as many as may leave at once. Returns when more may.
    fn let_out(&mut self, clock: &Clock, now: Instant) -> Option<Instant> {
        if self.outbox.is_empty() || self.closing.is_some() {
            return None;
        }
        if now < self.outbox_due {
            return Some(self.outbox_due);
        }
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(self.mid, None) else {
            self.outbox.clear();
            return None;
        };
        let mut room = BURST_PACKETS;
        while let Some(sending) = self.outbox.front_mut() {
            let payloads = sending.picture.payloads();
            let wallclock = clock.theirs(sending.picture.unit.capture);
            for payload in payloads[sending.sent..].iter().take(room) {
                let (number, payload) = (self.sequence.into(), Arc::clone(payload));
                sending.sent += 1;
                let last = sending.sent == payloads.len();
                let packet = RtpWrite::new(sending.pt, number, sending.stamp, wallclock, payload);
                stream.write_rtp(packet.marker(last).nackable(true));
                self.sequence += 1;
                room -= 1;
            }
            if sending.sent < payloads.len() {
                break;
            }
            self.outbox.pop_front();
            if room == 0 {
                break;
            }
        }
        self.outbox_due = now + if room == 0 { BURST_PAUSE } else { Duration::ZERO };
        (!self.outbox.is_empty()).then_some(self.outbox_due)
    }

    /// The payload type of a stream's profile, else the next more capable one, else the most
    /// capable: browsers decode by the parameter sets, whatever was agreed on.
    fn payload_type(&self, profile: Option<u16>) -> Option<Pt> {
        let wanted = profile.unwrap_or(0x42e0);
        let rank = |profile: u16| {
            let (idc, wanted_idc) = (profile >> 8, wanted >> 8);
            let same = profile == wanted;
            (idc < wanted_idc, if idc < wanted_idc { u16::MAX - idc } else { idc }, !same)
        };
        self.types.iter().min_by_key(|(profile, _)| rank(*profile)).map(|(_, pt)| *pt)
    }

    /// Something went wrong inside: it is gone.
    pub fn fault(&mut self) {
        self.gone = Some("it brought something to a fault");
    }

    /// Says goodbye.
    pub fn close(&mut self, now: Instant) {
        if self.closing.is_none() {
            self.closing = Some(now + CLOSING);
            // Whoever is not connected yet can't be told.
            if !self.connected || self.rtc.close().is_err() {
                self.gone = Some("it is sent away");
            }
        }
    }
}

/// A frame's time where it does not matter much, ticks (25 fps).
const FRAME: u64 = 3600;
