//! A steered model's part of its device's timetable: when each of its launches commits.

use crate::camera::Camera;
use crate::timetable::Course;
use base::Instant;
use std::time::Duration;

/// A timetable is kept while intervals and lengths stay within this (0: `s2` mean +8 %, `s4`
/// +15 %; any: +3 % after an eighth of the cameras has gone; half, twice: the same).
const KEEP: f64 = 0.10;
/// Plans in a row that must differ before the timetable is changed: a change costs every
/// subscription a frame (1: +2 % after an eighth of the cameras has come, p99 +6 %; twice: the same).
const MISFITS: u32 = 3;

/// The launches of a steered model.
#[derive(Debug)]
pub(crate) struct Cohorts {
    course: Course,
    /// When each launch commits, into the period: it begins a preparation later.
    commits: Vec<u64>,
    /// The same in rising order.
    sorted: Vec<u64>,
    /// Plans in a row that it does not follow.
    misfits: u32,
    /// Its launches stand as long as their cohorts need.
    fitted: Fitted,
}

/// How far a timetable knows its cohorts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fitted {
    /// Made for equal launches; nobody is taken for them yet.
    New,
    /// Cohorts were formed around it.
    Formed,
    /// Made again for these cohorts.
    Done,
}

impl Cohorts {
    /// New ones in the memory of `before`.
    pub fn begin(course: Course, before: Option<Cohorts>) -> Cohorts {
        let (mut commits, mut sorted, mut lengths) =
            before.map_or_else(Default::default, |c| (c.commits, c.sorted, c.course.lengths));
        commits.clear();
        sorted.clear();
        lengths.clear();
        let course = Course { lengths, ..course };
        Cohorts { course, commits, sorted, misfits: 0, fitted: Fitted::New }
    }

    /// Whether these launches stay as they are when `course` is what was planned last.
    pub fn follows(&mut self, course: &Course) -> bool {
        let near = |a: f64, b: f64| (a - b).abs() <= KEEP * b;
        let fits = near(course.interval(), self.course.interval())
            && near(course.length as f64, self.course.length as f64);
        self.misfits = if fits { 0 } else { self.misfits + 1 };
        self.course.period == course.period && self.misfits < MISFITS
    }

    pub fn course(&self) -> &Course {
        &self.course
    }

    pub fn period(&self) -> u64 {
        self.course.period
    }

    /// When each launch commits, into the period.
    pub fn commits(&self) -> &[u64] {
        &self.commits
    }

    pub fn fitted(&self) -> Fitted {
        self.fitted
    }

    /// Its launches begin at these offsets, and commit by `lead` earlier.
    pub fn stand(&mut self, starts: &[u64], lead: Duration) {
        let period = self.course.period;
        let lead = base::time::nanos(lead) % period;
        self.commits.clear();
        self.commits.extend(starts.iter().map(|s| (s + period - lead) % period));
        self.sorted.clone_from(&self.commits);
        self.sorted.sort_unstable();
    }

    /// Cohorts of these sizes were formed around its launches; `length` says what a batch of a size
    /// takes, nanoseconds, when that is known.
    pub fn form(&mut self, crowd: &[u32], length: Option<impl Fn(u32) -> u64>) {
        self.fitted = Fitted::Formed;
        if let Some(length) = length {
            let lengths = crowd.iter().map(|n| if *n == 0 { 0 } else { length(*n) });
            self.course.lengths.clear();
            self.course.lengths.extend(lengths);
        }
    }

    /// The timetable was made again for its cohorts.
    pub fn settle(&mut self) {
        self.fitted = Fitted::Done;
    }

    /// The first commit of `launch` at or after `at`.
    pub fn commit_from(&self, launch: u32, at: Instant) -> Instant {
        let period = self.course.period;
        let offset = self.commits[launch as usize];
        let turns = at.0.saturating_sub(offset).div_ceil(period);
        Instant(offset + turns * period)
    }

    /// When a frame is taken for `launch`: the commit right after the first predicted frame that passes
    /// `gate`. `None` = that frame misses the launch.
    pub fn commit_for(
        &self,
        launch: u32,
        camera: &Camera,
        gate: Instant,
        now: Instant,
    ) -> Option<Instant> {
        if !camera.predictable() || launch as usize >= self.commits.len() {
            return None;
        }
        let arrival = camera.arrival_past(gate);
        let commit = self.commit_from(launch, arrival);
        let wait = commit.0.saturating_sub(arrival.0) as f64;
        (commit > now && wait <= camera.period_ns()).then_some(commit)
    }

    /// Mean members of a launch at this rate.
    pub fn crowd(&self, rate: f64) -> f64 {
        rate * self.course.period as f64 / 1e9 / f64::from(self.course.launches)
    }

    /// The first commit of any launch after `now`.
    pub fn next_commit(&self, now: Instant) -> Instant {
        let period = self.course.period;
        let (turn, within) = (now.0 / period * period, now.0 % period);
        let at = self.sorted.partition_point(|c| *c <= within);
        match self.sorted.get(at) {
            Some(offset) => Instant(turn + offset),
            None => Instant(turn + period + self.sorted.first().copied().unwrap_or(0)),
        }
    }
}
