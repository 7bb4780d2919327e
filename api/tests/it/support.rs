//! A node in a temporary directory, an HTTP client of plain bytes, and a scheduler's end of
//! `events.sock`.

use api::config_rows::{AssignmentRow, CameraRow};
use api::disk::Disk;
use api::{Limits, MediaOptions, ModelEntry, Options, ServeError, Server};
use base::Size;
use base::model::{
    Backend, ColourOrder, DType, Decoder, InputSpec, Layout, ModelSpec, Resize,
    ResourceRequirements,
};
use ipc::directories::Directories;
use ipc::events_message::EventsMessage;
use ipc::runner_message::Encoder;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Long enough for any machine; reached only when something is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Directories and options of one node.
pub struct Node {
    pub home: tempfile::TempDir,
    pub options: Options,
}

impl Node {
    /// Camera `front` (RTSP with credentials), camera `yard` (file), model `nano`, and `nano` on
    /// `front` at 5 fps.
    pub fn new() -> Node {
        let home = tempfile::tempdir().unwrap();
        let directories = Directories {
            shm: home.path().join("shm"),
            runtime: home.path().join("run"),
            state: home.path().join("state"),
        };
        std::fs::create_dir(&directories.shm).unwrap();
        let mut front =
            CameraRow::new("front".parse().unwrap(), "rtsp://admin:s3cret@10.0.0.9/1?pwd=s3cret");
        front.name = Some("Front door".into());
        let yard = CameraRow::new("yard".parse().unwrap(), "file:///data/yard.mp4");
        let mut assignment = AssignmentRow::new("front".parse().unwrap(), "nano".parse().unwrap());
        assignment.desired_fps = Some(5.0);
        let options = Options {
            directories,
            bind: "127.0.0.1:0".parse().unwrap(),
            models: vec![model("nano", &["person", "bicycle", "car"])],
            cameras: vec![front, yard],
            assignments: vec![assignment],
            export_enabled: true,
            store_empty: false,
            retention: Duration::from_secs(30 * 86_400),
            file_roots: vec![],
            keep_free: 1 << 30,
            media: MediaOptions { retention: Duration::from_secs(30 * 86_400), max_percent: 10 },
            disk_high_percent: 90,
            disk: Disk::default(),
            recordings: home.path().join("recordings"),
            media_command: vec!["/bin/false".into()],
            version: "0.0.0-test",
        };
        Node { home, options }
    }

    pub fn start(&self) -> Server {
        self.try_start(Limits::default()).unwrap()
    }

    pub fn try_start(&self, limits: Limits) -> Result<Server, ServeError> {
        Server::start(self.options.clone(), limits)
    }

    pub fn scheduler(&self) -> Scheduler {
        let socket = UnixStream::connect(self.options.directories.events_socket()).unwrap();
        Scheduler { socket, encoder: Encoder::default() }
    }

    pub fn desired(&self) -> Value {
        let text = std::fs::read_to_string(self.options.directories.desired()).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

pub fn model(id: &str, labels: &[&str]) -> ModelEntry {
    let spec = ModelSpec {
        model_id: id.parse().unwrap(),
        name: format!("Model {id}"),
        version: "1".into(),
        description: None,
        author: None,
        license: Some("Apache-2.0".into()),
        supported_tasks: vec!["object_detection".into()],
        backend: Backend::Onnx,
        weights: "/models/weights.onnx".into(),
        input: InputSpec {
            tensor: "data".into(),
            size: Size { width: 416, height: 416 },
            layout: Layout::Nchw,
            dtype: DType::F32,
            colour: ColourOrder::Bgr,
            resize: Resize::Letterbox { pad: 114 },
            mean: [0.0; 3],
            std: [1.0; 3],
        },
        decoder: Decoder::BoxesScores { scores: "scores".into(), boxes: "boxes".into() },
        labels: labels.iter().map(ToString::to_string).collect(),
        confidence_threshold: 0.4,
        nms_iou_threshold: 0.6,
        batch_max: 4,
        deadline: Duration::from_millis(500),
        resources: ResourceRequirements::default(),
        config_schema: None,
    };
    ModelEntry { name: id.into(), enabled: None, spec: Ok(spec) }
}

pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The scheduler's end of `events.sock`.
pub struct Scheduler {
    pub socket: UnixStream,
    encoder: Encoder,
}

impl Scheduler {
    pub fn send(&mut self, message: &EventsMessage) {
        let bytes = message.encode(&mut self.encoder);
        ipc::framing::write_message(&mut self.socket, bytes).unwrap();
    }

    /// Returns when serve has closed the connection.
    pub fn wait_closed(&mut self) {
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        match self.socket.read(&mut [0; 16]) {
            Ok(got) => assert_eq!(got, 0, "serve says nothing to the scheduler"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads one answer; `None` when the connection ends before its head.
pub fn read_reply(stream: &mut TcpStream, to_head: bool) -> Option<Reply> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Ok(_) => return None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("no answer: {error}"),
        }
    }
    let text = String::from_utf8(head).unwrap();
    let mut lines = text.trim_end().split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut reply = Reply { status, headers, body: vec![] };
    let length = reply.header("content-length").map_or(0, |n| n.parse().unwrap());
    if !to_head {
        reply.body = vec![0; length];
        stream.read_exact(&mut reply.body).unwrap();
    }
    Some(reply)
}

pub fn request(address: SocketAddr, method: &str, target: &str) -> Reply {
    let mut stream = connect(address);
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .unwrap();
    read_reply(&mut stream, method == "HEAD").unwrap()
}

pub fn get(server: &Server, target: &str) -> Reply {
    request(server.address(), "GET", target)
}

/// Sends a body and reads the answer. JSON unless `kind` says otherwise.
pub fn send(server: &Server, method: &str, target: &str, kind: &str, body: &[u8]) -> Reply {
    let address = server.address();
    let mut stream = connect(address);
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    read_reply(&mut stream, false).unwrap()
}

/// Sends JSON and checks the answer against the document.
pub fn call(server: &Server, method: &str, target: &str, body: &Value) -> Reply {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let reply = send(server, method, target, "application/json", text.as_bytes());
    check_reply(server, method, target, &reply);
    reply
}

/// The JSON of an answer with this status.
pub fn call_json(server: &Server, status: u16, method: &str, target: &str, body: &Value) -> Value {
    let reply = call(server, method, target, body);
    let text = String::from_utf8_lossy(&reply.body);
    assert_eq!(reply.status, status, "{method} {target} {body}: {text}");
    if reply.body.is_empty() { Value::Null } else { reply.json() }
}

/// The error of an answer with this status.
pub fn call_error(server: &Server, status: u16, method: &str, target: &str, body: &Value) -> Value {
    call_json(server, status, method, target, body)["error"].clone()
}

/// Fails when an answer is not one that the document describes.
pub fn check_reply(server: &Server, method: &str, target: &str, reply: &Reply) {
    let document = get_json(server, "/openapi.json");
    let path = target.split('?').next().unwrap();
    let fits = |template: &str| {
        template.split('/').count() == path.split('/').count()
            && template.split('/').zip(path.split('/')).all(|(t, p)| t.starts_with('{') || t == p)
    };
    let paths = document["paths"].as_object().unwrap();
    // Of several the one with fewer placeholders: /validate before /{id}.
    let mut fitting: Vec<_> = paths.iter().filter(|(template, _)| fits(template)).collect();
    fitting.sort_by_key(|(template, _)| template.matches('{').count());
    let verb = method.to_lowercase();
    let Some((template, verbs)) = fitting.into_iter().find(|(_, v)| v.get(&verb).is_some()) else {
        return;
    };
    let told = &verbs[&verb]["responses"][reply.status.to_string()];
    assert!(told.is_object(), "{method} {template} answers an undocumented {}", reply.status);
    let content = &told["content"]["application/json"];
    if reply.header("content-type") == Some("application/json") {
        let schema = inlined(&content["schema"], &document["components"]["schemas"]);
        let problems = api::schema::problems(&schema, &reply.json(), template);
        assert!(problems.is_empty(), "{problems:#?}");
    }
}

/// Replaces references, so that the checker of parameters can check answers too.
pub fn inlined(schema: &Value, schemas: &Value) -> Value {
    match schema {
        Value::Object(rules) => match rules.get("$ref").and_then(Value::as_str) {
            Some(name) => inlined(&schemas[name.rsplit('/').next().unwrap()], schemas),
            None => rules.iter().map(|(k, v)| (k.clone(), inlined(v, schemas))).collect(),
        },
        Value::Array(items) => items.iter().map(|item| inlined(item, schemas)).collect(),
        other => other.clone(),
    }
}

/// The JSON of a 200.
pub fn get_json(server: &Server, target: &str) -> Value {
    let reply = get(server, target);
    assert_eq!(reply.status, 200, "{target}: {}", String::from_utf8_lossy(&reply.body));
    reply.json()
}

/// The error envelope of an answer that is not 200.
pub fn get_error(server: &Server, status: u16, target: &str) -> Value {
    let reply = get(server, target);
    assert_eq!(reply.status, status, "{target}: {}", String::from_utf8_lossy(&reply.body));
    let error = reply.json()["error"].clone();
    assert_eq!(error["status"], status);
    assert_eq!(error["path"], format!("http://{}{target}", server.address()));
    error
}

/// Waits until a figure of the store's counters has a value.
pub fn wait_count(server: &Server, counter: &str, value: u64) {
    wait_for(&format!("{counter} = {value}"), || {
        let status = get_json(server, "/ai/observability/status");
        (status["store"][counter] == value).then_some(())
    });
}
