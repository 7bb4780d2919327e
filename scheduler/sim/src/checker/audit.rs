//! What the core should have done by now: looked at from outside, now and then.

use super::seen::Happening;
use super::watch::{Truth, Watch};
use base::{Instant, Newest};
use scheduler::{Report, Steering, SubscriptionState};
use std::time::Duration;

/// Who wants to be measured is measured within this: sizes and batches take turns, one turn is at
/// most a lease, and no lease is longer than the hang limit.
const MEASURED_WITHIN: Duration = Duration::from_secs(6);

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
            // Who overran a lease waits for its budget and for gaps.
            if !link.idle() || device.full_at == now || !link.as_good_as_any() {
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
                    "{} at {:?} fps: a frame waits since {} ns, a runner since {} ns, {} was bound",
                    track.spec.id, track.spec.max_fps, ready.0, free.0, track.ledger.bound
                ));
                track.ready_since = Some(now);
            }
        }
        if let Some(detail) = starved {
            self.broken("no device idles while a frame waits", detail);
        }
        self.measuring(now, truth);
        self.shares(now, truth);
    }

    /// A runner that wants to be measured gets its turn, also on a device without an idle moment.
    fn measuring(&mut self, now: Instant, truth: &dyn Truth) {
        for i in 0..self.devices.len() {
            let since = self.devices[i].measured_last.max(self.stalled_at);
            let wants = self.links.iter().find(|(key, l)| {
                l.device == i
                    && l.open()
                    && !l.late()
                    && !l.wanted.is_empty()
                    && truth.healthy(**key, since, now)
            });
            match wants {
                None => self.devices[i].measured_last = now,
                Some((key, _)) if now - since > MEASURED_WITHIN => {
                    let detail = format!("{key:?} on {}", self.devices[i].id);
                    self.broken("who wants to be measured is measured", detail);
                    self.devices[i].measured_last = now;
                }
                Some(_) => {}
            }
        }
    }

    /// What the ledgers tell of a world that has ended.
    pub fn ended(&mut self, report: &Report) {
        for s in &report.subscriptions {
            let l = &s.ledger;
            for (what, count) in [
                (Happening::Torn, l.torn),
                (Happening::Errors, l.errors.iter().sum()),
                (Happening::Revoked, l.revoked),
                (Happening::ExpiredLate, l.expired_late),
                (Happening::LostWithRunner, l.lost_with_runner),
                (Happening::Expired, l.expired),
                (Happening::Gap, l.unserved_gap),
                (Happening::Parked, l.unserved_parked),
            ] {
                self.seen.note(what, count);
            }
            if self.by_id.get(&s.id).is_some_and(|i| self.tracks[*i].spec.parent.is_some()) {
                self.seen.note(Happening::Crops, l.bound);
                self.seen.note(Happening::CropsExpired, l.expired);
            }
        }
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
        if report.broken.iter().any(|n| *n > 0) {
            broken.push(("the core's own invariants hold", format!("{:?}", report.broken)));
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
        for r in &report.runners {
            let open = self
                .links
                .values()
                .find(|l| l.open() && l.instance == r.instance && l.info.model == r.model);
            if let Some(link) = open.filter(|l| l.table != r.latency) {
                let detail =
                    format!("{} on {}: {:?}, not {:?}", r.model, r.device, r.latency, link.table);
                broken.push(("a promise is what was measured", detail));
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
