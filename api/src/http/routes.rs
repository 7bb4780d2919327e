//! The routes in tide, as router only: it never sees a socket, and handlers never see it.

use super::listener;
use super::message::{Answer, Failure, Request};
use super::table::{ROUTES, Route};
use crate::services::Services;
use http_body_util::Full;
use http_types::{Method, Url};
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use std::sync::Arc;

type State = Arc<Services>;

/// Every route of [`ROUTES`].
pub struct Router(tide::Server<State>);

/// What an endpoint hands through tide: tide's own body is a copy and needs its executor's I/O.
struct Outcome(Result<Answer, Failure>);

impl Router {
    /// Routes to handlers of `services`.
    pub fn new(services: State) -> Router {
        let mut app = tide::with_state(services);
        for route in ROUTES {
            app.at(&tide_path(route.path)).get(move |request| endpoint(route, request));
        }
        Router(app)
    }

    /// Answers one request. `url` is what error envelopes show.
    pub async fn answer(
        &self,
        method: &str,
        target: &str,
        url: &str,
        body: Vec<u8>,
    ) -> hyper::Response<Full<Bytes>> {
        let fail = |failure: Failure| listener::failure(&failure, url);
        let Ok(parsed) = Url::parse(&format!("http://localhost{target}")) else {
            return fail(Failure::new(400, "request target is not a path"));
        };
        let Ok(method) = method.parse::<Method>() else {
            return fail(Failure::new(501, format!("method `{method}` is unknown")));
        };
        let path = parsed.path().to_owned();
        let mut request = http_types::Request::new(method, parsed);
        request.set_body(body);
        let mut response: http_types::Response = match self.0.respond(request).await {
            Ok(response) => response,
            Err(error) => return fail(Failure::new(500, error.to_string())),
        };
        match response.ext_mut().remove::<Outcome>() {
            Some(Outcome(Ok(answer))) => success(answer),
            Some(Outcome(Err(failure))) => fail(failure),
            None if u16::from(response.status()) == 405 => {
                let message = format!("method {method} is not allowed on {path}");
                let mut reply = fail(Failure::new(405, message));
                let allow = HeaderValue::from_static("GET, HEAD");
                reply.headers_mut().insert(hyper::header::ALLOW, allow);
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

async fn endpoint(route: &'static Route, request: tide::Request<State>) -> tide::Result {
    let services = request.state().clone();
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let names = route.path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}'));
    let plain = Request {
        captured: names.map(|name| request.param(name).map(decoded).unwrap_or_default()).collect(),
        query: request.url().query_pairs().map(|(k, v)| (k.into(), v.into())).collect(),
    };
    // Handlers read files and wait for the stills thread.
    let handled = tokio::task::spawn_blocking(move || (route.handler)(&services, &plain)).await;
    let outcome = handled.unwrap_or_else(|_| {
        tracing::error!("the handler of {} panicked", route.path);
        Err(Failure::new(500, "internal error; the log of serve has the reason"))
    });
    let mut response = tide::Response::new(200);
    response.insert_ext(Outcome(outcome));
    Ok(response)
}

fn success(answer: Answer) -> hyper::Response<Full<Bytes>> {
    let Answer { content_type, headers, body } = answer;
    let body = match body {
        super::message::Body::Static(bytes) => Bytes::from_static(bytes),
        super::message::Body::Owned(bytes) => bytes.into(),
        super::message::Body::Still(still) => Bytes::from_owner(StillBytes(still)),
    };
    let mut reply = listener::reply(200, content_type, body);
    for (name, value) in headers {
        // Names are constants in lower case; a value that is no header value is left out.
        if let Ok(value) = HeaderValue::from_str(&value) {
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
