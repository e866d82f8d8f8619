//! Times as whole nanoseconds, and sums of times that do not overflow.

use std::time::Duration;

use tokio::time::Instant;

/// Returns the nanoseconds from `origin` to `now`, 584 years at most. Zero if the clock has gone back.
///
/// Atomic words hold times in this form. Each shared state has an origin of its own, because with one origin for the
/// process a run in paused time would depend on earlier runs.
#[inline]
pub(crate) fn nanos_between(origin: Instant, now: Instant) -> u64 {
    let elapsed = now.saturating_duration_since(origin);
    let seconds = elapsed.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(u64::from(elapsed.subsec_nanos()))
}

/// Returns the nanoseconds of `duration`, 584 years at most.
#[inline]
pub(crate) fn whole_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the time that is `wait` after `now`; `u64::MAX` if that is too far away.
#[inline]
pub(crate) fn after(now: u64, wait: Duration) -> u64 {
    now.saturating_add(whole_nanos(wait))
}

/// Returns `instant + duration`, or a time too far away to matter.
#[inline]
pub(crate) fn saturating_add(instant: Instant, duration: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    instant
        .checked_add(duration)
        .unwrap_or_else(|| instant + FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_the_longest_duration_does_not_overflow() {
        let now = Instant::now();
        let years = saturating_add(now, Duration::from_secs(600 * 365 * 24 * 60 * 60));
        assert_eq!(nanos_between(now, years), u64::MAX);
        assert_eq!(nanos_between(years, now), 0);
        assert!(saturating_add(now, Duration::MAX) > now + Duration::from_secs(1_000_000));
    }
}
