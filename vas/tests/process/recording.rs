//! From a camera over the disk to a player: ingest records, serve answers, and ffmpeg plays what it
//! gets over HTTP.

use crate::node::{PATIENCE, Place, Process, command, root};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn camera(id: &str, clip: &str) -> String {
    let clip = root().join(clip);
    let clip = clip.display();
    format!("[[camera]]\nid = \"{id}\"\nmain_url = \"{clip}\"\nrecord = true\nlive = false\n")
}

/// Status, head and body of an answer.
fn get(place: &Place, path: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", place.port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head[9..12].parse().unwrap();
    (status, head, answer.split_off(end + 4))
}

fn json_of(place: &Place, path: &str) -> Value {
    let (status, _, body) = get(place, path);
    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

/// How many pictures a player shows, and that it complains of nothing.
fn played(place: &Place, path: &str) -> u64 {
    let url = format!("http://127.0.0.1:{}{path}", place.port);
    let show = ["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"];
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames"])
        .args(show)
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && complaint.is_empty(), "{path}: {complaint}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().unwrap().trim().trim_end_matches(',').parse().unwrap()
}

/// So many seconds before a time in ISO 8601.
fn earlier(utc: &str, seconds: i64) -> String {
    let time: jiff::Timestamp = utc.parse().unwrap();
    (time - jiff::SignedDuration::from_secs(seconds)).to_string()
}

fn wait_for(what: &str, state: impl Fn() -> bool) {
    let start = Instant::now();
    while !state() {
        assert!(start.elapsed() < PATIENCE, "still waiting: {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn frames(timeline: &Value) -> u64 {
    timeline["ranges"].as_array().unwrap().iter().map(|r| r["frames"].as_u64().unwrap()).sum()
}

#[test]
fn what_a_camera_showed_is_played_over_http() {
    let place = Place::new(&format!(
        "{}{}{}",
        camera("plain", "assets/pedestrians.mp4"),
        camera("reordered", "ingest/tests/assets/bframes.mp4"),
        camera("hevc", "ingest/tests/assets/hevc.mp4"),
    ));
    let config = place.config_text();
    let serve = Process::start(&["serve", "--config", &config]);
    wait_for("serve listens", || TcpStream::connect(("127.0.0.1", place.port)).is_ok());
    // It answers when all of its start is done.
    assert_eq!(get(&place, "/health").0, 200);
    let ingest = Process::start(&["ingest", "--config", &config]);
    let of = |id: &str, rest: &str| format!("/api/v1/recordings/devices/{id}/{rest}");
    wait_for("every camera has more than a segment", || {
        ["plain", "reordered", "hevc"].iter().all(|id| {
            let (status, _, body) = get(&place, &of(id, "playlist"));
            let text = String::from_utf8_lossy(&body);
            status == 200 && text.matches("#EXTINF").count() > 14
        })
    });
    // While it is recorded: no end, and the newest fragment is there.
    let (_, head, body) = get(&place, &of("plain", "playlist"));
    let live = String::from_utf8(body).unwrap();
    assert!(head.contains("application/vnd.apple.mpegurl") && head.contains("no-store"));
    assert!(live.contains("#EXT-X-PROGRAM-DATE-TIME:") && !live.contains("ENDLIST"), "{live}");
    let newest = live.lines().last().unwrap();
    let (status, head, body) = get(&place, &of("plain", newest));
    assert_eq!((status, &body[4..8]), (200, &b"prft"[..]));
    assert!(head.contains("immutable"));
    drop(ingest);
    for id in ["plain", "reordered", "hevc"] {
        let timeline = json_of(&place, &of(id, "timeline"));
        assert_eq!(timeline["ranges"].as_array().unwrap().len(), 1, "{timeline}");
        let range = &timeline["ranges"][0];
        let start = range["start"].as_str().unwrap();
        let dates = json_of(&place, &of(id, "dates"));
        let date = dates["dates"][0]["date"].as_str().unwrap();
        assert_eq!(&start[..10].replace('-', ""), date);
        let day = format!("playlist?date={date}");
        // Over midnight the recording would lie in two days.
        let all = if dates["dates"].as_array().unwrap().len() == 1 {
            day
        } else {
            format!("playlist?start={start}")
        };
        assert_eq!(played(&place, &of(id, &all)), frames(&timeline), "{id}");
        let (_, _, text) = get(&place, &of(id, &all));
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("#EXT-X-ENDLIST") && text.contains("#EXT-X-VERSION:7"));
        // The newest four seconds: what is asked for and what it leans on.
        let end = range["end"].as_str().unwrap();
        let from = earlier(end, 4);
        let part = played(&place, &of(id, &format!("playlist?start={from}")));
        let window = json_of(&place, &of(id, &format!("timeline?start={from}")));
        // A player can't show pictures that are shown before the first key picture and lean on
        // what was before it.
        let all = frames(&window);
        assert!((all - 8..=all + 75).contains(&part), "{id}: {part} of {all}");
        let segment = text.lines().find(|l| l.ends_with(".m4s")).unwrap();
        let whole = format!("{}.mp4", &segment[..23]);
        let (status, head, body) = get(&place, &of(id, &whole));
        assert_eq!((status, &body[4..8]), (200, &b"ftyp"[..]));
        assert!(head.contains("video/mp4") && head.contains("immutable"));
    }
    for (path, status, said) in [
        (of("plain", "playlist?date=20260231"), 422, "a day as YYYYMMDD"),
        (of("plain", "playlist?date=20200101"), 404, "nothing of camera plain was recorded"),
        (
            of("plain", "playlist?start=2026-01-01T00:00:00Z&end=2026-01-03T00:00:00Z"),
            422,
            "24 hours",
        ),
        (of("plain", "index"), 404, "no segment"),
        (of("plain", "..%2f..%2fdesired.json"), 404, "no segment"),
        (of("nobody", "dates"), 404, "no camera"),
    ] {
        let (found, _, body) = get(&place, &path);
        let body = String::from_utf8(body).unwrap();
        assert!(found == status && body.contains(said), "{path}: {found} {body}");
    }
    // A clip, as serve will ask for it.
    let timeline = json_of(&place, &of("plain", "timeline"));
    let start = timeline["ranges"][0]["start"].as_str().unwrap().to_owned();
    let recordings = ipc::recording::Recordings::new(place.state().join("recordings"));
    let id = "plain".parse().unwrap();
    let day = recordings.days(&id).unwrap()[0];
    let first = recordings.rows(&id, day).unwrap()[0].start_utc.0;
    let output = place.state().join("clip.mp4");
    let job = json!({
        "job": "clip", "recordings": recordings.root(), "camera": "plain",
        "start_utc_ns": first + 2_000_000_000, "end_utc_ns": first + 5_000_000_000,
        "output": output, "thumbnail": place.state().join("clip.jpg"),
    });
    let mut media = command(&["media"]);
    let mut media = media.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(media.stdin.take().unwrap(), "{job}").unwrap();
    let answer = media.wait_with_output().unwrap();
    assert!(answer.status.success());
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(
        (&answer["status"], &answer["duration_ms"]),
        (&"done".into(), &3000.into()),
        "{start}"
    );
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"])
        .arg(&output)
        .output()
        .unwrap();
    let seconds: f64 = String::from_utf8_lossy(&probe.stdout).trim().parse().unwrap();
    assert!((seconds - 3.0).abs() < 0.01, "{seconds}");
    drop(serve);
}
