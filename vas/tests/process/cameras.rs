//! Cameras are changed over HTTP, ingest follows the file that serve writes, and needs no serve.

use crate::node::{Place, Process, clip, model, until};
use base::{CameraId, Newest};
use ipc::ring::RingReader;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Status and body of a request with a JSON body.
fn call(place: &Place, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
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
        "[frame_export]\nenabled = true\n[[model]]\ndir = \"{}\"\n\
         [[camera]]\nid = \"one\"\nmain_url = \"{}\"\n\
         [[assignment]]\ncamera = \"one\"\nmodel = \"nanodet_g_416\"\n",
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
