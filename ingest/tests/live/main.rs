//! Live view from outside: access units into a hub, WebRTC peers and a browser behind it.

#![allow(clippy::unwrap_used)]

mod browser;
mod camera;
mod chromium;
mod hub;
mod node;
mod page;
mod patience;
mod peer;
mod player;
mod relay;
