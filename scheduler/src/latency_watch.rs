//! L(b) as it is now: the announced table, corrected by what batches really took.

use crate::line;
use base::LatencyTable;
use std::time::Duration;

/// Executions whose median corrects a batch size (chosen: with noise of 5 % it is 1 % off).
const MEDIAN_OF: usize = 31;
/// Once there are enough, the median is taken anew after so many (chosen: it costs more than all
/// else that is done with an execution).
const MEDIAN_EVERY: u32 = 4;
/// Fewer than these have no median worth using (chosen).
const MEDIAN_MIN: usize = 5;
/// Executions whose largest bounds the next one (Clockwork takes 10; 1 % outliers need 100).
const LARGEST_OF: usize = 128;
/// Of those, as many as may be longer than usual (chosen: 4 %; noise of 5 % is 9 % there).
const UNUSUAL: usize = 5;
/// Share by which the longest of earlier executions fades per execution (chosen: what happens once
/// in a hundred loses 1 % between two).
const RARE_FADE: f32 = 1.0 / 8192.0;
/// Corrections smaller than this are noise and change nothing.
const HYSTERESIS: f64 = 0.05;
/// Sizes beyond are reckoned when they are asked for.
const SIZES_MAX: u32 = 256;
/// Sizes 1, 2..3, 4..7, ... 256 are watched apart.
const CLASSES: usize = 9;

/// Watches the executions of one runner.
#[derive(Debug)]
pub(crate) struct LatencyWatch {
    /// What the runner announced.
    announced: LatencyTable,
    announced_line: Option<(f64, f64)>,
    /// Real over announced time, by class of size.
    classes: [Class; CLASSES],
    /// The same over all sizes, for classes without samples.
    all: Class,
    recent: Box<[f32; LARGEST_OF]>,
    recorded: usize,
    largest: f32,
    /// What is known of the sizes from 0 on, made anew when a correction changes: decisions ask far
    /// more often.
    sizes: Vec<Latency>,
    /// All but few of the recent ones are below.
    usual: f32,
    /// The largest ever, fading.
    rare: f32,
}

/// What a batch of one size takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub announced_p50: Duration,
    pub announced_p99: Duration,
    /// Median now: what planning uses.
    pub p50: Duration,
    /// 99th percentile now: what feasibility uses. The announced one until enough was seen.
    pub p99: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Class {
    samples: [f32; MEDIAN_OF],
    count: u32,
    /// In use: the median when it last moved by more than the hysteresis.
    factor: f64,
}

impl Class {
    const NEW: Class = Class { samples: [0.0; MEDIAN_OF], count: 0, factor: 1.0 };

    fn record(&mut self, ratio: f32) {
        self.samples[self.count as usize % MEDIAN_OF] = ratio;
        self.count = self.count.saturating_add(1);
        let filled = (self.count as usize).min(MEDIAN_OF);
        if filled < MEDIAN_MIN || (filled == MEDIAN_OF && !self.count.is_multiple_of(MEDIAN_EVERY))
        {
            return;
        }
        let mut sorted = self.samples;
        let (_, median, _) = sorted[..filled].select_nth_unstable_by(filled / 2, f32::total_cmp);
        let median = f64::from(*median);
        if (median / self.factor - 1.0).abs() > HYSTERESIS {
            self.factor = median;
        }
    }

    fn known(&self) -> bool {
        self.count as usize >= MEDIAN_MIN
    }
}

fn class_of(batch: u32) -> usize {
    (batch.max(1).ilog2() as usize).min(CLASSES - 1)
}

impl LatencyWatch {
    pub fn new(announced: LatencyTable) -> LatencyWatch {
        let points = announced.entries().iter();
        let points = points.map(|e| (f64::from(e.batch), e.p50.as_secs_f64()));
        let mut watch = LatencyWatch {
            announced_line: line::through(points),
            announced,
            classes: [Class::NEW; CLASSES],
            all: Class::NEW,
            recent: Box::new([0.0; LARGEST_OF]),
            recorded: 0,
            largest: 0.0,
            sizes: Vec::new(),
            usual: 0.0,
            rare: 0.0,
        };
        watch.refresh();
        watch
    }

    /// The table as the runner announced it.
    pub fn announced(&self) -> &LatencyTable {
        &self.announced
    }

    /// Takes a new table; what was seen of the old one is forgotten.
    pub fn announce(&mut self, table: LatencyTable) {
        *self = LatencyWatch::new(table);
    }

    /// A batch took this long.
    pub fn record(&mut self, batch: u32, took: Duration) {
        let expected = self.at(batch).map(|l| l.announced_p50);
        let Some(expected) = expected.filter(|e| !e.is_zero()) else { return };
        let ratio = (took.as_secs_f64() / expected.as_secs_f64()) as f32;
        let before = self.corrections(batch);
        self.classes[class_of(batch)].record(ratio);
        self.all.record(ratio);
        let place = self.recorded % LARGEST_OF;
        let replaced = self.recent[place];
        self.recent[place] = ratio;
        self.recorded += 1;
        if ratio >= self.largest {
            self.largest = ratio;
        } else if replaced >= self.largest {
            self.largest = self.recent.iter().copied().fold(0.0, f32::max);
        }
        self.rare = ratio.max(self.rare - self.rare * RARE_FADE);
        if self.recorded.is_multiple_of(UNUSUAL) {
            let mut sorted = *self.recent;
            let at = LARGEST_OF - UNUSUAL;
            self.usual = *sorted.select_nth_unstable_by(at, f32::total_cmp).1;
        }
        if self.corrections(batch) != before {
            self.refresh();
        }
    }

    /// All that a record of this size may change of [`Latency`].
    fn corrections(&self, batch: u32) -> (bool, f64, f64, bool, f32) {
        let class = &self.classes[class_of(batch)];
        (class.known(), class.factor, self.all.factor, self.enough(), self.largest)
    }

    fn refresh(&mut self) {
        let mut sizes = std::mem::take(&mut self.sizes);
        sizes.clear();
        let last = self.announced.batch_max().min(SIZES_MAX);
        sizes.extend((0..=last).map_while(|batch| self.reckon(batch)));
        self.sizes = sizes;
    }

    fn reckon(&self, batch: u32) -> Option<Latency> {
        let announced_p50 = self.announced.p50(batch)?;
        let announced_p99 = self.announced.p99(batch)?;
        let factor = self.factor(batch);
        let p50 = if factor == 1.0 { announced_p50 } else { announced_p50.mul_f64(factor) };
        let seen = announced_p50.mul_f64(f64::from(self.largest));
        let p99 = if self.enough() { seen } else { announced_p99.max(seen) };
        Some(Latency { announced_p50, announced_p99, p50, p99 })
    }

    /// Whether the largest execution seen stands for the 99th percentile.
    fn enough(&self) -> bool {
        self.recorded >= LARGEST_OF / 4
    }

    /// What a batch of this size takes. `None` = nothing was ever measured.
    pub fn at(&self, batch: u32) -> Option<Latency> {
        self.sizes.get(batch as usize).copied().or_else(|| self.reckon(batch))
    }

    /// How much longer than announced a batch of this size takes now.
    pub fn factor(&self, batch: u32) -> f64 {
        let class = &self.classes[class_of(batch)];
        if class.known() { class.factor } else { self.all.factor }
    }

    /// Median now. `None` = nothing was ever measured.
    pub fn p50(&self, batch: u32) -> Option<Duration> {
        self.at(batch).map(|latency| latency.p50)
    }

    /// The shortest that a batch may be hoped to take.
    pub fn least(&self, batch: u32) -> Duration {
        self.at(batch).map_or(Duration::ZERO, |latency| latency.announced_p50.min(latency.p50))
    }

    /// 99th percentile now.
    pub fn p99(&self, batch: u32) -> Option<Duration> {
        self.at(batch).map(|latency| latency.p99)
    }

    /// What nearly all executions stay below. The same as [`LatencyWatch::p99`] until enough was seen.
    pub fn usual(&self, batch: u32) -> Option<Duration> {
        let longest = self.p99(batch)?;
        if self.recorded < LARGEST_OF {
            return Some(longest);
        }
        Some(self.announced.p50(batch)?.mul_f64(f64::from(self.usual)).min(longest))
    }

    /// What even the rare long ones stayed below that are not among the recent ones.
    pub fn rare(&self, batch: u32) -> Option<Duration> {
        let seen = self.announced.p50(batch)?.mul_f64(f64::from(self.rare));
        Some(seen.max(self.p99(batch)?))
    }

    /// `L(b) = alpha + beta b` as it is now, seconds. One factor corrects both figures: sizes apart
    /// would tilt the line with their noise.
    pub fn line(&self) -> Option<(f64, f64)> {
        let factor = self.all.factor;
        self.announced_line.map(|(alpha, beta)| (alpha * factor, beta * factor))
    }

    /// The same as the table was announced.
    pub fn announced_line(&self) -> Option<(f64, f64)> {
        self.announced_line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::LatencyEntry;

    fn table() -> LatencyTable {
        LatencyTable::new([1, 2, 4, 8, 16].map(|batch| {
            let p50 = Duration::from_micros(2_000 + 800 * u64::from(batch));
            LatencyEntry { batch, p50, p99: p50.mul_f64(1.1) }
        }))
    }

    fn ms(d: Option<Duration>) -> f64 {
        d.unwrap().as_secs_f64() * 1e3
    }

    #[test]
    fn the_line_fits_the_table() {
        let watch = LatencyWatch::new(table());
        let (alpha, beta) = watch.line().unwrap();
        assert!((alpha - 2e-3).abs() < 1e-6 && (beta - 0.8e-3).abs() < 1e-6, "{alpha} {beta}");
        assert_eq!(LatencyWatch::new(LatencyTable::default()).line(), None);
    }

    #[test]
    fn a_slower_runner_is_noticed_and_a_spike_is_not_the_median() {
        let mut watch = LatencyWatch::new(table());
        for _ in 0..10 {
            watch.record(8, Duration::from_micros(8_400));
        }
        watch.record(8, Duration::from_micros(16_800));
        assert!((ms(watch.p50(8)) - 8.4).abs() < 1e-9, "{:?}", watch.p50(8));
        assert!((ms(watch.p99(8)) - 16.8).abs() < 1e-3, "{:?}", watch.p99(8));
        for _ in 0..31 {
            watch.record(8, Duration::from_micros(25_200));
        }
        assert!((ms(watch.p50(8)) - 25.2).abs() < 0.01);
        // A size that was never run is as slow as the others.
        assert!((ms(watch.p50(1)) - 8.4).abs() < 0.01);
        assert!(watch.line().unwrap().1 > 2e-3);
    }

    #[test]
    fn the_usual_leaves_out_what_the_rare_remembers() {
        let mut watch = LatencyWatch::new(table());
        for i in 0..3 * LARGEST_OF {
            let twice = i % LARGEST_OF == 5;
            watch.record(8, Duration::from_micros(if twice { 16_800 } else { 8_400 }));
        }
        assert!((ms(watch.usual(8)) - 8.4).abs() < 1e-3, "{:?}", watch.usual(8));
        for _ in 0..LARGEST_OF {
            watch.record(8, Duration::from_micros(8_400));
        }
        assert!((ms(watch.p99(8)) - 8.4).abs() < 1e-3, "{:?}", watch.p99(8));
        assert!((15.5..16.8).contains(&ms(watch.rare(8))), "{:?}", watch.rare(8));
    }

    #[test]
    fn small_changes_are_no_news_and_old_ones_are_forgotten() {
        let mut watch = LatencyWatch::new(table());
        for _ in 0..20 {
            watch.record(4, Duration::from_micros(5_300));
        }
        assert!((ms(watch.p50(4)) - 5.2).abs() < 1e-9, "2 % is noise");
        watch.record(4, Duration::from_millis(50));
        for _ in 0..LARGEST_OF {
            watch.record(4, Duration::from_micros(5_200));
        }
        assert!((ms(watch.p99(4)) - 5.2).abs() < 1e-3, "{:?}", watch.p99(4));
    }
}
