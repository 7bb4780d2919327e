//! When the launches of a device begin: one cyclic timetable for all of its steered models.
//!
//! Each model wants `launches` per period, evenly spaced. A device executes one batch at a time, so
//! launches of different models that fall together are moved apart here, before they meet: the
//! cohorts are then formed around the moments at which launches really begin.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Offsets that are tried for a model (1: `s3` mean +1 %, p99 +6 %; half, twice: the same but for chance).
const TRIES_MAX: u64 = 64;
/// Launches placed in all tries together: about two milliseconds. Beyond it in one try, all stay even (a
/// bound: half, twice and any number are the same in all worlds).
const WORK_MAX: u64 = 100_000;

/// One model's launches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// Nanoseconds after which the launches repeat.
    pub period: u64,
    /// Launches per period, at least 1.
    pub launches: u32,
    /// Nanoseconds that a launch occupies the device, on the mean.
    pub length: u64,
    /// The same for each launch, once it is known who is taken for it; empty = all are alike.
    pub lengths: Vec<u64>,
}

impl Course {
    /// Nanoseconds between two launches.
    pub fn interval(&self) -> f64 {
        self.period as f64 / f64::from(self.launches)
    }

    fn length_of(&self, launch: usize) -> u64 {
        self.lengths.get(launch).copied().unwrap_or(self.length)
    }
}

/// Fractional part of `n` times the golden ratio: any number of consecutive values lies nearly
/// evenly in 0..1 (Steinhaus, three-gap theorem).
pub(crate) fn golden_share(n: u64) -> f64 {
    (n as f64 * 0.618_033_988_749_894_9).fract()
}

fn lcm(a: u64, b: u64) -> Option<u64> {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x.max(1)).checked_mul(b)
}

/// The timetable of one device. Its memory is used again.
#[derive(Debug, Default)]
pub struct Timetable {
    rows: Vec<Row>,
    /// Of all courses in a row: how long each launch occupies the device.
    lengths: Vec<u64>,
    /// The same in the order in which courses are placed.
    placed_lengths: Vec<u64>,
    /// Where launches should begin, and where they do.
    wanted: Vec<u64>,
    starts: Vec<u64>,
    /// Rows in the order in which they are placed.
    order: Vec<usize>,
    /// Launches of two cycles by when they are due.
    due: Vec<(u64, u32)>,
    free: BinaryHeap<Reverse<u64>>,
}

/// A course in a timetable.
#[derive(Debug)]
struct Row {
    period: u64,
    launches: u32,
    length: u64,
    /// Where its launches stand in the timetable's lists.
    first_length: usize,
    first: usize,
}

impl Row {
    fn golden(&self, n: usize) -> u64 {
        let share = golden_share(n as u64);
        (share * self.period as f64 / f64::from(self.launches)) as u64
    }

    fn places(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.launches as usize
    }

    /// Its launches evenly spaced from `offset` on.
    fn even(&self, offset: u64) -> impl Iterator<Item = u64> {
        let (n, period) = (u64::from(self.launches), self.period);
        (0..n).map(move |j| (offset + j * period / n) % period)
    }
}

impl Timetable {
    /// Begins a new one.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.lengths.clear();
    }

    /// Adds the launches of a model.
    pub fn add(&mut self, course: &Course) {
        let first_length = self.lengths.len();
        let Course { period, launches, length, .. } = *course;
        self.lengths.extend((0..launches as usize).map(|j| course.length_of(j)));
        self.rows.push(Row { period, launches, length, first_length, first: 0 });
    }

    /// The offset of every launch of a course into its period, nanoseconds, in order of their even
    /// spacing. Courses are numbered as they were added.
    pub fn offsets(&self, course: usize) -> &[u64] {
        &self.starts[self.rows[course].places()]
    }

    /// Finds the offsets for a device with that many tokens. Courses whose periods never meet keep
    /// the even spacing.
    pub fn resolve(&mut self, capacity: u32) {
        let cycle = self.rows.iter().try_fold(1, |cycle, r| lcm(cycle, r.period));
        let cycle = cycle.filter(|c| *c > 0);
        let launches: u64 = cycle.map_or(u64::MAX, |cycle| {
            self.rows.iter().map(|r| u64::from(r.launches) * (cycle / r.period)).sum()
        });
        self.order.clear();
        self.order.extend(0..self.rows.len());
        self.wanted.clear();
        self.placed_lengths.clear();
        let work = launches.saturating_mul(self.rows.len() as u64);
        let Some(cycle) = cycle.filter(|_| work <= WORK_MAX) else {
            for (n, row) in self.rows.iter_mut().enumerate() {
                row.first = self.wanted.len();
                self.wanted.extend(row.even(row.golden(n)));
            }
            return self.starts.clone_from(&self.wanted);
        };
        // The model that occupies the device longest comes first; each next one takes the offset at
        // which all so far wait least for each other.
        let rows = &self.rows;
        self.order.sort_unstable_by_key(|&i| (Reverse(rows[i].length), i));
        let tries = (WORK_MAX / work.max(1)).clamp(1, TRIES_MAX);
        for rank in 0..self.order.len() {
            let row = &mut self.rows[self.order[rank]];
            row.first = self.wanted.len();
            let (spacing, golden) = (row.period / u64::from(row.launches), row.golden(rank));
            let offset = |t: u64| if tries == 1 { golden } else { spacing * t / tries };
            let lengths = row.first_length..row.first_length + row.launches as usize;
            self.placed_lengths.extend_from_slice(&self.lengths[lengths]);
            let mut best = (u64::MAX, 0);
            if rank > 0 && tries > 1 {
                for t in 0..tries {
                    self.place(rank, offset(t));
                    let delay = self.serial(rank + 1, cycle, capacity);
                    if delay < best.0 {
                        best = (delay, t);
                    }
                }
            }
            self.place(rank, offset(best.1));
        }
        self.serial(self.order.len(), cycle, capacity);
    }

    /// Lets the launches of the last placed course begin at `offset`.
    fn place(&mut self, rank: usize, offset: u64) {
        let row = &self.rows[self.order[rank]];
        self.wanted.truncate(row.first);
        self.wanted.extend(row.even(offset));
    }

    /// Executes the launches of the first `placed` courses in the order of their due times,
    /// `capacity` at a time, twice around the cycle. Notes where each launch begins in its period
    /// (the latest of its repetitions). Returns by how much all are late, longer launches, which more
    /// frames wait for, counting for more.
    fn serial(&mut self, placed: usize, cycle: u64, capacity: u32) -> u64 {
        let Timetable { rows, order, wanted, starts, due, free, .. } = self;
        due.clear();
        for row in order[..placed].iter().map(|i| &rows[*i]) {
            for turn in 0..2 * cycle / row.period {
                due.extend(row.places().map(|at| (turn * row.period + wanted[at], at as u32)));
            }
        }
        due.sort_unstable();
        free.clear();
        free.extend((0..capacity.max(1)).map(|_| Reverse(0)));
        let mut late = 0;
        starts.clone_from(wanted);
        for &(at, launch) in &*due {
            let Some(Reverse(idle)) = free.pop() else { break };
            let start = at.max(idle);
            let length = self.placed_lengths[launch as usize];
            free.push(Reverse(start + length));
            if at >= cycle {
                // The first turn only fills the device.
                late += (start - at) / 1000 * (length / 1000);
                let launch = launch as usize;
                starts[launch] = starts[launch].max(wanted[launch] + (start - at));
            }
        }
        for row in order[..placed].iter().map(|i| &rows[*i]) {
            starts[row.places()].iter_mut().for_each(|s| *s %= row.period);
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn resolve(courses: &[Course], capacity: u32) -> Vec<Vec<u64>> {
        let mut timetable = Timetable::default();
        courses.iter().for_each(|c| timetable.add(c));
        timetable.resolve(capacity);
        (0..courses.len()).map(|i| timetable.offsets(i).to_vec()).collect()
    }

    #[test]
    fn launches_of_two_models_do_not_meet() {
        let a = Course { period: 200 * MS, launches: 10, length: 8 * MS, lengths: vec![] };
        let b = Course { period: 200 * MS, launches: 10, length: 10 * MS, lengths: vec![] };
        let offsets = resolve(&[a.clone(), b.clone()], 1);
        let mut all: Vec<(u64, u64)> = Vec::new();
        for (course, offsets) in [a, b].iter().zip(&offsets) {
            assert_eq!(offsets.len(), 10);
            all.extend(offsets.iter().map(|o| (*o, course.length)));
        }
        all.sort_unstable();
        for pair in all.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{all:?}");
        }
    }

    #[test]
    fn a_device_with_two_tokens_takes_two_at_a_time() {
        let course = Course { period: 100 * MS, launches: 10, length: 9 * MS, lengths: vec![] };
        let offsets = resolve(&[course.clone(), course], 2);
        let spacing = |o: &[u64]| {
            let mut sorted = o.to_vec();
            sorted.sort_unstable();
            sorted.windows(2).map(|w| w[1] - w[0]).min()
        };
        assert_eq!(spacing(&offsets[0]), Some(10 * MS), "even");
        assert_eq!(spacing(&offsets[1]), Some(10 * MS), "even");
    }

    #[test]
    fn periods_that_never_meet_stay_even() {
        let a = Course { period: 200 * MS + 1, launches: 4, length: MS, lengths: vec![] };
        let b = Course { period: 333 * MS + 7, launches: 3, length: MS, lengths: vec![] };
        let offsets = resolve(&[a.clone(), b], 1);
        assert_eq!((offsets[0].len(), offsets[1].len()), (4, 3));
        assert!(offsets[0].iter().all(|o| *o < a.period));
        assert_eq!(resolve(&[], 1), Vec::<Vec<u64>>::new());
    }
}
