//! The cameras with subscriptions, by key.

use crate::agent::Agent;
use crate::camera::Camera;
use crate::{CameraKey, SubscriptionKey};
use base::CameraId;
use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

/// A place is used again once nobody looks at its camera any more.
#[derive(Debug, Default)]
pub(crate) struct Cameras {
    cameras: Vec<Camera>,
    /// Beside `cameras`.
    agents: Vec<Agent>,
    keys: BTreeMap<CameraId, CameraKey>,
    free: Vec<CameraKey>,
}

impl Cameras {
    /// The key of a camera, which gets an agent if it has none.
    pub fn key(&mut self, id: &CameraId) -> CameraKey {
        if let Some(key) = self.keys.get(id) {
            return *key;
        }
        let mut agent = Agent::new(id.clone());
        agent.start();
        let key = match self.free.pop() {
            Some(key) => {
                self.agents[key.0 as usize] = agent;
                self.cameras[key.0 as usize] = Camera::new();
                key
            }
            None => {
                self.agents.push(agent);
                self.cameras.push(Camera::new());
                CameraKey(self.cameras.len() as u32 - 1)
            }
        };
        self.keys.insert(id.clone(), key);
        key
    }

    /// A subscription looks at this camera.
    pub fn subscribe(&mut self, camera: CameraKey, key: SubscriptionKey) {
        self.agents[camera.0 as usize].add(key);
    }

    /// It does so no longer. A camera without subscriptions leaves its place.
    pub fn unsubscribe(&mut self, camera: CameraKey, key: SubscriptionKey) {
        let agent = &mut self.agents[camera.0 as usize];
        agent.remove(key);
        if agent.stopped() {
            self.keys.remove(&agent.id);
            self.free.push(camera);
        }
    }

    pub fn agent(&self, key: CameraKey) -> &Agent {
        &self.agents[key.0 as usize]
    }

    /// Agents and cameras by place, those that are gone too.
    pub fn all(&self) -> impl Iterator<Item = (&Agent, &Camera)> {
        self.agents.iter().zip(&self.cameras)
    }

    /// Places, free ones too.
    pub fn places(&self) -> usize {
        self.cameras.len()
    }
}

impl Index<CameraKey> for Cameras {
    type Output = Camera;
    fn index(&self, key: CameraKey) -> &Camera {
        &self.cameras[key.0 as usize]
    }
}

impl IndexMut<CameraKey> for Cameras {
    fn index_mut(&mut self, key: CameraKey) -> &mut Camera {
        &mut self.cameras[key.0 as usize]
    }
}
