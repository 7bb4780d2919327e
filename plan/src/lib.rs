//! Planning without a state: how large batches are, how a device is divided among its models, and what
//! load and ages come of that.
//!
//! Pure functions over latency tables and rates. The scheduling core calls them with what it measures,
//! `vas plan` with what the configuration says, so that both plan alike. No clock, no file, no device.
//!
//! | module | answers |
//! |---|---|
//! | [`mod@line`] | what a batch costs: a fixed part, and a part per member |
//! | [`batch_size`] | which batches pay |
//! | [`division`] | what share of a device each model gets: the square-root rule |
//! | [`launches`] | the same in whole launches per period |
//! | [`placement`] | which model runs on which device, and how old its results become |
#![forbid(unsafe_code)]

pub mod batch_size;
pub mod division;
pub mod launches;
pub mod line;
pub mod placement;
mod square_root;

pub use batch_size::paying_batch;
pub use division::{Demand, Division, Share};
pub use launches::{Cyclic, Launches};
