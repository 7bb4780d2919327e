//! `vas decode`: ingest starts one per camera.

use std::process::ExitCode;

/// Runs a decode worker over its standard input.
pub fn run() -> ExitCode {
    ingest::decode_main()
}
