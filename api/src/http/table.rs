//! Every route: path, handler, and what its documentation says.

use super::message::{Answer, Failure, Request};
use super::schemas::{self, Schema};
use super::{
    assignments, devices, events, health, models, observability, openapi, page, recordings,
};
use crate::services::Services;

/// One route. All are GET, and so HEAD.
pub struct Route {
    /// Path, placeholders as `{name}`.
    pub path: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Query parameters; any other is refused.
    pub query: &'static [Parameter],
    /// What 200 brings.
    pub answer: Content,
    /// Statuses besides 200, 405 and 422.
    pub failures: &'static [u16],
    /// The handler.
    pub handler: fn(&Services, &Request) -> Result<Answer, Failure>,
}

/// One query parameter, never required.
pub struct Parameter {
    /// Name.
    pub name: &'static str,
    /// What it does.
    pub description: &'static str,
    /// Its values.
    pub schema: fn() -> Schema,
    /// A value that is accepted.
    pub example: &'static str,
}

/// What an answer holds.
pub enum Content {
    /// JSON of a named schema.
    Json(&'static str),
    /// A list of a named schema, JSON.
    JsonList(&'static str),
    /// The OpenAPI document.
    Document,
    /// A page.
    Html,
    /// A picture.
    Jpeg,
    /// An HLS playlist.
    Playlist,
    /// Fragmented MP4.
    Video,
}

const CAMERA: Parameter = Parameter {
    name: "camera_id",
    description: "Only of this camera.",
    schema: schemas::id,
    example: "front-door",
};
const MODEL: Parameter = Parameter {
    name: "model_id",
    description: "Only of this model.",
    schema: schemas::id,
    example: "nanodet_g_416",
};
const ENABLED: Parameter = Parameter {
    name: "enabled",
    description: "Only enabled or only disabled ones.",
    schema: schemas::flag,
    example: "true",
};
const LIMIT: Parameter = Parameter {
    name: "limit",
    description: "Most entries of the answer; 100 unless given.",
    schema: || schemas::integer_between(1, 1000),
    example: "100",
};
const OFFSET: Parameter = Parameter {
    name: "offset",
    description: "Entries to leave out first.",
    schema: || schemas::integer_between(0, u64::from(u32::MAX)),
    example: "0",
};
const START: Parameter = Parameter {
    name: "start_time",
    description: "Not before, inclusive. ISO 8601; without an offset it is UTC.",
    schema: schemas::time,
    example: "2026-01-31T12:00:00Z",
};
const END: Parameter = Parameter {
    name: "end_time",
    description: "Not after, inclusive. ISO 8601; without an offset it is UTC.",
    schema: schemas::time,
    example: "2026-02-01T00:00:00Z",
};
const CLASS_ID: Parameter = Parameter {
    name: "class_id",
    description: "Only events with a detection of this class. Classes are numbered per model.",
    schema: || schemas::integer_between(0, 65_535),
    example: "0",
};
const CLASS: Parameter = Parameter {
    name: "class",
    description: "As class_id, by name. Needs model_id when models number the class differently.",
    schema: schemas::text,
    example: "person",
};
const EVENT_OFFSET: Parameter = Parameter {
    name: "offset",
    description: "Events to leave out first; shifts while events come in. Not with cursor.",
    schema: || schemas::integer_between(0, 10_000),
    example: "0",
};
const CURSOR: Parameter = Parameter {
    name: "cursor",
    description: "next_cursor of the page before; stable while events come in.",
    schema: schemas::text,
    example: "a019c13b81c007b00800000019e370001",
};

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

/// Every route.
pub static ROUTES: &[Route] = &[
    Route {
        path: "/",
        summary: "A page with the live table and every camera's newest picture and detections.",
        query: &[],
        answer: Content::Html,
        failures: &[],
        handler: page::page,
    },
    Route {
        path: "/health",
        summary: "Whether serve answers.",
        query: &[],
        answer: Content::Json("Health"),
        failures: &[],
        handler: health::simple,
    },
    Route {
        path: "/health/detailed",
        summary: "The state of what serve depends on.",
        query: &[],
        answer: Content::Json("HealthDetailed"),
        failures: &[],
        handler: health::detailed,
    },
    Route {
        path: "/openapi.json",
        summary: "This document.",
        query: &[],
        answer: Content::Document,
        failures: &[],
        handler: openapi::document,
    },
    Route {
        path: "/api/v1/devices",
        summary: "Cameras, by id. Addresses are shown without credentials.",
        query: &[
            Parameter {
                name: "skip",
                description: "Entries to leave out first.",
                schema: || schemas::integer_between(0, u64::from(u32::MAX)),
                example: "0",
            },
            LIMIT,
        ],
        answer: Content::JsonList("Device"),
        failures: &[503],
        handler: devices::list,
    },
    Route {
        path: "/api/v1/devices/{id}",
        summary: "One camera.",
        query: &[],
        answer: Content::Json("Device"),
        failures: &[404, 503],
        handler: devices::one,
    },
    Route {
        path: "/api/v1/devices/{id}/frame.jpg",
        summary: "The newest exported frame of a camera. 404 says why there is none.",
        query: &[Parameter {
            name: "max_age_ms",
            description: "404 when the newest frame was captured longer ago.",
            schema: || schemas::integer_between(1, 3_600_000),
            example: "1000",
        }],
        answer: Content::Jpeg,
        failures: &[404, 503],
        handler: devices::frame,
    },
    Route {
        path: "/api/v1/ai-models",
        summary: "Models, the newest first.",
        query: &[ENABLED],
        answer: Content::Json("ModelList"),
        failures: &[503],
        handler: models::list,
    },
    Route {
        path: "/api/v1/ai-models/{model_id}",
        summary: "One model.",
        query: &[],
        answer: Content::Json("Model"),
        failures: &[404, 503],
        handler: models::one,
    },
    Route {
        path: "/api/v1/ai-model-assignments",
        summary: "Assignments of models to cameras, the newest first.",
        query: &[CAMERA, MODEL, ENABLED, LIMIT, OFFSET],
        answer: Content::Json("AssignmentList"),
        failures: &[503],
        handler: assignments::list,
    },
    Route {
        path: "/api/v1/ai-model-assignments/{id}",
        summary: "One assignment.",
        query: &[],
        answer: Content::Json("Assignment"),
        failures: &[404, 503],
        handler: assignments::one,
    },
    Route {
        path: "/api/v1/ai-events",
        summary: "Stored events, newest first by (timestamp, id).",
        query: &[CAMERA, MODEL, START, END, CLASS_ID, CLASS, LIMIT, EVENT_OFFSET, CURSOR],
        answer: Content::Json("EventList"),
        failures: &[503],
        handler: events::list,
    },
    Route {
        path: "/api/v1/ai-events/{id}",
        summary: "One event.",
        query: &[],
        answer: Content::Json("Event"),
        failures: &[404, 503],
        handler: events::one,
    },
    Route {
        path: "/api/v1/ai-events/cameras/{camera_id}/events",
        summary: "Stored events of one camera, newest first by (timestamp, id).",
        query: &[MODEL, START, END, CLASS_ID, CLASS, LIMIT, EVENT_OFFSET, CURSOR],
        answer: Content::Json("EventList"),
        failures: &[404, 503],
        handler: events::of_camera,
    },
    Route {
        path: "/api/v1/recordings/devices/{id}/dates",
        summary: "Days (UTC) with recordings of a camera, the newest first.",
        query: &[],
        answer: Content::Json("RecordingDates"),
        failures: &[404, 503],
        handler: recordings::dates,
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
        answer: Content::Playlist,
        failures: &[404, 503],
        handler: recordings::playlist,
    },
    Route {
        path: "/api/v1/recordings/devices/{id}/timeline",
        summary: "When a camera was recorded and when not, up to 31 days; the last 24 hours \
            unless given.",
        query: &[WINDOW_START, WINDOW_END],
        answer: Content::Json("RecordingTimeline"),
        failures: &[404, 503],
        handler: recordings::timeline,
    },
    Route {
        path: "/api/v1/recordings/devices/{id}/{segment}",
        summary: "A segment, or the part of one that a playlist names. Never changes.",
        query: &[],
        answer: Content::Video,
        failures: &[404, 503],
        handler: recordings::segment,
    },
    Route {
        path: "/ai/observability/health",
        summary: "Health per camera and model: healthy, degraded or unknown. Never fails.",
        query: &[],
        answer: Content::Json("ObservabilityHealth"),
        failures: &[],
        handler: observability::health,
    },
    Route {
        path: "/ai/observability/status",
        summary: "What happens now: everything that the page's table shows. Never fails.",
        query: &[],
        answer: Content::Json("Status"),
        failures: &[],
        handler: observability::status,
    },
];
