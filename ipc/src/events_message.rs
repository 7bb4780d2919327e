//! Messages from the scheduler to serve: `schema/events.fbs` as plain types.

use crate::generated::vas::wire as fb;
use crate::runner_message::{Encoder, Outcome};
use crate::wire::{self, WireError};
use base::{CameraId, DeviceId, Epoch, FrameFlags, FrameId, Generation, InstanceId, Instant};
use base::{LatencyTable, MediaTime, ModelId, Rect, Size, Stages, UtcNanos};
use flatbuffers::{FlatBufferBuilder, WIPOffset};
use std::sync::Arc;
use std::time::Duration;

/// One answered frame or region of one subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultItem {
    /// The camera.
    pub camera: CameraId,
    /// Id of the subscription, as desired state names it.
    pub subscription: Arc<str>,
    /// Counts up by one per result of this scheduler instance.
    pub sequence: u64,
    /// Sequence of the result whose detection is looked at, 0 = none. Of the same scheduler
    /// instance, camera and frame.
    pub parent: u64,
    /// What of the frame was looked at.
    pub region: Rect,
    /// Generation of the ring.
    pub generation: Generation,
    /// The frame.
    pub frame_id: FrameId,
    /// The slot that held it.
    pub slot: u32,
    /// Size of the frame in pixels.
    pub size: Size,
    /// Place on the camera's media timeline.
    pub media: MediaTime,
    /// Flags of the frame.
    pub flags: FrameFlags,
    /// When the frame's last packet arrived.
    pub capture: Instant,
    /// The same moment in UTC: the event's timestamp.
    pub capture_utc: UtcNanos,
    /// When the scheduler had the reply. Age = `received - capture`.
    pub received: Instant,
    /// The age, taken apart.
    pub stages: Stages,
    /// Detections or why there are none.
    pub outcome: Outcome,
}

/// The results of one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// The scheduler's life.
    pub instance: InstanceId,
    /// The model.
    pub model_id: ModelId,
    /// Its version.
    pub model_version: String,
    /// The device that executed the batch.
    pub device: DeviceId,
    /// Id of the batch.
    pub batch: u64,
    /// One per member with an outcome.
    pub results: Vec<ResultItem>,
}

/// Where every frame of a camera went, for one subscription. docs/ledger in ARCHITECTURE.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the fields are the words of the ledger, defined in the glossary")]
pub struct Ledger {
    pub observed: u64,
    pub gated: u64,
    pub superseded: u64,
    pub unserved_parked: u64,
    pub unserved_no_runner: u64,
    pub unserved_paused: u64,
    pub unserved_gap: u64,
    pub expired: u64,
    pub bound: u64,
    pub sampled: u64,
    pub torn: u64,
    /// Frame, engine, postprocess, parameters, request.
    pub errors: [u64; 5],
    pub revoked: u64,
    pub expired_late: u64,
    pub lost_with_runner: u64,
    pub in_flight: u64,
    /// Observed but not yet decided: the newest id; of a second stage the regions of one frame.
    pub pending: u64,
    /// Regions beyond those that the second stage looks at of one frame.
    pub crowded: u64,
}

impl Ledger {
    /// Whether every observed frame and every bound frame is in exactly one place.
    pub fn balanced(&self) -> bool {
        let observed = self.gated
            + self.superseded
            + self.unserved_parked
            + self.unserved_no_runner
            + self.unserved_paused
            + self.unserved_gap
            + self.expired
            + self.crowded
            + self.bound
            + self.pending;
        let bound = self.sampled
            + self.torn
            + self.errors.iter().sum::<u64>()
            + self.revoked
            + self.expired_late
            + self.lost_with_runner
            + self.in_flight;
        self.observed == observed && self.bound == bound
    }
}

/// What a subscription does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionState {
    /// Frames are bound.
    Active,
    /// Its camera has no frames.
    NoFrames,
    /// No runner of its model is connected.
    NoRunner,
    /// Its runner hangs.
    Parked,
    /// Disabled by the operator.
    Paused,
}

/// One subscription, once per second.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscriptionStatus {
    /// Id, as desired state names it.
    pub id: String,
    /// Camera.
    pub camera: CameraId,
    /// Model.
    pub model_id: ModelId,
    /// What it does.
    pub state: SubscriptionState,
    /// Ceiling; `None` = every frame.
    pub max_fps: Option<f64>,
    /// What the scheduler gives now.
    pub granted_fps: f64,
    /// Why granted is below the ceiling; empty = it is not.
    pub reason: String,
    /// Where its frames went.
    pub ledger: Ledger,
}

/// One camera, once per second.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraStatus {
    /// Id.
    pub id: CameraId,
    /// Why there are no frames; empty = there are.
    pub absent: String,
    /// Generation of the ring.
    pub generation: Generation,
    /// Newest frame.
    pub newest: FrameId,
    /// Measured rate of published frames, 0 = unknown.
    pub fps: f64,
}

/// What a runner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerState {
    /// Takes batches.
    Ready,
    /// Measures L(b).
    Profiling,
    /// Overran its lease; no Prepare until its late reply comes.
    Late,
    /// Takes batches within its own budget only, after a lease was overrun.
    Demoted,
    /// Overran the hang limit; refused until it is gone.
    Hung,
}

/// One runner, once per second.
#[derive(Debug, Clone, PartialEq)]
pub struct RunnerStatus {
    /// Model.
    pub model_id: ModelId,
    /// Device.
    pub device: DeviceId,
    /// Its life.
    pub instance: InstanceId,
    /// What it does.
    pub state: RunnerState,
    /// Batches answered.
    pub batches: u64,
    /// Members answered.
    pub members: u64,
    /// Device time of all batches.
    pub busy: Duration,
    /// Sums over all answered members, in the order of [`Stages::NAMES`].
    pub stage_sums: [Duration; 9],
    /// L(b).
    pub latency: LatencyTable,
    /// Largest batch that pays.
    pub batch_size: u32,
    /// Members of a batch as planned.
    pub batch_planned: f64,
    /// Planned time between two launches.
    pub interval: Duration,
    /// Whether frames are chosen to land before a launch.
    pub steered: bool,
}

/// One device, once per second.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceStatus {
    /// Id.
    pub id: DeviceId,
    /// A runner hung on it.
    pub suspect: bool,
    /// Time granted and used.
    pub busy: Duration,
    /// Wanted share of the device with the largest batches in time; above 1 is overload for sure.
    pub load: f64,
    /// More is wanted than there is.
    pub overloaded: bool,
}

/// Invariants of the core, in the order of [`Status::broken`].
pub const INVARIANTS: [&str; 5] = ["token", "in_flight", "tag", "gate", "ledger"];

/// Once per second, in pages: a page has up to [`base::limits::STATUS_PAGE`] subscriptions and
/// cameras, the first one also all else. Pages of one status have the same `now`; without one of
/// them the others are worth nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The scheduler's life.
    pub instance: InstanceId,
    /// When it was taken.
    pub now: Instant,
    /// Revision of the desired state in force, 0 = none yet.
    pub desired_revision: u64,
    /// All subscriptions.
    pub subscriptions: Vec<SubscriptionStatus>,
    /// All cameras.
    pub cameras: Vec<CameraStatus>,
    /// All runners that are connected or hang.
    pub runners: Vec<RunnerStatus>,
    /// All devices.
    pub devices: Vec<DeviceStatus>,
    /// Results that did not reach serve: it was away or slow.
    pub results_dropped: u64,
    /// Number of the page, from 0.
    pub page: u32,
    /// Another page follows.
    pub more: bool,
    /// How often each of [`INVARIANTS`] was broken. Any but 0 is a fault of the scheduler.
    pub broken: [u64; INVARIANTS.len()],
    /// Registry of the desired state in force.
    pub desired_epoch: Epoch,
}

/// One runner's description, on connect and on change.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// Model.
    pub model_id: ModelId,
    /// Its version.
    pub model_version: String,
    /// Device.
    pub device: DeviceId,
    /// Class names, index = class id.
    pub labels: Vec<String>,
    /// Size of the model's input in pixels.
    pub input: Size,
    /// Largest batch of the engine.
    pub batch_max: u32,
    /// The model's deadline.
    pub deadline: Duration,
    /// What the runner does.
    pub state: RunnerState,
    /// What it runs on, for people.
    pub runtime: String,
}

/// Every message of the protocol.
#[derive(Debug, Clone, PartialEq)]
pub enum EventsMessage {
    /// Results of one batch.
    Results(Results),
    /// Status of everything, once per second.
    Status(Status),
    /// All connected runners, on connect and on change.
    Models {
        /// The scheduler's life.
        instance: InstanceId,
        /// Descriptions.
        models: Vec<ModelInfo>,
    },
}

fn ns(duration: Duration) -> u64 {
    base::time::nanos(duration)
}

fn runner_state_to_wire(state: RunnerState) -> fb::RunnerState {
    match state {
        RunnerState::Ready => fb::RunnerState::Ready,
        RunnerState::Profiling => fb::RunnerState::Profiling,
        RunnerState::Late => fb::RunnerState::Late,
        RunnerState::Demoted => fb::RunnerState::Demoted,
        RunnerState::Hung => fb::RunnerState::Hung,
    }
}

fn runner_state(state: fb::RunnerState) -> Result<RunnerState, WireError> {
    Ok(match state {
        fb::RunnerState::Ready => RunnerState::Ready,
        fb::RunnerState::Profiling => RunnerState::Profiling,
        fb::RunnerState::Late => RunnerState::Late,
        fb::RunnerState::Demoted => RunnerState::Demoted,
        fb::RunnerState::Hung => RunnerState::Hung,
        other => return Err(WireError::value("runner.state", other.0, "0 to 4")),
    })
}

fn subscription_state_to_wire(state: SubscriptionState) -> fb::SubscriptionState {
    match state {
        SubscriptionState::Active => fb::SubscriptionState::Active,
        SubscriptionState::NoFrames => fb::SubscriptionState::NoFrames,
        SubscriptionState::NoRunner => fb::SubscriptionState::NoRunner,
        SubscriptionState::Parked => fb::SubscriptionState::Parked,
        SubscriptionState::Paused => fb::SubscriptionState::Paused,
    }
}

fn subscription_state(state: fb::SubscriptionState) -> Result<SubscriptionState, WireError> {
    Ok(match state {
        fb::SubscriptionState::Active => SubscriptionState::Active,
        fb::SubscriptionState::NoFrames => SubscriptionState::NoFrames,
        fb::SubscriptionState::NoRunner => SubscriptionState::NoRunner,
        fb::SubscriptionState::Parked => SubscriptionState::Parked,
        fb::SubscriptionState::Paused => SubscriptionState::Paused,
        other => return Err(WireError::value("subscription.state", other.0, "0 to 4")),
    })
}

impl EventsMessage {
    /// The message as bytes, without the length prefix. Valid until the next call.
    pub fn encode<'e>(&self, encoder: &'e mut Encoder) -> &'e [u8] {
        let b = &mut encoder.builder;
        b.reset();
        let (kind, body) = match self {
            EventsMessage::Results(m) => {
                let results: Vec<_> = m.results.iter().map(|r| result_to_wire(b, r)).collect();
                let args = fb::ResultsArgs {
                    instance: m.instance.0,
                    model_id: Some(b.create_string(m.model_id.as_str())),
                    model_version: Some(b.create_string(&m.model_version)),
                    device: Some(b.create_string(m.device.as_str())),
                    batch: m.batch,
                    results: Some(b.create_vector(&results)),
                };
                (fb::EventsBody::Results, fb::Results::create(b, &args).as_union_value())
            }
            EventsMessage::Status(m) => {
                (fb::EventsBody::Status, status_to_wire(b, m).as_union_value())
            }
            EventsMessage::Models { instance, models } => {
                let models: Vec<_> = models.iter().map(|m| model_to_wire(b, m)).collect();
                let models = Some(b.create_vector(&models));
                let args = fb::ModelsArgs { instance: instance.0, models };
                (fb::EventsBody::Models, fb::Models::create(b, &args).as_union_value())
            }
        };
        let args = fb::EventsMessageArgs { body_type: kind, body: Some(body) };
        let root = fb::EventsMessage::create(b, &args);
        fb::finish_events_message_buffer(b, root);
        b.finished_data()
    }

    /// Checks foreign bytes and converts them.
    ///
    /// # Errors
    /// [`WireError`] says what is wrong; the connection should be closed.
    pub fn decode(bytes: &[u8]) -> Result<EventsMessage, WireError> {
        if bytes.len() < 8 || !fb::events_message_buffer_has_identifier(bytes) {
            return Err(WireError::Identifier { expected: fb::EVENTS_MESSAGE_IDENTIFIER });
        }
        let root = flatbuffers::root_with_opts::<fb::EventsMessage>(&wire::verifier(), bytes)
            .map_err(|e| WireError::Malformed(e.to_string()))?;
        let missing = || WireError::value("body", root.body_type().0, "a message of protocol 1");
        Ok(match root.body_type() {
            fb::EventsBody::Results => {
                EventsMessage::Results(results(root.body_as_results().ok_or_else(missing)?)?)
            }
            fb::EventsBody::Status => {
                EventsMessage::Status(status(root.body_as_status().ok_or_else(missing)?)?)
            }
            fb::EventsBody::Models => {
                let m = root.body_as_models().ok_or_else(missing)?;
                let models: Result<Vec<_>, _> = m.models().iter().map(model).collect();
                EventsMessage::Models { instance: InstanceId(m.instance()), models: models? }
            }
            _ => return Err(missing()),
        })
    }
}

fn result_to_wire<'a>(
    b: &mut FlatBufferBuilder<'a>,
    r: &ResultItem,
) -> WIPOffset<fb::FrameResult<'a>> {
    let [t, d, w, c, g, p, e, o, y] = r.stages.as_array().map(ns);
    let stages = fb::Stages::new(t, d, w, c, g, p, e, o, y);
    let Rect { x1, y1, x2, y2 } = r.region;
    let region = fb::Region::new(x1, y1, x2, y2);
    let mut args = fb::FrameResultArgs {
        camera: Some(b.create_string(r.camera.as_str())),
        subscription: Some(b.create_string(&r.subscription)),
        sequence: r.sequence,
        parent: r.parent,
        generation: r.generation.0,
        frame_id: r.frame_id.0,
        slot: r.slot,
        width: r.size.width,
        height: r.size.height,
        flags: r.flags.0,
        media: r.media.0,
        capture_ns: r.capture.0,
        capture_utc_ns: r.capture_utc.0,
        received_ns: r.received.0,
        stages: Some(&stages),
        region: (r.region != Rect::WHOLE).then_some(&region),
        ..Default::default()
    };
    match &r.outcome {
        Ok(found) => {
            let found = wire::found_to_wire(b, found);
            args.detections = found.detections;
            args.keypoints = found.keypoints;
            args.masks = found.masks;
        }
        Err(error) => args.error = wire::error_to_wire(*error),
    }
    fb::FrameResult::create(b, &args)
}

fn results(m: fb::Results<'_>) -> Result<Results, WireError> {
    if m.results().len() > base::limits::BATCH_MAX as usize {
        return Err(WireError::value("results", m.results().len(), "at most 256"));
    }
    let results: Result<Vec<_>, _> = m.results().iter().map(result).collect();
    Ok(Results {
        instance: InstanceId(m.instance()),
        model_id: wire::id("results.model_id", m.model_id())?,
        model_version: m.model_version().to_owned(),
        device: wire::id("results.device", m.device())?,
        batch: m.batch(),
        results: results?,
    })
}

fn result(r: fb::FrameResult<'_>) -> Result<ResultItem, WireError> {
    let s = r.stages();
    let stages = [
        s.transport(),
        s.decode(),
        s.wait(),
        s.copy(),
        s.grant(),
        s.preprocess(),
        s.execute(),
        s.postprocess(),
        s.reply(),
    ];
    let outcome = match wire::error_from_wire(r.error())? {
        Some(error) => Err(error),
        None => Ok(wire::found_from_wire(r.detections(), r.keypoints(), r.masks())?),
    };
    let region =
        r.region().map_or(Rect::WHOLE, |r| Rect { x1: r.x1(), y1: r.y1(), x2: r.x2(), y2: r.y2() });
    if !region.valid() {
        return Err(WireError::value("result.region", format!("{region:?}"), "within 0..1"));
    }
    Ok(ResultItem {
        camera: wire::id("result.camera", r.camera())?,
        subscription: r.subscription().into(),
        sequence: r.sequence(),
        parent: r.parent(),
        region,
        generation: Generation(r.generation()),
        frame_id: FrameId(r.frame_id()),
        slot: r.slot(),
        size: Size { width: r.width(), height: r.height() },
        media: MediaTime(r.media()),
        flags: FrameFlags(r.flags()),
        capture: Instant(r.capture_ns()),
        capture_utc: UtcNanos(r.capture_utc_ns()),
        received: Instant(r.received_ns()),
        stages: Stages::from_array(stages.map(wire::duration)),
        outcome,
    })
}

fn ledger_to_wire<'a>(b: &mut FlatBufferBuilder<'a>, l: &Ledger) -> WIPOffset<fb::Ledger<'a>> {
    let args = fb::LedgerArgs {
        observed: l.observed,
        gated: l.gated,
        superseded: l.superseded,
        unserved_parked: l.unserved_parked,
        unserved_no_runner: l.unserved_no_runner,
        unserved_paused: l.unserved_paused,
        unserved_gap: l.unserved_gap,
        expired: l.expired,
        bound: l.bound,
        sampled: l.sampled,
        torn: l.torn,
        errors: Some(b.create_vector(&l.errors)),
        revoked: l.revoked,
        expired_late: l.expired_late,
        lost_with_runner: l.lost_with_runner,
        in_flight: l.in_flight,
        pending: l.pending,
        crowded: l.crowded,
    };
    fb::Ledger::create(b, &args)
}

fn ledger(l: fb::Ledger<'_>) -> Ledger {
    let mut errors = [0; 5];
    for (to, from) in errors.iter_mut().zip(l.errors().iter().flatten()) {
        *to = from;
    }
    Ledger {
        observed: l.observed(),
        gated: l.gated(),
        superseded: l.superseded(),
        unserved_parked: l.unserved_parked(),
        unserved_no_runner: l.unserved_no_runner(),
        unserved_paused: l.unserved_paused(),
        unserved_gap: l.unserved_gap(),
        expired: l.expired(),
        bound: l.bound(),
        sampled: l.sampled(),
        torn: l.torn(),
        errors,
        revoked: l.revoked(),
        expired_late: l.expired_late(),
        lost_with_runner: l.lost_with_runner(),
        in_flight: l.in_flight(),
        pending: l.pending(),
        crowded: l.crowded(),
    }
}

fn status_to_wire<'a>(b: &mut FlatBufferBuilder<'a>, m: &Status) -> WIPOffset<fb::Status<'a>> {
    let subscriptions: Vec<_> = m
        .subscriptions
        .iter()
        .map(|s| {
            let args = fb::SubscriptionStatusArgs {
                id: Some(b.create_string(&s.id)),
                camera: Some(b.create_string(s.camera.as_str())),
                model_id: Some(b.create_string(s.model_id.as_str())),
                state: subscription_state_to_wire(s.state),
                max_fps: s.max_fps.unwrap_or(0.0),
                granted_fps: s.granted_fps,
                reason: Some(b.create_string(&s.reason)),
                ledger: Some(ledger_to_wire(b, &s.ledger)),
            };
            fb::SubscriptionStatus::create(b, &args)
        })
        .collect();
    let cameras: Vec<_> = m
        .cameras
        .iter()
        .map(|c| {
            let args = fb::CameraStatusArgs {
                id: Some(b.create_string(c.id.as_str())),
                absent: Some(b.create_string(&c.absent)),
                generation: c.generation.0,
                newest_frame_id: c.newest.0,
                fps: c.fps,
            };
            fb::CameraStatus::create(b, &args)
        })
        .collect();
    let runners: Vec<_> = m
        .runners
        .iter()
        .map(|r| {
            let args = fb::RunnerStatusArgs {
                model_id: Some(b.create_string(r.model_id.as_str())),
                device: Some(b.create_string(r.device.as_str())),
                instance: r.instance.0,
                state: runner_state_to_wire(r.state),
                batches: r.batches,
                members: r.members,
                busy_ns: ns(r.busy),
                stage_sums_ns: Some(b.create_vector(&r.stage_sums.map(ns))),
                latency: Some(b.create_vector(&wire::latency_to_wire(&r.latency))),
                batch_size: r.batch_size,
                batch_planned: r.batch_planned,
                interval_ns: ns(r.interval),
                steered: r.steered,
            };
            fb::RunnerStatus::create(b, &args)
        })
        .collect();
    let devices: Vec<_> = m
        .devices
        .iter()
        .map(|d| {
            let id = Some(b.create_string(d.id.as_str()));
            let args = fb::DeviceStatusArgs {
                id,
                suspect: d.suspect,
                busy_ns: ns(d.busy),
                load: d.load,
                overloaded: d.overloaded,
            };
            fb::DeviceStatus::create(b, &args)
        })
        .collect();
    let args = fb::StatusArgs {
        instance: m.instance.0,
        now_ns: m.now.0,
        desired_revision: m.desired_revision,
        subscriptions: Some(b.create_vector(&subscriptions)),
        cameras: Some(b.create_vector(&cameras)),
        runners: Some(b.create_vector(&runners)),
        devices: Some(b.create_vector(&devices)),
        results_dropped: m.results_dropped,
        page: m.page,
        more: m.more,
        broken: Some(b.create_vector(&m.broken)),
        desired_epoch: m.desired_epoch.0,
    };
    fb::Status::create(b, &args)
}

fn status(m: fb::Status<'_>) -> Result<Status, WireError> {
    let mut subscriptions = Vec::with_capacity(m.subscriptions().len());
    for s in m.subscriptions() {
        subscriptions.push(SubscriptionStatus {
            id: s.id().to_owned(),
            camera: wire::id("subscription.camera", s.camera())?,
            model_id: wire::id("subscription.model_id", s.model_id())?,
            state: subscription_state(s.state())?,
            max_fps: (s.max_fps() > 0.0).then_some(s.max_fps()),
            granted_fps: s.granted_fps(),
            reason: s.reason().to_owned(),
            ledger: ledger(s.ledger()),
        });
    }
    let mut cameras = Vec::with_capacity(m.cameras().len());
    for c in m.cameras() {
        cameras.push(CameraStatus {
            id: wire::id("camera.id", c.id())?,
            absent: c.absent().to_owned(),
            generation: Generation(c.generation()),
            newest: FrameId(c.newest_frame_id()),
            fps: c.fps(),
        });
    }
    let mut runners = Vec::with_capacity(m.runners().len());
    for r in m.runners() {
        let mut stage_sums = [Duration::ZERO; 9];
        for (to, from) in stage_sums.iter_mut().zip(r.stage_sums_ns()) {
            *to = wire::duration(from);
        }
        runners.push(RunnerStatus {
            model_id: wire::id("runner.model_id", r.model_id())?,
            device: wire::id("runner.device", r.device())?,
            instance: InstanceId(r.instance()),
            state: runner_state(r.state())?,
            batches: r.batches(),
            members: r.members(),
            busy: wire::duration(r.busy_ns()),
            stage_sums,
            latency: wire::latency_from_wire(r.latency())?,
            batch_size: r.batch_size(),
            batch_planned: r.batch_planned(),
            interval: wire::duration(r.interval_ns()),
            steered: r.steered(),
        });
    }
    let mut devices = Vec::with_capacity(m.devices().len());
    for d in m.devices() {
        devices.push(DeviceStatus {
            id: wire::id("device.id", d.id())?,
            suspect: d.suspect(),
            busy: wire::duration(d.busy_ns()),
            load: d.load(),
            overloaded: d.overloaded(),
        });
    }
    let mut broken = [0; INVARIANTS.len()];
    for (to, from) in broken.iter_mut().zip(m.broken().iter().flatten()) {
        *to = from;
    }
    Ok(Status {
        instance: InstanceId(m.instance()),
        now: Instant(m.now_ns()),
        desired_revision: m.desired_revision(),
        subscriptions,
        cameras,
        runners,
        devices,
        results_dropped: m.results_dropped(),
        page: m.page(),
        more: m.more(),
        broken,
        desired_epoch: Epoch(m.desired_epoch()),
    })
}

fn model_to_wire<'a>(b: &mut FlatBufferBuilder<'a>, m: &ModelInfo) -> WIPOffset<fb::ModelInfo<'a>> {
    let labels: Vec<_> = m.labels.iter().map(|l| b.create_string(l)).collect();
    let args = fb::ModelInfoArgs {
        model_id: Some(b.create_string(m.model_id.as_str())),
        model_version: Some(b.create_string(&m.model_version)),
        device: Some(b.create_string(m.device.as_str())),
        labels: Some(b.create_vector(&labels)),
        input_width: m.input.width,
        input_height: m.input.height,
        batch_max: m.batch_max,
        deadline_ns: ns(m.deadline),
        state: runner_state_to_wire(m.state),
        runtime: Some(b.create_string(&m.runtime)),
    };
    fb::ModelInfo::create(b, &args)
}

fn model(m: fb::ModelInfo<'_>) -> Result<ModelInfo, WireError> {
    if m.labels().len() > base::limits::CLASSES_MAX {
        return Err(WireError::value("model.labels", m.labels().len(), "at most 16384 classes"));
    }
    Ok(ModelInfo {
        model_id: wire::id("model.model_id", m.model_id())?,
        model_version: m.model_version().to_owned(),
        device: wire::id("model.device", m.device())?,
        labels: m.labels().iter().map(str::to_owned).collect(),
        input: Size { width: m.input_width(), height: m.input_height() },
        batch_max: m.batch_max(),
        deadline: wire::duration(m.deadline_ns()),
        state: runner_state(m.state())?,
        runtime: m.runtime().to_owned(),
    })
}

#[cfg(test)]
mod tests;
