//! HTTP over the services.
//!
//! [`table`] names every route, its handler and its documentation; handlers are plain functions of
//! services and a [`message::Request`]. [`routes`] alone knows tide, [`listener`] alone knows hyper.

pub mod assignments;
pub mod bookmarks;
pub mod cameras;
pub mod devices;
pub mod events;
mod guarded_stream;
pub mod health;
mod host;
pub mod listener;
pub mod message;
pub mod models;
pub mod observability;
pub mod openapi;
pub mod page;
pub mod payload;
pub mod query;
mod ranges;
pub mod recordings;
mod reply_body;
pub mod routes;
pub mod schemas;
pub mod snapshots;
pub mod streams;
pub mod table;
pub mod whep;
