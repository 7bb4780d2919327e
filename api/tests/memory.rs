//! What hostile requests cost: the memory of a process that serves, and nothing else runs in.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "it/support.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::thread;
use support::{Node, send};

/// Peak of the memory that this process had in use, KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn bodies_of_a_mebibyte_cost_little_more_than_they_are_long() {
    let node = Node::new();
    let server = node.start();
    let mib = 1024 * 1024;
    let list = |element: &str| {
        let count = (mib - 64) / (element.len() + 1);
        format!("{{\"streams\":[{}]}}", vec![element; count].join(","))
    };
    let numbers: Vec<String> = (0..140_000).map(|n| n.to_string()).collect();
    let keys: Vec<String> = (0..90_000).map(|n| format!("\"k{n}\":0")).collect();
    let bodies = [
        list("{}"),
        list("0"),
        list("[]"),
        list("{\"\":0}"),
        format!("{{{}}}", keys.join(",")),
        format!("{{\"{}\":1}}", "x".repeat(mib - 16)),
        format!("{{\"name\":\"{}\"}}", "x".repeat(mib - 16)),
        format!("{{\"streams\":[{{\"roles\":[{}]}}]}}", numbers.join(",")),
    ];
    let before = peak_kib();
    thread::scope(|scope| {
        for body in &bodies {
            let server = &server;
            scope.spawn(move || {
                let target = "/api/v1/devices";
                let reply = send(server, "POST", target, "application/json", body.as_bytes());
                assert_eq!(reply.status, 422);
                assert!(reply.body.len() < 64 * 1024);
            });
        }
    });
    let grown = peak_kib() - before;
    // This side holds each body twice, serve at most three times, and 24 MiB for threads and their
    // heaps; values of it, and an answer for each, took 1 to 3 GB.
    let bound = (5 * bodies.len() as u64 + 24) * 1024;
    assert!(grown < bound, "{grown} KiB, the bound is {bound}");
}
