//! How a process of ours ends when it fails: at once, whatever thread it was in, and with what is left
//! behind: a line, and nothing of its memory.
//!
//! A process that lost a thread looks alive, holds its lock, and does not do its work. Every process can
//! end at any time; whoever starts it sees that.
//!
//! Passwords of cameras are in the memory of several processes, and libraries put what they were given
//! into the messages of their panics.

use crate::output;
use base::guard;
use base::told::told;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::path::Path;
use std::thread;

/// For this process: no core is written of it and of all that it starts. A panic says where it was, but
/// what only when the place is ours, and ends the process (SIGABRT) unless it is caught on purpose.
pub fn prepare() {
    // With 1 a core is written neither to a file, where it is less than the least, nor to a program,
    // which with 0 would still get one (core(5), do_coredump in fs/coredump.c). Where the limit is
    // lower already it stays.
    let none = Rlimit { current: Some(1), maximum: Some(1) };
    let _ = setrlimit(Resource::Core, none);
    std::panic::set_hook(Box::new(|panic| {
        report(panic);
        if !guard::is_inside() {
            std::process::abort();
        }
    }));
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
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Output};
    use std::time::Duration;

    /// Says what [`child`] does.
    const CHILD: &str = "VAS_CRASH_TEST";

    fn fails() {
        panic!("no answer to rtsp://a:PW@h/1");
    }

    /// Not a test by itself: what the child process does, nothing when run as a test.
    #[test]
    fn child() {
        let Ok(order) = std::env::var(CHILD) else { return };
        crate::telemetry::init("serve", false);
        prepare();
        match order.as_str() {
            "guarded" => drop(guard::foreign(fails)),
            "guarded elsewhere" => {
                let (enter, entered) = std::sync::mpsc::channel();
                thread::spawn(move || {
                    guard::foreign(|| {
                        enter.send(()).unwrap();
                        thread::park_timeout(Duration::from_secs(60));
                    })
                });
                entered.recv().unwrap();
                fails();
            }
            // Whoever started it would wait for ever for something else.
            _ => {
                let failing = thread::Builder::new().name("sockets".into()).spawn(fails).unwrap();
                drop(failing);
                thread::park_timeout(Duration::from_secs(60));
            }
        }
        println!("went on");
    }

    fn run(order: &str) -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "crash::tests::child", "--nocapture"]);
        command.env(CHILD, order).output().unwrap()
    }

    #[test]
    fn a_panic_in_any_thread_ends_the_process_at_once_with_one_line_and_no_secret() {
        for (order, thread) in
            [("unguarded", "sockets"), ("guarded elsewhere", "crash::tests::child")]
        {
            let Output { status, stdout, stderr } = run(order);
            let told = String::from_utf8_lossy(&stderr);
            assert_eq!(status.signal(), Some(6), "{order}: {status}: {told}");
            assert!(!status.core_dumped() && !String::from_utf8_lossy(&stdout).contains("went on"));
            let lines: Vec<_> = told.lines().filter(|line| line.contains("panicked")).collect();
            assert_eq!(lines.len(), 1, "{told}");
            let said = format!("thread {thread} panicked at vas/src/crash.rs:");
            assert!(lines[0].contains(&said), "{told}");
            assert!(
                lines[0].contains("no answer to rtsp://***@h/1") && !told.contains("PW"),
                "{told}"
            );
        }
    }

    #[test]
    fn a_panic_that_is_caught_on_purpose_is_told_and_the_process_goes_on() {
        let Output { status, stdout, stderr } = run("guarded");
        let told = String::from_utf8_lossy(&stderr);
        assert!(status.success() && String::from_utf8_lossy(&stdout).contains("went on"), "{told}");
        assert_eq!(told.matches("panicked at vas/src/crash.rs:").count(), 1, "{told}");
    }

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
