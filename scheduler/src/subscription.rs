//! One model on one camera: its gate, its tag, its place in the ledger.

use crate::camera::{Camera, Expected};
use crate::cascade::Crops;
use crate::device::ModelIx;
use crate::input::SubscriptionSpec;
use crate::invariant::Audited;
use crate::ledger::Ledger;
use crate::{CameraKey, SubscriptionKey};
use base::{Instant, MemberError, Rect, Stamp};
use std::ops::Range;
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
const GRANTED_WINDOW_S: u32 = 10;
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

/// What looks, launches and replies touch stands here, in three cache lines; all else in `details`.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub key: SubscriptionKey,
    pub camera: CameraKey,
    pub model: ModelIx,
    /// It looks at another one's detections.
    pub child: bool,
    /// Others look at its detections.
    pub parent: bool,
    /// Served or why not; `NoFrames` is never stored here, it is the camera's affair.
    pub state: SubscriptionState,
    /// Whether it stands in its model's ready set, with this `tag`.
    pub ready: bool,
    /// Whether it stands in its model's list of those whose frame may be there.
    pub overdue: bool,
    /// The launch of its model's timetable that it is taken for.
    pub cohort: Option<u32>,
    /// Its next frame is taken for a launch of the timetable, at `awaits`.
    pub on_time: bool,
    /// Frames published earlier are not eligible: the FPS ceiling, in real time.
    pub gate: Instant,
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
    /// Frame ids from the first observed one on.
    pub observed: u64,
    /// Its own deadline and parameter set, those of `spec`.
    pub deadline: Option<Duration>,
    pub parameters: u32,
    pub counts: Counts,
    pub details: Box<Details>,
}

const _: () = assert!(size_of::<Subscription>() == 192);

/// What is counted with most frames: one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Counts {
    /// As in the [`Ledger`].
    pub gated: u64,
    pub superseded: u64,
    pub bound: u64,
    pub sampled: u64,
    pub in_flight: u32,
    granted_second: u32,
    granted: [u16; GRANTED_WINDOW_S as usize + 1],
}

/// What is seldom touched.
#[derive(Debug)]
pub(crate) struct Details {
    /// All but what stands in [`Counts`] and `observed`.
    pub ledger: Ledger,
    active_since: Instant,
    /// A gate that moves to another frame does so no earlier.
    pub shift_at: Instant,
    /// Those that look at the detections of this one.
    pub children: Vec<SubscriptionKey>,
    /// It is a child whose parent is not there.
    pub orphan: bool,
    pub audited: Audited,
    /// What a child has to look at.
    pub crops: Option<Box<Crops>>,
    pub spec: SubscriptionSpec,
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
    pub fn respec(&mut self) {
        let spec = &self.details.spec;
        let interval = spec.max_fps.map_or(0.0, |fps| 1e9 / fps);
        // A nanosecond too long rather than too short: thousands of frames add it up.
        self.interval_ns = interval.ceil() as u64;
        self.deadline = spec.deadline;
        self.parameters = spec.parameters;
        self.set_source(0.0);
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

    /// Whether its next frame, which is `expected`, may be there although the last look did not show it.
    pub fn may_come(&self, camera: &Camera, expected: Option<Expected>, now: Instant) -> bool {
        self.state == SubscriptionState::Active
            && expected.is_some_and(|e| e.earliest <= now)
            && !camera.pauses(now)
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
        self.counts.gated += gated;
        self.counts.superseded += superseded;
        self.counts.bound += 1;
        self.counts.in_flight += 1;
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
        let crops = self.details.crops.as_mut()?;
        let first = crops.untouched();
        let (stamp, parent) = (crops.stamp, crops.parent);
        let region = crops.take()?;
        self.counts.bound += 1;
        self.counts.in_flight += 1;
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

    /// A frame that was bound at `bound` is taken back before it was granted: its turn comes again.
    /// The gate stays, for gates never move back.
    pub fn unbind(&mut self, bound: Instant) {
        self.tag = self.tag.saturating_sub(self.step);
        self.details.audited.set_back(self.gate, self.tag);
        let counts = &mut self.counts;
        let slots = counts.granted.len() as u32;
        let second = second_of(bound);
        if counts.granted_second.checked_sub(second).is_some_and(|ago| ago < slots) {
            let there = &mut counts.granted[(second % slots) as usize];
            *there = there.saturating_sub(1);
        }
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
        self.counts.gated += gated;
        self.details.ledger.expired += expired + 1;
        self.undecided = stamp.frame_id.0 + 1;
    }

    pub fn count_granted(&mut self, now: Instant) {
        let counts = &mut self.counts;
        let second = second_of(now);
        let slots = counts.granted.len() as u32;
        if second != counts.granted_second {
            if second - counts.granted_second >= slots {
                counts.granted.fill(0);
            } else {
                for s in counts.granted_second + 1..=second {
                    counts.granted[(s % slots) as usize] = 0;
                }
            }
            counts.granted_second = second;
        }
        let here = &mut counts.granted[(second % slots) as usize];
        *here = here.saturating_add(1);
    }

    /// Frames bound in the last full seconds, and the length of these; before there is a full second,
    /// those bound since it is served, and a second.
    pub fn granted(&self, now: Instant) -> (u64, Duration) {
        let counts = &self.counts;
        let second = second_of(now);
        let begun = second_of(self.details.active_since) + 1;
        let slots = counts.granted.len() as u32;
        let in_ring = |s: u32| s <= counts.granted_second && counts.granted_second - s < slots;
        let bound = |seconds: Range<u32>| -> u64 {
            let seconds = seconds.filter(|s| in_ring(*s));
            seconds.map(|s| u64::from(counts.granted[(s % slots) as usize])).sum()
        };
        let from = second.saturating_sub(GRANTED_WINDOW_S).max(begun);
        if second > from {
            return (bound(from..second), Duration::from_secs(u64::from(second - from)));
        }
        let since = now - self.details.active_since;
        (bound(begun - 1..second + 1), since.max(Duration::from_secs(1)))
    }

    /// Starts the measure of granted fps anew: until now there was nothing to grant, or nobody to
    /// grant it.
    pub fn begin_serving(&mut self, now: Instant) {
        self.counts.granted.fill(0);
        self.counts.granted_second = second_of(now);
        self.details.active_since = now;
    }

    /// A bound frame ends. False = none was in flight.
    #[must_use]
    pub fn land(&mut self) -> bool {
        let flies = self.counts.in_flight > 0;
        self.counts.in_flight = self.counts.in_flight.saturating_sub(1);
        flies
    }

    /// A bound frame was answered.
    pub fn answer(&mut self, error: Option<MemberError>) {
        match error {
            None => self.counts.sampled += 1,
            Some(error) => self.details.ledger.answer(error),
        }
    }

    /// Where every frame went.
    pub fn ledger(&self) -> Ledger {
        let &Counts { gated, superseded, bound, sampled, .. } = &self.counts;
        let observed = self.observed;
        Ledger { observed, gated, superseded, bound, sampled, ..self.details.ledger }
    }
}

/// The second of the clock that an instant lies in.
fn second_of(at: Instant) -> u32 {
    (at.0 / base::time::NANOS_PER_SEC) as u32
}
