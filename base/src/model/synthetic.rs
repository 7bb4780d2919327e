//! A model that is nothing but how long it takes and what goes wrong with it.

use std::time::Duration;

/// What an engine does that executes nothing: it waits. `L(b) = alpha + beta b`.
#[derive(Debug, Clone, PartialEq)]
pub struct Synthetic {
    /// Fixed time of a batch.
    pub alpha: Duration,
    /// Time of a member.
    pub beta: Duration,
    /// Standard deviation of a batch's time, relative to it.
    pub noise: f64,
    /// Whether it says that it executes on a GPU.
    pub gpu: bool,
    /// What it finds.
    pub finds: Finds,
    /// What goes wrong.
    pub faults: Vec<SyntheticFault>,
}

/// What a synthetic model finds in a frame. The class is always 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finds {
    /// Nothing.
    Nothing,
    /// One box, a quarter of the input wide and high, that moves on with every frame.
    Moving,
    /// One box over the whole input, whose score is the luma of the first pixel / 255.
    Luma,
}

/// Something that goes wrong in a part of the time, counted from the load of the model on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SyntheticFault {
    /// What.
    pub kind: SyntheticFaultKind,
    /// When it begins.
    pub from: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// From one beginning to the next; `None` = it happens once.
    pub every: Option<Duration>,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SyntheticFaultKind {
    /// Batches take so many times as long.
    Slower(f64),
    /// This share of the batches fails.
    Errors(f64),
    /// Batches that begin never end.
    Hang,
    /// The engine panics when a batch begins.
    Panic,
}

impl SyntheticFault {
    /// Whether it holds `at` after the load.
    pub fn holds(&self, at: Duration) -> bool {
        let Some(since) = at.checked_sub(self.from) else { return false };
        let since = match self.every {
            Some(every) => since.as_nanos() % every.as_nanos().max(1),
            None => since.as_nanos(),
        };
        since < self.lasts.as_nanos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_holds_once_or_again_and_again() {
        let s = Duration::from_secs;
        let (kind, from, lasts) = (SyntheticFaultKind::Hang, s(10), s(5));
        let once = SyntheticFault { kind, from, lasts, every: None };
        let holding = |fault: SyntheticFault| -> Vec<u64> {
            (0..60).filter(|at| fault.holds(s(*at))).collect()
        };
        assert_eq!(holding(once), [10, 11, 12, 13, 14]);
        let again = SyntheticFault { every: Some(s(30)), ..once };
        assert_eq!(holding(again), [10, 11, 12, 13, 14, 40, 41, 42, 43, 44]);
    }
}
