//! Shared memory that is too small for all cameras, and a state directory without any room.

use crate::node::{Place, Process, clip, until};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

/// Mounts a tmpfs of this size over a directory, in a namespace of its own.
fn on_small_tmpfs(directory: &str, megabytes: u32, command: &str) -> String {
    format!(
        "unshare --mount sh -c 'mount -t tmpfs -o size={megabytes}m,nr_inodes=200,mode=700 none {directory} && {command}'"
    )
}

/// Whether this user may do that.
fn may_mount() -> bool {
    let may = Command::new("unshare").args(["--mount", "true"]).output();
    let may = may.is_ok_and(|output| output.status.success());
    if !may {
        println!("skipped: this user may not make a mount namespace");
    }
    may
}

/// A node on a state directory in which nothing more can be written or made. `prepared` is what
/// lies there before it is filled.
struct Filled {
    place: Place,
    up: Process,
}

impl Filled {
    fn start(place: Place, prepared: Option<&str>) -> Filled {
        let state = place.state();
        fs::create_dir_all(&state).unwrap();
        let state = state.to_str().unwrap();
        let copy = prepared.map_or(String::new(), |from| format!("cp -a {from}/. {state}/ && "));
        let fill = format!(
            "mkdir {state}/ballast; dd if=/dev/zero of={state}/ballast/bytes bs=4k 2>/dev/null; i=0; \
             while touch {state}/ballast/$i 2>/dev/null; do i=$((i+1)); done"
        );
        let config = place.config_text();
        let vas = format!("{copy}{fill}; exec {} up --config {config}", env!("CARGO_BIN_EXE_vas"));
        let up = Process::shell(&on_small_tmpfs(state, 16, &vas));
        up.wait_for("the node runs: http://");
        Filled { place, up }
    }

    /// The state directory as the node sees it.
    fn state(&self) -> PathBuf {
        let outside = self.place.state();
        PathBuf::from(format!("/proc/{}/root{}", self.up.id(), outside.display()))
    }

    fn desired(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.state().join("desired.json")).ok()?).ok()
    }

    fn make_room(&self) {
        fs::remove_dir_all(self.state().join("ballast")).unwrap();
    }

    fn check(&self, name: &str) -> (String, String) {
        let health: Value = serde_json::from_str(&self.place.get("/health/detailed")).unwrap();
        let text = |key: &str| health["checks"][name][key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"))
    }

    /// The status and the body of the answer to a camera that somebody adds.
    fn add_camera(&self) -> (u16, String) {
        let body = r#"{"name": "added", "rtsp_url": "rtsp://127.0.0.1:9/added"}"#;
        let mut stream = TcpStream::connect(("127.0.0.1", self.place.port)).unwrap();
        write!(
            stream,
            "POST /api/v1/devices HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }
}

fn camera(loop_offset_ms: u32) -> String {
    let clip = clip();
    format!(
        "[[camera]]\nid = \"one\"\nmain_url = \"{}\"\nloop_offset_ms = {loop_offset_ms}\n",
        clip.display()
    )
}

fn streams(body: &str) -> bool {
    let status: Value = serde_json::from_str(body).unwrap_or_default();
    let cameras = status["cameras"].as_array().map_or(&[][..], Vec::as_slice);
    cameras.iter().any(|c| c["id"] == "one" && c["stream_state"] == "live")
}

#[test]
fn a_full_disk_under_a_fresh_state_is_told_and_everything_begins_when_there_is_room() {
    if !may_mount() {
        return;
    }
    let mut node = Filled::start(Place::new(&camera(0)), None);
    let (store, reason) = node.check("store");
    assert!(store == "degraded" && reason.contains("control.redb"), "{reason}");
    assert!(reason.contains("No space left"), "{reason}");
    let (desired, reason) = node.check("desired_state");
    assert!(desired == "degraded" && reason.contains("not applied yet"), "{reason}");
    assert_eq!(node.place.get("/api/v1/devices"), "[]");
    let (status, body) = node.add_camera();
    assert!(status == 503 && body.contains("No space left"), "{body}");
    assert!(node.desired().is_none());
    node.make_room();
    node.place.get_until("/ai/observability/status", streams);
    for name in ["store", "desired_state", "ingest"] {
        until(name, || node.check(name).0 == "healthy");
    }
    assert_eq!(node.add_camera().0, 201);
    let text = node.up.text();
    assert!(!text.contains(" ended ("), "every part runs on: {text}");
    assert!(node.up.stop().success());
}

#[test]
fn a_full_disk_under_a_changed_configuration_runs_what_was_published_until_there_is_room() {
    if !may_mount() {
        return;
    }
    let place = Place::new(&camera(0));
    assert!(place.up_serving().stop().success());
    let prepared = place.folder.path().join("prepared");
    fs::rename(place.state(), &prepared).unwrap();
    place.configure(&camera(1500));
    let mut node = Filled::start(place, prepared.to_str());
    let offset = |node: &Filled| node.desired().unwrap()["cameras"][0]["loop_offset_ms"].clone();
    node.place.get_until("/ai/observability/status", streams);
    let (desired, reason) = node.check("desired_state");
    assert!(desired == "degraded" && reason.contains("not applied yet"), "{reason}");
    assert_eq!(offset(&node), 0, "what was published before");
    let (status, body) = node.add_camera();
    assert!(status == 503 && body.contains("No space left"), "{body}");
    node.make_room();
    until("the configuration", || offset(&node) == 1500);
    for name in ["store", "desired_state", "ingest"] {
        until(name, || node.check(name).0 == "healthy");
    }
    assert_eq!(node.add_camera().0, 201);
    let text = node.up.text();
    assert!(!text.contains(" ended ("), "every part runs on: {text}");
    assert!(node.up.stop().success());
}

#[test]
fn full_shared_memory_turns_that_camera_off_and_the_rest_goes_on() {
    if !may_mount() {
        return;
    }
    let place = Place::with_people();
    let directory = place.shm.path().to_str().unwrap().to_owned();
    // A ring of 768x576 at 10 fps has 24 slots of 0.66 MB for a deadline of 2 s: one fits.
    let vas = format!("exec {} up --config {}", env!("CARGO_BIN_EXE_vas"), place.config_text());
    let mut up = Process::shell(&on_small_tmpfs(&directory, 20, &vas));
    up.wait_for("the node runs: http://");
    let off = |status: &Value| -> Option<String> {
        let cameras = status["cameras"].as_array()?;
        let absent = cameras.iter().find(|c| c["absent"] == "no_ring")?;
        Some(absent["id"].as_str()?.to_owned())
    };
    let results = |status: &Value, camera: &str| -> u64 {
        let subscriptions = status["subscriptions"].as_array().map_or(&[][..], Vec::as_slice);
        let of = subscriptions.iter().find(|s| s["camera_id"] == camera);
        of.and_then(|s| s["results"].as_u64()).unwrap_or(0)
    };
    let text = place.get_until("/ai/observability/status", |body| {
        let status: Value = serde_json::from_str(body).unwrap_or_default();
        let other = match off(&status).as_deref() {
            Some("one") => "two",
            Some("two") => "one",
            _ => return false,
        };
        results(&status, other) >= 5
    });
    let camera = off(&serde_json::from_str(&text).unwrap()).unwrap();
    let line = up.wait_for("frame export is off: no room for ");
    assert!(line.contains(&camera) && line.contains(&directory), "{line}");
    assert!(line.contains("bytes wanted") && line.contains("enlarge the file system"), "{line}");
    assert!(up.stop().success());
    place.assert_nothing_left();
}
