//! What VAS keeps on disk besides media: events, and the registry of devices, models and
//! assignments. Everything lies in redb files beneath the state directory:
//!
//! ```text
//! <state>/events/lock             locked while an event store is open; the empty file stays
//! <state>/events/2026-01-31.redb  the events of one UTC day
//! <state>/events/.clock           what is remembered of the clock
//! <state>/control.redb            devices, models, assignments, labels, revision
//! ```
//!
//! - [`EventStore::open`] gives one [`EventWriter`] and any number of [`EventReader`]s.
//! - [`Control`] is the registry; every call is one transaction.
//! - [`check()`] is behind `vas check`.
//!
//! The store knows no JSON shape of the API, no socket and no policy: what may be assigned to what
//! is decided by its caller, inside [`Control::write`]. Bytes on disk are written down in
//! `docs/store.md`; all that is read back is checked before it is used.

pub mod check;
pub mod control;
mod database;
pub mod day;
pub mod error;
pub mod event;
mod expiry;
mod held;
mod json;
mod pool;
pub mod query;
mod reader;
pub mod record;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

pub use check::{Report, check};
pub use control::{Control, ControlWrite};
pub use day::Day;
pub use error::{StoreError, no_room};
pub use event::{Event, EventId, NewEvent, Rejection};
pub use json::Json;
pub use query::{Cursor, EventPage, EventQuery, Page};
pub use reader::EventReader;
pub use writer::{EventOptions, EventStore, EventWriter};
