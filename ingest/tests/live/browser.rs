//! What a person sees: a headless browser that plays from the hub.

use crate::camera::{Camera, asset, group_of_5s};
use crate::chromium::Chromium;
use crate::node::Node;
use crate::page::{PAGE, Page};
use crate::patience::until;
use crate::relay::Relay;
use base::CameraId;
use ingest::live::{Hub, WebrtcOptions};
use ipc::ingest_message::{Request, StreamState};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Keeps what is shown beside the other results of the build.
fn keep(page: &mut Page, name: &str) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    page.chromium.screenshot(&path);
    println!("screenshot: {}", path.display());
}

/// A namespace of the network with one way out, over which an address of this machine is routed.
struct Elsewhere {
    name: String,
    device: String,
    here: Ipv4Addr,
}

impl Elsewhere {
    /// None where this user may not make one.
    fn new() -> Option<Elsewhere> {
        let process = std::process::id();
        let [_, _, a, b] = process.to_be_bytes();
        let this = Elsewhere {
            name: format!("live{process}"),
            device: format!("lv{process}"),
            here: Ipv4Addr::new(10, 197, a, b),
        };
        let Elsewhere { name, device, here } = &this;
        let ip = |words: &str| {
            let status = Command::new("ip").args(words.split(' ')).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        let peer = format!("{device}p");
        let all = ip(&format!("netns add {name}"))
            && ip(&format!("link add {device} type veth peer name {peer} netns {name}"))
            && ip(&format!("addr add 169.254.{a}.{b}/32 peer 10.196.{a}.{b} dev {device}"))
            && ip(&format!("link set {device} up"))
            && ip(&format!("addr add {here}/32 dev lo"))
            && ip(&format!("-n {name} link set lo up"))
            && ip(&format!("-n {name} addr add 10.196.{a}.{b}/32 peer 169.254.{a}.{b} dev {peer}"))
            && ip(&format!("-n {name} link set {peer} up"))
            && ip(&format!("-n {name} route add default via 169.254.{a}.{b}"));
        all.then_some(this)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let Elsewhere { name, device, here } = self;
        let address = format!("{here}/32");
        for words in [
            &["link", "del", device][..],
            &["addr", "del", &address, "dev", "lo"],
            &["netns", "del", name],
        ] {
            let _ = Command::new("ip").args(words).stderr(Stdio::null()).status();
        }
    }
}

#[test]
fn a_browser_follows_an_rtsp_camera_through_its_restart() {
    let clip = fake_camera::Clip::read(&asset("group_5s.h264")).unwrap();
    let settings = fake_camera::Settings::new(clip, 25.0);
    let camera = fake_camera::Camera::start(settings.clone()).unwrap();
    let node = Node::start(&camera.url());
    until("live", || node.status().filter(|s| s.state == StreamState::Live));
    let mut page = Page::open(&node, "cam", &[], str::to_owned);
    page.wait_shown(1);
    let first = page.offered.elapsed();
    let pictures = camera.seen().pictures;
    println!("first picture after {first:?}, {pictures} pictures of the camera in all");
    assert!(pictures < 125, "before the camera's next key picture");
    page.wait_shown(20);
    assert!(page.moves() > 0.01);
    let at = camera.address();
    drop(camera);
    until("gone", || node.status().filter(|s| s.state != StreamState::Live));
    let shown = page.shown();
    let camera = fake_camera::Camera::start_at(at, settings).unwrap();
    page.wait_shown(shown + 20);
    assert!(page.moves() > 0.01);
    assert_eq!(page.chromium.evaluate("pc.connectionState"), json!("connected"));
    let status = node.status().unwrap();
    assert_eq!((status.viewers, status.connects), (1, 2));
    // RTP time is the low half of media time.
    let newest = page.chromium.evaluate("seen.at(-1).rtp").as_u64().unwrap() as u32;
    let ahead = (node.status().unwrap().media.0 as u32).wrapping_sub(newest);
    assert!(ahead < 90_000, "{ahead} ticks behind ingest");
    keep(&mut page, "live_rtsp.png");
    let (camera_id, session) = (CameraId::new("cam").unwrap(), page.session.clone());
    assert_eq!(node.call(&Request::Close { camera: camera_id, session }).unwrap().status, 200);
    until("the browser is told", || {
        let state = page.chromium.evaluate("pc.connectionState");
        (state != json!("connected")).then_some(())
    });
    drop((node, camera));
}

#[test]
fn a_browser_in_another_network_plays_over_a_routed_address() {
    let Some(elsewhere) = Elsewhere::new() else {
        println!("SKIPPED: this user can't make a network namespace with a route; run it as root");
        return;
    };
    let announce = vec![elsewhere.here.into()];
    let options = WebrtcOptions { udp_port: 0, announce, ..WebrtcOptions::default() };
    let hub = Hub::start(options).unwrap();
    let camera = Camera::start(&hub, "cam", group_of_5s(), 0, 0);
    until("a picture", || (camera.sent.load(Ordering::Relaxed) > 0).then_some(()));
    let prefix = ["ip", "netns", "exec", &elsewhere.name];
    let mut page = Page::open(&hub, "cam", &prefix, str::to_owned);
    page.wait_shown(50);
    assert!(page.moves() > 0.01);
    let pair = page.chromium.evaluate(
        "pc.getStats().then(all => { for (const s of all.values())          if (s.type === 'candidate-pair' && s.nominated) return all.get(s.remoteCandidateId).address })",
    );
    assert_eq!(pair, json!(elsewhere.here.to_string()));
    keep(&mut page, "live_routed.png");
    hub.stop();
}

#[test]
fn two_of_a_hundred_packets_lost_are_not_seen() {
    let hub = hub();
    let camera = Camera::start(&hub, "cam", group_of_5s(), 0, 0);
    until("a picture", || (camera.sent.load(Ordering::Relaxed) > 0).then_some(()));
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, hub.port().unwrap()));
    let relay = Relay::start(here, 20, 23);
    let mut page = Page::open(&hub, "cam", &[], |answer| relay.instead(answer));
    until("losses", || (relay.lost.load(Ordering::Relaxed) >= 6).then_some(()));
    page.wait_shown(100);
    assert!(page.moves() > 0.01);
    let received = page.chromium.evaluate("received()");
    let (lost, seen) = (relay.lost.load(Ordering::Relaxed), relay.seen.load(Ordering::Relaxed));
    let count = |name: &str| received[name].as_u64().unwrap_or(0);
    let (decoded, dropped) = (count("framesDecoded"), count("framesDropped"));
    let (nacks, freezes) = (count("nackCount"), count("freezeCount"));
    println!(
        "{lost} of {seen} datagrams lost, {nacks} asked for again, {decoded} pictures decoded, \
        {dropped} dropped, {freezes} freezes"
    );
    assert!(lost > 0 && nacks > 0);
    // A packet that stays lost leaves the decoder without its picture: then it asks for a key one.
    assert_eq!(received["pliCount"], json!(0), "every packet came in the end");
    keep(&mut page, "live_with_loss.png");
    hub.stop();
}

pub fn hub() -> Hub {
    Hub::start(WebrtcOptions { udp_port: 0, ..WebrtcOptions::default() }).unwrap()
}

#[test]
fn the_picture_comes_at_once_moves_and_goes_on_when_the_camera_returns() {
    let hub = hub();
    let camera = Camera::start(&hub, "cam", group_of_5s(), 0, 0);
    let media = |c: &Camera| c.media.load(Ordering::Relaxed);
    let sent = |c: &Camera| c.sent.load(Ordering::Relaxed);
    let mut chromium = Chromium::start(&[]);
    chromium.evaluate(PAGE);
    // Well inside a group: the next key picture is at least 3 s away.
    until("the middle of a group", || (30..50).contains(&(sent(&camera) % 125)).then_some(()));
    let mut page = Page { chromium, session: String::new(), offered: Instant::now() };
    let before = sent(&camera);
    page.offer(&hub, "cam", str::to_owned);
    page.wait_shown(1);
    let (first, pictures) = (page.offered.elapsed(), sent(&camera) - before);
    println!("first picture after {first:?}, {pictures} pictures of the camera later");
    assert!(before / 125 == sent(&camera) / 125, "before the camera's next key picture");
    // Live: what is shown is what the camera just took.
    until("live", || {
        let rtp = page.chromium.evaluate("seen.at(-1).rtp").as_u64().unwrap() as u32;
        ((media(&camera) as u32).wrapping_sub(rtp) < 90_000 / 4).then_some(())
    });
    println!("live after {:?}", page.offered.elapsed());
    let moved = page.moves();
    assert!(moved > 0.01, "{moved} of the picture changed");
    keep(&mut page, "live.png");

    let last = camera.stop();
    std::thread::sleep(Duration::from_millis(500));
    let shown = page.shown();
    let camera = Camera::start(&hub, "cam", group_of_5s(), 60, last);
    page.wait_shown(shown + 30);
    assert!(page.moves() > 0.01);
    assert_eq!(page.chromium.evaluate("pc.connectionState"), json!("connected"));
    let newest = page.chromium.evaluate("seen.at(-1).rtp").as_u64().unwrap() as u32;
    assert!((media(&camera) as u32).wrapping_sub(newest) < 90_000, "RTP time is media time");
    keep(&mut page, "live_after_restart.png");
    assert_eq!(hub.viewers(&CameraId::new("cam").unwrap(), "main"), 1);
    println!("{}", page.chromium.evaluate("received()"));
    hub.stop();
}
