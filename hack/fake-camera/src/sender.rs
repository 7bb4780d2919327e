//! The pictures of one session, on a thread of their own.

use crate::clip::Clip;
use crate::packets::Packetizer;
use crate::{Act, Settings, Shared, State};
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seconds from 1900 to 1970.
const NTP: u64 = 2_208_988_800;
/// Every so many pictures a report.
const REPORTS: u64 = 25;

/// Where packets go.
#[derive(Clone)]
pub enum Outlet {
    Interleaved(u8),
    Datagrams { sockets: Arc<(UdpSocket, UdpSocket)>, rtp: SocketAddr, rtcp: SocketAddr },
}

/// Sends the pictures of one session.
pub struct Sender {
    shared: Arc<Shared>,
    writer: Arc<Mutex<TcpStream>>,
    outlet: Outlet,
    end: Arc<AtomicBool>,
    settings: Settings,
    packetizer: Packetizer,
    /// Ticks that the clock was moved.
    step: i64,
    repeat: u32,
    stray: i64,
    lose: u32,
    foreign: u32,
    late: u32,
    /// RTP time of the picture before.
    before: u32,
}

impl Sender {
    pub fn new(
        shared: Arc<Shared>,
        writer: Arc<Mutex<TcpStream>>,
        outlet: Outlet,
        end: Arc<AtomicBool>,
        settings: Settings,
        number: u32,
    ) -> Sender {
        Sender {
            packetizer: Packetizer::new(settings.clip.codec, number, settings.first_sequence),
            shared,
            writer,
            outlet,
            end,
            settings,
            step: 0,
            repeat: 0,
            stray: 0,
            lose: 0,
            foreign: 0,
            late: 0,
            before: 0,
        }
    }

    /// Until the camera stops, the session ends, or nobody takes the packets.
    pub fn run(&mut self) -> io::Result<()> {
        let start = Instant::now();
        let mut clip = self.settings.clip.clone();
        let (mut at, mut loops, mut sent) = (self.settings.first_unit, 0i64, 0u64);
        // The first picture of a session has the first timestamp.
        let first = clip.units[at].shown;
        loop {
            let ahead = sent.saturating_sub(self.settings.burst as u64);
            let due = start + Duration::from_secs_f64(ahead as f64 / self.settings.fps);
            if !self.wait(due) {
                return Ok(());
            }
            let place = loops + clip.units[at].shown - first;
            let silent = self.shared.lock().silent;
            if !silent {
                while let Some(act) = self.shared.change(|state| state.acts.pop_front()) {
                    match act {
                        Act::Play(other) => {
                            (clip, at) = (other, 0);
                            loops = place + first - clip.units[0].shown;
                        }
                        act => self.act(act, place)?,
                    }
                }
                let place = loops + clip.units[at].shown - first;
                self.picture(&clip, at, place, sent)?;
            }
            at += 1;
            sent += 1;
            if at == clip.units.len() {
                at = 0;
                loops += clip.units.len() as i64;
            }
        }
    }

    /// Waits; false at the end.
    fn wait(&self, due: Instant) -> bool {
        let mut state = self.shared.lock();
        loop {
            if state.stop || self.end.load(Ordering::Relaxed) {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            // Not longer: the end is told without the lock.
            let most = left.min(Duration::from_millis(20));
            let waited = self.shared.changed.wait_timeout(state, most);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn timestamp(&self, place: i64) -> u32 {
        let ticks = (place as f64 * 90_000.0 / self.settings.stamped_fps).round() as i64;
        (i64::from(self.settings.first_timestamp) + ticks).wrapping_add(self.step) as u32
    }

    fn picture(&mut self, clip: &Clip, at: usize, place: i64, sent: u64) -> io::Result<()> {
        let mut timestamp = self.timestamp(place);
        if self.repeat > 0 {
            self.repeat -= 1;
            timestamp = self.before;
        }
        timestamp = timestamp.wrapping_add(std::mem::take(&mut self.stray) as u32);
        self.before = timestamp;
        if self.foreign > 0 {
            self.foreign -= 1;
            let packet = self.packetizer.foreign(timestamp);
            self.send(&packet)?;
        }
        let payloads = self.packetizer.payloads(&clip.units[at].nals);
        let packets = self.packetizer.packets(&payloads, timestamp);
        for packet in &packets {
            if self.lose > 0 {
                self.lose -= 1;
            } else {
                self.send(packet)?;
            }
        }
        if let Some(first) = packets.first().filter(|_| self.late > 0) {
            self.late -= 1;
            self.send(first)?;
        }
        self.talk()?;
        if sent.is_multiple_of(REPORTS) {
            self.report(timestamp, 0)?;
        }
        self.shared.change(|state: &mut State| state.seen.pictures += 1);
        Ok(())
    }

    /// A request of a camera that talks.
    fn talk(&self) -> io::Result<()> {
        match (&self.settings.talk, &self.outlet) {
            (Some(talk), Outlet::Interleaved(_)) => {
                let talk = crate::printed(talk);
                let head = "ANNOUNCE rtsp://camera/ RTSP/1.0\r\nCSeq: 7";
                self.write(format!("{head}\r\nSubject: {talk}\r\n\r\n").as_bytes())
            }
            _ => Ok(()),
        }
    }

    fn act(&mut self, act: Act, place: i64) -> io::Result<()> {
        // A little before the next picture.
        let timestamp = self.timestamp(place).wrapping_sub(10);
        match act {
            Act::Step(ticks) => self.step += ticks,
            Act::Repeat(count) => self.repeat = count,
            Act::Stray(ticks) => self.stray = ticks,
            Act::Lose(count) => self.lose = count,
            Act::Foreign(count) => self.foreign = count,
            Act::Late(count) => self.late = count,
            Act::Report(seconds) => self.report(timestamp, seconds)?,
            Act::Nals(nals) => {
                let payloads = self.packetizer.payloads(&nals);
                for packet in self.packetizer.packets(&payloads, timestamp) {
                    self.send(&packet)?;
                }
            }
            Act::Payloads(payloads) => {
                for packet in self.packetizer.packets(&payloads, timestamp) {
                    self.send(&packet)?;
                }
            }
            Act::Endless(bytes) => {
                let slice = [&[0x41][..], &[0x5a; 1300]].concat();
                for _ in 0..bytes / slice.len() + 1 {
                    let packet = self.packetizer.packet(&slice, timestamp, false);
                    self.send(&packet)?;
                }
            }
            Act::Gaps(lost, count) => {
                let begin = self.packetizer.packet(&[0x7c, 0x81, 7, 7], timestamp, false);
                self.send(&begin)?;
                for _ in 0..count {
                    self.packetizer.skip(lost);
                    let next = self.packetizer.packet(&[0x7c, 0x01, 7, 7], timestamp, false);
                    self.send(&next)?;
                }
            }
            Act::Noise(bytes) => self.write(&bytes)?,
            Act::Close => self.close(false)?,
            Act::HalfThenReset => {
                self.write(&[b'$', 0, 4, 0, 0x80, 96, 1, 2, 3])?;
                self.close(true)?;
            }
            // Done where the pictures are.
            Act::Silence | Act::Resume | Act::Play(_) => {}
        }
        Ok(())
    }

    fn close(&self, reset: bool) -> io::Result<()> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if reset {
            // Dissolves the association at once, whoever holds the descriptor: the peer is reset.
            rustix::net::connect_unspec(&*writer)?;
        } else {
            writer.shutdown(Shutdown::Both)?;
        }
        self.end.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn report(&self, timestamp: u32, off: i64) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let report = self.packetizer.report(timestamp, (now + NTP).wrapping_add_signed(off));
        match &self.outlet {
            Outlet::Interleaved(channel) => self.interleaved(channel + 1, &report),
            Outlet::Datagrams { sockets, rtcp, .. } => {
                let _ = sockets.1.send_to(&report, rtcp);
                Ok(())
            }
        }
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        match &self.outlet {
            Outlet::Interleaved(channel) => self.interleaved(*channel, packet),
            Outlet::Datagrams { sockets, rtp, .. } => {
                // Nobody may be there yet, or any more.
                let _ = sockets.0.send_to(packet, rtp);
                Ok(())
            }
        }
    }

    fn interleaved(&self, channel: u8, packet: &[u8]) -> io::Result<()> {
        let length = (packet.len() as u16).to_be_bytes();
        self.write(&[&[b'$', channel, length[0], length[1]], packet].concat())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes)
    }
}
