//! Days with hand-made segments: what is found in them, and what becomes of damage.

use super::*;
use base::MediaTime;
use base::time::NANOS_PER_SEC as SECOND;
use std::fs::{self, OpenOptions};
use std::io::Write;

mod recovery;

fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat()
}

fn be(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_be_bytes()).collect()
}

fn init() -> Vec<u8> {
    let entry = boxed(b"avc1", &[vec![0; 78], boxed(b"avcC", &[1, 2, 3])].concat());
    let stsd = boxed(b"stsd", &[be(&[0, 1]), entry].concat());
    let nested = [b"stbl", b"minf", b"mdia", b"trak", b"moov"];
    let moov = nested.iter().fold(stsd, |inner, kind| boxed(kind, &inner));
    [boxed(b"ftyp", b"iso6\0\0\0\0"), moov].concat()
}

/// Flags of samples, as in `trun`.
const KEY: u32 = 0x0200_0000;
const LEANS: u32 = 0x0101_0000;

/// A fragment of 10 pictures of 3 bytes and 9000 ticks.
fn fragment(utc: u64, media: u64, sequence: u32, first: u32) -> Vec<u8> {
    let ntp = ntp_of_utc(UtcNanos(utc));
    let split = |v: u64| [(v >> 32) as u32, v as u32];
    let times = [&[0x0100_0018, 1][..], &split(ntp), &split(media)].concat();
    let prft = boxed(b"prft", &be(&times));
    let tfhd = boxed(b"tfhd", &be(&[0x0002_0038, 1, 9000, 3, 0x0101_0000]));
    let tfdt = boxed(b"tfdt", &be(&[&[0x0100_0000][..], &split(media)].concat()));
    let moof = |offset| {
        let trun = boxed(b"trun", &be(&[5, 10, offset, first]));
        let traf = boxed(b"traf", &[&tfhd[..], &tfdt, &trun].concat());
        boxed(b"moof", &[boxed(b"mfhd", &be(&[0, sequence])), traf].concat())
    };
    let offset = moof(0).len() as u32 + 8;
    [prft, moof(offset), boxed(b"mdat", &[7; 30])].concat()
}

fn camera() -> CameraId {
    CameraId::new("cam").unwrap()
}

/// Noon of the day, as UTC and as media time.
fn noon(day: &str) -> (u64, u64) {
    let utc = Day::parse(day).unwrap().start().0 + 43_200 * SECOND;
    (utc, utc / SECOND * MediaTime::RATE)
}

/// Writes segments of three fragments of a second each, `starts` seconds after noon.
fn record(recordings: &Recordings, day: &str, starts: &[u64]) {
    let (utc, media) = noon(day);
    let mut before = None;
    for &start in starts {
        let name = SegmentName::at(UtcNanos(utc + start * SECOND));
        let path = recordings.segment(&camera(), name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bytes = init();
        for n in 0..3 {
            let sequence = if n > 0 || before == Some(start) { 2 } else { 1 };
            let (utc, media) = (utc + (start + n) * SECOND, media + (start + n) * 90_000);
            bytes.extend(fragment(utc, media, sequence, KEY));
        }
        before = Some(start + 3);
        fs::write(path, bytes).unwrap();
    }
}

fn node() -> (tempfile::TempDir, Recordings) {
    let root = tempfile::tempdir().unwrap();
    let recordings = Recordings::new(root.path().join("recordings"));
    (root, recordings)
}

#[test]
fn an_index_is_made_from_the_segments_and_recovered_in_every_state() {
    let (_root, recordings) = node();
    record(&recordings, "20260130", &[0, 3]);
    record(&recordings, "20260131", &[0, 3, 100]);
    let day = Day::parse("20260131").unwrap();
    let done = recover(&recordings, &camera()).unwrap();
    assert_eq!((done.indexes, done.torn, done.empty), (2, 0, 0));
    let rows = recordings.rows(&camera(), day).unwrap();
    assert_eq!(rows.len(), 9);
    assert_eq!(done.last, rows.last().copied());
    let numbers: Vec<_> = rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, [6, 7, 8, 9, 10, 11, 12, 13, 14], "they go on over days");
    let breaks: Vec<_> = rows.iter().map(|row| row.discontinuities).collect();
    assert_eq!(breaks, [2, 2, 2, 2, 2, 2, 3, 3, 3]);
    assert_eq!(rows[0].offset as usize, init().len());
    assert_eq!((rows[4].frames, rows[4].duration), (10, 90_000));
    assert!(rows.iter().all(|row| row.flags.has(RowFlags::KEY)));
    // In order: nothing is done.
    assert_eq!(recover(&recordings, &camera()).unwrap().indexes, 0);
    let path = recordings.day(&camera(), day).join(INDEX_NAME);
    let whole = fs::read(&path).unwrap();
    // Cut anywhere, grown by nonsense, damaged, or gone: the same bytes again.
    for damage in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[damage] ^= 0x55;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(recordings.rows(&camera(), day).unwrap(), rows, "damaged at {damage}");
        fs::write(&path, &whole[..damage]).unwrap();
        recordings.rows(&camera(), day).unwrap();
        recover(&recordings, &camera()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole, "cut at {damage}");
    }
    fs::write(&path, [&whole[..], b"half a row"].concat()).unwrap();
    assert_eq!(recordings.rows(&camera(), day).unwrap(), rows);
    recover(&recordings, &camera()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), whole);
    fs::remove_file(&path).unwrap();
    assert_eq!(recordings.rows(&camera(), day).unwrap(), rows);
}

#[test]
fn nonsense_in_place_of_an_index_or_a_segment_is_survived() {
    let (_root, recordings) = node();
    record(&recordings, "20260131", &[0, 3]);
    let day = Day::parse("20260131").unwrap();
    recover(&recordings, &camera()).unwrap();
    let rows = recordings.rows(&camera(), day).unwrap();
    let index = recordings.day(&camera(), day).join(INDEX_NAME);
    let segment = recordings.segment(&camera(), rows[5].segment);
    let whole = fs::read(&segment).unwrap();
    let mut seed = 20_260_131u64;
    let mut next = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for _ in 0..3000 {
        let mut bytes = whole.clone();
        for _ in 0..=next(8) {
            let at = next(bytes.len());
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, next(256) as u8][next(6)];
        }
        fs::write(&segment, &bytes[..next(bytes.len() + 1)]).unwrap();
        scan(&segment).unwrap();
    }
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..next(1000)).map(|_| next(256) as u8).collect();
        fs::write(&index, &bytes).unwrap();
        fs::write(&segment, &whole).unwrap();
        assert_eq!(recordings.rows(&camera(), day).unwrap(), rows);
    }
    fs::write(&segment, b"not a segment at all").unwrap();
    let done = recover(&recordings, &camera()).unwrap();
    assert_eq!((done.empty, done.faults.len()), (0, 2), "it is no segment of ours: {done:?}");
}

#[test]
fn a_torn_fragment_is_cut_off_and_its_row_does_not_come() {
    let (_root, recordings) = node();
    record(&recordings, "20260131", &[0, 3]);
    let day = Day::parse("20260131").unwrap();
    recover(&recordings, &camera()).unwrap();
    let rows = recordings.rows(&camera(), day).unwrap();
    let segment = recordings.segment(&camera(), rows[5].segment);
    let whole = fs::read(&segment).unwrap();
    let last = rows[5].offset as usize;
    for cut in last..whole.len() {
        fs::write(&segment, &whole[..cut]).unwrap();
        let done = recover(&recordings, &camera()).unwrap();
        assert_eq!((done.torn, done.last), (u32::from(cut > last), Some(rows[4])), "cut at {cut}");
        assert_eq!(fs::metadata(&segment).unwrap().len(), last as u64);
        // As if the recorder went on.
        fs::write(&segment, &whole).unwrap();
        assert_eq!(recover(&recordings, &camera()).unwrap().last, Some(rows[5]));
    }
}

#[test]
fn a_window_has_what_overlaps_it_over_days_and_says_its_gaps() {
    let (_root, recordings) = node();
    record(&recordings, "20260131", &[0, 3, 100]);
    // A segment that began before midnight and ends after it.
    let (noon_utc, _) = noon("20260131");
    record(&recordings, "20260131", &[43_199]);
    record(&recordings, "20260201", &[]);
    recover(&recordings, &camera()).unwrap();
    let at = |second: u64| UtcNanos(noon_utc + second * SECOND);
    let starts = |from, to| -> Vec<u64> {
        let rows = recordings.window(&camera(), at(from), at(to)).unwrap();
        rows.iter().map(|row| (row.start_utc.0 - noon_utc) / SECOND).collect()
    };
    assert_eq!(starts(0, 2), [0, 1]);
    assert_eq!(starts(5, 101), [5, 100]);
    assert_eq!(starts(6, 100), [0; 0]);
    assert_eq!(starts(43_201, 43_300), [43_201], "found from the day after");
    let rows = recordings.window(&camera(), at(2), at(110)).unwrap();
    let (ranges, gaps) = ranges(&rows, at(2), at(110));
    let seconds = |utc: UtcNanos| (utc.0 - noon_utc) / SECOND;
    let shown: Vec<_> = ranges.iter().map(|r| (seconds(r.start), seconds(r.end))).collect();
    assert_eq!(shown, [(2, 6), (100, 103)]);
    let shown: Vec<_> = gaps.iter().map(|g| (seconds(g.start), seconds(g.end))).collect();
    assert_eq!(shown, [(6, 100), (103, 110)]);
    assert!(connected(&rows[0], &rows[1]) && !connected(&rows[3], &rows[4]));
}

#[test]
fn rows_of_removed_segments_are_not_given() {
    let (_root, recordings) = node();
    record(&recordings, "20260131", &[0, 3, 6]);
    let day = Day::parse("20260131").unwrap();
    recover(&recordings, &camera()).unwrap();
    let names = recordings.segments(&camera(), day).unwrap();
    let path = recordings.day(&camera(), day).join(INDEX_NAME);
    let header = Header { removed_before: names[1].utc() };
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &header.encode(), 0).unwrap();
    let rows = recordings.rows(&camera(), day).unwrap();
    assert_eq!((rows.len(), rows[0].segment), (6, names[1]));
    // A recovery keeps that.
    OpenOptions::new().append(true).open(&path).unwrap().write_all(&[1]).unwrap();
    fs::remove_file(recordings.segment(&camera(), names[0])).unwrap();
    recover(&recordings, &camera()).unwrap();
    assert_eq!(recordings.rows(&camera(), day).unwrap(), rows);
}

#[test]
fn nothing_recorded_is_no_error() {
    let (_root, recordings) = node();
    let day = Day::parse("20260131").unwrap();
    assert!(recordings.cameras().unwrap().is_empty());
    assert!(recordings.rows(&camera(), day).unwrap().is_empty());
    assert!(recordings.window(&camera(), UtcNanos(0), UtcNanos::FAR).unwrap().is_empty());
    assert_eq!(recover(&recordings, &camera()).unwrap(), Recovered::default());
}

/// A day that was recorded from 100 s after noon on, and from noon on after a step back.
fn stepped_back() -> (tempfile::TempDir, Recordings, PathBuf) {
    let (root, recordings) = node();
    record(&recordings, "20260131", &[0, 100, 103]);
    recover(&recordings, &camera()).unwrap();
    let index = recordings.day(&camera(), Day::parse("20260131").unwrap()).join(INDEX_NAME);
    let read = read_index(&index, UtcNanos(0)).unwrap();
    let mut rows = read.rows;
    rows.rotate_left(3);
    for (number, row) in rows.iter_mut().enumerate() {
        row.number = number as u32;
    }
    let encoded: Vec<u8> = rows.iter().flat_map(Row::encode).collect();
    fs::write(&index, [&read.header.encode()[..], &encoded].concat()).unwrap();
    (root, recordings, index)
}

#[test]
fn a_step_back_of_the_clock_adds_no_row_twice() {
    let (_root, recordings, index) = stepped_back();
    let whole = fs::read(&index).unwrap();
    assert_eq!(recover(&recordings, &camera()).unwrap().indexes, 0, "it is in order");
    for torn in [&whole[..], &whole[..whole.len() - 64]] {
        fs::write(&index, [torn, b"half a row"].concat()).unwrap();
        recover(&recordings, &camera()).unwrap();
        let read = read_index(&index, UtcNanos(0)).unwrap();
        let starts: Vec<_> =
            read.rows.iter().map(|r| (r.start_utc.0 - noon("20260131").0) / SECOND).collect();
        assert_eq!(starts, [100, 101, 102, 103, 104, 105, 0, 1, 2]);
    }
}

#[test]
fn the_newest_rows_are_those_recorded_last_and_not_those_of_the_future() {
    let (_root, recordings, _) = stepped_back();
    let starts = |now: u64| -> Vec<u64> {
        let now = UtcNanos(noon("20260131").0 + now * SECOND);
        let rows = recordings.recent(&camera(), now, 600 * SECOND).unwrap();
        rows.iter().map(|row| (row.start_utc.0 - noon("20260131").0) / SECOND).collect()
    };
    assert_eq!(starts(3), [0, 1, 2]);
    assert_eq!(starts(97), [0, 1, 2], "numbers with a hole are no playlist");
}

#[test]
fn a_pause_or_a_step_inside_a_group_of_pictures_hides_its_key_from_nobody() {
    let (_root, recordings) = node();
    let (utc, media) = noon("20260131");
    let path = recordings.segment(&camera(), SegmentName::at(UtcNanos(utc)));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // A pause of 2 s, and a step of 5 s, which an older recorder took for a break.
    let parts = [(0, 0, 1, KEY), (1, 1, 2, LEANS), (4, 4, 2, LEANS), (10, 5, 1, LEANS)];
    let fragments = parts.map(|(at, line, sequence, first)| {
        fragment(utc + at * SECOND, media + line * MediaTime::RATE, sequence, first)
    });
    fs::write(path, [init(), fragments.concat()].concat()).unwrap();
    recover(&recordings, &camera()).unwrap();
    let (start, end) = (UtcNanos(utc + 10 * SECOND), UtcNanos(utc + 11 * SECOND));
    let rows = recordings.playable(&camera(), start, end).unwrap();
    assert_eq!((rows.len(), rows[0].flags.has(RowFlags::KEY)), (4, true));
}
