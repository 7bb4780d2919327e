//! The live table and the summary, as text.

use super::status::{Runner, Status, Store, Subscription};
use base::Stages;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Frames that were never bound, in the order of the ledger.
const UNBOUND: [&str; 8] = [
    "gated",
    "superseded",
    "unserved_parked",
    "unserved_no_runner",
    "unserved_paused",
    "unserved_gap",
    "expired",
    "crowded",
];
/// Frames that were bound and gave no result.
const LOST: [&str; 9] = [
    "torn",
    "error_frame",
    "error_engine",
    "error_postprocess",
    "error_parameters",
    "error_request",
    "revoked",
    "expired_late",
    "lost_with_runner",
];

/// What happens now: a line per assignment and per runner.
pub fn table(status: &Status, since: Duration, ended: &[&str]) -> String {
    let mut text = String::new();
    line(
        &mut text,
        format_args!(
            "{:<14} {:<16} {:>6} {:>7} {:>5} {:>8} {:>8} {:>9} {:>9}  {}",
            "camera",
            "model",
            "fps",
            "granted",
            "max",
            "results",
            "persons",
            "age p50",
            "age p99",
            "state"
        ),
    );
    for subscription in &status.subscriptions {
        line(&mut text, format_args!("{}", row(status, subscription)));
    }
    for camera in &status.cameras {
        let watched = |s: &Subscription| s.camera_id.as_deref() == Some(camera.id.as_str());
        if !status.subscriptions.iter().any(watched) {
            let reason = camera.decode_reason.as_deref().unwrap_or(&camera.state);
            line(&mut text, format_args!("{:<14} {:<16} {reason}", camera.id, "no assignment"));
        }
    }
    for runner in &status.runners {
        line(
            &mut text,
            format_args!(
                "runner {} on {}: {}, {} batches, {} frames per batch, execute {} ms",
                runner.model_id,
                runner.device,
                runner.state,
                runner.batches,
                number(runner.mean_batch, 2),
                number(stage(&runner.stages, "execute"), 1),
            ),
        );
    }
    if let Some(reason) = &status.scheduler.reason {
        line(&mut text, format_args!("scheduler: {reason}"));
    }
    if !ended.is_empty() {
        line(&mut text, format_args!("ended: {}", ended.join(", ")));
    }
    line(
        &mut text,
        format_args!(
            "{} s, {} events stored{}",
            since.as_secs(),
            status.store.stored,
            not_stored(&status.store)
        ),
    );
    text
}

fn row(status: &Status, subscription: &Subscription) -> String {
    let id = subscription.camera_id.as_deref().unwrap_or("?");
    let camera = status.cameras.iter().find(|camera| camera.id == id);
    let max = subscription.max_fps.map_or("all".to_owned(), |fps| format!("{fps}"));
    let state = match &subscription.reason {
        Some(reason) if subscription.state != "active" => {
            format!("{}: {reason}", subscription.state)
        }
        Some(reason) => format!("{} ({reason})", subscription.state),
        None => subscription.state.clone(),
    };
    format!(
        "{id:<14} {:<16} {:>6} {:>7} {max:>5} {:>8} {:>8} {:>9} {:>9}  {state}",
        subscription.model_id.as_deref().unwrap_or("?"),
        number(camera.and_then(|camera| camera.fps), 1),
        number(subscription.granted_fps, 1),
        subscription.results,
        number(per_result(subscription), 2),
        milliseconds(subscription.age.p50_ms),
        milliseconds(subscription.age.p99_ms),
    )
}

/// The whole run: per assignment where every frame went and what was found, per runner what it did.
pub fn summary(status: &Status, since: Duration) -> String {
    let mut text = String::new();
    let seconds = since.as_secs_f64();
    line(&mut text, format_args!("\nsummary after {seconds:.1} s (ledgers are up to 1 s older)"));
    for subscription in &status.subscriptions {
        summarise(&mut text, status, subscription);
    }
    for runner in &status.runners {
        summarise_runner(&mut text, runner);
    }
    line(
        &mut text,
        format_args!("store: {} events{}", status.store.stored, not_stored(&status.store)),
    );
    text
}

fn not_stored(store: &Store) -> String {
    let failing = if store.failing { ", THE STORE FAILS" } else { "" };
    format!(", {} dropped, {} lost{failing}", store.dropped, store.lost())
}

fn summarise(text: &mut String, status: &Status, subscription: &Subscription) {
    let id = subscription.camera_id.as_deref().unwrap_or("?");
    let model = subscription.model_id.as_deref().unwrap_or("?");
    let camera = status.cameras.iter().find(|camera| camera.id == id);
    let (observed, state) = (subscription.count("observed"), &subscription.state);
    match &subscription.parent_model_id {
        Some(parent) => line(
            text,
            format_args!("camera {id}: {observed} detections of {parent}, model {model} {state}"),
        ),
        None => {
            let fps = number(camera.and_then(|camera| camera.fps), 2);
            line(
                text,
                format_args!(
                    "camera {id}: {observed} frames seen at {fps} fps, model {model} {state}"
                ),
            );
        }
    }
    if let Some(reason) = &subscription.reason {
        line(text, format_args!("  reason: {reason}"));
    }
    let counts = |words: &[&str]| {
        let counts = words.iter().map(|word| (word, subscription.count(word)));
        let counts = counts.filter(|(_, n)| *n > 0);
        counts.map(|(word, n)| format!(", {word} {n}")).collect::<String>()
    };
    let balanced = subscription.ledger.as_ref().and_then(|l| l.get("balanced"));
    let sums = match balanced.and_then(serde_json::Value::as_bool) {
        Some(true) => "the sums agree",
        Some(false) => "THE SUMS DO NOT AGREE",
        None => "no ledger",
    };
    line(
        text,
        format_args!(
            "  ledger: bound {}{}{}; of these sampled {}{}{}; {sums}",
            subscription.count("bound"),
            counts(&UNBOUND),
            counts(&["pending"]),
            subscription.count("sampled"),
            counts(&LOST),
            counts(&["in_flight"]),
        ),
    );
    line(
        text,
        format_args!(
            "  {} results, {} persons per {}, age p50 {} p99 {}, granted {} of {} fps",
            subscription.results,
            number(per_result(subscription), 2),
            if subscription.parent_model_id.is_some() { "detection" } else { "frame" },
            milliseconds(subscription.age.p50_ms),
            milliseconds(subscription.age.p99_ms),
            number(subscription.granted_fps, 2),
            subscription.max_fps.map_or("all".to_owned(), |fps| format!("{fps}")),
        ),
    );
    stages(text, &subscription.stages);
}

fn summarise_runner(text: &mut String, runner: &Runner) {
    line(
        text,
        format_args!(
            "runner {} on {} ({}): {} batches, {} frames, mean size {}",
            runner.model_id,
            runner.device,
            runner.state,
            runner.batches,
            runner.members,
            number(runner.mean_batch, 2),
        ),
    );
    stages(text, &runner.stages);
}

fn stages(text: &mut String, stages: &Option<BTreeMap<String, serde_json::Value>>) {
    if stages.is_none() {
        return;
    }
    let shown = Stages::NAMES.map(|name| format!("{name} {}", number(stage(stages, name), 2)));
    line(text, format_args!("  ms per stage: {}", shown.join(", ")));
}

/// A stage's milliseconds, under its plain name or with the unit in it.
fn stage(stages: &Option<BTreeMap<String, serde_json::Value>>, name: &str) -> Option<f64> {
    let stages = stages.as_ref()?;
    stages.get(name).or_else(|| stages.get(&format!("{name}_ms")))?.as_f64()
}

fn per_result(subscription: &Subscription) -> Option<f64> {
    let results = subscription.results;
    (results > 0).then(|| subscription.persons() as f64 / results as f64)
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.decimals$}"))
}

fn milliseconds(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.1} ms"))
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string");
    text.push('\n');
}

#[cfg(test)]
mod tests;
