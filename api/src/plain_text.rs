//! Names, descriptions and labels that people give to things and read again beside what is true.

/// What keeps `text` from being shown in one line as it was written; `None` = nothing. An empty text
/// is not a fault here.
pub fn fault(text: &str) -> Option<String> {
    if !text.is_empty() && text.chars().all(is_blank) {
        return Some("is blank".to_owned());
    }
    let (at, bad) = text.chars().enumerate().find(|(_, c)| c.is_control() || is_layout(*c))?;
    let (kind, code, place) =
        (if bad.is_control() { "control" } else { "layout" }, bad as u32, at + 1);
    Some(format!("has the {kind} character U+{code:04X} at place {place}; leave it out"))
}

/// Characters that turn the direction of what stands beside them, or end the line (Unicode
/// Standard Annex 9, section 2, and chapter 23.2).
const fn is_layout(c: char) -> bool {
    matches!(
        c,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// Characters of which nothing is seen: spaces, what joins or parts words, fillers.
fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '\u{00ad}' | '\u{034f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}'
                | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_otherwise_than_it_is_written_is_a_fault() {
        for good in [
            "",
            "Gate",
            "Tor 2 (Süd)",
            "门口",
            "שער",
            "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
            "a  b",
            " x ",
        ] {
            assert_eq!(fault(good), None, "{good:?}");
        }
        for blank in [" ", "   ", "\t", "\u{a0}", "\u{3000}", "\u{200b}", "\u{2800}", "\u{3164} "] {
            assert_eq!(fault(blank).as_deref(), Some("is blank"), "{blank:?}");
        }
        for (bad, code) in [
            ("a\0", "U+0000 at place 2"),
            ("a\r\nb", "U+000D at place 2"),
            ("tab\there", "U+0009 at place 4"),
            ("\u{7f}x", "U+007F at place 1"),
            ("x\u{85}", "U+0085"),
            ("\u{202e}evil\u{202c}", "U+202E at place 1"),
            ("x\u{202a}", "U+202A"),
            ("x\u{2066}", "U+2066"),
            ("x\u{2069}", "U+2069"),
            ("x\u{200e}", "U+200E"),
            ("x\u{200f}", "U+200F"),
            ("x\u{61c}", "U+061C"),
            ("x\u{2028}y", "U+2028"),
            ("x\u{2029}y", "U+2029"),
        ] {
            let told = fault(bad).unwrap_or_default();
            assert!(told.contains(code), "{bad:?}: {told}");
        }
        for beside in ["x\u{2065}", "x\u{206a}", "x\u{202f}y", "x\u{2027}y", "x\u{200d}y"] {
            assert_eq!(fault(beside), None, "{beside:?}");
        }
    }
}
