//! The configuration's cameras, models and assignments on their way into the registry and the
//! desired state: at the start and, when the disk was full then, as soon as there is room.

use crate::camera_streams::altered;
use crate::config_rows::{AssignmentRow, CameraRow};
use crate::publish::{FollowError, PublishError, Published};
use crate::registry::{Model, Registry};
use base::{CameraId, ModelId};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use store::control::{ConfigAssignment, ConfigDevice, ConfigModel, ConfigRows, Stream};
use store::{Control, StoreError};
use tracing::{info, warn};

/// The rows of the configuration, and whether the node runs by them.
#[derive(Debug)]
pub struct Configuration {
    cameras: Vec<CameraRow>,
    assignments: Vec<AssignmentRow>,
    /// Held while it is applied.
    applying: Mutex<()>,
    /// Why it is not applied; `None` = it is.
    unapplied: Mutex<Option<String>>,
}

impl Configuration {
    /// What the configuration says; nothing is applied yet.
    pub fn new(cameras: Vec<CameraRow>, assignments: Vec<AssignmentRow>) -> Configuration {
        for line in named_twice(&assignments) {
            warn!("{line}");
        }
        let unapplied = Mutex::new(Some("serve is starting".to_owned()));
        Configuration { cameras, assignments, applying: Mutex::default(), unapplied }
    }

    fn unapplied_slot(&self) -> MutexGuard<'_, Option<String>> {
        self.unapplied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the node does not run by the configuration yet; `None` = it does.
    pub fn fault(&self) -> Option<String> {
        let reason = self.unapplied_slot().clone()?;
        Some(format!("the configuration is not applied yet: {reason}"))
    }

    /// Brings the registry in line with the configuration, and the desired state with the registry.
    /// Does nothing once that is done.
    ///
    /// # Errors
    /// Those of the registry, and [`PublishError`]: what was published before stays in force. May be
    /// called again.
    pub fn apply<E: From<StoreError> + From<PublishError>>(
        &self,
        control: &Control,
        registry: &Registry,
        published: &Published,
    ) -> Result<(), E> {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        if self.unapplied_slot().is_none() {
            return Ok(());
        }
        let upserted = self.upsert(control, registry).map_err(FollowError::from);
        let applied = upserted.and_then(|()| published.follow(control, registry));
        *self.unapplied_slot() = applied.as_ref().err().map(ToString::to_string);
        applied.map_err(|error| match error {
            FollowError::Store(error) => error.into(),
            FollowError::Publish(error) => error.into(),
        })
    }

    /// Brings the store in line with the configuration, and the registry with the store.
    fn upsert(&self, control: &Control, registry: &Registry) -> Result<(), StoreError> {
        let stored = control.devices()?;
        let streams_of = |id: &CameraId| {
            let row = stored.iter().find(|row| row.id == *id);
            row.map_or(&[][..], |row| &row.streams)
        };
        let rows = ConfigRows {
            devices: self.cameras.iter().map(|row| device_row(row, streams_of(&row.id))).collect(),
            models: registry.iter().filter_map(model_row).collect(),
            assignments: self.assignments.iter().map(assignment_row).collect(),
        };
        let changes = control.upsert_config(&rows)?;
        for (what, ids) in [
            ("added", &changes.added),
            ("updated", &changes.updated),
            ("disabled", &changes.disabled),
        ] {
            if !ids.is_empty() {
                info!("from the configuration, {what}: {}", ids.join(", "));
            }
        }
        for spec in registry.iter().filter_map(|model| model.spec.as_ref().ok()) {
            control.set_labels(&spec.model_id, &spec.version, &spec.labels)?;
        }
        let stored = control.models()?;
        registry.set_enabled(stored.iter().map(|row| (row.id.as_str(), row.enabled)));
        Ok(())
    }
}

/// A camera of the configuration, with what it does not name of its streams as it was stored.
fn device_row(row: &CameraRow, stored: &[Stream]) -> ConfigDevice {
    let before = stored.iter().find(|stream| stream.name == "sub").map(|sub| sub.url.as_str());
    // Not twice the same when the configuration takes the other one for main.
    let before = before.filter(|sub| *sub != row.main_url);
    let (sub, transport) = (row.sub_url.as_deref().or(before), row.transport.as_deref());
    let streams = altered(stored, &row.main_url, sub, transport, row.sub_roles.as_deref());
    ConfigDevice {
        name: row.name.clone(),
        description: row.description.clone(),
        location: row.location.clone(),
        streams: Some(streams),
        loop_offset_ms: row.loop_offset_ms,
        record: row.record,
        live: row.live,
        export: row.export,
        enabled: row.enabled,
        ..ConfigDevice::new(row.id.clone())
    }
}

fn model_row(model: &Model) -> Option<ConfigModel> {
    let Ok(spec) = &model.spec else {
        // Kept as it was while its folder is broken, when the name is its id.
        return Some(ConfigModel::new(model.id.parse().ok()?));
    };
    Some(ConfigModel {
        name: Some(spec.name.clone()),
        description: spec.description.clone(),
        version: Some(spec.version.clone()),
        supported_tasks: Some(spec.supported_tasks.clone()),
        config_schema: model
            .config_schema
            .as_ref()
            .and_then(|schema| schema.text().as_object().cloned()),
        deadline_ms: Some(spec.deadline.as_millis() as u64),
        enabled: model.named_enabled,
        ..ConfigModel::new(spec.model_id.clone())
    })
}

fn assignment_row(row: &AssignmentRow) -> ConfigAssignment {
    ConfigAssignment {
        parent_model: row.parent_model.clone(),
        desired_fps: row.desired_fps,
        priority: row.priority,
        max_regions: row.max_regions,
        deadline_ms: row.deadline_ms,
        parameters: row.parameters.clone(),
        enabled: row.enabled,
        ..ConfigAssignment::new(row.camera.clone(), row.model.clone())
    }
}

/// One line per camera and model that several configured assignments name.
fn named_twice(assignments: &[AssignmentRow]) -> Vec<String> {
    let mut counts: BTreeMap<(&CameraId, &ModelId), usize> = BTreeMap::new();
    for row in assignments {
        *counts.entry((&row.camera, &row.model)).or_default() += 1;
    }
    let told = |((camera, model), count): ((&CameraId, &ModelId), usize)| {
        format!(
            "{count} assignments name camera {camera} and model {model}: there is one, and what \
             several of them set is taken from the last; remove the others"
        )
    };
    counts.into_iter().filter(|(_, count)| *count > 1).map(told).collect()
}

#[cfg(test)]
mod tests;
