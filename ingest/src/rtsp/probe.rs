//! Tries a camera once, for somebody who is about to add it.

use super::session::{self, Playing};
use crate::source::RtspSource;
use crate::supervision::Failure;
use crate::unit::Codec;
use base::{Instant, Size};
use futures_util::StreamExt;
use ipc::clock;
use retina::client::SessionGroup;
use retina::codec::CodecItem;
use std::sync::Arc;
use std::time::Duration;

/// How long pictures are counted (chosen: enough for a rate).
const COUNT: Duration = Duration::from_millis(1500);

/// What a camera showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probed {
    /// Of its video.
    pub codec: Codec,
    /// Pixels, where the stream says it.
    pub size: Option<Size>,
    /// Pictures per second.
    pub fps: f64,
}

/// Why it showed nothing: a status as in HTTP, and what to do.
pub type Refused = (u16, String);

/// Opens a session, looks at its first pictures and closes it, all within `limit`.
///
/// # Errors
/// [`Refused`]; never with credentials.
pub fn probe(source: &RtspSource, limit: Duration) -> Result<Probed, Refused> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            return Err((503, format!("no descriptor is left: {e}; try again later")));
        }
    };
    let until = clock::monotonic() + limit;
    let group = Arc::new(SessionGroup::default());
    let answer = runtime.block_on(async {
        let answer = tokio::time::timeout(limit, look(source, &group)).await;
        let left = until.since(clock::monotonic());
        let _ = tokio::time::timeout(left, session::wait_for_teardown(&group)).await;
        answer.unwrap_or_else(|_| {
            let seconds = limit.as_secs();
            Err((504, format!("the camera sent no picture within {seconds} s")))
        })
    });
    runtime.shutdown_background();
    answer
}

async fn look(source: &RtspSource, group: &Arc<SessionGroup>) -> Result<Probed, Refused> {
    let mut playing = match session::open(source, group).await {
        Ok(playing) => playing,
        Err(Failure::Unauthorized { why, .. }) => return Err((401, why)),
        Err(Failure::Other(why) | Failure::StaleSession { why, .. }) => return Err((502, why)),
    };
    let fps = count(source, &mut playing).await.map_err(|why| (502, why))?;
    Ok(Probed { codec: playing.codec, size: playing.size(), fps })
}

/// Counts pictures for a while, or until the size is known if that takes longer; their rate.
async fn count(source: &RtspSource, playing: &mut Playing) -> Result<f64, String> {
    let mut first: Option<Instant> = None;
    let mut pictures = 0u64;
    loop {
        let item = playing.demuxed.next().await;
        let now = clock::monotonic();
        match item {
            Some(Ok(CodecItem::VideoFrame(_))) => {
                let begin = *first.get_or_insert(now);
                pictures += 1;
                let lasted = now - begin;
                if lasted < COUNT || playing.size().is_none() {
                    continue;
                }
                // The first one begins the first interval.
                return Ok((pictures - 1) as f64 / lasted.as_secs_f64());
            }
            Some(Ok(_)) => {}
            Some(Err(error)) if session::concerns_one_packet(&error) => {}
            Some(Err(error)) => return Err(source.told(&error)),
            None => return Err("the camera closed the connection".into()),
        }
    }
}
