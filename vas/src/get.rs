//! One HTTP GET of JSON from serve on this machine.
//!
//! HTTP/1.1 with `Connection: close`, bounded in time and size. Not a general client: serve is the
//! only server it speaks to.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for any one step.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer that is read.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The body of `path` as JSON.
///
/// # Errors
/// When nobody answers in time, or the answer is not a 200 with JSON.
pub fn json(address: SocketAddr, path: &str) -> io::Result<serde_json::Value> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(BYTES_MAX).read_to_end(&mut answer)?;
    body(&answer).map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))
}

fn body(answer: &[u8]) -> Result<serde_json::Value, String> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or("the answer has no head")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let rest = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("the answer is {status}"));
    }
    let chunked = lines.any(|line| {
        let line = line.to_ascii_lowercase();
        line.starts_with("transfer-encoding:") && line.contains("chunked")
    });
    let joined;
    let text = if chunked {
        joined = chunks(rest).ok_or("the answer is cut off")?;
        &joined
    } else {
        rest
    };
    serde_json::from_slice(text).map_err(|e| format!("the answer is not JSON: {e}"))
}

fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut joined = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        let chunk = rest.get(end + 2..)?;
        if size == 0 {
            return Some(joined);
        }
        joined.extend_from_slice(chunk.get(..size)?);
        rest = chunk.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_come_whole_or_chunked() {
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
        assert_eq!(body(plain).unwrap()["a"], 1);
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n";
        assert_eq!(body(chunked).unwrap()["a"], 1);
    }

    #[test]
    fn other_answers_are_refused() {
        for (answer, why) in [
            (&b""[..], "no head"),
            (b"HTTP/1.1 503 Unavailable\r\n\r\n{}", "503"),
            (b"HTTP/1.1 200 OK\r\n\r\n<html>", "not JSON"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}", "cut off"),
        ] {
            let error = body(answer).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
