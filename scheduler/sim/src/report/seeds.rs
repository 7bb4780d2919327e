//! The same world with several seeds: one lucky run says nothing.

use super::{RunReport, windows};
use crate::workload::Workload;
use serde::Serialize;
use std::fmt::Write;

/// Median and range of a figure over the seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Of an even number the mean of the middle two.
    pub median: f64,
    /// Smallest.
    pub least: f64,
    /// Largest.
    pub most: f64,
}

impl Spread {
    /// Of at least one figure.
    pub fn of(mut figures: Vec<f64>) -> Spread {
        figures.sort_unstable_by(f64::total_cmp);
        let (count, last) = (figures.len(), figures.len() - 1);
        let median = f64::midpoint(figures[last / 2], figures[count / 2]);
        Spread { median, least: figures[0], most: figures[last] }
    }
}

/// A workload under one policy with several seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Seeds {
    /// Name of the policy.
    pub policy: String,
    /// One report for each seed, in the order of the seeds.
    pub runs: Vec<RunReport>,
}

/// A column: its head, decimals and the figure of a run.
type Column = (&'static str, usize, fn(&RunReport) -> f64);

const COLUMNS: [Column; 6] = [
    ("mean", 1, |r| r.age_mean_ms),
    ("p99", 1, |r| r.age_p99_ms),
    ("in time/s", 1, |r| r.goodput),
    ("late %", 2, |r| r.late_share * 100.0),
    ("busy %", 1, |r| r.device_busy * 100.0),
    ("min share", 3, |r| r.share_min),
];

impl Seeds {
    /// Runs a workload once for each of `seeds`. `None` for an unknown policy.
    pub fn run(workload: &Workload, seeds: &[u64], policy: &str) -> Option<Seeds> {
        let run = |seed: &u64| {
            let mut reports = windows(workload, *seed, policy, &[workload.warm_up_s])?;
            Some(reports.remove(0))
        };
        let runs = seeds.iter().map(run).collect::<Option<_>>()?;
        Some(Seeds { policy: policy.to_owned(), runs })
    }

    /// A figure of each run.
    pub fn spread(&self, figure: impl Fn(&RunReport) -> f64) -> Spread {
        Spread::of(self.runs.iter().map(figure).collect())
    }

    /// Median and range of each figure, a row for each policy.
    pub fn table(rows: &[Seeds]) -> String {
        let mut text = format!("{:<16}", "policy");
        for (head, ..) in COLUMNS {
            _ = write!(text, "{head:>24}");
        }
        for row in rows {
            _ = write!(text, "\n{:<16}", row.policy);
            for (_, decimals, figure) in COLUMNS {
                let Spread { median, least, most } = row.spread(figure);
                let cell = format!("{median:.decimals$} ({least:.decimals$} to {most:.decimals$})");
                _ = write!(text, "{cell:>24}");
            }
        }
        text + "\n"
    }
}
