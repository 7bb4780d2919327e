//! `Range` of a request (RFC 9110 section 14) against a body of known length. Pure.
//!
//! One range of bytes is honoured. Several ranges, other units and what can't be read are answered
//! with the whole, which the RFC allows.

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Everything, 200.
    Whole,
    /// From the first byte so many, 206.
    Part {
        /// Index of the first byte.
        first: u64,
        /// Bytes, at least 1.
        bytes: u64,
    },
    /// The range lies outside, 416.
    Outside,
}

/// What `range` asks of `length` bytes.
pub fn wanted(range: Option<&str>, length: u64) -> Wanted {
    let Some(spec) = range.and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    if spec.contains(',') {
        return Wanted::Whole;
    }
    let Some((first, last)) = spec.split_once('-') else { return Wanted::Whole };
    let (first, last) = (first.trim(), last.trim());
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // A number of more than 64 bits is beyond every file.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => {
            let bytes = suffix.min(length);
            if bytes == 0 { Wanted::Outside } else { Wanted::Part { first: length - bytes, bytes } }
        }
        (Some(first), None) if last.is_empty() => from(first, u64::MAX, length),
        (Some(first), Some(last)) if first <= last => from(first, last, length),
        _ => Wanted::Whole,
    }
}

fn from(first: u64, last: u64, length: u64) -> Wanted {
    if first >= length {
        return Wanted::Outside;
    }
    let last = last.min(length - 1);
    Wanted::Part { first, bytes: last - first + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_length_and_nonsense_means_the_whole() {
        let part = |first, bytes| Wanted::Part { first, bytes };
        for (range, expected) in [
            (None, Wanted::Whole),
            (Some("bytes=0-0"), part(0, 1)),
            (Some("bytes=2-5"), part(2, 4)),
            (Some("bytes=2-"), part(2, 8)),
            (Some(" bytes=9-9999"), part(9, 1)),
            (Some("bytes=-3"), part(7, 3)),
            (Some("bytes=-99"), part(0, 10)),
            (Some("bytes=3-99999999999999999999999"), part(3, 7)),
            (Some("bytes=10-"), Wanted::Outside),
            (Some("bytes=99999999999999999999999-"), Wanted::Outside),
            (Some("bytes=-0"), Wanted::Outside),
            (Some("bytes=5-2"), Wanted::Whole),
            (Some("bytes=0-1,3-4"), Wanted::Whole),
            (Some("bytes=+1-2"), Wanted::Whole),
            (Some("bytes=-"), Wanted::Whole),
            (Some("bytes=a-b"), Wanted::Whole),
            (Some("pages=1-2"), Wanted::Whole),
        ] {
            assert_eq!(wanted(range, 10), expected, "{range:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Outside);
        assert_eq!(wanted(Some("bytes=-1"), 0), Wanted::Outside);
    }
}
