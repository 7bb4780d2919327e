//! What a recording says: sums, percentiles and the two costs of the least-squares fit.

use crate::recording::Recording;
use scheduler_sim::bare::Call;
use serde_json::{Value, json};

/// Times of a kind of call, nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    pub count: usize,
    pub total: f64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Times {
    pub fn of(mut times: Vec<f64>) -> Times {
        if times.is_empty() {
            return Times::default();
        }
        times.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        Times {
            count: times.len(),
            total: times.iter().sum(),
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        }
    }

    pub fn mean(&self) -> f64 {
        self.total / self.count.max(1) as f64
    }

    pub fn json(&self) -> Value {
        json!({
            "count": self.count, "total_ns": self.total, "mean_ns": self.mean(),
            "p50_ns": self.p50, "p99_ns": self.p99, "max_ns": self.max,
        })
    }
}

/// The median of some numbers.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What one setup cost. Times are of the shortest repetition of every single call, except `raw_*`.
pub struct Figures {
    pub per_call: Vec<(Call, Times)>,
    /// Polls that decided something.
    pub decisions: Times,
    /// Of these the launches alone: Prepare and Grant.
    pub launching: Times,
    /// All inputs of one instant and all polls up to the Wait.
    pub units: Times,
    pub launches: f64,
    pub members: f64,
    pub total_ns: f64,
    /// The same of each repetition as it was: sum, 99th percentile of a decision, longest decision.
    pub raw_total_ns: Vec<f64>,
    pub raw_p99_ns: f64,
    pub raw_max_ns: f64,
    /// The longest poll of each virtual second, nanoseconds: a replan shows here.
    pub longest_poll_of_second: Vec<f64>,
    pub seconds: f64,
    /// Cost of answers of the frame index that is part of the sums.
    pub index_ns: f64,
    pub desired: (f64, f64),
    pub reading_ns: f64,
}

fn times_of(recording: &Recording, times: &[f64], which: impl Fn(Call) -> bool) -> Vec<f64> {
    let pairs = recording.made.iter().zip(times);
    pairs.filter(|(m, _)| which(m.call)).map(|(_, t)| *t).collect()
}

impl Figures {
    pub fn of(recording: &Recording, index_ns_each: f64) -> Figures {
        let shortest = &recording.shortest;
        let of = |which: &dyn Fn(Call) -> bool| Times::of(times_of(recording, shortest, which));
        let mut units = Vec::new();
        let mut unit = 0.0;
        let mut longest: Vec<f64> = vec![0.0; recording.seconds.ceil() as usize];
        let begin = recording.made.first().map_or(0, |m| m.at);
        for (made, time) in recording.made.iter().zip(shortest) {
            unit += time;
            if made.call == Call::Wait {
                units.push(std::mem::take(&mut unit));
            }
            let second = ((made.at - begin) / 1_000_000_000) as usize;
            if (made.call.is_decision() || made.call == Call::Wait) && second < longest.len() {
                longest[second] = longest[second].max(*time);
            }
        }
        let raw: Vec<Times> = recording
            .raw
            .iter()
            .map(|times| Times::of(times_of(recording, times, Call::is_decision)))
            .collect();
        let launches = of(&|c| c == Call::Prepare).count as f64;
        let members = recording.made.iter().filter(|m| m.call == Call::Prepare);
        Figures {
            per_call: Call::ALL
                .iter()
                .map(|call| (*call, of(&|c| c == *call)))
                .filter(|(_, times)| times.count > 0)
                .collect(),
            decisions: of(&Call::is_decision),
            launching: of(&|c| matches!(c, Call::Prepare | Call::Grant)),
            units: Times::of(units),
            launches,
            members: members.map(|m| f64::from(m.members)).sum(),
            total_ns: shortest.iter().sum(),
            raw_total_ns: recording.raw.iter().map(|times| times.iter().sum()).collect(),
            raw_p99_ns: median(raw.iter().map(|t| t.p99).collect()),
            raw_max_ns: median(raw.iter().map(|t| t.max).collect()),
            longest_poll_of_second: longest,
            seconds: recording.seconds,
            index_ns: recording.answers as f64 * index_ns_each,
            desired: recording.desired,
            reading_ns: median(recording.reading_ns.clone()),
        }
    }

    pub fn json(&self) -> Value {
        let calls =
            self.per_call.iter().map(|(call, times)| (call.name().to_owned(), times.json()));
        json!({
            "calls": calls.collect::<serde_json::Map<_, _>>(),
            "decision": self.decisions.json(),
            "launching_poll": self.launching.json(),
            "unit": self.units.json(),
            "launches": self.launches,
            "sampled_frames": self.members,
            "total_ns": self.total_ns,
            "raw_total_ns": self.raw_total_ns,
            "raw_decision_p99_ns": self.raw_p99_ns,
            "raw_decision_max_ns": self.raw_max_ns,
            "longest_poll_of_each_second_ns": self.longest_poll_of_second,
            "clock_reading_ns": self.reading_ns,
            "virtual_seconds": self.seconds,
            "frame_index_ns": self.index_ns,
            "desired_from_nothing_ns": self.desired.0,
            "desired_unchanged_ns": self.desired.1,
        })
    }
}

/// cost = `launch_ns` x launches + `frame_ns` x sampled frames.
#[derive(Debug, Clone, Copy)]
pub struct Fit {
    pub launch_ns: f64,
    pub frame_ns: f64,
    /// Largest relative distance of a setup from the fitted plane.
    pub worst: f64,
}

impl Fit {
    /// Least squares of relative errors, so that no setup outweighs the others. Each point is
    /// launches, frames and cost of one setup; their frames per launch have to differ.
    pub fn of(points: &[(f64, f64, f64)]) -> Fit {
        let (mut aa, mut ab, mut bb, mut ay, mut by) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (launches, frames, cost) in points {
            let (a, b) = (launches / cost, frames / cost);
            aa += a * a;
            ab += a * b;
            bb += b * b;
            ay += a;
            by += b;
        }
        let determinant = aa * bb - ab * ab;
        let launch_ns = (ay * bb - by * ab) / determinant;
        let frame_ns = (by * aa - ay * ab) / determinant;
        let miss = |(launches, frames, cost): &(f64, f64, f64)| {
            ((launch_ns * launches + frame_ns * frames) / cost - 1.0).abs()
        };
        Fit { launch_ns, frame_ns, worst: points.iter().map(miss).fold(0.0, f64::max) }
    }

    pub fn json(&self) -> Value {
        json!({
            "launch_ns": self.launch_ns, "frame_ns": self.frame_ns, "worst_error": self.worst,
        })
    }
}
