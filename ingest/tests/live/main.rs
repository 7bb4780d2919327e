//! Live view from outside: access units into a hub, WebRTC peers and a browser behind it.

mod browser;
mod camera;
mod chromium;
mod hub;
mod page;
mod patience;
mod peer;
mod relay;
