//! Secrets in the addresses of cameras: many take the password as a parameter, in the query or, in
//! several notations, in the path: `/user=admin&password=PW&channel=1`,
//! `/user=admin_password=PW_channel=1`.

use std::fmt::Write;

/// What stands where credentials are.
pub const MASK: &str = "***";

/// Names of parameters whose values are secret contain one of these.
const SECRET: [&str; 7] = ["pass", "pwd", "psw", "token", "secret", "key", "auth"];

/// Whether the value of a parameter with this name is secret.
pub fn is_secret(name: &str) -> bool {
    let name = decoded(name).to_ascii_lowercase();
    name == "pw" || SECRET.iter().any(|secret| name.contains(secret))
}

/// An address with [`MASK`] in place of secrets of its path and query. What is before the path
/// (scheme, user, host) and the paths of `file:` addresses stay as they are.
pub fn masked(address: &str) -> String {
    let (before, path) = split(address);
    if before.starts_with("file:") {
        return address.to_owned();
    }
    format!("{before}{}", replaced(path, |name, _| is_secret(name).then(|| MASK.to_owned())))
}

/// The values that [`masked`] hides, as they stand there and with what %XX stands for, longest first.
pub fn secrets(address: &str) -> Vec<String> {
    let mut found = Vec::new();
    // What comes back is of no interest.
    let _ = replaced(split(address).1, |name, value| {
        if is_secret(name) {
            found.extend([value.to_owned(), decoded(value)]);
        }
        None
    });
    found.retain(|value| !value.is_empty());
    found.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    found.dedup();
    found
}

/// An address as what is before its path, and its path with what follows it.
pub fn split(address: &str) -> (&str, &str) {
    let authority = address.find("://").map_or(0, |at| at + 3);
    let at = address[authority..].find(['/', '?', '#']).map_or(address.len(), |at| authority + at);
    address.split_at(at)
}

/// A path and query in which values of parameters are replaced by what `with` gives for name and
/// value; `None` = it stays.
///
/// Parameters are parted by `/ ? # & ; _`. What follows a parameter within a segment and has no `=`
/// of its own is taken for more of its value: passwords hold such characters.
pub fn replaced(path: &str, mut with: impl FnMut(&str, &str) -> Option<String>) -> String {
    let mut out = String::with_capacity(path.len());
    for segment in path.split_inclusive(['/', '?', '#']) {
        let (text, end) = match segment.strip_suffix(['/', '?', '#']) {
            Some(text) => (text, &segment[text.len()..]),
            None => (segment, ""),
        };
        let mut starts = starts(text);
        let last = starts.pop();
        let ends = starts.iter().skip(1).chain(&last).copied();
        let fields = starts.iter().copied().zip(ends).chain(last.map(|at| (at, text.len() + 1)));
        for (at, next) in fields {
            // The separator before the next one is not part of it.
            let field = &text[at..next - 1];
            let value =
                field.split_once('=').and_then(|(name, value)| Some((name, with(name, value)?)));
            match value {
                // Writing to a String can't fail.
                Some((name, value)) => drop(write!(out, "{name}={value}")),
                None => out.push_str(field),
            }
            out.push_str(text.get(next - 1..next).unwrap_or_default());
        }
        out.push_str(end);
    }
    out
}

/// Where the parameters of a segment begin.
fn starts(segment: &str) -> Vec<usize> {
    let mut starts = vec![0];
    let mut named = false;
    let mut at = 0;
    for piece in segment.split(['&', ';', '_']) {
        let joined = at > 0 && segment.as_bytes()[at - 1] == b'_';
        let begins = match piece.split_once('=') {
            // Padding of base64, not a name.
            Some((name, value)) if joined => {
                !name.is_empty() && !value.trim_end_matches('=').is_empty()
            }
            Some((name, _)) => !name.is_empty(),
            None => false,
        };
        // Before the first `=` a `_` belongs to the name: access_token=.
        if begins && at > 0 && (named || !joined) {
            starts.push(at);
        }
        named |= begins;
        at += piece.len() + 1;
    }
    starts
}

/// With the characters that %XX stand for; what is no such stays.
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|&b| char::from(b).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_in_every_notation_and_nothing_else_is() {
        for (address, shown) in [
            (
                "rtsp://h:554/user=admin&password=PW&channel=1&stream=0.sdp",
                "rtsp://h:554/user=admin&password=***&channel=1&stream=0.sdp",
            ),
            (
                "rtsp://h/user=admin_password=PW_channel=1_stream=0.sdp",
                "rtsp://h/user=admin_password=***_channel=1_stream=0.sdp",
            ),
            ("rtsp://h/user=a;Passwd=PW;ch=1?real", "rtsp://h/user=a;Passwd=***;ch=1?real"),
            ("rtsp://h/a/pwd=P_W/ch=1/x_y", "rtsp://h/a/pwd=***/ch=1/x_y"),
            ("rtsp://h/password=P&W_x&ch=2", "rtsp://h/password=***&ch=2"),
            ("rtsp://h/password=&ch=2", "rtsp://h/password=***&ch=2"),
            ("rtsp://h/1?access_token=ab_cd==&ch=2", "rtsp://h/1?access_token=***&ch=2"),
            ("rtsp://h/1?pass_word=PW", "rtsp://h/1?pass_word=***"),
            ("rtsp://h?user=a&p%61ss=PW", "rtsp://h?user=a&p%61ss=***"),
            ("rtsp://h/x#apikey=PW", "rtsp://h/x#apikey=***"),
            ("rtsp://h/password/key_1/ch=1", "rtsp://h/password/key_1/ch=1"),
            ("rtsp://h/a_b&c;d?e=f%&_=&=x", "rtsp://h/a_b&c;d?e=f%&_=&=x"),
            ("rtsp://h", "rtsp://h"),
            ("rtsp://h/", "rtsp://h/"),
            ("", ""),
            ("file:///data/key=1.mp4", "file:///data/key=1.mp4"),
        ] {
            assert_eq!(masked(address), shown);
            assert_eq!(masked(shown), shown, "again");
        }
    }

    #[test]
    fn secrets_are_known_as_they_stand_there_and_decoded() {
        let of = |address: &str| secrets(address);
        assert_eq!(of("rtsp://h/user=a&password=P%40W&ch=1?token=x"), ["P%40W", "P@W", "x"]);
        assert_eq!(of("rtsp://h/password=&a=b?key=k&key=k"), ["k"]);
        assert_eq!(of("rtsp://password=h/x"), [""; 0], "a host is no parameter");
    }
}
