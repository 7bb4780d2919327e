//! Follows everything that goes into the core and comes out of it, and says which invariant broke.
//!
//! It keeps its own account of connections, batches, tokens and frames, made from the contract
//! alone. Whoever runs the core calls, with the same `now` as the core gets, [`Watch::input`]
//! before `handle`, [`Watch::desired`] after it took a desired state, [`Watch::polling`] before
//! `poll`, [`Watch::answered`] with every answer of the frame index and [`Watch::output`] with
//! every output; [`Watch::audit`] and [`Watch::reported`] whenever it likes.

use super::Violation;
use super::link::{Link, Phase};
use super::seen::{Happening, Seen};
use super::shares::WINDOW_S;
use super::track::{Name, Track};
use base::{
    CameraId, DeviceId, FrameId, Generation, InstanceId, Instant, MemberError, ModelId, Newest,
};
use scheduler::{
    BatchId, Binding, CameraKey, Config, Output, RunnerKey, Scheduler, SubscriptionKey,
    SubscriptionSpec, WaitReason,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Violations that are kept: the first ones tell the story.
const VIOLATIONS_MAX: usize = 20;
/// The core may be polled this late; beyond it leases and hang limits are moved on by as much
/// (contract of `Scheduler`).
const OVERSLEPT: Duration = Duration::from_millis(50);
/// Results of parents that are remembered for the subscriptions on their detections.
const PARENTS_MAX: usize = 20_000;

/// What is true in the world, for comparison.
pub trait Truth {
    /// The newest frame of a camera.
    fn newest(&mut self, now: Instant, camera: CameraKey) -> Newest;
    /// The frame rate of a camera with which nothing was wrong between the two.
    fn steady(&self, camera: CameraKey, from: Instant, to: Instant) -> Option<f64>;
    /// Whether a runner answers as it should and did so since `from`.
    fn healthy(&self, runner: RunnerKey, from: Instant, now: Instant) -> bool;
}

#[derive(Debug)]
pub(super) struct Device {
    pub id: DeviceId,
    pub capacity: usize,
    /// Last instant at which all tokens were out.
    pub full_at: Instant,
    /// Last instant at which a size was or should be measured.
    pub measured_at: Instant,
    /// Last instant at which a measurement was granted or nobody wanted one.
    pub measured_last: Instant,
}

/// A camera as it was shown to the core.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub last: Option<(Generation, FrameId)>,
    /// When the core asked last.
    pub at: Instant,
    pub absent: bool,
    /// Ids that were shown or passed over.
    pub ids: u64,
}

/// Follows one core.
#[derive(Debug)]
pub struct Watch {
    pub(super) config: Config,
    /// Nothing goes wrong in this world: deadlines hold.
    pub(super) calm: bool,
    pub(super) now: Instant,
    wake_at: Instant,
    pub(super) stalled_at: Instant,
    violations: Vec<Violation>,
    pub(super) seen: Seen,
    pub(super) tracks: Vec<Track>,
    pub(super) by_id: BTreeMap<String, usize>,
    /// Keys as the core used them first.
    pub(super) keys: BTreeMap<SubscriptionKey, usize>,
    pub(super) models: Vec<ModelId>,
    /// Per model: the last instant at which a runner of it came, went or was late.
    pub(super) unsettled_at: Vec<Instant>,
    /// Per model: the largest batch of this fairness window.
    pub(super) members_max: Vec<usize>,
    /// Per model: members that were bound in each second of this fairness window.
    pub(super) given: Vec<[u64; WINDOW_S]>,
    pub(super) devices: Vec<Device>,
    pub(super) links: BTreeMap<RunnerKey, Link>,
    pub(super) shown: BTreeMap<CameraKey, Shown>,
    pub(super) refused: BTreeSet<InstanceId>,
    pub(super) batches_max: u64,
    pub(super) sequence: u64,
    /// Results that the core owes for the reply that it was just given.
    pub(super) owed: VecDeque<(BatchId, Binding, Option<MemberError>)>,
    /// Results that others look at: sequence, whose, frame.
    pub(super) parents: BTreeMap<u64, (usize, Generation, FrameId)>,
    pub(super) window_from: Instant,
}

impl Watch {
    /// For a core with these settings. `calm`: no fault and no noise is to be expected.
    pub fn new(config: Config, calm: bool) -> Watch {
        Watch {
            config,
            calm,
            now: Instant::ZERO,
            wake_at: Instant::FAR,
            stalled_at: Instant::ZERO,
            violations: Vec::new(),
            seen: Seen::default(),
            tracks: Vec::new(),
            by_id: BTreeMap::new(),
            keys: BTreeMap::new(),
            models: Vec::new(),
            unsettled_at: Vec::new(),
            members_max: Vec::new(),
            given: Vec::new(),
            devices: Vec::new(),
            links: BTreeMap::new(),
            shown: BTreeMap::new(),
            refused: BTreeSet::new(),
            batches_max: 0,
            sequence: 0,
            owed: VecDeque::new(),
            parents: BTreeMap::new(),
            window_from: Instant::ZERO,
        }
    }

    /// Notes a broken invariant.
    pub fn broken(&mut self, invariant: &'static str, detail: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation { invariant, at: self.now, detail });
        }
    }

    /// What was broken so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// What happened so far.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Hands over what was broken.
    pub fn take_violations(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.violations)
    }

    /// The core was not called until now, whatever it waited for.
    pub fn stalled(&mut self, until: Instant) {
        self.stalled_at = until;
        self.seen.note(Happening::Stall, 1);
    }

    pub(super) fn model(&mut self, id: &ModelId) -> usize {
        let known = self.models.iter().position(|m| m == id);
        known.unwrap_or_else(|| {
            self.models.push(id.clone());
            self.unsettled_at.push(self.now);
            self.members_max.push(0);
            self.given.push([0; WINDOW_S]);
            self.models.len() - 1
        })
    }

    pub(super) fn device(&mut self, id: &DeviceId) -> usize {
        let known = self.devices.iter().position(|d| d.id == *id);
        known.unwrap_or_else(|| {
            let capacity = self.config.capacity_of(id) as usize;
            self.devices.push(Device {
                id: id.clone(),
                capacity,
                full_at: self.now,
                measured_at: self.now,
                measured_last: self.now,
            });
            self.devices.len() - 1
        })
    }

    pub(super) fn track(&mut self, key: SubscriptionKey) -> Option<&mut Track> {
        self.tracks.get_mut(*self.keys.get(&key)?).filter(|t| t.alive)
    }

    /// The state since the last call lasted until now.
    pub(super) fn advance(&mut self, now: Instant) {
        self.now = now;
        let overslept = now - self.wake_at;
        if overslept > OVERSLEPT {
            // Nobody is judged before what came meanwhile is handled.
            self.links.values_mut().for_each(|l| l.postpone(overslept + OVERSLEPT));
        }
        self.wake_at = self.wake_at.max(now);
        for i in 0..self.devices.len() {
            if self.tokens(i) >= self.devices[i].capacity {
                self.devices[i].full_at = now;
            }
        }
        for link in self.links.values_mut() {
            if !link.idle() {
                link.busy_at = now;
            }
            if link.late() || !link.open() {
                self.unsettled_at[link.model] = now;
            }
            if link.open() && (link.measured.is_some() || !link.wanted.is_empty()) {
                self.devices[link.device].measured_at = now;
            }
        }
    }

    pub(super) fn tokens(&self, device: usize) -> usize {
        self.links.values().filter(|l| l.device == device).map(Link::tokens).sum()
    }

    /// All that a connection held is lost.
    pub(super) fn lose(&mut self, key: RunnerKey) {
        let Some(link) = self.links.get_mut(&key) else { return };
        self.unsettled_at[link.model] = self.now;
        link.measured = None;
        link.wanted.clear();
        for held in std::mem::take(&mut link.batches) {
            if held.phase != Phase::Late {
                for m in &held.members {
                    if let Some(track) = self.track(m.subscription) {
                        track.ledger.lost_with_runner += 1;
                    }
                }
            }
        }
    }

    pub(super) fn must_close(&mut self, key: RunnerKey, why: &'static str) {
        self.lose(key);
        if let Some(link) = self.links.get_mut(&key) {
            link.must_close = Some(why);
        }
    }

    /// The core took a desired state.
    pub fn desired(&mut self, scheduler: &Scheduler, desired: &[SubscriptionSpec]) {
        let now = self.now;
        let mut wanted: BTreeMap<Name, &SubscriptionSpec> =
            desired.iter().map(|s| (Track::name(s), s)).collect();
        for track in self.tracks.iter_mut().filter(|t| t.alive) {
            match wanted.remove(&Track::name(&track.spec)) {
                Some(spec) => track.respecify(spec, now),
                None => track.alive = false,
            }
        }
        let keys: BTreeMap<&CameraId, CameraKey> =
            scheduler.cameras().map(|(key, id)| (id, key)).collect();
        // A place that no camera has may be another camera's next.
        let named: BTreeSet<CameraKey> = keys.values().copied().collect();
        self.shown.retain(|key, _| named.contains(key));
        for spec in wanted.into_values() {
            let model = self.model(&spec.model);
            let Some(camera) = keys.get(&spec.camera).copied() else {
                self.broken("every desired subscription exists", spec.id.clone());
                continue;
            };
            let ids = self.shown.entry(camera).or_default().ids;
            self.tracks.push(Track::new(spec.clone(), camera, model, now, ids));
        }
        let alive = self.tracks.iter().enumerate().filter(|(_, t)| t.alive);
        self.by_id = alive.map(|(i, t)| (t.spec.id.clone(), i)).collect();
        let mut wrong = None;
        for (key, i) in &self.keys {
            let track = &self.tracks[*i];
            let id = track.alive.then_some(track.spec.id.as_str());
            if scheduler.subscription_id(*key) != id {
                wrong = Some(format!("{key:?} is {:?}", track.spec.id));
            }
        }
        if let Some(detail) = wrong {
            self.broken("a key names one subscription", detail);
        }
        let tracks = &self.tracks;
        self.keys.retain(|_, i| tracks[*i].alive);
    }

    /// Whom the core means: a key that it has not used before is that of the one subscription of
    /// this camera and model.
    pub(super) fn learn(&mut self, m: &Binding, model: usize) {
        if self.keys.contains_key(&m.subscription) {
            return;
        }
        let fits = |t: &Track| {
            t.alive
                && t.camera == m.camera
                && t.model == model
                && t.spec.parent.is_some() == (m.parent > 0)
        };
        let Some(i) = self.tracks.iter().position(fits) else { return };
        if self.keys.values().any(|known| *known == i) {
            let detail = format!("{:?} is {:?}", m.subscription, self.tracks[i].spec.id);
            self.broken("a key names one subscription", detail);
        }
        self.keys.insert(m.subscription, i);
    }

    /// The frame index gave an answer.
    pub fn answered(&mut self, now: Instant, camera: CameraKey, newest: &Newest) {
        let shown = self.shown.entry(camera).or_default();
        shown.at = now;
        let stamp = match newest {
            Newest::Frame(stamp) if stamp.frame_id.0 < u64::MAX => stamp,
            _ => return shown.absent = true,
        };
        if stamp.published > now {
            self.seen.note(Happening::FrameOfTheFuture, 1);
            return;
        }
        let (generation, id) = (stamp.generation, stamp.frame_id);
        if let Some((last_generation, last_id)) = shown.last {
            self.seen.note(Happening::NewGeneration, u64::from(generation != last_generation));
            self.seen.note(Happening::IdsFellBack, u64::from(id < last_id));
        }
        match shown.last {
            Some(last) if last == (generation, id) => {}
            Some((_, last)) if id > last => shown.ids += id.0 - last.0,
            _ => shown.ids += 1,
        }
        shown.last = Some((generation, id));
        if std::mem::take(&mut shown.absent) {
            for t in self.tracks.iter_mut().filter(|t| t.alive && t.camera == camera) {
                t.gate_may_move(now);
            }
        }
    }

    /// The core is about to be polled: leases that have passed are over.
    pub fn polling(&mut self, now: Instant) {
        self.advance(now);
        let hang_limit = self.config.hang_limit;
        let mut late = Vec::new();
        for link in self.links.values_mut() {
            let hung_at = link.hung_at(hang_limit);
            if let Some(m) = &mut link.measured {
                m.late |= m.lease_end <= now && m.lease_end <= hung_at;
            }
            for held in &mut link.batches {
                if held.phase == Phase::Executing
                    && held.lease_end <= now
                    && held.lease_end <= hung_at
                {
                    held.phase = Phase::Late;
                    late.extend(held.members.iter().map(|m| m.subscription));
                }
            }
        }
        for key in late {
            if let Some(track) = self.track(key) {
                track.ledger.expired_late += 1;
            }
        }
    }

    /// The core wants something.
    pub fn output(&mut self, now: Instant, output: &Output<'_>) {
        if let Some((batch, ..)) = self.owed.front()
            && !matches!(output, Output::Result { batch: of, .. } if of == batch)
            && !matches!(output, Output::Close { .. })
        {
            let detail = format!("{} results of {batch:?} did not come", self.owed.len());
            self.broken("every answered member gives one result", detail);
            self.owed.clear();
        }
        match output {
            Output::Prepare { runner, batch, lease, members } => {
                self.prepare(*runner, *batch, *lease, members);
            }
            Output::Grant { runner, batch, lease } => self.grant(*runner, *batch, *lease),
            Output::Revoke { runner, batch } => self.revoke(*runner, *batch),
            Output::ProfileGrant { runner, batch_size, lease } => {
                self.profile(*runner, *batch_size, *lease);
            }
            Output::Close { runner, reason } => self.close(*runner, reason),
            Output::Result {
                batch, binding, sequence, received, stages, outcome, last, ..
            } => {
                let age = *received - binding.stamp.info.capture;
                if stages.age() != age || *received != now {
                    let detail = format!("{stages:?} at {received:?} is not {age:?}");
                    self.broken("stages add up to the age", detail);
                }
                if *sequence != self.sequence + 1 {
                    let detail = format!("{sequence} after {}", self.sequence);
                    self.broken("results are numbered", detail);
                }
                self.sequence = *sequence;
                let error = outcome.as_ref().err().copied();
                if self.owed.front() != Some(&(*batch, *binding, error)) {
                    let detail = format!("{binding:?} of {batch:?}: {error:?}");
                    return self.broken("no result but of a live batch's member", detail);
                }
                self.owed.pop_front();
                if *last != self.owed.is_empty() {
                    self.broken("the last result of a batch says so", format!("{batch:?}"));
                }
                if let Some(track) = self.track(binding.subscription) {
                    track.answered(error);
                }
                self.aged(binding, age);
                let stamp = &binding.stamp;
                if let Some(track) = self.keys.get(&binding.subscription) {
                    self.parents.insert(*sequence, (*track, stamp.generation, stamp.frame_id));
                }
                if self.parents.len() > PARENTS_MAX {
                    self.parents.pop_first();
                }
            }
            Output::Wait { until, reason } => self.waits(now, *until, *reason),
        }
    }

    fn waits(&mut self, now: Instant, until: Instant, reason: WaitReason) {
        if until <= now {
            let detail = format!("for {reason:?} until {} ns, it is {} ns", until.0, now.0);
            self.broken("the core waits for the future", detail);
        }
        self.wake_at = until;
        let mut broken = Vec::new();
        for (key, link) in &self.links {
            if let Some(why) = link.must_close.filter(|_| !link.closed) {
                broken.push(("what must be closed is closed", format!("{key:?}: {why}")));
            }
            let hung = link.hung_at(self.config.hang_limit);
            if link.open() && hung < now {
                broken.push(("a hung runner is closed", format!("{key:?} since {} ns", hung.0)));
            }
            let ends = link.batches.iter().filter(|b| b.phase == Phase::Executing);
            let ends = ends.map(|b| b.lease_end).chain(link.measured.iter().map(|m| m.lease_end));
            let first = ends.min().unwrap_or(Instant::FAR).min(hung);
            if link.open() && first > now && until > first {
                let detail =
                    format!("{key:?}: until {} ns, a bound passes at {}", until.0, first.0);
                broken.push(("no bound is slept through", detail));
            }
        }
        broken.into_iter().for_each(|(invariant, detail)| self.broken(invariant, detail));
    }

    pub(super) fn aged(&mut self, binding: &Binding, age: Duration) {
        if !self.calm {
            return;
        }
        let Some(track) = self.keys.get(&binding.subscription).map(|i| &self.tracks[*i]) else {
            return;
        };
        let models = self.links.values().filter(|l| l.model == track.model);
        let deadline = models.map(|l| l.info.deadline).max().unwrap_or_default();
        let deadline = track.spec.deadline.unwrap_or(deadline);
        // Copy, postprocess and two ways over the socket are not in L(b).
        let beside = Duration::from_millis(2);
        self.seen.note(Happening::AgesCompared, 1);
        if age > deadline + beside {
            let detail = format!("{}: {age:?}, deadline {deadline:?}", track.spec.id);
            self.broken("no result older than its deadline", detail);
        }
    }
}
