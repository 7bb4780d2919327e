//! A camera and its ring in virtual time, also when things go wrong with them.

use super::plan::{CameraPlan, NextIds, SpellKind};
use crate::random::Random;
use base::{
    Absent, FrameFlags, FrameId, FrameInfo, Generation, Instant, MediaTime, Newest, Size, Stamp,
    UtcNanos, limits,
};
use std::time::Duration;

/// UTC at the start of the world (chosen: within 2026).
const UTC_START: u64 = 1_790_000_000_000_000_000;
/// How far ahead of the poll a read may see (chosen: a core that was preempted between reading the
/// clock and reading the ring).
const AHEAD: Duration = Duration::from_millis(1);

/// A camera that plays its plan.
#[derive(Debug)]
pub(super) struct Camera<'a> {
    plan: &'a CameraPlan,
    utc_steps: &'a [(Instant, i64)],
    jitter: Random,
    reads: Random,
    tick: u64,
    /// Spells whose end lies before the next frame.
    ended: usize,
    generation: u64,
    next_id: u64,
    next: Stamp,
    newest: Option<Stamp>,
}

impl<'a> Camera<'a> {
    pub fn new(plan: &'a CameraPlan, utc_steps: &'a [(Instant, i64)], seed: u64, ix: u64) -> Self {
        let mut camera = Camera {
            plan,
            utc_steps,
            jitter: Random::new(seed, 1_000_000 + ix),
            reads: Random::new(seed, 2_000_000 + ix),
            tick: 0,
            ended: 0,
            generation: 1,
            next_id: 1,
            next: Stamp {
                generation: Generation(1),
                frame_id: FrameId(0),
                slot: 0,
                slots: plan.slots,
                size: Size { width: 1280, height: 720 },
                published: Instant::ZERO,
                info: FrameInfo {
                    media: MediaTime(0),
                    capture: Instant::ZERO,
                    capture_utc: UtcNanos(0),
                    decode_start: Instant::ZERO,
                    flags: FrameFlags::default(),
                },
            },
            newest: None,
        };
        camera.plan_next();
        camera
    }

    fn plan_next(&mut self) {
        let plan = self.plan;
        let period = 1e9 / plan.fps * (1.0 + plan.drift_ppm * 1e-6);
        loop {
            let late = self.jitter.unit() * plan.jitter.as_nanos() as f64;
            let since = self.tick as f64 * period + late;
            let capture = Instant::ZERO + plan.phase + Duration::from_nanos(since as u64);
            self.tick += 1;
            while let Some(spell) = plan.spells.get(self.ended).filter(|s| s.to <= capture) {
                self.ended += 1;
                if let Some(ids) = spell.kind.new_generation() {
                    self.generation += 1;
                    self.next_id = match ids {
                        NextIds::Continue(skipped) => self.next_id + skipped,
                        NextIds::Anew => 1,
                        NextIds::FallBack(by) => self.next_id.saturating_sub(by).max(1),
                    };
                }
            }
            let spell = plan.spells.get(self.ended).filter(|s| s.from <= capture);
            if spell.is_some_and(|s| !matches!(s.kind, SpellKind::Invalid | SpellKind::Damaged)) {
                continue;
            }
            let before = self.next.published;
            let published = (capture + plan.delay).max(before + Duration::from_nanos(1));
            let steps = self.utc_steps.iter().filter(|(at, _)| *at <= capture);
            let step: i64 = steps.map(|(_, by)| by).sum();
            let utc = UTC_START.saturating_add(capture.0).saturating_add_signed(step);
            self.next = Stamp {
                generation: Generation(self.generation),
                frame_id: FrameId(self.next_id),
                slot: (self.next_id % u64::from(plan.slots)) as u32,
                published,
                info: FrameInfo {
                    media: MediaTime(capture.0 / 100_000 * 9),
                    capture,
                    capture_utc: UtcNanos(utc),
                    decode_start: capture + plan.delay / 4,
                    flags: FrameFlags::default(),
                },
                ..self.next
            };
            self.next_id += 1;
            return;
        }
    }

    /// What is in the ring at `now`.
    pub fn truth(&mut self, now: Instant) -> Newest {
        while self.next.published <= now {
            self.newest = Some(self.next);
            self.plan_next();
        }
        let mut generation = 1;
        for spell in self.plan.spells.iter().take_while(|s| s.from <= now) {
            if spell.to <= now {
                generation += u64::from(spell.kind.new_generation().is_some());
                continue;
            }
            match spell.kind {
                SpellKind::Silent => {}
                SpellKind::Stale if now < spell.from + limits::RING_STALE => {}
                SpellKind::Stale => return Newest::Absent(Absent::Stale),
                SpellKind::Reconnect(_) => return Newest::Absent(Absent::Retired),
                SpellKind::Vanish(_) => return Newest::Absent(Absent::NoRing),
                SpellKind::Invalid => return Newest::Absent(Absent::Invalid),
                SpellKind::Damaged => {
                    let Some(newest) = self.newest else { break };
                    return Newest::Frame(Stamp { frame_id: FrameId(u64::MAX), ..newest });
                }
            }
        }
        match self.newest {
            Some(stamp) if stamp.generation.0 == generation => Newest::Frame(stamp),
            _ => Newest::Absent(Absent::NoRing),
        }
    }

    /// What a reader of the ring sees who took `now` a moment ago.
    pub fn read(&mut self, now: Instant) -> Newest {
        let truth = self.truth(now);
        if self.plan.ahead > 0.0
            && self.reads.unit() < self.plan.ahead
            && matches!(truth, Newest::Frame(s) if s.generation == self.next.generation)
            && self.next.published <= now + AHEAD
        {
            return Newest::Frame(self.next);
        }
        truth
    }

    /// Whether a spell touches the time between the two.
    pub fn disturbed(&self, from: Instant, to: Instant) -> bool {
        self.plan.spells.iter().any(|s| s.from < to && from < s.to)
    }

    /// Its plan.
    pub fn plan(&self) -> &'a CameraPlan {
        self.plan
    }
}
