//! Tries a camera once, for somebody who is about to add it.

use super::session::{self, Playing};
use crate::source::RtspSource;
use crate::supervision::Failure;
use base::Instant;
use futures_util::StreamExt;
use ipc::clock;
use ipc::ingest_message::{Answer, StreamState, StreamStatus};
use retina::client::SessionGroup;
use retina::codec::CodecItem;
use std::sync::Arc;
use std::time::Duration;

/// How long pictures are counted (chosen: enough for a rate).
const COUNT: Duration = Duration::from_millis(1500);

/// Opens a session, looks at its first pictures and closes it, all within `limit`. `status` is
/// filled in.
pub fn probe(source: &RtspSource, limit: Duration, status: StreamStatus) -> Answer {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            return Answer::failed(503, format!("no descriptor is left: {e}; try again later"));
        }
    };
    let until = clock::monotonic() + limit;
    let group = Arc::new(SessionGroup::default());
    let answer = runtime.block_on(async {
        let answer = tokio::time::timeout(limit, look(source, &group, status)).await;
        let left = until.since(clock::monotonic());
        let _ = tokio::time::timeout(left, session::wait_for_teardown(&group)).await;
        answer.unwrap_or_else(|_| {
            let seconds = limit.as_secs();
            Answer::failed(504, format!("the camera sent no picture within {seconds} s"))
        })
    });
    runtime.shutdown_background();
    answer
}

async fn look(source: &RtspSource, group: &Arc<SessionGroup>, mut status: StreamStatus) -> Answer {
    let mut playing = match session::open(source, group).await {
        Ok(playing) => playing,
        Err(Failure::Unauthorized { why, .. }) => return Answer::failed(401, why),
        Err(Failure::Other(why) | Failure::StaleSession { why, .. }) => {
            return Answer::failed(502, why);
        }
    };
    status.connects = 1;
    if let Err(why) = count(source, &mut playing, &mut status).await {
        return Answer::failed(502, why);
    }
    status.state = StreamState::Live;
    status.codec = playing.codec.as_str().to_owned();
    status.size = playing.size().unwrap_or(status.size);
    Answer { streams: vec![status], ..Answer::done() }
}

/// Counts pictures for a while, or until the size is known if that takes longer.
async fn count(
    source: &RtspSource,
    playing: &mut Playing,
    status: &mut StreamStatus,
) -> Result<(), String> {
    let mut first: Option<Instant> = None;
    let (mut pictures, mut bytes) = (0u64, 0u64);
    loop {
        let item = playing.demuxed.next().await;
        let now = clock::monotonic();
        match item {
            Some(Ok(CodecItem::VideoFrame(frame))) => {
                let begin = *first.get_or_insert(now);
                pictures += 1;
                bytes += frame.data().len() as u64;
                status.last_unit = clock::utc();
                let lasted = now - begin;
                if lasted < COUNT || playing.size().is_none() {
                    continue;
                }
                // The first one begins the first interval.
                status.fps = (pictures - 1) as f64 / lasted.as_secs_f64();
                status.bits_per_second = (bytes as f64 * 8.0 / lasted.as_secs_f64()) as u64;
                return Ok(());
            }
            Some(Ok(_)) => {}
            Some(Err(error)) if session::concerns_one_packet(&error) => {}
            Some(Err(error)) => return Err(source.told(&error)),
            None => return Err("the camera closed the connection".into()),
        }
    }
}
