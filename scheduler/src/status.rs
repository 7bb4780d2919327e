//! What the core says of itself.

use crate::camera::AgentState;
use crate::invariant::Invariant;
use crate::ledger::Ledger;
use crate::machine::Scheduler;
use crate::runner::{Runner, RunnerState};
use crate::subscription::SubscriptionState;
use base::{
    Absent, CameraId, DeviceId, FrameId, Generation, InstanceId, Instant, LatencyTable, ModelId,
};
use std::ops::Range;
use std::time::Duration;

/// One subscription.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "fields are those of the subscription and of the ledger")]
pub struct SubscriptionReport {
    pub id: String,
    pub camera: CameraId,
    pub model: ModelId,
    pub state: SubscriptionState,
    pub max_fps: Option<f64>,
    /// Frames bound per second over the last ten seconds.
    pub granted_fps: f64,
    /// Why that is below the ceiling; empty = it is not.
    pub reason: &'static str,
    pub ledger: Ledger,
    pub in_flight: u64,
    /// Observed ids without an end yet.
    pub pending: u64,
}

impl SubscriptionReport {
    /// Whether every observed and every bound frame is in exactly one place.
    pub fn balanced(&self) -> bool {
        self.ledger.observed == self.ledger.decided() + self.pending
            && self.ledger.bound == self.ledger.ended() + self.in_flight
    }
}

/// One camera with subscriptions.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "fields are those of the agent")]
pub struct CameraReport {
    pub id: CameraId,
    pub absent: Option<Absent>,
    pub generation: Generation,
    pub newest: FrameId,
    /// Measured frames per second, 0 = unknown.
    pub fps: f64,
}

/// One runner: connected, or hung.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "fields are those of the runner")]
pub struct RunnerReport {
    pub model: ModelId,
    pub device: DeviceId,
    pub instance: InstanceId,
    pub state: RunnerState,
    pub batches: u64,
    pub members: u64,
    /// Time the device was its own.
    pub busy: Duration,
    /// Sums over all answered members, in the order of [`base::Stages::NAMES`].
    pub stage_sums: [Duration; 9],
    pub latency: LatencyTable,
    /// Largest batch that pays.
    pub batch_size: u32,
    /// Members of a batch as planned.
    pub batch_planned: f64,
    /// Planned time between two launches.
    pub interval: Duration,
    /// Whether frames are chosen to land before a launch.
    pub steered: bool,
}

/// One device.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "fields are those of the device")]
pub struct DeviceReport {
    pub id: DeviceId,
    pub suspect: bool,
    pub busy: Duration,
    /// Wanted share of the device with the largest batches in time; above 1 is overload for sure.
    pub load: f64,
    /// More is wanted than there is.
    pub overloaded: bool,
}

/// All of the above, or a part of it.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "fields are documented with their types")]
pub struct Report {
    pub revision: u64,
    /// How often each [`Invariant`] was broken, in their order.
    pub broken: [u64; Invariant::COUNT],
    pub subscriptions: Vec<SubscriptionReport>,
    pub cameras: Vec<CameraReport>,
    pub runners: Vec<RunnerReport>,
    pub devices: Vec<DeviceReport>,
}

/// Granted below this share of what could be had is called overload (chosen: the FPS rule's 2 %
/// and the resolution of the ten-second window).
const SATISFIED_SHARE: f64 = 0.93;
/// What was granted for less long than this says nothing of what will be (chosen).
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
        let more = end < self.subscriptions.places().max(self.agents.len());
        (self.report_of(now, from..end), more.then_some(end))
    }

    fn report_of(&self, now: Instant, places: Range<usize>) -> Report {
        let room = self.subscriptions.places().min(places.end).saturating_sub(places.start);
        let mut subscriptions = Vec::with_capacity(room);
        for s in self.subscriptions.part(places.clone()) {
            let camera = &self.cameras[s.camera.0 as usize];
            let spec = &s.details.spec;
            let state = match s.state {
                SubscriptionState::Active if camera.absent.is_some() && spec.parent.is_none() => {
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
                SubscriptionState::Paused if s.details.orphan => "no_parent",
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
                in_flight: u64::from(s.counts.in_flight),
                pending: s.pending(),
            });
        }
        let end = places.end.min(self.agents.len());
        let here = places.start.min(end)..end;
        let cameras = self.agents[here.clone()].iter().zip(&self.cameras[here]);
        let cameras = cameras
            .filter(|(agent, _)| agent.state != AgentState::Stopped)
            .map(|(agent, c)| CameraReport {
                id: agent.id.clone(),
                absent: c.absent,
                generation: c.newest().map_or_else(Generation::default, |n| n.generation),
                newest: c.newest().map_or_else(FrameId::default, |n| n.frame_id),
                fps: c.fps(),
            })
            .collect();
        let (mut runners, mut devices) = (Vec::new(), Vec::new());
        if places.start == 0 {
            runners.extend(self.runners.iter().flatten().map(|r| self.runner_report(r)));
            runners.extend(self.hung.values().map(|h| h.report.clone()));
            devices.extend(self.devices.iter().map(|d| DeviceReport {
                id: d.id.clone(),
                suspect: d.suspect,
                busy: d.busy,
                load: d.load,
                overloaded: d.overloaded,
            }));
        }
        let (revision, broken) = (self.revision, self.invariants.broken());
        Report { revision, broken, subscriptions, cameras, runners, devices }
    }

    pub(crate) fn runner_report(&self, r: &Runner) -> RunnerReport {
        RunnerReport {
            model: r.info.model.clone(),
            device: r.info.device.clone(),
            instance: r.info.instance,
            state: r.state,
            batches: r.batch_count,
            members: r.member_count,
            busy: r.busy,
            stage_sums: r.stage_sums.map(Duration::from_nanos),
            latency: r.watch.announced().clone(),
            batch_size: r.paying,
            batch_planned: r.share.batch,
            interval: Duration::from_secs_f64(r.share.interval.clamp(0.0, 1e6)),
            steered: self.models[r.model.0].cohorts.is_some(),
        }
    }
}
