//! The routes in tide, as router only: it never sees a socket, and handlers never see it.

use super::listener::{self, Reply};
use super::message::{Answer, Body, Failure, MediaFile, Request};
use super::payload;
use super::ranges::{Wanted, wanted};
use super::reply_body::{FileBody, ReplyBody};
use super::table::{Route, Verb, routes};
use crate::services::Services;
use http_types::{Method, Url};
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use std::sync::Arc;

type State = Arc<Services>;

/// Every route of [`routes`].
pub struct Router(tide::Server<State>);

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

/// What an endpoint hands through tide: tide's own body is a copy and needs its executor's I/O.
struct Outcome(Result<Answer, Failure>);

/// What an endpoint gets through tide beside the path: the body and its type.
struct Sent {
    body: Vec<u8>,
    content_type: Option<String>,
}

impl Router {
    /// Routes to handlers of `services`.
    pub fn new(services: State) -> Router {
        let mut app = tide::with_state(services);
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
        Router(app)
    }

    /// Answers one request.
    pub async fn answer(&self, call: Call<'_>) -> Reply {
        let Call { method, target, url, headers, body } = call;
        let fail = |failure: Failure| listener::failure(&failure, url);
        let Ok(parsed) = Url::parse(&format!("http://localhost{target}")) else {
            return fail(Failure::new(400, "request target is not a path"));
        };
        let Ok(method) = method.parse::<Method>() else {
            return fail(Failure::new(501, format!("method `{method}` is unknown")));
        };
        let path = parsed.path().to_owned();
        let text = |name| headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into());
        let mut request = http_types::Request::new(method, parsed);
        request.ext_mut().insert(Sent { body, content_type: text("content-type") });
        let mut response: http_types::Response = match self.0.respond(request).await {
            Ok(response) => response,
            Err(error) => return fail(Failure::new(500, error.to_string())),
        };
        match response.ext_mut().remove::<Outcome>() {
            Some(Outcome(Ok(answer))) => {
                let if_range: Option<String> = text("if-range");
                let range = text("range").filter(|_| method == Method::Get);
                success(answer, range.as_deref(), if_range.as_deref(), url)
            }
            Some(Outcome(Err(failure))) => fail(failure),
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

async fn endpoint(route: &'static Route, mut request: tide::Request<State>) -> tide::Result {
    let services = request.state().clone();
    let http: &mut http_types::Request = request.as_mut();
    let sent = http.ext_mut().remove::<Sent>();
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let names = route.path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}'));
    let mut plain = Request {
        captured: names.map(|name| request.param(name).map(decoded).unwrap_or_default()).collect(),
        query: request.url().query_pairs().map(|(k, v)| (k.into(), v.into())).collect(),
        ..Request::default()
    };
    // Handlers read files and wait for the stills thread.
    let handled = tokio::task::spawn_blocking(move || {
        // What a GET brings along has never meant anything.
        if let Some(sent) = sent.filter(|_| route.verb != Verb::Get) {
            (plain.body, plain.sdp) =
                payload::read(route.payload, sent.content_type.as_deref(), sent.body)?;
        }
        (route.handler)(&services, &plain)
    });
    let outcome = handled.await.unwrap_or_else(|_| {
        tracing::error!("the handler of {} panicked", route.path);
        Err(Failure::new(500, "internal error; the log of serve has the reason"))
    });
    let mut response = tide::Response::new(200);
    response.insert_ext(Outcome(outcome));
    Ok(response)
}

fn success(answer: Answer, range: Option<&str>, if_range: Option<&str>, url: &str) -> Reply {
    let Answer { status, content_type, headers, body } = answer;
    let bytes = match body {
        Body::Empty => Bytes::new(),
        Body::Static(bytes) => Bytes::from_static(bytes),
        Body::Owned(bytes) => bytes.into(),
        Body::Still(still) => Bytes::from_owner(StillBytes(still)),
        Body::File(file) => {
            // A part of another content than the client has is of no use to it.
            let range =
                range.filter(|_| if_range.is_none_or(|tag| Some(tag) == file.tag.as_deref()));
            let reply = file_reply(content_type, file, range, url);
            return with_headers(reply, headers);
        }
    };
    let mut reply = listener::reply(status, content_type, bytes);
    if status == 204 {
        reply.headers_mut().remove(hyper::header::CONTENT_TYPE);
    }
    with_headers(reply, headers)
}

fn file_reply(
    content_type: &'static str,
    file: MediaFile,
    range: Option<&str>,
    url: &str,
) -> Reply {
    let MediaFile { file, first: begin, bytes: length, tag } = file;
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
