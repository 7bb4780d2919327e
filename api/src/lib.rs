//! The services behind `vas serve`, and HTTP over them.
//!
//! Serve takes results and status from the scheduler, stores events,
//! publishes the desired state that ingest and scheduler follow, and answers HTTP. It decodes no
//! video and never talks to a runner. Handlers are plain functions over services; only
//! `http::routes` knows tide, only `http::listener` has sockets of hyper.
#![forbid(unsafe_code)]

mod age_histogram;
mod camera_streams;
pub mod camera_url;
mod canonical;
mod commit;
pub mod config_rows;
mod configuration;
pub mod disk;
mod http;
mod ingest_link;
mod intake;
mod limits;
mod live;
mod media;
mod moment;
mod options;
mod parameters;
mod plain_text;
mod plan;
mod publish;
mod recordings;
mod registry;
pub mod schema;
mod serve;
mod services;
mod slots;
mod status_pages;
mod stills;
#[cfg(test)]
mod testing;
mod upkeep;

pub use commit::CommitLimits;
pub use intake::BareIntake;
pub use limits::HttpLimits;
pub use media::room::MediaOptions;
pub use options::{ModelEntry, Options, ServeError, Unavailable, UnavailableKind};
pub use serve::{Limits, Server, serve};
