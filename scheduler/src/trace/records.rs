//! The records of a trace.

use super::bytes::{Reader, Writer};
use super::difference::ReplayError;
use crate::input::{Outcome, RunnerInfo};
use crate::{BatchId, CameraKey, CloseReason, Config, Desired, Input, Output, RunnerKey};
use crate::{SubscriptionSpec, WaitReason};
use base::{
    Absent, Detection, FrameDetections, FrameFlags, FrameId, FrameInfo, Generation, InstanceId,
    Instant, MediaTime, MemberError, Newest, Rect, Size, StageTimes, Stamp, TrackId, UtcNanos,
};

/// First bytes of a trace.
pub const MAGIC: &[u8; 8] = b"VASTRACE";
/// Format of the records. A replay refuses another one.
pub const FORMAT: u32 = 3;

pub(crate) const HANDLE: u8 = 1;
pub(crate) const POLL: u8 = 2;
pub(crate) const ANSWER: u8 = 3;
pub(crate) const OUTPUT: u8 = 4;

/// Makes records, each valid until the next one.
#[derive(Debug, Default)]
pub struct Encoder {
    buffer: Vec<u8>,
}

impl Encoder {
    /// The header of a trace.
    pub fn header(&mut self, config: &Config) -> &[u8] {
        self.buffer.clear();
        self.buffer.extend_from_slice(MAGIC);
        let mut out = Writer(&mut self.buffer);
        out.u32(FORMAT);
        out.text(env!("CARGO_PKG_VERSION"));
        config.encode(&mut out);
        &self.buffer
    }

    /// An input.
    pub fn handle(&mut self, now: Instant, input: &Input) -> &[u8] {
        self.record(HANDLE, |out| {
            out.u64(now.0);
            write_input(out, input);
        })
    }

    /// The beginning of a poll; its answers follow, then its output.
    pub fn poll(&mut self, now: Instant) -> &[u8] {
        self.record(POLL, |out| out.u64(now.0))
    }

    /// An answer of the frame index.
    pub fn answer(&mut self, camera: CameraKey, newest: &Newest) -> &[u8] {
        self.record(ANSWER, |out| {
            out.u32(camera.0);
            match newest {
                Newest::Absent(reason) => out.u8(*reason as u8),
                Newest::Frame(stamp) => {
                    out.u8(0xff);
                    write_stamp(out, stamp);
                }
            }
        })
    }

    /// An output. Of an outcome only whether it is one.
    pub fn output(&mut self, output: &Output<'_>) -> &[u8] {
        self.record(OUTPUT, |out| write_output(out, output))
    }

    fn record(&mut self, kind: u8, payload: impl FnOnce(&mut Writer<'_>)) -> &[u8] {
        self.buffer.clear();
        self.buffer.extend_from_slice(&[kind, 0, 0, 0, 0]);
        payload(&mut Writer(&mut self.buffer));
        let length = (self.buffer.len() - 5) as u32;
        self.buffer[1..5].copy_from_slice(&length.to_le_bytes());
        &self.buffer
    }
}

/// Reads the header: version of the recording program and its configuration.
pub(crate) fn header(reader: &mut Reader<'_>) -> Result<(String, Config), ReplayError> {
    let format = |what: String| ReplayError::Format(what);
    if reader.take(MAGIC.len()) != Some(MAGIC) {
        return Err(format("it does not begin with VASTRACE".into()));
    }
    match reader.u32() {
        Some(FORMAT) => {}
        other => {
            let found = other.map_or("missing".into(), |f| f.to_string());
            return Err(format(format!("format is {found}, this program reads {FORMAT}")));
        }
    }
    let version = reader.text().ok_or_else(|| format("the header is cut".into()))?.to_owned();
    let config = Config::decode(reader).ok_or_else(|| format("the header is cut".into()))?;
    Ok((version, config))
}

fn write_input(out: &mut Writer<'_>, input: &Input) {
    match input {
        Input::Desired(desired) => {
            out.u8(1);
            out.u64(desired.revision);
            out.u32(desired.subscriptions.len() as u32);
            for s in &desired.subscriptions {
                out.text(&s.id);
                out.text(s.camera.as_str());
                out.text(s.model.as_str());
                out.option(s.parent.is_some());
                if let Some(parent) = &s.parent {
                    out.text(parent.as_str());
                }
                out.option(s.max_fps.is_some());
                if let Some(fps) = s.max_fps {
                    out.f64(fps);
                }
                out.f64(s.weight);
                out.option(s.deadline.is_some());
                if let Some(deadline) = s.deadline {
                    out.duration(deadline);
                }
                out.u32(s.parameters);
                out.u32(s.regions_max);
                out.option(s.enabled);
            }
        }
        Input::RunnerUp { runner, info } => {
            out.u8(2);
            out.u64(runner.0);
            out.u64(info.instance.0);
            out.text(info.model.as_str());
            out.text(info.device.as_str());
            out.option(info.gpu);
            out.u32(info.batch_max);
            out.duration(info.deadline);
            out.table(&info.latency);
        }
        Input::RunnerDown { runner } => {
            out.u8(3);
            out.u64(runner.0);
        }
        Input::RunnerGone { instance } => {
            out.u8(4);
            out.u64(instance.0);
        }
        Input::Prepared { runner, batch } => {
            out.u8(5);
            out.u64(runner.0);
            out.u64(batch.0);
        }
        Input::Executed { runner, batch, granted, executed } => {
            out.u8(6);
            for value in [runner.0, batch.0, granted.0, executed.0] {
                out.u64(value);
            }
        }
        Input::Reply { runner, batch, times, outcomes } => {
            out.u8(7);
            let t = times;
            let stamps =
                [t.received, t.copied, t.granted, t.preprocessed, t.executed, t.postprocessed];
            for value in [runner.0, batch.0].into_iter().chain(stamps.map(|s| s.0)) {
                out.u64(value);
            }
            out.u32(outcomes.len() as u32);
            for outcome in outcomes {
                write_outcome(out, outcome);
            }
        }
        Input::ProfileRequest { runner, sizes } => {
            out.u8(8);
            out.u64(runner.0);
            out.u32(sizes.len() as u32);
            for size in sizes {
                out.u32(*size);
            }
        }
        Input::ProfileDone { runner, batch_size, samples } => {
            out.u8(9);
            out.u64(runner.0);
            out.u32(*batch_size);
            out.u32(samples.len() as u32);
            for sample in samples {
                out.duration(*sample);
            }
        }
        Input::Table { runner, table } => {
            out.u8(10);
            out.u64(runner.0);
            out.table(table);
        }
    }
}

fn write_outcome(out: &mut Writer<'_>, outcome: &Outcome) {
    match outcome {
        Err(error) => out.u8(1 + *error as u8),
        Ok(found) => {
            out.u8(0);
            out.u32(found.detections.len() as u32);
            for d in &found.detections {
                for value in [d.bbox.x1, d.bbox.y1, d.bbox.x2, d.bbox.y2, d.score] {
                    out.f32(value);
                }
                out.u32(u32::from(d.class_id));
                out.u32(d.track.0);
            }
        }
    }
}

pub(crate) fn input(r: &mut Reader<'_>) -> Option<(Instant, Input)> {
    let now = Instant(r.u64()?);
    let input = match r.u8()? {
        1 => {
            let revision = r.u64()?;
            let count = r.u32()?;
            let mut subscriptions = Vec::new();
            for _ in 0..count {
                subscriptions.push(SubscriptionSpec {
                    id: r.text()?.to_owned(),
                    camera: r.id()?,
                    model: r.id()?,
                    parent: r.option(Reader::id)?,
                    max_fps: r.option(Reader::f64)?,
                    weight: r.f64()?,
                    deadline: r.option(Reader::duration)?,
                    parameters: r.u32()?,
                    regions_max: r.u32()?,
                    enabled: r.u8()? == 1,
                });
            }
            Input::Desired(Desired { revision, subscriptions })
        }
        2 => Input::RunnerUp {
            runner: RunnerKey(r.u64()?),
            info: RunnerInfo {
                instance: InstanceId(r.u64()?),
                model: r.id()?,
                device: r.id()?,
                gpu: r.u8()? == 1,
                batch_max: r.u32()?,
                deadline: r.duration()?,
                latency: r.table()?,
            },
        },
        3 => Input::RunnerDown { runner: RunnerKey(r.u64()?) },
        4 => Input::RunnerGone { instance: InstanceId(r.u64()?) },
        5 => Input::Prepared { runner: RunnerKey(r.u64()?), batch: BatchId(r.u64()?) },
        6 => Input::Executed {
            runner: RunnerKey(r.u64()?),
            batch: BatchId(r.u64()?),
            granted: Instant(r.u64()?),
            executed: Instant(r.u64()?),
        },
        7 => {
            let (runner, batch) = (RunnerKey(r.u64()?), BatchId(r.u64()?));
            let times = StageTimes {
                received: Instant(r.u64()?),
                copied: Instant(r.u64()?),
                granted: Instant(r.u64()?),
                preprocessed: Instant(r.u64()?),
                executed: Instant(r.u64()?),
                postprocessed: Instant(r.u64()?),
            };
            let count = r.u32()?;
            let mut outcomes = Vec::new();
            for _ in 0..count {
                outcomes.push(outcome(r)?);
            }
            Input::Reply { runner, batch, times, outcomes }
        }
        8 => {
            let runner = RunnerKey(r.u64()?);
            let count = r.u32()?;
            let sizes: Option<Vec<u32>> = (0..count).map(|_| r.u32()).collect();
            Input::ProfileRequest { runner, sizes: sizes? }
        }
        9 => {
            let (runner, batch_size) = (RunnerKey(r.u64()?), r.u32()?);
            let count = r.u32()?;
            let samples: Option<Vec<_>> = (0..count).map(|_| r.duration()).collect();
            Input::ProfileDone { runner, batch_size, samples: samples? }
        }
        10 => Input::Table { runner: RunnerKey(r.u64()?), table: r.table()? },
        _ => return None,
    };
    Some((now, input))
}

fn outcome(r: &mut Reader<'_>) -> Option<Outcome> {
    let kind = r.u8()?;
    if kind > 0 {
        return MemberError::ALL.get(usize::from(kind - 1)).map(|e| Err(*e));
    }
    let count = r.u32()?;
    let mut found = FrameDetections::default();
    for _ in 0..count {
        let bbox = Rect { x1: r.f32()?, y1: r.f32()?, x2: r.f32()?, y2: r.f32()? };
        let score = r.f32()?;
        let class_id = u16::try_from(r.u32()?).ok()?;
        found.detections.push(Detection { bbox, score, class_id, track: TrackId(r.u32()?) });
    }
    Some(Ok(found))
}

fn write_stamp(out: &mut Writer<'_>, s: &Stamp) {
    for value in [s.generation.0, s.frame_id.0, s.published.0, s.info.media.0, s.info.capture.0] {
        out.u64(value);
    }
    out.u64(s.info.capture_utc.0);
    out.u64(s.info.decode_start.0);
    for value in [s.slot, s.slots, s.size.width, s.size.height, s.info.flags.0] {
        out.u32(value);
    }
}

fn stamp(r: &mut Reader<'_>) -> Option<Stamp> {
    let (generation, frame_id) = (Generation(r.u64()?), FrameId(r.u64()?));
    let (published, media, capture) = (Instant(r.u64()?), MediaTime(r.u64()?), Instant(r.u64()?));
    let (capture_utc, decode_start) = (UtcNanos(r.u64()?), Instant(r.u64()?));
    let (slot, slots) = (r.u32()?, r.u32()?);
    let size = Size { width: r.u32()?, height: r.u32()? };
    let flags = FrameFlags(r.u32()?);
    let info = FrameInfo { media, capture, capture_utc, decode_start, flags };
    Some(Stamp { generation, frame_id, slot, slots, size, published, info })
}

pub(crate) fn newest(r: &mut Reader<'_>) -> Option<(CameraKey, Newest)> {
    let camera = CameraKey(r.u32()?);
    let absent =
        [Absent::NoRing, Absent::Stale, Absent::Retired, Absent::Invalid, Absent::Unreadable];
    let newest = match r.u8()? {
        0xff => Newest::Frame(stamp(r)?),
        reason => Newest::Absent(*absent.get(usize::from(reason))?),
    };
    Some((camera, newest))
}

fn write_output(out: &mut Writer<'_>, output: &Output<'_>) {
    match output {
        Output::Prepare { runner, batch, lease, members } => {
            out.u8(1);
            out.u64(runner.0);
            out.u64(batch.0);
            out.duration(lease.unwrap_or_default());
            for m in *members {
                out.u64(m.subscription.0);
                out.u32(m.camera.0);
                out.u64(m.stamp.frame_id.0);
                out.u64(m.parent);
                out.u32(m.parameters);
                for corner in [m.region.x1, m.region.y1, m.region.x2, m.region.y2] {
                    out.f32(corner);
                }
            }
        }
        Output::Grant { runner, batch, lease } => {
            out.u8(2);
            out.u64(runner.0);
            out.u64(batch.0);
            out.duration(*lease);
        }
        Output::Revoke { runner, batch } => {
            out.u8(3);
            out.u64(runner.0);
            out.u64(batch.0);
        }
        Output::ProfileGrant { runner, batch_size, lease } => {
            out.u8(4);
            out.u64(runner.0);
            out.u32(*batch_size);
            out.duration(*lease);
        }
        Output::Close { runner, reason } => {
            out.u8(5);
            out.u64(runner.0);
            out.u8(match reason {
                CloseReason::Hung => 0,
                CloseReason::RefusedInstance => 1,
                CloseReason::Replaced => 2,
                CloseReason::Protocol(_) => 3,
            });
        }
        Output::Result { runner, batch, binding, sequence, received, stages, outcome, last } => {
            out.u8(6);
            for value in [runner.0, batch.0, binding.stamp.frame_id.0, *sequence, received.0] {
                out.u64(value);
            }
            out.u64(binding.subscription.0);
            out.duration(stages.age());
            out.u8(outcome.as_ref().map_or_else(|e| 1 + *e as u8, |_| 0));
            out.option(*last);
        }
        Output::Wait { until, reason } => {
            out.u8(7);
            out.u64(until.0);
            let (kind, number) = match reason {
                WaitReason::Idle => (0, 0),
                WaitReason::Frames => (1, 0),
                WaitReason::Unserved => (5, 0),
                WaitReason::Lease(batch) => (2, batch.0),
                WaitReason::Hang(runner) => (3, runner.0),
                WaitReason::PrepareAhead => (4, 0),
            };
            out.u8(kind);
            out.u64(number);
        }
    }
}

/// An output in one line.
pub(crate) fn describe(output: &Output<'_>) -> String {
    match output {
        Output::Prepare { runner, batch, members, lease } => {
            let frames: Vec<_> = members.iter().map(|m| (m.camera.0, m.stamp.frame_id.0)).collect();
            format!("Prepare {batch:?} for {runner:?}, lease {lease:?}, (camera, frame) {frames:?}")
        }
        Output::Result { batch, binding, outcome, .. } => {
            let (frame, ok) = (binding.stamp.frame_id.0, outcome.is_ok());
            format!("Result of {batch:?}, frame {frame}, answered {ok}")
        }
        other => format!("{other:?}"),
    }
}

/// A recorded output in one line, as far as its bytes say without the run around it.
pub(crate) fn describe_bytes(payload: &[u8]) -> String {
    let names = ["Prepare", "Grant", "Revoke", "ProfileGrant", "Close", "Result", "Wait"];
    let mut r = Reader::new(payload);
    let kind = r.u8().unwrap_or(0);
    let name = usize::from(kind).checked_sub(1).and_then(|k| names.get(k)).unwrap_or(&"nothing");
    let numbers: Vec<u64> = std::iter::from_fn(|| r.u64()).take(4).collect();
    format!("{name} {numbers:?}")
}
