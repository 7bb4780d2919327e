//! One model on one camera: its gate, its tag, its place in the ledger.

use crate::camera::Camera;
use crate::cascade::Crops;
use crate::device::ModelIx;
use crate::input::SubscriptionSpec;
use crate::ledger::Ledger;
use crate::{CameraKey, SubscriptionKey};
use base::{Instant, Rect, Stamp};
use std::time::Duration;

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

/// Seconds over which granted fps is measured (chosen: 0.5 fps still gives five frames).
const GRANTED_WINDOW_S: u64 = 10;
/// Rate assumed for the tag of a subscription whose camera's rate is not known yet.
const FPS_ASSUMED: f64 = 25.0;

/// One crop of a frame, for a child.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crop {
    pub stamp: Stamp,
    pub region: Rect,
    /// Sequence of the parent result.
    pub parent: u64,
}

/// `undecided` before the first observed frame.
const NOTHING_SEEN: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Subscription {
    pub key: SubscriptionKey,
    pub camera: CameraKey,
    pub model: ModelIx,
    /// Served or why not; `NoFrames` is never stored here, it is the camera's affair.
    pub state: SubscriptionState,
    /// Whether it stands in its model's ready set, with this `tag`.
    pub ready: bool,
    /// The launch of its model's timetable that it is taken for.
    pub cohort: Option<u32>,
    /// Its next frame is taken for a launch of the timetable, at `awaits`.
    pub on_time: bool,
    /// Frames published earlier are not eligible: the FPS ceiling, in real time.
    pub gate: Instant,
    /// A gate that moves to another frame does so no earlier.
    pub shift_at: Instant,
    /// Place in the order among subscriptions, in virtual nanoseconds.
    pub tag: u64,
    /// When it is examined next; [`Instant::FAR`] = something else will tell.
    pub awaits: Instant,
    /// Time between two frames at the ceiling, nanoseconds, 0 = no ceiling.
    interval_ns: u64,
    /// How far one frame moves the tag, virtual nanoseconds.
    step: u64,
    /// First id without an end in the ledger.
    undecided: u64,
    /// Newest observed id.
    seen: u64,
    pub in_flight: u64,
    pub ledger: Ledger,
    granted: [u32; GRANTED_WINDOW_S as usize + 1],
    granted_second: u64,
    active_since: Instant,
    /// Those that look at the detections of this one.
    pub children: Vec<SubscriptionKey>,
    /// It is a child whose parent is not there.
    pub orphan: bool,
    /// What a child has to look at.
    pub crops: Option<Box<Crops>>,
    pub spec: Box<SubscriptionSpec>,
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
            state: SubscriptionState::NoRunner,
            ready: false,
            cohort: None,
            on_time: false,
            gate: Instant::ZERO,
            shift_at: Instant::ZERO,
            tag: 0,
            awaits: Instant::FAR,
            interval_ns: 0,
            step: 0,
            undecided: NOTHING_SEEN,
            seen: 0,
            in_flight: 0,
            ledger: Ledger::default(),
            granted: [0; GRANTED_WINDOW_S as usize + 1],
            granted_second: 0,
            active_since: now,
            children: Vec::new(),
            orphan: false,
            crops: None,
            spec: Box::new(spec),
        };
        subscription.respec();
        subscription
    }

    /// Takes over what follows from its specification.
    pub fn respec(&mut self) {
        let interval = self.spec.max_fps.map_or(0.0, |fps| 1e9 / fps);
        self.interval_ns = interval as u64;
        self.set_source(0.0);
    }

    /// The source gives this many frames per second, 0 = unknown.
    pub fn set_source(&mut self, fps: f64) {
        let source = if fps > 0.0 { fps } else { FPS_ASSUMED };
        self.step = (1e9 / (self.spec.weight * self.rate(source))) as u64;
    }

    /// Frames per second that it can get of a source.
    pub fn rate(&self, source: f64) -> f64 {
        self.spec.max_fps.map_or(source, |max| max.min(source))
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
        if let Some(crops) = &self.crops {
            return crops.left();
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
            self.ledger.observed += 1;
        } else {
            self.ledger.observed += id.saturating_sub(self.seen);
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
            self.ledger.observed += 1;
            self.ledger.unserved_gap += self.pending();
            self.undecided = id;
        } else {
            self.ledger.observed += id.saturating_sub(self.seen);
            if id > self.undecided {
                self.ledger.unserved_gap += id - self.undecided;
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
            SubscriptionState::NoRunner => &mut self.ledger.unserved_no_runner,
            SubscriptionState::Parked => &mut self.ledger.unserved_parked,
            SubscriptionState::Paused => &mut self.ledger.unserved_paused,
            SubscriptionState::Active | SubscriptionState::NoFrames => {
                if stamp.published >= self.gate {
                    return;
                }
                &mut self.ledger.gated
            }
        };
        *counter += pending;
        self.undecided = self.seen + 1;
    }

    /// Of the pending ids older than the newest, how many were published before and after the gate
    /// opened. Only the newest one's stamp is known; the period dates the others.
    fn passed_over(&self, stamp: &Stamp, period_ns: f64) -> (u64, u64) {
        let older = self.pending().saturating_sub(1);
        if older == 0 {
            return (0, 0);
        }
        if self.interval_ns == 0 {
            return (0, older); // Without a ceiling nothing is gated.
        }
        let open = stamp.published.0.saturating_sub(self.gate.0);
        let after = if period_ns > 0.0 { (open as f64 / period_ns) as u64 } else { older };
        let after = after.min(older);
        (older - after, after)
    }

    /// Binds the newest frame: moves gate and tag. `virtual_now` is the device's virtual time.
    /// Returns the start tag.
    ///
    /// The gate moves one interval on, but not behind the frame: no credit survives an idle time.
    /// A frame is eligible only if it was published after the gate, so of any k sampled frames the
    /// last was published at least `(k - 2) / r` after the first: at most `n r + 2` in n seconds.
    pub fn bind(&mut self, now: Instant, stamp: &Stamp, camera: &Camera, virtual_now: u64) -> u64 {
        let (gated, superseded) = self.passed_over(stamp, camera.period_ns());
        self.ledger.gated += gated;
        self.ledger.superseded += superseded;
        self.ledger.bound += 1;
        self.in_flight += 1;
        self.undecided = stamp.frame_id.0 + 1;
        if self.interval_ns > 0 {
            let next = Instant(self.gate.0.saturating_add(self.interval_ns));
            self.gate = next.max(stamp.published);
        }
        self.count_granted(now);
        self.advance_tag(virtual_now)
    }

    /// Binds the next crop of a frame. Gate and tag move with the first one, which has a start tag.
    pub fn bind_crop(&mut self, now: Instant, virtual_now: u64) -> Option<(Crop, Option<u64>)> {
        let crops = self.crops.as_mut()?;
        let first = crops.untouched();
        let (stamp, parent) = (crops.stamp, crops.parent);
        let region = crops.take()?;
        self.ledger.bound += 1;
        self.in_flight += 1;
        let mut start = None;
        if first {
            if self.interval_ns > 0 {
                let next = Instant(self.gate.0.saturating_add(self.interval_ns));
                self.gate = next.max(stamp.published);
            }
            self.count_granted(now);
            start = Some(self.advance_tag(virtual_now));
        }
        Some((Crop { stamp, region, parent }, start))
    }

    /// Moves the tag by one frame. Returns the start tag.
    pub fn advance_tag(&mut self, virtual_now: u64) -> u64 {
        let start = self.tag.max(virtual_now);
        self.tag = start.saturating_add(self.step);
        start
    }

    /// Gives the newest frame up: it is too old to be answered in time.
    pub fn expire(&mut self, stamp: &Stamp, period_ns: f64) {
        let (gated, expired) = self.passed_over(stamp, period_ns);
        self.ledger.gated += gated;
        self.ledger.expired += expired + 1;
        self.undecided = stamp.frame_id.0 + 1;
    }

    pub fn count_granted(&mut self, now: Instant) {
        let second = now.0 / base::time::NANOS_PER_SEC;
        if second == self.granted_second {
            self.granted[(second % (GRANTED_WINDOW_S + 1)) as usize] += 1;
            return;
        }
        let slots = self.granted.len() as u64;
        if second - self.granted_second >= slots {
            self.granted.fill(0);
        } else {
            for s in self.granted_second + 1..=second {
                self.granted[(s % slots) as usize] = 0;
            }
        }
        self.granted_second = second;
        self.granted[(second % slots) as usize] += 1;
    }

    /// Frames bound in the last full seconds, and how many seconds these are.
    pub fn granted(&self, now: Instant) -> (u64, u64) {
        let second = now.0 / base::time::NANOS_PER_SEC;
        let begun = self.active_since.0 / base::time::NANOS_PER_SEC + 1;
        let from = (second.saturating_sub(GRANTED_WINDOW_S)).max(begun);
        if second <= from {
            return (0, 0);
        }
        let slots = self.granted.len() as u64;
        let in_ring = |s: u64| s <= self.granted_second && self.granted_second - s < slots;
        let count: u64 = (from..second)
            .filter(|s| in_ring(*s))
            .map(|s| u64::from(self.granted[(s % slots) as usize]))
            .sum();
        (count, second - from)
    }

    /// Starts the measure of granted fps anew: it was not served until now.
    pub fn begin_serving(&mut self, now: Instant) {
        self.granted.fill(0);
        self.granted_second = now.0 / base::time::NANOS_PER_SEC;
        self.active_since = now;
    }
}
