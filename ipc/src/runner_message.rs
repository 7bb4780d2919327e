//! Messages between scheduler and runner: `schema/runner.fbs` as plain types.
//!
//! The runner sends Hello, ProfileRequest, Prepared, Executed, Reply, ProfileDone and Table; the
//! scheduler sends Welcome, Prepare, Grant, Revoke and ProfileGrant. docs/wire.md has the order.

use crate::generated::vas::wire as fb;
use crate::wire::{self, WireError};
use base::limits::{
    BATCH_MAX, CLASSES_MAX, MODEL_VERSION_BYTES_MAX, PARAMETERS_BYTES_MAX, REPLY_BYTES_MAX,
};
use base::{CameraId, DeviceId, FrameDetections, FrameId, Generation, InstanceId, Instant};
use base::{LatencyTable, MemberError, ModelId, Rect, Size, StageTimes};
use flatbuffers::FlatBufferBuilder;
use std::time::Duration;

/// What a runner says of itself when a scheduler connects.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// [`base::limits::PROTOCOL_VERSION`].
    pub protocol: u32,
    /// This life of the runner.
    pub instance: InstanceId,
    /// The model it holds.
    pub model_id: ModelId,
    /// Version of the model.
    pub model_version: String,
    /// The device it executes on.
    pub device: DeviceId,
    /// Whether the device is a GPU.
    pub gpu: bool,
    /// Size of the model's input in pixels.
    pub input: Size,
    /// Largest batch the engine takes.
    pub batch_max: u32,
    /// The model's deadline.
    pub deadline: Duration,
    /// Class names, index = class id.
    pub labels: Vec<String>,
    /// L(b) from the cache; empty = not measured.
    pub latency: LatencyTable,
    /// Runtime, its version, threads, how frames are copied: for people.
    pub runtime: String,
}

/// The scheduler's answer to [`Hello`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// [`base::limits::PROTOCOL_VERSION`].
    pub protocol: u32,
    /// This life of the scheduler.
    pub instance: InstanceId,
}

/// One frame or region of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Member {
    /// Index into [`Prepare::cameras`].
    pub camera: u32,
    /// Generation of the ring.
    pub generation: Generation,
    /// The frame.
    pub frame_id: FrameId,
    /// The slot that held it when it was bound.
    pub slot: u32,
    /// What of the frame to look at.
    pub region: Rect,
    /// Sequence of the parent result, 0 = none.
    pub parent: u64,
    /// Index into [`Prepare::parameters`], `None` = the model's defaults.
    pub parameters: Option<u32>,
}

/// Parameters of an assignment as canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterSet {
    /// sha256 of the JSON, hex.
    pub id: String,
    /// A JSON object.
    pub json: String,
}

/// The launch of a batch: these frames, in this order.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepare {
    /// Id of the batch, rising per connection.
    pub batch: u64,
    /// Cameras that the members name.
    pub cameras: Vec<CameraId>,
    /// Members, 1 to [`BATCH_MAX`].
    pub members: Vec<Member>,
    /// Parameter sets that the members name.
    pub parameters: Vec<ParameterSet>,
    /// The token comes with it (light path), for this long.
    pub lease: Option<Duration>,
}

/// The answer for one member.
pub type Outcome = Result<FrameDetections, MemberError>;

/// The one response to a [`Prepare`].
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The batch it answers.
    pub batch: u64,
    /// Stage boundaries of the whole batch.
    pub times: StageTimes,
    /// One per member, in their order.
    pub outcomes: Vec<Outcome>,
}

/// Every message of the protocol.
#[derive(Debug, Clone, PartialEq)]
pub enum RunnerMessage {
    /// Runner: first message.
    Hello(Hello),
    /// Scheduler: answer to Hello.
    Welcome(Welcome),
    /// Scheduler: launch.
    Prepare(Prepare),
    /// Runner: the pixels are its own.
    Prepared {
        /// The batch.
        batch: u64,
        /// Prepare was read.
        received: Instant,
        /// Copies are done.
        copied: Instant,
    },
    /// Scheduler: the token, for `lease`.
    Grant {
        /// The batch.
        batch: u64,
        /// How long the device is the runner's.
        lease: Duration,
    },
    /// Scheduler: forget a prepared batch.
    Revoke {
        /// The batch.
        batch: u64,
    },
    /// Runner: the device is free.
    Executed {
        /// The batch.
        batch: u64,
        /// Token taken.
        granted: Instant,
        /// Tensor complete.
        preprocessed: Instant,
        /// Engine done.
        executed: Instant,
    },
    /// Runner: the one response.
    Reply(Reply),
    /// Runner: please let it measure these sizes.
    ProfileRequest {
        /// Batch sizes, each 1 to [`BATCH_MAX`].
        sizes: Vec<u32>,
    },
    /// Scheduler: measure one size now.
    ProfileGrant {
        /// The size.
        batch_size: u32,
        /// How long the device is the runner's.
        lease: Duration,
    },
    /// Runner: samples of one size.
    ProfileDone {
        /// The size.
        batch_size: u32,
        /// Device time of each run.
        samples: Vec<Duration>,
    },
    /// Runner: L(b).
    Table(LatencyTable),
}

/// Reused memory for encoding messages: no allocation in steady state.
#[derive(Default)]
pub struct Encoder {
    pub(crate) builder: FlatBufferBuilder<'static>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

/// Bound of samples per profiled size.
const SAMPLES_MAX: usize = 10_000;

fn ns(duration: Duration) -> u64 {
    base::time::nanos(duration)
}

impl RunnerMessage {
    /// The message as bytes, without the length prefix. Valid until the next call.
    pub fn encode<'e>(&self, encoder: &'e mut Encoder) -> &'e [u8] {
        let b = &mut encoder.builder;
        b.reset();
        let (kind, body) = match self {
            RunnerMessage::Hello(m) => {
                let model_id = Some(b.create_string(m.model_id.as_str()));
                let model_version = Some(b.create_string(&m.model_version));
                let device = Some(b.create_string(m.device.as_str()));
                let labels: Vec<_> = m.labels.iter().map(|l| b.create_string(l)).collect();
                let labels = Some(b.create_vector(&labels));
                let latency = Some(b.create_vector(&wire::latency_to_wire(&m.latency)));
                let runtime = Some(b.create_string(&m.runtime));
                let args = fb::HelloArgs {
                    protocol: m.protocol,
                    instance: m.instance.0,
                    model_id,
                    model_version,
                    device,
                    gpu: m.gpu,
                    input_width: m.input.width,
                    input_height: m.input.height,
                    batch_max: m.batch_max,
                    deadline_ns: ns(m.deadline),
                    labels,
                    latency,
                    runtime,
                };
                (fb::RunnerBody::Hello, fb::Hello::create(b, &args).as_union_value())
            }
            RunnerMessage::Welcome(m) => {
                let args = fb::WelcomeArgs { protocol: m.protocol, instance: m.instance.0 };
                (fb::RunnerBody::Welcome, fb::Welcome::create(b, &args).as_union_value())
            }
            RunnerMessage::Prepare(m) => {
                (fb::RunnerBody::Prepare, prepare_to_wire(b, m).as_union_value())
            }
            RunnerMessage::Prepared { batch, received, copied } => {
                let args = fb::PreparedArgs {
                    batch: *batch,
                    received_ns: received.0,
                    copied_ns: copied.0,
                };
                (fb::RunnerBody::Prepared, fb::Prepared::create(b, &args).as_union_value())
            }
            RunnerMessage::Grant { batch, lease } => {
                let args = fb::GrantArgs { batch: *batch, lease_ns: ns(*lease) };
                (fb::RunnerBody::Grant, fb::Grant::create(b, &args).as_union_value())
            }
            RunnerMessage::Revoke { batch } => {
                let args = fb::RevokeArgs { batch: *batch };
                (fb::RunnerBody::Revoke, fb::Revoke::create(b, &args).as_union_value())
            }
            RunnerMessage::Executed { batch, granted, preprocessed, executed } => {
                let args = fb::ExecutedArgs {
                    batch: *batch,
                    granted_ns: granted.0,
                    preprocessed_ns: preprocessed.0,
                    executed_ns: executed.0,
                };
                (fb::RunnerBody::Executed, fb::Executed::create(b, &args).as_union_value())
            }
            RunnerMessage::Reply(m) => {
                (fb::RunnerBody::Reply, reply_to_wire(b, m).as_union_value())
            }
            RunnerMessage::ProfileRequest { sizes } => {
                let args = fb::ProfileRequestArgs { sizes: Some(b.create_vector(sizes)) };
                let body = fb::ProfileRequest::create(b, &args).as_union_value();
                (fb::RunnerBody::ProfileRequest, body)
            }
            RunnerMessage::ProfileGrant { batch_size, lease } => {
                let args = fb::ProfileGrantArgs { batch_size: *batch_size, lease_ns: ns(*lease) };
                (fb::RunnerBody::ProfileGrant, fb::ProfileGrant::create(b, &args).as_union_value())
            }
            RunnerMessage::ProfileDone { batch_size, samples } => {
                let samples: Vec<u64> = samples.iter().map(|s| ns(*s)).collect();
                let samples_ns = Some(b.create_vector(&samples));
                let args = fb::ProfileDoneArgs { batch_size: *batch_size, samples_ns };
                (fb::RunnerBody::ProfileDone, fb::ProfileDone::create(b, &args).as_union_value())
            }
            RunnerMessage::Table(table) => {
                let entries = Some(b.create_vector(&wire::latency_to_wire(table)));
                let args = fb::TableArgs { entries };
                (fb::RunnerBody::Table, fb::Table::create(b, &args).as_union_value())
            }
        };
        let args = fb::RunnerMessageArgs { body_type: kind, body: Some(body) };
        let root = fb::RunnerMessage::create(b, &args);
        fb::finish_runner_message_buffer(b, root);
        b.finished_data()
    }

    /// Checks foreign bytes and converts them.
    ///
    /// # Errors
    /// [`WireError`] says what is wrong; the connection should be closed.
    pub fn decode(bytes: &[u8]) -> Result<RunnerMessage, WireError> {
        if bytes.len() < 8 || !fb::runner_message_buffer_has_identifier(bytes) {
            return Err(WireError::Identifier { expected: fb::RUNNER_MESSAGE_IDENTIFIER });
        }
        let root = flatbuffers::root_with_opts::<fb::RunnerMessage>(&wire::verifier(), bytes)
            .map_err(|e| WireError::Malformed(e.to_string()))?;
        let missing = || WireError::value("body", root.body_type().0, "a message of protocol 1");
        Ok(match root.body_type() {
            fb::RunnerBody::Hello => {
                RunnerMessage::Hello(hello(root.body_as_hello().ok_or_else(missing)?)?)
            }
            fb::RunnerBody::Welcome => {
                let m = root.body_as_welcome().ok_or_else(missing)?;
                let instance = InstanceId(m.instance());
                RunnerMessage::Welcome(Welcome { protocol: m.protocol(), instance })
            }
            fb::RunnerBody::Prepare => {
                RunnerMessage::Prepare(prepare(root.body_as_prepare().ok_or_else(missing)?)?)
            }
            fb::RunnerBody::Prepared => {
                let m = root.body_as_prepared().ok_or_else(missing)?;
                RunnerMessage::Prepared {
                    batch: m.batch(),
                    received: Instant(m.received_ns()),
                    copied: Instant(m.copied_ns()),
                }
            }
            fb::RunnerBody::Grant => {
                let m = root.body_as_grant().ok_or_else(missing)?;
                RunnerMessage::Grant { batch: m.batch(), lease: wire::duration(m.lease_ns()) }
            }
            fb::RunnerBody::Revoke => {
                let m = root.body_as_revoke().ok_or_else(missing)?;
                RunnerMessage::Revoke { batch: m.batch() }
            }
            fb::RunnerBody::Executed => {
                let m = root.body_as_executed().ok_or_else(missing)?;
                RunnerMessage::Executed {
                    batch: m.batch(),
                    granted: Instant(m.granted_ns()),
                    preprocessed: Instant(m.preprocessed_ns()),
                    executed: Instant(m.executed_ns()),
                }
            }
            fb::RunnerBody::Reply if bytes.len() > REPLY_BYTES_MAX => {
                return Err(WireError::value("reply", bytes.len(), "at most 8 MiB"));
            }
            fb::RunnerBody::Reply => {
                RunnerMessage::Reply(reply(root.body_as_reply().ok_or_else(missing)?)?)
            }
            fb::RunnerBody::ProfileRequest => {
                let m = root.body_as_profile_request().ok_or_else(missing)?;
                let sizes: Vec<u32> = m.sizes().iter().take(BATCH_MAX as usize + 1).collect();
                if sizes.len() > BATCH_MAX as usize
                    || sizes.iter().any(|s| !(1..=BATCH_MAX).contains(s))
                {
                    let rule = "at most 256 sizes, each 1 to 256";
                    return Err(WireError::value("profile_request.sizes", sizes.len(), rule));
                }
                RunnerMessage::ProfileRequest { sizes }
            }
            fb::RunnerBody::ProfileGrant => {
                let m = root.body_as_profile_grant().ok_or_else(missing)?;
                let (batch_size, lease) = (m.batch_size(), wire::duration(m.lease_ns()));
                RunnerMessage::ProfileGrant { batch_size, lease }
            }
            fb::RunnerBody::ProfileDone => {
                let m = root.body_as_profile_done().ok_or_else(missing)?;
                if m.samples_ns().len() > SAMPLES_MAX {
                    let (n, rule) = (m.samples_ns().len(), "at most 10000 samples");
                    return Err(WireError::value("profile_done.samples_ns", n, rule));
                }
                let samples = m.samples_ns().iter().map(wire::duration).collect();
                RunnerMessage::ProfileDone { batch_size: m.batch_size(), samples }
            }
            fb::RunnerBody::Table => {
                let m = root.body_as_table().ok_or_else(missing)?;
                RunnerMessage::Table(wire::latency_from_wire(m.entries())?)
            }
            _ => return Err(missing()),
        })
    }
}

fn hello(m: fb::Hello<'_>) -> Result<Hello, WireError> {
    if m.labels().len() > CLASSES_MAX {
        return Err(WireError::value("hello.labels", m.labels().len(), "at most 16384 classes"));
    }
    if !(1..=BATCH_MAX).contains(&m.batch_max()) {
        return Err(WireError::value("hello.batch_max", m.batch_max(), "1 to 256"));
    }
    if m.instance() == 0 {
        return Err(WireError::value("hello.instance", 0, "not 0"));
    }
    if m.model_version().len() > MODEL_VERSION_BYTES_MAX {
        let rule = "at most 256 bytes";
        return Err(WireError::value("hello.model_version", m.model_version().len(), rule));
    }
    Ok(Hello {
        protocol: m.protocol(),
        instance: InstanceId(m.instance()),
        model_id: wire::id("hello.model_id", m.model_id())?,
        model_version: m.model_version().to_owned(),
        device: wire::id("hello.device", m.device())?,
        gpu: m.gpu(),
        input: Size { width: m.input_width(), height: m.input_height() },
        batch_max: m.batch_max(),
        deadline: wire::duration(m.deadline_ns()),
        labels: m.labels().iter().map(str::to_owned).collect(),
        latency: wire::latency_from_wire(m.latency())?,
        runtime: m.runtime().to_owned(),
    })
}

const NO_PARAMETERS: u32 = u32::MAX;

fn prepare_to_wire<'a>(
    b: &mut FlatBufferBuilder<'a>,
    m: &Prepare,
) -> flatbuffers::WIPOffset<fb::Prepare<'a>> {
    let cameras: Vec<_> = m.cameras.iter().map(|c| b.create_string(c.as_str())).collect();
    let cameras = Some(b.create_vector(&cameras));
    let members: Vec<_> = m
        .members
        .iter()
        .map(|e| {
            fb::Member::new(
                e.generation.0,
                e.frame_id.0,
                e.parent,
                e.camera,
                e.slot,
                e.parameters.unwrap_or(NO_PARAMETERS),
                0,
                e.region.x1,
                e.region.y1,
                e.region.x2,
                e.region.y2,
            )
        })
        .collect();
    let members = Some(b.create_vector(&members));
    let sets: Vec<_> = m
        .parameters
        .iter()
        .map(|p| {
            let id = Some(b.create_string(&p.id));
            let json = Some(b.create_string(&p.json));
            fb::ParameterSet::create(b, &fb::ParameterSetArgs { id, json })
        })
        .collect();
    let parameters = Some(b.create_vector(&sets));
    let lease_ns = m.lease.map_or(0, ns);
    fb::Prepare::create(
        b,
        &fb::PrepareArgs { batch: m.batch, cameras, members, parameters, lease_ns },
    )
}

fn prepare(m: fb::Prepare<'_>) -> Result<Prepare, WireError> {
    let count = m.members().len();
    if count == 0 || count > BATCH_MAX as usize {
        return Err(WireError::value("prepare.members", count, "1 to 256 members"));
    }
    let (cameras, sets) = (m.cameras().len(), m.parameters().len());
    if cameras > count || sets > count {
        let rule = "not more cameras or parameter sets than members";
        return Err(WireError::value("prepare.cameras", cameras.max(sets), rule));
    }
    let mut members = Vec::with_capacity(count);
    for e in m.members() {
        let region = Rect { x1: e.x1(), y1: e.y1(), x2: e.x2(), y2: e.y2() };
        if !region.valid() {
            return Err(WireError::value("member.region", format!("{region:?}"), "within 0..1"));
        }
        if e.camera() as usize >= cameras {
            return Err(WireError::value("member.camera", e.camera(), "an index into cameras"));
        }
        let parameters = (e.parameters() != NO_PARAMETERS).then_some(e.parameters());
        if parameters.is_some_and(|p| p as usize >= sets) {
            let rule = "an index into parameters";
            return Err(WireError::value("member.parameters", e.parameters(), rule));
        }
        members.push(Member {
            camera: e.camera(),
            generation: Generation(e.generation()),
            frame_id: FrameId(e.frame_id()),
            slot: e.slot(),
            region,
            parent: e.parent(),
            parameters,
        });
    }
    let cameras: Result<Vec<CameraId>, _> =
        m.cameras().iter().map(|c| wire::id("prepare.cameras", c)).collect();
    let mut parameters = Vec::with_capacity(sets);
    for p in m.parameters() {
        if p.json().len() > PARAMETERS_BYTES_MAX {
            let rule = "at most 4096 bytes of JSON";
            return Err(WireError::value("prepare.parameters", p.json().len(), rule));
        }
        parameters.push(ParameterSet { id: p.id().to_owned(), json: p.json().to_owned() });
    }
    let lease = (m.lease_ns() > 0).then(|| wire::duration(m.lease_ns()));
    Ok(Prepare { batch: m.batch(), cameras: cameras?, members, parameters, lease })
}

fn reply_to_wire<'a>(
    b: &mut FlatBufferBuilder<'a>,
    m: &Reply,
) -> flatbuffers::WIPOffset<fb::Reply<'a>> {
    let mut outcomes = Vec::with_capacity(m.outcomes.len());
    for outcome in &m.outcomes {
        let mut args = fb::OutcomeArgs::default();
        match outcome {
            Ok(found) => {
                let found = wire::found_to_wire(b, found);
                args.detections = found.detections;
                args.keypoints = found.keypoints;
                args.masks = found.masks;
            }
            Err(error) => args.error = wire::error_to_wire(*error),
        }
        outcomes.push(fb::Outcome::create(b, &args));
    }
    let args = fb::ReplyArgs {
        batch: m.batch,
        received_ns: m.times.received.0,
        copied_ns: m.times.copied.0,
        granted_ns: m.times.granted.0,
        preprocessed_ns: m.times.preprocessed.0,
        executed_ns: m.times.executed.0,
        postprocessed_ns: m.times.postprocessed.0,
        outcomes: Some(b.create_vector(&outcomes)),
    };
    fb::Reply::create(b, &args)
}

fn reply(m: fb::Reply<'_>) -> Result<Reply, WireError> {
    if m.outcomes().len() > BATCH_MAX as usize {
        return Err(WireError::value("reply.outcomes", m.outcomes().len(), "at most 256"));
    }
    let outcomes: Result<Vec<Outcome>, WireError> = m
        .outcomes()
        .iter()
        .map(|o| match wire::error_from_wire(o.error())? {
            Some(error) => Ok(Err(error)),
            None => Ok(Ok(wire::found_from_wire(o.detections(), o.keypoints(), o.masks())?)),
        })
        .collect();
    let times = StageTimes {
        received: Instant(m.received_ns()),
        copied: Instant(m.copied_ns()),
        granted: Instant(m.granted_ns()),
        preprocessed: Instant(m.preprocessed_ns()),
        executed: Instant(m.executed_ns()),
        postprocessed: Instant(m.postprocessed_ns()),
    };
    Ok(Reply { batch: m.batch(), times, outcomes: outcomes? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Detection, Keypoint, LatencyEntry, Mask, TrackId};

    fn round_trip(message: RunnerMessage) {
        let mut encoder = Encoder::default();
        let bytes = message.encode(&mut encoder).to_vec();
        assert_eq!(RunnerMessage::decode(&bytes).as_ref(), Ok(&message));
        // Any cut or flipped byte gives an error or another message, never a crash.
        for cut in 0..bytes.len() {
            let _ = RunnerMessage::decode(&bytes[..cut]);
            let mut flipped = bytes.clone();
            flipped[cut] ^= 0xff;
            let _ = RunnerMessage::decode(&flipped);
        }
    }

    fn table() -> LatencyTable {
        let ms = Duration::from_millis;
        LatencyTable::new([
            LatencyEntry { batch: 1, p50: ms(20), p99: ms(25) },
            LatencyEntry { batch: 4, p50: ms(80), p99: ms(99) },
        ])
    }

    fn member() -> Member {
        Member {
            camera: 0,
            generation: Generation(1_700_000_000_000_000_000),
            frame_id: FrameId(u64::MAX),
            slot: 7,
            region: Rect { x1: 0.25, y1: 0.0, x2: 0.5, y2: 1.0 },
            parent: 9,
            parameters: Some(0),
        }
    }

    fn prepare_message() -> Prepare {
        Prepare {
            batch: 3,
            cameras: vec!["front".parse().unwrap()],
            members: vec![member(), Member { parameters: None, ..member() }],
            parameters: vec![ParameterSet { id: "ab".into(), json: "{}".into() }],
            lease: Some(Duration::from_millis(100)),
        }
    }

    #[test]
    fn every_message_round_trips() {
        round_trip(RunnerMessage::Hello(Hello {
            protocol: 1,
            instance: InstanceId(5),
            model_id: "nanodet_g_416".parse().unwrap(),
            model_version: "1".into(),
            device: "cpu".parse().unwrap(),
            gpu: false,
            input: Size { width: 416, height: 416 },
            batch_max: 16,
            deadline: Duration::from_millis(500),
            labels: vec!["person".into(), "bicycle".into()],
            latency: table(),
            runtime: "onnxruntime 1.31.1, 1 thread".into(),
        }));
        round_trip(RunnerMessage::Welcome(Welcome { protocol: 1, instance: InstanceId(8) }));
        round_trip(RunnerMessage::Prepare(prepare_message()));
        let (a, z) = (Instant(1), Instant(u64::MAX));
        round_trip(RunnerMessage::Prepared { batch: 3, received: a, copied: z });
        round_trip(RunnerMessage::Grant { batch: 3, lease: Duration::from_millis(10) });
        round_trip(RunnerMessage::Revoke { batch: 3 });
        round_trip(RunnerMessage::Executed { batch: 3, granted: a, preprocessed: a, executed: z });
        round_trip(RunnerMessage::ProfileRequest { sizes: vec![1, 2, 4] });
        round_trip(RunnerMessage::ProfileGrant { batch_size: 4, lease: Duration::from_secs(1) });
        let samples = vec![Duration::from_micros(1500); 3];
        round_trip(RunnerMessage::ProfileDone { batch_size: 4, samples });
        round_trip(RunnerMessage::Table(table()));
        let bbox = Rect { x1: 0.1, y1: 0.2, x2: 0.3, y2: 0.4 };
        let found = FrameDetections {
            detections: vec![Detection { bbox, score: 0.9, class_id: 79, track: TrackId(4) }],
            keypoints: vec![Keypoint { detection: 0, kind: 16, x: 0.5, y: 0.5, score: 0.7 }],
            masks: vec![Mask { detection: 0, width: 2, height: 1, data: vec![0, 255] }],
        };
        round_trip(RunnerMessage::Reply(Reply {
            batch: 3,
            times: StageTimes { received: a, ..Default::default() },
            outcomes: vec![Ok(found), Err(MemberError::Torn), Ok(FrameDetections::default())],
        }));
    }

    #[test]
    fn a_malformed_detection_is_skipped_and_the_others_stay() {
        let good = Detection {
            bbox: Rect { x1: 0.1, y1: 0.1, x2: 0.2, y2: 0.2 },
            score: 0.5,
            class_id: 1,
            track: TrackId(0),
        };
        let bad = Detection { score: f32::NAN, ..good };
        let wide = Detection { bbox: Rect { x2: 7.0, ..good.bbox }, ..good };
        let keypoint = |detection| Keypoint { detection, kind: 0, x: 0.5, y: 0.5, score: 1.0 };
        let found = FrameDetections {
            detections: vec![bad, good, wide],
            keypoints: vec![keypoint(0), keypoint(1), keypoint(9)],
            masks: vec![],
        };
        let reply = Reply { batch: 1, times: StageTimes::default(), outcomes: vec![Ok(found)] };
        let mut encoder = Encoder::default();
        let bytes = RunnerMessage::Reply(reply).encode(&mut encoder).to_vec();
        let Ok(RunnerMessage::Reply(reply)) = RunnerMessage::decode(&bytes) else { panic!() };
        let found = reply.outcomes[0].as_ref().unwrap();
        assert_eq!(found.detections, [good]);
        assert_eq!(found.keypoints, [keypoint(0)]);
    }

    #[test]
    fn values_outside_their_bounds_are_refused() {
        let mut encoder = Encoder::default();
        let mut refuse = |message: Prepare, field: &str| {
            let bytes = RunnerMessage::Prepare(message).encode(&mut encoder).to_vec();
            let error = RunnerMessage::decode(&bytes).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        };
        let good = prepare_message();
        refuse(Prepare { members: vec![], ..good.clone() }, "prepare.members");
        let broken = Member { camera: 1, ..member() };
        refuse(Prepare { members: vec![broken], ..good.clone() }, "member.camera");
        let broken = Member { parameters: Some(1), ..member() };
        refuse(Prepare { members: vec![broken], ..good.clone() }, "member.parameters");
        let region = Rect { x1: -0.1, ..Rect::WHOLE };
        refuse(Prepare { members: vec![Member { region, ..member() }], ..good.clone() }, "region");
        let json = "x".repeat(5000);
        let parameters = vec![ParameterSet { id: "a".into(), json }];
        refuse(Prepare { parameters, ..good }, "prepare.parameters");
    }

    #[test]
    fn another_protocol_is_refused() {
        let mut encoder = Encoder::default();
        let mut bytes = RunnerMessage::Revoke { batch: 1 }.encode(&mut encoder).to_vec();
        bytes[4..8].copy_from_slice(b"VASE");
        let error = RunnerMessage::decode(&bytes).unwrap_err();
        assert_eq!(error, WireError::Identifier { expected: "VASR" });
        assert!(RunnerMessage::decode(&[]).is_err());
    }
}
