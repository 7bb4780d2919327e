//! Sizes as people write them: `512 MiB`.

/// Units, the largest first.
const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Bytes.
pub fn parse(text: &str) -> Result<u64, &'static str> {
    let wrong = "must be a whole number and a unit such as \"512 MiB\" or \"1 GiB\", or \"0\"";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong)?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    if number == 0 && unit.is_empty() {
        return Ok(0);
    }
    let bytes =
        UNITS.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| bytes).ok_or(wrong)?;
    number.checked_mul(*bytes).ok_or("is more than any disk has")
}

/// The same as text, in the largest unit of which it is a whole number.
pub fn shown(bytes: u64) -> String {
    let whole = UNITS.iter().find(|(_, unit)| bytes != 0 && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| "0".to_owned(), |(name, unit)| format!("{} {name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes, again) in [
            ("0", 0, "0"),
            ("0 GiB", 0, "0"),
            ("1 GiB", 1 << 30, "1 GiB"),
            ("512MiB", 512 << 20, "512 MiB"),
            ("1024 KiB", 1 << 20, "1 MiB"),
            ("3 TiB", 3 << 40, "3 TiB"),
            ("1500 B", 1500, "1500 B"),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
            assert_eq!(shown(bytes), again);
            assert_eq!(parse(&shown(bytes)), Ok(bytes));
        }
        for text in
            ["", "1", "GiB", "1 GB", "-1 GiB", "1.5 GiB", "1  GiB", "1 gib", " 1 GiB", "1 GiB "]
        {
            assert!(parse(text).is_err_and(|rule| rule.starts_with("must be")), "{text}");
        }
        assert!(parse("99999999 TiB").is_err_and(|rule| rule.contains("any disk")));
        assert!(parse("99999999999999999999 B").is_err());
    }
}
