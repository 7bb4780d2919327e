//! The desired state in force, and the one way to change it: a transaction of the registry, the plan
//! that follows from it, and `desired.json`, all or nothing.
//!
//! The file is written inside the transaction, before it commits: when the file can't be written,
//! nothing has changed. When the commit fails afterwards, the state of before is written again under
//! a higher revision. A crash between the two is mended at the next start, which writes the file
//! that follows from the registry.

use crate::config_rows::NamedFiles;
use crate::moment;
use crate::plan::Plan;
use crate::registry::Registry;
use base::CameraId;
use ipc::clock;
use ipc::desired::{DesiredState, LoadError};
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use store::control::Device;
use store::{Control, ControlWrite, StoreError};
use tracing::{error, warn};

/// The desired state can't be written. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[error("can't write {}: {source}; nothing was changed, make room or correct its owner and mode", path.display())]
pub struct PublishError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Ids of the cameras that exist; results of others are dropped.
#[derive(Debug, Default)]
pub struct KnownCameras(RwLock<Arc<BTreeSet<CameraId>>>);

impl KnownCameras {
    /// Those that there are now.
    pub fn get(&self) -> Arc<BTreeSet<CameraId>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, devices: &[Device]) {
        let ids = devices.iter().map(|device| device.id.clone()).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ids);
    }
}

/// The desired state in force.
#[derive(Debug)]
pub struct Published {
    path: PathBuf,
    export_enabled: bool,
    /// The files that the configuration names: no change over HTTP adds to them.
    pub named_files: NamedFiles,
    current: Mutex<Arc<(u64, Plan)>>,
    /// Highest revision that was ever given to the file. Locked while the registry changes.
    highest: Mutex<u64>,
    cameras: Arc<KnownCameras>,
}

impl Published {
    /// Writes what follows from the registry, when it says something new.
    ///
    /// # Errors
    /// Those of the registry, and [`PublishError`].
    pub fn start<E: From<StoreError> + From<PublishError>>(
        path: PathBuf,
        export_enabled: bool,
        named_files: NamedFiles,
        control: &Control,
        registry: &Registry,
    ) -> Result<Published, E> {
        let (devices, assignments) = (control.devices()?, control.assignments()?);
        let plan = Plan::new(&devices, &assignments, registry, export_enabled, &named_files);
        let mut published = Published {
            path,
            export_enabled,
            named_files,
            current: Mutex::new(Arc::new((0, plan.clone()))),
            highest: Mutex::new(0),
            cameras: Arc::default(),
        };
        published.cameras.set(&devices);
        tell(&plan, None);
        let last = match DesiredState::load(&published.path) {
            Ok(state) if plan.matches(&state) => {
                published.current = Mutex::new(Arc::new((state.revision, plan)));
                published.highest = Mutex::new(state.revision);
                return Ok(published);
            }
            Ok(state) => state.revision,
            Err(LoadError::Missing(_)) => 0,
            Err(error) => {
                warn!("{error}; writing it anew");
                0
            }
        };
        // Above the file's too: the store may be younger than the file.
        let revision = control.next_revision()?.max(last.saturating_add(1));
        published.store(revision, &plan)?;
        published.current = Mutex::new(Arc::new((revision, plan)));
        published.highest = Mutex::new(revision);
        Ok(published)
    }

    /// Revision and plan.
    pub fn get(&self) -> Arc<(u64, Plan)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The cameras that exist, as they change.
    pub fn cameras(&self) -> Arc<KnownCameras> {
        Arc::clone(&self.cameras)
    }

    /// Runs `work` on the registry and makes the desired state follow. One change at a time.
    ///
    /// # Errors
    /// Those of `work`, of the registry, and [`PublishError`]: nothing has changed then.
    pub fn change<T, E: From<StoreError> + From<PublishError>>(
        &self,
        control: &Control,
        registry: &Registry,
        work: impl FnOnce(&mut ControlWrite<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.get();
        let mut tried = None;
        let result = control.write(|write| -> Result<_, E> {
            let value = work(write)?;
            let devices = write.devices()?;
            let assignments = write.assignments()?;
            let (export, named) = (self.export_enabled, &self.named_files);
            let plan = Plan::new(&devices, &assignments, registry, export, named);
            let mut revision = before.0;
            if !plan.says_the_same(&before.1) {
                revision = write.next_revision()?.max(highest.saturating_add(1));
                tried = Some(revision);
                self.store(revision, &plan)?;
            }
            Ok((value, devices, revision, plan))
        });
        *highest = tried.unwrap_or(0).max(*highest);
        match result {
            Ok((value, devices, revision, plan)) => {
                tell(&plan, Some(&before.1));
                self.cameras.set(&devices);
                self.set(revision, plan);
                Ok(value)
            }
            Err(error) => {
                if let Some(revision) = tried {
                    self.restore(revision, &before, &mut highest);
                }
                Err(error)
            }
        }
    }

    /// Puts the state of before back when the file already holds the one that failed.
    fn restore(&self, failed: u64, before: &(u64, Plan), highest: &mut u64) {
        if DesiredState::load(&self.path).is_ok_and(|state| state.revision != failed) {
            return;
        }
        let revision = failed.saturating_add(1);
        match self.store(revision, &before.1) {
            Ok(()) => {
                *highest = revision;
                self.set(revision, before.1.clone());
            }
            Err(error) => error!(
                "a change failed after {} was written, and the state of before can't be put back: {error}; \
                 restart serve",
                self.path.display()
            ),
        }
    }

    fn set(&self, revision: u64, plan: Plan) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new((revision, plan));
    }

    fn store(&self, revision: u64, plan: &Plan) -> Result<(), PublishError> {
        let state = DesiredState {
            format: ipc::desired::FORMAT,
            revision,
            written_utc: moment::text(clock::utc()),
            cameras: plan.cameras.clone(),
            subscriptions: plan.subscriptions.clone(),
        };
        let failed = |source| PublishError { path: self.path.clone(), source };
        state.store(&self.path).map_err(failed)
    }
}

/// Logs what is rejected or waits, unless it was so before.
fn tell(plan: &Plan, before: Option<&Plan>) {
    for (id, reason) in &plan.rejected {
        if before.is_none_or(|before| before.rejected.get(id) != Some(reason)) {
            error!("assignment {id} is rejected: {reason}");
        }
    }
    for (id, reason) in &plan.waiting {
        if before.is_none_or(|before| before.waiting.get(id) != Some(reason)) {
            warn!("assignment {id} waits for its parent: {reason}");
        }
    }
}
