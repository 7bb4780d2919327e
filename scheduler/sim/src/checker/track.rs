//! What one subscription was given, counted from outside.

use base::{CameraId, Generation, Instant, MemberError, ModelId, Rect, Stamp};
use scheduler::{Binding, CameraKey, Ledger, SubscriptionSpec};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Sampled frames whose windows are all compared; longer windows are covered by [`Track::lowest`].
const WINDOW: usize = 32;
/// Regions of one subscription that are remembered as bound.
const REGIONS: usize = 4096;

type RegionKey = (u64, u64, u64, [u32; 4]);

/// What a desired state calls a subscription: camera, model, parent.
pub(super) type Name = (CameraId, ModelId, Option<ModelId>);

/// One subscription as the checker sees it.
#[derive(Debug)]
pub(super) struct Track {
    pub spec: SubscriptionSpec,
    pub camera: CameraKey,
    /// Index of its model among the checker's.
    pub model: usize,
    pub alive: bool,
    /// When its spec last changed.
    pub changed: Instant,
    /// It never had a ceiling.
    unlimited: bool,
    last: Option<(Generation, u64)>,
    /// Published and the highest ceiling since the frame before, of the last bound frames.
    window: VecDeque<(Instant, f64)>,
    /// The highest ceiling since the last bound frame.
    rate: f64,
    /// Smallest `i - p_i r` over the frames since the ceiling last changed: no window of them
    /// holds more than `n r + 2` exactly when no later value exceeds it by more than 1.
    lowest: Option<f64>,
    position: f64,
    regions: BTreeSet<RegionKey>,
    order: VecDeque<RegionKey>,
    /// Counts of its own.
    pub ledger: Ledger,
    /// Frames between two bound ones of one generation.
    pub passed: u64,
    /// Ids that the core can have seen of the camera before it began.
    pub ids_before: u64,
    /// No gate can be later.
    pub gate_latest: Instant,
    /// Since when a frame waits that could be bound.
    pub ready_since: Option<Instant>,
    /// Bound in this fairness window.
    pub bound_in_window: u64,
}

impl Track {
    pub fn new(
        spec: SubscriptionSpec,
        camera: CameraKey,
        model: usize,
        now: Instant,
        ids_before: u64,
    ) -> Track {
        let mut track = Track {
            camera,
            model,
            alive: true,
            changed: now,
            unlimited: spec.max_fps.is_none(),
            last: None,
            window: VecDeque::new(),
            rate: spec.max_fps.unwrap_or(f64::INFINITY),
            lowest: None,
            position: 0.0,
            regions: BTreeSet::new(),
            order: VecDeque::new(),
            ledger: Ledger::default(),
            passed: 0,
            ids_before,
            gate_latest: Instant::ZERO,
            ready_since: None,
            bound_in_window: 0,
            spec,
        };
        track.gate_may_move(now);
        track
    }

    /// What makes two specifications those of one subscription.
    pub fn name(spec: &SubscriptionSpec) -> Name {
        (spec.camera.clone(), spec.model.clone(), spec.parent.clone())
    }

    /// The desired state says something else of it.
    pub fn respecify(&mut self, spec: &SubscriptionSpec, now: Instant) {
        if self.spec == *spec {
            return;
        }
        if self.spec.max_fps != spec.max_fps {
            self.rate = self.rate.max(spec.max_fps.unwrap_or(f64::INFINITY));
            self.lowest = None;
        }
        self.unlimited &= spec.max_fps.is_none();
        self.spec = spec.clone();
        self.changed = now;
        self.ready_since = None;
        self.gate_may_move(now);
    }

    fn interval(&self) -> Duration {
        self.spec.max_fps.map_or(Duration::ZERO, |r| Duration::from_secs_f64(1.0 / r))
    }

    /// Something happened after which gates may be spread anew.
    pub fn gate_may_move(&mut self, now: Instant) {
        self.gate_latest = self.gate_latest.max(now + self.interval());
    }

    /// A frame was bound. Says which rule that breaks.
    pub fn bound(&mut self, binding: &Binding) -> Result<(), (&'static str, String)> {
        self.ledger.bound += 1;
        self.bound_in_window += 1;
        self.ready_since = None;
        let stamp = &binding.stamp;
        if self.spec.parent.is_some() {
            return self.bound_region(binding);
        }
        let id = stamp.frame_id.0;
        let before = self.last.replace((stamp.generation, id));
        if let Some((generation, last)) = before {
            if stamp.generation < generation || (stamp.generation == generation && id <= last) {
                let detail = format!(
                    "{}: frame {id} of generation {} after {last} of {}",
                    self.spec.id, stamp.generation.0, generation.0
                );
                return Err(("no frame twice, ids rise", detail));
            }
            if stamp.generation == generation {
                self.passed += id - last - 1;
            }
        }
        self.gate_latest = (self.gate_latest + self.interval()).max(stamp.published);
        self.ceiling(stamp)
    }

    /// At most `n r + 2` frames in any window of `n` seconds, `r` the highest ceiling in force
    /// within the window.
    fn ceiling(&mut self, stamp: &Stamp) -> Result<(), (&'static str, String)> {
        let rate = self.spec.max_fps.unwrap_or(f64::INFINITY);
        let published = stamp.published;
        // From the newest back: the highest ceiling between that frame and this one.
        let mut highest = self.rate;
        let mut broken = None;
        for (count, (earlier, between)) in (2u32..).zip(self.window.iter().rev()) {
            let span = (published - *earlier).as_secs_f64();
            let over = f64::from(count) - span * highest - 2.0;
            // One microframe of slack for the rounding of gates to nanoseconds.
            if over > 1e-6 {
                broken = Some(format!("{count} frames in {span:.6} s at {highest} fps"));
            }
            highest = highest.max(*between);
        }
        self.window.push_back((published, self.rate));
        if self.window.len() > WINDOW {
            self.window.pop_front();
        }
        self.rate = rate;
        if rate.is_finite() {
            self.position += 1.0;
            let value = self.position - published.0 as f64 / 1e9 * rate;
            let lowest = self.lowest.unwrap_or(value);
            // Gates are kept in whole nanoseconds: one is lost per frame.
            let rounding = 1e-6 + self.position * rate * 1e-9;
            if value - lowest > 1.0 + rounding {
                broken = Some(format!("{:.6} frames above {rate} fps", value - lowest - 1.0));
            }
            self.lowest = Some(lowest.min(value));
        }
        match broken {
            Some(what) => Err(("ceiling", format!("{}: {what}", self.spec.id))),
            None => Ok(()),
        }
    }

    /// One region of a parent's frame is bound once.
    fn bound_region(&mut self, binding: &Binding) -> Result<(), (&'static str, String)> {
        let Rect { x1, y1, x2, y2 } = binding.region;
        let stamp = &binding.stamp;
        let region = [x1, y1, x2, y2].map(f32::to_bits);
        let key = (stamp.generation.0, stamp.frame_id.0, binding.parent, region);
        if !self.regions.insert(key) {
            let detail = format!("{}: {binding:?}", self.spec.id);
            return Err(("no region twice", detail));
        }
        self.order.push_back(key);
        if self.order.len() > REGIONS
            && let Some(oldest) = self.order.pop_front()
        {
            self.regions.remove(&oldest);
        }
        // The ceiling is one of frames, not of regions.
        let frame = (stamp.generation, stamp.frame_id.0);
        if self.last.replace(frame) == Some(frame) { Ok(()) } else { self.ceiling(stamp) }
    }

    /// An answer for one of its bound frames.
    pub fn answered(&mut self, error: Option<MemberError>) {
        match error {
            None => self.ledger.sampled += 1,
            Some(MemberError::Torn) => self.ledger.torn += 1,
            Some(MemberError::Frame) => self.ledger.errors[0] += 1,
            Some(MemberError::Engine) => self.ledger.errors[1] += 1,
            Some(MemberError::Postprocess) => self.ledger.errors[2] += 1,
            Some(MemberError::Parameters) => self.ledger.errors[3] += 1,
            Some(MemberError::Request) => self.ledger.errors[4] += 1,
        }
    }

    /// Whether `stamp` is a frame that the core must be willing to bind now. `needed`: the longest
    /// execution that it may reckon with.
    pub fn eligible(
        &self,
        now: Instant,
        stamp: &Stamp,
        deadline: Duration,
        needed: Duration,
    ) -> bool {
        let deadline = self.spec.deadline.unwrap_or(deadline);
        self.spec.enabled
            && self.spec.parent.is_none()
            && self.last.is_none_or(|last| (stamp.generation, stamp.frame_id.0) > last)
            && stamp.published >= self.gate_latest
            && stamp.info.capture + deadline >= now + needed
    }

    /// What the core's ledger says against the counts of its own.
    pub fn compare(&self, theirs: &Ledger, ids_now: u64) -> Result<(), String> {
        let ours = &self.ledger;
        let ends = |l: &Ledger| {
            [l.bound, l.sampled, l.torn, l.revoked, l.expired_late, l.lost_with_runner]
        };
        if ends(ours) != ends(theirs) || ours.errors != theirs.errors {
            let names = "bound, sampled, torn, revoked, expired_late, lost_with_runner";
            return Err(format!(
                "{}: {names} are {:?} and errors {:?}, the ledger says {:?} and {:?}",
                self.spec.id,
                ends(ours),
                ours.errors,
                ends(theirs),
                theirs.errors
            ));
        }
        if self.spec.parent.is_some() {
            return Ok(());
        }
        let passed = theirs.decided() - theirs.bound;
        if passed < self.passed {
            return Err(format!(
                "{}: {} ids lie between bound frames, {passed} have an end before binding",
                self.spec.id, self.passed
            ));
        }
        let ids = ids_now - self.ids_before + 1;
        if theirs.observed > ids {
            return Err(format!(
                "{}: {} ids observed, the camera showed {ids}",
                self.spec.id, theirs.observed
            ));
        }
        if self.unlimited && theirs.gated > 0 {
            return Err(format!("{}: {} gated without a ceiling", self.spec.id, theirs.gated));
        }
        Ok(())
    }
}
