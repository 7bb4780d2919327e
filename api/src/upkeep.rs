//! Once a second: what could not be done yet for want of room is tried again, and what somebody
//! deleted or replaced of the registry and of the desired state is written again.
//!
//! Health tells the same faults, and changes mend them first; this is for the time in which nobody
//! asks. The events are looked after by the thread that writes them.

use crate::publish::FollowError;
use crate::services::Services;
use base::log_gate::LogGate;
use ipc::clock;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tracing::{error, info};

/// Pause between two looks (chosen: five `stat` each; nobody waits longer for a full disk to be used
/// again).
pub const PERIOD: Duration = Duration::from_secs(1);

/// Looks after the state until `stop` is closed, and once more then: what nobody can find is lost
/// when serve ends.
pub fn run(services: &Services, stop: &Receiver<()>) {
    let mut gate = LogGate::default();
    let mut stopped = false;
    while !stopped {
        stopped = stop.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout);
        match look(services) {
            Err(error) => {
                let line = error.to_string();
                if gate.allows(&line, clock::monotonic()) {
                    error!("{line}");
                }
            }
            Ok(()) if gate.clear() => info!("registry and desired state are written again"),
            Ok(()) => {}
        }
    }
}

fn look(services: &Services) -> Result<(), FollowError> {
    // Each of them, whatever became of the others; the first error is told.
    let looks = [
        services.control.keep().map_err(FollowError::from),
        services.published.keep().map_err(FollowError::from),
        services.settle(),
    ];
    looks.into_iter().collect()
}
