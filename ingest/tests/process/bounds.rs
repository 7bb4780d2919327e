//! What one camera can take of the node: memory of its worker, files that it may be made of.

use crate::node::{self, Node, camera, camera_at, pedestrians};
use crate::watch::{Watch, wait_until};
use base::limits::{CHILD_OOM_SCORE_ADJ, DECODER_DATA_BYTES_MAX};
use ipc::ingest_message::StreamState;
use std::fs;
use std::os::fd::AsFd;
use std::process::ExitCode;

/// A decode worker, unless its camera is `greedy`: then it takes memory until it gets no more.
pub fn greedy_worker() -> ExitCode {
    if !is_for("greedy") {
        return ingest::decode_main();
    }
    let mut taken = Vec::new();
    loop {
        // Reserved and not touched: the limit counts it, the machine does not.
        taken.push(Vec::<u8>::with_capacity(256 << 20));
    }
}

/// A decode worker, which has next to no memory left when its camera is `starved`.
pub fn starved_worker() -> ExitCode {
    if is_for("starved") {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
        let has = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
        let limit = Some(has + (1 << 20));
        let limit = rustix::process::Rlimit { current: limit, maximum: limit };
        rustix::process::setrlimit(rustix::process::Resource::Data, limit).unwrap();
    }
    ingest::decode_main()
}

/// Whether this worker is told to be for a camera, once it is told.
fn is_for(camera: &str) -> bool {
    let input = std::io::stdin();
    let mut seen = [0; 512];
    let named = format!("\"camera\":\"{camera}\"");
    loop {
        // Looked at, not taken: the worker reads it again.
        let flags = rustix::net::RecvFlags::PEEK;
        let (_, length) = rustix::net::recv(input.as_fd(), &mut seen[..], flags).unwrap();
        let seen = &seen[..length];
        if length == 0 || seen.windows(8).any(|part| part == b"\"hints\":") {
            break;
        }
        std::thread::yield_now();
    }
    seen.windows(named.len()).any(|part| part == named.as_bytes())
}

#[test]
fn a_decoder_that_gets_no_memory_is_told_and_others_go_on() {
    let node = Node::new();
    node.desire([camera("starved", &pedestrians()), camera("modest", &pedestrians())]);
    let ingest = node.start_again("starved");
    wait_until("the reason", || {
        let status = node.status("starved", "main");
        status.is_some_and(|status| status.export_reason.contains("memory"))
    });
    Watch::new(&node, "modest").collect(3);
    ingest.stop();
    node.assert_nothing_left();
}

#[test]
fn a_worker_that_takes_too_much_ends_and_its_camera_says_so_and_others_go_on() {
    let node = Node::new();
    node.desire([camera("greedy", &pedestrians()), camera("modest", &pedestrians())]);
    let ingest = node.start_again("greedy");
    let mut modest = Watch::new(&node, "modest");
    modest.collect(2);
    let worker = node.worker("modest").unwrap();
    let reason = wait_until("the greedy one has ended", || {
        // On a machine under load it may have been ended first, while it began.
        let reason = node.status("greedy", "main").unwrap().export_reason;
        reason.contains("signal: 6").then_some(reason)
    });
    let most = format!("{} MiB", DECODER_DATA_BYTES_MAX >> 20);
    assert!(reason.contains(&most), "{reason}");
    // It is tried again, and nobody else notices.
    let restarts = || {
        let counters = node.status("greedy", "main").unwrap().counters;
        counters.iter().find(|(name, _)| name == "restarts").unwrap().1
    };
    wait_until("it is tried again", || restarts() > 0);
    modest.collect(2);
    let status = node.status("modest", "main").unwrap();
    assert_eq!((status.export_reason.as_str(), status.state), ("", StreamState::Live));
    assert_eq!(node.worker("modest"), Some(worker));
    // What every worker has.
    let of = |file: &str| fs::read_to_string(format!("/proc/{worker}/{file}")).unwrap();
    assert_eq!(of("oom_score_adj").trim(), CHILD_OOM_SCORE_ADJ.to_string());
    let limits = of("limits");
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(limit("Max data size"), DECODER_DATA_BYTES_MAX.to_string());
    assert_eq!(limit("Max core file size"), "0");
    ingest.stop();
    node.assert_nothing_left();
}

#[test]
fn what_a_worker_could_not_have_is_in_the_state_until_it_has_it() {
    let node = Node::new();
    node.desire([camera("large", &pedestrians())]);
    let go = node.root.path().join("go");
    // Magic, kind, bytes of text; then zeros up to 48 bytes, but for frames exported.
    let script = r#"
        zeros() { i=0; while [ $i -lt $1 ]; do printf '\000'; i=$((i + 1)); done; }
        say() { printf 'VASD\00'$1'\000\000\000\0'$2'\000\000\000'; zeros 12; printf '\00'$3; zeros 23; }
        { say 3 5 0; printf 'fewer'; say 1 0 1; say 1 0 2; } >&0
        while [ ! -e "$0" ]; do sleep 0.02; done
        { say 3 0 2; say 1 0 3; } >&0
        exec sleep 600"#;
    let ingest = node.start_with(["sh", "-c", script, go.to_str().unwrap()]);
    let count = |name: &str| {
        let counters = node.status("large", "main").map(|s| s.counters).unwrap_or_default();
        counters.iter().find(|(n, _)| n == name).map_or(0, |(_, count)| *count)
    };
    let reason = || node.status("large", "main").unwrap().export_reason;
    wait_until("two frames", || count("exported") == 2);
    assert_eq!(reason(), "fewer", "frames do not take it away");
    fs::write(&go, "").unwrap();
    wait_until("the third frame", || count("exported") == 3);
    assert_eq!(reason(), "");
    // Nobody wants frames any more.
    node.desire([]);
    ingest.stop();
    wait_until("the worker is gone", || node.children_named("sleep").is_empty());
}

#[test]
fn a_clip_that_vas_toml_does_not_name_lies_below_the_roots_wherever_links_lead() {
    let node = Node::new();
    let at = |name: &str| node.root.path().join(name);
    fs::create_dir(at("clips")).unwrap();
    fs::copy(node::asset("bframes.mp4"), at("clips/inside.mp4")).unwrap();
    fs::copy(node::asset("bframes.mp4"), at("outside.mp4")).unwrap();
    std::os::unix::fs::symlink(at("outside.mp4"), at("clips/link.mp4")).unwrap();
    let strange = |id: &str, url: &str| camera_at(id, url).not_named();
    let of = |name: &str| format!("file://{}", at(name).display());
    node.desire([
        strange("inside", &of("clips/inside.mp4")),
        strange("outside", &of("outside.mp4")),
        strange("link", &of("clips/link.mp4")),
        strange("dots", &of("clips/../outside.mp4")),
        strange("encoded", &of("clips/%2e%2e/outside.mp4")),
        strange("kernel", "file:///proc/kmsg"),
        strange("missing", "file:///nowhere/at/all.mp4"),
        camera_at("named-kernel", "file:///proc/kmsg"),
        camera("named", &at("outside.mp4")),
    ]);
    let ingest = node.start_with_roots(vec![at("clips")]);
    Watch::new(&node, "inside").collect(2);
    Watch::new(&node, "named").collect(2);
    let reason = |id: &str| {
        let status = node.wait_for(id, StreamState::BackingOff);
        // All but the name that was given.
        status.reason.split_once(" can't be played: ").unwrap().1.to_owned()
    };
    let refused = reason("outside");
    assert!(refused.contains("file_roots"), "{refused}");
    for id in ["link", "dots", "encoded", "kernel", "missing"] {
        assert_eq!(reason(id), refused, "{id}: nobody learns what there is");
    }
    assert!(reason("named-kernel").contains("not a regular file"));
    ingest.stop();
    node.assert_nothing_left();
}
