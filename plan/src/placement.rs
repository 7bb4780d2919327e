//! Which model runs on which device, decided before anything starts: first-fit decreasing by
//! occupancy onto the fewest devices whose usable share and memory hold and on which every
//! deadline is met.
//!
//! A pure function over measured latency tables; `vas plan` calls it. Not the run-time planner: at
//! run time the core chooses among the runners that are connected, wherever they are. One runner
//! executes one batch at a time, so a model takes at most one token of a device, whatever the
//! device's capacity; a model that needs more is split over several devices.

mod cost;
mod load;
mod terms;

use base::ModelId;
use load::{Load, Loaded};
use std::cmp::Ordering;
use std::time::Duration;

pub use cost::Cost;
pub use terms::{Placed, PlacedDevice, Placement, PlacementDevice, PlacementModel, Unplaced, Why};

/// Camera to ring where nothing was measured: the figure of the study (2.10), 25 fps over a LAN.
pub const DELIVERY_ASSUMED: Duration = Duration::from_millis(20);

/// A part of a model that is smaller than this share of it is not worth a runner (0 and 0.5 fail tests of
/// placement; half and twice give the same).
const PART_MIN: f64 = 0.02;
/// Halvings when the largest part that fits is looked for (below the rounding that is not
/// taken for overload: 20 fail a test of placement).
const PART_STEPS: u32 = 40;

/// Places models on devices. `delivery` is the time from camera to ring.
///
/// Deterministic: ties go to the earlier model and the earlier device. Costs at most
/// models x devices x 40 predictions of a device, each of them models x 64 steps and more.
pub fn place(
    models: &[PlacementModel],
    devices: &[PlacementDevice],
    delivery: Duration,
) -> Placement {
    let mut board = Board {
        delivery,
        devices: devices.iter().map(|device| Slot { device, loads: Vec::new() }).collect(),
        opened: Vec::new(),
        unplaced: Vec::new(),
    };
    // The heaviest first; the operator's choices before all others.
    let mut order: Vec<usize> = (0..models.len()).collect();
    order.sort_by(|&a, &b| {
        let (x, y) = (&models[a], &models[b]);
        let free = x.fixed.is_empty().cmp(&y.fixed.is_empty());
        free.then(board.need(y).total_cmp(&board.need(x))).then(a.cmp(&b))
    });
    for ix in order {
        let model = &models[ix];
        if model.fixed.is_empty() { board.place_free(model) } else { board.place_fixed(model) }
    }
    let position = |id: &ModelId| models.iter().position(|m| m.id == *id);
    board.unplaced.sort_by_key(|u| position(&u.model));
    Placement {
        devices: board.devices.iter().map(|slot| slot.report(delivery)).collect(),
        unplaced: board.unplaced,
    }
}

/// A device while models are put on it.
#[derive(Clone)]
struct Slot<'a> {
    device: &'a PlacementDevice,
    loads: Vec<Load<'a>>,
}

impl<'a> Slot<'a> {
    fn load(&self, model: &'a PlacementModel, rate: f64) -> Option<Load<'a>> {
        let (_, table) = model.latency.iter().find(|(id, _)| *id == self.device.id)?;
        Load::new(model, table, rate, model.fixed.contains(&self.device.id))
    }

    /// With `rate` more of a model. `None` = it was not measured here.
    fn with(&self, model: &'a PlacementModel, rate: f64) -> Option<Slot<'a>> {
        let mut slot = self.clone();
        match slot.loads.iter_mut().find(|load| load.model.id == model.id) {
            Some(load) => load.rate += rate,
            None => slot.loads.push(self.load(model, rate)?),
        }
        Some(slot)
    }

    fn memory_mib(&self) -> u64 {
        self.loads.iter().map(|load| load.model.memory_mib).fold(0, u64::saturating_add)
    }

    fn has_memory(&self) -> bool {
        self.device.memory_mib.is_none_or(|limit| self.memory_mib() <= limit)
    }

    fn loaded(&self, delivery: Duration) -> Loaded {
        load::predict(&self.loads, self.device, delivery)
    }

    fn holds(&self, delivery: Duration) -> bool {
        self.has_memory() && self.loaded(delivery).members.iter().all(Placed::full)
    }

    fn report(&self, delivery: Duration) -> PlacedDevice {
        let Loaded { occupancy, members } = self.loaded(delivery);
        PlacedDevice {
            id: self.device.id.clone(),
            occupancy,
            usable: self.device.usable(),
            memory_mib: self.memory_mib(),
            memory_exceeded: !self.has_memory(),
            members,
        }
    }
}

struct Board<'a> {
    delivery: Duration,
    devices: Vec<Slot<'a>>,
    /// Devices in use, in the order in which they came into use.
    opened: Vec<usize>,
    unplaced: Vec<Unplaced>,
}

impl<'a> Board<'a> {
    /// Share of a device that the model would take alone, where it takes the smallest.
    fn need(&self, model: &'a PlacementModel) -> f64 {
        let needs = (0..self.devices.len()).filter_map(|at| self.need_at(at, model));
        needs.fold(f64::INFINITY, f64::min)
    }

    fn need_at(&self, at: usize, model: &'a PlacementModel) -> Option<f64> {
        let device = self.devices[at].device;
        let load = self.devices[at].load(model, model.rate)?;
        Some(load.occupancy(load.batch_limit(self.delivery)) / device.usable())
    }

    fn set(&mut self, at: usize, slot: Slot<'a>) {
        self.devices[at] = slot;
        if !self.opened.contains(&at) {
            self.opened.push(at);
        }
    }

    fn refuse(&mut self, model: &PlacementModel, rate: f64, why: Why) {
        self.unplaced.push(Unplaced { model: model.id.clone(), rate, why });
    }

    /// On the devices that the operator chose, in proportion to their speed.
    fn place_fixed(&mut self, model: &'a PlacementModel) {
        let mut speeds = Vec::new();
        for id in &model.fixed {
            let at = self.devices.iter().position(|slot| slot.device.id == *id);
            match at.and_then(|at| Some((at, self.need_at(at, model)?))) {
                // Without load every device is as good.
                Some((at, need)) => speeds.push((at, if need > 0.0 { 1.0 / need } else { 1.0 })),
                None => {
                    let rate = model.rate / model.fixed.len() as f64;
                    self.refuse(model, rate, Why::NotMeasured(Some(id.clone())));
                }
            }
        }
        let sum: f64 = speeds.iter().map(|(_, speed)| speed).sum();
        let missing = (model.fixed.len() - speeds.len()) as f64 / model.fixed.len() as f64;
        let rate = model.rate * (1.0 - missing);
        for (at, speed) in speeds {
            if let Some(slot) = self.devices[at].with(model, rate * speed / sum) {
                self.set(at, slot);
            }
        }
    }

    fn place_free(&mut self, model: &'a PlacementModel) {
        let mut unopened: Vec<(f64, usize)> = (0..self.devices.len())
            .filter(|at| !self.opened.contains(at))
            .filter_map(|at| Some((self.need_at(at, model)?, at)))
            .collect();
        unopened.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let candidates: Vec<usize> =
            self.opened.iter().copied().chain(unopened.into_iter().map(|(_, at)| at)).collect();
        for &at in &candidates {
            if let Some(slot) = self.devices[at].with(model, model.rate)
                && slot.holds(self.delivery)
            {
                return self.set(at, slot);
            }
        }
        if let Some(why) = self.hopeless(model) {
            return self.refuse(model, model.rate, why);
        }
        let rest = self.split(model, &candidates);
        if rest > 0.0 {
            self.overload(model, &candidates, rest);
        }
    }

    /// Why a model can be nowhere, even alone.
    fn hopeless(&self, model: &'a PlacementModel) -> Option<Why> {
        let alone = |slot: &Slot<'a>| Slot { device: slot.device, loads: Vec::new() };
        let mut best: Option<Duration> = None;
        for slot in &self.devices {
            let Some(load) = slot.load(model, model.rate) else { continue };
            let age = load.single_age(self.delivery);
            best = Some(best.map_or(age, |best| best.min(age)));
        }
        let Some(best) = best else { return Some(Why::NotMeasured(None)) };
        if best > model.deadline && model.rate > 0.0 {
            return Some(Why::Deadline(best));
        }
        let roomy = |slot: &Slot<'a>| alone(slot).with(model, 0.0).is_some_and(|s| s.has_memory());
        (!self.devices.iter().any(roomy)).then_some(Why::Memory(model.memory_mib))
    }

    /// As much as fits, the largest part first; returns the frames per second that are left over.
    fn split(&mut self, model: &'a PlacementModel, candidates: &[usize]) -> f64 {
        let mut rest = model.rate;
        let mut left = candidates.to_vec();
        while !left.is_empty() {
            let mut largest: Option<(f64, usize)> = None;
            for &at in &left {
                let part = self.part(at, model, rest);
                let worthwhile = part >= rest || part >= PART_MIN * model.rate;
                if worthwhile && largest.is_none_or(|(p, _)| part > p) {
                    largest = Some((part, at));
                }
            }
            let Some((part, at)) = largest else { break };
            if let Some(slot) = self.devices[at].with(model, part) {
                self.set(at, slot);
            }
            left.retain(|other| *other != at);
            if part >= rest {
                return 0.0;
            }
            rest -= part;
        }
        rest
    }

    /// The most of a model that a device can take beside what it has.
    fn part(&self, at: usize, model: &'a PlacementModel, rest: f64) -> f64 {
        let fits = |rate: f64| {
            self.devices[at].with(model, rate).is_some_and(|slot| slot.holds(self.delivery))
        };
        if fits(rest) {
            return rest;
        }
        // Most often there is no room at all.
        if !fits(PART_MIN * model.rate) {
            return 0.0;
        }
        let (mut low, mut high) = (0.0, rest);
        for _ in 0..PART_STEPS {
            let middle = f64::midpoint(low, high);
            if fits(middle) { low = middle } else { high = middle }
        }
        low
    }

    /// The rest goes where the smallest share that any model is left with is the largest.
    fn overload(&mut self, model: &'a PlacementModel, candidates: &[usize], rest: f64) {
        let mut best: Option<(f64, f64, usize, Slot<'a>)> = None;
        for &at in candidates {
            let Some(slot) = self.devices[at].with(model, rest) else { continue };
            if !slot.has_memory() {
                continue;
            }
            let members = slot.loaded(self.delivery).members;
            let in_time = members.iter().filter(|m| m.in_time()).count() as f64;
            let late = in_time - members.len() as f64;
            let share = members.iter().map(|m| m.share).fold(1.0, f64::min);
            let better = best.as_ref().is_none_or(|(l, s, ..)| {
                late.total_cmp(l).then(share.total_cmp(s)) == Ordering::Greater
            });
            if better {
                best = Some((late, share, at, slot));
            }
        }
        match best {
            Some((_, _, at, slot)) => self.set(at, slot),
            None => self.refuse(model, rest, Why::Memory(model.memory_mib)),
        }
    }
}
