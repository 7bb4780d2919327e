//! What handlers work with: the registry, the stores, the live view, and what is published.

use crate::commit::EventCounters;
use crate::configuration::Configuration;
use crate::ingest_link::IngestLink;
use crate::live::Live;
use crate::media::Media;
use crate::media::probe::Probes;
use crate::publish::{PublishError, Published};
use crate::registry::Registry;
use crate::stills::Stills;
use base::{Instant, ModelId};
use std::collections::HashMap;
use std::sync::Arc;
use store::{Control, ControlWrite, EventReader, StoreError};

/// Everything behind HTTP. Shared by all handlers; each call may wait for the disk.
#[derive(Debug)]
pub struct Services {
    /// Version of the program.
    pub version: &'static str,
    /// When serve started.
    pub started: Instant,
    /// The export switch of the node.
    pub export_enabled: bool,
    /// Models.
    pub registry: Registry,
    /// Devices, models, assignments, class names.
    pub control: Control,
    /// Events.
    pub events: EventReader,
    /// What happens now.
    pub live: Arc<Live>,
    /// What became of results.
    pub counters: Arc<EventCounters>,
    /// Pictures.
    pub stills: Stills,
    /// What cameras showed.
    pub recordings: ipc::recording::Recordings,
    /// What was published last.
    pub published: Published,
    /// What the configuration says.
    pub configuration: Configuration,
    /// The way to ingest.
    pub ingest: IngestLink,
    /// Snapshots and bookmarks.
    pub media: Media,
    /// Addresses that are tried.
    pub probes: Probes,
}

/// Class names of several models' versions, each looked up once.
#[derive(Debug)]
pub struct ClassNames<'s> {
    services: &'s Services,
    known: HashMap<(ModelId, String), Option<Vec<String>>>,
}

impl<'s> ClassNames<'s> {
    /// Begins with none looked up.
    pub fn new(services: &'s Services) -> Self {
        ClassNames { services, known: HashMap::new() }
    }

    /// The class names of a version of a model, index = class id; empty when nobody ever told.
    ///
    /// # Errors
    /// Those of the store.
    pub fn of(&mut self, model: &ModelId, version: &str) -> Result<&[String], StoreError> {
        let key = (model.clone(), version.to_owned());
        if !self.known.contains_key(&key) {
            let names = self.services.class_names(model, version)?;
            self.known.insert(key.clone(), names);
        }
        Ok(self.known.get(&key).and_then(Option::as_deref).unwrap_or_default())
    }
}

impl Services {
    /// Changes devices or assignments; the desired state follows before it returns.
    ///
    /// # Errors
    /// Those of `work`, of the store, and [`PublishError`]: nothing has changed then.
    pub fn change<T, E: From<StoreError> + From<PublishError>>(
        &self,
        work: impl FnOnce(&mut ControlWrite<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.settle::<E>()?;
        self.published.change(&self.control, &self.registry, work)
    }

    /// Applies the configuration if that could not be done yet.
    ///
    /// # Errors
    /// Why it still can't be: what was published before stays in force.
    pub fn settle<E: From<StoreError> + From<PublishError>>(&self) -> Result<(), E> {
        self.configuration.apply(&self.control, &self.registry, &self.published)
    }

    fn class_names(
        &self,
        model: &ModelId,
        version: &str,
    ) -> Result<Option<Vec<String>>, StoreError> {
        if let Some(names) = self.control.labels(model, version)? {
            return Ok(Some(names));
        }
        let told = self.live.scheduler().models;
        Ok(told.and_then(|(_, models)| {
            let same = |m: &&ipc::events_message::ModelInfo| {
                m.model_id == *model && m.model_version == version
            };
            models.iter().find(same).map(|m| m.labels.clone())
        }))
    }
}
