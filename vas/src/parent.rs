//! Children of `vas up` end with it, also when it is killed.

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Asks the kernel for SIGTERM when the parent ends; false when `parent` is not the parent (any
/// more).
pub fn end_with(parent: u32) -> bool {
    // Without it an orphan would go on, which is a nuisance, not a danger: the check below still
    // holds.
    let asked = set_parent_process_death_signal(Some(Signal::TERM)).is_ok();
    let now = getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().unsigned_abs());
    asked && now == Some(parent)
}
