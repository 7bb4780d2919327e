//! The thread that removes snapshots and clips which are too old or too much, at start and then again and
//! again. What goes and in which order is [`Room`]'s.

use super::MediaError;
use super::room::Room;
use base::UtcNanos;
use ipc::clock;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tracing::{info, warn};

/// How often (chosen: ages are days, and what is new makes room for itself).
const EVERY: Duration = Duration::from_secs(600);

/// Removes what is to be removed.
#[derive(Debug)]
pub struct Keeper {
    room: Arc<Room>,
    stopped: Receiver<()>,
    /// What was told last, so that it is told once.
    told: Option<String>,
}

impl Keeper {
    /// Runs until the other end of `stopped` is gone.
    pub fn new(room: Arc<Room>, stopped: Receiver<()>) -> Keeper {
        Keeper { room, stopped, told: None }
    }

    /// Removes until nobody wants it any more.
    pub fn run(mut self) {
        loop {
            self.keep(clock::utc());
            match self.stopped.recv_timeout(EVERY) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return,
            }
        }
    }

    /// One look. What fails is told and tried again with the next one.
    fn keep(&mut self, now: UtcNanos) {
        self.room.recount();
        let age = base::time::nanos(self.room.options.retention);
        let oldest = UtcNanos(now.0.saturating_sub(age));
        let expired = self.room.expire(oldest).map_err(MediaError::from);
        let fitted = self.room.fit();
        if let Ok(removed @ 1..) = expired {
            info!("removed {removed} snapshots and clips past `retention` of [media]");
        }
        if let Ok(bytes @ 1..) = fitted {
            info!("removed {bytes} bytes of the oldest snapshots and clips: they were too much");
        }
        let fault = expired.err().or(fitted.err()).map(|error| error.to_string());
        if fault != self.told
            && let Some(fault) = &fault
        {
            warn!("snapshots and clips stay beyond what they may: {fault}");
        }
        self.told = fault;
    }
}
