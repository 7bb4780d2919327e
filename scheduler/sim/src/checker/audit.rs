//! What the core should have done by now: looked at from outside, now and then.

use super::watch::{Truth, Watch};
use base::{Instant, Newest};
use scheduler::{Report, Steering, SubscriptionState};
use std::time::Duration;

/// A fair share is looked at over so long.
const FAIR_WINDOW: Duration = Duration::from_secs(8);
/// A throttled subscription gets at least this part of what the median of them gets (the order of
/// start tags differs by one frame; the rest is slack for frames that were not there in time).
const FAIR_PART: f64 = 0.4;

/// How long a device may be free while a frame waits, beyond two frame periods of the camera and
/// the deadline of the model.
///
/// One period passes until a frame that the prediction missed is followed by the next, another for
/// a prediction that is half a period off on either side; a camera that is overdue or was absent is
/// looked at every 100 ms. A planner may hold a batch to fill it, but only as long as the deadline
/// of its frames allows. With steering a gate may be moved by up to one interval, twice.
const LOOKS: Duration = Duration::from_millis(250);

impl Watch {
    /// Compares with the truth.
    pub fn audit(&mut self, now: Instant, truth: &mut dyn Truth) {
        self.now = now;
        for i in 0..self.devices.len() {
            if self.tokens(i) >= self.devices[i].capacity {
                self.devices[i].full_at = now;
            }
        }
        // Per model: since when a runner of it could have taken a batch, and what it reckons with.
        let mut free: Vec<Option<Instant>> = vec![None; self.models.len()];
        let mut needed = vec![Duration::ZERO; self.models.len()];
        let mut deadline = vec![Duration::ZERO; self.models.len()];
        for (key, link) in &self.links {
            let model = link.model;
            needed[model] = needed[model].max(link.longest(link.info.batch_max));
            deadline[model] = deadline[model].max(link.info.deadline);
            let device = &self.devices[link.device];
            if !link.idle() || device.full_at == now {
                continue;
            }
            let since =
                link.busy_at.max(device.full_at).max(device.measured_at).max(self.stalled_at);
            if truth.healthy(*key, since, now) {
                let earliest = free[model].map_or(since, |f| f.min(since));
                free[model] = Some(earliest);
            }
        }
        let mut starved = None;
        for track in self.tracks.iter_mut().filter(|t| t.alive) {
            let newest = match truth.newest(now, track.camera) {
                Newest::Frame(stamp) if stamp.frame_id.0 < u64::MAX => stamp,
                _ => {
                    track.ready_since = None;
                    continue;
                }
            };
            if !track.eligible(now, &newest, deadline[track.model], needed[track.model]) {
                track.ready_since = None;
                continue;
            }
            let ready = *track.ready_since.get_or_insert(now);
            let Some(free) = free[track.model] else { continue };
            let waits = now - ready.max(free);
            if waits <= LOOKS {
                continue;
            }
            let fps = truth.steady(track.camera, ready, now);
            let period = Duration::from_secs_f64(2.0 / fps.unwrap_or(0.5));
            let limit = track.spec.deadline.unwrap_or(deadline[track.model]);
            let steered = match (self.config.steering, track.spec.max_fps) {
                (Steering::Off, _) | (_, None) => Duration::ZERO,
                (_, Some(rate)) => Duration::from_secs_f64(2.0 / rate),
            };
            if waits > LOOKS + period + limit + steered {
                starved = Some(format!(
                    "{}: a frame waits since {} ns, a runner since {} ns",
                    track.spec.id, ready.0, free.0
                ));
                track.ready_since = Some(now);
            }
        }
        if let Some(detail) = starved {
            self.broken("no device idles while a frame waits", detail);
        }
        if now - self.window_from >= FAIR_WINDOW {
            self.fair(now, truth);
            self.window_from = now;
            self.tracks.iter_mut().for_each(|t| t.bound_in_window = 0);
        }
    }

    /// Subscriptions of one model that could take more share what there is by weight and ceiling.
    ///
    /// Only where they are many more than a batch holds: who rides along in a batch that has room
    /// gets more than its part, and takes nothing from others by that.
    fn fair(&mut self, now: Instant, truth: &dyn Truth) {
        let from = self.window_from;
        let seconds = (now - from).as_secs_f64();
        // The first window holds start, profiling and stagger; a stall is nobody's share.
        if from == Instant::ZERO || self.stalled_at > from {
            return;
        }
        for model in 0..self.models.len() {
            // Two seconds before the window: what was pending then is settled.
            let before = from.back(Duration::from_secs(2));
            if self.unsettled_at[model] > before {
                continue;
            }
            let links = self.links.values().filter(|l| l.model == model);
            let (deadline, needed) = links.fold((Duration::ZERO, Duration::ZERO), |(d, n), l| {
                (d.max(l.info.deadline), n.max(l.longest(l.info.batch_max)))
            });
            let mut throttled = Vec::new();
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
                let backlogged = fps > 4.0 * got
                    && deadline > needed * 2 + Duration::from_secs_f64(2.5 / fps);
                if got + 2.0 / seconds < 0.7 * ceiling && backlogged {
                    let weight = ceiling * spec.weight;
                    throttled.push((got / weight, i, weight));
                }
            }
            if throttled.len() <= 3 * self.members_max[model] {
                continue;
            }
            throttled.sort_by(|a, b| a.0.total_cmp(&b.0));
            let median = throttled[throttled.len() / 2].0;
            let (part, i, weight) = throttled[0];
            if part < median * FAIR_PART - 3.0 / (seconds * weight) {
                let id = &self.tracks[i].spec.id;
                let detail = format!("{id} got a part of {part:.3}, the median is {median:.3}");
                self.broken("throttled subscriptions share fairly", detail);
            }
        }
        self.members_max.fill(0);
    }

    /// Compares a report of the core with the counts of its own. Everything that the core decided
    /// so far must have been told.
    pub fn reported(&mut self, now: Instant, report: &Report) {
        self.now = now;
        let mut broken = Vec::new();
        if report.subscriptions.len() != self.by_id.len() {
            let detail = format!("{} of {}", report.subscriptions.len(), self.by_id.len());
            broken.push(("every desired subscription exists", detail));
        }
        for s in &report.subscriptions {
            if !s.balanced() {
                let detail = format!(
                    "{}: {:?}, in flight {}, pending {}",
                    s.id, s.ledger, s.in_flight, s.pending
                );
                broken.push(("ledger sums agree", detail));
            }
            let Some(track) = self.by_id.get(&s.id).map(|i| &self.tracks[*i]) else { continue };
            let ids = self.shown.get(&track.camera).map_or(0, |c| c.ids);
            if let Err(detail) = track.compare(&s.ledger, ids) {
                broken.push(("ledger tells what happened", detail));
            }
            let paused = s.state == SubscriptionState::Paused;
            if paused == track.spec.enabled && track.spec.parent.is_none() {
                broken.push(("states are true", format!("{}: {:?}", s.id, s.state)));
            }
        }
        for device in &report.devices {
            let capacity = self.config.capacity_of(&device.id);
            if device.busy > (now - Instant::ZERO) * capacity {
                let detail = format!("{}: {:?}", device.id, device.busy);
                broken.push(("a device is not busier than time allows", detail));
            }
        }
        broken.into_iter().for_each(|(invariant, detail)| self.broken(invariant, detail));
    }
}
