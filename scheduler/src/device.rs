//! A device: its tokens, its clock of the fair order, and when it is looked at next.

use crate::place::{ModelIx, RunnerIx};
use crate::trial::{Circumstances, Trial};
use base::{DeviceId, Instant};
use std::time::Duration;

/// Overload ends when the load has fallen below this share of what made it begin (1: 2 % fewer
/// answers in time at the edge of overload; 0.94: the same).
const RELIEF: f64 = 0.97;

/// One token domain: at most `capacity` batches execute at a time.
#[derive(Debug)]
pub(crate) struct Device {
    pub id: DeviceId,
    pub capacity: u32,
    /// Tokens lent: batches executing and sizes being measured.
    lent: u32,
    /// Virtual time of the fair order; stalls under overload.
    virtual_now: u64,
    runners: Vec<RunnerIx>,
    /// The model of each of them.
    models: Vec<ModelIx>,
    /// A runner hung on it.
    suspect: bool,
    busy: Duration,
    /// The last token went to a measurement: the next one goes to a batch when there is one.
    profiled_last: bool,
    /// Something happened to it: it is stepped at the next poll.
    dirty: bool,
    /// When it is stepped without that.
    next_at: Instant,
    /// Until when its first held launch waits, as of its last step.
    held_until: Instant,
    /// When the first lease or hang limit on it passes.
    bound_at: Instant,
    /// Wanted device time per second, as the planner sees it.
    load: f64,
    /// Whether its models are steered.
    trial: Trial,
    /// More is wanted than there is: the fair order decides, not the timetable.
    overloaded: bool,
}

impl Device {
    pub fn new(id: DeviceId, capacity: u32, now: Instant) -> Device {
        Device {
            id,
            capacity,
            lent: 0,
            virtual_now: 0,
            runners: Vec::new(),
            models: Vec::new(),
            suspect: false,
            busy: Duration::ZERO,
            profiled_last: false,
            dirty: true,
            next_at: Instant::FAR,
            held_until: Instant::FAR,
            bound_at: Instant::FAR,
            load: 0.0,
            trial: Trial::new(now),
            overloaded: false,
        }
    }

    pub fn free(&self) -> bool {
        self.lent < self.capacity
    }

    pub fn lent(&self) -> u32 {
        self.lent
    }

    /// A token goes out. False = there was none: [`crate::Invariant::Token`] is broken.
    #[must_use]
    pub fn lend(&mut self) -> bool {
        let free = self.free();
        self.lent += 1;
        free
    }

    /// A token comes back after it was used for this long. False = none was out.
    #[must_use]
    pub fn give_back(&mut self, busy: Duration) -> bool {
        self.busy += busy;
        self.dirty = true;
        let out = self.lent > 0;
        self.lent = self.lent.saturating_sub(1);
        out
    }

    /// Time that it was some runner's own.
    pub fn busy(&self) -> Duration {
        self.busy
    }

    pub fn runners(&self) -> &[RunnerIx] {
        &self.runners
    }

    /// The model of each runner.
    pub fn models(&self) -> &[ModelIx] {
        &self.models
    }

    pub fn add_runner(&mut self, runner: RunnerIx, model: ModelIx) {
        self.runners.push(runner);
        self.models.push(model);
        self.dirty = true;
    }

    /// Without runners nothing is wanted of it.
    pub fn remove_runner(&mut self, runner: RunnerIx) {
        if let Some(at) = self.runners.iter().position(|other| *other == runner) {
            self.runners.remove(at);
            self.models.remove(at);
        }
        self.dirty = true;
        if self.runners.is_empty() {
            (self.load, self.overloaded) = (0.0, false);
        }
    }

    /// Whether a runner hung on it.
    pub fn suspect(&self) -> bool {
        self.suspect
    }

    pub fn set_suspect(&mut self, suspect: bool) {
        self.suspect = suspect;
    }

    /// Virtual time of the fair order.
    pub fn virtual_now(&self) -> u64 {
        self.virtual_now
    }

    /// A batch was launched whose smallest start tag lies so far ahead of the time that orders its
    /// model.
    pub fn advance(&mut self, ahead: u64) {
        self.virtual_now += ahead;
    }

    /// Whether the last token went to a measurement.
    pub fn profiled_last(&self) -> bool {
        self.profiled_last
    }

    /// A token goes to a measurement, or to a batch.
    pub fn note_turn(&mut self, profiled: bool) {
        self.profiled_last = profiled;
    }

    /// Something happened to it.
    pub fn touch(&mut self) {
        self.dirty = true;
    }

    /// It may have something to do then.
    pub fn step_by(&mut self, at: Instant) {
        self.next_at = self.next_at.min(at);
    }

    /// Begins a step if its time has come: no launch is held yet.
    pub fn begin_step(&mut self, now: Instant) -> bool {
        let due = self.dirty || self.next_at <= now;
        if due {
            self.held_until = Instant::FAR;
        }
        due
    }

    /// There is nothing to do before that, unless something happens.
    pub fn end_step(&mut self, next_at: Instant) {
        self.next_at = next_at;
        self.dirty = false;
    }

    /// When it is stepped if nothing happens.
    pub fn next_at(&self) -> Instant {
        self.next_at
    }

    /// A launch waits until then.
    pub fn hold(&mut self, until: Instant) {
        self.held_until = self.held_until.min(until);
    }

    /// Until when its first held launch waits.
    pub fn held_until(&self) -> Instant {
        self.held_until
    }

    /// When the first lease or hang limit on it passes; it may be later.
    pub fn bound_at(&self) -> Instant {
        self.bound_at
    }

    /// A bound of it passes then.
    pub fn bound_by(&mut self, at: Instant) {
        self.bound_at = self.bound_at.min(at);
    }

    /// Its first bound is this one.
    pub fn set_first_bound(&mut self, at: Instant) {
        self.bound_at = at;
    }

    /// Its bounds moved: the first one is looked for again.
    pub fn seek_bound(&mut self) {
        self.bound_at = Instant::ZERO;
    }

    /// Wanted device time per second and token, as the planner sees it.
    pub fn load(&self) -> f64 {
        self.load
    }

    pub fn overloaded(&self) -> bool {
        self.overloaded
    }

    /// Whether one model alone wants more than it has. Where several share it large batches of one are
    /// turns of the others, and sizes are bound by more than the deadline.
    pub fn overloaded_alone(&self) -> bool {
        self.overloaded && self.runners.len() == 1
    }

    /// So much device time per second is wanted, of `usable`.
    pub fn plan(&mut self, load: f64, usable: f64) {
        self.load = load / f64::from(self.capacity);
        let limit = if self.overloaded { RELIEF * usable } else { usable };
        self.overloaded = load > limit;
    }

    /// Whether its trial says that models are steered.
    pub fn steers(&self) -> bool {
        self.trial.steers()
    }

    /// A result is this old, nanoseconds.
    pub fn count_age(&mut self, now: Instant, age: u64) {
        self.trial.count(now, age);
    }

    /// Whether the trial says otherwise from now on.
    pub fn conclude_trial(&mut self, now: Instant, at: Circumstances) -> bool {
        self.trial.conclude(now, at)
    }
}
