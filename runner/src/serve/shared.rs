//! What who listens and who drives the engine share: batches on their way, and whose they are.

use super::peer::Peer;
use crate::engine::Frame;
use crate::parameters::Parameters;
use base::{Instant, MemberError};
use latency::LatencyBook;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Batches whose pixels are held: one executing, one prepared.
pub const BATCHES_MAX: usize = 2;
/// How often it is looked whether a batch has executed (chosen: a tenth of the shortest executions
/// in use; looking costs microseconds).
const POLL: Duration = Duration::from_micros(200);

/// A batch whose pixels are the runner's own.
#[derive(Debug)]
pub struct Batch {
    /// Its id on the connection.
    pub id: u64,
    /// Whose it is.
    pub peer: Arc<Peer>,
    /// Per member its parameters, or why it has no frame.
    pub members: Vec<Result<Arc<Parameters>, MemberError>>,
    /// The frames of those that have one, in their order; none once the engine holds them.
    pub frames: Vec<Frame>,
    /// Where the frames are.
    pub place: Place,
    /// The Prepare had been read.
    pub received: Instant,
    /// The pixels were copied.
    pub copied: Instant,
    /// The token came, `None` = not yet.
    pub granted: Option<Instant>,
    /// Prepared was sent, so Executed is expected.
    pub two_steps: bool,
}

/// Where the frames of a batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// With the batch.
    Here,
    /// On their way into this slot of the engine.
    Moving(usize),
    /// In this slot of the engine.
    Slot(usize),
}

/// What is to be done with the engine next.
#[derive(Debug)]
pub enum Task {
    /// Frames of a batch without the token go into a free slot of the engine.
    Stage {
        /// The slot: by it the batch is known until its frames are there.
        slot: usize,
        /// The frames.
        frames: Vec<Frame>,
    },
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
    /// To look whether the batch that executes has ended.
    Poll,
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
    /// The thread that drives the engine waits.
    asleep: bool,
    /// Memory of frames for the next ones.
    pool: Vec<Vec<u8>>,
}

impl State {
    /// Every batch that is held and does not execute.
    fn held(&mut self) -> impl Iterator<Item = &mut Batch> {
        let granted = self.tasks.iter_mut().filter_map(|task| match task {
            Task::Batch(batch) => Some(batch),
            _ => None,
        });
        self.prepared.iter_mut().chain(granted)
    }

    /// The task that was granted first.
    fn begin(&mut self) -> Option<Task> {
        let task = self.tasks.pop_front()?;
        self.executing = matches!(task, Task::Batch(_));
        Some(task)
    }

    fn free_slot(&mut self, slots: usize) -> Option<usize> {
        let taken: Vec<Place> = self.held().map(|batch| batch.place).collect();
        (0..slots)
            .find(|s| !taken.contains(&Place::Moving(*s)) && !taken.contains(&Place::Slot(*s)))
    }

    /// The first prepared batch whose frames the engine has room for.
    fn stage(&mut self, slots: usize) -> Option<Task> {
        let at = self.prepared.iter().position(|batch| batch.place == Place::Here)?;
        let slot = self.free_slot(slots)?;
        let batch = &mut self.prepared[at];
        batch.place = Place::Moving(slot);
        Some(Task::Stage { slot, frames: std::mem::take(&mut batch.frames) })
    }
}

/// The shared part.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    latency: Mutex<LatencyBook>,
    pool_max: usize,
    slots: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// For a model with this largest batch and an engine with so many slots.
    pub fn new(latency: LatencyBook, batch_max: u32, slots: usize) -> Shared {
        assert!(slots >= BATCHES_MAX, "an engine holds at least {BATCHES_MAX} prepared batches");
        Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            latency: Mutex::new(latency),
            pool_max: BATCHES_MAX * batch_max as usize,
            slots,
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

    /// There is something to do. Telling a thread that is awake would cost a call of the kernel.
    fn wake(&self, state: &State) {
        if state.asleep {
            self.wake.notify_one();
        }
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
        } else {
            state.prepared.push(batch);
        }
        self.wake(&state);
    }

    /// The token of a prepared batch. False = there is no such batch (it was answered already).
    pub fn grant(&self, id: u64, now: Instant) -> bool {
        let mut state = lock(&self.state);
        let Some(at) = state.prepared.iter().position(|b| b.id == id) else { return false };
        let mut batch = state.prepared.remove(at);
        batch.granted = Some(now);
        state.tasks.push_back(Task::Batch(batch));
        self.wake(&state);
        true
    }

    /// Forgets a batch that was not granted. False = there is no such batch.
    pub fn revoke(&self, id: u64) -> bool {
        let mut state = lock(&self.state);
        let Some(at) = state.prepared.iter().position(|b| b.id == id) else { return false };
        let batch = state.prepared.remove(at);
        drop(state);
        self.recycle(batch.frames);
        true
    }

    /// A measurement that was granted.
    pub fn profile(&self, peer: Arc<Peer>, batch_size: u32, lease: Duration) {
        let mut state = lock(&self.state);
        state.tasks.push_back(Task::Profile { peer, batch_size, lease });
        self.wake(&state);
    }

    /// The scheduler is gone: nothing that waits will be asked for.
    pub fn forget_all(&self) {
        let mut state = lock(&self.state);
        let mut batches = std::mem::take(&mut state.prepared);
        batches.extend(std::mem::take(&mut state.tasks).into_iter().filter_map(|t| match t {
            Task::Batch(batch) => Some(batch),
            _ => None,
        }));
        drop(state);
        for batch in batches {
            self.recycle(batch.frames);
        }
    }

    /// A task that waits, if any, while nothing executes.
    pub fn waiting_task(&self) -> Option<Task> {
        let mut state = lock(&self.state);
        state.begin().or_else(|| state.stage(self.slots))
    }

    /// The next task, waiting for it; `None` = the runner stops. While a batch executes no other
    /// begins, and it is time to poll it now and then.
    pub fn next_task(&self, executing: bool) -> Option<Task> {
        let mut state = lock(&self.state);
        loop {
            if !executing {
                if state.stopping {
                    return None;
                }
                if let Some(task) = state.begin() {
                    return Some(task);
                }
            }
            if let Some(stage) = state.stage(self.slots) {
                return Some(stage);
            }
            if !executing {
                state.asleep = true;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.asleep = false;
                continue;
            }
            state.asleep = true;
            let wait = self.wake.wait_timeout(state, POLL);
            let timeout;
            (state, timeout) = wait.unwrap_or_else(PoisonError::into_inner);
            state.asleep = false;
            if timeout.timed_out() {
                return Some(Task::Poll);
            }
        }
    }

    /// The engine holds what was to go into `slot`. The batch, unless it was taken back meanwhile:
    /// whose it is, its id, when it was received and copied.
    pub fn staged(&self, slot: usize) -> Option<(Arc<Peer>, u64, Instant, Instant)> {
        let mut state = lock(&self.state);
        let batch = state.held().find(|batch| batch.place == Place::Moving(slot))?;
        batch.place = Place::Slot(slot);
        Some((Arc::clone(&batch.peer), batch.id, batch.received, batch.copied))
    }

    /// The engine did not take what was to go into `slot`: the batch, unless it was taken back
    /// meanwhile.
    pub fn refused(&self, slot: usize) -> Option<Batch> {
        let mut state = lock(&self.state);
        let moving = |batch: &Batch| batch.place == Place::Moving(slot);
        if let Some(at) = state.prepared.iter().position(moving) {
            return Some(state.prepared.remove(at));
        }
        let task = |task: &Task| matches!(task, Task::Batch(batch) if moving(batch));
        let at = state.tasks.iter().position(task)?;
        match state.tasks.remove(at) {
            Some(Task::Batch(batch)) => Some(batch),
            _ => None,
        }
    }

    /// A slot of the engine that no batch is in.
    pub fn free_slot(&self) -> Option<usize> {
        lock(&self.state).free_slot(self.slots)
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
