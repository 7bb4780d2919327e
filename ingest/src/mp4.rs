//! MP4 as this crate writes it (ISO/IEC 14496-12 and 14496-15): one video track of 90 kHz, with the
//! camera's own compressed pictures. Pure: bytes in, bytes out.
//!
//! [`fragmented`] is for recordings, [`progressive`] for clips that people download. What reads
//! recordings is `ipc::recording`.

pub mod boxed;
pub mod fragmented;
pub mod progressive;
pub mod sample_entry;
pub mod sequence_parameters;
