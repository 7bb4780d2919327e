//! The frame ring through its public interface, with processes that are stopped and killed.
//!
//! A test that needs another process starts this binary again with an order in its environment;
//! [`child`] carries it out.

// Helpers are tests too, which clippy can't see.
#![allow(clippy::unwrap_used)]

mod files;
mod full;
mod generations;
mod support;
mod syscalls;
mod torn;

/// Not a test by itself: the body of child processes, idle when run as a test.
#[test]
fn child() {
    let Ok(order) = std::env::var(support::ORDER) else { return };
    // No child outlives the test that started it.
    let signal = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(signal).unwrap();
    let words: Vec<&str> = order.split(' ').collect();
    match words.as_slice() {
        ["read", shm, accepted] => torn::read(shm.as_ref(), accepted.parse().unwrap()),
        ["write_under_filter", shm, call] => syscalls::write(shm.as_ref(), *call == "call"),
        ["fill", shm] => full::fill(shm.as_ref()),
        ["refill", shm] => full::refill(shm.as_ref()),
        ["outgrow", shm] => full::outgrow(shm.as_ref()),
        other => panic!("unknown order {other:?}"),
    }
}
