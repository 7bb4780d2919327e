//! Desired state: what should run, brought in line with what runs.

use crate::SubscriptionKey;
use crate::input::{Desired, SubscriptionSpec};
use crate::place::ModelIx;
use crate::state::{Name, Scheduler};
use crate::subscription::Subscription;
use std::collections::{BTreeMap, BTreeSet};

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
        self.set_revision(desired.revision);
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
        let now = self.now();
        for (model, keys) in touched.begun {
            let offset = self.models[model.0].begin_group();
            let count = keys.len() as f64;
            for (rank, key) in keys.into_iter().enumerate() {
                if let Some(s) = self.subscriptions.get_mut(key) {
                    s.stagger(now, (offset + rank as f64 / count).fract());
                }
            }
        }
        for model in touched.models {
            self.refresh_states(model);
            self.plan_soon(model);
        }
    }

    fn add_subscription(&mut self, name: Name, spec: SubscriptionSpec) -> SubscriptionKey {
        let camera = self.cameras.key(&spec.camera);
        let model = self.model_ix(&spec.model);
        let now = self.now();
        let key = self.subscriptions.insert(|key| Subscription::new(key, spec, camera, model, now));
        self.cameras.subscribe(camera, key);
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
        let now = self.now();
        let Some(s) = self.subscriptions.get_mut(key) else { return };
        let Some(fairness) = s.change(spec, now) else { return };
        touched.models.insert(s.model);
        if fairness {
            touched.rebased.insert(s.model);
        }
        if !s.ready() {
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
            let spec = s.spec();
            let name = (spec.camera.clone(), spec.model.clone(), spec.parent.clone());
            self.subscription_keys.remove(&name);
            self.cameras.unsubscribe(s.camera, key);
        }
        for model in &models {
            let subscriptions = &self.subscriptions;
            self.models[model.0].retain(|key| subscriptions.get(key).is_some());
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
        if parents.is_empty() && !self.models.iter().any(|m| m.crops()) {
            return;
        }
        for model in &mut self.models {
            model.set_crops(false);
        }
        for key in self.subscription_keys.values() {
            if let Some(s) = self.subscriptions.get_mut(*key) {
                s.unlink();
            }
        }
        for (child, parent) in parents {
            if let Some(parent) = parent.and_then(|p| self.subscriptions.get_mut(p)) {
                parent.link(child);
            }
            let Some(s) = self.subscriptions.get_mut(child) else { continue };
            self.models[s.model.0].set_crops(true);
            if s.become_orphan(parent.is_none()) {
                touched.models.insert(s.model);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Input, RunnerInfo, RunnerKey};
    use base::{InstanceId, Instant, LatencyTable};
    use std::time::Duration;

    #[test]
    fn places_of_what_is_gone_are_used_again() {
        let mut core = Scheduler::new(Config::default());
        for round in 0..50 {
            let now = Instant(1_000 + round);
            let (camera, model) = (format!("c{round}"), format!("m{round}"));
            let stays = SubscriptionSpec::plain("stays", "stays", "stays");
            let new = SubscriptionSpec::plain(&camera, &camera, &model);
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
        assert_eq!(core.cameras.places(), 3);
        assert_eq!((core.models.len(), core.devices.len()), (3, 1));
        assert_eq!((core.cameras().count(), core.runners.places()), (2, 1));
    }
}
