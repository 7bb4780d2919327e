//! Cameras are changed over HTTP, ingest follows the file that serve writes, and needs no serve.

use crate::node::{Place, Process, clip, model, until};
use base::{CameraId, Newest};
use fake_camera::{Auth, Camera, Clip, Settings};
use ipc::ring::RingReader;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

/// Status and body of a request with a JSON body.
pub fn call(place: &Place, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(("127.0.0.1", place.port)).ok()?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).unwrap_or_default()))
}

/// Waits for frames that are newer than those of now.
#[track_caller]
fn frames_come(reader: &mut RingReader) {
    let mut first = None;
    until("the next frames", || match reader.newest(ipc::clock::monotonic()) {
        Newest::Frame(stamp) => {
            let first = *first.get_or_insert(stamp.info.media.0);
            // Two frames of 10 fps.
            stamp.info.media.0 >= first + 18_000
        }
        Newest::Absent(_) => false,
    });
}

#[test]
fn ingest_follows_what_serve_is_told_and_lives_and_starts_without_it() {
    let place = Place::new(&format!(
        "[frame_export]\nenabled = true\n[cameras]\nfile_roots = [\"{}\"]\n[[model]]\ndir = \"{}\"\n\
         [[camera]]\nid = \"one\"\nmain_url = \"{}\"\n\
         [[assignment]]\ncamera = \"one\"\nmodel = \"nanodet_g_416\"\n",
        clip().parent().unwrap().display(),
        model().display(),
        clip().display()
    ));
    let config = place.config_text();
    let start = |part: &str| Process::start(&[part, "--config", &config]);
    let (mut serve, mut ingest) = (start("serve"), start("ingest"));
    serve.wait_for("serving on");
    let mut reader = RingReader::new(&place.rings(), &CameraId::new("one").unwrap());
    frames_come(&mut reader);

    // Switched off and on over HTTP.
    let switch = |word: &str| {
        let path = format!("/api/v1/devices/one/{word}-stream");
        assert_eq!(call(&place, "POST", &path, "").unwrap().0, 200, "{word}");
    };
    switch("stop");
    let ring = place.rings().join("one");
    until("the end of the ring", || !ring.exists());
    switch("start");
    frames_come(&mut reader);

    // A further camera, made over HTTP.
    let new = format!(
        "{{\"name\": \"Two\", \"rtsp_url\": \"file://{}\", \"enabled\": true, \"record\": true}}",
        clip().display()
    );
    let (status, made) = call(&place, "POST", "/api/v1/devices", &new).unwrap();
    assert_eq!(status, 201, "{made}");
    let id = made["id"].as_str().unwrap().to_owned();
    let desired = || -> Value {
        let text = std::fs::read_to_string(place.state().join("desired.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let has = |state: &Value| {
        state["cameras"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["id"] == id.as_str() && c["record"] == true)
    };
    let before = desired();
    assert!(has(&before), "{before}");

    // Serve is killed: the video goes on. Ingest is killed too and starts alone from the file.
    serve.signal("KILL");
    serve.end();
    frames_come(&mut reader);
    ingest.signal("KILL");
    ingest.end();
    let mut ingest = start("ingest");
    frames_come(&mut reader);

    // Serve returns with what it was told, says nothing new, and the video does not notice.
    let serve = start("serve");
    serve.wait_for("serving on");
    assert_eq!(desired(), before);
    let (_, shown) = call(&place, "GET", &format!("/api/v1/devices/{id}"), "").unwrap();
    assert_eq!((&shown["name"], &shown["is_active"]), (&"Two".into(), &true.into()));
    frames_come(&mut reader);
    assert!(ingest.runs());
    assert_eq!(call(&place, "DELETE", &format!("/api/v1/devices/{id}"), "").unwrap().0, 400);
}

/// Arguments of every process of this machine, and their environment as far as it can be read.
fn arguments_of_all() -> String {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = entries.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ") + "\n").collect()
}

#[test]
fn an_rtsp_camera_is_recorded_and_snapped_and_its_password_is_shown_nowhere() {
    const PASSWORD: &str = "dont-tell-7f3a";
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../ingest/tests/assets/two_sizes.h264");
    let clip = Clip::read(Path::new(file)).unwrap().part(0, 25);
    let auth = Auth::Digest("admin".into(), PASSWORD.into());
    let camera = Camera::start(Settings { auth, ..Settings::new(clip, 25.0) }).unwrap();
    let place = Place::new("[frame_export]\nenabled = true\n");
    let config = place.config_text();
    let start = |part: &str| Process::start(&[part, "--config", &config]);
    let (serve, ingest) = (start("serve"), start("ingest"));
    serve.wait_for("serving on");
    ingest.wait_for("ingest runs");
    let mut told = String::new();
    let mut ask = |method: &str, path: &str, body: &str| {
        let (status, answer) = call(&place, method, path, body).unwrap();
        told += &answer.to_string();
        (status, answer)
    };
    let address = camera.url_as("admin", PASSWORD);
    let of = |url: &str| serde_json::json!({"name": "Gate", "rtsp_url": url}).to_string();

    // Tried first: with a wrong password, then with the right one.
    let wrong = camera.url_as("admin", &format!("{PASSWORD}-not"));
    let (status, tried) = ask("POST", "/api/v1/devices/validate", &of(&wrong));
    assert_eq!((status, &tried["valid"]), (200, &false.into()), "{tried}");
    let (status, tried) = ask("POST", "/api/v1/devices/validate", &of(&address));
    assert_eq!((status, &tried["valid"]), (200, &true.into()), "{tried}");

    let new = serde_json::json!({
        "name": "Gate", "rtsp_url": address, "enabled": true, "record": true,
    });
    let (status, made) = ask("POST", "/api/v1/devices", &new.to_string());
    assert_eq!(status, 201, "{made}");
    let id = made["id"].as_str().unwrap().to_owned();
    let health = format!("/api/v1/rtsp/streams/{id}/health");
    until("live video", || ask("GET", &health, "").1["healthy"] == true);
    until("a recording", || {
        let (_, list) = ask("GET", "/api/v1/streams", "");
        list["streams"][0]["recording"] == true && list["streams"][0]["width"] == 128
    });

    let sessions = camera.seen().connections;
    // Nothing is decoded for models: the picture comes from what live view keeps.
    let capture = format!("/api/v1/snapshots/devices/{id}/capture/live");
    let (status, taken) = ask("POST", &capture, "");
    assert_eq!((status, &taken["snapshot"]["width"]), (200, &128.into()), "{taken}");
    let clip = format!("/api/v1/bookmarks/devices/{id}/capture/live");
    let mut bookmark = String::new();
    until("two seconds of recording", || {
        let (status, asked) = ask("POST", &clip, "{\"duration\": 2}");
        bookmark = asked["bookmark"]["id"].as_str().unwrap_or_default().to_owned();
        status < 300
    });
    until("the clip", || {
        let (_, shown) = ask("GET", &format!("/api/v1/bookmarks/{bookmark}"), "");
        assert_ne!(shown["state"], "failed", "{shown}");
        shown["state"] == "done"
    });
    assert_eq!(camera.seen().connections, sessions, "no media action opens a session");

    assert!(!arguments_of_all().contains(PASSWORD));
    for (what, text) in [("answers", &told), ("serve", &serve.text()), ("ingest", &ingest.text())] {
        assert!(!text.contains(PASSWORD), "{what}: {text}");
    }
    assert!(told.contains("rtsp://***@"));
}
