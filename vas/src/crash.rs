//! What a process of ours leaves behind when it fails: a line, and nothing of its memory.
//!
//! Passwords of cameras are in the memory of several processes, and libraries put what they were given
//! into the messages of their panics.

use crate::output;
use base::told::told;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::path::Path;
use std::thread;

/// For this process and all that it starts: no core is written, and a panic says where it was, but
/// what only when the place is ours.
pub fn prepare() {
    // With 1 a core is written neither to a file, where it is less than the least, nor to a program,
    // which with 0 would still get one (core(5), do_coredump in fs/coredump.c). Where the limit is
    // lower already it stays.
    let none = Rlimit { current: Some(1), maximum: Some(1) };
    let _ = setrlimit(Resource::Core, none);
    std::panic::set_hook(Box::new(report));
}

fn report(panic: &PanicHookInfo<'_>) {
    let name = thread::current().name().unwrap_or("?").to_owned();
    let place = panic.location().map(|at| (at.file(), at.line()));
    tracing::error!("{}", line(&name, place, panic.payload_as_str().unwrap_or_default()));
    // Asked for by RUST_BACKTRACE: names of functions, no values.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        output::complain(backtrace);
    }
}

/// The file is as the compiler saw it: relative where it is ours, absolute where it is a library's.
fn line(thread: &str, place: Option<(&str, u32)>, message: &str) -> String {
    let Some((file, line)) = place else { return format!("thread {thread} panicked") };
    if Path::new(file).is_relative() {
        return format!("thread {thread} panicked at {file}:{line}: {}", told(message, [""; 0]));
    }
    // From the library's name on: what is before it is of the machine that built this.
    let of_a_crate = file.split_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/'));
    let library = of_a_crate.or_else(|| file.split_once("/library/")).map_or(file, |(_, at)| at);
    format!("thread {thread} panicked at {library}:{line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_library_says_as_it_panics_is_left_out_and_ours_is_masked() {
        let said = "no answer to rtsp://a:PW@h/1\nmore";
        let of = |file: &str| line("cam:a/main", Some((file, 7)), said);
        let crates = "/a/registry/src/index-1949cf8c/";
        for (file, shown) in [
            ("ingest/src/rtsp.rs", "ingest/src/rtsp.rs:7: no answer to rtsp://***@h/1"),
            (&format!("{crates}retina-0.4.21/src/a.rs"), "retina-0.4.21/src/a.rs:7"),
            ("/rustc/1234/library/core/src/str.rs", "core/src/str.rs:7"),
            ("/elsewhere/a.rs", "/elsewhere/a.rs:7"),
        ] {
            assert_eq!(of(file), format!("thread cam:a/main panicked at {shown}"));
        }
        assert_eq!(line("?", None, said), "thread ? panicked");
    }
}
