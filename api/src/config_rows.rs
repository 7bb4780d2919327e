//! Cameras and assignments as the configuration file names them, before they are checked against
//! the registry. `vas` fills them, [`crate::serve()`] upserts them into the store.

use base::{CameraId, ModelId};

/// One `[[camera]]`. What is `None` is not named: the stored value stays, or the default is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraRow {
    /// Id.
    pub id: CameraId,
    /// Name for people; default the id.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Where it hangs.
    pub location: Option<String>,
    /// `rtsp://...` or `file:///absolute/path`.
    pub main_url: String,
    /// A smaller stream of the same camera.
    pub sub_url: Option<String>,
    /// Of `record`, `live`, `detect` those that the smaller stream is for; default `detect`. When named,
    /// the main one has the rest.
    pub sub_roles: Option<Vec<String>>,
    /// `tcp` or `udp` for RTSP; default `tcp`. Without meaning for files.
    pub transport: Option<String>,
    /// Whether it should run at all; default true.
    pub enabled: Option<bool>,
    /// Whether its frames may be decoded into the ring for models; the export switch of the node
    /// must be on as well. Default true.
    pub export: Option<bool>,
    /// File cameras: where in the loop the camera starts, milliseconds; default 0.
    pub loop_offset_ms: Option<u64>,
    /// Recording wanted; default false.
    pub record: Option<bool>,
    /// Live view wanted; default true.
    pub live: Option<bool>,
}

impl CameraRow {
    /// A camera of which only id and address are named.
    pub fn new(id: CameraId, main_url: impl Into<String>) -> Self {
        CameraRow {
            id,
            name: None,
            description: None,
            location: None,
            main_url: main_url.into(),
            sub_url: None,
            sub_roles: None,
            transport: None,
            enabled: None,
            export: None,
            loop_offset_ms: None,
            record: None,
            live: None,
        }
    }
}

/// One `[[assignment]]`: a model on a camera. When either does not exist, the assignment is
/// rejected with the reason and the rest goes on. What is `None` is not named, as for cameras.
#[derive(Debug, Clone, PartialEq)]
pub struct AssignmentRow {
    /// Camera id.
    pub camera: CameraId,
    /// Model id.
    pub model: ModelId,
    /// The model whose detections it looks at; default none: it looks at whole frames.
    pub parent_model: Option<ModelId>,
    /// Ceiling in frames per second, 0.1 to 30; default none: every frame.
    pub desired_fps: Option<f64>,
    /// 0 to 100; default 50.
    pub priority: Option<u8>,
    /// Overrides the model's deadline, milliseconds.
    pub deadline_ms: Option<u64>,
    /// For the model, checked against its config_schema.
    pub parameters: Option<serde_json::Map<String, serde_json::Value>>,
    /// Whether it should run; default true.
    pub enabled: Option<bool>,
}

impl AssignmentRow {
    /// An assignment of which only camera and model are named.
    pub fn new(camera: CameraId, model: ModelId) -> Self {
        AssignmentRow {
            camera,
            model,
            parent_model: None,
            desired_fps: None,
            priority: None,
            deadline_ms: None,
            parameters: None,
            enabled: None,
        }
    }
}
