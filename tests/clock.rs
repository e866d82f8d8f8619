//! Virtual time: tests of a user's, each with a paused clock of its own, share one process.

use std::time::Duration;

use buttress::circuit_breaker::{Handle, State};
use buttress::{BoxError, CircuitBreakerLayer};
use tokio::time::advance;
use tower::{Layer, ServiceExt, service_fn};

/// Runs one user's test: a breaker that has nineteen failed calls, and after `idle` another one.
fn twenty_failures(idle: Duration) -> Handle {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let layer = CircuitBreakerLayer::new("virtual");
        let service = layer.layer(service_fn(async |()| Err::<(), BoxError>("down".into())));
        advance(idle).await;
        for call in 0..20 {
            if call == 19 {
                advance(idle).await;
            }
            let _failed = service.clone().oneshot(()).await;
        }
        layer.handle()
    })
}

// The only one in its process, because the clock that is read first is what matters.
#[test]
fn a_clock_that_has_run_ahead_does_not_stop_the_others() {
    for idle in [Duration::from_secs(3_600), Duration::from_secs(60)] {
        let breaker = twenty_failures(idle);
        assert_eq!(breaker.state(), State::Closed, "after {idle:?}");
    }
}
