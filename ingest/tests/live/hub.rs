//! Behaviour of the hub, seen by peers in this process.
