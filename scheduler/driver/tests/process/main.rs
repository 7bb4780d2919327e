//! The scheduler's loop as its peers see it: sockets in a directory, a camera's ring, and a file.
//!
//! Nothing sleeps to synchronise: tests wait for messages.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; the exemption of clippy.toml ends at helpers"
)]

mod node;
mod peers;
mod serve;
