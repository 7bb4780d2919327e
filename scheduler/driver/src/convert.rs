//! Messages and desired state to the core's types and back. The one place that knows both.

use crate::parameters::{Numbering, Parameters};
use base::limits::{
    ASSIGNMENT_ID_CHARS_MAX, DEADLINE_MS_RANGE, MAX_FPS_RANGE, MAX_REGIONS_RANGE, SUBSCRIPTIONS_MAX,
};
use base::{CameraId, InstanceId, ModelId};
use ipc::desired::{DesiredState, DesiredSubscription};
use ipc::events_message as out;
use ipc::runner_message::{Hello, Member, Prepare, RunnerMessage};
use scheduler::{
    BatchId, Binding, Desired, Input, Ledger, Report, RunnerInfo, RunnerKey, RunnerState,
    Scheduler, SubscriptionSpec, SubscriptionState,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Refused subscriptions that are told one by one (chosen: a page of a log).
const REFUSED_TOLD: usize = 20;

/// The desired state as the core takes it. What can't be a subscription is named in `refused`.
///
/// The file is foreign: whatever it says, nobody but the subscription that it says it of is harmed.
pub(crate) fn desired(
    state: &DesiredState,
    numbering: &mut Numbering<'_>,
    refused: &mut Vec<String>,
) -> Desired {
    let enabled: BTreeMap<&str, bool> =
        state.cameras.iter().map(|c| (c.id.as_str(), c.enabled)).collect();
    let most = state.subscriptions.len().min(SUBSCRIPTIONS_MAX);
    let (first, beyond) = state.subscriptions.split_at(most);
    let mut subscriptions = Vec::with_capacity(most);
    let mut untold = 0;
    for s in first {
        match subscription(s, numbering) {
            Ok(mut spec) => {
                spec.enabled &= enabled.get(s.camera.as_str()).copied().unwrap_or(false);
                subscriptions.push(spec);
            }
            Err(_) if refused.len() >= REFUSED_TOLD => untold += 1,
            Err(problem) => refused.push(format!("subscription {}: {problem}", shown(&s.id))),
        }
    }
    if untold > 0 {
        refused.push(format!("{untold} more subscriptions are refused"));
    }
    if let Some(s) = beyond.first() {
        refused.push(format!(
            "subscription {} and {} after it are beyond the {SUBSCRIPTIONS_MAX} of a node; remove \
             assignments",
            shown(&s.id),
            beyond.len() - 1
        ));
    }
    Desired { revision: state.revision, subscriptions }
}

/// As much of an id as a line has room for.
fn shown(id: &str) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    id.chars().map(plain).take(ASSIGNMENT_ID_CHARS_MAX).collect()
}

/// One subscription, or why it can't be one.
fn subscription(
    s: &DesiredSubscription,
    numbering: &mut Numbering<'_>,
) -> Result<SubscriptionSpec, String> {
    let bad_id = |error: base::IdError| error.to_string();
    if s.id.len() > ASSIGNMENT_ID_CHARS_MAX {
        let bytes = s.id.len();
        return Err(format!("its id has {bytes} bytes, allowed are {ASSIGNMENT_ID_CHARS_MAX}"));
    }
    let camera = CameraId::new(&s.camera).map_err(bad_id)?;
    let model = ModelId::new(&s.model).map_err(bad_id)?;
    let parent = s.parent_model.as_deref().map(ModelId::new).transpose().map_err(bad_id)?;
    if parent.as_ref() == Some(&model) {
        return Err(format!(
            "model {model} can't look at its own detections; name another parent_model"
        ));
    }
    let (low, high) = MAX_FPS_RANGE;
    if let Some(fps) = s.max_fps.filter(|fps| !(low..=high).contains(fps)) {
        return Err(format!("max_fps {fps} is not {low} to {high}"));
    }
    let (low, high) = DEADLINE_MS_RANGE;
    if let Some(ms) = s.deadline_ms.filter(|ms| !(low..=high).contains(ms)) {
        return Err(format!("deadline_ms {ms} is not {low} to {high}"));
    }
    let (low, high) = MAX_REGIONS_RANGE;
    if !(low..=high).contains(&s.max_regions) {
        return Err(format!("max_regions {} is not {low} to {high}", s.max_regions));
    }
    Ok(SubscriptionSpec {
        id: s.id.clone(),
        camera,
        model,
        parent,
        max_fps: s.max_fps,
        weight: ipc::desired::weight(s.priority),
        deadline: s.deadline_ms.map(Duration::from_millis),
        parameters: numbering.number(&s.parameters_id, &s.parameters)?,
        regions_max: s.max_regions,
        enabled: s.enabled,
    })
}

/// What a runner said of itself, for the core.
pub(crate) fn runner_info(hello: &Hello) -> RunnerInfo {
    RunnerInfo {
        instance: hello.instance,
        model: hello.model_id.clone(),
        device: hello.device.clone(),
        gpu: hello.gpu,
        batch_max: hello.batch_max,
        deadline: hello.deadline,
        latency: hello.latency.clone(),
    }
}

/// A runner's message as an input. `None`: only schedulers send it.
pub(crate) fn input(runner: RunnerKey, message: RunnerMessage) -> Option<Input> {
    Some(match message {
        RunnerMessage::Prepared { batch, .. } => Input::Prepared { runner, batch: BatchId(batch) },
        RunnerMessage::Executed { batch, granted, executed, .. } => {
            Input::Executed { runner, batch: BatchId(batch), granted, executed }
        }
        RunnerMessage::Reply(reply) => Input::Reply {
            runner,
            batch: BatchId(reply.batch),
            times: reply.times,
            outcomes: reply.outcomes,
        },
        RunnerMessage::ProfileRequest { sizes } => Input::ProfileRequest { runner, sizes },
        RunnerMessage::ProfileDone { batch_size, samples } => {
            Input::ProfileDone { runner, batch_size, samples }
        }
        RunnerMessage::Table(table) => Input::Table { runner, table },
        RunnerMessage::Hello(_)
        | RunnerMessage::Welcome(_)
        | RunnerMessage::Prepare(_)
        | RunnerMessage::Grant { .. }
        | RunnerMessage::Revoke { .. }
        | RunnerMessage::ProfileGrant { .. } => return None,
    })
}

/// A launch as a message. Each camera and parameter set is named once.
pub(crate) fn prepare(
    scheduler: &impl Fn(scheduler::CameraKey) -> CameraId,
    parameters: &Parameters,
    batch: BatchId,
    lease: Option<Duration>,
    bindings: &[Binding],
) -> RunnerMessage {
    let mut keys: Vec<scheduler::CameraKey> = Vec::with_capacity(bindings.len());
    let mut numbers: Vec<u32> = Vec::new();
    let index = |list: &mut Vec<u32>, number: u32| {
        list.iter().position(|n| *n == number).unwrap_or_else(|| {
            list.push(number);
            list.len() - 1
        }) as u32
    };
    let members = bindings
        .iter()
        .map(|b| {
            let camera = keys.iter().position(|k| *k == b.camera).unwrap_or_else(|| {
                keys.push(b.camera);
                keys.len() - 1
            });
            Member {
                camera: camera as u32,
                generation: b.stamp.generation,
                frame_id: b.stamp.frame_id,
                slot: b.stamp.slot,
                region: b.region,
                parent: b.parent,
                parameters: (b.parameters > 0).then(|| index(&mut numbers, b.parameters)),
            }
        })
        .collect();
    RunnerMessage::Prepare(Prepare {
        batch: batch.0,
        cameras: keys.into_iter().map(scheduler).collect(),
        members,
        parameters: numbers.iter().filter_map(|n| parameters.get(*n)).cloned().collect(),
        lease,
    })
}

/// One result as serve gets it.
pub(crate) fn result(
    scheduler: &Scheduler,
    binding: &Binding,
    sequence: u64,
    received: base::Instant,
    stages: base::Stages,
    outcome: scheduler::Outcome,
) -> out::ResultItem {
    let stamp = &binding.stamp;
    out::ResultItem {
        camera: scheduler.camera_id(binding.camera).clone(),
        subscription: scheduler.subscription_id(binding.subscription).unwrap_or_default().into(),
        sequence,
        parent: binding.parent,
        region: binding.region,
        generation: stamp.generation,
        frame_id: stamp.frame_id,
        slot: stamp.slot,
        size: stamp.size,
        media: stamp.info.media,
        flags: stamp.info.flags,
        capture: stamp.info.capture,
        capture_utc: stamp.info.capture_utc,
        received,
        stages,
        outcome,
    }
}

pub(crate) fn runner_state(state: RunnerState) -> out::RunnerState {
    match state {
        RunnerState::Ready => out::RunnerState::Ready,
        RunnerState::Profiling => out::RunnerState::Profiling,
        RunnerState::Late => out::RunnerState::Late,
        RunnerState::Demoted => out::RunnerState::Demoted,
        RunnerState::Hung => out::RunnerState::Hung,
    }
}

fn ledger(l: &Ledger, in_flight: u64, pending: u64) -> out::Ledger {
    out::Ledger {
        observed: l.observed,
        gated: l.gated,
        superseded: l.superseded,
        unserved_parked: l.unserved_parked,
        unserved_no_runner: l.unserved_no_runner,
        unserved_paused: l.unserved_paused,
        unserved_gap: l.unserved_gap,
        expired: l.expired,
        crowded: l.crowded,
        bound: l.bound,
        sampled: l.sampled,
        torn: l.torn,
        errors: l.errors,
        revoked: l.revoked,
        expired_late: l.expired_late,
        lost_with_runner: l.lost_with_runner,
        in_flight,
        pending,
    }
}

/// A report of the core as serve gets it, as the first and only page.
pub(crate) fn status(
    report: Report,
    instance: InstanceId,
    now: base::Instant,
    results_dropped: u64,
) -> out::Status {
    let subscriptions = report.subscriptions.into_iter().map(|s| out::SubscriptionStatus {
        ledger: ledger(&s.ledger, s.in_flight, s.pending),
        id: s.id,
        camera: s.camera,
        model_id: s.model,
        state: match s.state {
            SubscriptionState::Active => out::SubscriptionState::Active,
            SubscriptionState::NoFrames => out::SubscriptionState::NoFrames,
            SubscriptionState::NoRunner => out::SubscriptionState::NoRunner,
            SubscriptionState::Parked => out::SubscriptionState::Parked,
            SubscriptionState::Paused => out::SubscriptionState::Paused,
        },
        max_fps: s.max_fps,
        granted_fps: s.granted_fps,
        reason: s.reason.to_owned(),
    });
    let cameras = report.cameras.into_iter().map(|c| out::CameraStatus {
        id: c.id,
        absent: c.absent.map_or("", base::Absent::as_str).to_owned(),
        generation: c.generation,
        newest: c.newest,
        fps: c.fps,
    });
    let runners = report.runners.into_iter().map(|r| out::RunnerStatus {
        model_id: r.model,
        device: r.device,
        instance: r.instance,
        state: runner_state(r.state),
        batches: r.batches,
        members: r.members,
        busy: r.busy,
        stage_sums: r.stage_sums,
        latency: r.latency,
        batch_size: r.batch_size,
        batch_planned: r.batch_planned,
        interval: r.interval,
        steered: r.steered,
    });
    let devices = report.devices.into_iter().map(|d| out::DeviceStatus {
        id: d.id,
        suspect: d.suspect,
        busy: d.busy,
        load: d.load,
        overloaded: d.overloaded,
    });
    out::Status {
        instance,
        now,
        desired_revision: report.revision,
        subscriptions: subscriptions.collect(),
        cameras: cameras.collect(),
        runners: runners.collect(),
        devices: devices.collect(),
        results_dropped,
        page: 0,
        more: false,
        broken: report.broken,
        desired_epoch: base::Epoch::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{FrameFlags, FrameId, FrameInfo, Generation, Instant, MediaTime, Rect, Size};
    use base::{Stages, Stamp, UtcNanos};
    use scheduler::{CameraKey, Config, SubscriptionKey};

    const CROP: Rect = Rect { x1: 0.25, y1: 0.125, x2: 0.5, y2: 0.75 };

    /// `faces` looks at what `people` finds at the gate.
    fn state() -> DesiredState {
        let json = r#"{"format": 1, "revision": 3, "written_utc": "",
            "cameras": [{"id": "gate", "enabled": true, "streams": []}],
            "subscriptions": [
                {"id": "a", "camera": "gate", "model": "people", "max_fps": 5.0, "enabled": true},
                {"id": "b", "camera": "gate", "model": "faces", "parent_model": "people",
                 "max_fps": null, "parameters": {"classes": [0]}, "parameters_id": "p",
                 "enabled": true}]}"#;
        serde_json::from_str(json).unwrap()
    }

    /// What the core is told of a state, and what is refused.
    fn taken(state: &DesiredState, parameters: &mut Parameters) -> (Desired, Vec<String>) {
        let (mut numbering, mut refused) = (parameters.number_anew(), Vec::new());
        let desired = desired(state, &mut numbering, &mut refused);
        numbering.release();
        (desired, refused)
    }

    fn binding(region: Rect, parent: u64) -> Binding {
        let now = Instant(1_000);
        let info = FrameInfo {
            media: MediaTime(90),
            capture: now,
            capture_utc: UtcNanos(5),
            decode_start: now,
            flags: FrameFlags::default(),
        };
        let size = Size { width: 768, height: 576 };
        let (generation, frame_id) = (Generation(7), FrameId(12));
        let stamp = Stamp { generation, frame_id, slot: 3, slots: 9, size, published: now, info };
        let (subscription, camera) = (SubscriptionKey(1), CameraKey(0));
        Binding { subscription, camera, stamp, region, parent, parameters: 1, first: true }
    }

    #[test]
    fn a_second_stage_keeps_its_parent_from_the_desired_state_on() {
        let (desired, refused) = taken(&state(), &mut Parameters::default());
        assert!(refused.is_empty(), "{refused:?}");
        let parents: Vec<_> = desired.subscriptions.iter().map(|s| s.parent.clone()).collect();
        assert_eq!(parents, [None, Some("people".parse().unwrap())]);
    }

    #[test]
    fn a_model_does_not_look_at_its_own_detections() {
        let mut state = state();
        state.subscriptions[1].parent_model = Some("faces".into());
        let (desired, refused) = taken(&state, &mut Parameters::default());
        assert_eq!(desired.subscriptions.len(), 1);
        assert!(refused[0].contains("model faces can't look at its own detections"), "{refused:?}");
        state.subscriptions[1].parent_model = Some("no such/id".into());
        let (_, refused) = taken(&state, &mut Parameters::default());
        assert!(refused[0].starts_with("subscription b: "), "{refused:?}");
    }

    #[test]
    fn the_weight_is_that_of_the_priority_whatever_the_file_says_of_it() {
        let weights = |priority: u8| {
            let mut text = serde_json::to_value(state()).unwrap();
            text["subscriptions"][0]["priority"] = priority.into();
            for foreign in [1e300, 1e-200, -1.0, 0.0] {
                text["subscriptions"][0]["weight"] = foreign.into();
                let state: DesiredState = serde_json::from_value(text.clone()).unwrap();
                let (desired, refused) = taken(&state, &mut Parameters::default());
                assert!(refused.is_empty(), "{refused:?}");
                assert_eq!(desired.subscriptions[0].weight, ipc::desired::weight(priority));
            }
            ipc::desired::weight(priority)
        };
        assert_eq!([0, 50, 100, 255].map(weights), [0.25, 1.0, 4.0, 4.0]);
    }

    #[test]
    fn what_can_not_be_a_subscription_is_refused_by_name_and_the_others_go_on() {
        type Change = fn(&mut DesiredSubscription);
        let changes: [(Change, &str); 7] = [
            (|s| s.id = "x".repeat(161), "its id has 161 bytes, allowed are 160"),
            (|s| s.camera = "no such/id".into(), "camera id"),
            (|s| s.max_fps = Some(1e9), "max_fps 1000000000 is not 0.1 to 30"),
            (|s| s.deadline_ms = Some(u64::MAX), "deadline_ms 18446744073709551615 is not 1 to"),
            (|s| s.max_regions = 65, "max_regions 65 is not 1 to 64"),
            (|s| s.max_regions = 0, "max_regions 0 is not 1 to 64"),
            (|s| s.parameters = serde_json::json!([1]), "parameters are a list, must be an object"),
        ];
        for (change, part) in changes {
            let mut state = state();
            change(&mut state.subscriptions[1]);
            let (desired, refused) = taken(&state, &mut Parameters::default());
            assert_eq!(desired.subscriptions.len(), 1);
            assert_eq!(refused.len(), 1);
            assert!(refused[0].contains(part), "{refused:?}");
        }
    }

    #[test]
    fn more_subscriptions_than_a_node_has_are_refused_in_one_line() {
        let mut state = state();
        let one = state.subscriptions.remove(0);
        state.subscriptions = vec![one.clone(); SUBSCRIPTIONS_MAX];
        let named = |id: &str| DesiredSubscription { id: id.into(), ..one.clone() };
        state.subscriptions.extend([named("beyond"), named("further")]);
        let (desired, refused) = taken(&state, &mut Parameters::default());
        assert_eq!(desired.subscriptions.len(), SUBSCRIPTIONS_MAX);
        assert_eq!(refused.len(), 1);
        assert!(refused[0].starts_with("subscription beyond and 1 after it are"), "{refused:?}");
        // A file full of mistakes is not a log full of lines.
        state.subscriptions.iter_mut().for_each(|s| s.model = "no such/id".into());
        let (_, refused) = taken(&state, &mut Parameters::default());
        assert_eq!(refused.len(), REFUSED_TOLD + 2);
        assert_eq!(refused[REFUSED_TOLD], "99980 more subscriptions are refused");
    }

    #[test]
    fn crops_of_a_frame_are_members_of_their_own_and_name_camera_and_parameters_once() {
        let mut parameters = Parameters::default();
        taken(&state(), &mut parameters);
        let other = Rect { x1: 0.5, x2: 1.0, ..CROP };
        let bindings = [binding(CROP, 41), binding(other, 41)];
        let name = |_: CameraKey| "gate".parse().unwrap();
        let message = prepare(&name, &parameters, BatchId(2), None, &bindings);
        let RunnerMessage::Prepare(sent) = message else { panic!("{message:?}") };
        assert_eq!((sent.cameras.len(), sent.parameters.len()), (1, 1));
        let members: Vec<_> = sent
            .members
            .iter()
            .map(|m| (m.frame_id.0, m.slot, m.region, m.parent, m.parameters))
            .collect();
        assert_eq!(members, [(12, 3, CROP, 41, Some(0)), (12, 3, other, 41, Some(0))]);
    }

    #[test]
    fn a_result_says_what_was_looked_at_and_whose_detection_that_was() {
        let mut core = Scheduler::new(Config::default());
        let (desired, _) = taken(&state(), &mut Parameters::default());
        core.handle(Instant(1), Input::Desired(desired));
        let binding = binding(CROP, 41);
        let (received, stages) = (Instant(2_000), Stages::default());
        let item = result(&core, &binding, 42, received, stages, Ok(Default::default()));
        assert_eq!((item.sequence, item.parent, item.region), (42, 41, CROP));
        assert_eq!((item.camera.as_str(), &*item.subscription), ("gate", "b"));
        assert_eq!((item.capture_utc, item.frame_id), (UtcNanos(5), FrameId(12)));
    }
}
