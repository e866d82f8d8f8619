//! Tower's contract, as every layer keeps it towards its inner service and its caller.

use crate::common;

use std::cell::Cell;
use std::future::ready;
use std::marker::PhantomData;
use std::task::Poll;
use std::time::Duration;

use buttress::balance::{self, Endpoint};
use buttress::circuit_breaker::{Handle, State};
use buttress::part::PartLayer;
use buttress::{
    Balance, BoxError, Budget, BulkheadLayer, CircuitBreakerLayer, Deadline, DeadlineLayer, Error,
    ErrorKind, FallbackLayer, HedgeLayer, KeyedLayer, MeasureLayer, Outcome, Rate, RateLimitLayer,
    RetryLayer, TimeoutLayer, bulkhead, fallback, hedge, keyed, rate_limit, stack, standard,
};
use common::coin::Coin;
use common::{ATTEMPTS, BACKOFF, End, Kind, Layers, Plan, Probe, Task, kind as kind_of};
use tokio::time::{Instant, advance};
use tower::layer::layer_fn;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

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
        let once = u32::from(kind.asks_early());
        assert_eq!(
            (seen.reservations, seen.ready_polls),
            (once, once),
            "{kind:?}"
        );
        client.call(1).await.unwrap();
        assert_eq!(probe.seen().reservations, 1, "{kind:?}: the call uses it");

        Task::default().poll_ready(&mut client);
        assert_eq!(probe.seen().held, once, "{kind:?}");
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
        let tokens = || layers.rate_limit().map(|limit| limit.available());
        let before = tokens();
        Task::default().poll_ready(&mut idle);
        layers.assert_nothing_is_held(&format!("{kind:?}"));
        assert_eq!(tokens(), before, "{kind:?}");

        let held = layers.around(Probe::new(&[Plan::answer(0, End::Held)]));
        let mut call = held.oneshot(1);
        assert!(Task::default().poll(&mut call).is_pending(), "{kind:?}");
        let in_flight = u32::from(kind.is_paid());
        assert_eq!(layers.budget().in_flight(), in_flight, "{kind:?}");
        let permits = layers.bulkhead().map_or(1, |bulkhead| bulkhead.in_flight());
        assert_eq!(permits, 1, "{kind:?}");
        drop(call);
        layers.assert_nothing_is_held(&format!("{kind:?}"));
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
        let held = u32::from(kind.asks_early());
        assert_eq!(probe.seen().held, held, "{kind:?}");
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
    for kind in Kind::TIMELY {
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
async fn a_call_that_a_full_bulkhead_refuses_gives_the_reservation_back() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.limits()) {
        let probe = Probe::new(&[]);
        let layers = Layers::new(kind);
        let mut client = layers.around(probe.clone());
        Task::default().poll_ready(&mut client);
        let held = u32::from(kind.asks_early());
        assert_eq!(probe.seen().held, held, "{kind:?}");
        // One is in flight, and the others fill the queue.
        let mut others: Vec<_> = (0..=common::QUEUE)
            .map(|_| {
                layers
                    .around(Probe::new(&[Plan::answer(0, End::Held)]))
                    .oneshot(1)
            })
            .collect();
        for call in &mut others {
            assert!(Task::default().poll(call).is_pending(), "{kind:?}");
            let bulkhead = layers.bulkhead().expect("there has been a call");
            bulkhead.set_limit(1).unwrap();
        }
        let mut call = client.call(1);
        assert_eq!(probe.seen().held, 0, "{kind:?}: before the answer is read");
        let Poll::Ready(result) = Task::default().poll(&mut call) else {
            panic!("{kind:?}: refused at once");
        };
        assert_eq!(kind_of(&result), Some(ErrorKind::BulkheadFull), "{kind:?}");
        assert_eq!((probe.seen().held, probe.calls()), (0, 0), "{kind:?}");
        drop(others);
        client.call(1).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_its_turn_gives_the_reservation_back() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.queues()) {
        let probe = Probe::new(&[]);
        let layers = Layers::new(kind);
        let mut client = layers.around(probe.clone());
        let task = Task::default();
        task.poll_ready(&mut client);
        let held = u32::from(kind.asks_early());
        assert_eq!(probe.seen().held, held, "{kind:?}");
        let crowd = layers.crowd();
        let mut call = client.call(1);
        assert!(task.poll(&mut call).is_pending(), "{kind:?}");
        assert_eq!((probe.seen().held, probe.calls()), (0, 0), "{kind:?}");
        let result = loop {
            assert!(task.wait().await, "{kind:?}: its turn comes");
            if let Poll::Ready(result) = task.poll(&mut call) {
                break result;
            }
        };
        assert!(result.is_ok(), "{kind:?}: {result:?}");
        assert_eq!(probe.calls(), 1, "{kind:?}");
        drop(crowd);
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
        assert_eq!(
            error.service_error().unwrap().to_string(),
            "connection reset"
        );
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
async fn a_call_that_waits_for_its_turn_is_woken_only_when_it_comes() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.queues()) {
        let layers = Layers::new(kind);
        let crowd = layers.crowd();
        let task = Task::default();
        let mut call = layers.around(Probe::new(&[])).oneshot(1);
        let mut polls = 0;
        while task.poll(&mut call).is_pending() {
            polls += 1;
            while !task.was_woken() {
                advance(Duration::from_millis(1)).await;
            }
        }
        // For tokens and for a permit, and neither timer is to the point.
        assert!(polls <= 4, "{kind:?}: {polls}");
        drop(crowd);
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
        if kind.hedges() {
            let probe = Probe::new(&[Plan::answer(0, End::Held)]);
            let mut call = Layers::new(kind).around(probe.clone()).call(1);
            let task = polled_by_two(&mut call);
            assert!(task.wait().await, "{kind:?}: by the delay");
            assert!(task.poll(&mut call).is_ready(), "{kind:?}");
            assert_eq!(probe.calls(), 2, "{kind:?}: the hedge has answered");
            assert_eq!(probe.seen().held, 0, "{kind:?}: and the other is gone");
        }
        for has_one_ahead in [false, true] {
            if !kind.queues() {
                continue;
            }
            let layers = Layers::new(kind);
            let crowd = layers.crowd();
            let mut ahead = layers.around(Probe::new(&[])).oneshot(1);
            if has_one_ahead {
                assert!(Task::default().poll(&mut ahead).is_pending());
            }
            let mut call = layers.around(Probe::new(&[])).oneshot(1);
            let task = polled_by_two(&mut call);
            drop(ahead);
            let started = Instant::now();
            assert!(task.wait().await, "{kind:?}: by its turn");
            assert!(started.elapsed() < common::TIMEOUT, "{kind:?}: in time");
            drop(crowd);
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
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_paid()) {
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

#[tokio::test(start_paused = true)]
async fn one_layer_value_is_one_limit() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.queues()) {
        let (layers, others) = (Layers::new(kind), Layers::new(kind));
        let crowd = layers.crowd();
        let mut waits = layers.around(Probe::new(&[])).oneshot(1);
        assert!(Task::default().poll(&mut waits).is_pending(), "{kind:?}");
        let mut passes = others.around(Probe::new(&[])).oneshot(1);
        assert!(Task::default().poll(&mut passes).is_ready(), "{kind:?}");
        drop(crowd);
    }
}

/// A request and a response that may go to another thread, but not be used by two at once.
#[derive(Clone, Debug)]
struct NotSync(PhantomData<Cell<u8>>);

type Inner = BoxCloneSyncService<NotSync, NotSync, BoxError>;

/// Holds only for what may be shared between threads and moved about.
fn shareable<T: Clone + Send + Sync + Unpin + 'static>() {}

/// Holds only for what may go to other threads.
fn movable<T: Send + Sync + Unpin + 'static>() {}

fn wraps_what_is_not_sync<L>(_: &L)
where
    L: Layer<Inner> + Clone + Send + Sync + Unpin + 'static,
    L::Service:
        Service<NotSync, Response = NotSync, Error = Error> + Clone + Send + Sync + Unpin + 'static,
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
    wraps_what_is_not_sync(&RateLimitLayer::new(name, Rate::per_second(1)));
    wraps_what_is_not_sync(&BulkheadLayer::new(name, 1));
    wraps_what_is_not_sync(&HedgeLayer::new(name));
    wraps_what_is_not_sync(&PartLayer::of(name, Coin::new(name, 1.0, 1)));
    let failed = |_: fallback::Failed<'_, NotSync>| None;
    wraps_what_is_not_sync(&FallbackLayer::new(name, fallback::from_failure(failed)));
    let second = Inner::new(service_fn(|request| ready(Ok::<_, BoxError>(request))));
    wraps_what_is_not_sync(&FallbackLayer::new(name, fallback::service(second)));
    let per_key = |_: &u32| {
        (
            CircuitBreakerLayer::new("key"),
            BulkheadLayer::new("key", 1),
        )
    };
    wraps_what_is_not_sync(&KeyedLayer::new(name, |_: &NotSync| 1, per_key));
    let all = standard(name)
        .hedge(|hedge| hedge)
        .rate_limit(Rate::per_second(9), |limit| limit)
        .concurrency_limit(1);
    wraps_what_is_not_sync(&all.build().expect("is valid"));
    let stack = ServiceBuilder::new().layer(measure).layer(deadline);
    wraps_what_is_not_sync(&stack.layer(retry).layer(breaker).layer(timeout));
    let balance = layer_fn(move |inner: Inner| {
        let balance = Balance::new(name, [Endpoint::new(1, inner)]);
        balance.expect("is valid")
    });
    wraps_what_is_not_sync(&balance);
    shareable::<Handle>();
    shareable::<balance::Handle<Inner>>();
    shareable::<rate_limit::Handle>();
    shareable::<bulkhead::Handle>();
    shareable::<hedge::Handle>();
    shareable::<keyed::Handle<u32, BulkheadLayer>>();
    shareable::<stack::Handle>();
    shareable::<Budget>();
    shareable::<Deadline>();
    movable::<Error>();
}
