//! What live view costs and how late it is: an RTSP camera into ingest, viewers in this process, and
//! a headless chromium.
//!
//! `cargo run -p ingest --example live -- CLIP|URL SECONDS VIEWERS`; URL is that of a camera; CLIP is
//! played by a camera of the tests, and is an elementary H.264 stream of 25 fps with access unit delimiters, such as
//!
//! `ffmpeg -f lavfi -i testsrc2=s=1280x720:r=25:d=20,noise=alls=8:allf=t -c:v libx264 -profile:v main
//! -bf 0 -g 50 -b:v 2M -maxrate 2M -bufsize 2M -x264-params aud=1:repeat-headers=1 clip.h264`
//!
//! CPU is that of the hub's thread, user and system, viewers' own side not included: with none,
//! with VIEWERS. Latency is from the moment that a unit was complete in ingest to the moment for which the browser plans to show it (`expectedDisplayTime` of
//! requestVideoFrameCallback), joined by RTP time; the first second is left out.

// Its parts are those of the tests.
#![allow(clippy::unwrap_used)]

#[path = "../tests/live/camera.rs"]
#[allow(dead_code)]
mod camera;
#[path = "../tests/live/chromium.rs"]
mod chromium;
#[path = "../tests/live/node.rs"]
#[allow(dead_code)]
mod node;
#[path = "../tests/live/page.rs"]
#[allow(dead_code)]
mod page;
#[path = "../tests/live/patience.rs"]
mod patience;
#[path = "../tests/live/peer.rs"]
#[allow(dead_code)]
mod peer;
#[path = "../tests/live/relay.rs"]
#[allow(dead_code)]
mod relay;

use base::CameraId;
use ipc::ingest_message::Request;
use node::Node;
use page::Page;
use patience::until;
use peer::Peer;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usage = "usage: live CLIP SECONDS VIEWERS";
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [clip, seconds, viewers] = arguments.as_slice() else { return Err(usage.into()) };
    let seconds = Duration::from_secs(seconds.parse().map_err(|_| usage)?);
    let viewers: usize = viewers.parse().map_err(|_| usage)?;
    // Dropped last.
    let mut camera = None;
    let url = match clip.contains("://") {
        true => clip.clone(),
        false => {
            let settings =
                fake_camera::Settings::new(fake_camera::Clip::read(clip.as_ref())?, 25.0);
            camera.insert(fake_camera::Camera::start(settings)?).url()
        }
    };
    let hub = Node::start(&url);
    until("live", || hub.status().filter(|status| status.bits_per_second > 0));
    let none = cpu(seconds)?;
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..viewers)
        .map(|_| {
            let mut peer = Peer::watch(&hub, "cam");
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    peer.turn(Duration::from_millis(100));
                }
                let gaps = peer.frames.iter().filter(|frame| !frame.contiguous).count();
                (peer.frames.len(), gaps)
            })
        })
        .collect();
    // Handshakes and first groups are not what is measured.
    std::thread::sleep(Duration::from_secs(3));
    let with = cpu(seconds)?;
    stop.store(true, Ordering::Relaxed);
    let mut received = Vec::new();
    for thread in threads {
        received.push(thread.join().map_err(|_| "a viewer's thread panicked")?);
    }
    let fewest = received.iter().map(|(frames, _)| *frames).min().unwrap_or(0);
    let gaps: usize = received.iter().map(|(_, gaps)| gaps).sum();
    if let Some(status) = hub.status() {
        let (size, fps, rate) = (status.size, status.fps, status.bits_per_second / 1000);
        println!(
            "camera: {}x{}, {fps:.1} pictures per second, {rate} kb/s",
            size.width, size.height
        );
    }
    println!("hub without viewers: {:.2} % of a core", none * 100.0);
    println!(
        "hub with {viewers} viewers: {:.2} %, so {:.3} % of a core per viewer; at least {fewest} \
         pictures each, {gaps} gaps",
        with * 100.0,
        (with - none) * 100.0 / viewers.max(1) as f64
    );

    let mut page = Page::open(&hub, "cam", &[], str::to_owned);
    page.wait_shown(1);
    println!("browser: first picture {:?} after the offer", page.offered.elapsed());
    // When each picture was complete: out of the groups that are kept, before they are replaced.
    let mut taken = HashMap::new();
    let end = Instant::now() + seconds + Duration::from_secs(1);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(300));
        let pictures = Request::Pictures { camera: CameraId::new("cam")?, stream: String::new() };
        for picture in hub.call(&pictures).map(|answer| answer.pictures).unwrap_or_default() {
            taken.insert(picture.media.0 as u32, picture.capture_utc.0);
        }
    }
    let seen = page.chromium.evaluate("seen.slice(25).map(s => [s.rtp, s.at])");
    let mut late: Vec<f64> = seen
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pair| {
            let taken = taken.get(&u32::try_from(pair[0].as_u64()?).ok()?)?;
            Some(pair[1].as_f64()? - *taken as f64 / 1e6)
        })
        .collect();
    late.sort_by(f64::total_cmp);
    let at = |share: f64| late.get(((late.len() - 1) as f64 * share) as usize).copied();
    if let (Some(p50), Some(p95), Some(max)) = (at(0.5), at(0.95), at(1.0)) {
        println!(
            "browser: complete in ingest to presented p50 {p50:.1} ms, p95 {p95:.1} ms, max {max:.1} ms, \
             {} pictures",
            late.len()
        );
    }
    println!("{}", page.chromium.evaluate(
        "received().then(s => `decoded ${s.framesDecoded}, dropped ${s.framesDropped}, freezes \
         ${s.freezeCount}, jitter buffer ${(1000 * s.jitterBufferDelay / s.jitterBufferEmittedCount).toFixed(1)} ms, \
         decoding ${(1000 * s.totalDecodeTime / s.framesDecoded).toFixed(1)} ms`)",
    ));
    drop((hub, camera));
    Ok(())
}

/// Share of a core that the hub's thread takes for the next while.
fn cpu(span: Duration) -> Result<f64, Box<dyn std::error::Error>> {
    let (start, before) = (Instant::now(), spent()?);
    std::thread::sleep(span);
    Ok((spent()? - before) / start.elapsed().as_secs_f64())
}

/// Seconds that the hub's thread has run (`/proc/self/task/N/schedstat`).
fn spent() -> Result<f64, Box<dyn std::error::Error>> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == "live:hub" {
            let times = std::fs::read_to_string(task.join("schedstat"))?;
            return Ok(times.split(' ').next().unwrap_or("0").parse::<f64>()? / 1e9);
        }
    }
    Err("the hub has no thread".into())
}
