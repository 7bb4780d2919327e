//! The registry: which models exist, which of them can be assigned, and what they call their
//! classes. Filled from the configured model folders; it runs nothing and asks no runner.

use crate::options::{ModelEntry, Unavailable, UnavailableKind};
use crate::parameters::ParametersSchema;
use base::model::ModelSpec;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::error;

/// Every configured model, by id or folder name.
#[derive(Debug, Default)]
pub struct Registry(BTreeMap<String, Model>);

/// One model.
#[derive(Debug)]
pub struct Model {
    /// The model's id, or its folder's name when the id could not be read.
    pub id: String,
    /// False = listed, but not assignable. Follows the store, which may be readable only later.
    enabled: AtomicBool,
    /// What the configuration says of it, if anything.
    pub named_enabled: Option<bool>,
    /// The description, or why the model can't be used.
    pub spec: Result<ModelSpec, Unavailable>,
    /// Schema of an assignment's parameters.
    pub config_schema: Option<ParametersSchema>,
}

impl Registry {
    /// Takes the configured folders. A config_schema that is none makes its model unavailable;
    /// of two folders with one model id the first is taken.
    pub fn new(entries: Vec<ModelEntry>) -> Registry {
        let mut models = BTreeMap::new();
        for entry in entries {
            let model = Model::new(entry);
            if let Err(unavailable) = &model.spec {
                error!("model {} is unavailable: {}", model.id, unavailable.reason);
            }
            if models.contains_key(&model.id) {
                error!(
                    "model id {} is configured twice, the first folder is used; give the other \
                     one its own model_id",
                    model.id
                );
                continue;
            }
            models.insert(model.id.clone(), model);
        }
        Registry(models)
    }

    /// Takes from the store which models are enabled.
    pub fn set_enabled<'r>(&self, rows: impl Iterator<Item = (&'r str, bool)>) {
        for (id, enabled) in rows {
            if let Some(model) = self.0.get(id) {
                model.enabled.store(enabled, Ordering::Relaxed);
            }
        }
    }

    /// One model.
    pub fn get(&self, id: &str) -> Option<&Model> {
        self.0.get(id)
    }

    /// All models, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Model> {
        self.0.values()
    }

    /// A model to which a camera can be assigned.
    ///
    /// # Errors
    /// The reason why it is not one, with the remedy.
    pub fn assignable(&self, id: &str) -> Result<(&Model, &ModelSpec), String> {
        let Some(model) = self.get(id) else {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            return Err(format!("model `{id}` is unknown; known are: {known}"));
        };
        if !model.enabled() {
            return Err(format!("model `{id}` is disabled; enable it first"));
        }
        match &model.spec {
            Ok(spec) => Ok((model, spec)),
            Err(unavailable) => Err(format!("model `{id}` is unavailable: {}", unavailable.reason)),
        }
    }
}

impl Model {
    fn new(entry: ModelEntry) -> Model {
        let ModelEntry { name, enabled, mut spec } = entry;
        let id = spec.as_ref().map_or(name, |spec| spec.model_id.to_string());
        let mut config_schema = None;
        if let Ok(Some(text)) = spec.as_ref().map(|s| s.config_schema.as_deref()) {
            match ParametersSchema::read(text) {
                Ok(schema) => config_schema = Some(schema),
                Err(error) => {
                    let kind = UnavailableKind::Invalid;
                    let reason = format!("config_schema {error}");
                    spec = Err(Unavailable { kind, reason });
                }
            }
        }
        let named_enabled = enabled;
        let enabled = AtomicBool::new(enabled.unwrap_or(true));
        Model { id, enabled, named_enabled, spec, config_schema }
    }

    /// Whether a camera can be assigned to it.
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Faults of an assignment's parameters; empty = none.
    pub fn parameter_problems(&self, parameters: &Value) -> Vec<String> {
        self.config_schema.as_ref().map_or(vec![], |schema| schema.problems(parameters))
    }
}
