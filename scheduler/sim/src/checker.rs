//! What must hold in every world, whatever happens.

use base::Instant;
use scheduler::{Binding, Report, SubscriptionKey};
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

#[derive(Debug, Default)]
struct Track {
    last_frame: u64,
    count: u64,
    /// Smallest of `i - p_i r` over the sampled frames i: no window holds more than `n r + 2`
    /// frames exactly when no later value exceeds it by more than 1.
    lowest: f64,
}

/// Watches every decision.
#[derive(Debug, Default)]
pub struct Checker {
    tracks: BTreeMap<SubscriptionKey, Track>,
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

    /// A frame was bound at `now`; `max_fps` is the ceiling of its subscription.
    pub fn bound(&mut self, now: Instant, binding: &Binding, max_fps: Option<f64>) {
        let stamp = &binding.stamp;
        let id = stamp.frame_id.0;
        if stamp.published > now || stamp.info.capture > stamp.published {
            let detail = format!("{binding:?}");
            self.broken("capture <= published <= bound", now, detail);
        }
        let track = self.tracks.entry(binding.subscription).or_default();
        if id <= track.last_frame && track.count > 0 {
            let detail =
                format!("frame {id} after {} for {:?}", track.last_frame, binding.subscription);
            return self.broken("no frame twice, ids rise", now, detail);
        }
        track.last_frame = id;
        let position = track.count as f64;
        track.count += 1;
        let Some(rate) = max_fps else { return };
        let value = position - stamp.published.0 as f64 / 1e9 * rate;
        if position == 0.0 {
            track.lowest = value;
        }
        // One microframe of slack for the rounding of gates to nanoseconds.
        if value - track.lowest > 1.0 + 1e-6 {
            let over = value - track.lowest - 1.0;
            let detail = format!("{:?} is {over:.6} frames above", binding.subscription);
            self.broken("ceiling", now, detail);
        }
        let track = self.tracks.entry(binding.subscription).or_default();
        track.lowest = track.lowest.min(value);
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
