//! Which batch sizes pay.

use base::LatencyTable;

/// Twice the batch must cost at least this much less per frame, or it only adds age (above what
/// the medians of a CPU without any gain differ by, and what is given up beyond stays below 3 %; none
/// and half fail tests with measured tables, twice: `overload+x3` answers 0.8 % fewer).
const GAIN_MIN: f64 = 0.015;

/// The largest batch worth launching: each step up from 1 must lower `L(b)/b` by 1.5 % per
/// doubling.
///
/// On a CPU `L(b)/b` is flat and the answer is 1; on a GPU it falls until the device is full.
/// Without a table the answer is 1.
pub fn paying_batch(table: &LatencyTable, engine_max: u32) -> u32 {
    let mut best = 1;
    let Some(single) = table.p50(1) else { return 1 };
    let mut best_cost = single.as_secs_f64();
    for entry in table.entries() {
        if entry.batch <= 1 || entry.batch > engine_max {
            continue;
        }
        let cost = entry.p50.as_secs_f64() / f64::from(entry.batch);
        let doublings = (f64::from(entry.batch) / f64::from(best)).log2();
        if cost < best_cost * (1.0 - GAIN_MIN).powf(doublings) {
            best = entry.batch;
            best_cost = cost;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::LatencyEntry;
    use std::time::Duration;

    fn table(entries: &[(u32, f64)]) -> LatencyTable {
        LatencyTable::new(entries.iter().map(|&(batch, ms)| {
            let p50 = Duration::from_secs_f64(ms / 1e3);
            LatencyEntry { batch, p50, p99: p50 }
        }))
    }

    #[test]
    fn a_cpu_that_gains_nothing_runs_single_frames() {
        // NanoDet-g on one thread, milliseconds per batch.
        let cpu = table(&[(1, 20.9), (2, 41.7), (4, 88.6), (8, 175.4), (16, 369.3)]);
        assert_eq!(paying_batch(&cpu, 16), 1);
    }

    #[test]
    fn a_gpu_batches_until_it_is_full() {
        // ResNet-50 on an A100: 1.63 + 0.30 b.
        let gpu: Vec<_> =
            [1, 2, 4, 8, 16, 32, 64].map(|b: u32| (b, 1.63 + 0.30 * f64::from(b))).to_vec();
        assert_eq!(paying_batch(&table(&gpu), 64), 64);
        assert_eq!(paying_batch(&table(&gpu), 8), 8);
        // The last step gains under 1 %.
        assert_eq!(paying_batch(&table(&[(1, 10.0), (2, 12.0), (4, 23.8)]), 4), 2);
        // YOLOv9-C on an RTX 4090, whose engine takes 12: the step from 8 is half a doubling.
        let yolo: Vec<_> = [1, 2, 4, 8, 12].map(|b: u32| (b, 0.47 + 0.76 * f64::from(b))).to_vec();
        assert_eq!(paying_batch(&table(&yolo), 12), 12);
    }

    #[test]
    fn without_a_table_batches_are_single() {
        assert_eq!(paying_batch(&LatencyTable::default(), 16), 1);
    }
}
