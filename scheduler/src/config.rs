//! What the core can be told at its start.

use base::{DeviceId, limits};
use std::time::Duration;

/// Which of its frames a subscription takes: those after an evenly spread gate, or those that land
/// just before a launch of its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Steering {
    /// Never: gates stay evenly spread.
    Off,
    /// A model is steered once that was measured to wait less than the even spread does.
    #[default]
    Auto,
    /// Always, where the rates allow it.
    On,
}

/// Settings of a scheduler. Part of a trace: a replay runs with the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// How many batches a device executes at a time, for devices that are not listed.
    pub capacity: u32,
    /// Devices with another capacity: a CPU with several cores and one-thread runners.
    pub capacities: Vec<(DeviceId, u32)>,
    /// How often a camera is looked at while its next frame is awaited (design: every millisecond
    /// from the predicted arrival on).
    pub poll_interval: Duration,
    /// The first look at a camera is at the predicted arrival plus its mean deviation, at most this
    /// (a millisecond of age against a wake-up per sampled frame; half and twice: the same, for arrivals that
    /// are less sure than half a `poll_interval` are not looked at this way).
    pub arrival_slack: Duration,
    /// A runner that owes an answer for longer is hung.
    pub hang_limit: Duration,
    /// Share of a device that the planner gives away; the rest absorbs what it can't foresee
    /// (measured: 0.95 makes results of three models at 95 % load a fifth older, and p99 of a noisy model at
    /// 80 % is 6 % lower with it; docs/simulator.md).
    pub usable_share: f64,
    /// Whether cameras are steered into cohorts.
    pub steering: Steering,
    /// How often a model is planned anew.
    pub replan_interval: Duration,
    /// How long before the token is expected to be free the next batch of a GPU is prepared
    /// (covers the copy of a batch of 1080p frames at 10 GB/s; none: `s4` mean +36 %, `s2` p99 +14 %; half,
    /// twice: the same).
    pub prepare_ahead: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            capacity: 1,
            capacities: Vec::new(),
            poll_interval: Duration::from_millis(1),
            arrival_slack: Duration::from_millis(1),
            hang_limit: limits::HANG_LIMIT,
            usable_share: 0.99,
            steering: Steering::Auto,
            replan_interval: Duration::from_secs(1),
            prepare_ahead: Duration::from_millis(3),
        }
    }
}

impl Config {
    /// The capacity of a device, at least 1.
    pub fn capacity_of(&self, device: &DeviceId) -> u32 {
        let listed = self.capacities.iter().find(|(id, _)| id == device);
        listed.map_or(self.capacity, |(_, capacity)| *capacity).max(1)
    }
}
