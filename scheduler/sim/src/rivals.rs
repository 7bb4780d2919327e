//! What the production policy is compared with: the batching rules of other systems, written anew.
//!
//! Each is a rule of a page over a shared server (`server`). They are no copies of the originals,
//! and where the original leaves a choice or this world can do better, the rival gets the better
//! one. All of them
//!
//! * learn of every frame at the instant of its publication, from an oracle;
//! * know the exact L(b) and pay nothing for the copy of a batch;
//! * obey max fps by the gate of production, which opens when the subscription begins: those that
//!   begin together stay together, those that begin at random instants are spread at random;
//! * see the capture stamp, so that a deadline is one of age.
//!
//! With `+fair` behind its name a rival pays as production does: the copy of a batch, and a socket's way
//! before it learns of a frame. It still knows the exact L(b) and needs no look at a camera.
//!
//! None knows weights. Results older than their deadline are delivered and count as late.
//!
//! Nexus, Clockwork, Symphony and `token-due` get the token of production with its lease; under
//! the others the batches of different models share a device evenly, at no cost.
//!
//! Sources: Triton `dynamic_batch_scheduler.cc`; DeepStream 7 documentation of nvstreammux; Shen et
//! al., "Nexus", SOSP 2019; Gujarati et al., "Serving DNNs like Clockwork", OSDI 2020; Chen et al.,
//! "Symphony", arXiv 2308.07470; Frigate `object_detection/base.py`.

mod clockwork;
mod fifo;
mod mux;
mod nexus;
mod rule;
mod server;
mod symphony;
mod token_due;
mod triton;

use crate::policy::Policy;
use rule::Rival;
use std::time::Duration;

/// Every name that [`rival`] takes.
pub const RIVALS: [&str; 13] = [
    "triton-d0",
    "triton-d1",
    "triton-d5",
    "triton-d20",
    "triton-d5-q64",
    "mux-old",
    "mux-new",
    "mux-new-30",
    "nexus",
    "clockwork",
    "symphony",
    "token-due",
    "fifo1",
];

/// What a rival that pays as production does has behind its name.
pub const FAIR: &str = "+fair";

/// The rival of that name, with [`FAIR`] behind it where it is to pay.
pub fn rival(name: &str) -> Option<Box<dyn Policy>> {
    let (name, fair) = name.strip_suffix(FAIR).map_or((name, false), |name| (name, true));
    let ms = Duration::from_millis;
    let triton = |delay, queue_max| boxed(fair, triton::Triton::new(delay, queue_max));
    Some(match name {
        "triton-d0" => triton(ms(0), usize::MAX),
        "triton-d1" => triton(ms(1), usize::MAX),
        "triton-d5" => triton(ms(5), usize::MAX),
        "triton-d20" => triton(ms(20), usize::MAX),
        "triton-d5-q64" => triton(ms(5), 64),
        "mux-old" => boxed(fair, mux::Mux::old()),
        // The default of overall-min-fps, and one that suits cameras.
        "mux-new" => boxed(fair, mux::Mux::new(5)),
        "mux-new-30" => boxed(fair, mux::Mux::new(30)),
        "nexus" => boxed(fair, nexus::Nexus::default()),
        "clockwork" => boxed(fair, clockwork::Clockwork),
        "symphony" => boxed(fair, symphony::Symphony),
        "token-due" => boxed(fair, token_due::TokenDue::default()),
        "fifo1" => boxed(fair, fifo::Fifo::default()),
        _ => return None,
    })
}

fn boxed<R: rule::Rule + 'static>(fair: bool, rule: R) -> Box<dyn Policy> {
    Box::new(Rival::new(rule, fair))
}
