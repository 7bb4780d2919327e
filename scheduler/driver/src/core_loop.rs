//! The loop: inputs in, outputs out, sleep until a socket, the desired state or the core's instant.

use crate::convert;
use crate::links::{Link, ServeLink};
use crate::parameters::Parameters;
use crate::pending::Pending;
use crate::recorder::{Recorded, Recorder};
use crate::rings::Rings;
use crate::sockets::{Event, Sockets, Woken};
use crate::{DriverError, Options};
use base::limits::{RUNNER_OUT_BYTES_MAX, STATUS_PAGE};
use base::{CameraId, Epoch, InstanceId, Instant};
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
use std::thread;
use std::time::Duration;

/// Status goes to serve this often.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// While bytes wait for a slow peer, it is offered them this often.
const FLUSH_INTERVAL: Duration = Duration::from_millis(2);

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
    sockets: Sockets,
    pending: Arc<Pending>,
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
    let sockets = Sockets::new(options.directories.clone(), instance);
    let pending = Arc::new(Pending::new().map_err(failed("make an eventfd"))?);
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
            let apply = |state: DesiredState| {
                left.put(state);
                true
            };
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
        sockets,
        pending,
        epoch: Epoch::default(),
        next_status: now,
        status: None,
        models_changed: false,
    };
    this.run(stop);
    Ok(())
}

impl Loop {
    /// Until it is told to stop.
    fn run(&mut self, stop: &Stop) {
        loop {
            let mut until = None;
            if let Some(state) = self.pending.take() {
                self.desired(&state);
                until = Some(self.drain());
            }
            while let Some(event) = self.sockets.next() {
                self.event(event);
                // Results of one event are named before the next one can take their names away.
                until = Some(self.drain());
            }
            let until = until.unwrap_or_else(|| self.drain());
            let wake = self.idle(until);
            if self.sockets.wait(stop, &self.pending, wake) == Woken::Stop {
                return;
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

    fn event(&mut self, event: Event) {
        match event {
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
            Event::Runner { runner, message } => match convert::input(runner, message) {
                Some(input) => self.handle(input),
                None => {
                    let why = CloseReason::Protocol("it sent a scheduler's message");
                    self.close(runner, why);
                }
            },
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
            self.sockets.refuse(link.hello.instance, model, device);
        }
    }

    /// Does what the core wants until it waits; returns until when. Runners have it then, results for
    /// serve go out together with those of the other events of this wake-up.
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
                Output::Wait { until, .. } => {
                    for RunnerLink { link, .. } in self.runners.values_mut() {
                        link.flush(now);
                    }
                    return until;
                }
            };
            if let Some(link) = self.runners.get_mut(&runner)
                && link.link.push(now, message.encode(&mut self.encoder)) == Pushed::Dropped
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
        if serve.push(clock::monotonic(), bytes, count) == Pushed::Dropped {
            self.results_dropped += count;
        }
    }

    /// What is due before a wait: status, models, bytes for serve and for slow peers. Returns until when
    /// to wait at most.
    fn idle(&mut self, until: Instant) -> Instant {
        let now = clock::monotonic();
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
        if let Some(serve) = &mut self.serve {
            serve.flush(now);
        }
        let slow = self.serve.as_ref().is_some_and(ServeLink::waits)
            || self.runners.values().any(|runner| runner.link.waits());
        if slow { wake.min(now + FLUSH_INTERVAL) } else { wake }
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
            serve.push(now, message.encode(&mut self.encoder), 0);
        }
        let status = Status {
            page,
            more: next.is_some(),
            desired_epoch: self.epoch,
            ..convert::status(report, self.instance, now, self.results_dropped)
        };
        let message = EventsMessage::Status(status);
        if serve.push(now, message.encode(&mut self.encoder), 0) == Pushed::Dropped {
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
