//! What was recorded when: rows put together to ranges and gaps.

use super::index::{Row, RowFlags};
use base::UtcNanos;

/// A hole shorter than this is none (chosen: the longest that a fragment waits for a picture, so
/// that a late one tears no range apart).
pub const GAP: u64 = base::time::NANOS_PER_SEC;

/// Time without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Where it begins.
    pub start: UtcNanos,
    /// Where it ends.
    pub end: UtcNanos,
    /// Pictures in its fragments, also in those that reach beyond the window.
    pub frames: u64,
    /// Bytes, counted like pictures.
    pub bytes: u64,
}

/// Time without pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Where it begins.
    pub start: UtcNanos,
    /// Where it ends.
    pub end: UtcNanos,
}

/// Whether a player can go on from one fragment to the next as if nothing happened.
pub fn connected(before: &Row, after: &Row) -> bool {
    let media = after.start_media.0.abs_diff(before.start_media.0 + u64::from(before.duration));
    let utc = after.start_utc.0.abs_diff(before.end_utc().0);
    let ticks = GAP / (base::time::NANOS_PER_SEC / base::MediaTime::RATE);
    !after.flags.has(RowFlags::DISCONTINUITY) && media < ticks && utc < GAP
}

/// Ranges and gaps of `[start, end)`, from the rows of that window.
pub fn ranges(rows: &[Row], start: UtcNanos, end: UtcNanos) -> (Vec<Range>, Vec<Gap>) {
    let mut sorted: Vec<&Row> = rows.iter().collect();
    sorted.sort_by_key(|row| row.start_utc);
    let (mut ranges, mut gaps) = (Vec::<Range>::new(), Vec::new());
    for row in sorted {
        let (from, to) = (row.start_utc.max(start), row.end_utc().min(end));
        if from >= to {
            continue;
        }
        let (frames, bytes) = (u64::from(row.frames), u64::from(row.bytes));
        match ranges.last_mut() {
            Some(last) if from.0 < last.end.0.saturating_add(GAP) => {
                last.end = last.end.max(to);
                last.frames += frames;
                last.bytes += bytes;
            }
            _ => ranges.push(Range { start: from, end: to, frames, bytes }),
        }
    }
    let mut at = start;
    for range in &ranges {
        // The frame that begins a window may be the last one of a rounded duration before.
        if range.start > at && (at != start || range.start.0 - at.0 >= GAP) {
            gaps.push(Gap { start: at, end: range.start });
        }
        at = range.end;
    }
    if end.0.saturating_sub(at.0) >= GAP || (ranges.is_empty() && end > at) {
        gaps.push(Gap { start: at, end });
    }
    (ranges, gaps)
}
