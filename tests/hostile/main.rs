//! Callers, services and answers that do harm: bounds for the effect of one of them on all the others, in virtual time.
//!
//! Each file is about one rule of evidence: a layer must not conclude more than it knows.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod answers;
mod callers;
mod effects;
mod enough_time;
#[path = "../feed/mod.rs"]
mod feed;
mod replicas;
mod streams;
mod trailers;
