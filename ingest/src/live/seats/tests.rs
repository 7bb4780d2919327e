//! Browsers without sockets: what they send is handed to the seats, and what their viewers say to them.

use super::super::fault_tests::{common, met};
use super::super::group::Group;
use super::super::offer::Common;
use super::*;
use std::time::Duration;
use str0m::net::{Protocol, Receive};
use str0m::{Input, Output, Rtc};

/// Where the hub is.
const HUB: &str = "127.0.0.1:8189";

/// Where a browser is.
fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

struct Room {
    common: Common,
    now: Instant,
    seats: Seats,
}

impl Room {
    fn new() -> Room {
        Room { common: common(), now: ipc::clock::monotonic(), seats: Seats::default() }
    }

    /// A browser at that port, and its viewer of stream `stream` in session `<name>'s`.
    fn seat(&mut self, port: u16, name: &str, stream: u64) -> (Rtc, u64) {
        let (browser, peer) = met(at(port), name, &self.common, self.now).ok().unwrap();
        let viewer = Viewer::new(peer, Duration::from_secs(60), self.now);
        let names = (format!("{name}'s"), name.to_owned());
        (browser, self.seats.add(viewer, stream, names, self.now))
    }

    /// What a browser sends up to this moment.
    fn sent(&self, browser: &mut Rtc) -> Vec<Vec<u8>> {
        browser.handle_input(Input::Timeout(self.common.clock.theirs(self.now))).unwrap();
        let mut sent = Vec::new();
        loop {
            match browser.poll_output().unwrap() {
                Output::Timeout(_) => return sent,
                Output::Transmit(out) => sent.push(out.contents.to_vec()),
                Output::Event(_) => {}
            }
        }
    }

    /// The first thing that a browser sends: a STUN request with the proof that it knows the answer.
    fn request(&mut self, browser: &mut Rtc) -> Vec<u8> {
        for _ in 0..100 {
            if let Some(first) = self.sent(browser).into_iter().next() {
                return first;
            }
            self.now += Duration::from_millis(50);
        }
        panic!("it sends nothing");
    }

    fn deliver(&mut self, source: SocketAddr, to: Option<&str>, contents: &[u8]) -> Option<u64> {
        let local = to.map(|to| to.parse().unwrap());
        let datagram = Received { source, local, contents };
        self.seats.deliver(&datagram, &self.common.clock, self.now)
    }

    /// From where what is sent to a browser leaves.
    fn way(&mut self, of: u64, peer: SocketAddr) -> Option<String> {
        let (_, ways) = self.seats.with_ways(of).unwrap();
        ways.from(peer).map(|local| local.to_string())
    }
}

#[test]
fn each_viewer_is_found_by_its_number_and_by_its_session_until_that_is_over() {
    let mut room = Room::new();
    let seats = ["aaaa", "bbbb", "cccc"].map(|name| room.seat(9, name, 7).1);
    let seats_of = |room: &Room| {
        let mut ids = room.seats.ids();
        ids.sort_unstable();
        ids
    };
    assert_eq!((seats_of(&room), room.seats.len()), (seats.to_vec(), 3));
    for (id, name) in seats.into_iter().zip(["aaaa", "bbbb", "cccc"]) {
        assert_eq!(room.seats.of_session(&format!("{name}'s")), Some((id, 7)));
        assert_eq!(room.seats.get_mut(id).unwrap().name, name);
        assert_eq!(room.seats.with_ways(id).unwrap().0.name, name);
    }
    assert_eq!(room.seats.of_session("dddd's"), None);
    let [a, b, c] = seats;
    room.seats.end_session(b);
    assert_eq!(room.seats.of_session("bbbb's"), None);
    assert_eq!(room.seats.of_session("aaaa's"), Some((a, 7)));
    assert!(room.seats.get_mut(b).is_some(), "it may still have something to say");
    assert_eq!(room.seats.remove(a).unwrap().name, "aaaa");
    assert_eq!(room.seats.of_session("aaaa's"), None);
    assert!(room.seats.remove(a).is_none() && room.seats.get_mut(a).is_none());
    assert_eq!(seats_of(&room), [b, c]);
}

#[test]
fn a_datagram_is_for_whom_it_names_with_proof_and_then_for_whom_that_address_is() {
    let mut room = Room::new();
    let ((mut browser, a), (mut other, b)) = (room.seat(9, "aaaa", 1), room.seat(10, "bbbb", 1));
    let (request, request_of_other) = (room.request(&mut browser), room.request(&mut other));
    let mut forged = request.clone();
    // The proof stands before the last 8 bytes, the fingerprint.
    let proof = forged.len() - 10;
    forged[proof] ^= 1;
    let plain = [20, 1, 2, 3];
    assert_eq!(room.deliver(at(9), None, &plain), None, "nobody's address");
    assert_eq!(room.deliver(at(9), None, &forged), None);
    assert_eq!(room.deliver(at(9), None, &plain), None, "nothing is proven yet");
    assert_eq!(room.deliver(at(9), Some("127.0.0.1"), &request), Some(a));
    assert_eq!(room.deliver(at(10), None, &request_of_other), Some(b));
    assert_eq!(room.deliver(at(9), Some("127.0.0.1"), &plain), Some(a));
    assert_eq!(room.deliver(at(10), None, &plain), Some(b));
    assert_eq!(room.deliver(at(11), None, &plain), None);
    assert_eq!(room.way(b, at(9)).as_deref(), Some("127.0.0.1"));
    assert_eq!(room.way(a, at(10)), None, "the kernel did not say");
    assert_eq!(room.way(a, at(11)), None);
}

#[test]
fn an_address_goes_with_its_viewer_unless_another_one_has_it_by_then() {
    let mut room = Room::new();
    let ((mut browser, a), (mut other, b)) = (room.seat(9, "aaaa", 1), room.seat(10, "bbbb", 1));
    let (request, request_of_other) = (room.request(&mut browser), room.request(&mut other));
    assert_eq!(room.deliver(at(9), Some("127.0.0.1"), &request), Some(a));
    assert_eq!(room.deliver(at(11), Some("127.0.0.1"), &request), Some(a));
    assert_eq!(room.deliver(at(11), Some("127.0.0.2"), &request_of_other), Some(b));
    assert_eq!(room.way(b, at(9)).as_deref(), Some("127.0.0.1"));
    drop(room.seats.remove(a).unwrap());
    assert_eq!(room.way(b, at(9)), None);
    assert_eq!(room.way(b, at(11)).as_deref(), Some("127.0.0.2"));
    assert_eq!(room.deliver(at(9), Some("127.0.0.1"), &request), None, "its name is gone too");
    assert_eq!(room.deliver(at(11), Some("127.0.0.2"), &[20, 1, 2, 3]), Some(b));
}

#[test]
fn a_viewer_comes_from_so_many_addresses_and_no_more() {
    let mut room = Room::new();
    let (mut browser, a) = room.seat(9, "aaaa", 1);
    let request = room.request(&mut browser);
    let ports = 100..100 + u16::try_from(SOURCES_MAX).unwrap();
    for port in ports.clone() {
        assert_eq!(room.deliver(at(port), None, &request), Some(a), "{port}");
    }
    assert_eq!(room.deliver(at(ports.end), None, &request), None);
    assert_eq!(room.deliver(at(ports.end), None, &[20, 1, 2, 3]), None);
    // Those that it has may change where they come to.
    for port in ports.clone() {
        assert_eq!(room.deliver(at(port), Some("127.0.0.1"), &request), Some(a), "{port}");
    }
    assert_eq!(room.seats.get_mut(a).unwrap().sources.len(), SOURCES_MAX);
}

#[test]
fn a_viewer_that_has_chosen_its_address_stays_there() {
    let mut room = Room::new();
    let (mut browser, a) = room.seat(9, "aaaa", 1);
    let request = room.request(&mut browser);
    assert_eq!(room.deliver(at(8), None, &request), Some(a), "it has not chosen yet");
    for _ in 0..100 {
        for datagram in room.sent(&mut browser) {
            room.deliver(at(9), None, &datagram);
        }
        let (seat, _) = room.seats.with_ways(a).unwrap();
        let mut replies = Vec::new();
        let mut transmit = |to: SocketAddr, reply: &[u8]| {
            if to == at(9) {
                replies.push(reply.to_vec());
            }
        };
        seat.viewer.drive(&Group::default(), None, &room.common.clock, room.now, &mut transmit);
        if seat.viewer.nominated() {
            break;
        }
        for reply in replies {
            let (source, destination) = (HUB.parse().unwrap(), at(9));
            let contents = reply.as_slice().try_into().unwrap();
            let receive = Receive { proto: Protocol::Udp, source, destination, contents };
            let now = room.common.clock.theirs(room.now);
            browser.handle_input(Input::Receive(now, receive)).unwrap();
        }
        room.now += Duration::from_millis(50);
    }
    assert!(room.seats.get_mut(a).unwrap().viewer.nominated());
    assert_eq!(room.deliver(at(10), None, &request), None, "another address");
    assert_eq!(room.deliver(at(9), None, &request), Some(a));
    assert_eq!(room.deliver(at(8), None, &request), Some(a), "one that it had before");
}
