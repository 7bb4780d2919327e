//! What is to be placed, where it may go, and what comes of it.

use super::cost::Cost;
use base::{DeviceId, LatencyTable, ModelId};
use std::time::Duration;

/// A model and the load that its subscriptions ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacementModel {
    /// Which.
    pub id: ModelId,
    /// Frames per second, summed over its subscriptions; 0 = nobody asks for it.
    pub rate: f64,
    /// Subscriptions: a batch holds at most one frame of each.
    pub streams: u32,
    /// Longest frame period of its cameras. The newest frame is bound at launch, so none waits
    /// longer.
    pub frame_period: Duration,
    /// Share of a launch interval that a frame may have to wait: 1 with evenly spread gates, the
    /// mean of max fps over camera fps when cameras are steered (kappa of the study).
    pub wait_share: f64,
    /// The shortest deadline of its subscriptions.
    pub deadline: Duration,
    /// Largest batch that the engine takes.
    pub batch_max: u32,
    /// Memory of one runner, MiB.
    pub memory_mib: u64,
    /// L(b) on every device where it was measured; elsewhere the model is not placed.
    pub latency: Vec<(DeviceId, LatencyTable)>,
    /// Devices that the operator chose; empty = any.
    pub fixed: Vec<DeviceId>,
}

/// One token domain: a GPU, a MIG instance, a CPU.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacementDevice {
    /// Which.
    pub id: DeviceId,
    /// What its runners may take together, MiB; `None` = not checked.
    pub memory_mib: Option<u64>,
    /// Batches that execute at a time.
    pub capacity: u32,
    /// Share of each token that is given away, 0 to 1.
    pub usable_share: f64,
}

impl PlacementDevice {
    /// Seconds of execution per second that are given away.
    pub fn usable(&self) -> f64 {
        self.usable_share * f64::from(self.capacity)
    }
}

/// Where everything goes, and what comes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// Every device, in the order given, empty ones too.
    pub devices: Vec<PlacedDevice>,
    /// What has no place, in the order of the models.
    pub unplaced: Vec<Unplaced>,
}

impl Placement {
    /// Whether every model gets every frame it asks for, within its deadline.
    pub fn served_in_full(&self) -> bool {
        let full = |d: &PlacedDevice| !d.memory_exceeded && d.members.iter().all(Placed::full);
        self.unplaced.is_empty() && self.devices.iter().all(full)
    }

    /// Devices with at least one model.
    pub fn used(&self) -> usize {
        self.devices.iter().filter(|d| !d.members.is_empty()).count()
    }

    /// Predicted share of its frames that a model gets, over all its devices, 0 to 1.
    pub fn share_of(&self, model: &PlacementModel) -> f64 {
        let here = self.devices.iter().flat_map(|d| &d.members).filter(|p| p.model == model.id);
        let (mut given, mut any) = (0.0, false);
        for placed in here {
            any = true;
            given += placed.rate * placed.share;
        }
        if model.rate > 0.0 { (given / model.rate).min(1.0) } else { f64::from(u8::from(any)) }
    }
}

/// One device with its models.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedDevice {
    /// Which.
    pub id: DeviceId,
    /// Seconds of execution per second that its models need at least (largest batches).
    pub occupancy: f64,
    /// What of that may be given away; less than `occupancy` = overload.
    pub usable: f64,
    /// What its runners take together, MiB.
    pub memory_mib: u64,
    /// Fixed models take more memory than it has.
    pub memory_exceeded: bool,
    /// In the order in which they were placed.
    pub members: Vec<Placed>,
}

/// One runner: a model, or a part of one, on a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Which model.
    pub model: ModelId,
    /// The operator chose this device.
    pub fixed: bool,
    /// Frames per second that are asked for here.
    pub rate: f64,
    /// Share of them that is predicted to be given, 0 to 1; the same for all members of an
    /// overloaded device (of equal priority), lower where one runner alone is not fast enough.
    pub share: f64,
    /// Seconds of execution per second at the largest batch that the deadline allows.
    pub occupancy: f64,
    /// Memory of the runner, MiB.
    pub memory_mib: u64,
    /// What a batch costs.
    pub cost: Cost,
    /// Largest batch that pays and with which the deadline is met.
    pub batch_limit: u32,
    /// Mean members of a batch as planned.
    pub batch: f64,
    /// Between two launches; zero = nobody asks for it.
    pub interval: Duration,
    /// Predicted mean age of a result.
    pub mean_age: Duration,
    /// Predicted largest age (B3 of the study): the whole wait, one other batch in the way, p99 of
    /// L(b). What comes together by chance on a device that is nearly full may be older.
    pub worst_age: Duration,
    /// What it is measured against.
    pub deadline: Duration,
}

impl Placed {
    /// Whether the prediction meets the deadline; nobody waits for what nobody asks for.
    pub fn in_time(&self) -> bool {
        self.rate <= 0.0 || self.worst_age <= self.deadline
    }

    /// Every frame that is asked for, in time.
    pub fn full(&self) -> bool {
        self.share >= 1.0 && self.in_time()
    }
}

/// A model, or the part of it that a device was to get, without a place.
#[derive(Debug, Clone, PartialEq)]
pub struct Unplaced {
    /// Which model.
    pub model: ModelId,
    /// Frames per second without a place.
    pub rate: f64,
    /// Why.
    pub why: Why,
}

/// Why a model has no place.
#[derive(Debug, Clone, PartialEq)]
pub enum Why {
    /// It was measured on no device, or not on this one that the operator chose for it.
    NotMeasured(Option<DeviceId>),
    /// No device has the memory for one more runner of this size, MiB.
    Memory(u64),
    /// Even a single frame on an idle device would be older than the deadline: the best predicted
    /// age.
    Deadline(Duration),
}
