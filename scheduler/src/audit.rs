//! Looks whether what must hold inside the core does.

use crate::invariant::Invariant;
use crate::runner::Phase;
use crate::state::Scheduler;
use std::ops::Range;

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
        for batch in self.runners.iter().flat_map(|r| r.batches()) {
            if batch.phase() == Phase::Late {
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
            for (invariant, holds) in s.audit(flying) {
                self.invariants.hold(invariant, holds);
            }
        }
    }

    /// Tokens that the runners of a device hold.
    fn tokens_held(&self, device: usize) -> u32 {
        let runners = self.devices[device].runners().iter().filter_map(|ix| self.runners.get(*ix));
        runners.map(|r| r.tokens()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::input::{Desired, Input, SubscriptionSpec};
    use crate::subscription::Subscription;
    use base::Instant;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn core() -> Scheduler {
        let mut core = Scheduler::new(Config::default());
        let spec = SubscriptionSpec::plain("s", "c", "m");
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
        let flies = broken_by(|core| subscription(core).harm(Invariant::InFlight));
        assert_eq!(flies, of(Invariant::InFlight), "no batch has it");
        let gate = broken_by(|core| subscription(core).harm(Invariant::Gate));
        assert_eq!(gate, of(Invariant::Gate));
        let tag = broken_by(|core| subscription(core).harm(Invariant::Tag));
        assert_eq!(tag, of(Invariant::Tag));
        let ledger = broken_by(|core| subscription(core).harm(Invariant::Ledger));
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
