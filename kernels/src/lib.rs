//! Pixels to tensors: NV12 frames become normalised image batches, and what comes out of a model
//! goes back to coordinates of the frame; and pixels to JPEG, for people.
//!
//! [`Preprocessor`] is the fast path, [`oracle`] the readable one it is held against. Nothing here
//! knows files, sockets, models or clocks; the runner calls it.

pub mod colour;
pub mod fit;
pub mod jpeg;
pub mod oracle;
pub mod preprocess;
pub mod tensor;

pub use fit::{Fit, FitError};
pub use preprocess::{PreprocessError, Preprocessor};
pub use tensor::{BatchTensor, TensorData};
