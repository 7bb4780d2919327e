//! What a person sees: a headless browser that plays from the hub.

use crate::camera::{Camera, group_of_5s};
use crate::chromium::Chromium;
use crate::until;
use base::CameraId;
use ingest::live::{Hub, WebrtcOptions};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Plays one stream; `seen` is every picture that was shown.
const PAGE: &str = r#"
document.body.innerHTML = '<video id=v autoplay muted playsinline width=640></video>';
window.seen = [];
window.pc = new RTCPeerConnection();
pc.addTransceiver('video', {direction: 'recvonly'});
pc.ontrack = e => { e.receiver.jitterBufferTarget = 0; v.srcObject = new MediaStream([e.track]); };
const shown = (now, m) => {
    seen.push({rtp: m.rtpTimestamp, at: performance.timeOrigin + m.expectedDisplayTime});
    v.requestVideoFrameCallback(shown);
};
v.requestVideoFrameCallback(shown);
window.pixels = () => {
    const c = new OffscreenCanvas(160, 90), g = c.getContext('2d');
    g.drawImage(v, 0, 0, 160, 90);
    return Array.from(g.getImageData(0, 0, 160, 90).data);
};
window.received = async () => {
    for (const s of (await pc.getStats()).values()) if (s.type === 'inbound-rtp') return s;
};
"#;

pub struct Page {
    pub chromium: Chromium,
    pub session: String,
    pub offered: Instant,
}

impl Page {
    /// A browser that plays `camera`; `change` may rewrite the answer.
    pub fn open(hub: &Hub, camera: &str, prefix: &[&str], change: impl Fn(&str) -> String) -> Page {
        let mut chromium = Chromium::start(prefix);
        chromium.evaluate(PAGE);
        let mut page = Page { chromium, session: String::new(), offered: Instant::now() };
        page.offer(hub, camera, change);
        page
    }

    fn offer(&mut self, hub: &Hub, camera: &str, change: impl Fn(&str) -> String) {
        let offer = "pc.setLocalDescription().then(() => pc.localDescription.sdp)";
        let offer = self.chromium.evaluate(offer);
        self.offered = Instant::now();
        let answer = hub.offer(&CameraId::new(camera).unwrap(), "", offer.as_str().unwrap());
        assert_eq!(answer.status, 201, "{}", answer.message);
        self.session = answer.session;
        let sdp = json!({"type": "answer", "sdp": change(&answer.sdp)});
        self.chromium.evaluate(&format!("pc.setRemoteDescription({sdp})"));
    }

    /// Pictures shown so far.
    pub fn shown(&mut self) -> u64 {
        self.chromium.evaluate("seen.length").as_u64().unwrap()
    }

    pub fn wait_shown(&mut self, count: u64) {
        until("a picture", || (self.shown() >= count).then_some(()));
    }

    /// Share of the picture's values that differ between two moments, at which it shows other
    /// pictures.
    pub fn moves(&mut self) -> f64 {
        let before = self.chromium.evaluate("pixels()");
        let shown = self.shown();
        self.wait_shown(shown + 10);
        let after = self.chromium.evaluate("pixels()");
        let (before, after) = (before.as_array().unwrap(), after.as_array().unwrap());
        let apart = |(a, b): (&Value, &Value)| a.as_i64().unwrap().abs_diff(b.as_i64().unwrap());
        let differ = before.iter().zip(after).filter(|&pair| apart(pair) > 16).count();
        differ as f64 / before.len() as f64
    }

    /// Keeps what is shown beside the other results of the build.
    pub fn keep(&mut self, name: &str) -> PathBuf {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        self.chromium.screenshot(&path);
        println!("screenshot: {}", path.display());
        path
    }
}

pub fn hub() -> Hub {
    Hub::start(WebrtcOptions { udp_port: 0, ..WebrtcOptions::default() }).unwrap()
}

#[test]
fn the_picture_comes_at_once_moves_and_goes_on_when_the_camera_returns() {
    let hub = hub();
    let camera = Camera::start(&hub, "cam", group_of_5s(), 0, 0);
    let media = |c: &Camera| c.media.load(std::sync::atomic::Ordering::Relaxed);
    let sent = |c: &Camera| c.sent.load(std::sync::atomic::Ordering::Relaxed);
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
    page.keep("live.png");

    let last = camera.stop();
    std::thread::sleep(Duration::from_millis(500));
    let shown = page.shown();
    let camera = Camera::start(&hub, "cam", group_of_5s(), 60, last);
    page.wait_shown(shown + 30);
    assert!(page.moves() > 0.01);
    assert_eq!(page.chromium.evaluate("pc.connectionState"), json!("connected"));
    let newest = page.chromium.evaluate("seen.at(-1).rtp").as_u64().unwrap() as u32;
    assert!((media(&camera) as u32).wrapping_sub(newest) < 90_000, "RTP time is media time");
    page.keep("live_after_restart.png");
    assert_eq!(hub.viewers(&CameraId::new("cam").unwrap(), "main"), 1);
    println!("{}", page.chromium.evaluate("received()"));
    hub.stop();
}
