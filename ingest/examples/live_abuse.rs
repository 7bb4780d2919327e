//! What hostile viewers cost live view: offers made to be slow, and valid STUN from many ports.
//!
//! `cargo run -p ingest --example live_abuse`. Prints how long each offer took, how long the hub's
//! thread ran meanwhile (`schedstat`), and what a flood of so many ports cost it, during and after.

// Its parts are those of the tests.
#![allow(clippy::unwrap_used)]

#[path = "../tests/live/camera.rs"]
#[allow(dead_code)]
mod camera;
#[path = "../tests/live/node.rs"]
#[allow(dead_code)]
mod node;
#[path = "../tests/live/patience.rs"]
#[allow(dead_code)]
mod patience;
#[path = "../tests/live/peer.rs"]
#[allow(dead_code)]
mod peer;
#[path = "../tests/live/relay.rs"]
#[allow(dead_code)]
mod relay;

use base::CameraId;
use ingest::live::{Hub, WebrtcOptions};
use peer::{Peer, config, offer};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Length of the hostile offers, bytes.
const OFFER: usize = 64 << 10;
/// As many of their lines as an offer may have.
const LINES: usize = 1000;

fn main() {
    let hub = Hub::start(WebrtcOptions { udp_port: 0, ..WebrtcOptions::default() }).unwrap();
    let cam = CameraId::new("cam").unwrap();
    let _feed = hub.feed(&cam, "main");
    let (sdp, _) = offer(&mut config().build(Instant::now()));
    hub.offer(&cam, "", &sdp);
    println!("offer                      status     took ms  hub ms");
    let numbers: String = (0..16_000).map(|n| format!(" {}", n % 128)).collect();
    for (what, line) in [
        ("of a browser", String::new()),
        ("a=rtpmap, same number", "a=rtpmap:9 h264/90000\r\n".into()),
        ("a=fmtp, same number", "a=fmtp:9 packetization-mode=1\r\n".into()),
        ("candidates", "a=candidate:1 1 udp 99 203.0.113.9 9 typ host\r\n".into()),
        ("a=extmap", "a=extmap:7 urn:x:y\r\n".into()),
        ("media", "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n".into()),
        ("payload types of a media", format!("m=audio 9 UDP/TLS/RTP/SAVPF{numbers}\r\n")),
        ("one line", format!("a=x:{}\r\n", "y".repeat(OFFER))),
    ] {
        let mut hostile = sdp.clone();
        while !line.is_empty() && hostile.len() + line.len() < OFFER + line.len() / 2 {
            hostile += &line;
        }
        hostile.truncate(OFFER);
        let within: String = hostile.split_inclusive('\n').take(LINES).collect();
        for (what, hostile) in [(what, &hostile), ("  its first lines", &within)] {
            let (ran, start) = (hub_ran(), Instant::now());
            let answer = hub.offer(&cam, "", hostile);
            let took = start.elapsed();
            let ran = hub_ran() - ran;
            println!("{what:26} {:6} {:11.2} {:7.2}", answer.status, ms(took), ms(ran));
            hub.close(&cam, &answer.session);
        }
    }

    println!("ports   flood ms  hub ms  in 3 s after");
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, hub.port().unwrap()));
    for ports in [4000, 8000, 16_000] {
        let mut peer = Peer::watch(&hub, "cam");
        let request = peer.first_datagram();
        let (ran, start) = (hub_ran(), Instant::now());
        for port in 0..ports {
            let due = start + Duration::from_secs(1) / 2000 * port;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&request, to).unwrap();
        }
        let (took, during) = (start.elapsed(), hub_ran() - ran);
        let ran = hub_ran();
        std::thread::sleep(Duration::from_secs(3));
        let after = hub_ran() - ran;
        println!("{ports:5} {:10.0} {:7.0} {:13.0}", ms(took), ms(during), ms(after));
        hub.close(&cam, &peer.session);
    }
    hub.stop();
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// How long the hub's thread has run.
fn hub_ran() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of_hub = |path: &std::path::Path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "live:hub")
    };
    let task = tasks.map(|task| task.unwrap().path()).find(|path| of_hub(path)).unwrap();
    let times = std::fs::read_to_string(task.join("schedstat")).unwrap();
    Duration::from_nanos(times.split(' ').next().unwrap().parse().unwrap())
}
