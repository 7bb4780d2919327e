//! Lists against a plain sorted map: filters, bounds, cursors, offsets, totals, equal timestamps,
//! and inserts between pages.

use super::{Clock, HOUR, NOON, camera, event, model, seeded};
use crate::query::{OFFSET_MAX, TOTAL_MAX};
use crate::{Event, EventId, EventQuery, EventReader, EventStore, EventWriter, Page};
use base::UtcNanos;
use fastrand::Rng;
use std::collections::BTreeMap;

type Model = BTreeMap<EventId, Event>;

fn append(
    writer: &mut EventWriter,
    clock: &Clock,
    rng: &mut Rng,
    count: usize,
    expected: &mut Model,
) {
    // Few moments, so that many events share one; spread over four days and some neighbours.
    let events: Vec<_> = (0..count)
        .map(|_| {
            let back = rng.u64(0..40) * 2 * HOUR;
            let utc = UtcNanos(NOON.0 - back + rng.u64(0..3));
            event(rng, utc)
        })
        .collect();
    let outcomes = writer.append(&events).unwrap();
    for (content, outcome) in events.into_iter().zip(outcomes) {
        let id = outcome.unwrap();
        assert_eq!(id.timestamp(), content.capture_utc);
        let before = expected.insert(id, Event { id, created_at: clock.now(), content });
        assert_eq!(before, None, "id {id} was given twice");
    }
}

fn matches(query: &EventQuery, event: &Event) -> bool {
    query.camera.as_ref().is_none_or(|c| *c == event.content.camera)
        && query.model.as_ref().is_none_or(|m| *m == event.content.model)
        && query.start.is_none_or(|t| event.timestamp() >= t)
        && query.end.is_none_or(|t| event.timestamp() <= t)
        && query
            .class_id
            .is_none_or(|c| event.content.detections.detections.iter().any(|d| d.class_id == c))
}

fn random_query(rng: &mut Rng) -> EventQuery {
    let mut maybe = |n: u8| rng.u8(..n) == 0;
    let (by_camera, by_model, by_class) = (maybe(2), maybe(2), maybe(3));
    let (by_start, by_end) = (maybe(3), maybe(3));
    let moment = |rng: &mut Rng| UtcNanos(NOON.0 - rng.u64(0..45) * 2 * HOUR + rng.u64(0..3));
    EventQuery {
        // One more than there are: also what is in no file.
        camera: by_camera.then(|| camera(rng.usize(0..6))),
        model: by_model.then(|| model(rng.usize(0..4))),
        class_id: by_class.then(|| rng.u16(0..5)),
        start: by_start.then(|| moment(rng)),
        end: by_end.then(|| moment(rng)),
        limit: rng.u32(1..40),
        page: Page::First,
    }
}

fn check_query(reader: &EventReader, query: &EventQuery, expected: &Model, rng: &mut Rng) {
    let all: Vec<&Event> = expected.values().rev().filter(|e| matches(query, e)).collect();
    // All pages by cursor.
    let mut page = Page::First;
    let mut seen = Vec::new();
    loop {
        let listed = reader.list(&EventQuery { page, ..query.clone() }).unwrap();
        assert_eq!(listed.total, Some(all.len() as u64), "{query:?}");
        assert_eq!(listed.unreadable, 0);
        assert!(listed.events.len() <= query.limit as usize);
        seen.extend(listed.events);
        match listed.next {
            Some(next) => page = Page::After(next.to_string().parse().unwrap()),
            None => break,
        }
    }
    assert!(seen.iter().eq(all.iter().copied()), "{query:?}");
    // Some page by offset.
    let offset = rng.u32(0..all.len() as u32 + 3);
    let listed = reader.list(&EventQuery { page: Page::Offset(offset), ..query.clone() }).unwrap();
    let wanted = all.iter().skip(offset as usize).take(query.limit as usize);
    assert!(listed.events.iter().eq(wanted.copied()), "{query:?} offset {offset}");
    assert_eq!(listed.total, Some(all.len() as u64));
    let end = offset as usize + listed.events.len();
    assert_eq!(listed.next.is_some(), end < all.len(), "{query:?} offset {offset}");
}

#[test]
fn lists_agree_with_a_sorted_map() {
    let mut rng = seeded("lists_agree_with_a_sorted_map");
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::at(NOON);
    let mut expected = Model::new();
    for _ in 0..3 {
        // Opened again each time: what was written by an earlier life is the same.
        let (mut writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
        for _ in 0..10 {
            let count = rng.usize(1..60);
            append(&mut writer, &clock, &mut rng, count, &mut expected);
        }
        for _ in 0..60 {
            check_query(&reader, &random_query(&mut rng), &expected, &mut rng);
        }
        for (id, event) in &expected {
            assert_eq!(reader.get(*id).unwrap().as_ref(), Some(event));
        }
        assert_eq!(reader.get(EventId::new(NOON, 1 << 53)).unwrap(), None);
        assert_eq!(reader.get(EventId::new(UtcNanos(5), 5)).unwrap(), None);
    }
}

#[test]
fn inserts_between_pages_neither_repeat_nor_hide_events() {
    let mut rng = seeded("inserts_between_pages_neither_repeat_nor_hide_events");
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::at(NOON);
    let (mut writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
    let mut expected = Model::new();
    for _ in 0..20 {
        append(&mut writer, &clock, &mut rng, 30, &mut expected);
        let query = EventQuery { limit: rng.u32(1..20), ..random_query(&mut rng) };
        let before = expected.clone();
        let mut seen: Vec<EventId> = Vec::new();
        let mut page = Page::First;
        loop {
            let listed = reader.list(&EventQuery { page, ..query.clone() }).unwrap();
            for event in listed.events {
                assert!(seen.last().is_none_or(|last| event.id < *last), "{query:?}");
                assert_eq!(Some(&event), expected.get(&event.id));
                seen.push(event.id);
            }
            let Some(next) = listed.next else { break };
            page = Page::After(next);
            let count = rng.usize(0..5);
            append(&mut writer, &clock, &mut rng, count, &mut expected);
        }
        let there = before.values().filter(|e| matches(&query, e));
        for event in there {
            assert!(seen.contains(&event.id), "{query:?} misses {}", event.id);
        }
    }
}

#[test]
fn a_reader_beside_the_writer_sees_whole_commits_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::at(NOON);
    let (mut writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
    const BATCH: usize = 8;
    let writing = std::thread::spawn(move || {
        let mut rng = Rng::with_seed(3);
        for n in 0..60 {
            let events: Vec<_> =
                (0..BATCH).map(|_| event(&mut rng, UtcNanos(NOON.0 - n))).collect();
            writer.append(&events).unwrap();
        }
    });
    let mut last = 0;
    loop {
        let finished = writing.is_finished();
        let query = EventQuery { limit: 1000, ..EventQuery::default() };
        let page = reader.list(&query).unwrap();
        assert_eq!(page.events.len() % BATCH, 0, "half a commit is visible");
        assert!(page.events.len() >= last);
        assert!(page.events.is_sorted_by(|a, b| a.id > b.id));
        last = page.events.len();
        if finished {
            break;
        }
    }
    writing.join().unwrap();
    assert_eq!(last, 60 * BATCH);
}

#[test]
fn totals_are_exact_to_ten_thousand_and_offsets_end_there() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::at(NOON);
    let (mut writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
    let mut rng = Rng::with_seed(11);
    let mut template = event(&mut rng, NOON);
    template.camera = camera(1);
    // Two days, so that the limit is met across files.
    let mut write = |from: u64, count: u64| {
        let events: Vec<_> = (from..from + count)
            .map(|n| {
                let mut event = template.clone();
                event.capture_utc = UtcNanos(NOON.0 - n * 8_640_000_000_000 / 1000);
                event
            })
            .collect();
        writer.append(&events).unwrap();
    };
    write(0, TOTAL_MAX);
    let filtered = EventQuery { camera: Some(camera(1)), limit: 1, ..EventQuery::default() };
    let plain = EventQuery { camera: None, ..filtered.clone() };
    let pair = EventQuery { model: Some(template.model.clone()), ..filtered.clone() };
    let queries = [filtered, plain, pair];
    for query in &queries {
        assert_eq!(reader.list(query).unwrap().total, Some(TOTAL_MAX), "{query:?}");
    }
    write(TOTAL_MAX, 1);
    for query in &queries {
        let first = reader.list(query).unwrap();
        assert_eq!((first.total, first.events.len()), (None, 1), "{query:?}");
        let after = Page::After(first.next.unwrap());
        let second = reader.list(&EventQuery { page: after, ..query.clone() }).unwrap();
        assert_eq!((second.total, second.events.len()), (None, 1), "{query:?}");
        let last = EventQuery { page: Page::Offset(OFFSET_MAX), ..query.clone() };
        let last = reader.list(&last).unwrap();
        assert_eq!((last.events.len(), last.next), (1, None), "{query:?}");
        let beyond = EventQuery { page: Page::Offset(OFFSET_MAX + 1), ..query.clone() };
        let error = reader.list(&beyond).unwrap_err().to_string();
        assert!(error.contains("next_cursor"), "{error}");
    }
}

#[test]
fn a_search_that_takes_long_gives_up_and_can_be_continued() {
    let mut rng = seeded("a_search_that_takes_long_gives_up_and_can_be_continued");
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::at(NOON);
    let mut options = clock.options();
    options.list_steps_max = 7;
    let (mut writer, reader) = EventStore::open(directory.path(), options).unwrap();
    let mut expected = Model::new();
    append(&mut writer, &clock, &mut rng, 300, &mut expected);
    let mut gave_up = 0;
    for _ in 0..60 {
        let query = EventQuery { limit: rng.u32(1..20), ..random_query(&mut rng) };
        let all: Vec<&Event> = expected.values().rev().filter(|e| matches(&query, e)).collect();
        let (mut seen, mut page) = (Vec::new(), Page::First);
        loop {
            let listed = reader.list(&EventQuery { page, ..query.clone() }).unwrap();
            assert!(listed.total.is_none_or(|total| total == all.len() as u64), "{query:?}");
            gave_up +=
                usize::from(listed.events.len() < query.limit as usize && listed.next.is_some());
            seen.extend(listed.events);
            let Some(next) = listed.next else { break };
            let progress = match page {
                Page::After(last) => next.event() < last.event(),
                _ => true,
            };
            assert!(progress, "{query:?}");
            page = Page::After(next);
        }
        assert!(seen.iter().eq(all.iter().copied()), "{query:?}");
    }
    assert!(gave_up > 60, "only {gave_up} times: the test proves little");
}
