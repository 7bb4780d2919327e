//! Rust source as text: what of it is code, and which paths it names.
//!
//! A scanner, not a parser: it knows comments, literals and use trees, which is what the checks of
//! [`crate::tidy`] need.

/// The text with comments and the insides of literals blanked out. Lines and byte offsets stay.
pub fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
            b'"' => quoted_end(bytes, at, b'"'),
            b'\'' => char_end(bytes, at),
            b'r' | b'b' | b'c' if !previous_is_word(bytes, at) => literal_end(bytes, at),
            _ => at,
        };
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(bytes[at..end].iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn previous_is_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && is_word(bytes[at - 1])
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n)
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn quoted_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// End of a character literal; `start` itself for a lifetime.
fn char_end(bytes: &[u8], start: usize) -> usize {
    match bytes.get(start + 1) {
        Some(b'\\') => quoted_end(bytes, start, b'\''),
        Some(_) => {
            // One character, of up to four bytes, then a quote; otherwise it is a lifetime.
            let close = bytes[start + 2..].iter().take(4).position(|b| *b == b'\'');
            match close {
                Some(n) if n == 0 || bytes[start + 1] >= 0x80 => start + 3 + n,
                _ => start,
            }
        }
        None => start,
    }
}

/// End of a literal with a prefix (`r"`, `b"`, `br#"`, `c"`, `b'`); `start` itself for a word.
fn literal_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while at < bytes.len() && matches!(bytes[at], b'r' | b'b' | b'c') && at - start < 2 {
        at += 1;
    }
    let raw = bytes[start..at].contains(&b'r');
    let hashes = bytes[at..].iter().take_while(|b| raw && **b == b'#').count();
    match bytes.get(at + hashes) {
        Some(b'"') if raw => {
            let close: Vec<u8> = std::iter::once(b'"').chain(vec![b'#'; hashes]).collect();
            let body = at + hashes + 1;
            let end = bytes[body..].windows(close.len()).position(|w| w == close);
            end.map_or(bytes.len(), |n| body + n + close.len())
        }
        Some(b'"') => quoted_end(bytes, at, b'"'),
        Some(b'\'') if !raw => char_end(bytes, at),
        _ => start,
    }
}

/// Byte offsets at which `word` stands alone in `code`.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let after = at + word.len();
        !previous_is_word(bytes, *at) && !bytes.get(after).is_some_and(|b| is_word(*b))
    })
}

/// Every path of `code` that starts with `first`, use trees spelled out, with its byte offset.
pub fn paths(code: &str, first: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(code, first) {
        // `a::std` is not ours.
        if !code[..at].ends_with("::") || code[..at].ends_with(" ::") {
            expand(code, at, String::new(), &mut found);
        }
    }
    found
}

/// Reads one use tree at `at`, which stands beneath `prefix`; returns where it ends.
fn expand(code: &str, at: usize, prefix: String, found: &mut Vec<(usize, String)>) -> usize {
    let skip = |at: usize| at + code[at..].len() - code[at..].trim_start().len();
    let start = skip(at);
    if code[start..].starts_with('{') {
        let mut next = start + 1;
        loop {
            next = skip(next);
            match code[next..].bytes().next() {
                None => return next,
                Some(b'}') => return next + 1,
                Some(b',') => next += 1,
                Some(_) => {
                    let end = expand(code, next, prefix.clone(), found);
                    // Not a use tree after all (a struct literal, say): leave it.
                    if end == next {
                        return code.len().min(next + 1);
                    }
                    next = end;
                }
            }
        }
    }
    let length = code[start..].bytes().take_while(|b| is_word(*b) || *b == b'*').count();
    let end = start + length;
    let path = if prefix.is_empty() {
        code[start..end].to_owned()
    } else {
        format!("{prefix}::{}", &code[start..end])
    };
    let next = skip(end);
    if length > 0 && code[next..].starts_with("::") {
        return expand(code, next + 2, path, found);
    }
    found.push((start, path));
    // `as name`
    if code[next..].starts_with("as ") {
        let name = skip(next + 3);
        return name + code[name..].bytes().take_while(|b| is_word(*b)).count();
    }
    end
}

/// Where the block ends that opens with the brace at `open`, behind its own.
pub fn matching_brace(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (n, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return n + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Line of a byte offset, from 1.
pub fn line(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blank_and_lines_stay() {
        let text = "a // unsafe\n/* unsafe /* b */ unsafe */ c\n\"unsafe \\\" unsafe\" d r#\"un\"safe\"# \
                    'x' '\\'' '\\u{1F}' b\"unsafe\" e 'life: f br##\"unsafe\"## '\u{e9}' g";
        let code = code_only(text);
        assert_eq!(
            code.split_whitespace().collect::<Vec<_>>(),
            ["a", "c", "d", "e", "'life:", "f", "g"]
        );
        assert_eq!(code.len(), text.len());
        assert_eq!(code.matches('\n').count(), text.matches('\n').count());
        assert_eq!(code_only("for r in b { c(r) }"), "for r in b { c(r) }");
    }

    #[test]
    fn words_stand_alone() {
        assert_eq!(words("unsafe_code unsafe{} xunsafe", "unsafe").collect::<Vec<_>>(), [12]);
    }

    #[test]
    fn use_trees_are_spelled_out() {
        let code = "use std::{fmt, time::{Duration, Instant as I}, fs};\n\
                    fn f() { ::std::thread::spawn(g); a::std::net; std::process::id() }";
        let found: Vec<_> = paths(code, "std").into_iter().map(|(_, path)| path).collect();
        let wanted = [
            "std::fmt",
            "std::time::Duration",
            "std::time::Instant",
            "std::fs",
            "std::thread::spawn",
            "std::process::id",
        ];
        assert_eq!(found, wanted);
    }
}
