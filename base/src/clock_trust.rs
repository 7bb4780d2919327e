//! Whether UTC can be trusted to say what is old.
//!
//! Everything that is deleted for its age goes by this machine's UTC, and UTC can be wrong: a
//! battery that is empty, a virtual machine that was paused, a bad step of NTP. Recordings, events,
//! and snapshots and clips each ask a [`ClockTrust`] of their own before they delete by age. Limits
//! of size don't ask.
//!
//! A pure state machine: both clocks come in with every [`look`](ClockTrust::look), what outlives a
//! restart goes out and comes in as [`Memory`]. Who uses it keeps the memory in a file
//! [`MEMORY_NAME`] beside what it deletes, and looks again and again, also while nothing is to be
//! deleted: a step between two looks is how a wrong clock shows.
//!
//! ```
//! use base::clock_trust::{ClockTrust, Clocks};
//! use base::{Instant, UtcNanos};
//! # let (read_file, newest_row, accepted) = (None, None, None);
//! # let now = Clocks { utc: UtcNanos(1), monotonic: Instant(1) };
//! let mut trust = ClockTrust::new(read_file, newest_row);
//! match trust.look(now, accepted) {
//!     None => { /* delete what is too old at now.utc */ }
//!     Some(rest) => println!("nothing is deleted for its age: {rest}"),
//! }
//! ```

use crate::time::{Instant, NANOS_PER_SEC, UtcNanos, nanos};
use std::fmt;
use std::time::Duration;

/// Further than this ahead of what was known, UTC is implausible.
pub const AHEAD_MAX: Duration = Duration::from_secs(86_400);
/// By more than this UTC must not move against the monotonic clock between two looks.
pub const STEP_MAX: Duration = Duration::from_secs(60);
/// Without a further step for so long, a clock is trusted again.
pub const REST: Duration = Duration::from_secs(86_400);
/// The file of the [`Memory`]: no id of a camera has this name.
pub const MEMORY_NAME: &str = ".clock";
/// As often the memory is written again while nothing happens (chosen: what a restart forgets of
/// the rest is small against a day).
pub const SAVE_EVERY: Duration = Duration::from_secs(600);

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// UTC, which may be wrong.
    pub utc: UtcNanos,
    /// The monotonic clock, which isn't.
    pub monotonic: Instant,
}

impl Clocks {
    /// Where UTC lies from the monotonic clock.
    pub fn offset(self) -> ClockOffset {
        ClockOffset(i128::from(self.utc.0) - i128::from(self.monotonic.0))
    }
}

/// UTC less the monotonic clock, in nanoseconds: the same until somebody sets UTC or the machine
/// starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockOffset(pub i128);

impl ClockOffset {
    /// By how much UTC was set since `before`; negative = back.
    fn since(self, before: ClockOffset) -> i128 {
        self.0 - before.0
    }

    /// Whether it is still the same, within [`STEP_MAX`].
    pub fn fits(self, other: ClockOffset) -> bool {
        self.since(other).unsigned_abs() <= STEP_MAX.as_nanos()
    }
}

/// Why UTC is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It is so far ahead of what was known at the last run.
    Ahead(Duration),
    /// It was set forward by so much.
    Forward(Duration),
    /// It was set back by so much.
    Back(Duration),
    /// It was doubtful before the restart.
    Earlier,
}

/// Nothing is deleted for its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// Why.
    pub doubt: Doubt,
    /// For how much longer, if the clock is left alone.
    pub left: Duration,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::Ahead(by) => {
                write!(f, "the clock is {} ahead of what was stored last", Coarse(*by))
            }
            Doubt::Forward(by) => write!(f, "the clock was set forward by {}", Coarse(*by)),
            Doubt::Back(by) => write!(f, "the clock was set back by {}", Coarse(*by)),
            Doubt::Earlier => f.write_str("the clock was doubtful before the restart"),
        }
    }
}

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: nothing is deleted for its age for another {}; when the time of this machine is \
             right, run `vas clock accept`",
            self.doubt,
            Coarse(self.left)
        )
    }
}

/// A duration in its largest whole unit.
struct Coarse(Duration);

impl fmt::Display for Coarse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..120 => write!(f, "{seconds} s"),
            120..7_200 => write!(f, "{} min", seconds / 60),
            7_200..172_800 => write!(f, "{} h", seconds / 3_600),
            _ => write!(f, "{} d", seconds / 86_400),
        }
    }
}

/// What outlives a restart: a line of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The last UTC that was trusted.
    pub known: UtcNanos,
    /// The last UTC that was seen: the same where that was trusted.
    pub seen: UtcNanos,
    /// How long the clock has run without a step, while it is not trusted.
    pub rested: Option<Duration>,
}

impl fmt::Display for Memory {
    /// `1 <known> <seen> <rested>`: two times in seconds since 1970, seconds or `-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1 {} {} ", self.known.0 / NANOS_PER_SEC, self.seen.0 / NANOS_PER_SEC)?;
        match self.rested {
            Some(rested) => writeln!(f, "{}", rested.as_secs()),
            None => writeln!(f, "-"),
        }
    }
}

impl Memory {
    /// Reads what [`Memory`] shows. `None` for anything else: then the newest row speaks.
    pub fn parse(text: &str) -> Option<Memory> {
        let words: Vec<&str> = text.strip_suffix('\n')?.split(' ').collect();
        let ["1", known, seen, rested] = words[..] else { return None };
        let utc =
            |word: &str| Some(UtcNanos(word.parse::<u64>().ok()?.checked_mul(NANOS_PER_SEC)?));
        let rested = match rested {
            "-" => None,
            seconds => Some(Duration::from_secs(seconds.parse().ok()?)),
        };
        Some(Memory { known: utc(known)?, seen: utc(seen)?, rested })
    }
}

/// Whether UTC can be trusted, from look to look.
#[derive(Debug)]
pub struct ClockTrust {
    before: Before,
    /// The last UTC that was trusted, with the moment on the monotonic clock.
    known: Option<Clocks>,
    last: Option<Clocks>,
    doubt: Option<(Doubt, Duration)>,
}

/// What is known of the time before this run.
#[derive(Debug, Default)]
struct Before {
    known: Option<UtcNanos>,
    seen: Option<UtcNanos>,
}

impl ClockTrust {
    /// Begins with what the last run remembered; where that is nothing, with the UTC of the newest
    /// row that was there before this run. With neither there is nothing to delete.
    pub fn new(memory: Option<Memory>, newest: Option<UtcNanos>) -> ClockTrust {
        let rested = memory.and_then(|memory| memory.rested);
        ClockTrust {
            before: Before {
                known: memory.map(|memory| memory.known).or(newest),
                seen: memory.map(|memory| memory.seen).or(newest),
            },
            known: None,
            last: None,
            doubt: rested.map(|rested| (Doubt::Earlier, rested)),
        }
    }

    /// Looks at the clocks; `accepted` is the offset that somebody vouched for in this run of the
    /// machine. `None` = UTC is trusted, `Some` = nothing may be deleted for its age.
    pub fn look(&mut self, now: Clocks, accepted: Option<ClockOffset>) -> Option<Rest> {
        let anew = self.doubt_anew(now);
        let passed = self.last.map_or(Duration::ZERO, |last| now.monotonic.since(last.monotonic));
        self.doubt = match (anew, self.doubt) {
            _ if accepted.is_some_and(|offset| now.offset().fits(offset)) => None,
            (Some(doubt), _) => Some((doubt, Duration::ZERO)),
            (None, Some((doubt, rested))) => {
                Some((doubt, rested + passed)).filter(|(_, rested)| *rested < REST)
            }
            (None, None) => None,
        };
        self.known = match (self.doubt, self.known) {
            (None, _) => Some(now),
            (Some(_), None) => self.before.known.map(|utc| Clocks { utc, ..now }),
            (Some(_), known) => known,
        };
        self.last = Some(now);
        self.rest()
    }

    /// What makes the clock doubtful at this moment.
    fn doubt_anew(&self, now: Clocks) -> Option<Doubt> {
        let Some(last) = self.last else {
            let ahead = now.utc.0.saturating_sub(self.before.seen?.0);
            return (ahead > nanos(AHEAD_MAX)).then(|| Doubt::Ahead(Duration::from_nanos(ahead)));
        };
        let step = now.offset().since(last.offset());
        let by = Duration::from_nanos(u64::try_from(step.unsigned_abs()).unwrap_or(u64::MAX));
        let doubt = if step > 0 { Doubt::Forward(by) } else { Doubt::Back(by) };
        (by > STEP_MAX).then_some(doubt)
    }

    /// What the last look said.
    pub fn rest(&self) -> Option<Rest> {
        self.doubt.map(|(doubt, rested)| Rest { doubt, left: REST.saturating_sub(rested) })
    }

    /// The time that what was trusted last and the monotonic clock say: UTC while it is trusted.
    pub fn believed(&self, now: Clocks) -> UtcNanos {
        let run_on = |known: Clocks| {
            UtcNanos(known.utc.0.saturating_add(nanos(now.monotonic.since(known.monotonic))))
        };
        self.known.filter(|_| self.doubt.is_some()).map_or(now.utc, run_on)
    }

    /// What the next run must know; `None` before the first look.
    pub fn memory(&self) -> Option<Memory> {
        let seen = self.last?.utc;
        let rested = self.doubt.map(|(_, rested)| rested);
        Some(Memory { known: self.known.map_or(seen, |known| known.utc), seen, rested })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = NANOS_PER_SEC;
    const DAY: u64 = 86_400 * SECOND;
    const START: u64 = 20_000 * DAY;

    /// A machine whose clocks a test moves.
    struct Machine {
        now: Clocks,
        trust: ClockTrust,
    }

    impl Machine {
        fn new(memory: Option<Memory>, newest: Option<u64>) -> Machine {
            let now = Clocks { utc: UtcNanos(START), monotonic: Instant(5 * SECOND) };
            Machine { now, trust: ClockTrust::new(memory, newest.map(UtcNanos)) }
        }

        /// With a look behind it that trusted the clock.
        fn trusted() -> Machine {
            let mut machine = Machine::new(None, Some(START));
            assert_eq!(machine.look(), None);
            machine
        }

        fn look(&mut self) -> Option<Rest> {
            self.trust.look(self.now, None)
        }

        fn pass(&mut self, nanos: u64) -> &mut Machine {
            self.now.utc.0 += nanos;
            self.now.monotonic.0 += nanos;
            self
        }

        fn set(&mut self, nanos: i64) -> &mut Machine {
            self.now.utc.0 = self.now.utc.0.checked_add_signed(nanos).unwrap();
            self
        }

        /// The same store after a restart of the machine that took `off` of true time.
        fn restarted(mut self, off: u64) -> Machine {
            self.now.utc.0 += off;
            self.now.monotonic = Instant(SECOND);
            let memory = Memory::parse(&self.trust.memory().unwrap().to_string());
            assert!(memory.is_some());
            Machine { now: self.now, trust: ClockTrust::new(memory, None) }
        }
    }

    fn day(days: u64) -> Duration {
        Duration::from_secs(days * 86_400)
    }

    #[test]
    fn a_step_of_more_than_a_minute_rests_for_a_day_of_running() {
        for (set, doubt) in [
            (60 * SECOND as i64 + 1, Doubt::Forward(Duration::from_nanos(60 * SECOND + 1))),
            (DAY as i64, Doubt::Forward(day(1))),
            (365 * DAY as i64, Doubt::Forward(day(365))),
            (-(60 * SECOND as i64) - 1, Doubt::Back(Duration::from_nanos(60 * SECOND + 1))),
            (-(DAY as i64), Doubt::Back(day(1))),
        ] {
            let mut machine = Machine::trusted();
            let rest = machine.set(set).pass(10 * SECOND).look();
            assert_eq!(rest, Some(Rest { doubt, left: REST }), "{set}");
            let before = START + 10 * SECOND;
            assert_eq!(machine.trust.believed(machine.now), UtcNanos(before));
            // From this look on, and not from when it was set.
            let rest = machine.pass(DAY - 1).look();
            assert_eq!(rest, Some(Rest { doubt, left: Duration::from_nanos(1) }), "{set}");
            assert_eq!(machine.trust.believed(machine.now), UtcNanos(before + DAY - 1));
            assert_eq!(machine.pass(1).look(), None, "{set}");
            assert_eq!(machine.trust.believed(machine.now), machine.now.utc);
            assert_eq!(machine.pass(10 * SECOND).look(), None, "{set}: and it stays trusted");
        }
    }

    #[test]
    fn a_minute_and_slow_looks_are_no_step() {
        for set in [60 * SECOND as i64, -60 * (SECOND as i64), 0] {
            let mut machine = Machine::trusted();
            for _ in 0..100 {
                assert_eq!(machine.set(set).pass(3600 * SECOND).look(), None, "{set}");
            }
            assert_eq!(machine.pass(400 * DAY).look(), None, "nobody looked for a year");
        }
    }

    #[test]
    fn a_further_step_begins_the_rest_again() {
        let mut machine = Machine::trusted();
        assert!(machine.set(DAY as i64).look().is_some());
        assert!(machine.pass(DAY - SECOND).look().is_some());
        let rest = machine.set(-(DAY as i64)).pass(SECOND).look().unwrap();
        assert_eq!(rest, Rest { doubt: Doubt::Back(day(1)), left: REST });
        assert!(machine.pass(DAY - 1).look().is_some());
        assert_eq!(machine.pass(1).look(), None);
    }

    #[test]
    fn at_the_start_more_than_a_day_ahead_of_the_newest_row_rests() {
        for (ahead, rests) in [(0, false), (DAY, false), (DAY + 1, true), (14 * DAY, true)] {
            let mut machine = Machine::new(None, Some(START - ahead));
            let doubt = Doubt::Ahead(Duration::from_nanos(ahead));
            assert_eq!(machine.look(), rests.then_some(Rest { doubt, left: REST }), "{ahead}");
            if rests {
                assert_eq!(machine.trust.believed(machine.now), UtcNanos(START - ahead));
                assert!(machine.pass(DAY - 1).look().is_some());
                assert_eq!(machine.pass(1).look(), None, "after a day of running");
                assert_eq!(machine.pass(1).look(), None);
            }
        }
        // Rows of the future, and none at all.
        assert_eq!(Machine::new(None, Some(START + DAY)).look(), None);
        assert_eq!(Machine::new(None, None).look(), None);
    }

    #[test]
    fn what_was_trusted_before_a_restart_is_known_after_it() {
        // Rows of an hour ago would be nearer, but only what was trusted counts.
        for (off, rests) in [(3600 * SECOND, false), (DAY, false), (14 * DAY, true)] {
            let mut machine = Machine::trusted().restarted(off);
            assert_eq!(machine.look().is_some(), rests, "{off}");
        }
        let memory =
            Memory { known: UtcNanos(START - 2 * DAY), seen: UtcNanos(START), rested: None };
        let mut machine = Machine::new(Some(memory), Some(START - 9 * DAY));
        assert_eq!(machine.look(), None, "what was seen last counts, not the newest row");
        let mut machine = Machine::trusted();
        assert_eq!(machine.trust.memory().unwrap().rested, None);
        machine.pass(DAY).look();
        let known = UtcNanos(START + DAY);
        let memory = Memory { known, seen: known, rested: None };
        assert_eq!(machine.trust.memory(), Some(memory), "it goes on while it is trusted");
    }

    #[test]
    fn a_rest_goes_on_after_a_restart() {
        let mut machine = Machine::trusted();
        machine.set(365 * DAY as i64).look();
        assert!(machine.pass(DAY / 2).look().is_some());
        let mut machine = machine.restarted(60 * SECOND);
        let rest = machine.look().unwrap();
        assert_eq!(rest, Rest { doubt: Doubt::Earlier, left: REST / 2 });
        assert_eq!(machine.trust.believed(machine.now), UtcNanos(START), "what was trusted last");
        assert!(machine.pass(DAY / 2 - 1).look().is_some());
        assert_eq!(machine.pass(1).look(), None);
        // One that is ahead once more rests from the beginning.
        let mut machine = Machine::trusted();
        machine.set(-(DAY as i64)).look();
        machine.pass(DAY - SECOND).look();
        let mut machine = machine.restarted(DAY + SECOND);
        let ahead = Doubt::Ahead(day(1) + Duration::from_secs(1));
        assert_eq!(machine.look(), Some(Rest { doubt: ahead, left: REST }));
    }

    #[test]
    fn who_accepts_a_clock_accepts_this_offset_only() {
        let mut machine = Machine::trusted();
        assert!(machine.set(14 * DAY as i64).look().is_some());
        let accepted = machine.now.offset();
        for (off, fits) in [
            (0, true),
            (60 * SECOND as i64, true),
            (-60 * SECOND as i64, true),
            (60 * SECOND as i64 + 1, false),
            (-60 * SECOND as i64 - 1, false),
        ] {
            let now = Clocks {
                utc: UtcNanos(machine.now.utc.0.checked_add_signed(off).unwrap()),
                ..machine.now
            };
            assert_eq!(now.offset().fits(accepted), fits, "{off}");
        }
        machine.pass(SECOND);
        assert_eq!(machine.trust.look(machine.now, Some(accepted)), None);
        assert_eq!(machine.trust.believed(machine.now), machine.now.utc);
        // It holds for as long as nobody sets the clock again; then somebody must accept again.
        machine.pass(DAY);
        assert_eq!(machine.trust.look(machine.now, Some(accepted)), None);
        machine.set(61 * SECOND as i64);
        assert!(machine.trust.look(machine.now, Some(accepted)).is_some());
        machine.set(-61 * SECOND as i64);
        assert_eq!(machine.trust.look(machine.now, Some(accepted)), None, "back where it was");
        // At the start as well.
        let mut machine = Machine::new(None, Some(START - 14 * DAY));
        let offset = machine.now.offset();
        assert_eq!(machine.trust.look(machine.now, Some(offset)), None);
    }

    #[test]
    fn the_memory_is_a_line() {
        let memory =
            |rested| Memory { known: UtcNanos(7 * SECOND), seen: UtcNanos(9 * SECOND), rested };
        for (memory, text) in [
            (memory(None), "1 7 9 -\n"),
            (memory(Some(Duration::ZERO)), "1 7 9 0\n"),
            (memory(Some(Duration::from_secs(77))), "1 7 9 77\n"),
        ] {
            assert_eq!((memory.to_string().as_str(), Memory::parse(text)), (text, Some(memory)));
        }
        for text in [
            "",
            "\n",
            "1 7 9 -",
            "2 7 9 -\n",
            "1 7 -\n",
            "1 7 9 - 1\n",
            "1 x 9 -\n",
            "1 7 9 -1\n",
            "1 99999999999999 9 -\n",
        ] {
            assert_eq!(Memory::parse(text), None, "{text:?}");
        }
        assert_eq!(ClockTrust::new(None, None).memory(), None);
    }

    #[test]
    fn a_rest_says_why_how_long_and_what_helps() {
        let rest = |doubt, seconds| Rest { doubt, left: Duration::from_secs(seconds) }.to_string();
        let text = rest(Doubt::Ahead(day(14)), 86_400);
        assert!(text.contains("14 d ahead of what was stored last"), "{text}");
        assert!(text.contains("for another 24 h; ") && text.contains("vas clock accept"), "{text}");
        assert!(rest(Doubt::Forward(Duration::from_secs(7_199)), 0).contains("forward by 119 min"));
        assert!(rest(Doubt::Back(Duration::from_secs(119)), 120).contains("back by 119 s"));
        assert!(rest(Doubt::Back(day(2)), 120).contains("back by 2 d: nothing"));
        assert!(rest(Doubt::Earlier, 7_200).contains("before the restart: "));
    }
}
