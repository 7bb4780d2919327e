//! Where models, devices and runners stand in the core's lists.

/// Index into the core's models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ModelIx(pub usize);

/// Index into the core's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeviceIx(pub usize);

/// Index into the core's runners; a place is used again once its runner is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RunnerIx(pub usize);
