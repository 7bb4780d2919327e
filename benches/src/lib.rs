//! What several benchmarks measure with.

pub mod counting_allocator;
pub mod ticks;
