//! The world in virtual time around the scheduling core: cameras, runners, faults, a checker.
//!
//! The production [`scheduler::Scheduler`] runs in it unchanged, and so does any other [`Policy`]
//! that it is compared with. Nothing reads a clock: the same
//! workload and seed give the same bytes. Used by the tests of the core and by `vas sim`.
#![forbid(unsafe_code)]

pub mod bare;
pub mod bounds;
pub mod camera;
pub mod checker;
pub mod html;
pub mod isolation;
pub mod policy;
pub mod random;
pub mod report;
pub mod rivals;
pub mod runner;
pub mod workload;
pub mod world;
pub mod worlds;

pub use camera::{CameraModel, SimCamera};
pub use checker::{Checker, Violation};
pub use policy::{Frames, Policy, Privileges};
pub use random::Random;
pub use report::{Comparison, RunReport, run};
pub use rivals::{RIVALS, rival};
pub use runner::{Fault, RunnerModel};
pub use workload::{Workload, WorkloadError};
pub use world::{Execution, World};
