//! Tower's contract, as every layer keeps it towards its inner service and its caller.

mod common;

use std::cell::Cell;
use std::marker::PhantomData;
use std::task::Poll;
use std::time::Duration;

use buttress::circuit_breaker::{Handle, State};
use buttress::{
    BoxError, Budget, CircuitBreakerLayer, Deadline, DeadlineLayer, Error, ErrorKind, MeasureLayer,
    Outcome, RetryLayer, TimeoutLayer,
};
use common::{ATTEMPTS, BACKOFF, End, Kind, Layers, Plan, Probe, Task, kind as kind_of};
use tokio::time::{Instant, advance};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

#[tokio::test(start_paused = true)]
async fn only_handles_that_are_ready_are_called() {
    let slow = Plan::readiness(2, common::GOOD);
    let slow_and_fails = Plan {
        answer: (0, End::Error),
        ..slow
    };
    for kind in Kind::ALL {
        for asks in [true, false] {
            let script: &[Plan] = if kind.retries() {
                &[slow_and_fails, slow_and_fails, slow, Plan::FAILS]
            } else {
                &[slow, Plan::GOOD]
            };
            let probe = Probe::new(script);
            let mut client = Layers::new(kind).around(probe.clone());
            for _ in 0..2 {
                if asks {
                    client.ready().await.unwrap();
                }
                client.call(1).await.unwrap();
            }
            let attempts = if kind.retries() { 5 } else { 2 };
            assert_eq!(probe.calls(), attempts, "{kind:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_is_polled_often_reserves_once() {
    for kind in Kind::ALL {
        let probe = Probe::new(&[]);
        let mut client = Layers::new(kind).around(probe.clone());
        for _ in 0..5 {
            Task::default().poll_ready(&mut client);
        }
        let seen = probe.seen();
        assert_eq!((seen.reservations, seen.ready_polls), (1, 1), "{kind:?}");
        client.call(1).await.unwrap();
        assert_eq!(probe.seen().reservations, 1, "{kind:?}: the call uses it");

        Task::default().poll_ready(&mut client);
        assert_eq!(probe.seen().held, 1, "{kind:?}");
        drop(client);
        assert_eq!(probe.seen().held, 0, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clone_asks_for_itself() {
    for kind in Kind::ALL {
        let probe = Probe::new(&[]);
        let mut client = Layers::new(kind).around(probe.clone());
        Task::default().poll_ready(&mut client);
        let mut clone = client.clone();
        clone.call(1).await.unwrap();
        client.call(1).await.unwrap();
        assert_eq!(probe.seen().reservations, 2, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_handle_is_always_ready() {
    for kind in Kind::ALL {
        for end in [common::GOOD, End::Error, End::Held] {
            for pending in 0..2 {
                let probe = Probe::new(&[Plan::readiness(pending, end)]);
                let mut client = Layers::new(kind).around(probe);
                for _ in 0..5 {
                    Task::default().poll_ready(&mut client);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_handle_holds_nothing_of_ours() {
    for kind in Kind::ALL {
        let probe = Probe::new(&[]);
        let layers = Layers::new(kind);
        let mut idle = layers.around(probe.clone());
        layers.half_open().await;
        Task::default().poll_ready(&mut idle);
        assert_eq!(layers.budget().in_flight(), 0, "{kind:?}");

        let held = layers.around(Probe::new(&[Plan::answer(0, End::Held)]));
        let mut call = held.oneshot(1);
        assert!(Task::default().poll(&mut call).is_pending(), "{kind:?}");
        let in_flight = u32::from(kind.retries());
        assert_eq!(layers.budget().in_flight(), in_flight, "{kind:?}");
        drop(call);
        assert_eq!(layers.budget().in_flight(), 0, "{kind:?}");
        drop(idle);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_refused_gives_the_reservation_back() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.breaks()) {
        let probe = Probe::new(&[]);
        let layers = Layers::new(kind);
        let mut client = layers.around(probe.clone());
        Task::default().poll_ready(&mut client);
        assert_eq!(probe.seen().held, 1, "{kind:?}");
        layers.breaker().force_open();
        let mut call = client.call(1);
        assert_eq!(probe.seen().held, 0, "{kind:?}: before the answer is read");
        let Poll::Ready(result) = Task::default().poll(&mut call) else {
            panic!("{kind:?}: refused at once");
        };
        assert_eq!(kind_of(&result), Some(ErrorKind::CircuitOpen), "{kind:?}");
        layers.breaker().reset();
        client.call(1).await.unwrap();
    }
    for kind in [Kind::Deadline, Kind::Retry, Kind::Stack] {
        let probe = Probe::new(&[]);
        let mut client = Layers::new(kind).around(probe.clone());
        Task::default().poll_ready(&mut client);
        assert_eq!(probe.seen().held, 1, "{kind:?}");
        let late = Deadline::at(Instant::now());
        let result = late.scope(async { client.call(1).await }).await;
        assert_eq!(
            kind_of(&result),
            Some(ErrorKind::DeadlineExceeded),
            "{kind:?}"
        );
        assert_eq!((probe.seen().held, probe.calls()), (0, 0), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_leaves_the_inner_service_alone() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.breaks()) {
        let probe = Probe::new(&[Plan::readiness(0, End::Held); 3]);
        let layers = Layers::new(kind);
        layers.breaker().force_open();
        let mut client = layers.around(probe.clone());
        Task::default().poll_ready(&mut client);
        let Poll::Ready(result) = Task::default().poll(&mut client.call(1)) else {
            panic!("{kind:?}: refused at once");
        };
        assert_eq!(kind_of(&result), Some(ErrorKind::CircuitOpen), "{kind:?}");
        assert_eq!(probe.seen().ready_polls, 0, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_counts_services_that_do_not_get_ready() {
    for pending in 0..2 {
        let probe = Probe::new(&[Plan::readiness(pending, End::Error); 20]);
        let layers = Layers::new(Kind::CircuitBreaker);
        let mut client = layers.around(probe.clone());
        for _ in 0..20 {
            assert_eq!(layers.breaker().state(), State::Closed);
            client.ready().await.unwrap().call(1).await.unwrap_err();
        }
        assert_eq!(layers.breaker().state(), State::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_gives_up_on_a_service_that_does_not_get_ready() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.retries()) {
        let probe = Probe::new(&[Plan::readiness(0, End::Error); 10]);
        let mut client = Layers::new(kind).around(probe.clone());
        let called = Instant::now();
        let error = client.ready().await.unwrap().call(1).await.unwrap_err();
        assert_eq!(error.to_string(), "connection reset");
        assert_eq!(probe.seen().ready_polls, ATTEMPTS, "{kind:?}");
        assert_eq!(called.elapsed(), BACKOFF * (ATTEMPTS - 1), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_is_woken_only_with_reason() {
    for kind in Kind::ALL {
        for plan in [Plan::readiness(0, End::Held), Plan::answer(0, End::Held)] {
            let probe = Probe::new(&[plan]);
            let mut client = Layers::new(kind).around(probe.clone());
            let task = Task::default();
            task.poll_ready(&mut client);
            let mut call = client.call(1);
            assert!(task.poll(&mut call).is_pending());
            for _ in 0..200 {
                advance(Duration::from_millis(1)).await;
                assert!(!task.was_woken(), "{kind:?} {plan:?}");
            }
            probe.let_go();
            assert!(task.was_woken(), "{kind:?} {plan:?}");
            assert!(task.poll(&mut call).is_ready(), "{kind:?} {plan:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_task_that_polled_last_is_woken() {
    for kind in Kind::ALL {
        for plan in [Plan::readiness(0, End::Held), Plan::answer(0, End::Held)] {
            let probe = Probe::new(&[plan]);
            let mut call = Layers::new(kind).around(probe.clone()).oneshot(1);
            let task = polled_by_two(&mut call);
            probe.let_go();
            assert!(task.was_woken(), "{kind:?} {plan:?}");
        }
        if kind.patience().is_some() {
            let probe = Probe::new(&[Plan::answer(0, End::Held)]);
            let mut call = Layers::new(kind).around(probe).oneshot(1);
            let task = polled_by_two(&mut call);
            assert!(task.wait().await, "{kind:?}: by the timeout");
        }
        if kind.retries() {
            let probe = Probe::new(&[Plan::FAILS]);
            let mut call = Layers::new(kind).around(probe).oneshot(1);
            let task = polled_by_two(&mut call);
            assert!(task.wait().await, "{kind:?}: by the end of the backoff");
        }
    }
}

/// Polls a pending call from one task and then from another one, which is returned.
fn polled_by_two(call: &mut (impl Future + Unpin)) -> Task {
    let (first, last) = (Task::default(), Task::default());
    assert!(first.poll(call).is_pending());
    assert!(last.poll(call).is_pending());
    last
}

#[tokio::test(start_paused = true)]
async fn a_failed_response_is_dropped_before_the_wait() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.retries()) {
        let busy = Plan::answer(0, End::Done(Outcome::Failure));
        let probe = Probe::new(&[busy, busy]);
        let client = Layers::new(kind).around(probe.clone());
        let started = Instant::now();
        let response = client.oneshot(1).await.unwrap();
        let seen = probe.seen();
        assert_eq!(
            seen.called,
            [started, started + BACKOFF, started + 2 * BACKOFF]
        );
        assert_eq!(seen.dropped, seen.called[..2], "{kind:?}");
        drop(response);
    }
}

#[tokio::test(start_paused = true)]
async fn one_layer_value_is_one_breaker() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.breaks()) {
        let (layers, others) = (Layers::new(kind), Layers::new(kind));
        layers.half_open().await;
        let mut first = layers.around(Probe::new(&[Plan::answer(0, End::Held)]));
        let second = layers.around(Probe::new(&[]));
        let mut probe = first.call(1);
        assert!(Task::default().poll(&mut probe).is_pending(), "{kind:?}");
        let result = second.oneshot(1).await;
        assert_eq!(kind_of(&result), Some(ErrorKind::CircuitOpen), "{kind:?}");
        assert_eq!(layers.breaker().state(), State::HalfOpen, "{kind:?}");
        assert_eq!(others.breaker().state(), State::Closed, "{kind:?}");
        others.around(Probe::new(&[])).oneshot(1).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn one_layer_value_is_one_budget() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.retries()) {
        let (layers, others) = (Layers::new(kind), Layers::new(kind));
        let mut calls = [1, 2].map(|request| {
            let probe = Probe::new(&[Plan::answer(0, End::Held)]);
            layers.around(probe).oneshot(request)
        });
        for call in &mut calls {
            assert!(Task::default().poll(call).is_pending());
        }
        assert_eq!(layers.budget().in_flight(), 2, "{kind:?}");
        assert_eq!(others.budget().in_flight(), 0, "{kind:?}");
    }
}

/// A request and a response that may go to another thread, but not be used by two at once.
#[derive(Clone, Debug)]
struct NotSync(PhantomData<Cell<u8>>);

type Inner = BoxCloneSyncService<NotSync, NotSync, BoxError>;

/// Holds only for what may be shared between threads and moved about.
fn shareable<T: Clone + Send + Sync + Unpin + 'static>() {}

fn wraps_what_is_not_sync<L>(_: &L)
where
    L: Layer<Inner> + Clone + Send + Sync + Unpin + 'static,
    L::Service: Service<NotSync, Response = NotSync, Error = BoxError>
        + Clone
        + Send
        + Sync
        + Unpin
        + 'static,
    <L::Service as Service<NotSync>>::Future: Send + 'static,
{
}

#[test]
fn services_and_calls_may_go_to_other_threads() {
    let name = "threads";
    let timeout = TimeoutLayer::new(name, Duration::from_secs(1));
    let deadline = DeadlineLayer::new(name, Duration::from_secs(1));
    let (retry, breaker) = (RetryLayer::new(name), CircuitBreakerLayer::new(name));
    let measure = MeasureLayer::operation(name);
    wraps_what_is_not_sync(&timeout);
    wraps_what_is_not_sync(&deadline);
    wraps_what_is_not_sync(&retry);
    wraps_what_is_not_sync(&breaker);
    wraps_what_is_not_sync(&measure);
    let stack = ServiceBuilder::new().layer(measure).layer(deadline);
    wraps_what_is_not_sync(&stack.layer(retry).layer(breaker).layer(timeout));
    shareable::<Handle>();
    shareable::<Budget>();
    shareable::<Deadline>();
    shareable::<Error>();
}
