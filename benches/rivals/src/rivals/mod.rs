//! The layers that are compared, each with its documented defaults or as near to those of `buttress` as it can be.

pub(crate) mod failsafe;
pub(crate) mod governor;
pub(crate) mod guard;
pub(crate) mod mix;
pub(crate) mod ours;
pub(crate) mod recloser;
pub(crate) mod resilience;
pub(crate) mod seatbelt;
pub(crate) mod tower;

use std::time::Duration;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const DAY: Duration = Duration::from_hours(24);
/// Of the timeouts, and long enough that none is hit.
pub(crate) const LIMIT: Duration = SECOND;
/// Of hedges with a fixed delay; never over while it is measured.
pub(crate) const HEDGE_DELAY: Duration = Duration::from_millis(100);
/// So many calls at the same time; there is never more than one on each thread.
pub(crate) const CONCURRENT: usize = 100;
/// So many calls a second, which is never reached.
pub(crate) const PER_SECOND: u32 = 1_000_000_000;
