//! serve at its limit of descriptors.

use crate::node::{Place, Process, clip, until};
use std::io::{Read, Write};
use std::net::TcpStream;

/// Few enough to be used up at once, enough for serve itself.
const LIMIT: usize = 64;

/// Answers one request on a connection that stays open.
fn ask(client: &mut TcpStream, path: &str) -> (u16, String) {
    write!(client, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split_once("content-length: ").unwrap().1;
    let length = length.split_once('\r').unwrap().0.parse().unwrap();
    let mut body = vec![0; length];
    client.read_exact(&mut body).unwrap();
    (head[9..12].parse().unwrap(), String::from_utf8(body).unwrap())
}

#[test]
fn descriptors_that_ran_out_are_told_once_and_by_their_name() {
    let place =
        Place::new(&format!("[[camera]]\nid = \"one\"\nmain_url = \"{}\"\n", clip().display()));
    let (vas, config) = (env!("CARGO_BIN_EXE_vas"), place.config_text());
    let mut serve =
        Process::shell(&format!("sh -c 'ulimit -n {LIMIT} && exec {vas} serve --config {config}'"));
    serve.wait_for("serving on http://");
    for _ in 0..3 {
        let connect = || TcpStream::connect(("127.0.0.1", place.port)).unwrap();
        let mut inside = connect();
        assert_eq!(ask(&mut inside, "/health").0, 200);
        let others: Vec<TcpStream> = (0..2 * LIMIT).map(|_| connect()).collect();
        serve.wait_for("http clients wait: Too many open files");
        until("the limit", || {
            let (status, body) = ask(&mut inside, "/api/v1/devices/one/frame.jpg");
            status == 503 && body.contains("Too many open files")
        });
        drop(others);
        place.get_until("/health", |body| body.contains("healthy"));
    }
    let told = serve.text().matches("Too many open files").count();
    assert_eq!(told, 1, "{}", serve.text());
    assert!(serve.stop().success());
}
