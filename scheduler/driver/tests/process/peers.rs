//! Runners that are none, speak another language, or say nothing: each is closed, the others are not
//! disturbed.

use crate::node::{Camera, Node, accept, hello, next, prepared, reply, send, welcomed};
use base::Epoch;
use base::limits::PROTOCOL_VERSION;
use ipc::runner_message::{Hello, RunnerMessage};
use std::io::Write;
use std::os::unix::net::UnixStream;

/// A peer named `m` on `cpu` that does `act` is closed without a welcome, and `n` is welcomed.
fn closes(act: impl FnOnce(&mut UnixStream)) {
    let mut node = Node::start();
    let listener = node.runner("m");
    let mut peer = accept(&listener);
    act(&mut peer);
    assert_eq!(next(&peer), None);
    let other = node.runner("n");
    let _welcomed = welcomed(&other, "n");
    node.stop().unwrap();
}

fn says(change: impl FnOnce(&mut Hello)) {
    let mut hello = hello("m");
    change(&mut hello);
    closes(|peer| send(peer, &RunnerMessage::Hello(hello)).unwrap());
}

#[test]
fn one_whose_first_message_is_not_hello_is_closed() {
    closes(|peer| send(peer, &RunnerMessage::Revoke { batch: 1 }).unwrap());
}

#[test]
fn one_of_another_protocol_is_closed() {
    says(|hello| hello.protocol = PROTOCOL_VERSION + 1);
}

#[test]
fn one_that_is_not_what_its_socket_is_named_is_closed() {
    says(|hello| hello.model_id = "other".parse().unwrap());
    says(|hello| hello.device = "gpu0".parse().unwrap());
}

#[test]
fn one_that_sends_garbage_is_closed() {
    closes(|peer| peer.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap());
    closes(|peer| peer.write_all(&[0, 0, 0, 4, 1, 2, 3, 4]).unwrap());
}

#[test]
fn one_that_never_says_hello_is_closed() {
    closes(|_| {});
}

#[test]
fn one_that_hangs_up_is_forgotten_and_found_again() {
    let node = Node::start();
    let listener = node.runner("m");
    drop(accept(&listener));
    drop(welcomed(&listener, "m"));
    let _again = welcomed(&listener, "m");
}

#[test]
fn a_runner_that_sends_a_schedulers_message_is_closed() {
    let node = Node::start();
    let listener = node.runner("m");
    let peer = welcomed(&listener, "m");
    send(&peer, &RunnerMessage::Revoke { batch: 1 }).unwrap();
    assert_eq!(next(&peer), None);
    let _again = welcomed(&listener, "m");
}

/// A registry that was restored, or made anew: what runs follows it all the same.
#[test]
fn a_desired_state_of_a_lower_revision_is_followed() {
    let node = Node::start();
    let _camera = Camera::start(&node.directories.shm);
    let mut serve = node.serve();
    for (epoch, revision, model) in [(1, 57, "m"), (1, 12, "n"), (2, 12, "m"), (2, 13, "n")] {
        let epoch = Epoch(epoch);
        node.desire(epoch, revision, model);
        let listener = node.runner(model);
        let runner = welcomed(&listener, model);
        reply(&runner, &prepared(&runner));
        serve.status(|status| (status.desired_epoch, status.desired_revision) == (epoch, revision));
    }
}
