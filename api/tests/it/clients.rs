//! Clients that are wrong, slow, too many or hostile.

use crate::support::{Node, connect, get, get_error, get_json, read_reply, request, wait_for};
use api::{HttpLimits, Limits, Server};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn with(node: &Node, http: HttpLimits) -> Server {
    node.try_start(Limits { http, ..Limits::default() }).unwrap()
}

fn raw(server: &Server, bytes: &[u8]) -> Option<u16> {
    let mut stream = connect(server.address());
    // A server that refuses early may close before all is written.
    let _ = stream.write_all(bytes);
    read_reply(&mut stream, false).map(|reply| reply.status)
}

/// Whether the server closed the connection.
fn closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn every_error_has_the_one_shape() {
    let node = Node::new();
    let server = node.start();
    for path in ["/nosuch", "/api/v1/ai-events/", "/api/v1/devices/nosuch", "/health/x", "//"] {
        let error = get_error(&server, 404, path);
        assert!(error["message"].is_string() && error.get("details").is_none());
    }
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
        let reply = request(server.address(), method, "/api/v1/ai-events");
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")), "{method}");
        assert_eq!(reply.json()["error"]["status"], 405);
        assert_eq!(request(server.address(), method, "/nosuch").status, 404, "{method}");
    }
    assert_eq!(request(server.address(), "BREW", "/health").status, 501);
    for path in ["/", "/health", "/api/v1/devices", "/api/v1/ai-models/nano"] {
        assert_eq!(get_error(&server, 422, &format!("{path}?x=1"))["details"][0]["field"], "x");
    }
}

#[test]
fn every_reply_has_the_headers_that_keep_it_here() {
    let node = Node::new();
    let server = node.start();
    for target in ["/", "/health", "/nosuch", "/api/v1/ai-events?x=1"] {
        let reply = get(&server, target);
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{target}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("cross-origin-resource-policy"), Some("same-origin"));
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
    let page = get(&server, "/");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    let text = String::from_utf8(page.body).unwrap();
    assert!(!text.contains("http://") && !text.contains("https://"), "nothing from elsewhere");
}

#[test]
fn head_is_get_without_the_body() {
    let node = Node::new();
    let server = node.start();
    for target in ["/", "/health", "/api/v1/devices", "/nosuch"] {
        let (head, got) =
            (request(server.address(), "HEAD", target), request(server.address(), "GET", target));
        assert_eq!(head.status, got.status);
        assert_eq!(head.header("content-length"), got.header("content-length"), "{target}");
        assert_eq!(head.header("content-type"), got.header("content-type"));
    }
}

#[test]
fn broken_heads_are_refused_and_the_server_lives() {
    let node = Node::new();
    let server = node.start();
    let many: String = (0..200).map(|i| format!("X-{i}: 1\r\n")).collect();
    for (head, status) in [
        ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_owned(), Some(400)),
        ("GET\r\n\r\n".to_owned(), Some(400)),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), Some(400)),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".into(),
            Some(400),
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n".into(), Some(400)),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), Some(431)),
        (format!("GET /?{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20_000)), Some(431)),
    ] {
        let shown: String = head.chars().take(60).collect();
        let got = raw(&server, head.as_bytes());
        assert!(got == status || (status == Some(431) && got == Some(414)), "{shown:?}: {got:?}");
    }
    assert_eq!(raw(&server, b"GET /health HTTP/1.0\r\n\r\n"), Some(200));
    assert_eq!(get(&server, "/health").status, 200);
}

#[test]
fn bodies_are_bounded_and_must_be_whole() {
    let node = Node::new();
    let limits = HttpLimits { body_bytes_max: 1000, ..HttpLimits::default() };
    let server = with(&node, limits);
    let post = |headers: &str, body: &[u8]| {
        let head = format!("POST /health HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n");
        [head.as_bytes(), body].concat()
    };
    assert_eq!(raw(&server, &post("Content-Length: 1000", &[b'x'; 1000])), Some(405));
    assert_eq!(raw(&server, &post("Content-Length: 1001", b"")), Some(413), "before it is read");
    let mut chunked = b"3e9\r\n".to_vec();
    chunked.extend([b'x'; 1001]);
    chunked.extend(b"\r\n0\r\n\r\n");
    assert_eq!(raw(&server, &post("Transfer-Encoding: chunked", &chunked)), Some(413));
    assert_eq!(raw(&server, &post("Transfer-Encoding: chunked", b"zz\r\n")), Some(400));
    // Cut short by the client's end of writing.
    let mut stream = connect(server.address());
    stream.write_all(&post("Content-Length: 10", b"12345")).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let reply = read_reply(&mut stream, false);
    assert!(reply.is_none_or(|r| r.status == 400), "a part is not taken for the whole");
    assert_eq!(get(&server, "/health").status, 200);
}

#[test]
fn slow_and_idle_clients_are_let_go() {
    let node = Node::new();
    let short = Duration::from_millis(200);
    let limits = HttpLimits { head_wait: short, body_wait: short, ..HttpLimits::default() };
    let server = with(&node, limits);
    // No byte at all, half a head, half a body, and idle after an answer.
    let mut silent = connect(server.address());
    let mut half = connect(server.address());
    half.write_all(b"GET /health HTTP/1.1\r\nHo").unwrap();
    let mut body = connect(server.address());
    body.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1234")
        .unwrap();
    let mut idle = connect(server.address());
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(read_reply(&mut idle, false).unwrap().status, 200);
    assert_eq!(read_reply(&mut body, false).unwrap().status, 408);
    for stream in [&mut silent, &mut half, &mut body, &mut idle] {
        assert!(closed(stream));
    }
}

#[test]
fn a_client_that_reads_nothing_is_cut_off_and_disturbs_nobody() {
    let node = Node::new();
    let limits = HttpLimits { write_wait: Duration::from_millis(200), ..HttpLimits::default() };
    let server = with(&node, limits);
    let mut stream = connect(server.address());
    stream.set_nonblocking(true).unwrap();
    // Pipelined requests for large answers until both directions are full, then until cut off.
    let ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(64);
    wait_for("the connection to be cut off", || match stream.write(&ask) {
        Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => Some(()),
        _ => None,
    });
    assert_eq!(get(&server, "/health").status, 200);
}

#[test]
fn clients_beyond_the_cap_are_told_and_the_others_go_on() {
    let node = Node::new();
    let server = with(&node, HttpLimits { connections_max: 2, ..HttpLimits::default() });
    let ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut held: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = connect(server.address());
            stream.write_all(ask).unwrap();
            assert_eq!(read_reply(&mut stream, false).unwrap().status, 200);
            stream
        })
        .collect();
    let mut third = connect(server.address());
    let reply = read_reply(&mut third, false).unwrap();
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("too many connections"));
    held[0].write_all(ask).unwrap();
    assert_eq!(read_reply(&mut held[0], false).unwrap().status, 200);
    drop(held.pop());
    wait_for("the free place", || {
        let mut stream = connect(server.address());
        stream.write_all(ask).ok()?;
        (read_reply(&mut stream, false)?.status == 200).then_some(())
    });
}

#[test]
fn pages_of_other_hosts_do_not_get_in_by_name() {
    let node = Node::new();
    let server = node.start();
    let ask = |host: &str| {
        let mut stream = connect(server.address());
        write!(stream, "GET /api/v1/devices HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        read_reply(&mut stream, false).unwrap()
    };
    let reply = ask("rebound.example:8080");
    assert_eq!(reply.status, 421);
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("rebound.example"));
    for host in ["localhost", "127.0.0.1:1", "[::1]"] {
        assert_eq!(ask(host).status, 200, "{host}");
    }
}

#[test]
fn an_answer_under_way_is_finished_when_serve_stops() {
    let node = Node::new();
    let server = node.start();
    let address = server.address();
    let mut stream = connect(address);
    stream.write_all(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    // The head is there: the answer is under way.
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    server.stop();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    let text = String::from_utf8(rest).unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1;
    let document: Value = serde_json::from_str(body).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn the_document_names_every_parameter_that_is_accepted() {
    let node = Node::new();
    let server = node.start();
    let document = get_json(&server, "/openapi.json");
    for (path, operation) in document["paths"].as_object().unwrap() {
        let path = path.replace("{model_id}", "nano").replace("{camera_id}", "front");
        let path = match path.as_str() {
            "/api/v1/devices/{id}" => "/api/v1/devices/front".to_owned(),
            "/api/v1/ai-model-assignments/{id}" => path.replace("{id}", "front.nano"),
            _ => path,
        };
        let parameters = operation["get"]["parameters"].as_array();
        for parameter in parameters.into_iter().flatten() {
            if parameter["in"] != "query" {
                continue;
            }
            let (name, example) = (&parameter["name"], &parameter["example"]);
            let target = format!("{path}?{}={}", name.as_str().unwrap(), example.as_str().unwrap());
            let reply = get(&server, &target);
            // What the path names need not exist here.
            let allowed = matches!(reply.status, 200 | 404) || path.contains("/rtsp/");
            assert!(allowed, "{target}: {}", reply.status);
        }
    }
}
