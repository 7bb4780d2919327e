//! `vas ingest`.

use super::Outcome;
use crate::config::{Config, Recording};
use crate::signals;
use ingest::live::WebrtcOptions;
use ingest::{RecordingOptions, Retention};
use ipc::clock_trust::accepted_in;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// By how much less of the disk stays when it became urgent (spec V8: 80 instead of 85 %).
const URGENT: f64 = 0.05;

/// Runs ingest until a signal.
///
/// # Errors
/// Why it did not start.
pub fn run(config: &Config) -> Outcome {
    let stop = signals::stop()?;
    let options = ingest::Options {
        directories: config.directories.clone(),
        export_enabled: config.frame_export,
        decode_command: vec![std::env::current_exe()?.into(), "decode".into()],
        file_roots: config.file_roots.clone(),
        recording: RecordingOptions {
            holds: config.directories.holds(),
            ..recording(&config.recording, accepted_in(&config.directories.state))
        },
        webrtc: WebrtcOptions {
            udp_port: config.webrtc.udp_port,
            announce: config.webrtc.announce.clone(),
            ..WebrtcOptions::default()
        },
    };
    ingest::run(options, stop)?;
    Ok(ExitCode::SUCCESS)
}

fn recording(config: &Recording, accepted_clock: PathBuf) -> RecordingOptions {
    let share = |percent: u64| percent as f64 / 100.0;
    let (high, low) = (share(config.disk_high_percent), share(config.disk_low_percent));
    let retention = Retention {
        age: Duration::from_secs(config.retention_days * 86_400),
        high,
        high_target: low,
        // Half of what is left above `high` (spec V8: 95 % above 90).
        critical: high + (1.0 - high) / 2.0,
        critical_target: (low - URGENT).max(0.0),
        warn: low,
        keep_at_least: config.keep_at_least,
    };
    RecordingOptions { retention, accepted_clock, ..RecordingOptions::new(config.dir.clone()) }
}
