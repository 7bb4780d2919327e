//! The core's thread: inputs in, outputs out, sleep until told otherwise.

use crate::convert;
use crate::inbox::{Backlog, Pending};
use crate::links::{Link, ServeLink};
use crate::parameters::Parameters;
use crate::recorder::{Recorded, Recorder};
use crate::rings::Rings;
use crate::sockets::{Event, Sockets, ToSockets};
use crate::{DriverError, Options};
use base::limits::{RUNNER_OUT_BYTES_MAX, STATUS_PAGE};
use base::{CameraId, Epoch, InstanceId, Instant};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use ipc::clock;
use ipc::desired::{DesiredState, LoadError};
use ipc::events_message::{EventsMessage, ModelInfo, ResultItem, Results, Status};
use ipc::framing::Pushed;
use ipc::runner_message::{Encoder, Hello, RunnerMessage};
use ipc::stop::Stop;
use scheduler::{CameraKey, CloseReason, Config, Input, Output, RunnerKey, RunnerState, Scheduler};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Status goes to serve this often.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// While bytes wait for a slow peer, it is offered them this often.
const FLUSH_INTERVAL: Duration = Duration::from_millis(2);
/// Events on their way to the core's thread; at the bound the senders wait, not the core.
const EVENTS_MAX: usize = 4096;

struct RunnerLink {
    link: Link,
    hello: Hello,
    told: Option<RunnerState>,
}

struct Loop {
    scheduler: Scheduler,
    rings: Rings,
    recorder: Recorder,
    parameters: Parameters,
    instance: InstanceId,
    encoder: Encoder,
    runners: BTreeMap<RunnerKey, RunnerLink>,
    serve: Option<ServeLink>,
    results: Vec<ResultItem>,
    /// Results that did not reach serve: it was away, or too far behind.
    results_dropped: u64,
    orders: Sender<ToSockets>,
    pending: Arc<Pending>,
    backlog: Arc<Backlog>,
    /// Of the desired state in force.
    epoch: Epoch,
    next_status: Instant,
    status: Option<Pages>,
    models_changed: bool,
}

/// A status that is being sent: the launches that come due meanwhile wait for one page at most.
struct Pages {
    now: Instant,
    /// Number and first place of the next one.
    page: u32,
    from: usize,
}

/// Runs until `stop`.
pub(crate) fn run(options: &Options, stop: &Stop) -> Result<(), DriverError> {
    let failed = |what| move |source| DriverError::Io { what, source };
    let config = Config {
        capacities: options.capacities.clone(),
        usable_share: options.usable_share,
        steering: options.steering,
        ..Config::default()
    };
    let recorder = Recorder::new(options.trace.as_deref(), &config)?;
    let instance = random_instance().map_err(failed("draw a random number"))?;
    let (events_in, events) = bounded(EVENTS_MAX);
    let (orders, orders_out) = unbounded();
    let desired_in = events_in.clone();
    let (pending, backlog) = (Arc::<Pending>::default(), Arc::<Backlog>::default());

    let directories = options.directories.clone();
    let ends = events_in.clone();
    let sockets = Sockets::new(directories, instance, events_in, orders_out, backlog.clone());
    let until = stop.clone();
    let sockets = sockets_thread(ends, move || sockets.run(&until))
        .map_err(failed("start its sockets thread"))?;
    let left = pending.clone();
    let path = options.directories.desired();
    // Ends with the process: it waits for the file system and holds nothing.
    thread::Builder::new()
        .name("desired".into())
        .spawn(move || {
            let problem = |error: &LoadError| match error {
                // Start order does not matter: serve writes it when it comes.
                LoadError::Missing(_) => tracing::info!("{error}"),
                _ => tracing::warn!("{error}; what runs goes on"),
            };
            let apply =
                |state: DesiredState| !left.put(state) || desired_in.send(Event::Desired).is_ok();
            ipc::desired::follow(&path, apply, problem);
        })
        .map_err(failed("start its desired-state thread"))?;

    tracing::info!("scheduler {instance} runs");
    let now = clock::monotonic();
    let mut this = Loop {
        scheduler: Scheduler::new(config),
        rings: Rings::new(options.directories.shm.clone()),
        recorder,
        parameters: Parameters::default(),
        instance,
        encoder: Encoder::default(),
        runners: BTreeMap::new(),
        serve: None,
        results: Vec::new(),
        results_dropped: 0,
        orders,
        pending,
        backlog,
        epoch: Epoch::default(),
        next_status: now,
        status: None,
        models_changed: false,
    };
    this.run(&events);
    // Room for a last word of the thread, which ends: it saw `stop`, or panicked.
    drop(events);
    sockets.join().map_err(|_| DriverError::Sockets)
}

/// Starts the thread that reads the sockets. However it ends, the core ends too: without it nothing
/// comes in any more, not even a stop.
fn sockets_thread(
    events: Sender<Event>,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    struct End(Sender<Event>);
    impl Drop for End {
        fn drop(&mut self) {
            // The core is gone already when it does not listen.
            let _ = self.0.send(Event::Stop);
        }
    }
    let end = End(events);
    thread::Builder::new().name("sockets".into()).spawn(move || {
        let _end = end;
        work();
    })
}

impl Loop {
    /// Until it is told to stop.
    fn run(&mut self, events: &Receiver<Event>) {
        let mut wake = self.drain();
        loop {
            let wait = (wake - clock::monotonic()).min(STATUS_INTERVAL);
            let first = match events.recv_timeout(wait) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if first.is_none() {
                wake = self.drain();
            }
            for event in first.into_iter().chain(events.try_iter()) {
                if !self.event(event) {
                    return;
                }
                // Results of one event are sent before the next one can take their names away.
                wake = self.drain();
            }
        }
    }

    fn handle(&mut self, input: Input) {
        let now = clock::monotonic();
        self.recorder.handle(now, &input);
        self.scheduler.handle(now, input);
    }

    fn desired(&mut self, state: &DesiredState) {
        let mut refused = Vec::new();
        let mut parameters = std::mem::take(&mut self.parameters);
        let mut numbering = parameters.number_anew();
        let desired = convert::desired(state, &mut numbering, &mut refused);
        for problem in refused {
            tracing::warn!("desired state revision {}: {problem}", state.revision);
        }
        let (revision, count) = (desired.revision, desired.subscriptions.len());
        self.epoch = state.epoch;
        self.handle(Input::Desired(desired));
        numbering.release();
        self.parameters = parameters;
        self.rings.keep(self.scheduler.cameras());
        tracing::info!("desired state revision {revision}: {count} subscriptions");
    }

    /// False = stop.
    fn event(&mut self, event: Event) -> bool {
        match event {
            Event::Stop => return false,
            Event::Desired => {
                if let Some(state) = self.pending.take() {
                    self.desired(&state);
                }
            }
            Event::RunnerUp { runner, hello, stream } => {
                let info = convert::runner_info(&hello);
                let link = Link::new(stream, RUNNER_OUT_BYTES_MAX);
                tracing::info!(
                    "runner {} {} on {} is here: {}",
                    hello.model_id,
                    hello.model_version,
                    hello.device,
                    hello.runtime
                );
                self.runners.insert(runner, RunnerLink { link, hello: *hello, told: None });
                // Serve learns the labels before the first result.
                self.models_changed = true;
                self.next_status = clock::monotonic();
                self.handle(Input::RunnerUp { runner, info });
            }
            Event::Runner { runner, message, bytes } => {
                self.backlog.remove(bytes);
                match convert::input(runner, *message) {
                    Some(input) => self.handle(input),
                    None => {
                        let why = CloseReason::Protocol("it sent a scheduler's message");
                        self.close(runner, why);
                    }
                }
            }
            Event::RunnerDown { runner } => {
                if let Some(gone) = self.runners.remove(&runner) {
                    tracing::warn!(
                        "runner {} on {} is gone",
                        gone.hello.model_id,
                        gone.hello.device
                    );
                }
                self.models_changed = true;
                self.handle(Input::RunnerDown { runner });
            }
            Event::RunnerGone { instance } => self.handle(Input::RunnerGone { instance }),
            Event::ServeUp { stream } => {
                self.serve = Some(ServeLink::new(stream));
                self.models_changed = true;
                self.next_status = clock::monotonic();
            }
            Event::ServeDown => {
                self.results_dropped += self.serve.take().map_or(0, |link| link.unsent_results());
            }
        }
        true
    }

    fn close(&mut self, runner: RunnerKey, reason: CloseReason) {
        let Some(link) = self.runners.get_mut(&runner) else { return };
        link.link.close();
        let (model, device) = (&link.hello.model_id, &link.hello.device);
        let refused = matches!(reason, CloseReason::RefusedInstance);
        if refused {
            tracing::debug!("runner {model} on {device} is refused: {reason}");
        } else {
            tracing::warn!("runner {model} on {device} is disconnected: {reason}");
        }
        if matches!(reason, CloseReason::Hung) {
            let (model, device) = (model.clone(), device.clone());
            let order = ToSockets::Refused { instance: link.hello.instance, model, device };
            // The sockets thread ends only together with this one.
            let _ = self.orders.send(order);
        }
    }

    /// Does what the core wants until it waits; returns until when.
    fn drain(&mut self) -> Instant {
        loop {
            let now = clock::monotonic();
            self.rings.now = now;
            self.recorder.poll(now);
            let mut index = Recorded { index: &mut self.rings, recorder: &mut self.recorder };
            let output = self.scheduler.poll(now, &mut index);
            self.recorder.output(&output);
            let (runner, message) = match output {
                Output::Prepare { runner, batch, lease, members } => {
                    // `members` borrows the core, which also knows the names of the cameras.
                    let members = members.to_vec();
                    let name =
                        |key: CameraKey| -> CameraId { self.scheduler.camera_id(key).clone() };
                    (runner, convert::prepare(&name, &self.parameters, batch, lease, &members))
                }
                Output::Grant { runner, batch, lease } => {
                    (runner, RunnerMessage::Grant { batch: batch.0, lease })
                }
                Output::Revoke { runner, batch } => {
                    (runner, RunnerMessage::Revoke { batch: batch.0 })
                }
                Output::ProfileGrant { runner, batch_size, lease } => {
                    (runner, RunnerMessage::ProfileGrant { batch_size, lease })
                }
                Output::Close { runner, reason } => {
                    self.close(runner, reason);
                    continue;
                }
                Output::Result {
                    runner,
                    batch,
                    binding,
                    sequence,
                    received,
                    stages,
                    outcome,
                    last,
                } => {
                    let core = &self.scheduler;
                    let item = convert::result(core, &binding, sequence, received, stages, outcome);
                    self.results.push(item);
                    if last {
                        self.send_results(runner, batch.0);
                    }
                    continue;
                }
                Output::Wait { until, .. } => return self.idle(now, until),
            };
            if let Some(link) = self.runners.get_mut(&runner)
                && link.link.send(now, message.encode(&mut self.encoder)) == Pushed::Dropped
            {
                // What the core takes for sent must not be missing: the batch is lost, and said so.
                link.link.close();
            }
        }
    }

    fn send_results(&mut self, runner: RunnerKey, batch: u64) {
        let results = std::mem::take(&mut self.results);
        let count = results.len() as u64;
        let (Some(from), Some(serve)) = (self.runners.get(&runner), &mut self.serve) else {
            self.results_dropped += count;
            return;
        };
        let message = EventsMessage::Results(Results {
            instance: self.instance,
            model_id: from.hello.model_id.clone(),
            model_version: from.hello.model_version.clone(),
            device: from.hello.device.clone(),
            batch,
            results,
        });
        let bytes = message.encode(&mut self.encoder);
        if serve.send(clock::monotonic(), bytes, count) == Pushed::Dropped {
            self.results_dropped += count;
        }
    }

    /// What is due once the core waits: status, models, bytes for slow peers.
    fn idle(&mut self, now: Instant, until: Instant) -> Instant {
        if self.status.is_none() && now >= self.next_status {
            self.next_status = now + STATUS_INTERVAL;
            self.status = Some(Pages { now, page: 0, from: 0 });
        }
        let mut wake = until.min(self.next_status);
        if let Some(pages) = self.status.take() {
            self.status = self.send_status(pages);
        }
        if self.status.is_some() {
            wake = now; // The next page, after all that has come.
        }
        let mut waits = false;
        for RunnerLink { link, .. } in self.runners.values_mut() {
            link.flush(now);
            waits |= link.waits();
        }
        if let Some(serve) = &mut self.serve {
            serve.flush(now);
            waits |= serve.waits();
        }
        if waits { wake.min(now + FLUSH_INTERVAL) } else { wake }
    }

    /// Sends one page. Returns the rest; none when the page was the last or is of no use.
    fn send_status(&mut self, pages: Pages) -> Option<Pages> {
        let Pages { now, page, from } = pages;
        let (report, next) = self.scheduler.report_part(now, from, STATUS_PAGE);
        if page == 0 {
            for runner in self.runners.values_mut() {
                let of = |r: &&scheduler::RunnerReport| r.instance == runner.hello.instance;
                let state = report.runners.iter().find(of).map(|r| r.state);
                self.models_changed |= state != runner.told;
                runner.told = state;
            }
        }
        let serve = self.serve.as_mut()?;
        if std::mem::take(&mut self.models_changed) {
            let models = self.runners.values().map(model_info).collect();
            let message = EventsMessage::Models { instance: self.instance, models };
            serve.send(now, message.encode(&mut self.encoder), 0);
        }
        let status = Status {
            page,
            more: next.is_some(),
            desired_epoch: self.epoch,
            ..convert::status(report, self.instance, now, self.results_dropped)
        };
        let message = EventsMessage::Status(status);
        if serve.send(now, message.encode(&mut self.encoder), 0) == Pushed::Dropped {
            return None; // Without it the other pages are worth nothing.
        }
        next.map(|from| Pages { now, page: page + 1, from })
    }
}

fn model_info(runner: &RunnerLink) -> ModelInfo {
    let hello = &runner.hello;
    ModelInfo {
        model_id: hello.model_id.clone(),
        model_version: hello.model_version.clone(),
        device: hello.device.clone(),
        labels: hello.labels.clone(),
        input: hello.input,
        batch_max: hello.batch_max,
        deadline: hello.deadline,
        state: convert::runner_state(runner.told.unwrap_or(RunnerState::Ready)),
        runtime: hello.runtime.clone(),
    }
}

/// A number that no other life of a scheduler has.
fn random_instance() -> io::Result<InstanceId> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(InstanceId(u64::from_ne_bytes(bytes).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another sender lives on, as that of the thread that follows the desired state does.
    #[test]
    fn a_sockets_thread_that_panics_ends_the_core_too() {
        let (events_in, events) = bounded(EVENTS_MAX);
        let thread = sockets_thread(events_in.clone(), || panic!("planted")).unwrap();
        assert!(matches!(events.recv(), Ok(Event::Stop)));
        assert!(thread.join().is_err());
        drop(events_in);
    }
}
