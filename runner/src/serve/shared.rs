//! What the listening thread and the engine thread share: batches on their way, and whose they are.

use super::peer::Peer;
use crate::engine::Frame;
use crate::latency::LatencyBook;
use crate::parameters::Parameters;
use base::{Instant, MemberError};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Batches whose pixels are held: one executing, one prepared.
pub const BATCHES_MAX: usize = 2;

/// A batch whose pixels are the runner's own.
#[derive(Debug)]
pub struct Batch {
    /// Its id on the connection.
    pub id: u64,
    /// Whose it is.
    pub peer: Arc<Peer>,
    /// Per member its frame, or why it has none.
    pub members: Vec<Result<(Frame, Arc<Parameters>), MemberError>>,
    /// The Prepare had been read.
    pub received: Instant,
    /// The pixels were copied.
    pub copied: Instant,
    /// The token came, `None` = not yet.
    pub granted: Option<Instant>,
    /// Prepared was sent, so Executed is expected.
    pub two_steps: bool,
}

/// What the engine thread does next.
#[derive(Debug)]
pub enum Task {
    /// A granted batch.
    Batch(Batch),
    /// A granted measurement.
    Profile {
        /// Whose it is.
        peer: Arc<Peer>,
        /// Size of the batches.
        batch_size: u32,
        /// How long the device is the runner's.
        lease: Duration,
    },
}

#[derive(Debug, Default)]
struct State {
    /// Prepared, not granted.
    prepared: Vec<Batch>,
    /// Granted, in the order of the grants.
    tasks: VecDeque<Task>,
    /// The engine holds pixels.
    executing: bool,
    stopping: bool,
    /// Memory of frames for the next ones.
    pool: Vec<Vec<u8>>,
}

/// The shared part.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    latency: Mutex<LatencyBook>,
    pool_max: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// For a model with this largest batch.
    pub fn new(latency: LatencyBook, batch_max: u32) -> Shared {
        Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            latency: Mutex::new(latency),
            pool_max: BATCHES_MAX * batch_max as usize,
        }
    }

    /// L(b).
    pub fn latency(&self) -> MutexGuard<'_, LatencyBook> {
        lock(&self.latency)
    }

    /// Whether another batch may be prepared.
    pub fn has_room(&self) -> bool {
        let state = lock(&self.state);
        let granted = state.tasks.iter().filter(|t| matches!(t, Task::Batch(_))).count();
        state.prepared.len() + granted + usize::from(state.executing) < BATCHES_MAX
    }

    /// Memory for one frame.
    pub fn buffer(&self) -> Vec<u8> {
        lock(&self.state).pool.pop().unwrap_or_default()
    }

    /// Gives the memory of frames back; what several share comes with the last of them.
    pub fn recycle(&self, frames: impl IntoIterator<Item = Frame>) {
        for frame in frames {
            if let Some(buffer) = Arc::into_inner(frame.pixels) {
                self.recycle_buffer(buffer);
            }
        }
    }

    /// Gives memory back that no frame came into.
    pub fn recycle_buffer(&self, buffer: Vec<u8>) {
        let mut state = lock(&self.state);
        if state.pool.len() < self.pool_max {
            state.pool.push(buffer);
        }
    }

    /// Puts a prepared batch aside, or lets it run when its token has come.
    pub fn add(&self, batch: Batch) {
        let mut state = lock(&self.state);
        if batch.granted.is_some() {
            state.tasks.push_back(Task::Batch(batch));
            self.wake.notify_one();
        } else {
            state.prepared.push(batch);
        }
    }

    /// The token of a prepared batch. False = there is no such batch (it was answered already).
    pub fn grant(&self, id: u64, now: Instant) -> bool {
        let mut state = lock(&self.state);
        let Some(at) = state.prepared.iter().position(|b| b.id == id) else { return false };
        let mut batch = state.prepared.remove(at);
        batch.granted = Some(now);
        state.tasks.push_back(Task::Batch(batch));
        self.wake.notify_one();
        true
    }

    /// Forgets a batch that was not granted. False = there is no such batch.
    pub fn revoke(&self, id: u64) -> bool {
        let mut state = lock(&self.state);
        let Some(at) = state.prepared.iter().position(|b| b.id == id) else { return false };
        let batch = state.prepared.remove(at);
        drop(state);
        self.recycle(batch.into_frames());
        true
    }

    /// A measurement that was granted.
    pub fn profile(&self, peer: Arc<Peer>, batch_size: u32, lease: Duration) {
        lock(&self.state).tasks.push_back(Task::Profile { peer, batch_size, lease });
        self.wake.notify_one();
    }

    /// The scheduler is gone: nothing that waits will be asked for.
    pub fn forget_all(&self) {
        let mut state = lock(&self.state);
        let mut batches = std::mem::take(&mut state.prepared);
        batches.extend(std::mem::take(&mut state.tasks).into_iter().filter_map(|t| match t {
            Task::Batch(batch) => Some(batch),
            Task::Profile { .. } => None,
        }));
        drop(state);
        for batch in batches {
            self.recycle(batch.into_frames());
        }
    }

    /// The next task, waiting for it; `None` = the runner stops.
    pub fn next_task(&self) -> Option<Task> {
        let mut state = lock(&self.state);
        loop {
            if state.stopping {
                return None;
            }
            if let Some(task) = state.tasks.pop_front() {
                state.executing = matches!(task, Task::Batch(_));
                return Some(task);
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The engine holds no pixels any more: there is room for another batch.
    pub fn executed(&self) {
        lock(&self.state).executing = false;
    }

    /// Ends [`Shared::next_task`] after the task that runs.
    pub fn stop(&self) {
        lock(&self.state).stopping = true;
        self.wake.notify_all();
    }
}

impl Batch {
    /// Its frames.
    pub fn into_frames(self) -> impl Iterator<Item = Frame> {
        self.members.into_iter().filter_map(|m| m.ok().map(|(frame, _)| frame))
    }
}
