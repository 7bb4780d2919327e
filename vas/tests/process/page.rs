//! The page at / in a browser: what people see first must work.

use crate::chromium::Chromium;
use crate::node::{Place, Process, until};
use fake_camera::{Camera, Clip, Settings};
use serde_json::json;
use std::path::Path;

#[test]
fn the_page_shows_live_video_takes_a_snapshot_and_plays_the_recording() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../ingest/tests/assets/two_sizes.h264");
    let clip = Clip::read(Path::new(file)).unwrap().part(0, 25);
    let camera = Camera::start(Settings::new(clip, 25.0)).unwrap();
    let place = Place::new(&format!(
        "[[camera]]\nid = \"gate\"\nname = \"<b>Gate</b>\"\nmain_url = \"{}\"\nrecord = true\n",
        camera.url()
    ));
    let config = place.config_text();
    let start = |part: &str| Process::start(&[part, "--config", &config]);
    let (serve, _ingest) = (start("serve"), start("ingest"));
    serve.wait_for("serving on");
    let mut browser = Chromium::start(&[]);
    browser.open(&format!("http://127.0.0.1:{}/", place.port));

    let mut is = |what: &str, expression: &str| {
        until(what, || browser.evaluate(expression) == json!(true));
    };
    is("a tile", "document.querySelector('figure video') !== null");
    is(
        "live video",
        "(v => v.videoWidth === 128 && v.currentTime > 0.5)(document.querySelector('video'))",
    );
    is("the word", "document.querySelector('figcaption .facts').textContent.startsWith('live')");
    // Names are text, whatever they hold.
    is("the name", "document.querySelector('figcaption b').textContent === '<b>Gate</b>'");

    is("the click", "(document.querySelector('[data-do=snapshot]').click(), true)");
    is("a snapshot", "document.querySelector('.told').textContent === 'snapshot 128\u{d7}96'");

    is("the click", "(document.querySelector('[data-do=playback]').click(), true)");
    is(
        "the recording",
        "(v => v.src.endsWith('/playlist') && v.videoWidth === 128 && v.readyState >= 2)\
         (document.querySelector('video'))",
    );
    is(
        "what is played",
        "document.querySelector('figcaption .facts').textContent === 'playing the recording'",
    );
    is("the click", "(document.querySelector('[data-do=playback]').click(), true)");
    is(
        "live video again",
        "(v => !v.src && v.srcObject && v.currentTime > 0.5)(document.querySelector('video')) === true",
    );
    browser.screenshot(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("page.png"));
}
