//! Processes at their limit of descriptors.

use crate::node::{Place, Process, clip, model, until};
use base::limits::PROTOCOL_VERSION;
use base::{CameraId, ColourMatrix, ColourRange, FrameFlags, FrameInfo, InstanceId, MediaTime};
use base::{MemberError, Picture, Rect, Size};
use ipc::clock;
use ipc::framing::{read_message, write_message};
use ipc::ring::{RingSpec, RingWriter};
use ipc::runner_message::{Encoder, Member, Prepare, RunnerMessage, Welcome};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Few enough to be used up at once, enough for serve itself.
const LIMIT: usize = 64;

/// Answers one request on a connection that stays open.
fn ask(client: &mut TcpStream, path: &str) -> (u16, String) {
    write!(client, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split_once("content-length: ").unwrap().1;
    let length = length.split_once('\r').unwrap().0.parse().unwrap();
    let mut body = vec![0; length];
    client.read_exact(&mut body).unwrap();
    (head[9..12].parse().unwrap(), String::from_utf8(body).unwrap())
}

#[test]
fn descriptors_that_ran_out_are_told_once_and_by_their_name() {
    let place =
        Place::new(&format!("[[camera]]\nid = \"one\"\nmain_url = \"{}\"\n", clip().display()));
    let (vas, config) = (env!("CARGO_BIN_EXE_vas"), place.config_text());
    let mut serve =
        Process::shell(&format!("sh -c 'ulimit -n {LIMIT} && exec {vas} serve --config {config}'"));
    serve.wait_for("serving on http://");
    for _ in 0..3 {
        let connect = || TcpStream::connect(("127.0.0.1", place.port)).unwrap();
        let mut inside = connect();
        assert_eq!(ask(&mut inside, "/health").0, 200);
        let others: Vec<TcpStream> = (0..2 * LIMIT).map(|_| connect()).collect();
        serve.wait_for("http clients wait: Too many open files");
        until("the limit", || {
            let (status, body) = ask(&mut inside, "/api/v1/devices/one/frame.jpg");
            status == 503 && body.contains("Too many open files")
        });
        drop(others);
        place.get_until("/health", |body| body.contains("healthy"));
    }
    let told = serve.text().matches("Too many open files").count();
    assert_eq!(told, 1, "{}", serve.text());
    assert!(serve.stop().success());
}

/// A ring with one frame, and how a batch names that.
fn ring(shm: &Path, camera: &CameraId) -> (RingWriter, Member) {
    let size = Size { width: 64, height: 64 };
    let picture = Picture { size, matrix: ColourMatrix::Bt709, range: ColourRange::Limited };
    let spec = RingSpec { camera: camera.clone(), picture, slots: 8 };
    let mut writer = RingWriter::create(shm, &spec).unwrap();
    let frame_id = writer.begin().publish(&FrameInfo {
        media: MediaTime(1),
        capture: clock::monotonic(),
        capture_utc: clock::utc(),
        decode_start: clock::monotonic(),
        flags: FrameFlags::default(),
    });
    let slot = ipc::ring::inspect(shm, camera).unwrap().newest.unwrap().slot;
    let (generation, region) = (writer.generation(), Rect::WHOLE);
    let member =
        Member { camera: 0, generation, frame_id, slot, region, parent: 0, parameters: None };
    (writer, member)
}

#[test]
fn a_runner_with_more_cameras_than_descriptors_says_so_once_and_goes_on() {
    let place = Place::new("");
    let (vas, config, model) = (env!("CARGO_BIN_EXE_vas"), place.config_text(), model());
    let mut runner = Process::shell(&format!(
        "sh -c 'ulimit -n {LIMIT} && exec {vas} runner {} --config {config}'",
        model.display()
    ));
    runner.wait_for("runner is ready");
    let socket = place.runtime().join("runner.nanodet_g_416.cpu.sock");
    let mut scheduler = UnixStream::connect(socket).unwrap();
    scheduler.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut encoder = Encoder::default();
    let mut send = |stream: &mut UnixStream, message: RunnerMessage| {
        write_message(stream, message.encode(&mut encoder)).unwrap();
    };
    let welcome = Welcome { protocol: PROTOCOL_VERSION, instance: InstanceId(1) };
    send(&mut scheduler, RunnerMessage::Welcome(welcome));
    let mut rings = Vec::new();
    let mut outcomes = Vec::new();
    // The last one again: what could be opened before still can.
    for number in (0..2 * LIMIT).chain([0]) {
        let camera: CameraId = format!("c{number}").parse().unwrap();
        if number == rings.len() {
            rings.push(ring(&place.rings(), &camera));
        }
        let batch = outcomes.len() as u64 + 1;
        let (members, lease) = (vec![rings[number].1], Some(Duration::from_secs(20)));
        let (cameras, parameters) = (vec![camera], vec![]);
        let prepare = Prepare { batch, cameras, members, parameters, lease };
        send(&mut scheduler, RunnerMessage::Prepare(prepare));
        outcomes.push(loop {
            let mut bytes = Vec::new();
            assert!(read_message(&mut scheduler, &mut bytes).unwrap());
            if let RunnerMessage::Reply(mut reply) = RunnerMessage::decode(&bytes).unwrap() {
                break reply.outcomes.remove(0).map(drop);
            }
        });
    }
    assert_eq!((outcomes[0], outcomes[2 * LIMIT]), (Ok(()), Ok(())));
    assert_eq!(outcomes[2 * LIMIT - 1], Err(MemberError::Frame));
    runner.wait_for("frames can't be copied: Too many open files");
    let text = runner.text();
    assert_eq!(text.matches("Too many open files").count(), 1, "{text}");
    assert!(text.contains("LimitNOFILE"), "{text}");
    assert!(runner.stop().success());
}

#[test]
fn every_process_raises_its_limit_to_what_the_system_gives() {
    let place = Place::with_people();
    let (vas, config) = (env!("CARGO_BIN_EXE_vas"), place.config_text());
    let mut up =
        Process::shell(&format!("sh -c 'ulimit -S -n 200 && exec {vas} up --config {config}'"));
    up.wait_for("the node runs: http://");
    let mut seen = 0;
    until("serve, ingest, scheduler, runner and two workers", || {
        let mut left = vec![up.id()];
        seen = 0;
        while let Some(id) = left.pop() {
            let tasks =
                std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
            for task in tasks {
                let children =
                    std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
                left.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            }
            let limits = std::fs::read_to_string(format!("/proc/{id}/limits")).unwrap_or_default();
            let files = limits.lines().find(|line| line.starts_with("Max open files"));
            let limits: Vec<_> =
                files.iter().flat_map(|line| line.split_whitespace().skip(3).take(2)).collect();
            seen += usize::from(limits.len() == 2 && limits[0] == limits[1]);
        }
        seen == 7
    });
    assert!(up.stop().success());
}
