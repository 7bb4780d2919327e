//! One-shot jobs over recordings, pictures and addresses that somebody tries: `vas media`.
//!
//! A process of its own for each: what a picture does to the decoder, or a clip to the memory,
//! concerns nobody else. Reads one line of JSON from standard input, then the bytes that some jobs
//! come with, and writes one line of JSON to standard output. A job that failed is an answer too;
//! the exit status says only whether there was an answer. docs/recording.md describes both.

mod clip;
mod probe;
mod still;
mod take;
#[cfg(test)]
mod tests;

use crate::unit::Codec;
use base::CameraId;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Longest line of a job (chosen: pictures of some groups, named one by one).
const LINE_MAX: u64 = 1 << 20;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case", deny_unknown_fields)]
pub enum Job {
    /// The picture that a camera showed at a moment.
    StillAt {
        /// Root of the recordings.
        recordings: PathBuf,
        /// The camera.
        camera: String,
        /// The moment.
        at_utc_ns: u64,
        /// Where the JPEG goes.
        output: PathBuf,
    },
    /// The newest of some pictures that can be decoded.
    StillOf {
        /// Their codec.
        codec: Codec,
        /// In decoding order, a key picture first; their bytes follow the line.
        pictures: Vec<PictureBytes>,
        /// Where the JPEG goes.
        output: PathBuf,
    },
    /// A window of a camera's recordings as a file.
    Clip {
        /// Root of the recordings.
        recordings: PathBuf,
        /// The camera.
        camera: String,
        /// Where it begins.
        start_utc_ns: u64,
        /// Where it ends.
        end_utc_ns: u64,
        /// Where the MP4 goes.
        output: PathBuf,
        /// Where a JPEG of its middle goes.
        thumbnail: PathBuf,
    },
    /// What answers at an address.
    Probe {
        /// With credentials, when it needs some: it comes by standard input, never as an argument.
        url: String,
        /// `tcp` or `udp`, for cameras.
        transport: String,
        /// Below these a clip may lie.
        file_roots: Vec<PathBuf>,
    },
}

/// One compressed picture of [`Job::StillOf`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureBytes {
    /// Annex B.
    pub bytes: usize,
    /// Capture time.
    pub utc_ns: u64,
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Done {
    /// A JPEG.
    Still {
        /// Capture time of the picture.
        at_utc_ns: u64,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Of the file.
        bytes: u64,
    },
    /// An MP4.
    Clip {
        /// Where it really begins.
        start_utc_ns: u64,
        /// Where it really ends.
        end_utc_ns: u64,
        /// How long it plays.
        duration_ms: u64,
        /// Of the file.
        bytes: u64,
        /// How much of the window was not recorded.
        gaps_ms: u64,
    },
    /// A camera or a clip that can be played.
    Probe {
        /// Of its video.
        codec: Codec,
        /// Pixels, where it says them.
        width: Option<u32>,
        /// Pixels.
        height: Option<u32>,
        /// Pictures per second.
        fps: f64,
    },
}

/// Why nothing came of it, as in HTTP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    /// 404 nothing recorded, 422 asked wrongly, 500 it can't be read or written; of a camera 401, 502,
    /// 503 and 504.
    pub code: u16,
    /// What is wrong and what helps.
    pub message: String,
}

impl Failed {
    fn new(code: u16, message: impl Into<String>) -> Failed {
        Failed { code, message: message.into() }
    }

    fn reading(error: impl std::fmt::Display) -> Failed {
        Failed::new(500, format!("the recordings can't be read: {error}"))
    }
}

/// Does one job.
///
/// # Errors
/// [`Failed`].
pub fn run(job: Job, bytes: &mut dyn Read) -> Result<Done, Failed> {
    match job {
        Job::StillAt { recordings, camera, at_utc_ns, output } => {
            still::at(&recordings, &camera_id(&camera)?, base::UtcNanos(at_utc_ns), &output)
        }
        Job::StillOf { codec, pictures, output } => still::of(codec, &pictures, bytes, &output),
        Job::Clip { recordings, camera, start_utc_ns, end_utc_ns, output, thumbnail } => {
            let window = base::UtcNanos(start_utc_ns)..base::UtcNanos(end_utc_ns);
            clip::cut(&recordings, &camera_id(&camera)?, window, &output, &thumbnail)
        }
        Job::Probe { url, transport, file_roots } => probe::run(&url, &transport, file_roots),
    }
}

fn camera_id(text: &str) -> Result<CameraId, Failed> {
    CameraId::new(text).map_err(|error| Failed::new(422, error.to_string()))
}

/// Writes a file; on failure nothing is left of it.
fn store(
    path: &std::path::Path,
    write: impl FnOnce(&mut std::fs::File) -> std::io::Result<()>,
) -> Result<u64, Failed> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o640).open(path);
    let stored = opened.and_then(|mut file| {
        write(&mut file)?;
        file.sync_data()?;
        Ok(file.metadata()?.len())
    });
    stored.map_err(|error| {
        // What is half written is of no use; the first error is the one to tell.
        let _ = std::fs::remove_file(path);
        let path = path.display();
        Failed::new(500, format!("can't write {path}: {error}; check the disk and permissions"))
    })
}

/// Runs the job on standard input.
pub fn media_main() -> ExitCode {
    let mut input = std::io::stdin().lock();
    let mut line = Vec::new();
    let read = input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
    let job = read.map_err(|e| e.to_string()).and_then(|_| {
        serde_json::from_slice::<Job>(&line).map_err(|e| format!("the job is not understood: {e}"))
    });
    let outcome = match job {
        Ok(job) => run(job, &mut input),
        Err(error) => Err(Failed::new(422, error)),
    };
    let answer = match outcome {
        Ok(done) => {
            let mut value = serde_json::to_value(done).unwrap_or_default();
            value["status"] = "done".into();
            value
        }
        Err(Failed { code, message }) => {
            serde_json::json!({"status": "failed", "code": code, "message": message})
        }
    };
    let mut output = std::io::stdout().lock();
    match writeln!(output, "{answer}").and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
