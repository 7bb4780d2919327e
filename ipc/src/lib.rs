//! Bytes between the processes of VAS: the frame ring, the messages, their framing, and the
//! desired-state file. The only home of mmap, flatbuffers and the socket names.
//!
//! Generated flatbuffers types never leave this crate: [`runner_message`] and [`events_message`]
//! are what others see.

#[allow(
    missing_docs,
    unused_imports,
    dead_code,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::unwrap_used,
    unsafe_op_in_unsafe_fn
)]
#[rustfmt::skip]
mod generated;

pub mod child;
pub mod clock;
pub mod clock_trust;
pub mod descriptors;
pub mod desired;
pub mod directories;
pub mod events_message;
pub mod framing;
pub mod holds;
pub mod ingest_message;
pub mod instance;
pub mod lock;
pub mod recording;
pub mod ring;
pub mod roots;
pub mod runner_message;
pub mod stop;
mod wire;

pub use wire::WireError;
