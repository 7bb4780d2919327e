//! Schemas of snapshots and bookmarks.

use super::{
    Schema, count, flag, id, integer_between, list, number, object, one_of, or_null, plain_text,
    reference, request, text, time, word,
};
use crate::http::bookmarks::SECONDS_MAX;

const UUID: &str = "019c13b8-1c00-7b00-8000-00019e370001";

/// The named schemas.
pub fn named() -> Vec<(&'static str, Schema)> {
    let label = || or_null(plain_text(0, 255, "parcel"));
    let duration = || integer_between(1, SECONDS_MAX);
    let taken = |key, name| object(&[("status", one_of(&["success"])), (key, reference(name))]);
    vec![
        ("Snapshot", snapshot()),
        ("SnapshotTaken", taken("snapshot", "Snapshot")),
        ("SnapshotLive", request(&[], &[("protected", flag())])),
        (
            "SnapshotMoment",
            request(&["timestamp"], &[("timestamp", time()), ("protected", flag())]),
        ),
        ("SnapshotChange", request(&[], &[("protected", flag())])),
        (
            "SnapshotList",
            object(&[
                ("status", one_of(&["success"])),
                ("count", count(1)),
                ("total", count(1)),
                ("snapshots", list(reference("Snapshot"))),
            ]),
        ),
        ("Bookmark", bookmark()),
        ("BookmarkTaken", taken("bookmark", "Bookmark")),
        (
            "BookmarkLive",
            request(&[], &[("label", label()), ("duration", duration()), ("protected", flag())]),
        ),
        (
            "BookmarkWindow",
            request(
                &[],
                &[
                    ("center_timestamp", time()),
                    ("duration", duration()),
                    ("start_timestamp", time()),
                    ("end_timestamp", time()),
                    ("start", time()),
                    ("end", time()),
                    ("label", label()),
                    ("protected", flag()),
                ],
            ),
        ),
        ("BookmarkChange", request(&[], &[("label", label()), ("protected", flag())])),
        (
            "BookmarkList",
            object(&[
                ("bookmarks", list(reference("Bookmark"))),
                ("total", count(1)),
                ("page", count(1)),
                ("page_size", count(100)),
            ]),
        ),
    ]
}

fn snapshot() -> Schema {
    object(&[
        ("id", word(UUID)),
        ("device_id", id()),
        ("device_name", or_null(word("Front door"))),
        ("timestamp", time()),
        ("source", one_of(&["live", "historical"])),
        ("format", one_of(&["jpg"])),
        ("width", count(1280)),
        ("height", count(720)),
        ("file_size", count(81_920)),
        ("protected", flag()),
        ("url", word("/api/v1/snapshots/019c13b8-1c00-7b00-8000-00019e370001/image")),
        ("created_at", time()),
    ])
}

fn bookmark() -> Schema {
    object(&[
        ("id", word(UUID)),
        ("device_id", id()),
        ("device_name", or_null(word("Front door"))),
        ("center_timestamp", time()),
        ("start_timestamp", time()),
        ("end_timestamp", time()),
        ("label", or_null(word("parcel"))),
        ("protected", flag()),
        ("source", one_of(&["live", "historical"])),
        ("state", one_of(&["done", "pending", "running", "failed"])),
        ("failure_reason", or_null(text())),
        ("duration", number(6.0)),
        ("gaps_ms", count(0)),
        ("video_format", one_of(&["mp4"])),
        ("file_size", or_null(count(1_500_000))),
        (
            "video_url",
            or_null(word("/api/v1/bookmarks/019c13b8-1c00-7b00-8000-00019e370001/video")),
        ),
        ("thumbnail_url", or_null(text())),
        ("created_at", time()),
        ("updated_at", or_null(time())),
    ])
}
