//! A configuration as text: `vas config show`. What it prints is itself a valid configuration with
//! the same meaning, but for the credentials of cameras, which are shown as `***` and refused when
//! they are read.

use super::{Config, EXPORT_VARIABLE, UNITS, size, source_url};
use scheduler::Steering;
use std::fmt::{self, Display};
use std::path::Path;
use std::time::Duration;

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
        let keep_free = quoted(size::shown(self.keep_free));
        writeln!(f, "keep_free = {keep_free}  # of the disk of state: below it none is stored")?;
        writeln!(f, "\n[media]")?;
        writeln!(f, "retention = \"{}d\"  # whole days", self.media.retention_days)?;
        let percent = self.media.max_percent;
        writeln!(f, "max_percent = {percent}  # of the disk of state, for snapshots and clips")?;
        let roots: Vec<String> = self.file_roots.iter().map(|root| path(root)).collect();
        writeln!(f, "\n[cameras]")?;
        writeln!(f, "file_roots = [{}]  # below them lie files named over HTTP", roots.join(", "))?;
        let recording = &self.recording;
        writeln!(f, "\n[recording]")?;
        writeln!(f, "dir = {}", path(&recording.dir))?;
        writeln!(f, "retention = \"{}d\"  # whole days", recording.retention_days)?;
        let (high, low) = (recording.disk_high_percent, recording.disk_low_percent);
        writeln!(f, "disk_high_percent = {high}  # of the disk used: the oldest go")?;
        writeln!(f, "disk_low_percent = {low}  # until no more is used")?;
        let keep = duration(recording.keep_at_least);
        writeln!(f, "keep_at_least = \"{keep}\"  # younger ones stay where others fill the disk")?;
        writeln!(f, "\n[webrtc]")?;
        writeln!(f, "udp_port = {}  # of all viewers", self.webrtc.udp_port)?;
        let announce: Vec<String> = self.webrtc.announce.iter().map(quoted).collect();
        let announce = announce.join(", ");
        writeln!(
            f,
            "announce = [{announce}]  # addresses told to viewers; none: every interface's"
        )?;
        writeln!(f, "\n[runner]")?;
        match &self.onnxruntime {
            Some(library) => writeln!(f, "onnxruntime = {}", path(library))?,
            None => writeln!(f, "# onnxruntime: ORT_DYLIB_PATH, then the cache folder")?,
        }
        writeln!(f, "threads = {}  # of one inference", self.threads)?;
        writeln!(f, "\n[scheduler]")?;
        writeln!(f, "cpu_capacity = {}  # batches at a time", self.cpu_capacity)?;
        writeln!(f, "usable_share = {}  # of every device, planned with", self.usable_share)?;
        let steering = match self.steering {
            Steering::Off => "off",
            Steering::Auto => "auto",
            Steering::On => "on",
        };
        writeln!(f, "steering = {}  # cameras in cohorts: off, auto, on", quoted(steering))?;
        for device in &self.devices {
            writeln!(f, "\n[[device]]")?;
            writeln!(f, "id = {}", quoted(&device.id))?;
            writeln!(f, "capacity = {}  # batches at a time", device.capacity)?;
            named(f, "memory_mib", device.memory_mib, "not checked")?;
            named(f, "usable_share", device.usable_share, "that of [scheduler]")?;
        }
        for camera in &self.cameras {
            writeln!(f, "\n[[camera]]")?;
            writeln!(f, "id = {}", quoted(&camera.id))?;
            writeln!(f, "main_url = {}", quoted(source_url::shown(&camera.main_url)))?;
            let sub = camera.sub_url.as_ref().map(|url| quoted(source_url::shown(url)));
            named(f, "sub_url", sub, "none")?;
            let roles = camera.sub_roles.as_ref().map(|roles| {
                let roles: Vec<String> = roles.iter().map(quoted).collect();
                format!("[{}]", roles.join(", "))
            });
            named(f, "sub_roles", roles, "[\"detect\"]")?;
            named(f, "transport", camera.transport.as_ref().map(quoted), "tcp")?;
            named(f, "name", camera.name.as_ref().map(quoted), "the id")?;
            named(f, "description", camera.description.as_ref().map(quoted), "none")?;
            named(f, "location", camera.location.as_ref().map(quoted), "none")?;
            named(f, "record", camera.record, "false")?;
            named(f, "live", camera.live, "true")?;
            named(f, "export", camera.export, "true")?;
            named(f, "loop_offset_ms", camera.loop_offset_ms, "0, where the clip starts")?;
            named(f, "enabled", camera.enabled, "true")?;
        }
        for model in &self.models {
            writeln!(f, "\n[[model]]")?;
            writeln!(f, "dir = {}", path(&model.dir))?;
            let device = model.device.as_ref().map(quoted);
            named(f, "device", device, &format!("{}, the first", self.devices[0].id))?;
        }
        for assignment in &self.assignments {
            writeln!(f, "\n[[assignment]]")?;
            writeln!(f, "camera = {}", quoted(&assignment.camera))?;
            writeln!(f, "model = {}", quoted(&assignment.model))?;
            let parent = assignment.parent_model.as_ref().map(quoted);
            named(f, "parent_model", parent, "none: whole frames")?;
            named(f, "desired_fps", assignment.desired_fps, "every frame")?;
            named(f, "priority", assignment.priority, "50; 25 more doubles the share")?;
            if assignment.parent_model.is_some() {
                named(f, "max_regions", assignment.max_regions, "16")?;
            }
            named(f, "deadline_ms", assignment.deadline_ms, "the model's")?;
            named(f, "parameters", assignment.parameters.as_ref().map(object), "the model's")?;
            named(f, "enabled", assignment.enabled, "true")?;
        }
        Ok(())
    }
}

/// A key that the file named, or as a comment what holds because it did not. The API may have
/// changed what the file does not name.
fn named(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    value: Option<impl Display>,
    default: &str,
) -> fmt::Result {
    match value {
        Some(value) => writeln!(f, "{key} = {value}"),
        None => writeln!(f, "# {key}: not named, default {default}"),
    }
}

/// A text as a TOML value.
pub fn quoted(text: impl Display) -> String {
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
        Value::Object(table) => object(table),
    }
}

fn object(table: &serde_json::Map<String, serde_json::Value>) -> String {
    let entries = table.iter().map(|(k, v)| format!("{} = {}", quoted(k), inline(v)));
    format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
}

/// As it is written: in the largest unit that is whole.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let whole = |(_, of): &&(char, u64)| seconds > 0 && seconds.is_multiple_of(*of);
    let (unit, of) = UNITS.iter().find(whole).unwrap_or(&('s', 1));
    format!("{}{unit}", seconds / of)
}
