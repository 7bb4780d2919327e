//! Serve that is away, and back: results are counted as long as nobody takes them.

use crate::node::{Camera, Node, prepared, reply, welcomed};
use base::Epoch;
use ipc::events_message::{EventsMessage, Status};

/// Results that this status accounts for, by the ledgers.
fn sampled(status: &Status) -> u64 {
    status.subscriptions.iter().map(|subscription| subscription.ledger.sampled).sum()
}

#[test]
fn serve_may_go_and_come_and_every_result_is_somewhere() {
    let mut node = Node::start();
    node.desire(Epoch(1), 1, "m");
    let _camera = Camera::start(&node.directories.shm);
    let listener = node.runner("m");
    let runner = welcomed(&listener, "m");
    // Nobody is there.
    for _ in 0..5 {
        reply(&runner, &prepared(&runner));
    }
    let mut serve = node.serve();
    let EventsMessage::Models { models, .. } = serve.next() else { panic!("no models") };
    assert_eq!(models.len(), 1, "who runs is told before anything else");
    let first = serve.status(|_| true);
    assert!(first.results_dropped >= 4, "{first:?}");
    let before = first.results_dropped;
    let mut taken = 0;
    while taken < 3 {
        reply(&runner, &prepared(&runner));
        if let EventsMessage::Results(results) = serve.next() {
            taken += results.results.len();
        }
    }
    // It goes while there is work, and its name with it.
    std::fs::remove_file(node.directories.events_socket()).unwrap();
    drop(serve);
    for _ in 0..5 {
        reply(&runner, &prepared(&runner));
    }
    let mut serve = node.serve();
    let status = serve.status(|_| true);
    assert!(status.results_dropped > before, "{} of {before}", status.results_dropped);
    // Messages of other kinds are none; a result that was in the socket is unknown.
    assert!(status.results_dropped <= sampled(&status), "{status:?}");
    node.stop().unwrap();
}
