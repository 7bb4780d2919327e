//! What a batch costs: the straight line through a measured table.

use crate::batch_size::paying_batch;
use crate::line;
use base::LatencyTable;

/// L(b) = alpha + beta b, in seconds, over the batch sizes that pay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Of a batch, whatever its size.
    pub alpha: f64,
    /// Of each member.
    pub beta: f64,
    /// Largest batch that pays: each step up to it lowers L(b)/b.
    pub batch_max: u32,
}

impl Cost {
    /// Least squares of the relative errors of the medians, both figures at least 0. `None` for an
    /// empty table.
    ///
    /// With one paying size all of it is `beta`: on a CPU a larger batch gains nothing.
    pub fn fit(table: &LatencyTable, engine_max: u32) -> Option<Cost> {
        let single = table.p50(1)?.as_secs_f64();
        let batch_max = paying_batch(table, engine_max);
        let one = Cost { alpha: 0.0, beta: single, batch_max };
        let points: Vec<(f64, f64)> = table
            .entries()
            .iter()
            .filter(|e| e.batch <= batch_max && !e.p50.is_zero())
            .map(|e| (f64::from(e.batch), e.p50.as_secs_f64()))
            .collect();
        if batch_max == 1 || points.len() < 2 {
            return Some(one);
        }
        let (alpha, beta) = line::through(points.into_iter())?;
        Some(Cost { alpha, beta, batch_max })
    }

    /// Seconds of execution per frame in batches of `batch`.
    pub fn per_frame(&self, batch: f64) -> f64 {
        self.alpha / batch + self.beta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::LatencyEntry;
    use std::time::Duration;

    fn table(entries: impl IntoIterator<Item = (u32, f64)>) -> LatencyTable {
        LatencyTable::new(entries.into_iter().map(|(batch, ms)| {
            let p50 = Duration::from_secs_f64(ms / 1e3);
            LatencyEntry { batch, p50, p99: p50 }
        }))
    }

    #[test]
    fn a_line_is_found_again() {
        // ResNet-50 on an A100: 1.63 + 0.30 b.
        let line = table([1, 2, 4, 8, 16, 32, 64].map(|b| (b, 1.63 + 0.30 * f64::from(b))));
        let cost = Cost::fit(&line, 64).unwrap();
        assert!((cost.alpha - 1.63e-3).abs() < 1e-6 && (cost.beta - 0.30e-3).abs() < 1e-7);
        assert_eq!(cost.batch_max, 64);
        assert!((cost.per_frame(8.0) - 0.50375e-3).abs() < 1e-6);
    }

    #[test]
    fn where_batches_gain_nothing_a_frame_costs_what_it_costs_alone() {
        let cpu = table([(1, 20.9), (2, 41.7), (4, 88.6), (8, 175.4)]);
        let cost = Cost::fit(&cpu, 8).unwrap();
        assert_eq!((cost.alpha, cost.batch_max), (0.0, 1));
        assert!((cost.beta - 20.9e-3).abs() < 1e-9);
        assert_eq!(Cost::fit(&LatencyTable::default(), 8), None);
    }

    #[test]
    fn noise_makes_no_negative_cost() {
        // Steeper than in proportion after a good second size.
        let cost = Cost::fit(&table([(1, 10.0), (2, 12.0), (3, 12.1)]), 3).unwrap();
        assert!(cost.alpha >= 0.0 && cost.beta >= 0.0, "{cost:?}");
        let cost = Cost::fit(&table([(1, 10.0), (4, 9.0)]), 4).unwrap();
        assert!(cost.alpha > 0.0 && cost.beta == 0.0, "{cost:?}");
    }
}
