//! Why frames of a stream don't reach the ring, or less of them than wanted: written by the link to
//! its decode worker, read by who answers for the stream's status.

use std::sync::{Mutex, PoisonError};

/// What a status says of the export of one stream.
#[derive(Debug, Default)]
pub struct ExportState(Mutex<String>);

impl ExportState {
    /// The reason; empty when frames are exported, and when nobody wants them.
    pub fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another reason in its place.
    pub fn set(&self, reason: &str) {
        reason.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
