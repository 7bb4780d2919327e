//! Routes of snapshots and bookmarks.

use super::cameras::SKIP;
use super::{Content, DELETE, GET, POST, PUT, Parameter, Route};
use crate::http::payload::Payload;
use crate::http::schemas;
use crate::http::{bookmarks, snapshots};
use crate::slots::Kind;

const DEVICE: Parameter = Parameter {
    name: "device_id",
    description: "Only of this camera, also when it is deleted.",
    schema: schemas::id,
    example: "front-door",
};
const LIMIT: Parameter = Parameter {
    name: "limit",
    description: "Most entries of the answer; 100 unless given.",
    schema: || schemas::integer_between(1, 500),
    example: "100",
};

/// Routes of snapshots and bookmarks.
pub static ROUTES: &[Route] = &[
    Route {
        payload: Payload::JsonOptional("SnapshotLive"),
        path: "/api/v1/snapshots/devices/{id}/capture/live",
        summary: "Keeps the picture that the camera shows now. No session to the camera is opened for it. 507 when there is no room for it.",
        answer: Content::Json("SnapshotTaken"),
        failures: &[404, 409, 500, 503, 507],
        kind: Kind::Capture,
        handler: snapshots::capture_live,
        ..POST
    },
    Route {
        payload: Payload::Json("SnapshotMoment"),
        path: "/api/v1/snapshots/devices/{id}/capture/historical",
        summary: "Keeps the picture that was shown at a moment, from the recording. 404 names the nearest recorded time.",
        answer: Content::Json("SnapshotTaken"),
        failures: &[404, 500, 503, 507],
        kind: Kind::Capture,
        handler: snapshots::capture_historical,
        ..POST
    },
    Route {
        path: "/api/v1/snapshots",
        summary: "Snapshots, the newest first.",
        query: &[DEVICE, SKIP, super::LIMIT],
        answer: Content::Json("SnapshotList"),
        failures: &[503],
        kind: Kind::List,
        handler: snapshots::list,
        ..GET
    },
    Route {
        path: "/api/v1/snapshots/{id}",
        summary: "One snapshot.",
        answer: Content::Json("Snapshot"),
        failures: &[404, 503],
        handler: snapshots::one,
        ..GET
    },
    Route {
        path: "/api/v1/snapshots/{id}/image",
        summary: "Its picture.",
        answer: Content::File("image/jpeg"),
        failures: &[404, 410, 416, 503],
        handler: snapshots::image,
        ..GET
    },
    Route {
        payload: Payload::Json("SnapshotChange"),
        path: "/api/v1/snapshots/{id}",
        summary: "Protects a snapshot from retention, or not any more.",
        answer: Content::Json("Snapshot"),
        failures: &[404, 503],
        handler: snapshots::update,
        ..PUT
    },
    Route {
        path: "/api/v1/snapshots/{id}",
        summary: "Deletes a snapshot and its file.",
        failures: &[404, 503],
        handler: snapshots::delete,
        ..DELETE
    },
    Route {
        status: 202,
        payload: Payload::JsonOptional("BookmarkLive"),
        path: "/api/v1/bookmarks/devices/{id}/capture/live",
        summary: "Has a clip of the last seconds cut from the recording. 409 when the camera is not recorded. Answered before the clip is there: state says how far it is.",
        answer: Content::Json("BookmarkTaken"),
        failures: &[404, 409, 503, 507],
        handler: bookmarks::capture_live,
        ..POST
    },
    Route {
        status: 202,
        payload: Payload::Json("BookmarkWindow"),
        path: "/api/v1/bookmarks/devices/{id}/capture/historical",
        summary: "Has a clip of any window up to an hour cut from the recording, as the live one.",
        answer: Content::Json("BookmarkTaken"),
        failures: &[404, 503, 507],
        handler: bookmarks::capture_historical,
        ..POST
    },
    Route {
        path: "/api/v1/bookmarks",
        summary: "Bookmarks, the newest first.",
        query: &[DEVICE, SKIP, LIMIT],
        answer: Content::Json("BookmarkList"),
        failures: &[503],
        kind: Kind::List,
        handler: bookmarks::list,
        ..GET
    },
    Route {
        path: "/api/v1/bookmarks/{id}",
        summary: "One bookmark.",
        answer: Content::Json("Bookmark"),
        failures: &[404, 503],
        handler: bookmarks::one,
        ..GET
    },
    Route {
        payload: Payload::Json("BookmarkChange"),
        path: "/api/v1/bookmarks/{id}",
        summary: "Changes the label, and whether retention may remove it.",
        answer: Content::Json("Bookmark"),
        failures: &[404, 503],
        handler: bookmarks::update,
        ..PUT
    },
    Route {
        path: "/api/v1/bookmarks/{id}",
        summary: "Deletes a bookmark and its files.",
        failures: &[404, 503],
        handler: bookmarks::delete,
        ..DELETE
    },
    Route {
        path: "/api/v1/bookmarks/{id}/video",
        summary: "Its clip. 409 until it is cut.",
        answer: Content::File("video/mp4"),
        failures: &[404, 409, 410, 416, 503],
        handler: bookmarks::video,
        ..GET
    },
    Route {
        path: "/api/v1/bookmarks/{id}/thumbnail",
        summary: "A picture of its middle.",
        answer: Content::File("image/jpeg"),
        failures: &[404, 409, 410, 416, 503],
        handler: bookmarks::thumbnail,
        ..GET
    },
];
