//! What must hold in every world, whatever happens.

mod audit;
mod inputs;
mod launches;
mod link;
mod seen;
mod shares;
mod track;
mod watch;

pub use seen::{Happening, Seen};
pub use watch::{Truth, Watch};

use base::Instant;
use scheduler::{Binding, Report, SubscriptionKey, SubscriptionSpec};
use std::collections::BTreeMap;
use std::fmt;

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// Which, for example `ceiling`.
    pub invariant: &'static str,
    /// When.
    pub at: Instant,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at.0 as f64 / 1e9;
        write!(f, "{} broken at {seconds:.6} s: {}", self.invariant, self.detail)
    }
}

/// The ceiling of one assignment id from one moment on.
#[derive(Debug, Clone, Copy)]
struct Step {
    from: Instant,
    max_fps: Option<f64>,
    /// Frames that the ceilings before allowed until `from`: the integral of the rate.
    allowed: f64,
    /// How often the ceiling was changed until here.
    changes: u32,
    /// Rises whenever a ceiling begins or ends to exist.
    era: u32,
}

/// Every ceiling that an assignment id had, oldest first.
#[derive(Debug)]
struct Ceilings(Vec<Step>);

impl Ceilings {
    fn change(&mut self, now: Instant, max_fps: Option<f64>) {
        let last = self.0[self.0.len() - 1];
        if last.max_fps == max_fps {
            return;
        }
        let bounded = last.max_fps.is_some() && max_fps.is_some();
        self.0.push(Step {
            from: now,
            max_fps,
            allowed: last.allowed_at(now),
            changes: last.changes + 1,
            era: last.era + u32::from(!bounded),
        });
    }

    /// What was in force at `at`.
    fn at(&self, at: Instant) -> &Step {
        self.0.iter().rev().find(|s| s.from <= at).unwrap_or(&self.0[0])
    }
}

impl Step {
    fn allowed_at(&self, at: Instant) -> f64 {
        let seconds = (at.0 as f64 - self.from.0 as f64) / 1e9;
        self.allowed + seconds * self.max_fps.unwrap_or(0.0)
    }
}

#[derive(Debug)]
struct Track {
    subscription: SubscriptionKey,
    /// Place of its id in `ceilings`.
    ceilings: usize,
    last_frame: u64,
    count: u64,
    /// Smallest of `i - R(p_i)` over the sampled frames i, R being the integral of the ceiling and
    /// p the publication: no window holds more than the integral over it + 2 frames exactly when
    /// no later value exceeds it by more than 1.
    lowest: f64,
    /// The `changes` and `era` that `lowest` belongs to.
    changes: u32,
    era: u32,
}

/// Watches every decision.
#[derive(Debug, Default)]
pub struct Checker {
    ids: BTreeMap<String, usize>,
    ceilings: Vec<Ceilings>,
    /// By the number of the key.
    tracks: Vec<Option<Track>>,
    violations: Vec<Violation>,
}

impl Checker {
    /// What was broken so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Reports a broken invariant.
    pub fn broken(&mut self, invariant: &'static str, at: Instant, detail: String) {
        // The first hundred tell the story.
        if self.violations.len() < 100 {
            self.violations.push(Violation { invariant, at, detail });
        }
    }

    /// These subscriptions exist from `now` on. A window that a changed ceiling falls into may hold
    /// one frame more: a gate that is open or set when a ceiling is lowered was set by the old one,
    /// and a frame published before it was raised but bound after moves the gate by the new one.
    /// Windows that begin after the change hold what the new ceiling allows.
    pub fn desired(&mut self, now: Instant, subscriptions: &[SubscriptionSpec]) {
        for spec in subscriptions {
            if let Some(known) = self.ids.get(&spec.id) {
                self.ceilings[*known].change(now, spec.max_fps);
                continue;
            }
            self.ids.insert(spec.id.clone(), self.ceilings.len());
            let first = Step { from: now, max_fps: spec.max_fps, allowed: 0.0, changes: 0, era: 0 };
            self.ceilings.push(Ceilings(vec![first]));
        }
    }

    /// A frame was bound at `now`; `id` is asked for the assignment id of its subscription.
    pub fn bound<'a>(
        &mut self,
        now: Instant,
        binding: &Binding,
        id: impl FnOnce() -> Option<&'a str>,
    ) {
        let stamp = &binding.stamp;
        let frame = stamp.frame_id.0;
        if stamp.published > now || stamp.info.capture > stamp.published {
            let detail = format!("{binding:?}");
            self.broken("capture <= published <= bound", now, detail);
        }
        let at = binding.subscription.place();
        if at >= self.tracks.len() {
            self.tracks.resize_with(at + 1, || None);
        }
        let another = |t: &Track| t.subscription != binding.subscription;
        if self.tracks[at].as_ref().is_none_or(another) {
            let Some(ceilings) = id().and_then(|id| self.ids.get(id)).copied() else {
                let detail = format!("{binding:?}");
                return self.broken("only what is desired is bound", now, detail);
            };
            let first = Track {
                subscription: binding.subscription,
                ceilings,
                last_frame: 0,
                count: 0,
                lowest: f64::MAX,
                changes: 0,
                era: 0,
            };
            self.tracks[at] = Some(first);
        }
        let Some(track) = &mut self.tracks[at] else { return };
        if frame <= track.last_frame && track.count > 0 {
            let detail =
                format!("frame {frame} after {} for {:?}", track.last_frame, binding.subscription);
            return self.broken("no frame twice, ids rise", now, detail);
        }
        track.last_frame = frame;
        let position = track.count as f64;
        track.count += 1;
        let step = self.ceilings[track.ceilings].at(stamp.published);
        if step.max_fps.is_none() {
            return;
        }
        if step.era != track.era {
            (track.era, track.lowest) = (step.era, f64::MAX);
        }
        track.lowest += f64::from(step.changes.saturating_sub(track.changes));
        track.changes = track.changes.max(step.changes);
        let value = position - step.allowed_at(stamp.published);
        track.lowest = track.lowest.min(value);
        let over = value - track.lowest - 1.0;
        // One microframe of slack for the rounding of gates to nanoseconds.
        if over > 1e-6 {
            let detail = format!("{:?} is {over:.6} frames above", binding.subscription);
            self.broken("ceiling", now, detail);
        }
    }

    /// The sums of every ledger agree.
    pub fn report(&mut self, now: Instant, report: &Report) {
        for s in &report.subscriptions {
            if !s.balanced() {
                self.broken(
                    "ledger",
                    now,
                    format!("{}: {:?}, in flight {}", s.id, s.ledger, s.in_flight),
                );
            }
        }
    }
}
