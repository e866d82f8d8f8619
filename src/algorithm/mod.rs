//! Algorithms as plain code: without clock, lock, async or metrics.

pub(crate) mod queue;
