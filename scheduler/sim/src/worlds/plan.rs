//! What a random world consists of, as plain data: drawn from a seed, then played.

use base::{CameraId, DeviceId, Instant, LatencyEntry, LatencyTable, ModelId};
use latency::batch_sizes;
use scheduler::{Config, SubscriptionSpec};
use std::time::Duration;

/// A world: who is in it and everything that happens to it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorldPlan {
    /// Where it was drawn from; also feeds the noise while it is played.
    pub seed: u64,
    /// Virtual time that is played.
    pub length: Duration,
    /// Settings of the core.
    pub config: Config,
    /// Cameras, also those without subscriptions.
    pub cameras: Vec<CameraPlan>,
    /// Runner processes.
    pub runners: Vec<RunnerPlan>,
    /// Subscriptions at the start.
    pub subscriptions: Vec<SubscriptionSpec>,
    /// Changes of the desired state, times rising.
    pub changes: Vec<(Instant, Change)>,
    /// The core is neither polled nor told anything from an instant on for so long.
    pub stalls: Vec<(Instant, Duration)>,
    /// Steps of UTC in nanoseconds. They must change nothing.
    pub utc_steps: Vec<(Instant, i64)>,
    /// Nothing goes wrong and nothing is noisy: deadlines hold for every result.
    pub calm: bool,
}

/// One camera.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraPlan {
    /// Its id.
    pub id: CameraId,
    /// Frames per second.
    pub fps: f64,
    /// First capture.
    pub phase: Duration,
    /// Capture to published.
    pub delay: Duration,
    /// Each capture is late by a uniform share of this.
    pub jitter: Duration,
    /// Error of its clock, parts per million.
    pub drift_ppm: f64,
    /// Slots of its ring.
    pub slots: u32,
    /// Share of reads that see a frame which was published after the instant of the poll.
    pub ahead: f64,
    /// What goes wrong, in order, never two at once.
    pub spells: Vec<Spell>,
}

/// A time in which a camera is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spell {
    /// Begin.
    pub from: Instant,
    /// End.
    pub to: Instant,
    /// What is wrong.
    pub kind: SpellKind,
}

/// What is wrong with a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpellKind {
    /// No frames; the ring's heartbeat goes on.
    Silent,
    /// No frames and no heartbeat: the ring goes stale.
    Stale,
    /// The ring is retired; a new generation comes.
    Reconnect(NextIds),
    /// There is no ring; a new generation comes.
    Vanish(NextIds),
    /// The header contradicts itself; frames go on behind it.
    Invalid,
    /// The header says frame id `u64::MAX`; frames go on behind it.
    Damaged,
}

/// Ids of a new generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextIds {
    /// They go on, this many later.
    Continue(u64),
    /// They start at 1.
    Anew,
    /// They go on this many earlier.
    FallBack(u64),
}

impl SpellKind {
    /// How the ids go on, for those that end with a new generation.
    pub fn new_generation(self) -> Option<NextIds> {
        match self {
            SpellKind::Reconnect(ids) | SpellKind::Vanish(ids) => Some(ids),
            _ => None,
        }
    }
}

/// One runner process, over all its lives.
#[derive(Debug, Clone, PartialEq)]
pub struct RunnerPlan {
    /// Its model.
    pub model: ModelId,
    /// Its device.
    pub device: DeviceId,
    /// Whether that is a GPU.
    pub gpu: bool,
    /// Fixed cost of a batch.
    pub alpha: Duration,
    /// Cost of a member.
    pub beta: Duration,
    /// Largest batch.
    pub batch_max: u32,
    /// The model's deadline.
    pub deadline: Duration,
    /// Copy of a batch, before the token.
    pub copy: Duration,
    /// Decoding of a batch, after the token.
    pub postprocess: Duration,
    /// Relative standard deviation of the execution.
    pub noise: f64,
    /// Share of executions that take twice as long.
    pub spikes: f64,
    /// It keeps an undisturbed measurement from before; otherwise it asks to measure.
    pub measured: bool,
    /// No Prepared and no Executed: the Reply stands for them.
    pub light: bool,
    /// Most detections per frame.
    pub detections: u32,
    /// When it connects first.
    pub connect: Instant,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// What goes wrong with a runner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// It dies; a new instance connects after that time, if at all.
    Crash(Instant, Option<Duration>),
    /// It answers nothing any more. That long after its connection was closed its lock is free and
    /// a new instance connects.
    Hang(Instant, Duration),
    /// It stands still (SIGSTOP) for so long and answers afterwards.
    Stop(Instant, Duration),
    /// Between the two it takes so many times as long.
    Slow(Instant, Instant, u32),
    /// Between the two this share of members is answered with an error.
    Errors(Instant, Instant, f64),
    /// The same process opens a second connection.
    Reconnect(Instant),
    /// It breaks the protocol.
    Offend(Instant, Offence),
    /// It says, without having measured it, that its table is so many times what it was.
    Table(Instant, f64),
    /// It asks to measure all its sizes again.
    Measure(Instant),
}

/// How a runner breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// Replies to a batch that it never got.
    ReplyUnknown,
    /// Says Executed of a batch that it never got.
    ExecutedUnknown,
    /// Says Prepared of a batch that it never got.
    PreparedUnknown,
    /// Its next reply has one outcome too many.
    WrongCount,
    /// Its next Executed is sent twice.
    ExecutedTwice,
}

/// A change of the desired state. `u64` picks one of the subscriptions that there are.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// One more, unless its camera has that model.
    Add(SubscriptionSpec),
    /// One less.
    Remove(u64),
    /// Another ceiling.
    Ceiling(u64, Option<f64>),
    /// Paused or not.
    Enable(u64, bool),
    /// Another weight.
    Weight(u64, f64),
    /// Another deadline.
    Deadline(u64, Option<Duration>),
    /// The camera gets this model instead, under this id.
    Reassign(u64, ModelId, String),
    /// The same state again.
    Same,
}

impl RunnerPlan {
    /// L(b) without noise.
    pub fn latency(&self, batch: u32) -> Duration {
        self.alpha + self.beta * batch
    }

    /// What an undisturbed measurement gives, `scale` times.
    pub fn table(&self, scale: f64) -> LatencyTable {
        LatencyTable::new(batch_sizes(self.batch_max).into_iter().map(|batch| {
            let p50 = self.latency(batch).mul_f64(scale);
            LatencyEntry { batch, p50, p99: p50.mul_f64(1.0 + 2.33 * self.noise) }
        }))
    }
}
