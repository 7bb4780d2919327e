//! Desired state: what should run, brought in line with what runs.

use crate::camera::{Agent, Camera};
use crate::device::{Device, DeviceIx, Model, ModelIx, golden_share};
use crate::input::{Desired, SubscriptionSpec};
use crate::machine::{Name, Scheduler};
use crate::planning::Wanted;
use crate::queue::Queue;
use crate::runner::RunnerState;
use crate::subscription::{Subscription, SubscriptionState};
use crate::trial::Trial;
use crate::{AgentState, CameraKey, SubscriptionKey};
use base::{CameraId, DeviceId, Instant, ModelId};
use std::collections::BTreeSet;
use std::time::Duration;

impl Scheduler {
    pub(crate) fn desired(&mut self, desired: Desired) {
        self.revision = desired.revision;
        let mut wanted = BTreeSet::new();
        let mut begun: Vec<SubscriptionKey> = Vec::new();
        let mut touched: BTreeSet<ModelIx> = BTreeSet::new();
        for spec in desired.subscriptions {
            let name = (spec.camera.clone(), spec.model.clone(), spec.parent.clone());
            match self.subscription_keys.get(&name) {
                Some(&key) => {
                    // One subscription per camera, model and parent; the first one counts.
                    if wanted.insert(key) && self.update_subscription(key, spec) {
                        touched.insert(self.subscriptions[key].model);
                    }
                }
                None => {
                    let key = self.add_subscription(name, spec);
                    wanted.insert(key);
                    touched.insert(self.subscriptions[key].model);
                    begun.push(key);
                }
            }
        }
        if wanted.len() < self.subscription_keys.len() {
            let keys = self.subscription_keys.values();
            let obsolete: Vec<_> = keys.filter(|key| !wanted.contains(key)).copied().collect();
            for key in obsolete {
                touched.insert(self.subscriptions[key].model);
                self.remove_subscription(key);
            }
        }
        self.link_children();
        // Evenly over one interval, model by model: those that begin together never meet. Where
        // the first of them stands is spread too, for those that begin one by one.
        for model in &touched {
            let here = |k: &&SubscriptionKey| self.subscriptions[**k].model == *model;
            let keys: Vec<_> = begun.iter().filter(here).copied().collect();
            if !keys.is_empty() {
                let offset = golden_share(self.models[model.0].begun);
                self.models[model.0].begun += 1;
                let count = keys.len() as f64;
                for (rank, key) in keys.into_iter().enumerate() {
                    if let Some(s) = self.subscriptions.get_mut(key) {
                        s.stagger(self.now, (offset + rank as f64 / count).fract());
                    }
                }
            }
        }
        for model in touched {
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

    /// Takes a specification over. False when it is the one that holds.
    fn update_subscription(&mut self, key: SubscriptionKey, spec: SubscriptionSpec) -> bool {
        let now = self.now;
        let Some(s) = self.subscriptions.get_mut(key) else { return false };
        if s.details.spec == spec {
            return false;
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
        let model = s.model;
        if fairness {
            // A tag far ahead belongs to the old, longer step.
            self.rebase_tags(model);
        }
        let Some(s) = self.subscriptions.get_mut(key) else { return false };
        if !s.ready {
            self.schedule(key);
        }
        true
    }

    fn remove_subscription(&mut self, key: SubscriptionKey) {
        self.unready(key);
        let Some(s) = self.subscriptions.remove(key) else { return };
        self.models[s.model.0].subscriptions.retain(|k| *k != key);
        let spec = s.details.spec;
        let name = (spec.camera, spec.model, spec.parent);
        self.subscription_keys.remove(&name);
        let agent = &mut self.agents[s.camera.0 as usize];
        agent.subscriptions.retain(|k| *k != key);
        if agent.subscriptions.is_empty() {
            agent.stop();
        }
    }

    /// Tells every parent who looks at its detections.
    fn link_children(&mut self) {
        let any = |m: &Model| m.crops;
        let parents: Vec<(SubscriptionKey, Option<SubscriptionKey>)> = self
            .subscription_keys
            .iter()
            .filter_map(|((camera, _, parent), key)| {
                let of = (camera.clone(), parent.clone()?, None);
                Some((*key, self.subscription_keys.get(&of).copied()))
            })
            .collect();
        if parents.is_empty() && !self.models.iter().any(any) {
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
            let model = self.subscriptions[child].model;
            self.models[model.0].crops = true;
            if let Some(parent) = parent.and_then(|p| self.subscriptions.get_mut(p)) {
                parent.details.children.push(child);
                parent.parent = true;
            }
            if let Some(s) = self.subscriptions.get_mut(child) {
                s.details.orphan = parent.is_none();
            }
            self.refresh_states(model);
        }
    }

    fn camera_key(&mut self, id: &CameraId) -> CameraKey {
        if let Some(key) = self.camera_keys.get(id) {
            let agent = &mut self.agents[key.0 as usize];
            if agent.state == AgentState::Stopped {
                // Wanted again: a new agent in the old one's place.
                *agent = Agent::new(id.clone());
                agent.start();
                self.cameras[key.0 as usize] = Camera::new();
            }
            return *key;
        }
        let key = CameraKey(self.cameras.len() as u32);
        let mut agent = Agent::new(id.clone());
        agent.start();
        self.agents.push(agent);
        self.cameras.push(Camera::new());
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
            models: Vec::new(),
            suspect: false,
            busy: Duration::ZERO,
            profiled_last: false,
            dirty: true,
            next_at: Instant::FAR,
            held_until: Instant::FAR,
            bound_at: Instant::FAR,
            load: 0.0,
            trial: Trial::new(self.now),
            overloaded: false,
        });
        DeviceIx(self.devices.len() - 1)
    }

    /// Brings the state of a model's subscriptions in line with its runners.
    pub(crate) fn refresh_states(&mut self, model: ModelIx) {
        let of = |ix: &crate::runner::RunnerIx| self.runner(*ix).map(|r| r.state);
        let mut serving = false;
        let mut hung = false;
        for state in self.models[model.0].runners.iter().filter_map(of) {
            serving |= !matches!(state, RunnerState::Hung | RunnerState::Gone);
            hung |= state == RunnerState::Hung;
        }
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
