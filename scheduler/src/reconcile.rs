//! Desired state: what should run, brought in line with what runs.

use crate::camera::Camera;
use crate::device::{Device, DeviceIx, Model, ModelIx, golden_share};
use crate::input::{Desired, SubscriptionSpec};
use crate::machine::Scheduler;
use crate::runner::RunnerState;
use crate::subscription::{Subscription, SubscriptionState};
use crate::{CameraKey, RunnerKey, SubscriptionKey};
use base::{CameraId, DeviceId, ModelId};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

impl Scheduler {
    pub(crate) fn desired(&mut self, desired: Desired) {
        self.revision = desired.revision;
        let mut wanted = BTreeSet::new();
        let mut begun: Vec<SubscriptionKey> = Vec::new();
        for spec in desired.subscriptions {
            let name = (spec.camera.clone(), spec.model.clone(), spec.parent.clone());
            if !wanted.insert(name.clone()) {
                continue; // One subscription per camera, model and parent; the first one counts.
            }
            match self.subscription_keys.get(&name) {
                Some(&key) => self.update_subscription(key, spec),
                None => begun.push(self.add_subscription(name, spec)),
            }
        }
        let obsolete: Vec<_> = self
            .subscription_keys
            .iter()
            .filter(|(name, _)| !wanted.contains(*name))
            .map(|(_, key)| *key)
            .collect();
        for key in obsolete {
            self.remove_subscription(key);
        }
        // Evenly over one interval, model by model: those that begin together never meet. Where
        // the first of them stands is spread too, for those that begin one by one.
        for model in 0..self.models.len() {
            let here = |k: &&SubscriptionKey| self.subscriptions[k].model == ModelIx(model);
            let keys: Vec<_> = begun.iter().filter(here).copied().collect();
            if !keys.is_empty() {
                let offset = golden_share(self.models[model].begun);
                self.models[model].begun += 1;
                let count = keys.len() as f64;
                for (rank, key) in keys.into_iter().enumerate() {
                    if let Some(s) = self.subscriptions.get_mut(&key) {
                        s.stagger(self.now, (offset + rank as f64 / count).fract());
                    }
                }
            }
            self.refresh_states(ModelIx(model));
        }
    }

    pub(crate) fn add_subscription(
        &mut self,
        name: (CameraId, ModelId, Option<ModelId>),
        spec: SubscriptionSpec,
    ) -> SubscriptionKey {
        let key = SubscriptionKey(self.next_subscription);
        self.next_subscription += 1;
        let camera = self.camera_key(&spec.camera);
        let model = self.model_ix(&spec.model);
        self.cameras[camera.0 as usize].subscriptions.push(key);
        self.models[model.0].subscriptions.push(key);
        self.subscriptions.insert(key, Subscription::new(spec, camera, model, self.now));
        self.subscription_keys.insert(name, key);
        key
    }

    pub(crate) fn update_subscription(&mut self, key: SubscriptionKey, spec: SubscriptionSpec) {
        let now = self.now;
        let Some(s) = self.subscriptions.get_mut(&key) else { return };
        if s.spec == spec {
            return;
        }
        // A gate far ahead belongs to the old, lower ceiling.
        if s.spec.max_fps != spec.max_fps {
            let interval =
                spec.max_fps.map_or(Duration::ZERO, |f| Duration::from_secs_f64(1.0 / f));
            s.gate = s.gate.min(now + interval);
        }
        s.spec = spec;
        let (camera, model) = (s.camera, s.model);
        self.refresh_states(model);
        self.schedule_look(camera);
    }

    pub(crate) fn remove_subscription(&mut self, key: SubscriptionKey) {
        let Some(s) = self.subscriptions.remove(&key) else { return };
        self.models[s.model.0].ready.remove(&(s.tag, key));
        self.models[s.model.0].subscriptions.retain(|k| *k != key);
        let name = (s.spec.camera, s.spec.model, s.spec.parent);
        self.subscription_keys.remove(&name);
        let camera = &mut self.cameras[s.camera.0 as usize];
        camera.subscriptions.retain(|k| *k != key);
        if camera.subscriptions.is_empty() {
            camera.stop();
            self.camera_keys.remove(&camera.id.clone());
        } else {
            self.schedule_look(s.camera);
        }
    }

    pub(crate) fn camera_key(&mut self, id: &CameraId) -> CameraKey {
        if let Some(key) = self.camera_keys.get(id) {
            return *key;
        }
        let key = CameraKey(self.cameras.len() as u32);
        let mut camera = Camera::new(id.clone());
        camera.start();
        camera.look_at = self.now;
        self.looks.push(Reverse((self.now, key)));
        self.cameras.push(camera);
        self.camera_keys.insert(id.clone(), key);
        key
    }

    pub(crate) fn model_ix(&mut self, id: &ModelId) -> ModelIx {
        if let Some(i) = self.models.iter().position(|m| m.id == *id) {
            return ModelIx(i);
        }
        self.models.push(Model {
            id: id.clone(),
            runners: Vec::new(),
            subscriptions: Vec::new(),
            ready: BTreeSet::new(),
            begun: 0,
        });
        ModelIx(self.models.len() - 1)
    }

    pub(crate) fn device_ix(&mut self, id: &DeviceId) -> DeviceIx {
        if let Some(i) = self.devices.iter().position(|d| d.id == *id) {
            return DeviceIx(i);
        }
        self.devices.push(Device {
            id: id.clone(),
            capacity: self.config.capacity_of(id),
            lent: 0,
            virtual_now: 0,
            runners: Vec::new(),
            suspect: false,
            busy: Duration::ZERO,
            profiled_last: false,
        });
        DeviceIx(self.devices.len() - 1)
    }

    /// Brings the state of a model's subscriptions in line with its runners.
    pub(crate) fn refresh_states(&mut self, model: ModelIx) {
        let of = |r: &RunnerKey| self.runners.get(r).map(|r| r.state);
        let states: Vec<_> = self.models[model.0].runners.iter().filter_map(of).collect();
        let serving = states.iter().any(|s| !matches!(s, RunnerState::Hung | RunnerState::Gone));
        let hung = states.contains(&RunnerState::Hung);
        for i in 0..self.models[model.0].subscriptions.len() {
            let key = self.models[model.0].subscriptions[i];
            let Some(s) = self.subscriptions.get_mut(&key) else { continue };
            // Subscriptions on another model's detections have no policy yet: they are paused.
            let state = if !s.spec.enabled || s.spec.parent.is_some() {
                SubscriptionState::Paused
            } else if serving {
                SubscriptionState::Active
            } else if hung {
                SubscriptionState::Parked
            } else {
                SubscriptionState::NoRunner
            };
            if state == s.state {
                continue;
            }
            s.state = state;
            if state == SubscriptionState::Active {
                s.begin_serving(self.now);
            }
            let camera = s.camera;
            self.refresh_ready(key);
            self.schedule_look(camera);
        }
    }
}
