//! "What a client can hold" of docs/http.md: what is at each bound, and that others go on.

use crate::ingest::FakeIngest;
use crate::support::{
    Node, Reply, call_json, connect, get, get_json, read_reply, request, send, wait_count, wait_for,
};
use crate::testing;
use api::{HttpLimits, Limits, Server};
use ipc::events_message::EventsMessage;
use ipc::ingest_message::Answer;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

fn with(node: &Node, http: HttpLimits) -> Server {
    node.try_start(Limits { http, ..Limits::default() }).unwrap()
}

fn post(address: SocketAddr, target: &str, kind: &str, body: &[u8]) -> Reply {
    let mut stream = connect(address);
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    read_reply(&mut stream, false).unwrap()
}

fn message(reply: &Reply) -> String {
    reply.json()["error"]["message"].as_str().unwrap().to_owned()
}

fn details(reply: &Reply) -> Vec<Value> {
    reply.json()["error"]["details"].as_array().unwrap().clone()
}

/// An answer that tells what is wrong is some lines long, whatever was sent.
const TOLD_BYTES_MAX: usize = 64 * 1024;

#[test]
fn a_body_of_a_mebibyte_is_told_32_problems_of_a_line_each() {
    let node = Node::new();
    let server = node.start();
    let check = |body: String| -> (usize, String, Vec<Value>) {
        assert!(body.len() <= 1024 * 1024);
        let reply =
            send(&server, "POST", "/api/v1/devices/validate", "application/json", body.as_bytes());
        assert_eq!(reply.status, 422);
        assert!(reply.body.len() <= TOLD_BYTES_MAX, "{} bytes", reply.body.len());
        let told = details(&reply);
        for detail in &told {
            for key in ["field", "value"] {
                let chars = detail[key].as_str().unwrap().chars().count();
                assert!(chars <= 123, "{key} has {chars} characters");
            }
        }
        (told.len(), message(&reply), told)
    };
    // Elements beyond what is allowed are counted and not looked at.
    for (element, each, count) in [("{}", 2, 340_000), ("0", 1, 500_000), ("{\"\":0}", 3, 140_000)]
    {
        let body = format!("{{\"streams\":[{}]}}", vec![element; count].join(","));
        let (told, _, details) = check(body);
        assert_eq!(told, 2 * each + 1, "{element}");
        let expected = format!("has {count} elements, allowed are 2");
        assert_eq!(details[told - 1]["message"], expected);
    }
    // Nor are they held against one another.
    let many: Vec<String> = (0..140_000).map(|n| n.to_string()).collect();
    let roles = many.join(",");
    let (told, _, details) = check(format!(
        "{{\"streams\":[{{\"name\":\"main\",\"url\":\"rtsp://h/\",\"roles\":[{roles}]}}]}}"
    ));
    assert_eq!(told, 4);
    assert_eq!(details[3]["field"], "streams[0].roles");
    assert_eq!(details[3]["message"], "has 140000 elements, allowed are 3");
    // Unknown keys are counted.
    let keys: Vec<String> = (0..80_000).map(|n| format!("\"k{n}\":0")).collect();
    let (told, message, _) = check(format!("{{{}}}", keys.join(",")));
    assert_eq!(told, 32);
    assert!(message.ends_with(" and 79968 more"), "{message}");
    // Long keys and values are cut.
    let long = "x".repeat(1_000_000);
    let (told, _, details) = check(format!("{{\"{long}\":1}}"));
    assert_eq!(told, 1);
    assert!(details[0]["field"].as_str().unwrap().starts_with("xxxxxxxx"));
    let (told, _, details) = check(format!("{{\"name\":\"{long}\"}}"));
    assert_eq!((told, &details[0]["field"]), (1, &Value::from("name")));
    assert_eq!(details[0]["message"], "has 1000000 characters, allowed are 255");
    // Depth is not followed where nothing is expected.
    check(format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000)));
}

#[test]
fn a_query_is_told_32_problems_too() {
    let node = Node::new();
    let server = node.start();
    let query = vec!["a"; 3900].join("&");
    let reply = get(&server, &format!("/api/v1/ai-events?{query}"));
    assert_eq!((reply.status, details(&reply).len()), (422, 32));
    assert!(message(&reply).ends_with(" and 3868 more"));
    assert!(reply.body.len() <= TOLD_BYTES_MAX, "{}", reply.body.len());
    let long = "x".repeat(7000);
    for query in [format!("camera_id={long}"), format!("{long}=1"), format!("limit={long}")] {
        let reply = get(&server, &format!("/api/v1/ai-events?{query}"));
        // The path is told as it was sent.
        assert!(reply.status == 422 && reply.body.len() < 2 * 7000, "{}", reply.body.len());
    }
}

#[test]
fn heads_are_bounded_at_8_kib_and_64_headers() {
    let node = Node::new();
    let server = node.start();
    let ask = |head: String| {
        let mut stream = connect(server.address());
        stream.write_all(head.as_bytes()).unwrap();
        read_reply(&mut stream, false).unwrap().status
    };
    let headers = |count: usize| {
        let more: String = (1..count).map(|n| format!("X-{n}: 1\r\n")).collect();
        format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{more}\r\n")
    };
    assert_eq!(ask(headers(64)), 200);
    assert_eq!(ask(headers(65)), 431);
    let sized = |bytes: usize| {
        let rest = "GET /health HTTP/1.1\r\nHost: localhost\r\nX: \r\n\r\n".len();
        let value = "x".repeat(bytes - rest);
        format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {value}\r\n\r\n")
    };
    assert_eq!(ask(sized(8 * 1024 - 1)), 200);
    assert_eq!(ask(sized(8 * 1024 + 1)), 431);
}

#[test]
fn large_bodies_have_places_of_their_own() {
    let node = Node::new();
    let server = with(&node, HttpLimits { large_bodies_max: 1, ..HttpLimits::default() });
    let address = server.address();
    let (large, small) = (vec![b' '; 64 * 1024 + 1], vec![b' '; 64 * 1024]);
    let head = |length: usize| {
        format!(
            "POST /api/v1/devices HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    };
    // One that is a byte short holds the place, unless the other one is faster.
    let (mut held, refused) = wait_for("the place to be taken", || {
        let mut held = connect(address);
        held.write_all(head(large.len() + 1).as_bytes()).unwrap();
        held.write_all(&large).unwrap();
        let reply = post(address, "/api/v1/devices", "application/json", &large);
        (reply.status == 503).then_some((held, reply))
    });
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(message(&refused).contains("1 bodies above 64 KiB"), "{}", message(&refused));
    assert_eq!(post(address, "/api/v1/devices", "application/json", &small).status, 422);
    held.write_all(b" ").unwrap();
    assert_eq!(read_reply(&mut held, false).unwrap().status, 422);
    wait_for("the place to be free", || {
        let reply = post(address, "/api/v1/devices", "application/json", &large);
        (reply.status == 422).then_some(())
    });
}

#[test]
fn answers_that_nobody_takes_are_bounded_together() {
    let node = Node::new();
    let limits = HttpLimits {
        small_answer_bytes: 1024,
        answers_bytes_max: 64 * 1024,
        slot_wait: Duration::from_millis(10),
        write_wait: Duration::from_secs(600),
        ..HttpLimits::default()
    };
    let server = with(&node, limits);
    let mut scheduler = node.scheduler();
    let items: Vec<_> = (1..=100).map(|n| testing::item(n, &[0; 10])).collect();
    scheduler.send(&EventsMessage::Results(testing::results(&items)));
    wait_count(&server, "stored", 100);
    let list = "/api/v1/ai-events?limit=100";
    assert!(get(&server, list).body.len() > 64 * 1024, "larger than all the room, and alone");
    // Asks for one after the other and reads none, until one waits for the socket.
    let mut held = connect(server.address());
    held.set_nonblocking(true).unwrap();
    let ask = format!("GET {list} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(16);
    let refused = wait_for("the room to be taken", || {
        let _ = held.write(ask.as_bytes());
        let reply = get(&server, list);
        (reply.status == 503).then_some(reply)
    });
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(message(&refused).contains("64 KiB of answers wait"), "{}", message(&refused));
    assert_eq!(get(&server, "/health").status, 200, "small ones need no room");
    assert_eq!(get(&server, "/").status, 200, "nor does what is there anyway");
    drop(held);
    wait_for("the room to be free", || (get(&server, list).status == 200).then_some(()));
}

#[test]
fn a_page_of_16_cameras_has_its_16_offers_answered() {
    let node = Node::new();
    let server = node.start();
    let ingest = FakeIngest::start(&node.options.directories.ingest_socket());
    // None is answered before all are there.
    let asked = ingest.asked.clone();
    ingest.react(move |_| {
        wait_for("all offers", || (asked.lock().unwrap().len() >= 16).then_some(()));
        Some(Answer { status: 201, session: "s".into(), sdp: "v=0".into(), ..Answer::done() })
    });
    let address = server.address();
    let offer =
        move || post(address, "/api/v1/devices/front/whep", "application/sdp", b"v=0").status;
    let offers: Vec<_> = (0..16).map(|_| thread::spawn(offer)).collect();
    for offer in offers {
        assert_eq!(offer.join().unwrap(), 201);
    }
}

#[test]
fn what_waits_for_cameras_has_slots_and_the_rest_goes_on() {
    let mut node = Node::new();
    // What is tried answers as late as ingest.
    let late = r#"read -r job; sleep 4; echo '{"status":"failed","code":503,"message":"late"}'"#;
    node.options.media_command = ["/bin/sh", "-c", late].map(Into::into).to_vec();
    let limits = HttpLimits { slot_wait: Duration::from_millis(10), ..HttpLimits::default() };
    let server = with(&node, limits);
    let address = server.address();
    let ingest = FakeIngest::start(&node.options.directories.ingest_socket());
    // Never answers; serve gives up after some seconds, and the next one takes the slot.
    let done = Arc::new(AtomicBool::new(false));
    let hold = done.clone();
    ingest.react(move |_| {
        wait_for("the end of the test", || hold.load(Ordering::SeqCst).then_some(()));
        None
    });
    let json = "application/json";
    let probe = br#"{"rtsp_url": "rtsp://10.0.0.7/x"}"#;
    let kinds: [(&str, &str, &[u8], usize, &str); 4] = [
        ("/api/v1/devices/front/whep", "application/sdp", b"v=0", 16, "16 viewers are"),
        ("/api/v1/devices/validate", json, probe, 3, "3 addresses are being tried"),
        ("/api/v1/snapshots/devices/yard/capture/live", json, b"", 3, "3 pictures are being"),
        ("/api/v1/rtsp/streams/front/reconnect", json, b"", 4, "4 requests wait for ingest"),
    ];
    call_json(&server, 200, "POST", "/api/v1/devices/front/start-stream", &Value::Null);
    let mut clients = Vec::new();
    for (target, kind, body, most, refusal) in kinds {
        let seen = Arc::new(AtomicBool::new(false));
        for _ in 0..=most {
            let seen = seen.clone();
            clients.push(thread::spawn(move || {
                while !seen.load(Ordering::SeqCst) {
                    let reply = post(address, target, kind, body);
                    assert_eq!(reply.status, 503);
                    if message(&reply).starts_with(refusal) {
                        assert_eq!(reply.header("retry-after"), Some("1"));
                        seen.store(true, Ordering::SeqCst);
                    }
                }
            }));
        }
        wait_for(refusal, || seen.load(Ordering::SeqCst).then_some(()));
        assert_eq!(get(&server, "/api/v1/devices").status, 200, "while {target} waits");
    }
    done.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
}

/// Threads of this process that are opening something right now.
fn opening() -> usize {
    const OPENAT: &str = "257 ";
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let calls =
        threads.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("syscall")).ok());
    calls.filter(|call| call.starts_with(OPENAT)).count()
}

/// A pipe without a writer: whoever opens it to read waits until this is dropped.
struct Pipe(std::path::PathBuf);

impl Drop for Pipe {
    fn drop(&mut self) {
        // Both ends, and for good: those that come later must not wait either.
        std::mem::forget(std::fs::OpenOptions::new().read(true).write(true).open(&self.0));
    }
}

#[test]
fn health_and_the_page_need_no_handler_and_what_needs_one_waits() {
    const HANDLERS: usize = 40;
    let node = Node::new();
    let server = node.start();
    // A segment that opens only when somebody writes into it holds its handler.
    let name = "20260131T120000.000000Z";
    let recordings = ipc::recording::Recordings::new(&node.options.recordings);
    let camera = "front".parse().unwrap();
    let path = recordings.segment(&camera, ipc::recording::SegmentName::parse(name).unwrap());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let pipe = Pipe(path);
    let ask = format!(
        "GET /api/v1/recordings/devices/front/{name}.mp4 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    );
    let held: Vec<_> = (0..HANDLERS)
        .map(|_| {
            let mut stream = connect(server.address());
            stream.write_all(ask.as_bytes()).unwrap();
            stream
        })
        .collect();
    wait_for("all handlers to be taken", || (opening() >= HANDLERS).then_some(()));
    let mut waits = connect(server.address());
    waits.write_all(b"GET /api/v1/devices HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    for path in ["/health", "/", "/whep.js", "/health?x=1"] {
        let status = if path.contains('?') { 422 } else { 200 };
        assert_eq!(get(&server, path).status, status, "{path}");
    }
    waits.set_nonblocking(true).unwrap();
    let error = waits.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "it has no handler yet");
    waits.set_nonblocking(false).unwrap();
    drop(pipe);
    assert_eq!(read_reply(&mut waits, false).unwrap().status, 200);
    drop(held);
}

#[test]
fn a_list_of_large_events_ends_early_and_its_cursor_goes_on() {
    let node = Node::new();
    let server = node.start();
    let mut scheduler = node.scheduler();
    for n in 1..=60 {
        let item = testing::item(n, &[0; 1000]);
        scheduler.send(&EventsMessage::Results(testing::results(&[item])));
    }
    wait_count(&server, "stored", 60);
    let (mut seen, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let reply = get(&server, &format!("/api/v1/ai-events?limit=1000{cursor}"));
        assert_eq!(reply.status, 200);
        assert!(reply.body.len() <= 4 * 1024 * 1024 + 1024, "{}", reply.body.len());
        let page = reply.json();
        assert_eq!((&page["total"], &page["limit"]), (&Value::from(60), &Value::from(1000)));
        let events = page["events"].as_array().unwrap();
        seen.extend(events.iter().map(|e| e["frame_id"].as_str().unwrap().to_owned()));
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert!(pages > 1, "the page was cut");
    let expected: Vec<String> = (1..=60).rev().map(|n| n.to_string()).collect();
    assert_eq!(seen, expected, "each once, in order");
}

#[test]
fn pages_of_other_sites_get_nothing_computed() {
    let node = Node::new();
    let server = node.start();
    let ask = |method: &str, target: &str, headers: &str| {
        let mut stream = connect(server.address());
        write!(stream, "{method} {target} HTTP/1.1\r\nHost: localhost:1\r\n{headers}\r\n").unwrap();
        read_reply(&mut stream, method == "HEAD").unwrap()
    };
    let targets =
        ["/health", "/api/v1/ai-events", "/api/v1/devices/front/frame.jpg", "/whep.js", "/"];
    for target in targets {
        for headers in [
            "Sec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site: same-site\r\n",
            "Origin: http://evil.example\r\n",
            "Origin: null\r\n",
        ] {
            let reply = ask("GET", target, headers);
            assert_eq!(reply.status, 403, "{target} {headers}");
            assert!(message(&reply).contains("open the page at http://localhost:1/"));
            assert_eq!(ask("HEAD", target, headers).status, 403);
        }
        for headers in ["", "Sec-Fetch-Site: same-origin\r\n", "Origin: http://localhost:1\r\n"] {
            assert_ne!(ask("GET", target, headers).status, 403, "{target} {headers}");
        }
    }
    let link =
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    assert_eq!(ask("GET", "/", link).status, 200, "a link to the page");
    assert_eq!(ask("GET", "/api/v1/devices", link).status, 403);
}

#[test]
fn a_request_names_one_host_exactly() {
    let node = Node::new();
    let server = node.start();
    let ask = |head: &str| {
        let mut stream = connect(server.address());
        write!(stream, "{head}\r\n\r\n").unwrap();
        read_reply(&mut stream, false).unwrap()
    };
    let statuses = [
        ("GET /health HTTP/1.1\r\nHost: localhost", 200),
        ("GET /health HTTP/1.0", 200),
        ("GET /health HTTP/1.1", 400),
        ("GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost", 400),
        ("GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example", 400),
        ("GET /health HTTP/1.0\r\nHost: localhost\r\nHost: localhost", 400),
        ("GET /health HTTP/1.1\r\nHost: [::1].evil.example", 400),
        ("GET /health HTTP/1.1\r\nHost: [::1", 400),
        ("GET /health HTTP/1.1\r\nHost: 127.0.0.1:evil.example", 400),
        ("GET /health HTTP/1.1\r\nHost: localhost:evil", 400),
        ("GET /health HTTP/1.1\r\nHost: vas.localhost:8080", 421),
        ("GET /health HTTP/1.1\r\nHost: localhost.", 421),
        ("GET /health HTTP/1.1\r\nHost: [::ffff:127.0.0.1]", 421),
        ("GET http://evil.example/health HTTP/1.1\r\nHost: localhost", 421),
        ("GET http://localhost/health HTTP/1.1\r\nHost: evil.example", 200),
        ("GET http://user@localhost/health HTTP/1.1\r\nHost: localhost", 400),
    ];
    for (head, status) in statuses {
        assert_eq!(ask(head).status, status, "{head}");
    }
    let refused = ask("GET /health HTTP/1.1");
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(message(&refused).contains("no Host"), "{}", message(&refused));
}

#[test]
fn paths_are_not_led_elsewhere() {
    let node = Node::new();
    let server = node.start();
    let base = "/api/v1/devices/front/whep";
    for path in [
        format!("{base}/../../yard"),
        format!("{base}/%2e%2e/%2E%2e/yard"),
        format!("{base}/./x"),
        "/%2e".to_owned(),
    ] {
        for method in ["GET", "DELETE"] {
            assert_eq!(request(server.address(), method, &path).status, 400, "{method} {path}");
        }
    }
    assert_eq!(get_json(&server, "/api/v1/devices/yard")["id"], "yard");
}

#[test]
fn ids_of_a_page_of_events_are_all_there_in_one_answer() {
    // The list is put together as text: it is the JSON that it was.
    let node = Node::new();
    let server = node.start();
    let empty = get_json(&server, "/api/v1/ai-events");
    let keys: BTreeSet<&str> = empty.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["events", "limit", "next_cursor", "offset", "total"]));
    assert_eq!(empty["events"], Value::Array(vec![]));
}

#[test]
fn names_are_one_line_as_they_are_read() {
    let mut node = Node::new();
    // What the file says, or an older version took, is shown as it is.
    node.options.cameras[0].name = Some("\u{202e}roF\u{202c}".into());
    let server = node.start();
    let front = "/api/v1/devices/front";
    assert_eq!(get_json(&server, front)["name"], "\u{202e}roF\u{202c}");
    let changed = call_json(&server, 200, "PUT", front, &serde_json::json!({"record": true}));
    assert_eq!(changed["name"], "\u{202e}roF\u{202c}");
    let targets = [
        ("PUT", front, "name"),
        ("PUT", front, "description"),
        ("PUT", front, "location"),
        ("POST", "/api/v1/bookmarks/devices/front/capture/live", "label"),
    ];
    for (method, target, key) in targets {
        for (bad, why) in [
            ("   ", "is blank"),
            ("a\0b", "U+0000 at place 2"),
            ("a\r\nb", "U+000D at place 2"),
            ("\u{202e}evil\u{202c}", "U+202E at place 1"),
            ("x\u{2067}y\u{2069}", "U+2067 at place 2"),
        ] {
            let body = serde_json::json!({key: bad});
            let error = crate::support::call_error(&server, 422, method, target, &body);
            let details = error["details"].as_array().unwrap();
            assert_eq!((details.len(), &details[0]["field"]), (1, &Value::from(key)), "{error}");
            assert!(details[0]["message"].as_str().unwrap().contains(why), "{error}");
        }
    }
    let good = serde_json::json!({"name": "Tor 2 (S\u{fc}d)", "location": ""});
    assert_eq!(call_json(&server, 200, "PUT", front, &good)["name"], "Tor 2 (S\u{fc}d)");
}

#[test]
fn times_that_never_come_are_open_ends_and_annotations_are_named() {
    let node = Node::new();
    let server = node.start();
    let mut scheduler = node.scheduler();
    scheduler.send(&EventsMessage::Results(testing::results(&[testing::item(1, &[0])])));
    wait_count(&server, "stored", 1);
    for end in ["9999-12-31T23:59:59Z", "9999-12-31", "2554-07-22T00:00:00Z"] {
        let list = get_json(&server, &format!("/api/v1/ai-events?end_time={end}"));
        assert_eq!(list["total"], 1, "{end}");
        let none = get_json(&server, &format!("/api/v1/ai-events?start_time={end}"));
        assert_eq!(none["total"], 0, "{end}");
        let from = "2026-01-01T00:00:00Z";
        let timeline = format!("/api/v1/recordings/devices/front/timeline?start={from}&end={end}");
        assert_eq!(get_json(&server, &timeline)["start"], "2026-01-01T00:00:00.000000000Z");
        let playlist = format!("/api/v1/recordings/devices/front/playlist?start={from}&end={end}");
        assert_eq!(get(&server, &playlist).status, 404, "nothing was recorded");
    }
    let annotated = "2026-11-30T00:00:00[Europe/Berlin]";
    let camera = "/api/v1/recordings/devices/front";
    for target in [
        format!("/api/v1/ai-events?start_time={annotated}"),
        format!("/api/v1/ai-events?end_time={annotated}"),
        format!("{camera}/timeline?start={annotated}"),
        format!("{camera}/playlist?end={annotated}"),
    ] {
        let error = crate::support::get_error(&server, 422, &target);
        let told = error["details"][0]["message"].as_str().unwrap();
        assert!(told.contains("[Europe/Berlin]") && told.contains("offset"), "{told}");
    }
    let body = serde_json::json!({"timestamp": annotated});
    let historical = "/api/v1/snapshots/devices/front/capture/historical";
    let error = crate::support::call_error(&server, 422, "POST", historical, &body);
    assert!(error.to_string().contains("[Europe/Berlin]"), "{error}");
}
