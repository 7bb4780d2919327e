//! From what is stored to what should run: checks every assignment against cameras and registry
//! and derives the desired state. Pure.

use crate::canonical;
use crate::registry::Registry;
use base::limits::{DEADLINE_DEFAULT, MAX_FPS_RANGE, PARAMETERS_BYTES_MAX};
use ipc::desired::{DecodeMode, DesiredCamera, DesiredState, DesiredStream, DesiredSubscription};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;
use store::control::{Assignment, Device};

/// Deadlines that an assignment may ask for: a frame at 1000 fps to a minute (chosen).
const DEADLINE_MS: RangeInclusive<u64> = 1..=60_000;

/// What should run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Every camera, disabled ones too; not those gone from the configuration.
    pub cameras: Vec<DesiredCamera>,
    /// Every assignment that is not rejected.
    pub subscriptions: Vec<DesiredSubscription>,
    /// Why each other assignment is rejected, by its id.
    pub rejected: BTreeMap<String, String>,
}

impl Plan {
    /// Plans `assignments` on `cameras`. Without `export_enabled` nothing is decoded, and the
    /// subscriptions stand ready.
    pub fn new(
        cameras: &[Device],
        assignments: &[Assignment],
        registry: &Registry,
        export_enabled: bool,
    ) -> Plan {
        let mut plan = Plan { cameras: vec![], subscriptions: vec![], rejected: BTreeMap::new() };
        let known: BTreeSet<&str> =
            cameras.iter().filter(|c| !c.gone).map(|c| c.id.as_str()).collect();
        let mut deadlines: BTreeMap<&str, Duration> = BTreeMap::new();
        for assignment in in_order_of_parents(assignments.iter().filter(|a| !a.gone)) {
            match check(assignment, &known, registry, &plan.subscriptions) {
                Ok((subscription, deadline)) => {
                    let longest = deadlines.entry(assignment.camera.as_str()).or_default();
                    *longest = deadline.max(*longest);
                    plan.subscriptions.push(subscription);
                }
                Err(reason) => {
                    plan.rejected.insert(assignment.id.to_string(), reason);
                }
            }
        }
        plan.subscriptions.sort_by(|a, b| a.id.cmp(&b.id));
        for camera in cameras.iter().filter(|c| !c.gone) {
            let id = camera.id.as_str();
            let watched = plan.subscriptions.iter().any(|s| s.enabled && s.camera == id);
            let deadline = deadlines.get(id).copied().unwrap_or(DEADLINE_DEFAULT);
            plan.cameras.push(desired_camera(camera, export_enabled, watched, deadline));
        }
        plan.cameras.sort_by(|a, b| a.id.cmp(&b.id));
        plan
    }

    /// Whether `state` says the same, whatever its revision and time.
    pub fn matches(&self, state: &DesiredState) -> bool {
        state.cameras == self.cameras && state.subscriptions == self.subscriptions
    }
}

/// Models that look at whole frames first, then those that look at their detections, and so on;
/// last those whose parent never comes.
fn in_order_of_parents<'a>(
    assignments: impl Iterator<Item = &'a Assignment>,
) -> Vec<&'a Assignment> {
    let mut ordered = Vec::new();
    let mut placed: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut rest: Vec<&Assignment> = assignments.collect();
    while !rest.is_empty() {
        let (ready, waiting): (Vec<_>, Vec<_>) = rest.into_iter().partition(|a| {
            let parent = a.parent_model.as_ref();
            parent.is_none_or(|p| placed.contains(&(a.camera.as_str(), p.as_str())))
        });
        if ready.is_empty() {
            ordered.extend(waiting);
            break;
        }
        placed.extend(ready.iter().map(|a| (a.camera.as_str(), a.model.as_str())));
        ordered.extend(ready);
        rest = waiting;
    }
    ordered
}

fn check(
    assignment: &Assignment,
    cameras: &BTreeSet<&str>,
    registry: &Registry,
    accepted: &[DesiredSubscription],
) -> Result<(DesiredSubscription, Duration), String> {
    let camera = &assignment.camera;
    if !cameras.contains(camera.as_str()) {
        return Err(format!("camera `{camera}` is unknown; add it or correct the name"));
    }
    let (model, spec) = registry.assignable(assignment.model.as_str())?;
    if let Some(parent) = &assignment.parent_model
        && !accepted.iter().any(|s| s.camera == camera.as_str() && s.model == parent.as_str())
    {
        return Err(format!(
            "parent model `{parent}` does not run on camera `{camera}`; assign it there first"
        ));
    }
    let (least, most) = MAX_FPS_RANGE;
    if let Some(fps) = assignment.desired_fps.filter(|fps| !(least..=most).contains(fps)) {
        return Err(format!("desired_fps is {fps}, allowed are {least} to {most}"));
    }
    if let Some(priority) = assignment.priority.filter(|priority| *priority > 100) {
        return Err(format!("priority is {priority}, allowed are 0 to 100"));
    }
    if let Some(deadline) = assignment.deadline_ms.filter(|ms| !DEADLINE_MS.contains(ms)) {
        let (least, most) = (DEADLINE_MS.start(), DEADLINE_MS.end());
        return Err(format!("deadline_ms is {deadline}, allowed are {least} to {most}"));
    }
    let parameters = assignment.parameters.clone().map_or(Value::Null, Value::Object);
    let bytes = parameters.to_string().len();
    if bytes > PARAMETERS_BYTES_MAX {
        return Err(format!(
            "parameters are {bytes} bytes of JSON, allowed are {PARAMETERS_BYTES_MAX}"
        ));
    }
    // A schema with required keys speaks about absent parameters too.
    let spoken = assignment.parameters.clone().unwrap_or_default();
    let problems = model.parameter_problems(&Value::Object(spoken));
    if !problems.is_empty() {
        let told: Vec<String> = problems.iter().take(5).map(ToString::to_string).collect();
        return Err(told.join("; "));
    }
    let priority = assignment.priority.unwrap_or(50);
    let subscription = DesiredSubscription {
        id: assignment.id.to_string(),
        camera: camera.to_string(),
        model: assignment.model.to_string(),
        parent_model: assignment.parent_model.as_ref().map(ToString::to_string),
        max_fps: assignment.desired_fps,
        priority,
        weight: ipc::desired::weight(priority),
        deadline_ms: assignment.deadline_ms,
        parameters_id: canonical::id(&parameters),
        parameters,
        enabled: assignment.enabled,
    };
    Ok((subscription, assignment.deadline_ms.map_or(spec.deadline, Duration::from_millis)))
}

fn desired_camera(
    camera: &Device,
    export_enabled: bool,
    watched: bool,
    deadline: Duration,
) -> DesiredCamera {
    let full = export_enabled && camera.export && camera.enabled && watched;
    let stream = |stream: &store::control::Stream| DesiredStream {
        name: stream.name.clone(),
        url: stream.url.clone(),
        transport: stream.transport.clone(),
        roles: stream.roles.clone(),
    };
    DesiredCamera {
        id: camera.id.to_string(),
        enabled: camera.enabled,
        streams: camera.streams.iter().map(stream).collect(),
        loop_offset_ms: camera.loop_offset_ms,
        record: camera.record,
        live: camera.live,
        decode: if full { DecodeMode::Full } else { DecodeMode::Off },
        deadline_ms: deadline.as_millis() as u64,
    }
}
