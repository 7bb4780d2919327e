//! A rule over a server: what a world sees of a rival.

use super::server::{Request, Server};
use crate::policy::{Frames, Policy, Privileges};
use base::{CameraId, Instant, Stages, Stamp};
use scheduler::{
    BatchId, Binding, CameraKey, Config, Input, Output, RunnerKey, SubscriptionKey, WaitReason,
};
use std::collections::VecDeque;
use std::time::Duration;

/// What to do next.
pub(super) enum Next {
    /// Launch these on the runner at this place, which is free.
    Launch(usize, Vec<Request>),
    /// Nothing before this instant, unless something arrives or ends.
    Wait(Instant),
}

/// What makes a rival.
pub(super) trait Rule {
    /// Whether devices are lent by token; otherwise they are shared evenly.
    const TOKENS: bool;

    /// A frame of a camera with an active subscription and a connected runner. Usually a request
    /// once the gate is open.
    fn frame(&mut self, server: &mut Server, key: SubscriptionKey, stamp: &Stamp) {
        if let Some(request) = server.pass_gate(key, stamp) {
            self.request(server, request);
        }
    }

    /// A frame passed its gate.
    fn request(&mut self, server: &mut Server, request: Request) {
        server.enqueue(request);
    }

    /// What to do now.
    fn next(&mut self, server: &mut Server, now: Instant) -> Next;

    /// These were answered, or lost with their runner.
    fn ended(&mut self, server: &mut Server, members: &[Binding]) {
        let _ = (server, members);
    }

    /// A subscription began.
    fn began(&mut self, server: &mut Server, key: SubscriptionKey) {
        let _ = (server, key);
    }
}

/// A rule and the server it decides for.
pub(super) struct Rival<R> {
    rule: R,
    server: Server,
    results: VecDeque<Output<'static>>,
    sequence: u64,
    fair: bool,
}

impl<R: Rule> Rival<R> {
    /// `fair`: it pays for copies, and hears of frames over a socket.
    pub fn new(rule: R, fair: bool) -> Rival<R> {
        let notice = if fair { crate::world::WIRE } else { Duration::ZERO };
        let server = Server::new(R::TOKENS, notice);
        Rival { rule, server, results: VecDeque::new(), sequence: 0, fair }
    }

    /// Shows the rule every frame published until now.
    fn arrive(&mut self, now: Instant, frames: &mut dyn Frames) {
        while let Some((camera, stamp)) = self.server.next_frame(now, frames) {
            for i in 0..self.server.watching(camera).len() {
                let key = self.server.watching(camera)[i];
                if self.server.serves(key) {
                    self.rule.frame(&mut self.server, key, &stamp);
                }
            }
        }
    }

    fn reply(&mut self, now: Instant, key: RunnerKey, batch: BatchId, input: Input) {
        let Input::Reply { times, outcomes, .. } = input else { return };
        let executed = times.executed - times.granted;
        let Some(members) = self.server.answered(now, batch, executed) else { return };
        let count = outcomes.len();
        for (i, (binding, outcome)) in members.iter().zip(outcomes).enumerate() {
            let last = i + 1 == count;
            self.sequence += 1;
            let info = &binding.stamp.info;
            let published = binding.stamp.published;
            self.results.push_back(Output::Result {
                runner: key,
                batch,
                binding: *binding,
                sequence: self.sequence,
                received: now,
                stages: Stages::new(info.capture, info.decode_start, published, &times, now),
                outcome,
                last,
            });
        }
        // Nobody waits for the result of a subscription that is gone.
        let subscriptions = &self.server.subscriptions;
        self.results.retain(|r| {
            !matches!(r, Output::Result { binding, .. }
                if !subscriptions[binding.subscription.0 as usize].present)
        });
        self.rule.ended(&mut self.server, &members);
    }
}

impl<R: Rule> Policy for Rival<R> {
    fn start(&mut self, config: &Config) {
        self.server.start(config);
    }

    fn privileges(&self) -> Privileges {
        Privileges { sharing: !R::TOKENS, exact_tables: true, free_copies: !self.fair }
    }

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Desired(desired) => {
                for key in self.server.desired(now, desired) {
                    self.rule.began(&mut self.server, key);
                }
            }
            Input::RunnerUp { runner, info } => self.server.runner_up(runner, info),
            Input::RunnerDown { runner } => {
                if let Some(place) = self.server.place(runner) {
                    let lost = self.server.runner_down(place);
                    self.rule.ended(&mut self.server, &lost);
                }
            }
            Input::Executed { runner, batch, .. } => {
                if let Some(place) = self.server.place(runner) {
                    self.server.executed(place, batch);
                }
            }
            Input::Reply { runner, batch, .. } => self.reply(now, runner, batch, input),
            Input::Prepared { .. }
            | Input::RunnerGone { .. }
            | Input::ProfileRequest { .. }
            | Input::ProfileDone { .. }
            | Input::Table { .. } => {}
        }
    }

    fn poll(&mut self, now: Instant, frames: &mut dyn Frames) -> Output<'_> {
        if let Some(result) = self.results.pop_front() {
            return result;
        }
        self.arrive(now, frames);
        let lease = self.server.pass_leases(now);
        match self.rule.next(&mut self.server, now) {
            Next::Launch(place, requests) => {
                let runner = self.server.runners[place].key;
                let (batch, lease, members) = self.server.launch(now, place, requests);
                Output::Prepare { runner, batch, lease: Some(lease), members }
            }
            Next::Wait(until) => {
                let next = until.min(lease).min(self.server.next_arrival());
                let until = next.max(Instant(now.0 + 1));
                Output::Wait { until, reason: WaitReason::Idle }
            }
        }
    }

    fn cameras(&self) -> Box<dyn Iterator<Item = (CameraKey, &CameraId)> + '_> {
        let cameras = self.server.cameras().enumerate();
        Box::new(cameras.map(|(i, id)| (CameraKey(i as u32), id)))
    }

    fn camera_id(&self, key: CameraKey) -> &CameraId {
        self.server.camera_id(key)
    }

    fn subscription_id(&self, key: SubscriptionKey) -> Option<&str> {
        let s = self.server.subscriptions.get(key.0 as usize)?;
        s.present.then_some(s.spec.id.as_str())
    }
}
