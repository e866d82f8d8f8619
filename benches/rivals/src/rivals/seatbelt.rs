//! seatbelt. Its layers make services that work both ways: as Tower services, and in its native form, where
//! a service is called by reference and its future borrows it. It reports to OpenTelemetry, which is left out.

use std::sync::LazyLock;
use std::time::Duration;

use seatbelt::breaker::{Breaker, BreakerLayer};
use seatbelt::hedging::{Hedging, HedgingLayer};
use seatbelt::retry::{Retry, RetryLayer};
use seatbelt::timeout::{Timeout, TimeoutLayer};
use seatbelt::typestates::Set;
use seatbelt::{RecoveryInfo, ResilienceContext};
use tick::Clock;

use super::{DAY, HEDGE_DELAY, LIMIT};
use crate::measure::RUNTIME;
use crate::services::{Answer, Failed};

type Context = ResilienceContext<u64, Answer>;
pub(crate) type SeatbeltTimeout = TimeoutLayer<u64, Answer, Set, Set>;
pub(crate) type SeatbeltRetry = RetryLayer<u64, Answer, Set, Set>;
pub(crate) type SeatbeltBreaker = BreakerLayer<u64, Answer, Set, Set>;

/// A clock whose timers the runtime drives.
static CLOCK: LazyLock<Clock> = LazyLock::new(|| {
    let _context = RUNTIME.enter();
    Clock::new_tokio()
});

fn context() -> Context {
    Context::new(&*CLOCK).name("bench")
}

fn recovery(answer: &Answer) -> RecoveryInfo {
    match answer {
        Ok(_) => RecoveryInfo::never(),
        Err(Failed) => RecoveryInfo::retry(),
    }
}

pub(crate) fn timeout(limit: Duration) -> SeatbeltTimeout {
    Timeout::layer("bench", &context())
        .timeout_error(|_| Failed)
        .timeout(limit)
}

/// Two retries, exponential from 50 ms as ours. It has no budget.
pub(crate) fn retry() -> SeatbeltRetry {
    Retry::layer("bench", &context())
        .clone_input()
        .recovery_with(|answer, _| recovery(answer))
        .max_retry_attempts(2)
        .base_delay(Duration::from_millis(50))
}

/// A window of 10 s as ours; else its defaults: a tenth of at least 100 calls.
pub(crate) fn breaker() -> SeatbeltBreaker {
    Breaker::layer("bench", &context())
        .recovery_with(|answer, _| recovery(answer))
        .rejected_input_error(|_, _| Failed)
        .sampling_duration(Duration::from_secs(10))
        .break_duration(DAY)
}

/// One hedge after a fixed delay; it has no percentiles.
pub(crate) fn hedge() -> HedgingLayer<u64, Answer, Set, Set> {
    Hedging::layer("bench", &context())
        .clone_input()
        .recovery_with(|answer, _| recovery(answer))
        .hedging_delay(HEDGE_DELAY)
}

pub(crate) type Four = (
    SeatbeltTimeout,
    SeatbeltRetry,
    SeatbeltBreaker,
    SeatbeltTimeout,
);

/// It has neither rate limit nor bulkhead.
pub(crate) fn four_layers() -> Four {
    (timeout(10 * LIMIT), retry(), breaker(), timeout(LIMIT))
}
