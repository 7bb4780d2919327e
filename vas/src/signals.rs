//! SIGTERM, SIGINT and SIGHUP as a [`Stop`].

use ipc::stop::Stop;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use std::{fs, io};

/// A stop that SIGTERM, SIGINT and SIGHUP set, for the life of the process. SIGHUP stays ignored
/// where it was ignored from the start, as under nohup.
///
/// # Errors
/// When the process has no descriptors left.
pub fn stop() -> io::Result<Stop> {
    let (trigger, stop) = Stop::pair()?;
    if !ignored(&fs::read_to_string("/proc/self/status").unwrap_or_default(), SIGHUP) {
        pipe::register(SIGHUP, trigger.try_clone()?)?;
    }
    pipe::register(SIGTERM, trigger.try_clone()?)?;
    pipe::register(SIGINT, trigger)?;
    Ok(stop)
}

/// Whether `status`, the text of `/proc/PID/status`, has the signal among the ignored ones.
fn ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        let status = "Name:\tvas\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001002\n";
        assert!(ignored(status, SIGINT) && ignored(status, 13));
        assert!(!ignored(status, SIGHUP) && !ignored(status, SIGTERM) && !ignored("", SIGHUP));
    }
}
