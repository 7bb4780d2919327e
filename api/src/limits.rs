//! Every bound on what clients of the HTTP interface can hold, in one place, with the relations
//! between them checked at compile time. docs/http.md, "What a client can hold", names each; the
//! tests in `api/tests/it/holds.rs` hold each.

use std::time::Duration;

/// Threads that handlers run on, and files are read on, at most.
pub const HANDLERS_MAX: usize = 40;
/// Lists, playlists and timelines made at once (chosen: twice the cores of the smallest node; each
/// reads much and works without waiting).
pub const LISTS_MAX: usize = 4;
/// Newest pictures asked for at once (chosen: one thread encodes them, a few keep it busy).
pub const PICTURES_MAX: usize = 4;
/// Offers of viewers at once: a page of 16 cameras makes so many when it opens.
pub const OFFERS_MAX: usize = 16;
/// Addresses of cameras tried at once (chosen: the longest waits, and one person tries one camera).
pub const PROBES_MAX: usize = 3;
/// Snapshots taken at once (chosen: each is a handler, and a process with a decoder).
pub const CAPTURES_MAX: usize = 3;
/// Other requests to ingest at once (chosen: an ingest that works answers at once).
pub const CALLS_MAX: usize = 4;
/// Handlers that follow the streams of a camera that is switched (chosen: those beyond it only
/// tell less).
pub const FOLLOWS_MAX: usize = 3;
/// Handlers that nothing with a bound of its own ever takes.
pub const FREE_MIN: usize = 3;
/// Pictures that wait for the thread that encodes them: more than handlers can ask for.
pub const STILLS_WAITING_MAX: usize = 64;

/// Wrong values that an answer tells; of further ones only their number.
pub const PROBLEMS_MAX: usize = 32;
/// Characters of a name or value of a request that an answer repeats (chosen: a line).
pub const SHOWN_CHARS_MAX: usize = 120;
/// Characters of one explanation (chosen: ours are shorter, a few repeat what was sent).
pub const EXPLANATION_CHARS_MAX: usize = 500;
/// Bytes of one list of events: what is left out is on the next page (chosen: a page of 1000 usual
/// events is under 1 MiB, one of 1000 frames with 1000 detections each would be 150 MiB).
pub const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one SDP offer (chosen: browsers send about 5 KiB).
pub const OFFER_BYTES_MAX: usize = 64 * 1024;

const _: () = assert!(
    LISTS_MAX
        + PICTURES_MAX
        + OFFERS_MAX
        + PROBES_MAX
        + CAPTURES_MAX
        + CALLS_MAX
        + FOLLOWS_MAX
        + FREE_MIN
        <= HANDLERS_MAX
);
const _: () = assert!(STILLS_WAITING_MAX >= HANDLERS_MAX);
const _: () = assert!(OFFER_BYTES_MAX <= HttpLimits::DEFAULT.body_bytes_max);
const _: () = assert!(LIST_BYTES_MAX * LISTS_MAX <= HttpLimits::DEFAULT.answers_bytes_max);

/// What one client, and all of them together, can hold of connections and memory. Tests take
/// smaller ones.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Connections at once; a further one gets 503 and is closed.
    pub connections_max: usize,
    /// Bytes of a request's head.
    pub head_bytes_max: usize,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Bytes of a body up to which it may always be read.
    pub small_body_bytes: usize,
    /// Bodies above [`HttpLimits::small_body_bytes`] at once; a further one gets 503.
    pub large_bodies_max: usize,
    /// Bytes of an answer up to which it may always be sent.
    pub small_answer_bytes: usize,
    /// Bytes of all larger answers that are made and not taken yet; a further one gets 503.
    pub answers_bytes_max: usize,
    /// From the end of the last answer, or the connection, to a whole head: idle and slow clients.
    pub head_wait: Duration,
    /// From head to whole body.
    pub body_wait: Duration,
    /// A client that takes no byte of its answer for so long is cut off.
    pub write_wait: Duration,
    /// How long a request waits for a slot of its kind, or for room for its answer, before it gets
    /// 503.
    pub slot_wait: Duration,
    /// What answers under way get when serve stops.
    pub stop_wait: Duration,
}

impl HttpLimits {
    /// Chosen; heads as large as hyper's smallest buffer, a browser's are under 2 KiB. A wait of 2 s
    /// lets a page with 16 cameras load in one go.
    pub const DEFAULT: HttpLimits = HttpLimits {
        connections_max: 256,
        head_bytes_max: 8 * 1024,
        body_bytes_max: 1024 * 1024,
        small_body_bytes: 64 * 1024,
        large_bodies_max: 32,
        small_answer_bytes: 64 * 1024,
        answers_bytes_max: 64 * 1024 * 1024,
        head_wait: Duration::from_secs(15),
        body_wait: Duration::from_secs(10),
        write_wait: Duration::from_secs(10),
        slot_wait: Duration::from_secs(2),
        stop_wait: Duration::from_secs(2),
    };
}

impl Default for HttpLimits {
    fn default() -> Self {
        HttpLimits::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_those_that_the_documentation_names() {
        let text = include_str!("../../docs/http.md");
        let HttpLimits {
            connections_max,
            head_bytes_max,
            body_bytes_max,
            small_body_bytes,
            large_bodies_max,
            small_answer_bytes,
            answers_bytes_max,
            ..
        } = HttpLimits::DEFAULT;
        let (kib, mib) = (|bytes: usize| bytes >> 10, |bytes: usize| bytes >> 20);
        for row in [
            format!("connections | {connections_max} "),
            format!("head | {} KiB,", kib(head_bytes_max)),
            format!("body | {} MiB,", mib(body_bytes_max)),
            format!("bodies above {} KiB at once | {large_bodies_max} ", kib(small_body_bytes)),
            format!("answers above {} KiB that are not taken yet | ", kib(small_answer_bytes)),
            format!("not taken yet | {} MiB together", mib(answers_bytes_max)),
            format!("a list of events | {} MiB ", mib(LIST_BYTES_MAX)),
            format!("an SDP offer | {} KiB ", kib(OFFER_BYTES_MAX)),
            format!("requests handled at once | {HANDLERS_MAX};"),
            format!("offers of viewers | {OFFERS_MAX} "),
        ] {
            assert!(text.contains(&row), "docs/http.md does not say `{row}`");
        }
    }
}
