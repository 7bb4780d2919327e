//! L(b) as it is now: the announced table, corrected by what batches really took.
//!
//! The table is a promise that only a measurement changes; what is seen since is kept beside it, as
//! ratios to it.

use base::LatencyTable;
use plan::line;
use std::time::Duration;

/// Executions whose median corrects a batch size (with noise of 5 % it is 1 % off; 16:
/// `s3+noisy` p99 +3 %; 5: `s4+noisy` p99 +5 %; 62: the same).
const MEDIAN_OF: usize = 31;
/// Once there are enough, the median is taken anew after so many (each time: the simulator takes 8 %
/// more CPU time; 2 and 8: the same ages).
const MEDIAN_EVERY: u32 = 4;
/// Fewer than these have no median worth using (1: `s3+noisy` p99 +9 %; 10: within the
/// noise).
const MEDIAN_MIN: usize = 5;
/// Executions whose largest bounds the next one (Clockwork takes 10; 1 % outliers need 100).
const LARGEST_OF: usize = 128;
/// Of those, as many as may be longer than usual (4 %: noise of 5 % is 9 % there; 1:
/// mean of one overloaded model with noise +5 to +7 %; 10: within the noise).
const UNUSUAL: usize = 5;
/// Share by which the longest of earlier executions fades per execution: what happens once in a
/// hundred loses 1 % between two (at once: mean of one overloaded model with noise +6 to +9 %, late results
/// +0.05 to +0.21 %; half, twice, never: within the noise).
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
    /// The size of each of them.
    recent_sizes: Box<[u16; LARGEST_OF]>,
    recorded: usize,
    largest: f32,
    /// What is known of the sizes from 0 on, made anew when a correction changes: decisions ask far
    /// more often.
    sizes: Vec<Latency>,
    /// All but few of the recent ones are below.
    usual: f32,
    /// The largest ever, fading, and its size.
    rare: f32,
    rare_size: u16,
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
        let median = self.median(filled);
        if (median / self.factor - 1.0).abs() > HYSTERESIS {
            self.factor = median;
        }
    }

    fn median(&self, filled: usize) -> f64 {
        let mut sorted = self.samples;
        let (_, median, _) = sorted[..filled].select_nth_unstable_by(filled / 2, f32::total_cmp);
        f64::from(*median)
    }

    /// The promise is `scale` times what it was: so are the ratios to it.
    fn rescale(&mut self, scale: f64) {
        self.samples.iter_mut().for_each(|ratio| *ratio = (f64::from(*ratio) / scale) as f32);
        if self.known() {
            self.factor /= scale;
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
            recent_sizes: Box::new([0; LARGEST_OF]),
            recorded: 0,
            largest: 0.0,
            sizes: Vec::new(),
            usual: 0.0,
            rare: 0.0,
            rare_size: 0,
        };
        watch.refresh();
        watch
    }

    /// The table as the runner announced it.
    pub fn announced(&self) -> &LatencyTable {
        &self.announced
    }

    /// Takes a new table. How long executions took stays known: it is seen against the new one.
    pub fn announce(&mut self, table: LatencyTable) {
        let seen = std::mem::replace(self, LatencyWatch::new(table));
        let scale = |batch: u32| {
            let (old, new) = (seen.announced.p50(batch)?, self.announced.p50(batch)?);
            let scale = new.as_secs_f64() / old.as_secs_f64();
            (scale.is_finite() && scale > 0.0).then_some(scale)
        };
        let mut recent = seen.recent;
        let mut kept = seen.recorded;
        for (ratio, size) in recent.iter_mut().zip(seen.recent_sizes.iter()).take(kept) {
            match scale(u32::from(*size)) {
                Some(scale) => *ratio = (f64::from(*ratio) / scale) as f32,
                // One of the tables is empty: nothing of it can be compared.
                None => kept = 0,
            }
        }
        let rare = scale(u32::from(seen.rare_size)).map(|scale| f64::from(seen.rare) / scale);
        let scales = std::array::from_fn::<_, CLASSES, _>(|class| scale(1 << class));
        if kept == 0 {
            return;
        }
        self.classes = seen.classes;
        for (class, scale) in self.classes.iter_mut().zip(scales) {
            scale.into_iter().for_each(|scale| class.rescale(scale));
        }
        self.recent = recent;
        self.recent_sizes = seen.recent_sizes;
        self.recorded = kept;
        self.rare = rare.unwrap_or(0.0) as f32;
        self.rare_size = seen.rare_size;
        self.largest = self.recent.iter().copied().fold(0.0, f32::max);
        self.usual = self.usual_ratio();
        // The last of them, whatever their sizes.
        self.all.count = seen.all.count;
        let filled = kept.min(MEDIAN_OF);
        for back in 0..filled {
            let place = (seen.all.count as usize - 1 - back) % MEDIAN_OF;
            self.all.samples[place] = self.recent[(kept - 1 - back) % LARGEST_OF];
        }
        if self.all.known() {
            self.all.factor = self.all.median(filled);
        }
        self.refresh();
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
        self.recent_sizes[place] = batch.min(u32::from(u16::MAX)) as u16;
        self.recorded += 1;
        if ratio >= self.largest {
            self.largest = ratio;
        } else if replaced >= self.largest {
            self.largest = self.recent.iter().copied().fold(0.0, f32::max);
        }
        self.rare -= self.rare * RARE_FADE;
        if ratio >= self.rare {
            (self.rare, self.rare_size) = (ratio, self.recent_sizes[place]);
        }
        if self.recorded.is_multiple_of(UNUSUAL) {
            self.usual = self.usual_ratio();
        }
        if self.corrections(batch) != before {
            self.refresh();
        }
    }

    fn usual_ratio(&self) -> f32 {
        let mut sorted = *self.recent;
        *sorted.select_nth_unstable_by(LARGEST_OF - UNUSUAL, f32::total_cmp).1
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
    fn a_new_promise_keeps_what_executions_took() {
        let times = |watch: &LatencyWatch, b| {
            [watch.p50(b), watch.p99(b), watch.usual(b), watch.rare(b)].map(ms)
        };
        let scaled = |scale: f64| {
            LatencyTable::new(table().entries().iter().map(|e| LatencyEntry {
                batch: e.batch,
                p50: e.p50.mul_f64(scale),
                p99: e.p99.mul_f64(scale),
            }))
        };
        let mut watch = LatencyWatch::new(table());
        for i in 0..3 * LARGEST_OF {
            let (batch, took) = if i.is_multiple_of(2) { (8, 8_400) } else { (1, 2_800) };
            let times = if i == LARGEST_OF + 1 { 4 } else { 3 };
            watch.record(batch, Duration::from_micros(took * times));
        }
        let (before, line) = (times(&watch, 8), watch.line().unwrap());
        assert!((before[0] - 25.2).abs() < 0.01, "{before:?}");
        // Measured while it is as slow: it promises what it takes, and is no faster for it.
        watch.announce(scaled(3.0));
        let after = times(&watch, 8);
        for (a, b) in before.iter().zip(after) {
            assert!((a - b).abs() < 0.01 * a, "{before:?} {after:?}");
        }
        assert!((watch.factor(8) - 1.0).abs() < 0.01 && (watch.factor(1) - 1.0).abs() < 0.01);
        let again = watch.line().unwrap();
        assert!((line.0 - again.0).abs() < 1e-5 && (line.1 - again.1).abs() < 1e-5);
        // It is as fast as ever: three executions do not make it so, as many as it takes do.
        watch.announce(scaled(1.0));
        assert!((watch.factor(8) - 3.0).abs() < 0.03);
        for _ in 0..LARGEST_OF {
            watch.record(8, Duration::from_micros(8_400));
        }
        assert!((ms(watch.p99(8)) - 8.4).abs() < 0.01 && (ms(watch.p50(8)) - 8.4).abs() < 0.01);
        // Of a table that is empty nothing is known.
        watch.announce(LatencyTable::default());
        watch.announce(table());
        assert_eq!(watch.factor(8), 1.0);
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
