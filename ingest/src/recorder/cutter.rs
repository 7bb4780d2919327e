//! Access units to fragments: where to cut, what time pictures have, when a segment is full. Pure.
//!
//! Times. A picture's place is its media time. Decoding times are the media times of a fragment in
//! rising order, earlier by the longest that a picture waits for others (zero without B-frames), so
//! that composition offsets are exact and, as players want them, not negative. UTC follows the arrival: a fragment's start is where the media times of its
//! pictures lie on average behind their arrival, smoothed, so that one late picture moves nothing and
//! a camera whose clock runs at another speed is followed.

use crate::mp4::fragmented::Sample;
use crate::mp4::sample_entry::{EntryError, SampleEntry, write_sample};
use crate::unit::{AccessUnit, UnitFlags};
use base::time::NANOS_PER_SEC;
use base::{Instant, MediaTime, UtcNanos};
use ipc::recording::{Day, GAP};
use std::sync::Arc;
use std::time::Duration;

/// A fragment that has this much ends before the next picture that may begin one (chosen: with the
/// polling of the inbox it is on the disk within a second of the arrival of its first picture).
const FRAGMENT: Duration = Duration::from_millis(500);
/// The same when no next picture comes.
const FRAGMENT_WAIT: Duration = Duration::from_millis(800);
/// A fragment with so many bytes ends (chosen: bounds memory).
const FRAGMENT_BYTES: usize = 8 << 20;
/// A segment ends before the first key picture after this time (spec V8: segments of 6 s; whole
/// groups of pictures, few files, and little behind the last fdatasync when the power fails).
pub const SEGMENT: Duration = Duration::from_secs(6);
/// A segment ends before this many bytes, key picture or not, and the rest waits for one (offsets in
/// the index are 32 bits).
const SEGMENT_BYTES: u64 = 1 << 30;
/// A picture that is not next to the one before by more than this is on another line of time.
const JUMP: u64 = 10 * MediaTime::RATE;
/// Between two pictures while nothing better is known: 25 per second.
const STEP_DEFAULT: u32 = 3600;
/// Arrival that is off the line by more than this moves it there at once (chosen: below the tenth of
/// a second that playback may be off).
const SNAP: i64 = 50_000_000;
/// Otherwise the line moves by this part of what it is off.
const SMOOTHING: i64 = 8;
/// Most that decoding times are before presentation (chosen: 16 pictures, the most that both
/// standards allow, at 16 per second). Beyond it the camera's times are wrong.
const REORDER_MAX: u64 = MediaTime::RATE;

/// A finished fragment.
#[derive(Debug)]
pub struct Fragment {
    /// Begins a segment.
    pub begins_segment: bool,
    /// Something is missing before it, or it has other parameters.
    pub discontinuity: bool,
    /// Begins with a key picture.
    pub key: bool,
    /// What decodes it.
    pub entry: Arc<SampleEntry>,
    /// Capture time of its first picture shown.
    pub start_utc: UtcNanos,
    /// Media time of that.
    pub start_media: MediaTime,
    /// Decoding time of its first sample.
    pub decode: u64,
    /// In decoding order.
    pub samples: Vec<Sample>,
    /// The samples' bytes.
    pub pictures: Vec<u8>,
}

impl Fragment {
    /// Ticks that its pictures last.
    pub fn duration(&self) -> u64 {
        self.samples.iter().map(|s| u64::from(s.duration)).sum()
    }
}

/// What comes of a unit.
#[derive(Debug, Default)]
pub struct Cut {
    /// The fragment that was complete before it.
    pub fragment: Option<Fragment>,
    /// Why the unit itself, and what leans on it, is not recorded.
    pub refused: Option<EntryError>,
}

impl From<Option<Fragment>> for Cut {
    fn from(fragment: Option<Fragment>) -> Cut {
        Cut { fragment, refused: None }
    }
}

/// Pictures of the fragment that is being filled.
#[derive(Debug)]
struct Open {
    begins_segment: bool,
    discontinuity: bool,
    key: bool,
    entry: Arc<SampleEntry>,
    first_capture: Instant,
    units: Vec<Unit>,
    pictures: Vec<u8>,
}

/// A picture of the fragment that is being filled.
#[derive(Debug, Clone, Copy)]
struct Unit {
    bytes: u32,
    media: u64,
    capture: Instant,
    /// What its arrival is behind its media time, nanoseconds.
    behind: i128,
}

impl Open {
    /// A fragment that goes on where another one ends.
    fn after(entry: &Arc<SampleEntry>, first_capture: Instant) -> Open {
        Open {
            begins_segment: false,
            discontinuity: false,
            key: false,
            entry: Arc::clone(entry),
            first_capture,
            units: vec![],
            pictures: vec![],
        }
    }

    /// Takes off the newest pictures that later ones may be shown before: the last one that was
    /// shown after all before it, and what follows it.
    fn split(&mut self) -> Option<Open> {
        let mut newest = 0;
        let mut anchor = 0;
        for (at, unit) in self.units.iter().enumerate() {
            if unit.media > newest {
                (newest, anchor) = (unit.media, at);
            }
        }
        let mut tail = Open::after(&self.entry, self.units.get(anchor)?.capture);
        let bytes: usize = self.units[..anchor].iter().map(|unit| unit.bytes as usize).sum();
        tail.units = self.units.split_off(anchor);
        tail.pictures = self.pictures.split_off(bytes);
        Some(tail)
    }
}

/// The segment that is being filled.
#[derive(Debug)]
struct Segment {
    day: Day,
    start_media: u64,
    bytes: u64,
}

/// State of one stream.
#[derive(Debug)]
pub struct Cutter {
    open: Option<Open>,
    segment: Option<Segment>,
    entry: Option<Arc<SampleEntry>>,
    /// The next segment begins after a gap.
    gap: bool,
    /// The largest media time so far, of all pictures since the last jump.
    newest_media: Option<u64>,
    /// Pictures came out of order: B-frames.
    reordered: bool,
    step: Option<u32>,
    /// Decoding times are so much before the media times in rising order.
    delay: u64,
    /// The decoding time that the next sample has at least.
    decode_least: u64,
    /// Where the fragment before ended on the media line, and where its last picture began.
    end_media: Option<u64>,
    last_media: Option<u64>,
    /// UTC minus media time, nanoseconds.
    line: Option<i128>,
}

/// Media time in nanoseconds.
fn nanos(media: u64) -> i128 {
    i128::from(media) * i128::from(NANOS_PER_SEC) / i128::from(MediaTime::RATE)
}

impl Default for Cutter {
    fn default() -> Self {
        Cutter {
            open: None,
            segment: None,
            entry: None,
            gap: true,
            newest_media: None,
            reordered: false,
            step: None,
            delay: 0,
            decode_least: 0,
            end_media: None,
            last_media: None,
            line: None,
        }
    }
}

impl Cutter {
    /// What was cut is lost: the next segment begins at the next key picture, after a gap.
    pub fn restart(&mut self) {
        (self.open, self.segment) = (None, None);
        self.gap = true;
    }

    /// Takes a unit. What was complete before it comes out, also when no segment can begin with the
    /// unit.
    pub fn push(&mut self, unit: &AccessUnit, after_loss: bool) -> Cut {
        let media = unit.media.0;
        if unit.flags.has(UnitFlags::PREROLL) {
            return Cut::default();
        }
        let jumped = self.newest_media.is_some_and(|newest| media.abs_diff(newest) > JUMP);
        if after_loss || jumped {
            let fragment = self.cut(None);
            self.restart();
            self.newest_media = None;
            let begun = self.begin_or_go_on(unit);
            debug_assert!(begun.fragment.is_none(), "nothing was open");
            return Cut { fragment, refused: begun.refused };
        }
        self.begin_or_go_on(unit)
    }

    fn begin_or_go_on(&mut self, unit: &AccessUnit) -> Cut {
        let media = unit.media.0;
        if unit.key() {
            return self.key(unit);
        }
        if self.segment.is_none() {
            return Cut::default();
        }
        let anchor = self.newest_media.is_none_or(|newest| media > newest);
        let full = self.open.as_ref().is_some_and(|open| {
            let first = open.units.first();
            let longest = first.map_or(0, |first| media.saturating_sub(first.media));
            open.pictures.len() + unit.data.len() > FRAGMENT_BYTES
                || unit.capture - open.first_capture >= FRAGMENT
                || longest >= MediaTime::RATE
        });
        let cut = if full && anchor { self.cut(Some(media)) } else { None };
        let too_large = |s: &Segment| s.bytes + unit.data.len() as u64 > SEGMENT_BYTES;
        if self.segment.as_ref().is_some_and(too_large) {
            let last = cut.or_else(|| self.cut(None));
            self.restart();
            return last.into();
        }
        self.add(unit, false);
        cut.into()
    }

    /// A key unit begins a fragment, and a segment when it is time.
    fn key(&mut self, unit: &AccessUnit) -> Cut {
        let fits = |e: &Arc<SampleEntry>| e.fits(unit.codec, &unit.data);
        let same = self.entry.as_ref().is_some_and(fits);
        if !same {
            let entry = match SampleEntry::of(unit.codec, &unit.data) {
                Ok(entry) => entry,
                Err(error) => {
                    // What follows leans on a picture that can't be written; what came before is
                    // whole.
                    let fragment = self.cut(None);
                    self.restart();
                    return Cut { fragment, refused: Some(error) };
                }
            };
            let cut = self.cut(Some(unit.media.0));
            self.gap |= self.entry.as_ref().is_some_and(|before| before.id != entry.id);
            self.entry = Some(Arc::new(entry));
            (self.delay, self.reordered) = (0, false);
            self.segment = None;
            self.start(unit, true);
            return cut.into();
        }
        let cut = self.cut(Some(unit.media.0));
        let media = unit.media.0;
        let full = self.segment.as_ref().is_none_or(|segment| {
            let length = media.saturating_sub(segment.start_media);
            unit.flags.has(UnitFlags::DISCONTINUITY)
                || Day::of(unit.capture_utc) != segment.day
                || nanos(length) >= SEGMENT.as_nanos() as i128
                || segment.bytes + unit.data.len() as u64 > SEGMENT_BYTES
        });
        self.start(unit, full);
        cut.into()
    }

    fn start(&mut self, unit: &AccessUnit, begins_segment: bool) {
        let Some(entry) = &self.entry else { return };
        if begins_segment {
            let (day, start_media) = (Day::of(unit.capture_utc), unit.media.0);
            self.segment = Some(Segment { day, start_media, bytes: 0 });
        }
        self.open = Some(Open {
            begins_segment,
            discontinuity: std::mem::take(&mut self.gap),
            key: true,
            ..Open::after(entry, unit.capture)
        });
        self.add(unit, true);
    }

    fn add(&mut self, unit: &AccessUnit, key: bool) {
        let Some(entry) = &self.entry else { return };
        let open = self.open.get_or_insert_with(|| Open::after(entry, unit.capture));
        let bytes = write_sample(unit.codec, &unit.data, key, &mut open.pictures);
        let media = unit.media.0;
        if bytes == 0 {
            // Delimiters alone are no picture.
            return;
        }
        let behind = i128::from(unit.capture_utc.0) - nanos(media);
        let length = u32::try_from(bytes).unwrap_or(u32::MAX);
        open.units.push(Unit { bytes: length, media, capture: unit.capture, behind });
        if let Some(segment) = &mut self.segment {
            segment.bytes += bytes as u64 + 64;
        }
        self.reordered |= self.newest_media.is_some_and(|newest| media < newest);
        self.newest_media = self.newest_media.max(Some(media));
    }

    /// Ends what waits too long for a next picture; everything at the end of the stream.
    pub fn flush(&mut self, now: Instant, end: bool) -> Option<Fragment> {
        let open = self.open.as_mut()?;
        if end {
            return self.cut(None);
        }
        if now - open.first_capture < FRAGMENT_WAIT {
            return None;
        }
        // Pictures that come may be shown before the newest ones.
        let tail = if self.reordered { open.split() } else { None };
        let cut = if open.units.is_empty() { None } else { self.cut(None) };
        match (cut, tail) {
            (Some(cut), tail) => {
                self.open = tail;
                Some(cut)
            }
            (None, Some(tail)) => {
                // One picture alone: it waits for those that belong before it no longer.
                let open = self.open.as_mut()?;
                (open.units, open.pictures) = (tail.units, tail.pictures);
                self.cut(None)
            }
            (None, None) => None,
        }
    }

    /// Ends the open fragment; `next` = media time of the picture that follows, in decoding order.
    fn cut(&mut self, next: Option<u64>) -> Option<Fragment> {
        let open = self.open.take()?;
        let mut sorted: Vec<u64> = open.units.iter().map(|unit| unit.media).collect();
        sorted.sort_unstable();
        let (&start, &last) = (sorted.first()?, sorted.last()?);
        let waits = sorted.iter().zip(&open.units).map(|(at, unit)| at.saturating_sub(unit.media));
        let waits = waits.filter(|wait| *wait <= REORDER_MAX).max();
        self.delay = self.delay.max(waits.unwrap_or(0));
        // Decoding times rise, whatever the camera says.
        let mut decode = Vec::with_capacity(sorted.len());
        let mut least = if open.discontinuity { 0 } else { self.decode_least };
        for time in &sorted {
            least = least.max(time.saturating_sub(self.delay));
            decode.push(least);
            least += 1;
        }
        let longest = GAP / (NANOS_PER_SEC / MediaTime::RATE);
        let steps = decode.windows(2).map(|pair| pair[1] - pair[0]);
        if let Some(step) = steps.clone().max().filter(|step| *step <= JUMP) {
            // The usual one: a single pause inside a fragment says nothing of the rate.
            let usual = steps.min().unwrap_or(step).max(1);
            self.step = u32::try_from(usual).ok();
        }
        if decode.len() == 1 {
            // Few pictures a second: each is a fragment, and lasts as long as the one before did.
            let since = self.last_media.and_then(|before| start.checked_sub(before));
            let since = since.filter(|since| (1..=JUMP).contains(since));
            self.step = since.and_then(|since| u32::try_from(since).ok()).or(self.step);
        }
        let step = u64::from(self.step.unwrap_or(STEP_DEFAULT));
        let exact = next
            .filter(|next| !self.reordered && *next > last && *next - last < longest.max(3 * step));
        let length = exact.map_or(step, |next| next - last);
        let end = decode[decode.len() - 1] + length;
        self.decode_least = decode[decode.len() - 1] + 1;
        let samples = (0..decode.len()).map(|at| {
            let next = decode.get(at + 1).copied().unwrap_or(end);
            let composition = i128::from(open.units[at].media) - i128::from(decode[at]);
            Sample {
                bytes: open.units[at].bytes,
                duration: u32::try_from(next - decode[at]).unwrap_or(u32::MAX),
                composition: i32::try_from(composition).unwrap_or(0),
            }
        });
        let samples = samples.collect();
        let hole = self.end_media.is_some_and(|before| {
            let tolerance = longest.max(step / 2);
            start > before + tolerance || before > start + tolerance
        });
        (self.end_media, self.last_media) = (Some(last + length), Some(last));
        let behind: i128 = open.units.iter().map(|unit| unit.behind).sum();
        let mean = behind / open.units.len() as i128;
        let off = self.line.map(|line| mean - line);
        // Arrival that is off by a second is a step of the clock or of the camera.
        let stepped = off.is_some_and(|off| off.unsigned_abs() >= u128::from(GAP));
        let line = match (self.line, off) {
            (Some(line), Some(off)) if off.unsigned_abs() < SNAP.unsigned_abs().into() => {
                line + off / i128::from(SMOOTHING)
            }
            _ => mean,
        };
        self.line = Some(line);
        let start_utc = UtcNanos(u64::try_from(nanos(start) + line).unwrap_or(0));
        Some(Fragment {
            begins_segment: open.begins_segment,
            // Inside a group of pictures nothing is missing: a decoder goes on, and could not begin.
            discontinuity: open.discontinuity || open.key && (hole || stepped),
            key: open.key,
            entry: open.entry,
            start_utc,
            start_media: MediaTime(start),
            decode: decode[0],
            samples,
            pictures: open.pictures,
        })
    }
}

#[cfg(test)]
mod tests;
