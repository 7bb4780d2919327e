//! Serve as its neighbours see it: over HTTP, `events.sock`, `desired.json` and the rings, in
//! directories of its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cameras;
mod clients;
mod desired_state;
mod events;
mod holds;
mod ingest;
mod live;
mod media;
mod start;
mod state;
mod streams;
mod support;
#[path = "../../src/testing.rs"]
mod testing;
