//! `vas media`: serve starts one per job.

use std::process::ExitCode;

/// Runs the job on standard input.
pub fn run() -> ExitCode {
    ingest::media_main()
}
