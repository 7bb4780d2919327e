//! Memory of the planner, used again.

use crate::SubscriptionKey;
use crate::cohort::{Assignment, Steered};
use crate::timetable::Timetable;
use crate::wanted::Measure;
use plan::{Cyclic, Demand, Division, Launches};

/// Nothing of it outlives the plan that it is used for.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub measure: Measure,
    pub demands: Vec<Demand>,
    pub division: Division,
    pub cyclic: Vec<Cyclic>,
    pub launches: Launches,
    pub timetable: Timetable,
    pub steered: Vec<Steered>,
    pub keys: Vec<SubscriptionKey>,
    pub assignment: Assignment,
}
