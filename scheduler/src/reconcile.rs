//! Desired state: what should run, brought in line with what runs.

use crate::camera::{Agent, Camera};
use crate::device::{Device, DeviceIx, Model, ModelIx, golden_share};
use crate::input::{Desired, SubscriptionSpec};
use crate::machine::{Name, Scheduler};
use crate::planning::Wanted;
use crate::queue::Queue;
use crate::subscription::{Subscription, SubscriptionState};
use crate::{CameraKey, SubscriptionKey};
use base::{CameraId, DeviceId, Instant, ModelId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a desired state changed, by model: each is looked through once, however much of it changed.
#[derive(Debug, Default)]
struct Touched {
    /// Models with a subscription that is new, changed or gone.
    models: BTreeSet<ModelIx>,
    /// Of these those whose tags may belong to longer steps than they have now.
    rebased: BTreeSet<ModelIx>,
    /// New subscriptions.
    begun: BTreeMap<ModelIx, Vec<SubscriptionKey>>,
}

impl Scheduler {
    /// Cost: a few look-ups per subscription, and a pass over those of each model that is touched.
    pub(crate) fn desired(&mut self, desired: Desired) {
        self.revision = desired.revision;
        let mut wanted = BTreeSet::new();
        let mut touched = Touched::default();
        for spec in desired.subscriptions {
            let name = (spec.camera.clone(), spec.model.clone(), spec.parent.clone());
            match self.subscription_keys.get(&name) {
                Some(&key) => {
                    // One subscription per camera, model and parent; the first one counts.
                    if wanted.insert(key) {
                        self.update_subscription(key, spec, &mut touched);
                    }
                }
                None => {
                    let key = self.add_subscription(name, spec);
                    wanted.insert(key);
                    let model = self.subscriptions[key].model;
                    touched.models.insert(model);
                    touched.begun.entry(model).or_default().push(key);
                }
            }
        }
        if wanted.len() < self.subscription_keys.len() {
            self.remove_others(&wanted, &mut touched);
        }
        for model in std::mem::take(&mut touched.rebased) {
            self.rebase_tags(model);
        }
        self.link_children(&mut touched);
        // Evenly over one interval, model by model: those that begin together never meet. Where
        // the first of them stands is spread too, for those that begin one by one.
        for (model, keys) in touched.begun {
            let offset = golden_share(self.models[model.0].begun);
            self.models[model.0].begun += 1;
            let count = keys.len() as f64;
            for (rank, key) in keys.into_iter().enumerate() {
                if let Some(s) = self.subscriptions.get_mut(key) {
                    s.stagger(self.now, (offset + rank as f64 / count).fract());
                }
            }
        }
        for model in touched.models {
            self.refresh_states(model);
            self.plan_soon(model);
        }
    }

    fn add_subscription(&mut self, name: Name, spec: SubscriptionSpec) -> SubscriptionKey {
        let camera = self.camera_key(&spec.camera);
        let model = self.model_ix(&spec.model);
        let now = self.now;
        let key = self.subscriptions.insert(|key| Subscription::new(key, spec, camera, model, now));
        self.agents[camera.0 as usize].subscriptions.push(key);
        self.models[model.0].add(key);
        self.subscription_keys.insert(name, key);
        self.schedule(key);
        key
    }

    /// Takes a specification over, unless it is the one that holds.
    fn update_subscription(
        &mut self,
        key: SubscriptionKey,
        spec: SubscriptionSpec,
        touched: &mut Touched,
    ) {
        let now = self.now;
        let Some(s) = self.subscriptions.get_mut(key) else { return };
        if s.details.spec == spec {
            return;
        }
        // A gate far ahead belongs to the old, lower ceiling.
        let other_rate = s.details.spec.max_fps != spec.max_fps;
        if other_rate {
            let interval =
                spec.max_fps.map_or(Duration::ZERO, |f| Duration::from_secs_f64(1.0 / f));
            s.gate = s.gate.min(now + interval);
            s.cohort = None;
        }
        let fairness = other_rate || s.details.spec.weight != spec.weight;
        s.details.spec = spec;
        s.respec();
        s.details.audited.set_back(s.gate, s.tag);
        touched.models.insert(s.model);
        if fairness {
            touched.rebased.insert(s.model);
        }
        if !s.ready {
            self.schedule(key);
        }
    }

    /// Removes the subscriptions that are not wanted.
    fn remove_others(&mut self, wanted: &BTreeSet<SubscriptionKey>, touched: &mut Touched) {
        let keys = self.subscription_keys.values();
        let obsolete: Vec<_> = keys.filter(|key| !wanted.contains(key)).copied().collect();
        let mut models = BTreeSet::new();
        for key in obsolete {
            self.unready(key);
            let Some(s) = self.subscriptions.remove(key) else { continue };
            models.insert(s.model);
            let spec = s.details.spec;
            self.subscription_keys.remove(&(spec.camera, spec.model, spec.parent));
            let agent = &mut self.agents[s.camera.0 as usize];
            agent.subscriptions.retain(|k| *k != key);
            if agent.subscriptions.is_empty() {
                agent.stop();
                self.camera_keys.remove(&agent.id);
                self.free_cameras.push(s.camera);
            }
        }
        for model in &models {
            let subscriptions = &self.subscriptions;
            let left = &mut self.models[model.0].subscriptions;
            left.retain(|key| subscriptions.get(*key).is_some());
        }
        touched.models.extend(models);
    }

    /// Tells every parent who looks at its detections. Touches the models of those whose parent
    /// came or went.
    fn link_children(&mut self, touched: &mut Touched) {
        let parents: Vec<(SubscriptionKey, Option<SubscriptionKey>)> = self
            .subscription_keys
            .iter()
            .filter_map(|((camera, _, parent), key)| {
                let of = (camera.clone(), parent.clone()?, None);
                Some((*key, self.subscription_keys.get(&of).copied()))
            })
            .collect();
        if parents.is_empty() && !self.models.iter().any(|m| m.crops) {
            return;
        }
        for model in &mut self.models {
            model.crops = false;
        }
        for key in self.subscription_keys.values() {
            if let Some(s) = self.subscriptions.get_mut(*key) {
                s.details.children.clear();
                s.parent = false;
            }
        }
        for (child, parent) in parents {
            if let Some(parent) = parent.and_then(|p| self.subscriptions.get_mut(p)) {
                parent.details.children.push(child);
                parent.parent = true;
            }
            let Some(s) = self.subscriptions.get_mut(child) else { continue };
            self.models[s.model.0].crops = true;
            let orphan = parent.is_none();
            if std::mem::replace(&mut s.details.orphan, orphan) != orphan {
                touched.models.insert(s.model);
            }
        }
    }

    fn camera_key(&mut self, id: &CameraId) -> CameraKey {
        if let Some(key) = self.camera_keys.get(id) {
            return *key;
        }
        let mut agent = Agent::new(id.clone());
        agent.start();
        let key = match self.free_cameras.pop() {
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
        self.camera_keys.insert(id.clone(), key);
        key
    }

    pub(crate) fn model_ix(&mut self, id: &ModelId) -> ModelIx {
        if let Some(i) = self.models.iter().position(|m| m.id == *id) {
            return ModelIx(i);
        }
        let model = Model {
            id: id.clone(),
            runners: Vec::new(),
            devices: Vec::new(),
            subscriptions: Vec::new(),
            ready: Queue::default(),
            ready_count: 0,
            due: Instant::FAR,
            on_time: false,
            awaited: Queue::default(),
            overdue: Vec::new(),
            crops: false,
            begun: 0,
            virtual_now: 0,
            wanted: Wanted::default(),
            cohorts: None,
            ended: None,
            plan_at: Instant::FAR,
        };
        // Of no use to anybody: nothing names it, but for a runner that hangs.
        let unused = |(i, m): (usize, &Model)| {
            m.subscriptions.is_empty()
                && m.runners.is_empty()
                && !self.hung.values().any(|h| h.model.0 == i)
        };
        let place = self.models.iter().enumerate().position(unused);
        match place {
            Some(place) => {
                self.models[place] = model;
                ModelIx(place)
            }
            None => {
                self.models.push(model);
                ModelIx(self.models.len() - 1)
            }
        }
    }

    pub(crate) fn device_ix(&mut self, id: &DeviceId) -> DeviceIx {
        if let Some(i) = self.devices.iter().position(|d| d.id == *id) {
            return DeviceIx(i);
        }
        let device = Device::new(id.clone(), self.config.capacity_of(id), self.now);
        let unused = |(i, d): (usize, &Device)| {
            d.runners.is_empty() && !self.hung.values().any(|h| h.device.0 == i)
        };
        let place = self.devices.iter().enumerate().position(unused);
        match place {
            Some(place) => {
                self.devices[place] = device;
                DeviceIx(place)
            }
            None => {
                self.devices.push(device);
                DeviceIx(self.devices.len() - 1)
            }
        }
    }

    /// Brings the state of a model's subscriptions in line with its runners.
    pub(crate) fn refresh_states(&mut self, model: ModelIx) {
        let serving = !self.models[model.0].runners.is_empty();
        let hung = self.hung.values().any(|h| h.model == model);
        for i in 0..self.models[model.0].subscriptions.len() {
            let key = self.models[model.0].subscriptions[i];
            let Some(s) = self.subscriptions.get_mut(key) else { continue };
            let state = if !s.details.spec.enabled || s.details.orphan {
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
            // It is awaited elsewhere from here on.
            s.awaits = Instant::FAR;
            if state == SubscriptionState::Active {
                s.begin_serving(self.now);
                // Those that return together stay spread as they were.
                if s.gate < self.now && s.gate != Instant::ZERO {
                    s.reopen(self.now);
                }
            } else {
                s.cohort = None;
            }
            self.examine(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Input, RunnerInfo, RunnerKey};
    use base::{InstanceId, LatencyTable};

    #[test]
    fn places_of_what_is_gone_are_used_again() {
        let mut core = Scheduler::new(Config::default());
        for round in 0..50 {
            let now = Instant(1_000 + round);
            let spec = |camera: String, model: String| SubscriptionSpec {
                id: camera.clone(),
                camera: camera.parse().unwrap(),
                model: model.parse().unwrap(),
                parent: None,
                max_fps: Some(5.0),
                weight: 1.0,
                deadline: None,
                parameters: 0,
                regions_max: 16,
                enabled: true,
            };
            let stays = spec("stays".into(), "stays".into());
            let new = spec(format!("c{round}"), format!("m{round}"));
            let subscriptions = vec![stays, new];
            core.handle(now, Input::Desired(Desired { revision: round, subscriptions }));
            let runner = RunnerKey(round);
            let info = RunnerInfo {
                instance: InstanceId(round),
                model: format!("m{round}").parse().unwrap(),
                device: format!("d{round}").parse().unwrap(),
                gpu: false,
                batch_max: 1,
                deadline: Duration::from_millis(500),
                latency: LatencyTable::default(),
            };
            core.handle(now, Input::RunnerUp { runner, info });
            core.handle(now, Input::RunnerDown { runner });
            let named: Vec<_> = core.cameras().map(|(_, id)| id.to_string()).collect();
            assert!(named.contains(&"stays".into()) && named.contains(&format!("c{round}")));
            assert_eq!(core.models.iter().filter(|m| m.id.as_str() == "stays").count(), 1);
        }
        // One that stays, the new one and the one before it, which leaves after the new one came.
        assert_eq!((core.agents.len(), core.cameras.len()), (3, 3));
        assert_eq!((core.models.len(), core.devices.len()), (3, 1));
        assert_eq!((core.camera_keys.len(), core.runners.len()), (2, 1));
    }
}
