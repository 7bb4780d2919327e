//! Ends the process when one batch holds the engine for too long: a hung library cannot be
//! interrupted, and a runner that never answers is worse than none.

use ipc::clock;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use base::Instant;

/// Exit code of a runner whose engine hung (EX_SOFTWARE of sysexits.h).
pub const EXIT_HUNG: i32 = 70;

#[derive(Debug, Default)]
struct State {
    /// When the batch that runs now is hung.
    until: Option<Instant>,
    /// Members of the batch that runs now.
    members: usize,
    /// When the watching thread looks again, `None` = it is awake.
    asleep_until: Option<Instant>,
    over: bool,
}

/// Shared between the thread that uses the engine and the one that watches.
#[derive(Debug, Default)]
pub struct Watchdog {
    state: Mutex<State>,
    wake: Condvar,
}

/// While it lives, the engine is in use.
#[derive(Debug)]
pub struct Guard<'w>(&'w Watchdog);

impl Watchdog {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine is used from now on for a batch of `members`, for at most `limit`. Wakes nobody while batches follow each
    /// other: the watcher sleeps until the limit of an earlier one and looks again.
    pub fn guard(&self, limit: Duration, members: usize) -> Guard<'_> {
        let mut state = self.state();
        let until = clock::monotonic() + limit;
        state.until = Some(until);
        state.members = members;
        if state.asleep_until.is_some_and(|asleep| until < asleep) {
            self.wake.notify_one();
        }
        Guard(self)
    }

    /// Ends [`Watchdog::watch`].
    pub fn finish(&self) {
        self.state().over = true;
        self.wake.notify_one();
    }

    /// Watches until [`Watchdog::finish`]; calls `hung` once, with the members of the batch, when a
    /// limit has passed.
    pub fn watch(&self, hung: impl FnOnce(usize)) {
        let mut state = self.state();
        loop {
            if state.over {
                return;
            }
            let now = clock::monotonic();
            match state.until {
                None => {
                    state.asleep_until = Some(Instant::FAR);
                    state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Some(until) if until <= now => break,
                Some(until) => {
                    state.asleep_until = Some(until);
                    let wait = self.wake.wait_timeout(state, until - now);
                    (state, _) = wait.unwrap_or_else(PoisonError::into_inner);
                }
            }
            state.asleep_until = None;
        }
        let members = state.members;
        drop(state);
        hung(members);
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.state().until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc;

    #[test]
    fn a_batch_that_takes_too_long_is_noticed_also_after_a_longer_limit() {
        let watchdog = Arc::new(Watchdog::default());
        let (sender, receiver) = mpsc::channel();
        let watching = Arc::clone(&watchdog);
        let thread =
            std::thread::spawn(move || watching.watch(|members| sender.send(members).unwrap()));
        // Many good batches are no reason.
        for _ in 0..1000 {
            drop(watchdog.guard(Duration::from_secs(3600), 1));
        }
        assert!(receiver.try_recv().is_err());
        // The watcher sleeps until the limit of this one.
        let long = watchdog.guard(Duration::from_secs(3600), 2);
        while watchdog.state().asleep_until.is_none_or(|until| until == Instant::FAR) {
            std::thread::yield_now();
        }
        drop(long);
        let guard = watchdog.guard(Duration::from_millis(1), 3);
        assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Ok(3));
        drop(guard);
        thread.join().unwrap();
    }

    #[test]
    fn an_end_in_time_is_not_a_hang() {
        let watchdog = Arc::new(Watchdog::default());
        let watching = Arc::clone(&watchdog);
        let thread = std::thread::spawn(move || watching.watch(|_| panic!("not hung")));
        drop(watchdog.guard(Duration::from_secs(3600), 1));
        watchdog.finish();
        thread.join().unwrap();
    }
}
