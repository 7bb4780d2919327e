//! What recovery reads, what it leaves alone, and what an unreadable file costs: no other one.

use super::*;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Counts calls, and lets those on some files fail.
#[derive(Debug, Default)]
struct Watch {
    calls: Mutex<Vec<(Call, PathBuf)>>,
    bad: Mutex<BTreeMap<PathBuf, Errno>>,
    refused: Mutex<Vec<(PathBuf, Which, Errno)>>,
}

type Which = fn(Call) -> bool;

impl Probe for Watch {
    fn ask(&self, call: Call, path: &Path) -> io::Result<()> {
        self.calls.lock().unwrap().push((call, path.to_owned()));
        let refused = self.refused.lock().unwrap();
        if let Some((.., error)) = refused.iter().find(|(of, which, _)| of == path && which(call)) {
            return Err((*error).into());
        }
        match self.bad.lock().unwrap().get(path) {
            Some(error) if matches!(call, Call::Open | Call::Read(_)) => Err((*error).into()),
            _ => Ok(()),
        }
    }
}

impl Watch {
    fn reset(&self) {
        self.calls.lock().unwrap().clear();
    }

    fn lists(&self) -> usize {
        self.calls.lock().unwrap().iter().filter(|(call, _)| *call == Call::List).count()
    }

    fn read_bytes(&self) -> usize {
        let of = |call: &Call| if let Call::Read(bytes) = call { *bytes } else { 0 };
        self.calls.lock().unwrap().iter().map(|(call, _)| of(call)).sum()
    }

    fn changes(&self) -> Vec<(Call, PathBuf)> {
        let reads =
            |call: &Call| matches!(call, Call::List | Call::Open | Call::Length | Call::Read(_));
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(call, _)| !reads(call)).cloned().collect()
    }

    fn spoil(&self, path: &Path, error: Errno) {
        self.bad.lock().unwrap().insert(path.to_owned(), error);
    }

    /// Some of the calls on a file fail.
    fn refuse(&self, path: &Path, which: Which, error: Errno) {
        self.refused.lock().unwrap().push((path.to_owned(), which, error));
    }

    fn good(&self) {
        self.bad.lock().unwrap().clear();
        self.refused.lock().unwrap().clear();
    }
}

fn watched() -> (tempfile::TempDir, Recordings, Arc<Watch>) {
    let root = tempfile::tempdir().unwrap();
    let watch: Arc<Watch> = Arc::default();
    let files = Files::probed(Arc::clone(&watch) as Arc<dyn Probe>);
    let recordings = Recordings::through(root.path().join("recordings"), files);
    (root, recordings, watch)
}

fn day(text: &str) -> Day {
    Day::parse(text).unwrap()
}

fn index(recordings: &Recordings, of: &str) -> PathBuf {
    recordings.day(&camera(), day(of)).join(INDEX_NAME)
}

fn segment(recordings: &Recordings, of: &str, second: u64) -> PathBuf {
    recordings.segment(&camera(), SegmentName::at(UtcNanos(noon(of).0 + second * SECOND)))
}

fn nobody() -> Writing {
    Writing::Nobody
}

/// Puts a day in order; what was found, and whether anything had to be done.
fn mend(recordings: &Recordings, of: &str) -> (Recovered, bool) {
    let mut done = Recovered::default();
    let prepared = put_in_order(recordings, &camera(), day(of), &nobody, &mut done).unwrap();
    let changed = prepared.is_some();
    prepared.into_iter().for_each(|prepared| prepared.adopt(recordings).unwrap());
    (done, changed)
}

fn starts(recordings: &Recordings, of: &str) -> Vec<u64> {
    let rows = recordings.rows(&camera(), day(of)).unwrap();
    rows.iter().map(|row| (row.start_utc.0 - noon(of).0) / SECOND).collect()
}

fn names_in(recordings: &Recordings, of: &str) -> Vec<String> {
    let mut names = recordings.files().list(&recordings.day(&camera(), day(of))).unwrap();
    names.sort();
    names
}

const OLD: &str = "20260130";
const NEW: &str = "20260131";

#[test]
fn of_a_day_in_order_64_kib_are_read_and_its_names_once() {
    let (_root, recordings, watch) = watched();
    // As many rows as a day has; of the segments those that are looked at.
    let last = 172_797 / 3;
    record(&recordings, OLD, &[0, 3, 6]);
    recover(&recordings, &camera()).unwrap();
    let rows = recordings.rows(&camera(), day(OLD)).unwrap();
    let mut many: Vec<Row> = rows[..3].to_vec();
    many.extend((1..last).flat_map(|n| {
        let name = SegmentName::at(UtcNanos(rows[0].segment.utc().0 + n * 1000));
        rows[..3].iter().map(move |row| Row { segment: name, ..*row })
    }));
    many.extend(&rows[6..]);
    assert_eq!(many.len(), 172_800);
    let bytes: Vec<u8> = many.iter().flat_map(Row::encode).collect();
    fs::write(index(&recordings, OLD), [&Header::default().encode()[..], &bytes].concat()).unwrap();
    watch.reset();
    let (done, changed) = mend(&recordings, OLD);
    assert_eq!((done, changed), (Recovered::default(), false));
    assert_eq!(watch.lists(), 1);
    assert!(watch.read_bytes() <= 64 << 10, "{} bytes", watch.read_bytes());
    assert_eq!(watch.changes(), []);
    // Nor does it cost more to append to it.
    watch.reset();
    let ready = ready(&recordings, &camera(), day(OLD)).unwrap();
    assert_eq!((ready.last, ready.lacking), (many.last().copied(), false));
    assert_eq!(watch.lists(), 1);
    assert!(watch.read_bytes() <= 64 << 10, "{} bytes", watch.read_bytes());
    assert_eq!(watch.changes(), []);
}

#[test]
fn every_way_in_which_a_day_is_not_in_order_is_found() {
    let (_root, recordings, _) = watched();
    record(&recordings, OLD, &[0, 3, 6]);
    recover(&recordings, &camera()).unwrap();
    let path = index(&recordings, OLD);
    let whole = fs::read(&path).unwrap();
    let rows = |range: std::ops::Range<usize>| &whole[64 + range.start * 64..64 + range.end * 64];
    let head = &whole[..64];
    let write = |parts: &[&[u8]]| fs::write(&path, parts.concat()).unwrap();
    let states: [(&str, &dyn Fn()); 9] = [
        ("the last row is missing", &|| write(&[head, rows(0..8)])),
        ("the last segment has none", &|| write(&[head, rows(0..6)])),
        ("the first segment has none", &|| write(&[head, rows(3..9)])),
        ("it has no rows", &|| write(&[head])),
        ("it has half a header", &|| write(&[&head[..30]])),
        ("it has half a row more", &|| write(&[head, rows(0..9), &head[..30]])),
        ("a row of the last segment is missing", &|| write(&[head, rows(0..7), rows(8..9)])),
        ("a row inside is missing", &|| write(&[head, rows(0..4), rows(5..9)])),
        ("it is missing", &|| fs::remove_file(&path).unwrap()),
    ];
    for (what, damage) in states {
        damage();
        let (done, changed) = mend(&recordings, OLD);
        assert!(changed && done.indexes == 1 && done.faults.is_empty(), "{what}: {done:?}");
        assert!(fs::read(&path).unwrap() == whole, "{what}");
        assert!(!mend(&recordings, OLD).1, "{what}: in order now");
        // Before it is appended to, its end is.
        damage();
        let ready = ready(&recordings, &camera(), day(OLD)).unwrap();
        if !ready.lacking {
            assert!(fs::read(&path).unwrap() == whole, "{what}: ready");
            assert_eq!(ready.last.map(|row| row.number), Some(8), "{what}");
        }
        mend(&recordings, OLD);
        assert!(fs::read(&path).unwrap() == whole, "{what}: afterwards");
    }
    // A segment that is shorter than its rows say, and one that is gone.
    let last = segment(&recordings, OLD, 6);
    let bytes = fs::read(&last).unwrap();
    for by_ready in [false, true] {
        fs::write(&last, &bytes[..bytes.len() - 5]).unwrap();
        if by_ready {
            assert_eq!(ready(&recordings, &camera(), day(OLD)).unwrap().last.unwrap().number, 7);
        } else {
            assert_eq!(mend(&recordings, OLD).0.torn, 1);
        }
        assert_eq!(starts(&recordings, OLD), [0, 1, 2, 3, 4, 5, 6, 7]);
        fs::remove_file(&last).unwrap();
        if by_ready {
            assert_eq!(ready(&recordings, &camera(), day(OLD)).unwrap().last.unwrap().number, 5);
        } else {
            assert!(mend(&recordings, OLD).1);
        }
        assert_eq!(starts(&recordings, OLD), [0, 1, 2, 3, 4, 5]);
        fs::write(&last, &bytes).unwrap();
        mend(&recordings, OLD);
        assert!(fs::read(&path).unwrap() == whole);
    }
    // One without rows, and without a fragment: it is removed.
    let begun = segment(&recordings, OLD, 9);
    for (content, by_ready) in [(init(), false), (vec![], false), (init(), true), (vec![], true)] {
        fs::write(&begun, content).unwrap();
        if by_ready {
            assert_eq!(ready(&recordings, &camera(), day(OLD)).unwrap().done.empty, 1);
        } else {
            assert_eq!(mend(&recordings, OLD).0.empty, 1);
        }
        assert!(!begun.exists() && fs::read(&path).unwrap() == whole);
    }
}

#[test]
fn the_end_of_a_day_is_mended_as_the_whole_day_would_be() {
    let (_root, recordings, _) = watched();
    record(&recordings, OLD, &[0]);
    record(&recordings, NEW, &[0, 3]);
    recover(&recordings, &camera()).unwrap();
    let (path, last) = (index(&recordings, NEW), segment(&recordings, NEW, 3));
    let (rows, bytes) = (fs::read(&path).unwrap(), fs::read(&last).unwrap());
    // What a kill leaves: so much of the segment, so much of the index.
    for cut in (0..bytes.len()).step_by(41) {
        for rows_cut in [0, 30, 64, 128, 192, 250] {
            let lay = || {
                fs::write(&last, &bytes[..cut]).unwrap();
                fs::write(&path, &rows[..rows.len() - rows_cut]).unwrap();
            };
            lay();
            mend(&recordings, NEW);
            let expected = fs::read(&path).unwrap();
            let segment = fs::read(&last).ok();
            lay();
            let ready = ready(&recordings, &camera(), day(NEW)).unwrap();
            assert!(!ready.lacking, "{cut} {rows_cut}");
            assert!(fs::read(&path).unwrap() == expected, "{cut} {rows_cut}");
            assert_eq!(fs::read(&last).ok(), segment, "{cut} {rows_cut}");
            let newest = recordings.rows(&camera(), day(NEW)).unwrap().last().copied();
            assert_eq!(ready.last, newest, "{cut} {rows_cut}");
        }
    }
    // The first rows of a day go on from the day before.
    fs::write(&path, Header::default().encode()).unwrap();
    fs::write(&last, &bytes).unwrap();
    let ready = ready(&recordings, &camera(), day(NEW)).unwrap();
    assert_eq!((ready.last.unwrap().number, ready.lacking), (8, false));
    assert_eq!(fs::read(&path).unwrap(), rows);
}

#[test]
fn the_end_of_a_day_of_more_rows_than_are_read_is_mended_too() {
    let (_root, recordings, _) = watched();
    let starts: Vec<u64> = (0..180).map(|n| n * 3).collect();
    record(&recordings, NEW, &starts);
    recover(&recordings, &camera()).unwrap();
    let (path, last) = (index(&recordings, NEW), segment(&recordings, NEW, 179 * 3));
    let (rows, bytes) = (fs::read(&path).unwrap(), fs::read(&last).unwrap());
    fs::write(&last, &bytes[..bytes.len() - 1]).unwrap();
    let mended = ready(&recordings, &camera(), day(NEW)).unwrap();
    assert_eq!((mended.lacking, mended.done.torn), (false, 1));
    assert!(fs::read(&path).unwrap() == rows[..rows.len() - 64]);
    // All rows that are read are of one segment: there may be more of them.
    let mut long = init();
    for n in 0..600 {
        let sequence = if n == 0 { 1 } else { 2 };
        let (utc, media) = noon(OLD);
        long.extend(fragment(utc + n * SECOND, media + n * 90_000, sequence, KEY));
    }
    let only = segment(&recordings, OLD, 0);
    fs::create_dir_all(only.parent().unwrap()).unwrap();
    fs::write(&only, &long).unwrap();
    assert!(mend(&recordings, OLD).1);
    let (path, rows) = (index(&recordings, OLD), fs::read(index(&recordings, OLD)).unwrap());
    fs::write(&only, &long[..long.len() - 1]).unwrap();
    assert!(ready(&recordings, &camera(), day(OLD)).unwrap().lacking);
    assert!(fs::read(&path).unwrap() == rows, "it is left to recovery");
    assert!(mend(&recordings, OLD).1);
    assert!(fs::read(&path).unwrap() == rows[..rows.len() - 64]);
}

#[test]
fn rows_of_a_segment_that_can_not_be_read_stay_as_they_are() {
    let (_root, recordings, watch) = watched();
    record(&recordings, NEW, &[0, 3, 6]);
    recover(&recordings, &camera()).unwrap();
    let path = index(&recordings, NEW);
    let whole = fs::read(&path).unwrap();
    // A row of the last one is missing, and it can't be read.
    fs::write(&path, &whole[..whole.len() - 64]).unwrap();
    watch.spoil(&segment(&recordings, NEW, 6), Errno::MFILE);
    assert!(ready(&recordings, &camera(), day(NEW)).is_err(), "that says nothing of it");
    watch.spoil(&segment(&recordings, NEW, 6), Errno::ACCESS);
    let ready = ready(&recordings, &camera(), day(NEW)).unwrap();
    assert_eq!((ready.last.unwrap().number, ready.done.faults.len()), (7, 1));
    assert!(fs::read(&path).unwrap() == whole[..whole.len() - 64]);
    // The index was begun anew, and one that was put aside has what is not in it.
    let (head, rows) = whole.split_at(64);
    fs::write(&path, [head, &rows[6 * 64..]].concat()).unwrap();
    fs::write(path.with_file_name(INDEX_DAMAGED), &whole[..64 + 6 * 64]).unwrap();
    watch.spoil(&segment(&recordings, NEW, 0), Errno::ACCESS);
    watch.spoil(&path.with_file_name(INDEX_DAMAGED), Errno::MFILE);
    let mut done = Recovered::default();
    assert!(put_in_order(&recordings, &camera(), day(NEW), &nobody, &mut done).is_err());
    watch.spoil(&path.with_file_name(INDEX_DAMAGED), Errno::IO);
    watch.good();
    watch.spoil(&segment(&recordings, NEW, 0), Errno::ACCESS);
    assert!(mend(&recordings, NEW).1);
    assert!(fs::read(&path).unwrap() == whole);
}

#[test]
fn a_segment_that_began_after_the_names_were_listed_keeps_its_rows() {
    let (_root, recordings, watch) = watched();
    record(&recordings, NEW, &[0, 3, 6]);
    recover(&recordings, &camera()).unwrap();
    let (path, last) = (index(&recordings, NEW), segment(&recordings, NEW, 6));
    let (whole, bytes) = (fs::read(&path).unwrap(), fs::read(&last).unwrap());
    let open = SegmentName::at(UtcNanos(noon(NEW).0 + 6 * SECOND));
    for (error, fails) in [(None, false), (Some(Errno::ACCESS), false), (Some(Errno::MFILE), true)]
    {
        watch.good();
        fs::remove_file(&last).unwrap();
        let mut before = whole[..64 + 6 * 64].to_vec();
        before[64 + 5] ^= 1;
        fs::write(&path, &before).unwrap();
        let begins = || {
            fs::write(&last, &bytes).unwrap();
            let mut index = OpenOptions::new().append(true).open(&path).unwrap();
            index.write_all(&whole[64 + 6 * 64..]).unwrap();
            if let Some(error) = error {
                watch.refuse(&last, |call| call == Call::Length, error);
            }
            Writing::Recorder(Some(open))
        };
        let mut done = Recovered::default();
        let prepared = put_in_order(&recordings, &camera(), day(NEW), &begins, &mut done);
        assert_eq!(prepared.is_err(), fails, "{error:?}");
        if let Ok(prepared) = prepared {
            prepared.unwrap().adopt(&recordings).unwrap();
            assert!(fs::read(&path).unwrap() == whole, "{error:?}");
        }
    }
}

#[test]
fn a_block_of_an_index_that_can_not_be_read_takes_no_other_along() {
    let (_root, recordings, watch) = watched();
    let starts: Vec<u64> = (0..100).map(|n| n * 3).collect();
    record(&recordings, NEW, &starts);
    recover(&recordings, &camera()).unwrap();
    let path = index(&recordings, NEW);
    let whole = fs::read(&path).unwrap();
    // What is larger than a block has the bad one in it.
    watch.refuse(&path, |call| matches!(call, Call::Read(bytes) if bytes > 4096), Errno::IO);
    watch.reset();
    let (done, changed) = mend(&recordings, NEW);
    assert_eq!((changed, done.faults.len()), (true, 1), "{done:?}");
    let opened = |(call, of): &&(Call, PathBuf)| *call == Call::Open && *of != path;
    assert_eq!(watch.calls.lock().unwrap().iter().filter(opened).count(), 1, "the newest segment");
    watch.good();
    assert!(fs::read(&path).unwrap() == whole);
}

#[test]
fn an_index_is_put_aside_where_nothing_else_can_lie() {
    let (_root, recordings, watch) = watched();
    record(&recordings, NEW, &[0]);
    recover(&recordings, &camera()).unwrap();
    let path = index(&recordings, NEW);
    let directory = path.parent().unwrap();
    let aside = path.with_file_name(INDEX_DAMAGED);
    fs::write(&aside, "of before").unwrap();
    watch.refuse(&aside, |call| call == Call::Length, Errno::ACCESS);
    super::rebuild::put_aside(&recordings, directory).unwrap();
    assert!(!path.exists() && fs::read(&aside).unwrap() == b"of before");
    super::rebuild::put_aside(&recordings, directory).expect("there is none");
    fs::write(&path, "it stays").unwrap();
    watch.refuse(&path, |call| call == Call::Rename, Errno::IO);
    assert!(super::rebuild::put_aside(&recordings, directory).is_err());
}

#[test]
fn so_many_faults_are_told_and_the_others_counted() {
    let mut done = Recovered::default();
    (0..20).for_each(|n| done.fault(Path::new("/segment"), n));
    assert_eq!((done.faults.len(), done.more_faults, done.changed()), (16, 4, false));
}

#[test]
fn what_can_not_be_read_is_named_and_holds_up_nothing_else() {
    let (_root, recordings, watch) = watched();
    let days = ["20260127", "20260128", "20260129", OLD, NEW];
    for of in days {
        record(&recordings, of, &[0, 3, 6]);
    }
    recover(&recordings, &camera()).unwrap();
    // The index of one day; a segment of a day whose index is gone; a directory in place of one; a
    // day that is a file.
    watch.spoil(&index(&recordings, days[0]), Errno::IO);
    let segments = [segment(&recordings, days[1], 3), segment(&recordings, days[2], 3)];
    watch.spoil(&segments[0], Errno::ACCESS);
    fs::remove_file(index(&recordings, days[1])).unwrap();
    fs::remove_file(&segments[1]).unwrap();
    fs::create_dir(&segments[1]).unwrap();
    fs::remove_file(index(&recordings, days[2])).unwrap();
    fs::remove_dir_all(recordings.day(&camera(), day(OLD))).unwrap();
    fs::write(recordings.day(&camera(), day(OLD)), b"no directory").unwrap();
    let torn = segment(&recordings, NEW, 6);
    let bytes = fs::read(&torn).unwrap();
    fs::write(&torn, &bytes[..bytes.len() - 1]).unwrap();
    let done = recover(&recordings, &camera()).unwrap();
    let told = |path: &Path, why: &str| {
        let path = path.display().to_string();
        done.faults.iter().any(|fault| fault.contains(&path) && fault.contains(why))
    };
    assert!(told(&index(&recordings, days[0]), "Input/output error"), "{:?}", done.faults);
    assert!(told(&segments[0], "Permission denied"), "{:?}", done.faults);
    assert!(told(&segments[1], "directory"), "{:?}", done.faults);
    assert!(told(&recordings.day(&camera(), day(OLD)), "Not a directory"), "{:?}", done.faults);
    assert_eq!(done.faults.len(), 4, "{:?}", done.faults);
    assert_eq!((done.torn, done.last.map(|row| row.frames)), (1, Some(10)));
    assert_eq!(starts(&recordings, days[0]), [0, 1, 2, 3, 4, 5, 6, 7, 8], "from its segments");
    assert!(recordings.day(&camera(), day(days[0])).join(INDEX_DAMAGED).exists());
    for of in &days[1..3] {
        assert_eq!(starts(&recordings, of), [0, 1, 2, 6, 7, 8]);
    }
    assert_eq!(starts(&recordings, NEW), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn readers_go_by_the_segments_where_an_index_can_not_be_read() {
    let (_root, recordings, watch) = watched();
    record(&recordings, OLD, &[0, 3, 6]);
    recover(&recordings, &camera()).unwrap();
    let rows = recordings.rows(&camera(), day(OLD)).unwrap();
    watch.spoil(&index(&recordings, OLD), Errno::IO);
    assert_eq!(recordings.rows(&camera(), day(OLD)).unwrap(), rows);
    watch.spoil(&segment(&recordings, OLD, 3), Errno::IO);
    assert_eq!(starts(&recordings, OLD), [0, 1, 2, 6, 7, 8]);
    // Too many open files say nothing of the index: it is neither put aside nor made again.
    watch.spoil(&index(&recordings, OLD), Errno::MFILE);
    watch.reset();
    assert!(recordings.rows(&camera(), day(OLD)).is_err());
    assert!(ready(&recordings, &camera(), day(OLD)).is_err());
    let mut done = Recovered::default();
    assert!(put_in_order(&recordings, &camera(), day(OLD), &nobody, &mut done).is_err());
    assert_eq!(watch.changes(), []);
    // Nor of a segment.
    watch.spoil(&index(&recordings, OLD), Errno::IO);
    watch.spoil(&segment(&recordings, OLD, 3), Errno::MFILE);
    assert!(recordings.rows(&camera(), day(OLD)).is_err());
}

#[test]
fn a_damaged_index_is_kept_and_rows_come_back_while_it_is_appended_to() {
    for (spoiled, at) in [(true, 0), (false, 20), (false, 64 + 2 * 64), (false, 64 + 8 * 64 + 3)] {
        let (_root, recordings, watch) = watched();
        record(&recordings, OLD, &[0]);
        record(&recordings, NEW, &[0, 3, 6]);
        recover(&recordings, &camera()).unwrap();
        let path = index(&recordings, NEW);
        let before = recordings.rows(&camera(), day(NEW)).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        if spoiled {
            watch.spoil(&path, Errno::IO);
        } else {
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
        }
        let ready = ready(&recordings, &camera(), day(NEW)).unwrap();
        watch.bad.lock().unwrap().clear();
        assert!(ready.lacking && ready.done.faults.len() == 1, "{ready:?}");
        assert!(ready.done.faults[0].contains(&path.display().to_string()));
        // The newest row that could be read.
        let number = ready.last.map(|row| row.number);
        let readable = if spoiled { None } else { Some(if at > 500 { 10 } else { 11 }) };
        assert_eq!(number, readable, "damaged at {at}");
        assert_eq!(names_in(&recordings, NEW)[3], "index.damaged");
        assert!(!path.exists());
        let aside = path.with_file_name(INDEX_DAMAGED);
        assert_eq!(fs::read(&aside).unwrap(), bytes);
        // It is recorded on: one segment with its rows, and one that is open.
        record(&recordings, NEW, &[100]);
        let name = SegmentName::at(UtcNanos(noon(NEW).0 + 100 * SECOND));
        let scanned = scan(&recordings.segment(&camera(), name)).unwrap();
        let last = ready.last.or(recordings.last_row(&camera()).unwrap());
        assert!(last.is_some(), "of the day before");
        let mut rows = rebuild::rows_of(last.as_ref(), name, &scanned);
        let encode = |rows: &[Row]| rows.iter().flat_map(Row::encode).collect::<Vec<u8>>();
        fs::write(&path, [&Header::default().encode()[..], &encode(&rows)].concat()).unwrap();
        let open = SegmentName::at(UtcNanos(noon(NEW).0 + 103 * SECOND));
        fs::write(recordings.segment(&camera(), open), init()).unwrap();
        let writing = || Writing::Recorder(Some(open));
        let mut done = Recovered::default();
        watch.reset();
        let prepared = put_in_order(&recordings, &camera(), day(NEW), &writing, &mut done);
        let prepared = prepared.unwrap().unwrap();
        assert_eq!((done.torn, done.empty, done.faults.len()), (0, 0, 0), "{done:?}");
        if !spoiled {
            // What is whole of the damaged one is not read from the segments again.
            let scans = watch.calls.lock().unwrap();
            let scans = scans.iter().filter(|(call, path)| {
                *call == Call::Open && path.extension().is_some_and(|e| e == "mp4")
            });
            assert!(scans.count() <= 3, "damaged at {at}");
        }
        // Meanwhile a row came, and a segment was removed.
        let mut next = *rows.last().unwrap();
        (next.segment, next.number) = (open, next.number + 1);
        rows.push(next);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(&next.encode()).unwrap();
        let header = Header { removed_before: before[0].segment.next().utc() };
        recordings.files().overwrite(&path, &header.encode()).unwrap();
        prepared.adopt(&recordings).unwrap();
        let read = read_index(&path, UtcNanos(0)).unwrap();
        assert_eq!(read.header, header);
        let (old, new) = read.rows.split_at(6);
        assert_eq!(new, rows, "damaged at {at}");
        let unnumbered = |row: &Row| Row { number: 0, discontinuities: 0, ..*row };
        let expected: Vec<Row> = before[3..].iter().map(unnumbered).collect();
        assert_eq!(old.iter().map(unnumbered).collect::<Vec<_>>(), expected, "damaged at {at}");
        if !spoiled {
            assert_eq!(old, &before[3..]);
        }
        assert_eq!(fs::read(&aside).unwrap(), bytes);
    }
}

#[test]
fn an_index_that_was_put_aside_is_never_overwritten_and_they_do_not_pile_up() {
    let (_root, recordings, _) = watched();
    record(&recordings, NEW, &[0]);
    let path = index(&recordings, NEW);
    for n in 0..12u8 {
        recover(&recordings, &camera()).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] = n + 1;
        fs::write(&path, bytes).unwrap();
        if n % 2 == 0 {
            mend(&recordings, NEW);
        } else {
            ready(&recordings, &camera(), day(NEW)).unwrap();
        }
    }
    recover(&recordings, &camera()).unwrap();
    let names = names_in(&recordings, NEW);
    let asides: Vec<_> = names.iter().filter(|name| name.starts_with(INDEX_DAMAGED)).collect();
    assert_eq!(asides.len(), 8, "{names:?}");
    for (n, name) in asides.iter().enumerate() {
        assert_eq!(fs::read(path.with_file_name(name)).unwrap()[20], n as u8 + 1, "{name}");
    }
    assert_eq!(starts(&recordings, NEW), [0, 1, 2]);
}

#[test]
fn what_no_kill_leaves_is_not_cut_off_and_not_removed() {
    let (_root, recordings, _) = watched();
    record(&recordings, NEW, &[0, 3]);
    recover(&recordings, &camera()).unwrap();
    let last = segment(&recordings, NEW, 3);
    let whole = fs::read(&last).unwrap();
    let second = init().len() + fragment(0, 0, 2, KEY).len();
    // A fragment inside is damaged, or something else follows.
    let mut damaged = whole.clone();
    damaged[second + 4..second + 8].copy_from_slice(b"junk");
    let mut in_moof = whole.clone();
    let at = whole[second..].windows(4).position(|w| w == b"trun").unwrap() + second;
    in_moof[at..at + 4].copy_from_slice(b"junk");
    for bytes in [damaged, in_moof, [&whole[..], b"something else"].concat()] {
        fs::write(&last, &bytes).unwrap();
        fs::remove_file(index(&recordings, NEW)).unwrap();
        for _ in 0..2 {
            let done = recover(&recordings, &camera()).unwrap();
            assert_eq!((done.torn, done.empty, done.faults.len()), (0, 0, 1), "{done:?}");
            assert!(done.faults[0].contains(&last.display().to_string()));
            let ready = ready(&recordings, &camera(), day(NEW)).unwrap();
            assert_eq!((ready.done.torn, ready.done.empty), (0, 0));
            assert!(fs::read(&last).unwrap() == bytes);
            assert_eq!(starts(&recordings, NEW)[..4], [0, 1, 2, 3], "what is before it is played");
        }
    }
    // Zeros are what a loss of power leaves.
    fs::write(&last, [&whole[..], &[0; 100]].concat()).unwrap();
    assert_eq!(recover(&recordings, &camera()).unwrap().torn, 1);
    assert!(fs::read(&last).unwrap() == whole);
}

#[test]
fn an_unfinished_index_goes() {
    let (_root, recordings, _) = watched();
    record(&recordings, NEW, &[0]);
    recover(&recordings, &camera()).unwrap();
    for by_ready in [false, true] {
        fs::write(index(&recordings, NEW).with_file_name(INDEX_NEW), b"unfinished").unwrap();
        if by_ready {
            ready(&recordings, &camera(), day(NEW)).unwrap();
        } else {
            mend(&recordings, NEW);
        }
        assert_eq!(names_in(&recordings, NEW).len(), 2);
    }
}

#[test]
fn after_a_step_back_of_the_clock_a_day_in_order_stays_as_it_is() {
    let (_root, recordings, path) = stepped_back();
    let whole = fs::read(&path).unwrap();
    let ready = ready(&recordings, &camera(), day("20260131")).unwrap();
    assert_eq!((ready.last.unwrap().number, ready.done.changed()), (8, false));
    assert!(!mend(&recordings, "20260131").1);
    assert!(fs::read(&path).unwrap() == whole);
    // What was recorded last comes last, whatever its name.
    record(&recordings, "20260131", &[3]);
    assert!(mend(&recordings, "20260131").1);
    let order = [100, 101, 102, 103, 104, 105, 0, 1, 2, 3, 4, 5];
    assert_eq!(starts(&recordings, "20260131"), order);
    // And what the rows have nothing of comes before what was recorded later.
    record(&recordings, "20260131", &[101]);
    record(&recordings, "20260131", &[110]);
    fs::remove_file(&path).unwrap();
    mend(&recordings, "20260131");
    assert_eq!(starts(&recordings, "20260131").len(), 18);
}

#[test]
fn before_a_day_is_appended_to_a_few_segments_are_read_and_no_more() {
    for (count, lacking) in [(8, false), (9, true)] {
        let (_root, recordings, _) = watched();
        record(&recordings, NEW, &[0]);
        recover(&recordings, &camera()).unwrap();
        let more: Vec<u64> = (1..=count).map(|n| n * 3).collect();
        record(&recordings, NEW, &more);
        let ready = ready(&recordings, &camera(), day(NEW)).unwrap();
        assert_eq!((ready.lacking, ready.done.changed()), (lacking, !lacking), "{count}");
        assert_eq!(mend(&recordings, NEW).1, lacking, "{count}");
        assert_eq!(starts(&recordings, NEW).len() as u64, 3 + 3 * count);
    }
}

#[test]
fn what_was_removed_stays_removed_and_hides_no_damage() {
    let (_root, recordings, _) = watched();
    record(&recordings, NEW, &[0, 3, 6]);
    recover(&recordings, &camera()).unwrap();
    let path = index(&recordings, NEW);
    let removed = |before: u64| {
        let before = SegmentName::at(UtcNanos(noon(NEW).0 + before * SECOND)).utc();
        recordings.files().overwrite(&path, &Header { removed_before: before }.encode()).unwrap();
    };
    let stored = || (fs::metadata(&path).unwrap().len() - 64) / 64;
    // The first is removed but for its file, which could not be.
    removed(3);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"half a row").unwrap();
    assert!(mend(&recordings, NEW).1);
    assert_eq!((stored(), starts(&recordings, NEW)), (6, vec![3, 4, 5, 6, 7, 8]));
    // A damaged row of what was removed makes readers go by the segments as any other does.
    removed(6);
    fs::remove_file(segment(&recordings, NEW, 0)).unwrap();
    fs::remove_file(segment(&recordings, NEW, 3)).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[64 + 5] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(read_index(&path, UtcNanos(0)).is_err());
    assert!(mend(&recordings, NEW).1);
    assert_eq!(read_index(&path, UtcNanos(0)).unwrap().rows.len(), 3);
    // All of it is removed, and one segment has no rows.
    removed(9);
    fs::remove_file(segment(&recordings, NEW, 6)).unwrap();
    record(&recordings, NEW, &[9]);
    assert!(mend(&recordings, NEW).1);
    assert_eq!(starts(&recordings, NEW), [9, 10, 11]);
}

#[test]
fn a_timeline_reads_each_day_once_and_counts_a_fragment_over_midnight_once() {
    let (_root, recordings, watch) = watched();
    let first = day("20260101");
    let days = (0..31).map(|n| Day::of(UtcNanos(first.start().0 + n * 86_400 * SECOND)));
    let days: Vec<String> = days.map(|day| day.to_string()).collect();
    // The last fragment of each day begins a second before midnight and lasts a second and a half.
    for of in &days {
        record(&recordings, of, &[0]);
        let (utc, media) = noon(of);
        let at = 43_199 * SECOND + SECOND / 2;
        let name = SegmentName::at(UtcNanos(utc + at));
        let bytes = fragment(utc + at, media + 43_199 * 90_000 + 45_000, 1, KEY);
        fs::write(recordings.segment(&camera(), name), [init(), bytes].concat()).unwrap();
    }
    recover(&recordings, &camera()).unwrap();
    watch.reset();
    let (start, end) = (first.start(), Day::of(UtcNanos(noon(&days[30]).0)).end());
    let (ranges, gaps) = recordings.timeline(&camera(), start, end).unwrap();
    assert_eq!((ranges.len(), gaps.len()), (62, 62), "before the first and before each other");
    let (frames, bytes) =
        ranges.iter().fold((0, 0), |sum, range| (sum.0 + range.frames, sum.1 + range.bytes));
    let one = fragment(0, 0, 1, KEY).len() as u64;
    assert_eq!((frames, bytes), (31 * 4 * 10, 31 * 4 * one));
    let calls = watch.calls.lock().unwrap();
    let opened = calls.iter().filter(|(call, _)| *call == Call::Open).count();
    assert_eq!(opened, 31, "each index once");
}
