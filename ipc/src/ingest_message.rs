//! Messages between serve and ingest over `ingest.sock`: `schema/ingest.fbs` as plain types, and
//! the blocking call that serve makes.
//!
//! Ingest listens; a client sends a [`Request`] and waits for its [`Answer`], one at a time on a
//! connection. Statuses are those of HTTP, so that serve can pass an answer on as it is.

use crate::desired::Version;
use crate::framing;
use crate::generated::vas::wire as fb;
use crate::runner_message::Encoder;
use crate::wire::{self, WireError};
use base::{CameraId, Epoch, MediaTime, Size, UtcNanos};
use flatbuffers::{FlatBufferBuilder, WIPOffset};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// State and counters of every stream.
    Status,
    /// A viewer's SDP offer.
    Offer {
        /// The camera.
        camera: CameraId,
        /// `main` or `sub`; empty = the one for live view.
        stream: String,
        /// The offer.
        sdp: String,
    },
    /// Ends a viewer.
    Close {
        /// The camera it watches.
        camera: CameraId,
        /// Its session.
        session: String,
    },
    /// The newest cached group of pictures.
    Pictures {
        /// The camera.
        camera: CameraId,
        /// `main` or `sub`; empty = the one for live view.
        stream: String,
    },
    /// Drops the sessions to a camera and connects at once.
    Reconnect {
        /// The camera.
        camera: CameraId,
    },
}

/// What a stream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StreamState {
    /// Nobody wants it, or it is disabled.
    #[default]
    Stopped,
    /// A session is being opened.
    Connecting,
    /// Access units come.
    Live,
    /// The session is open, and nothing comes.
    Stalled,
    /// The camera refused the credentials.
    AuthFailed,
    /// It failed and is tried again.
    BackingOff,
}

impl StreamState {
    /// The word that people see.
    pub const fn as_str(self) -> &'static str {
        match self {
            StreamState::Stopped => "stopped",
            StreamState::Connecting => "connecting",
            StreamState::Live => "live",
            StreamState::Stalled => "stalled",
            StreamState::AuthFailed => "auth_failed",
            StreamState::BackingOff => "backing_off",
        }
    }
}

/// One configured stream of a camera.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamStatus {
    /// The camera.
    pub camera: CameraId,
    /// `main` or `sub`.
    pub stream: String,
    /// What it does.
    pub state: StreamState,
    /// Why it is not live; empty when it is. Never with credentials.
    pub reason: String,
    /// When it came into this state.
    pub since: UtcNanos,
    /// `h264`, `h265`, or empty while unknown.
    pub codec: String,
    /// Pixels; zero while unknown.
    pub size: Size,
    /// Measured over the last seconds; 0 = unknown.
    pub fps: f64,
    /// Measured over the last seconds.
    pub bits_per_second: u64,
    /// Capture time of the newest access unit; 0 = none yet.
    pub last_unit: UtcNanos,
    /// Media time of the newest access unit.
    pub media: MediaTime,
    /// Times that the stream was opened.
    pub connects: u64,
    /// Viewers of the live view.
    pub viewers: u32,
    /// Whether access units reach the disk.
    pub recording: bool,
    /// Why a wanted recording stands still; empty otherwise.
    pub recording_reason: String,
    /// Why frames are not exported, or less than wanted; empty otherwise.
    pub export_reason: String,
    /// Names and values of the stream's counters.
    pub counters: Vec<(String, u64)>,
}

impl StreamStatus {
    /// A stream that nobody opened.
    pub fn stopped(camera: CameraId, stream: &str) -> StreamStatus {
        StreamStatus {
            camera,
            stream: stream.to_owned(),
            state: StreamState::Stopped,
            reason: String::new(),
            since: UtcNanos(0),
            codec: String::new(),
            size: Size { width: 0, height: 0 },
            fps: 0.0,
            bits_per_second: 0,
            last_unit: UtcNanos(0),
            media: MediaTime(0),
            connects: 0,
            viewers: 0,
            recording: false,
            recording_reason: String::new(),
            export_reason: String::new(),
            counters: Vec::new(),
        }
    }
}

/// One compressed picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Annex B, a key picture led by its parameter sets.
    pub data: Vec<u8>,
    /// Media time.
    pub media: MediaTime,
    /// Capture time.
    pub capture_utc: UtcNanos,
    /// Whether decoding can begin here.
    pub key: bool,
}

/// What ingest answers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// As in HTTP: 200 done, else why not.
    pub status: u16,
    /// The reason and the remedy when it was not done.
    pub message: String,
    /// The viewer's session, of an offer.
    pub session: String,
    /// The answer to an offer.
    pub sdp: String,
    /// The camera's media time at RTP time 0, of an offer.
    pub media_origin: MediaTime,
    /// Of [`Request::Status`].
    pub streams: Vec<StreamStatus>,
    /// The newest key picture and those after it, in decoding order.
    pub pictures: Vec<Picture>,
    /// `h264` or `h265`, with pictures.
    pub codec: String,
    /// The desired state in force, of [`Request::Status`].
    pub desired: Version,
}

impl Answer {
    /// Done, with nothing to say.
    pub fn done() -> Answer {
        Answer { status: 200, ..Answer::default() }
    }

    /// Not done, and why.
    pub fn failed(status: u16, message: impl Into<String>) -> Answer {
        Answer { status, message: message.into(), ..Answer::default() }
    }
}

impl Request {
    /// As bytes, in the encoder's memory.
    pub fn encode<'e>(&self, encoder: &'e mut Encoder) -> &'e [u8] {
        let b = &mut encoder.builder;
        b.reset();
        let (mut camera, mut stream, mut session, mut sdp) = ("", "", "", "");
        let operation = match self {
            Request::Status => fb::IngestOperation::Status,
            Request::Offer { camera: c, stream: s, sdp: o } => {
                (camera, stream, sdp) = (c.as_str(), s, o);
                fb::IngestOperation::Offer
            }
            Request::Close { camera: c, session: s } => {
                (camera, session) = (c.as_str(), s);
                fb::IngestOperation::Close
            }
            Request::Pictures { camera: c, stream: s } => {
                (camera, stream) = (c.as_str(), s);
                fb::IngestOperation::Pictures
            }
            Request::Reconnect { camera: c } => {
                camera = c.as_str();
                fb::IngestOperation::Reconnect
            }
        };
        let args = fb::IngestRequestArgs {
            operation,
            camera: Some(b.create_string(camera)),
            stream: Some(b.create_string(stream)),
            session: Some(b.create_string(session)),
            sdp: Some(b.create_string(sdp)),
        };
        let body = fb::IngestRequest::create(b, &args).as_union_value();
        finish(b, fb::IngestBody::IngestRequest, body)
    }

    /// Checks foreign bytes and converts them.
    ///
    /// # Errors
    /// [`WireError`]; the connection should be closed.
    pub fn decode(bytes: &[u8]) -> Result<Request, WireError> {
        let root = root(bytes)?;
        let r = root
            .body_as_ingest_request()
            .ok_or_else(|| WireError::value("body", root.body_type().0, "a request"))?;
        let camera = || wire::id("request.camera", r.camera());
        let stream = || r.stream().to_owned();
        Ok(match r.operation() {
            fb::IngestOperation::Status => Request::Status,
            fb::IngestOperation::Offer => {
                Request::Offer { camera: camera()?, stream: stream(), sdp: r.sdp().to_owned() }
            }
            fb::IngestOperation::Close => {
                Request::Close { camera: camera()?, session: r.session().to_owned() }
            }
            fb::IngestOperation::Pictures => {
                Request::Pictures { camera: camera()?, stream: stream() }
            }
            fb::IngestOperation::Reconnect => Request::Reconnect { camera: camera()? },
            other => return Err(WireError::value("request.operation", other.0, "0 to 4")),
        })
    }
}

impl Answer {
    /// As bytes, in the encoder's memory.
    pub fn encode<'e>(&self, encoder: &'e mut Encoder) -> &'e [u8] {
        let b = &mut encoder.builder;
        b.reset();
        let streams: Vec<_> = self.streams.iter().map(|s| stream_to_wire(b, s)).collect();
        let pictures: Vec<_> = self
            .pictures
            .iter()
            .map(|p| {
                let args = fb::PictureArgs {
                    data: Some(b.create_vector(&p.data)),
                    media: p.media.0,
                    capture_utc_ns: p.capture_utc.0,
                    key: p.key,
                };
                fb::Picture::create(b, &args)
            })
            .collect();
        let args = fb::IngestAnswerArgs {
            status: self.status,
            message: Some(b.create_string(&self.message)),
            session: Some(b.create_string(&self.session)),
            sdp: Some(b.create_string(&self.sdp)),
            media_origin: self.media_origin.0,
            streams: Some(b.create_vector(&streams)),
            pictures: Some(b.create_vector(&pictures)),
            codec: Some(b.create_string(&self.codec)),
            desired_epoch: self.desired.epoch.0,
            desired_revision: self.desired.revision,
        };
        let body = fb::IngestAnswer::create(b, &args).as_union_value();
        finish(b, fb::IngestBody::IngestAnswer, body)
    }

    /// Checks foreign bytes and converts them.
    ///
    /// # Errors
    /// [`WireError`]; the connection should be closed.
    pub fn decode(bytes: &[u8]) -> Result<Answer, WireError> {
        let root = root(bytes)?;
        let a = root
            .body_as_ingest_answer()
            .ok_or_else(|| WireError::value("body", root.body_type().0, "an answer"))?;
        let streams: Result<Vec<_>, _> = a.streams().iter().map(stream).collect();
        let picture = |p: fb::Picture<'_>| Picture {
            data: p.data().bytes().to_vec(),
            media: MediaTime(p.media()),
            capture_utc: UtcNanos(p.capture_utc_ns()),
            key: p.key(),
        };
        Ok(Answer {
            status: a.status(),
            message: a.message().to_owned(),
            session: a.session().to_owned(),
            sdp: a.sdp().to_owned(),
            media_origin: MediaTime(a.media_origin()),
            streams: streams?,
            pictures: a.pictures().iter().map(picture).collect(),
            codec: a.codec().to_owned(),
            desired: Version { epoch: Epoch(a.desired_epoch()), revision: a.desired_revision() },
        })
    }
}

fn finish<'e>(
    b: &'e mut FlatBufferBuilder<'static>,
    body_type: fb::IngestBody,
    body: WIPOffset<flatbuffers::UnionWIPOffset>,
) -> &'e [u8] {
    let args = fb::IngestMessageArgs { body_type, body: Some(body) };
    let root = fb::IngestMessage::create(b, &args);
    fb::finish_ingest_message_buffer(b, root);
    b.finished_data()
}

fn root(bytes: &[u8]) -> Result<fb::IngestMessage<'_>, WireError> {
    if bytes.len() < 8 || !fb::ingest_message_buffer_has_identifier(bytes) {
        return Err(WireError::Identifier { expected: fb::INGEST_MESSAGE_IDENTIFIER });
    }
    flatbuffers::root_with_opts::<fb::IngestMessage>(&wire::verifier(), bytes)
        .map_err(|e| WireError::Malformed(e.to_string()))
}

fn stream_to_wire<'a>(
    b: &mut FlatBufferBuilder<'a>,
    s: &StreamStatus,
) -> WIPOffset<fb::StreamStatus<'a>> {
    let counters: Vec<_> = s
        .counters
        .iter()
        .map(|(name, value)| {
            let name = Some(b.create_string(name));
            fb::Counter::create(b, &fb::CounterArgs { name, value: *value })
        })
        .collect();
    let state = match s.state {
        StreamState::Stopped => fb::StreamState::Stopped,
        StreamState::Connecting => fb::StreamState::Connecting,
        StreamState::Live => fb::StreamState::Live,
        StreamState::Stalled => fb::StreamState::Stalled,
        StreamState::AuthFailed => fb::StreamState::AuthFailed,
        StreamState::BackingOff => fb::StreamState::BackingOff,
    };
    let args = fb::StreamStatusArgs {
        camera: Some(b.create_string(s.camera.as_str())),
        stream: Some(b.create_string(&s.stream)),
        state,
        reason: Some(b.create_string(&s.reason)),
        since_utc_ns: s.since.0,
        codec: Some(b.create_string(&s.codec)),
        width: s.size.width,
        height: s.size.height,
        fps: s.fps,
        bits_per_second: s.bits_per_second,
        last_unit_utc_ns: s.last_unit.0,
        media: s.media.0,
        connects: s.connects,
        viewers: s.viewers,
        recording: s.recording,
        recording_reason: Some(b.create_string(&s.recording_reason)),
        counters: Some(b.create_vector(&counters)),
        export_reason: Some(b.create_string(&s.export_reason)),
    };
    fb::StreamStatus::create(b, &args)
}

fn stream(s: fb::StreamStatus<'_>) -> Result<StreamStatus, WireError> {
    let state = match s.state() {
        fb::StreamState::Stopped => StreamState::Stopped,
        fb::StreamState::Connecting => StreamState::Connecting,
        fb::StreamState::Live => StreamState::Live,
        fb::StreamState::Stalled => StreamState::Stalled,
        fb::StreamState::AuthFailed => StreamState::AuthFailed,
        fb::StreamState::BackingOff => StreamState::BackingOff,
        other => return Err(WireError::value("stream.state", other.0, "0 to 5")),
    };
    Ok(StreamStatus {
        camera: wire::id("stream.camera", s.camera())?,
        stream: s.stream().to_owned(),
        state,
        reason: s.reason().to_owned(),
        since: UtcNanos(s.since_utc_ns()),
        codec: s.codec().to_owned(),
        size: Size { width: s.width(), height: s.height() },
        fps: s.fps(),
        bits_per_second: s.bits_per_second(),
        last_unit: UtcNanos(s.last_unit_utc_ns()),
        media: MediaTime(s.media()),
        connects: s.connects(),
        viewers: s.viewers(),
        recording: s.recording(),
        recording_reason: s.recording_reason().to_owned(),
        export_reason: s.export_reason().unwrap_or_default().to_owned(),
        counters: s.counters().iter().map(|c| (c.name().to_owned(), c.value())).collect(),
    })
}

/// Asks ingest and waits for the answer, at most `timeout` for each read and write.
///
/// # Errors
/// Those of the socket: `NotFound` and `ConnectionRefused` mean that ingest does not run;
/// `InvalidData` that what came back is no answer.
pub fn call(socket: &Path, request: &Request, timeout: Duration) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut encoder = Encoder::default();
    framing::write_message(&mut stream, request.encode(&mut encoder))?;
    let mut bytes = Vec::new();
    if !framing::read_message(&mut stream, &mut bytes)? {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Answer::decode(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera() -> CameraId {
        "front".parse().unwrap()
    }

    /// No cut and no flipped byte may do more than fail.
    fn hurt(bytes: &[u8], decode: impl Fn(&[u8])) {
        for cut in 0..bytes.len() {
            decode(&bytes[..cut]);
            let mut flipped = bytes.to_vec();
            flipped[cut] ^= 0xff;
            decode(&flipped);
        }
    }

    #[test]
    fn requests_round_trip() {
        let (stream, sdp) = (String::from("sub"), String::from("v=0\r\n"));
        for request in [
            Request::Status,
            Request::Offer { camera: camera(), stream: stream.clone(), sdp },
            Request::Close { camera: camera(), session: "7f".into() },
            Request::Pictures { camera: camera(), stream },
            Request::Reconnect { camera: camera() },
        ] {
            let mut encoder = Encoder::default();
            let bytes = request.encode(&mut encoder).to_vec();
            assert_eq!(Request::decode(&bytes).as_ref(), Ok(&request));
            assert!(Answer::decode(&bytes).is_err());
            hurt(&bytes, |bytes| drop(Request::decode(bytes)));
        }
    }

    #[test]
    fn answers_round_trip() {
        let status = StreamStatus {
            state: StreamState::AuthFailed,
            reason: "401".into(),
            since: UtcNanos(3),
            codec: "h264".into(),
            size: Size { width: 1280, height: 720 },
            fps: 24.9,
            bits_per_second: 2_000_000,
            last_unit: UtcNanos(4),
            media: MediaTime(5),
            connects: 6,
            viewers: 7,
            recording: true,
            recording_reason: "disk".into(),
            export_reason: "ring".into(),
            counters: vec![("units".into(), 8)],
            ..StreamStatus::stopped(camera(), "main")
        };
        let data = vec![0, 0, 0, 1, 0x65];
        let picture = Picture { data, media: MediaTime(9), capture_utc: UtcNanos(10), key: true };
        let answer = Answer {
            session: "7f".into(),
            sdp: "v=0".into(),
            media_origin: MediaTime(1 << 40),
            streams: vec![status],
            pictures: vec![picture],
            codec: "h264".into(),
            ..Answer::done()
        };
        for answer in [answer, Answer::failed(404, "no such camera")] {
            let mut encoder = Encoder::default();
            let bytes = answer.encode(&mut encoder).to_vec();
            assert_eq!(Answer::decode(&bytes).as_ref(), Ok(&answer));
            hurt(&bytes, |bytes| drop(Answer::decode(bytes)));
        }
    }
}
