//! The square-root rule: how often a model is launched compared with those beside it.
//!
//! A batch of `b` takes `alpha + beta b`. With a launch every `g` seconds a model that gets `rate` frames
//! per second has batches of `rate g`; its frames wait `freedom g / 2` on the mean and execute for
//! `alpha + beta rate g`. The intervals that minimise the mean age over all frames while the device has
//! `usable` of its time to give are `g = sqrt(alpha / c) Z / S` with
//! `c = rate (freedom / 2 + beta rate)`, `Z = sum sqrt(alpha c)` and `S = usable - sum rate beta`
//! (Lagrange; docs/adr/0019-fresh-aligned-batching.md).

/// Weight of a second between two launches in the mean age over all frames: `rate` frames per second
/// wait for `wait` of it on the mean of 0 to 1, halved, and execute with what gathers meanwhile.
pub(crate) fn weight(rate: f64, wait: f64, beta: f64) -> f64 {
    rate * (wait / 2.0 + beta * rate)
}

/// The square-root rule: a model's interval relative to those of the others on its device.
pub(crate) fn relative_interval(alpha: f64, weight: f64) -> f64 {
    (alpha / weight).sqrt()
}
