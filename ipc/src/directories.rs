//! Where the processes of one node meet: directories and the names in them.
//!
//! Roots come from the configuration, so that several nodes (or tests) can live on one machine.

use base::{CameraId, DeviceId, ModelId};
use std::path::{Path, PathBuf};

/// The three roots of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// Rings: `<shm>/<camera>/frame.{meta,data}`. Default `/dev/shm/vas`.
    pub shm: PathBuf,
    /// Sockets and locks, mode 0700. Default `/run/vas` or `$XDG_RUNTIME_DIR/vas`.
    pub runtime: PathBuf,
    /// Events, control file, recordings, desired state. Default `./vas-data`.
    pub state: PathBuf,
}

impl Directories {
    /// The ring directory of a camera.
    pub fn ring(&self, camera: &CameraId) -> PathBuf {
        self.shm.join(camera.as_str())
    }

    /// The socket a runner listens on: `runner.<model>.<device>.sock`.
    pub fn runner_socket(&self, model: &ModelId, device: &DeviceId) -> PathBuf {
        self.runtime.join(format!("runner.{model}.{device}.sock"))
    }

    /// The lock a runner holds for life: `runner.<model>.<device>.lock`.
    pub fn runner_lock(&self, model: &ModelId, device: &DeviceId) -> PathBuf {
        self.runtime.join(format!("runner.{model}.{device}.lock"))
    }

    /// Takes a runner's socket name apart. `None` for any other file name.
    pub fn parse_runner_socket(name: &str) -> Option<(ModelId, DeviceId)> {
        let (model, device) =
            name.strip_prefix("runner.")?.strip_suffix(".sock")?.split_once('.')?;
        Some((ModelId::new(model).ok()?, DeviceId::new(device).ok()?))
    }

    /// The socket on which serve takes results: `events.sock`.
    pub fn events_socket(&self) -> PathBuf {
        self.runtime.join("events.sock")
    }

    /// The socket on which ingest answers serve: `ingest.sock`.
    pub fn ingest_socket(&self) -> PathBuf {
        self.runtime.join("ingest.sock")
    }

    /// Where recordings lie unless the configuration says otherwise: `<state>/recordings`.
    pub fn recordings(&self) -> PathBuf {
        self.state.join("recordings")
    }

    /// The lock of a process of which there is one per node, for example `scheduler.lock`.
    pub fn instance_lock(&self, part: &str) -> PathBuf {
        self.runtime.join(format!("{part}.lock"))
    }

    /// The lock whose holder alone may make or remove a file of the runtime directory: the lock itself,
    /// and the socket beside it. `None` for what no process of a node makes.
    pub fn lock_of(&self, name: &str) -> Option<PathBuf> {
        if name.ends_with(".lock") {
            return Some(self.runtime.join(name));
        }
        match name {
            "events.sock" => Some(self.instance_lock("serve")),
            "ingest.sock" => Some(self.instance_lock("ingest")),
            _ => Directories::parse_runner_socket(name)
                .map(|(model, device)| self.runner_lock(&model, &device)),
        }
    }

    /// The windows of recordings that clips still need: `<state>/holds.json`.
    pub fn holds(&self) -> PathBuf {
        crate::holds::holds_in(&self.state)
    }

    /// The desired-state file.
    pub fn desired(&self) -> PathBuf {
        desired_in(&self.state)
    }
}

/// The desired-state file in a state directory.
pub fn desired_in(state: &Path) -> PathBuf {
    state.join("desired.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runner_socket_names_round_trip() {
        let (model, device) = Directories::parse_runner_socket("runner.nano-1.gpu0.sock").unwrap();
        assert_eq!((model.as_str(), device.as_str()), ("nano-1", "gpu0"));
        for other in ["events.sock", "runner.a.sock", "runner.a.b.lock", "runner..b.sock"] {
            assert_eq!(Directories::parse_runner_socket(other), None, "{other}");
        }
    }
}
