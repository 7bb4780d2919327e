//! A configuration as text: `vas config show`. What it prints is itself a valid configuration with
//! the same meaning.

use super::{Config, EXPORT_VARIABLE};
use std::fmt::{self, Display};
use std::path::Path;

impl Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => writeln!(f, "# effective configuration, from {}", file.display())?,
            None => writeln!(f, "# effective configuration: the defaults, no file was found")?,
        }
        writeln!(f, "\n[http]")?;
        writeln!(f, "bind = {}  # address:port, loopback only", quoted(self.bind))?;
        let directories = &self.directories;
        writeln!(f, "\n[dirs]")?;
        writeln!(f, "shm = {}  # frame rings, on a tmpfs", path(&directories.shm))?;
        writeln!(f, "runtime = {}  # sockets and locks, 0700", path(&directories.runtime))?;
        writeln!(f, "state = {}  # events, desired state", path(&directories.state))?;
        writeln!(f, "\n[frame_export]")?;
        let enabled = self.frame_export;
        writeln!(f, "enabled = {enabled}  # {EXPORT_VARIABLE} overrides it")?;
        writeln!(f, "\n[events]")?;
        let store_empty = self.store_empty;
        writeln!(f, "store_empty = {store_empty}  # store results without detections too")?;
        writeln!(f, "retention = \"{}d\"  # whole days", self.retention_days)?;
        writeln!(f, "\n[runner]")?;
        match &self.onnxruntime {
            Some(library) => writeln!(f, "onnxruntime = {}", path(library))?,
            None => writeln!(f, "# onnxruntime: ORT_DYLIB_PATH, then the cache folder")?,
        }
        for camera in &self.cameras {
            writeln!(f, "\n[[camera]]")?;
            writeln!(f, "id = {}", quoted(&camera.id))?;
            let texts = [
                ("name", &camera.name),
                ("description", &camera.description),
                ("location", &camera.location),
            ];
            for (key, text) in texts {
                if let Some(text) = text {
                    writeln!(f, "{key} = {}", quoted(text))?;
                }
            }
            writeln!(f, "main_url = {}", quoted(&camera.main_url))?;
            let export = quoted(camera.export.as_str());
            writeln!(f, "export = {export}  # decode: assigned, keyframes or always")?;
            writeln!(f, "loop_offset_ms = {}  # where the clip starts", camera.loop_offset_ms)?;
            writeln!(f, "enabled = {}", camera.enabled)?;
        }
        for model in &self.models {
            writeln!(f, "\n[[model]]")?;
            writeln!(f, "dir = {}", path(&model.dir))?;
            writeln!(f, "device = {}", quoted(&model.device))?;
        }
        for assignment in &self.assignments {
            writeln!(f, "\n[[assignment]]")?;
            writeln!(f, "camera = {}", quoted(&assignment.camera))?;
            writeln!(f, "model = {}", quoted(&assignment.model))?;
            match assignment.desired_fps {
                Some(fps) => writeln!(f, "desired_fps = {fps}  # at most, frames per second")?,
                None => writeln!(f, "# desired_fps: every frame")?,
            }
            writeln!(f, "priority = {}  # 0 to 100, 25 more doubles the share", assignment.priority)?;
            match assignment.deadline_ms {
                Some(deadline) => writeln!(f, "deadline_ms = {deadline}")?,
                None => writeln!(f, "# deadline_ms: the model's")?,
            }
            if let Some(parameters) = &assignment.parameters {
                writeln!(f, "parameters = {}", inline(parameters))?;
            }
            writeln!(f, "enabled = {}", assignment.enabled)?;
        }
        Ok(())
    }
}

fn quoted(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn path(path: &Path) -> String {
    quoted(path.display())
}

/// JSON as a TOML value on one line.
fn inline(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        // TOML has no null; `Section::json` never makes one.
        Value::Null => quoted(""),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", "))
        }
        Value::Object(table) => {
            let entries = table.iter().map(|(k, v)| format!("{} = {}", quoted(k), inline(v)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}
