//! Live view: offers of browsers (WHEP) and their end, relayed to ingest, which holds the viewers.

use super::devices::device;
use super::message::{Answer, Body, Failure, Request};
use super::query::Query;
use super::streams::{refused, stream_name};
use crate::limits::OFFER_BYTES_MAX;
use crate::services::Services;
use ipc::ingest_message::Request as Ask;

/// POST /api/v1/devices/{id}/whep
pub fn offer(services: &Services, request: &Request) -> Result<Answer, Failure> {
    let mut query = Query::of(request);
    let stream = stream_name(&mut query).unwrap_or_default();
    query.finish()?;
    let device = device(services, request.captured(0))?;
    let bytes = request.sdp.len();
    if bytes > OFFER_BYTES_MAX {
        let message = format!("offer has {bytes} bytes, allowed are {OFFER_BYTES_MAX}");
        return Err(Failure::new(413, message));
    }
    if !device.enabled || device.gone {
        return Err(Failure::new(
            409,
            format!(
                "camera `{0}` is stopped; start it with POST /api/v1/devices/{0}/start-stream",
                device.id
            ),
        ));
    }
    if !device.live {
        return Err(Failure::new(
            409,
            format!(
                "live view of camera `{0}` is off; set live to true with PUT /api/v1/devices/{0}",
                device.id
            ),
        ));
    }
    let camera = device.id.clone();
    let answer = services.ingest.call(&Ask::Offer { camera, stream, sdp: request.sdp.clone() })?;
    if !(200..300).contains(&answer.status) {
        return Err(refused(&answer));
    }
    let session =
        percent_encoding::utf8_percent_encode(&answer.session, percent_encoding::NON_ALPHANUMERIC);
    let location = format!("/api/v1/devices/{}/whep/{session}", device.id);
    Ok(Answer {
        status: 201,
        content_type: "application/sdp",
        headers: vec![
            ("location", location),
            ("x-media-origin", answer.media_origin.0.to_string()),
        ],
        body: Body::Owned(answer.sdp.into_bytes()),
    })
}

/// DELETE /api/v1/devices/{id}/whep/{session}
pub fn close(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let missing = || {
        let (camera, session) = (request.captured(0), request.captured(1));
        Failure::not_found(format!("camera `{camera}` has no viewer `{session}`"))
    };
    // The camera may be deleted already; its viewers end with it.
    let camera = request.captured(0).parse().map_err(|_| missing())?;
    let session = request.captured(1).to_owned();
    let answer = services.ingest.call(&Ask::Close { camera, session })?;
    match answer.status {
        200..300 => Ok(Answer::nothing()),
        404 => Err(missing()),
        _ => Err(refused(&answer)),
    }
}
