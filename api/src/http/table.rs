//! Every route: path, handler, and what its documentation says.

use super::message::{Answer, Failure, Request};
use super::payload::Payload;
use super::schemas::{self, Schema};
use super::{assignments, devices, events, health, models, observability, openapi, page};
use crate::services::Services;
use crate::slots::Kind;

mod cameras;
mod media;
mod recordings;

/// One route.
pub struct Route {
    /// Method.
    pub verb: Verb,
    /// Status of an answer that is not an error, which files may make 206.
    pub status: u16,
    /// What the body of the request holds.
    pub payload: Payload,
    /// Path, placeholders as `{name}`.
    pub path: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Query parameters; any other is refused.
    pub query: &'static [Parameter],
    /// What such an answer brings.
    pub answer: Content,
    /// What its handler needs.
    pub kind: Kind,
    /// Statuses besides `status`, 405 and 422.
    pub failures: &'static [u16],
    /// The handler.
    pub handler: fn(&Services, &Request) -> Result<Answer, Failure>,
}

/// Methods that routes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Also answers HEAD.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
}

impl Verb {
    /// As OpenAPI writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::Post => "post",
            Verb::Put => "put",
            Verb::Delete => "delete",
        }
    }
}

/// What routes share that say nothing else.
pub const GET: Route = Route {
    verb: Verb::Get,
    status: 200,
    payload: Payload::None,
    path: "",
    summary: "",
    query: &[],
    answer: Content::Nothing,
    kind: Kind::Quick,
    failures: &[],
    handler: nowhere,
};
/// As [`GET`].
pub const POST: Route = Route { verb: Verb::Post, ..GET };
/// As [`GET`].
pub const PUT: Route = Route { verb: Verb::Put, ..GET };
/// As [`GET`], answered with 204.
pub const DELETE: Route = Route { verb: Verb::Delete, status: 204, ..GET };

fn nowhere(_: &Services, _: &Request) -> Result<Answer, Failure> {
    Err(Failure::new(501, "this route has no handler"))
}

/// Every route there is.
pub fn routes() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().chain(cameras::ROUTES).chain(media::ROUTES).chain(recordings::ROUTES)
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
    /// A frame of a camera, JPEG, with headers that name it.
    Jpeg,
    /// A file of this media type; ranges are honoured.
    File(&'static str),
    /// The answer to an SDP offer.
    Sdp,
    /// Nothing.
    Nothing,
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

/// Routes that only read what serve knows.
pub static ROUTES: &[Route] = &[
    Route {
        path: "/",
        summary: "A page with the live table and every camera's newest picture and detections.",
        query: &[],
        answer: Content::Html,
        failures: &[],
        kind: Kind::Immediate,
        handler: page::page,
        ..GET
    },
    Route {
        path: "/whep.js",
        summary: "The player of live view: watch(video, camera, {state, picture}).",
        answer: Content::File("text/javascript"),
        kind: Kind::Immediate,
        handler: page::player,
        ..GET
    },
    Route {
        path: "/health",
        summary: "Whether serve answers.",
        query: &[],
        answer: Content::Json("Health"),
        failures: &[],
        kind: Kind::Immediate,
        handler: health::simple,
        ..GET
    },
    Route {
        path: "/health/detailed",
        summary: "The state of what serve depends on.",
        query: &[],
        answer: Content::Json("HealthDetailed"),
        failures: &[],
        handler: health::detailed,
        ..GET
    },
    Route {
        path: "/openapi.json",
        summary: "This document.",
        query: &[],
        answer: Content::Document,
        failures: &[],
        handler: openapi::document,
        ..GET
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
        kind: Kind::Picture,
        handler: devices::frame,
        ..GET
    },
    Route {
        path: "/api/v1/ai-models",
        summary: "Models, the newest first.",
        query: &[ENABLED],
        answer: Content::Json("ModelList"),
        failures: &[503],
        handler: models::list,
        ..GET
    },
    Route {
        path: "/api/v1/ai-models/{model_id}",
        summary: "One model.",
        query: &[],
        answer: Content::Json("Model"),
        failures: &[404, 503],
        handler: models::one,
        ..GET
    },
    Route {
        path: "/api/v1/ai-model-assignments",
        summary: "Assignments of models to cameras, the newest first.",
        query: &[CAMERA, MODEL, ENABLED, LIMIT, OFFSET],
        answer: Content::Json("AssignmentList"),
        failures: &[503],
        handler: assignments::list,
        ..GET
    },
    Route {
        path: "/api/v1/ai-model-assignments/{id}",
        summary: "One assignment.",
        query: &[],
        answer: Content::Json("Assignment"),
        failures: &[404, 503],
        handler: assignments::one,
        ..GET
    },
    Route {
        path: "/api/v1/ai-events",
        summary: "Stored events, newest first by (timestamp, id).",
        query: &[CAMERA, MODEL, START, END, CLASS_ID, CLASS, LIMIT, EVENT_OFFSET, CURSOR],
        answer: Content::Json("EventList"),
        failures: &[503],
        kind: Kind::List,
        handler: events::list,
        ..GET
    },
    Route {
        path: "/api/v1/ai-events/{id}",
        summary: "One event.",
        query: &[],
        answer: Content::Json("Event"),
        failures: &[404, 503],
        handler: events::one,
        ..GET
    },
    Route {
        path: "/api/v1/ai-events/cameras/{camera_id}/events",
        summary: "Stored events of one camera, newest first by (timestamp, id).",
        query: &[MODEL, START, END, CLASS_ID, CLASS, LIMIT, EVENT_OFFSET, CURSOR],
        answer: Content::Json("EventList"),
        failures: &[404, 503],
        kind: Kind::List,
        handler: events::of_camera,
        ..GET
    },
    Route {
        path: "/ai/observability/health",
        summary: "Health per camera and model: healthy, degraded or unknown. Never fails.",
        query: &[],
        answer: Content::Json("ObservabilityHealth"),
        failures: &[],
        handler: observability::health,
        ..GET
    },
    Route {
        path: "/ai/observability/status",
        summary: "What happens now: everything that the page's table shows. Never fails.",
        query: &[],
        answer: Content::Json("Status"),
        failures: &[],
        handler: observability::status,
        ..GET
    },
];
