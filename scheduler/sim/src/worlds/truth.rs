//! What is true in a world while it is played.

use super::camera::Camera;
use super::process::Process;
use crate::checker::Truth;
use base::{Instant, Newest};
use scheduler::{CameraKey, RunnerKey};
use std::collections::BTreeMap;

/// Cameras and processes as they are.
pub(super) struct World<'i, 'p> {
    pub cameras: &'i mut [Camera<'p>],
    pub by_key: &'i [usize],
    pub processes: &'i [Process<'p>],
    pub links: &'i BTreeMap<RunnerKey, usize>,
}

impl Truth for World<'_, '_> {
    fn newest(&mut self, now: Instant, camera: CameraKey) -> Newest {
        match self.by_key.get(camera.0 as usize).and_then(|i| self.cameras.get_mut(*i)) {
            Some(camera) => camera.truth(now),
            None => Newest::Absent(base::Absent::NoRing),
        }
    }

    fn steady(&self, camera: CameraKey, from: Instant, to: Instant) -> Option<f64> {
        let camera = self.by_key.get(camera.0 as usize).and_then(|i| self.cameras.get(*i))?;
        (!camera.disturbed(from, to)).then_some(camera.plan().fps)
    }

    fn healthy(&self, runner: RunnerKey, from: Instant, now: Instant) -> bool {
        let process = self.links.get(&runner).map(|p| &self.processes[*p]);
        process.is_some_and(|p| p.link == Some(runner) && p.healthy(from, now))
    }
}
