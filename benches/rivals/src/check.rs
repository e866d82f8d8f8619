//! Shows, before anything is measured, that a layer does what it is for: so that no row is that of a layer
//! which does nothing.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::measure::{Callee, RUNTIME};
use crate::services::{FAIL, FAIL_FIRST, HANG, HANG_FIRST, Scripted};

/// What a layer is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Duty {
    /// Ends a call that takes too long.
    TimesOut,
    /// Sends again what failed.
    Retries,
    /// Rejects calls after failures.
    Trips,
    /// Lets one call pass, and rejects the second.
    Limits,
    /// Rejects a call while another one takes its only permit.
    Fills,
    /// Sends a second copy when there is no answer to the first.
    Hedges,
}

/// More than any of them takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Panics unless what `make` makes does its duty.
pub(crate) fn check<C: Callee>(label: &str, duty: Duty, make: &impl Fn(Scripted) -> C) {
    let script = Scripted::default();
    let does = async {
        let mut callee = make(script.clone());
        match duty {
            Duty::TimesOut => callee.go(HANG).await.is_none() && script.take_attempts() == 1,
            Duty::Retries => callee.go(FAIL_FIRST).await == Some(0) && script.take_attempts() == 2,
            Duty::Trips => trips(&mut callee, &script).await,
            Duty::Limits => {
                let passes = callee.go(1).await == Some(2);
                let rejects = callee.go(1).await.is_none();
                passes && rejects && script.take_attempts() == 1
            }
            Duty::Fills => {
                let mut other = make(script.clone());
                let mut hangs = pin!(callee.go(HANG));
                let is_pending = poll_fn(|context| {
                    let poll = hangs.as_mut().poll(context);
                    Poll::Ready(poll.is_pending())
                });
                let is_pending = is_pending.await;
                is_pending && other.go(1).await.is_none() && script.take_attempts() == 1
            }
            Duty::Hedges => hedges(&mut callee, &script).await,
        }
    };
    let does = RUNTIME.block_on(async { timeout(PATIENCE, does).await });
    assert!(does == Ok(true), "{label}: {duty:?}? {does:?}");
}

async fn trips(callee: &mut impl Callee, script: &Scripted) -> bool {
    const CALLS: u64 = 300;
    for _ in 0..CALLS {
        // A retry outside has no need to wait.
        let call = timeout(Duration::from_millis(1), callee.go(FAIL));
        assert!(!matches!(call.await, Ok(Some(_))));
    }
    let has_tripped = script.take_attempts() < CALLS;
    has_tripped && callee.go(1).await.is_none() && script.take_attempts() == 0
}

/// A percentile is told once a second, and it may be that a hedge is denied.
async fn hedges(callee: &mut impl Callee, script: &Scripted) -> bool {
    for _ in 0..20 {
        for _ in 0..50 {
            callee.go(1).await;
            sleep(Duration::from_millis(5)).await;
        }
        script.take_attempts();
        let answer = timeout(Duration::from_millis(300), callee.go(HANG_FIRST)).await;
        if answer == Ok(Some(0)) && script.take_attempts() == 2 {
            return true;
        }
    }
    false
}
