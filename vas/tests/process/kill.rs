//! Parts that are killed or stopped while the node runs: video and the other parts go on, and a
//! part that is started again by hand is taken up, in any order. Nothing else restarts.

use crate::node::{Place, Process, child_of, model, signal, until};
use base::{CameraId, Newest};
use ipc::ring::RingReader;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const CAMERAS: [&str; 2] = ["one", "two"];

/// What serve says; `None` while there is none.
fn status(place: &Place) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", place.port)).ok()?;
    let request =
        "GET /ai/observability/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// Results of a subscription since serve started.
fn results(status: &Value, camera: &str, model: &str) -> u64 {
    let subscriptions = status["subscriptions"].as_array().map_or(&[][..], Vec::as_slice);
    let of = |s: &&Value| s["camera_id"] == camera && s["model_id"] == model;
    subscriptions.iter().find(of).and_then(|s| s["results"].as_u64()).unwrap_or(0)
}

/// Waits until every camera has `more` further results of the model, as serve counts them.
#[track_caller]
fn wait_for_results(place: &Place, model: &str, more: u64) {
    let mut before: Option<Vec<u64>> = None;
    until(&format!("{more} more results of {model} on each camera"), || {
        let Some(status) = status(place) else {
            before = None; // Serve counts anew when it is back.
            return false;
        };
        let now: Vec<u64> = CAMERAS.iter().map(|c| results(&status, c, model)).collect();
        let from = before.get_or_insert_with(|| now.clone());
        now.iter().zip(from.iter()).all(|(now, from)| *now >= from + more)
    });
}

/// Reads both rings all the time, as any reader would.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<[u64; 2]>,
}

impl Watch {
    /// Fails at its end when a generation changed or an id went back.
    fn start(place: &Place) -> Watch {
        let stop = Arc::<AtomicBool>::default();
        let (over, rings) = (stop.clone(), place.rings());
        let thread = std::thread::spawn(move || {
            let reader = |c: &str| RingReader::new(&rings, &CameraId::new(c).unwrap());
            let mut readers = CAMERAS.map(reader);
            let mut last: [Option<base::Stamp>; 2] = [None; 2];
            while !over.load(Ordering::Relaxed) {
                for (reader, last) in readers.iter_mut().zip(&mut last) {
                    let Newest::Frame(stamp) = reader.newest(ipc::clock::monotonic()) else {
                        assert!(last.is_none(), "a ring that had frames lost them");
                        continue;
                    };
                    if let Some(before) = *last {
                        assert_eq!(stamp.generation, before.generation, "the ring was replaced");
                        assert!(stamp.frame_id >= before.frame_id, "ids went back");
                        // Every id is one frame of 10 fps: media time advances with the ids.
                        let ids = stamp.frame_id.0 - before.frame_id.0;
                        let ticks = stamp.info.media.0 - before.info.media.0;
                        assert!(ticks >= ids * 9000, "{ids} ids in {ticks} ticks");
                    }
                    *last = Some(stamp);
                }
                std::thread::park_timeout(Duration::from_millis(10));
            }
            last.map(|stamp| stamp.map_or(0, |s| s.frame_id.0))
        });
        Watch { stop, thread }
    }

    /// The newest frame ids at the end.
    fn end(self) -> [u64; 2] {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("video went on undisturbed")
    }
}

/// Starts a part by hand, as `vas up` names it when it ends.
fn start(place: &Place, part: &str) -> Process {
    let (config, folder) = (place.config_text(), model());
    match part {
        "runner" => Process::start(&["runner", folder.to_str().unwrap(), "--config", &config]),
        part => Process::start(&[part, "--config", &config]),
    }
}

/// What ingest counts after this moment says that no unit was dropped and no worker died.
#[track_caller]
fn undisturbed(up: &Process) {
    let lines = |camera: &str| -> Vec<String> {
        let text = up.text();
        let of =
            |l: &&str| l.contains("since start") && l.ends_with(&format!("stream={camera}/main"));
        text.lines().filter(of).map(str::to_owned).collect()
    };
    for camera in CAMERAS {
        let before = lines(camera).len();
        until("ingest's next count", || lines(camera).len() > before);
        let last = lines(camera).pop().expect("there is one more than before");
        for nothing in ["0 dropped at the worker's queue", "0 worker restarts", "0 source failures"]
        {
            assert!(last.contains(nothing), "{last}");
        }
    }
}

#[test]
fn killed_parts_leave_video_alone_and_come_back_by_hand_in_any_order() {
    let place = Place::with_people();
    let mut up = place.up_serving();
    wait_for_results(&place, "nanodet_g_416", 2);
    let watch = Watch::start(&place);
    let parts = ["scheduler", "runner", "serve"];
    let ids = |up: u32| ["ingest"].map(|p| child_of(up, p).expect("ingest runs"));
    let ingest = ids(up.id());

    // One at a time.
    let mut by_hand: Vec<(&str, Process)> = Vec::new();
    for part in parts {
        let others: Vec<_> = parts
            .iter()
            .filter(|p| **p != part && !by_hand.iter().any(|(name, _)| name == *p))
            .map(|p| (*p, child_of(up.id(), p).expect("it runs")))
            .collect();
        signal(child_of(up.id(), part).expect("it runs"), "KILL");
        let name = if part == "runner" { "runner nanodet_g_416" } else { part };
        up.wait_for(&format!("vas up: {name} ended"));
        assert_eq!(child_of(up.id(), part), None, "{part} is not started again by itself");
        for (name, id) in others {
            assert_eq!(child_of(up.id(), name), Some(id), "{name} is the same process");
        }
        by_hand.push((part, start(&place, part)));
        wait_for_results(&place, "nanodet_g_416", 3);
    }
    // All together, and back in two orders.
    for order in [["serve", "runner", "scheduler"], ["runner", "scheduler", "serve"]] {
        for (_, process) in &mut by_hand {
            process.signal("KILL");
            process.end();
        }
        by_hand.clear();
        for part in order {
            by_hand.push((part, start(&place, part)));
        }
        wait_for_results(&place, "nanodet_g_416", 3);
    }
    assert_eq!(ids(up.id()), ingest, "ingest is the same process");
    undisturbed(&up);
    let newest = watch.end();
    assert!(newest.iter().all(|id| *id > 50), "{newest:?}");
    for (_, mut process) in by_hand {
        assert!(process.stop().success());
    }
    up.stop();
    place.assert_nothing_left();
}

#[test]
fn a_stopped_runner_and_a_stopped_serve_delay_nobody_else() {
    let place = Place::with_people();
    // The same weights as a second model on both cameras.
    let second = place.folder.path().join("second");
    fs::create_dir(&second).unwrap();
    for entry in fs::read_dir(model()).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), second.join(entry.file_name())).unwrap();
        }
    }
    let yaml = fs::read_to_string(second.join("model.yaml")).unwrap();
    fs::write(second.join("model.yaml"), yaml.replace("nanodet_g_416\n", "second\n")).unwrap();
    let weights = yaml.contains("model_id: nanodet_g_416\n");
    assert!(weights, "the model's id is not where this test looks for it");
    let mut text = fs::read_to_string(place.config()).unwrap();
    text += &format!("[[model]]\ndir = \"{}\"\n", second.display());
    for camera in CAMERAS {
        text += &format!(
            "[[assignment]]\ncamera = \"{camera}\"\nmodel = \"second\"\ndesired_fps = 2\n\
             deadline_ms = 2000\n"
        );
    }
    fs::write(place.config(), text).unwrap();

    let mut up = place.up_serving();
    wait_for_results(&place, "nanodet_g_416", 2);
    wait_for_results(&place, "second", 2);
    let watch = Watch::start(&place);
    let runner_of = |wanted: &str| {
        let tasks = format!("/proc/{0}/task/{0}/children", up.id());
        let children = fs::read_to_string(tasks).unwrap();
        let command = |id: &u32| fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let holds = |id: &u32| {
            let line = String::from_utf8_lossy(&command(id)).into_owned();
            line.contains("\0runner\0") && line.contains(wanted)
        };
        children.split(' ').filter_map(|id| id.parse().ok()).find(holds).expect("it runs")
    };

    // A stopped runner: its subscriptions are parked, the other model goes on.
    let stopped: u32 = runner_of(second.to_str().unwrap());
    signal(stopped, "STOP");
    until("the stopped runner is called hung", || {
        let runners = status(&place).map(|s| s["runners"].clone()).unwrap_or_default();
        let list = runners.as_array().cloned().unwrap_or_default();
        list.iter().any(|r| r["model_id"] == "second" && r["state"] == "hung")
    });
    wait_for_results(&place, "nanodet_g_416", 10);
    let now = status(&place).unwrap();
    let subscriptions = now["subscriptions"].as_array().unwrap();
    for s in subscriptions.iter().filter(|s| s["model_id"] == "second") {
        assert_eq!(s["state"], "parked", "{s}");
    }
    // Ended, it makes room for a new life.
    signal(stopped, "KILL");
    let config = place.config_text();
    let mut again = Process::start(&["runner", second.to_str().unwrap(), "--config", &config]);
    wait_for_results(&place, "second", 2);

    // A stopped serve: batches go on meanwhile, and it is fed again afterwards.
    let batches = |place: &Place| -> u64 {
        let status = status(place).unwrap();
        let runners = status["runners"].as_array().unwrap();
        let of = runners.iter().find(|r| r["model_id"] == "nanodet_g_416").unwrap();
        of["batches"].as_u64().unwrap()
    };
    let newest = |camera: &str| {
        let camera = CameraId::new(camera).unwrap();
        match RingReader::new(&place.rings(), &camera).newest(ipc::clock::monotonic()) {
            Newest::Frame(stamp) => stamp.frame_id.0,
            Newest::Absent(_) => 0,
        }
    };
    let before = batches(&place);
    let serve = child_of(up.id(), "serve").unwrap();
    signal(serve, "STOP");
    let from = newest("one");
    // 40 frames are 4 s: at 5 fps and two cameras about 40 batches.
    until("video goes on while serve is stopped", || newest("one") >= from + 40);
    signal(serve, "CONT");
    wait_for_results(&place, "nanodet_g_416", 3);
    let during = batches(&place) - before;
    assert!(during >= 30, "{during} batches while serve was stopped, about 40 were due");

    // A stopped scheduler: nobody is held to have been late while it stood still.
    let scheduler = child_of(up.id(), "scheduler").unwrap();
    signal(scheduler, "STOP");
    let from = newest("one");
    until("video goes on while the scheduler is stopped", || newest("one") >= from + 30);
    signal(scheduler, "CONT");
    wait_for_results(&place, "nanodet_g_416", 3);
    wait_for_results(&place, "second", 2);
    watch.end();
    assert!(again.stop().success());
    up.stop();
    place.assert_nothing_left();
}
