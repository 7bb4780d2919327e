//! What a workload asks for, as the bounds see it.

use super::{ModelGroup, Workload};
use crate::bounds::{Class, Demand, Load};
use crate::world::WIRE;
use std::collections::BTreeMap;

const WIRE_MS: f64 = WIRE.as_nanos() as f64 / 1e6;

impl Workload {
    /// What it asks for. The path of every result: Prepare and Reply over a socket, the copy before
    /// and the postprocessing after the execution. Between two batches of a GPU its token goes to
    /// the core and back.
    pub fn demand(&self) -> Demand {
        let mut devices: BTreeMap<&str, usize> = BTreeMap::new();
        for device in self.model.iter().flat_map(ModelGroup::device_names) {
            let next = devices.len();
            devices.entry(device).or_insert(next);
        }
        let config = self.config();
        Demand {
            loads: self.model.iter().filter_map(|m| self.load(m, &devices)).collect(),
            capacity: vec![f64::from(config.capacity.max(1)); devices.len()],
            usable_share: config.usable_share,
        }
    }

    /// The same in a world where the copy of a batch takes no time.
    pub fn demand_without_copies(&self) -> Demand {
        let mut demand = self.demand();
        for load in &mut demand.loads {
            let model = self.model.iter().find(|m| m.name == load.name);
            load.path_ms -= model.map_or(0.0, |m| m.copy_ms);
        }
        demand
    }

    fn load(&self, model: &ModelGroup, devices: &BTreeMap<&str, usize>) -> Option<Load> {
        let mut classes = Vec::new();
        let (mut delay, mut frames) = (0.0, 0.0);
        for group in &self.camera {
            for watch in group.watch.iter().filter(|w| w.model == model.name) {
                let count = (f64::from(group.count) * watch.share + 1e-9).floor();
                let class = Class {
                    count,
                    max_fps: watch.fps,
                    weight: watch.weight,
                    camera_fps: group.fps,
                    aligned: group.aligned,
                };
                delay += group.delay_ms * class.count * class.rate();
                frames += class.count * class.rate();
                classes.push(class);
            }
        }
        let longer = 1.0 + model.spikes;
        let table: Vec<(u32, f64)> = model.table_ms.iter().map(|(b, l)| (*b, l * longer)).collect();
        let (alpha_ms, beta_ms) = if table.is_empty() {
            (model.alpha_ms * longer, (model.beta_ms * longer).max(1e-6))
        } else {
            Load::line_below(&table)
        };
        let fit_ms = match table.is_empty() {
            true => (alpha_ms, beta_ms),
            false => Load::line_through(&table),
        };
        (frames > 0.0).then(|| Load {
            name: model.name.clone(),
            table,
            alpha_ms,
            beta_ms,
            fit_ms,
            batch_max: model.batch_max,
            devices: model.device_names().into_iter().map(|d| devices[d]).collect(),
            deadline_ms: model.deadline_ms,
            delay_ms: delay / frames,
            path_ms: 2.0 * WIRE_MS + model.copy_ms + model.postprocess_ms,
            turn_ms: 2.0 * WIRE_MS,
            classes,
        })
    }
}
