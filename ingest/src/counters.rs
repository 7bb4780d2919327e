//! What happens to the units of one camera, counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {
        /// Counters of one camera since ingest started. Any thread adds; relaxed, they order
        /// nothing.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Count,)*
            /// Whether the camera is being recorded.
            pub recording: crate::recorder::RecordingState,
            /// Why its frames are not exported, or less than wanted.
            pub export: crate::export_state::ExportState,
        }

        /// The counters at one moment.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counted {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Their names and values.
            pub fn list(&self) -> Vec<(String, u64)> {
                let counted = self.read();
                vec![$((stringify!($name).to_owned(), counted.$name),)*]
            }

            /// Reads them all.
            pub fn read(&self) -> Counted {
                Counted { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }

        impl fmt::Display for Counted {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut separator = "";
                $(
                    write!(f, "{separator}{} {}", self.$name, $label)?;
                    separator = ", ";
                )*
                let _ = separator;
                Ok(())
            }
        }
    };
}

counters! {
    /// Access units that the source gave.
    units => "units in",
    /// Units that were late, or leant on one that was.
    skipped => "skipped late",
    /// Units dropped because the worker did not keep up.
    overflowed => "dropped at the worker's queue",
    /// Units that came while no worker could take them.
    unserved => "without a worker",
    /// Units dropped because live view did not keep up.
    unwatched => "dropped before live view",
    /// Frames in the ring.
    exported => "frames exported",
    /// Frames decoded and not exported.
    unexported => "decoded only",
    /// Decoder errors.
    decode_errors => "decoder errors",
    /// Lives of the worker after the first.
    restarts => "worker restarts",
    /// Times that the source began anew after a failure.
    source_failures => "source failures",
    /// Packets of a camera that were lost before they came.
    packets_lost => "packets lost",
    /// Packets and units of a camera that could not be understood.
    unreadable => "unreadable",
    /// Units before the first key frame of a session.
    before_key => "before a key frame",
    /// Times that the camera's clock was set.
    clock_steps => "clock steps",
    /// Units that the recorder could not take or write.
    record_dropped => "not recorded",
}

/// One counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}
