//! Behaviour of the hub, seen by peers in this process.

use crate::camera::{self, Camera, FPS, asset, group_of_5s, unit, utc_ticks};
use crate::node::{Door, Node};
use crate::patience::{PATIENCE, until};
use crate::peer::{Frame, Peer, config, offer};
use crate::relay::Relay;
use base::{CameraId, MediaTime};
use ingest::live::{Feed, Hub, WebrtcOptions};
use ingest::unit::{Codec, UnitFlags};
use ipc::ingest_message::Request;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn options() -> WebrtcOptions {
    WebrtcOptions { udp_port: 0, ..WebrtcOptions::default() }
}

fn hub() -> Hub {
    Hub::start(options()).unwrap()
}

fn id(name: &str) -> CameraId {
    CameraId::new(name).unwrap()
}

/// Its NAL units without delimiters, which is what goes over the wire.
fn nals(data: &[u8]) -> Vec<Vec<u8>> {
    let mut starts: Vec<_> = data
        .windows(3)
        .enumerate()
        .filter(|(_, w)| *w == [0, 0, 1])
        .map(|(at, _)| at + 3)
        .collect();
    starts.push(data.len() + 3);
    let nal = |pair: &[usize]| {
        let nal = &data[pair[0]..pair[1] - 3];
        nal[..nal.len() - nal.iter().rev().take_while(|&&b| b == 0).count()].to_vec()
    };
    starts.windows(2).map(nal).filter(|nal| nal[0] & 31 != 9).collect()
}

/// A stream pushed by hand, picture by picture.
struct Hand {
    feed: Feed,
    clip: Vec<Vec<u8>>,
    at: usize,
    origin: u64,
}

impl Hand {
    fn new(hub: &Hub, origin: u64) -> Hand {
        Hand { feed: hub.feed(&id("cam"), "main"), clip: group_of_5s(), at: 0, origin }
    }

    fn media(&self, at: usize) -> u64 {
        self.origin + at as u64 * 90_000 / FPS
    }

    fn push(&mut self, count: usize) {
        for _ in 0..count {
            let data = &self.clip[self.at % self.clip.len()];
            let flags = UnitFlags::when(camera::key(data), UnitFlags::KEY);
            let unit = unit(data, Codec::H264, self.media(self.at), flags);
            self.feed.push(&unit);
            self.at += 1;
        }
    }

    fn is(&self, frame: &Frame, at: usize) -> bool {
        nals(&frame.data) == nals(&self.clip[at % self.clip.len()])
    }
}

#[test]
fn the_group_so_far_comes_first_then_every_picture_at_its_own_media_time() {
    let hub = hub();
    // Across the wrap of 32 bits.
    let mut hand = Hand::new(&hub, (5 << 32) - 30 * 3600);
    hand.push(20);
    let mut peer = Peer::watch(&hub, "cam");
    assert_eq!(peer.answer.media_origin, MediaTime(4 << 32));
    assert_eq!(peer.answer.session.len(), 32);
    peer.run("the group so far", |peer| peer.frames.len() == 20);
    println!("first picture {:?} after the offer", peer.frames[0].at - peer.offered);
    for next in 21..=60 {
        hand.push(1);
        peer.run("the next picture", |peer| peer.frames.len() == next);
    }
    for (at, frame) in peer.frames.iter().enumerate() {
        assert!(hand.is(frame, at), "picture {at} is as it was");
        assert!(frame.contiguous);
        let behind = (hand.media(at) as u32).wrapping_sub(frame.rtp).cast_signed();
        if at < 19 {
            // Squeezed: close before the newest of the group, in order.
            let newest = hand.media(19) as u32;
            assert!(newest.wrapping_sub(frame.rtp) <= 3600 + 19, "picture {at}");
        } else {
            assert_eq!(behind, 0, "picture {at}");
        }
    }
    let rising = |pair: &[Frame]| pair[1].rtp.wrapping_sub(pair[0].rtp).cast_signed() > 0;
    assert!(peer.frames.windows(2).all(rising));
    let took = peer.frames[19].at - peer.frames[0].at;
    assert!(took >= Duration::from_millis(40), "spread, not at once: {took:?}");
    hub.stop();
}

#[test]
fn a_viewer_may_come_before_the_camera_and_stays_when_it_returns() {
    let hub = hub();
    let mut hand = Hand::new(&hub, utc_ticks());
    let mut peer = Peer::watch(&hub, "cam");
    peer.run("a connection", |peer| peer.connected);
    let now = utc_ticks();
    assert!(now - peer.answer.media_origin.0 <= u64::from(u32::MAX), "UTC before a picture came");
    hand.push(3);
    peer.run("pictures", |peer| peer.frames.len() == 3);
    // The row of the camera changes: another feed, other parameters, other pictures, later.
    let later = hand.media(3) + 7 * 90_000;
    drop(hand);
    let mut feed = hub.feed(&id("cam"), "main");
    let lost = unit(&group_of_5s()[4], Codec::H264, later, UnitFlags::DISCONTINUITY);
    feed.push(&lost);
    let flags = UnitFlags::KEY.with(UnitFlags::DISCONTINUITY).with(UnitFlags::NEW_PARAMETERS);
    let key = group_of_5s()[125].clone();
    feed.push(&unit(&key, Codec::H264, later + 3600, flags));
    peer.run("the first of the other", |peer| peer.frames.len() == 4);
    assert_eq!(nals(&peer.frames[3].data), nals(&key));
    assert_eq!(peer.frames[3].rtp, (later + 3600) as u32);
    assert!(peer.frames[3].contiguous, "the way lost nothing");
    hub.stop();
}

#[test]
fn lost_packets_are_sent_again() {
    let hub = hub();
    let camera = Camera::start(&hub, "cam", group_of_5s(), 0, 0);
    let port = hub.port().unwrap();
    let relay = Relay::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), 20, 7);
    let mut peer = Peer::watch_through(&hub, "cam", Some(&relay));
    peer.run("200 pictures", |peer| peer.frames.len() >= 200);
    let (lost, seen) = (relay.lost.load(Ordering::Relaxed), relay.seen.load(Ordering::Relaxed));
    println!("{lost} of {seen} datagrams lost");
    assert!(lost > 0);
    assert!(peer.frames.iter().all(|frame| frame.contiguous));
    let step = |pair: &[Frame]| pair[1].rtp.wrapping_sub(pair[0].rtp);
    let steady = peer.frames[100..].windows(2).filter(|pair| step(pair) == 3600).count();
    assert!(steady >= peer.frames.len() - 101, "no picture is missing");
    camera.stop();
    hub.stop();
}

#[test]
fn a_viewer_on_a_narrow_way_pauses_and_no_other_does() {
    let hub = hub();
    let camera = Camera::start(&hub, "cam", group_of_5s(), 0, 0);
    let port = hub.port().unwrap();
    let relay = Relay::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), 0, 11);
    let mut narrow = Peer::watch_through(&hub, "cam", Some(&relay));
    let mut other = Peer::watch(&hub, "cam");
    let both = |narrow: &mut Peer, other: &mut Peer| {
        narrow.turn(Duration::from_millis(5));
        other.turn(Duration::from_millis(5));
    };
    while narrow.frames.len() < 10 || other.frames.len() < 10 {
        both(&mut narrow, &mut other);
    }
    relay.loss.store(600, Ordering::Relaxed);
    // It pauses: for half a second nothing is sent to it but what keeps the connection.
    let mut since = (Instant::now(), 0);
    let end = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < end, "no pause");
        both(&mut narrow, &mut other);
        let seen = relay.seen.load(Ordering::Relaxed);
        if since.0.elapsed() > Duration::from_millis(500) {
            if seen - since.1 < 5 {
                break;
            }
            since = (Instant::now(), seen);
        }
    }
    // The way gets better: it goes on with a key picture.
    relay.loss.store(0, Ordering::Relaxed);
    let before = narrow.frames.len();
    let keys = |peer: &Peer| peer.frames[before..].iter().any(Frame::key);
    while !keys(&narrow) {
        assert!(Instant::now() < end, "no key picture after the pause");
        both(&mut narrow, &mut other);
    }
    let step = |pair: &[Frame]| pair[1].rtp.wrapping_sub(pair[0].rtp);
    let steady = other.frames.windows(2).skip(10).all(|pair| step(pair) == 3600);
    assert!(
        steady && other.frames.iter().all(|frame| frame.contiguous),
        "the other misses nothing"
    );
    camera.stop();
    hub.stop();
}

#[test]
fn a_viewer_that_can_not_decode_gets_the_group_again() {
    let hub = hub();
    let camera = Camera::start(&hub, "cam", group_of_5s(), 0, 0);
    until("a picture", || (camera.sent.load(Ordering::Relaxed) > 0).then_some(()));
    let mut peer = Peer::watch(&hub, "cam");
    peer.run("pictures", |peer| peer.frames.len() >= 10);
    // It asks until it is heard: at first too soon after the last time.
    let mut asked = Instant::now();
    let keys = |peer: &Peer| peer.frames.iter().filter(|frame| frame.key()).count();
    while keys(&peer) < 2 {
        let sent = camera.sent.load(Ordering::Relaxed);
        assert!(sent < 120, "{sent} pictures: the camera's own next key picture is near");
        if asked.elapsed() > Duration::from_millis(300) {
            asked = Instant::now();
            peer.ask_for_key();
        }
        peer.turn(Duration::from_millis(20));
    }
    // In order, and live again: at the camera's own times.
    let newest = camera.media.load(Ordering::Relaxed) as u32;
    peer.run("live again", |peer| {
        peer.frames.last().is_some_and(|last| last.rtp == newest + 36_000)
    });
    assert!(peer.frames.windows(2).all(|pair| pair[1].rtp > pair[0].rtp));
    assert!(peer.frames.iter().all(|frame| frame.contiguous));
    // Of a camera that stalls nobody gets the end again.
    camera.quiet.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(50));
    let last = camera.media.load(Ordering::Relaxed) as u32;
    peer.run("the last", |peer| peer.frames.last().is_some_and(|frame| frame.rtp == last));
    let before = peer.frames.len();
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        peer.ask_for_key();
        peer.turn(Duration::from_millis(300));
    }
    assert_eq!(peer.frames.len(), before);
    hub.stop();
}

#[test]
fn many_viewers_share_the_port() {
    let hub = hub();
    let camera = Camera::start(&hub, "cam", group_of_5s(), 0, 0);
    let other = Camera::start(&hub, "other", group_of_5s(), 50, 0);
    let hub = &hub;
    let watch = |n: usize| {
        let mut peer = Peer::watch(hub, if n < 12 { "cam" } else { "other" });
        peer.run("50 pictures", |peer| peer.frames.len() >= 50);
        peer
    };
    let peers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..24).map(|n| scope.spawn(move || watch(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!((hub.viewers(&id("cam"), "main"), hub.viewers(&id("other"), "main")), (12, 12));
    let port = hub.port().unwrap().to_string();
    for peer in &peers {
        let candidates = peer.answer.sdp.lines().filter(|line| line.starts_with("a=candidate"));
        for candidate in candidates {
            assert_eq!(candidate.split(' ').nth(5), Some(port.as_str()), "{candidate}");
        }
        assert!(peer.frames.iter().all(|frame| frame.contiguous));
    }
    drop((camera, other));
    hub.stop();
}

#[test]
fn viewers_leave_by_close_by_goodbye_and_by_silence() {
    let silence = Duration::from_secs(2);
    let hub = Hub::start(WebrtcOptions { silence, ..options() }).unwrap();
    let mut hand = Hand::new(&hub, utc_ticks());
    hand.push(3);
    let viewers = || hub.viewers(&id("cam"), "main");
    let [mut closed, mut leaves, mut vanishes] = [(); 3].map(|()| Peer::watch(&hub, "cam"));
    for peer in [&mut closed, &mut leaves, &mut vanishes] {
        peer.run("pictures", |peer| peer.frames.len() == 3);
    }
    assert_eq!(viewers(), 3);
    assert_eq!(hub.close(&id("other"), &closed.session).status, 404, "another camera's");
    assert_eq!(hub.close(&id("cam"), "0123").status, 404);
    assert_eq!(hub.close(&id("cam"), &closed.session).status, 200);
    closed.run("a goodbye", |peer| peer.closed);
    assert_eq!(hub.close(&id("cam"), &closed.session).status, 404, "its session is over");
    leaves.leave();
    until("two gone", || {
        vanishes.turn(Duration::from_millis(10));
        (viewers() == 1).then_some(())
    });
    drop(vanishes);
    until("all gone", || (viewers() == 0).then_some(()));
    // One that never connects.
    let (sdp, _) = offer(&mut config().build(Instant::now()));
    assert_eq!(hub.offer(&id("cam"), "main", &sdp).status, 201);
    assert_eq!(viewers(), 1);
    until("given up", || (viewers() == 0).then_some(()));
    hub.stop();
}

#[test]
fn a_stream_without_a_feed_loses_its_viewers_after_a_while() {
    let grace = Duration::from_millis(500);
    let hub = Hub::start(WebrtcOptions { grace, ..options() }).unwrap();
    let mut hand = Hand::new(&hub, utc_ticks());
    hand.push(3);
    let mut peer = Peer::watch(&hub, "cam");
    peer.run("pictures", |peer| peer.frames.len() == 3);
    drop(hand);
    peer.run("a goodbye", |peer| peer.closed);
    let (sdp, _) = offer(&mut config().build(Instant::now()));
    let answer = hub.offer(&id("cam"), "", &sdp);
    assert_eq!(answer.status, 404, "{}", answer.message);
    // The camera may come again.
    Hand::new(&hub, utc_ticks()).push(1);
    hub.stop();
}

#[test]
fn what_a_browser_can_not_play_is_refused_with_the_remedy() {
    let hub = hub();
    let (sdp, _) = offer(&mut config().build(Instant::now()));
    for (name, codec) in [("bframes.hevc", Codec::H265), ("bframes.h264", Codec::H264)] {
        let mut feed = hub.feed(&id("cam"), name);
        let stream = std::fs::read(asset(name)).unwrap();
        // Pictures, roughly: what counts is the first slice of each.
        for (at, nal) in nals(&stream).iter().enumerate() {
            let mut data = vec![0, 0, 0, 1];
            data.extend(nal);
            let flags = UnitFlags::when(nal[0] & 31 == 5, UnitFlags::KEY);
            feed.push(&unit(&data, codec, utc_ticks() + at as u64, flags));
        }
        let answer = hub.offer(&id("cam"), name, &sdp);
        println!("{}", answer.message);
        assert_eq!(answer.status, 422);
        for part in ["cam", name, "sub_url", "role live"] {
            assert!(answer.message.contains(part), "{part}");
        }
    }
    hub.stop();
}

#[test]
fn viewers_are_sent_away_when_the_stream_becomes_unfit_and_may_come_when_it_is_fit_again() {
    let hub = hub();
    let mut hand = Hand::new(&hub, utc_ticks());
    hand.push(3);
    let mut peer = Peer::watch(&hub, "cam");
    peer.run("pictures", |peer| peer.frames.len() == 3);
    let media = hand.media(3);
    hand.feed.push(&unit(&[0, 0, 1, 0x40, 1, 2], Codec::H265, media, UnitFlags::KEY));
    peer.run("a goodbye", |peer| peer.closed);
    let (sdp, _) = offer(&mut config().build(Instant::now()));
    assert_eq!(hub.offer(&id("cam"), "", &sdp).status, 422);
    (hand.at, hand.origin) = (0, media + 3600);
    hand.push(2);
    let mut peer = Peer::watch(&hub, "cam");
    peer.run("pictures", |peer| peer.frames.len() == 2);
    hub.stop();
}

#[test]
fn offers_that_are_none_get_one_clear_refusal() {
    let hub = Hub::start(WebrtcOptions { viewers_max: 1, ..options() }).unwrap();
    let (sdp, _) = offer(&mut config().build(Instant::now()));
    let unknown = hub.offer(&id("nobody"), "", &sdp);
    assert_eq!(unknown.status, 404);
    assert!(unknown.message.contains("nobody"), "{}", unknown.message);
    let _feed = hub.feed(&id("cam"), "main");
    assert_eq!(hub.offer(&id("cam"), "sub", &sdp).status, 404, "another stream");
    let without = |what: &str| -> String {
        sdp.lines().filter(|l| !l.contains(what)).map(|l| format!("{l}\r\n")).collect()
    };
    let (without_fingerprint, without_mid) = (without("fingerprint"), without("a=mid"));
    let nonsense = sdp.replace("m=video 9", "m=video");
    let vp8 = sdp.replace("H264", "VP8");
    let mode_0 = sdp.replace("packetization-mode=1", "packetization-mode=0");
    let sends = sdp.replace("a=recvonly", "a=sendonly");
    let audio = sdp.replace("m=video", "m=audio");
    let long = sdp.clone() + &"a=x:y\r\n".repeat(20_000);
    let many_lines = sdp.clone() + &"a=rtpmap:9 h264/90000\r\n".repeat(2000);
    for (status, bad) in [
        (400, ""),
        (400, "hello"),
        (400, &sdp[..40]),
        (400, &without_fingerprint),
        (400, &without_mid),
        (400, &nonsense),
        (400, &many_lines),
        (400, &audio),
        (400, &sends),
        (400, &long),
        (406, &vp8),
        (406, &mode_0),
    ] {
        let answer = hub.offer(&id("cam"), "", bad);
        assert_eq!(answer.status, status, "{} to {bad}", answer.message);
        assert!(answer.message.contains("send ") || answer.message.contains("use "));
        let message = &answer.message;
        assert!(!message.contains("0x"), "an address of the process: {message}");
    }
    assert_eq!(hub.viewers(&id("cam"), "main"), 0);
    assert_eq!(hub.offer(&id("cam"), "", &sdp).status, 201);
    let full = hub.offer(&id("cam"), "", &sdp);
    assert_eq!(full.status, 503);
    assert!(full.message.contains("limit"), "{}", full.message);
    hub.stop();
}

#[test]
fn the_best_payload_type_is_used() {
    let hub = hub();
    let mut hand = Hand::new(&hub, utc_ticks());
    hand.push(1);
    // Two profiles: the clip is High, which stands for itself, and else for the nearest above.
    let mut peer = Peer::watch(&hub, "cam");
    peer.run("a picture", |peer| peer.frames.len() == 1);
    assert_eq!(peer.frames[0].profile, Some(0x64_00_1f));
    hub.stop();
}

#[test]
fn a_port_that_is_taken_is_told_and_tried_again() {
    let taken = UdpSocket::bind("0.0.0.0:0").unwrap();
    let udp_port = taken.local_addr().unwrap().port();
    let hub = Hub::start(WebrtcOptions { udp_port, ..options() }).unwrap();
    let _feed = hub.feed(&id("cam"), "main");
    let (sdp, _) = offer(&mut config().build(Instant::now()));
    let answer = hub.offer(&id("cam"), "", &sdp);
    assert_eq!(answer.status, 503);
    for part in [udp_port.to_string().as_str(), "webrtc.udp_port"] {
        assert!(answer.message.contains(part), "{}", answer.message);
    }
    drop(taken);
    until("the port", || hub.port());
    assert_eq!(hub.offer(&id("cam"), "", &sdp).status, 201);
    hub.stop();
}

#[test]
fn announced_addresses_are_the_only_candidates() {
    let announce = vec!["203.0.113.9".parse().unwrap(), "2001:db8::9".parse().unwrap()];
    let hub = Hub::start(WebrtcOptions { announce, ..options() }).unwrap();
    let _feed = hub.feed(&id("cam"), "main");
    let (sdp, _) = offer(&mut config().build(Instant::now()));
    let answer = hub.offer(&id("cam"), "", &sdp);
    let lines = answer.sdp.lines().filter(|line| line.starts_with("a=candidate"));
    let addresses: Vec<_> = lines.map(|line| line.split(' ').nth(4).unwrap()).collect();
    assert_eq!(addresses.len(), 2);
    assert!(addresses.contains(&"203.0.113.9") && addresses.contains(&"2001:db8::9"));
    hub.stop();
}

#[test]
fn an_announced_address_that_is_translated_works() {
    // The announced address is not one of this machine; the way there ends at it.
    let announce = vec!["203.0.113.9".parse().unwrap()];
    let hub = Hub::start(WebrtcOptions { announce, ..options() }).unwrap();
    let mut hand = Hand::new(&hub, utc_ticks());
    hand.push(2);
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, hub.port().unwrap()));
    let relay = Relay::start(here, 0, 3);
    let mut peer = Peer::watch_through(&hub, "cam", Some(&relay));
    peer.run("pictures", |peer| peer.frames.len() == 2);
    hub.stop();
}

#[test]
fn pictures_are_the_newest_group_as_far_as_it_is_kept() {
    let hub = hub();
    let nothing = hub.pictures(&id("cam"), "");
    assert_eq!(nothing.status, 404);
    let mut hand = Hand::new(&hub, utc_ticks());
    assert_eq!(hub.pictures(&id("cam"), "").status, 404, "no picture yet");
    hand.push(130);
    let answer = hub.pictures(&id("cam"), "main");
    assert_eq!((answer.status, answer.codec.as_str()), (200, "h264"));
    assert_eq!(answer.pictures.len(), 5);
    for (at, picture) in answer.pictures.iter().enumerate() {
        assert_eq!(picture.data, hand.clip[125 + at]);
        assert_eq!(picture.media.0, hand.media(125 + at));
        assert_eq!(picture.key, at == 0);
    }
    // A group that a message can't hold: its beginning stays, and can be decoded.
    let large = vec![0xff; 3 << 20];
    let media = hand.media(130);
    hand.feed.push(&unit(&large, Codec::H265, media, UnitFlags::KEY));
    for at in 1..=5 {
        hand.feed.push(&unit(&large, Codec::H265, media + at, UnitFlags(0)));
    }
    let answer = hub.pictures(&id("cam"), "");
    assert_eq!(answer.codec, "h265");
    let bytes: usize = answer.pictures.iter().map(|p| p.data.len()).sum();
    assert!(answer.pictures[0].key && bytes <= base::limits::MESSAGE_BYTES_MAX);
    assert_eq!(answer.pictures.len(), 2);
    // What came long ago is not shown as if it were live.
    let mut old = unit(&large, Codec::H265, media + 90_000, UnitFlags::KEY);
    Arc::get_mut(&mut old).unwrap().capture.0 -= 6_000_000_000;
    hand.feed.push(&old);
    let answer = hub.pictures(&id("cam"), "");
    assert!(answer.status == 404 && answer.message.contains("the last one came at"));
    hub.stop();
}

#[test]
fn a_feed_whose_hub_is_gone_drops_and_never_waits() {
    let hub = hub();
    let mut feed = hub.feed(&id("cam"), "main");
    hub.stop();
    let data = vec![0; 1000];
    let taken =
        (0..10_000).filter(|&at| feed.push(&unit(&data, Codec::H264, at, UnitFlags::KEY))).count();
    assert!(taken < 1000, "{taken} wait for nobody");
    let answer = hub.offer(&id("cam"), "", "");
    assert_eq!(answer.status, 503);
}

#[test]
fn strangers_on_the_port_do_no_harm() {
    let hub = hub();
    let mut hand = Hand::new(&hub, utc_ticks());
    hand.push(2);
    let mut peer = Peer::watch(&hub, "cam");
    peer.run("pictures", |peer| peer.frames.len() == 2);
    let ufrag = peer.answer.sdp.lines().find_map(|l| l.strip_prefix("a=ice-ufrag:")).unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, hub.port().unwrap()));
    let mut named = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    named.extend([9; 12]);
    named.extend([0, 6, 0, ufrag.len() as u8 + 4]);
    named.extend(format!("{ufrag}:abc").bytes());
    named[3] = named.len() as u8 - 20;
    let mut state = 5u64;
    for n in 0..2000usize {
        let mut noise: Vec<u8> = (0..n % 200)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                (state >> 33) as u8
            })
            .collect();
        if n % 3 == 0 {
            noise.splice(0..0, named.iter().copied());
        }
        if let Some(first) = noise.first_mut().filter(|_| n % 3 == 1) {
            *first = [0, 1, 20, 22, 63, 128, 200][n % 7];
        }
        let _ = stranger.send_to(&noise, to);
    }
    for next in 3..30 {
        hand.push(1);
        peer.run("pictures", |peer| peer.frames.len() == next);
    }
    assert!(peer.frames.iter().all(|frame| frame.contiguous));
    hub.stop();
}

/// Sends a datagram as from somewhere else.
fn from_elsewhere(datagram: &[u8], to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(datagram, to).unwrap();
    socket
}

fn was_answered(socket: &UdpSocket) -> bool {
    socket.set_nonblocking(true).unwrap();
    socket.recv(&mut [0; 2048]).is_ok()
}

#[test]
fn a_viewer_is_known_at_16_addresses_and_at_no_more_once_it_has_chosen() {
    let hub = hub();
    let mut hand = Hand::new(&hub, utc_ticks());
    hand.push(2);
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, hub.port().unwrap()));
    // What it sends is right, wherever it comes from.
    let mut many = Peer::watch(&hub, "cam");
    let request = many.first_datagram();
    // Who knows the name alone takes no place: the proof at the end is another one.
    let mut forged = request.clone();
    let at = forged.len() - 12;
    forged[at] ^= 1;
    let strangers: Vec<_> = (0..20).map(|_| from_elsewhere(&forged, to)).collect();
    let sockets: Vec<_> = (0..40).map(|_| from_elsewhere(&request, to)).collect();
    // Datagrams are looked at in their order: when the last is answered, all were looked at.
    sockets[0].recv(&mut [0; 2048]).unwrap();
    sockets[0].send_to(&request, to).unwrap();
    sockets[0].recv(&mut [0; 2048]).unwrap();
    let answered: Vec<_> = sockets[1..].iter().map(was_answered).collect();
    assert_eq!(answered, (1..40).map(|at| at < 16).collect::<Vec<_>>());
    assert!(!strangers.iter().any(was_answered));

    let mut peer = Peer::watch(&hub, "cam");
    let request = peer.first_datagram();
    let before = from_elsewhere(&request, to);
    before.recv(&mut [0; 2048]).unwrap();
    peer.run("pictures", |peer| peer.frames.len() == 2);
    let after = from_elsewhere(&request, to);
    before.send_to(&request, to).unwrap();
    before.recv(&mut [0; 2048]).unwrap();
    assert!(!was_answered(&after), "it has chosen, and this is another place");
    // From the same place to another address of this machine.
    before.send_to(&request, SocketAddr::from(([127, 0, 0, 2], to.port()))).unwrap();
    before.recv(&mut [0; 2048]).unwrap();
    hand.push(1);
    peer.run("a picture", |peer| peer.frames.len() == 3);
    hub.stop();
}

#[test]
fn sixteen_offers_at_once_are_answered_beside_others_who_ask() {
    let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/pedestrians.mp4");
    let node = Node::start(&format!("file://{clip}"));
    let (sdp, _) = offer(&mut config().build(Instant::now()));
    until("live", || node.status().filter(|status| status.bits_per_second > 0));
    let start = std::sync::Barrier::new(16 + 12);
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let ask = |n: usize| {
            start.wait();
            match n < 16 {
                true => node.watch(&id("cam"), &sdp).status,
                false => node.call(&Request::Status).map_or(0, |answer| answer.status),
            }
        };
        let threads: Vec<_> = (0..16 + 12).map(|n| scope.spawn(move || ask(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(statuses[..16].iter().all(|status| *status == 201), "{statuses:?}");
    assert!(statuses[16..].iter().all(|status| *status == 200), "{statuses:?}");
}

#[test]
fn a_jump_of_media_time_that_32_bits_can_not_tell_ends_the_viewer() {
    let hub = hub();
    let mut hand = Hand::new(&hub, utc_ticks());
    hand.push(2);
    let mut peer = Peer::watch(&hub, "cam");
    peer.run("pictures", |peer| peer.frames.len() == 2);
    let far = hand.media(2) + 5 * 3600 * 90_000;
    let key = Arc::clone(&unit(&hand.clip[0], Codec::H264, far, UnitFlags::KEY));
    hand.feed.push(&key);
    peer.run("a goodbye", |peer| peer.closed);
    until("it is gone", || (hub.viewers(&id("cam"), "main") == 0).then_some(()));
    hub.stop();
}
