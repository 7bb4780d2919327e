//! Tells how everything is.

use crate::runner::Runner;
use crate::state::Scheduler;
use crate::status::{CameraReport, DeviceReport, Report, SubscriptionReport};
use crate::subscription::SubscriptionState;
use base::{FrameId, Generation, Instant};
use std::ops::Range;
use std::time::Duration;

/// Granted below this share of what could be had is called overload (the FPS rule's 2 % and the
/// resolution of the ten-second window; 0.86 to 1 tell the same in all worlds).
const SATISFIED_SHARE: f64 = 0.93;
/// What was granted for less long than this says nothing of what will be (none, half and twice fail
/// tests of what is told).
const JUDGED_FROM: Duration = Duration::from_secs(2);

impl Scheduler {
    /// The state of everything.
    pub fn report(&self, now: Instant) -> Report {
        self.report_of(now, 0..usize::MAX)
    }

    /// The state in parts, so that nobody waits for all of it: the subscriptions and cameras of up to
    /// `count` places from `from` on, and with the first part, at 0, all runners and devices. Says
    /// where the next part begins, `None` = this was the last. Audits what it tells of.
    pub fn report_part(
        &mut self,
        now: Instant,
        from: usize,
        count: usize,
    ) -> (Report, Option<usize>) {
        let end = from.saturating_add(count);
        self.audit(from..end);
        let more = end < self.subscriptions.places().max(self.cameras.places());
        (self.report_of(now, from..end), more.then_some(end))
    }

    fn report_of(&self, now: Instant, places: Range<usize>) -> Report {
        let room = self.subscriptions.places().min(places.end).saturating_sub(places.start);
        let mut subscriptions = Vec::with_capacity(room);
        for s in self.subscriptions.part(places.clone()) {
            let camera = &self.cameras[s.camera];
            let spec = s.spec();
            let state = match s.state() {
                SubscriptionState::Active if camera.absent().is_some() && spec.parent.is_none() => {
                    SubscriptionState::NoFrames
                }
                state => state,
            };
            let (granted, span) = s.granted(now);
            let wanted = spec.max_fps.unwrap_or(f64::MAX);
            // n seconds hold up to n r + 2 frames: those at its edges are no higher rate.
            let granted_fps = (granted as f64 / span.as_secs_f64()).min(wanted);
            // One frame more may lie just outside the window.
            let at_most = (granted + 1) as f64 / span.as_secs_f64();
            let reason = match state {
                SubscriptionState::NoFrames => "no_frames",
                SubscriptionState::NoRunner => "no_runner",
                SubscriptionState::Parked => "parked",
                SubscriptionState::Paused if s.orphan() => "no_parent",
                SubscriptionState::Paused => "paused",
                // How many crops there are is the parent's affair.
                SubscriptionState::Active if s.child => "",
                SubscriptionState::Active => {
                    let source = camera.fps();
                    if span < JUDGED_FROM || at_most >= SATISFIED_SHARE * wanted.min(source) {
                        // 0: its second frame has not come yet.
                        let slow = source > 0.0 && source < SATISFIED_SHARE * wanted;
                        if slow { "source_fps" } else { "" }
                    } else if camera.pauses(now) {
                        "source_fps"
                    } else if self.measured_now(s.model) {
                        "profiling"
                    } else {
                        "overload"
                    }
                }
            };
            subscriptions.push(SubscriptionReport {
                id: spec.id.clone(),
                camera: spec.camera.clone(),
                model: spec.model.clone(),
                state,
                max_fps: spec.max_fps,
                granted_fps,
                reason,
                ledger: s.ledger(),
                in_flight: u64::from(s.in_flight()),
                pending: s.pending(),
            });
        }
        let here = self.cameras.all().take(places.end).skip(places.start);
        let cameras = here
            .filter(|(agent, _)| !agent.stopped())
            .map(|(agent, c)| CameraReport {
                id: agent.id.clone(),
                absent: c.absent(),
                generation: c.newest().map_or_else(Generation::default, |n| n.generation),
                newest: c.newest().map_or_else(FrameId::default, |n| n.frame_id),
                fps: c.fps(),
            })
            .collect();
        let (mut runners, mut devices) = (Vec::new(), Vec::new());
        if places.start == 0 {
            let steered = |r: &Runner| self.models[r.model.0].cohorts().is_some();
            runners.extend(self.runners.iter().map(|r| r.report(steered(r))));
            runners.extend(self.hung.values().map(|h| h.report.clone()));
            devices.extend(self.devices.iter().map(|d| DeviceReport {
                id: d.id.clone(),
                suspect: d.suspect(),
                busy: d.busy(),
                load: d.load(),
                overloaded: d.overloaded(),
            }));
        }
        let (revision, broken) = (self.revision(), self.invariants.broken());
        Report { revision, broken, subscriptions, cameras, runners, devices }
    }
}
