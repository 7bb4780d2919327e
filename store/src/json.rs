//! JSON as it was written: whoever stores it does not build a tree of it, and whoever lists does only
//! where it is shown.

use serde::de::IgnoredAny;

/// The text of one JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(Box<str>);

impl Json {
    /// The text of `value`.
    ///
    /// # Errors
    /// Those of its `Serialize`, and a map whose keys are no texts.
    pub fn of(value: &impl serde::Serialize) -> Result<Json, serde_json::Error> {
        serde_json::to_string(value).map(|text| Json(text.into()))
    }

    /// Text that is one JSON value.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &[u8]) -> Result<Json, String> {
        let text = std::str::from_utf8(text).map_err(|e| e.to_string())?;
        let _: IgnoredAny = serde_json::from_str(text).map_err(|e| e.to_string())?;
        Ok(Json(text.into()))
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// As a tree; null when it has a number that is too large for one, or is nested too deep.
    pub fn value(&self) -> serde_json::Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_stays_what_it_was_and_what_is_no_json_is_refused() {
        let kept = Json::of(&json!({"a": [1.5, null], "b": "\u{e9}"})).unwrap();
        assert_eq!(Json::parse(kept.text().as_bytes()).unwrap(), kept);
        assert_eq!(kept.value(), json!({"a": [1.5, null], "b": "\u{e9}"}));
        assert_eq!(Json::parse(b" {\"a\": 1} ").unwrap().text(), " {\"a\": 1} ");
        for bad in [&b""[..], b"{", b"1 2", b"\"\xff\"", b"nul"] {
            assert!(Json::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Json::parse(b"1e999").unwrap().value(), json!(null));
    }
}
