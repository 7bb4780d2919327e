//! `vas plan`: which model runs on which device, before anything starts.
//!
//! Collects what [`plan::placement`] needs: rates from the assignments, latency tables
//! from the cache, memory from `model.yaml`. Starts nothing and changes no file but the one of
//! `--json`.

mod demand;
mod report;

use super::Outcome;
use crate::config::Config;
use crate::output;
use ipc::desired::DesiredState;
use plan::placement::{DELIVERY_ASSUMED, PlacementDevice, place};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `vas plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Count the assignments of a desired state too, as serve keeps it in `desired.json`
    #[arg(long, value_name = "FILE")]
    desired: Option<PathBuf>,
    /// Write the plan as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs it. Fails when a model is predicted to get less than it asks for.
///
/// # Errors
/// When a model folder or file can't be read or written.
pub fn run(args: &Args, config: &Config) -> Outcome {
    let desired = match &args.desired {
        Some(file) => Some(DesiredState::load(file)?),
        None => None,
    };
    let demand = demand::collect(config, desired.as_ref())?;
    let devices: Vec<PlacementDevice> = config
        .devices
        .iter()
        .map(|device| PlacementDevice {
            id: device.id.clone(),
            memory_mib: device.memory_mib,
            capacity: device.capacity,
            usable_share: device.usable_share.unwrap_or(config.usable_share),
        })
        .collect();
    let placement = place(&demand.models, &devices, DELIVERY_ASSUMED);
    output::print(report::text(&demand, &devices, &placement))?;
    if let Some(file) = &args.json {
        let json = report::json(&demand, &devices, &placement);
        let text = serde_json::to_string_pretty(&json)? + "\n";
        fs::write(file, text).map_err(|e| format!("can't write {}: {e}", file.display()))?;
    }
    Ok(if placement.served_in_full() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
