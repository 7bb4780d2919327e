//! What holds inside the core, whatever it is told: looked at from within, where the checker of the
//! simulator looks from outside. A debug build ends where one is broken; in production it is counted,
//! the status tells how often, and the core goes on with the nearest value that makes sense.

use crate::machine::Scheduler;
use crate::runner::Phase;
use crate::subscription::Subscription;
use base::Instant;
use std::ops::Range;

/// One of the invariants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invariant {
    /// A token is lent once: as many are out as batches execute and sizes are measured.
    Token,
    /// A bound frame without an end is a member of exactly one batch.
    InFlight,
    /// Tags move on, but for what is taken back and for a change of what they are measured by.
    Tag,
    /// Gates move on, but for a change of the ceiling.
    Gate,
    /// The sums of a ledger agree.
    Ledger,
}

impl Invariant {
    /// How many there are.
    pub const COUNT: usize = 5;
}

/// How often each invariant was broken.
#[derive(Debug, Default)]
pub(crate) struct Invariants([u64; Invariant::COUNT]);

impl Invariants {
    /// Counts the invariant unless it `holds`.
    #[track_caller]
    pub fn hold(&mut self, invariant: Invariant, holds: bool) {
        if !holds {
            self.0[invariant as usize] += 1;
            debug_assert!(holds, "{invariant:?} is broken");
        }
    }

    pub fn broken(&self) -> [u64; Invariant::COUNT] {
        self.0
    }
}

/// Gate and tag of a subscription as of the last audit; they were set back on purpose to no less.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Audited {
    gate: Instant,
    tag: u64,
}

impl Audited {
    pub const NEVER: Audited = Audited { gate: Instant::ZERO, tag: 0 };

    /// Gate or tag may have been set back.
    pub fn set_back(&mut self, gate: Instant, tag: u64) {
        self.gate = self.gate.min(gate);
        self.tag = self.tag.min(tag);
    }
}

impl Scheduler {
    /// Looks whether the invariants hold for the subscriptions of these places, and with the first
    /// of them for all devices. Costs a pass over both, and over all members in flight.
    pub fn audit(&mut self, places: Range<usize>) {
        if places.start == 0 {
            for device in 0..self.devices.len() {
                let held = self.tokens_held(device);
                let d = &self.devices[device];
                self.invariants.hold(Invariant::Token, d.lent() == held && held <= d.capacity);
            }
        }
        let end = places.end.min(self.subscriptions.places());
        let mut in_flight = vec![0; end.saturating_sub(places.start)];
        for batch in self.runners.iter().flatten().flat_map(|r| &r.batches) {
            if batch.phase == Phase::Late {
                continue; // Its members have ended.
            }
            for member in &batch.members {
                let place = member.subscription.place();
                if (places.start..end).contains(&place)
                    && self.subscriptions.get(member.subscription).is_some()
                {
                    in_flight[place - places.start] += 1;
                }
            }
        }
        for s in self.subscriptions.part_mut(places.start..end) {
            let flying = in_flight[s.key.place() - places.start];
            self.invariants.hold(Invariant::InFlight, s.counts.in_flight == flying);
            let Audited { gate, tag } = s.details.audited;
            self.invariants.hold(Invariant::Gate, s.gate >= gate);
            self.invariants.hold(Invariant::Tag, s.tag >= tag);
            s.details.audited = Audited { gate: s.gate, tag: s.tag };
            self.invariants.hold(Invariant::Ledger, balanced(s));
        }
    }

    /// Tokens that the runners of a device hold.
    fn tokens_held(&self, device: usize) -> u32 {
        let runners = self.devices[device].runners.iter().filter_map(|ix| self.runner(*ix));
        runners.map(|r| r.tokens()).sum()
    }
}

fn balanced(s: &Subscription) -> bool {
    let ledger = s.ledger();
    ledger.observed == ledger.decided() + s.pending()
        && ledger.bound == ledger.ended() + u64::from(s.counts.in_flight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Desired, Input, SubscriptionSpec};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn core() -> Scheduler {
        let mut core = Scheduler::new(Config::default());
        let spec = SubscriptionSpec {
            id: "s".into(),
            camera: "c".parse().unwrap(),
            model: "m".parse().unwrap(),
            parent: None,
            max_fps: Some(5.0),
            weight: 1.0,
            deadline: None,
            parameters: 0,
            regions_max: 16,
            enabled: true,
        };
        let desired = Desired { revision: 1, subscriptions: vec![spec] };
        core.handle(Instant(1), Input::Desired(desired));
        core.device_ix(&"gpu0".parse().unwrap());
        core.audit(0..9);
        core
    }

    /// The counts after an audit that finds what `harm` did; a debug build ends it.
    fn broken_by(harm: impl FnOnce(&mut Scheduler)) -> [u64; 5] {
        let mut core = core();
        assert_eq!(core.report(Instant(1)).broken, [0; 5]);
        harm(&mut core);
        let ended = catch_unwind(AssertUnwindSafe(|| core.audit(0..9))).is_err();
        assert_eq!(ended, cfg!(debug_assertions));
        core.report(Instant(1)).broken
    }

    fn subscription(core: &mut Scheduler) -> &mut Subscription {
        core.subscriptions.part_mut(0..9).next().unwrap()
    }

    #[test]
    fn what_is_broken_is_counted_by_its_name_and_ends_a_debug_build() {
        let of = |invariant: Invariant| std::array::from_fn(|i| u64::from(i == invariant as usize));
        let lent = broken_by(|core| assert!(core.devices[0].lend()));
        assert_eq!(lent, of(Invariant::Token), "lent to nobody");
        let flies = broken_by(|core| {
            let s = subscription(core);
            (s.counts.bound, s.counts.in_flight, s.observed) = (1, 1, 1);
        });
        assert_eq!(flies, of(Invariant::InFlight), "no batch has it");
        let gate = broken_by(|core| subscription(core).gate = Instant::ZERO);
        assert_eq!(gate, of(Invariant::Gate));
        let tag = broken_by(|core| {
            let s = subscription(core);
            s.details.audited.tag = s.tag + 1;
        });
        assert_eq!(tag, of(Invariant::Tag));
        let ledger = broken_by(|core| subscription(core).observed += 1);
        assert_eq!(ledger, of(Invariant::Ledger));
    }

    #[test]
    fn what_is_set_back_on_purpose_breaks_nothing() {
        let mut core = core();
        let s = subscription(&mut core);
        s.advance_tag(1_000);
        core.audit(0..9);
        let s = subscription(&mut core);
        s.unbind(Instant(1));
        core.audit(0..9);
    }
}
