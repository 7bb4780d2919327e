//! The sockets: hyper 1 on tokio, with a bound on everything a client can hold.

use super::guarded_stream::GuardedStream;
use super::message::Failure;
use super::reply_body::ReplyBody;
use super::routes::{Call, Router};
use base::log_gate::LogGate;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipc::clock;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

/// What one client, and all of them together, can hold.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Connections at once; a further one gets 503 and is closed.
    pub connections_max: usize,
    /// Bytes of a request's head.
    pub head_bytes_max: usize,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// From the end of the last answer, or the connection, to a whole head: idle and slow clients.
    pub head_wait: Duration,
    /// From head to whole body.
    pub body_wait: Duration,
    /// A client that takes no byte of its answer for so long is cut off.
    pub write_wait: Duration,
    /// What answers under way get when serve stops.
    pub stop_wait: Duration,
}

impl Default for HttpLimits {
    /// Chosen; heads as large as hyper's smallest buffer, a browser's are under 2 KiB.
    fn default() -> Self {
        HttpLimits {
            connections_max: 256,
            head_bytes_max: 8 * 1024,
            body_bytes_max: 1024 * 1024,
            head_wait: Duration::from_secs(15),
            body_wait: Duration::from_secs(10),
            write_wait: Duration::from_secs(10),
            stop_wait: Duration::from_secs(2),
        }
    }
}

/// Accepts connections until `stop` holds true, then lets answers under way finish.
pub async fn run(
    listener: TcpListener,
    router: Arc<Router>,
    limits: HttpLimits,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let serving = stop.clone();
    let mut gate = LogGate::default();
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the client is gone: a pause keeps this from spinning.
                let line = refused_client(&error);
                if gate.allows(&line, clock::monotonic()) {
                    warn!("{line}");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            refuse(&stream);
            continue;
        };
        let (router, stop) = (router.clone(), serving.clone());
        tokio::spawn(async move {
            connection(stream, client, router, limits, stop).await;
            drop(slot);
        });
    }
    drop(listener);
    let all = u32::try_from(limits.connections_max).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(limits.stop_wait, slots.acquire_many(all)).await;
}

/// Why a client waits, said once: it is tried again twenty times a second.
fn refused_client(error: &io::Error) -> String {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE) => format!(
            "http clients wait: {error}; serve gets on when others are closed, raise its limit (ulimit -n, \
             LimitNOFILE)"
        ),
        _ => format!("can't accept an http client: {error}"),
    }
}

/// Returns when serve stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Tells a client beyond the cap; whether it reads it is its own affair.
fn refuse(stream: &TcpStream) {
    let body = Failure::unavailable("too many connections; try again later").body("");
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.try_write(&[head.as_bytes(), &body].concat());
}

async fn connection(
    stream: TcpStream,
    client: SocketAddr,
    router: Arc<Router>,
    limits: HttpLimits,
    mut stop: watch::Receiver<bool>,
) {
    // Head and body of an answer are two writes: without this the second waits for an ACK.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let router = router.clone();
        async move { Ok::<_, Infallible>(answer(request, &router, &limits).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head_wait)
        .max_buf_size(limits.head_bytes_max.max(8 * 1024))
        .max_headers(64);
    let io = TokioIo::new(GuardedStream::new(stream, limits.write_wait));
    let serving = http.serve_connection(io, service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!("http client {client}: {error}");
    }
}

/// What goes back to hyper.
pub type Reply = hyper::Response<ReplyBody>;

async fn answer(request: hyper::Request<Incoming>, router: &Router, limits: &HttpLimits) -> Reply {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let host = host_of(&head.uri, &head.headers);
    let url = format!("http://{}{target}", host.as_deref().unwrap_or("localhost"));
    if let Some(host) = host.filter(|host| !is_loopback(host)) {
        let message = format!(
            "host `{host}` is not a name of this machine's loopback; without authentication serve \
             answers only to localhost, so that no web page can reach it under another name"
        );
        return failure(&Failure::new(421, message), &url);
    }
    let writes = !matches!(head.method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE");
    if let Some(message) = foreign(&head.headers).filter(|_| writes) {
        return failure(&Failure::new(403, message), &url);
    }
    match read_body(body, limits).await {
        Ok(body) => {
            let (method, headers) = (head.method.as_str(), &head.headers);
            router.answer(Call { method, target: &target, url: &url, headers, body }).await
        }
        Err(error) => failure(&error, &url),
    }
}

/// Why a request that changes something is not answered: a page of another origin sent it.
/// Programs send neither header; browsers send `Origin` with every such request.
fn foreign(headers: &HeaderMap) -> Option<String> {
    let text =
        |name| headers.get(name).map(|v: &HeaderValue| String::from_utf8_lossy(v.as_bytes()));
    let host = text("host").unwrap_or_default();
    let origin = text("origin");
    let own = origin.as_ref().is_none_or(|origin| {
        origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(&host))
    });
    let site = text("sec-fetch-site");
    let same = site.is_none_or(|site| matches!(&*site, "same-origin" | "none"));
    (!own || !same).then(|| {
        let origin = origin.unwrap_or_else(|| "another site".into());
        format!("a page of {origin} may not change anything here; open the page at http://{host}/")
    })
}

fn host_of(uri: &hyper::Uri, headers: &HeaderMap) -> Option<String> {
    if let Some(authority) = uri.authority() {
        return Some(authority.as_str().to_owned());
    }
    let host = headers.get(header::HOST)?;
    Some(String::from_utf8_lossy(host.as_bytes()).into_owned())
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.to_ascii_lowercase();
    let address: Option<std::net::IpAddr> = name.parse().ok();
    name == "localhost" || name.ends_with(".localhost") || address.is_some_and(|a| a.is_loopback())
}

async fn read_body(body: Incoming, limits: &HttpLimits) -> Result<Vec<u8>, Failure> {
    let bytes_max = limits.body_bytes_max;
    let too_large = || Failure::new(413, format!("body is larger than {bytes_max} bytes"));
    if hyper::body::Body::size_hint(&body).lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let whole = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(limits.body_wait, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes().into()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Failure::new(400, format!("body can't be read: {error}"))),
        Err(_) => Err(Failure::new(408, "body did not come in time")),
    }
}

/// An error as a reply.
pub fn failure(failure: &Failure, url: &str) -> Reply {
    let status = failure.status;
    let mut reply = reply(status, "application/json", failure.body(url).into());
    // The rest of a body that was not read must not be taken for the next request.
    if matches!(status, 400 | 408 | 413) {
        reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    reply
}

/// A reply with the headers that every reply has.
pub fn reply(status: u16, content_type: &'static str, body: Bytes) -> Reply {
    let mut reply = hyper::Response::new(ReplyBody::Bytes(Full::new(body)));
    *reply.status_mut() =
        hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    reply
}

/// Binds, telling what is wrong with the address.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_origins_are_told_apart() {
        let foreign = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            headers.insert("host", HeaderValue::from_static("localhost:8080"));
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_str(value).unwrap());
            }
            foreign(&headers).is_some()
        };
        assert!(!foreign(&[]));
        assert!(!foreign(&[("origin", "http://localhost:8080")]));
        assert!(!foreign(&[("sec-fetch-site", "same-origin")]));
        for origin in ["http://evil.example", "http://localhost:3000", "null", "localhost:8080"] {
            assert!(foreign(&[("origin", origin)]), "{origin}");
        }
        assert!(foreign(&[("sec-fetch-site", "cross-site")]));
        assert!(foreign(&[("sec-fetch-site", "same-site")]));
    }

    #[test]
    fn only_names_of_the_loopback_are_answered() {
        for good in [
            "localhost",
            "LOCALHOST:8080",
            "vas.localhost:1",
            "127.0.0.1:8080",
            "[::1]:80",
            "127.9.9.9",
        ] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in
            ["", "evil.example", "localhost.evil.example:80", "10.0.0.1", "[::2]", "127.0.0.1.x"]
        {
            assert!(!is_loopback(bad), "{bad}");
        }
    }
}
