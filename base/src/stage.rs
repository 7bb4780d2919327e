//! The stages of a result's age.

use crate::time::Instant;
use std::time::Duration;

/// Boundaries that the runner stamped, CLOCK_MONOTONIC. Each is not before the one above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StageTimes {
    /// The Prepare had been read; copying begins.
    pub received: Instant,
    /// The member's pixels are the runner's own. End of `copy`.
    pub copied: Instant,
    /// The device token was granted; equals `copied` on the light path. End of `grant`.
    pub granted: Instant,
    /// The input tensor is complete. End of `preprocess`.
    pub preprocessed: Instant,
    /// The engine's output is there; the token is free. End of `execute`.
    pub executed: Instant,
    /// Detections are decoded; the reply is about to be written. End of `postprocess`.
    pub postprocessed: Instant,
}

impl StageTimes {
    /// Whether the boundaries are in order.
    pub fn ordered(&self) -> bool {
        self.received <= self.copied
            && self.copied <= self.granted
            && self.granted <= self.preprocessed
            && self.preprocessed <= self.executed
            && self.executed <= self.postprocessed
    }
}

/// The age of a result, taken apart. The stages add up to the age exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stages {
    /// Last packet arrived to decoder start.
    pub transport: Duration,
    /// Decoder start to published in the ring.
    pub decode: Duration,
    /// Published to read by the runner: waiting for the scheduler and the wire.
    pub wait: Duration,
    /// Copy of the pixels out of the ring.
    pub copy: Duration,
    /// Prepared to granted.
    pub grant: Duration,
    /// NV12 to tensor.
    pub preprocess: Duration,
    /// The engine.
    pub execute: Duration,
    /// Tensor to detections.
    pub postprocess: Duration,
    /// Reply written to read by the scheduler.
    pub reply: Duration,
}

impl Stages {
    /// Names, in order.
    pub const NAMES: [&str; 9] = [
        "transport",
        "decode",
        "wait",
        "copy",
        "grant",
        "preprocess",
        "execute",
        "postprocess",
        "reply",
    ];

    /// From the stamps of the frame, of the runner and of the arrival of the reply.
    ///
    /// Each boundary is raised to the one before it, so that stages are never negative and always
    /// add up to `received_reply - capture`, also when a stamp is wrong.
    pub fn new(
        capture: Instant,
        decode_start: Instant,
        published: Instant,
        runner: &StageTimes,
        received_reply: Instant,
    ) -> Stages {
        let mut at = capture;
        let mut step = |boundary: Instant| {
            let boundary = boundary.max(at).min(received_reply.max(at));
            let stage = boundary - at;
            at = boundary;
            stage
        };
        Stages {
            transport: step(decode_start),
            decode: step(published),
            wait: step(runner.received),
            copy: step(runner.copied),
            grant: step(runner.granted),
            preprocess: step(runner.preprocessed),
            execute: step(runner.executed),
            postprocess: step(runner.postprocessed),
            reply: step(received_reply),
        }
    }

    /// In the order of [`Stages::NAMES`].
    pub fn as_array(&self) -> [Duration; 9] {
        [
            self.transport,
            self.decode,
            self.wait,
            self.copy,
            self.grant,
            self.preprocess,
            self.execute,
            self.postprocess,
            self.reply,
        ]
    }

    /// From values in the order of [`Stages::NAMES`].
    pub fn from_array(v: [Duration; 9]) -> Stages {
        let [transport, decode, wait, copy, grant, preprocess, execute, postprocess, reply] = v;
        Stages { transport, decode, wait, copy, grant, preprocess, execute, postprocess, reply }
    }

    /// The age: the sum.
    pub fn age(&self) -> Duration {
        self.as_array().iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_add_up_also_with_wrong_stamps() {
        let t = Instant;
        let good = StageTimes {
            received: t(40),
            copied: t(50),
            granted: t(50),
            preprocessed: t(60),
            executed: t(90),
            postprocessed: t(95),
        };
        let stages = Stages::new(t(10), t(20), t(30), &good, t(100));
        assert_eq!(stages.age(), Duration::from_nanos(90));
        assert_eq!(stages.execute, Duration::from_nanos(30));
        let wrong = StageTimes { copied: t(5), executed: t(1000), ..good };
        let stages = Stages::new(t(10), t(20), t(30), &wrong, t(100));
        assert_eq!(stages.age(), Duration::from_nanos(90));
        assert!(!wrong.ordered());
    }
}
