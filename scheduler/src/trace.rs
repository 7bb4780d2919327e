//! Traces: every input, poll, answer and output of a run as bytes, and running them again.
//!
//! A trace begins with a header (magic, format, version of the program, [`Config`]) and goes on
//! with records: kind u8, length u32 little-endian, payload. [`Encoder`] makes them, [`replay`]
//! feeds them to a new [`Scheduler`] and stops at the first output that differs. No I/O: whoever
//! records writes the bytes, whoever replays reads them.
//!
//! Keypoints and masks are not recorded: no decision reads them.

mod bytes;
mod difference;
mod records;

pub use difference::ReplayError;
pub use records::{Encoder, FORMAT, MAGIC};

use crate::{CameraKey, Config, FrameIndex, Scheduler};
use base::{Absent, Instant, Newest};
use bytes::Reader;
use records::{ANSWER, HANDLE, OUTPUT, POLL};

/// What a replay saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Version of the program that recorded the trace.
    pub version: String,
    /// Inputs.
    pub inputs: u64,
    /// Polls.
    pub polls: u64,
    /// Answers of the frame index.
    pub answers: u64,
    /// Outputs, all equal to the recorded ones.
    pub outputs: u64,
    /// The trace ends within a record: the recording process was killed.
    pub cut: bool,
}

/// The recorded answers that belong to one poll.
struct Answers {
    answers: std::collections::VecDeque<(CameraKey, Newest)>,
    unexpected: Option<CameraKey>,
}

impl FrameIndex for Answers {
    fn newest(&mut self, camera: CameraKey) -> Newest {
        match self.answers.pop_front() {
            Some((asked, newest)) if asked == camera => newest,
            _ => {
                self.unexpected.get_or_insert(camera);
                Newest::Absent(Absent::NoRing)
            }
        }
    }
}

/// Runs a recorded trace through a new core.
///
/// # Errors
/// [`ReplayError`] at the first difference, or when the bytes are no trace.
pub fn replay(trace: &[u8]) -> Result<Replayed, ReplayError> {
    let format = |what: &str| ReplayError::Format(what.to_owned());
    let mut reader = Reader::new(trace);
    let (version, config) = records::header(&mut reader)?;
    let mut scheduler = Scheduler::new(config);
    let mut encoder = Encoder::default();
    let mut seen = Replayed { version, inputs: 0, polls: 0, answers: 0, outputs: 0, cut: false };
    let mut record = 0;
    let mut poll: Option<Instant> = None;
    let mut answers = Answers { answers: Default::default(), unexpected: None };
    while let Some(kind) = reader.u8() {
        let Some(payload) = reader.block() else {
            seen.cut = true;
            return Ok(seen);
        };
        let mut payload = Reader::new(payload);
        match kind {
            HANDLE => {
                let (now, input) =
                    records::input(&mut payload).ok_or_else(|| format("an input is malformed"))?;
                scheduler.handle(now, input);
                seen.inputs += 1;
            }
            POLL => {
                let now = payload.u64().ok_or_else(|| format("a poll is malformed"))?;
                poll = Some(Instant(now));
                answers.answers.clear();
                seen.polls += 1;
            }
            ANSWER => {
                let answer = records::newest(&mut payload);
                answers.answers.push_back(answer.ok_or_else(|| format("an answer is malformed"))?);
                seen.answers += 1;
            }
            OUTPUT => {
                let now = poll.take().ok_or_else(|| format("an output without a poll"))?;
                let output = scheduler.poll(now, &mut answers);
                let text = records::describe(&output);
                let replayed = encoder.output(&output);
                let asked = answers.unexpected.take();
                // Kind and length are the same when the payload is.
                if replayed[5..] != *payload.rest()
                    || asked.is_some()
                    || !answers.answers.is_empty()
                {
                    let replayed = match asked {
                        Some(camera) => format!("{text}, after asking for {camera:?}"),
                        None => text,
                    };
                    let recorded = records::describe_bytes(payload.rest());
                    return Err(ReplayError::Differs { record, at: now, recorded, replayed });
                }
                seen.outputs += 1;
            }
            other => return Err(ReplayError::Format(format!("record kind {other} is unknown"))),
        }
        record += 1;
    }
    Ok(seen)
}

impl Config {
    pub(crate) fn encode(&self, out: &mut bytes::Writer<'_>) {
        out.u32(self.capacity);
        out.u32(self.capacities.len() as u32);
        for (device, capacity) in &self.capacities {
            out.text(device.as_str());
            out.u32(*capacity);
        }
        for duration in [
            self.poll_interval,
            self.arrival_slack,
            self.hang_limit,
            self.prepare_ahead,
            self.replan_interval,
        ] {
            out.duration(duration);
        }
        out.f64(self.usable_share);
        out.u8(self.steering as u8);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Config> {
        let capacity = reader.u32()?;
        let count = reader.u32()?;
        let mut capacities = Vec::new();
        for _ in 0..count {
            capacities.push((reader.id()?, reader.u32()?));
        }
        Some(Config {
            capacity,
            capacities,
            poll_interval: reader.duration()?,
            arrival_slack: reader.duration()?,
            hang_limit: reader.duration()?,
            prepare_ahead: reader.duration()?,
            replan_interval: reader.duration()?,
            usable_share: reader.f64()?,
            steering: match reader.u8()? {
                0 => crate::Steering::Off,
                1 => crate::Steering::Auto,
                2 => crate::Steering::On,
                _ => return None,
            },
        })
    }
}
