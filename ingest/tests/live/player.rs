//! The player of the served page, in a browser, against a hub. This test stands where serve is.

use crate::camera::{Camera, group_of_5s};
use crate::chromium::Chromium;
use crate::patience::until;
use base::CameraId;
use ingest::live::{Hub, WebrtcOptions};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::Ordering;

/// What the page asks serve for waits in `asked` until it is answered.
const PAGE: &str = r#"
document.body.innerHTML = '<video id=v width=640></video>';
window.asked = []; window.words = []; window.times = [];
window.fetch = (url, {method, body}) => new Promise(answer => asked.push({url, method, body, answer}));
window.reply = (status, headers, body) => asked.shift().answer(new Response(body, {status, headers}));
"#;
const WATCH: &str = r#"
window.view = watch(v, 'front door', {
    state: (word, why) => words.push(why ? `${word}: ${why}` : word),
    picture: media => times.push(media),
});
"#;
/// The same path that serve gives, whatever is in the camera's name.
const PATH: &str = "/api/v1/devices/front%20door/whep";

struct Served {
    chromium: Chromium,
    hub: Hub,
    camera: CameraId,
}

impl Served {
    fn asked(&mut self) -> Value {
        let look = "asked.length ? {url: asked[0].url, method: asked[0].method, body: asked[0].body} : null";
        until("a request", || Some(self.chromium.evaluate(look)).filter(|asked| !asked.is_null()))
    }

    fn reply(&mut self, status: u16, headers: &Value, body: &str) {
        let body = if status == 204 { json!(null) } else { json!(body) };
        self.chromium.evaluate(&format!("reply({status}, {headers}, {body})"));
    }

    /// Answers an offer as serve does; returns the session.
    fn offer(&mut self) -> String {
        let asked = self.asked();
        assert_eq!((&asked["url"], &asked["method"]), (&json!(PATH), &json!("POST")));
        let answer = self.hub.offer(&self.camera, "", asked["body"].as_str().unwrap());
        assert_eq!(answer.status, 201, "{}", answer.message);
        let location = format!("{PATH}/{}", answer.session);
        let origin = answer.media_origin.0.to_string();
        self.reply(201, &json!({"Location": location, "X-Media-Origin": origin}), &answer.sdp);
        answer.session
    }

    fn wait_word(&mut self, word: &str) {
        until(word, || (self.chromium.evaluate("words.at(-1)") == json!(word)).then_some(()));
    }

    fn closes(&mut self, session: &str) {
        let asked = self.asked();
        let url = json!(format!("{PATH}/{session}"));
        assert_eq!((&asked["url"], &asked["method"]), (&url, &json!("DELETE")));
        let _ = self.hub.close(&self.camera, session);
        self.reply(204, &json!({}), "");
    }
}

#[test]
fn the_player_says_why_it_waits_knows_media_time_and_comes_back() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/src/http/whep.js");
    let script = std::fs::read_to_string(script).unwrap();
    let options = WebrtcOptions { udp_port: 0, ..WebrtcOptions::default() };
    let hub = Hub::start(options).unwrap();
    let camera = Camera::start(&hub, "cam", group_of_5s(), 0, 0);
    let media = || camera.media.load(Ordering::Relaxed);
    let mut chromium = Chromium::start(&[]);
    chromium.evaluate(PAGE);
    chromium.evaluate(&format!("{script};window.watch = watch;"));
    let id = CameraId::new("cam").unwrap();
    let mut served = Served { chromium, hub: hub.clone(), camera: id };
    served.chromium.evaluate(WATCH);
    served.wait_word("connecting");
    // As serve says it.
    served.asked();
    let error = json!({"error": {"status": 422, "message": "it has B-frames", "path": PATH}});
    served.reply(422, &json!({"Content-Type": "application/json"}), &error.to_string());
    served.wait_word("waiting: it has B-frames");

    let session = served.offer();
    served.wait_word("live");
    until("live", || {
        let newest = served.chromium.evaluate("String(times.at(-1))");
        let newest: u64 = newest.as_str().unwrap().parse().ok()?;
        let now = media();
        // All 64 bits, on the grid of the camera's pictures.
        (newest <= now && now - newest < 90_000 / 2 && (now - newest).is_multiple_of(3600))
            .then_some(())
    });
    let rising = "times.every((t, n) => !n || t > times[n - 1])";
    assert_eq!(served.chromium.evaluate(rising), json!(true));

    // Sent away: it comes back by itself.
    served.hub.close(&served.camera, &session);
    served.wait_word("waiting: the connection ended");
    served.closes(&session);
    let session = served.offer();
    served.wait_word("live");

    // The camera stops and returns: the same connection.
    let last = camera.stop();
    served.wait_word("stalled");
    let camera = Camera::start(&hub, "cam", group_of_5s(), 0, last);
    served.wait_word("live");
    served.chromium.evaluate("view.stop()");
    served.closes(&session);
    until("no viewer", || (hub.viewers(&served.camera, "main") == 0).then_some(()));
    assert_eq!(served.chromium.evaluate("asked.length"), json!(0));
    drop(camera);
    hub.stop();
}
