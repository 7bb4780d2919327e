//! Snapshots and bookmarks, with a `vas media` of a few lines of shell, and files in parts.

use crate::ingest::FakeIngest;
use crate::support::{
    Node, Reply, call, call_error, call_json, connect, get, get_json, read_reply, request, wait_for,
};
use api::Server;
use api::disk::{Disk, Space};
use base::{ColourMatrix, ColourRange, FrameFlags, FrameInfo, MediaTime, Size, UtcNanos};
use ipc::ingest_message::{self, Answer, Request};
use ipc::recording::{Day, Header, INDEX_NAME, Recordings, Row, RowFlags, SegmentName};
use ipc::ring::{RingSpec, RingWriter};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::{Arc, Mutex};

const SNAPSHOTS: &str = "/api/v1/snapshots";
const BOOKMARKS: &str = "/api/v1/bookmarks";
/// 2026-01-01T12:00:00Z.
const NOON: u64 = 1_767_268_800_000_000_000;

/// A node whose media jobs are this script. `$job` is the job, `$output` and `$thumbnail` its files.
fn node(script: &str) -> Node {
    let mut node = Node::new();
    let path = node.home.path().join("media.sh");
    let head = r#"#!/bin/sh
read -r job
key() { printf %s "$job" | sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p"; }
output=$(key output); thumbnail=$(key thumbnail)
printf '%s\n' "$job" >> "$(dirname "$0")/jobs"
"#;
    std::fs::write(&path, format!("{head}{script}\n")).unwrap();
    node.options.media_command = vec!["/bin/sh".into(), path.into()];
    node.options.cameras[0].record = Some(true);
    node
}

const STILL: &str = r#"cat > "$output"; [ -s "$output" ] || printf still > "$output"
echo '{"status":"done","at_utc_ns":1767268799960000000,"width":640,"height":360,"bytes":5}'"#;
const CLIP: &str = r#"printf 0123456789 > "$output"; printf jpeg > "$thumbnail"
echo '{"status":"done","start_utc_ns":1767268797000000000,"end_utc_ns":1767268803000000000,"duration_ms":6000,"bytes":10,"gaps_ms":40}'"#;

fn jobs(node: &Node) -> Vec<Value> {
    let text = std::fs::read_to_string(node.home.path().join("jobs")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every file of a kind, by name.
fn files(node: &Node, kind: &str) -> Vec<String> {
    let root = node.options.directories.state.join("media").join(kind);
    let folders = std::fs::read_dir(root).into_iter().flatten().flatten();
    let all = folders.flat_map(|folder| std::fs::read_dir(folder.path()).unwrap());
    let mut names: Vec<String> =
        all.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn capture(server: &Server, kind: &str, camera: &str, moment: &str, body: &Value) -> Reply {
    call(server, "POST", &format!("/api/v1/{kind}/devices/{camera}/capture/{moment}"), body)
}

fn error_of(reply: &Reply, status: u16) -> String {
    assert_eq!(reply.status, status, "{}", String::from_utf8_lossy(&reply.body));
    reply.json()["error"]["message"].as_str().unwrap().to_owned()
}

fn with_range(server: &Server, target: &str, headers: &str) -> Reply {
    let address = server.address();
    let mut stream = connect(address);
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n\r\n").unwrap();
    read_reply(&mut stream, false).unwrap()
}

#[test]
fn a_live_snapshot_is_the_newest_frame_of_the_ring_when_there_is_one() {
    let node = node("exit 7");
    let server = node.start();
    let picture = base::Picture {
        size: Size { width: 96, height: 64 },
        matrix: ColourMatrix::Bt601,
        range: ColourRange::Limited,
    };
    let spec = RingSpec { camera: "front".parse().unwrap(), picture, slots: 8 };
    let mut writer = RingWriter::create(&node.options.directories.shm, &spec).unwrap();
    let taken = wait_for("a picture of the ring", || {
        let mut slot = writer.begin();
        slot.pixels().fill(90);
        slot.publish(&FrameInfo {
            media: MediaTime(1),
            capture: ipc::clock::monotonic(),
            capture_utc: UtcNanos(NOON),
            decode_start: ipc::clock::monotonic(),
            flags: FrameFlags::default(),
        });
        // Ingest does not run: 503 until the ring is seen.
        let reply = capture(&server, "snapshots", "front", "live", &Value::Null);
        (reply.status == 200).then(|| reply.json())
    });
    let snapshot = &taken["snapshot"];
    assert_eq!(snapshot["timestamp"], "2026-01-01T12:00:00.000000000Z");
    assert_eq!((&snapshot["width"], &snapshot["height"]), (&json!(96), &json!(64)));
    assert_eq!(
        (&snapshot["source"], &snapshot["device_name"]),
        (&json!("live"), &json!("Front door"))
    );
    let image = get(&server, snapshot["url"].as_str().unwrap());
    assert_eq!((image.status, image.header("content-type")), (200, Some("image/jpeg")));
    assert!(image.body.starts_with(&[0xff, 0xd8]) && image.body.ends_with(&[0xff, 0xd9]));
    assert_eq!(image.body.len() as u64, snapshot["file_size"].as_u64().unwrap());
    assert!(jobs(&node).is_empty(), "no process for it");
}

#[test]
fn otherwise_it_is_decoded_from_the_newest_pictures_of_ingest() {
    let node = node(STILL);
    let server = node.start();
    let yard = |status| {
        let reply = capture(&server, "snapshots", "yard", "live", &Value::Null);
        error_of(&reply, status)
    };
    assert!(yard(503).contains("ingest does not run"));
    let ingest = FakeIngest::start(&node.options.directories.ingest_socket());
    assert!(yard(404).contains("has shown no picture yet"));
    ingest.react(|_| Some(Answer::failed(409, "camera `yard` is stopped")));
    assert_eq!(yard(409), "camera `yard` is stopped");
    ingest.react(|request| {
        assert!(matches!(request, Request::Pictures { .. }), "{request:?}");
        let picture = |data: &[u8], utc, key| ingest_message::Picture {
            data: data.to_vec(),
            media: MediaTime(0),
            capture_utc: UtcNanos(utc),
            key,
        };
        let pictures = vec![picture(b"key", 7, true), picture(b"p1", 8, false)];
        Some(Answer { pictures, codec: "h264".into(), ..Answer::done() })
    });
    let reply = capture(&server, "snapshots", "yard", "live", &Value::Null);
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    let snapshot = reply.json()["snapshot"].clone();
    assert_eq!(get(&server, snapshot["url"].as_str().unwrap()).body, b"keyp1");
    assert_eq!((&snapshot["width"], &snapshot["file_size"]), (&json!(640), &json!(5)));
    let job = &jobs(&node)[0];
    assert_eq!((&job["job"], &job["codec"]), (&json!("still_of"), &json!("h264")));
    assert_eq!(job["pictures"], json!([{"bytes": 3, "utc_ns": 7}, {"bytes": 2, "utc_ns": 8}]));
    assert_eq!(capture(&server, "snapshots", "nosuch", "live", &Value::Null).status, 404);
    assert_eq!(capture(&server, "snapshots", "yard", "live", &json!({"x": 1})).status, 422);
}

#[test]
fn a_camera_that_is_only_recorded_is_snapped_from_its_recording() {
    let mut node = node(STILL);
    node.options.cameras.iter_mut().for_each(|camera| camera.record = Some(true));
    let server = node.start();
    let ingest = FakeIngest::start(&node.options.directories.ingest_socket());
    ingest.react(|_| Some(Answer::failed(404, "camera `yard` has no live view")));
    let before = ipc::clock::utc().0;
    let reply = capture(&server, "snapshots", "yard", "live", &Value::Null);
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.json()["snapshot"]["source"], "live");
    let job = &jobs(&node)[0];
    assert_eq!((&job["job"], &job["camera"]), (&json!("still_at"), &json!("yard")));
    let age = before.abs_diff(job["at_utc_ns"].as_u64().unwrap());
    assert!(age < 5_000_000_000, "{age}");
}

#[test]
fn a_historical_snapshot_is_of_exactly_that_moment() {
    let node = node(STILL);
    let server = node.start();
    let at = json!({"timestamp": "2026-01-01T13:00:00.000000001+01:00"});
    let reply = capture(&server, "snapshots", "front", "historical", &at);
    let snapshot = reply.json()["snapshot"].clone();
    assert_eq!(snapshot["timestamp"], "2026-01-01T11:59:59.960000000Z", "of the picture");
    assert_eq!(snapshot["source"], "historical");
    let job = &jobs(&node)[0];
    assert_eq!((&job["job"], &job["camera"]), (&json!("still_at"), &json!("front")));
    assert_eq!(job["at_utc_ns"], NOON + 1);
    assert_eq!(job["recordings"], json!(node.options.recordings));
    for body in
        [json!({}), json!({"timestamp": "noon"}), json!({"timestamp": 5}), json!({"at": "x"})]
    {
        assert_eq!(
            capture(&server, "snapshots", "front", "historical", &body).status,
            422,
            "{body}"
        );
    }
    let gone = capture(&server, "snapshots", "nosuch", "historical", &at);
    assert_eq!(gone.status, 404);
}

#[test]
fn what_the_job_says_is_passed_on_and_nothing_is_left() {
    for (script, status, told) in [
        (
            r#"echo '{"status":"failed","code":404,"message":"nothing recorded, nearest is 11:58"}'"#,
            404,
            "nearest is 11:58",
        ),
        (
            r#"printf half > "$output"; echo '{"status":"failed","code":500,"message":"x"}'"#,
            500,
            "x",
        ),
        (r#"printf half > "$output"; kill -9 $$"#, 500, "without an answer"),
        (
            r#"echo '{"status":"done","at_utc_ns":1,"width":1,"height":1}'"#,
            500,
            "can't keep the file",
        ),
        (
            r#": > "$output"; echo '{"status":"done","at_utc_ns":1,"width":1,"height":1}'"#,
            500,
            "the file is empty",
        ),
    ] {
        let node = node(script);
        let server = node.start();
        let at = json!({"timestamp": "2026-01-01T12:00:00Z"});
        let reply = capture(&server, "snapshots", "front", "historical", &at);
        let message = error_of(&reply, status);
        assert!(message.contains(told), "{script}: {message}");
        assert_eq!(files(&node, "snapshots"), [""; 0], "{script}");
        assert_eq!(get_json(&server, SNAPSHOTS)["total"], 0);
    }
}

#[test]
fn snapshots_are_listed_newest_first_and_outlive_their_camera() {
    let node = node(STILL);
    let server = node.start();
    let at = json!({"timestamp": "2026-01-01T12:00:00Z"});
    let ids: Vec<String> = ["front", "yard", "front"]
        .map(|camera| capture(&server, "snapshots", camera, "historical", &at).json())
        .map(|taken| taken["snapshot"]["id"].as_str().unwrap().to_owned())
        .to_vec();
    let list = |query: &str| -> (Vec<String>, Value) {
        let told = call_json(&server, 200, "GET", &format!("{SNAPSHOTS}{query}"), &Value::Null);
        let rows = told["snapshots"].as_array().unwrap();
        (rows.iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect(), told["total"].clone())
    };
    let newest =
        |order: &[usize]| -> Vec<String> { order.iter().map(|i| ids[*i].clone()).collect() };
    assert_eq!(list(""), (newest(&[2, 1, 0]), json!(3)));
    assert_eq!(list("?limit=1&skip=1"), (newest(&[1]), json!(3)));
    assert_eq!(list("?device_id=front"), (newest(&[2, 0]), json!(2)));
    assert_eq!(list("?device_id=front&skip=1"), (newest(&[0]), json!(2)));
    assert_eq!(list("?device_id=nosuch"), (vec![], json!(0)));
    let one = format!("{SNAPSHOTS}/{}", ids[0]);
    assert_eq!(call_json(&server, 200, "GET", &one, &Value::Null)["device_name"], "Front door");
    for query in ["?limit=0", "?limit=1001", "?device_id=a%2Fb", "?x=1"] {
        call_error(&server, 422, "GET", &format!("{SNAPSHOTS}{query}"), &Value::Null);
    }
    assert_eq!(call(&server, "DELETE", &one, &Value::Null).status, 204);
    for (method, path) in
        [("GET", one.clone()), ("DELETE", one.clone()), ("GET", format!("{one}/image"))]
    {
        call_error(&server, 404, method, &path, &Value::Null);
    }
    call_error(&server, 404, "GET", &format!("{SNAPSHOTS}/..%2F..%2Fcontrol"), &Value::Null);
    assert_eq!(files(&node, "snapshots").len(), 2);
    // Somebody took the file away.
    let root = node.options.directories.state.join("media/snapshots/yard");
    std::fs::remove_file(root.join(format!("{}.jpg", ids[1]))).unwrap();
    call_error(&server, 410, "GET", &format!("{SNAPSHOTS}/{}/image", ids[1]), &Value::Null);
    assert_eq!(
        call(&server, "DELETE", &format!("{SNAPSHOTS}/{}", ids[1]), &Value::Null).status,
        204
    );
    // A deleted camera keeps its pictures.
    let made = json!({"name": "Gate", "rtsp_url": "rtsp://cam/1"});
    let gate = call_json(&server, 201, "POST", "/api/v1/devices", &made)["id"].clone();
    let gate = gate.as_str().unwrap();
    let taken = capture(&server, "snapshots", gate, "historical", &at).json();
    call(&server, "DELETE", &format!("/api/v1/devices/{gate}"), &Value::Null);
    let url = taken["snapshot"]["url"].as_str().unwrap();
    assert_eq!(get(&server, url).status, 200);
    let row = call_json(&server, 200, "GET", url.strip_suffix("/image").unwrap(), &Value::Null);
    assert_eq!((&row["device_id"], &row["device_name"]), (&json!(gate), &json!(null)));
}

fn settled(server: &Server, id: &str) -> Value {
    wait_for("the clip", || {
        let row = call_json(server, 200, "GET", &format!("{BOOKMARKS}/{id}"), &Value::Null);
        matches!(row["state"].as_str(), Some("done" | "failed")).then_some(row)
    })
}

fn bookmark(server: &Server, moment: &str, body: &Value) -> Value {
    let reply = capture(server, "bookmarks", "front", moment, body);
    assert_eq!(reply.status, 202, "{}", String::from_utf8_lossy(&reply.body));
    let row = reply.json()["bookmark"].clone();
    let location = format!("{BOOKMARKS}/{}", row["id"].as_str().unwrap());
    assert_eq!(reply.header("location"), Some(location.as_str()));
    row
}

#[test]
fn a_clip_is_cut_by_a_job_and_served_in_parts() {
    let node = node(CLIP);
    let server = node.start();
    let asked = json!({"center_timestamp": "2026-01-01T12:00:00Z", "label": "parcel"});
    let row = bookmark(&server, "historical", &asked);
    assert_eq!(
        (&row["state"], &row["video_url"], &row["label"]),
        (&json!("pending"), &json!(null), &json!("parcel"))
    );
    let id = row["id"].as_str().unwrap();
    let done = settled(&server, id);
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!(
        (&done["duration"], &done["gaps_ms"], &done["file_size"]),
        (&json!(6.0), &json!(40), &json!(10))
    );
    assert_eq!(done["center_timestamp"], "2026-01-01T12:00:00.000000000Z");
    let job = &jobs(&node)[0];
    assert_eq!((&job["job"], &job["camera"]), (&json!("clip"), &json!("front")));
    let second = 1_000_000_000;
    assert_eq!(
        (&job["start_utc_ns"], &job["end_utc_ns"]),
        (&json!(NOON - 3 * second), &json!(NOON + 3 * second))
    );
    let video = done["video_url"].as_str().unwrap();
    wait_for("the file", || (get(&server, video).status == 200).then_some(()));
    assert_eq!(get(&server, done["thumbnail_url"].as_str().unwrap()).body, b"jpeg");
    let whole = get(&server, video);
    assert_eq!(whole.header("content-type"), Some("video/mp4"));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert!(whole.header("cache-control").unwrap().contains("immutable"));
    assert_eq!(whole.body, b"0123456789");
    let tag = whole.header("etag").unwrap().to_owned();
    for (headers, status, body, range) in [
        ("Range: bytes=2-4".to_owned(), 206, "234", Some("bytes 2-4/10")),
        ("Range: bytes=7-".into(), 206, "789", Some("bytes 7-9/10")),
        ("Range: bytes=-2".into(), 206, "89", Some("bytes 8-9/10")),
        ("Range: bytes=0-99".into(), 206, "0123456789", Some("bytes 0-9/10")),
        (format!("Range: bytes=0-0\r\nIf-Range: {tag}"), 206, "0", Some("bytes 0-0/10")),
        ("Range: bytes=0-0\r\nIf-Range: \"other\"".into(), 200, "0123456789", None),
        ("Range: bytes=0-0,2-2".into(), 200, "0123456789", None),
        ("Range: lines=1".into(), 200, "0123456789", None),
    ] {
        let reply = with_range(&server, video, &headers);
        assert_eq!((reply.status, reply.header("content-range")), (status, range), "{headers}");
        assert_eq!(reply.body, body.as_bytes(), "{headers}");
    }
    let outside = with_range(&server, video, "Range: bytes=10-");
    assert_eq!((outside.status, outside.header("content-range")), (416, Some("bytes */10")));
    assert_eq!(outside.header("cache-control"), Some("no-store"));
    assert!(error_of(&outside, 416).contains("lies outside of 10 bytes"));
    let head = request(server.address(), "HEAD", video);
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));

    let path = format!("{BOOKMARKS}/{id}");
    let changed = call_json(&server, 200, "PUT", &path, &json!({"label": "bird"}));
    assert_eq!(changed["label"], "bird");
    assert_eq!(call_json(&server, 200, "PUT", &path, &json!({}))["label"], "bird");
    assert_eq!(
        call_json(&server, 200, "PUT", &path, &json!({"label": null}))["label"],
        json!(null)
    );
    for body in [json!({"label": "x".repeat(256)}), json!({"label": 1}), json!({"state": "done"})] {
        call_error(&server, 422, "PUT", &path, &body);
    }
    let list = call_json(&server, 200, "GET", BOOKMARKS, &Value::Null);
    assert_eq!(
        (&list["total"], &list["page"], &list["page_size"]),
        (&json!(1), &json!(1), &json!(100))
    );
    assert_eq!(call(&server, "DELETE", &path, &Value::Null).status, 204);
    assert_eq!(files(&node, "bookmarks"), [""; 0]);
    for path in [path.clone(), format!("{path}/video"), format!("{path}/thumbnail")] {
        call_error(&server, 404, "GET", &path, &Value::Null);
    }
}

#[test]
fn a_clip_that_is_done_is_there_before_its_file_has_a_name() {
    let node = node(CLIP);
    let server = node.start();
    let asked = json!({"center_timestamp": "2026-01-01T12:00:00Z"});
    let row = bookmark(&server, "historical", &asked);
    let id = row["id"].as_str().unwrap();
    settled(&server, id);
    wait_for("the files", || {
        (files(&node, "bookmarks") == [format!("{id}.jpg"), format!("{id}.mp4")]).then_some(())
    });
    // As it is for a moment after every clip.
    let folder = node.options.directories.state.join("media/bookmarks/front");
    for kind in ["mp4", "jpg"] {
        let (name, new) = (format!("{id}.{kind}"), format!("new-{id}.{kind}"));
        std::fs::rename(folder.join(name), folder.join(new)).unwrap();
    }
    let path = format!("{BOOKMARKS}/{id}");
    assert_eq!(get(&server, &format!("{path}/video")).body, b"0123456789");
    assert_eq!(get(&server, &format!("{path}/thumbnail")).body, b"jpeg");
    assert_eq!(call(&server, "DELETE", &path, &Value::Null).status, 204);
    assert_eq!(files(&node, "bookmarks"), [""; 0]);
}

#[test]
fn large_files_come_whole_and_a_client_that_goes_away_disturbs_nobody() {
    let big = r#"head -c 30000000 /dev/zero | tr '\0' 'x' > "$output"
echo '{"status":"done","start_utc_ns":1,"end_utc_ns":2,"duration_ms":6000,"bytes":1,"gaps_ms":0}'"#;
    let node = node(big);
    let server = node.start();
    let asked = json!({"start": "2026-01-01T12:00:00Z", "end": "2026-01-01T13:00:00Z"});
    let row = bookmark(&server, "historical", &asked);
    let done = settled(&server, row["id"].as_str().unwrap());
    assert_eq!((&done["state"], &done["thumbnail_url"]), (&json!("done"), &json!(null)));
    let video = done["video_url"].as_str().unwrap();
    let whole = wait_for("the file", || Some(get(&server, video)).filter(|r| r.status == 200));
    assert!(whole.body.len() == 30_000_000 && whole.body.iter().all(|b| *b == b'x'));
    for _ in 0..20 {
        let mut stream = connect(server.address());
        let host = server.address();
        write!(stream, "GET {video} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        read_reply(&mut stream, true).unwrap();
    }
    let last = with_range(&server, video, "Range: bytes=29999990-");
    assert_eq!((last.status, last.body.as_slice()), (206, b"xxxxxxxxxx".as_slice()));
}

#[test]
fn segments_come_in_parts_of_the_part_that_is_asked_for() {
    let node = node(CLIP);
    let server = node.start();
    let recordings = ipc::recording::Recordings::new(&node.options.recordings);
    let camera: base::CameraId = "front".parse().unwrap();
    let (old, new) = (UtcNanos(NOON), UtcNanos(NOON + 600_000_000_000));
    let [old, new] = [old, new].map(|start| {
        let name = ipc::recording::SegmentName::at(start);
        let path = recordings.segment(&camera, name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "0123456789").unwrap();
        name.to_string()
    });
    let url = |name: &str| format!("/api/v1/recordings/devices/front/{name}");
    let stem = old.strip_suffix(".mp4").unwrap();
    let part = url(&format!("{stem}.2-8.m4s"));
    let whole = get(&server, &part);
    assert_eq!((whole.status, whole.body.as_slice()), (200, b"234567".as_slice()));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let tag = whole.header("etag").unwrap().to_owned();
    for (headers, status, body, range) in [
        ("Range: bytes=1-2".to_owned(), 206, "34", Some("bytes 1-2/6")),
        ("Range: bytes=-1".into(), 206, "7", Some("bytes 5-5/6")),
        (format!("Range: bytes=4-\r\nIf-Range: {tag}"), 206, "67", Some("bytes 4-5/6")),
    ] {
        let reply = with_range(&server, &part, &headers);
        assert_eq!((reply.status, reply.header("content-range")), (status, range), "{headers}");
        assert_eq!(reply.body, body.as_bytes(), "{headers}");
        assert!(reply.header("cache-control").unwrap().contains("immutable"));
    }
    // What the client has is not sent again.
    for headers in [
        format!("If-None-Match: {tag}"),
        format!("If-None-Match: \"x\", W/{tag}\r\nRange: bytes=1-2"),
    ] {
        let same = with_range(&server, &part, &headers);
        assert_eq!((same.status, same.body.len()), (304, 0), "{headers}");
        assert_eq!((same.header("etag"), same.header("content-type")), (Some(tag.as_str()), None));
        assert!(same.header("cache-control").unwrap().contains("immutable"));
    }
    assert_eq!(with_range(&server, &part, "If-None-Match: \"x\"").status, 200);
    let outside = with_range(&server, &part, "Range: bytes=6-");
    assert_eq!((outside.status, outside.header("content-range")), (416, Some("bytes */6")));
    assert_eq!(get(&server, &url(&format!("{stem}.2-11.m4s"))).status, 404);
    // Another one follows the first; the last one may grow.
    assert!(get(&server, &url(&old)).header("etag").is_some());
    let open = get(&server, &url(&new));
    assert_eq!((open.header("etag"), open.header("cache-control")), (None, Some("no-store")));
    let reply = with_range(&server, &url(&new), "Range: bytes=8-");
    assert_eq!((reply.status, reply.body.as_slice()), (206, b"89".as_slice()));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(
        with_range(&server, &url(&new), "If-None-Match: *").status,
        200,
        "it may have grown"
    );
    let reply = with_range(&server, &url(&new), "Range: bytes=8-\r\nIf-Range: \"x\"");
    assert_eq!((reply.status, reply.body.len()), (200, 10));
}

#[test]
fn a_live_clip_needs_a_recording_and_takes_the_last_seconds() {
    let node = node(CLIP);
    let server = node.start();
    let reply = capture(&server, "bookmarks", "yard", "live", &Value::Null);
    let message = error_of(&reply, 409);
    assert!(message.contains("not recorded; set record to true"), "{message}");
    let before = ipc::clock::utc().0;
    let row = bookmark(&server, "live", &json!({"duration": 2}));
    assert_eq!((&row["duration"], &row["source"]), (&json!(2.0), &json!("live")));
    // Asked for again while the first waits for its last fragment.
    bookmark(&server, "live", &Value::Null);
    settled(&server, row["id"].as_str().unwrap());
    // Both are cut at the same time, in any order.
    let span =
        |job: &Value| (job["start_utc_ns"].as_u64().unwrap(), job["end_utc_ns"].as_u64().unwrap());
    let spans: Vec<(u64, u64)> = jobs(&node).iter().map(span).collect();
    let (_, end) =
        *spans.iter().find(|(start, end)| end - start == 2_000_000_000).expect("two seconds");
    assert!(end >= before && ipc::clock::utc().0 >= end + 1_000_000_000, "it waited for the disk");
    let ingest = FakeIngest::start(&node.options.directories.ingest_socket());
    let mut status = crate::ingest::live("front", "main");
    status.recording_reason = "the disk is full".into();
    ingest.tell(vec![status]);
    wait_for("the reason", || {
        let reply = capture(&server, "bookmarks", "front", "live", &Value::Null);
        (reply.status == 409).then(|| assert!(error_of(&reply, 409).contains("the disk is full")))
    });
}

#[test]
fn windows_are_checked() {
    let node = node(CLIP);
    let server = node.start();
    let (noon, later) = ("2026-01-01T12:00:00Z", "2026-01-01T13:00:01Z");
    for body in [
        json!({}),
        json!({"center_timestamp": "noon"}),
        json!({"center_timestamp": noon, "start": noon, "end": later}),
        json!({"start": noon}),
        json!({"end": noon}),
        json!({"start": noon, "end": noon}),
        json!({"start": later, "end": noon}),
        json!({"start": noon, "end": later}),
        json!({"center_timestamp": "2999-01-01T00:00:00Z"}),
        json!({"center_timestamp": noon, "duration": 0}),
        json!({"center_timestamp": noon, "duration": 3601}),
        json!({"center_timestamp": noon, "label": "x".repeat(256)}),
        json!({"center_timestamp": noon, "colour": 1}),
    ] {
        assert_eq!(
            capture(&server, "bookmarks", "front", "historical", &body).status,
            422,
            "{body}"
        );
    }
    let good = json!({"center_timestamp": noon});
    assert_eq!(capture(&server, "bookmarks", "nosuch", "historical", &good).status, 404);
    assert_eq!(capture(&server, "bookmarks", "nosuch", "live", &Value::Null).status, 404);
    assert_eq!(get_json(&server, BOOKMARKS)["total"], 0);
    assert!(jobs(&node).is_empty());
}

#[test]
fn a_clip_that_can_not_be_cut_says_why() {
    let script = r#"printf half > "$output"
echo '{"status":"failed","code":404,"message":"nothing was recorded then"}'"#;
    let node = node(script);
    let server = node.start();
    let row = bookmark(&server, "historical", &json!({"center_timestamp": "2026-01-01T12:00:00Z"}));
    let id = row["id"].as_str().unwrap();
    let failed = settled(&server, id);
    assert_eq!(
        (&failed["state"], &failed["failure_reason"]),
        (&json!("failed"), &json!("nothing was recorded then"))
    );
    let error = call_error(&server, 409, "GET", &format!("{BOOKMARKS}/{id}/video"), &Value::Null);
    assert!(error["message"].as_str().unwrap().contains("nothing was recorded then"), "{error}");
    wait_for("the clean folder", || files(&node, "bookmarks").is_empty().then_some(()));
}

/// A clip of 1 MiB.
const LARGE: &str = r#"head -c 1048576 /dev/zero > "$output"
echo '{"status":"done","start_utc_ns":1,"end_utc_ns":2,"duration_ms":6000,"bytes":1,"gaps_ms":0}'"#;

/// A disk of which a test says how large and how full it is.
fn disk(node: &mut Node, mebibytes: u64) -> Arc<Mutex<Space>> {
    let bytes = mebibytes << 20;
    let space = Arc::new(Mutex::new(Space { size: bytes, free: bytes }));
    node.options.disk = Disk::told(Arc::clone(&space));
    space
}

/// The index of a recording of so many bytes in the six seconds around noon.
fn record(node: &Node, bytes: u32) {
    let start = UtcNanos(NOON - 3_000_000_000);
    let row = Row {
        start_utc: start,
        start_media: MediaTime(0),
        segment: SegmentName::at(start),
        parameters: 7,
        offset: 700,
        bytes,
        duration: 6 * 90_000,
        frames: 150,
        flags: RowFlags::KEY,
        number: 1,
        discontinuities: 1,
    };
    let recordings = Recordings::new(&node.options.recordings);
    let day = recordings.day(&"front".parse().unwrap(), Day::of(start));
    std::fs::create_dir_all(&day).unwrap();
    let head = Header { removed_before: UtcNanos(0) }.encode();
    std::fs::write(day.join(INDEX_NAME), [&head[..], &row.encode()].concat()).unwrap();
}

fn media_bytes(node: &Node) -> u64 {
    let folder = node.options.directories.state.join("media/bookmarks/front");
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    // One may get its name meanwhile.
    files.filter_map(|file| file.metadata().ok()).map(|told| told.len()).sum()
}

#[test]
fn sixty_clips_on_a_small_disk_take_no_more_than_their_share() {
    let mut node = node(LARGE);
    disk(&mut node, 64);
    record(&node, 1 << 20);
    let server = node.start();
    let asked = json!({"center_timestamp": "2026-01-01T12:00:00Z"});
    let mut last = Value::Null;
    for _ in 0..60 {
        let row = wait_for("a place in the queue", || {
            assert!(media_bytes(&node) <= (64 << 20) / 10, "{}", media_bytes(&node));
            let reply = capture(&server, "bookmarks", "front", "historical", &asked);
            assert!(matches!(reply.status, 202 | 503), "{}", reply.status);
            (reply.status == 202).then(|| reply.json())
        });
        last = row["bookmark"]["id"].clone();
    }
    assert_eq!(settled(&server, last.as_str().unwrap())["state"], "done");
    let done = || {
        let list = get_json(&server, &format!("{BOOKMARKS}?limit=500"));
        let rows = list["bookmarks"].as_array().unwrap().clone();
        rows.iter().all(|row| row["state"] == "done").then_some(rows.len())
    };
    let kept = wait_for("all to be done", done);
    assert!((3..=6).contains(&kept), "the newest that fit: {kept}");
    let media = wait_for("the last to be counted", || {
        let media = get_json(&server, "/health/detailed")["checks"]["media"].clone();
        (media["bytes"] == json!(kept << 20)).then_some(media)
    });
    let share = json!((64 << 20) / 10);
    assert_eq!((&media["status"], &media["bytes_max"]), (&json!("healthy"), &share));
}

#[test]
fn protected_ones_fill_the_share_and_new_ones_are_refused() {
    let mut node = node(STILL);
    disk(&mut node, 64);
    node.options.media.max_percent = 5;
    let server = node.start();
    let at = json!({"timestamp": "2026-01-01T12:00:00Z", "protected": true});
    let taken = capture(&server, "snapshots", "front", "historical", &at).json();
    assert_eq!(taken["snapshot"]["protected"], true);
    let path = format!("{SNAPSHOTS}/{}", taken["snapshot"]["id"].as_str().unwrap());
    // Somebody made it large, and serve started again.
    let file = node.options.directories.state.join("media/snapshots/front");
    let id = path.rsplit('/').next().unwrap().to_owned();
    drop(server);
    std::fs::write(file.join(format!("{id}.jpg")), vec![b'x'; 3 << 20]).unwrap();
    let server = node.start();
    let live = json!({"protected": true});
    let center = json!({"center_timestamp": "2026-01-01T12:00:00Z", "protected": false});
    for (kind, moment, body) in [
        ("snapshots", "historical", &at),
        ("bookmarks", "historical", &center),
        ("bookmarks", "live", &live),
    ] {
        let refused = error_of(&capture(&server, kind, "front", moment, body), 507);
        for part in ["5 % of the disk", "3355443 bytes", "`max_percent`", "protected"] {
            assert!(refused.contains(part), "{kind}: {part}: {refused}");
        }
    }
    let media = get_json(&server, "/health/detailed")["checks"]["media"].clone();
    assert_eq!((&media["status"], &media["bytes"]), (&json!("degraded"), &json!(3 << 20)));
    // Its row says five bytes: no more are known to go for it.
    let changed = call_json(&server, 200, "PUT", &path, &json!({"protected": false}));
    assert_eq!(changed["protected"], false);
    assert_eq!(call_json(&server, 200, "PUT", &path, &json!({}))["protected"], false);
    call_error(&server, 422, "PUT", &path, &json!({"protected": 1}));
    call_error(&server, 404, "PUT", &format!("{SNAPSHOTS}/{}", "x".repeat(36)), &json!({}));
    assert_eq!(call(&server, "DELETE", &path, &Value::Null).status, 204);
    let kept = capture(&server, "snapshots", "front", "historical", &at);
    assert_eq!(kept.status, 200, "a person may delete what is protected");
    assert_eq!(get_json(&server, "/health/detailed")["checks"]["media"]["status"], "healthy");
    let row = bookmark(&server, "historical", &center);
    assert_eq!(row["protected"], false);
    let path = format!("{BOOKMARKS}/{}", row["id"].as_str().unwrap());
    let changed = call_json(&server, 200, "PUT", &path, &json!({"protected": true}));
    assert_eq!((&changed["protected"], &changed["label"]), (&json!(true), &json!(null)));
    let labelled = call_json(&server, 200, "PUT", &path, &json!({"label": "bird"}));
    assert_eq!((&labelled["protected"], &labelled["label"]), (&json!(true), &json!("bird")));
}

#[test]
fn a_full_disk_refuses_pictures_and_clips_and_says_what_helps() {
    let mut node = node(STILL);
    let space = disk(&mut node, 100 << 10);
    node.options.keep_free = 1 << 30;
    let server = node.start();
    // Five percent are urgent.
    space.lock().unwrap().free = 5 << 30;
    let at = json!({"timestamp": "2026-01-01T12:00:00Z"});
    let refused = error_of(&capture(&server, "snapshots", "front", "historical", &at), 507);
    assert!(
        refused.contains("make room") && refused.contains("5368709120 bytes free"),
        "{refused}"
    );
    let center = json!({"center_timestamp": "2026-01-01T12:00:00Z"});
    error_of(&capture(&server, "bookmarks", "front", "historical", &center), 507);
    assert!(jobs(&node).is_empty());
    assert_eq!(get_json(&server, SNAPSHOTS)["total"], 0);
    assert_eq!(get_json(&server, BOOKMARKS)["total"], 0);
    space.lock().unwrap().free = 6 << 30;
    assert_eq!(capture(&server, "snapshots", "front", "historical", &at).status, 200);
}

#[test]
fn where_events_and_recordings_exclude_each_other_the_state_says_which_gives_way() {
    let mut node = node(STILL);
    disk(&mut node, 8 << 10);
    let store = |node: &Node| {
        let server = node.start();
        get_json(&server, "/health/detailed")["checks"]["store"].clone()
    };
    let told = store(&node);
    assert_eq!(told["status"], "degraded");
    let reason = told["reason"].as_str().unwrap();
    for part in ["events are not stored", "1024 MiB", "8192 MiB", "90 %"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    node.options.cameras[0].record = Some(false);
    assert_eq!(store(&node)["status"], "healthy", "nothing is recorded");
    node.options.cameras[0].record = Some(true);
    node.options.keep_free = 500 << 20;
    assert_eq!(store(&node)["status"], "healthy");
}

#[test]
fn clips_wait_in_a_bounded_queue_and_a_restart_goes_on_with_them() {
    let node = node("exec sleep 600");
    let server = node.start();
    let asked = json!({"center_timestamp": "2026-01-01T12:00:00Z"});
    let mut taken = 0;
    let full = wait_for("a full queue", || {
        let reply = capture(&server, "bookmarks", "front", "historical", &asked);
        taken += u64::from(reply.status == 202);
        (reply.status != 202).then_some(reply)
    });
    assert!(error_of(&full, 503).contains("32 clips wait already"));
    assert!((32..=35).contains(&taken), "{taken}");
    assert_eq!(get_json(&server, BOOKMARKS)["total"], taken, "the refused one left no row");
    let begun = std::time::Instant::now();
    server.stop();
    assert!(begun.elapsed().as_secs() < 10, "jobs do not hold up the end");
    let script = node.home.path().join("media.sh");
    let text = std::fs::read_to_string(&script).unwrap();
    std::fs::write(&script, text.replace("exec sleep 600", CLIP)).unwrap();
    let server = node.start();
    let list = get_json(&server, &format!("{BOOKMARKS}?limit=500"));
    let rows = list["bookmarks"].as_array().unwrap();
    assert_eq!(rows.len() as u64, taken);
    for row in rows {
        assert_eq!(settled(&server, row["id"].as_str().unwrap())["state"], "done");
    }
    let holds = node.options.directories.holds();
    wait_for("the end of the holds", || (!holds.exists()).then_some(()));
}
