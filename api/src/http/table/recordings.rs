//! Routes of recordings: what there is, and playback.

use super::{Content, GET, Parameter, Route};
use crate::http::recordings;
use crate::http::schemas;
use crate::slots::Kind;

const WINDOW_START: Parameter = Parameter {
    name: "start",
    description: "Where the window begins. ISO 8601; without an offset it is UTC. As long \
        before its end as is usual unless given.",
    schema: schemas::time,
    example: "2026-01-31T12:00:00.250Z",
};
const WINDOW_END: Parameter = Parameter {
    name: "end",
    description: "Where the window ends, exclusive. Now, or as far as it may, unless given.",
    schema: schemas::time,
    example: "2026-01-31T12:05:00Z",
};

/// Routes of recordings.
pub static ROUTES: &[Route] = &[
    Route {
        path: "/api/v1/recordings/devices/{id}/dates",
        summary: "Days (UTC) with recordings of a camera, the newest first.",
        query: &[],
        answer: Content::Json("RecordingDates"),
        failures: &[404, 503],
        kind: Kind::List,
        handler: recordings::dates,
        ..GET
    },
    Route {
        path: "/api/v1/recordings/devices/{id}/playlist",
        summary: "HLS playlist: of a day or part of it, of any window up to 24 hours, or, without \
            either, of the last ten minutes up to what is being recorded.",
        query: &[
            Parameter {
                name: "date",
                description: "A day (UTC), YYYYMMDD; today when only a time of day is given.",
                schema: schemas::text,
                example: "20260131",
            },
            Parameter {
                name: "start_time",
                description: "On that day: not before, HH:MM:SS.",
                schema: schemas::text,
                example: "12:00:00",
            },
            Parameter {
                name: "end_time",
                description: "On that day: not after, HH:MM:SS.",
                schema: schemas::text,
                example: "12:05:00",
            },
            WINDOW_START,
            WINDOW_END,
        ],
        answer: Content::File("application/vnd.apple.mpegurl"),
        failures: &[404, 503],
        kind: Kind::List,
        handler: recordings::playlist,
        ..GET
    },
    Route {
        path: "/api/v1/recordings/devices/{id}/timeline",
        summary: "When a camera was recorded and when not, up to 31 days; the last 24 hours \
            unless given.",
        query: &[WINDOW_START, WINDOW_END],
        answer: Content::Json("RecordingTimeline"),
        failures: &[404, 503],
        kind: Kind::List,
        handler: recordings::timeline,
        ..GET
    },
    Route {
        path: "/api/v1/recordings/devices/{id}/{segment}",
        summary: "A segment, or the part of one that a playlist names. Never changes.",
        query: &[],
        answer: Content::File("video/mp4"),
        failures: &[404, 503],
        handler: recordings::segment,
        ..GET
    },
];
