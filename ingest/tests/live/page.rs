//! A page in a browser that plays one stream of a hub, and what it shows.

use crate::chromium::Chromium;
use crate::node::Door;
use crate::patience::until;
use base::CameraId;
use serde_json::{Value, json};
use std::time::Instant;

/// Plays one stream; `seen` is every picture that was shown.
pub const PAGE: &str = r#"
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
    pub fn open(
        hub: &impl Door,
        camera: &str,
        prefix: &[&str],
        change: impl Fn(&str) -> String,
    ) -> Page {
        let mut chromium = Chromium::start(prefix);
        chromium.evaluate(PAGE);
        let mut page = Page { chromium, session: String::new(), offered: Instant::now() };
        page.offer(hub, camera, change);
        page
    }

    pub fn offer(&mut self, hub: &impl Door, camera: &str, change: impl Fn(&str) -> String) {
        let offer = "pc.setLocalDescription().then(() => pc.localDescription.sdp)";
        let offer = self.chromium.evaluate(offer);
        self.offered = Instant::now();
        let answer = hub.watch(&CameraId::new(camera).unwrap(), offer.as_str().unwrap());
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
}
