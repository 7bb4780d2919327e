//! Steering: which launch of the timetable each subscription's frames are taken for.
//!
//! A camera of `F` fps that is looked at `r` times per second leaves `n = F / r` frames to choose
//! from in each period `1 / r`. Each frame lands at another place of the period; the one that lands
//! just before a launch waits least. Who is taken at one launch is a cohort.

/// A subscription to place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steered {
    /// Where one of its camera's frames is expected in the period, nanoseconds, its guard added.
    pub arrival: u64,
    /// Its camera's frame period, nanoseconds.
    pub frame_period: u64,
    /// How far the expectation may be off, nanoseconds.
    pub doubt: u64,
    /// The launch it is taken at now.
    pub launch: Option<u32>,
}

impl Steered {
    /// How long its best frame waits for a launch at `offset`.
    fn wait(&self, offset: u64, period: u64) -> u64 {
        (offset + period - self.arrival % period) % self.frame_period.max(1)
    }
}

/// Who is taken at which launch. Its memory is used again.
#[derive(Debug, Default)]
pub struct Assignment {
    /// The launch of each subscription.
    pub placed: Vec<u32>,
    /// Subscriptions of each launch.
    pub crowd: Vec<u32>,
    /// Launches by where they stand within a frame period.
    order: Vec<(u64, u32)>,
    /// Who has to move: the launch that is best for it, and its place.
    rest: Vec<(usize, usize)>,
}

impl Assignment {
    /// Places every subscription at one of the launches, whose offsets into `period` are given. Who
    /// stands well stays: a move costs a frame.
    pub fn assign(&mut self, steered: &[Steered], offsets: &[u64], period: u64) {
        let Assignment { placed, crowd, order, rest } = self;
        let cohorts = offsets.len();
        placed.clear();
        crowd.clear();
        crowd.resize(cohorts, 0);
        if cohorts == 0 {
            return placed.resize(steered.len(), 0);
        }
        placed.resize(steered.len(), u32::MAX);
        let most = steered.len().div_ceil(cohorts).max(1) as u32;
        // One order per distinct frame period would be exact, cameras of one model mostly share it.
        let frame_period = steered.first().map_or(1, |s| s.frame_period.max(1));
        order.clear();
        order.extend(offsets.iter().zip(0..).map(|(o, j)| (o % frame_period, j)));
        order.sort_unstable();
        let best_of = |s: &Steered| {
            let within = (s.arrival % period) % frame_period;
            order.partition_point(|(phase, _)| *phase < within) % cohorts
        };
        rest.clear();
        for (i, s) in steered.iter().enumerate() {
            let best = best_of(s);
            if let Some(launch) = s.launch.filter(|l| (*l as usize) < cohorts) {
                let wait = s.wait(offsets[launch as usize], period);
                let least = s.wait(offsets[order[best].1 as usize], period);
                let slack = s.frame_period / cohorts as u64 + s.doubt;
                if wait <= least + slack && crowd[launch as usize] < most {
                    crowd[launch as usize] += 1;
                    placed[i] = launch;
                    continue;
                }
            }
            rest.push((best, i));
        }
        // The others in the order of their arrivals, each at the next launch that has room.
        rest.sort_unstable();
        for &(best, i) in &*rest {
            // There is room somewhere: the cohorts together hold more than all.
            let free = |at: &usize| crowd[order[at % cohorts].1 as usize] < most;
            let at = (best..best + cohorts).find(free).unwrap_or(best) % cohorts;
            let launch = order[at].1;
            crowd[launch as usize] += 1;
            placed[i] = launch;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn assign(steered: &[Steered], offsets: &[u64], period: u64) -> Vec<u32> {
        let mut assignment = Assignment::default();
        assignment.assign(steered, offsets, period);
        assignment.placed
    }

    /// Mean wait of `count` cameras at 25 fps, looked at every 200 ms, over evenly spaced launches.
    fn mean_wait_ms(count: u64, launches: u64) -> (f64, u32) {
        let period = 200 * MS;
        let steered: Vec<Steered> = (0..count)
            .map(|i| Steered {
                arrival: i * 7_919_777 % (40 * MS),
                frame_period: 40 * MS,
                doubt: 0,
                launch: None,
            })
            .collect();
        let offsets: Vec<u64> = (0..launches).map(|j| j * period / launches).collect();
        let placed = assign(&steered, &offsets, period);
        let mut crowd = vec![0; launches as usize];
        let mut wait = 0;
        for (s, launch) in steered.iter().zip(&placed) {
            crowd[*launch as usize] += 1;
            wait += s.wait(offsets[*launch as usize], period);
        }
        (wait as f64 / count as f64 / 1e6, *crowd.iter().max().unwrap())
    }

    #[test]
    fn the_wait_is_a_fraction_of_the_interval() {
        // 19 launches every 10.5 ms: half of a fifth of that, a little more for even crowds.
        let (wait, crowd) = mean_wait_ms(190, 19);
        assert!(wait < 1.6, "{wait}");
        assert!(crowd <= 12, "{crowd}");
        // A divisor of the five frames wastes it.
        let (wait, _) = mean_wait_ms(190, 20);
        assert!(wait > 4.0, "{wait}");
    }

    #[test]
    fn who_stands_well_stays() {
        let period = 200 * MS;
        let offsets: Vec<u64> = (0..7).map(|j| j * period / 7).collect();
        let steered: Vec<Steered> = (0..70)
            .map(|i| Steered {
                arrival: i * 7_919_777 % (40 * MS),
                frame_period: 40 * MS,
                doubt: 0,
                launch: None,
            })
            .collect();
        let first = assign(&steered, &offsets, period);
        let moved: Vec<Steered> = steered
            .iter()
            .zip(&first)
            .map(|(s, l)| Steered { arrival: s.arrival + MS / 2, launch: Some(*l), ..*s })
            .collect();
        let second = assign(&moved, &offsets, period);
        let stayed = first.iter().zip(&second).filter(|(a, b)| a == b).count();
        assert!(stayed >= 60, "{stayed}");
        assert_eq!(assign(&steered, &[], period).len(), 70);
    }
}
