//! The world in virtual time around the scheduling core: cameras, runners, faults, a checker.
//!
//! The production [`scheduler::Scheduler`] runs in it unchanged. Nothing reads a clock: the same
//! workload and seed give the same bytes. Used by the tests of the core and by `vas sim`.
#![forbid(unsafe_code)]

pub mod bare;
pub mod camera;
pub mod checker;
pub mod random;
pub mod report;
pub mod runner;
pub mod workload;
pub mod world;

pub use camera::{CameraModel, SimCamera};
pub use checker::{Checker, Violation};
pub use random::Random;
pub use report::{RunReport, run};
pub use runner::{Fault, RunnerModel};
pub use workload::{Workload, WorkloadError};
pub use world::World;
