//! A plan as text for people, with the lines for `vas.toml`, and as JSON for machines.

use super::demand::{Demand, Origin};
use crate::config::quoted;
use base::DeviceId;
use plan::placement::{
    DELIVERY_ASSUMED, Placed, PlacedDevice, Placement, PlacementDevice, PlacementModel, Unplaced,
    Why,
};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

/// Tables, what is wrong, notes, and the rows for the configuration.
pub fn text(demand: &Demand, devices: &[PlacementDevice], placement: &Placement) -> String {
    let mut text = String::new();
    for (placed, device) in placement.devices.iter().zip(devices) {
        device_table(&mut text, demand, placed, device);
    }
    for problem in problems(demand, placement) {
        line(&mut text, format_args!("problem: {problem}"));
    }
    for note in notes(demand, devices, placement) {
        line(&mut text, format_args!("note: {note}"));
    }
    line(
        &mut text,
        format_args!("\n# {} of {} devices; rows for vas.toml:", placement.used(), devices.len()),
    );
    for (model, origin) in demand.models.iter().zip(&demand.origins) {
        for placed in placement.devices.iter().filter(|d| holds(d, model)) {
            let (dir, device) = (quoted(origin.dir.display()), quoted(&placed.id));
            line(&mut text, format_args!("[[model]]\ndir = {dir}\ndevice = {device}"));
        }
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{line}");
}

fn holds(device: &PlacedDevice, model: &PlacementModel) -> bool {
    device.members.iter().any(|member| member.model == model.id)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Whole percent, rounded down: less than all never reads as all.
fn percent(share: f64) -> u32 {
    (share * 100.0).floor() as u32
}

fn device_table(
    text: &mut String,
    demand: &Demand,
    placed: &PlacedDevice,
    device: &PlacementDevice,
) {
    let limit = device.memory_mib.map_or(String::new(), |mib| format!(" of {mib}"));
    line(
        text,
        format_args!(
            "{}: load {:.2} of {:.2} usable (capacity {}), memory {}{limit} MiB",
            placed.id, placed.occupancy, placed.usable, device.capacity, placed.memory_mib
        ),
    );
    if placed.members.is_empty() {
        return line(text, format_args!("  no model\n"));
    }
    let width = placed.members.iter().map(|m| m.model.as_str().len()).max().unwrap_or(0).max(5);
    line(
        text,
        format_args!(
            "  {:width$}      fps   load  batch  interval ms  memory MiB  age ms: mean   worst  deadline  share",
            "model"
        ),
    );
    for m in &placed.members {
        let estimated = origin(demand, m).is_some_and(|origin| origin.memory_estimated);
        let memory = format!("{}{}", if estimated { "~" } else { "" }, m.memory_mib);
        let fixed = if m.fixed { "  fixed" } else { "" };
        line(
            text,
            format_args!(
                "  {:width$} {:8.1} {:6.2} {:6.1} {:12.1} {memory:>11} {:13.1} {:7.1} {:9.0} {:4} %{fixed}",
                m.model,
                m.rate,
                m.occupancy,
                m.batch,
                ms(m.interval),
                ms(m.mean_age),
                ms(m.worst_age),
                ms(m.deadline),
                percent(m.share)
            ),
        );
    }
    text.push('\n');
}

fn origin<'d>(demand: &'d Demand, placed: &Placed) -> Option<&'d Origin> {
    let at = demand.models.iter().position(|model| model.id == placed.model)?;
    demand.origins.get(at)
}

/// What is not served in full, a line each, with the remedy.
fn problems(demand: &Demand, placement: &Placement) -> Vec<String> {
    let mut problems = Vec::new();
    for device in &placement.devices {
        if device.memory_exceeded {
            problems.push(format!(
                "the models that the configuration puts on {} need {} MiB; move one, or correct \
                 memory_mib of the device or gpu_memory_mb in model.yaml",
                device.id, device.memory_mib
            ));
        }
        for m in &device.members {
            if m.share < 1.0 {
                problems.push(format!(
                    "model {} gets {:.1} of {:.1} frames/s on {} ({} %); add a device or lower \
                     desired_fps",
                    m.model,
                    m.rate * m.share,
                    m.rate,
                    device.id,
                    percent(m.share)
                ));
            }
            if !m.in_time() {
                problems.push(format!(
                    "results of model {} on {} may be {:.0} ms old, its deadline is {:.0} ms; move it or \
                     what it waits for, or raise deadline_ms",
                    m.model,
                    device.id,
                    ms(m.worst_age),
                    ms(m.deadline)
                ));
            }
        }
    }
    problems.extend(placement.unplaced.iter().map(|unplaced| nowhere(demand, unplaced)));
    problems
}

fn nowhere(demand: &Demand, unplaced: &Unplaced) -> String {
    let Unplaced { model, rate, why } = unplaced;
    match why {
        Why::NotMeasured(device) => {
            let on = device.as_ref().map_or(String::new(), |device| format!(" on {device}"));
            let remedy = measure(demand, model.as_str(), device.as_ref());
            format!("model {model} was not measured{on} and has no place; run `{remedy}`")
        }
        Why::Memory(mib) => format!(
            "model {model}: no device has room for {mib} MiB more, {rate:.1} frames/s have no place; add a \
             device, or correct memory_mib or gpu_memory_mb"
        ),
        Why::Deadline(best) => format!(
            "model {model}: a single frame is {:.0} ms old on an idle device, more than its deadline; raise \
             deadline_ms or use a faster device",
            ms(*best)
        ),
    }
}

fn measure(demand: &Demand, model: &str, device: Option<&DeviceId>) -> String {
    let at = demand.models.iter().position(|m| m.id.as_str() == model);
    let dir = at.map_or(String::new(), |at| demand.origins[at].dir.display().to_string());
    let device = device.filter(|d| d.as_str() != crate::config::CPU);
    format!("vas model profile {dir}{}", device.map_or(String::new(), |d| format!(" --device {d}")))
}

/// How the figures came about, and what could be done to have more of them.
fn notes(demand: &Demand, devices: &[PlacementDevice], placement: &Placement) -> Vec<String> {
    let mut notes = demand.notes.clone();
    for model in demand.models.iter().filter(|model| !model.latency.is_empty()) {
        let missing = |d: &&PlacementDevice| !model.latency.iter().any(|(id, _)| *id == d.id);
        for device in devices.iter().filter(missing).filter(|_| model.fixed.is_empty()) {
            notes.push(format!(
                "model {} was not measured on {} and is not placed there; measure it with `{}`",
                model.id,
                device.id,
                measure(demand, model.id.as_str(), Some(&device.id))
            ));
        }
    }
    let full = |d: &PlacedDevice| d.members.iter().any(|m| m.share < 1.0 && m.occupancy > d.usable);
    if let Some(device) = placement.devices.iter().zip(devices).find(|(_, d)| d.capacity > 1)
        && placement.devices.iter().any(full)
    {
        notes.push(format!(
            "one runner executes one batch at a time: a model that needs more of {} than one of its {} \
             runs a second time on another [[device]] of the same processor, such as cpu1",
            device.0.id, device.1.capacity
        ));
    }
    notes.push(format!(
        "ages count from the camera: {} ms to the ring are assumed, the rest is predicted from medians, \
         the worst from the 99th percentile",
        DELIVERY_ASSUMED.as_millis()
    ));
    if demand.origins.iter().any(|origin| origin.memory_estimated) {
        notes.push(
            "memory with ~ is estimated from the size of the model's files; say it as \
             resource_requirements.gpu_memory_mb in model.yaml"
                .to_owned(),
        );
    }
    notes
}

/// The same for machines. Durations in milliseconds.
pub fn json(demand: &Demand, devices: &[PlacementDevice], placement: &Placement) -> Value {
    let member = |m: &Placed| {
        json!({
            "model_id": m.model.as_str(),
            "dir": origin(demand, m).map(|origin| origin.dir.display().to_string()),
            "fixed": m.fixed,
            "fps": m.rate,
            "granted_fps": m.rate * m.share,
            "share": m.share,
            "load": m.occupancy,
            "memory_mib": m.memory_mib,
            "memory_estimated": origin(demand, m).is_some_and(|origin| origin.memory_estimated),
            "alpha_ms": m.cost.alpha * 1e3,
            "beta_ms": m.cost.beta * 1e3,
            "batch": m.batch,
            "batch_limit": m.batch_limit,
            "interval_ms": ms(m.interval),
            "mean_age_ms": ms(m.mean_age),
            "worst_age_ms": ms(m.worst_age),
            "deadline_ms": ms(m.deadline),
        })
    };
    let device = |(placed, device): (&PlacedDevice, &PlacementDevice)| {
        json!({
            "id": placed.id.as_str(),
            "capacity": device.capacity,
            "usable_share": device.usable_share,
            "usable": placed.usable,
            "load": placed.occupancy,
            "memory_mib": placed.memory_mib,
            "memory_limit_mib": device.memory_mib,
            "models": placed.members.iter().map(member).collect::<Vec<_>>(),
        })
    };
    let unplaced = |u: &Unplaced| {
        let why = match u.why {
            Why::NotMeasured(_) => "not_measured",
            Why::Memory(_) => "memory",
            Why::Deadline(_) => "deadline",
        };
        json!({ "model_id": u.model.as_str(), "fps": u.rate, "reason": why, "text": nowhere(demand, u) })
    };
    json!({
        "format": 1,
        "served_in_full": placement.served_in_full(),
        "devices_used": placement.used(),
        "delivery_ms": ms(DELIVERY_ASSUMED),
        "devices": placement.devices.iter().zip(devices).map(device).collect::<Vec<_>>(),
        "unplaced": placement.unplaced.iter().map(unplaced).collect::<Vec<_>>(),
        "problems": problems(demand, placement),
        "notes": notes(demand, devices, placement),
    })
}
