//! Where a camera's video comes from, out of the URL of its stream.

use std::path::PathBuf;

/// Where a camera's video comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A clip, played in real time and looped.
    File(PathBuf),
    /// Nothing that can be played, and why.
    Unusable(String),
}

impl Source {
    /// From the URL of a stream: `file:///path` or a plain path.
    pub fn parse(url: &str) -> Source {
        let unusable = |why: String| Source::Unusable(why);
        if url.is_empty() {
            return unusable("it has no URL; give main_url a file".into());
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return Source::File(url.into());
        };
        if scheme != "file" {
            // Not the URL itself: it may hold a password.
            let what = "this version plays file:///path or a plain path";
            return unusable(format!("{scheme} sources can't be played, {what}"));
        }
        // RFC 8089: no authority, or the local one.
        let path = rest.strip_prefix("localhost").unwrap_or(rest);
        if !path.starts_with('/') {
            return unusable(format!("{url} names a host; write file:///path"));
        }
        match percent_decode(path) {
            Some(path) => Source::File(path.into()),
            None => unusable(format!("{url} has a % that two hex digits don't follow; write %25")),
        }
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        out.push((digit()? * 16 + digit()?) as u8);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_files_are_taken_apart_and_others_refused_without_their_password() {
        let file = |path: &str| Source::File(path.into());
        assert_eq!(Source::parse("/clips/a b.mp4"), file("/clips/a b.mp4"));
        assert_eq!(Source::parse("assets/a%20b.mp4"), file("assets/a%20b.mp4"));
        assert_eq!(Source::parse("file:///clips/a%20b%25.mp4"), file("/clips/a b%.mp4"));
        assert_eq!(Source::parse("file://localhost/a.mp4"), file("/a.mp4"));
        for bad in ["file://host/a.mp4", "file:///a%2", "file:///a%zz", "", "rtsp://u:secret@h/1"] {
            let Source::Unusable(why) = Source::parse(bad) else { panic!("{bad}") };
            assert!(!why.contains("secret"), "{why}");
        }
    }
}
