//! What a rate limit does to calls.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use crate::common;
use crate::steered;

use std::cell::Cell;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use buttress::rate_limit::{Config, Handle};
use buttress::{
    Availability, BoxError, ConfigError, Deadline, DeadlineLayer, Error, ErrorKind,
    ErrorsAreFailures, Evictable, Mode, Outcome, Rate, RateLimit, RateLimitLayer, classify_fn,
};
use common::{End, GOOD, Plan, Probe, Response, Task};
use steered::Steered;
use tokio::time::{Instant, advance, sleep, timeout};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
/// Between two tokens, of most of the limits here.
const INTERVAL: Duration = Duration::from_millis(10);

/// 100 per second, in bursts of `burst`.
fn limit(burst: u32) -> Config {
    named_limit("search", burst)
}

fn named_limit(name: &str, burst: u32) -> Config {
    RateLimitLayer::config(name, Rate::per_second(100)).burst(burst)
}

/// The same, with calls that wait.
fn waiting_limit(burst: u32) -> RateLimitLayer {
    limit(burst).max_wait(SECOND).build().unwrap()
}

type Echo = Ready<Result<u32, BoxError>>;

fn echo() -> impl Service<u32, Response = u32, Error = BoxError, Future = Echo> + Clone {
    service_fn(|request| ready(Ok(request)))
}

/// The kind of rejection, and when it says to come again.
fn rejection<T>(result: Result<T, Error>) -> (ErrorKind, Option<Duration>) {
    let error = result.err().expect("the limit is used up");
    assert!(error.is_rejection());
    (error.kind(), error.retry_after())
}

/// The rejection of a call that its deadline keeps from waiting.
const TOO_LATE: (ErrorKind, Option<Duration>) = (ErrorKind::DeadlineExceeded, None);

fn come_again(after: Duration) -> (ErrorKind, Option<Duration>) {
    (ErrorKind::RateLimited, Some(after))
}

async fn call<Q, K>(layer: &RateLimitLayer<Q, K>, request: u32) -> Result<u32, Error>
where
    Q: buttress::rate_limit::Cost<u32> + Clone + Send + Sync + 'static,
    K: buttress::Classify<u32> + Clone,
{
    layer.layer(echo()).oneshot(request).await
}

/// Calls until one is rejected; the number of those that passed.
async fn burst<Q, K>(layer: &RateLimitLayer<Q, K>) -> u32
where
    Q: buttress::rate_limit::Cost<u32> + Clone + Send + Sync + 'static,
    K: buttress::Classify<u32> + Clone,
{
    for count in 0..100_000 {
        if call(layer, 1).await.is_err() {
            return count;
        }
    }
    panic!("there is no limit");
}

/// The calls that passed, in the order in which they did: which one, and when.
type Ends = Arc<Mutex<Vec<(usize, Duration)>>>;

/// Begins a call on a task of its own.
fn begin(layer: &RateLimitLayer, number: usize, ends: &Ends) -> tokio::task::JoinHandle<()> {
    let (start, ends, call) = (
        Instant::now(),
        Arc::clone(ends),
        layer.layer(echo()).oneshot(1),
    );
    tokio::spawn(async move {
        if call.await.is_ok() {
            ends.lock().unwrap().push((number, start.elapsed()));
        }
    })
}

/// Lets the other tasks run.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn rejects_at_once_and_says_exactly_when_to_come_again() {
    let layer = RateLimitLayer::new("search", Rate::per_second(3));
    let start = Instant::now();
    assert_eq!(burst(&layer).await, 1);
    let third = Duration::from_nanos(333_333_334);
    assert_eq!(rejection(call(&layer, 1).await), come_again(third));
    let nearly = Duration::from_nanos(333_333_333);
    advance(nearly).await;
    let rest = Duration::from_nanos(1);
    assert_eq!(rejection(call(&layer, 1).await), come_again(rest));
    advance(rest).await;
    assert_eq!(start.elapsed(), third, "no call has waited");
    assert_eq!(call(&layer, 1).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_call_takes_no_token() {
    let layer = limit(1).build().unwrap();
    assert_eq!(burst(&layer).await, 1);
    for _ in 0..1_000 {
        assert_eq!(rejection(call(&layer, 1).await), come_again(INTERVAL));
    }
    advance(INTERVAL).await;
    assert_eq!(burst(&layer).await, 1);
}

#[tokio::test(start_paused = true)]
async fn the_hint_is_never_rounded_down_to_nothing() {
    let layer = RateLimitLayer::config("fast", Rate::per_second(1_000_000_000)).burst(1);
    let layer = layer.build().unwrap();
    assert_eq!(burst(&layer).await, 1);
    let nanosecond = Duration::from_nanos(1);
    assert_eq!(rejection(call(&layer, 1).await), come_again(nanosecond));
}

#[tokio::test(start_paused = true)]
async fn the_hint_is_exact_for_days_at_the_highest_rate() {
    let layer = RateLimitLayer::new("search", Rate::per_second(1_000_000_000));
    let days = Duration::from_secs(100 * 24 * 60 * 60);
    layer.handle().pause(days);
    assert_eq!(rejection(call(&layer, 1).await), come_again(days));
}

#[tokio::test(start_paused = true)]
async fn one_layer_value_is_one_limit() {
    let layer = limit(10).build().unwrap();
    let (mut one, two) = (layer.layer(echo()), layer.clone().layer(echo()));
    let mut three = two.clone();
    for _ in 0..5 {
        one.ready().await.unwrap().call(1).await.unwrap();
        three.ready().await.unwrap().call(1).await.unwrap();
    }
    assert_eq!(layer.handle().available(), 0);
    assert!(two.oneshot(1).await.is_err());
    let other = limit(10).build().unwrap();
    assert_eq!(burst(&other).await, 10, "built again, it is another one");
}

#[tokio::test(start_paused = true)]
async fn the_burst_is_a_tenth_of_a_second_by_default() {
    for (rate, expected) in [
        (Rate::per_second(100), 10),
        (Rate::per_second(5), 1),
        (Rate::per_hour(1), 1),
    ] {
        let layer = RateLimitLayer::new("search", rate);
        assert_eq!(layer.handle().burst(), expected);
        assert_eq!(burst(&layer).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_costs_what_it_is_said_to_cost() {
    let layer = limit(10).cost(|request: &u32| *request).build().unwrap();
    call(&layer, 7).await.unwrap();
    assert_eq!(layer.handle().available(), 3);
    assert_eq!(rejection(call(&layer, 5).await), come_again(2 * INTERVAL));
    call(&layer, 3).await.unwrap();
    call(&layer, 0).await.unwrap();
    for too_much in [11, u32::MAX] {
        let refused = rejection(call(&layer, too_much).await);
        assert_eq!(refused, (ErrorKind::TooCostly, None));
    }
}

#[tokio::test(start_paused = true)]
async fn what_costs_nothing_passes_also_when_others_wait() {
    let layer = limit(1).max_wait(INTERVAL).cost(|request: &u32| *request);
    let layer = layer.build().unwrap();
    call(&layer, 1).await.unwrap();
    let (mut client, task) = (layer.layer(echo()), Task::default());
    let mut waits = client.call(1);
    assert!(task.poll(&mut waits).is_pending());
    for _ in 0..1_000 {
        assert!(task.poll(&mut client.call(0)).is_ready());
    }
    let past = Deadline::after(Duration::ZERO);
    past.scope(call(&layer, 0)).await.unwrap();
    assert_eq!(layer.handle().waiting(), 1);
    waits.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_too_costly_does_not_wait() {
    let layer = limit(10).max_wait(SECOND).cost(|request: &u32| *request);
    let layer = layer.build().unwrap();
    call(&layer, 10).await.unwrap();
    let mut client = layer.layer(echo());
    let mut waits = client.ready().await.unwrap().call(1);
    assert!(Task::default().poll(&mut waits).is_pending());
    let start = Instant::now();
    for too_much in [11, u32::MAX] {
        let refused = rejection(call(&layer, too_much).await);
        assert_eq!(refused, (ErrorKind::TooCostly, None));
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(layer.handle().waiting(), 1);
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_pass_one_by_one_in_the_order_in_which_they_came() {
    let layer = waiting_limit(2);
    let ends = Ends::default();
    for number in 0..50 {
        begin(&layer, number, &ends);
    }
    sleep(2 * SECOND).await;
    let expected: Vec<_> = (0..50)
        .map(|number| (number, INTERVAL * (number as u32).saturating_sub(1)))
        .collect();
    assert_eq!(*ends.lock().unwrap(), expected);
    assert_eq!(layer.handle().waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_later_does_not_overtake() {
    let layer = limit(10).max_wait(SECOND).cost(|request: &u32| *request);
    let layer = layer.build().unwrap();
    call(&layer, 10).await.unwrap();
    let (mut dear, mut cheap) = (Box::pin(call(&layer, 9)), Box::pin(call(&layer, 1)));
    let task = Task::default();
    assert!(task.poll(&mut dear).is_pending());
    advance(5 * INTERVAL).await;
    assert_eq!(layer.handle().available(), 5);
    assert!(
        task.poll(&mut cheap).is_pending(),
        "although there are tokens"
    );
    advance(4 * INTERVAL).await;
    assert!(task.poll(&mut cheap).is_pending(), "not before the first");
    assert!(task.poll(&mut dear).is_ready());
    advance(INTERVAL).await;
    assert!(task.poll(&mut cheap).is_ready());
}

/// Counts how often a future is polled.
struct Counted<F> {
    future: Pin<Box<F>>,
    polls: Arc<AtomicU32>,
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.future.as_mut().poll(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_is_woken_for_its_turn_and_for_its_tokens() {
    let layer = limit(1).max_wait(10 * SECOND).build().unwrap();
    let polls: Vec<_> = (0..500).map(|_| Arc::<AtomicU32>::default()).collect();
    for polls in &polls {
        tokio::spawn(Counted {
            future: Box::pin(layer.layer(echo()).oneshot(1)),
            polls: Arc::clone(polls),
        });
    }
    sleep(20 * SECOND).await;
    assert_eq!(layer.handle().waiting(), 0);
    let most = polls
        .iter()
        .map(|polls| polls.load(Ordering::Relaxed))
        .max();
    assert_eq!(most, Some(3), "at first, as the next one, and with tokens");
}

#[tokio::test(start_paused = true)]
async fn when_a_waiting_call_goes_away_the_later_ones_move_up() {
    for gone in 0..3 {
        let layer = waiting_limit(1);
        let ends = Ends::default();
        call(&layer, 1).await.unwrap();
        let calls: Vec<_> = (0..5).map(|number| begin(&layer, number, &ends)).collect();
        settle().await;
        assert_eq!(layer.handle().waiting(), 5);
        advance(5 * MILLISECOND).await;
        calls[gone].abort();
        settle().await;
        assert_eq!(layer.handle().waiting(), 4);
        sleep(SECOND).await;
        let ends = ends.lock().unwrap();
        let numbers: Vec<_> = ends.iter().map(|(number, _)| *number).collect();
        let expected: Vec<_> = (0..5).filter(|number| *number != gone).collect();
        assert_eq!(numbers, expected);
        let times: Vec<_> = ends.iter().map(|(_, time)| *time).collect();
        let expected: Vec<_> = (1..5).map(|place| INTERVAL * place).collect();
        assert_eq!(times, expected, "without the one at {gone}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_place_of_a_call_that_went_away_can_be_taken_again() {
    let layer = limit(1).max_wait(2 * INTERVAL).build().unwrap();
    let ends = Ends::default();
    call(&layer, 1).await.unwrap();
    let first = begin(&layer, 0, &ends);
    begin(&layer, 1, &ends);
    settle().await;
    assert_eq!(rejection(call(&layer, 1).await), come_again(3 * INTERVAL));
    first.abort();
    settle().await;
    call(&layer, 1).await.unwrap();
    assert_eq!(*ends.lock().unwrap(), [(1, INTERVAL)]);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_turn_would_come_too_late_is_rejected_at_once() {
    let layer = limit(1).max_wait(3 * INTERVAL).build().unwrap();
    let (ends, start) = (Ends::default(), Instant::now());
    for number in 0..4 {
        begin(&layer, number, &ends);
    }
    settle().await;
    for _ in 0..10 {
        assert_eq!(rejection(call(&layer, 1).await), come_again(4 * INTERVAL));
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    sleep(SECOND).await;
    let last = ends.lock().unwrap().last().copied();
    assert_eq!(last, Some((3, 3 * INTERVAL)), "just in time");
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_turn_would_come_at_its_deadline_is_rejected_at_once() {
    let layer = waiting_limit(1);
    call(&layer, 1).await.unwrap();
    let start = Instant::now();
    let within = |time| {
        let client = DeadlineLayer::new("search", time).layer(layer.layer(echo()));
        client.oneshot(1)
    };
    assert_eq!(rejection(within(INTERVAL).await), TOO_LATE);
    assert_eq!(start.elapsed(), Duration::ZERO);
    within(INTERVAL + MILLISECOND).await.unwrap();
    assert_eq!(start.elapsed(), INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_a_far_future_is_as_good_as_none() {
    let layer = waiting_limit(1);
    call(&layer, 1).await.unwrap();
    let start = Instant::now();
    let far = Deadline::after(Duration::from_millis(u64::MAX));
    far.scope(call(&layer, 1)).await.unwrap();
    assert_eq!(start.elapsed(), INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_late_only_if_its_deadline_is_what_keeps_it_from_waiting() {
    let layer = limit(1).max_wait(3 * INTERVAL).build().unwrap();
    call(&layer, 1).await.unwrap();
    let (mut client, task) = (layer.layer(echo()), Task::default());
    let mut stuck = client.call(1);
    assert!(task.poll(&mut stuck).is_pending());
    let start = Instant::now();
    let deadline = Deadline::after(INTERVAL + MILLISECOND);
    assert_eq!(rejection(deadline.scope(call(&layer, 1)).await), TOO_LATE);
    assert_eq!(start.elapsed(), Duration::ZERO);
    let mut others = [client.call(1), client.call(1)];
    for call in &mut others {
        assert!(task.poll(call).is_pending());
    }
    let limited = rejection(deadline.scope(call(&layer, 1)).await);
    assert_eq!(limited, come_again(4 * INTERVAL), "also without a deadline");
    drop(others);
    // The first one is not polled, and keeps the second one waiting until its time is up.
    let deadline = Deadline::after(2 * INTERVAL + MILLISECOND);
    assert_eq!(rejection(deadline.scope(call(&layer, 1)).await), TOO_LATE);
    assert_eq!(start.elapsed(), 2 * INTERVAL + MILLISECOND);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_is_set_after_the_call_counts_as_well() {
    let layer = waiting_limit(1);
    call(&layer, 1).await.unwrap();
    let (mut one, mut two) = (layer.layer(echo()), layer.layer(echo()));
    let (mut first, mut second) = (one.call(1), two.call(1));
    let task = Task::default();
    assert!(task.poll(&mut first).is_pending());
    assert!(task.poll(&mut second).is_pending());
    let soon = Deadline::after(2 * INTERVAL);
    let refused = task.poll(&mut Box::pin(soon.scope(&mut second)));
    let Poll::Ready(refused) = refused else {
        panic!("it waits for what comes too late");
    };
    assert_eq!(rejection(refused), TOO_LATE);
    assert_eq!(layer.handle().waiting(), 1);
    advance(INTERVAL).await;
    let past = Deadline::after(Duration::ZERO);
    let refused = task.poll(&mut Box::pin(past.scope(&mut first)));
    let Poll::Ready(refused) = refused else {
        panic!("it waits after its deadline");
    };
    assert_eq!(
        rejection(refused),
        TOO_LATE,
        "there is a token, but no time left"
    );
    assert_eq!(layer.handle().available(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_first_one_that_is_not_polled_keeps_nobody_for_longer_than_he_may_wait() {
    let layer = waiting_limit(1);
    call(&layer, 1).await.unwrap();
    let mut client = layer.layer(echo());
    let mut stuck = client.call(1);
    assert!(Task::default().poll(&mut stuck).is_pending());
    let start = Instant::now();
    let refused = call(&layer, 1).await;
    assert_eq!(rejection(refused).0, ErrorKind::RateLimited);
    assert_eq!(start.elapsed(), SECOND);
    let deadline = Deadline::after(SECOND / 2);
    assert!(deadline.scope(call(&layer, 1)).await.is_err());
    assert!(!deadline.is_expired() || start.elapsed() <= SECOND * 3 / 2 + MILLISECOND);
    drop(stuck);
    call(&layer, 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_polls_keeps_nobody_waiting() {
    let layer = waiting_limit(1);
    call(&layer, 1).await.unwrap();
    let mut client = layer.layer(echo());
    let unpolled = client.call(1);
    assert_eq!(layer.handle().waiting(), 0);
    let start = Instant::now();
    call(&layer, 1).await.unwrap();
    assert_eq!(start.elapsed(), INTERVAL);
    unpolled.await.unwrap();
    assert_eq!(start.elapsed(), 2 * INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn the_task_that_polled_last_is_woken() {
    let layer = waiting_limit(1);
    call(&layer, 1).await.unwrap();
    let (mut one, mut two) = (layer.layer(echo()), layer.layer(echo()));
    let (first_task, old, new) = (Task::default(), Task::default(), Task::default());
    let (mut first, mut second) = (one.call(1), two.call(1));
    assert!(first_task.poll(&mut first).is_pending());
    assert!(old.poll(&mut second).is_pending());
    assert!(new.poll(&mut second).is_pending());
    assert!(old.is_forgotten());
    drop(first);
    assert!(new.was_woken() && !old.was_woken());
    assert!(old.poll(&mut second).is_pending());
    sleep(INTERVAL).await;
    assert!(old.was_woken(), "also for its tokens");
    assert!(old.poll(&mut second).is_ready());
    assert!(new.is_forgotten() && old.is_forgotten());
}

#[tokio::test(start_paused = true)]
async fn nothing_of_the_inner_service_is_held_by_a_call_that_waits_or_is_rejected() {
    for wait in [false, true] {
        let probe = Probe::new(&[]);
        let config = limit(1);
        let config = if wait {
            config.max_wait(SECOND)
        } else {
            config
        };
        let layer = config.build().unwrap();
        let mut client = layer.layer(probe.clone());
        let task = Task::default();
        client.ready().await.unwrap().call(1).await.unwrap();
        client.ready().await.unwrap();
        assert_eq!(probe.seen().held, 1, "of a handle that is ready");
        let mut call = client.call(1);
        assert_eq!(task.poll(&mut call).is_pending(), wait);
        assert_eq!(probe.seen().held, 0);
        let asked = probe.seen().ready_polls;
        if wait {
            client.ready().await.unwrap();
            assert_eq!(probe.seen().ready_polls, asked, "it would wait as well");
            assert!(task.wait().await);
            assert!(task.poll(&mut call).is_ready());
            assert_eq!(probe.calls(), 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_is_not_ready_is_waited_for_after_the_tokens() {
    let probe = Probe::new(&[]);
    let layer = waiting_limit(1);
    let client = layer.layer(probe.clone());
    client.clone().oneshot(1).await.unwrap();
    let mut held = tokio_test::task::spawn(client.clone().oneshot(1));
    assert!(held.poll().is_pending());
    probe.follow(&[Plan::readiness(0, End::Held)]);
    sleep(INTERVAL).await;
    assert!(held.is_woken());
    assert!(held.poll().is_pending());
    assert_eq!(layer.handle().waiting(), 0, "it has its token");
    let start = Instant::now();
    client.oneshot(1).await.unwrap();
    assert_eq!(start.elapsed(), INTERVAL, "and keeps nobody from theirs");
    probe.let_go();
    assert!(held.poll().is_ready());
}

/// The inner service ends in each way that there is.
const SCRIPTS: [Plan; 5] = [
    Plan::GOOD,
    Plan {
        readiness: (2, GOOD),
        ..Plan::answer(2, GOOD)
    },
    Plan::readiness(1, End::Held),
    Plan::answer(1, End::Held),
    Plan::readiness(2, End::Error),
];

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_poll_leaves_nothing_behind() {
    for plan in SCRIPTS {
        for behind in 0..2 {
            for polls in 0.. {
                let case = format!("{plan:?} behind {behind}, {polls} polls");
                let probe = Probe::new(&[]);
                let layer = waiting_limit(1);
                let mut client = layer.layer(probe.clone());
                client.ready().await.unwrap().call(1).await.unwrap();
                let others: Vec<_> = (0..behind)
                    .map(|_| tokio::spawn(layer.layer(echo()).oneshot(1)))
                    .collect();
                settle().await;
                probe.follow(&[plan]);
                let task = Task::default();
                let mut call = client.call(1);
                let mut done = false;
                let mut stuck = false;
                for poll in 0..polls {
                    stuck = poll > 0 && !task.wait().await;
                    done = !stuck && task.poll(&mut call).is_ready();
                    if done || stuck {
                        break;
                    }
                }
                drop(call);
                assert!(task.is_forgotten(), "{case}");
                assert_eq!(probe.seen().held, 0, "{case}");
                for other in others {
                    other.await.unwrap().unwrap();
                }
                assert_eq!(layer.handle().waiting(), 0, "{case}");
                sleep(INTERVAL).await;
                assert_eq!(layer.handle().available(), 1, "{case}");
                if done || stuck {
                    break;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_inner_service_leaves_the_limit_working() {
    let panics_in_call = Plan {
        panics_in_call: true,
        ..Plan::GOOD
    };
    let panicking = [
        panics_in_call,
        Plan::answer(1, End::Panic),
        Plan::readiness(1, End::Panic),
    ];
    for plan in panicking {
        for waits in [false, true] {
            let probe = Probe::new(&[]);
            let layer = waiting_limit(1);
            if waits {
                call(&layer, 1).await.unwrap();
            } else {
                probe.follow(&[plan]);
            }
            let behind = tokio::spawn({
                let (client, probe) = (layer.layer(probe.clone()), probe.clone());
                async move {
                    let panicked = tokio::spawn(client.oneshot(1)).await;
                    assert!(panicked.is_err(), "{plan:?} {waits}");
                    assert_eq!(probe.seen().held, 0);
                }
            });
            settle().await;
            if waits {
                // What was ready before it had to wait has been given up.
                probe.follow(&[plan]);
            }
            let start = Instant::now();
            call(&layer, 1).await.unwrap();
            assert_eq!(
                start.elapsed(),
                INTERVAL * (1 + u32::from(waits)),
                "{plan:?}"
            );
            behind.await.unwrap();
            assert_eq!(layer.handle().waiting(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cost_that_panics_leaves_the_limit_working() {
    let layer = limit(1).cost(|request: &u32| {
        assert_ne!(*request, 7, "unlucky");
        1
    });
    let layer = layer.build().unwrap();
    let mut client = layer.layer(echo());
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| client.call(7)));
    assert!(panicked.is_err());
    client.call(1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_observing_limit_lets_everything_pass() {
    let layer = limit(10).cost(|request: &u32| *request);
    let layer = layer.mode(Mode::Observe).max_wait(SECOND).build().unwrap();
    let start = Instant::now();
    for cost in [1; 50].into_iter().chain([11, u32::MAX]) {
        assert_eq!(call(&layer, cost).await.unwrap(), cost);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(layer.handle().available(), 0, "it counts");
    assert!(layer.handle().is_available());
}

/// Judges the answer 429 to be an overload with this hint.
/// Overlays made by a change of the default.
fn settings(
    change: impl FnOnce(&mut buttress::settings::RateLimit),
) -> buttress::settings::RateLimit {
    let mut settings = buttress::settings::RateLimit::default();
    change(&mut settings);
    settings
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_that_no_longer_fit_a_shorter_wait_are_refused_at_once() {
    let layer = waiting_limit(1);
    let (handle, ends) = (layer.handle(), Ends::default());
    let mut calls: Vec<_> = (0..6).map(|number| begin(&layer, number, &ends)).collect();
    settle().await;
    assert_eq!(handle.waiting(), 5);
    handle
        .apply(&settings(|to| to.max_wait = Some(3 * INTERVAL)))
        .unwrap();
    settle().await;
    assert_eq!(handle.waiting(), 3, "two have left without a wait");
    calls.push(begin(&layer, 6, &ends));
    settle().await;
    assert_eq!(handle.waiting(), 3, "a new call may not wait for longer");
    for call in calls {
        call.await.unwrap();
    }
    let expected = [0, 1, 2, 3].map(|number| (number, number as u32 * INTERVAL));
    assert_eq!(*ends.lock().unwrap(), expected);

    handle.apply(&<_>::default()).unwrap();
    let others: Vec<_> = (0..9).map(|number| begin(&layer, number, &ends)).collect();
    settle().await;
    assert_eq!(handle.waiting(), 9, "the wait is that of the code again");
    drop(others);
}

#[tokio::test(start_paused = true)]
async fn calls_begin_to_wait_when_settings_let_them() {
    let layer = limit(1).build().unwrap();
    assert_eq!(burst(&layer).await, 1);
    let handle = layer.handle();
    handle
        .apply(&settings(|to| to.max_wait = Some(SECOND)))
        .unwrap();
    let start = Instant::now();
    assert_eq!(call(&layer, 1).await.unwrap(), 1);
    assert_eq!(start.elapsed(), INTERVAL);
    handle.apply(&<_>::default()).unwrap();
    assert_eq!(rejection(call(&layer, 1).await), come_again(INTERVAL));
}

#[tokio::test(start_paused = true)]
async fn a_rate_that_was_set_stays_until_the_rate_of_the_settings_changes() {
    let handle = limit(5).build().unwrap().handle();
    let limits = || (handle.rate(), handle.burst());
    handle.set_rate(Rate::per_second(7)).unwrap();
    handle
        .apply(&settings(|to| to.max_wait = Some(SECOND)))
        .unwrap();
    assert_eq!(limits(), (Rate::per_second(7), 5));
    handle.apply(&settings(|to| to.burst = Some(9))).unwrap();
    assert_eq!(limits(), (Rate::per_second(100), 9));
    handle.apply(&<_>::default()).unwrap();
    assert_eq!(limits(), (Rate::per_second(100), 5));
}

#[tokio::test(start_paused = true)]
async fn missing_tokens_stay_missing_when_settings_change() {
    let layer = limit(10).build().unwrap();
    for _ in 0..8 {
        call(&layer, 1).await.unwrap();
    }
    let handle = layer.handle();
    handle.apply(&settings(|to| to.burst = Some(20))).unwrap();
    assert_eq!(handle.available(), 12);
    handle.apply(&<_>::default()).unwrap();
    assert_eq!(handle.available(), 2);
}

#[test]
fn settings_that_cannot_be_applied_change_nothing_and_are_named() {
    let layer = waiting_limit(3);
    let handle = layer.handle();
    for (field, bad) in [
        ("rate", settings(|to| to.rate = Some(Rate::per_second(0)))),
        ("burst", settings(|to| to.burst = Some(0))),
        (
            "max_wait",
            settings(|to| to.max_wait = Some(Duration::ZERO)),
        ),
        (
            "max_retry_after",
            settings(|to| to.max_retry_after = Some(Duration::MAX)),
        ),
    ] {
        let before = format!("{handle:?}");
        let mut bad = bad;
        bad.mode = Some(Mode::Observe);
        assert_eq!(handle.apply(&bad).unwrap_err().field(), field);
        assert_eq!(format!("{handle:?}"), before);
        assert!(layer.is_evictable(Instant::now()), "it is as it was built");
    }
}

#[tokio::test(start_paused = true)]
async fn the_mode_changes_while_the_limit_runs_and_lets_waiting_calls_pass() {
    let layer = waiting_limit(1);
    let (handle, ends) = (layer.handle(), Ends::default());
    for number in 0..4 {
        drop(begin(&layer, number, &ends));
    }
    settle().await;
    assert_eq!(handle.waiting(), 3);
    handle.set_mode(Mode::Observe);
    // A new call does not wait behind calls that have not been polled yet.
    assert_eq!(call(&layer, 1).await.unwrap(), 1);
    settle().await;
    assert_eq!(handle.waiting(), 0);
    let now = Duration::ZERO;
    assert_eq!(
        *ends.lock().unwrap(),
        [(0, now), (1, now), (2, now), (3, now)]
    );
    assert!(!layer.is_evictable(Instant::now() + SECOND));

    handle.apply(&<_>::default()).unwrap();
    let start = Instant::now();
    assert_eq!(call(&layer, 1).await.unwrap(), 1);
    assert_eq!(start.elapsed(), 5 * INTERVAL, "they took their tokens");
}

#[tokio::test(start_paused = true)]
async fn the_longest_pause_changes_while_the_limit_runs() {
    let layer = limit(10).classify(hinting(SECOND)).build().unwrap();
    let handle = layer.handle();
    let unheard = settings(|to| to.respect_retry_after = Some(false));
    handle.apply(&unheard).unwrap();
    call(&layer, 429).await.unwrap();
    assert_eq!(handle.available(), 9);
    let short = settings(|to| to.max_retry_after = Some(100 * MILLISECOND));
    handle.apply(&short).unwrap();
    call(&layer, 429).await.unwrap();
    assert_eq!(
        rejection(call(&layer, 1).await),
        come_again(100 * MILLISECOND)
    );
}

#[tokio::test(start_paused = true)]
async fn is_available_while_the_next_call_would_only_wait() {
    let layer = limit(1).max_wait(2 * INTERVAL).build().unwrap();
    let (mut client, task) = (layer.layer(echo()), Task::default());
    assert!(layer.handle().is_available());
    call(&layer, 1).await.unwrap();
    let mut waiting = Vec::new();
    for _ in 0..2 {
        assert!(layer.handle().is_available());
        waiting.push(client.call(1));
        assert!(task.poll(waiting.last_mut().unwrap()).is_pending());
    }
    assert!(!layer.handle().is_available());
    assert!(call(&layer, 1).await.is_err());
    drop(waiting);
    assert!(layer.handle().is_available());
    layer.handle().pause(SECOND);
    assert!(!layer.handle().is_available());
}

fn hinting(hint: Duration) -> impl Fn(Result<&u32, &Error>) -> Outcome + Clone {
    classify_fn(move |result: Result<&u32, &Error>| match result {
        Ok(429) => Outcome::Overload {
            retry_after: Some(hint),
        },
        _ => Outcome::Success,
    })
}

#[tokio::test(start_paused = true)]
async fn nothing_passes_for_as_long_as_the_service_asks() {
    let layer = limit(10).classify(hinting(3 * SECOND)).build().unwrap();
    call(&layer, 429).await.unwrap();
    assert_eq!(rejection(call(&layer, 1).await), come_again(3 * SECOND));
    assert_eq!(layer.handle().available(), 0);
    assert!(!layer.handle().is_available());
    advance(3 * SECOND).await;
    assert_eq!(burst(&layer).await, 1, "and then one by one");
    advance(INTERVAL).await;
    assert_eq!(burst(&layer).await, 1);
    advance(SECOND).await;
    assert_eq!(burst(&layer).await, 10, "until the bucket is full again");
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_capped_and_can_be_ignored() {
    let asked = 3_600 * SECOND;
    for (config, expected) in [
        (limit(10), 60 * SECOND),
        (limit(10).max_retry_after(5 * SECOND), 5 * SECOND),
    ] {
        let layer = config.classify(hinting(asked)).build().unwrap();
        call(&layer, 429).await.unwrap();
        assert_eq!(rejection(call(&layer, 1).await), come_again(expected));
    }
    for layer in [
        limit(10)
            .respect_retry_after(false)
            .classify(hinting(asked))
            .build(),
        limit(10)
            .classify(hinting(asked))
            .respect_retry_after(false)
            .build(),
    ] {
        let layer = layer.unwrap();
        call(&layer, 429).await.unwrap();
        assert_eq!(layer.handle().available(), 9);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_the_end_of_a_drain_if_they_may() {
    let layer = waiting_limit(1);
    let ends = Ends::default();
    call(&layer, 1).await.unwrap();
    for number in 0..3 {
        begin(&layer, number, &ends);
    }
    settle().await;
    let drained = Duration::from_millis(985);
    layer.handle().pause(drained);
    layer.handle().pause(MILLISECOND);
    settle().await;
    assert_eq!(layer.handle().waiting(), 2, "the third comes too late");
    assert_eq!(layer.handle().available(), 0);
    sleep(2 * SECOND).await;
    assert_eq!(
        *ends.lock().unwrap(),
        [(0, drained), (1, drained + INTERVAL)]
    );
    layer.handle().pause(Duration::MAX);
    assert!(call(&layer, 1).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_reset_ends_a_drain_and_brings_all_tokens_back() {
    for mode in [Mode::Enforce, Mode::Observe] {
        let config = limit(3).max_wait(3_600 * SECOND).mode(mode);
        let layer = config.build().unwrap();
        let (handle, start) = (layer.handle(), Instant::now());
        call(&layer, 1).await.unwrap();
        handle.pause(3_000 * SECOND);
        let waiting: Vec<_> = (0..4)
            .map(|_| tokio::spawn(layer.layer(echo()).oneshot(1)))
            .collect();
        settle().await;
        assert_eq!(handle.available(), 0);
        handle.reset();
        for call in waiting {
            call.await.unwrap().unwrap();
        }
        let (took, left) = match mode {
            Mode::Enforce => (INTERVAL, 0),
            _ => (Duration::ZERO, 3),
        };
        assert_eq!((start.elapsed(), handle.available()), (took, left));
        handle.pause(SECOND);
        assert_eq!(handle.available(), 0, "drained again");
        handle.reset();
        assert_eq!((handle.available(), handle.burst()), (3, 3));
        assert!(layer.is_evictable(Instant::now()));
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_not_bothered_by_each_answer_that_asks_for_the_same() {
    let layer = waiting_limit(1);
    call(&layer, 1).await.unwrap();
    let (mut client, handle) = (layer.layer(echo()), layer.handle());
    let mut waiting = client.call(1);
    let is_woken_by_a_drain_of = |time, waiting: &mut _| {
        let task = Task::default();
        assert!(task.poll(waiting).is_pending());
        handle.pause(time);
        task.was_woken()
    };
    assert!(is_woken_by_a_drain_of(SECOND / 2, &mut waiting));
    for shorter in 1..5 {
        assert!(!is_woken_by_a_drain_of(SECOND / 2 / shorter, &mut waiting));
    }
    for _ in 0..4 {
        advance(MILLISECOND / 5).await;
        assert!(!is_woken_by_a_drain_of(SECOND / 2, &mut waiting));
    }
    advance(MILLISECOND / 5).await;
    assert!(is_woken_by_a_drain_of(SECOND / 2, &mut waiting));
    let start = Instant::now();
    waiting.await.unwrap();
    assert_eq!(start.elapsed(), SECOND / 2);
}

#[tokio::test(start_paused = true)]
async fn a_change_for_all_who_wait_wakes_the_first_of_them_only() {
    let config = limit(1).max_wait(3_600 * SECOND);
    let layer = config.classify(hinting(2 * SECOND)).build().unwrap();
    let (client, handle) = (layer.layer(echo()), layer.handle());
    let mut answer = client.clone().call(429);
    let mut waiting: Vec<_> = (0..100).map(|_| client.clone().call(1)).collect();
    let tasks: Vec<_> = waiting.iter().map(|_| Task::default()).collect();
    for (call, task) in waiting.iter_mut().zip(&tasks) {
        assert!(task.poll(call).is_pending());
    }
    let mut assert_one_is_woken = |by: &str| {
        let woken = tasks.iter().map(Task::was_woken);
        assert_eq!(woken.filter(|woken| *woken).count(), 1, "{by}");
        assert!(tasks[0].poll(&mut waiting[0]).is_pending(), "{by}");
    };
    handle.pause(SECOND);
    assert_one_is_woken("a drain");
    assert!(Task::default().poll(&mut answer).is_ready());
    assert_one_is_woken("an answer that asks for more time");
    handle.set_rate(Rate::per_second(50)).unwrap();
    assert_one_is_woken("a rate");
    handle.set_burst(2).unwrap();
    assert_one_is_woken("a burst");
    assert_eq!(handle.waiting(), 100);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_move_on_at_a_new_rate() {
    let layer = waiting_limit(1);
    let ends = Ends::default();
    call(&layer, 1).await.unwrap();
    for number in 0..20 {
        begin(&layer, number, &ends);
    }
    sleep(Duration::from_millis(25)).await;
    assert_eq!(ends.lock().unwrap().len(), 2);
    let handle = layer.handle();
    // Half a token is missing.
    handle.set_rate(Rate::per_second(1_000)).unwrap();
    assert_eq!(handle.rate(), Rate::per_second(1_000));
    sleep(Duration::from_millis(5)).await;
    settle().await;
    assert_eq!(ends.lock().unwrap().len(), 7);
    handle.set_rate(Rate::per_second(10)).unwrap();
    settle().await;
    // The next token comes in 100 ms, the others 100 ms apart, and no call waits for more than 1 s in all.
    assert_eq!(handle.waiting(), 9);
    sleep(10 * SECOND).await;
    assert_eq!(ends.lock().unwrap().len(), 16);
    assert_eq!(handle.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_keeps_nobody_from_hearing_that_he_is_rejected() {
    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("the waker panics");
        }
    }

    let layer = waiting_limit(1);
    call(&layer, 1).await.unwrap();
    let (mut client, task) = (layer.layer(echo()), Task::default());
    let (mut first, mut second) = (client.call(1), client.call(1));
    let panics = Waker::from(Arc::new(Panics));
    let mut cx = Context::from_waker(&panics);
    assert!(Pin::new(&mut first).poll(&mut cx).is_pending());
    assert!(task.poll(&mut second).is_pending());
    let drain = AssertUnwindSafe(|| layer.handle().pause(2 * SECOND));
    assert!(catch_unwind(drain).is_err());
    assert!(task.was_woken());
    assert!(second.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_costs_more_than_a_new_burst_is_rejected() {
    let layer = limit(10).max_wait(SECOND).cost(|request: &u32| *request);
    let layer = layer.build().unwrap();
    call(&layer, 10).await.unwrap();
    let client = layer.layer(echo());
    let [mut dear, mut cheap] =
        [8, 2].map(|cost| tokio_test::task::spawn(client.clone().oneshot(cost)));
    assert!(dear.poll().is_pending() && cheap.poll().is_pending());
    layer.handle().set_burst(5).unwrap();
    assert!(dear.is_woken() && cheap.is_woken());
    let Poll::Ready(refused) = dear.poll() else {
        panic!("it waits for more than there will ever be");
    };
    assert_eq!(rejection(refused), (ErrorKind::TooCostly, None));
    assert!(cheap.poll().is_pending());
    sleep(2 * INTERVAL).await;
    assert!(cheap.poll().is_ready(), "it has moved up");
}

#[tokio::test(start_paused = true)]
async fn a_handle_reads_and_steers() {
    let layer = limit(10).build().unwrap();
    let handle = layer.handle();
    assert_eq!(handle.name(), "search");
    assert_eq!((handle.rate(), handle.burst()), (Rate::per_second(100), 10));
    assert_eq!((handle.available(), handle.waiting()), (10, 0));
    for _ in 0..6 {
        call(&layer, 1).await.unwrap();
    }
    handle.set_rate(Rate::per_second(1)).unwrap();
    assert_eq!(handle.available(), 4, "what was used up stays used up");
    handle.set_burst(20).unwrap();
    assert_eq!((handle.burst(), handle.available()), (20, 14));
    assert!(handle.is_available());
    assert_eq!(burst(&layer).await, 14);
    assert!(!handle.is_available());
    assert_eq!(rejection(call(&layer, 1).await), come_again(SECOND));
    advance(SECOND).await;
    assert!(handle.is_available());
}

#[tokio::test(start_paused = true)]
async fn a_handle_refuses_what_makes_no_sense_and_changes_nothing() {
    let layer = limit(10).build().unwrap();
    let handle = layer.handle();
    let refused = |result: Result<(), ConfigError>, field, value| {
        let error = result.unwrap_err();
        assert_eq!((error.layer(), error.name()), ("rate limit", "search"));
        assert_eq!((error.field(), error.value()), (field, value));
    };
    refused(handle.set_rate(Rate::per_second(0)), "rate", "0 per 1s");
    refused(handle.set_burst(0), "burst", "0");
    handle.set_burst(1_000_000_000).unwrap();
    let slow = handle.set_rate(Rate::per_second(1));
    refused(slow, "burst", "1000000000");
    assert_eq!(handle.rate(), Rate::per_second(100));
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    let refused = |config: Config, field: &str, value: &str| {
        let error = config.build().unwrap_err();
        assert_eq!(error.layer(), "rate limit");
        assert_eq!((error.field(), error.value()), (field, value), "{error}");
        assert!(error.to_string().contains(error.permitted()));
    };
    refused(
        RateLimitLayer::config("", Rate::per_second(1)),
        "name",
        "\"\"",
    );
    let of = |rate| RateLimitLayer::config("a", rate);
    let year = 365 * 24 * 3_600 * SECOND;
    for (rate, value) in [
        (Rate::per_second(0), "0 per 1s"),
        (Rate::per(1, Duration::ZERO), "1 per 0ns"),
        (Rate::per_second(1_000_000_001), "1000000001 per 1s"),
        (Rate::per(1, year + SECOND), "1 per 31536001s"),
    ] {
        refused(of(rate), "rate", value);
    }
    refused(
        of(Rate::per(1, Duration::MAX)),
        "rate",
        &format!("1 per {:?}", Duration::MAX),
    );
    refused(limit(0), "burst", "0");
    refused(of(Rate::per(1, year)).burst(2), "burst", "2");
    refused(
        of(Rate::per_second(1)).burst(u32::MAX),
        "burst",
        "4294967295",
    );
    of(Rate::per_second(1_000)).burst(u32::MAX).build().unwrap();
    of(Rate::per(1, year)).burst(1).build().unwrap();
    for (time, value) in [
        (Duration::ZERO, "0ns".to_owned()),
        (Duration::MAX, format!("{:?}", Duration::MAX)),
    ] {
        refused(limit(1).max_wait(time), "max_wait", &value);
        refused(limit(1).max_retry_after(time), "max_retry_after", &value);
    }
    assert_eq!(limit(1), limit(1).mode(Mode::Enforce));
    assert_ne!(limit(1), limit(2));
}

#[test]
#[should_panic(expected = "rate is 0 per 1s, but must be")]
fn new_panics_with_the_reason() {
    drop(RateLimitLayer::new("search", Rate::per_second(0)));
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_forgotten_only_when_a_new_one_would_act_the_same() {
    let layer = waiting_limit(1);
    let is_evictable = || layer.is_evictable(Instant::now());
    assert!(is_evictable());
    call(&layer, 1).await.unwrap();
    assert!(!is_evictable(), "a token is missing");
    let waits = begin(&layer, 0, &Ends::default());
    settle().await;
    advance(2 * SECOND).await;
    assert!(!is_evictable(), "one waits");
    waits.await.unwrap();
    assert!(!is_evictable());
    advance(INTERVAL).await;
    assert!(is_evictable());
    layer.handle().pause(SECOND);
    assert!(!is_evictable(), "it is drained");
    advance(2 * SECOND).await;
    assert!(is_evictable());
    layer.handle().set_burst(2).unwrap();
    assert!(!is_evictable(), "it is not what it was built as");
    layer.handle().set_burst(1).unwrap();
    assert!(is_evictable());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_stands_still_lets_no_more_than_the_burst_through() {
    let layer = limit(10).build().unwrap();
    assert_eq!(burst(&layer).await, 10);
    for _ in 0..10_000 {
        assert!(call(&layer, 1).await.is_err());
    }
    advance(400 * 24 * 3_600 * SECOND).await;
    assert_eq!(burst(&layer).await, 10, "nor after a long time");
}

#[test]
fn threads_never_take_more_than_there_is() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let _context = runtime.enter();
    let layer = limit(1_000).build().unwrap();
    let admitted = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let _context = runtime.enter();
                for _ in 0..1_000 {
                    let mut call = layer.layer(echo()).call(1);
                    if let Poll::Ready(Ok(1)) = Task::default().poll(&mut call) {
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                    let rate = 100 + admitted.load(Ordering::Relaxed) % 2;
                    layer.handle().set_rate(Rate::per_second(rate)).unwrap();
                }
            });
        }
    });
    // Rounding up can cost a token, and brings none.
    let admitted = admitted.into_inner();
    assert!((990..=1_000).contains(&admitted), "{admitted}");
}

/// The rows of a recorder: name, labels, and value or count. Without the limits in force, and without other layers.
fn rows(snapshotter: &Snapshotter) -> Vec<(String, u64)> {
    let rows = snapshotter.snapshot().into_iter();
    let mut rows: Vec<_> = rows
        .map(|(key, value)| {
            assert!(snapshotter.is_described(&key), "{key:?} is described");
            let labels = key.labels();
            let labels: Vec<_> = labels
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            let value = match value {
                DebugValue::Counter(count) => count,
                DebugValue::Gauge(level) => level as u64,
                DebugValue::Histogram(values) => values.len() as u64,
            };
            let name = key.name().trim_start_matches("buttress_");
            (format!("{name} {}", labels.join(" ")), value)
        })
        .filter(|(row, _)| !row.starts_with("rate_limit_") && !row.contains("layer=bulkhead"))
        .collect();
    rows.sort();
    rows
}

#[tokio::test(start_paused = true)]
async fn rejections_are_counted_by_reason_and_mode() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    for mode in [Mode::Enforce, Mode::Observe] {
        let layer = named_limit("refusing", 1)
            .cost(|request: &u32| *request)
            .mode(mode);
        let layer = layer.build().unwrap();
        for cost in [1, 1, 1, 2] {
            drop(call(&layer, cost).await);
        }
        let layer = named_limit("refusing", 1).max_wait(SECOND).mode(mode);
        let layer = layer.build().unwrap();
        call(&layer, 1).await.unwrap();
        drop(Deadline::after(MILLISECOND).scope(call(&layer, 1)).await);
    }
    let row = |reason, mode, count| {
        let labels = format!("name=refusing layer=rate_limit reason={reason} mode={mode}");
        (format!("rejections_total {labels}"), count)
    };
    assert_eq!(
        rows(&recorder.snapshotter()),
        [
            ("queue_depth name=refusing layer=rate_limit".to_owned(), 0),
            row("deadline_exceeded", "enforce", 1),
            row("deadline_exceeded", "observe", 1),
            row("rate_limited", "enforce", 2),
            row("rate_limited", "observe", 2),
            row("too_costly", "enforce", 1),
            row("too_costly", "observe", 1),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_observing_limit_counts_only_what_would_be_rejected() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let mut counted = Vec::new();
    for mode in [Mode::Enforce, Mode::Observe] {
        let layer = named_limit("comparing", 1).max_wait(SECOND / 10).mode(mode);
        let layer = layer.build().unwrap();
        // Ten may wait; and ten more, 50 ms later, of which five may.
        for _ in 0..2 {
            let calls: Vec<_> = (0..20)
                .map(|_| tokio::spawn(layer.layer(echo()).oneshot(1)))
                .collect();
            settle().await;
            sleep(SECOND / 20).await;
            drop(calls);
        }
        sleep(SECOND).await;
        call(&layer, 1).await.unwrap();
        counted.push(rejections(&snapshotter));
    }
    assert_eq!(counted[0], counted[1]);
    assert_eq!(counted[0], 9 + 15);
}

/// The rejections since this was last asked.
fn rejections(snapshotter: &Snapshotter) -> u64 {
    let rows = rows(snapshotter).into_iter();
    rows.filter(|(row, _)| row.starts_with("rejections_total"))
        .map(|(_, count)| count)
        .sum()
}

#[tokio::test(start_paused = true)]
async fn waits_are_measured_and_the_gauge_returns_to_zero_after_a_storm_of_cancels() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let layer = named_limit("storm", 1)
        .max_wait(SECOND / 10)
        .build()
        .unwrap();
    let ends = Ends::default();
    call(&layer, 1).await.unwrap();
    let depth = "queue_depth name=storm layer=rate_limit";
    let gauge = |rows: &[(String, u64)]| {
        let row = rows.iter().find(|(row, _)| row == depth);
        row.expect("it is published").1
    };
    for _ in 0..20 {
        let calls: Vec<_> = (0..10).map(|number| begin(&layer, number, &ends)).collect();
        settle().await;
        assert_eq!(layer.handle().waiting(), 10);
        advance(MILLISECOND).await;
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        settle().await;
        assert_eq!(layer.handle().waiting(), 0);
        assert_eq!(gauge(&rows(&snapshotter)), 0);
        advance(SECOND).await;
        call(&layer, 1).await.unwrap();
    }
    for number in 0..10 {
        begin(&layer, number, &ends);
    }
    settle().await;
    assert!(call(&layer, 1).await.is_err(), "it does not wait");
    sleep(SECOND / 20).await;
    settle().await;
    layer.handle().pause(SECOND);
    settle().await;
    let wait = |result| format!("queue_wait_seconds name=storm layer=rate_limit result={result}");
    assert_eq!(
        rows(&snapshotter),
        [
            (depth.to_owned(), 0),
            (wait("admitted"), 5),
            (wait("cancelled"), 0),
            (wait("rejected"), 5),
            (
                "rejections_total name=storm layer=rate_limit reason=rate_limited mode=enforce"
                    .to_owned(),
                6
            ),
        ],
        "the ones that were cancelled have been read before"
    );
}

#[tokio::test(start_paused = true)]
async fn a_thread_that_is_held_up_does_not_bring_a_former_level_back() {
    let recorder = Steered::new("buttress_queue_depth");
    let _installed = metrics::set_default_local_recorder(&recorder);
    let layer = named_limit("held up", 1).max_wait(SECOND).build().unwrap();
    call(&layer, 1).await.unwrap();
    let (mut client, task) = (layer.layer(echo()), Task::default());
    let (mut first, mut last) = (client.call(1), client.call(1));
    for call in [&mut first, &mut last] {
        assert!(task.poll(call).is_pending());
    }
    // It is time to publish again.
    advance(SECOND / 2).await;
    // A thread sets the gauge when it is new to the recorder, and then by the call that leaves.
    recorder.hold_up(2, || drop(first), || drop(last));
    assert_eq!(recorder.level(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_shown_before_the_time_comes_to_publish_again() {
    let recorder = Steered::new("buttress_queue_depth");
    let _installed = metrics::set_default_local_recorder(&recorder);
    let layer = named_limit("burst", 100).max_wait(9 * SECOND);
    let layer = layer.build().unwrap();
    layer.handle().pause(SECOND);
    let (mut client, task) = (layer.layer(echo()), Task::default());
    let mut calls: Vec<_> = (0..100).map(|_| client.call(1)).collect();
    for call in &mut calls {
        assert!(task.poll(call).is_pending());
    }
    // Half or twice as many, and a few.
    assert!((46..=100).contains(&recorder.level()));
    calls.truncate(1);
    assert!((1..=10).contains(&recorder.level()));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_caller_gives_up_counts_as_cancelled() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let layer = named_limit("given up", 1).max_wait(SECOND).build().unwrap();
    call(&layer, 1).await.unwrap();
    timeout(INTERVAL / 2, call(&layer, 1)).await.unwrap_err();
    let rows = rows(&recorder.snapshotter());
    let wait = "queue_wait_seconds name=given up layer=rate_limit result=cancelled";
    assert!(rows.contains(&(wait.to_owned(), 1)), "{rows:?}");
    assert_eq!(layer.handle().waiting(), 0);
}

/// A request and a response that may go to another thread, but not be used by two at once.
#[derive(Clone, Debug)]
struct NotSync(PhantomData<Cell<u8>>);

#[test]
fn services_and_calls_may_go_to_other_threads() {
    fn shareable<T: Clone + Send + Sync + Unpin + 'static>(_: &T) {}
    fn sendable<T: Send + 'static>(_: &T) {}
    let layer = RateLimitLayer::new("threads", Rate::per_second(1));
    let inner: BoxCloneSyncService<NotSync, NotSync, BoxError> =
        BoxCloneSyncService::new(service_fn(|request| ready(Ok(request))));
    let mut service: RateLimit<_> = layer.wrap::<NotSync, _>(inner);
    shareable(&layer);
    shareable(&service);
    shareable::<Handle>(&layer.handle());
    sendable(&service.call(NotSync(PhantomData)));
    let _config: Config<_, ErrorsAreFailures> = limit(1);
}

/// What the probe answers is classified by the default classifier as well.
#[tokio::test(start_paused = true)]
async fn errors_of_the_inner_service_come_out_untouched() {
    let layer = limit(2).build().unwrap();
    let probe = Probe::new(&[Plan::FAILS]);
    let failed: Result<Response, _> = layer.layer(probe.clone()).oneshot(1).await;
    assert_eq!(
        failed.unwrap_err().service_error().unwrap().to_string(),
        "connection reset"
    );
    layer.layer(probe).oneshot(1).await.unwrap();
}
