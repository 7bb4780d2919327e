//! What ingest and a decode worker say to each other over their socket. Little-endian.
//!
//! To the worker, 48 bytes, then the payload:
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | u32 | magic `VASU` |
//! | 4 | u8 | kind: 1 configuration, 2 access unit, 3 stop |
//! | 5 | u8 | codec of an access unit: 1 H.264, 2 H.265; else 0 |
//! | 6 | u16 | flags of an access unit ([`UnitFlags`]); else 0 |
//! | 8 | u32 | payload bytes, at most [`PAYLOAD_MAX`] |
//! | 12 | u32 | 0 |
//! | 16 | u64 | sequence of the access unit, from 1 in each life of a worker |
//! | 24 | u64 | media, 90 kHz |
//! | 32 | u64 | capture_ns, CLOCK_MONOTONIC |
//! | 40 | u64 | capture_utc_ns |
//!
//! The payload is an access unit in Annex B, or a [`Configuration`] as JSON, or nothing. The first
//! message is a configuration; another one replaces it. Stop means: remove the ring and end. The
//! end of the stream without it means: ingest is gone, leave the ring and end.
//!
//! From the worker, 48 bytes, then the text:
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | u32 | magic `VASD` |
//! | 4 | u8 | kind: 1 progress, 2 refusal, 3 remark |
//! | 5 | u8, u16 | 0 |
//! | 8 | u32 | text bytes, at most [`TEXT_MAX`]; 0 with progress |
//! | 12 | u32 | 0 |
//! | 16 | u64 | sequence of the last access unit dealt with |
//! | 24 | u64 | frames exported |
//! | 32 | u64 | frames decoded and not exported |
//! | 40 | u64 | decoder errors |
//!
//! A refusal says why this camera can't be exported; the worker ends after it. A remark says what of
//! the configuration could not be had, and replaces the one before; without text all is as wanted.

use crate::unit::{Codec, UnitFlags};
use base::{ColourMatrix, ColourRange, Instant, MediaTime, UtcNanos};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Bytes of both headers.
pub const HEADER: usize = 48;
/// Largest payload (chosen: four times the largest key frame of 8K seen in the field).
pub const PAYLOAD_MAX: usize = 16 << 20;
/// Longest text of a refusal.
pub const TEXT_MAX: usize = 1024;

const TO_WORKER: [u8; 4] = *b"VASU";
const FROM_WORKER: [u8; 4] = *b"VASD";

/// What a worker has to know beside the access units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// Camera id.
    pub camera: String,
    /// Root of the rings.
    pub shm: PathBuf,
    /// Process id of ingest: a worker whose parent is another one is an orphan.
    pub parent: i32,
    /// Pictures per second that go to the ring; sizes it.
    pub fps: f64,
    /// Longest deadline of the subscriptions, milliseconds; sizes the ring.
    pub deadline_ms: u64,
    /// What the container says of the stream, for what the stream leaves open.
    pub hints: Hints,
}

/// What a container says of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hints {
    /// Pictures that the decoder holds back to sort them.
    pub reorder: u8,
    /// Colour matrix, as [`ColourMatrix`] counts.
    pub matrix: u8,
    /// Sample range, as [`ColourRange`] counts.
    pub range: u8,
}

impl Hints {
    /// The colour matrix.
    pub fn matrix(self) -> ColourMatrix {
        match self.matrix {
            1 => ColourMatrix::Bt601,
            2 => ColourMatrix::Bt709,
            3 => ColourMatrix::Bt2020,
            _ => ColourMatrix::Unspecified,
        }
    }

    /// The sample range.
    pub fn range(self) -> ColourRange {
        match self.range {
            1 => ColourRange::Limited,
            2 => ColourRange::Full,
            _ => ColourRange::Unspecified,
        }
    }
}

/// Why bytes are no message. The connection is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not ours.
    #[error("message begins with {0:02x?} instead of its magic")]
    Magic([u8; 4]),
    /// A field has a value that does not exist.
    #[error("message has {field} {value}")]
    Value {
        /// Which.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

/// Header of an access unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitHeader {
    /// Codec.
    pub codec: Codec,
    /// Flags.
    pub flags: UnitFlags,
    /// Counts up by one.
    pub sequence: u64,
    /// Media time.
    pub media: MediaTime,
    /// Complete at.
    pub capture: Instant,
    /// The same in UTC.
    pub capture_utc: UtcNanos,
}

/// Header of a message to the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToWorker {
    /// The payload is a [`Configuration`] as JSON.
    Configuration,
    /// The payload is an access unit.
    Unit(UnitHeader),
    /// Remove the ring and end.
    Stop,
}

/// Header of a message from the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Sequence of the last access unit dealt with.
    pub sequence: u64,
    /// Frames exported in this life.
    pub exported: u64,
    /// Frames decoded and not exported.
    pub unexported: u64,
    /// Decoder errors.
    pub errors: u64,
}

fn put(bytes: &mut [u8; HEADER], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get(bytes: &[u8; HEADER], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

fn begin(magic: [u8; 4], kind: u8, payload: usize) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..4].copy_from_slice(&magic);
    bytes[4] = kind;
    put(&mut bytes, 8, payload as u64);
    bytes
}

/// Checks what both headers have in common; kind and payload bytes.
fn open(
    bytes: &[u8; HEADER],
    magic: [u8; 4],
    payload_max: usize,
) -> Result<(u8, usize), HeaderError> {
    if bytes[..4] != magic {
        return Err(HeaderError::Magic([bytes[0], bytes[1], bytes[2], bytes[3]]));
    }
    // The upper half, offset 12, is 0: larger values are refused with it.
    let payload = get(bytes, 8);
    if payload > payload_max as u64 {
        return Err(HeaderError::Value { field: "payload bytes", value: payload });
    }
    Ok((bytes[4], payload as usize))
}

/// What a message of the worker says beside its progress, and how many bytes of text follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Nothing.
    Progress,
    /// Why this camera can't be exported.
    Refusal(usize),
    /// What could not be had as configured.
    Remark(usize),
}

impl ToWorker {
    /// The bytes, for a payload of `payload` bytes.
    pub fn encode(&self, payload: usize) -> [u8; HEADER] {
        debug_assert!(payload <= PAYLOAD_MAX);
        match self {
            ToWorker::Configuration => begin(TO_WORKER, 1, payload),
            ToWorker::Stop => begin(TO_WORKER, 3, payload),
            ToWorker::Unit(unit) => {
                let mut bytes = begin(TO_WORKER, 2, payload);
                bytes[5] = match unit.codec {
                    Codec::H264 => 1,
                    Codec::H265 => 2,
                };
                bytes[6..8].copy_from_slice(&unit.flags.0.to_le_bytes());
                put(&mut bytes, 16, unit.sequence);
                put(&mut bytes, 24, unit.media.0);
                put(&mut bytes, 32, unit.capture.0);
                put(&mut bytes, 40, unit.capture_utc.0);
                bytes
            }
        }
    }

    /// The message and the length of its payload.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn decode(bytes: &[u8; HEADER]) -> Result<(ToWorker, usize), HeaderError> {
        let (kind, payload) = open(bytes, TO_WORKER, PAYLOAD_MAX)?;
        let message = match kind {
            1 => ToWorker::Configuration,
            2 => ToWorker::Unit(UnitHeader {
                codec: match bytes[5] {
                    1 => Codec::H264,
                    2 => Codec::H265,
                    other => {
                        return Err(HeaderError::Value { field: "codec", value: other.into() });
                    }
                },
                flags: UnitFlags(u16::from_le_bytes([bytes[6], bytes[7]])),
                sequence: get(bytes, 16),
                media: MediaTime(get(bytes, 24)),
                capture: Instant(get(bytes, 32)),
                capture_utc: UtcNanos(get(bytes, 40)),
            }),
            3 => ToWorker::Stop,
            other => return Err(HeaderError::Value { field: "kind", value: other.into() }),
        };
        Ok((message, payload))
    }
}

impl Progress {
    /// The bytes of a message with as much text as `said` names.
    pub fn encode(&self, said: Said) -> [u8; HEADER] {
        let (kind, text) = match said {
            Said::Progress => (1, 0),
            Said::Refusal(text) => (2, text),
            Said::Remark(text) => (3, text),
        };
        let mut bytes = begin(FROM_WORKER, kind, text);
        put(&mut bytes, 16, self.sequence);
        put(&mut bytes, 24, self.exported);
        put(&mut bytes, 32, self.unexported);
        put(&mut bytes, 40, self.errors);
        bytes
    }

    /// The message, and the length of its text.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn decode(bytes: &[u8; HEADER]) -> Result<(Progress, Said), HeaderError> {
        let (kind, text) = open(bytes, FROM_WORKER, TEXT_MAX)?;
        let said = match (kind, text) {
            (1, 0) => Said::Progress,
            (2, text) => Said::Refusal(text),
            (3, text) => Said::Remark(text),
            (kind, _) => return Err(HeaderError::Value { field: "kind", value: kind.into() }),
        };
        let progress = Progress {
            sequence: get(bytes, 16),
            exported: get(bytes, 24),
            unexported: get(bytes, 32),
            errors: get(bytes, 40),
        };
        Ok((progress, said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> UnitHeader {
        UnitHeader {
            codec: Codec::H265,
            flags: UnitFlags(0x0201),
            sequence: 0x1122_3344_5566_7788,
            media: MediaTime(2),
            capture: Instant(3),
            capture_utc: UtcNanos(u64::MAX),
        }
    }

    #[test]
    fn offsets_are_those_of_the_table() {
        let bytes = ToWorker::Unit(header()).encode(0x0001_0203);
        assert_eq!(bytes[..8], [b'V', b'A', b'S', b'U', 2, 2, 1, 2]);
        assert_eq!(bytes[8..16], [3, 2, 1, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..24], [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        assert_eq!((bytes[24], bytes[32], &bytes[40..48]), (2, 3, &[0xff; 8][..]));
        assert_eq!(ToWorker::Stop.encode(0)[..8], [b'V', b'A', b'S', b'U', 3, 0, 0, 0]);
        let progress = Progress { sequence: 1, exported: 2, unexported: 3, errors: 4 };
        let bytes = progress.encode(Said::Refusal(9));
        assert_eq!(bytes[..12], [b'V', b'A', b'S', b'D', 2, 0, 0, 0, 9, 0, 0, 0]);
        assert_eq!([bytes[16], bytes[24], bytes[32], bytes[40]], [1, 2, 3, 4]);
        assert_eq!(progress.encode(Said::Remark(9))[4], 3);
        for said in [Said::Progress, Said::Refusal(9), Said::Remark(0), Said::Remark(TEXT_MAX)] {
            assert_eq!(Progress::decode(&progress.encode(said)), Ok((progress, said)));
        }
        let mut chatty = progress.encode(Said::Remark(9));
        chatty[4] = 1;
        assert!(Progress::decode(&chatty).is_err(), "progress has no text");
    }

    #[test]
    fn messages_round_trip_and_foreign_values_are_refused() {
        for message in [ToWorker::Configuration, ToWorker::Unit(header()), ToWorker::Stop] {
            let bytes = message.encode(7);
            assert_eq!(ToWorker::decode(&bytes), Ok((message, 7)));
            for at in 0..6 {
                let mut broken = bytes;
                broken[at] ^= 0x80;
                let refused = ToWorker::decode(&broken).is_err();
                assert!(refused || at == 5 && !matches!(message, ToWorker::Unit(_)), "{at}");
            }
            for at in 12..16 {
                let mut broken = bytes;
                broken[at] = 1;
                assert!(ToWorker::decode(&broken).is_err());
            }
        }
        assert!(Progress::decode(&[0; HEADER]).is_err());
        for said in [Said::Refusal(TEXT_MAX + 1), Said::Remark(TEXT_MAX + 1)] {
            assert!(Progress::decode(&Progress::default().encode(said)).is_err());
        }
    }

    #[test]
    fn hints_outside_their_range_are_unspecified() {
        let hints = Hints { reorder: 0, matrix: 77, range: 9 };
        assert_eq!(hints.matrix(), ColourMatrix::Unspecified);
        assert_eq!(hints.range(), ColourRange::Unspecified);
        let hints =
            Hints { matrix: ColourMatrix::Bt709 as u8, range: ColourRange::Full as u8, ..hints };
        assert_eq!((hints.matrix(), hints.range()), (ColourMatrix::Bt709, ColourRange::Full));
    }
}
