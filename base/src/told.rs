//! Texts of others (cameras, libraries) on their way into a log, a state or an answer: without secrets,
//! on one line, of bounded length.

use crate::address::{self, MASK};

/// Longest text of others that is told, in characters (chosen: a reason is a line).
pub const CHARS_MAX: usize = 300;
/// Shorter secrets are masked where they stand in an address only: their letters are found in any text.
const SECRET_CHARS_MIN: usize = 4;

/// A text of others, fit to be told: `secrets` that it quotes and those of addresses in it are
/// [`MASK`]ed first, only then it is made [`plain`].
pub fn told<S: AsRef<str>>(text: &str, secrets: impl IntoIterator<Item = S>) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        let secret = secret.as_ref();
        if secret.chars().count() >= SECRET_CHARS_MIN {
            text = text.replace(secret, MASK);
        }
    }
    plain(&masked(text.lines().next().unwrap_or_default()))
}

/// A line in which every address, and every path with parameters, has [`MASK`] in place of user,
/// password and secret parameters.
pub fn masked(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    // None of these stands in an address as libraries print it.
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>' | '`' | '{' | '}');
    for word in line.split_inclusive(ends) {
        let text = word.trim_end_matches(ends);
        if text.contains(['=', '@']) {
            let secret = |name: &str, _: &str| address::is_secret(name).then(|| MASK.to_owned());
            out.push_str(&address::replaced(&without_users(text), secret));
        } else {
            out.push_str(text);
        }
        out.push_str(&word[text.len()..]);
    }
    out
}

/// [`visible`], cut to [`CHARS_MAX`].
pub fn plain(text: &str) -> String {
    visible(text.char_indices().nth(CHARS_MAX).map_or(text, |(end, _)| &text[..end]))
}

/// On one line, with spaces for characters that nobody sees or that turn others around.
pub fn visible(text: &str) -> String {
    text.chars().map(|c| if is_visible(c) { c } else { ' ' }).collect()
}

/// Whether a character stands for itself: no control character, no mark of direction, nothing of no
/// width, no end of a line (general categories Cc, Cf, Zl and Zp of Unicode, as far as texts have
/// them).
fn is_visible(c: char) -> bool {
    !(c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' | '\u{200b}'..='\u{200f}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}')
        || matches!(c, '\u{e0000}'..='\u{e007f}'))
}

/// A word without the users of the addresses in it: what stands before the last `@` of an authority.
fn without_users(word: &str) -> String {
    let mut pieces = word.split("://");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        out.push_str("://");
        let authority = piece.find(['/', '?', '#']).unwrap_or(piece.len());
        match piece[..authority].rfind('@') {
            Some(at) => {
                out.push_str(MASK);
                out.push_str(&piece[at..]);
            }
            None => out.push_str(piece),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_every_address_in_a_text_are_masked_whoever_wrote_it() {
        for (text, shown) in [
            ("no answer to rtsp://a:PW@h:554/1", "no answer to rtsp://***@h:554/1"),
            ("bad \"rtsp://h/user=a&password=PW\": 5", "bad \"rtsp://h/user=a&password=***\": 5"),
            ("(rtsp://a:P@W@h/x?token=PW)", "(rtsp://***@h/x?token=***"),
            ("base=rtsp://a:PW@h/x,rtsp://b:PW@h/y", "base=rtsp://***@h/x,rtsp://***@h/y"),
            (
                "GET /user=a_password=PW_channel=1 failed",
                "GET /user=a_password=***_channel=1 failed",
            ),
            ("track1?pwd=PW", "track1?pwd=***"),
            ("Authorization:token=PW", "Authorization:token=***"),
            ("<rtsp://a:PW@h>", "<rtsp://***@h>"),
            (
                "the camera offers nothing, but audio/pcma",
                "the camera offers nothing, but audio/pcma",
            ),
            ("", ""),
        ] {
            assert_eq!(told(text, [""; 0]), shown);
            assert_eq!(told(shown, [""; 0]), shown, "again");
        }
    }

    #[test]
    fn a_secret_that_is_quoted_bare_is_masked_before_the_text_is_cut() {
        let cut = format!("{}s3cret", "x".repeat(CHARS_MAX - 3));
        let text = told(&cut, ["s3cret"]);
        assert_eq!(text, format!("{}***", "x".repeat(CHARS_MAX - 3)));
        assert_eq!(told("login s3cret\nand s3cret", ["s3cret"]), "login ***");
        assert_eq!(told("abcd abc", ["abc", "abcd"]), "*** abc", "three letters are anywhere");
    }

    #[test]
    fn what_is_told_is_one_line_of_bounded_length_that_is_what_it_seems() {
        assert_eq!(told("a\tb\x1b[31m\u{202e}c\u{200b}d\u{feff}\r\ne", [""; 0]), "a b [31m c d ");
        assert_eq!(told("é ü 漢 'quoted' {x}", [""; 0]), "é ü 漢 'quoted' {x}");
        let long = told(&"漢".repeat(CHARS_MAX + 1), [""; 0]);
        assert_eq!(long.chars().count(), CHARS_MAX);
        assert_eq!(plain("a\nb"), "a b");
    }
}
