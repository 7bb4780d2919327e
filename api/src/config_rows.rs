//! Cameras and assignments as the configuration file names them, before they are checked against
//! the registry. `vas` fills them, [`crate::serve()`] upserts them into the store.

use base::{CameraId, ModelId};
use std::collections::BTreeSet;

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
    /// Second stage: regions of one frame that are looked at at most, 1 to 64; default 16.
    pub max_regions: Option<u32>,
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
            max_regions: None,
            deadline_ms: None,
            parameters: None,
            enabled: None,
        }
    }
}

/// The files that the configuration itself names, each for one camera. Whoever writes vas.toml may
/// name any file; what comes over HTTP may not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedFiles(BTreeSet<(CameraId, String)>);

impl NamedFiles {
    /// Those of some rows.
    pub fn of(rows: &[CameraRow]) -> NamedFiles {
        let urls = |row: &CameraRow| [Some(row.main_url.clone()), row.sub_url.clone()];
        let named = rows.iter().flat_map(|row| {
            urls(row).into_iter().flatten().map(|url| (row.id.clone(), url)).collect::<Vec<_>>()
        });
        NamedFiles(named.filter(|(_, url)| is_file(url)).collect())
    }

    /// Whether the configuration names this URL of a file for this camera.
    pub fn has(&self, camera: &CameraId, url: &str) -> bool {
        self.0.contains(&(camera.clone(), url.to_owned()))
    }
}

/// Whether a stored URL is that of a file.
pub fn is_file(url: &str) -> bool {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_none_or(|scheme| scheme.eq_ignore_ascii_case("file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_for_its_camera_only() {
        let id = |text: &str| text.parse::<CameraId>().unwrap();
        let mut yard = CameraRow::new(id("yard"), "file:///data/yard.mp4");
        yard.sub_url = Some("FILE:///data/small.mp4".into());
        let mut front = CameraRow::new(id("front"), "rtsp://h/1");
        front.sub_url = Some("file:///data/front.mp4".into());
        let named = NamedFiles::of(&[yard, front]);
        assert!(named.has(&id("yard"), "file:///data/yard.mp4"));
        assert!(named.has(&id("yard"), "FILE:///data/small.mp4"));
        assert!(named.has(&id("front"), "file:///data/front.mp4"));
        assert!(!named.has(&id("front"), "file:///data/yard.mp4"), "that of another camera");
        assert!(!named.has(&id("front"), "rtsp://h/1"), "no file");
        assert!(!named.has(&id("yard"), "file:///etc/passwd"));
    }

    #[test]
    fn what_ingest_takes_for_a_file_is_one() {
        for file in ["file:///a.mp4", "FILE:///a.mp4", "/a.mp4", "a.mp4", ""] {
            assert!(is_file(file), "{file}");
        }
        for other in ["rtsp://h/1", "RTSP://h/1", "filer://h", "rtsp://h/file:///x"] {
            assert!(!is_file(other), "{other}");
        }
    }
}
