//! Standard output and standard error, which their reader may close at any time.

use std::fmt::Display;
use std::io::{self, Write};

/// Prints `text` as it is. A reader that has gone, as `head` does, has seen enough: that is no error.
///
/// # Errors
/// When the output can't be written for another reason, such as a full disk.
pub fn print(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    tolerate(write!(out, "{text}").and_then(|()| out.flush()))
}

/// Prints a line on standard error; nobody is left to tell when that fails.
pub fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Success where the reader has gone.
///
/// # Errors
/// Every other error of `written`.
pub fn tolerate(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
