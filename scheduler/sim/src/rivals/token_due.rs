//! Naive late binding: whoever's interval has passed is ready, and gets the newest frame there is
//! at launch. That frame is half a frame interval old on average, before any waiting.

use super::rule::{Next, Rule};
use super::server::Server;
use base::{Instant, Stamp};
use scheduler::SubscriptionKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Default)]
pub(super) struct TokenDue {
    /// Per model whose interval ends when.
    due: BTreeMap<usize, BTreeSet<(Instant, SubscriptionKey)>>,
    /// By key: the last frame, and the gate of production over publications, which keeps the
    /// ceiling in every window. It never holds up one who samples at even intervals.
    taken: Vec<(u64, Instant)>,
}

impl TokenDue {
    fn fresh(&self, server: &Server, key: SubscriptionKey) -> Option<Stamp> {
        let (last, gate) = self.taken[key.0 as usize];
        server.newest(key).filter(|n| n.frame_id.0 > last && n.published >= gate)
    }

    fn take(&mut self, server: &mut Server, key: SubscriptionKey, stamp: &Stamp, now: Instant) {
        let s = &mut server.subscriptions[key.0 as usize];
        let interval =
            s.spec.max_fps.map_or(Duration::ZERO, |fps| Duration::from_secs_f64(1.0 / fps));
        let due = self.due.entry(s.model).or_default();
        due.remove(&(s.gate, key));
        s.gate = (s.gate + interval).max(now.back(interval));
        due.insert((s.gate, key));
        let (last, gate) = &mut self.taken[key.0 as usize];
        *last = stamp.frame_id.0;
        *gate = (*gate + interval).max(stamp.published);
    }
}

impl Rule for TokenDue {
    const TOKENS: bool = true;

    fn frame(&mut self, _: &mut Server, _: SubscriptionKey, _: &Stamp) {}

    fn began(&mut self, server: &mut Server, key: SubscriptionKey) {
        let s = &server.subscriptions[key.0 as usize];
        self.due.entry(s.model).or_default().insert((s.gate, key));
        self.taken.resize(key.0 as usize + 1, (0, Instant::ZERO));
    }

    fn next(&mut self, server: &mut Server, now: Instant) -> Next {
        let mut wait = Instant::FAR;
        let mut first: Option<(Instant, usize, Vec<SubscriptionKey>)> = None;
        for runner in server.free_runners() {
            let model = server.runners[runner].model;
            let Some(due) = self.due.get(&model) else { continue };
            let mut members = Vec::new();
            let mut oldest = None;
            for &(at, key) in due {
                if at > now || members.len() >= server.batch_max(runner) {
                    wait = wait.min(at.max(now));
                    break;
                }
                let active = server.subscriptions[key.0 as usize].active;
                if active && self.fresh(server, key).is_some() {
                    oldest.get_or_insert(at);
                    members.push(key);
                }
            }
            if let Some(at) = oldest
                && first.as_ref().is_none_or(|(earliest, ..)| at < *earliest)
            {
                first = Some((at, runner, members));
            }
        }
        let Some((_, runner, members)) = first else { return Next::Wait(wait) };
        let mut requests = Vec::new();
        for key in members {
            if let Some(stamp) = self.fresh(server, key) {
                requests.push(server.request(key, &stamp));
                self.take(server, key, &stamp, now);
            }
        }
        Next::Launch(runner, requests)
    }
}
