//! JSON in one spelling: keys sorted, no spaces. Equal values have equal text, whatever order
//! their keys came in.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The value with the keys of every object in order.
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<_, _> = map.iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Object(ordered.into_iter().map(|(k, v)| (k.clone(), v)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// sha256 of the canonical text, hex; empty for null.
pub fn id(value: &Value) -> String {
    if value.is_null() {
        return String::new();
    }
    Sha256::digest(sorted(value).to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_keys_does_not_matter_and_values_do() {
        let parse = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        let one = id(&parse(r#"{"b": [{"y": 1, "x": 2}], "a": null}"#));
        assert_eq!(one, id(&parse(r#"{"a":null,"b":[{"x":2,"y":1}]}"#)));
        assert_ne!(one, id(&parse(r#"{"a":null,"b":[{"x":2,"y":2}]}"#)));
        // printf '{"a":1}' | sha256sum
        assert_eq!(
            id(&parse(r#"{ "a": 1 }"#)),
            "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
        );
        assert_eq!(id(&Value::Null), "");
    }
}
