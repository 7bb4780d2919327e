//! Parameters of an assignment: what they may change about decoding.
//!
//! The API checks them against the model's `config_schema` before they are stored; the runner
//! checks again what it acts on, since it trusts no message.

use base::MemberError;
use base::model::ModelSpec;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;

/// Parameter sets that a runner remembers (chosen: distinct assignments of one model).
const CACHED_MAX: usize = 1024;

/// How the output of one member is decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters {
    /// Scores at or below are dropped.
    pub confidence_threshold: f32,
    /// NMS drops boxes that overlap a better one of their class by more.
    pub nms_iou_threshold: f32,
    /// Per class id whether it is wanted; `None` = all.
    pub classes: Option<Vec<bool>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    confidence_threshold: Option<f32>,
    nms_iou_threshold: Option<f32>,
    classes: Option<Vec<Class>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Class {
    Name(String),
    Id(usize),
}

impl Parameters {
    /// The model's own.
    pub fn defaults(spec: &ModelSpec) -> Parameters {
        Parameters {
            confidence_threshold: spec.confidence_threshold,
            nms_iou_threshold: spec.nms_iou_threshold,
            classes: None,
        }
    }

    /// From the JSON of an assignment: `confidence_threshold`, `nms_iou_threshold` (0..1),
    /// `classes` (names or ids, at least one). Keys that are absent keep the model's value.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn parse(spec: &ModelSpec, json: &str) -> Result<Parameters, String> {
        let wire: Wire = serde_json::from_str(json).map_err(|e| format!("parameters: {e}"))?;
        let share = |key: &str, value: Option<f32>, default: f32| match value {
            None => Ok(default),
            Some(v) if (0.0..=1.0).contains(&v) => Ok(v),
            Some(v) => Err(format!("parameters: {key} is {v}, it has to be from 0 to 1")),
        };
        let classes = match wire.classes {
            None => None,
            Some(list) if list.is_empty() => {
                return Err("parameters: classes is empty, leave it out for all".to_owned());
            }
            Some(list) => {
                let mut wanted = vec![false; spec.labels.len()];
                for class in list {
                    let id = match &class {
                        Class::Id(id) => Some(*id).filter(|id| *id < wanted.len()),
                        Class::Name(name) => spec.labels.iter().position(|l| l == name),
                    };
                    let Some(id) = id else {
                        let class = match class {
                            Class::Id(id) => id.to_string(),
                            Class::Name(name) => name.chars().take(80).collect(),
                        };
                        let model = &spec.model_id;
                        return Err(format!("parameters: {model} has no class `{class}`"));
                    };
                    wanted[id] = true;
                }
                Some(wanted)
            }
        };
        let (confidence, nms) = (wire.confidence_threshold, wire.nms_iou_threshold);
        Ok(Parameters {
            confidence_threshold: share(
                "confidence_threshold",
                confidence,
                spec.confidence_threshold,
            )?,
            nms_iou_threshold: share("nms_iou_threshold", nms, spec.nms_iou_threshold)?,
            classes,
        })
    }
}

/// Parsed parameter sets by their JSON text, bounded.
#[derive(Debug, Default)]
pub struct ParameterCache {
    parsed: HashMap<String, Result<Arc<Parameters>, MemberError>>,
}

impl ParameterCache {
    /// The parameters of this JSON, parsed when it is new; a refusal is logged once.
    ///
    /// # Errors
    /// [`MemberError::Parameters`].
    pub fn get(&mut self, spec: &ModelSpec, json: &str) -> Result<Arc<Parameters>, MemberError> {
        if let Some(known) = self.parsed.get(json) {
            return known.clone();
        }
        if self.parsed.len() >= CACHED_MAX {
            self.parsed.clear();
        }
        let parsed = Parameters::parse(spec, json).map(Arc::new).map_err(|why| {
            tracing::warn!(model = %spec.model_id, "{why}");
            MemberError::Parameters
        });
        self.parsed.insert(json.to_owned(), parsed.clone());
        parsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_model;

    #[test]
    fn parameters_override_what_they_name() {
        let spec = test_model::spec();
        let all = Parameters::parse(&spec, "{}").unwrap();
        assert_eq!(all, Parameters::defaults(&spec));
        let json = r#"{"confidence_threshold":0.7,"classes":["b",0]}"#;
        let some = Parameters::parse(&spec, json).unwrap();
        assert_eq!(some.confidence_threshold, 0.7);
        assert_eq!(some.nms_iou_threshold, spec.nms_iou_threshold);
        assert_eq!(some.classes, Some(vec![true, true, false]));
    }

    #[test]
    fn bad_parameters_are_refused_with_the_reason() {
        let spec = test_model::spec();
        for (json, expected) in [
            ("", "parameters:"),
            ("[]", "parameters:"),
            ("null", "parameters:"),
            (r#"{"confidence":0.7}"#, "unknown field `confidence`"),
            (r#"{"confidence_threshold":1.5}"#, "confidence_threshold is 1.5"),
            (r#"{"confidence_threshold":"high"}"#, "invalid type"),
            (r#"{"classes":[]}"#, "classes is empty"),
            (r#"{"classes":["dog"]}"#, "has no class `dog`"),
            (r#"{"classes":[3]}"#, "has no class `3`"),
            (r#"{"classes":[-1]}"#, "parameters:"),
        ] {
            let error = Parameters::parse(&spec, json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
            let mut cache = ParameterCache::default();
            assert_eq!(cache.get(&spec, json), Err(MemberError::Parameters));
            assert_eq!(cache.get(&spec, json), Err(MemberError::Parameters));
        }
    }
}
