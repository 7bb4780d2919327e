//! Frames are bound to a batch: those that are ready, read again, as many as are answered in time.

use crate::choose::Candidate;
use crate::invariant::Invariant;
use crate::outlook::Outlook;
use crate::output::Binding;
use crate::place::{ModelIx, RunnerIx};
use crate::state::Scheduler;
use crate::{FrameIndex, SubscriptionKey};
use base::{Instant, Rect};
use std::time::Duration;

/// A subscription that fell behind by this many of its own steps is not passed over again.
const PASSED_OVER: u64 = 2;

/// What holds while the members of a batch are gathered.
#[derive(Debug, Clone, Copy)]
struct Terms {
    ix: RunnerIx,
    model: ModelIx,
    /// Of subscriptions that have none of their own.
    deadline: Duration,
    /// Until the token is free.
    wait: Duration,
    /// Pixels are copied under the token.
    copy: bool,
    /// The time that orders the model.
    virtual_now: u64,
    /// The tag that made this model the first, or that time.
    promised: u64,
    /// More is wanted of the device than it has: by all of its models, by this one alone.
    overloaded: bool,
    crowded: bool,
}

/// A batch while its members are gathered.
#[derive(Debug)]
struct Gathering {
    /// Members at most.
    size: u32,
    members: Vec<Binding>,
    /// Ready ones that are too old for a batch of this size.
    aside: Vec<(u64, SubscriptionKey)>,
    /// The smallest start tag of a member, [`u64::MAX`] before the first.
    smallest: u64,
    /// Members of one batch in the fair order lie within a step of the first.
    furthest: u64,
    /// When a batch of this size is answered, and one of a single frame.
    answered_at: Instant,
    alone_at: Instant,
}

impl Gathering {
    /// Whether in the fair order whoever has this tag would take from others.
    fn beyond(&self, tag: u64, promised: u64) -> bool {
        if self.members.is_empty() {
            // Who made this model the first has nothing to bind: others may come before it.
            self.aside.is_empty() && tag > promised
        } else {
            // Whoever is that far ahead would only take from the others.
            tag > self.furthest
        }
    }

    /// A member, or the first of its crops, begins at this tag; `first` of the batch.
    fn begin(&mut self, start: u64, step: u64, first: bool) {
        if first {
            self.furthest = start.saturating_add(step);
        }
        self.smallest = self.smallest.min(start);
    }
}

impl Scheduler {
    /// Binds what is ready for this runner. False when nothing could be bound.
    ///
    /// All members must be answered in time by a batch of the intended size. Frames too old for
    /// that stay ready, for a newer one comes; frames too old even for a batch of one have expired.
    pub(crate) fn launch_on(
        &mut self,
        candidate: &Candidate,
        outlook: &Outlook,
        index: &mut dyn FrameIndex,
        with_token: bool,
    ) -> bool {
        let Some(terms) = self.terms(candidate, outlook, with_token) else { return false };
        let m = &self.models[terms.model.0];
        let ready = if m.crops() { u32::MAX } else { m.ready.count() };
        let size = self.most(terms.ix).min(ready).max(1);
        let mut batch = Gathering {
            size,
            members: self.spare_members(),
            aside: self.take_aside(),
            smallest: u64::MAX,
            furthest: u64::MAX,
            answered_at: self.answered_at(&terms, size),
            alone_at: self.answered_at(&terms, 1),
        };
        self.gather(&terms, &mut batch, index);
        self.return_aside(&terms, &mut batch);
        let Gathering { members, aside, smallest, .. } = batch;
        self.give_back_aside(aside);
        if members.is_empty() {
            self.give_back_members(members);
            return false;
        }
        self.send(&terms, members, smallest, with_token, candidate.demoted);
        true
    }

    fn terms(&self, candidate: &Candidate, outlook: &Outlook, with_token: bool) -> Option<Terms> {
        let ix = candidate.ix;
        let runner = self.runners.get(ix)?;
        let device = &self.devices[runner.device.0];
        let free_in = || outlook.free_at().map_or(Duration::ZERO, |at| at - self.now());
        let virtual_now = self.virtual_now(ix);
        Some(Terms {
            ix,
            model: runner.model,
            deadline: runner.info.deadline,
            wait: if with_token { Duration::ZERO } else { free_in() },
            copy: with_token && runner.info.gpu,
            virtual_now,
            promised: candidate.tag.max(virtual_now),
            overloaded: device.overloaded(),
            crowded: device.overloaded_alone(),
        })
    }

    /// When a batch of this size is answered.
    fn answered_at(&self, terms: &Terms, size: u32) -> Instant {
        let now = self.now();
        now + self.runners.get(terms.ix).map_or(Duration::ZERO, |r| {
            let time = if size > 1 && terms.crowded {
                r.answer_time_crowded(size, terms.copy)
            } else if size > 1 {
                r.answer_time(size, terms.copy)
            } else {
                r.answer_time_alone(now, terms.copy)
            };
            terms.wait + time
        })
    }

    fn gather(&mut self, terms: &Terms, batch: &mut Gathering, index: &mut dyn FrameIndex) {
        while (batch.members.len() as u32) < batch.size {
            let Some((tag, key)) = self.foremost(terms.model) else {
                if !batch.members.is_empty() || batch.aside.is_empty() || batch.size == 1 {
                    break;
                }
                // Nobody is fresh enough for this size: a smaller batch is answered sooner.
                batch.size = batch.size.div_ceil(2);
                batch.answered_at = self.answered_at(terms, batch.size);
                self.return_aside(terms, batch);
                continue;
            };
            if terms.overloaded && batch.beyond(tag, terms.promised) {
                break;
            }
            self.models[terms.model.0].ready.pop();
            let Some(s) = self.subscriptions.get(key) else { continue };
            if s.child {
                let (limit, step) = (s.deadline_or(terms.deadline), s.step());
                let room = (limit, batch.answered_at, terms.virtual_now, batch.size);
                if let Some(start) = self.bind_crops(key, room, &mut batch.members, index) {
                    let first = batch.smallest == u64::MAX;
                    batch.begin(start, step, first);
                }
            } else {
                self.gather_frame(terms, batch, (tag, key), index);
            }
        }
    }

    /// Those that were too old for the batch are ready as before.
    fn return_aside(&mut self, terms: &Terms, batch: &mut Gathering) {
        for (tag, key) in batch.aside.drain(..) {
            self.models[terms.model.0].ready.enqueue(tag, key);
        }
    }

    /// Binds the newest frame of a subscription, when it is there and in time.
    fn gather_frame(
        &mut self,
        terms: &Terms,
        batch: &mut Gathering,
        (tag, key): (u64, SubscriptionKey),
        index: &mut dyn FrameIndex,
    ) {
        let now = self.now();
        let Some(s) = self.subscriptions.get(key) else { return };
        let (camera, limit, step) = (s.camera, s.deadline_or(terms.deadline), s.step());
        self.look(camera, index);
        let agent = &self.cameras[camera];
        let Some(s) = self.subscriptions.get_mut(key) else { return };
        let Some(stamp) = agent.current().copied().filter(|newest| {
            s.ready() && {
                s.observe(newest.frame_id.0);
                s.eligible(newest)
            }
        }) else {
            // The look has shown that there is nothing to bind any more.
            if s.ready() {
                self.unready(key);
                self.schedule(key);
            }
            return;
        };
        let latest = stamp.info.capture + limit;
        if latest < batch.answered_at {
            if latest < batch.alone_at {
                s.expire(&stamp, agent.period_ns());
                self.unready(key);
                self.schedule(key);
                return;
            }
            // Whoever was passed over long enough has the size made to its frame.
            let behind = terms.virtual_now.saturating_sub(tag) > PASSED_OVER * step;
            if !batch.members.is_empty() || !behind {
                batch.aside.push((tag, key));
                return;
            }
            while batch.size > 1 && latest < batch.answered_at {
                batch.size -= 1;
                batch.answered_at = self.answered_at(terms, batch.size);
            }
        }
        let agent = &self.cameras[camera];
        let Some(s) = self.subscriptions.get_mut(key) else { return };
        let start = s.bind(now, &stamp, agent, terms.virtual_now);
        batch.begin(start, step, batch.members.is_empty());
        batch.members.push(Binding {
            subscription: key,
            camera,
            stamp,
            region: Rect::WHOLE,
            parent: 0,
            parameters: s.parameters(),
            first: true,
        });
        self.unready(key);
        self.schedule(key);
    }

    /// Launches the batch.
    fn send(
        &mut self,
        terms: &Terms,
        members: Vec<Binding>,
        smallest: u64,
        with_token: bool,
        demoted: bool,
    ) {
        let (ix, now, shared) = (terms.ix, self.now(), self.shares_token(terms.ix));
        let id = self.next_batch_id();
        let runner = self.runners.get_mut(ix).expect("chosen among the runners");
        let device = &mut self.devices[runner.device.0];
        let model = &mut self.models[terms.model.0];
        model.ready.launched();
        if smallest != u64::MAX {
            // What a demoted runner is behind is its own affair; it begins where the device is.
            let from = if shared { device.virtual_now() } else { terms.virtual_now };
            device.advance(smallest.saturating_sub(from));
            model.advance(smallest, demoted && !runner.left_behind());
        }
        if with_token {
            self.invariants.hold(Invariant::Token, device.lend());
        }
        runner.launch(id, members, with_token, demoted, now);
        self.rebound(ix);
    }
}
