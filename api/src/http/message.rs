//! Requests and answers as handlers see them, and the one shape of errors.

use crate::ingest_link::IngestError;
use crate::limits::{EXPLANATION_CHARS_MAX, PROBLEMS_MAX, SHOWN_CHARS_MAX};
use crate::publish::PublishError;
use crate::schema::cut;
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use store::StoreError;

/// A request that found its route.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The body: JSON that fits the route's schema, or null when there is none.
    pub body: Value,
    /// The body of a route that takes SDP.
    pub sdp: String,
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
#[derive(Debug)]
pub struct Answer {
    /// HTTP status, 2xx.
    pub status: u16,
    /// Media type.
    pub content_type: &'static str,
    /// Further headers, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: Body,
}

/// Bytes of an answer.
#[derive(Debug)]
pub enum Body {
    /// None at all.
    Empty,
    /// A file, or the part of it that the client asked for.
    File(MediaFile),
    /// Compiled in.
    Static(&'static [u8]),
    /// Made for this answer.
    Owned(Vec<u8>),
    /// A picture that several clients get.
    Still(Arc<crate::stills::Still>),
}

/// A file, or a part of one, that is sent as it is read, never whole in memory.
#[derive(Debug)]
pub struct MediaFile {
    /// Open for reading.
    pub file: File,
    /// Where in the file it begins.
    pub first: u64,
    /// Its size from there on; ranges are within it.
    pub bytes: u64,
    /// Names this content: another content has another tag. With quotes; `None` = it may change.
    pub tag: Option<String>,
}

impl MediaFile {
    /// All of a regular file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn of(file: File) -> io::Result<MediaFile> {
        let told = file.metadata()?;
        if !told.is_file() {
            return Err(io::Error::other("is not a regular file"));
        }
        let tag = format!("\"{:x}-{:x}-{:x}\"", told.len(), told.mtime(), told.mtime_nsec());
        Ok(MediaFile { file, first: 0, bytes: told.len(), tag: Some(tag) })
    }
}

/// Files whose content never changes under their address.
pub const IMMUTABLE: (&str, &str) = ("cache-control", "private, max-age=31536000, immutable");

impl Answer {
    /// A JSON document.
    pub fn json(value: &Value) -> Answer {
        Answer::json_with(200, value)
    }

    /// A JSON document with another status than 200.
    pub fn json_with(status: u16, value: &Value) -> Answer {
        let body = Body::Owned(value.to_string().into_bytes());
        Answer { status, content_type: "application/json", headers: vec![], body }
    }

    /// 200 with JSON that is text already.
    pub fn json_text(text: String) -> Answer {
        let body = Body::Owned(text.into_bytes());
        Answer { status: 200, content_type: "application/json", headers: vec![], body }
    }

    /// 204.
    pub fn nothing() -> Answer {
        Answer { status: 204, content_type: "", headers: vec![], body: Body::Empty }
    }

    /// A file with ranges: one with a tag never changes, one without is never kept.
    pub fn file(content_type: &'static str, file: MediaFile) -> Answer {
        let kept = file.tag.is_some().then(|| (IMMUTABLE.0, IMMUTABLE.1.to_owned()));
        let headers = kept.into_iter().collect();
        Answer { status: 200, content_type, headers, body: Body::File(file) }
    }
}

/// One wrong value of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// Name of the parameter; cut.
    pub field: String,
    /// What is wrong and what is allowed; cut.
    pub message: String,
    /// The value; cut.
    pub value: String,
}

impl Detail {
    /// A detail of a line or so, whatever was sent.
    pub fn new(field: &str, value: &str, message: impl AsRef<str>) -> Detail {
        Detail {
            field: cut(field, SHOWN_CHARS_MAX),
            message: cut(message.as_ref(), EXPLANATION_CHARS_MAX),
            value: cut(value, SHOWN_CHARS_MAX),
        }
    }
}

/// The wrong values of one request: [`PROBLEMS_MAX`] are told, further ones counted.
#[derive(Debug, Default)]
pub struct Details {
    told: Vec<Detail>,
    more: u64,
}

impl Details {
    /// Adds one; nothing is made of those that are only counted.
    pub fn add(&mut self, detail: impl FnOnce() -> Detail) {
        if self.told.len() < PROBLEMS_MAX {
            self.told.push(detail());
        } else {
            self.more += 1;
        }
    }

    /// Counts further ones.
    pub fn add_untold(&mut self, more: u64) {
        self.more += more;
    }

    /// 422 when there are any.
    ///
    /// # Errors
    /// The 422.
    pub fn finish(self) -> Result<(), Failure> {
        if self.told.is_empty() {
            return Ok(());
        }
        let fields: Vec<&str> = self.told.iter().map(|d| d.field.as_str()).collect();
        let mut message = format!("request is not valid: {}", fields.join(", "));
        if self.more > 0 {
            message.push_str(&format!(" and {} more", self.more));
        }
        Err(Failure { status: 422, message, details: self.told })
    }
}

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status.
    pub status: u16,
    /// One line.
    pub message: String,
    /// For 422: the wrong values, [`PROBLEMS_MAX`] at most.
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
        let mut all = Details::default();
        for detail in details {
            all.add(|| detail);
        }
        all.finish().err().unwrap_or_else(|| Failure::new(422, "request is not valid"))
    }

    /// 503: something behind this interface does not work now.
    pub fn unavailable(message: impl Into<String>) -> Failure {
        Failure::new(503, message)
    }

    /// 422 of one key of the body.
    pub fn wrong(field: &str, value: &str, message: impl AsRef<str>) -> Failure {
        Failure::invalid(vec![Detail::new(field, value, message)])
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

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        super::events::store_failure(error)
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Failure {
        tracing::error!("{error}");
        Failure::unavailable(error.to_string())
    }
}

impl From<IngestError> for Failure {
    fn from(error: IngestError) -> Failure {
        Failure::unavailable(error.to_string())
    }
}
