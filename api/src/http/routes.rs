//! The routes in tide, as router only: it never sees a socket, and handlers never see it.

use super::listener::{self, Reply};
use super::message::{Answer, Body, Failure, MediaFile, Request};
use super::payload;
use super::ranges::{Wanted, wanted};
use super::reply_body::{FileBody, ReplyBody};
use super::table::{Route, Verb, routes};
use crate::limits::HttpLimits;
use crate::services::Services;
use crate::slots::{Kind, Slot, Slots};
use http_types::{Method, Url};
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

type State = Arc<Shared>;

/// What all requests share.
struct Shared {
    services: Arc<Services>,
    slots: Slots,
}

/// Every route of [`routes`].
pub struct Router {
    app: tide::Server<State>,
    room: Room,
}

/// One request, as it came.
pub struct Call<'c> {
    /// Method.
    pub method: &'c str,
    /// Path and query.
    pub target: &'c str,
    /// What error envelopes show.
    pub url: &'c str,
    /// Headers.
    pub headers: &'c HeaderMap,
    /// Body, whole.
    pub body: Vec<u8>,
}

/// What an endpoint hands through tide: tide's own body is a copy and needs its executor's I/O. The
/// slot is held until the answer has its room.
struct Outcome(Result<Answer, Failure>, Slot);

/// What an endpoint gets through tide beside the path: the body and its type.
struct Sent {
    body: Vec<u8>,
    content_type: Option<String>,
}

impl Router {
    /// Routes to handlers of `services`.
    pub fn new(services: Arc<Services>, limits: &HttpLimits) -> Router {
        let slots = Slots::new(limits.slot_wait);
        let mut app = tide::with_state(Arc::new(Shared { services, slots }));
        for route in routes() {
            let mut path = app.at(&tide_path(route.path));
            let run = move |request| endpoint(route, request);
            match route.verb {
                Verb::Get => path.get(run),
                Verb::Post => path.post(run),
                Verb::Put => path.put(run),
                Verb::Delete => path.delete(run),
            };
        }
        Router { app, room: Room::new(limits) }
    }

    /// Answers one request.
    pub async fn answer(&self, call: Call<'_>) -> Reply {
        let Call { method, target, url, headers, body } = call;
        let fail = |failure: Failure| listener::failure(&failure, url);
        let Ok(parsed) = Url::parse(&format!("http://localhost{target}")) else {
            return fail(Failure::new(400, "request target is not a path"));
        };
        if has_dot_segment(target) {
            return fail(Failure::new(400, "request target has a path with `.` or `..` in it"));
        }
        let Ok(method) = method.parse::<Method>() else {
            return fail(Failure::new(501, format!("method `{method}` is unknown")));
        };
        let path = parsed.path().to_owned();
        let text = |name| headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into());
        let mut request = http_types::Request::new(method, parsed);
        request.ext_mut().insert(Sent { body, content_type: text("content-type") });
        let mut response: http_types::Response = match self.app.respond(request).await {
            Ok(response) => response,
            Err(error) => return fail(Failure::new(500, error.to_string())),
        };
        match response.ext_mut().remove::<Outcome>() {
            Some(Outcome(Ok(answer), slot)) => {
                let asked = Asked {
                    range: text("range").filter(|_| method == Method::Get),
                    if_range: text("if-range"),
                    if_none_match: text("if-none-match"),
                };
                let reply = self.success(answer, &asked, url).await;
                drop(slot);
                reply.unwrap_or_else(fail)
            }
            Some(Outcome(Err(failure), _)) => fail(failure),
            None if u16::from(response.status()) == 405 => {
                let message = format!("method {method} is not allowed on {path}");
                let mut reply = fail(Failure::new(405, message));
                if let Ok(allow) = HeaderValue::from_str(&allowed(&path)) {
                    reply.headers_mut().insert(hyper::header::ALLOW, allow);
                }
                reply
            }
            None => fail(Failure::not_found(format!("there is nothing at {path}"))),
        }
    }
}

/// `/a/{id}` as tide writes it: `/a/:id`.
fn tide_path(path: &str) -> String {
    path.replace('{', ":").replace('}', "")
}

/// The methods that a path has, for `Allow`.
fn allowed(path: &str) -> String {
    let fits = |pattern: &str| {
        let mut steps = path.split('/');
        let same = pattern
            .split('/')
            .all(|step| steps.next().is_some_and(|given| step.starts_with('{') || step == given));
        same && steps.next().is_none()
    };
    let mut words: Vec<&str> = Vec::new();
    for route in routes().filter(|route| fits(route.path)) {
        let more: &[&str] = match route.verb {
            Verb::Get => &["GET", "HEAD"],
            Verb::Post => &["POST"],
            Verb::Put => &["PUT"],
            Verb::Delete => &["DELETE"],
        };
        words.extend(more.iter().filter(|word| !words.contains(*word)).collect::<Vec<_>>());
    }
    words.join(", ")
}

/// Whether a path would lead elsewhere than it says: `.` or `..`, written out or encoded. Whoever
/// stands in front and decides by path must see what is decided here.
fn has_dot_segment(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    path.split(['/', '\\']).any(|segment| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    })
}

async fn endpoint(route: &'static Route, mut request: tide::Request<State>) -> tide::Result {
    let shared = Arc::clone(request.state());
    let (outcome, slot) = match shared.slots.take(route.kind).await {
        Ok(slot) => (handled(route, &mut request, &shared.services).await, slot),
        Err(why) => (Err(Failure::unavailable(why)), Slot::default()),
    };
    let mut response = tide::Response::new(200);
    response.insert_ext(Outcome(outcome, slot));
    Ok(response)
}

async fn handled(
    route: &'static Route,
    request: &mut tide::Request<State>,
    services: &Arc<Services>,
) -> Result<Answer, Failure> {
    let http: &mut http_types::Request = request.as_mut();
    let sent = http.ext_mut().remove::<Sent>();
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let names = route.path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}'));
    let mut plain = Request {
        captured: names.map(|name| request.param(name).map(decoded).unwrap_or_default()).collect(),
        query: request.url().query_pairs().map(|(k, v)| (k.into(), v.into())).collect(),
        ..Request::default()
    };
    if route.kind == Kind::Immediate {
        return (route.handler)(services, &plain);
    }
    // Handlers read files and wait for the stills thread.
    let services = Arc::clone(services);
    let handled = tokio::task::spawn_blocking(move || {
        // What a GET brings along has never meant anything.
        if let Some(sent) = sent.filter(|_| route.verb != Verb::Get) {
            (plain.body, plain.sdp) =
                payload::read(route.payload, sent.content_type.as_deref(), sent.body)?;
        }
        (route.handler)(&services, &plain)
    });
    handled.await.unwrap_or_else(|_| {
        tracing::error!("the handler of {} panicked", route.path);
        Err(Failure::new(500, "internal error; the log of serve has the reason"))
    })
}

/// What a request asks of a file beside its path.
struct Asked {
    range: Option<String>,
    if_range: Option<String>,
    if_none_match: Option<String>,
}

impl Asked {
    /// Whether the client has the content with this tag (RFC 9110 section 13.1.2).
    fn has(&self, tag: &str) -> bool {
        let known = self.if_none_match.as_deref().unwrap_or_default().split(',').map(str::trim);
        known.into_iter().any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
    }
}

/// Room for large answers that are made and not taken yet, in KiB.
struct Room {
    free: Arc<Semaphore>,
    all: u32,
    small: usize,
    wait: Duration,
}

impl Room {
    fn new(limits: &HttpLimits) -> Room {
        let all = u32::try_from(limits.answers_bytes_max / 1024).unwrap_or(u32::MAX);
        let free = Arc::new(Semaphore::new(all as usize));
        Room { free, all, small: limits.small_answer_bytes, wait: limits.slot_wait }
    }

    /// The bytes of an answer; their room is free again when the client has them.
    async fn hold<T>(&self, bytes: T) -> Result<Bytes, Failure>
    where
        T: AsRef<[u8]> + Send + 'static,
    {
        let length = bytes.as_ref().len();
        if length <= self.small {
            return Ok(Bytes::from_owner(bytes));
        }
        // One that is larger than all the room has it alone.
        let needed = u32::try_from(length.div_ceil(1024)).unwrap_or(u32::MAX).min(self.all);
        let room = Arc::clone(&self.free).acquire_many_owned(needed);
        match tokio::time::timeout(self.wait, room).await {
            Ok(Ok(room)) => Ok(Bytes::from_owner(Held { bytes, _room: room })),
            _ => Err(Failure::unavailable(format!(
                "{} KiB of answers wait for clients that do not take them; try again later",
                self.all
            ))),
        }
    }
}

struct Held<T> {
    bytes: T,
    _room: OwnedSemaphorePermit,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl Router {
    async fn success(&self, answer: Answer, asked: &Asked, url: &str) -> Result<Reply, Failure> {
        let Answer { status, content_type, headers, body } = answer;
        let bytes = match body {
            Body::Empty => Bytes::new(),
            Body::Static(bytes) => Bytes::from_static(bytes),
            Body::Owned(bytes) => self.room.hold(bytes).await?,
            Body::Still(still) => self.room.hold(StillBytes(still)).await?,
            Body::File(file) => {
                return Ok(with_headers(file_reply(content_type, file, asked, url), headers));
            }
        };
        let mut reply = listener::reply(status, content_type, bytes);
        if status == 204 {
            reply.headers_mut().remove(hyper::header::CONTENT_TYPE);
        }
        Ok(with_headers(reply, headers))
    }
}

fn file_reply(content_type: &'static str, file: MediaFile, asked: &Asked, url: &str) -> Reply {
    let MediaFile { file, first: begin, bytes: length, tag } = file;
    if let Some(tag) = tag.as_ref().filter(|tag| asked.has(tag)) {
        let mut reply = listener::reply(304, content_type, Bytes::new());
        reply.headers_mut().remove(hyper::header::CONTENT_TYPE);
        return with_headers(reply, vec![("etag", tag.clone())]);
    }
    // A part of another content than the client has is of no use to it.
    let same = asked.if_range.as_deref().is_none_or(|has| Some(has) == tag.as_deref());
    let range = asked.range.as_deref().filter(|_| same);
    let (status, first, bytes) = match wanted(range, length) {
        Wanted::Whole => (200, 0, length),
        Wanted::Part { first, bytes } => (206, first, bytes),
        Wanted::Outside => {
            let message = format!("range `{}` lies outside of {length} bytes", range.unwrap_or(""));
            let reply = listener::failure(&Failure::new(416, message), url);
            return with_headers(reply, vec![("content-range", format!("bytes */{length}"))]);
        }
    };
    let mut reply = listener::reply(status, content_type, Bytes::new());
    *reply.body_mut() = ReplyBody::File(FileBody::new(file, begin + first, bytes));
    let mut headers = vec![("accept-ranges", "bytes".to_owned())];
    headers.extend(tag.map(|tag| ("etag", tag)));
    if status == 206 {
        let last = first + bytes - 1;
        headers.push(("content-range", format!("bytes {first}-{last}/{length}")));
    }
    with_headers(reply, headers)
}

fn with_headers(mut reply: Reply, headers: Vec<(&'static str, String)>) -> Reply {
    for (name, value) in headers {
        // Names are constants in lower case; a value that is no header value is left out. The 416
        // must not be kept as long as the file.
        let kept = reply.status() != 416 || name != "cache-control";
        if let Some(value) = HeaderValue::from_str(&value).ok().filter(|_| kept) {
            reply.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    reply
}

struct StillBytes(Arc<crate::stills::Still>);

impl AsRef<[u8]> for StillBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0.jpeg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_are_seen() {
        for bad in
            ["/a/../b", "/..", "/a/.", "/%2e%2E/x", "/a/.%2e?x", "/a/%2e", "/a\\..\\b", "/./"]
        {
            assert!(has_dot_segment(bad), "{bad}");
        }
        for good in ["/", "/a?x=/../y", "/a/...", "/a/.b", "/a/b..", "//", "/a/%2ex", "/a/%252e"] {
            assert!(!has_dot_segment(good), "{good}");
        }
    }

    #[test]
    fn a_client_has_what_one_of_its_tags_names() {
        let asked = |tags: Option<&str>| Asked {
            range: None,
            if_range: None,
            if_none_match: tags.map(str::to_owned),
        };
        for tags in ["\"a\"", "*", "\"b\", \"a\"", "W/\"a\"", " \"a\" "] {
            assert!(asked(Some(tags)).has("\"a\""), "{tags}");
        }
        for tags in [None, Some(""), Some("\"b\""), Some("a"), Some("\"aa\""), Some("W/ \"a\"")] {
            assert!(!asked(tags).has("\"a\""), "{tags:?}");
        }
    }
}
