//! What can be done with the registry inside one transaction.

use super::row::{Row, json_from_bytes, json_to_bytes};
use super::{Assignment, AssignmentId, Created, Device, Model};
use crate::error::{Fault, StoreError};
use crate::tables::{ASSIGNMENTS, DEVICES, LABELS, META, MODELS, PAIRS};
use base::{CameraId, Epoch, ModelId, UtcNanos};
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use std::cmp::Reverse;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;

type Rows = TableDefinition<'static, &'static str, &'static [u8]>;
const META_REVISION: &str = "revision";
const META_EPOCH: &str = "epoch";

/// A view of the registry at one moment.
pub struct ControlRead<'t> {
    pub(super) read: &'t ReadTransaction,
    pub(super) path: &'t Path,
}

/// A transaction that may change the registry. What it writes it reads back at once; others see it
/// when it is committed.
pub struct ControlWrite<'t> {
    pub(super) write: &'t WriteTransaction,
    path: &'t Path,
    now: UtcNanos,
    changed: bool,
    failed: bool,
}

impl std::fmt::Debug for ControlRead<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlRead").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<'t> ControlRead<'t> {
    pub(super) fn new(read: &'t ReadTransaction, path: &'t Path) -> Self {
        ControlRead { read, path }
    }

    pub(super) fn told<T>(&self, result: Result<T, Fault>) -> Result<T, StoreError> {
        result.map_err(|fault| told(self.path, "reading the registry", fault))
    }

    fn rows<T: Row>(&self, table: Rows) -> Result<Vec<T>, StoreError> {
        let rows = || rows(&self.read.open_table(table)?, self.path);
        self.told(rows())
    }

    fn row<T: Row>(&self, table: Rows, key: &str) -> Result<Option<T>, StoreError> {
        let row = || row(&self.read.open_table(table)?, key, self.path);
        self.told(row())
    }

    /// Which registry this is; `None` before anybody asked with [`ControlWrite::epoch`].
    ///
    /// # Errors
    /// Those of the file.
    pub fn epoch(&self) -> Result<Option<Epoch>, StoreError> {
        let kept = || Ok(self.read.open_table(META)?.get(META_EPOCH)?.map(|v| Epoch(v.value())));
        self.told(kept())
    }

    /// All devices, by id.
    ///
    /// # Errors
    /// Those of the file.
    pub fn devices(&self) -> Result<Vec<Device>, StoreError> {
        self.rows(DEVICES)
    }

    /// One device.
    ///
    /// # Errors
    /// Those of the file.
    pub fn device(&self, id: &CameraId) -> Result<Option<Device>, StoreError> {
        self.row(DEVICES, id.as_str())
    }

    /// All models, the newest row first.
    ///
    /// # Errors
    /// Those of the file.
    pub fn models(&self) -> Result<Vec<Model>, StoreError> {
        self.rows(MODELS).map(newest_first)
    }

    /// One model.
    ///
    /// # Errors
    /// Those of the file.
    pub fn model(&self, id: &ModelId) -> Result<Option<Model>, StoreError> {
        self.row(MODELS, id.as_str())
    }

    /// All assignments, the newest row first.
    ///
    /// # Errors
    /// Those of the file.
    pub fn assignments(&self) -> Result<Vec<Assignment>, StoreError> {
        self.rows(ASSIGNMENTS).map(newest_first)
    }

    /// One assignment.
    ///
    /// # Errors
    /// Those of the file.
    pub fn assignment(&self, id: &AssignmentId) -> Result<Option<Assignment>, StoreError> {
        self.row(ASSIGNMENTS, id.as_str())
    }

    /// Class names of a model's version, `None` when they were never told.
    ///
    /// # Errors
    /// Those of the file.
    pub fn labels(
        &self,
        model: &ModelId,
        version: &str,
    ) -> Result<Option<Vec<String>>, StoreError> {
        let labels = || {
            let table = self.read.open_table(LABELS)?;
            let Some(bytes) = table.get((model.as_str(), version))? else { return Ok(None) };
            let what = || format!("labels of model {model} version {version}");
            let decoded = json_from_bytes(bytes.value());
            Ok(Some(decoded.map_err(|e| unreadable(self.path, what(), e))?))
        };
        self.told(labels())
    }
}

impl std::fmt::Debug for ControlWrite<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlWrite").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<'t> ControlWrite<'t> {
    pub(super) fn new(write: &'t WriteTransaction, path: &'t Path, now: UtcNanos) -> Self {
        ControlWrite { write, path, now, changed: false, failed: false }
    }

    pub(super) fn changed(&self) -> bool {
        self.changed
    }

    /// Whether the file, not the caller, made a call fail.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    pub(super) fn told<T>(&mut self, result: Result<T, Fault>) -> Result<T, StoreError> {
        result.map_err(|fault| {
            self.failed |= matches!(fault, Fault::Redb(_));
            told(self.path, "writing the registry", fault)
        })
    }

    fn rows<T: Row>(&mut self, table: Rows) -> Result<Vec<T>, StoreError> {
        let rows = || rows(&self.write.open_table(table)?, self.path);
        let rows = rows();
        self.told(rows)
    }

    pub(super) fn row<T: Row>(&mut self, table: Rows, key: &str) -> Result<Option<T>, StoreError> {
        let row = || row(&self.write.open_table(table)?, key, self.path);
        let row = row();
        self.told(row)
    }

    /// Stores a row under its key. Times are the store's: `created_at` of an existing row stays,
    /// `updated_at` moves when anything changed.
    pub(super) fn put<T: Row>(&mut self, table: Rows, mut row: T) -> Result<T, StoreError> {
        match self.row::<T>(table, row.key())? {
            Some(old) => {
                row.set_times(old.created_at(), old.updated_at());
                if row == old {
                    return Ok(old);
                }
                row.set_times(old.created_at(), Some(self.now));
            }
            None => row.set_times(self.now, None),
        }
        let put = || -> Result<(), Fault> {
            let mut table = self.write.open_table(table)?;
            table.insert(row.key(), row.to_bytes().as_slice())?;
            Ok(())
        };
        let put = put();
        self.told(put)?;
        self.changed = true;
        Ok(row)
    }

    pub(super) fn remove(&mut self, table: Rows, key: &str) -> Result<bool, StoreError> {
        let remove = || -> Result<bool, Fault> {
            let mut table = self.write.open_table(table)?;
            Ok(table.remove(key)?.is_some())
        };
        let removed = remove();
        let removed = self.told(removed)?;
        self.changed |= removed;
        Ok(removed)
    }

    /// All devices, by id.
    ///
    /// # Errors
    /// Those of the file.
    pub fn devices(&mut self) -> Result<Vec<Device>, StoreError> {
        self.rows(DEVICES)
    }

    /// One device.
    ///
    /// # Errors
    /// Those of the file.
    pub fn device(&mut self, id: &CameraId) -> Result<Option<Device>, StoreError> {
        self.row(DEVICES, id.as_str())
    }

    /// Stores a device, new or changed.
    ///
    /// # Errors
    /// Those of the file.
    pub fn put_device(&mut self, device: Device) -> Result<Device, StoreError> {
        self.put(DEVICES, device)
    }

    /// Deletes a device and its assignments. False when there is none.
    ///
    /// # Errors
    /// Those of the file.
    pub fn delete_device(&mut self, id: &CameraId) -> Result<bool, StoreError> {
        for assignment in self.assignments()? {
            if assignment.camera == *id {
                self.delete_assignment(&assignment.id)?;
            }
        }
        self.remove(DEVICES, id.as_str())
    }

    /// All models, the newest row first.
    ///
    /// # Errors
    /// Those of the file.
    pub fn models(&mut self) -> Result<Vec<Model>, StoreError> {
        self.rows(MODELS).map(newest_first)
    }

    /// One model.
    ///
    /// # Errors
    /// Those of the file.
    pub fn model(&mut self, id: &ModelId) -> Result<Option<Model>, StoreError> {
        self.row(MODELS, id.as_str())
    }

    /// Stores a model, new or changed.
    ///
    /// # Errors
    /// Those of the file.
    pub fn put_model(&mut self, model: Model) -> Result<Model, StoreError> {
        self.put(MODELS, model)
    }

    /// Deletes a model; its assignments stay, orphaned (spec P5.4.3). False when there is none.
    ///
    /// # Errors
    /// Those of the file.
    pub fn delete_model(&mut self, id: &ModelId) -> Result<bool, StoreError> {
        self.remove(MODELS, id.as_str())
    }

    /// All assignments, the newest row first.
    ///
    /// # Errors
    /// Those of the file.
    pub fn assignments(&mut self) -> Result<Vec<Assignment>, StoreError> {
        self.rows(ASSIGNMENTS).map(newest_first)
    }

    /// One assignment.
    ///
    /// # Errors
    /// Those of the file.
    pub fn assignment(&mut self, id: &AssignmentId) -> Result<Option<Assignment>, StoreError> {
        self.row(ASSIGNMENTS, id.as_str())
    }

    /// The assignment of a model to a camera.
    ///
    /// # Errors
    /// Those of the file.
    pub fn assignment_of(
        &mut self,
        camera: &CameraId,
        model: &ModelId,
    ) -> Result<Option<Assignment>, StoreError> {
        let id = || -> Result<Option<String>, Fault> {
            let pairs = self.write.open_table(PAIRS)?;
            let id = pairs.get((camera.as_str(), model.as_str()))?;
            Ok(id.map(|id| id.value().to_owned()))
        };
        let id = id();
        match self.told(id)? {
            Some(id) => self.row(ASSIGNMENTS, &id),
            None => Ok(None),
        }
    }

    /// Stores a new assignment, unless the camera has the model already: then that row comes back
    /// as it is. An id that another pair has is replaced by a random one.
    ///
    /// # Errors
    /// Those of the file.
    pub fn create_assignment(&mut self, mut new: Assignment) -> Result<Created, StoreError> {
        if let Some(existing) = self.assignment_of(&new.camera, &new.model)? {
            return Ok(Created::Existing(existing));
        }
        if self.assignment(&new.id)?.is_some() {
            new.id = AssignmentId::random();
        }
        let pair = || -> Result<(), Fault> {
            let mut pairs = self.write.open_table(PAIRS)?;
            pairs.insert((new.camera.as_str(), new.model.as_str()), new.id.as_str())?;
            Ok(())
        };
        let pair = pair();
        self.told(pair)?;
        Ok(Created::New(self.put(ASSIGNMENTS, new)?))
    }

    /// Changes an assignment: `change` gets the row; its id, camera and model stay what they were.
    /// `None` when there is none.
    ///
    /// # Errors
    /// Those of the file.
    pub fn update_assignment(
        &mut self,
        id: &AssignmentId,
        change: impl FnOnce(&mut Assignment),
    ) -> Result<Option<Assignment>, StoreError> {
        let Some(old) = self.assignment(id)? else { return Ok(None) };
        let mut new = old.clone();
        change(&mut new);
        let row = Assignment { id: old.id, camera: old.camera, model: old.model, ..new };
        self.put(ASSIGNMENTS, row).map(Some)
    }

    /// Deletes an assignment. False when there is none.
    ///
    /// # Errors
    /// Those of the file.
    pub fn delete_assignment(&mut self, id: &AssignmentId) -> Result<bool, StoreError> {
        let Some(row) = self.assignment(id)? else { return Ok(false) };
        let pair = || -> Result<(), Fault> {
            let mut pairs = self.write.open_table(PAIRS)?;
            pairs.remove((row.camera.as_str(), row.model.as_str()))?;
            Ok(())
        };
        let pair = pair();
        self.told(pair)?;
        self.remove(ASSIGNMENTS, id.as_str())
    }

    /// Keeps the class names of a model's version.
    ///
    /// # Errors
    /// Those of the file.
    pub fn set_labels(
        &mut self,
        model: &ModelId,
        version: &str,
        labels: &[String],
    ) -> Result<(), StoreError> {
        let set = || -> Result<(), Fault> {
            let mut table = self.write.open_table(LABELS)?;
            table.insert((model.as_str(), version), json_to_bytes(&labels).as_slice())?;
            Ok(())
        };
        let set = set();
        self.changed = true;
        self.told(set)
    }

    /// Which registry this is: a random number that is drawn once and kept with it.
    ///
    /// # Errors
    /// Those of the file.
    pub fn epoch(&mut self) -> Result<Epoch, StoreError> {
        let epoch = || -> Result<(Epoch, bool), Fault> {
            let mut meta = self.write.open_table(META)?;
            if let Some(kept) = meta.get(META_EPOCH)?.map(|v| Epoch(v.value())) {
                return Ok((kept, false));
            }
            // Never 0, which is none.
            let drawn = Epoch(RandomState::new().build_hasher().finish().max(1));
            meta.insert(META_EPOCH, drawn.0)?;
            Ok((drawn, true))
        };
        let epoch = epoch();
        let (epoch, drawn) = self.told(epoch)?;
        self.changed |= drawn;
        Ok(epoch)
    }

    /// The next revision of the desired state, taken when the transaction commits.
    ///
    /// # Errors
    /// Those of the file.
    pub fn next_revision(&mut self) -> Result<u64, StoreError> {
        let next = || -> Result<u64, Fault> {
            let mut meta = self.write.open_table(META)?;
            let last = meta.get(META_REVISION)?.map_or(0, |v| v.value());
            meta.insert(META_REVISION, last + 1)?;
            Ok(last + 1)
        };
        let next = next();
        self.changed = true;
        self.told(next)
    }
}

fn told(path: &Path, action: &'static str, fault: Fault) -> StoreError {
    match fault {
        Fault::Redb(error) => StoreError::redb(path, action, error),
        Fault::Store(error) => error,
    }
}

pub(super) fn unreadable(
    path: &Path,
    what: String,
    source: crate::record::RecordError,
) -> StoreError {
    StoreError::Record { path: path.to_owned(), what, source }
}

fn rows<T: Row>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    path: &Path,
) -> Result<Vec<T>, Fault> {
    let mut rows = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        let row = T::from_bytes(key.value(), value.value())
            .map_err(|e| unreadable(path, format!("{} {}", T::WHAT, key.value()), e))?;
        rows.push(row);
    }
    Ok(rows)
}

pub(super) fn row<T: Row>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
    path: &Path,
) -> Result<Option<T>, Fault> {
    let Some(value) = table.get(key)? else { return Ok(None) };
    let row = T::from_bytes(key, value.value())
        .map_err(|e| unreadable(path, format!("{} {key}", T::WHAT), e))?;
    Ok(Some(row))
}

fn newest_first<T: Row>(mut rows: Vec<T>) -> Vec<T> {
    rows.sort_by(|a, b| {
        (Reverse(a.created_at()), a.key()).cmp(&(Reverse(b.created_at()), b.key()))
    });
    rows
}
