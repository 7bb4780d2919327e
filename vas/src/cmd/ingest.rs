//! `vas ingest`.

use super::Outcome;
use crate::config::Config;
use crate::signals;
use std::process::ExitCode;

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
        webrtc: ingest::live::WebrtcOptions::default(),
    };
    ingest::run(options, stop)?;
    Ok(ExitCode::SUCCESS)
}
