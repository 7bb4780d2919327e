//! The sockets: hyper 1 on tokio, with a bound on everything a client can hold.

use super::guarded_stream::GuardedStream;
use super::host;
use super::message::Failure;
use super::reply_body::ReplyBody;
use super::routes::{Call, Router};
use crate::limits::HttpLimits;
use base::log_gate::LogGate;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipc::clock;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{debug, warn};

/// Accepts connections until `stop` holds true, then lets answers under way finish.
pub async fn run(
    listener: TcpListener,
    router: Arc<Router>,
    limits: HttpLimits,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let large_bodies = Arc::new(Semaphore::new(limits.large_bodies_max));
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
        let front = Front { router: router.clone(), large_bodies: large_bodies.clone(), limits };
        let stop = serving.clone();
        tokio::spawn(async move {
            connection(stream, client, front, stop).await;
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

/// What every connection needs.
#[derive(Clone)]
struct Front {
    router: Arc<Router>,
    large_bodies: Arc<Semaphore>,
    limits: HttpLimits,
}

async fn connection(
    stream: TcpStream,
    client: SocketAddr,
    front: Front,
    mut stop: watch::Receiver<bool>,
) {
    let limits = front.limits;
    // Head and body of an answer are two writes: without this the second waits for an ACK.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let front = front.clone();
        async move { Ok::<_, Infallible>(answer(request, &front).await) }
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

async fn answer(request: hyper::Request<Incoming>, front: &Front) -> Reply {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let (host, refusal) = match host::of(head.version, &head.uri, &head.headers) {
        Ok(host) => {
            let why = host.as_deref().and_then(host::refusal).map(|why| Failure::new(421, why));
            (host, why)
        }
        Err(why) => (None, Some(Failure::new(400, why))),
    };
    let host = host.unwrap_or_else(|| "localhost".to_owned());
    let url = format!("http://{host}{target}");
    let foreign = || {
        let why = host::foreign(head.method.as_str(), head.uri.path(), &head.headers, &host)?;
        Some(Failure::new(403, why))
    };
    if let Some(refusal) = refusal.or_else(foreign) {
        return failure(&refusal, &url);
    }
    match read_body(body, front).await {
        Ok((body, _large)) => {
            let (method, headers) = (head.method.as_str(), &head.headers);
            front.router.answer(Call { method, target: &target, url: &url, headers, body }).await
        }
        Err(error) => failure(&error, &url),
    }
}

type LargeBody = Option<OwnedSemaphorePermit>;

/// The whole body, and the place that a large one takes until its request is answered.
async fn read_body(body: Incoming, front: &Front) -> Result<(Vec<u8>, LargeBody), Failure> {
    let limits = &front.limits;
    if hyper::body::Body::size_hint(&body).lower() > limits.body_bytes_max as u64 {
        return Err(too_large(limits));
    }
    let whole = tokio::time::timeout(limits.body_wait, collected(body, front));
    whole.await.unwrap_or_else(|_| Err(Failure::new(408, "body did not come in time")))
}

async fn collected(mut body: Incoming, front: &Front) -> Result<(Vec<u8>, LargeBody), Failure> {
    let limits = &front.limits;
    let (mut whole, mut large) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Failure::new(400, format!("body can't be read: {e}")))?;
        // Trailers mean nothing here.
        let Ok(bytes) = frame.into_data() else { continue };
        let length = whole.len() + bytes.len();
        if length > limits.body_bytes_max {
            return Err(too_large(limits));
        }
        if length > limits.small_body_bytes && large.is_none() {
            let place = front.large_bodies.clone().try_acquire_owned();
            large = Some(place.map_err(|_| {
                Failure::unavailable(format!(
                    "{} bodies above {} KiB are being read; try again later",
                    limits.large_bodies_max,
                    limits.small_body_bytes / 1024
                ))
            })?);
        }
        whole.extend_from_slice(&bytes);
    }
    Ok((whole, large))
}

fn too_large(limits: &HttpLimits) -> Failure {
    Failure::new(413, format!("body is larger than {} bytes", limits.body_bytes_max))
}

/// An error as a reply.
pub fn failure(failure: &Failure, url: &str) -> Reply {
    let status = failure.status;
    let mut reply = reply(status, "application/json", failure.body(url).into());
    if status == 503 {
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
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
