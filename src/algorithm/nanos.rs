//! Times in nanoseconds from an origin that the caller chooses.

use std::time::Duration;

/// Returns the time that is `wait` after `now`; `u64::MAX` if that is too far away.
#[inline]
pub(crate) fn after(now: u64, wait: Duration) -> u64 {
    now.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX))
}
