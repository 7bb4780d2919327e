//! One model on one camera: its gate, its tag, its place in the ledger.

use crate::CameraKey;
use crate::camera::Camera;
use crate::device::ModelIx;
use crate::input::SubscriptionSpec;
use crate::ledger::Ledger;
use base::{Instant, Stamp};
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

#[derive(Debug)]
pub(crate) struct Subscription {
    pub spec: SubscriptionSpec,
    pub camera: CameraKey,
    pub model: ModelIx,
    /// Served or why not; `NoFrames` is never stored here, it is the camera's affair.
    pub state: SubscriptionState,
    /// Frames published earlier are not eligible: the FPS ceiling, in real time.
    pub gate: Instant,
    /// Place in the order among subscriptions, in virtual nanoseconds.
    pub tag: u64,
    /// Whether it stands in its model's ready set, with this `tag`.
    pub ready: bool,
    /// First id without an end in the ledger; `None` before the first observed frame.
    undecided: Option<u64>,
    /// Newest observed id.
    seen: u64,
    pub ledger: Ledger,
    pub in_flight: u64,
    granted: [u32; GRANTED_WINDOW_S as usize + 1],
    granted_second: u64,
    active_since: Instant,
}

impl Subscription {
    pub fn new(spec: SubscriptionSpec, camera: CameraKey, model: ModelIx, now: Instant) -> Self {
        Subscription {
            spec,
            camera,
            model,
            state: SubscriptionState::NoRunner,
            gate: Instant::ZERO,
            tag: 0,
            ready: false,
            undecided: None,
            seen: 0,
            ledger: Ledger::default(),
            in_flight: 0,
            granted: [0; GRANTED_WINDOW_S as usize + 1],
            granted_second: 0,
            active_since: now,
        }
    }

    /// Time between two frames at the ceiling.
    pub fn interval(&self) -> Option<Duration> {
        self.spec.max_fps.map(|fps| Duration::from_secs_f64(1.0 / fps))
    }

    /// Opens the gate `share` (0..1) of an interval from now: subscriptions that begin together
    /// are spread evenly.
    pub fn stagger(&mut self, now: Instant, share: f64) {
        if let Some(interval) = self.interval() {
            self.gate = now + interval.mul_f64(share);
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
        self.undecided.map_or(0, |next| (self.seen + 1).saturating_sub(next))
    }

    /// Takes note of the newest frame. `first`: the ids begin here. `gap`: the camera could not be
    /// read since the last one, so what lies between was never on offer.
    pub fn observe(&mut self, id: u64, first: bool, gap: bool) {
        self.ledger.observed += match self.undecided {
            Some(_) if !first => id - self.seen,
            _ => 1,
        };
        match self.undecided {
            None => self.undecided = Some(id),
            Some(_) if first => {
                self.ledger.unserved_gap += self.pending();
                self.undecided = Some(id);
            }
            Some(next) if gap && id > next => {
                self.ledger.unserved_gap += id - next;
                self.undecided = Some(id);
            }
            Some(_) => {}
        }
        self.seen = id;
    }

    /// Whether `stamp` could be bound now.
    pub fn eligible(&self, stamp: &Stamp) -> bool {
        self.state == SubscriptionState::Active
            && self.undecided.is_some_and(|next| stamp.frame_id.0 >= next)
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
        self.undecided = Some(self.seen + 1);
    }

    /// Of the pending ids older than the newest, how many were published before and after the gate
    /// opened. Only the newest one's stamp is known; the period dates the others.
    fn passed_over(&self, stamp: &Stamp, period: Option<Duration>) -> (u64, u64) {
        let older = self.pending().saturating_sub(1);
        let open = stamp.published - self.gate;
        let after = match period {
            Some(period) if !period.is_zero() => (open.as_nanos() / period.as_nanos()) as u64,
            _ => older,
        };
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
        let (gated, superseded) = self.passed_over(stamp, camera.period());
        self.ledger.gated += gated;
        self.ledger.superseded += superseded;
        self.ledger.bound += 1;
        self.in_flight += 1;
        self.undecided = Some(stamp.frame_id.0 + 1);
        if let Some(interval) = self.interval() {
            self.gate = (self.gate + interval).max(stamp.published);
        }
        let start = self.tag.max(virtual_now);
        self.tag = start.saturating_add(self.step(camera));
        self.count_granted(now);
        start
    }

    /// Gives the newest frame up: it is too old to be answered in time.
    pub fn expire(&mut self, stamp: &Stamp, period: Option<Duration>) {
        let (gated, expired) = self.passed_over(stamp, period);
        self.ledger.gated += gated;
        self.ledger.expired += expired + 1;
        self.undecided = Some(stamp.frame_id.0 + 1);
    }

    /// How far one frame moves the tag, virtual nanoseconds: the fair currency is frames relative
    /// to what the subscription could get at most.
    pub fn step(&self, camera: &Camera) -> u64 {
        let source = if camera.fps() > 0.0 { camera.fps() } else { FPS_ASSUMED };
        let fps = self.spec.max_fps.map_or(source, |max| max.min(source));
        (1e9 / (self.spec.weight * fps)) as u64
    }

    fn count_granted(&mut self, now: Instant) {
        let second = now.0 / base::time::NANOS_PER_SEC;
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
