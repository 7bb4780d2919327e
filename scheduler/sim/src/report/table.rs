//! A comparison as a table for people.

use super::Comparison;
use std::fmt::Write;

/// Columns of the table: head, least width, content.
const COLUMNS: [&str; 17] = [
    "policy",
    "mean",
    "p50",
    "p99",
    "max",
    "in time/s",
    "late %",
    "busy %",
    "batch",
    "fill %",
    "Jain",
    "min share",
    "at ceiling",
    "xB2",
    "p99/B3",
    "of B6 %",
    "streams",
];

fn optional(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".into(), |v| format!("{v:.decimals$}"))
}

impl Comparison {
    /// The rows of the table, without its head.
    pub fn cells(&self) -> Vec<Vec<String>> {
        let row = |r: &super::RunReport| {
            vec![
                r.policy.clone(),
                format!("{:.1}", r.age_mean_ms),
                format!("{:.1}", r.age_p50_ms),
                format!("{:.1}", r.age_p99_ms),
                format!("{:.1}", r.age_max_ms),
                format!("{:.1}", r.goodput),
                format!("{:.2}", r.late_share * 100.0),
                format!("{:.1}", r.device_busy * 100.0),
                format!("{:.2}", r.batch_mean),
                optional(r.batch_fill.map(|f| f * 100.0), 0),
                optional(r.jain, 3),
                format!("{:.3}", r.share_min),
                optional(r.share_min_at_ceiling, 3),
                optional(r.over_b2, 3),
                optional(r.over_b3, 3),
                optional(r.over_b6.map(|b| b * 100.0), 1),
                optional(r.streams, 0),
            ]
        };
        self.rows.iter().map(row).collect()
    }

    /// Heads of the columns.
    pub fn heads() -> &'static [&'static str] {
        &COLUMNS
    }

    /// The bounds in a line, empty when there are none.
    pub fn bounds_line(&self) -> String {
        let Some(b) = &self.bounds else {
            return "no bounds: the world does not become steady".into();
        };
        format!(
            "rho {:.3}  B1 {:.2}  B2 {} (bare {}, with the token's way {})  B3 {}  B4 {} ms  B6 {:.1}/s  \
             theta {}",
            b.rho,
            b.b1_ms,
            optional(b.b2_ms, 2),
            optional(b.b2_bare_ms, 2),
            optional(b.b2_token_ms, 2),
            optional(b.b3_ms, 2),
            optional(b.b4_cycle_ms, 2),
            b.b6_per_s,
            optional(b.theta, 3),
        )
    }

    /// Head, bounds, a row for each policy, and the models of the first policy where there are
    /// several (the JSON has those of all).
    pub fn table(&self) -> String {
        let mut text = format!(
            "{}: {}\n  seed {}, {} s after {} s\n  {}\n",
            self.workload,
            self.description,
            self.seed,
            self.seconds,
            self.warm_up_s,
            self.bounds_line()
        );
        let mut lines = vec![COLUMNS.iter().map(ToString::to_string).collect::<Vec<_>>()];
        lines.extend(self.cells());
        // A column in which no policy has anything is left out.
        let shown: Vec<usize> =
            (0..COLUMNS.len()).filter(|c| lines[1..].iter().any(|l| l[*c] != "-")).collect();
        let width = |c: usize| lines.iter().map(|l| l[c].chars().count()).max().unwrap_or(0);
        for line in &lines {
            text += " ";
            for &c in &shown {
                let width = width(c);
                let _ = match c {
                    0 => write!(text, " {:<width$}", line[c]),
                    _ => write!(text, "  {:>width$}", line[c]),
                };
            }
            text += "\n";
        }
        if self.rows.iter().any(|row| row.models.len() > 1) {
            text += &self.models_table();
        }
        for row in &self.rows {
            for violation in &row.violations {
                let _ = writeln!(text, "  VIOLATION of {}: {violation}", row.policy);
            }
        }
        text
    }

    fn models_table(&self) -> String {
        let mut text = String::new();
        // The rows of the production policy differ little here.
        if let Some(row) = self.rows.first() {
            for (name, m) in &row.models {
                let _ = write!(
                    text,
                    "  {} {name}{}: {:.1} results/s  age mean {:.1}  p99 {:.1}  max {:.1} ms  batch {:.2}",
                    row.policy,
                    if m.faulty { " (faulty)" } else { "" },
                    m.results_per_s,
                    m.age_mean_ms,
                    m.age_p99_ms,
                    m.age_max_ms,
                    m.batch_mean
                );
                let of = |bounds: &Option<crate::bounds::Bounds>| {
                    bounds.as_ref().and_then(|b| b.models.get(name).cloned())
                };
                if let Some(bound) = of(&self.bounds) {
                    let b3 = optional(bound.b3_ms, 1);
                    let planned = bound.batch_planned;
                    let _ = write!(text, " of {planned:.2}  B3 {b3}  B_m {:.1}", bound.blocking_ms);
                }
                if let Some(bound) = of(&self.beside_bounds) {
                    let _ = write!(text, "  B_m {:.1}", bound.blocking_ms);
                }
                if let (Some(p99), Some(max)) = (m.p99_rise_ms, m.max_rise_ms) {
                    let beside = self.beside.as_deref().unwrap_or_default();
                    let _ = write!(text, "  beside {beside}: p99 {p99:+.1}  max {max:+.1} ms");
                }
                text += "\n";
            }
        }
        text
    }
}
