//! Shared memory that is too small for all cameras.

use crate::node::{Place, Process};
use serde_json::Value;
use std::process::Command;

/// Mounts a tmpfs of this size over a directory, in a namespace of its own.
fn on_small_tmpfs(directory: &str, megabytes: u32, command: &str) -> String {
    format!(
        "unshare --mount sh -c 'mount -t tmpfs -o size={megabytes}m none {directory} && exec {command}'"
    )
}

#[test]
fn full_shared_memory_turns_that_camera_off_and_the_rest_goes_on() {
    let may = Command::new("unshare").args(["--mount", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        println!("skipped: this user may not make a mount namespace");
        return;
    }
    let place = Place::with_people();
    let directory = place.shm.path().to_str().unwrap().to_owned();
    // A ring of 768x576 at 10 fps has nine slots of 0.66 MB: one fits.
    let vas = format!("{} up --config {}", env!("CARGO_BIN_EXE_vas"), place.config_text());
    let mut up = Process::shell(&on_small_tmpfs(&directory, 8, &vas));
    up.wait_for("the node runs: http://");
    let off = |status: &Value| -> Option<String> {
        let cameras = status["cameras"].as_array()?;
        let absent = cameras.iter().find(|c| c["absent"] == "no_ring")?;
        Some(absent["id"].as_str()?.to_owned())
    };
    let results = |status: &Value, camera: &str| -> u64 {
        let subscriptions = status["subscriptions"].as_array().map_or(&[][..], Vec::as_slice);
        let of = subscriptions.iter().find(|s| s["camera_id"] == camera);
        of.and_then(|s| s["results"].as_u64()).unwrap_or(0)
    };
    let text = place.get_until("/ai/observability/status", |body| {
        let status: Value = serde_json::from_str(body).unwrap_or_default();
        let other = match off(&status).as_deref() {
            Some("one") => "two",
            Some("two") => "one",
            _ => return false,
        };
        results(&status, other) >= 5
    });
    let camera = off(&serde_json::from_str(&text).unwrap()).unwrap();
    let line = up.wait_for("frame export is off: no room for ");
    assert!(line.contains(&camera) && line.contains(&directory), "{line}");
    assert!(line.contains("bytes wanted") && line.contains("enlarge the file system"), "{line}");
    assert!(up.stop().success());
    place.assert_nothing_left();
}
