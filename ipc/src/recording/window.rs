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
    join(pieces(rows, start, end), start, end)
}

/// The time without a gap in rows, as far as it lies in `[start, end)`.
pub(super) fn pieces(rows: &[Row], start: UtcNanos, end: UtcNanos) -> Vec<Range> {
    let of_row = |row: &Row| {
        let (from, to) = (row.start_utc.max(start), row.end_utc().min(end));
        let (frames, bytes) = (u64::from(row.frames), u64::from(row.bytes));
        (from < to).then_some(Range { start: from, end: to, frames, bytes })
    };
    joined(rows.iter().filter_map(of_row).collect())
}

/// Pieces with no more than a hole between them become one.
fn joined(mut pieces: Vec<Range>) -> Vec<Range> {
    pieces.sort_by_key(|piece| piece.start);
    let mut ranges: Vec<Range> = Vec::new();
    for piece in pieces {
        match ranges.last_mut() {
            Some(last) if piece.start.0 < last.end.0.saturating_add(GAP) => {
                last.end = last.end.max(piece.end);
                last.frames += piece.frames;
                last.bytes += piece.bytes;
            }
            _ => ranges.push(piece),
        }
    }
    ranges
}

/// Ranges and gaps of `[start, end)` from pieces of it.
pub(super) fn join(pieces: Vec<Range>, start: UtcNanos, end: UtcNanos) -> (Vec<Range>, Vec<Gap>) {
    let ranges = joined(pieces);
    let mut gaps = Vec::new();
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
