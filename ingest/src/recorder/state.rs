//! Whether a stream is being recorded, and why not: written by its recorder, read by who answers
//! for the stream's status.

use std::sync::{Mutex, PoisonError};

/// What a status says of the recording of one stream.
#[derive(Debug, Default)]
pub struct RecordingState(Mutex<(bool, String)>);

impl RecordingState {
    /// Whether access units reach the disk; the reason why not, empty when nobody wants it. Where
    /// they do: what is wrong all the same, empty when nothing is.
    pub fn get(&self) -> (bool, String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_on(&self, warning: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (true, warning.to_owned());
    }

    pub(super) fn set_off(&self, reason: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (false, reason.to_owned());
    }
}
