//! What stops serve from starting, and what it leaves behind.

use crate::support::{Node, get_json};
use api::{Limits, ServeError};
use ipc::instance::InstanceError;
use std::net::TcpListener;

fn refusal(node: &Node) -> ServeError {
    node.try_start(Limits::default()).expect_err("serve must not start")
}

#[test]
fn a_second_instance_is_told_which_lock_is_held() {
    let node = Node::new();
    let first = node.start();
    let error = refusal(&node);
    assert!(matches!(error, ServeError::Instance(InstanceError::Held { .. })), "{error}");
    let text = error.to_string();
    assert!(text.contains("serve.lock") && text.contains("already running"), "{text}");
    assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
    assert!(get_json(&first, "/health")["status"] == "healthy", "the first one is not disturbed");
    first.stop();
    node.start();
}

#[test]
fn a_port_in_use_is_one_line_with_address_and_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut node = Node::new();
    node.options.bind = taken.local_addr().unwrap();
    let text = refusal(&node).to_string();
    assert!(text.contains(&node.options.bind.to_string()), "{text}");
    assert!(text.contains("in use") && text.contains("[http] bind"), "{text}");
    assert_eq!(text.lines().count(), 1);
    // Nothing of the attempt stays behind.
    node.options.bind = "127.0.0.1:0".parse().unwrap();
    node.start();
}

#[test]
fn an_address_that_is_not_loopback_is_refused() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8080"] {
        let mut node = Node::new();
        node.options.bind = address.parse().unwrap();
        let error = refusal(&node);
        assert!(matches!(error, ServeError::NotLoopback(_)), "{error}");
        assert!(error.to_string().contains("authentication"), "{error}");
        assert!(!node.options.directories.state.exists(), "refused before anything is made");
    }
}

#[test]
fn a_directory_that_can_not_be_written_is_named_with_its_purpose() {
    // A file in the way refuses every user, root too.
    for purpose in ["state", "runtime"] {
        let mut node = Node::new();
        let blocked = node.home.path().join("file");
        std::fs::write(&blocked, "").unwrap();
        let below = blocked.join("x");
        match purpose {
            "state" => node.options.directories.state = below.clone(),
            _ => node.options.directories.runtime = below.clone(),
        }
        let text = refusal(&node).to_string();
        assert!(text.contains(&below.display().to_string()), "{text}");
        assert!(text.starts_with(purpose) && text.contains("[dirs]"), "{text}");
    }
}

#[test]
fn a_locked_store_stops_the_start() {
    let node = Node::new();
    let state = &node.options.directories.state;
    std::fs::create_dir(state).unwrap();
    let held = store::EventStore::open(state, store::EventOptions::default()).unwrap();
    let error = refusal(&node);
    assert!(matches!(error, ServeError::Store(_)), "{error}");
    drop(held);
    node.start();
}

#[test]
fn a_stop_leaves_the_runtime_directory_empty() {
    let node = Node::new();
    let runtime = &node.options.directories.runtime;
    let names = || -> Vec<_> {
        std::fs::read_dir(runtime).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    let server = node.start();
    assert_eq!(names().len(), 2, "serve.lock and events.sock: {:?}", names());
    server.stop();
    assert!(names().is_empty(), "{:?}", names());
}

#[test]
fn a_stop_leaves_no_socket_and_a_kill_leaves_one_that_does_not_matter() {
    let node = Node::new();
    let socket = node.options.directories.events_socket();
    let server = node.start();
    assert!(socket.exists());
    server.stop();
    assert!(!socket.exists());
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists(), "what a killed serve leaves");
    let server = node.start();
    node.scheduler();
    drop(server);
}

#[test]
fn serve_runs_until_it_is_told_to_stop() {
    let node = Node::new();
    let (trigger, stop) = ipc::stop::Stop::pair().unwrap();
    let options = node.options.clone();
    let thread = std::thread::spawn(move || api::serve(options, stop));
    let socket = node.options.directories.events_socket();
    crate::support::wait_for("events.sock", || socket.exists().then_some(()));
    drop(trigger);
    thread.join().unwrap().unwrap();
    assert!(!socket.exists());
}
