//! Routes of cameras: made, changed, watched, and how their streams do.

use super::{Content, DELETE, GET, POST, PUT, Parameter, Route};
use crate::http::payload::Payload;
use crate::http::schemas;
use crate::http::{cameras, devices, streams, whep};
use crate::slots::Kind;

/// How many entries to leave out.
pub const SKIP: Parameter = Parameter {
    name: "skip",
    description: "Entries to leave out first.",
    schema: || schemas::integer_between(0, u64::from(u32::MAX)),
    example: "0",
};
const STREAM: Parameter = Parameter {
    name: "stream",
    description: "Which of the camera's streams.",
    schema: schemas::stream_name,
    example: "main",
};

/// Routes of cameras.
pub static ROUTES: &[Route] = &[
    Route {
        path: "/api/v1/devices",
        summary: "Cameras, by id. Addresses are shown without credentials.",
        query: &[SKIP, super::LIMIT],
        answer: Content::JsonList("Device"),
        failures: &[503],
        handler: devices::list,
        ..GET
    },
    Route {
        path: "/api/v1/devices/{id}",
        summary: "One camera.",
        query: &[],
        answer: Content::Json("Device"),
        failures: &[404, 503],
        handler: devices::one,
        ..GET
    },
    Route {
        status: 201,
        payload: Payload::Json("DeviceNew"),
        path: "/api/v1/devices",
        summary: "Adds a camera. It stands still until it is started, unless enabled is true. 400 when a camera has the address already.",
        answer: Content::Json("Device"),
        failures: &[400, 503],
        handler: cameras::create,
        ..POST
    },
    Route {
        payload: Payload::Json("DeviceChange"),
        path: "/api/v1/devices/{id}",
        summary: "Changes what the body names. An address with *** keeps the stored credentials. What the configuration file names returns at the next start.",
        answer: Content::Json("Device"),
        failures: &[400, 404, 409, 503],
        handler: cameras::update,
        ..PUT
    },
    Route {
        path: "/api/v1/devices/{id}",
        summary: "Deletes a camera that is stopped, with its assignments. Events, recordings, snapshots and bookmarks stay.",
        failures: &[400, 404, 409, 503],
        handler: cameras::delete,
        ..DELETE
    },
    Route {
        payload: Payload::Json("DeviceProbe"),
        path: "/api/v1/devices/validate",
        summary: "Tries an address and stores nothing. Takes up to 12 s.",
        answer: Content::Json("Validation"),
        failures: &[503],
        kind: Kind::Probe,
        handler: cameras::validate,
        ..POST
    },
    Route {
        path: "/api/v1/devices/{id}/status",
        summary: "A camera and what its streams do.",
        answer: Content::Json("DeviceStatus"),
        failures: &[404, 503],
        handler: devices::status,
        ..GET
    },
    Route {
        path: "/api/v1/devices/{id}/start-stream",
        summary: "Starts a camera, and says how far it came within 3 s.",
        answer: Content::Json("StreamStart"),
        failures: &[404, 409, 503],
        handler: cameras::start,
        ..POST
    },
    Route {
        path: "/api/v1/devices/{id}/stop-stream",
        summary: "Stops a camera: no session, no recording, no viewers.",
        answer: Content::Json("StreamStop"),
        failures: &[404, 409, 503],
        handler: cameras::stop,
        ..POST
    },
    Route {
        status: 201,
        payload: Payload::Sdp,
        path: "/api/v1/devices/{id}/whep",
        summary: "Live view: the SDP offer of a browser, answered. WHEP.",
        query: &[STREAM],
        answer: Content::Sdp,
        failures: &[400, 404, 406, 409, 413, 503],
        kind: Kind::Offer,
        handler: whep::offer,
        ..POST
    },
    Route {
        path: "/api/v1/devices/{id}/whep/{session}",
        summary: "Ends a viewer.",
        failures: &[404, 503],
        kind: Kind::Call,
        handler: whep::close,
        ..DELETE
    },
    Route {
        path: "/api/v1/streams",
        summary: "Every configured stream with what it does now, at most a second old.",
        query: &[super::CAMERA],
        answer: Content::Json("StreamList"),
        failures: &[503],
        handler: streams::list,
        ..GET
    },
    Route {
        path: "/api/v1/rtsp/streams",
        summary: "Cameras of which a stream is live.",
        answer: Content::Json("ActiveStreams"),
        failures: &[503],
        handler: streams::active,
        ..GET
    },
    Route {
        path: "/api/v1/rtsp/streams/{id}/health",
        summary: "Whether a stream of a camera is live, else why not.",
        query: &[STREAM],
        answer: Content::Json("StreamHealth"),
        failures: &[404, 503],
        handler: streams::health,
        ..GET
    },
    Route {
        path: "/api/v1/rtsp/streams/{id}/stats",
        summary: "Measured figures and counters of a stream.",
        query: &[STREAM],
        answer: Content::Json("StreamStats"),
        failures: &[404, 503],
        handler: streams::stats,
        ..GET
    },
    Route {
        path: "/api/v1/rtsp/streams/{id}/reconnect",
        summary: "Drops the sessions to a camera and connects at once.",
        answer: Content::Json("Reconnected"),
        failures: &[404, 409, 503],
        kind: Kind::Call,
        handler: streams::reconnect,
        ..POST
    },
    Route {
        path: "/api/devices",
        summary: "As /api/v1/devices, for clients of the first interface.",
        query: &[SKIP, super::LIMIT],
        answer: Content::JsonList("Device"),
        failures: &[503],
        handler: devices::list,
        ..GET
    },
    Route {
        path: "/api/devices/{id}",
        summary: "As /api/v1/devices/{id}.",
        answer: Content::Json("Device"),
        failures: &[404, 503],
        handler: devices::one,
        ..GET
    },
    Route {
        path: "/api/devices/{id}/stream",
        summary: "As /api/v1/devices/{id}/start-stream.",
        answer: Content::Json("StreamStart"),
        failures: &[404, 409, 503],
        handler: cameras::start,
        ..POST
    },
    Route {
        status: 200,
        path: "/api/devices/{id}/stream",
        summary: "As /api/v1/devices/{id}/stop-stream.",
        answer: Content::Json("StreamStop"),
        failures: &[404, 409, 503],
        handler: cameras::stop,
        ..DELETE
    },
    Route {
        path: "/api/streams",
        summary: "As /api/v1/streams.",
        query: &[super::CAMERA],
        answer: Content::Json("StreamList"),
        failures: &[503],
        handler: streams::list,
        ..GET
    },
];
