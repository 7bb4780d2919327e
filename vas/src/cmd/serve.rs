//! `vas serve`.

use super::Outcome;
use crate::config::{Assignment, Camera, Config};
use crate::signals;
use api::config_rows::{AssignmentRow, CameraRow};
use api::disk::Disk;
use api::{MediaOptions, ModelEntry, Unavailable, UnavailableKind};
use runner::ModelError;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

/// Runs serve until a signal.
///
/// # Errors
/// Why it did not start, or ended.
pub fn run(config: &Config) -> Outcome {
    let stop = signals::stop()?;
    api::serve(options(config)?, stop)?;
    Ok(ExitCode::SUCCESS)
}

fn options(config: &Config) -> std::io::Result<api::Options> {
    let vas = std::env::current_exe()?;
    // A job ends with the serve that asked for it.
    let under = std::process::id().to_string();
    Ok(api::Options {
        directories: config.directories.clone(),
        bind: config.bind,
        models: folders(config).map(model).collect(),
        cameras: config.cameras.iter().map(camera).collect(),
        assignments: config.assignments.iter().map(assignment).collect(),
        export_enabled: config.frame_export,
        store_empty: config.store_empty,
        retention: DAY * u32::try_from(config.retention_days).unwrap_or(u32::MAX),
        file_roots: config.file_roots.clone(),
        keep_free: config.keep_free,
        media: MediaOptions {
            retention: DAY * u32::try_from(config.media.retention_days).unwrap_or(u32::MAX),
            max_percent: config.media.max_percent,
        },
        recordings: config.recording.dir.clone(),
        disk_high_percent: config.recording.disk_high_percent,
        disk: Disk::default(),
        media_command: vec![vas.into(), "--under".into(), under.into(), "media".into()],
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Every model folder once, however many devices it runs on.
fn folders(config: &Config) -> impl Iterator<Item = &Path> {
    let dirs = || config.models.iter().map(|model| model.dir.as_path());
    dirs().enumerate().filter(move |(at, dir)| !dirs().take(*at).any(|d| d == *dir)).map(|(_, d)| d)
}

fn model(dir: &Path) -> ModelEntry {
    match runner::model_yaml::load(dir) {
        Ok(spec) => {
            let name = spec.model_id.to_string();
            let spec = if spec.resources.gpu_required && !spec.has_gpu_engine() {
                let reason =
                    format!("model {name} requires a GPU, and this build runs models on CPUs only");
                Err(Unavailable { kind: UnavailableKind::Unsupported, reason })
            } else {
                Ok(spec)
            };
            ModelEntry { name, enabled: None, spec }
        }
        Err(error) => {
            let name = dir.file_name().unwrap_or(dir.as_os_str());
            let kind = match error {
                ModelError::MissingModelYaml { .. } => UnavailableKind::Missing,
                _ => UnavailableKind::Invalid,
            };
            ModelEntry {
                name: name.to_string_lossy().into_owned(),
                enabled: None,
                spec: Err(Unavailable { kind, reason: error.to_string() }),
            }
        }
    }
}

fn camera(camera: &Camera) -> CameraRow {
    CameraRow {
        name: camera.name.clone(),
        description: camera.description.clone(),
        location: camera.location.clone(),
        enabled: camera.enabled,
        export: camera.export,
        sub_url: camera.sub_url.clone(),
        sub_roles: camera.sub_roles.clone(),
        transport: camera.transport.clone(),
        record: camera.record,
        live: camera.live,
        loop_offset_ms: camera.loop_offset_ms,
        ..CameraRow::new(camera.id.clone(), camera.main_url.clone())
    }
}

fn assignment(assignment: &Assignment) -> AssignmentRow {
    AssignmentRow {
        parent_model: assignment.parent_model.clone(),
        desired_fps: assignment.desired_fps,
        priority: assignment.priority,
        max_regions: assignment.max_regions,
        deadline_ms: assignment.deadline_ms,
        parameters: assignment.parameters.clone(),
        enabled: assignment.enabled,
        ..AssignmentRow::new(assignment.camera.clone(), assignment.model.clone())
    }
}
