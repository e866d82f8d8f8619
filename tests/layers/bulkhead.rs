//! What a bulkhead does to calls.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]
#![allow(clippy::float_cmp, reason = "the levels are whole numbers")]

use crate::common;
use crate::recorded;
use crate::steered;

use std::collections::BTreeMap;
use std::future::{pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::debugging::{DebuggingRecorder, Snapshotter};
use buttress::bulkhead::{Aimd, Config, Handle, Limit, LimitPolicy, QueueOrder, Sample};
use buttress::{
    Availability, BoxError, BulkheadLayer, Deadline, DeadlineLayer, Error, ErrorKind, Evictable,
    Mode, Outcome, Permit, TimeoutLayer, TrackCompletion, classify_fn,
};
use common::{End, GOOD, Plan, Probe, Task};
use proptest::prelude::*;
use steered::Steered;
use tokio::sync::oneshot;
use tokio::time::{Instant, advance, sleep};
use tokio_test::task::{Spawn, spawn};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn config(limit: usize) -> Config {
    BulkheadLayer::config("inventory", limit)
}

/// A bulkhead with a queue of 100.
fn queueing(limit: usize) -> BulkheadLayer {
    config(limit).queue(100).build().unwrap()
}

type Answer = Result<&'static str, Error>;

/// The answer that the backend is told to give.
type Given = Result<&'static str, BoxError>;

/// A call that is polled by hand and answered by hand.
struct Held {
    call: Spawn<Pin<Box<dyn Future<Output = Answer>>>>,
    answer: Option<oneshot::Sender<Given>>,
}

/// Makes a call through `layer`, and polls it once.
fn call<L>(layer: &L) -> Held
where
    L: Layer<Backend>,
    L::Service: Service<Request, Response = &'static str, Error = Error> + 'static,
{
    let (answer, request) = oneshot::channel();
    let call = layer.layer(Backend).oneshot(request);
    let mut held = Held {
        call: spawn(Box::pin(call)),
        answer: Some(answer),
    };
    if let Poll::Ready(result) = held.call.poll() {
        let _sent = held.answer.take().unwrap().send(result.map_err(Into::into));
        held.answer = None;
    }
    held
}

type Request = oneshot::Receiver<Given>;

/// Answers when the other end of the request says so.
#[derive(Clone)]
struct Backend;

impl Service<Request> for Backend {
    type Response = &'static str;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Given>>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Box::pin(async move { request.await? })
    }
}

impl Held {
    /// Answers the call, which is in flight.
    fn answer(mut self, answer: Given) -> Answer {
        self.answer.take().unwrap().send(answer).unwrap();
        match self.call.poll() {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("is not in flight"),
        }
    }

    fn succeed(self) {
        assert_eq!(self.answer(Ok("bolts")).unwrap(), "bolts");
    }
}

fn kind(answer: &Answer) -> Option<ErrorKind> {
    let kind = answer.as_ref().err()?.kind();
    (kind != ErrorKind::Service).then_some(kind)
}

/// Makes a call that ends at its first poll.
fn refused<L>(layer: &L) -> Option<ErrorKind>
where
    L: Layer<Backend>,
    L::Service: Service<Request, Response = &'static str, Error = Error> + 'static,
{
    let (_answer, request) = oneshot::channel();
    match spawn(layer.layer(Backend).oneshot(request)).poll() {
        Poll::Ready(answer) => kind(&answer),
        Poll::Pending => None,
    }
}

fn levels(handle: &Handle) -> (usize, usize) {
    (handle.in_flight(), handle.queued())
}

// A timer cannot be made without a runtime, so there is none.
#[test]
fn a_full_bulkhead_rejects_at_once_without_a_timer_or_a_runtime() {
    let layer = BulkheadLayer::new("inventory", 2);
    let held = [call(&layer), call(&layer)];
    assert_eq!(levels(&layer.handle()), (2, 0));
    assert_eq!(refused(&layer), Some(ErrorKind::BulkheadFull));
    let [first, second] = held;
    first.succeed();
    let third = call(&layer);
    assert_eq!(refused(&layer), Some(ErrorKind::BulkheadFull));
    second.succeed();
    third.succeed();
    assert_eq!(levels(&layer.handle()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn full_is_an_answer_and_not_a_service_that_is_not_ready() {
    let layer = BulkheadLayer::new("inventory", 1);
    let held = call(&layer);
    let mut service = layer.wrap(service_fn(|(): ()| pending::<Result<(), BoxError>>()));
    for _ in 0..10 {
        assert!(spawn(service.ready()).poll().is_ready());
    }
    let error = service.call(()).await.unwrap_err();
    assert!(error.is_rejection() && !error.was_sent());
    assert_eq!(error.to_string(), "bulkhead \"inventory\" is full");
    held.succeed();
}

#[tokio::test(start_paused = true)]
async fn a_queue_of_n_holds_n_and_a_queue_of_0_none() {
    for length in [0, 1, 7] {
        let layer = config(1).queue(length).build().unwrap();
        let held = call(&layer);
        let waiting: Vec<_> = (0..length).map(|_| call(&layer)).collect();
        assert_eq!(levels(&layer.handle()), (1, length));
        assert_eq!(refused(&layer), Some(ErrorKind::BulkheadFull));
        drop(waiting);
        assert_eq!(levels(&layer.handle()), (1, 0));
        held.succeed();
    }
}

/// Makes a call, and waits for its end.
fn timed(
    layer: &BulkheadLayer,
) -> impl Future<Output = (Option<ErrorKind>, Duration)> + Send + 'static {
    let service = service_fn(|(): ()| ready(Ok::<_, BoxError>("bolts")));
    let service = BoxCloneSyncService::new(layer.layer(service));
    async move {
        let began = Instant::now();
        let answer = service.oneshot(()).await;
        (kind(&answer), began.elapsed())
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_100_ms_and_20_once_the_queue_has_not_been_empty_for_100() {
    let layer = queueing(1);
    let held = call(&layer);
    let timeout = Some(ErrorKind::QueueTimeout);
    assert_eq!(timed(&layer).await, (timeout, 100 * MS));
    assert_eq!(timed(&layer).await, (timeout, 100 * MS), "it was empty");

    let first = tokio::spawn(timed(&layer));
    let mut others = Vec::new();
    for _ in 0..15 {
        sleep(15 * MS).await;
        others.push(tokio::spawn(timed(&layer)));
    }
    assert_eq!(first.await.unwrap(), (timeout, 100 * MS));
    let mut waits = Vec::new();
    for call in others {
        let (kind, wait) = call.await.unwrap();
        assert_eq!(kind, timeout);
        waits.push(wait.as_millis());
    }
    assert_eq!(waits[..6], [85, 70, 55, 40, 25, 20]);
    assert!(waits[6..].iter().all(|wait| *wait == 20), "{waits:?}");
    held.succeed();
}

#[tokio::test(start_paused = true)]
async fn the_times_can_be_set() {
    let layer = config(1)
        .queue(9)
        .queue_wait(SECOND)
        .overloaded_wait(SECOND / 2)
        .overloaded_after(SECOND / 4)
        .build()
        .unwrap();
    let held = call(&layer);
    assert_eq!(timed(&layer).await.1, SECOND / 2);
    held.succeed();
}

#[tokio::test(start_paused = true)]
async fn a_shorter_wait_than_that_of_an_overloaded_queue_is_enough_to_be_said_once() {
    let layer = config(1).queue(9).queue_wait(10 * MS).build().unwrap();
    let held = call(&layer);
    assert_eq!(timed(&layer).await.1, 10 * MS);
    held.succeed();
}

#[tokio::test(start_paused = true)]
async fn a_burst_that_can_be_served_within_the_queue_wait_is_served() {
    let layer = config(10).queue(400).queue_wait(SECOND).build().unwrap();
    let service = layer.layer(service_fn(|(): ()| async {
        sleep(10 * MS).await;
        Ok::<_, BoxError>("bolts")
    }));
    let began = Instant::now();
    let calls: Vec<_> = (0..400)
        .map(|_| tokio::spawn(service.clone().oneshot(())))
        .collect();
    let mut served = 0;
    for call in calls {
        served += usize::from(call.await.unwrap().is_ok());
    }
    assert_eq!((served, began.elapsed()), (400, 400 * MS));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_not_empty_for_its_wait_lets_calls_wait_for_a_fifth_of_it() {
    for wait in [10 * MS, 100 * MS, SECOND, 10 * SECOND] {
        let layer = config(1).queue(99).queue_wait(wait).build().unwrap();
        let held = call(&layer);
        let mut calls = Vec::new();
        for _ in 0..15 {
            calls.push(tokio::spawn(timed(&layer)));
            sleep(wait / 10).await;
        }
        let mut tenths = Vec::new();
        for call in calls {
            let (kind, waited) = call.await.unwrap();
            assert_eq!(kind, Some(ErrorKind::QueueTimeout));
            tenths.push(waited.as_micros() * 10 / wait.as_micros());
        }
        assert_eq!(tenths, [10, 9, 8, 7, 6, 5, 4, 3, 2, 2, 2, 2, 2, 2, 2]);
        assert_eq!(timed(&layer).await.1, wait, "it was empty");
        held.succeed();
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_free_in_time_ends_the_wait() {
    let layer = queueing(1);
    let held = call(&layer);
    let waiting = tokio::spawn(timed(&layer));
    sleep(60 * MS).await;
    held.succeed();
    assert_eq!(waiting.await.unwrap(), (None, 60 * MS));
}

#[tokio::test(start_paused = true)]
async fn permits_are_handed_on_in_order() {
    for (order, turns) in [
        (QueueOrder::Fifo, [0, 1, 2, 3]),
        (QueueOrder::Lifo, [3, 2, 1, 0]),
    ] {
        let layer = config(1).queue(9).queue_order(order).build().unwrap();
        let mut held = call(&layer);
        let mut waiting: BTreeMap<_, _> = (0..4).map(|n| (n, call(&layer))).collect();
        for turn in turns {
            held.succeed();
            assert_eq!(levels(&layer.handle()), (1, waiting.len() - 1));
            for (n, waiter) in &waiting {
                assert_eq!(
                    waiter.call.is_woken(),
                    *n == turn,
                    "{order:?}: {n} at {turn}"
                );
            }
            held = waiting.remove(&turn).unwrap();
            assert!(held.call.poll().is_pending(), "in flight");
        }
        held.succeed();
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_past_the_queue() {
    let layer = queueing(1);
    let held = call(&layer);
    let mut first = call(&layer);
    held.succeed();
    // The permit belongs to the first, although he does not know yet.
    let mut second = call(&layer);
    assert_eq!(levels(&layer.handle()), (1, 1));
    assert!(first.call.poll().is_pending());
    first.succeed();
    assert!(second.call.is_woken());
    assert!(second.call.poll().is_pending());
    second.succeed();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_goes_away_just_after_it_got_a_permit_hands_it_on() {
    let layer = queueing(1);
    let held = call(&layer);
    let [first, mut second] = [call(&layer), call(&layer)];
    held.succeed();
    assert!(first.call.is_woken() && !second.call.is_woken());
    drop(first);
    assert!(second.call.is_woken());
    assert!(second.call.poll().is_pending());
    second.succeed();
    assert_eq!(levels(&layer.handle()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_goes_away_while_it_waits_costs_nobody_his_turn() {
    let layer = queueing(1);
    let held = call(&layer);
    let [first, mut second] = [call(&layer), call(&layer)];
    drop(first);
    held.succeed();
    assert!(second.call.is_woken());
    assert!(second.call.poll().is_pending());
    second.succeed();
    assert_eq!(levels(&layer.handle()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_moves_to_another_task_is_woken_there() {
    let layer = queueing(1);
    let held = call(&layer);
    let (_answer, request) = oneshot::channel::<Given>();
    let mut waiting = Box::pin(layer.layer(Backend).oneshot(request));
    let [first, second] = [Task::default(), Task::default()];
    assert!(first.poll(&mut waiting).is_pending());
    assert!(second.poll(&mut waiting).is_pending());
    held.succeed();
    assert_eq!((first.was_woken(), second.was_woken()), (false, true));
    drop(waiting);
    assert!(first.is_forgotten() && second.is_forgotten());
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_is_not_polled_for_nothing() {
    let layer = queueing(1);
    let _held = call(&layer);
    let polls = AtomicUsize::new(0);
    let (_answer, request) = oneshot::channel::<Given>();
    let mut waiting = Box::pin(layer.layer(Backend).oneshot(request));
    let answer = std::future::poll_fn(|cx| {
        polls.fetch_add(1, Ordering::Relaxed);
        waiting.as_mut().poll(cx)
    });
    assert_eq!(kind(&answer.await), Some(ErrorKind::QueueTimeout));
    assert_eq!(polls.into_inner(), 2, "at its beginning and at its end");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_a_deadline_that_a_later_poll_sets() {
    let layer = queueing(1);
    let held = call(&layer);
    let start = Instant::now();
    let (_answer, request) = oneshot::channel::<Given>();
    let mut waiting = Box::pin(layer.layer(Backend).oneshot(request));
    assert!(Task::default().poll(&mut waiting).is_pending());
    let answer = Deadline::after(10 * MS).scope(waiting).await;
    assert_eq!(kind(&answer), Some(ErrorKind::DeadlineExceeded));
    assert_eq!(start.elapsed(), 10 * MS);
    held.succeed();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_polls_keeps_nobody_from_a_permit() {
    let layer = queueing(1);
    let held = call(&layer);
    let mut service = layer.layer(service_fn(|(): ()| ready(Ok::<_, BoxError>("bolts"))));
    let unpolled = service.call(());
    assert_eq!(levels(&layer.handle()), (1, 0));
    let waiting = tokio::spawn(timed(&layer));
    sleep(10 * MS).await;
    held.succeed();
    assert_eq!(waiting.await.unwrap(), (None, 10 * MS));
    assert_eq!(unpolled.await.unwrap(), "bolts");
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_keeps_nobody_waiting() {
    struct Panics(AtomicUsize);

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            let wakes = self.0.fetch_add(1, Ordering::Relaxed);
            assert!(wakes > 0, "the waker panics");
        }
    }

    let layer = queueing(1);
    let held = call(&layer);
    let panics = Waker::from(Arc::new(Panics(AtomicUsize::new(0))));
    let mut services = [(); 2].map(|()| layer.layer(Backend).oneshot(oneshot::channel().1));
    for call in &mut services {
        let mut cx = Context::from_waker(&panics);
        assert!(Pin::new(call).poll(&mut cx).is_pending());
    }
    let mut waiting = call(&layer);
    let result = catch_unwind(AssertUnwindSafe(|| layer.handle().set_limit(4)));
    assert!(result.is_err());
    assert_eq!(levels(&layer.handle()), (4, 0));
    assert!(waiting.call.is_woken() && waiting.call.poll().is_pending());
    waiting.succeed();
    held.succeed();
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_the_deadline() {
    let layer = queueing(1);
    let held = call(&layer);
    let exceeded = Some(ErrorKind::DeadlineExceeded);
    let soon = Deadline::after(30 * MS);
    assert_eq!(soon.scope(timed(&layer)).await, (exceeded, 30 * MS));
    assert_eq!(soon.scope(timed(&layer)).await, (exceeded, Duration::ZERO));
    let late = Deadline::after(SECOND);
    let timeout = Some(ErrorKind::QueueTimeout);
    assert_eq!(late.scope(timed(&layer)).await, (timeout, 100 * MS));

    let outer = DeadlineLayer::new("inventory", 50 * MS);
    let stack = (outer, layer.clone());
    let answer = stack.layer(Backend).oneshot(oneshot::channel().1).await;
    let error = answer.unwrap_err();
    assert_eq!(Some(error.kind()), exceeded);
    held.succeed();
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_comes_after_the_deadline_goes_to_the_next() {
    let layer = queueing(1);
    let held = call(&layer);
    let (_answer, request) = oneshot::channel::<Given>();
    let late = Deadline::after(30 * MS).scope(layer.layer(Backend).oneshot(request));
    let mut late = spawn(late);
    assert!(late.poll().is_pending());
    let mut next = call(&layer);
    advance(30 * MS).await;
    held.succeed();
    let Poll::Ready(answer) = late.poll() else {
        panic!("its time is over");
    };
    assert_eq!(kind(&answer), Some(ErrorKind::DeadlineExceeded));
    assert!(next.call.is_woken());
    assert!(next.call.poll().is_pending());
    next.succeed();
}

#[tokio::test(start_paused = true)]
async fn those_who_have_waited_too_long_do_not_get_a_permit_however_late_they_are_polled() {
    let layer = queueing(1);
    let held = call(&layer);
    let mut late = call(&layer);
    advance(90 * MS).await;
    let mut fresh = call(&layer);
    advance(11 * MS).await;
    held.succeed();
    assert!(fresh.call.is_woken());
    assert!(fresh.call.poll().is_pending(), "in flight");
    let Poll::Ready(answer) = late.call.poll() else {
        panic!("its time is over");
    };
    assert_eq!(kind(&answer), Some(ErrorKind::QueueTimeout));
    fresh.succeed();
    assert_eq!(levels(&layer.handle()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lower_limit_lets_nobody_in_until_enough_have_ended() {
    let layer = queueing(4);
    let handle = layer.handle();
    let [first, second, third, fourth] = [(); 4].map(|()| call(&layer));
    handle.set_limit(2).unwrap();
    assert_eq!((handle.limit(), handle.in_flight()), (2, 4));
    let mut waiting = call(&layer);
    for held in [first, second] {
        held.succeed();
        assert!(!waiting.call.is_woken());
    }
    assert_eq!(levels(&handle), (2, 1));
    third.succeed();
    assert!(waiting.call.is_woken());
    assert!(waiting.call.poll().is_pending());
    assert_eq!(levels(&handle), (2, 0));
    waiting.succeed();
    fourth.succeed();
}

#[tokio::test(start_paused = true)]
async fn a_higher_limit_lets_as_many_in_as_fit() {
    let layer = queueing(1);
    let handle = layer.handle();
    let held = call(&layer);
    let mut waiting = [(); 5].map(|()| call(&layer));
    handle.set_limit(4).unwrap();
    assert_eq!(levels(&handle), (4, 2));
    let woken = waiting.each_ref().map(|waiter| waiter.call.is_woken());
    assert_eq!(woken, [true, true, true, false, false]);
    for waiter in &mut waiting[..3] {
        assert!(waiter.call.poll().is_pending());
    }
    drop(waiting);
    held.succeed();
    assert_eq!(levels(&handle), (0, 0));
}

/// Overlays made by a change of the default.
fn settings(
    change: impl FnOnce(&mut buttress::settings::Bulkhead),
) -> buttress::settings::Bulkhead {
    let mut settings = buttress::settings::Bulkhead::default();
    change(&mut settings);
    settings
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_stay_in_order_when_limit_and_queue_become_smaller() {
    let layer = queueing(2);
    let handle = layer.handle();
    let [first, second] = [(); 2].map(|()| call(&layer));
    let mut waiting = [(); 3].map(|()| call(&layer));
    let smaller = settings(|to| (to.limit, to.queue) = (Some(1), Some(1)));
    handle.apply(&smaller).unwrap();
    assert_eq!((handle.limit(), levels(&handle)), (1, (2, 3)));
    assert_eq!(refused(&layer), Some(ErrorKind::BulkheadFull));
    first.succeed();
    let woken = |waiting: &[Held]| -> Vec<_> {
        let woken = waiting.iter().map(|waiter| waiter.call.is_woken());
        woken.collect()
    };
    assert_eq!(woken(&waiting), [false; 3]);
    second.succeed();
    assert_eq!(woken(&waiting), [true, false, false]);
    assert!(waiting[0].call.poll().is_pending());

    handle.apply(&<_>::default()).unwrap();
    assert_eq!((handle.limit(), levels(&handle)), (2, (2, 1)));
    assert_eq!(woken(&waiting[1..]), [true, false]);
    assert_eq!(refused(&layer), None, "the queue is that of the code again");
}

#[tokio::test(start_paused = true)]
async fn a_longer_queue_wait_counts_for_the_next_calls() {
    let layer = queueing(1);
    let handle = layer.handle();
    let _held = call(&layer);
    let mut former = call(&layer);
    handle
        .apply(&settings(|to| to.queue_wait = Some(SECOND)))
        .unwrap();
    let mut next = call(&layer);
    advance(101 * MS).await;
    assert!(former.call.poll().is_ready());
    assert!(next.call.poll().is_pending());
    advance(SECOND).await;
    assert!(next.call.poll().is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_was_set_stays_until_the_limit_of_the_settings_changes() {
    let handle = queueing(3).handle();
    handle.set_limit(7).unwrap();
    handle.apply(&settings(|to| to.queue = Some(9))).unwrap();
    assert_eq!(handle.limit(), 7);
    handle.apply(&settings(|to| to.limit = Some(5))).unwrap();
    assert_eq!(handle.limit(), 5);
    handle.apply(&<_>::default()).unwrap();
    assert_eq!(handle.limit(), 3);
}

#[test]
fn settings_that_cannot_be_applied_change_nothing_and_are_named() {
    let fixed = queueing(3);
    let adaptive = BulkheadLayer::new("inventory", Aimd::between(1, 10));
    let many = Some(1_000_001);
    for (field, layer, bad) in [
        ("limit", &fixed, settings(|to| to.limit = Some(0))),
        ("limit", &adaptive, settings(|to| to.limit = Some(5))),
        ("queue", &fixed, settings(|to| to.queue = many)),
        (
            "queue_wait",
            &fixed,
            settings(|to| to.queue_wait = Some(Duration::ZERO)),
        ),
        (
            "overloaded_wait",
            &fixed,
            settings(|to| to.overloaded_wait = Some(SECOND)),
        ),
    ] {
        let handle = layer.handle();
        let before = format!("{handle:?}");
        let mut bad = bad;
        bad.mode = Some(Mode::Observe);
        assert_eq!(handle.apply(&bad).unwrap_err().field(), field);
        assert_eq!(format!("{handle:?}"), before);
        assert!(layer.is_evictable(Instant::now()), "it is as it was built");
    }
}

#[tokio::test(start_paused = true)]
async fn the_mode_changes_while_the_bulkhead_runs_and_lets_waiting_calls_in() {
    let layer = config(1).queue(2).build().unwrap();
    let handle = layer.handle();
    let _held = call(&layer);
    let mut waiting = [(); 2].map(|()| call(&layer));
    assert_eq!(refused(&layer), Some(ErrorKind::BulkheadFull));

    handle.set_mode(Mode::Observe);
    assert_eq!(levels(&handle), (3, 0));
    for waiter in &mut waiting {
        assert!(waiter.call.is_woken() && waiter.call.poll().is_pending());
    }
    let passed = call(&layer);
    assert_eq!(levels(&handle), (4, 0));
    assert!(handle.is_available());
    assert!(!layer.is_evictable(Instant::now()));

    handle.apply(&<_>::default()).unwrap();
    let _waiting = [(); 2].map(|()| call(&layer));
    assert_eq!(levels(&handle), (4, 2));
    assert!(!handle.is_available());
    passed.succeed();
    assert_eq!(levels(&handle), (3, 2), "more are in flight than may be");
}

#[test]
fn a_bulkhead_that_makes_no_sense_is_refused() {
    let refuses = |field: &str, config: Config| {
        let error = config.build().unwrap_err();
        assert_eq!(
            (error.layer(), error.field()),
            ("bulkhead", field),
            "{error}"
        );
    };
    for limit in [0, 1_000_001, usize::MAX] {
        refuses("limit", config(limit));
        refuses("min", BulkheadLayer::config("a", Aimd::between(limit, 5)));
        refuses("max", BulkheadLayer::config("a", Aimd::between(5, limit)));
        let error = BulkheadLayer::new("a", 1).handle().set_limit(limit);
        assert_eq!(error.unwrap_err().field(), "limit");
        refuses(
            "limit",
            BulkheadLayer::config("a", Limit::policy(move || Reckless(limit))),
        );
    }
    let aimd = Aimd::between(5, 50);
    refuses("min", BulkheadLayer::config("a", Aimd::between(6, 5)));
    for initial in [4, 51] {
        refuses("initial", BulkheadLayer::config("a", aimd.initial(initial)));
    }
    for share in [0.0, 1.0, -0.5, f64::NAN, f64::INFINITY] {
        refuses("backoff", BulkheadLayer::config("a", aimd.backoff(share)));
    }
    for time in [Duration::ZERO, Duration::MAX] {
        refuses(
            "slow_calls",
            BulkheadLayer::config("a", aimd.slow_calls(time)),
        );
        refuses("queue_wait", config(1).queue_wait(time));
        refuses("overloaded_wait", config(1).overloaded_wait(time));
        refuses("overloaded_after", config(1).overloaded_after(time));
    }
    refuses("overloaded_wait", config(1).overloaded_wait(101 * MS));
    for length in [1_000_001, usize::MAX] {
        refuses("queue", config(1).queue(length));
    }
    refuses("name", BulkheadLayer::config("", 1));
    assert_eq!(
        BulkheadLayer::config("a", usize::MAX)
            .build()
            .unwrap_err()
            .to_string(),
        format!(
            "bulkhead \"a\": limit is {}, but must be 1 to 1000000",
            usize::MAX
        ),
    );
    assert!(config(1_000_000).queue(1_000_000).build().is_ok());
    assert_eq!(config(1), config(1));
    assert_ne!(config(1), config(2));
}

/// A policy that answers whatever it was given.
struct Reckless(usize);

impl LimitPolicy for Reckless {
    fn initial(&self) -> usize {
        self.0
    }

    fn update(&self, _: &Sample) -> usize {
        self.0
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_cannot_set_a_limit_of_nothing() {
    struct Nothing;

    impl LimitPolicy for Nothing {
        fn initial(&self) -> usize {
            3
        }

        fn update(&self, _: &Sample) -> usize {
            0
        }
    }

    let layer = BulkheadLayer::new("inventory", Limit::policy(|| Nothing));
    call(&layer).succeed();
    assert_eq!(layer.handle().limit(), 1);
    call(&layer).succeed();
}

/// What a policy is told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Sample>>>);

impl LimitPolicy for Told {
    fn initial(&self) -> usize {
        2
    }

    fn update(&self, sample: &Sample) -> usize {
        self.0.lock().unwrap().push(*sample);
        sample.limit
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_told_how_long_calls_took_without_their_time_in_the_queue() {
    let told = Told::default();
    let policy = told.clone();
    let classify = classify_fn(|result: Result<&&str, &Error>| match result {
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Overload { retry_after: None },
    });
    let bulkhead = BulkheadLayer::config("inventory", Limit::policy(move || policy.clone()))
        .queue(9)
        .classify(classify)
        .build()
        .unwrap();
    let layer = (bulkhead, TimeoutLayer::new("inventory", SECOND));
    let [first, second, mut queued] = [(); 3].map(|()| call(&layer));
    advance(40 * MS).await;
    first.succeed();
    assert!(queued.call.poll().is_pending());
    advance(10 * MS).await;
    queued.answer(Err("busy".into())).unwrap_err();
    drop(second);
    let mut late = call(&layer);
    advance(SECOND).await;
    assert!(late.call.poll().is_ready());

    let told: Vec<_> = told.0.lock().unwrap().drain(..).collect();
    let overload = Outcome::Overload { retry_after: None };
    let told: Vec<_> = told
        .iter()
        .map(|s| {
            (
                s.round_trip.as_millis(),
                s.in_flight,
                s.outcome,
                s.timed_out,
            )
        })
        .collect();
    let expected = [
        (40, 2, Outcome::Success, false),
        (10, 2, overload, false),
        (50, 2, Outcome::Cancelled, false),
        (1_000, 1, overload, true),
    ];
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_shrinks_on_timeouts_once_per_round_trip_and_grows_back() {
    let layer = BulkheadLayer::new("inventory", Aimd::between(2, 20));
    let handle = layer.handle();
    let stack = (layer, TimeoutLayer::new("inventory", SECOND));
    for limit in [18, 16] {
        advance(MS).await;
        let mut held: Vec<_> = (0..10).map(|_| call(&stack)).collect();
        advance(SECOND).await;
        for call in &mut held {
            assert!(call.call.poll().is_ready());
        }
        assert_eq!(handle.limit(), limit, "ten timeouts shrink it once");
    }
    for limit in [17, 18, 19, 20, 20] {
        advance(MS).await;
        let held: Vec<_> = (0..handle.limit()).map(|_| call(&stack)).collect();
        advance(MS).await;
        held.into_iter().for_each(Held::succeed);
        assert_eq!(handle.limit(), limit);
    }
    for _ in 0..100 {
        advance(MS).await;
        call(&stack).succeed();
    }
    assert!(!handle.is_available() || handle.limit() == 20);
}

#[tokio::test(start_paused = true)]
async fn an_observing_bulkhead_lets_pass_without_waiting() {
    let layer = config(1).queue(1).mode(Mode::Observe).build().unwrap();
    let handle = layer.handle();
    let held = [(); 5].map(|()| call(&layer));
    assert_eq!(levels(&handle), (5, 0));
    assert!(handle.is_available());
    held.into_iter().for_each(Held::succeed);
    assert_eq!(levels(&handle), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_observing_bulkhead_leaves_the_readiness_of_the_inner_service_to_its_caller() {
    let layer = config(1).mode(Mode::Observe).build().unwrap();
    let _held = call(&layer);
    let probe = Probe::new(&[Plan::GOOD]);
    let mut service = layer.layer(probe.clone());
    let ready = ServiceExt::<u32>::ready(&mut service);
    assert!(spawn(ready).poll().is_ready());
    assert_eq!(probe.seen().reservations, 1, "no box has to wait for it");
}

#[tokio::test(start_paused = true)]
async fn is_available_while_a_call_would_not_be_rejected_at_once() {
    let layer = config(1).queue(1).build().unwrap();
    let handle = layer.handle();
    assert_eq!((handle.name(), handle.is_available()), ("inventory", true));
    let held = call(&layer);
    assert!(handle.is_available(), "a place in the queue");
    let waiting = call(&layer);
    assert!(!handle.is_available());
    drop((held, waiting));
    assert!(handle.is_available());
}

#[tokio::test(start_paused = true)]
async fn is_forgotten_when_it_is_as_it_was_built() {
    let layer = queueing(1);
    let can = || layer.is_evictable(Instant::now());
    assert!(can());
    let held = call(&layer);
    assert!(!can());
    let waiting = call(&layer);
    drop(held);
    assert!(!can());
    drop(waiting);
    assert!(can());
    layer.handle().set_limit(2).unwrap();
    assert!(!can(), "a new one would have another limit");
    layer.handle().set_limit(1).unwrap();
    assert!(can());
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_permits_and_two_builds_do_not() {
    let config = config(1);
    let [one, other] = [config.clone(), config].map(|config| config.build().unwrap());
    let held = call(&one);
    assert_eq!(refused(&one.clone()), Some(ErrorKind::BulkheadFull));
    call(&other).succeed();
    held.succeed();
}

/// A call is over when its response is dropped.
#[derive(Clone, Copy)]
struct WhenDropped;

struct Carrying<T: Permit>(Option<T>);

impl<Res, K> TrackCompletion<Res, K> for WhenDropped {
    type Response<T: Permit> = Carrying<T>;

    fn attach<T: Permit>(&self, _: Res, _: Outcome, _: &K, permit: Option<T>) -> Carrying<T> {
        Carrying(permit)
    }
}

#[tokio::test(start_paused = true)]
async fn the_permit_is_held_until_the_call_is_complete() {
    let layer = config(1).completion(WhenDropped).build().unwrap();
    let service = layer.layer(service_fn(|(): ()| async { Ok::<_, BoxError>(()) }));
    let response = service.clone().oneshot(()).await.unwrap();
    assert_eq!(layer.handle().in_flight(), 1);
    assert!(service.clone().oneshot(()).await.is_err());
    drop(response);
    assert_eq!(layer.handle().in_flight(), 0);
    assert!(service.oneshot(()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_is_over_before_its_permit_comes_back() {
    struct Over(Handle, Arc<AtomicUsize>);

    impl Drop for Over {
        fn drop(&mut self) {
            self.1.store(self.0.in_flight(), Ordering::Relaxed);
        }
    }

    let (layer, seen) = (config(1).build().unwrap(), Arc::default());
    let over = Over(layer.handle(), Arc::clone(&seen));
    let over = Arc::new(Mutex::new(Some(over)));
    let service = layer.layer(service_fn(move |()| {
        let over = over.lock().unwrap().take();
        async move {
            pending::<()>().await;
            drop(over);
            Ok::<_, BoxError>(())
        }
    }));
    let mut call = spawn(service.oneshot(()));
    assert!(call.poll().is_pending());
    drop(call);
    assert_eq!(seen.load(Ordering::Relaxed), 1, "it still had its permit");
    assert_eq!(layer.handle().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_at_any_point_gives_everything_back() {
    let plan = Plan {
        readiness: (2, GOOD),
        panics_in_call: false,
        answer: (2, GOOD),
    };
    for limit in [Limit::from(1), Aimd::between(1, 1).into()] {
        for must_wait in [false, true] {
            let mut polls = 0;
            loop {
                let probe = Probe::new(&[plan]);
                let layer = BulkheadLayer::config("inventory", limit.clone()).queue(1);
                let layer = layer.build().unwrap();
                let mut held = must_wait.then(|| call(&layer));
                let task = Task::default();
                let mut call = Box::pin(layer.layer(probe.clone()).oneshot(1));
                let mut is_over = false;
                for poll in 0..polls {
                    is_over = task.poll(&mut call).is_ready();
                    if poll == 0 {
                        // It may be dropped with a permit that it does not know of.
                        held.take().into_iter().for_each(Held::succeed);
                    }
                }
                drop(call);
                assert_eq!(probe.seen().held, 0, "after {polls} polls");
                held.into_iter().for_each(Held::succeed);
                assert_eq!(levels(&layer.handle()), (0, 0), "after {polls} polls");
                assert!(task.is_forgotten(), "after {polls} polls");
                if is_over {
                    break;
                }
                polls += 1;
            }
            assert!(polls >= 4, "{polls}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_gives_the_permit_back() {
    let panics = [
        Plan {
            panics_in_call: true,
            ..Plan::GOOD
        },
        Plan::readiness(0, End::Panic),
        Plan::answer(0, End::Panic),
        Plan::answer(1, End::Panic),
    ];
    for plan in panics {
        let layer = queueing(1);
        let probe = Probe::new(&[plan]);
        let task = Task::default();
        let run = || {
            let mut call = Box::pin(layer.layer(probe.clone()).oneshot(1));
            while task.poll(&mut call).is_pending() {}
        };
        catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        assert_eq!(
            (levels(&layer.handle()), probe.seen().held),
            ((0, 0), 0),
            "{plan:?}"
        );
    }
    let panics = classify_fn(|_: Result<&common::Response, &Error>| -> Outcome {
        panic!("the classifier panics")
    });
    let layer = config(1).queue(9).classify(panics).build().unwrap();
    let run = || {
        spawn(layer.layer(Probe::new(&[])).oneshot(1))
            .poll()
            .is_ready()
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    assert_eq!(levels(&layer.handle()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_of_the_inner_service_is_held_while_a_call_waits() {
    // Readiness that is reserved, and readiness that is waited for.
    for readiness in [GOOD, End::Held] {
        let layer = queueing(1);
        let probe = Probe::new(&[Plan::readiness(0, readiness)]);
        let mut client = layer.layer(probe.clone());
        assert!(spawn(client.ready()).poll().is_ready());
        let held = call(&layer);
        let mut waiting = spawn(client.call(1));
        assert!(waiting.poll().is_pending());
        assert_eq!((probe.seen().held, probe.calls()), (0, 0));
        let polls = probe.seen().ready_polls;
        assert!(spawn(client.ready()).poll().is_ready());
        assert_eq!(
            probe.seen().ready_polls,
            polls,
            "a full bulkhead leaves it alone"
        );
        held.succeed();
        assert!(waiting.poll().is_ready());
        assert_eq!(probe.calls(), 1);
        drop(waiting);
        assert_eq!((probe.seen().held, levels(&layer.handle())), (0, (0, 0)));
    }
}

#[tokio::test(start_paused = true)]
async fn works_with_one_permit_inside_and_one_outside() {
    let inner = tower::limit::ConcurrencyLimitLayer::new(1);
    let service = ServiceBuilder::new()
        .layer(queueing(1))
        .layer(inner)
        .service(service_fn(|(): ()| async {
            sleep(MS).await;
            Ok::<_, BoxError>(())
        }));
    let mut one = service.clone();
    assert!(
        spawn(one.ready()).poll().is_ready(),
        "an idle handle, ready"
    );
    let calls = (0..20).map(|_| tokio::spawn(service.clone().oneshot(())));
    let calls: Vec<_> = calls.collect();
    drop(one);
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_panics_costs_no_permit() {
    let recorder = Steered::new("buttress_in_flight");
    let _guard = metrics::set_default_local_recorder(&recorder);
    // Not every call publishes the gauges.
    for mode in [Mode::Enforce, Mode::Observe] {
        for limit in [Limit::from(1), Aimd::between(1, 1).into()] {
            let layer = BulkheadLayer::config("panicking", limit).queue(1);
            let layer = layer.mode(mode).build().unwrap();
            let (mut of_calls, mut of_waits) = (0, 0);
            for _ in 0..100 {
                advance(SECOND).await;
                of_calls += u32::from(recorder.panics(|| drop(call(&layer))));
                assert_eq!(levels(&layer.handle()), (0, 0));
                let held = call(&layer);
                let mut waiting = call(&layer);
                held.succeed();
                advance(SECOND).await;
                of_waits += u32::from(recorder.panics(|| drop(waiting.call.poll())));
                drop(waiting);
                assert_eq!(levels(&layer.handle()), (0, 0));
            }
            assert!(of_calls > 0);
            assert!(of_waits > 0 || mode == Mode::Observe);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_thread_that_is_new_to_the_recorder_does_not_bring_a_former_level_back() {
    let recorder = Steered::new("buttress_in_flight");
    let _guard = metrics::set_default_local_recorder(&recorder);
    let layer = BulkheadLayer::new("new thread", 1);
    let held = call(&layer);
    assert_eq!(recorder.level(), 1);
    let is_full = || assert_eq!(refused(&layer), Some(ErrorKind::BulkheadFull));
    recorder.hold_up(1, is_full, || held.succeed());
    assert_eq!(recorder.level(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_shown_before_the_time_comes_to_publish_again() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    for limit in [Limit::from(100), Aimd::between(100, 100).into()] {
        let layer = BulkheadLayer::config("burst", limit).queue(100);
        let layer = layer.build().unwrap();
        let mut calls: Vec<_> = (0..200).map(|_| call(&layer)).collect();
        let up = levels_and_waits(&snapshotter);
        calls.truncate(1);
        let down = levels_and_waits(&snapshotter);
        for level in [
            "buttress_in_flight bulkhead",
            "buttress_queue_depth bulkhead",
        ] {
            // Half or twice as many, and a few.
            assert!((46.0..=100.0).contains(&up[level]), "{}", up[level]);
            assert!((0.0..=10.0).contains(&down[level]), "{}", down[level]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_adapted_limit_is_shown_at_once() {
    struct Less;

    impl LimitPolicy for Less {
        fn initial(&self) -> usize {
            20
        }

        fn update(&self, sample: &Sample) -> usize {
            sample.limit - 1
        }
    }

    let recorder = Steered::new("buttress_limit");
    let _guard = metrics::set_default_local_recorder(&recorder);
    let layer = BulkheadLayer::new("adapts", Limit::policy(|| Less));
    for limit in (10..20).rev() {
        call(&layer).succeed();
        assert_eq!(
            (layer.handle().limit(), recorder.level()),
            (limit, limit as u64)
        );
    }
}

/// The levels as a recorder has them, and how often calls have waited, by result.
fn levels_and_waits(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    recorded::rows(snapshotter)
        .map(|row| (row.title(), row.value))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn reports_levels_waits_and_rejections() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let layer = BulkheadLayer::config("reports", 2)
        .queue(1)
        .build()
        .unwrap();
    let held = [(); 2].map(|()| call(&layer));
    let waiting = call(&layer);
    assert_eq!(refused(&layer), Some(ErrorKind::BulkheadFull));
    advance(100 * MS).await;
    assert_eq!(refused(&layer), Some(ErrorKind::BulkheadFull));
    let seen = levels_and_waits(&snapshotter);
    assert_eq!(seen["buttress_limit bulkhead"], 2.0);
    assert_eq!(seen["buttress_in_flight bulkhead"], 2.0);
    assert_eq!(seen["buttress_queue_depth bulkhead"], 1.0);
    assert_eq!(
        seen["buttress_rejections_total bulkhead bulkhead_full enforce"],
        2.0
    );

    layer.handle().set_limit(3).unwrap();
    assert_eq!(
        levels_and_waits(&snapshotter)["buttress_limit bulkhead"],
        3.0
    );
    drop((held, waiting));
}

#[tokio::test(start_paused = true)]
async fn how_long_calls_waited_is_recorded_by_result() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let layer = BulkheadLayer::config("waits", 1).queue(9).build().unwrap();
    let held = call(&layer);
    timed(&layer).await;
    Deadline::after(30 * MS).scope(timed(&layer)).await;
    let cancelled = call(&layer);
    advance(10 * MS).await;
    drop(cancelled);
    let mut admitted = call(&layer);
    advance(40 * MS).await;
    held.succeed();
    assert!(admitted.call.poll().is_pending());
    let seen = levels_and_waits(&snapshotter);
    for (result, waited) in [
        ("timeout", 0.1),
        ("deadline", 0.03),
        ("cancelled", 0.01),
        ("admitted", 0.04),
    ] {
        let seen = seen[&format!("buttress_queue_wait_seconds bulkhead {result}")];
        assert!((seen - waited).abs() < 1e-9, "{result}: {seen}");
    }
    for reason in ["queue_timeout", "deadline_exceeded"] {
        let row = format!("buttress_rejections_total bulkhead {reason} enforce");
        assert_eq!(seen[&row], 1.0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_observing_bulkhead_counts_what_it_would_reject() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let layer = BulkheadLayer::config("observes", 2).queue(1);
    let layer = layer.mode(Mode::Observe).build().unwrap();
    let _held = [(); 5].map(|()| call(&layer));
    let seen = levels_and_waits(&snapshotter);
    assert_eq!(
        seen["buttress_rejections_total bulkhead bulkhead_full observe"],
        2.0
    );
}

/// A gauge of the bulkheads of this name, as it is shown.
fn gauge(snapshotter: &Snapshotter, gauge: &str, name: &str) -> f64 {
    let metric = format!("buttress_{gauge}");
    let mut rows = recorded::rows(snapshotter).filter(|row| row.metric == metric);
    let row = rows.find(|row| row.is_of(name) && row.is_of("bulkhead"));
    row.unwrap_or_else(|| panic!("no {metric} of {name}")).value
}

#[tokio::test(start_paused = true)]
async fn the_gauges_are_back_at_zero_after_a_storm_of_cancels() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let shown = |name| gauge(&snapshotter, name, "storm");
    let _guard = metrics::set_default_local_recorder(&recorder);
    for limit in [Limit::from(50), Aimd::between(50, 50).into()] {
        let layer = BulkheadLayer::config("storm", limit).queue(1_000);
        let layer = layer.build().unwrap();
        for round in 0..20 {
            let mut calls = Vec::new();
            for _ in 0..300 {
                calls.push(call(&layer));
                advance(MS).await;
            }
            assert!(shown("in_flight") >= 40.0, "{}", shown("in_flight"));
            assert!(shown("queue_depth") >= 100.0, "{}", shown("queue_depth"));
            // From either end, and from the middle.
            while !calls.is_empty() {
                let place = [0, calls.len() - 1, calls.len() / 2][round % 3];
                drop(calls.remove(place));
            }
            assert_eq!((shown("in_flight"), shown("queue_depth")), (0.0, 0.0));
            assert_eq!(levels(&layer.handle()), (0, 0));
        }
    }
}

#[test]
fn two_bulkheads_of_one_name_are_shown_together() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let shown = |name| gauge(&snapshotter, name, "both");
    let _guard = metrics::set_default_local_recorder(&recorder);
    let [first, second] = [2, 3].map(|limit| BulkheadLayer::new("both", limit));
    let held = call(&first);
    second.handle().set_limit(5).unwrap();
    assert_eq!((shown("limit"), shown("in_flight")), (7.0, 1.0));
    drop(second);
    assert_eq!((shown("limit"), shown("in_flight")), (2.0, 1.0));
    drop(held);
    assert_eq!((shown("limit"), shown("in_flight")), (2.0, 0.0));
}

#[test]
fn many_threads_never_exceed_the_limit_and_nobody_is_left_waiting() {
    const LIMIT: usize = 3;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    let layer = config(LIMIT).queue(1_000).queue_wait(600 * SECOND);
    let layer = layer.overloaded_wait(600 * SECOND).build().unwrap();
    let inside = Arc::new(AtomicUsize::new(0));
    let service = layer.layer(service_fn(move |(): ()| {
        let inside = Arc::clone(&inside);
        async move {
            assert!(inside.fetch_add(1, Ordering::SeqCst) < LIMIT);
            tokio::task::yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, BoxError>(())
        }
    }));
    let service = BoxCloneSyncService::new(service);
    runtime.block_on(async {
        let callers = (0..16).map(|_| {
            let service = service.clone();
            tokio::spawn(async move {
                for _ in 0..500 {
                    service.clone().oneshot(()).await.unwrap();
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
    });
    assert_eq!(levels(&layer.handle()), (0, 0));
}

/// What happens to a bulkhead.
#[derive(Clone, Copy, Debug)]
enum Step {
    Call,
    /// Ends one of the calls in flight.
    Answer(usize),
    /// Drops one of the calls, whatever it does.
    Cancel(usize),
    Limit(usize),
    Pass(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Call),
        4 => any::<usize>().prop_map(Step::Answer),
        3 => any::<usize>().prop_map(Step::Cancel),
        1 => (1..6_usize).prop_map(Step::Limit),
        2 => (0..60_u32).prop_map(Step::Pass),
    ]
}

proptest! {
    /// No call is let in above the limit, no call waits while there is room, none is lost.
    #[test]
    fn random_calls_cancels_and_resizes_never_leak_and_never_lose_a_turn(
        steps in proptest::collection::vec(step(), 1..300),
        is_lifo: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let order = if is_lifo { QueueOrder::Lifo } else { QueueOrder::Fifo };
            let layer = config(3).queue(5).queue_order(order).build().unwrap();
            let handle = layer.handle();
            let mut calls: Vec<Held> = Vec::new();
            for step in steps {
                let before = handle.in_flight();
                match step {
                    Step::Call => calls.push(call(&layer)),
                    Step::Answer(place) if !calls.is_empty() => {
                        let held = calls.swap_remove(place % calls.len());
                        // Answered while it still waits, it is over as soon as it is let in.
                        let _sent = held.answer.map(|answer| answer.send(Ok("bolts")));
                        let mut call = held.call;
                        if call.poll().is_pending() {
                            calls.push(Held { call, answer: None });
                        }
                    }
                    Step::Cancel(place) if !calls.is_empty() => {
                        drop(calls.swap_remove(place % calls.len()));
                    }
                    Step::Limit(limit) => handle.set_limit(limit).unwrap(),
                    Step::Pass(time) => advance(time * MS).await,
                    Step::Answer(_) | Step::Cancel(_) => {}
                }
                // Those who are woken go on; each may wake further ones.
                while let Some(place) = calls.iter().position(|held| held.call.is_woken()) {
                    if calls[place].call.poll().is_ready() {
                        drop(calls.swap_remove(place));
                    }
                }
                calls.retain(|held| held.answer.is_some() || !held.call.is_woken());
                let (in_flight, queued) = levels(&handle);
                let limit = handle.limit();
                assert!(in_flight <= limit.max(before), "{in_flight} of {limit}");
                assert!(queued == 0 || in_flight >= limit, "{queued} wait beside {in_flight}");
                assert!(in_flight + queued <= calls.len(), "nothing without a call");
            }
            drop(calls);
            assert_eq!(levels(&handle), (0, 0));
        });
    }
}
