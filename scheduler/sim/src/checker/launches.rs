//! Launches, and what else the core says to runners.

use super::link::{Held, Measured, Phase};
use super::seen::Happening;
use super::shares::WINDOW_S;
use super::watch::Watch;
use base::limits;
use scheduler::{BatchId, Binding, CloseReason, RunnerKey};
use std::time::Duration;

/// Bounds of the lease of one measured size; a batch of a runner without a table has the longest.
const PROFILE_LEASE: (Duration, Duration) =
    (Duration::from_millis(200), Duration::from_millis(1500));
/// A runner that can answer nothing in time is measured unasked: one frame at most this often, then
/// the other sizes.
const CHECK_EVERY: Duration = Duration::from_secs(10);

impl Watch {
    fn token_goes_out(&mut self, device: usize) {
        let (out, capacity) = (self.tokens(device), self.devices[device].capacity);
        if out > capacity {
            let detail = format!("{out} of {}, capacity {capacity}", self.devices[device].id);
            self.broken("one token per unit of capacity", detail);
        }
    }

    /// What keeps a runner from being given anything.
    fn unfit(&self, key: RunnerKey) -> Option<&'static str> {
        let Some(link) = self.links.get(&key) else { return Some("unknown") };
        if !link.open() {
            Some("closed")
        } else if link.late() {
            Some("late")
        } else if link.measured.is_some() {
            Some("measuring")
        } else {
            None
        }
    }

    pub(super) fn prepare(
        &mut self,
        key: RunnerKey,
        batch: BatchId,
        lease: Option<Duration>,
        members: &[Binding],
    ) {
        let now = self.now;
        if let Some(what) = self.unfit(key) {
            self.broken("nothing is prepared for an unfit runner", format!("{key:?} is {what}"));
        }
        if batch.0 <= self.batches_max {
            self.broken("batch ids rise", format!("{batch:?}"));
        }
        self.batches_max = batch.0;
        let Some(link) = self.links.get(&key) else { return };
        let (model, device, gpu) = (link.model, link.device, link.info.gpu);
        let size = members.len() as u32;
        self.members_max[model] = self.members_max[model].max(members.len());
        let second = ((now - self.window_from).as_secs() as usize).min(WINDOW_S - 1);
        self.given[model][second] += members.len() as u64;
        let mut broken = Vec::new();
        if size == 0 || size > link.info.batch_max {
            broken.push(("a batch fits the engine", format!("{size} members")));
        }
        if link.has(Phase::Prepared) || (lease.is_some() && link.has(Phase::Executing)) {
            broken.push(("one batch executing and one prepared", format!("{key:?} {batch:?}")));
        }
        let beside = self.links.values().filter(|l| l.device == device && l.has(Phase::Prepared));
        if lease.is_none() && (!gpu || beside.count() > 0) {
            broken.push(("one batch prepared beside", format!("{key:?} {batch:?}")));
        }
        let deadline = link.info.deadline;
        broken.into_iter().for_each(|(invariant, detail)| self.broken(invariant, detail));
        for m in members {
            self.member(m, model, deadline);
        }
        let Some(link) = self.links.get_mut(&key) else { return };
        let phase = if lease.is_some() { Phase::Executing } else { Phase::Prepared };
        self.seen.note(Happening::PreparedAhead, u64::from(lease.is_none()));
        link.batches.push(Held {
            id: batch,
            members: members.to_vec(),
            phase,
            launched: now,
            since: now,
            lease_end: now + lease.unwrap_or_default(),
        });
        if let Some(lease) = lease {
            self.lease(key, size, lease);
            self.token_goes_out(device);
        }
    }

    fn member(&mut self, m: &Binding, model: usize, deadline: Duration) {
        let now = self.now;
        let stamp = &m.stamp;
        if stamp.published > now || stamp.info.capture > stamp.published {
            self.broken("capture <= published <= bound", format!("{m:?}"));
        }
        let shown = self.shown.get(&m.camera);
        let looked = shown.is_some_and(|s| s.at == now && !s.absent);
        let newest = shown.and_then(|s| s.last);
        let newest_id = newest.filter(|(g, _)| *g == stamp.generation).map(|(_, id)| id);
        let parent = self.parents.get(&m.parent).copied();
        let parent = parent.filter(|(_, g, id)| *g == stamp.generation && *id == stamp.frame_id);
        let parent = parent.map(|(track, ..)| &self.tracks[track]);
        let parent = parent.filter(|p| p.camera == m.camera).map(|p| p.spec.model.clone());
        self.learn(m, model);
        let Some(track) = self.track(m.subscription) else {
            return self.broken("only live subscriptions are served", format!("{m:?}"));
        };
        let wrong = if track.camera != m.camera || track.model != model {
            Some(("a frame goes to its camera's model", format!("{m:?}")))
        } else if !track.spec.enabled {
            Some(("paused subscriptions are not served", format!("{m:?}")))
        } else if m.parameters != track.spec.parameters {
            Some(("the parameters of now are used", format!("{m:?}")))
        } else if !looked {
            Some(("frames are looked at when they are bound", format!("{m:?}")))
        } else if track.spec.parent.is_none() {
            // Late binding: the newest frame that the index showed.
            (newest_id != Some(stamp.frame_id))
                .then(|| ("the newest frame is bound", format!("{m:?}, newest {newest_id:?}")))
        } else {
            let behind = newest_id.and_then(|n| n.0.checked_sub(stamp.frame_id.0));
            let live = behind.is_some_and(|behind| behind < u64::from(stamp.slots) - 1);
            if !m.region.valid() || parent != track.spec.parent {
                Some(("a region is of a parent's result", format!("{m:?}")))
            } else if !live {
                Some(("a region's slot is live", format!("{m:?}, newest {newest_id:?}")))
            } else {
                None
            }
        };
        let limit = track.spec.deadline.unwrap_or(deadline);
        let expired = stamp.info.capture + limit < now;
        let bound = track.bound(m);
        if let Some((invariant, detail)) = wrong {
            self.broken(invariant, detail);
        }
        if expired {
            self.broken("nothing is bound after its deadline", format!("{m:?}"));
        }
        if let Err((invariant, detail)) = bound {
            self.broken(invariant, detail);
        }
    }

    /// A lease is 3 x p99 of L(b), at least the floor. Tables may be newer in the core than what
    /// the runner said, never beyond what it did.
    fn lease(&mut self, key: RunnerKey, size: u32, lease: Duration) {
        let Some(link) = self.links.get(&key) else { return };
        let floor = link.lease_floor();
        let mut longest = (link.longest(size) * limits::LEASE_FACTOR).max(floor);
        if link.table.is_empty() {
            longest = longest.max(PROFILE_LEASE.1);
        }
        // The core may keep ratios as f32.
        if lease < floor || lease > longest.mul_f64(1.0 + 1e-6) + Duration::from_nanos(10) {
            let detail = format!("{lease:?} for {size}, floor {floor:?}, at most {longest:?}");
            self.broken("a lease is three times p99", detail);
        }
    }

    pub(super) fn grant(&mut self, key: RunnerKey, batch: BatchId, lease: Duration) {
        let now = self.now;
        if let Some(what) = self.unfit(key) {
            self.broken("nothing is granted to an unfit runner", format!("{key:?} is {what}"));
        }
        let Some(link) = self.links.get_mut(&key) else { return };
        let (device, executing) = (link.device, link.has(Phase::Executing));
        let mut size = None;
        if let Some(held) = link.batch(batch).filter(|b| b.phase == Phase::Prepared) {
            (held.phase, held.since, held.lease_end) = (Phase::Executing, now, now + lease);
            size = Some(held.members.len() as u32);
        }
        match size {
            None => self.broken("a grant names a prepared batch", format!("{key:?} {batch:?}")),
            Some(_) if executing => {
                self.broken("one batch executing and one prepared", format!("{key:?} {batch:?}"));
            }
            Some(size) => {
                self.seen.note(Happening::Granted, 1);
                self.lease(key, size, lease);
                self.token_goes_out(device);
            }
        }
    }

    pub(super) fn revoke(&mut self, key: RunnerKey, batch: BatchId) {
        let Some(link) = self.links.get_mut(&key) else {
            return self.broken("a revoke names a prepared batch", format!("{key:?} {batch:?}"));
        };
        let prepared = |b: &Held| b.id == batch && b.phase == Phase::Prepared;
        let Some(at) = link.batches.iter().position(prepared) else {
            return self.broken("a revoke names a prepared batch", format!("{key:?} {batch:?}"));
        };
        let held = link.batches.remove(at);
        link.revoked.push(batch);
        if held.launched == self.now {
            let detail = format!("{key:?} {batch:?}, {} members", held.members.len());
            self.broken("nothing is prepared to be revoked at once", detail);
        }
        for m in &held.members {
            if let Some(track) = self.track(m.subscription) {
                track.ledger.revoked += 1;
            }
        }
    }

    pub(super) fn profile(&mut self, key: RunnerKey, size: u32, lease: Duration) {
        let now = self.now;
        if let Some(what) = self.unfit(key) {
            self.broken("nothing is granted to an unfit runner", format!("{key:?} is {what}"));
        }
        let Some(link) = self.links.get_mut(&key) else { return };
        let device = link.device;
        let asked = link.wanted.iter().position(|s| *s == size);
        let holds = !link.batches.is_empty();
        let mut wanted = asked.is_some();
        if let Some(at) = asked {
            link.wanted.remove(at);
        } else if size > 1 {
            wanted = link.checked_at.is_some();
        } else {
            wanted |= link.checked_at.is_none_or(|at| now - at >= CHECK_EVERY);
            link.checked_at = Some(now);
        }
        self.devices[device].measured_last = now;
        self.seen.note(Happening::Measured, 1);
        link.measured = Some(Measured { since: now, lease_end: now + lease, late: false });
        let (shortest, longest) = PROFILE_LEASE;
        if !wanted || holds || lease < shortest || lease > longest {
            let detail = format!("{key:?} size {size} for {lease:?}, holds batches: {holds}");
            self.broken("a runner measures what it asked for, alone", detail);
        }
        self.token_goes_out(device);
    }

    pub(super) fn close(&mut self, key: RunnerKey, reason: &CloseReason) {
        let Some(link) = self.links.get(&key) else {
            return self.broken("only open connections are closed", format!("{key:?} {reason:?}"));
        };
        let sound = !link.closed
            && match reason {
                CloseReason::Hung => {
                    link.must_close.is_none() && link.hung_at(self.config.hang_limit) <= self.now
                }
                CloseReason::RefusedInstance => link.must_close == Some("refused instance"),
                CloseReason::Replaced => link.must_close == Some("replaced"),
                CloseReason::Protocol(_) => link.must_close.is_some(),
            };
        let (instance, why) = (link.instance, link.must_close);
        let happened = match reason {
            CloseReason::Hung => Happening::Hung,
            CloseReason::RefusedInstance => Happening::RefusedInstance,
            CloseReason::Replaced => Happening::Replaced,
            CloseReason::Protocol(_) => Happening::Protocol,
        };
        self.seen.note(happened, 1);
        if !sound {
            let detail = format!("{key:?} {reason:?}, expected {why:?}");
            self.broken("a connection is closed for a reason", detail);
        }
        if *reason == CloseReason::Hung {
            self.refused.insert(instance);
        }
        self.lose(key);
        if let Some(link) = self.links.get_mut(&key) {
            link.closed = true;
        }
    }
}
