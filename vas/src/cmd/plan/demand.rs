//! What the configuration asks of the devices.

use crate::cmd::Failure;
use crate::cmd::runner::engine;
use crate::config::Config;
use base::model::ModelSpec;
use base::{DeviceId, ModelId};
use ingest::clip::ClipFrames;
use ipc::desired::DesiredState;
use plan::placement::PlacementModel;
use scheduler::Steering;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Frames per second of a camera that says nothing (chosen: PAL, what most cameras are set to).
const CAMERA_FPS_ASSUMED: f64 = 25.0;
/// A runner without `gpu_memory_mb` is taken to need so many times its model's files, and so much
/// more for itself, frames and activations (chosen: NanoDet-g, files of 7.3 MiB, was measured at
/// 231 MiB with batches of up to 8 on a CPU; 286 MiB are estimated).
const MEMORY_PER_FILE_BYTE: u64 = 4;
const MEMORY_OF_A_RUNNER_MIB: u64 = 256;

/// Models with their load, and what should be said about how it was found.
pub struct Demand {
    pub models: Vec<PlacementModel>,
    /// Folder and memory of each model, in the same order.
    pub origins: Vec<Origin>,
    pub notes: Vec<String>,
}

/// Where a model comes from.
pub struct Origin {
    pub dir: PathBuf,
    /// Its memory was estimated from the size of its files.
    pub memory_estimated: bool,
}

/// One subscription as far as it loads a device.
struct Wish {
    camera: String,
    model: String,
    /// The ceiling; `None` = every frame.
    fps: Option<f64>,
    deadline: Option<Duration>,
    region: bool,
}

/// Reads model folders, latency tables and clips.
///
/// # Errors
/// When a model's folder is not usable or there is no cache folder.
pub fn collect(config: &Config, desired: Option<&DesiredState>) -> Result<Demand, Failure> {
    let mut notes = Vec::new();
    let wishes = wishes(config, desired, &mut notes);
    let fps = camera_fps(config, &mut notes);
    let fps_of = |camera: &str| fps.get(camera).copied().unwrap_or(CAMERA_FPS_ASSUMED);
    let options = engine(config)?;
    let devices: Vec<DeviceId> = config.devices.iter().map(|d| d.id.clone()).collect();
    let mut demand = Demand { models: Vec::new(), origins: Vec::new(), notes: Vec::new() };
    let mut folders: BTreeMap<ModelId, &Path> = BTreeMap::new();
    for row in &config.models {
        if demand.origins.iter().any(|origin| origin.dir == row.dir) {
            continue;
        }
        let spec = runner::model_yaml::load(&row.dir)?;
        if let Some(first) = folders.insert(spec.model_id.clone(), &row.dir) {
            return Err(format!(
                "model `{}` is in {} and in {}: give one of them another model_id",
                spec.model_id,
                first.display(),
                row.dir.display()
            )
            .into());
        }
        let rows = config.models.iter().filter(|other| other.dir == row.dir);
        let fixed: Vec<DeviceId> = rows.filter_map(|row| row.device.clone()).collect();
        let latency =
            runner::stored_latencies(&options.cache_dir, &spec, &devices, options.threads)
                .map_err(|e| format!("weights {}: {e}", spec.weights.display()))?;
        let mine: Vec<&Wish> =
            wishes.iter().filter(|wish| wish.model == spec.model_id.as_str()).collect();
        if mine.iter().any(|wish| wish.region) {
            notes.push(format!(
                "model {} looks at regions that another model finds: one region per frame is counted",
                spec.model_id
            ));
        }
        let rates: Vec<(f64, f64)> = mine
            .iter()
            .map(|wish| {
                let camera = fps_of(&wish.camera);
                (wish.fps.map_or(camera, |fps| fps.min(camera)), camera)
            })
            .collect();
        let slowest = rates.iter().map(|(_, camera)| *camera).fold(f64::INFINITY, f64::min);
        let slowest = if slowest.is_finite() { slowest } else { CAMERA_FPS_ASSUMED };
        let kappa =
            sum(rates.iter().map(|(rate, camera)| rate / camera)) / rates.len().max(1) as f64;
        let steered = config.steering == Steering::On && !rates.is_empty();
        let (memory_mib, memory_estimated) = memory(&spec, &row.dir);
        demand.models.push(PlacementModel {
            rate: sum(rates.iter().map(|(rate, _)| *rate)),
            streams: u32::try_from(mine.len()).unwrap_or(u32::MAX),
            frame_period: Duration::from_secs_f64(1.0 / slowest),
            wait_share: if steered { kappa } else { 1.0 },
            deadline: mine
                .iter()
                .map(|wish| wish.deadline.unwrap_or(spec.deadline))
                .min()
                .unwrap_or(spec.deadline),
            batch_max: spec.batch_max,
            memory_mib,
            latency,
            fixed,
            id: spec.model_id,
        });
        demand.origins.push(Origin { dir: row.dir.clone(), memory_estimated });
    }
    let mut unknown: BTreeMap<&str, u32> = BTreeMap::new();
    for wish in &wishes {
        if !demand.models.iter().any(|model| model.id.as_str() == wish.model) {
            *unknown.entry(&wish.model).or_default() += 1;
        }
    }
    for (model, count) in unknown {
        notes.push(format!(
            "{count} assignments name model {model}, which no [[model]] provides: not counted"
        ));
    }
    demand.notes = notes;
    Ok(demand)
}

/// The sum, 0 of nothing: that of the standard library is -0 then, and is printed so.
fn sum(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |sum, number| sum + number)
}

/// Assignments of the file, then those of the desired state that the file does not have.
fn wishes(config: &Config, desired: Option<&DesiredState>, notes: &mut Vec<String>) -> Vec<Wish> {
    let on = |enabled: Option<bool>| enabled.unwrap_or(true);
    let mut off: BTreeSet<&str> = config
        .cameras
        .iter()
        .filter(|camera| !on(camera.enabled) || !on(camera.export))
        .map(|camera| camera.id.as_str())
        .collect();
    let mut wishes: Vec<Wish> = config
        .assignments
        .iter()
        .filter(|a| on(a.enabled) && !off.contains(a.camera.as_str()))
        .map(|a| Wish {
            camera: a.camera.to_string(),
            model: a.model.to_string(),
            fps: a.desired_fps,
            deadline: a.deadline_ms.map(Duration::from_millis),
            region: a.parent_model.is_some(),
        })
        .collect();
    let Some(desired) = desired else {
        let file = config.directories.desired();
        let more = DesiredState::load(&file).map_or(0, |state| {
            let named = |s: &&ipc::desired::DesiredSubscription| {
                let same = |a: &crate::config::Assignment| {
                    a.camera.as_str() == s.camera && a.model.as_str() == s.model
                };
                s.enabled && !config.assignments.iter().any(same)
            };
            state.subscriptions.iter().filter(named).count()
        });
        if more > 0 {
            notes.push(format!(
                "{more} enabled assignments of {} are not in the configuration and not counted; count \
                 them with --desired {0}",
                file.display()
            ));
        }
        return wishes;
    };
    off.extend(desired.cameras.iter().filter(|c| !c.enabled).map(|c| c.id.as_str()));
    for s in &desired.subscriptions {
        let named = config
            .assignments
            .iter()
            .any(|a| a.camera.as_str() == s.camera && a.model.as_str() == s.model);
        if s.enabled && !named && !off.contains(s.camera.as_str()) {
            wishes.push(Wish {
                camera: s.camera.clone(),
                model: s.model.clone(),
                fps: s.max_fps,
                deadline: s.deadline_ms.map(Duration::from_millis),
                region: s.parent_model.is_some(),
            });
        }
    }
    wishes
}

/// Frames per second of the cameras that are files.
fn camera_fps(config: &Config, notes: &mut Vec<String>) -> BTreeMap<String, f64> {
    let mut known = BTreeMap::new();
    let mut clips: BTreeMap<PathBuf, Option<f64>> = BTreeMap::new();
    for camera in &config.cameras {
        let Some(path) = camera.file() else { continue };
        let fps = *clips.entry(path).or_insert_with_key(|path| {
            ClipFrames::open(path).ok().map(|clip| clip.fps()).filter(|fps| *fps > 0.0)
        });
        if let Some(fps) = fps {
            known.insert(camera.id.to_string(), fps);
        }
    }
    let unknown = config.cameras.iter().filter(|c| !known.contains_key(c.id.as_str())).count();
    if unknown > 0 {
        notes.push(format!(
            "{unknown} cameras are taken to have {CAMERA_FPS_ASSUMED} frames per second"
        ));
    }
    known
}

/// What a runner needs, MiB, and whether that is an estimate.
fn memory(spec: &ModelSpec, dir: &Path) -> (u64, bool) {
    if let Some(mib) = spec.resources.gpu_memory_mb {
        return (mib.into(), false);
    }
    let files = fs::read_dir(dir).map_or(0, |entries| {
        let sizes = entries.flatten().filter_map(|e| e.metadata().ok()).filter(|m| m.is_file());
        sizes.map(|m| m.len()).sum::<u64>()
    });
    (MEMORY_OF_A_RUNNER_MIB + files.saturating_mul(MEMORY_PER_FILE_BYTE).div_ceil(1 << 20), true)
}
