//! What `vas model profile` does: L(b) of a model, without a scheduler or a ring, stored where the
//! model's runner looks for it.
//!
//! A runner measures the same under the scheduler's grants while it is new; this is for planning
//! before the first start, on a machine that is otherwise quiet.

use crate::engine::{self, EngineError};
use crate::latency_cache::{FOLDER, LatencyCache};
use crate::options::EngineOptions;
use crate::pipeline;
use crate::sampling::sample;
use crate::tools::warm_up;
use base::model::ModelSpec;
use base::{DeviceId, LatencyTable};
use latency::{LatencyBook, Sampling, batch_sizes};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Samples of one size (chosen: p99 is then the second largest).
const SAMPLES: usize = 100;
/// After that long no further sample of a size is begun (chosen: five sizes within 20 s).
const SIZE_MAX: Duration = Duration::from_secs(4);
/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The engine does not take the model, or fails.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The weights can't be read, or the table can't be stored.
    #[error("latencies can't be kept in {}: {source}; set XDG_CACHE_HOME to a writable directory", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Measures 1, 2, 4 ... `batch_max` frames and stores the table. Sizes that the engine refuses or
/// that take too long are left out, as in the runner. Returns the table and its file.
///
/// # Errors
/// [`ProfileError`].
pub fn model_profile(
    spec: &ModelSpec,
    device: &DeviceId,
    options: &EngineOptions,
) -> Result<(LatencyTable, PathBuf), ProfileError> {
    let folder = options.cache_dir.join(FOLDER);
    let mut engine = engine::load(spec, options)?;
    warm_up(spec, engine.as_mut())?;
    let runtime = engine.info().runtime.clone();
    let cache = LatencyCache::new(&folder, spec, device, options.threads, &runtime)
        .map_err(|source| ProfileError::Cache { path: folder.clone(), source })?;
    let mut book = LatencyBook::new(batch_sizes(spec.batch_max), None);
    for size in batch_sizes(spec.batch_max) {
        let run = |frames| {
            engine.prepare(0, frames)?;
            pipeline::execute(engine.as_mut(), 0, size as usize)
        };
        let sampling = Sampling::new(SAMPLES, SIZE_MAX);
        let samples = if book.fits(size) { sample(size, sampling, run) } else { Ok(Vec::new()) };
        let samples = match samples {
            // Without the smallest there is no model.
            Err(error) if size == 1 => return Err(error.into()),
            samples => samples.unwrap_or_default(),
        };
        book.profiled(size, samples);
    }
    let path = cache.path().to_owned();
    cache
        .store(book.table())
        .map_err(|source| ProfileError::Cache { path: path.clone(), source })?;
    Ok((book.table().clone(), path))
}
