//! What the core is told, as the checker takes it.

use super::link::{Link, Phase};
use super::seen::Happening;
use super::watch::Watch;
use base::{Instant, LatencyEntry};
use scheduler::{BatchId, Input, RunnerKey};

impl Watch {
    /// Something is about to be handled.
    pub fn input(&mut self, now: Instant, input: &Input) {
        self.advance(now);
        match input {
            Input::Desired(_) => {}
            Input::RunnerUp { runner, info } => {
                let model = self.model(&info.model);
                let device = self.device(&info.device);
                let mut link = Link::new(info.clone(), model, device, now);
                self.unsettled_at[model] = now;
                if self.refused.contains(&info.instance) {
                    link.must_close = Some("refused instance");
                } else {
                    let same = |l: &Link| l.open() && l.model == model && l.device == device;
                    let old = self.links.iter().find(|(_, l)| same(l)).map(|(key, _)| *key);
                    if let Some(old) = old {
                        self.must_close(old, "replaced");
                    }
                    for t in self.tracks.iter_mut().filter(|t| t.alive && t.model == model) {
                        t.gate_may_move(now);
                    }
                }
                self.links.insert(*runner, link);
            }
            Input::RunnerDown { runner } => {
                self.lose(*runner);
                self.links.remove(runner);
            }
            Input::RunnerGone { .. } => {}
            Input::Prepared { runner, batch } => {
                let Some(link) = self.open_link(*runner, *batch) else { return };
                match link.batch(*batch) {
                    Some(b) if b.phase == Phase::Prepared => b.since = now,
                    Some(_) => {}
                    None => self.must_close(*runner, "prepared unknown batch"),
                }
            }
            Input::Executed { runner, batch, granted, executed } => {
                let Some(link) = self.open_link(*runner, *batch) else { return };
                match link.batch(*batch).map(|b| (b.phase, b.members.len())) {
                    Some((Phase::Executing, size)) => {
                        link.executed(*executed - *granted, size as u32);
                        if let Some(b) = link.batch(*batch) {
                            (b.phase, b.since) = (Phase::Executed, now);
                        }
                    }
                    Some((Phase::Late, _)) => {}
                    _ => self.must_close(*runner, "executed without the token"),
                }
            }
            Input::Reply { runner, batch, times, outcomes } => {
                let Some(link) = self.open_link(*runner, *batch) else { return };
                let Some(at) = link.batches.iter().position(|b| b.id == *batch) else {
                    return self.must_close(*runner, "reply to an unknown batch");
                };
                let held = &link.batches[at];
                let answered = outcomes.iter().any(Result::is_ok);
                if held.members.len() != outcomes.len()
                    || (held.phase == Phase::Prepared && answered)
                {
                    return self.must_close(*runner, "a reply that does not fit");
                }
                let held = link.batches.remove(at);
                link.executed(times.executed - times.granted, held.members.len() as u32);
                link.in_time = if held.phase == Phase::Late { 0 } else { link.in_time + 1 };
                if held.phase == Phase::Late {
                    self.seen.note(Happening::LateReply, 1);
                    return;
                }
                for (m, outcome) in held.members.iter().zip(outcomes) {
                    if self.track(m.subscription).is_some() {
                        self.owed.push_back((*batch, *m, outcome.as_ref().err().copied()));
                    }
                }
            }
            Input::ProfileRequest { runner, sizes } => {
                if let Some(link) = self.links.get_mut(runner).filter(|l| l.open()) {
                    let max = link.info.batch_max;
                    link.wanted = sizes.iter().copied().filter(|s| (1..=max).contains(s)).collect();
                }
            }
            Input::ProfileDone { runner, batch_size, samples } => {
                if let Some(link) = self.links.get_mut(runner).filter(|l| l.open())
                    && link.measured.take().is_some()
                {
                    link.profiled = true;
                    let mut samples = samples.clone();
                    samples.sort_unstable();
                    if let Some(longest) = samples.last() {
                        // What is known until the table comes.
                        let p50 = samples[samples.len() / 2];
                        let mut table = link.table.clone();
                        table.set(LatencyEntry { batch: *batch_size, p50, p99: *longest });
                        link.announce(table);
                        link.executed(*longest, *batch_size);
                    }
                }
            }
            Input::Table { runner, table } => {
                if let Some(link) = self.links.get_mut(runner).filter(|l| l.open())
                    && std::mem::take(&mut link.profiled)
                {
                    link.announce(table.clone());
                }
            }
        }
    }

    /// The connection, unless it is closing or the batch was taken back.
    fn open_link(&mut self, key: RunnerKey, batch: BatchId) -> Option<&mut Link> {
        self.links.get_mut(&key).filter(|l| l.open() && !l.revoked.contains(&batch))
    }
}
