//! Whether those who get less than they could take share it as they should.

use super::seen::Happening;
use super::watch::{Truth, Watch};
use base::Instant;
use std::time::Duration;

/// Shares are looked at over so many seconds.
pub(super) const WINDOW_S: usize = 8;
/// The same as a time.
const WINDOW: Duration = Duration::from_secs(WINDOW_S as u64);
/// What happened so long before the window still has effects in it.
const SETTLED: Duration = Duration::from_secs(2);
/// A throttled subscription gets at least this part of what is fair (the order of start tags
/// differs by one frame; the rest is slack for frames that were not there in their turn).
const FAIR_PART: f64 = 0.4;
/// Who gets less than this part of its ceiling is throttled (chosen: a gate opens one interval after
/// the frame before, so waiting for a turn costs a part of the rate without anybody taking it).
const THROTTLED: f64 = 0.5;
/// What a model is given per second may be so many times the mean of its window. Shares of times that
/// were given unlike amounts say nothing: while there is enough, two at their ceiling of r get parts of
/// `1 / w`, weights 4 and 1 hence 0.25 and 1; when nothing is given for the rest of the window both
/// shrink alike, and who had all it could take looks as if it had been robbed of three quarters.
const STEADY: f64 = 2.0;
/// Frames by which two that share fairly may differ.
const FRAMES: f64 = 3.0;

/// Frames per second relative to weight and ceiling of the throttled subscriptions of a model.
struct Shares {
    lowest: f64,
    /// What others of the model get: the median of the throttled, or of those that get all they
    /// could take where that is more.
    others: f64,
    /// Index of the one with the lowest share, and its weight times ceiling.
    track: usize,
    weight: f64,
    /// They are many more than a batch holds, so that nobody rides along in one that has room: who
    /// does gets more than its part, and takes nothing from others by that.
    crowded: bool,
}

impl Watch {
    /// At the end of each window compares shares within models and between those of a device.
    pub(super) fn shares(&mut self, now: Instant, truth: &dyn Truth) {
        let from = self.window_from;
        if now - from < WINDOW {
            return;
        }
        // The first window holds start and stagger; a stall is nobody's share.
        if from > Instant::ZERO && self.stalled_at < from {
            let shares: Vec<_> =
                (0..self.models.len()).map(|m| self.shares_of(m, from, now, truth)).collect();
            self.within_models(&shares, now - from);
            self.between_models(&shares, now - from);
        }
        self.window_from = now;
        self.tracks.iter_mut().for_each(|t| t.bound_in_window = 0);
        self.members_max.fill(0);
        self.given.iter_mut().for_each(|g| g.fill(0));
    }

    fn shares_of(
        &self,
        model: usize,
        from: Instant,
        now: Instant,
        truth: &dyn Truth,
    ) -> Option<Shares> {
        let seconds = (now - from).as_secs_f64();
        let before = from.back(SETTLED);
        let served = self.links.values().any(|l| l.model == model);
        let given = &self.given[model];
        let mean = given.iter().sum::<u64>() as f64 / given.len() as f64;
        let most = given.iter().max().map_or(0.0, |n| *n as f64);
        let steady = most <= STEADY * mean + FRAMES;
        if !served || !steady || self.unsettled_at[model] > before {
            return None;
        }
        let links = self.links.values().filter(|l| l.model == model);
        let (deadline, needed) = links.fold((Duration::ZERO, Duration::ZERO), |(d, n), l| {
            (d.max(l.info.deadline), n.max(l.longest(l.info.batch_max)))
        });
        let mut throttled = Vec::new();
        let mut content = Vec::new();
        for (i, track) in self.tracks.iter().enumerate() {
            let spec = &track.spec;
            let served = track.alive && spec.enabled && spec.parent.is_none();
            if !served || track.model != model || track.changed > before {
                continue;
            }
            let Some(fps) = truth.steady(track.camera, before, now) else { continue };
            let ceiling = spec.max_fps.map_or(fps, |r| r.min(fps));
            let got = track.bound_in_window as f64 / seconds;
            // A frame of it waits nearly always, fresh enough to be taken.
            let deadline = spec.deadline.unwrap_or(deadline);
            let backlogged =
                fps > 4.0 * got && deadline > needed * 2 + Duration::from_secs_f64(2.5 / fps);
            if got + 2.0 / seconds < THROTTLED * ceiling && backlogged {
                let weight = ceiling * spec.weight;
                throttled.push((got / weight, i, weight));
            } else if got > FRAMES / seconds {
                // The ceiling allows two frames more in any window.
                content.push((got - 2.0 / seconds) / (ceiling * spec.weight));
            }
        }
        throttled.sort_by(|a, b| a.0.total_cmp(&b.0));
        let &(lowest, track, weight) = throttled.first()?;
        content.sort_by(f64::total_cmp);
        let median = throttled[throttled.len() / 2].0;
        let others = content.get(content.len() / 2).map_or(median, |c| c.max(median));
        let crowded = throttled.len() > 3 * self.members_max[model];
        Some(Shares { lowest, others, track, weight, crowded })
    }

    fn within_models(&mut self, shares: &[Option<Shares>], window: Duration) {
        for s in shares.iter().flatten().filter(|s| s.crowded) {
            self.seen.note(Happening::SharesCompared, 1);
            let slack = FRAMES / (window.as_secs_f64() * s.weight);
            if s.lowest + slack < s.others * FAIR_PART {
                let (id, lowest, others) = (&self.tracks[s.track].spec.id, s.lowest, s.others);
                let detail = format!("{id} got a part of {lowest:.3}, others get {others:.3}");
                self.broken("throttled subscriptions share fairly", detail);
            }
        }
    }

    /// Models that live on one device with one token, and only there.
    fn between_models(&mut self, shares: &[Option<Shares>], window: Duration) {
        for device in 0..self.devices.len() {
            if self.devices[device].capacity > 1 {
                continue;
            }
            let mut here = Vec::new();
            for (model, s) in shares.iter().enumerate() {
                let mut links = self.links.values().filter(|l| l.model == model);
                let Some(s) = s else { continue };
                if links.all(|l| l.device == device && l.as_good_as_any()) {
                    here.push(s);
                }
            }
            let crowded = here.iter().filter(|s| s.crowded).map(|s| s.others);
            let Some(fair) = crowded.max_by(f64::total_cmp) else { continue };
            let poor = here.iter().find(|s| {
                let slack = FRAMES / (window.as_secs_f64() * s.weight);
                s.lowest + slack < fair * FAIR_PART
            });
            if let Some(s) = poor {
                let detail = format!(
                    "{} got a part of {:.3}, another model on {} {fair:.3}",
                    self.tracks[s.track].spec.id, s.lowest, self.devices[device].id
                );
                self.broken("throttled models share fairly", detail);
            }
        }
    }
}
