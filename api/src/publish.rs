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
use base::{CameraId, Epoch, Instant};
use ipc::clock;
use ipc::desired::{DesiredState, LoadError, Version};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
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

/// The desired state does not follow from the registry yet.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The registry can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file can't be written.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Ids of the cameras that exist; results of others are dropped.
#[derive(Debug, Default)]
pub struct KnownCameras(RwLock<Arc<BTreeSet<CameraId>>>);

impl KnownCameras {
    /// These.
    pub fn of(ids: BTreeSet<CameraId>) -> KnownCameras {
        KnownCameras(RwLock::new(Arc::new(ids)))
    }

    /// Those that there are now.
    pub fn get(&self) -> Arc<BTreeSet<CameraId>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, ids: BTreeSet<CameraId>) {
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
    /// Revision 0 = nothing was ever published.
    current: Mutex<Arc<(u64, Plan)>>,
    /// Registry that it follows from, and CLOCK_MONOTONIC when that or the revision changed.
    epoch: AtomicU64,
    changed: AtomicU64,
    /// Locked while the registry or the file changes.
    file: Mutex<Written>,
    cameras: Arc<KnownCameras>,
}

/// What is known of the file.
#[derive(Debug, Default)]
struct Written {
    /// Highest revision that was ever given to it.
    highest: u64,
    /// The file as we left or found it when it said what is in force.
    left: Option<Stamp>,
    /// Why it could not be written last.
    failure: Option<String>,
}

/// Tells one writing of a file from another.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// The file of now; `None` when there is none.
    fn of(path: &Path) -> Option<Stamp> {
        let told = fs::symlink_metadata(path).ok()?;
        let modified = (told.mtime(), told.mtime_nsec());
        Some(Stamp { device: told.dev(), inode: told.ino(), bytes: told.len(), modified })
    }
}

impl Published {
    /// What was published before, by whichever serve: it is in force until something else is.
    pub fn before(path: PathBuf, export_enabled: bool, named_files: NamedFiles) -> Published {
        let left = Stamp::of(&path);
        let (mut current, mut file) = ((0, Plan::default()), Written::default());
        let mut epoch = Epoch::default();
        match DesiredState::load(&path) {
            Ok(state) => {
                current = (state.revision, Plan::of(&state));
                epoch = state.epoch;
                file = Written { highest: state.revision, left, failure: None };
            }
            Err(LoadError::Missing(_)) => {}
            Err(error) => warn!("{error}; writing it anew"),
        }
        let ids = current.1.cameras.iter().filter_map(|camera| camera.id.parse().ok()).collect();
        let cameras = Arc::new(KnownCameras::of(ids));
        let (current, file) = (Mutex::new(Arc::new(current)), Mutex::new(file));
        let (epoch, changed) = (AtomicU64::new(epoch.0), AtomicU64::new(clock::monotonic().0));
        Published { path, export_enabled, named_files, current, epoch, changed, file, cameras }
    }

    /// Publishes what follows from the registry, when that is something new.
    ///
    /// # Errors
    /// Those of the registry and of the file; what was published before stays in force.
    pub fn follow(&self, control: &Control, registry: &Registry) -> Result<(), FollowError> {
        let mut file = self.file();
        let epoch = control.epoch()?;
        let (devices, assignments) = (control.devices()?, control.assignments()?);
        let (export, named) = (self.export_enabled, &self.named_files);
        let plan = Plan::new(&devices, &assignments, registry, export, named);
        let before = self.get();
        let mut revision = before.0;
        if revision == 0 || epoch != self.epoch() || !plan.says_the_same(&before.1) {
            // Above the file's too: the store may be younger than the file.
            revision = control.next_revision()?.max(file.highest.saturating_add(1));
            self.store(&mut file, Version { epoch, revision }, &plan)?;
        }
        tell(&plan, Some(&before.1));
        self.cameras.set(ids(&devices));
        self.set(Version { epoch, revision }, plan);
        Ok(())
    }

    /// Writes the file again when somebody deleted it or wrote another one. Costs one look at the
    /// file when all is well.
    ///
    /// # Errors
    /// When it can't be written; [`Published::fault`] tells it too.
    pub fn keep(&self) -> Result<(), PublishError> {
        self.keep_as(&mut self.file())
    }

    fn keep_as(&self, file: &mut Written) -> Result<(), PublishError> {
        let current = self.get();
        let now = Stamp::of(&self.path);
        if current.0 == 0 || (now.is_some() && now == file.left) {
            return Ok(());
        }
        let mut revision = file.highest;
        let found = match DesiredState::load(&self.path) {
            Ok(state) if state.version() == self.version() && current.1.matches(&state) => {
                *file = Written { left: now, failure: None, ..std::mem::take(file) };
                return Ok(());
            }
            Ok(state) => {
                revision = revision.max(state.revision);
                self.foreign(&state, current.0)
            }
            Err(error) => error.to_string(),
        };
        // Above what was there: a follower may have taken it.
        let version = Version { epoch: self.epoch(), revision: revision.saturating_add(1) };
        self.store(file, version, &current.1)?;
        self.set(version, current.1.clone());
        warn!("{found}; it is written again");
        Ok(())
    }

    fn foreign(&self, found: &DesiredState, revision: u64) -> String {
        let path = self.path.display();
        format!(
            "{path} holds revision {} of another program, published was {revision}",
            found.revision
        )
    }

    /// What is wrong with the file, `None` when nothing is. Looks only, after a change under way.
    pub fn fault(&self) -> Option<String> {
        let file = self.file();
        if file.failure.is_some() {
            return file.failure.clone();
        }
        let current = self.get();
        let now = Stamp::of(&self.path);
        if current.0 == 0 || (now.is_some() && now == file.left) {
            return None;
        }
        match DesiredState::load(&self.path) {
            Ok(state) if state.version() == self.version() && current.1.matches(&state) => None,
            Ok(state) => Some(self.foreign(&state, current.0)),
            Err(error) => Some(error.to_string()),
        }
    }

    fn file(&self) -> MutexGuard<'_, Written> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Revision and plan.
    pub fn get(&self) -> Arc<(u64, Plan)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// Which desired state is in force.
    pub fn version(&self) -> Version {
        Version { epoch: self.epoch(), revision: self.get().0 }
    }

    /// Since when it is. Before that a follower may still have had another one.
    pub fn since(&self) -> Instant {
        Instant(self.changed.load(Ordering::Acquire))
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
        let mut file = self.file();
        self.keep_as(&mut file)?;
        let before = self.get();
        let mut tried = None;
        let result = control.write(|write| -> Result<_, E> {
            let value = work(write)?;
            let epoch = write.epoch()?;
            let devices = write.devices()?;
            let assignments = write.assignments()?;
            let (export, named) = (self.export_enabled, &self.named_files);
            let plan = Plan::new(&devices, &assignments, registry, export, named);
            let mut revision = before.0;
            if epoch != self.epoch() || !plan.says_the_same(&before.1) {
                revision = write.next_revision()?.max(file.highest.saturating_add(1));
                tried = Some(revision);
                self.store(&mut file, Version { epoch, revision }, &plan)?;
            }
            Ok((value, devices, Version { epoch, revision }, plan))
        });
        file.highest = tried.unwrap_or(0).max(file.highest);
        match result {
            Ok((value, devices, version, plan)) => {
                tell(&plan, Some(&before.1));
                self.cameras.set(ids(&devices));
                self.set(version, plan);
                Ok(value)
            }
            Err(error) => {
                if let Some(revision) = tried {
                    self.restore(revision, &before, &mut file);
                }
                Err(error)
            }
        }
    }

    /// Puts the state of before back when the file already holds the one that failed.
    fn restore(&self, failed: u64, before: &(u64, Plan), file: &mut Written) {
        if DesiredState::load(&self.path).is_ok_and(|state| state.revision != failed) {
            return;
        }
        let version = Version { epoch: self.epoch(), revision: failed.saturating_add(1) };
        match self.store(file, version, &before.1) {
            Ok(()) => self.set(version, before.1.clone()),
            Err(error) => error!(
                "a change failed after {} was written, and the state of before can't be put back yet: {error}",
                self.path.display()
            ),
        }
    }

    fn set(&self, version: Version, plan: Plan) {
        if version != self.version() {
            self.changed.store(clock::monotonic().0, Ordering::Release);
        }
        self.epoch.store(version.epoch.0, Ordering::Release);
        let current = Arc::new((version.revision, plan));
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = current;
    }

    fn store(&self, file: &mut Written, version: Version, plan: &Plan) -> Result<(), PublishError> {
        let Version { epoch, revision } = version;
        let state = DesiredState {
            format: ipc::desired::FORMAT,
            epoch,
            revision,
            written_utc: moment::text(clock::utc()),
            cameras: plan.cameras.clone(),
            subscriptions: plan.subscriptions.clone(),
        };
        match self.write(&state) {
            Ok(()) => {
                let highest = file.highest.max(revision);
                *file = Written { highest, left: Stamp::of(&self.path), failure: None };
                Ok(())
            }
            Err(source) => {
                let error = PublishError { path: self.path.clone(), source };
                file.failure = Some(error.to_string());
                Err(error)
            }
        }
    }

    fn write(&self, state: &DesiredState) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            // Somebody may have moved it away.
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        match state.store(&self.path) {
            // An empty one holds nothing that anybody could miss.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                fs::remove_dir(&self.path)?;
                state.store(&self.path)
            }
            stored => stored,
        }
    }
}

fn ids(devices: &[Device]) -> BTreeSet<CameraId> {
    devices.iter().map(|device| device.id.clone()).collect()
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

#[cfg(test)]
mod tests;
