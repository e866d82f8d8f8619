//! What a retry decides after an attempt has failed. Time and randomness are arguments.

use std::time::Duration;

use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::Backoff;
use crate::context::saturating_add;

/// The settings that decide.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) max_attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) overload_backoff: Backoff,
    pub(super) hint_slack: Duration,
    pub(super) retry_rejections: bool,
    pub(super) retry_nested: bool,
}

/// An attempt that has failed, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    /// The number of the attempt, from 1.
    pub(super) attempt: u32,
    pub(super) is_overload: bool,
    /// What the service asked for.
    pub(super) retry_after: Option<Duration>,
    /// The wait before this attempt.
    pub(super) previous: Duration,
}

/// A wait before the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) duration: Duration,
    /// The service asked for it, and it is longer than our own.
    pub(super) by_hint: bool,
    pub(super) until: Instant,
}

impl Settings {
    /// Draws the wait after `failure`.
    ///
    /// A hint of the service is honoured, but no attempt comes sooner than our own wait (the service may
    /// be lying) or later than that and the slack (so may its clock).
    pub(super) fn wait(&self, failure: Failure, now: Instant, random: &mut SmallRng) -> Wait {
        let backoff = if failure.is_overload {
            &self.overload_backoff
        } else {
            &self.backoff
        };
        let own = backoff.delay(failure.attempt - 1, failure.previous, random);
        let most = own.saturating_add(self.hint_slack);
        let hinted = failure.retry_after.unwrap_or_default().min(most);
        let duration = own.max(hinted);
        Wait {
            duration,
            by_hint: hinted > own,
            until: saturating_add(now, duration),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Jitter;
    use rand::SeedableRng;

    const SLACK: Duration = Duration::from_secs(5);

    /// The wait after a second attempt that failed, and whether the service asked for it.
    fn wait(is_overload: bool, retry_after: Option<Duration>) -> (u128, bool) {
        let plain = |base| {
            let base = Duration::from_millis(base);
            Backoff::exponential(base, Duration::from_secs(100)).jitter(Jitter::None)
        };
        let settings = Settings {
            max_attempts: 3,
            backoff: plain(50),
            overload_backoff: plain(1_000),
            hint_slack: SLACK,
            retry_rejections: false,
            retry_nested: false,
        };
        let failure = Failure {
            attempt: 2,
            is_overload,
            retry_after,
            previous: Duration::ZERO,
        };
        let now = Instant::now();
        let wait = settings.wait(failure, now, &mut SmallRng::seed_from_u64(1));
        assert_eq!(wait.until, now + wait.duration);
        (wait.duration.as_millis(), wait.by_hint)
    }

    #[test]
    fn waits_longer_after_an_overload() {
        assert_eq!(wait(false, None), (100, false));
        assert_eq!(wait(true, None), (2_000, false));
    }

    #[test]
    fn a_hint_is_honoured_within_our_own_wait_and_the_slack() {
        assert_eq!(wait(false, Some(Duration::from_secs(1))), (1_000, true));
        assert_eq!(wait(false, Some(Duration::ZERO)), (100, false));
        assert_eq!(wait(false, Some(Duration::MAX)), (5_100, true));
        assert_eq!(wait(true, Some(Duration::from_secs(1))), (2_000, false));
    }
}
