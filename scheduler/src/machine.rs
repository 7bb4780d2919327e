//! Who takes which input, and what a poll asks in turn.
//!
//! `reconcile` takes desired state, `connect` who comes and goes, `answers` what runners say; `bounds`
//! passes what they owe, `look` asks cameras, `planning` plans, `launch` decides.

use crate::FrameIndex;
use crate::input::Input;
use crate::output::Output;
use crate::state::Scheduler;
use base::Instant;

impl Scheduler {
    /// Takes in what happened. Poll afterwards. `now` never goes back.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.advance(now);
        self.begin_epoch();
        match input {
            Input::Desired(desired) => self.desired(desired),
            Input::RunnerUp { runner, info } => self.runner_up(runner, info),
            Input::RunnerDown { runner } => self.runner_down(runner),
            Input::RunnerGone { instance } => self.runner_gone(instance),
            Input::Prepared { runner, batch } => {
                self.runners.hear(runner);
                self.prepared(runner, batch);
            }
            Input::Executed { runner, batch, granted, executed } => {
                self.runners.hear(runner);
                self.executed(runner, batch, granted, executed);
            }
            Input::Reply { runner, batch, times, outcomes } => {
                self.runners.hear(runner);
                self.reply(runner, batch, &times, outcomes);
            }
            Input::ProfileRequest { runner, sizes } => self.profile_request(runner, sizes),
            Input::ProfileDone { runner, batch_size, samples } => {
                self.profile_done(runner, batch_size, samples);
            }
            Input::Table { runner, table } => {
                if let Some(r) = self.runners.of_mut(runner) {
                    r.set_table(table);
                    let model = r.model;
                    self.plan_soon(model);
                }
            }
        }
    }

    /// What to do next. Call until it answers [`Output::Wait`].
    pub fn poll(&mut self, now: Instant, index: &mut dyn FrameIndex) -> Output<'_> {
        self.advance(now);
        if self.replied() {
            return self.next_result();
        }
        self.pass_bounds();
        if let Some(told) = self.told() {
            return told;
        }
        self.look_unserved(index);
        self.plan_due();
        self.step(index)
    }
}
