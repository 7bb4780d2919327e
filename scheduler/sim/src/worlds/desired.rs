//! Changes of the desired state.

use super::plan::Change;
use scheduler::SubscriptionSpec;

/// Makes a change. What it picks is counted round.
pub(super) fn change(desired: &mut Vec<SubscriptionSpec>, change: &Change) {
    let count = desired.len() as u64;
    let pick = |n: &u64| if count == 0 { None } else { Some((n % count) as usize) };
    let taken = |desired: &[SubscriptionSpec], spec: &SubscriptionSpec| {
        let name = |s: &SubscriptionSpec| (s.camera.clone(), s.model.clone(), s.parent.clone());
        desired.iter().any(|s| name(s) == name(spec))
    };
    match change {
        Change::Add(spec) => {
            if !taken(desired, spec) {
                desired.push(spec.clone());
            }
        }
        Change::Remove(n) => {
            if let Some(i) = pick(n) {
                desired.remove(i);
            }
        }
        Change::Reassign(n, model, id) => {
            let Some(i) = pick(n) else { return };
            let mut spec = desired[i].clone();
            spec.model = model.clone();
            spec.id = id.clone();
            if !taken(desired, &spec) {
                desired[i] = spec;
            }
        }
        Change::Ceiling(n, max_fps) => {
            if let Some(i) = pick(n) {
                desired[i].max_fps = *max_fps;
            }
        }
        Change::Enable(n, enabled) => {
            if let Some(i) = pick(n) {
                desired[i].enabled = *enabled;
            }
        }
        Change::Weight(n, weight) => {
            if let Some(i) = pick(n) {
                desired[i].weight = *weight;
            }
        }
        Change::Deadline(n, deadline) => {
            if let Some(i) = pick(n) {
                desired[i].deadline = *deadline;
            }
        }
        Change::Same => {}
    }
}
