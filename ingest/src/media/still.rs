//! Stills: a picture of the recordings, or the newest of some compressed ones, as JPEG.

use super::take::{Pictures, Take};
use super::{Done, Failed, PictureBytes, store};
use crate::unit::Codec;
use base::time::NANOS_PER_SEC;
use base::{CameraId, Picture, UtcNanos};
use ipc::recording::{Day, Recordings};
use std::io::{Read, Write};
use std::path::Path;

/// A picture is shown no longer than this beyond its own duration: later there is none.
const SHOWN: u64 = NANOS_PER_SEC;
/// Most bytes of compressed pictures.
const BYTES_MAX: usize = 256 << 20;

/// The picture that a camera showed at a moment.
pub fn at(
    recordings: &Path,
    camera: &CameraId,
    at: UtcNanos,
    output: &Path,
) -> Result<Done, Failed> {
    let recordings = Recordings::new(recordings);
    // Long enough before that a picture which is still shown is found, and after, that those come
    // along which a decoder wants before it gives the picture.
    let from = UtcNanos(at.0.saturating_sub(10 * NANOS_PER_SEC));
    let take = Take::load(&recordings, camera, from, UtcNanos(at.0.saturating_add(NANOS_PER_SEC)))?;
    let shown = take.shown_at(at).filter(|index| {
        let shot = &take.shots[*index];
        at.0 - shot.utc.0 <= SHOWN + shot.nanos()
    });
    let Some(shown) = shown else { return Err(nothing(&recordings, camera, at)) };
    let (picture, pixels) = take.decode(shown)?;
    jpeg(&picture, &pixels, take.shots[shown].utc, output)
}

/// Says what is recorded nearest to a moment.
fn nothing(recordings: &Recordings, camera: &CameraId, at: UtcNanos) -> Failed {
    let (mut before, mut after) = (None, None);
    for day in recordings.days(camera).unwrap_or_default() {
        if after.is_some() && day > Day::of(at) {
            break;
        }
        for row in recordings.rows(camera, day).unwrap_or_default() {
            if row.end_utc() <= at {
                before = before.max(Some(row.end_utc()));
            } else if row.start_utc > at && after.is_none_or(|a| row.start_utc < a) {
                after = Some(row.start_utc);
            }
        }
    }
    let distance = |utc: &UtcNanos| utc.0.abs_diff(at.0);
    let nearest = before.into_iter().chain(after).min_by_key(distance);
    let nearest = match nearest {
        Some(utc) => format!("the nearest recorded moment is {} ({} ns)", iso(utc), utc.0),
        None => "nothing of it is recorded at all".to_owned(),
    };
    Failed::new(404, format!("camera {camera} was not recorded at {}; {nearest}", iso(at)))
}

/// RFC 3339 to the millisecond.
pub fn iso(utc: UtcNanos) -> String {
    let (year, month, day) = Day::of(utc).civil();
    let millis = (utc.0 - Day::of(utc).start().0) / 1_000_000;
    let (hour, minute) = (millis / 3_600_000, millis / 60_000 % 60);
    let (second, millis) = (millis / 1000 % 60, millis % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The newest of some pictures that can be decoded; an undamaged one, if there is any.
pub fn of(
    codec: Codec,
    pictures: &[PictureBytes],
    bytes: &mut dyn Read,
    output: &Path,
) -> Result<Done, Failed> {
    let total: Option<usize> =
        pictures.iter().try_fold(0usize, |sum, picture| sum.checked_add(picture.bytes));
    if total.is_none_or(|total| total > BYTES_MAX) || pictures.is_empty() {
        let message = format!("pictures have 1 to {BYTES_MAX} bytes in all");
        return Err(Failed::new(422, message));
    }
    let mut decoder = Pictures::new(codec)?;
    let mut newest: Option<((bool, UtcNanos), Picture, Vec<u8>)> = None;
    let mut keep = |decoder: &mut Pictures| {
        // A picture that can't be shown is as good as none.
        while let Ok(Some(decoded)) = decoder.decoder.next() {
            let good = !decoded.flags.has(base::FrameFlags::CORRUPT);
            let rank = (good, UtcNanos(pictures[decoded.tag].utc_ns));
            if newest.as_ref().is_some_and(|(best, ..)| *best > rank) {
                continue;
            }
            let size = decoded.picture.size;
            let mut pixels = vec![0; size.nv12_bytes()];
            let (y, c) = pixels.split_at_mut(size.width as usize * size.height as usize);
            decoded.write_nv12(y, c);
            newest = Some((rank, decoded.picture, pixels));
        }
    };
    for (at, picture) in pictures.iter().enumerate() {
        let mut unit = vec![0; picture.bytes];
        bytes.read_exact(&mut unit).map_err(|error| {
            Failed::new(422, format!("picture {at} of {} is cut short: {error}", pictures.len()))
        })?;
        decoder.submit(&unit, at == 0, at);
        keep(&mut decoder);
    }
    decoder.decoder.finish();
    keep(&mut decoder);
    let Some(((_, utc), picture, pixels)) = newest else {
        return Err(Failed::new(404, "none of the pictures can be decoded"));
    };
    jpeg(&picture, &pixels, utc, output)
}

/// Encodes a picture and writes it.
pub fn jpeg(
    picture: &Picture,
    pixels: &[u8],
    utc: UtcNanos,
    output: &Path,
) -> Result<Done, Failed> {
    let mut jpeg = Vec::new();
    kernels::jpeg::encode(picture, pixels, &mut jpeg)
        .map_err(|error| Failed::new(500, format!("the picture can't be encoded: {error}")))?;
    let bytes = store(output, |file| file.write_all(&jpeg))?;
    let (width, height) = (picture.size.width, picture.size.height);
    Ok(Done::Still { at_utc_ns: utc.0, width, height, bytes })
}
