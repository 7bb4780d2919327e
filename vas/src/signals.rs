//! SIGTERM and SIGINT as a [`Stop`].

use ipc::stop::Stop;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use std::io;

/// A stop that SIGTERM and SIGINT set, for the life of the process.
///
/// # Errors
/// When the process has no descriptors left.
pub fn stop() -> io::Result<Stop> {
    let (trigger, stop) = Stop::pair()?;
    pipe::register(SIGTERM, trigger.try_clone()?)?;
    pipe::register(SIGINT, trigger)?;
    Ok(stop)
}
