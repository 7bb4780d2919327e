//! The page at /, and the player of live view that it uses.

use super::message::{Answer, Body, Failure, Request};
use super::query::Query;
use crate::services::Services;

/// GET /
pub fn page(_: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let policy = "default-src 'none'; script-src 'self' 'unsafe-inline'; media-src 'self' blob:; style-src 'unsafe-inline'; \
                  img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; \
                  form-action 'none'; frame-ancestors 'none'";
    Ok(Answer {
        status: 200,
        content_type: "text/html; charset=utf-8",
        headers: vec![("content-security-policy", policy.into())],
        body: Body::Static(include_bytes!("page.html")),
    })
}

/// GET /whep.js
pub fn player(_: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    Ok(Answer {
        status: 200,
        content_type: "text/javascript; charset=utf-8",
        headers: vec![("cache-control", "no-cache".into())],
        body: Body::Static(include_bytes!("whep.js")),
    })
}
