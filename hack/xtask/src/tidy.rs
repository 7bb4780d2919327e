//! House rules that no compiler checks: `cargo xtask tidy`.
//!
//! Each rule is data at the top of this file or of [`crate::layers`]; its reason stands beside it.

use crate::circles;
use crate::layers;
use crate::repository::{self, File};
use crate::rust_text::{code_only, line, paths, words};
use std::path::Path;

/// Where these rules stand, for messages.
const HERE: &str = "hack/xtask/src/tidy.rs";

/// A clone must stay small.
const FILE_BYTES_MAX: usize = 1_000_000;
/// The media and weights that tests and demo need, and nothing else.
const LARGE_FILES: &[&str] =
    &["assets/pedestrians.mp4", "models/nanodet_g_416/nanodet_g_416_f16w.onnx"];

/// Names that say nothing about what a file is for.
const EMPTY_NAMES: &[&str] =
    &["util", "utils", "helper", "helpers", "common", "manager", "misc", "stuff"];
/// The schema that both protocols include; flatc's own word for it.
const EMPTY_NAMES_ALLOWED: &[&str] = &["ipc/schema/common.fbs"];

/// The only files with unsafe code, and why.
const UNSAFE_FILES: &[(&str, &str)] = &[
    ("benches/src/counting_allocator.rs", "an allocator that counts, around the system's"),
    ("benches/src/ticks.rs", "the time-stamp counter of x86-64"),
    ("ingest/src/container.rs", "libavformat: fields that the safe binding does not show"),
    ("ingest/src/decoder.rs", "libavcodec: frames written straight into the slot"),
    ("ipc/src/ring/copy.rs", "pixels cross processes: volatile and streaming copies"),
    ("ipc/src/ring/memory.rs", "mmap of the ring's files"),
    ("ipc/src/ring/reader.rs", "reads slots that another process may write"),
    ("ipc/src/ring/seqlock.rs", "the words of the sequence lock in shared memory"),
    ("ipc/src/ring/writer.rs", "writes slots in shared memory"),
    ("ipc/tests/ring/syscalls.rs", "_exit, in a child under a system call filter"),
    ("kernels/src/preprocess/row.rs", "vector instructions, chosen at run time"),
    ("runner/src/serve.rs", "_exit of a runner whose engine hangs"),
];

/// The only files that catch a panic (`base::guard`), and of what. Each has a test that panics inside it.
/// Everywhere else a panic ends the process.
const GUARD_FILES: &[(&str, &str)] = &[
    ("ingest/src/live/hub.rs", "the WebRTC peer of a viewer, when it is due"),
    ("ingest/src/live/offer.rs", "the WebRTC library over a stranger's offer"),
    ("ingest/src/live/seats.rs", "the WebRTC peer of a viewer, over a stranger's datagram"),
    ("ingest/src/rtsp.rs", "the RTSP library over what a camera sends"),
    ("runner/src/pipeline.rs", "an engine, and the decoding of what a model's graph made"),
    ("store/src/database.rs", "redb over a file that was altered"),
];
/// What a guard is made of, and where that may stand: the guard, a search for panics of the core, and
/// a test of its assertions.
const CATCH_FILES: &[&str] =
    &["base/src/guard.rs", "scheduler/sim/src/worlds.rs", "scheduler/src/audit.rs"];

/// What flatc wrote: not ours to format.
const GENERATED: &str = "ipc/src/generated/";

/// The core, and the world in virtual time around it, are functions of their inputs: no clock,
/// thread, socket, file, randomness, environment, nor the order of a hash map.
const PURE_FOLDERS: &[&str] = &["base/src/", "plan/src/", "scheduler/src/", "scheduler/sim/"];
const IMPURE_PATHS: &[&str] = &[
    "std::time::Instant",
    "std::time::SystemTime",
    "std::thread",
    "std::net",
    "std::fs",
    "std::process",
    "std::env",
    "std::os",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::hash::RandomState",
];
const IMPURE_WORDS: &[&str] = &["HashMap", "HashSet", "RandomState", "rand"];

/// Machine paths mean that something works on one machine only. Spelled in two halves, so that this
/// file passes its own check.
const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
/// Packages are fetched by name with the user's own client, which may point at a mirror.
const REGISTRY_HOSTS: &[&str] = &[
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("python", "hosted"),
    concat!("npmjs", "."),
    concat!("deb.", "debian"),
    concat!("debian", ".org"),
];
/// Written by cargo, which puts the registry's name into every entry.
const REGISTRY_HOSTS_ALLOWED: &[&str] = &["Cargo.lock"];

/// Checks the work tree.
///
/// # Errors
/// All problems, one per line.
pub fn run(root: &Path) -> Result<(), String> {
    let files = repository::files(root)?;
    let mut problems = check(&files);
    for (name, _) in UNSAFE_FILES {
        if !files.iter().any(|f| f.path == *name && has_unsafe(f)) {
            problems
                .push(format!("{HERE}: {name} is listed, but has no unsafe code: drop the line"));
        }
    }
    for (name, _) in GUARD_FILES {
        if !files.iter().any(|f| f.path == *name && f.text().is_some_and(|t| guards(t).is_some())) {
            problems.push(format!("{HERE}: {name} is listed, but guards nothing: drop the line"));
        }
    }
    for name in LARGE_FILES {
        if !files.iter().any(|f| f.path == *name && f.bytes.len() > FILE_BYTES_MAX) {
            problems.push(format!("{HERE}: {name} is listed, but is not large: drop the line"));
        }
    }
    if problems.is_empty() {
        println!("tidy: {} files are fine", files.len());
        return Ok(());
    }
    problems.sort();
    Err(format!("{}\ntidy: {} problems", problems.join("\n"), problems.len()))
}

fn check(files: &[File]) -> Vec<String> {
    let mut problems = Vec::new();
    layers::check(files, &mut problems);
    circles::check(files, &mut problems);
    for file in files {
        check_name(file, &mut problems);
        check_size(file, &mut problems);
        let Some(text) = file.text() else { continue };
        check_words(&file.path, text, &mut problems);
        if file.path.ends_with(".rs") && !file.path.starts_with(GENERATED) {
            check_layout(&file.path, text, &mut problems);
            check_code(&file.path, text, &mut problems);
        }
    }
    problems
}

fn check_name(file: &File, problems: &mut Vec<String>) {
    let path = &file.path;
    if path.ends_with("/mod.rs") && !path.starts_with(GENERATED) {
        problems.push(format!("{path}: name the module's file x.rs beside the folder x/"));
    }
    for part in path.split('/') {
        let stem = part.split('.').next().unwrap_or(part);
        if EMPTY_NAMES.contains(&stem) && !EMPTY_NAMES_ALLOWED.contains(&path.as_str()) {
            problems.push(format!("{path}: `{stem}` says nothing; name it for what it defines"));
        }
    }
}

fn check_size(file: &File, problems: &mut Vec<String>) {
    let (path, size) = (&file.path, file.bytes.len());
    if size > FILE_BYTES_MAX && !LARGE_FILES.contains(&path.as_str()) {
        problems.push(format!(
            "{path}: {size} bytes, at most {FILE_BYTES_MAX} unless listed in LARGE_FILES of {HERE}"
        ));
    }
}

/// What no text of the repository may hold.
fn check_words(path: &str, text: &str, problems: &mut Vec<String>) {
    for (at, character) in text.char_indices() {
        if is_emoji(character) {
            problems.push(format!("{path}:{}: emoji {character:?}", line(text, at)));
        }
    }
    for machine in MACHINE_PATHS {
        for (at, _) in text.match_indices(machine) {
            // `../work/` or `example/work/` are no absolute paths.
            let before = text[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || "._-~}$".contains(c)) {
                problems
                    .push(format!("{path}:{}: {machine} is a path of one machine", line(text, at)));
            }
        }
    }
    if !REGISTRY_HOSTS_ALLOWED.contains(&path) {
        for host in REGISTRY_HOSTS {
            for (at, _) in text.match_indices(host) {
                problems.push(format!(
                    "{path}:{}: {host} is a registry's host: name the package, not where it lies",
                    line(text, at)
                ));
            }
        }
    }
}

fn is_emoji(character: char) -> bool {
    matches!(u32::from(character), 0x1F000..=0x1FAFF | 0x2600..=0x27BF | 0x2B50..=0x2B55 | 0xFE0F)
}

fn check_layout(path: &str, text: &str, problems: &mut Vec<String>) {
    for (i, line) in text.lines().enumerate() {
        if line.contains('\t') {
            problems.push(format!("{path}:{}: tab", i + 1));
        }
        if line.ends_with([' ', '\r']) {
            problems.push(format!("{path}:{}: trailing space", i + 1));
        }
    }
}

fn check_code(path: &str, text: &str, problems: &mut Vec<String>) {
    let code = code_only(text);
    let at = |offset: usize| format!("{path}:{}", line(text, offset));
    for name in EMPTY_NAMES {
        for offset in words(&code, name) {
            if code[..offset].trim_end().ends_with("mod") {
                problems.push(format!("{}: `mod {name}` says nothing", at(offset)));
            }
        }
    }
    if !UNSAFE_FILES.iter().any(|(listed, _)| *listed == path)
        && let Some(offset) = words(&code, "unsafe").next()
    {
        problems.push(format!(
            "{}: unsafe code outside the files that UNSAFE_FILES of {HERE} lists",
            at(offset)
        ));
    }
    if !CATCH_FILES.contains(&path)
        && let Some(offset) = words(&code, "catch_unwind").next()
    {
        problems.push(format!(
            "{}: a panic is caught by base::guard alone, or the process ends all the same",
            at(offset)
        ));
    }
    if !GUARD_FILES.iter().any(|(listed, _)| *listed == path)
        && !path.contains("/tests/")
        && let Some(offset) = guards(text)
    {
        problems
            .push(format!("{}: a guard outside the files of GUARD_FILES in {HERE}", at(offset)));
    }
    if !path.starts_with("ipc/") {
        for offset in words(&code, "flatbuffers").take(1) {
            problems.push(format!("{}: flatbuffers do not leave ipc", at(offset)));
        }
    } else if code.contains("pub mod generated") || code.contains("pub use generated") {
        problems.push(format!("{path}: generated types do not leave ipc"));
    }
    for (offset, _) in code.match_indices("#[ignore") {
        problems.push(format!("{}: an ignored test proves nothing", at(offset)));
    }
    if PURE_FOLDERS.iter().any(|folder| path.starts_with(folder)) {
        for (offset, named) in paths(&code, "std") {
            let banned = |ban: &&&str| {
                named
                    .strip_prefix(**ban)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
            };
            if let Some(ban) = IMPURE_PATHS.iter().find(banned) {
                problems.push(format!("{}: {ban} in the sans-IO core", at(offset)));
            }
        }
        for word in IMPURE_WORDS {
            for offset in words(&code, word).take(1) {
                problems.push(format!("{}: {word} in the sans-IO core", at(offset)));
            }
        }
    }
}

/// The first guard of a text, its tests aside.
fn guards(text: &str) -> Option<usize> {
    let code = code_only(text);
    let tests = code.find("mod tests {").unwrap_or(code.len());
    code[..tests].find("guard::foreign(")
}

fn has_unsafe(file: &File) -> bool {
    file.text().is_some_and(|text| words(&code_only(text), "unsafe").next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of one file, without those of the dependency table.
    fn problems_of(path: &str, text: impl Into<Vec<u8>>) -> Vec<String> {
        let file = File { path: path.into(), bytes: text.into() };
        let mut problems = check(&[file]);
        problems.retain(|problem| !problem.contains("layers.rs"));
        problems
    }

    #[track_caller]
    fn check_planted(path: &str, text: &str, expected: &[&str]) {
        let found = problems_of(path, text);
        assert_eq!(found.len(), expected.len(), "{path}: {found:?}");
        for (problem, part) in found.iter().zip(expected) {
            assert!(problem.contains(part), "{problem} lacks {part}");
        }
    }

    #[test]
    fn clean_files_pass() {
        check_planted("store/src/day.rs", "//! Days.\nfn f() { let a = \"unsafe\"; }\n", &[]);
        check_planted("docs/glossary.md", "arrows -> and \u{2192}, caf\u{e9}\n", &[]);
        check_planted("base/src/lib.rs", "use std::time::Duration;\n", &[]);
        check_planted("scheduler/driver/src/lib.rs", "use std::time::Instant;\n", &[]);
    }

    #[test]
    fn planted_files_are_found() {
        check_planted("store/src/mod.rs", "", &["x.rs beside the folder"]);
        check_planted("store/src/utils.rs", "", &["`utils` says nothing"]);
        check_planted("store/helpers/day.rs", "", &["`helpers` says nothing"]);
        check_planted("docs/misc.md", "", &["`misc` says nothing"]);
        let large = problems_of("assets/big.bin", vec![0; FILE_BYTES_MAX + 1]);
        assert!(large[0].contains("1000001 bytes"), "{large:?}");
        assert_eq!(problems_of("assets/ok.bin", vec![0; FILE_BYTES_MAX]), [""; 0]);
    }

    #[test]
    fn planted_words_are_found() {
        check_planted("README.md", "a\nb \u{1F600}\n", &["README.md:2: emoji"]);
        check_planted("README.md", "\u{2705}", &["emoji"]);
        check_planted("hack/x", concat!("cd /wo", "rk/main"), &["a path of one machine"]);
        check_planted("hack/x", concat!("file:///ho", "me/me"), &["a path of one machine"]);
        check_planted("hack/x", concat!("../wo", "rk/main $top/ho", "me/a"), &["$top"; 0]);
        check_planted("hack/x", concat!("curl pypi", ".org"), &["a registry's host"]);
        check_planted("Cargo.lock", concat!("index.crates", ".io"), &[]);
    }

    #[test]
    fn planted_code_is_found() {
        check_planted("store/src/a.rs", "fn f() {\n\tg()\n}", &["a.rs:2: tab"]);
        check_planted("store/src/a.rs", "fn f() {} \n", &["a.rs:1: trailing space"]);
        check_planted("store/src/a.rs", "mod utils;\n", &["`mod utils` says nothing"]);
        check_planted("store/src/a.rs", "\nfn f() { unsafe { g() } }", &["a.rs:2: unsafe code"]);
        check_planted("store/src/a.rs", "#[unsafe(no_mangle)]\nfn f() {}", &["unsafe code"]);
        check_planted("store/src/a.rs", "#![forbid(unsafe_code)] // unsafe\n", &[]);
        let caught = "use std::panic::catch_unwind;";
        check_planted("api/src/a.rs", caught, &["caught by base::guard alone"]);
        check_planted("base/src/guard.rs", caught, &[]);
        let guarded = "fn f() { guard::foreign(g) }";
        check_planted("api/src/a.rs", guarded, &["a guard outside the files"]);
        check_planted("store/src/database.rs", guarded, &[]);
        check_planted("api/src/a.rs", &format!("mod tests {{ {guarded} }}"), &[]);
        check_planted("api/src/a.rs", "use flatbuffers::Vector;", &["do not leave ipc"]);
        check_planted("ipc/src/lib.rs", "pub mod generated;", &["do not leave ipc"]);
        check_planted(
            "api/src/a.rs",
            "#[test]\n#[ignore]\nfn f() {}",
            &["a.rs:2: an ignored test"],
        );
    }

    #[test]
    fn the_core_stays_pure() {
        for (code, ban) in [
            ("use std::time::{Duration, Instant};", "std::time::Instant"),
            ("fn f() { std::time::SystemTime::now(); }", "std::time::SystemTime"),
            ("use std::{fmt, thread};", "std::thread"),
            ("use std::net::TcpStream;", "std::net"),
            ("fn f() { std::fs::read(p); }", "std::fs"),
            ("fn f() { rand::random() }", "rand"),
        ] {
            check_planted("scheduler/src/a.rs", code, &[ban]);
            check_planted("scheduler/sim/src/a.rs", code, &[ban]);
            check_planted("api/src/a.rs", code, &[]);
        }
        let map = "use std::collections::HashMap;";
        check_planted("scheduler/src/a.rs", map, &["std::collections::HashMap", "HashMap in"]);
        check_planted("scheduler/src/a.rs", "// std::thread and HashMap\n", &[]);
    }
}
