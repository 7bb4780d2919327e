//! The `vas` program as people start it: processes, signals, files, exit codes, messages.
//!
//! Each test has its own directories and port. Nothing sleeps to synchronise: tests wait for states.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; the exemption of clippy.toml ends at helpers"
)]

mod cameras;
#[path = "../../../ingest/tests/live/chromium.rs"]
mod chromium;
mod commands;
mod descriptors;
mod full;
mod kill;
mod node;
mod page;
mod plan;
mod recording;
mod secrets;
mod synthetic;
mod tries;
mod two_stage;
mod up;
