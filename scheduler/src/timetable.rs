//! When the launches of a device begin: one cyclic timetable for all of its steered models.
//!
//! Each model wants `launches` per period, evenly spaced. A device executes one batch at a time, so
//! launches of different models that fall together are moved apart here, before they meet: the
//! cohorts are then formed around the moments at which launches really begin.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Launches that a timetable may hold (chosen: resolving them stays within a millisecond).
const LAUNCHES_MAX: u64 = 4096;
/// Offsets that are tried for a model (chosen).
const TRIES_MAX: u64 = 64;
/// Launches placed in all tries together (chosen: about two milliseconds).
const WORK_MAX: u64 = 100_000;
/// Longest cycle that is resolved, nanoseconds (chosen: rates of 5, 2 and 2.5 fps meet after 2 s).
const CYCLE_MAX: u64 = 10_000_000_000;

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

fn lcm(a: u64, b: u64) -> Option<u64> {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x.max(1)).checked_mul(b)
}

/// The offset of every launch of every course into its period, nanoseconds, launches of a course
/// in order of their even spacing. Courses whose periods never meet keep the even spacing.
pub fn resolve(courses: &[Course], capacity: u32) -> Vec<Vec<u64>> {
    let even = |c: &Course, offset: u64| -> Vec<u64> {
        let n = u64::from(c.launches);
        (0..n).map(|j| (offset + j * c.period / n) % c.period).collect()
    };
    let cycle = courses.iter().try_fold(1, |cycle, c| lcm(cycle, c.period));
    let cycle = cycle.filter(|c| (1..=CYCLE_MAX).contains(c));
    let launches: u64 = cycle.map_or(u64::MAX, |cycle| {
        courses.iter().map(|c| u64::from(c.launches) * (cycle / c.period)).sum()
    });
    let golden = |n: usize, c: &Course| {
        let share = crate::device::golden_share(n as u64);
        (share * c.period as f64 / f64::from(c.launches)) as u64
    };
    let Some(cycle) = cycle.filter(|_| launches <= LAUNCHES_MAX) else {
        return courses.iter().enumerate().map(|(n, c)| even(c, golden(n, c))).collect();
    };
    // The model that occupies the device longest comes first; each next one takes the offset at
    // which all so far wait least for each other.
    let mut order: Vec<usize> = (0..courses.len()).collect();
    order.sort_by_key(|&i| (Reverse(courses[i].length), i));
    let work = launches * courses.len() as u64;
    let tries = (WORK_MAX / work.max(1)).clamp(1, TRIES_MAX);
    let mut placed: Vec<(usize, Vec<u64>)> = Vec::with_capacity(courses.len());
    for (rank, &i) in order.iter().enumerate() {
        let course = &courses[i];
        let spacing = course.period / u64::from(course.launches);
        let offset = |t: u64| {
            if tries == 1 { golden(rank, course) } else { spacing * t / tries }
        };
        let mut best = (u64::MAX, 0);
        if rank > 0 && tries > 1 {
            for t in 0..tries {
                placed.push((i, even(course, offset(t))));
                let delay = serial(courses, &placed, cycle, capacity).1;
                placed.pop();
                if delay < best.0 {
                    best = (delay, t);
                }
            }
        }
        placed.push((i, even(course, offset(best.1))));
    }
    let (starts, _) = serial(courses, &placed, cycle, capacity);
    let mut offsets: Vec<Vec<u64>> = vec![Vec::new(); courses.len()];
    for ((i, _), starts) in placed.iter().zip(starts) {
        offsets[*i] = starts;
    }
    offsets
}

/// Executes the launches in the order of their due times, `capacity` at a time, twice around the
/// cycle. Returns where each launch of a course begins in its period (the latest of its
/// repetitions) and by how much all are late, longer launches, which more frames wait for, counting
/// for more.
fn serial(
    courses: &[Course],
    placed: &[(usize, Vec<u64>)],
    cycle: u64,
    capacity: u32,
) -> (Vec<Vec<u64>>, u64) {
    let mut due: Vec<(u64, usize, usize)> = Vec::new();
    for (at, (i, offsets)) in placed.iter().enumerate() {
        let period = courses[*i].period;
        for turn in 0..2 * cycle / period {
            due.extend(offsets.iter().enumerate().map(|(j, o)| (turn * period + o, at, j)));
        }
    }
    due.sort_unstable();
    let mut free: BinaryHeap<Reverse<u64>> = (0..capacity.max(1)).map(|_| Reverse(0)).collect();
    let mut late = 0;
    let mut starts: Vec<Vec<u64>> = placed.iter().map(|(_, o)| o.clone()).collect();
    for (at, course, launch) in due {
        let Some(Reverse(idle)) = free.pop() else { break };
        let start = at.max(idle);
        let length = courses[placed[course].0].length_of(launch);
        free.push(Reverse(start + length));
        if at >= cycle {
            // The first turn only fills the device.
            late += (start - at) / 1000 * (length / 1000);
            let here = &mut starts[course][launch];
            *here = (*here).max(placed[course].1[launch] + (start - at));
        }
    }
    for ((i, _), starts) in placed.iter().zip(&mut starts) {
        let period = courses[*i].period;
        starts.iter_mut().for_each(|s| *s %= period);
    }
    (starts, late)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

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
