//! Decision of a retry after an attempt has failed. Time and randomness are arguments.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::Backoff;
use crate::GaveUp;
use crate::nanos::saturating_add;

/// The settings of the decision.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) max_attempts: u32,
    pub(crate) backoff: Backoff,
    pub(crate) overload_backoff: Backoff,
    pub(crate) max_retry_after: Duration,
    pub(crate) retry_rejections: bool,
    pub(crate) retry_nested: bool,
}

/// An attempt that has failed, as far as the decision needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// The number of the attempt, from 1.
    pub(crate) attempt: u32,
    pub(crate) is_overload: bool,
    /// `true` if the next attempt follows without a wait.
    pub(crate) is_at_once: bool,
    /// Time that the service asked for.
    pub(crate) retry_after: Option<Duration>,
    /// The wait before this attempt.
    pub(crate) previous: Duration,
}

/// A wait before the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) duration: Duration,
    /// `true` if the service asked for the wait.
    pub(crate) by_retry_after: bool,
    pub(crate) until: Instant,
}

impl Settings {
    /// Returns a random wait after `failure`, or refuses it if it is too long.
    ///
    /// The wait is never shorter than the time that the service asks for, because an earlier request is in vain. A
    /// random part is added to spread callers that got the same time. A wait that would not end before `deadline` is
    /// refused.
    pub(crate) fn wait(
        &self,
        failure: Failure,
        now: Instant,
        deadline: Option<Instant>,
        random: &mut SmallRng,
    ) -> Result<Wait, GaveUp> {
        let backoff = if failure.is_overload {
            &self.overload_backoff
        } else {
            &self.backoff
        };
        let duration = match failure.retry_after {
            Some(asked) if asked > self.max_retry_after => return Err(GaveUp::RetryAfter),
            Some(asked) => {
                let spread = backoff.base().max(asked / 10);
                asked + spread.mul_f64(random.random())
            }
            None if failure.is_at_once => Duration::ZERO,
            None => backoff.delay(failure.attempt - 1, failure.previous, random),
        };
        let until = saturating_add(now, duration);
        if deadline.is_some_and(|deadline| deadline <= until) {
            return Err(GaveUp::Deadline);
        }
        Ok(Wait {
            duration,
            by_retry_after: failure.retry_after.is_some(),
            until,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Jitter;
    use rand::SeedableRng;

    const SECOND: Duration = Duration::from_secs(1);

    /// The wait after a second attempt that failed, with this time left until the deadline.
    fn wait(
        is_overload: bool,
        retry_after: Option<Duration>,
        left: Duration,
        seed: u64,
    ) -> Result<Duration, GaveUp> {
        let plain = |base| {
            let base = Duration::from_millis(base);
            Backoff::exponential(base, Duration::from_secs(100)).jitter(Jitter::None)
        };
        let settings = Settings {
            max_attempts: 3,
            backoff: plain(50),
            overload_backoff: plain(1_000),
            max_retry_after: 60 * SECOND,
            retry_rejections: false,
            retry_nested: false,
        };
        let failure = Failure {
            attempt: 2,
            is_overload,
            is_at_once: false,
            retry_after,
            previous: Duration::ZERO,
        };
        let now = Instant::now();
        let deadline = now + left;
        let mut random = SmallRng::seed_from_u64(seed);
        let wait = settings.wait(failure, now, Some(deadline), &mut random)?;
        assert_eq!(wait.until, now + wait.duration);
        assert_eq!(wait.by_retry_after, retry_after.is_some());
        Ok(wait.duration)
    }

    #[test]
    fn waits_longer_after_an_overload() {
        let wait = |is_overload| wait(is_overload, None, 100 * SECOND, 1);
        assert_eq!(wait(false), Ok(Duration::from_millis(100)));
        assert_eq!(wait(true), Ok(Duration::from_secs(2)));
    }

    #[test]
    fn the_time_that_is_asked_for_is_waited_for_and_at_most_a_tenth_or_the_base_more() {
        let millis = Duration::from_millis;
        for (is_overload, asked, spread) in [
            (false, Duration::ZERO, millis(50)),
            (false, millis(200), millis(50)),
            (false, 4 * SECOND, millis(400)),
            (false, 60 * SECOND, 6 * SECOND),
            (true, millis(200), SECOND),
            (true, 20 * SECOND, 2 * SECOND),
        ] {
            let waits = (0..1_000).map(|seed| wait(is_overload, Some(asked), 100 * SECOND, seed));
            let waits: Vec<_> = waits.map(Result::unwrap).collect();
            let (least, most) = (*waits.iter().min().unwrap(), *waits.iter().max().unwrap());
            assert!(
                (asked..asked + spread / 20).contains(&least),
                "{asked:?}: {least:?}"
            );
            let nearly = asked + spread * 19 / 20;
            assert!(
                (nearly..=asked + spread).contains(&most),
                "{asked:?}: {most:?}"
            );
        }
    }

    #[test]
    fn a_time_that_is_too_long_is_not_waited_for_in_part() {
        let asked = |asked| wait(true, Some(asked), 100 * SECOND, 1);
        assert!(asked(60 * SECOND).is_ok());
        let longer = 60 * SECOND + Duration::from_nanos(1);
        assert_eq!(asked(longer), Err(GaveUp::RetryAfter));
        assert_eq!(asked(Duration::MAX), Err(GaveUp::RetryAfter));
    }

    #[test]
    fn a_wait_that_does_not_end_before_the_deadline_is_not_begun() {
        let own = |left| wait(false, None, Duration::from_millis(left), 1);
        assert_eq!(own(100), Err(GaveUp::Deadline));
        assert!(own(101).is_ok());
        // 50 s alone would fit, but not with the random part.
        let drawn = wait(false, Some(50 * SECOND), 100 * SECOND, 1).unwrap();
        let fits = |left| wait(false, Some(50 * SECOND), left, 1);
        assert!(drawn > 50 * SECOND);
        assert_eq!(fits(drawn), Err(GaveUp::Deadline));
        assert_eq!(fits(drawn + Duration::from_nanos(1)), Ok(drawn));
    }
}
