//! Who takes offers: a hub itself, or the socket of a whole ingest.

use base::CameraId;
use ingest::Options;
use ingest::live::{Hub, WebrtcOptions};
use ipc::desired::{DecodeMode, DesiredCamera, DesiredState, DesiredStream, FORMAT};
use ipc::directories::Directories;
use ipc::ingest_message::{Answer, Request, StreamStatus, call};
use ipc::stop::Stop;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

/// Who takes offers.
pub trait Door {
    /// Offers to watch what a camera has for live view.
    fn watch(&self, camera: &CameraId, sdp: &str) -> Answer;
}

impl Door for Hub {
    fn watch(&self, camera: &CameraId, sdp: &str) -> Answer {
        self.offer(camera, "", sdp)
    }
}

/// Ingest with one camera `cam`, watched and not decoded.
pub struct Node {
    socket: PathBuf,
    trigger: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
    _root: tempfile::TempDir,
}

impl Node {
    pub fn start(url: &str) -> Node {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories {
            shm: root.path().join("shm"),
            runtime: root.path().join("run"),
            state: root.path().join("state"),
        };
        std::fs::create_dir(&directories.state).unwrap();
        let stream = DesiredStream {
            name: "main".into(),
            url: url.into(),
            transport: "tcp".into(),
            roles: vec!["live".into()],
            any_file: true,
        };
        let camera = DesiredCamera {
            id: "cam".into(),
            enabled: true,
            streams: vec![stream],
            loop_offset_ms: 0,
            record: false,
            live: true,
            decode: DecodeMode::Off,
            deadline_ms: 500,
        };
        let state = DesiredState {
            format: FORMAT,
            epoch: base::Epoch(1),
            revision: 1,
            written_utc: "2026-01-01T00:00:00Z".into(),
            cameras: vec![camera],
            subscriptions: vec![],
        };
        state.store(&directories.desired()).unwrap();
        let socket = directories.ingest_socket();
        let recording = ingest::RecordingOptions::new(directories.recordings());
        let options = Options {
            directories,
            export_enabled: false,
            file_roots: vec![],
            decode_command: vec!["true".into()],
            recording,
            webrtc: WebrtcOptions { udp_port: 0, ..WebrtcOptions::default() },
        };
        let (trigger, stop) = Stop::pair().unwrap();
        let thread = std::thread::spawn(move || ingest::run(options, stop).unwrap());
        Node { socket, trigger: Some(trigger), thread: Some(thread), _root: root }
    }

    pub fn call(&self, request: &Request) -> Option<Answer> {
        call(&self.socket, request, Duration::from_secs(10)).ok()
    }

    /// How the camera's stream is, when ingest answers.
    pub fn status(&self) -> Option<StreamStatus> {
        self.call(&Request::Status)?.streams.pop()
    }
}

impl Door for Node {
    fn watch(&self, camera: &CameraId, sdp: &str) -> Answer {
        let (camera, stream, sdp) = (camera.clone(), String::new(), sdp.to_owned());
        self.call(&Request::Offer { camera, stream, sdp }).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.trigger.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
