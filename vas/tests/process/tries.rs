//! Addresses that somebody tries, and files that cameras are made of over HTTP: what they can take of
//! the node, and what nobody learns by them.

use crate::cameras::call;
use crate::node::{Place, Process, clip, root, until};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most memory that a process ever had, MiB.
fn peak(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// How many processes have this one for a parent.
fn children(process: &Process) -> usize {
    let parent = format!("PPid:\t{}", process.id());
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let statuses = entries.filter_map(|e| fs::read_to_string(e.path().join("status")).ok());
    statuses.filter(|status| status.lines().any(|line| line == parent)).count()
}

/// A camera whose answer never ends, and how many bytes it could send.
fn endless_camera() -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rtsp://admin:s3cret@{}/h", listener.local_addr().unwrap());
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let _ = client.read(&mut [0; 4096]);
            let head = "RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Type: application/sdp\r\n\
                        Content-Length: 99999999999\r\n\r\n";
            let _ = client.write_all(head.as_bytes());
            let body = vec![b'b'; 1 << 20];
            while client.write_all(&body).is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    (url, sent)
}

#[test]
fn an_answer_without_end_takes_one_process_and_nothing_of_the_node() {
    let place = Place::new("");
    let config = place.config_text();
    let start = |part: &str| Process::start(&[part, "--config", &config]);
    let (serve, ingest) = (start("serve"), start("ingest"));
    serve.wait_for("serving on");
    ingest.wait_for("ingest runs");
    let (url, sent) = endless_camera();
    let validate = |url: &str| {
        let body = json!({"name": "v", "rtsp_url": url}).to_string();
        let (status, answer) = call(&place, "POST", "/api/v1/devices/validate", &body).unwrap();
        assert_eq!(status, 200, "{answer}");
        answer
    };
    // What a try takes of serve, whatever is tried.
    validate("rtsp://127.0.0.1:1/h");
    let before = [peak(&serve), peak(&ingest)];
    let answer = validate(&url);
    let error = answer["error"].as_str().unwrap();
    assert!(answer["valid"] == false && error.contains("check the address"), "{answer}");
    assert!(!answer.to_string().contains("s3cret"), "{answer}");
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent > 32, "only {sent} MiB were sent: the fault was not reached");
    for (name, process, before) in [("serve", &serve, before[0]), ("ingest", &ingest, before[1])] {
        let after = peak(process);
        assert!(after <= before + 16, "{name} had {before} MiB and took {after} MiB");
    }
    assert_eq!(children(&serve), 0, "the process that tried it is gone");
    for process in [&serve, &ingest] {
        assert!(!process.text().contains("s3cret"), "{}", process.text());
    }
}

#[test]
fn a_file_named_over_http_lies_below_the_roots_or_has_one_answer() {
    let place = Place::new(&format!(
        "[cameras]\nfile_roots = [\"{}\", \"clips\"]\n\
         [[camera]]\nid = \"kernel\"\nmain_url = \"/proc/kmsg\"\nrecord = true\n",
        root().join("assets").display()
    ));
    let folder = place.folder.path();
    fs::create_dir(folder.join("clips")).unwrap();
    fs::copy(clip(), folder.join("private.mp4")).unwrap();
    std::os::unix::fs::symlink(folder.join("private.mp4"), folder.join("clips/link.mp4")).unwrap();
    let config = place.config_text();
    let start = |part: &str| Process::start(&[part, "--config", &config]);
    let (serve, mut ingest) = (start("serve"), start("ingest"));
    serve.wait_for("serving on");
    ingest.wait_for("ingest runs");
    let ask = |path: &str, url: &str| {
        let body = json!({"name": "Clip", "rtsp_url": url, "enabled": true, "record": true});
        call(&place, "POST", path, &body.to_string()).unwrap()
    };
    let of = |name: &str| format!("file://{}", folder.join(name).display());

    let good = format!("file://{}", clip().display());
    let (status, tried) = ask("/api/v1/devices/validate", &good);
    assert_eq!(
        (status, &tried["valid"], &tried["stream"]["width"]),
        (200, &true.into(), &768.into())
    );
    let (status, made) = ask("/api/v1/devices", &good);
    assert_eq!(status, 201, "{made}");
    let health = format!("/api/v1/rtsp/streams/{}/health", made["id"].as_str().unwrap());
    until("video", || call(&place, "GET", &health, "").unwrap().1["healthy"] == true);

    let mut told: Vec<Value> = Vec::new();
    for url in [
        of("private.mp4"),
        of("clips/link.mp4"),
        of("clips/../private.mp4"),
        of("clips/missing.mp4"),
        of("clips"),
        "file:///etc/passwd".into(),
        "file:///nowhere/at/all".into(),
        "file:///proc/kmsg".into(),
        "file:///dev/zero".into(),
    ] {
        let path = url.strip_prefix("file://").unwrap();
        let (status, refused) = ask("/api/v1/devices", &url);
        assert_eq!(status, 422, "{url}: {refused}");
        let message = refused["error"]["details"][0]["message"].as_str().unwrap();
        told.push(message.replace(path, "PATH").into());
        let (status, tried) = ask("/api/v1/devices/validate", &url);
        assert_eq!((status, &tried["valid"]), (200, &false.into()), "{url}: {tried}");
        told.push(tried["error"].as_str().unwrap().replace(path, "PATH").into());
    }
    assert!(told.iter().all(|message| *message == told[0]), "{told:#?}");
    assert!(told[0].as_str().unwrap().contains("[cameras] file_roots"), "{}", told[0]);

    // One that vas.toml names may lie anywhere, and still has to be a file that does not block.
    let health = "/api/v1/rtsp/streams/kernel/health";
    until("its reason", || {
        let (_, health) = call(&place, "GET", health, "").unwrap();
        health["reason"].as_str().is_some_and(|reason| reason.contains("not a regular file"))
    });
    assert!(ingest.stop().success());
    assert!(!ingest.text().contains("did not stop"), "{}", ingest.text());
}
