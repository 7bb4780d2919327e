//! Cameras change: made, altered, deleted, tried, switched on and off. Every change is stored and in
//! the desired state before it is answered.

use super::devices::{device, shown_now, streaming};
use super::message::{Answer, Detail, Failure, Request};
use super::query::Query;
use crate::camera_streams::{ROLES, altered, named, streams};
use crate::camera_url::{self, without_credentials};
use crate::config_rows::is_file;
use crate::media::probe::ProbeError;
use crate::services::Services;
use base::CameraId;
use ipc::ingest_message::StreamState;
use serde_json::{Map, Value, json};
use std::time::Duration;
use store::control::{Device, Source, Stream};

/// How long start and stop wait for ingest to follow (chosen: a camera in the same network answers in
/// a fraction of it).
const FOLLOW: Duration = Duration::from_secs(3);

/// POST /api/v1/devices
pub fn create(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let id: CameraId = uuid_id()?;
    let mut new = Device::new(id, Source::Api);
    // Spec V1: a camera is added first and started then.
    new.enabled = false;
    alter(&mut new, &keys(request))?;
    if new.streams.is_empty() {
        return Err(Failure::wrong("rtsp_url", "", "is required and missing"));
    }
    try_files(services, &new, &[], &keys(request))?;
    let row = services.change(|write| {
        refuse_taken(&new, &[], &write.devices()?)?;
        Ok::<Device, Failure>(write.put_device(new)?)
    })?;
    let location = format!("/api/v1/devices/{}", row.id);
    let mut answer = Answer::json_with(201, &shown_now(&row, services));
    answer.headers.push(("location", location));
    Ok(answer)
}

/// PUT /api/v1/devices/{id}
pub fn update(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let mut tried = device(services, request.captured(0))?;
    let (id, keys) = (tried.id.clone(), keys(request));
    let known = tried.streams.clone();
    if !tried.gone {
        alter(&mut tried, &keys)?;
        try_files(services, &tried, &known, &keys)?;
    }
    let row = services.change(|write| {
        // Read again: it may have changed meanwhile.
        let mut row = write.device(&id)?.ok_or_else(|| missing(&id))?;
        if row.gone {
            return Err(gone(&id));
        }
        let before = row.streams.clone();
        alter(&mut row, &keys)?;
        let was_tried = |stream: &Stream| {
            [&before, &tried.streams].iter().any(|streams| has_url(streams, &stream.url))
        };
        if row.streams.iter().any(|stream| is_file(&stream.url) && !was_tried(stream)) {
            let message =
                format!("camera `{id}` was changed by somebody else meanwhile; try again");
            return Err(Failure::new(409, message));
        }
        refuse_taken(&row, &before, &write.devices()?)?;
        Ok(write.put_device(row)?)
    })?;
    Ok(Answer::json(&shown_now(&row, services)))
}

/// DELETE /api/v1/devices/{id}
pub fn delete(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let id = device(services, request.captured(0))?.id;
    services.change(|write| {
        let row = write.device(&id)?.ok_or_else(|| missing(&id))?;
        if row.enabled && !row.gone {
            return Err(Failure::new(
                400,
                format!("camera `{id}` is active; stop it first with POST /api/v1/devices/{id}/stop-stream"),
            ));
        }
        if row.source == Source::Config && !row.gone {
            return Err(Failure::new(
                409,
                format!(
                    "camera `{id}` comes from the configuration file and would return at the next start; \
                     remove its [[camera]] there and restart serve"
                ),
            ));
        }
        write.delete_device(&id)?;
        Ok(())
    })?;
    Ok(Answer::nothing())
}

/// POST /api/v1/devices/validate
pub fn validate(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let id: CameraId = uuid_id()?;
    let mut tried = Device::new(id, Source::Api);
    alter(&mut tried, &keys(request))?;
    let Some(main) = tried.streams.first() else {
        return Err(Failure::wrong("rtsp_url", "", "is required and missing"));
    };
    let shown = without_credentials(&main.url);
    let found = match services.probes.ask(&main.url, &main.transport) {
        Ok(found) => found,
        Err(ProbeError::Unavailable(why)) => return Err(Failure::unavailable(why)),
        Err(ProbeError::Refused(why)) => {
            return Ok(Answer::json(&json!({
                "valid": false, "rtsp_url": shown, "message": null, "error": why, "stream": null,
            })));
        }
    };
    let message = match (found.codec.as_str(), found.size) {
        ("h265", _) => {
            "the camera answers with H.265: recording and models work, browsers need an H.264 stream".into()
        }
        (codec, Some((width, height))) if !codec.is_empty() => {
            format!("the camera answers with {codec} {width}x{height}")
        }
        _ => "the camera answers".to_owned(),
    };
    Ok(Answer::json(&json!({
        "valid": true,
        "rtsp_url": shown,
        "message": message,
        "error": null,
        "stream": {
            "codec": Some(&found.codec).filter(|codec| !codec.is_empty()),
            "width": found.size.map(|(width, _)| width),
            "height": found.size.map(|(_, height)| height),
            "fps": found.fps,
        },
    })))
}

/// POST /api/v1/devices/{id}/start-stream
pub fn start(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let (row, was) = switch(services, request, true)?;
    let settled = |view: &crate::ingest_link::StreamsView| {
        view.fault().is_some()
            || view.of(&row.id).any(|s| {
                matches!(
                    s.state,
                    StreamState::Live | StreamState::AuthFailed | StreamState::BackingOff
                )
            })
    };
    // A camera that nobody watches, records or decodes stays stopped: that is told, not waited for.
    let wanted = wanted(services, &row);
    let view = services.ingest.follow(FOLLOW, |view| !wanted || settled(view));
    let shown = streaming(&row, &view, None);
    Ok(Answer::json(&json!({
        "status": "success",
        "device_id": row.id.as_str(),
        "stream_id": row.id.as_str(),
        "room_id": row.id.as_str(),
        "whep_url": format!("/api/v1/devices/{}/whep", row.id),
        "stream": {
            "status": shown["state"],
            "message": shown["reason"],
            "started_at": shown["started_at"],
        },
        "reconnect": was,
    })))
}

/// POST /api/v1/devices/{id}/stop-stream
pub fn stop(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let (row, was) = switch(services, request, false)?;
    let stopped = |view: &crate::ingest_link::StreamsView| {
        view.of(&row.id).all(|s| s.state == StreamState::Stopped)
    };
    let view = services.ingest.follow(FOLLOW, |view| view.fault().is_some() || stopped(view));
    Ok(Answer::json(&json!({
        "status": "success",
        "device_id": row.id.as_str(),
        "stopped": view.fault().is_none() && stopped(&view),
        "message": view.fault().map(ToString::to_string),
        "was_active": was,
    })))
}

/// Whether anything is to be read from a camera at all.
fn wanted(services: &Services, row: &Device) -> bool {
    let published = services.published.get();
    let decoded = published
        .1
        .cameras
        .iter()
        .any(|c| c.id == row.id.as_str() && c.decode != ipc::desired::DecodeMode::Off);
    row.live || row.record || decoded
}

/// Sets whether a camera should run. Also says whether it was so before.
fn switch(services: &Services, request: &Request, on: bool) -> Result<(Device, bool), Failure> {
    let id = device(services, request.captured(0))?.id;
    services.change(|write| {
        let mut row = write.device(&id)?.ok_or_else(|| missing(&id))?;
        if row.gone {
            return Err(gone(&id));
        }
        let was = row.enabled;
        row.enabled = on;
        Ok((write.put_device(row)?, was))
    })
}

fn uuid_id() -> Result<CameraId, Failure> {
    let text = store::control::MediaId::random();
    text.as_str().parse().map_err(|_| Failure::new(500, "a new id can't be made"))
}

fn missing(id: &CameraId) -> Failure {
    Failure::not_found(format!("there is no camera `{id}`"))
}

fn gone(id: &CameraId) -> Failure {
    Failure::new(
        409,
        format!(
            "camera `{id}` is gone from the configuration file; put its [[camera]] back, or delete it here \
             and add it by this interface"
        ),
    )
}

fn keys(request: &Request) -> Map<String, Value> {
    request.body.as_object().cloned().unwrap_or_default()
}

/// The stream of the same name.
fn same_name<'s>(streams: &'s [Stream], name: &str) -> Option<&'s Stream> {
    streams.iter().find(|stream| stream.name == name)
}

fn has_url(streams: &[Stream], url: &str) -> bool {
    streams.iter().any(|stream| stream.url == url)
}

/// Tries the files that a camera is newly to be made of, in a process of its own: a file may lie
/// below the configured roots only, and has to be a clip. Those of before, and those that the
/// configuration itself names for the camera, are let be.
fn try_files(
    services: &Services,
    row: &Device,
    before: &[Stream],
    keys: &Map<String, Value>,
) -> Result<(), Failure> {
    let known = |stream: &Stream| {
        has_url(before, &stream.url) || services.published.named_files.has(&row.id, &stream.url)
    };
    for (at, stream) in row.streams.iter().enumerate() {
        if !is_file(&stream.url) || known(stream) {
            continue;
        }
        match services.probes.ask(&stream.url, &stream.transport) {
            Ok(_) => {}
            Err(ProbeError::Unavailable(why)) => return Err(Failure::unavailable(why)),
            Err(ProbeError::Refused(why)) => {
                return Err(Failure::wrong(&field_of(keys, at), &stream.url, why));
            }
        }
    }
    Ok(())
}

/// The field that names the address of a stream.
fn field_of(keys: &Map<String, Value>, at: usize) -> String {
    match (keys.contains_key("streams"), at) {
        (true, _) => format!("streams[{at}].url"),
        (false, 0) => "rtsp_url".to_owned(),
        (false, _) => "sub_url".to_owned(),
    }
}

/// Refuses streams that another camera has: a camera is asked for one session per stream. Streams
/// that were so before are let be: the configuration file may give one to two cameras.
fn refuse_taken(row: &Device, before: &[Stream], all: &[Device]) -> Result<(), Failure> {
    for stream in &row.streams {
        let Some(identity) = camera_url::identity(&stream.url) else { continue };
        let old = same_name(before, &stream.name).and_then(|old| camera_url::identity(&old.url));
        if old.as_ref() == Some(&identity) {
            continue;
        }
        let same = |other: &&Stream| camera_url::identity(&other.url).as_ref() == Some(&identity);
        if row.streams.iter().filter(same).count() > 1 {
            let shown = without_credentials(&stream.url);
            return Err(Failure::wrong("streams", &shown, "is the address of both streams"));
        }
        let others = all.iter().filter(|other| other.id != row.id && !other.gone);
        for other in others {
            if other.streams.iter().any(|s| same(&s)) {
                return Err(Failure::new(
                    400,
                    format!(
                        "address {} is already that of camera `{}`; change that one",
                        without_credentials(&stream.url),
                        other.id
                    ),
                ));
            }
        }
    }
    Ok(())
}

fn text<'k>(keys: &'k Map<String, Value>, name: &str) -> Option<&'k str> {
    keys.get(name).and_then(Value::as_str)
}

/// Sets what the keys name; the schema has been checked.
fn alter(row: &mut Device, keys: &Map<String, Value>) -> Result<(), Failure> {
    if let Some(name) = text(keys, "name") {
        row.name = name.to_owned();
    }
    let optional = |field: &mut Option<String>, name: &str| {
        if let Some(value) = keys.get(name) {
            *field = value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        }
    };
    optional(&mut row.description, "description");
    optional(&mut row.location, "location");
    let flag = |name: &str| keys.get(name).and_then(Value::as_bool);
    for (field, name) in [
        (&mut row.record, "record"),
        (&mut row.live, "live"),
        (&mut row.export, "export"),
        (&mut row.enabled, "enabled"),
    ] {
        *field = flag(name).unwrap_or(*field);
    }
    if let Some(active) = flag("is_active") {
        if flag("enabled").is_some_and(|enabled| enabled != active) {
            let message = "contradicts enabled, which means the same; leave one of them out";
            return Err(Failure::wrong("is_active", &active.to_string(), message));
        }
        row.enabled = active;
    }
    let before = std::mem::take(&mut row.streams);
    row.streams = new_streams(&before, keys)?;
    let mut details = Vec::new();
    for (at, stream) in row.streams.iter().enumerate() {
        // The configuration file takes more: a path with a space.
        if same_name(&before, &stream.name).is_some_and(|old| old.url == stream.url) {
            continue;
        }
        if let Err(message) = camera_url::check(&stream.url) {
            let shown = without_credentials(&stream.url);
            details.push(Detail::new(&field_of(keys, at), &shown, message));
        }
    }
    if details.is_empty() { Ok(()) } else { Err(Failure::invalid(details)) }
}

fn new_streams(before: &[Stream], keys: &Map<String, Value>) -> Result<Vec<Stream>, Failure> {
    let full =
        |url: &str| camera_url::with_stored(url, before.iter().map(|stream| stream.url.as_str()));
    let short = ["rtsp_url", "sub_url", "transport"];
    if let Some(given) = keys.get("streams").and_then(Value::as_array) {
        if let Some(name) = short.iter().find(|name| keys.contains_key(**name)) {
            return Err(Failure::wrong(
                name,
                "",
                "is not allowed beside streams, which says it too",
            ));
        }
        return listed(given, before, full);
    }
    if !short.iter().any(|name| keys.contains_key(*name)) {
        return Ok(before.to_vec());
    }
    let (main, sub) = (before.first(), before.get(1));
    let main_url = text(keys, "rtsp_url").map(full).or_else(|| main.map(|s| s.url.clone()));
    let sub_url = match keys.get("sub_url") {
        Some(value) => value.as_str().map(full),
        None => sub.map(|s| s.url.clone()),
    };
    let Some(main_url) = main_url else { return Ok(vec![]) };
    Ok(altered(before, &main_url, sub_url.as_deref(), text(keys, "transport"), None))
}

fn listed(
    given: &[Value],
    before: &[Stream],
    full: impl Fn(&str) -> String,
) -> Result<Vec<Stream>, Failure> {
    let of = |at: usize, key: &str| given.get(at).and_then(|s| s[key].as_str());
    for (at, name) in ["main", "sub"].into_iter().enumerate().take(given.len()) {
        let found = of(at, "name").unwrap_or("");
        if found != name {
            let message =
                format!("must be {name}: the main stream comes first, the sub stream second");
            return Err(Failure::wrong(&format!("streams[{at}].name"), found, message));
        }
    }
    let roles_of = |at: usize| -> Option<Vec<String>> {
        let roles = given.get(at)?["roles"].as_array()?;
        Some(roles.iter().filter_map(|role| role.as_str().map(str::to_owned)).collect())
    };
    let (main_url, sub_url) = (of(0, "url").unwrap_or(""), of(1, "url"));
    let sub_roles = roles_of(1).or_else(|| {
        // What the main stream leaves.
        let main = roles_of(0)?;
        let left = ROLES.iter().filter(|role| !main.iter().any(|m| m == *role));
        Some(left.map(|role| (*role).to_owned()).collect())
    });
    let defaults = streams(main_url, sub_url, None, sub_roles.as_deref());
    let made = defaults.into_iter().enumerate().map(|(at, stream)| {
        let roles = roles_of(at).unwrap_or(stream.roles);
        let old = same_name(before, &stream.name).map(|old| old.transport.as_str());
        let transport = of(at, "transport").or(old.filter(|transport| !transport.is_empty()));
        named(&stream.name, &full(&stream.url), transport, roles)
    });
    Ok(made.collect())
}
