//! `vas ring [CAMERA]`: rings as they are right now.

use super::Outcome;
use crate::config::Config;
use crate::output;
use base::CameraId;
use ipc::ring::{self, RingReport};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Arguments of `vas ring`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show the slots of one camera's ring
    #[arg(value_name = "CAMERA")]
    camera: Option<CameraId>,
}

/// Prints a line per ring, or one ring with its slots.
///
/// # Errors
/// When there is no such ring or it can't be read.
pub fn run(args: &Args, config: &Config) -> Outcome {
    let shm = &config.directories.shm;
    match &args.camera {
        Some(camera) if !shm.join(camera.as_str()).exists() => {
            return Err(format!(
                "camera {camera} has no ring in {}; `vas ring` lists those there are",
                shm.display()
            )
            .into());
        }
        Some(camera) => {
            let report = ring::inspect(shm, camera)?;
            output::print(details(&report))?;
        }
        None => all(shm)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn all(shm: &Path) -> std::io::Result<()> {
    let cameras = match ring::list(shm) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    if cameras.is_empty() {
        return output::print(format_args!("no rings in {}\n", shm.display()));
    }
    output::print(format_args!(
        "{:<16} {:>9} {:>5} {:>10} {:>10} {:>9} {:>8}  state\n",
        "camera", "size", "slots", "newest", "published", "beat", "memory"
    ))?;
    for camera in cameras {
        match ring::inspect(shm, &camera) {
            Ok(report) => output::print(format_args!("{}\n", row(&report)))?,
            Err(error) => output::print(format_args!("{camera:<16} {error}\n"))?,
        }
    }
    Ok(())
}

fn row(report: &RingReport) -> String {
    let size = format!("{}x{}", report.size.width, report.size.height);
    let newest = report.newest.map_or("none".to_owned(), |stamp| stamp.frame_id.0.to_string());
    format!(
        "{:<16} {size:>9} {:>5} {newest:>10} {:>10} {:>6} ms {:>4} MiB  {}",
        report.camera.as_str(),
        report.slots.len(),
        report.published,
        report.heartbeat_age.as_millis(),
        report.memory_bytes.div_ceil(1 << 20),
        state(report),
    )
}

fn state(report: &RingReport) -> &'static str {
    match report {
        RingReport { retired: true, .. } => "retired",
        RingReport { writer: false, .. } => "no writer",
        _ if report.heartbeat_age > base::limits::RING_STALE => "stale",
        _ => "live",
    }
}

fn details(report: &RingReport) -> String {
    let mut text = format!(
        "ring {} in {}\nversion {}, {}x{} NV12, {} slots of {} bytes, {} bytes in all\n\
         generation {}, header sequence {}, {}, heartbeat {} ms ago\n\
         {} frames published, first {}",
        report.camera,
        report.directory.display(),
        report.version,
        report.size.width,
        report.size.height,
        report.slots.len(),
        report.slot_stride,
        report.memory_bytes,
        report.generation.0,
        report.header_sequence,
        state(report),
        report.heartbeat_age.as_millis(),
        report.published,
        report.first_frame_id.0,
    );
    if let Some(stamp) = &report.newest {
        write!(text, ", newest {} in slot {}", stamp.frame_id.0, stamp.slot)
            .expect("writing to a string");
    }
    text.push_str("\n\n slot  sequence       frame           media  flags\n");
    for (number, slot) in report.slots.iter().enumerate() {
        let sequence = slot.sequence;
        match &slot.frame {
            Some((id, record)) => writeln!(
                text,
                "{number:>5} {sequence:>9} {:>11} {:>15}  {}",
                id.0,
                record.info.media.0,
                flags(record.info.flags)
            ),
            None if sequence % 2 == 1 => {
                writeln!(text, "{number:>5} {sequence:>9}   being written")
            }
            None => writeln!(text, "{number:>5} {sequence:>9}   empty"),
        }
        .expect("writing to a string");
    }
    text
}

fn flags(flags: base::FrameFlags) -> String {
    use base::FrameFlags as F;
    let names = [(F::KEY, "key"), (F::CORRUPT, "corrupt"), (F::DISCONTINUITY, "discontinuity")];
    let set: Vec<_> = names.iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, n)| *n).collect();
    set.join(" ")
}
