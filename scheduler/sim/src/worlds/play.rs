//! Plays a planned world: the event loop of virtual time around the production core.

use super::camera::Camera;
use super::desired::change;
use super::digest::digest;
use super::plan::{Fault, WorldPlan};
use super::process::{Process, Sent, WIRE};
use super::truth::World;
use crate::checker::{Seen, Violation, Watch};
use crate::random::Random;
use base::time::NANOS_PER_SEC;
use base::{CameraId, InstanceId, Instant, Newest};
use latency::batch_sizes;
use scheduler::trace::Encoder;
use scheduler::{
    CameraKey, CloseReason, Desired, FrameIndex, Input, Output, RunnerKey, Scheduler,
    SubscriptionSpec, WaitReason,
};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// How often it is looked whether the core should have done something.
const AUDIT: Duration = Duration::from_millis(25);
/// Places of a part of a report (chosen: several parts in most worlds).
const REPORT_PART: usize = 7;
/// Outputs at one instant; no world has as many members in flight.
const OUTPUTS_MAX: u32 = 100_000;
/// Wake-ups per virtual second beside those for messages and for looking at every camera as often
/// as the configuration says (chosen: leases, plans and batches that are prepared ahead).
const WAKES_BESIDE: u64 = 5_000;
/// A connection that was closed is down at most this much later.
const DOWN_MAX: Duration = Duration::from_millis(5);

/// What playing a world gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Played {
    /// Broken invariants, none in a sound core.
    pub violations: Vec<Violation>,
    /// Everything as a trace, when it was recorded.
    pub trace: Vec<u8>,
    /// Hash over all outputs, without UTC.
    pub digest: u64,
    /// Batches.
    pub batches: u64,
    /// Results.
    pub results: u64,
    /// Wake-ups of the core.
    pub wakes: u64,
    /// What happened.
    pub seen: Seen,
}

#[derive(Debug)]
enum Event {
    Message(RunnerKey, Input),
    Connect(usize),
    /// The connection is down.
    Down(RunnerKey),
    /// The lock of a hung instance is free.
    Gone(InstanceId),
    /// A hung instance that was closed tries again.
    Again(usize, InstanceId),
    Fault(usize, Fault),
    Change(usize),
    Audit,
    Report,
}

#[derive(Debug)]
struct Scheduled {
    at: Instant,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    /// The earliest is the greatest: a heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

#[derive(Debug, Default)]
struct Trace {
    encoder: Encoder,
    bytes: Vec<u8>,
}

struct Index<'i, 'p> {
    cameras: &'i mut [Camera<'p>],
    by_key: &'i [usize],
    watch: &'i mut Watch,
    trace: Option<&'i mut Trace>,
    now: Instant,
}

impl FrameIndex for Index<'_, '_> {
    fn newest(&mut self, key: CameraKey) -> Newest {
        let newest = match self.by_key.get(key.0 as usize).and_then(|i| self.cameras.get_mut(*i)) {
            Some(camera) => camera.read(self.now),
            None => Newest::Absent(base::Absent::NoRing),
        };
        if let Some(trace) = &mut self.trace {
            trace.bytes.extend_from_slice(trace.encoder.answer(key, &newest));
        }
        self.watch.answered(self.now, key, &newest);
        newest
    }
}

/// A world while it is played.
pub(super) struct Play<'p> {
    plan: &'p WorldPlan,
    scheduler: Scheduler,
    watch: Watch,
    cameras: Vec<Camera<'p>>,
    camera_ix: BTreeMap<CameraId, usize>,
    /// Index into `cameras` by key of the core.
    by_key: Vec<usize>,
    processes: Vec<Process<'p>>,
    /// Connections that are not down yet, and whose.
    links: BTreeMap<RunnerKey, usize>,
    next_link: u64,
    next_instance: u64,
    desired: Vec<SubscriptionSpec>,
    revision: u64,
    events: BinaryHeap<Scheduled>,
    next_event: u64,
    random: Random,
    now: Instant,
    wait: Instant,
    waits_for: Option<WaitReason>,
    /// The second that is played, and what was counted when it began.
    second: u64,
    wakes_before: u64,
    events_before: u64,
    trace: Option<Trace>,
    played: Played,
    over: bool,
}

impl<'p> Play<'p> {
    pub fn new(plan: &'p WorldPlan, record: bool) -> Play<'p> {
        let cameras = (0..).zip(&plan.cameras);
        let camera = |(i, c): (u64, _)| Camera::new(c, &plan.utc_steps, plan.seed, i);
        let mut play = Play {
            plan,
            scheduler: Scheduler::new(plan.config.clone()),
            watch: Watch::new(plan.config.clone(), plan.calm),
            cameras: cameras.map(camera).collect(),
            camera_ix: plan.cameras.iter().enumerate().map(|(i, c)| (c.id.clone(), i)).collect(),
            by_key: Vec::new(),
            processes: (0..)
                .zip(&plan.runners)
                .map(|(i, r)| Process::new(r, plan.seed, i))
                .collect(),
            links: BTreeMap::new(),
            next_link: 1,
            next_instance: 1,
            desired: plan.subscriptions.clone(),
            revision: 0,
            events: BinaryHeap::new(),
            next_event: 0,
            random: Random::new(plan.seed, 4_000_000),
            now: Instant::ZERO,
            wait: Instant::FAR,
            waits_for: None,
            second: 0,
            wakes_before: 0,
            events_before: 0,
            trace: record.then(Trace::default),
            played: Played { digest: 0xcbf2_9ce4_8422_2325, ..Played::default() },
            over: false,
        };
        if let Some(trace) = &mut play.trace {
            trace.bytes = trace.encoder.header(&plan.config).to_vec();
        }
        for (i, runner) in plan.runners.iter().enumerate() {
            play.event(runner.connect, Event::Connect(i));
            for fault in &runner.faults {
                let at = match *fault {
                    Fault::Crash(at, _)
                    | Fault::Reconnect(at)
                    | Fault::Offend(at, _)
                    | Fault::Table(at, _)
                    | Fault::Measure(at) => at,
                    Fault::Hang(..) | Fault::Stop(..) | Fault::Slow(..) | Fault::Errors(..) => {
                        continue;
                    }
                };
                play.event(at, Event::Fault(i, *fault));
            }
        }
        for (i, (at, _)) in plan.changes.iter().enumerate() {
            play.event(*at, Event::Change(i));
        }
        play.event(Instant::ZERO + AUDIT, Event::Audit);
        play.event(Instant::ZERO + AUDIT * 7, Event::Report);
        play
    }

    /// Plays to the end.
    pub fn run(mut self) -> Played {
        let end = Instant::ZERO + self.plan.length;
        self.send_desired();
        self.drain();
        while !self.over {
            let event = self.events.peek().map_or(Instant::FAR, |e| e.at);
            let mut next = self.wait.min(event).max(self.now);
            for (from, lasts) in &self.plan.stalls {
                if (*from..*from + *lasts).contains(&next) {
                    next = *from + *lasts;
                    self.watch.stalled(next);
                }
            }
            if next > end {
                break;
            }
            self.now = next;
            if self.busy() {
                break;
            }
            let mut polled = false;
            while !self.over && self.events.peek().is_some_and(|e| e.at <= self.now) {
                let Some(Scheduled { event, .. }) = self.events.pop() else { break };
                if self.apply(event) {
                    self.drain();
                    polled = true;
                }
            }
            if !polled && !self.over && self.wait <= self.now {
                self.drain();
            }
        }
        if !self.over {
            self.now = self.now.max(end);
            self.report();
            self.watch.ended(&self.scheduler.report(self.now));
        }
        self.played.seen = self.watch.seen();
        self.played.violations = self.watch.take_violations();
        self.played.trace = self.trace.map(|t| t.bytes).unwrap_or_default();
        self.played
    }

    /// Counts a wake-up. True: there are more of them than anything is good for.
    fn busy(&mut self) -> bool {
        self.played.wakes += 1;
        let second = self.now.0 / NANOS_PER_SEC;
        if self.second != second {
            self.second = second;
            self.wakes_before = self.played.wakes;
            self.events_before = self.next_event;
        }
        let looks = 1.0 / self.plan.config.poll_interval.as_secs_f64();
        let looks = (looks * self.plan.cameras.len() as f64) as u64;
        let wakes = self.played.wakes - self.wakes_before;
        let limit = WAKES_BESIDE + looks + self.next_event - self.events_before;
        if wakes > limit {
            let detail = format!(
                "{wakes} wake-ups in a second; it waits for {:?} until {} ns",
                self.waits_for, self.wait.0
            );
            self.watch.broken("the core is not polled in a busy loop", detail);
        }
        wakes > limit
    }

    fn event(&mut self, at: Instant, event: Event) {
        self.next_event += 1;
        self.events.push(Scheduled { at, number: self.next_event, event });
    }

    fn send(&mut self, key: RunnerKey, sent: Vec<Sent>) {
        for (at, input) in sent {
            self.event(at, Event::Message(key, input));
        }
    }

    fn handle(&mut self, input: Input) {
        if let Some(trace) = &mut self.trace {
            trace.bytes.extend_from_slice(trace.encoder.handle(self.now, &input));
        }
        self.watch.input(self.now, &input);
        self.scheduler.handle(self.now, input);
    }

    fn send_desired(&mut self) {
        self.revision += 1;
        let subscriptions = self.desired.clone();
        self.handle(Input::Desired(Desired { revision: self.revision, subscriptions }));
        for (key, id) in self.scheduler.cameras() {
            let at = key.0 as usize;
            if at >= self.by_key.len() {
                self.by_key.resize(at + 1, usize::MAX);
            }
            self.by_key[at] = self.camera_ix.get(id).copied().unwrap_or(usize::MAX);
        }
        self.watch.desired(&self.scheduler, &self.desired);
    }

    /// Lets an event happen. True: the core was told something.
    fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::Message(key, input) => {
                let up = self.links.contains_key(&key);
                if up {
                    self.handle(input);
                }
                up
            }
            Event::Connect(process) => self.connect(process),
            Event::Down(key) => {
                let Some(process) = self.links.remove(&key) else { return false };
                let process = &mut self.processes[process];
                if process.link == Some(key) {
                    process.end_connection();
                }
                self.handle(Input::RunnerDown { runner: key });
                true
            }
            Event::Gone(instance) => {
                self.handle(Input::RunnerGone { instance });
                true
            }
            Event::Again(process, instance) => {
                if self.processes[process].instance != Some(instance) {
                    return false;
                }
                self.up(process, instance);
                true
            }
            Event::Fault(process, fault) => self.fault(process, fault),
            Event::Change(index) => {
                let plan = self.plan;
                change(&mut self.desired, &plan.changes[index].1);
                self.send_desired();
                true
            }
            Event::Audit => {
                let mut truth = World {
                    cameras: &mut self.cameras,
                    by_key: &self.by_key,
                    processes: &self.processes,
                    links: &self.links,
                };
                self.watch.audit(self.now, &mut truth);
                self.event(self.now + AUDIT, Event::Audit);
                false
            }
            Event::Report => {
                self.report();
                let next = self.random.range(0.05, 1.5);
                self.event(self.now + Duration::from_secs_f64(next), Event::Report);
                false
            }
        }
    }

    /// In parts, as the driver asks for it.
    fn report(&mut self) {
        let (mut report, mut next) = self.scheduler.report_part(self.now, 0, REPORT_PART);
        while let Some(from) = next {
            let (part, after) = self.scheduler.report_part(self.now, from, REPORT_PART);
            report.subscriptions.extend(part.subscriptions);
            report.cameras.extend(part.cameras);
            report.broken = part.broken;
            next = after;
        }
        self.watch.reported(self.now, &report);
    }

    fn connect(&mut self, process: usize) -> bool {
        if self.processes[process].instance.is_some() {
            return false;
        }
        let instance = InstanceId(self.next_instance);
        self.next_instance += 1;
        self.processes[process].start(self.now, instance);
        self.up(process, instance);
        true
    }

    /// A connection of this life.
    fn up(&mut self, process: usize, instance: InstanceId) {
        let key = RunnerKey(self.next_link);
        self.next_link += 1;
        self.links.insert(key, process);
        let p = &mut self.processes[process];
        p.end_connection();
        p.link = Some(key);
        let info = p.info(instance);
        let sizes = p.book.missing();
        self.handle(Input::RunnerUp { runner: key, info });
        if !sizes.is_empty() {
            let input = Input::ProfileRequest { runner: key, sizes };
            self.event(self.now + WIRE, Event::Message(key, input));
        }
    }

    fn fault(&mut self, process: usize, fault: Fault) -> bool {
        let now = self.now;
        let p = &mut self.processes[process];
        let (Some(instance), link) = (p.instance, p.link) else { return false };
        match fault {
            Fault::Crash(_, back) => {
                p.instance = None;
                if let Some(back) = back {
                    self.event(now + back, Event::Connect(process));
                }
                // What it sent before is read before its end is.
                let down: Vec<_> = self.links.iter().filter(|(_, p)| **p == process).collect();
                let down: Vec<_> = down.into_iter().map(|(key, _)| *key).collect();
                down.into_iter().for_each(|key| self.event(now, Event::Down(key)));
                false
            }
            Fault::Reconnect(_) if link.is_some() => {
                self.up(process, instance);
                true
            }
            Fault::Offend(_, offence) => {
                let Some(key) = link else { return false };
                let Some(input) = p.offend(now, offence) else { return false };
                self.event(now + WIRE, Event::Message(key, input));
                false
            }
            Fault::Table(_, scale) => {
                let Some(key) = link else { return false };
                let table = p.plan.table(scale);
                self.event(now + WIRE, Event::Message(key, Input::Table { runner: key, table }));
                false
            }
            Fault::Measure(_) => {
                let Some(key) = link else { return false };
                let input =
                    Input::ProfileRequest { runner: key, sizes: batch_sizes(p.plan.batch_max) };
                self.event(now + WIRE, Event::Message(key, input));
                false
            }
            _ => false,
        }
    }

    /// Polls until the core waits.
    fn drain(&mut self) {
        let now = self.now;
        for _ in 0..OUTPUTS_MAX {
            if let Some(trace) = &mut self.trace {
                trace.bytes.extend_from_slice(trace.encoder.poll(now));
            }
            self.watch.polling(now);
            let mut index = Index {
                cameras: &mut self.cameras,
                by_key: &self.by_key,
                watch: &mut self.watch,
                trace: self.trace.as_mut(),
                now,
            };
            let output = self.scheduler.poll(now, &mut index);
            if let Some(trace) = &mut self.trace {
                trace.bytes.extend_from_slice(trace.encoder.output(&output));
            }
            self.watch.output(now, &output);
            digest(&mut self.played.digest, &output);
            match output {
                Output::Prepare { runner, batch, lease, members } => {
                    self.played.batches += 1;
                    let count = members.len() as u32;
                    let process = self.links.get(&runner).map(|p| &mut self.processes[*p]);
                    if let Some(process) = process.filter(|p| p.link == Some(runner)) {
                        let sent = process.prepare(now, batch, count, lease.is_some());
                        self.send(runner, sent);
                    }
                }
                Output::Grant { runner, batch, .. } => {
                    let process = self.links.get(&runner).map(|p| &mut self.processes[*p]);
                    if let Some(process) = process.filter(|p| p.link == Some(runner)) {
                        let sent = process.grant(now, batch);
                        self.send(runner, sent);
                    }
                }
                Output::Revoke { runner, batch } => {
                    if let Some(process) = self.links.get(&runner) {
                        self.processes[*process].revoke(batch);
                    }
                }
                Output::ProfileGrant { runner, batch_size, lease } => {
                    let process = self.links.get(&runner).map(|p| &mut self.processes[*p]);
                    if let Some(process) = process.filter(|p| p.link == Some(runner)) {
                        let sent = process.profile(now, batch_size, lease);
                        self.send(runner, sent);
                    }
                }
                Output::Close { runner, reason } => self.closed(runner, reason),
                Output::Result { .. } => self.played.results += 1,
                Output::Wait { until, reason } => {
                    self.wait = until;
                    self.waits_for = Some(reason);
                    if until <= now {
                        // The watch has noted it; time goes on all the same.
                        self.wait = now + Duration::from_millis(1);
                    }
                    return;
                }
            }
        }
        let detail = format!("{OUTPUTS_MAX} outputs at one instant");
        self.watch.broken("the core comes to an end", detail);
        self.over = true;
    }

    fn closed(&mut self, key: RunnerKey, reason: CloseReason) {
        let now = self.now;
        let Some(process) = self.links.get(&key).copied() else { return };
        let down = now + DOWN_MAX.mul_f64(self.random.unit());
        self.event(down, Event::Down(key));
        let Some(instance) = self.processes[process].instance else { return };
        match reason {
            CloseReason::Hung => {
                let hang = self.processes[process].plan.faults.iter().find_map(|f| match f {
                    Fault::Hang(at, freed) if *at <= now => Some(*freed),
                    _ => None,
                });
                self.event(down + DOWN_MAX * 20, Event::Again(process, instance));
                // A process that only stood still is ended by its own watchdog.
                let freed = down + hang.unwrap_or(Duration::from_millis(700)).max(DOWN_MAX * 40);
                if self.random.unit() < 0.7 {
                    self.event(freed, Event::Gone(instance));
                }
                self.event(freed, Event::Fault(process, Fault::Crash(freed, Some(DOWN_MAX * 4))));
            }
            CloseReason::Protocol(_) => {
                self.event(down + DOWN_MAX * 30, Event::Again(process, instance));
            }
            CloseReason::RefusedInstance | CloseReason::Replaced => {}
        }
    }
}
