//! Rows of the control file as bytes: a version byte, then JSON. Types of the disk only; keys that
//! a newer program added are ignored, keys that are missing take their default.

use super::{Assignment, AssignmentId, Device, JsonObject, Model, Source, Stream};
use crate::record::RecordError;
use base::{CameraId, ModelId, UtcNanos};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Version that is written.
const VERSION: u8 = 1;

/// What is kept under an id.
pub(crate) trait Row: Clone + PartialEq + Sized {
    /// What it is called in messages.
    const WHAT: &'static str;
    fn key(&self) -> &str;
    fn to_bytes(&self) -> Vec<u8>;
    fn from_bytes(key: &str, bytes: &[u8]) -> Result<Self, RecordError>;
    fn created_at(&self) -> UtcNanos;
    /// Sets the times that the store keeps.
    fn set_times(&mut self, created_at: UtcNanos, updated_at: Option<UtcNanos>);
    fn updated_at(&self) -> Option<UtcNanos>;
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SourceRow {
    Config,
    Api,
}

impl From<Source> for SourceRow {
    fn from(source: Source) -> SourceRow {
        match source {
            Source::Config => SourceRow::Config,
            Source::Api => SourceRow::Api,
        }
    }
}

impl From<SourceRow> for Source {
    fn from(source: SourceRow) -> Source {
        match source {
            SourceRow::Config => Source::Config,
            SourceRow::Api => Source::Api,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct StreamRow {
    name: String,
    url: String,
    #[serde(default)]
    transport: String,
    #[serde(default)]
    roles: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct DeviceRow {
    name: String,
    description: Option<String>,
    location: Option<String>,
    streams: Vec<StreamRow>,
    #[serde(default)]
    loop_offset_ms: u64,
    record: bool,
    live: bool,
    export: bool,
    enabled: bool,
    source: SourceRow,
    #[serde(default)]
    gone: bool,
    created_at: u64,
    updated_at: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct ModelRow {
    name: String,
    description: Option<String>,
    version: Option<String>,
    supported_tasks: Vec<String>,
    config_schema: Option<JsonObject>,
    deadline_ms: Option<u64>,
    enabled: bool,
    source: SourceRow,
    #[serde(default)]
    gone: bool,
    created_at: u64,
    updated_at: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct AssignmentRow {
    camera: String,
    model: String,
    parent_model: Option<String>,
    desired_fps: Option<f64>,
    priority: Option<u8>,
    #[serde(default)]
    max_regions: Option<u32>,
    deadline_ms: Option<u64>,
    parameters: Option<JsonObject>,
    enabled: bool,
    source: SourceRow,
    #[serde(default)]
    gone: bool,
    created_at: u64,
    updated_at: Option<u64>,
}

pub(crate) fn json_to_bytes(row: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    // Writing to a Vec can't fail, and no type here has a key that is not text.
    serde_json::to_writer(&mut bytes, row).expect("a row is JSON");
    bytes
}

pub(crate) fn json_from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    match bytes.split_first() {
        Some((&VERSION, json)) => {
            serde_json::from_slice(json).map_err(|e| RecordError::Row(e.to_string()))
        }
        Some((&version, _)) => Err(RecordError::Version(version)),
        None => Err(RecordError::Short { field: "version", bytes: 0 }),
    }
}

fn id<T: FromStr<Err: ToString>>(text: &str) -> Result<T, RecordError> {
    text.parse().map_err(|e: T::Err| RecordError::Row(e.to_string()))
}

fn nanos(utc: Option<UtcNanos>) -> Option<u64> {
    utc.map(|utc| utc.0)
}

macro_rules! times {
    () => {
        fn created_at(&self) -> UtcNanos {
            self.created_at
        }
        fn updated_at(&self) -> Option<UtcNanos> {
            self.updated_at
        }
        fn set_times(&mut self, created_at: UtcNanos, updated_at: Option<UtcNanos>) {
            self.created_at = created_at;
            self.updated_at = updated_at;
        }
    };
}

impl Row for Device {
    const WHAT: &'static str = "device";
    times!();

    fn key(&self) -> &str {
        self.id.as_str()
    }

    fn to_bytes(&self) -> Vec<u8> {
        let stream = |s: &Stream| StreamRow {
            name: s.name.clone(),
            url: s.url.clone(),
            transport: s.transport.clone(),
            roles: s.roles.clone(),
        };
        json_to_bytes(&DeviceRow {
            name: self.name.clone(),
            description: self.description.clone(),
            location: self.location.clone(),
            streams: self.streams.iter().map(stream).collect(),
            loop_offset_ms: self.loop_offset_ms,
            record: self.record,
            live: self.live,
            export: self.export,
            enabled: self.enabled,
            source: self.source.into(),
            gone: self.gone,
            created_at: self.created_at.0,
            updated_at: nanos(self.updated_at),
        })
    }

    fn from_bytes(key: &str, bytes: &[u8]) -> Result<Device, RecordError> {
        let row: DeviceRow = json_from_bytes(bytes)?;
        let stream = |s: StreamRow| Stream {
            name: s.name,
            url: s.url,
            transport: s.transport,
            roles: s.roles,
        };
        Ok(Device {
            id: id::<CameraId>(key)?,
            name: row.name,
            description: row.description,
            location: row.location,
            streams: row.streams.into_iter().map(stream).collect(),
            loop_offset_ms: row.loop_offset_ms,
            record: row.record,
            live: row.live,
            export: row.export,
            enabled: row.enabled,
            source: row.source.into(),
            gone: row.gone,
            created_at: UtcNanos(row.created_at),
            updated_at: row.updated_at.map(UtcNanos),
        })
    }
}

impl Row for Model {
    const WHAT: &'static str = "model";
    times!();

    fn key(&self) -> &str {
        self.id.as_str()
    }

    fn to_bytes(&self) -> Vec<u8> {
        json_to_bytes(&ModelRow {
            name: self.name.clone(),
            description: self.description.clone(),
            version: self.version.clone(),
            supported_tasks: self.supported_tasks.clone(),
            config_schema: self.config_schema.clone(),
            deadline_ms: self.deadline_ms,
            enabled: self.enabled,
            source: self.source.into(),
            gone: self.gone,
            created_at: self.created_at.0,
            updated_at: nanos(self.updated_at),
        })
    }

    fn from_bytes(key: &str, bytes: &[u8]) -> Result<Model, RecordError> {
        let row: ModelRow = json_from_bytes(bytes)?;
        Ok(Model {
            id: id::<ModelId>(key)?,
            name: row.name,
            description: row.description,
            version: row.version,
            supported_tasks: row.supported_tasks,
            config_schema: row.config_schema,
            deadline_ms: row.deadline_ms,
            enabled: row.enabled,
            source: row.source.into(),
            gone: row.gone,
            created_at: UtcNanos(row.created_at),
            updated_at: row.updated_at.map(UtcNanos),
        })
    }
}

impl Row for Assignment {
    const WHAT: &'static str = "assignment";
    times!();

    fn key(&self) -> &str {
        self.id.as_str()
    }

    fn to_bytes(&self) -> Vec<u8> {
        json_to_bytes(&AssignmentRow {
            camera: self.camera.to_string(),
            model: self.model.to_string(),
            parent_model: self.parent_model.as_ref().map(ModelId::to_string),
            desired_fps: self.desired_fps,
            priority: self.priority,
            max_regions: self.max_regions,
            deadline_ms: self.deadline_ms,
            parameters: self.parameters.clone(),
            enabled: self.enabled,
            source: self.source.into(),
            gone: self.gone,
            created_at: self.created_at.0,
            updated_at: nanos(self.updated_at),
        })
    }

    fn from_bytes(key: &str, bytes: &[u8]) -> Result<Assignment, RecordError> {
        let row: AssignmentRow = json_from_bytes(bytes)?;
        Ok(Assignment {
            id: id::<AssignmentId>(key)?,
            camera: id::<CameraId>(&row.camera)?,
            model: id::<ModelId>(&row.model)?,
            parent_model: row.parent_model.map(|m| id::<ModelId>(&m)).transpose()?,
            desired_fps: row.desired_fps,
            priority: row.priority,
            max_regions: row.max_regions,
            deadline_ms: row.deadline_ms,
            parameters: row.parameters,
            enabled: row.enabled,
            source: row.source.into(),
            gone: row.gone,
            created_at: UtcNanos(row.created_at),
            updated_at: row.updated_at.map(UtcNanos),
        })
    }
}
