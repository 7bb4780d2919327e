//! What several benchmarks measure with.

pub mod counting_allocator;
pub mod node;
pub mod ticks;
