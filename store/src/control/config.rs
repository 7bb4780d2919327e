//! Rows of the configuration file: it wins for the fields it names, at each start.

use super::{Assignment, AssignmentId, Control, ControlWrite, Created, Device, JsonObject, Model};
use super::{Source, Stream};
use crate::error::StoreError;
use base::{CameraId, ModelId};
use std::collections::BTreeSet;

/// Everything that the configuration says of the registry.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConfigRows {
    /// Cameras.
    pub devices: Vec<ConfigDevice>,
    /// Models.
    pub models: Vec<ConfigModel>,
    /// Assignments.
    pub assignments: Vec<ConfigAssignment>,
}

/// A camera of the configuration. `None` = it does not name the field: a new row takes the
/// default, an old one keeps what it has.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of Device")]
pub struct ConfigDevice {
    pub id: CameraId,
    pub name: Option<String>,
    pub description: Option<String>,
    pub location: Option<String>,
    pub streams: Option<Vec<Stream>>,
    pub loop_offset_ms: Option<u64>,
    pub record: Option<bool>,
    pub live: Option<bool>,
    pub export: Option<bool>,
    pub enabled: Option<bool>,
}

impl ConfigDevice {
    /// One that names nothing but its id.
    pub fn new(id: CameraId) -> ConfigDevice {
        ConfigDevice {
            id,
            name: None,
            description: None,
            location: None,
            streams: None,
            loop_offset_ms: None,
            record: None,
            live: None,
            export: None,
            enabled: None,
        }
    }
}

/// A model of the configuration, with what its folder says.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of Model")]
pub struct ConfigModel {
    pub id: ModelId,
    pub name: Option<String>,
    pub description: Option<String>,
    pub version: Option<String>,
    pub supported_tasks: Option<Vec<String>>,
    pub config_schema: Option<JsonObject>,
    pub deadline_ms: Option<u64>,
    pub enabled: Option<bool>,
}

impl ConfigModel {
    /// One that names nothing but its id.
    pub fn new(id: ModelId) -> ConfigModel {
        ConfigModel {
            id,
            name: None,
            description: None,
            version: None,
            supported_tasks: None,
            config_schema: None,
            deadline_ms: None,
            enabled: None,
        }
    }
}

/// An assignment of the configuration. When the camera has the model already, that row is meant,
/// whatever its id.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of Assignment")]
pub struct ConfigAssignment {
    pub id: AssignmentId,
    pub camera: CameraId,
    pub model: ModelId,
    pub parent_model: Option<ModelId>,
    pub desired_fps: Option<f64>,
    pub priority: Option<u8>,
    pub max_regions: Option<u32>,
    pub deadline_ms: Option<u64>,
    pub parameters: Option<JsonObject>,
    pub enabled: Option<bool>,
}

impl ConfigAssignment {
    /// One that names nothing but the pair; its id is `<camera>.<model>`.
    pub fn new(camera: CameraId, model: ModelId) -> ConfigAssignment {
        ConfigAssignment {
            // Both parts are at most 64 characters of the same alphabet.
            id: AssignmentId(format!("{camera}.{model}").into()),
            camera,
            model,
            parent_model: None,
            desired_fps: None,
            priority: None,
            max_regions: None,
            deadline_ms: None,
            parameters: None,
            enabled: None,
        }
    }
}

/// What an upsert changed, as `device cam1`, `model nano`, `assignment cam1.nano`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Rows that are new.
    pub added: Vec<String>,
    /// Rows that differ from before.
    pub updated: Vec<String>,
    /// Rows that are gone from the configuration.
    pub disabled: Vec<String>,
}

impl Changes {
    /// Whether all is as before.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }

    fn note<T: PartialEq>(&mut self, what: String, before: Option<&T>, after: &T) {
        match before {
            None => self.added.push(what),
            Some(before) if before != after => self.updated.push(what),
            Some(_) => {}
        }
    }
}

impl Control {
    /// Brings the registry in line with the configuration, in one transaction: rows are added, the
    /// fields that are named are set, and rows that came from the configuration and are in it no
    /// more are disabled. Such a row is enabled again when it returns, unless the configuration
    /// says otherwise.
    ///
    /// # Errors
    /// Those of the file; nothing has changed then.
    pub fn upsert_config(&self, rows: &ConfigRows) -> Result<Changes, StoreError> {
        self.write(|write| {
            let mut changes = Changes::default();
            upsert_devices(write, &rows.devices, &mut changes)?;
            upsert_models(write, &rows.models, &mut changes)?;
            upsert_assignments(write, &rows.assignments, &mut changes)?;
            Ok(changes)
        })
    }
}

fn set<T: Clone>(field: &mut T, named: &Option<T>) {
    if let Some(value) = named {
        *field = value.clone();
    }
}

fn set_option<T: Clone>(field: &mut Option<T>, named: &Option<T>) {
    if named.is_some() {
        field.clone_from(named);
    }
}

/// A row that returns is enabled again: it was disabled for being gone, not by a person.
fn returns(enabled: &mut bool, gone: &mut bool, named: Option<bool>) {
    if *gone {
        *gone = false;
        *enabled = true;
    }
    set(enabled, &named);
}

/// A row that is in the configuration no more, the first time this is seen.
fn leaves(source: Source, enabled: &mut bool, gone: &mut bool) -> bool {
    if source != Source::Config || *gone {
        return false;
    }
    *gone = true;
    *enabled = false;
    true
}

fn upsert_devices(
    write: &mut ControlWrite<'_>,
    rows: &[ConfigDevice],
    changes: &mut Changes,
) -> Result<(), StoreError> {
    let mut named = BTreeSet::new();
    for row in rows {
        named.insert(&row.id);
        let before = write.device(&row.id)?;
        let mut device =
            before.clone().unwrap_or_else(|| Device::new(row.id.clone(), Source::Config));
        device.source = Source::Config;
        set(&mut device.name, &row.name);
        set_option(&mut device.description, &row.description);
        set_option(&mut device.location, &row.location);
        set(&mut device.streams, &row.streams);
        set(&mut device.loop_offset_ms, &row.loop_offset_ms);
        set(&mut device.record, &row.record);
        set(&mut device.live, &row.live);
        set(&mut device.export, &row.export);
        returns(&mut device.enabled, &mut device.gone, row.enabled);
        let after = write.put_device(device)?;
        changes.note(format!("device {}", row.id), before.as_ref(), &after);
    }
    for mut device in write.devices()? {
        if !named.contains(&device.id)
            && leaves(device.source, &mut device.enabled, &mut device.gone)
        {
            changes.disabled.push(format!("device {}", device.id));
            write.put_device(device)?;
        }
    }
    Ok(())
}

fn upsert_models(
    write: &mut ControlWrite<'_>,
    rows: &[ConfigModel],
    changes: &mut Changes,
) -> Result<(), StoreError> {
    let mut named = BTreeSet::new();
    for row in rows {
        named.insert(&row.id);
        let before = write.model(&row.id)?;
        let mut model =
            before.clone().unwrap_or_else(|| Model::new(row.id.clone(), Source::Config));
        model.source = Source::Config;
        set(&mut model.name, &row.name);
        set_option(&mut model.description, &row.description);
        set_option(&mut model.version, &row.version);
        set(&mut model.supported_tasks, &row.supported_tasks);
        set_option(&mut model.config_schema, &row.config_schema);
        set_option(&mut model.deadline_ms, &row.deadline_ms);
        returns(&mut model.enabled, &mut model.gone, row.enabled);
        let after = write.put_model(model)?;
        changes.note(format!("model {}", row.id), before.as_ref(), &after);
    }
    for mut model in write.models()? {
        if !named.contains(&model.id) && leaves(model.source, &mut model.enabled, &mut model.gone) {
            changes.disabled.push(format!("model {}", model.id));
            write.put_model(model)?;
        }
    }
    Ok(())
}

fn upsert_assignments(
    write: &mut ControlWrite<'_>,
    rows: &[ConfigAssignment],
    changes: &mut Changes,
) -> Result<(), StoreError> {
    let mut named = BTreeSet::new();
    for row in rows {
        let name = |assignment: &mut Assignment| {
            assignment.source = Source::Config;
            // Not a setting that may stay unnamed: without it the row means whole frames, and there
            // would be no way back to them.
            assignment.parent_model.clone_from(&row.parent_model);
            set_option(&mut assignment.desired_fps, &row.desired_fps);
            set_option(&mut assignment.priority, &row.priority);
            set_option(&mut assignment.max_regions, &row.max_regions);
            set_option(&mut assignment.deadline_ms, &row.deadline_ms);
            set_option(&mut assignment.parameters, &row.parameters);
            returns(&mut assignment.enabled, &mut assignment.gone, row.enabled);
        };
        let before = write.assignment_of(&row.camera, &row.model)?;
        let after = match &before {
            Some(before) => write.update_assignment(&before.id, name)?,
            None => {
                let (id, camera, model) = (row.id.clone(), row.camera.clone(), row.model.clone());
                let mut new = Assignment::new(id, camera, model, Source::Config);
                name(&mut new);
                match write.create_assignment(new)? {
                    Created::New(row) | Created::Existing(row) => Some(row),
                }
            }
        };
        if let Some(after) = after {
            changes.note(format!("assignment {}", after.id), before.as_ref(), &after);
            named.insert(after.id);
        }
    }
    for assignment in write.assignments()? {
        let mut gone = assignment.clone();
        if !named.contains(&assignment.id) && leaves(gone.source, &mut gone.enabled, &mut gone.gone)
        {
            changes.disabled.push(format!("assignment {}", assignment.id));
            write.update_assignment(&assignment.id, |row| *row = gone)?;
        }
    }
    Ok(())
}
