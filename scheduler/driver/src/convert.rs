//! Messages and desired state to the core's types and back. The one place that knows both.

use base::{CameraId, InstanceId, ModelId};
use ipc::desired::DesiredState;
use ipc::events_message as out;
use ipc::runner_message::{Hello, Member, ParameterSet, Prepare, RunnerMessage};
use scheduler::{
    BatchId, Binding, Desired, Input, Ledger, Report, RunnerInfo, RunnerKey, RunnerState,
    Scheduler, SubscriptionSpec, SubscriptionState,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Parameter sets by the number that the core carries; number 0 = none.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    sets: Vec<ParameterSet>,
    numbers: BTreeMap<String, u32>,
}

impl Parameters {
    fn number(&mut self, id: &str, value: &serde_json::Value) -> u32 {
        let empty = value.as_object().is_none_or(serde_json::Map::is_empty);
        if empty {
            return 0;
        }
        let json = value.to_string();
        let id = if id.is_empty() { json.clone() } else { id.to_owned() };
        if let Some(number) = self.numbers.get(&id) {
            return *number;
        }
        self.sets.push(ParameterSet { id: id.clone(), json });
        let number = self.sets.len() as u32;
        self.numbers.insert(id, number);
        number
    }

    fn get(&self, number: u32) -> Option<&ParameterSet> {
        self.sets.get((number as usize).checked_sub(1)?)
    }
}

/// The desired state as the core takes it. What can't be a subscription is named in `refused`.
pub(crate) fn desired(
    state: &DesiredState,
    parameters: &mut Parameters,
    refused: &mut Vec<String>,
) -> Desired {
    let enabled: BTreeMap<&str, bool> =
        state.cameras.iter().map(|c| (c.id.as_str(), c.enabled)).collect();
    let mut subscriptions = Vec::with_capacity(state.subscriptions.len());
    for s in &state.subscriptions {
        let ids = || -> Result<_, base::IdError> {
            let parent = s.parent_model.as_deref().map(ModelId::new).transpose()?;
            Ok((CameraId::new(&s.camera)?, ModelId::new(&s.model)?, parent))
        };
        let (camera, model, parent) = match ids() {
            Ok(ids) => ids,
            Err(error) => {
                refused.push(format!("subscription {}: {error}", s.id));
                continue;
            }
        };
        if parent.as_ref() == Some(&model) {
            refused.push(format!(
                "subscription {}: model {model} can't look at its own detections; name another \
                 parent_model",
                s.id
            ));
            continue;
        }
        let (low, high) = base::limits::MAX_FPS_RANGE;
        if s.max_fps.is_some_and(|fps| !(low..=high).contains(&fps)) {
            let fps = s.max_fps.unwrap_or_default();
            refused.push(format!("subscription {}: max_fps {fps} is not {low} to {high}", s.id));
            continue;
        }
        if !(s.weight > 0.0 && s.weight.is_finite()) {
            refused.push(format!("subscription {}: weight {} is not above 0", s.id, s.weight));
            continue;
        }
        subscriptions.push(SubscriptionSpec {
            id: s.id.clone(),
            camera,
            model,
            parent,
            max_fps: s.max_fps,
            weight: s.weight,
            deadline: s.deadline_ms.map(Duration::from_millis),
            parameters: parameters.number(&s.parameters_id, &s.parameters),
            enabled: s.enabled && enabled.get(s.camera.as_str()).copied().unwrap_or(false),
        });
    }
    Desired { revision: state.revision, subscriptions }
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
        subscription: scheduler
            .subscription_id(binding.subscription)
            .unwrap_or_default()
            .to_owned(),
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
        RunnerState::Gone => out::RunnerState::Gone,
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

/// The core's report as serve gets it.
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
    });
    let devices = report.devices.into_iter().map(|d| out::DeviceStatus {
        id: d.id,
        suspect: d.suspect,
        busy: d.busy,
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
        Binding { subscription, camera, stamp, region, parent, parameters: 1 }
    }

    #[test]
    fn a_second_stage_keeps_its_parent_from_the_desired_state_on() {
        let (mut parameters, mut refused) = (Parameters::default(), Vec::new());
        let desired = desired(&state(), &mut parameters, &mut refused);
        assert!(refused.is_empty(), "{refused:?}");
        let parents: Vec<_> = desired.subscriptions.iter().map(|s| s.parent.clone()).collect();
        assert_eq!(parents, [None, Some("people".parse().unwrap())]);
    }

    #[test]
    fn a_model_does_not_look_at_its_own_detections() {
        let mut state = state();
        state.subscriptions[1].parent_model = Some("faces".into());
        let mut refused = Vec::new();
        let desired = desired(&state, &mut Parameters::default(), &mut refused);
        assert_eq!(desired.subscriptions.len(), 1);
        assert!(refused[0].contains("model faces can't look at its own detections"), "{refused:?}");
        state.subscriptions[1].parent_model = Some("no such/id".into());
        super::desired(&state, &mut Parameters::default(), &mut refused);
        assert!(refused[1].starts_with("subscription b: "), "{refused:?}");
    }

    #[test]
    fn crops_of_a_frame_are_members_of_their_own_and_name_camera_and_parameters_once() {
        let mut parameters = Parameters::default();
        desired(&state(), &mut parameters, &mut Vec::new());
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
        let desired = desired(&state(), &mut Parameters::default(), &mut Vec::new());
        core.handle(Instant(1), Input::Desired(desired));
        let binding = binding(CROP, 41);
        let (received, stages) = (Instant(2_000), Stages::default());
        let item = result(&core, &binding, 42, received, stages, Ok(Default::default()));
        assert_eq!((item.sequence, item.parent, item.region), (42, 41, CROP));
        assert_eq!((item.camera.as_str(), item.subscription.as_str()), ("gate", "b"));
        assert_eq!((item.capture_utc, item.frame_id), (UtcNanos(5), FrameId(12)));
    }
}
