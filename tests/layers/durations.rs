//! Durations, where code of the user takes its time within one poll.
//!
//! A duration begins when the call is made, not when the poll began in which it was made. It ends when the service has
//! returned.
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use buttress::balance::Endpoint;
use buttress::{
    Balance, BoxError, Deadline, DeadlineLayer, DeadlineService, FallbackLayer, KeyedLayer,
    fallback,
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

/// An outer layer, in one poll of which everything happens.
fn outer() -> DeadlineLayer {
    DeadlineLayer::new("outer", 60_000 * MS)
}

fn inner() -> DeadlineLayer {
    DeadlineLayer::new("inner", 1_000 * MS)
}

type Timed = Balance<DeadlineService<Slow>>;

/// Layers that take the time of a call: a balancer over one endpoint, and a deadline of a second.
fn timed() -> Timed {
    Balance::new("search", [Endpoint::new("a", inner().layer(Slow))]).unwrap()
}

/// Calls another service, which takes the time of its call as well, and lets time pass.
async fn work() {
    timed().oneshot(()).await.unwrap();
    take(5_000 * MS);
}

/// Checks the answer of one call through [`timed`], and the latency that the balancer has seen.
fn check(answer: Option<Duration>, balance: &Timed) {
    let latency = balance.handle().endpoint("a").unwrap().latency;
    let latency = latency.as_secs_f64().mul_add(1e3, 0.5) as u32;
    assert_eq!((answer, latency * MS), (Some(700 * MS), 300 * MS));
}

#[tokio::test(start_paused = true)]
async fn time_that_passed_before_a_call_in_the_same_poll_does_not_count() {
    let balance = timed();
    let client = balance.clone();
    let between = service_fn(move |()| {
        let client = client.clone();
        async move {
            work().await;
            client.oneshot(()).await
        }
    });
    let answer = outer().layer(between).oneshot(()).await.unwrap();
    check(answer, &balance);
}

#[tokio::test(start_paused = true)]
async fn time_that_passed_in_a_scope_before_a_call_does_not_count() {
    let balance = timed();
    let client = balance.clone();
    let between = service_fn(move |()| {
        let client = client.clone();
        Deadline::after(60_000 * MS).scope(async {
            work().await;
            client.oneshot(()).await
        })
    });
    let answer = outer().layer(between).oneshot(()).await.unwrap();
    check(answer, &balance);
}

#[tokio::test(start_paused = true)]
async fn time_that_passed_before_a_fallback_calls_its_service_does_not_count() {
    let balance = timed();
    let client = balance.clone();
    let second = fallback::service(service_fn(move |()| {
        take(5_000 * MS);
        client.clone().oneshot(())
    }));
    let primary = service_fn(|()| async {
        work().await;
        Err::<Option<Duration>, _>(BoxError::from("reset"))
    });
    let layers = (outer(), FallbackLayer::new("outer", second));
    let answer = layers.layer(primary).oneshot(()).await.unwrap();
    check(answer, &balance);
}

#[tokio::test(start_paused = true)]
async fn time_that_a_key_takes_to_get_its_layer_does_not_count() {
    let make = |(): &()| {
        take(5_000 * MS);
        inner()
    };
    let layers = (outer(), KeyedLayer::new("outer", |(): &()| (), make));
    let answer = layers.layer(Slow).oneshot(()).await.unwrap();
    assert_eq!(answer, Some(700 * MS));
}
