//! Parameters of assignments, held against the `config_schema` of their model: JSON Schema as the
//! author of a model wrote it, with any keyword.
//!
//! Requests are not checked here: the crate behind this needs the whole value, walks arrays of any
//! length, and collects every fault with a copy of what is faulty, which cost 230 MB for 1 MiB of
//! `{}` (measured). Parameters are 4 KiB at most.

use crate::limits::{EXPLANATION_CHARS_MAX, PROBLEMS_MAX, SHOWN_CHARS_MAX};
use crate::schema::cut;
use jsonschema::paths::{Location, LocationSegment};
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;
use std::sync::Arc;

/// A schema that can be checked against.
#[derive(Debug, Clone)]
pub struct ParametersSchema {
    text: Value,
    validator: Arc<Validator>,
}

impl ParametersSchema {
    /// Reads a schema; without `$schema` it is of the newest draft.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<ParametersSchema, String> {
        let text: Value = serde_json::from_str(text).map_err(|e| format!("is not JSON: {e}"))?;
        // Patterns of linear time only.
        let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
        let validator = options.build(&text).map_err(|error| {
            let (place, error) = (error.instance_path(), error.to_string());
            cut(&format!("is no JSON Schema: {place} {error}"), EXPLANATION_CHARS_MAX)
        })?;
        Ok(ParametersSchema { text, validator: Arc::new(validator) })
    }

    /// As it was written.
    pub fn text(&self) -> &Value {
        &self.text
    }

    /// What in `parameters` breaks the schema, [`PROBLEMS_MAX`] at most.
    pub fn problems(&self, parameters: &Value) -> Vec<String> {
        let told = |error: jsonschema::ValidationError<'_>| {
            let place = place(error.instance_path());
            let message = error.masked_with("the value");
            let shown = match &**error.instance() {
                Value::Array(_) | Value::Object(_) => String::new(),
                scalar => format!("; it is {}", cut(&scalar.to_string(), SHOWN_CHARS_MAX)),
            };
            cut(&format!("{place}: {message}{shown}"), EXPLANATION_CHARS_MAX)
        };
        self.validator.iter_errors(parameters).take(PROBLEMS_MAX).map(told).collect()
    }
}

/// Such as `parameters.zones[2].name`.
fn place(location: &Location) -> String {
    let mut text = "parameters".to_owned();
    for segment in location {
        match segment {
            LocationSegment::Property(name) => text.push_str(&format!(".{name}")),
            LocationSegment::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema(schema: &Value) -> ParametersSchema {
        ParametersSchema::read(&schema.to_string()).unwrap()
    }

    #[test]
    fn every_keyword_of_the_author_holds() {
        let schema = schema(&json!({
            "type": "object",
            "required": ["threshold"],
            "additionalProperties": false,
            "properties": {
                "threshold": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                "colour": {"type": "string", "pattern": "^#[0-9a-f]{6}$"},
                "zones": {"type": "array", "items": {"$ref": "#/$defs/zone"}, "uniqueItems": true},
                "either": {"oneOf": [{"type": "integer"}, {"type": "null"}]},
            },
            "$defs": {"zone": {"type": "string", "minLength": 2}},
            "dependentRequired": {"colour": ["zones"]},
        }));
        let good =
            json!({"threshold": 0.5, "zones": ["ab", "cd"], "colour": "#00ff00", "either": 3});
        assert_eq!(schema.problems(&good), [""; 0]);
        let told = |parameters: Value| schema.problems(&parameters).join("\n");
        for (bad, expected) in [
            (json!({}), "parameters: \"threshold\" is a required property"),
            (json!({"threshold": 0}), "parameters.threshold: the value is less than or equal to"),
            (json!({"threshold": 2}), "the maximum of 1; it is 2"),
            (
                json!({"threshold": "x"}),
                "parameters.threshold: the value is not of type \"number\"; it is \"x\"",
            ),
            (
                json!({"threshold": 1, "colour": "red", "zones": []}),
                "parameters.colour: the value does not match",
            ),
            (json!({"threshold": 1, "colour": "#000000"}), "zones"),
            (json!({"threshold": 1, "zones": ["ab", "x"]}), "parameters.zones[1]: "),
            (json!({"threshold": 1, "zones": ["ab", "ab"]}), "non-unique"),
            (json!({"threshold": 1, "either": "x"}), "parameters.either: "),
            (json!({"threshold": 1, "Z": 1}), "'Z'"),
        ] {
            let told = told(bad.clone());
            assert!(told.contains(expected), "{bad}: {told}");
        }
    }

    #[test]
    fn what_is_no_schema_is_told() {
        for (text, expected) in [
            ("{", "is not JSON"),
            (r#"{"type": "nonsense"}"#, "is no JSON Schema: /type"),
            (r#"{"properties": {"a": {"pattern": "("}}}"#, "pattern"),
            (r#"{"$ref": "https://example.org/schema.json"}"#, "example.org"),
            (r#"{"$ref": "file:///etc/passwd"}"#, "/etc/passwd"),
        ] {
            let told = ParametersSchema::read(text).unwrap_err();
            assert!(told.contains(expected), "{text}: {told}");
        }
    }

    #[test]
    fn what_is_told_is_bounded() {
        let schema = schema(&json!({"items": {"type": "string"}, "additionalProperties": false}));
        let many: Value = (0..1000).collect();
        assert_eq!(schema.problems(&many).len(), PROBLEMS_MAX);
        let keys: serde_json::Map<String, Value> =
            (0..1000).map(|n| (format!("key{n}"), Value::Null)).collect();
        let told = schema.problems(&keys.into());
        assert!(told.len() <= PROBLEMS_MAX && told.concat().len() < 64 * 1024);
        let long = Value::from("x".repeat(4000));
        let bytes: usize =
            schema.problems(&json!([1, long, {"a": long}])).iter().map(String::len).sum();
        assert!(bytes < 4000, "{bytes}");
    }
}
