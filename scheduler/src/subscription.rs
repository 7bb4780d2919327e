//! One model on one camera: its gate, its tag, its place in the ledger.
//!
//! Gates and tags move on, never back, but where [`Audited`] is told so; every id ends once. Only what
//! stands here and below changes them.

mod audit;
mod audited;
mod binding;
mod cascaded;
mod granted;
mod waiting;

use crate::crops::Crops;
use crate::input::SubscriptionSpec;
use crate::ledger::Ledger;
use crate::place::ModelIx;
use crate::{CameraKey, SubscriptionKey};
use audited::Audited;
use base::{Instant, Stamp};
use granted::Granted;
use std::time::Duration;

pub(crate) use binding::End;

/// What a subscription does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionState {
    /// Frames are bound.
    Active,
    /// Its camera has no frames.
    NoFrames,
    /// No runner of its model is connected.
    NoRunner,
    /// Its runner hangs.
    Parked,
    /// Disabled.
    Paused,
}

/// Rate assumed for the tag of a subscription whose camera's rate is not known yet.
const FPS_ASSUMED: f64 = 25.0;
/// Periods between two moves of a gate that give up frames (at most 2 % are lost: 0, a camera of
/// `s3+noisy` loses 3 %; never again: `s4` mean +14 %).
const SHIFT_EVERY: u32 = 50;
/// So many moves may follow each other at once (when steering begins a timetable is made
/// and made again for its cohorts; none: `s3` mean +8 % with one of
/// four seeds; 1, 6: within the noise).
const SHIFTS_SAVED: u32 = 3;

/// `undecided` before the first observed frame.
const NOTHING_SEEN: u64 = u64::MAX;

/// What looks, launches and replies touch stands here, in three cache lines; all else in `details`.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub key: SubscriptionKey,
    pub camera: CameraKey,
    pub model: ModelIx,
    /// It looks at another one's detections.
    pub child: bool,
    /// Others look at its detections.
    parent: bool,
    /// Served or why not; `NoFrames` is never stored here, it is the camera's affair.
    state: SubscriptionState,
    /// Whether it stands in its model's ready set, with this `tag`.
    ready: bool,
    /// Whether it stands in its model's list of those whose frame may be there.
    overdue: bool,
    /// The launch of its model's timetable that it is taken for.
    cohort: Option<u32>,
    /// Its next frame is taken for a launch of the timetable, at `awaits`.
    on_time: bool,
    /// Frames published earlier are not eligible: the FPS ceiling, in real time.
    gate: Instant,
    /// Place in the order among subscriptions, in virtual nanoseconds.
    tag: u64,
    /// When it is examined next; [`Instant::FAR`] = something else will tell.
    awaits: Instant,
    /// Time between two frames at the ceiling, nanoseconds, 0 = no ceiling.
    interval_ns: u64,
    /// How far one frame moves the tag, virtual nanoseconds.
    step: u64,
    /// First id without an end in the ledger.
    undecided: u64,
    /// Newest observed id.
    seen: u64,
    /// Frame ids from the first observed one on.
    observed: u64,
    /// Its own deadline and parameter set, those of `spec`.
    deadline: Option<Duration>,
    parameters: u32,
    counts: Counts,
    details: Box<Details>,
}

const _: () = assert!(size_of::<Subscription>() == 192);

/// What is counted with most frames: one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counts {
    /// As in the [`Ledger`].
    gated: u64,
    superseded: u64,
    bound: u64,
    sampled: u64,
    in_flight: u32,
    granted: Granted,
}

/// What is seldom touched.
#[derive(Debug)]
struct Details {
    /// All but what stands in [`Counts`] and `observed`.
    ledger: Ledger,
    active_since: Instant,
    /// A gate that moves to another frame does so no earlier.
    shift_at: Instant,
    /// Those that look at the detections of this one.
    children: Vec<SubscriptionKey>,
    /// It is a child whose parent is not there.
    orphan: bool,
    audited: Audited,
    /// What a child has to look at.
    crops: Option<Box<Crops>>,
    spec: SubscriptionSpec,
}

impl Subscription {
    pub fn new(
        key: SubscriptionKey,
        spec: SubscriptionSpec,
        camera: CameraKey,
        model: ModelIx,
        now: Instant,
    ) -> Self {
        let mut subscription = Subscription {
            key,
            camera,
            model,
            child: spec.parent.is_some(),
            parent: false,
            state: SubscriptionState::NoRunner,
            ready: false,
            overdue: false,
            cohort: None,
            on_time: false,
            gate: Instant::ZERO,
            tag: 0,
            awaits: Instant::FAR,
            interval_ns: 0,
            step: 0,
            undecided: NOTHING_SEEN,
            seen: 0,
            observed: 0,
            deadline: None,
            parameters: 0,
            counts: Counts::default(),
            details: Box::new(Details {
                ledger: Ledger::default(),
                active_since: now,
                shift_at: Instant::ZERO,
                children: Vec::new(),
                orphan: false,
                audited: Audited::NEVER,
                crops: None,
                spec,
            }),
        };
        subscription.respec();
        subscription
    }

    /// Takes over what follows from its specification.
    fn respec(&mut self) {
        let spec = &self.details.spec;
        let interval = spec.max_fps.map_or(0.0, |fps| 1e9 / fps);
        // A nanosecond too long rather than too short: thousands of frames add it up.
        self.interval_ns = interval.ceil() as u64;
        self.deadline = spec.deadline;
        self.parameters = spec.parameters;
        self.set_source(0.0);
    }

    /// Takes another specification over. `None` = it is the one that holds, else whether its tag may
    /// belong to longer steps than it has now.
    pub fn change(&mut self, spec: SubscriptionSpec, now: Instant) -> Option<bool> {
        if self.details.spec == spec {
            return None;
        }
        // A gate far ahead belongs to the old, lower ceiling.
        let other_rate = self.details.spec.max_fps != spec.max_fps;
        if other_rate {
            let interval =
                spec.max_fps.map_or(Duration::ZERO, |f| Duration::from_secs_f64(1.0 / f));
            self.gate = self.gate.min(now + interval);
            self.cohort = None;
        }
        let fairness = other_rate || self.details.spec.weight != spec.weight;
        self.details.spec = spec;
        self.respec();
        self.details.audited.set_back(self.gate, self.tag);
        Some(fairness)
    }

    /// The source gives this many frames per second, 0 = unknown.
    pub fn set_source(&mut self, fps: f64) {
        let source = if fps > 0.0 { fps } else { FPS_ASSUMED };
        // Whatever a camera claims to send, a frame moves the tag.
        self.step = ((1e9 / (self.details.spec.weight * self.rate(source))) as u64).max(1);
    }

    /// Frames per second that it can get of a source.
    pub fn rate(&self, source: f64) -> f64 {
        self.details.spec.max_fps.map_or(source, |max| max.min(source))
    }

    /// How far one frame moves the tag, virtual nanoseconds: the fair currency is frames relative
    /// to what the subscription could get at most.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Time between two frames at the ceiling.
    pub fn interval(&self) -> Option<Duration> {
        (self.interval_ns > 0).then(|| Duration::from_nanos(self.interval_ns))
    }

    /// Opens the gate `share` (0..1) of an interval from now: subscriptions that begin together
    /// are spread evenly. Never earlier than it would open.
    pub fn stagger(&mut self, now: Instant, share: f64) {
        if let Some(interval) = self.interval() {
            self.gate = self.gate.max(now + interval.mul_f64(share));
        }
    }

    /// Moves the gate to the next of its places `share` (0..1) into an interval that is counted from now:
    /// those of a model are evenly spread again, wherever they stood. Never earlier than it would open.
    pub fn spread(&mut self, now: Instant, share: f64) {
        let Some(interval) = self.interval() else { return };
        let place = now + interval.mul_f64(share);
        let late = self.gate - place;
        let turns = late.as_nanos().div_ceil(interval.as_nanos().max(1));
        self.gate = place + interval * u32::try_from(turns).unwrap_or(u32::MAX);
    }

    /// Moves a gate that has passed to its next opening, whole intervals on: cameras that return
    /// together stay spread as they were.
    pub fn reopen(&mut self, now: Instant) {
        let Some(interval) = self.interval() else { return };
        let late = now - self.gate;
        let missed = late.as_nanos().div_ceil(interval.as_nanos().max(1));
        self.gate += interval * u32::try_from(missed).unwrap_or(u32::MAX);
    }

    /// Observed ids without an end.
    pub fn pending(&self) -> u64 {
        if self.child {
            return self.details.crops.as_ref().map_or(0, |crops| crops.left());
        }
        match self.undecided {
            NOTHING_SEEN => 0,
            next => (self.seen + 1).saturating_sub(next),
        }
    }

    /// Takes note of the newest frame.
    pub fn observe(&mut self, id: u64) {
        if self.undecided == NOTHING_SEEN {
            self.undecided = id;
            self.observed += 1;
        } else {
            self.observed += id.saturating_sub(self.seen);
        }
        self.seen = id;
    }

    /// Takes note of the newest frame after its camera could not be read: what lies between was
    /// never on offer. `first`: the ids begin anew.
    pub fn observe_return(&mut self, id: u64, first: bool) {
        if self.undecided == NOTHING_SEEN {
            return self.observe(id);
        }
        if first {
            self.observed += 1;
            self.details.ledger.unserved_gap += self.pending();
            self.undecided = id;
        } else {
            self.observed += id.saturating_sub(self.seen);
            if id > self.undecided {
                self.details.ledger.unserved_gap += id - self.undecided;
                self.undecided = id;
            }
        }
        self.seen = id;
    }

    /// Whether `stamp` could be bound now.
    pub fn eligible(&self, stamp: &Stamp) -> bool {
        self.state == SubscriptionState::Active
            && stamp.frame_id.0 >= self.undecided
            && self.undecided != NOTHING_SEEN
            && stamp.published >= self.gate
    }

    /// Ends pending ids that can no longer be bound because of the gate or because nobody serves.
    pub fn settle(&mut self, stamp: &Stamp) {
        let pending = self.pending();
        if pending == 0 {
            return;
        }
        let counter = match self.state {
            SubscriptionState::NoRunner => &mut self.details.ledger.unserved_no_runner,
            SubscriptionState::Parked => &mut self.details.ledger.unserved_parked,
            SubscriptionState::Paused => &mut self.details.ledger.unserved_paused,
            SubscriptionState::Active | SubscriptionState::NoFrames => {
                if stamp.published >= self.gate {
                    return;
                }
                &mut self.counts.gated
            }
        };
        *counter += pending;
        self.undecided = self.seen + 1;
    }

    /// Frames bound in the last full seconds, and the length of these; before there is a full second,
    /// those bound since it is served, and a second.
    pub fn granted(&self, now: Instant) -> (u64, Duration) {
        self.counts.granted.lately(now, self.details.active_since)
    }

    /// Starts the measure of granted fps anew: until now there was nothing to grant, or nobody to
    /// grant it.
    pub fn begin_serving(&mut self, now: Instant) {
        self.counts.granted.begin(now);
        self.details.active_since = now;
    }

    /// Where every frame went.
    pub fn ledger(&self) -> Ledger {
        let &Counts { gated, superseded, bound, sampled, .. } = &self.counts;
        let observed = self.observed;
        Ledger { observed, gated, superseded, bound, sampled, ..self.details.ledger }
    }

    pub fn state(&self) -> SubscriptionState {
        self.state
    }

    pub fn active(&self) -> bool {
        self.state == SubscriptionState::Active
    }

    /// Whether it is wanted, and looks at something.
    pub fn wanted(&self) -> bool {
        self.details.spec.enabled && !self.details.orphan
    }

    /// It is served from here on, or no longer. False = nothing changes.
    pub fn enter_state(&mut self, state: SubscriptionState, now: Instant) -> bool {
        if state == self.state {
            return false;
        }
        self.state = state;
        // It is awaited elsewhere from here on.
        self.awaits = Instant::FAR;
        if state == SubscriptionState::Active {
            self.begin_serving(now);
            // Those that return together stay spread as they were.
            if self.gate < now && self.gate != Instant::ZERO {
                self.reopen(now);
            }
        } else {
            self.cohort = None;
        }
        true
    }

    pub fn gate(&self) -> Instant {
        self.gate
    }

    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// Its tag lies no further ahead of this time than one of its steps. Returns the tag that it got.
    pub fn rebase(&mut self, virtual_now: u64) -> Option<u64> {
        let furthest = virtual_now.saturating_add(self.step);
        if self.tag <= furthest {
            return None;
        }
        self.tag = furthest;
        self.details.audited.set_back(self.gate, self.tag);
        Some(furthest)
    }

    pub fn cohort(&self) -> Option<u32> {
        self.cohort
    }

    /// It is taken for this launch from here on. False = it was.
    pub fn join(&mut self, launch: u32) -> bool {
        self.cohort.replace(launch) != Some(launch)
    }

    /// It is taken for none. False = it was taken for none.
    pub fn leave_cohort(&mut self) -> bool {
        self.cohort.take().is_some()
    }

    /// Whether its gate may move to another frame now, which gives up frames: seldom enough to stay
    /// near the ceiling.
    pub fn may_shift(&mut self, now: Instant, period: Duration) -> bool {
        let shift_at = &mut self.details.shift_at;
        let may = now >= *shift_at;
        if may {
            let rest = period * SHIFT_EVERY;
            *shift_at = (*shift_at).max(now.back(rest * SHIFTS_SAVED)) + rest;
        }
        may
    }

    /// Its gate opens later, at `at`.
    pub fn shift(&mut self, at: Instant) {
        self.gate = self.gate.max(at);
    }

    /// Its own deadline, else that of its model.
    pub fn deadline_or(&self, of_model: Duration) -> Duration {
        self.deadline.unwrap_or(of_model)
    }

    pub fn parameters(&self) -> u32 {
        self.parameters
    }

    pub fn in_flight(&self) -> u32 {
        self.counts.in_flight
    }

    pub fn spec(&self) -> &SubscriptionSpec {
        &self.details.spec
    }
}
