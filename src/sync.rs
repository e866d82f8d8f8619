//! The atomics that the lock-free parts are made of, so that `tests/loom.rs` can put its own in their
//! place and try every interleaving.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
