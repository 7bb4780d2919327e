//! Random worlds: everything that can go wrong, drawn from a seed, played around the production
//! core, and held against its invariants.
//!
//! [`random_world`] draws a [`WorldPlan`], [`WorldPlan::play`] plays it, [`try_world`] does both and
//! some worlds twice: the same seed must give the same bytes, a trace must replay, and UTC must not
//! matter. Called by the tests of the core and by its example `worlds`.

mod camera;
mod desired;
mod digest;
mod draw;
mod plan;
mod play;
mod process;
mod truth;

pub use draw::random_world;
pub use plan::{
    CameraPlan, Change, Fault, NextIds, Offence, RunnerPlan, Spell, SpellKind, WorldPlan,
};
pub use play::Played;

use crate::checker::Violation;
use base::Instant;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// One world in so many is played twice more.
const AGAIN: u64 = 10;

impl WorldPlan {
    /// Plays it to its end. With `record` the result holds a trace.
    ///
    /// # Panics
    /// When the core does.
    pub fn play(&self, record: bool) -> Played {
        play::Play::new(self, record).run()
    }

    /// Plays it; a panic of the core is a violation as well.
    pub fn try_play(&self, record: bool) -> Played {
        let played = catch_unwind(AssertUnwindSafe(|| self.play(record)));
        played.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let detail = text.unwrap_or("without a message").to_owned();
            Played {
                violations: vec![violation("the core does not panic", detail)],
                ..Played::default()
            }
        })
    }
}

fn violation(invariant: &'static str, detail: String) -> Violation {
    Violation { invariant, at: Instant::ZERO, detail }
}

/// Plays the world of a seed, every tenth twice more, and says what broke.
pub fn try_world(seed: u64, length: Duration) -> Played {
    let plan = random_world(seed, length);
    if !seed.is_multiple_of(AGAIN) {
        return plan.try_play(false);
    }
    let mut played = plan.try_play(true);
    if !played.violations.is_empty() {
        return played;
    }
    let again = plan.try_play(true);
    if again.trace != played.trace {
        let detail = format!("traces of {} and {} bytes", played.trace.len(), again.trace.len());
        played.violations.push(violation("the same seed gives the same bytes", detail));
    }
    let still = WorldPlan { utc_steps: Vec::new(), ..plan };
    if still.try_play(false).digest != played.digest {
        let detail = "without steps of UTC it went another way".to_owned();
        played.violations.push(violation("UTC changes nothing", detail));
    }
    match scheduler::trace::replay(&played.trace) {
        Ok(replayed) if !replayed.cut => {}
        Ok(_) => played.violations.push(violation("a trace replays", "it is cut".to_owned())),
        Err(error) => played.violations.push(violation("a trace replays", error.to_string())),
    }
    played.trace = Vec::new();
    played
}
