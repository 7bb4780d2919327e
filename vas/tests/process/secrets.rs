//! Passwords of cameras, and the words of cameras that talk too much: what of them is seen outside.

use crate::cameras::call;
use crate::node::{Place, Process, model, until};
use fake_camera::{Act, Auth, Camera, Clip, Settings};
use std::fs;
use std::path::Path;

/// What must be seen nowhere: one for each place in an address that takes a password.
const USER: &str = "us3r-info-7f3a";
const PATH: &str = "in-p4th-7f3a";
const QUERY: &str = "in-qu3ry-7f3a";
const OFF: &str = "sw1tched-off-7f3a";
const BAD: &str = "b4d-sdp-7f3a";
const SECRETS: [&str; 5] = [USER, PATH, QUERY, OFF, BAD];
/// Lines of the log of a whole node that starts, meets six such cameras and stops (measured: about
/// 40; a library that speaks adds one per packet).
const LINES_MAX: usize = 120;

fn settings() -> Settings {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../ingest/tests/assets/two_sizes.h264");
    Settings::new(Clip::read(Path::new(file)).unwrap().part(0, 25), 25.0)
}

/// A camera that quotes its address, with marks that turn text around and clear a terminal.
fn talkative(path: &str) -> Camera {
    let camera = Camera::start(settings()).unwrap();
    let talk = format!(
        "\x1b[2Jyou asked for rtsp://admin:{USER}@{}{path}\u{202e} {}",
        camera.address(),
        "so it is ".repeat(2000)
    );
    camera.change(|settings| (settings.talk, settings.content_type) = (Some(talk), ""));
    camera
}

/// How many processes these are with their workers, and all that is seen of them.
fn seen_of_processes(mut left: Vec<u32>) -> (usize, String) {
    let (mut count, mut seen) = (0, String::new());
    while let Some(id) = left.pop() {
        // Workers are children of threads.
        let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            left.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
        let limits = fs::read_to_string(format!("/proc/{id}/limits")).unwrap_or_default();
        if let Some(core) = limits.lines().find(|line| line.starts_with("Max core file size")) {
            // Soft and hard; 0 where it was the most already.
            let limits: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
            assert!(limits.iter().all(|most| ["0", "1"].contains(most)), "process {id}: {core}");
            count += 1;
        }
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
            seen += &String::from_utf8_lossy(&bytes).replace('\0', " ");
        }
    }
    (count, seen)
}

#[test]
fn no_secret_is_seen_and_no_camera_writes_the_log_whatever_it_says() {
    let path = format!("/user=admin&password={PATH}_channel=1");
    let user =
        Camera::start(Settings { auth: Auth::Digest("admin".into(), USER.into()), ..settings() })
            .unwrap();
    let by_path = talkative(&path);
    let by_query = talkative("/live");
    let html = talkative(&format!("/pwd={BAD}/1"));
    html.change(|settings| settings.content_type = "text/html");
    // Its SDP is none, which brings the library to a panic.
    let bad = talkative("/live");
    bad.change(|settings| settings.tool = "x\r\nnot sdp at all");
    let nobody = Camera::start(settings()).unwrap().address();
    let rows = [
        ("user", user.url_as("admin", USER), "tcp"),
        ("path", format!("rtsp://{}{path}", by_path.address()), "tcp"),
        ("query", format!("rtsp://{}/live?x=1&token={QUERY}", by_query.address()), "udp"),
        ("html", format!("rtsp://{}/pwd={BAD}/1", html.address()), "tcp"),
        ("bad", format!("rtsp://{}/pwd={BAD}/1", bad.address()), "tcp"),
        ("off", format!("rtsp://admin:{OFF}@{nobody}/key={OFF}/1?auth={OFF}"), "tcp"),
    ];
    let cameras: String = rows
        .iter()
        .map(|(id, url, transport)| {
            format!(
                "[[camera]]\nid = \"{id}\"\nmain_url = \"{url}\"\ntransport = \"{transport}\"\n\
                 record = true\n"
            )
        })
        .collect();
    let place = Place::new(&format!(
        "[frame_export]\nenabled = true\n[[model]]\ndir = \"{}\"\n{cameras}\
         [[assignment]]\ncamera = \"path\"\nmodel = \"nanodet_g_416\"\ndesired_fps = 1\n",
        model().display()
    ));
    // Each by itself: `vas up` masks once more what it passes on.
    let (config, folder) = (place.config_text(), model().to_str().unwrap().to_owned());
    let start = |part: &[&str]| Process::start(&[part, &["--config", &config]].concat());
    let mut parts =
        [start(&["serve"]), start(&["ingest"]), start(&["scheduler"]), start(&["runner", &folder])];
    parts[0].wait_for("serving on");
    let mut told = String::new();
    let mut ask = |method: &str, path: &str, body: &str| {
        let (status, answer) = call(&place, method, path, body).unwrap();
        told += &format!("{answer}\n");
        (status, answer)
    };
    place.get_until("/api/v1/streams", |body| {
        let answer: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let streams = answer["streams"].as_array().cloned().unwrap_or_default();
        let live = |id: &str| streams.iter().any(|s| s["device_id"] == id && s["state"] == "live");
        ["user", "path", "query"].into_iter().all(live)
    });
    by_path.act(Act::Late(50));
    by_query.act(Act::Late(200));
    let sent = by_query.seen().pictures;
    until("packets out of order", || by_query.idle() && by_query.seen().pictures > sent + 50);
    // The four, and the decode worker of the camera that is looked at.
    let ids = || parts.iter().map(Process::id).collect();
    until("all processes", || seen_of_processes(ids()).0 == 5);
    let (_, seen) = seen_of_processes(ids());
    for (_, url, transport) in &rows {
        let body = serde_json::json!({"name": "x", "rtsp_url": url, "transport": transport});
        ask("POST", "/api/v1/devices/validate", &body.to_string());
    }
    for path in [
        "/api/devices",
        "/api/v1/devices",
        "/api/v1/streams",
        "/api/v1/rtsp/streams",
        "/api/v1/rtsp/streams/path/health",
        "/api/v1/rtsp/streams/html/health",
        "/api/v1/ai-model-assignments",
        "/health/detailed",
        "/ai/observability/status",
    ] {
        let (status, _) = ask("GET", path, "");
        assert_eq!(status, 200, "{path}");
    }
    let shown = place.vas(&["config", "show"]);
    for part in &mut parts {
        part.stop();
    }
    let log: String = parts.iter().map(|part| part.text() + "\n").collect();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for (what, text) in
        [("log", &log), ("answers", &told), ("processes", &seen), ("config", &shown)]
    {
        for secret in SECRETS {
            let line = text.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{what}: {:.3000}", line.unwrap_or_default());
        }
        assert!(!text.contains(['\x1b', '\u{202e}']), "{what} holds what a terminal would do");
    }
    let lines = log.lines().count();
    println!("{lines} lines");
    assert!(lines < LINES_MAX, "{lines} lines:\n{:.20000}", log);
    assert!(log.lines().all(|line| line.len() < 1000), "a line without an end:\n{log:.20000}");
    assert!(told.contains("rtsp://***@") && told.contains("password=***"), "{told:.5000}");
}
