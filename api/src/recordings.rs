//! Recordings as HLS playlists (RFC 8216): rows of the index in, text out. No segment is opened.
//!
//! Media time is one line per camera, so fragments that follow one another do so in their own clock,
//! over segments, midnight and restarts alike. Where pictures are missing there is an
//! `EXT-X-DISCONTINUITY`, and a player goes on at once with what comes next; real time is in the
//! `EXT-X-PROGRAM-DATE-TIME` of every entry.

use crate::moment;
use base::{MediaTime, UtcNanos};
use ipc::recording::{Row, RowFlags, SegmentName};
use std::fmt::Write;

/// The shortest that a live playlist calls its longest entry; it must not grow while it is played.
const LIVE_TARGET_SECONDS: u64 = 2;

/// One entry of a playlist: bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    first: Row,
    /// Behind the last byte.
    end: u32,
    /// 90 kHz.
    duration: u64,
}

/// A finished playlist: an entry per segment, of what is in the window. `None` without rows.
pub fn on_demand(rows: &[Row], start: UtcNanos) -> Option<String> {
    let mut entries: Vec<Entry> = Vec::new();
    for row in rows {
        match entries.last_mut() {
            Some(last)
                if last.first.segment == row.segment
                    && last.end == row.offset
                    && !row.flags.has(RowFlags::DISCONTINUITY) =>
            {
                last.end = row.offset.saturating_add(row.bytes);
                last.duration += u64::from(row.duration);
            }
            _ => entries.push(entry(row)),
        }
    }
    let first = entries.first()?.first;
    let mut text = head(&entries, 1);
    text += "#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-MEDIA-SEQUENCE:0\n";
    if entries.iter().all(|entry| entry.first.flags.has(RowFlags::KEY)) {
        text += "#EXT-X-INDEPENDENT-SEGMENTS\n";
    }
    let skipped = start.0.saturating_sub(first.start_utc.0) as f64 / 1e9;
    if skipped > 0.0 {
        writeln!(text, "#EXT-X-START:TIME-OFFSET={skipped:.6},PRECISE=YES").expect("a string");
    }
    list(&mut text, &entries);
    text += "#EXT-X-ENDLIST\n";
    Some(text)
}

/// The playlist of what is being recorded: an entry per fragment, so that entries never change, up
/// to the newest one on the disk. `None` without rows.
pub fn live(rows: &[Row]) -> Option<String> {
    let begins = rows.iter().position(|row| row.flags.has(RowFlags::KEY))?;
    let entries: Vec<Entry> = rows[begins..].iter().map(entry).collect();
    let first = entries.first()?.first;
    let breaks_here = u32::from(first.flags.has(RowFlags::DISCONTINUITY));
    let breaks_before = first.discontinuities.wrapping_sub(breaks_here);
    let mut text = head(&entries, LIVE_TARGET_SECONDS);
    write!(
        text,
        "#EXT-X-MEDIA-SEQUENCE:{}\n#EXT-X-DISCONTINUITY-SEQUENCE:{breaks_before}\n",
        first.number
    )
    .expect("a string");
    list(&mut text, &entries);
    Some(text)
}

fn entry(row: &Row) -> Entry {
    let end = row.offset.saturating_add(row.bytes);
    Entry { first: *row, end, duration: u64::from(row.duration) }
}

fn head(entries: &[Entry], least: u64) -> String {
    let longest = entries.iter().map(|entry| entry.duration).max().unwrap_or(0);
    // The nearest whole second is what is compared (RFC 8216, 4.3.3.1).
    let target = longest.div_ceil(MediaTime::RATE).max(least);
    format!("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:{target}\n")
}

fn list(text: &mut String, entries: &[Entry]) {
    let mut parameters = None;
    for (at, Entry { first, end, duration }) in entries.iter().enumerate() {
        let stem = first.segment.stem();
        let discontinuity = first.flags.has(RowFlags::DISCONTINUITY)
            || at > 0 && parameters != Some(first.parameters);
        if discontinuity {
            text.push_str("#EXT-X-DISCONTINUITY\n");
        }
        if parameters.replace(first.parameters) != Some(first.parameters) {
            writeln!(text, "#EXT-X-MAP:URI=\"{stem}.init.mp4\"").expect("a string");
        }
        let time = moment::text(first.start_utc);
        // Players read microseconds at most.
        let time = time.get(..26).unwrap_or(&time);
        let seconds = *duration as f64 / MediaTime::RATE as f64;
        write!(
            text,
            "#EXT-X-PROGRAM-DATE-TIME:{time}Z\n#EXTINF:{seconds:.6},\n{stem}.{}-{end}.m4s\n",
            first.offset
        )
        .expect("a string");
    }
}

/// What of a segment is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `<start>.mp4`: all of it.
    Whole,
    /// `<start>.init.mp4`: what comes before its fragments.
    Initialisation,
    /// `<start>.<from>-<to>.m4s`: fragments, from a byte up to another, which is not included.
    Fragments(u64, u64),
}

/// Reads a name of [`live`] and [`on_demand`], or a segment's own. Nothing else is a name.
pub fn part(name: &str) -> Option<(SegmentName, Part)> {
    if let Some(stem) = name.strip_suffix(".init.mp4") {
        return Some((stem_name(stem)?, Part::Initialisation));
    }
    if let Some(rest) = name.strip_suffix(".m4s") {
        let (stem, bytes) = rest.rsplit_once('.')?;
        let (from, to) = bytes.split_once('-')?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if digits { text.parse::<u32>().ok().map(u64::from) } else { None }
        };
        let (from, to) = (number(from)?, number(to)?);
        return (from < to).then_some((stem_name(stem)?, Part::Fragments(from, to)));
    }
    Some((stem_name(name.strip_suffix(".mp4")?)?, Part::Whole))
}

fn stem_name(stem: &str) -> Option<SegmentName> {
    SegmentName::parse(stem).filter(|name| name.stem() == stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    use base::time::NANOS_PER_SEC;

    const NOON: u64 = 1_769_860_800 * NANOS_PER_SEC;

    /// A row `n` half seconds after noon, in segments of six.
    fn row(n: u64) -> Row {
        let utc = NOON + n * NANOS_PER_SEC / 2;
        let first = n.is_multiple_of(6);
        let flags = if n.is_multiple_of(2) { RowFlags::KEY } else { RowFlags::default() };
        Row {
            start_utc: UtcNanos(utc),
            start_media: MediaTime(n * 45_000),
            segment: SegmentName::at(UtcNanos(NOON + n / 6 * 3 * NANOS_PER_SEC)),
            parameters: 7,
            offset: 700 + (n % 6) as u32 * 1000,
            bytes: 1000,
            duration: 45_000,
            frames: 12,
            flags: if first && n == 0 { flags.with(RowFlags::DISCONTINUITY) } else { flags },
            number: n as u32,
            discontinuities: 1,
        }
    }

    fn broken(mut row: Row, later: u64) -> Row {
        row.start_utc.0 += later * NANOS_PER_SEC;
        row.start_media.0 += later * MediaTime::RATE;
        row
    }

    #[test]
    fn a_finished_playlist_has_an_entry_per_segment_and_marks_gaps_and_parameters() {
        let mut rows: Vec<Row> = (2..20).map(row).collect();
        for row in &mut rows[10..] {
            *row = broken(*row, 100);
        }
        rows[10].flags = rows[10].flags.with(RowFlags::DISCONTINUITY);
        for row in &mut rows[16..] {
            row.parameters = 8;
        }
        let text = on_demand(&rows, UtcNanos(NOON + 1_250_000_000)).unwrap();
        let expected = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:3\n\
            #EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-INDEPENDENT-SEGMENTS\n\
            #EXT-X-START:TIME-OFFSET=0.250000,PRECISE=YES\n\
            #EXT-X-MAP:URI=\"20260131T120000.000000Z.init.mp4\"\n\
            #EXT-X-PROGRAM-DATE-TIME:2026-01-31T12:00:01.000000Z\n#EXTINF:2.000000,\n\
            20260131T120000.000000Z.2700-6700.m4s\n\
            #EXT-X-PROGRAM-DATE-TIME:2026-01-31T12:00:03.000000Z\n#EXTINF:3.000000,\n\
            20260131T120003.000000Z.700-6700.m4s\n\
            #EXT-X-DISCONTINUITY\n\
            #EXT-X-PROGRAM-DATE-TIME:2026-01-31T12:01:46.000000Z\n#EXTINF:3.000000,\n\
            20260131T120006.000000Z.700-6700.m4s\n\
            #EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"20260131T120009.000000Z.init.mp4\"\n\
            #EXT-X-PROGRAM-DATE-TIME:2026-01-31T12:01:49.000000Z\n#EXTINF:1.000000,\n\
            20260131T120009.000000Z.700-2700.m4s\n#EXT-X-ENDLIST\n";
        assert_eq!(text, expected);
        assert_eq!(on_demand(&[], UtcNanos(0)), None);
    }

    #[test]
    fn a_live_playlist_has_an_entry_per_fragment_and_counts_on() {
        let rows: Vec<Row> = (0..9).map(row).collect();
        let text = live(&rows[1..]).unwrap();
        assert!(text.contains("\n#EXT-X-MEDIA-SEQUENCE:2\n#EXT-X-DISCONTINUITY-SEQUENCE:1\n"));
        assert!(text.contains("TARGETDURATION:2\n") && !text.contains("ENDLIST"));
        assert_eq!(text.matches("#EXTINF:0.500000,").count(), 7);
        assert_eq!(text.matches("#EXT-X-MAP").count(), 1);
        let whole = live(&rows).unwrap();
        assert!(
            whole.contains("SEQUENCE:0\n#EXT-X-DISCONTINUITY-SEQUENCE:0\n#EXT-X-DISCONTINUITY\n")
        );
        // What both have is the same.
        let tail = |text: &str| text.split("T12:00:01.0").nth(1).unwrap().to_owned();
        assert_eq!(tail(&text), tail(&whole));
        assert_eq!(live(&rows[1..2]), None, "no key picture");
    }

    #[test]
    fn names_are_read_back_and_nothing_else_is_a_name() {
        let name = SegmentName::parse("20260131T120000.000000Z").unwrap();
        for (text, expected) in [
            ("20260131T120000.000000Z.mp4", Part::Whole),
            ("20260131T120000.000000Z.init.mp4", Part::Initialisation),
            ("20260131T120000.000000Z.700-1700.m4s", Part::Fragments(700, 1700)),
        ] {
            assert_eq!(part(text), Some((name, expected)));
        }
        for text in [
            "",
            "index",
            "..",
            "../20260131T120000.000000Z.mp4",
            "20260131T120000.000000Z",
            "20260131T120000.000000Z.mp4.mp4",
            "20260131T120000.000000Z.m4s",
            "20260131T120000.000000Z.5-5.m4s",
            "20260131T120000.000000Z.-5.m4s",
            "20260131T120000.000000Z.+1-5.m4s",
            "20260131T120000.000000Z.1-99999999999.m4s",
            "20260131T120000.000000Z.1-5.m4s/..",
            "20260131T120000.000000Z\0.mp4",
        ] {
            assert_eq!(part(text), None, "{text}");
        }
    }
}
