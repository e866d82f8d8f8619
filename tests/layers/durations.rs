//! Durations, where code of the user takes its time within one poll.
//!
//! A duration begins when the call is made, not when the poll began in which it was made. It ends when the service has
//! returned.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use buttress::balance::Endpoint;
use buttress::circuit_breaker::State;
use buttress::{
    Balance, BoxError, CircuitBreakerLayer, Deadline, DeadlineLayer, DeadlineService,
    FallbackLayer, KeyedLayer, fallback,
};
use tokio::time::advance;
use tower::{Layer, Service, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);

/// Lets time pass within one poll.
fn take(time: Duration) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(pin!(advance(time)).poll(&mut cx).is_pending());
}

/// Takes 100 ms when it is called and 200 ms when it is polled. Returns the time that is left then.
#[derive(Clone)]
struct Slow;

impl Service<()> for Slow {
    type Response = Option<Duration>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Option<Duration>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        take(100 * MS);
        Box::pin(async {
            take(200 * MS);
            Ok(Deadline::current().map(Deadline::remaining))
        })
    }
}

/// Layers that read the clock for themselves: a balancer over one endpoint, and a deadline of a second.
fn timed() -> Balance<DeadlineService<Slow>> {
    let deadline = DeadlineLayer::new("inner", 1_000 * MS);
    Balance::new("search", [Endpoint::new("a", deadline.layer(Slow))]).unwrap()
}

/// The answer of one call through [`timed`], and the latency that the balancer has seen.
fn expect(answer: Option<Duration>, balance: &Balance<DeadlineService<Slow>>) {
    let latency = balance.handle().endpoint("a").unwrap().latency;
    let latency = latency.as_secs_f64().mul_add(1e3, 0.5) as u32;
    assert_eq!((answer, latency * MS), (Some(700 * MS), 300 * MS));
}

#[tokio::test(start_paused = true)]
async fn time_that_passed_before_a_call_in_the_same_poll_does_not_count() {
    let balance = timed();
    let inner = balance.clone();
    let between = service_fn(move |()| {
        take(5_000 * MS);
        let inner = inner.clone();
        async move {
            take(5_000 * MS);
            inner.oneshot(()).await
        }
    });
    let client = DeadlineLayer::new("outer", 60_000 * MS).layer(between);
    expect(client.oneshot(()).await.unwrap(), &balance);
}

#[tokio::test(start_paused = true)]
async fn time_that_passed_in_a_scope_before_a_call_does_not_count() {
    let balance = timed();
    let client = balance.clone();
    let work = async {
        take(5_000 * MS);
        client.oneshot(()).await
    };
    let outer = Deadline::after(60_000 * MS);
    expect(outer.scope(work).await.unwrap(), &balance);
}

#[tokio::test(start_paused = true)]
async fn time_that_a_fallback_takes_to_call_another_service_does_not_count() {
    let balance = timed();
    let client = balance.clone();
    let second = fallback::service(service_fn(move |()| {
        take(5_000 * MS);
        client.clone().oneshot(())
    }));
    let primary = service_fn(|()| async {
        take(5_000 * MS);
        Err::<Option<Duration>, _>(BoxError::from("reset"))
    });
    let primary = DeadlineLayer::new("outer", 60_000 * MS).layer(primary);
    let client = FallbackLayer::new("outer", second).layer(primary);
    expect(client.oneshot(()).await.unwrap(), &balance);
}

#[tokio::test(start_paused = true)]
async fn time_that_a_key_takes_to_get_its_layer_does_not_count() {
    for (longest, state) in [(299 * MS, State::Open), (300 * MS, State::Closed)] {
        let breaker = CircuitBreakerLayer::config("inner");
        let breaker = breaker.slow_calls(longest, 0.1).min_calls(1);
        let breaker = breaker.build().unwrap();
        let made = breaker.clone();
        let make = move |(): &()| {
            take(5_000 * MS);
            made.clone()
        };
        let client = KeyedLayer::new("outer", |(): &()| (), make).layer(Slow);
        client.oneshot(()).await.unwrap();
        assert_eq!(breaker.handle().state(), state, "{longest:?}");
    }
}
