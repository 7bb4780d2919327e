//! Live view from outside: access units into a hub, WebRTC peers and a browser behind it.

mod browser;
mod camera;
mod chromium;
mod hub;
mod peer;
mod relay;

use std::time::{Duration, Instant};

/// Longer than anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// Asks until the answer is there.
///
/// # Panics
/// When it does not come within [`PATIENCE`].
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}
