//! Requests and answers as handlers see them, and the one shape of errors.

use serde_json::{Value, json};
use std::sync::Arc;

/// A request that found its route.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// What the placeholders of the route's path matched, in order, percent-decoded.
    pub captured: Vec<String>,
    /// Query parameters, decoded, in order.
    pub query: Vec<(String, String)>,
}

impl Request {
    /// The placeholder at `index` of the route's path.
    pub fn captured(&self, index: usize) -> &str {
        self.captured.get(index).map_or("", String::as_str)
    }
}

/// An answer that is not an error.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Media type.
    pub content_type: &'static str,
    /// Further headers, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: Body,
}

/// Bytes of an answer.
#[derive(Debug, Clone)]
pub enum Body {
    /// Compiled in.
    Static(&'static [u8]),
    /// Made for this answer.
    Owned(Vec<u8>),
    /// A picture that several clients get.
    Still(Arc<crate::stills::Still>),
}

impl Answer {
    /// A JSON document.
    pub fn json(value: &Value) -> Answer {
        let body = Body::Owned(value.to_string().into_bytes());
        Answer { content_type: "application/json", headers: vec![], body }
    }
}

/// One wrong value of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// Name of the parameter.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
    /// The value, cut to 200 characters.
    pub value: String,
}

impl Detail {
    /// A detail; the value is cut.
    pub fn new(field: &str, value: &str, message: impl Into<String>) -> Detail {
        let value = value.chars().take(200).collect();
        Detail { field: field.into(), message: message.into(), value }
    }
}

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status.
    pub status: u16,
    /// One line.
    pub message: String,
    /// For 422: every wrong value.
    pub details: Vec<Detail>,
}

impl Failure {
    /// Any status.
    pub fn new(status: u16, message: impl Into<String>) -> Failure {
        Failure { status, message: message.into(), details: vec![] }
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(404, message)
    }

    /// 422 with its reasons.
    pub fn invalid(details: Vec<Detail>) -> Failure {
        let fields: Vec<&str> = details.iter().map(|d| d.field.as_str()).collect();
        let message = format!("request is not valid: {}", fields.join(", "));
        Failure { status: 422, message, details }
    }

    /// 503: something behind this interface does not work now.
    pub fn unavailable(message: impl Into<String>) -> Failure {
        Failure::new(503, message)
    }

    /// The envelope.
    pub fn body(&self, url: &str) -> Vec<u8> {
        let mut error = json!({"status": self.status, "message": self.message, "path": url});
        if self.status == 422 {
            let detail =
                |d: &Detail| json!({"field": d.field, "value": d.value, "message": d.message});
            error["details"] = self.details.iter().map(detail).collect();
        }
        json!({ "error": error }).to_string().into_bytes()
    }
}
