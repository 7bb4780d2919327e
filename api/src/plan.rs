//! From what is stored to what should run: checks every assignment against cameras and registry
//! and derives the desired state. Pure.

use crate::canonical;
use crate::config_rows::NamedFiles;
use crate::registry::Registry;
use base::ModelId;
use base::limits::{
    DEADLINE_DEFAULT, DEADLINE_MS_RANGE, MAX_FPS_RANGE, MAX_REGIONS_DEFAULT, MAX_REGIONS_RANGE,
    PARAMETERS_BYTES_MAX, SUBSCRIPTIONS_MAX,
};
use ipc::desired::{DecodeMode, DesiredCamera, DesiredState, DesiredStream, DesiredSubscription};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use store::control::{Assignment, Device};

/// What should run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Every camera, disabled ones too; not those gone from the configuration.
    pub cameras: Vec<DesiredCamera>,
    /// Every assignment that is not rejected.
    pub subscriptions: Vec<DesiredSubscription>,
    /// Why each other assignment is rejected, by its id.
    pub rejected: BTreeMap<String, String>,
    /// Of the subscriptions those that can't run before their parent does, by their id, and why.
    pub waiting: BTreeMap<String, String>,
}

impl Plan {
    /// Plans `assignments` on `cameras`. Without `export_enabled` nothing is decoded, and the
    /// subscriptions stand ready. `named`: the files that may lie anywhere.
    pub fn new(
        cameras: &[Device],
        assignments: &[Assignment],
        registry: &Registry,
        export_enabled: bool,
        named: &NamedFiles,
    ) -> Plan {
        let mut plan = Plan {
            cameras: vec![],
            subscriptions: vec![],
            rejected: BTreeMap::new(),
            waiting: BTreeMap::new(),
        };
        let known: BTreeSet<&str> =
            cameras.iter().filter(|c| !c.gone).map(|c| c.id.as_str()).collect();
        let mut deadlines: BTreeMap<&str, Duration> = BTreeMap::new();
        let current = || assignments.iter().filter(|a| !a.gone);
        // Parents first: whether one is accepted decides about its second stages.
        let (first, second): (Vec<_>, Vec<_>) = current().partition(|a| a.parent_model.is_none());
        for assignment in first.into_iter().chain(second) {
            let parent = assignment.parent_model.as_ref().map_or(Ok(None), |parent| {
                parent_state(assignment, parent, assignments, registry, &plan.subscriptions)
            });
            let room = room_beside(plan.subscriptions.len());
            let checked = parent.and_then(|waits| {
                let checked = check(assignment, &known, registry)?;
                room.map(|()| (waits, checked))
            });
            match checked {
                Ok((waits, (subscription, deadline))) => {
                    plan.waiting.extend(waits.map(|reason| (subscription.id.clone(), reason)));
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
            let looks = |s: &DesiredSubscription| s.enabled && !plan.waiting.contains_key(&s.id);
            let watched = plan.subscriptions.iter().any(|s| s.camera == id && looks(s));
            let deadline = deadlines.get(id).copied().unwrap_or(DEADLINE_DEFAULT);
            plan.cameras.push(desired_camera(camera, export_enabled, watched, deadline, named));
        }
        plan.cameras.sort_by(|a, b| a.id.cmp(&b.id));
        plan
    }

    /// What a desired state says; of what was rejected when it was made it says nothing.
    pub fn of(state: &DesiredState) -> Plan {
        Plan {
            cameras: state.cameras.clone(),
            subscriptions: state.subscriptions.clone(),
            rejected: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// Whether another plan would make the same desired state.
    pub fn says_the_same(&self, other: &Plan) -> bool {
        other.cameras == self.cameras && other.subscriptions == self.subscriptions
    }

    /// Whether `state` says the same, whatever its revision and time.
    pub fn matches(&self, state: &DesiredState) -> bool {
        state.cameras == self.cameras && state.subscriptions == self.subscriptions
    }
}

/// Whether a node runs one more subscription beside those that are accepted.
fn room_beside(accepted: usize) -> Result<(), String> {
    if accepted < SUBSCRIPTIONS_MAX {
        return Ok(());
    }
    Err(format!("a node runs at most {SUBSCRIPTIONS_MAX} assignments; remove others first"))
}

/// What the assignment of a parent model means for the second stage on the same camera: nothing
/// when it runs, else why the second stage waits.
///
/// # Errors
/// Why there can be no such second stage, and what to do.
fn parent_state(
    child: &Assignment,
    parent: &ModelId,
    assignments: &[Assignment],
    registry: &Registry,
    accepted: &[DesiredSubscription],
) -> Result<Option<String>, String> {
    let camera = &child.camera;
    if *parent == child.model {
        return Err(format!(
            "model `{parent}` can't look at its own detections; name another parent model or none"
        ));
    }
    registry.assignable(parent.as_str()).map_err(|reason| format!("parent {reason}"))?;
    let Some(of_parent) = assignments.iter().find(|a| a.camera == *camera && a.model == *parent)
    else {
        return Err(format!(
            "parent model `{parent}` is not assigned to camera `{camera}`; assign it there first"
        ));
    };
    if let Some(grandparent) = &of_parent.parent_model {
        return Err(format!(
            "parent model `{parent}` itself looks at detections of `{grandparent}` on camera `{camera}`, and \
             there are two stages at most; name a parent model that looks at whole frames"
        ));
    }
    if of_parent.gone {
        return Ok(Some(format!(
            "parent model `{parent}` is not assigned to camera `{camera}` any more; assign it there again"
        )));
    }
    if !accepted.iter().any(|s| s.id == of_parent.id.as_str()) {
        return Err(format!(
            "parent model `{parent}` is rejected on camera `{camera}`; correct that assignment first"
        ));
    }
    Ok((!of_parent.enabled).then(|| {
        format!("parent model `{parent}` is disabled on camera `{camera}`; enable that assignment")
    }))
}

fn check(
    assignment: &Assignment,
    cameras: &BTreeSet<&str>,
    registry: &Registry,
) -> Result<(DesiredSubscription, Duration), String> {
    let camera = &assignment.camera;
    if !cameras.contains(camera.as_str()) {
        return Err(format!("camera `{camera}` is unknown; add it or correct the name"));
    }
    let (model, spec) = registry.assignable(assignment.model.as_str())?;
    let (least, most) = MAX_FPS_RANGE;
    if let Some(fps) = assignment.desired_fps.filter(|fps| !(least..=most).contains(fps)) {
        return Err(format!("desired_fps is {fps}, allowed are {least} to {most}"));
    }
    if let Some(priority) = assignment.priority.filter(|priority| *priority > 100) {
        return Err(format!("priority is {priority}, allowed are 0 to 100"));
    }
    let (least, most) = DEADLINE_MS_RANGE;
    if let Some(deadline) = assignment.deadline_ms.filter(|ms| !(least..=most).contains(ms)) {
        return Err(format!("deadline_ms is {deadline}, allowed are {least} to {most}"));
    }
    let (least, most) = MAX_REGIONS_RANGE;
    let max_regions = assignment.max_regions.unwrap_or(MAX_REGIONS_DEFAULT);
    if !(least..=most).contains(&max_regions) {
        return Err(format!("max_regions is {max_regions}, allowed are {least} to {most}"));
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
        return Err(problems.into_iter().take(5).collect::<Vec<String>>().join("; "));
    }
    let subscription = DesiredSubscription {
        id: assignment.id.to_string(),
        camera: camera.to_string(),
        model: assignment.model.to_string(),
        parent_model: assignment.parent_model.as_ref().map(ToString::to_string),
        max_fps: assignment.desired_fps,
        priority: assignment.priority.unwrap_or(50),
        max_regions,
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
    named: &NamedFiles,
) -> DesiredCamera {
    let full = export_enabled && camera.export && camera.enabled && watched;
    let stream = |stream: &store::control::Stream| DesiredStream {
        name: stream.name.clone(),
        url: stream.url.clone(),
        transport: stream.transport.clone(),
        roles: stream.roles.clone(),
        any_file: named.has(&camera.id, &stream.url),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_runs_as_many_assignments_as_its_scheduler_takes() {
        assert_eq!(room_beside(SUBSCRIPTIONS_MAX - 1), Ok(()));
        let error = room_beside(SUBSCRIPTIONS_MAX).unwrap_err();
        assert!(error.contains("at most 100000 assignments"), "{error}");
    }
}
