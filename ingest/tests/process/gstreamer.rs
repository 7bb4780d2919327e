//! A camera that we did not write: GStreamer's RTSP server (`hack/rtsp-camera`), stalled and killed.

use crate::node::{self, Node, asset, camera_at, pedestrians};
use crate::watch::{Seen, Watch, wait_until};
use ipc::ingest_message::StreamState;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The system's Python: the binding comes as a system package.
const PYTHON: &str = "/usr/bin/python3";

struct Camera {
    child: Child,
    /// URLs without `rtsp://`.
    urls: Vec<String>,
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Camera {
    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    fn port(&self) -> u16 {
        self.urls[0].split([':', '/']).nth(1).unwrap().parse().unwrap()
    }
}

fn start(port: u16, mounts: &[(&str, PathBuf)]) -> Camera {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/rtsp-camera");
    let mounts = mounts.iter().map(|(name, path)| format!("{name}={}", path.display()));
    let mut child = Command::new(PYTHON)
        .arg(script)
        .arg(port.to_string())
        .args(mounts)
        .args(["--user", "admin", "--password", "right"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let urls = lines.take_while(|line| line != "ready");
    let urls: Vec<_> = urls.map(|url| url.strip_prefix("rtsp://").unwrap().to_owned()).collect();
    assert!(!urls.is_empty(), "it did not start");
    Camera { child, urls }
}

/// Whether this machine has the binding; says so where it does not.
fn usable() -> bool {
    let import = "import gi; gi.require_version('GstRtspServer', '1.0'); \
                  from gi.repository import GstRtspServer";
    let found = Command::new(PYTHON).args(["-c", import]).stderr(Stdio::null()).status();
    let usable = found.is_ok_and(|status| status.success());
    if !usable {
        eprintln!("SKIPPED: {PYTHON} has no GstRtspServer binding; run hack/setup");
    }
    usable
}

fn assert_goes_on(before: &[Seen], after: &[Seen]) {
    let all: Vec<_> = before.iter().chain(after).collect();
    assert!(all.windows(2).all(|f| f[1].stamp.info.media > f[0].stamp.info.media));
    assert!(all.windows(2).all(|f| f[1].stamp.frame_id > f[0].stamp.frame_id));
}

#[test]
fn a_camera_that_is_stalled_and_killed_comes_back_by_itself() {
    if !usable() {
        return;
    }
    let mounts = [("tcp", pedestrians()), ("udp", pedestrians()), ("hevc", asset("hevc.mp4"))];
    let camera = start(0, &mounts);
    let node = Node::new();
    let url = |at: usize| format!("rtsp://admin:right@{}", camera.urls[at]);
    node.desire([
        camera_at("gst-tcp", &url(0)),
        camera_at("gst-udp", &url(1)).udp(),
        camera_at("gst-hevc", &url(2)),
    ]);
    let ids = ["gst-tcp", "gst-udp", "gst-hevc"];
    let ingest = node.start();
    let mut watches = ids.map(|id| Watch::new(&node, id));
    let mut look = || watches.each_mut().map(|watch| watch.collect(5));
    let first = look();
    node::suspend(camera.pid());
    for id in ids {
        wait_until("the stall is told", || {
            let status = node.status(id, "main")?;
            status.reason.contains("3 s").then_some(())
        });
    }
    node::resume(camera.pid());
    let second = look();
    let port = camera.port();
    drop(camera);
    for id in ids {
        wait_until("the end is told", || {
            let status = node.status(id, "main")?;
            status.reason.contains("Connection refused").then_some(())
        });
    }
    let camera = start(port, &mounts);
    let third = look();
    for ((first, second), third) in first.iter().zip(&second).zip(&third) {
        assert_goes_on(first, second);
        assert_goes_on(second, third);
    }
    for id in ids {
        let status = node.wait_for(id, StreamState::Live);
        assert!(status.connects >= 3, "{id}: {status:?}");
    }
    ingest.stop();
    node.assert_nothing_left();
    drop(camera);
}
