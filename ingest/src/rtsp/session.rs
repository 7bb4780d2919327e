//! One RTSP session: how it is opened, and what its errors mean.

use crate::source::{Credentials, RtspSource, Transport};
use crate::supervision::Failure;
use crate::unit::Codec;
use base::Size;
use retina::client::{
    Demuxed, InitialSequenceNumberPolicy, PlayOptions, Session, SessionGroup, SessionIdPolicy,
    SessionOptions, SetupOptions, Transport as RetinaTransport, UnknownRtcpSsrcPolicy,
};
use retina::codec::{FrameFormat, ParametersRef, VideoParameters};
use std::sync::Arc;
use std::time::Duration;

/// How long the end of the session before is waited for (chosen: a camera that answers does so in
/// a round trip; one that does not must not delay its own return).
pub const TEARDOWN: Duration = Duration::from_secs(1);

/// A session that plays.
pub struct Playing {
    /// Its pictures.
    pub demuxed: Demuxed,
    /// Which of its streams is the video.
    stream: usize,
    /// Codec of the video.
    pub codec: Codec,
    /// Pictures per second as the camera says, if it does.
    pub fps: Option<f64>,
}

impl Playing {
    /// Parameter sets and what they say, once they are known.
    pub fn parameters(&self) -> Option<&VideoParameters> {
        match self.demuxed.streams()[self.stream].parameters()? {
            ParametersRef::Video(parameters) => Some(parameters),
            _ => None,
        }
    }

    /// Pixels, once they are known.
    pub fn size(&self) -> Option<Size> {
        let (width, height) = self.parameters()?.pixel_dimensions();
        Some(Size { width, height })
    }
}

/// Opens a session to the camera's video, after the one before was torn down.
///
/// # Errors
/// Why not.
pub async fn open(source: &RtspSource, group: &Arc<SessionGroup>) -> Result<Playing, Failure> {
    wait_for_teardown(group).await;
    let credentials = source.credentials.as_ref().map(|Credentials { username, password }| {
        retina::client::Credentials { username: username.clone(), password: password.clone() }
    });
    let options = SessionOptions::default()
        .creds(credentials)
        .user_agent("VAS".into())
        .session_group(Arc::clone(group))
        .session_id(SessionIdPolicy::UseFirst);
    let failed = |late: bool| move |error| failure(&error, source, late);
    let described = Session::describe(source.url.clone(), options).await;
    let mut session = described.map_err(failed(false))?;
    let (stream, codec) = video(&session).map_err(|offered| none_fits(source, &offered))?;
    let transport = match source.transport {
        Transport::Tcp => RetinaTransport::Tcp(Default::default()),
        Transport::Udp => RetinaTransport::Udp(Default::default()),
    };
    // Annex B, and parameter sets before each key frame, as access units are here.
    let setup = SetupOptions::default().transport(transport).frame_format(FrameFormat::SIMPLE);
    session.setup(stream, setup).await.map_err(failed(true))?;
    let declared = session.streams()[stream].framerate().map(f64::from);
    // Sequence numbers of the answer to PLAY are often wrong, and reports from a sender that is
    // not ours must not decide which sender is: nothing here needs either.
    let play = PlayOptions::default()
        .initial_seq(InitialSequenceNumberPolicy::Ignore)
        .unknown_rtcp_ssrc(UnknownRtcpSsrcPolicy::ProcessPackets);
    let demuxed = session.play(play).await.and_then(Session::demuxed).map_err(failed(true))?;
    let mut playing = Playing { demuxed, stream, codec, fps: declared };
    if playing.fps.is_none() {
        let rate = playing.parameters().and_then(VideoParameters::frame_rate);
        playing.fps = rate
            .filter(|&(ticks, scale)| ticks > 0 && scale > 0)
            .map(|(ticks, scale)| f64::from(scale) / f64::from(ticks));
    }
    Ok(playing)
}

/// Gives the camera a moment to answer the TEARDOWN of the sessions before.
pub async fn wait_for_teardown(group: &SessionGroup) {
    // Whatever became of it: the next session is wanted.
    let _ = tokio::time::timeout(TEARDOWN, group.await_teardown()).await;
}

/// The stream with video, else what the camera offers instead.
fn video<S: retina::client::State>(session: &Session<S>) -> Result<(usize, Codec), String> {
    let mut offered = Vec::new();
    for (at, stream) in session.streams().iter().enumerate() {
        match (stream.media(), stream.encoding_name()) {
            ("video", "h264") => return Ok((at, Codec::H264)),
            ("video", "h265") => return Ok((at, Codec::H265)),
            (media, encoding) => offered.push(format!("{media}/{encoding}")),
        }
    }
    Err(if offered.is_empty() { "nothing".to_owned() } else { offered.join(", ") })
}

fn none_fits(source: &RtspSource, offered: &str) -> Failure {
    Failure::Other(format!(
        "the camera offers no H.264 or H.265 video, but {}; set its encoder to H.264",
        source.told(&offered)
    ))
}

/// What an error of the library means. `late`: credentials had been accepted before in this
/// session.
pub fn failure(error: &retina::Error, source: &RtspSource, late: bool) -> Failure {
    let why = match error.status_code() {
        Some(401) => {
            let why = match (&source.credentials, late) {
                (None, _) => "the camera asks for user and password: put them into its URL",
                (Some(_), false) => {
                    "the camera refused user or password: check them in its URL (they are tried \
                     again slowly, because cameras lock accounts)"
                }
                (Some(_), true) => "the camera refused user or password that it had accepted",
            };
            return Failure::Unauthorized { late, why: why.to_owned() };
        }
        Some(status) if status >= 300 => of_status(status, source),
        // It let us in, and what it then said is of no use.
        _ => {
            let text = source.told(error);
            match text.strip_prefix("Unable to connect to RTSP server: ") {
                Some(cause) => format!(
                    "can't connect to {}: {cause}; check that the camera is on and its address",
                    address(source)
                ),
                None => text,
            }
        }
    };
    Failure::Other(why)
}

fn of_status(status: u16, source: &RtspSource) -> String {
    let path = source.shown_path();
    let what = match status {
        400 => "the camera did not understand the request; check the URL".to_owned(),
        403 => "the camera forbids this stream to this user; give the user the right".to_owned(),
        404 => format!("the camera has no stream {path}; check the path of its URL"),
        405 | 501 => "the camera can't play this URL; check its path".to_owned(),
        453 => "the camera has no bandwidth left; close other sessions to it".to_owned(),
        454 => "the camera forgot the session".to_owned(),
        461 => {
            let transport = source.transport.as_str();
            format!("the camera can't send by {transport}; set another transport")
        }
        500..=599 => {
            "the camera has an error, or too many sessions; close others or restart it".to_owned()
        }
        _ => "the camera refused".to_owned(),
    };
    format!("{what} (RTSP status {status})")
}

/// Whether only a packet was damaged or foreign: the session goes on. The library is pinned, and a
/// test holds this.
pub fn concerns_one_packet(error: &retina::Error) -> bool {
    // "... pkt: <context>" ends what the library says of a packet, and of nothing else.
    error.to_string().contains("\npkt: ")
}

/// The packets that the library takes for those of a dead session of an old live555 server.
pub fn is_stale_session(error: &retina::Error) -> bool {
    error.to_string().starts_with("Received interleaved data on unassigned channel")
}

fn address(source: &RtspSource) -> String {
    let host = source.url.host_str().unwrap_or_default();
    format!("{host}:{}", source.url.port().unwrap_or(554))
}
